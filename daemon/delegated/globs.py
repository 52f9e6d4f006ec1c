"""Which paths a pattern means: the globs of a request and the lines of a .gitignore, in linear time.

Both are written by strangers. A pattern such as `*a*a*a*a*a*b` keeps a matcher that backtracks busy for minutes; here a
segment is a regular expression of atomic groups, and `**` is a table over segments, so nothing backtracks.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_PATTERN: Final = 1_000  # characters
MAX_RULES: Final = 2_000  # lines of one ignore file
_MAGIC: Final = re.compile(r"[*?\[]")
_ANY: Final = None  # the segment `**`: any number of directories

Segment = re.Pattern[str] | str | None


def is_glob(pattern: str) -> bool:
    """Say whether a pattern has wildcards."""
    return _MAGIC.search(pattern) is not None


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern over whole relative POSIX paths: `*` and `?` stay within one name, `**` spans directories."""

    segments: tuple[Segment, ...]

    def match(self, parts: Sequence[str]) -> bool:
        """Say whether the pattern means the path made of `parts`."""
        return _match(self.segments, parts)

    def below(self, parts: Sequence[str]) -> bool:
        """Say whether the pattern may mean something below the directory made of `parts`."""
        return any(_match(self.segments[:number], parts) for number in range(1, len(self.segments))) or (
            self.segments[-1] is _ANY and _match(self.segments, parts)
        )


def glob(pattern: str) -> Glob:
    """Read a glob; never raises. One that is too long matches nothing."""
    if len(pattern) > MAX_PATTERN:
        return Glob(("",))
    return Glob(tuple(_segment(text) for text in pattern.split("/")))


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an ignore file. `anchored` rules are held against the path, others against the last name only."""

    segments: tuple[Segment, ...]
    anchored: bool
    only_directories: bool
    ignores: bool


def rules(text: str) -> tuple[Rule, ...]:
    """Read an ignore file as git does; never raises. Lines beyond `MAX_RULES` and overlong ones are left out."""
    found: list[Rule] = []
    for raw in text.removeprefix("\ufeff").split("\n")[:MAX_RULES]:
        line = _without_trailing_spaces(raw.removesuffix("\r"))
        if not line or line.startswith("#") or len(line) > MAX_PATTERN:
            continue
        ignores = not line.startswith("!")
        line = line if ignores else line[1:]
        only_directories = line.endswith("/")
        line = line.removesuffix("/")
        anchored = "/" in line
        parts = line.removeprefix("/").split("/")
        if not line or "" in parts:  # git matches nothing by `/`, `//` or `a//b`
            continue
        found.append(Rule(tuple(_segment(part) for part in parts), anchored, only_directories, ignores))
    return tuple(found)


def ignored(levels: Sequence[tuple[int, Sequence[Rule]]], parts: Sequence[str], *, directory: bool) -> bool:
    """Say whether the path made of `parts` is ignored, none of its directories being so.

    `levels` are the ignore files that apply, outermost first, as (depth of their directory, rules): the innermost
    file that says anything wins, and in it the last line.
    """
    for depth, lines in reversed(levels):
        below = parts[depth:]
        for rule in reversed(lines):
            if rule.only_directories and not directory:
                continue
            if _match(rule.segments, below if rule.anchored else below[-1:]):
                return rule.ignores
    return False


def _segment(text: str) -> Segment:
    if text.startswith("**") and not text.strip("*"):
        return _ANY
    if not _MAGIC.search(text) and "\\" not in text:
        return text
    try:
        return re.compile(fnmatch.translate(_plain(text)))
    except re.error:  # a set that makes no sense means itself
        return text


def _plain(text: str) -> str:
    """Turn git's escapes and `[^…]` into what fnmatch understands."""
    text = re.sub(r"\\(.)", lambda found: f"[{found[1]}]" if found[1] in "*?[" else found[1], text)
    return text.replace("[^", "[!")


def _without_trailing_spaces(line: str) -> str:
    kept = line.rstrip(" ")
    escaped = kept.endswith("\\") and len(kept) < len(line)
    return kept + " " if escaped else kept


def _match(segments: Sequence[Segment], parts: Sequence[str]) -> bool:
    """Match by a table: `reach[i]` says whether the segments so far can stand for the first i parts."""
    if _ANY not in segments:  # most rules are such, and each is asked about every file
        return len(segments) == len(parts) and all(map(_same, segments, parts))
    reach = [True, *(False for _ in parts)]
    for number, segment in enumerate(segments):
        if segment is _ANY:
            last = number == len(segments) - 1
            seen = False
            for index in range(len(reach)):
                # `a/**` means what is in a, not a itself
                here, reach[index] = reach[index], seen if last and number else seen or reach[index]
                seen = seen or here
            continue
        for index in range(len(parts), 0, -1):
            reach[index] = reach[index - 1] and _same(segment, parts[index - 1])
        reach[0] = False
    return reach[-1]


def _same(segment: Segment, name: str) -> bool:
    if isinstance(segment, str):
        return segment == name
    return segment is not None and segment.match(name) is not None
