"""A unified diff by anyone, taken apart into the changes of each file; what belongs to no named file is in none.

How many lines a hunk has stands in its header, so no line of a file passes for the header of another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

_GIT: Final = re.compile(r"diff --(?:git|cc|combined) ")
_STARTS: Final = re.compile(r"diff |Index: |=== |Only in |Binary files |Files |commit [0-9a-f]{7,64}\b")
_HEADER: Final = re.compile(
    r"(?:---|\+\+\+|(?:rename|copy) (?:from|to)|Index:) (?P<name>.*)"
    r"|=+$|index |(?:old |new |new file |deleted file )?mode |(?:dis)?similarity index "
)
_HUNK: Final = re.compile(r"(@@{1,40})((?: -\d{1,9}(?:,\d{1,9})?){1,40}) \+\d{1,9}(?:,(\d{1,9}))? \1")
_NAME: Final = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^"\t][^\t]*))(?:\t.*)?')  # behind a tab stands a time
_QUOTED: Final = re.compile(r"\\([0-7]{3}|.)")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_MOST_NAME: Final = 4_096  # characters, as many as a path has anywhere


@dataclass(slots=True)
class Section:
    """The changes of one file: its rows, and the paths that its headers name, old and new.

    `words` are those of git's own first row, which does not tell where a name ends. `broken` when a change has no name
    that can be read, or a hunk has other lines than its header says.
    """

    by_git: bool = False
    broken: bool = False
    hunks: int = 0
    paths: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    _whole: bool = False  # the new name was read: another pair of names is another file's

    @property
    def text(self) -> str:
        """The rows that belong to the file."""
        return "".join(f"{row}\n" for row in self.rows)

    def ends_before(self, row: str) -> bool:
        """Say whether another section begins with this row, which stands in no hunk."""
        if self.by_git and self.broken:
            return _GIT.match(row) is not None  # only git's own row says for sure that another file begins
        return _STARTS.match(row) is not None or (row.startswith("--- ") and (self._whole or self.hunks > 0))

    def take(self, rows: Sequence[str], at: int) -> int:
        """Take the header or the hunk at a place, or pass over what is neither; return the place of what follows."""
        row, end = rows[at], at + 1
        if hunk := _HUNK.match(row):
            after = _end(rows, at, hunk)
            self.hunks += 1
            self.broken = self.broken or not self.paths or after is None
            end = after or end
        elif _GIT.match(row):
            self.by_git = True
            self.words = [word.strip('"') for word in row[: 4 * _MOST_NAME].split()[2:]]
        elif self.hunks or not (header := _HEADER.match(row)):
            return end
        elif header["name"] is not None:
            self._whole = self._whole or row.startswith("+++ ")
            self._named(header["name"])
        self.rows += rows[at:end]
        return end

    def _named(self, text: str) -> None:
        found = _NAME.fullmatch(text)
        if found is None or len(text) > _MOST_NAME:
            self.broken = True
        elif (path := found[2] or _unquoted(found[1])) != "/dev/null":
            path = path[2:] if path[:2] in ("a/", "b/") else path
            self.paths += [path] if path not in self.paths else []


def sections(diff: str) -> Iterator[Section]:
    """Yield the sections of a diff: git's of two sides or of a merge, or that of `diff -u`, svn, hg and the like."""
    rows = [row.removesuffix("\r") for row in diff.removesuffix("\n").split("\n")]
    at, section = 0, Section()
    while at < len(rows):
        if section.ends_before(rows[at]):
            yield section
            section = Section()
        at = section.take(rows, at)
    yield section


def _end(rows: Sequence[str], at: int, hunk: re.Match[str]) -> int | None:
    """Return where a hunk ends, None when its lines are not those that its header counts.

    Each line has a mark for each old side: it stands there and not in the new one (-), only in the new one (+), or in
    both. In a merge a line that is in no new one has a space for an old side that never had it.
    """
    old = [int(side.partition(",")[2] or 1) for side in hunk[2].split()]
    new, sides = int(hunk[3] or 1), len(hunk[1]) - 1
    if len(old) != sides:
        return None
    at += 1
    while at < len(rows) and (new > 0 or any(left > 0 for left in old)):
        row = rows[at]
        at += 1
        if row[:1] == "\\":  # the line before has no end
            continue
        marks = row[:sides].ljust(sides)  # blank lines lose theirs on the way
        lost = "-" in marks
        old = [left - (mark == ("-" if lost else " ")) for left, mark in zip(old, marks, strict=True)]
        new -= not lost
        if set(marks) - set(" +-") or new < 0 or min(old) < 0:
            return None
    while at < len(rows) and rows[at][:1] == "\\":
        at += 1
    return at


def _unquoted(text: str) -> str:
    """Read a name as git quotes it: octal bytes and C's escapes."""

    def byte(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code, 8) & 0xFF) if code.isdigit() else _ESCAPES.get(code, code)

    raw = _QUOTED.sub(byte, text)
    try:
        return raw.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return raw
