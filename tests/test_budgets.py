"""Budgets of an hour, a day, a month: held before the send, through restarts, by whatever runs at the same time."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from delegated.cli.costs import bar
from harness import House, Server, until
from test_cli_folder import run
from test_restart import killed_before


def account(house: House) -> Path:
    return Path(house.env["HOME"]) / ".local/state/delegated/spending.sqlite"


def rows(house: House) -> list[tuple[str, float, float | None]]:
    with sqlite3.connect(account(house)) as db:
        return db.execute("select call, bound, cost from calls order by call").fetchall()


def test_what_is_spent_is_what_the_provider_said(house: House, server: Server) -> None:
    """A settled call is charged with the cost that its RESULT names; its bound was above it."""
    house.use(server)
    house.up()
    house.drop("one")
    result = house.result("one")
    ((call, bound, cost),) = until(lambda: [row for row in rows(house) if row[2] is not None], what="settled")
    assert call.endswith("one.r1.01-first")
    assert cost == pytest.approx(result["cost_usd"])
    assert cost < bound


def test_a_budget_rejects_before_anything_is_sent(house: House, server: Server) -> None:
    """The RESULT names the budget, what is taken of it and when it may go on; nothing is billed."""
    house.use(server, day_usd=0.0001)
    house.up()
    house.drop("one")
    result = house.result("one")
    assert (result["status"], result["error"]["kind"]) == ("rejected", "over_budget")
    assert "$0.0001 a day" in result["error"]["message"]
    assert "00:00 UTC" in result["error"]["message"]
    assert result["error"]["retryable"]
    assert (server.bills(), rows(house)) == ([], [])
    # Nothing is wrong with the request: neither the page nor the command that is named has a person correct it.
    page = house.result_path("one", "md").read_text()
    assert page.startswith("# Rejected: a limit forbids the call\n")
    assert "problem" not in page.partition("## What Was Sent")[0]
    told = run(house, "show", "one")[2]
    assert "next: delegate retry one\n" in told
    assert "correct" not in told


@pytest.mark.slow
def test_jobs_at_the_same_time_cannot_overshoot_together(house: House, server: Server) -> None:
    """A budget for two calls at their bound, eight at once, none settled yet: two are sent."""
    house.use(server)
    house.up()
    house.drop("probe")
    house.result("probe")
    (first,) = until(lambda: [row for row in rows(house) if row[2] is not None], what="settled")
    house.close()
    house.set(day_usd=first[2] + 2.5 * first[1])
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "times": "always", "do": {"run": 5}})
    house.up()
    for number in range(8):
        house.drop(f"at-once-{number}")
    until(lambda: sum(house.has_result(f"at-once-{n}") for n in range(8)) == 6, what="six are rejected")
    done = [f"at-once-{n}" for n in range(8) if house.has_result(f"at-once-{n}")]
    assert {house.result(key)["error"]["kind"] for key in done} == {"over_budget"}
    until(lambda: all(house.has_result(f"at-once-{n}") for n in range(8)), what="the other two are answered")
    assert len(server.bills()) == 3


@pytest.mark.slow
def test_who_waits_goes_on_when_there_is_room(house: House, server: Server) -> None:
    """`on_budget: wait`: STATUS says what it waits for; with a higher budget and a reload it is answered."""
    house.use(server, day_usd=0.0001, on_budget="wait")
    daemon = house.up()
    house.drop("one")

    def waits() -> bool:
        try:
            status = json.loads((house.folder / "OPENAI_DELEGATION_STATUS_one.json").read_text())
        except FileNotFoundError:
            return False
        return status["phase"] == "held back" and "$0.0001 a day" in status["detail"]

    until(waits, what="held back")
    assert server.bills() == []
    daemon.kill()
    house.set(day_usd=5)
    house.up()
    assert house.result("one")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_uncertain_stays_charged_through_a_restart(house: House, server: Server) -> None:
    """What may have been billed counts as billed, in the next life too."""
    house.use(server, "chat", doubt_wait_s=0, endpoints__openai__store="false")
    house.up()
    server.script({"match": {"method": "POST", "path": "/v1/chat/completions"}, "do": {"reset": "after_body"}})
    house.drop("one")
    assert house.result("one")["status"] == "uncertain"
    ((_, bound, cost),) = rows(house)
    assert cost is None
    house.close()
    server.script()
    house.set(day_usd=bound * 1.5)
    house.up()
    house.drop("two")
    assert house.result("two")["error"]["kind"] == "over_budget"


@pytest.mark.slow
def test_unsent_is_given_back(house: House, server: Server) -> None:
    """A call that the provider refused costs nothing and is charged nothing."""
    house.use(server)
    house.up()
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"error": "unprocessable"}})
    house.drop("one")
    assert house.result("one")["status"] == "failed"
    assert rows(house) == []


@pytest.mark.slow
def test_a_lost_ledger_is_made_anew_from_the_journals(house: House, server: Server) -> None:
    """Deleting the ledger buys nothing: what this month's records say is counted again."""
    house.use(server)
    house.up()
    house.drop("one")
    house.result("one")
    before = until(lambda: [row for row in rows(house) if row[2] is not None], what="settled")
    house.close()
    for path in account(house).parent.glob("spending.sqlite*"):
        path.unlink()
    house.set(day_usd=before[0][2] * 1.5)
    house.up()
    house.drop("two")
    assert house.result("two")["error"]["kind"] == "over_budget"
    ((call, _, cost),) = rows(house)
    assert (call, cost) == (before[0][0], pytest.approx(before[0][2]))


@pytest.mark.slow
def test_what_cannot_be_accounted_for_is_not_spent(house: House, server: Server) -> None:
    """A ledger that cannot be opened stops paid calls, and says so; it does not lose the request."""
    account(house).mkdir(parents=True)
    house.use(server)
    daemon = house.up()
    house.drop("one")
    until(lambda: any("ledger" in json.dumps(event) for event in daemon.events()), what="it is said")
    assert server.bills() == []
    account(house).rmdir()
    assert house.result("one")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["reply", ".md"])
def test_what_has_left_does_not_wait_for_the_account(house: House, server: Server, victim: str) -> None:
    """With a ledger that cannot be opened, a call that left in a former life is fetched, and its answer published."""
    house.use(server)
    killed_before(house, victim, "one")
    for path in account(house).parent.glob("spending.sqlite*"):
        path.unlink()
    account(house).mkdir()
    daemon = house.up()
    assert house.result("one")["status"] == "answered"
    assert len(server.bills()) == 1
    assert daemon.has("ledger.failed")


@pytest.mark.slow
def test_two_workspaces_share_the_budget_of_their_user(house: House, server: Server, tmp_path: Path) -> None:
    """One ledger for all daemons of a user; a workspace's own budget counts its own calls only."""
    house.use(server)
    house.up()
    house.drop("one")
    house.result("one")
    (first,) = until(lambda: [row for row in rows(house) if row[2] is not None], what="settled")
    (tmp_path / "second").mkdir()
    other = House(tmp_path / "second")
    other.env = dict(house.env)
    try:
        other.set(day_usd=first[2] + first[1] * 0.5)
        other.up()
        other.drop("two")
        assert other.result("two")["error"]["kind"] == "over_budget"
        other.close()
        other.set(day_usd=20, workspace_day_usd=first[1] * 2)
        other.up()
        other.drop("three")
        assert other.result("three")["status"] == "answered"
    finally:
        other.close()


@pytest.mark.slow
def test_the_account_is_shown(house: House, server: Server) -> None:
    """`costs` sums what was settled, in a table and as JSON, and says what the budgets leave."""
    house.use(server, day_usd=20)
    house.up()
    for key in ("one", "two"):
        house.drop(key)
        cost = house.result(key)["cost_usd"]
    until(lambda: all(row[2] is not None for row in rows(house)), what="settled")
    code, out, err = run(house, "costs")
    day, total = out.splitlines()[1:3]
    assert (code, err) == (0, "")
    assert day.split()[1:] == total.split()[1:] == ["2", f"${2 * cost:.4f}"]
    assert f"the budget of $20 a day: ${2 * cost:.4f} taken, ${20 - 2 * cost:.4f} left" in out
    told = json.loads(run(house, "costs", "--by", "model", "--json")[1])
    assert [(line["name"], line["calls"], line["reserved_usd"]) for line in told["lines"]] == [("gpt-4o", 2, 0)]
    assert run(house, "costs", "--days", "0")[0] == 2


def test_an_account_of_nothing_says_so(house: House) -> None:
    """Where nothing was ever spent no ledger is made by looking."""
    code, out, err = run(house, "costs")
    assert code == 0
    assert "the budget of" in out
    assert "nothing was spent" in err
    assert not account(house).exists()


@pytest.mark.parametrize(("share", "shown"), [(0, ""), (0.001, "▏"), (0.5, "█" * 5), (1, "█" * 10), (0.05, "▌")])
def test_bars_are_drawn_in_eighths(share: float, shown: str) -> None:
    """Anything above nothing is seen, and all is the whole width."""
    assert bar(share, 10) == shown
