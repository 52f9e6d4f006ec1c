"""How often a confidence was right here: what became of RESULTs, counted, and never more said than the count bears."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal

Word = Literal["fixed", "partly", "wrong"]
WORDS: Final[tuple[Word, ...]] = ("fixed", "partly", "wrong")
LEVELS: Final = ("high", "medium", "low")
ENOUGH: Final = 5  # judged RESULTs, before a figure is given
_Z: Final = 1.959964  # of the normal distribution, for 95 %
_BINS: Final = 5


@dataclass(frozen=True, slots=True)
class Judged:
    """One RESULT of which somebody said how it turned out. `score` is its confidence, from 0 to 1."""

    word: Word
    level: str
    score: float
    model: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """How often answers of this level were right here, as far as was known when a RESULT was made.

    `right` of `of` judged ones were `fixed`; `text` says so, or that `of` is too few to say anything.
    """

    level: str
    right: int
    of: int
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """Some judged RESULTs, counted. Only `fixed` is right: `partly` has a column of its own, and is not."""

    name: str
    fixed: int
    partly: int
    wrong: int

    @property
    def n(self) -> int:
        """Return how many were judged."""
        return self.fixed + self.partly + self.wrong

    @property
    def share(self) -> float | None:
        """Return the share that was right; None while too few were judged."""
        return self.fixed / self.n if self.n >= ENOUGH else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the 95 % interval of that share; None while too few were judged."""
        return wilson(self.fixed, self.n) if self.n >= ENOUGH else None


def wilson(right: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share: within 0 to 1, and honest also where all or none were right."""
    if not of:
        return 0.0, 1.0
    share, square = right / of, _Z * _Z
    middle = (share + square / (2 * of)) / (1 + square / of)
    reach = _Z * math.sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)
    return (0.0 if not right else low), (1.0 if right == of else high)  # there the formula ends exactly


def brier(judged: Collection[Judged]) -> float | None:
    """Return the mean squared distance of the scores from what was right (1) and was not (0); None for too few."""
    if len(judged) < ENOUGH:
        return None
    return sum((each.score - (each.word == "fixed")) ** 2 for each in judged) / len(judged)


def calibrate(level: str, judged: Iterable[Judged]) -> Calibration:
    """Say how often answers of a level were right."""
    row = count(level, [each for each in judged if each.level == level])
    if row.n < ENOUGH:
        return Calibration(level, row.fixed, row.n, f"not enough data (n = {row.n})")
    return Calibration(level, row.fixed, row.n, f"{level} was right {row.fixed} of {row.n} times here")


def count(name: str, judged: Iterable[Judged]) -> Row:
    """Count some judged RESULTs."""
    words = [each.word for each in judged]
    return Row(name, *(words.count(word) for word in WORDS))


def by_level(judged: Collection[Judged]) -> tuple[Row, ...]:
    """Count by level, the surest first; each level has its row."""
    return _rows(judged, LEVELS, lambda each: each.level)


def by_score(judged: Collection[Judged]) -> tuple[Row, ...]:
    """Count by score, in fifths, the highest first; a score on a border belongs to the fifth above it."""
    names = [f"{n / _BINS:.1f} to {(n + 1) / _BINS:.1f}" for n in range(_BINS)]
    return _rows(judged, names[::-1], lambda each: names[_fifth(each.score)])


def by_model(judged: Collection[Judged]) -> tuple[Row, ...]:
    """Count by model, the most judged first."""
    models = sorted({each.model for each in judged})
    return tuple(sorted(_rows(judged, models, lambda each: each.model), key=lambda row: -row.n))


def _rows(judged: Collection[Judged], names: Iterable[str], of: Callable[[Judged], str]) -> tuple[Row, ...]:
    groups: dict[str, list[Judged]] = {name: [] for name in names}
    for each in judged:
        groups[of(each)].append(each)
    return tuple(count(name, group) for name, group in groups.items())


def _fifth(score: float) -> int:
    """Return which fifth of 0 to 1 a score is in; by hundredths, which no floating point blurs."""
    return min(max(round(score * 100) * _BINS // 100, 0), _BINS - 1)
