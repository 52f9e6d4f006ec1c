"""A request, parsed once at the door from Markdown, YAML or JSON."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field

from delegated.errors import Problem, RequestError


@dataclass(frozen=True, slots=True)
class Embedded:
    """A file that the request carries itself under *File Contents*. `line` is where it starts in the request (1-based).

    `text` ends in exactly one newline, or is empty.
    """

    path: str
    text: str
    language: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """What a request may ask for beside its words; None or empty means: as configured."""

    id: str = ""
    draft: bool = False
    models: tuple[str, ...] = ()
    compare: bool = False
    force: bool = False
    priority: int = 0
    max_cost_usd: float | None = None
    max_input_tokens: int | None = None
    deadline_s: float | None = None
    repro: str = ""
    test: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants to know, and what they gave to find it out. Always made by `parse`."""

    issue: str
    context: str = ""
    logs: str = ""
    attempted_fixes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    contents: tuple[Embedded, ...] = ()
    questions: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    warnings: tuple[str, ...] = ()
    earlier: str = ""  # what was answered before, and asked about it since; of a follow-up


def parse(data: bytes, suffix: str) -> Request:
    """Read a request file's bytes; `suffix` is one of `.md`, `.yaml`, `.yml`, `.json`.

    Raises `RequestError` with every problem and its line. Never raises anything else.
    """
    # Imported here because a client that only writes a request needs neither the checks nor the parsers.
    from delegated.request.fields import build, from_tree
    from delegated.request.tree import read_json, read_yaml

    suffix = suffix.lower()
    text = decode(data)
    if suffix == ".md":
        from delegated.request.markdown import read

        return build(read(text))
    if suffix in (".yaml", ".yml"):
        return build(from_tree(read_yaml(text)))
    if suffix == ".json":
        return build(from_tree(read_json(text)))
    raise RequestError((Problem(None, f"a request file that ends in {suffix!r}", "use .md, .yaml, .yml or .json"),))


def render(request: Request, *, end_mark: bool = False) -> str:
    """Write a request as Markdown that `parse` reads back to an equal request. Standard library only.

    Equal but for `warnings` and `Embedded.line`. `end_mark` ends the text with the line that tells the daemon that
    nothing follows; whoever renames a finished file into the folder does not need it.
    """
    from delegated.request.rendering import write

    return write(request, end_mark=end_mark)


def decode(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 with its mark, to text whose lines end in a line feed alone."""
    encoding, skipped = "utf-8", 0
    if data.startswith(codecs.BOM_UTF8):
        data, skipped = data[3:], 3
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16-le" if data.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
        data, skipped = data[2:], 2
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, errors="replace")
        raise RequestError(
            (_undecodable(data, error, before, encoding, skipped),),
            unfinished=error.end >= len(data) and ("unexpected end" in error.reason or "truncated" in error.reason),
        ) from error
    if (nul := text.find("\0")) >= 0:
        offset = skipped + len(text[:nul].encode(encoding))
        problem = Problem(_line(text[:nul]), f"a NUL byte at offset {offset}", "save the file as UTF-8 text")
        raise RequestError((problem,))
    return re.sub(r"\r\n?", "\n", text)


def _undecodable(data: bytes, error: UnicodeDecodeError, before: str, encoding: str, skipped: int) -> Problem:
    bad = data[error.start]
    found = f"byte 0x{bad:02x} at offset {error.start + skipped} is not {encoding.upper()}"
    if encoding == "utf-8":
        guess = bytes([bad]).decode("cp1252", errors="ignore")
        if guess.isprintable() and guess:
            found += f" (in Windows-1252 it would be {guess!r})"
    return Problem(_line(before), found, "save the file as UTF-8")


def _line(before: str) -> int:
    return len(re.findall(r"\r\n?|\n", before)) + 1
