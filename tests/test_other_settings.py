"""A call that has left is taken up whatever the settings are by then; a cancelled job sends nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import House, Server, request_text, until
from test_comparison import DIVIDES, EMPTY, POST, asked, of
from test_follow import ask
from test_ladder import WEAK, script
from test_receipt import verified
from test_rounds import answer

PREFIX = "OPENAI_DELEGATION_"
pytestmark = pytest.mark.slow


def killed(house: House, server: Server, calls: int, *arguments: str, text: str | None = None) -> None:
    """Live until this many calls were billed, of which the last runs on at the provider."""
    daemon = house.up(*arguments)
    house.drop("a", text)
    until(lambda: len(server.bills()) == calls, what="asked")
    until(lambda: len(list(house.folder.glob(".delegated/jobs/*/a/r1/calls/*/accepted.1"))) == calls, what="accepted")
    daemon.kill()


def calls(result: dict[str, Any]) -> list[str]:
    return [receipt["call"] for receipt in result["egress"]]


def test_another_model_is_configured(house: House, server: Server) -> None:
    """The one that was asked answers; the one that asks nobody does not write over a paid answer."""
    house.use(server)
    server.script({"match": POST, "do": {"answer": DIVIDES, "run": 2}})
    killed(house, server, 1)
    house.set(model="offline")
    house.up()
    result = house.result("a")
    assert (result["status"], result["simulated"], result["model"]) == ("answered", False, "gpt-4o")
    assert (result["root_cause"], len(server.bills())) == (DIVIDES["root_cause"], 1)
    verified(house)


@pytest.mark.parametrize("came", [True, False])
def test_the_model_is_configured_no_more(house: House, tmp_path: Path, came: bool) -> None:
    """What it answered is read; a call of which only the id is known is `uncertain`, never `failed` at no cost."""
    server = Server(tmp_path, "--model", "mine")
    try:
        house.use(server, model="mine")
        config = tmp_path / "config.yaml"
        config.write_text(
            "models: {mine: {endpoint: openai, context_tokens: 64000, output_tokens: 800, input_usd: 1, output_usd: 1}}"
        )
        if came:
            house.env |= {"CRASH_BEFORE": "RESULT_a.md", "PYTHONPATH": str(Path(__file__).with_name("crash"))}
            daemon = house.up("--config", str(config))
            del house.env["CRASH_BEFORE"], house.env["PYTHONPATH"]
            house.drop("a")
            daemon.process.wait(30)
        else:
            server.script({"match": POST, "do": {"answer": DIVIDES, "run": 60}})
            killed(house, server, 1, "--config", str(config))
        house.up()
        result = house.result("a")
        assert result["status"] == ("answered" if came else "uncertain")
        assert calls(result) == ["01-first"]
        if not came:
            assert "there is no model called 'mine'" in result["error"]["message"]
        house.drop("b", request_text("another"))
        assert house.result("b")["error"]["kind"] == "unknown_model"
        assert len(server.bills()) == 1
    finally:
        house.close()
        server.close()


def test_the_ladder_is_taken_away(house: House, server: Server) -> None:
    """The step that was begun is gone on with; other requests take none."""
    house.use(server, retry_below=0.6, ladder="critic", find_files=0)
    script(server, WEAK)
    server.script(
        {"match": POST, "at": 2, "do": {"answer": DIVIDES, "run": 2}}, {"match": POST, "do": {"answer": WEAK}}
    )
    killed(house, server, 2)
    house.set(retry_below=0)
    house.up()
    result = house.result("a")
    assert (calls(result), result["root_cause"]) == (["01-first", "10-critic"], DIVIDES["root_cause"])
    assert len(server.bills()) == 2
    verified(house)


def test_other_models_are_compared(house: House, server: Server) -> None:
    """Each call stays that of the model that it was made to."""
    house.use(server, compare_models="gpt-4o-mini, gpt-6-luna")
    server.script(
        {"match": of("gpt-4o"), "do": {"answer": DIVIDES}},
        {"match": of("gpt-4o-mini"), "do": {"answer": EMPTY}},
        {"match": of("gpt-6-luna"), "do": {"answer": WEAK, "run": 2}},
    )
    killed(house, server, 3, text=f"---\ncompare: true\n---\n{request_text()}")
    house.set(compare_models="gpt-6-luna")
    house.up()
    opinions = house.result("a")["comparison"]["opinions"]
    causes = [(each["model"], each["analysis"]["root_cause"]) for each in opinions]
    assert causes == [
        ("gpt-4o", DIVIDES["root_cause"]),
        ("gpt-4o-mini", EMPTY["root_cause"]),
        ("gpt-6-luna", WEAK["root_cause"]),
    ]
    assert len(server.bills()) == 3
    verified(house)


def test_what_a_follow_up_is_about_is_being_asked_anew(house: House, server: Server) -> None:
    """Its call has left and was about the answer before: it is taken up."""
    house.use(server)
    server.script(
        {"match": POST, "do": {"answer": DIVIDES}},
        {"match": POST, "at": 2, "do": {"answer": EMPTY, "run": 2}},
        {"match": POST, "at": 3, "do": {"answer": WEAK, "run": 4}},
    )
    daemon = house.up()
    house.drop("a")
    house.result("a")
    ask(house, "a", 1, "Why is the list empty?")
    until(lambda: list(house.folder.glob(".delegated/jobs/*/a_1/r1/calls/*/accepted.1")), what="the question is out")
    house.drop("a", request_text("something else"))
    until(lambda: list(house.folder.glob(".delegated/jobs/*/a/r2/calls/*/accepted.1")), what="it is asked anew")
    daemon.kill()
    house.up()
    result = house.result("a_1")
    assert (result["status"], result["root_cause"]) == ("answered", EMPTY["root_cause"]), result["error"]
    assert house.revision("a", 2)["status"] == "answered"
    assert len(server.bills()) == 3


def test_a_round_is_not_asked_after_a_cancel(house: House, server: Server) -> None:
    """The call ends before the provider stops it and names a file: what it said stands, and nothing more leaves."""
    (house.workspace / "b.py").write_text("LIMIT = 1\n")
    house.use(server, find_files=0)
    more = answer("need_more_files") | {"files_needed": ["b.py"]}
    server.script(
        {"match": POST, "do": {"answer": more, "run": 3}},
        {"match": {"method": "POST", "path": "*/cancel"}, "times": "always", "do": {"status": 500}},
    )
    house.up()
    house.drop("a")
    until(lambda: list(house.folder.glob(".delegated/jobs/*/a/r1/calls/*/accepted.1")), what="accepted")
    (house.folder / f"{PREFIX}CANCEL_a").touch()
    result = house.result("a")
    assert (result["status"], result["verdict"]) == ("answered", "need_more_files")
    assert "round 2 was not asked: it was cancelled by its CANCEL file" in result["warnings"]
    assert calls(result) == ["01-first"]
    assert len(server.bills()) == 1


def test_a_cancelled_comparison_sends_no_further_call(house: House, server: Server) -> None:
    """One model's call runs at the provider and is stopped there; the other's, held back, is never made."""
    house.use(server)
    server.script(
        {"match": of("gpt-4o"), "do": {"answer": DIVIDES, "run": 60}},
        {"match": of("gpt-4o-mini"), "times": "always", "do": {"status": 429, "headers": {"retry-after": "600"}}},
    )
    house.up()
    house.drop("a", asked())
    until(lambda: list(house.folder.glob(".delegated/jobs/*/a/r1/calls/*/accepted.1")), what="one is accepted")
    until(lambda: list(house.folder.glob(".delegated/jobs/*/a/r1/calls/*/unsent.1")), what="the other is refused")
    (house.folder / f"{PREFIX}CANCEL_a").touch()
    result = house.result("a")
    assert result["status"] == "cancelled"
    assert [bill["state"] for bill in server.bills()] == ["cancelled"]
