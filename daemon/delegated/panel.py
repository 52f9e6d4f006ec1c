"""Several models asked side by side, seen as one job: what it is doing, what it cost, how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from delegated.analysis import Analysis
from delegated.comparison import Opinion
from delegated.consult import Course, Over, add_usage

_HELD: Final = ("held back", "backing off", "out of reach", "looking up", "waiting for the disk")
_WORST: Final = ("cancelled", "uncertain", "failed", "rejected")


class Several:
    """The progress of one job that asks `number` models. It waits only when all that are left wait."""

    def __init__(self, progress: Any, number: int) -> None:
        self.progress = progress
        self._left: dict[int, tuple[str, str]] = {}
        self._costs = [0.0] * number
        self._number = number

    def part(self, place: int, name: str) -> Part:
        """Return the progress of one model."""
        return Part(self, place, name)

    def tell(self, place: int, phase: str, detail: str) -> None:
        """Say what one model's call is doing now."""
        self._left[place] = (phase, detail)
        busy = [said for said in self._left.values() if said[0] not in _HELD]
        phase, detail = busy[0] if busy else (phase, detail)
        self.progress.tell(phase, detail)

    def end(self, place: int) -> None:
        """Say that one model is done with."""
        self._left.pop(place, None)

    def spent(self, place: int, cost_usd: float) -> None:
        """Say what one model has cost so far."""
        self._costs[place] = cost_usd
        self.progress.cost_usd = sum(self._costs)


class Part:
    """One model's share in a job's progress; has what `consult` reads and says of one."""

    def __init__(self, several: Several, place: int, name: str) -> None:
        self._several, self._place, self._name = several, place, name

    @property
    def reason(self) -> str:
        """Why the job is to stop."""
        return str(self._several.progress.reason)

    @property
    def attempt(self) -> int:
        """The attempt under way."""
        return int(self._several.progress.attempt)

    @attempt.setter
    def attempt(self, number: int) -> None:
        self._several.progress.attempt = number

    @property
    def cost_usd(self) -> float:
        """What all models have cost so far."""
        return float(self._several.progress.cost_usd)

    @cost_usd.setter
    def cost_usd(self, amount: float) -> None:
        self._several.spent(self._place, amount)

    @property
    def tokens(self) -> int:
        """The tokens of all models' prompts so far."""
        return int(self._several.progress.tokens)

    @tokens.setter
    def tokens(self, number: int) -> None:
        self._several.progress.tokens = number

    def tell(self, phase: str, detail: str = "") -> None:
        """Say what this model's call is doing now."""
        self._several.tell(self._place, phase, ": ".join(filter(None, (self._name, detail))))


def merge(course: Course, parts: Sequence[Course]) -> None:
    """Add up in `course` what happened with each model."""
    shared = set(parts[0].warnings).intersection(*(part.warnings for part in parts[1:]))
    for part in parts:
        course.warnings += [text if text in shared else f"{part.model}: {text}" for text in part.warnings]
        course.egress += part.egress
        course.attempts += part.attempts
        course.duplicate_of = course.duplicate_of or part.duplicate_of
        course.timings |= {f"{name} ({part.model})": seconds for name, seconds in part.timings.items()}
        if part.usage is not None:
            course.usage = add_usage(course.usage, part.usage)
        if part.cost_usd is not None:
            course.cost_usd = (course.cost_usd or 0.0) + part.cost_usd


def opinion(part: Course, end: Analysis | Over) -> Opinion:
    """Say what came of asking one model."""
    seconds = round(sum(took for name, took in part.timings.items() if name.startswith("ask ")), 3)
    if not isinstance(end, Over):
        return Opinion(part.model, "answered", end, cost_usd=part.cost_usd, seconds=seconds)
    why = end.error.message if end.error is not None else end.status
    return Opinion(part.model, end.status, None, why, cost_usd=part.cost_usd, seconds=seconds)


def worst(ends: Sequence[Over]) -> Over:
    """Choose the end that a job has of which every model ended without an answer: the one to be known above all."""
    return min(ends, key=lambda end: _WORST.index(end.status) if end.status in _WORST else len(_WORST))
