from __future__ import annotations

import itertools

import pytest

from delegated.job import MAY_BE_BILLED, RESTART, TRANSITIONS, CallState, Record, call_state, move


@pytest.mark.parametrize(
    ("names", "state", "attempt"),
    [
        ([], "new", 1),
        (["prompt"], "new", 1),
        (["sent.1"], "sent", 1),
        (["sent.1", "unsent.1"], "new", 2),
        (["sent.1", "unsent.1", "sent.2"], "sent", 2),
        (["unsent.1"], "new", 2),
        (["sent.1", "accepted.1"], "accepted", 1),
        (["sent.1", "unsent.1", "sent.2", "accepted.2"], "accepted", 2),
        (["sent.1", "accepted.1", "reply"], "replied", 1),
        (["reply"], "replied", 1),
        (["sent.1.torn1", "unsent.1.torn1"], "new", 1),
        (["sent.0", "sent.01", "accepted.x"], "new", 1),
    ],
)
def test_a_call_stands_where_its_records_say(names: list[str], state: str, attempt: int) -> None:
    """The names on disk decide the state, in any order."""
    for order in itertools.permutations(names):
        assert call_state(order) == call_state(names)
    assert (call_state(names).state, call_state(names).attempt) == (state, attempt)


def test_nothing_moves_but_by_the_table() -> None:
    """Each (state, record) is in the table or refused: above all, nothing is sent while a send is in doubt."""
    for state, record in itertools.product(CallState, Record):
        if (state, record) in TRANSITIONS:
            assert move(state, record) is TRANSITIONS[state, record]
        else:
            with pytest.raises(ValueError, match="cannot be given"):
                move(state, record)
    assert (CallState.SENT, Record.SENT) not in TRANSITIONS
    assert (CallState.ACCEPTED, Record.UNSENT) not in TRANSITIONS


def test_only_a_new_call_is_surely_free() -> None:
    """Every state but `new` may have been billed, and a restart sends in no other."""
    assert frozenset(CallState) - {CallState.NEW} == MAY_BE_BILLED
    assert [state for state, action in RESTART.items() if action == "send"] == [CallState.NEW]
