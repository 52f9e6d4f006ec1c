"""Which of the names that exist could be meant by one that does not: slips of the pen, and nothing bolder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

LONGEST: Final = 60  # characters; a longer name is not compared
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# one word with and without these means two things that often live side by side: `item`/`items`, `create`/`created`
_GRAMMAR: Final = frozenset({"s", "es", "d", "ed", "r", "er", "n", "ing", "ly", "y"})


def near(name: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """Return the candidates that look like `name`, closest first. To be told to a person, not to be acted upon."""
    found = sorted((gap, other) for other in set(candidates) if (gap := _gap(name, other)) is not None)
    return tuple(other for _, other in found)


def sole(name: str, candidates: Iterable[str]) -> str | None:
    """Return the one candidate of which `name` is a mere slip, or None when there is none or any doubt.

    Doubt is a second candidate about as close, a difference that is grammar (`item`, `items`), a number, a short
    word or another first letter (`min`, `max`; `encode`, `decode`), or that of a class and its instance.
    """
    found = sorted((gap, other) for other in set(candidates) if (gap := _gap(name, other, slack=1)) is not None)
    if not found or not _slip(name, found[0][1]):
        return None
    least, best = found[0]
    rivals = [other for gap, other in found[1:] if gap == least or (gap == least + 1 and other[0] == name[0])]
    return None if rivals else best


def _gap(name: str, other: str, slack: int = 0) -> int | None:
    """Count the slips between two names (0: only case or underscores differ), None when they are not alike."""
    if name == other or not name or max(len(name), len(other)) > LONGEST:
        return None
    a, b = _squash(name), _squash(other)
    if a == b:
        return 0
    most = max(1, min(len(a), len(b)) // 3) + slack
    if abs(len(a) - len(b)) > most or (Counter(a) - Counter(b)).total() > most:
        return None
    gap = _distance(a, b)
    return gap if gap <= most else None


def _slip(name: str, other: str) -> bool:
    a, b = name.lstrip("_"), other.lstrip("_")
    if len(name) - len(a) != len(other) - len(b) or a[:1].isupper() != b[:1].isupper() or a.isupper() != b.isupper():
        return False  # private and public, a class and its instance, a constant and a variable are two things
    ours, theirs = _words(name), _words(other)
    if _squash(name) == _squash(other):
        return max(len(ours), len(theirs)) > 1
    differing = [(a, b) for a, b in zip(ours, theirs, strict=False) if a != b]
    return len(ours) == len(theirs) and len(differing) == 1 and _word_slip(*differing[0])


def _word_slip(a: str, b: str) -> bool:
    short, long = sorted((a, b), key=len)
    if len(long) < 4 or a[0] != b[0] or not (a.isalpha() and b.isalpha()):
        return False
    if long.startswith(short) and long[len(short) :] in _GRAMMAR and long[-1] != short[-1]:
        return False
    gap = _distance(a, b)
    if gap == 1 and len(a) == len(b) == 4 and sorted(a) != sorted(b):
        return False  # one letter put for another makes too many real words of four letters: load, loan
    return gap <= (2 if len(long) >= 8 and len(long) - len(short) < 2 else 1)


def _squash(name: str) -> str:
    return name.replace("_", "").lower()


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _distance(a: str, b: str) -> int:
    """Count insertions, deletions, replacements and swaps of neighbours (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before = above
    return row[-1]
