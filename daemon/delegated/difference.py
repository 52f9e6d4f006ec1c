"""Which lines two texts share, and what differs between them, in time that no text can make long.

Patience diff: what stands once on both sides anchors the rest. Where nothing does, all of that stretch counts as
replaced, so the outcome is always a true difference and not always the shortest one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_DEPTH: Final = 12  # stretches within stretches
_AROUND: Final = 3  # unchanged lines on either side of a change


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a difference: ` `, `-` or `+`, its text, and how many lines of either side stand before it."""

    sign: str
    text: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Two texts as lines, and the stretches that they share: (first line of either side, counted from 0; how many)."""

    before: Sequence[str]
    after: Sequence[str]
    shared: Sequence[tuple[int, int, int]]

    def origin(self, line: int) -> int | None:
        """Return which line of `before` (from 1) a line of `after` is; None when it is new."""
        place = bisect_right(self.shared, line - 1, key=lambda each: each[1]) - 1
        if place < 0:
            return None
        first, second, count = self.shared[place]
        return first + line - second if line - 1 < second + count else None

    def hunks(self) -> Iterator[list[Row]]:
        """Yield each change with the unchanged lines around it; changes that nearly touch are one."""
        rows: list[Row] = []
        a = b = 0
        for first, second, count in (*self.shared, (len(self.before), len(self.after), 0)):
            rows += [Row("-", self.before[at], at, b) for at in range(a, first)]
            rows += [Row("+", self.after[at], first, at) for at in range(b, second)]
            same = [Row(" ", self.before[first + n], first + n, second + n) for n in range(count)]
            a, b = first + count, second + count
            if len(rows) <= _AROUND and all(row.sign == " " for row in rows):
                rows = same[-_AROUND:]
            elif count > 2 * _AROUND:
                yield [*rows, *same[:_AROUND]]
                rows = same[-_AROUND:]
            else:
                rows += same
        changed = [at for at, row in enumerate(rows) if row.sign != " "]
        if changed:
            yield rows[: changed[-1] + 1 + _AROUND]


def difference(before: str, after: str) -> Difference:
    """Compare two texts by lines. How their lines end makes no difference, and neither does the end of the last one."""
    old, new = (_lines(text) for text in (before, after))
    return Difference(old, new, shared(old, new))


def shared(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return the stretches that two lists of lines share, in order; see `Difference`."""
    found: list[tuple[int, int, int]] = []
    _share(old, new, (0, len(old)), (0, len(new)), _DEPTH, found)
    joined: list[tuple[int, int, int]] = []
    for a, b, count in sorted(found):
        if joined and joined[-1][0] + joined[-1][2] == a and joined[-1][1] + joined[-1][2] == b:
            joined[-1] = (*joined[-1][:2], joined[-1][2] + count)
        else:
            joined.append((a, b, count))
    return joined


def unified(rows: Sequence[Row]) -> str:
    """Write a hunk as `diff -u` does, with its head."""
    first = rows[0]
    old = sum(row.sign != "+" for row in rows)
    new = sum(row.sign != "-" for row in rows)
    head = f"@@ -{first.before + bool(old)},{old} +{first.after + bool(new)},{new} @@"
    return "\n".join([head, *(row.sign + row.text for row in rows)])


def about(rows: Sequence[Row], lines: Collection[int], around: int) -> list[list[Row]]:
    """Cut out of a hunk what stands within `around` rows of the lines (of the later text, from 1); [] for nothing."""
    near = [at for at, row in enumerate(rows) if row.sign != "-" and row.after + 1 in lines]
    parts: list[list[Row]] = []
    end = 0
    for at in near:
        start = max(at - around, 0)
        if parts and start <= end:
            parts[-1] += rows[end : at + around + 1]
        else:
            parts.append(list(rows[start : at + around + 1]))
        end = min(at + around + 1, len(rows))
    return parts


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _share(
    old: Sequence[str],
    new: Sequence[str],
    a: tuple[int, int],
    b: tuple[int, int],
    depth: int,
    found: list[tuple[int, int, int]],
) -> None:
    """Add what a stretch of either side shares to `found`."""
    (a0, a1), (b0, b1) = a, b
    count = 0
    while a0 + count < a1 and b0 + count < b1 and old[a0 + count] == new[b0 + count]:
        count += 1
    if count:
        found.append((a0, b0, count))
    a0, b0, count = a0 + count, b0 + count, 0
    while a0 < a1 - count and b0 < b1 - count and old[a1 - count - 1] == new[b1 - count - 1]:
        count += 1
    a1, b1 = a1 - count, b1 - count
    if count:
        found.append((a1, b1, count))
    if not depth or a0 == a1 or b0 == b1:
        return
    anchors = _anchors(old, new, (a0, a1), (b0, b1))
    for first, second in anchors:
        _share(old, new, (a0, first), (b0, second), depth - 1, found)
        found.append((first, second, 1))
        a0, b0 = first + 1, second + 1
    if anchors:
        _share(old, new, (a0, a1), (b0, b1), depth - 1, found)


def _anchors(old: Sequence[str], new: Sequence[str], a: tuple[int, int], b: tuple[int, int]) -> list[tuple[int, int]]:
    """Pair the lines that stand once on both sides, as many as there can be in the order of both."""
    once = Counter(old[a[0] : a[1]])
    twice = Counter(new[b[0] : b[1]])
    places = {new[at]: at for at in range(*b) if twice[new[at]] == 1}
    pairs = [(at, places[old[at]]) for at in range(*a) if once[old[at]] == 1 and old[at] in places]
    ends: list[int] = []  # of the rising runs by length, the smallest end
    runs: list[int] = []  # its pair
    above: list[int] = []  # of each pair, the pair before it in its run
    for number, (_, place) in enumerate(pairs):
        at = bisect_left(ends, place)
        above.append(runs[at - 1] if at else -1)
        ends[at : at + 1] = [place]
        runs[at : at + 1] = [number]
    chosen: list[tuple[int, int]] = []
    at = runs[-1] if runs else -1
    while at >= 0:
        chosen.append(pairs[at])
        at = above[at]
    return chosen[::-1]
