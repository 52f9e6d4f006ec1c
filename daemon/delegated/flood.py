"""Too much, too often: how many requests begin in a minute, how many wait in mind, and which ask the same again."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from delegated.context import Context
from delegated.plan import Entry
from delegated.request import Request

MINUTE_S: Final = 60.0
HOUR_S: Final = 3600.0

# What differs from one run of the same program to the next: names of moments, objects and places in files.
_NOISE: Final = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?", "T"),
    (r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?", "T"),
    (r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "H"),
    (r"\b0x[0-9a-fA-F]+\b|\b(?=[a-f]*\d)[0-9a-f]{12,}\b|\b(?=[A-F]*\d)[0-9A-F]{12,}\b", "H"),
    (r"(?<=\w):\d+(?::\d+)?\b|\bline \d+\b", "L"),
)
_LITTLE: Final = tuple((re.compile(pattern), mark) for pattern, mark in _NOISE)
_ALL: Final = (*_LITTLE, (re.compile(r"\b[0-9a-f]{7,}\b|\d+"), "0"))


@dataclass(frozen=True, slots=True)
class Prints:
    """What a request asks. `question`: issue, context and logs without any number. `code`: what of the workspace goes
    along. `whole`: that, with the numbers that issue and context name, what was tried, further questions, who is asked.
    """

    question: str
    code: str
    whole: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One earlier asking: when, in seconds since the epoch, and how it `ended`.

    "": it runs; "unsent": it is about to, and nothing of it has left; "gone": its RESULT was deleted.
    """

    key: str
    at: float
    question: str
    code: str
    whole: str
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """The same question about the same code, asked before as `key`, `ago_s` seconds ago."""

    key: str
    ago_s: float


@dataclass(frozen=True, slots=True)
class Soon:
    """The same question about the same code is about to be asked as `key`: whether it will be is not known yet."""

    key: str


@dataclass(frozen=True, slots=True)
class Loop:
    """The same question about ever other code, asked before as `keys`."""

    keys: tuple[str, ...]


def prints(request: Request, context: Context, model: str) -> Prints:
    """Take the prints of what is about to be asked."""
    logs = _folded(request.logs, _ALL)
    coarse = (_folded(request.issue, _ALL), _folded(request.context, _ALL), logs)
    fine = (_folded(request.issue, _LITTLE), _folded(request.context, _LITTLE), logs)
    code = sorted(f"{e.path}\0{e.sha256}\0{e.start_line}\0{e.end_line}" for e in context.excerpts)
    code += sorted(f"{extra.kind}\0{extra.text}" for extra in context.extras if extra.kind == "changes")
    more = (*_list(request.attempted_fixes), *_list(request.questions), *_list(code), model)
    return Prints(_hash(coarse), _hash(code), _hash((*fine, *more)))


def judge(
    mine: Prints, earlier: Sequence[Asked], *, now: float, window_s: float, max_repeats: int
) -> Again | Soon | Loop | None:
    """Say whether a question is one too many. A clock that was set back lets nothing look longer ago than it is."""
    same = [asked for asked in earlier if asked.whole == mine.whole and asked.ended in ("", "answered", "unsent")]
    recent = [asked for asked in same if window_s > 0 and asked.at > now - window_s]
    for asked in sorted(recent, key=lambda each: (each.ended == "unsent", -each.at)):
        if asked.ended == "unsent":
            return Soon(asked.key)
        return Again(asked.key, max(0.0, now - asked.at))
    # Many questions that differ in a number alone are no loop; to change the code, ask, and change it again, is one.
    alike = sorted(
        (asked for asked in earlier if asked.question == mine.question and asked.at > now - HOUR_S),
        key=lambda each: each.at,
    )
    turns = [(code, next(group).key) for code, group in groupby(alike, key=lambda each: each.code)]
    keys = tuple(dict.fromkeys(key for code, key in turns if code != mine.code))
    return Loop(keys) if len(keys) >= max_repeats else None


def _folded(text: str, noise: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, mark in noise:
        text = pattern.sub(mark, text)
    return " ".join(text.split())


def _list(texts: Collection[str]) -> tuple[str, ...]:
    return (str(len(texts)), *(" ".join(text.split()) for text in texts))


def _hash(parts: Iterable[str]) -> str:
    made = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "replace")
        made.update(len(data).to_bytes(8, "big") + data)
    return made.hexdigest()


class Pace:
    """How many requests began in the last minute. All times are in seconds on one clock that nobody sets."""

    def __init__(self) -> None:
        self._begun: deque[float] = deque()

    def room(self, limit: int, now: float) -> int:
        """Return how many more may begin now."""
        while self._begun and self._begun[0] + MINUTE_S <= now:
            self._begun.popleft()
        return max(0, limit - len(self._begun))

    def begin(self, at: float) -> None:
        """Count one that begins, or began."""
        self._begun.append(at)

    def take_back(self, at: float) -> None:
        """Forget one that turned out to be nothing to ask."""
        if at in self._begun:
            self._begun.remove(at)

    def free_at(self, limit: int) -> float:
        """Return when the next one may begin, where there is no room."""
        return self._begun[max(0, len(self._begun) - limit)] + MINUTE_S


def admit(entries: Collection[Entry], waiting: Collection[str], limit: int) -> tuple[list[Entry], int]:
    """Return the entries to keep in mind, the first ones up to `limit` waiting, and how many were left for later.

    One that says by its `priority` that it does not wait its turn is among the first; of these, too, there is an end.
    """
    known = [entry for entry in entries if entry.name in waiting]
    new = [entry for entry in entries if entry.name not in waiting]
    if len(waiting) + len(new) <= limit:
        return [*known, *new], 0
    new.sort(key=lambda entry: (-entry.priority, entry.sig.ctime_ns, entry.name))
    urgent = [entry for entry in new if entry.priority > 0]
    rest = new[len(urgent) :]
    urgent = urgent[: max(0, 2 * limit - len(waiting))]
    rest = rest[: max(0, limit - len(waiting) - len(urgent))]
    return [*known, *urgent, *rest], len(new) - len(urgent) - len(rest)
