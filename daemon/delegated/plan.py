"""What to take now and when to look again: decided from what was seen, by nobody but this function."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Sig:
    """What tells one state of a file from another: inode, size in bytes, mtime and ctime in nanoseconds.

    Only ever compared with another Sig, never with a clock: a file from 1970 or 2099 is as good as any.
    """

    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


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
    """What one look leads to: what waits now, what to take (in order), and when to look at a waiting file again."""

    waiting: Mapping[str, Waiting]
    take: tuple[Waiting, ...]
    wake_at: float | None


def settle(
    waiting: Mapping[str, Waiting],
    entries: Collection[Entry],
    *,
    known: Mapping[str, Sig],
    touched: Collection[str],
    moved_in: Collection[str],
    gone: Collection[str],
    now: float,
    rules: Rules,
) -> dict[str, Waiting]:
    """Fold a look into what waits.

    `known` holds the state in which a file was last dealt with; `touched` are names with an event since the last look;
    `moved_in` those that came by rename, complete; `gone` those that a look did not find.
    """
    after = {name: wait for name, wait in waiting.items() if name not in gone}
    for entry in entries:
        if known.get(entry.name) == entry.sig or (entry.kind == "file" and entry.sig.size == 0):
            after.pop(entry.name, None)  # dealt with already, or empty: not a request yet
            continue
        old = after.get(entry.name)
        at_once = entry.marked or entry.name in moved_in or entry.kind != "file"
        if old is None or old.entry.sig != entry.sig or (entry.name in touched and not at_once):
            first = old.first_seen if old else now
            after[entry.name] = Waiting(entry, now, now if at_once else now + rules.settle_s, first)
        elif at_once and not old.held and old.ready_at > now:
            after[entry.name] = replace(old, entry=entry, ready_at=now)
    return after


def plan(waiting: Mapping[str, Waiting], *, busy: Collection[str], slots: int, now: float) -> Plan:
    """Choose what to take now: ready files whose id no job is busy with, first come first, into free slots."""
    free = slots > 0  # else there is nothing to choose, however many wait
    ready = sorted(
        (wait for wait in waiting.values() if free and wait.ready_at <= now and wait.entry.id not in busy),
        key=lambda wait: (-wait.entry.priority, wait.first_seen, wait.entry.name),
    )
    taken: list[Waiting] = []
    ids: set[str] = set()
    for wait in ready:
        if len(taken) >= slots:
            break
        if wait.entry.id not in ids:
            ids.add(wait.entry.id)
            taken.append(wait)
    later = [wait.ready_at for wait in waiting.values() if wait.ready_at > now]
    return Plan(waiting, tuple(taken), min(later, default=None))


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
