"""Changes of files as a unified diff that `git apply` takes, byte for byte."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from delegated.difference import shared

_CONTEXT: Final = 3
_NO_END: Final = "\\ No newline at end of file\n"
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\t": "\\t", "\n": "\\n", "\r": "\\r"}


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch beside a RESULT: its file's name, the fixes in it (from 1, as the RESULT counts), where, its text."""

    name: str
    fixes: tuple[int, ...]
    files: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Hunk:
    """Some lines of a file and what becomes of them, context included; `old` and `new` are first lines, from 0."""

    old: int
    removed: int
    new: int
    added: int
    rows: tuple[str, ...]

    def __str__(self) -> str:
        """Return the hunk as it stands in a patch."""
        head = f"@@ -{_range(self.old, self.removed)} +{_range(self.new, self.added)} @@\n"
        return head + "".join(row if row.endswith("\n") else f"{row}\n{_NO_END}" for row in self.rows)


def hunks(text: str, changes: Iterable[tuple[int, int, str]]) -> list[Hunk]:
    """Return what replacements (start, end, after) that do not overlap make of a text, as hunks.

    Only a line feed ends a line, as git counts; a carriage return belongs to its line.
    """
    lines = text.split("\n")
    lines = [line + "\n" for line in lines[:-1]] + lines[-1:] * bool(lines[-1])
    changed = list(_lines_changed(text, lines, sorted(changes)))
    made: list[Hunk] = []
    shift = 0
    for group in _near(changed):
        first, last = max(0, group[0][0] - _CONTEXT), min(len(lines), group[-1][1] + _CONTEXT)
        rows, at = [], first
        for start, end, fresh in group:
            rows += [" " + line for line in lines[at:start]]
            rows += ["-" + line for line in lines[start:end]] + ["+" + line for line in fresh]
            at = end
        rows += [" " + line for line in lines[at:last]]
        more = sum(len(fresh) - (end - start) for start, end, fresh in group)
        made.append(Hunk(first, last - first, first + shift, last - first + more, tuple(rows)))
        shift += more
    return made


def file_patch(path: str, found: Sequence[Hunk]) -> str:
    """Write one file's part of a patch. Without the line `diff --git`: with it, git takes paths from the repository's
    root, and a workspace may lie below that.
    """
    return "".join([f"--- {_name('a/' + path)}\n+++ {_name('b/' + path)}\n", *map(str, found)])


_Lines = tuple[int, int, list[str]]  # lines start..end, and what stands there afterwards


def _lines_changed(text: str, lines: Sequence[str], changes: Sequence[tuple[int, int, str]]) -> Iterator[_Lines]:
    starts = [0, *accumulate(map(len, lines))]

    def line_at(offset: int) -> int:
        return min(bisect_right(starts, offset) - 1, len(lines) - 1)

    waiting = list(changes)
    while waiting:
        first = line_at(waiting[0][0])
        pieces: list[str] = []
        end, at = first, starts[first]
        while True:
            while waiting and (line_at(waiting[0][0]) < end or not pieces):
                start, finish, after = waiting.pop(0)
                pieces += [text[at:start], after]
                at, end = finish, max(end, line_at(max(start, finish - 1)) + 1)
            fresh = "".join([*pieces, text[at : starts[end]]])
            if not fresh or fresh.endswith("\n") or end == len(lines):
                break
            end += 1  # a line that lost its end is one with the line after it
        rows = fresh.split("\n")
        yield from _refined(first, lines[first:end], [row + "\n" for row in rows[:-1]] + rows[-1:] * bool(rows[-1]))


def _refined(first: int, old: Sequence[str], new: list[str]) -> Iterator[_Lines]:
    i = k = 0
    for j, m, count in (*shared(old, new), (len(old), len(new), 0)):
        if i < j or k < m:
            yield first + i, first + j, new[k:m]
        i, k = j + count, m + count


def _near(changed: Sequence[_Lines]) -> Iterator[list[_Lines]]:
    """Put changes together whose contexts touch: they are one hunk."""
    group: list[_Lines] = []
    for each in changed:
        if group and each[0] - group[-1][1] > 2 * _CONTEXT:
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _range(first: int, count: int) -> str:
    return f"{first + 1 if count else first},{count}"


def _name(path: str) -> str:
    """Write a path as git does: quoted where it holds what would end it, ended by a tab where it holds a blank."""
    if any(char in _ESCAPES or not char.isprintable() for char in path):
        escaped = (_ESCAPES.get(char) or (char if char.isprintable() else _octal(char)) for char in path)
        return f'"{"".join(escaped)}"'
    return f"{path}\t" if " " in path else path


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))
