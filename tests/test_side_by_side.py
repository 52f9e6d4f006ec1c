"""Models of two providers, each over its own interface, in one daemon: for real, with both official SDKs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness import House, Server, until
from serving import delegate
from test_comparison import DIVIDES, EMPTY, asked, of
from test_receipt import verified

KEY = "sk-ant-test-0123456789abcdefghij"
MESSAGES = {"method": "POST", "path": "/v1/messages"}
BOTH = "gpt-4o, claude-sonnet-5-5"
ABSENT = "import sys\nsys.modules['anthropic'] = None\n"


def with_claude(house: House, server: Server, **settings: Any) -> None:
    house.use(server, **settings)
    house.env |= {"ANTHROPIC_API_KEY": KEY, "DELEGATED_ENDPOINTS__ANTHROPIC__BASE_URL": server.url}


def opinions(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["model"], each["status"]) for each in result["comparison"]["opinions"]]


def doctor(house: House) -> dict[str, Any]:
    return json.loads(delegate(house, "doctor", "--json").stdout)


@pytest.mark.slow
def test_two_providers_are_asked_side_by_side(house: House, server: Server) -> None:
    """One call over Responses, one over Messages; the receipts say where each went, and both answers are laid out."""
    with_claude(house, server)
    server.script({"match": of("gpt-4o"), "do": {"answer": DIVIDES}}, {"match": MESSAGES, "do": {"answer": EMPTY}})
    house.up()
    house.drop("a", asked(models=BOTH))
    result = house.result("a")
    assert (result["status"], opinions(result)) == (
        "answered",
        [("gpt-4o", "answered"), ("claude-sonnet-5-5", "answered")],
    )
    sent = [(call["model"], call["endpoint"], call["wire"]) for call in result["egress"]]
    assert sent == [("gpt-4o", server.base_url, "responses"), ("claude-sonnet-5-5", server.url, "messages")]
    assert all(call["cost_usd"] <= call["price_bound_usd"] for call in result["egress"])
    assert sorted(bill["wire"] for bill in server.bills()) == ["messages", "responses"]
    assert "| `claude-sonnet-5-5` | Root cause found |" in house.result_path("a", "md").read_text()
    verified(house)


@pytest.mark.slow
def test_one_provider_that_is_silent_leaves_the_other_standing(house: House, server: Server) -> None:
    """A lost answer of the one is `uncertain` in the table, with the reason, billed once; the other's is the RESULT."""
    with_claude(house, server)
    server.script(
        {"match": of("gpt-4o"), "do": {"answer": DIVIDES}},
        {"match": MESSAGES, "times": "always", "do": {"reset": "after_body", "bill": True}},
    )
    house.up()
    house.drop("a", asked(models=BOTH))
    result = house.result("a")
    assert (result["status"], opinions(result)) == (
        "answered",
        [("gpt-4o", "answered"), ("claude-sonnet-5-5", "uncertain")],
    )
    assert "this provider cannot look it up" in result["comparison"]["opinions"][1]["error"]
    assert sorted(bill["wire"] for bill in server.bills()) == ["messages", "responses"]


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_message_is_uncertain_and_never_a_second_bill(house: House, server: Server) -> None:
    """What it would have answered nobody keeps: the restart says so, and only `retry` asks again."""
    with_claude(house, server, model="claude-sonnet-5-5")
    server.script({"match": MESSAGES, "do": {"run": "forever"}})
    daemon = house.up()
    house.drop("a")
    until(server.bills, what="the call is at the provider")
    daemon.kill()
    house.up()
    result = house.result("a")
    assert (result["status"], result["error"]["kind"], len(server.bills())) == ("uncertain", "uncertain", 1)
    assert result["egress"][0]["wire"] == "messages"


@pytest.mark.slow
def test_a_provider_that_is_overloaded_holds_back_its_own_calls_only(house: House, server: Server) -> None:
    """Each endpoint has a gate of its own: the other's requests are answered while one waits."""
    with_claude(house, server)
    server.script({"match": MESSAGES, "times": "always", "do": {"status": 529, "retry_after": 300}})
    house.up()
    house.drop("waits", "---\nmodel: claude-sonnet-5-5\n---\n# Issue\n\nit waits\n")
    until(lambda: server.state_json()["requests"].get("POST /v1/messages"), what="the one was turned down")
    house.drop("goes")
    assert house.result("goes")["status"] == "answered"
    assert not house.has_result("waits")
    assert [bill["wire"] for bill in server.bills()] == ["responses"]


@pytest.mark.slow
def test_without_the_package_the_other_answers_stand(house: House, server: Server, tmp_path: Path) -> None:
    """The one that cannot be asked says which command brings it; `doctor` says it beforehand."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(ABSENT)
    with_claude(house, server, compare_models="claude-sonnet-5-5")
    house.env["PYTHONPATH"] = str(hidden)
    server.script({"match": of("gpt-4o"), "do": {"answer": DIVIDES}})
    house.up()
    house.drop("a", asked(models=BOTH))
    result = house.result("a")
    assert (result["status"], opinions(result)) == (
        "answered",
        [("gpt-4o", "answered"), ("claude-sonnet-5-5", "failed")],
    )
    assert "pip install 'delegated[anthropic]'" in result["comparison"]["opinions"][1]["error"]
    assert len(server.bills()) == 1
    warned = [check["message"] for check in doctor(house)["checks"] if check["state"] == "warn"]
    assert any("pip install 'delegated[anthropic]'" in message for message in warned)


@pytest.mark.slow
def test_doctor_and_preview_know_the_endpoint(house: House, server: Server) -> None:
    """The key is found, the provider is asked about the model for nothing; the price is bounded by bytes."""
    with_claude(house, server, model="claude-sonnet-5-5")
    checks = {check["name"]: check for check in doctor(house)["checks"]}
    assert "the variable ANTHROPIC_API_KEY" in checks["key"]["message"]
    assert (checks["endpoint"]["state"], "claude-sonnet-5-5" in checks["endpoint"]["message"]) == ("ok", True)
    done: subprocess.CompletedProcess[str] = delegate(
        house, "preview", "--issue", "why?", "--files", "app.py", "--json"
    )
    (call,) = json.loads(done.stdout)["calls"]
    assert (call["endpoint"], call["tokens_exact"]) == (server.url, False)
    assert call["price_bound_usd"] >= (call["bytes"] * 2.0 * 1.25 + 8192 * 10.0) / 1_000_000
    assert server.bills() == []
    del house.env["ANTHROPIC_API_KEY"]
    checks = {check["name"]: check for check in doctor(house)["checks"]}
    assert (checks["key"]["state"], checks["key"]["message"]) == (
        "FAIL",
        "ANTHROPIC_API_KEY environment variable required",
    )
