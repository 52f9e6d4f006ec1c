"""What reaches a terminal: data on stdout, talk on stderr, UTF-8 on any console, and nothing that could drive it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO


def clean(text: str) -> str:
    """Return what may be shown: without escape sequences, control characters and what an eye would not see."""
    bare = text.replace("\n", "").replace("\t", "")
    if bare.isascii() and bare.isprintable():
        return text  # the common case does not pay for the import
    from delegated.markdown import clean as harmless

    return harmless(text)


def prepare() -> None:
    """Make stdout and stderr write UTF-8 whatever the console's code page, and never fail on a character.

    One that was closed before we started is the null device, so that no file that is opened later takes its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            with contextlib.suppress(ValueError, OSError):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")


class Unwritten(Exception):
    """What was written on stdout does not arrive there; the text says why."""


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Do all that writes on stdout in here. Raises `Unwritten`; a reader that went away stays a `BrokenPipeError`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten(error.strerror or str(error)) from error


def drop(stream: TextIO) -> None:
    """Have what is left in the buffer go nowhere, so that it raises no further time, now or at the exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


# A key that stands where none belongs (as a model's name, in a configuration) would be repeated by what refuses it.
_KEY: Final = re.compile(r"\bsk-(?=[A-Za-z_-]{0,40}[0-9])[A-Za-z0-9_-]{16,}")


# What a CI runner obeys in the output of a step: GitHub a line that begins with `::`, and it and Azure `##[` anywhere.
_COMMAND: Final = re.compile(r"^([^\S\n]*):(?=:)|#(?=#\w*\[)", re.MULTILINE)


def tame(text: str) -> str:
    """Return text in which a CI runner finds no command: `::error::x` becomes `: :error::x`, and `##[x]` `# #[x]`."""
    return _COMMAND.sub(lambda found: f"{found[1]}: " if found[1] is not None else "# ", text)


def _obeyed() -> bool:
    return bool(os.environ.get("GITHUB_ACTIONS") or os.environ.get("TF_BUILD"))


def _plain(text: str) -> str:
    text = _KEY.sub("[key]", clean(text))
    return tame(text) if _obeyed() else text


def out(text: str = "") -> None:
    """Write data for the caller, cleaned, on stdout."""
    with writing():
        sys.stdout.write(_plain(text) + "\n")


def wrapped(text: str, columns: int, first: str, rest: str) -> None:
    """Write a text for a person in lines of at most `columns`: `first` leads the first one, `rest` the others."""
    import textwrap

    lines = textwrap.wrap(text, max(20, columns), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    for line in lines:
        out(line)


def command(line: str) -> None:
    """Write a command for a CI runner: one line whose values were escaped; the only way in which one gets out."""
    assert not {"\r", "\n"} & {*line}, "a command is one line"
    with writing():
        sys.stdout.write(line + "\n")


def out_exactly(text: str, errors: str = "replace") -> None:
    """Write data for the caller: a program gets the very text, `errors` as of `str.encode`; a terminal never does.

    Nor does the output of a CI's step where a runner would obey what is in it. Raises `Usage` then: it may be changed
    as little as it may be printed. What is redirected into a file is read by no runner.
    """
    if is_terminal(sys.stdout):
        out(text)
        return
    if _obeyed() and tame(_lines(text)) != _lines(text) and not _is_file(sys.stdout):
        from .place import Usage

        raise Usage(
            "not printed as it is: a line of it is a command to the CI runner that reads this output",
            "redirect it into a file: > FILE",
        )
    with writing():
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", errors))
        sys.stdout.buffer.flush()


def _lines(text: str) -> str:
    """Break a text wherever a reader might, and take off what it might not see."""
    return clean("\n".join(text.splitlines()))


def _is_file(stream: TextIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def out_json(value: Any, indent: int | None = 2) -> None:
    """Write JSON on stdout; pure ASCII, so that no console and no pipe can change or obey it."""
    text = json.dumps(value, indent=indent)  # no line of which begins with a colon
    with writing():
        sys.stdout.write((text.replace("##", "#\\u0023") if _obeyed() else text) + "\n")  # the same value


def say(text: str) -> None:
    """Tell a person something, cleaned, on stderr; where that is full, the work goes on unheard."""
    try:
        sys.stderr.write(_plain(text) + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        drop(sys.stderr)


def warn(text: str) -> None:
    """Warn a person on stderr."""
    say(f"delegate: warning: {text}")


def error(text: str, hint: str = "", *, program: str = "delegate") -> None:
    """Tell what went wrong and what would be right."""
    say(f"{program}: error: {text}")
    if hint:
        say(f"hint: {hint}")


def next_step(*commands: str) -> None:
    """Name the command that comes next."""
    for command in commands:
        say(f"next: {command}")


def is_terminal(stream: TextIO) -> bool:
    """Say whether a person looks at this stream (a `dumb` terminal cannot update a line in place)."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def width(stream: TextIO) -> int | None:
    """Return how many columns a person sees; None when nobody looks, and lines need not be wrapped."""
    if not is_terminal(stream):
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80  # 0: it does not know
    except OSError:
        return 80


class Progress:
    """What goes on, on stderr: one line updated in place on a terminal, else one line per phase.

    Nothing is shown when `quiet`.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = not quiet and is_terminal(sys.stderr)
        self._last = ""
        self._drawn = False

    def phase(self, text: str, seconds: float | None = None) -> None:
        """Show a phase; `seconds` since the start are added on a terminal only."""
        if self._quiet:
            return
        text = " ".join(clean(text).split())
        if self._live:
            since = "" if seconds is None else f"  {seconds:.0f} s"
            room = max(20, (width(sys.stderr) or 80) - 1) - len(since)
            line = (text if len(text) <= room else f"{text[: room - 1]}…") + since
            if line != self._last:
                sys.stderr.write(f"\r{line}\x1b[K")
                sys.stderr.flush()
                self._drawn = True
                self._last = line
        elif text != self._last:
            say(text)
            self._last = text

    def end(self) -> None:
        """Clear the line, so that what follows starts on an empty one."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False
