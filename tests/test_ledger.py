"""The ledger: nothing is spent above a budget, by however many at once, and nothing that may be billed is forgotten."""

from __future__ import annotations

import multiprocessing
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from delegated.home import state_directory
from delegated.ledger import Budget, Charge, Ledger, next_window, window_start

NOON = datetime(2026, 11, 30, 12, 30, tzinfo=UTC).timestamp()


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def charge(call: str, usd: float = 1.0, workspace: str = "/a", endpoint: str = "openai") -> Charge:
    return Charge(call, workspace, endpoint, "gpt-4o", usd)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock):
    opened = Ledger(str(tmp_path / "state" / "spending.sqlite"), wall=clock)
    yield opened
    opened.close()


def test_only_its_user_can_read_it(ledger: Ledger, tmp_path: Path) -> None:
    """File 0600, directory 0700: what somebody asks about, and how often, is nobody else's business."""
    assert stat.S_IMODE(os.stat(tmp_path / "state").st_mode) == 0o700
    for path in (tmp_path / "state").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_call_that_could_overshoot_is_not_reserved_and_is_told_when(ledger: Ledger) -> None:
    """The upper bound counts, not the hope; the answer says of which budget, how much, and when it may go on."""
    day = (Budget("day", 2.5),)
    assert ledger.reserve(charge("1"), day) is None
    assert ledger.reserve(charge("2"), day) is None
    over = ledger.reserve(charge("3"), day)
    assert over is not None
    assert (over.taken_usd, over.wanted_usd) == (2.0, 1.0)
    assert over.again_at == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert "2026-12-01 00:00 UTC" in str(over)
    assert ledger.taken("day") == 2.0


def test_what_was_set_aside_becomes_what_it_cost(ledger: Ledger) -> None:
    """Settled, a call makes room for the next; released, it never was; uncertain, it stays charged."""
    ledger.reserve(charge("settled"))
    ledger.settle("settled", 0.25)
    ledger.reserve(charge("unsent"))
    ledger.release("unsent")
    ledger.reserve(charge("uncertain"))
    ledger.settle("uncertain", None)
    assert ledger.taken("day") == 1.25
    ledger.release("settled")
    assert ledger.taken("day") == 1.25, "what was paid cannot be given back"


def test_the_same_call_is_charged_once_and_never_refused_later(ledger: Ledger) -> None:
    """After a restart a call that may have been sent goes on, and is not counted again."""
    ledger.reserve(charge("1"))
    assert ledger.reserve(charge("1"), (Budget("day", 0.0),)) is None
    assert ledger.taken("day") == 1.0


def test_budgets_of_a_workspace_and_of_an_endpoint_count_their_own(ledger: Ledger) -> None:
    """One workspace's or endpoint's spending leaves the others' budgets alone, and counts towards the whole."""
    own = (Budget("day", 1.0, workspace="/a"), Budget("day", 1.0, endpoint="openai"))
    assert ledger.reserve(charge("1", workspace="/b", endpoint="box"), own) is None
    assert ledger.reserve(charge("2"), own) is None
    first = ledger.reserve(charge("3", endpoint="box"), own)
    assert first is not None
    assert first.budget.workspace == "/a"
    second = ledger.reserve(charge("4", workspace="/b"), own)
    assert second is not None
    assert second.budget.endpoint == "openai"
    assert ledger.reserve(charge("5", workspace="/c", endpoint="box"), (*own, Budget("day", 3.0))) is None
    assert ledger.reserve(charge("6", workspace="/c", endpoint="box"), (*own, Budget("day", 3.0))) is not None


def test_windows_are_those_of_the_bill(ledger: Ledger, clock: Clock) -> None:
    """Hours, days and months begin where they begin in UTC."""
    assert window_start("month", NOON) == datetime(2026, 11, 1, tzinfo=UTC).timestamp()
    assert next_window("month", NOON) == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert next_window("hour", NOON) == datetime(2026, 11, 30, 13, tzinfo=UTC).timestamp()
    ledger.reserve(charge("1"))
    clock.now = next_window("hour", NOON)
    assert (ledger.taken("hour"), ledger.taken("day"), ledger.taken("month")) == (0, 1, 1)
    clock.now = next_window("day", NOON)
    assert (ledger.taken("day"), ledger.taken("month")) == (0, 0)


def test_a_clock_set_back_makes_nothing_unspent(ledger: Ledger, clock: Clock) -> None:
    """What lies in the future of the clock counts as spent now."""
    ledger.reserve(charge("1"))
    clock.now -= 86_400 * 40
    assert [ledger.taken(window) for window in ("hour", "day", "month")] == [1, 1, 1]


def _reserve_many(path: str, first: int) -> None:
    ledger = Ledger(path, wall=Clock())
    for number in range(25):
        ledger.reserve(charge(f"{first}-{number}"), (Budget("day", 30.0),))
    ledger.close()


@pytest.mark.slow
def test_processes_cannot_overshoot_together(ledger: Ledger, tmp_path: Path) -> None:
    """Four daemons at once, 100 calls of a dollar, a budget of 30: exactly 30 are reserved."""
    context = multiprocessing.get_context("spawn")
    path = str(tmp_path / "state" / "spending.sqlite")
    others = [context.Process(target=_reserve_many, args=(path, number)) for number in range(4)]
    for each in others:
        each.start()
    for each in others:
        each.join(60)
        assert each.exitcode == 0
    assert ledger.taken("day") == 30.0


def test_a_damaged_ledger_is_put_aside_and_counted_anew(tmp_path: Path) -> None:
    """It is not trusted and not thrown away; the journals are asked again."""
    path = tmp_path / "spending.sqlite"
    first = Ledger(str(path), wall=Clock())
    first.enter("journal", [(charge("1"), NOON, 0.5)])
    assert not first.missing_journal("journal")
    first.close()
    path.write_bytes(b"this is not a database" * 500)
    again = Ledger(str(path), wall=Clock())
    assert (tmp_path / "spending.sqlite.damaged").exists()
    assert again.missing_journal("journal")
    again.enter("journal", [(charge("1"), NOON, 0.5), (charge("2"), NOON, None)])
    assert again.taken("day") == 1.5
    again.close()


def test_a_ledger_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """What cannot be accounted for must not be spent."""
    (tmp_path / "spending.sqlite").mkdir()
    with pytest.raises(OSError, match="ledger"):
        Ledger(str(tmp_path / "spending.sqlite"))


def test_the_account_sums_by_what_is_asked(ledger: Ledger, clock: Clock) -> None:
    """Days in their order, others the dearest first; what is settled apart from what is still out."""
    ledger.reserve(charge("1", 1.0, workspace="/a"))
    ledger.settle("1", 0.5)
    ledger.reserve(charge("2", 2.0, workspace="/b"))
    clock.now += 86_400
    ledger.reserve(charge("3", 1.0, workspace="/b"))
    days = ledger.account("day", 0)
    assert [(line.name, line.calls, line.settled_usd, line.reserved_usd) for line in days] == [
        ("2026-11-30", 2, 0.5, 2.0),
        ("2026-12-01", 1, 0.0, 1.0),
    ]
    assert [line.name for line in ledger.account("workspace", 0)] == ["/b", "/a"]
    assert ledger.account("day", clock.now)[0].calls == 1


def test_forgetting_spares_the_month_that_is_running(ledger: Ledger, clock: Clock) -> None:
    """A budget cannot be had anew by purging."""
    ledger.reserve(charge("old"))
    clock.now += 86_400 * 40
    ledger.reserve(charge("new"))
    assert ledger.forget(clock.now + 1) == 1
    assert ledger.taken("month") == 1.0


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"HOME": "/h"}, "/h/.local/state/delegated"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/x"}, "/x/delegated"),
        ({"HOME": "/h", "XDG_STATE_HOME": "relative"}, "/h/.local/state/delegated"),
        ({"HOME": "/h", "STATE_DIRECTORY": "/var/lib/delegated:/var/lib/other"}, "/var/lib/delegated"),
    ],
)
def test_state_lies_outside_every_workspace(env: dict[str, str], expected: str) -> None:
    """The user's own directory, or the service's; never one that a relative variable would put into a clone."""
    assert state_directory(env) == expected
