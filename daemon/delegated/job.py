"""A job's states and the only moves between them, as a table.

A job is one revision of one request. Its records on disk are its state; nothing else is. What a kill left behind is
read back by `call_state`, and `RESTART` says what is done then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class CallState(StrEnum):
    """Where one paid question to one model stands."""

    NEW = "new"  # nothing is out
    SENT = "sent"  # may have been billed; nobody knows
    ACCEPTED = "accepted"  # billed; the provider's id is known
    REPLIED = "replied"  # billed; the reply is here


class Record(StrEnum):
    """The kinds of record in a call's directory, `<kind>.<attempt>` but for the reply."""

    SENT = "sent"
    UNSENT = "unsent"
    ACCEPTED = "accepted"
    REPLY = "reply"


TRANSITIONS: Final[dict[tuple[CallState, Record], CallState]] = {
    (CallState.NEW, Record.SENT): CallState.SENT,
    (CallState.SENT, Record.UNSENT): CallState.NEW,  # only when it is certain that nothing was accepted
    (CallState.SENT, Record.ACCEPTED): CallState.ACCEPTED,
    (CallState.SENT, Record.REPLY): CallState.REPLIED,
    (CallState.ACCEPTED, Record.REPLY): CallState.REPLIED,
    (CallState.NEW, Record.REPLY): CallState.REPLIED,  # a model that asks nobody is not sent anything
}
MAY_BE_BILLED: Final = frozenset({CallState.SENT, CallState.ACCEPTED, CallState.REPLIED})
RESTART: Final[dict[CallState, str]] = {
    CallState.NEW: "send",
    CallState.SENT: "look up; never send before it is proven absent",
    CallState.ACCEPTED: "fetch by id until final",
    CallState.REPLIED: "return the reply; no network",
}
assert set(RESTART) == set(CallState), "every state needs a way on after a restart"

_RECORD: Final = re.compile(r"(sent|unsent|accepted)\.([1-9][0-9]{0,5})|reply")


@dataclass(frozen=True, slots=True)
class CallPosition:
    """A call's state, and the attempt that is under way (or comes next when the state is NEW), from 1."""

    state: CallState
    attempt: int


def move(state: CallState, record: Record) -> CallState:
    """Return the state after a record; raises `ValueError` on a move that the table does not have."""
    try:
        return TRANSITIONS[state, record]
    except KeyError:
        raise ValueError(f"a call that is {state} cannot be given a record {record!r}") from None


def call_state(names: Iterable[str]) -> CallPosition:
    """Read a call's position from the names of its sound records (a torn `sent` counts as sound)."""
    kinds: dict[Record, set[int]] = {record: set() for record in Record}
    for name in names:
        found = _RECORD.fullmatch(name)
        if found:
            kinds[Record(found[1] or name)].add(int(found[2] or 0))
    # An `unsent` whose `sent` is gone counts too: a new `sent` of its number would count as taken back.
    last = max(kinds[Record.SENT] | kinds[Record.ACCEPTED] | kinds[Record.UNSENT] | {0})
    if kinds[Record.REPLY]:
        return CallPosition(CallState.REPLIED, max(last, 1))
    if last == 0:
        return CallPosition(CallState.NEW, 1)
    if last in kinds[Record.ACCEPTED]:
        return CallPosition(CallState.ACCEPTED, last)
    if last in kinds[Record.UNSENT]:
        return CallPosition(CallState.NEW, last + 1)
    return CallPosition(CallState.SENT, last)
