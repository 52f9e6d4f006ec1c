"""What to take now and when to look again: decided from what was seen, by nobody but this function."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from itertools import count


@dataclass(frozen=True, slots=True)
class Sig:
    """What tells one state of a file from another: inode, size in bytes, mtime and ctime in nanoseconds.

    Only ever compared with another Sig, never with a clock: a file from 1970 or 2099 is as good as any.
    """

    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def mark(self) -> int:
        """Stand for this state in 64 bits where very many are remembered: two states share one by rare chance only."""
        return hash((self.ino, self.size, self.mtime_ns, self.ctime_ns))


@dataclass(frozen=True, slots=True)
class Entry:
    """A request file as seen by a look. `kind` is `file` or the word for what it is instead; `marked` when a
    `.done` file or an end mark says that it is complete.
    """

    name: str
    id: str
    suffix: str
    kind: str
    sig: Sig
    marked: bool = False
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file that settles: its last state, since when (seconds, monotonic) it has not changed, when it may be taken."""

    entry: Entry
    since: float
    ready_at: float
    first_seen: float
    held: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """The waits, in seconds."""

    settle_s: float = 0.3
    unsure_s: float = 2.0
    quiet_s: float = 10.0
    busy_s: float = 0.05
    busy_cap_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one look leads to: what to take now, in order, and when to look at a waiting file again."""

    take: tuple[Waiting, ...]
    wake_at: float | None


class Queue(MutableMapping[str, Waiting]):
    """What waits, by file name, kept in the order in which it is taken: to ask for the next costs next to nothing.

    The order is: higher priority, then first seen, then name. Nothing overtakes: a request that must not wait behind a
    heap of others says so by its `priority`.
    """

    def __init__(self, waiting: Mapping[str, Waiting] | None = None) -> None:
        self._waiting: dict[str, Waiting] = {}
        # Two heaps that may hold what does not wait any more, or not like that: told by identity when it comes up.
        self._ready: list[tuple[int, float, str, int, Waiting]] = []
        self._later: list[tuple[float, int, Waiting]] = []
        self._number = count()  # so that no two are equal
        self.change(waiting or {})

    def __getitem__(self, name: str) -> Waiting:
        return self._waiting[name]

    def __setitem__(self, name: str, wait: Waiting) -> None:
        self._waiting[name] = wait
        if len(self._later) > 2 * len(self._waiting) + 64:
            self._later = [each for each in self._later if self._stands(each[-1])]
            heapify(self._later)
        heappush(self._later, (wait.ready_at, next(self._number), wait))

    def __delitem__(self, name: str) -> None:
        del self._waiting[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def change(self, changes: Mapping[str, Waiting | None]) -> None:
        """Take in what `settle` says; None: it waits no more."""
        for name, wait in changes.items():
            if wait is None:
                self._waiting.pop(name, None)
            else:
                self[name] = wait

    def take(self, slots: int, busy: Collection[str], now: float) -> tuple[Waiting, ...]:
        """Return the first ready ones, one for each id and none of a busy id; they go on waiting until they change."""
        self._ripen(now)
        passed = []
        taken: list[Waiting] = []
        ids: set[str] = set()
        while self._ready and len(taken) < slots:
            first = heappop(self._ready)
            wait = first[-1]
            if self._stands(wait):
                passed.append(first)
                if wait.entry.id not in busy and wait.entry.id not in ids:
                    ids.add(wait.entry.id)
                    taken.append(wait)
        for each in passed:
            heappush(self._ready, each)
        return tuple(taken)

    def wake_at(self) -> float | None:
        """Return when the next one becomes ready."""
        while self._later and not self._stands(self._later[0][-1]):
            heappop(self._later)
        return self._later[0][0] if self._later else None

    def _ripen(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            wait = heappop(self._later)[-1]
            if self._stands(wait):
                entry = wait.entry
                heappush(self._ready, (-entry.priority, wait.first_seen, entry.name, next(self._number), wait))

    def _stands(self, wait: Waiting) -> bool:
        return self._waiting.get(wait.entry.name) is wait


def settle(
    waiting: Mapping[str, Waiting],
    entries: Collection[Entry],
    *,
    known: Mapping[str, int],
    touched: Collection[str],
    moved_in: Collection[str],
    gone: Collection[str],
    now: float,
    rules: Rules,
) -> dict[str, Waiting | None]:
    """Say what a look changes in what waits; None: it waits no more.

    `known` holds the mark of the state in which a file was last dealt with; `touched` are names with an event since
    the last look; `moved_in` those that came by rename, complete; `gone` those that a look did not find.
    """
    changes: dict[str, Waiting | None] = dict.fromkeys(name for name in gone if name in waiting)
    for entry in entries:
        old = waiting.get(entry.name) if entry.name not in changes else changes[entry.name]
        if known.get(entry.name) == entry.sig.mark or (entry.kind == "file" and entry.sig.size == 0):
            if old is not None:
                changes[entry.name] = None  # dealt with already, or empty: not a request yet
            continue
        at_once = entry.marked or entry.name in moved_in or entry.kind != "file"
        if old is None or old.entry.sig != entry.sig or (entry.name in touched and not at_once):
            first = old.first_seen if old else now
            changes[entry.name] = Waiting(entry, now, now if at_once else now + rules.settle_s, first)
        elif at_once and not old.held and old.ready_at > now:
            changes[entry.name] = replace(old, entry=entry, ready_at=now)
    return changes


def plan(waiting: Queue, *, busy: Collection[str], slots: int, now: float) -> Plan:
    """Choose what to take now: ready files whose id no job is busy with, in the queue's order, into free slots."""
    return Plan(waiting.take(slots, busy, now), waiting.wake_at())


def put_off(wait: Waiting, why: str, *, now: float, rules: Rules) -> Waiting:
    """Say when to try again a file that could not be taken: `busy` (a writer), `changed`, `unsure`, `unfinished`."""
    if why == "busy":
        # Its close rings the bell; this is for writers whose close gives no event. The longer it lasts, the rarer.
        pause = min(max(rules.busy_s, (now - wait.first_seen) / 10), rules.busy_cap_s)
        return replace(wait, ready_at=now + pause, held=why)
    if why == "unsure":
        return replace(wait, ready_at=max(wait.since + rules.unsure_s, now + rules.busy_s), held=why)
    if why == "unfinished":
        return replace(wait, ready_at=max(wait.since + rules.quiet_s, now + rules.busy_s), held=why)
    return replace(wait, since=now, ready_at=now + rules.settle_s, held="")
