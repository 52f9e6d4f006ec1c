"""What the logs say went wrong: exceptions, their frames with the code shown, and how they hang together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from delegated.traces import Frame, frames

WIDEST: Final = 4_000  # characters of one line that are read
DEEPEST: Final = 60  # frames of one exception that are kept, the innermost
LINKED: Final = 8  # exceptions of one chain that are kept
_HEAD: Final = "Traceback (most recent call last):"
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]*[A-Za-z]")
_GROUP: Final = re.compile(r"^[ |+\-]*(?=\S)")  # the tree that an ExceptionGroup draws
_ERROR: Final = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:: (.*))?$", re.DOTALL)
_KNOWN: Final = re.compile(r"(?:^|[\s:|])((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)): (\S.*)$")
_MARK: Final = re.compile(r"[~^]+$")
_PYTEST: Final = re.compile(r"E\s+((?:[A-Za-z_]\w*\.)*[A-Z]\w*)(?:: (.*))?$")
_RULE: Final = re.compile(r"_{3,} .+ _{3,}$|={3,} .* ={3,}$")
_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_DURING: Final = "During handling of the above exception, another exception occurred:"

_INSIDE: Final = Frame("<generated code>", 0, "", "python", library=True)  # such as <string>, which has no file

Link = Literal["", "cause", "during"]


@dataclass(frozen=True, slots=True)
class Step:
    """One frame, the line of code that the trace shows for it ("" if none), and which characters it underlines."""

    frame: Frame
    text: str = ""
    mark: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Crash:
    """One exception: its class, its message, its frames (the innermost last), how it came of the one before."""

    kind: str
    message: str
    steps: tuple[Step, ...]
    link: Link = ""

    @property
    def name(self) -> str:
        """The class without its module."""
        return self.kind.rpartition(".")[2]

    @property
    def sentence(self) -> str:
        """The line as Python prints it."""
        return f"{self.kind}: {self.message}" if self.message else self.kind


def chains(text: str) -> list[tuple[Crash, ...]]:
    """Return the exceptions of a text in chains, in the order of the text; within each the most telling comes first.

    That is the cause where one was raised `from` another, and the latest where one broke while another was handled.
    """
    found: list[tuple[Crash, ...]] = []
    for crash in _tracebacks(text) or _pytest(text) or _bare(text):
        before = found.pop()[:LINKED] if crash.link and found else ()
        found.append((*before, crash) if crash.link == "cause" else (crash, *before))
    return found


def _lines(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        if _HEAD in line and "\\n" in line:  # logged as one JSON string
            unfolded = line.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
            yield from (part[:WIDEST].rstrip() for part in unfolded.split("\n"))
        else:
            yield _COLOUR.sub("", line[:WIDEST]).rstrip()


def _tracebacks(text: str) -> list[Crash]:
    found: list[Crash] = []
    steps: list[Step] = []
    link: Link = ""
    margin, inside = 0, False
    for raw in _lines(text):
        if _HEAD in raw:
            margin, inside, steps = raw.index(_HEAD), True, []
            continue
        if _CAUSE in raw or _DURING in raw:
            link = "cause" if _CAUSE in raw else "during"
            continue
        if not inside:
            continue
        # docker or journald put something before every line, a logger before the first one only: the first frame tells
        if not steps and raw[margin : margin + 8] != '  File "' and _GROUP.sub("", raw).startswith('File "'):
            margin = 0
        line = raw[margin:]
        bare = _GROUP.sub("", line)
        if bare.startswith('File "'):
            steps.append(Step(next(iter(frames(bare)), _INSIDE)))
        elif not steps or not line.strip():
            continue
        elif _is_code(line):
            steps[-1] = _shown(steps[-1], line)
        elif error := _ERROR.match(bare):
            found.append(Crash(error[1], (error[2] or "").strip(), tuple(steps[-DEEPEST:]), link))
            inside, link = False, ""
    return found


def _is_code(line: str) -> bool:
    """Say whether this line is the code or the underline below a frame, which stand four characters in."""
    return line.lstrip(" |").strip() != "" and (line.startswith("    ") or bool(re.match(r" *\| {5}", line)))


def _shown(step: Step, line: str) -> Step:
    body = line.lstrip(" |")
    indent = len(line) - len(body)
    if not step.text:
        # the indent is kept in front until the underline, which counts from it, has been seen
        return Step(step.frame, " " * indent + body, None)
    if step.mark is None and _MARK.fullmatch(body):
        start = indent - (len(step.text) - len(step.text.lstrip()))
        return Step(step.frame, step.text, (start, start + len(body))) if start >= 0 else step
    return step


def _pytest(text: str) -> list[Crash]:
    """Read what pytest prints in its own styles: `E   NameError: ...`, with places such as `src/a.py:5: in f`."""
    found: list[Crash] = []
    steps: list[Step] = []
    error: re.Match[str] | None = None
    shown = ""
    for line in [*_lines(text), "=== end ==="]:
        if _RULE.match(line):
            if error and steps:
                found.append(Crash(error[1], (error[2] or "").strip(), tuple(steps[-DEEPEST:])))
            steps, error, shown = [], None, ""
        elif line.startswith(">"):
            shown = line[1:].strip()
        elif line.startswith("E "):
            error = error or _PYTEST.match(line)
        elif ".py:" in line and not line.startswith(" "):
            steps += [Step(frame, shown) for frame in frames(line)[:1] if frame.line]
            shown = ""
        elif steps and not steps[-1].text and line.startswith("    "):
            steps[-1] = Step(steps[-1].frame, line.strip())
    return found


def _bare(text: str) -> list[Crash]:
    """Find the last line that names an exception where there are no frames at all."""
    found = None
    for line in _lines(text):
        found = _KNOWN.search(line[:500]) or found
    return [Crash(found[1], found[2].strip(), ())] if found else []
