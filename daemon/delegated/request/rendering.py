"""A request written as Markdown that reads well and reads back the same. Standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Final

from delegated.request import Options, Request
from delegated.request.marks import (
    CONTROL,
    END,
    LANGUAGE,
    RULE,
    SETEXT,
    Fence,
    clean,
    clean_issue,
    clean_path,
    fence,
    heading,
    phrase,
    section,
)

_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*(?<![.])")
_DEEP: Final = re.compile(r"(?:[ \t]|[-+*>]|\d{1,9}[.)]){12,}")
_UNSAFE_IN_YAML: Final = re.compile(
    "[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


def write(request: Request, *, end_mark: bool) -> str:
    """Write the whole request; see `delegated.request.render`.

    Values that nobody has parsed yet, such as a log with lone carriage returns from a command line, are brought into
    the form that they will be read in; a NUL, which no request may hold, becomes U+FFFD.
    """
    files = [
        f"### {_span(file.path)}\n\n{_fenced(_lines(file.text), file.language)}"
        for file in request.contents
        if _path(file.path)
    ]
    paths = "\n".join(f"- {_span(path)}" for path in request.files if _path(path))
    parts = [
        _front_matter(request.options),
        _section("Issue", _text(clean_issue(request.issue))),
        _section("Context", _text(clean(request.context))),
        _section("Error Logs", _fenced(logs) if (logs := clean(request.logs)) else ""),
        _section("Attempted Fixes", _numbered(request.attempted_fixes)),
        _section("Files", paths),
        _section("Questions", _numbered(request.questions)),
        _section("File Contents", "\n\n".join(files)),
        "<!-- END -->\n" if end_mark else "",
    ]
    return "\n".join(filter(None, parts)).replace("\0", "\ufffd")


def _lines(text: str) -> str:
    return re.sub(r"\r\n?", "\n", text).rstrip("\n")


def _section(name: str, body: str) -> str:
    return f"## {name}\n\n{body}\n" if body else ""


def _front_matter(options: Options) -> str:
    lines = []
    for option in fields(options):
        value = getattr(options, option.name)
        if value == option.default:
            continue
        if isinstance(value, tuple):
            written = f"[{', '.join(map(_scalar, value))}]"
        elif isinstance(value, bool):
            written = "true" if value else "false"
        else:
            written = _scalar(value) if isinstance(value, str) else repr(value)
        lines.append(f"{option.name}: {written}\n")
    return f"---\n{''.join(lines)}---\n" if lines else ""


def _scalar(text: str) -> str:
    if _WORD.fullmatch(text) and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off"):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNSAFE_IN_YAML.sub(lambda match: f"\\U{ord(match.group()):08x}", quoted)


def _path(path: str) -> str:
    return clean_path(CONTROL.sub(" ", path))


def _span(path: str) -> str:
    """Write a path as a code span whose ticks are longer than any inside."""
    path = _path(path)
    ticks = "`" * (max(map(len, re.findall("`+", path)), default=0) + 1)
    return f"{ticks}{path}{ticks}"


def _numbered(items: tuple[str, ...]) -> str:
    texts = filter(None, (clean(item).strip() for item in items))
    return "\n".join(_item(f"{number}. ", _text(text)) for number, text in enumerate(texts, 1))


def _item(marker: str, text: str) -> str:
    first, *others = text.split("\n")
    indent = " " * len(marker)
    return "\n".join([marker + first, *(indent + line if line else "" for line in others)])


def _text(text: str) -> str:
    """Write a text as it is, or in a fence where a line of it would be read as structure."""
    return text if not text or _is_plain(text) else _fenced(text)


def _fenced(text: str, language: str = "") -> str:
    runs = (found.mark for found in map(_loose_fence, text.split("\n")) if found)
    ticks = "`" * max(3, max(map(len, runs), default=0) + 1)
    body = text + "\n" if text else ""
    language = language if LANGUAGE.fullmatch(language) else ""
    return f"{ticks}{language}\n{body}{ticks}"


def _loose_fence(line: str) -> Fence | None:
    found = re.match(r"\s*(`{3,})", line)
    return Fence(0, found[1], "") if found else None


def _is_plain(text: str) -> bool:
    """Say whether a text under a heading of the second level, or in a list item, reads back as it is.

    A text that is one fence whole would be taken for the wrapping that it lacks. Doubt costs a fence, no more.
    """
    lines = text.split("\n")
    if fence(lines[0]) is not None:
        return False
    return all(not _is_structure(line) for line in _outside_fences(lines))


def _outside_fences(lines: list[str]) -> Iterator[str]:
    """Yield the lines outside of fences that start in the first column and are closed; a fence left open is yielded."""
    opening: tuple[int, Fence] | None = None
    for at, line in enumerate(lines):
        if opening is not None:
            if opening[1].closed_by(line):
                opening = None
        elif (found := fence(line)) is not None and found.indent == 0:
            opening = at, found
        else:
            yield line
    if opening is not None:
        yield lines[opening[0]]


def _is_structure(line: str) -> bool:
    if (titled := heading(line)) is not None and (titled[0] <= 2 or section(titled[1]) is not None):
        return True
    return bool(
        line.lstrip().startswith("<")
        or "```" in line
        or "~~~" in line
        or RULE.match(line)
        or SETEXT.match(line)
        or END.match(line)
        or _DEEP.match(line)
        or phrase(line) is not None
    )
