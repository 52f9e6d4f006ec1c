"""Files that a request carries itself: a path and a fenced block each, even when the code holds fences and headings.

The original script put every file between three backticks, also a file that holds such lines itself, where CommonMark
ends the block. A section is therefore read twice: strictly, and with the fences inside a file paired. In pairs, a fence
with an info string opens, a bare one closes what is open, and a bare one with nothing open ends the file only where a
path, a section or the end of the text follows. A path with its fence inside a block that a bare fence opened shows that
the bare fence was the end of the file. Where the two differ, the pairs are right if they come out even, unless the
strict reading finds more files and leaves nothing between them: then a file holds a fence that nobody closed. A block
whose fence is longer than three backticks, or of tildes, is always read strictly: its writer knew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from delegated.request import Embedded
from delegated.request.marks import (
    CODE_SPAN,
    COMMENT,
    LANGUAGE,
    MAX_PATH,
    RULE,
    Fence,
    clean_path,
    code,
    fence,
    heading,
    section,
)

_BOLD = re.compile(r"(?:\*\*|__)(.+?)(?:\*\*|__):?[ \t]*$")
_LONE_SPAN = re.compile(r"(`+[^`]+`+):?[ \t]*$")


@dataclass(slots=True)
class Reading:
    """What stands under *File Contents*: the files, the lines that belong to none, and the line where it ends.

    `paired` says that this is not how CommonMark reads the text, so that what follows must be read anew. `doubtful`
    says that the strict reading leaves text between the files.
    """

    files: list[Embedded] = field(default_factory=list)
    strays: list[int] = field(default_factory=list)
    end: int = 0
    paired: bool = False
    doubtful: bool = False
    unclosed: int | None = None


@dataclass(slots=True)
class Patience:
    """How many lines may still be looked at for the pairs of one page: each is, once, on one that people write.

    Where fences by the thousand never come out even, each would be paired to the page's end. Then it is read strictly.
    """

    lines: int


def read(lines: list[str], start: int, level: int, patience: Patience) -> Reading:
    """Read the files from line `start` (0-based) on, below a heading of `level`."""
    strict = _walk(lines, start, level, None)
    paired = _walk(lines, start, level, patience)
    assert strict is not None, "only pairing gives up"
    if paired is None or (paired.end == strict.end and paired.files == strict.files):
        return strict
    return paired if strict.doubtful or len(paired.files) >= len(strict.files) else strict


def opens(lines: list[str], at: int) -> tuple[int, str, int] | None:
    """Return the form, path and fence line of a file that starts at line `at`, or None.

    The form is the heading's level, or 0 for a bold or code-spanned path in a line of its own.
    """
    line = lines[at]
    if (titled := heading(line)) is not None:
        form, text = titled
    elif match := _BOLD.match(line) or _LONE_SPAN.match(line):
        form, text = 0, match[1]
    else:
        return None
    path = _path(text)
    if not path or section(text) is not None:
        return None
    below = _skip(lines, at + 1)
    return (form, path, below) if below < len(lines) and fence(lines[below]) is not None else None


def _path(text: str) -> str:
    if len(text) > MAX_PATH + 100:
        return ""
    text = re.sub(r"(?i)\Afile(?:\s*path)?:\s*", "", text.strip())
    span = CODE_SPAN.match(text)
    if span is not None:
        return clean_path(span[2])
    text = text.strip("*").removesuffix(":")
    if text.endswith(")"):
        text = text.partition(" (")[0]
    looks_like_one = not re.search(r"\s", text) or "/" in text or re.search(r"\.\w+\Z", text)
    return clean_path(text) if looks_like_one else ""


def _skip(lines: list[str], at: int) -> int:
    while at < len(lines) and (not lines[at].strip() or RULE.match(lines[at]) or COMMENT.match(lines[at])):
        at += 1
    return at


def _ends_section(lines: list[str], at: int, level: int) -> bool:
    titled = heading(lines[at])
    return titled is not None and (section(titled[1]) is not None or titled[0] <= level)


def _starts_file(lines: list[str], at: int, level: int, form: int | None) -> tuple[int, str, int] | None:
    """`opens`, if it is of the form that this section has begun with."""
    found = opens(lines, at)
    if found is None or form not in (None, found[0]):
        return None
    # A heading as high as the section's own is a path only if it cannot be a title.
    return None if 0 < found[0] <= level and not re.search(r"[./]", found[1]) else found


def _walk(lines: list[str], start: int, level: int, pairing: Patience | None) -> Reading | None:
    """Read the section in one way; None where pairing does not come out even, or takes too long."""
    reading = Reading(paired=pairing is not None)
    form: int | None = None
    at = start
    while (at := _skip(lines, at)) < len(lines):
        found = _starts_file(lines, at, level, form)
        if found is not None:
            form, path, below = found
            opening = fence(lines[below])
            assert opening is not None
            by_pairs = pairing if opening.mark == "```" else None
            if by_pairs is None:
                end = _end_strictly(lines, below, opening)
            else:
                end = _end_by_pairs(lines, below, level, form, by_pairs)
            if end is None:
                if by_pairs is not None:
                    return None
                reading.doubtful, reading.unclosed, end = True, below, len(lines)
            text = code(lines[below + 1 : end], opening).rstrip("\n")
            language = LANGUAGE.match(opening.info)
            reading.files.append(
                Embedded(path, text + "\n" if text else "", language.group() if language else "", at + 1)
            )
            at = end + 1
        elif _ends_section(lines, at, level):
            break
        else:
            reading.doubtful = reading.doubtful or bool(reading.files)
            stop = at + 1
            if (opening := fence(lines[at])) is not None:
                end = _end_strictly(lines, at, opening)
                stop = len(lines) if end is None else end + 1
            reading.strays.extend(range(at, stop))
            at = stop
    reading.end = min(at, len(lines))
    return reading


def _end_strictly(lines: list[str], below: int, opening: Fence) -> int | None:
    return next((at for at in range(below + 1, len(lines)) if opening.closed_by(lines[at])), None)


def _end_by_pairs(lines: list[str], below: int, level: int, form: int, patience: Patience) -> int | None:
    inner: Fence | None = None
    last_bare = None
    for at in range(below + 1, len(lines)):
        patience.lines -= 1
        if patience.lines < 0:
            return None
        mark = fence(lines[at])
        if mark is None or not mark.mark.startswith("```"):
            in_bare = inner is not None and not inner.info
            if in_bare and last_bare is not None and _starts_file(lines, at, level, form) is not None:
                return last_bare
            continue
        if inner is not None:
            if inner.closed_by(lines[at]):
                inner, last_bare = None, at
        elif mark.info:
            inner = mark
        elif _may_follow(lines, at + 1, level, form):
            return at
        else:
            inner, last_bare = mark, at
    return None


def _may_follow(lines: list[str], at: int, level: int, form: int) -> bool:
    """Say whether a file may end in the line before `at`: only where something starts that is not its text."""
    after = _skip(lines, at)
    if after == len(lines):
        return True
    if _starts_file(lines, after, level, form) is not None:
        return True
    titled = heading(lines[after])
    # A shell block may well begin with `# a comment`, so an unknown heading counts only after an empty line.
    return titled is not None and (section(titled[1]) is not None or (after > at and titled[0] <= level))
