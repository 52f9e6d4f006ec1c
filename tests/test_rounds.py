"""A model that names further files gets them, within every bound, and each further call is a call like the first."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from harness import House, Server, request_text, until
from test_receipt import verified, words_of

POST = {"method": "POST", "path": "/v1/responses"}
PRICES = "RATE = 0\n\n\ndef price(item):\n    return item.base / RATE\n"


def answer(verdict: str, *needed: str, cause: str = "", quote: tuple[str, str] | None = None) -> dict[str, Any]:
    """Make an answer of the model."""
    evidence = [{"path": quote[0], "start_line": 0, "end_line": 0, "quote": quote[1]}] if quote else []
    return {
        "hypotheses": [
            {"cause": cause or "not seen", "evidence": evidence, "explanation": "", "likelihood": "medium"},
        ],
        "verdict": verdict,
        "root_cause": cause,
        "technical_explanation": "",
        "recommended_fixes": [],
        "code_examples": [],
        "additional_investigation": [],
        "answers": [],
        "files_needed": list(needed),
        "confidence": "medium",
    }


FOUND = answer("root_cause_found", cause="RATE is 0", quote=("shop/prices.py", "RATE = 0"))


def furnish(house: House) -> None:
    """Make files that the request does not name."""
    shop = house.workspace / "shop"
    shop.mkdir()
    (shop / "prices.py").write_text(PRICES)
    (shop / "local.py").write_text("LOCAL = 1\n")
    (house.workspace / ".env").write_text("TOKEN=abcdefghijklmnop123\n")
    (house.workspace / ".gitignore").write_text("local.py\n")
    (house.outside / "away.py").write_text("AWAY = 1\n")


def words(server: Server, number: int) -> str:
    with urllib.request.urlopen(f"{server.url}/_test/bills/{number}/body", timeout=10) as sent:
        return words_of(json.load(sent))[1]


def sent(call: dict[str, Any]) -> list[str]:
    return [file["path"] for file in call["files"]]


def test_files_that_are_asked_for_are_added(house: House, server: Server) -> None:
    """One more call, with the file and the reason on its receipt; the answer is checked against what it was sent."""
    house.use(server, find_files=0)
    furnish(house)
    server.script(
        {"match": POST, "do": {"answer": answer("need_more_files", "prices.py")}},
        {"match": POST, "at": 2, "do": {"answer": FOUND}},
    )
    house.up()
    house.drop("a")
    result = house.result("a")
    assert (result["verdict"], result["root_cause"]) == ("root_cause_found", "RATE is 0")
    assert [(call["call"], sent(call)) for call in result["egress"]] == [
        ("01-first", ["app.py"]),
        ("02-round", ["app.py", "shop/prices.py"]),
    ]
    assert result["egress"][1]["files"][1]["why"] == "asked for by the model"
    assert "the model asked for more files: round 2 was asked with shop/prices.py" in result["warnings"]
    assert result["cost_usd"] == pytest.approx(sum(call["cost_usd"] for call in result["egress"]))
    assert len(server.bills()) == 2
    assert "<asked_for>\n- prices.py\n</asked_for>" in words(server, 2)
    assert "asked_for" not in words(server, 1)
    verified(house)


@pytest.mark.slow
def test_a_model_names_nothing_that_it_may_not_have(house: House, server: Server) -> None:
    """What git ignores, env files, what lies outside: not sent; the RESULT says what to add."""
    house.use(server, find_files=0)
    furnish(house)
    away = ("shop/local.py", ".env", "../outside/away.py", "/etc/passwd", "no/such.py", str(house.outside / "away.py"))
    server.script({"match": POST, "times": "always", "do": {"answer": answer("need_more_files", *away)}})
    house.up()
    house.drop("a")
    result = house.result("a")
    assert (result["verdict"], len(server.bills())) == ("need_more_files", 1)
    assert result["files_needed"] == ["shop/local.py", "no/such.py"]
    assert "round 2 was not asked: nothing new could be sent of what was named" in result["warnings"]
    # with one that may go along the others do not go along either, and the prompt says so
    server.script({"match": POST, "times": "always", "do": {"answer": answer("need_more_files", *away, "prices.py")}})
    house.drop("b", request_text("another issue"))
    result = house.result("b")
    assert (result["verdict"], len(server.bills())) == ("need_more_files", 3)
    assert sent(result["egress"][1]) == ["app.py", "shop/prices.py"]
    assert "LOCAL = 1" not in words(server, 3)
    assert {each["path"] for each in result["egress"][1]["omitted"]} == {"shop/local.py", "no/such.py"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "bills", "said"),
    [
        ({"max_rounds": 1}, 1, None),
        ({"max_rounds": 3}, 3, None),
        ({"max_cost_usd": 0.09}, 1, "round 2, with more files, gave no answer: it could cost up to"),
    ],
)
def test_rounds_have_an_end(
    settings: dict[str, Any], bills: int, said: str | None, house: House, server: Server
) -> None:
    """At most so many, and none that could cost more than the request may: the answer there is stands."""
    house.use(server, find_files=0, **settings)
    furnish(house)
    usage = {"input_tokens": 1000, "output_tokens": 1000} if said else None
    wants = ("prices.py", "more.py", "others.py")
    for name in wants[1:]:
        (house.workspace / "shop" / name).write_text("x = 1\n")
    more = {"usage": usage} if usage else {}
    server.script(
        *(
            {"match": POST, "at": number, "do": {"answer": answer("need_more_files", name), **more}}
            for number, name in enumerate(wants, 1)
        )
    )
    house.up()
    house.drop("a")
    result = house.result("a")
    assert (result["status"], result["verdict"], len(server.bills())) == ("answered", "need_more_files", bills)
    assert result["files_needed"] == [wants[bills - 1]]
    if bills == 3:
        assert sent(result["egress"][2]) == ["app.py", "shop/prices.py", "shop/more.py"]
    assert said is None or any(warning.startswith(said) for warning in result["warnings"]), result["warnings"]


@pytest.mark.slow
def test_a_kill_in_a_round_repeats_neither_call(house: House, server: Server) -> None:
    """Killed while the second call runs, its file gone: it is fetched, checked against what was sent."""
    house.use(server, find_files=0)
    furnish(house)
    server.script(
        {"match": POST, "do": {"answer": answer("need_more_files", "prices.py")}},
        {"match": POST, "at": 2, "do": {"answer": FOUND, "run": 2}},
    )
    daemon = house.up()
    house.drop("a")
    until(lambda: len(server.bills()) == 2, what="the second call is made")
    daemon.kill()
    (house.workspace / "shop" / "prices.py").unlink()
    house.set(max_rounds=1)  # what was sent under other settings is taken as it is
    house.up()
    result = house.result("a")
    assert (result["verdict"], len(server.bills())) == ("root_cause_found", 2)
    assert [call["call"] for call in result["egress"]] == ["01-first", "02-round"]
    verified(house)


@pytest.mark.slow
def test_a_malformed_answer_in_a_round_is_asked_for_once_more(house: House, server: Server) -> None:
    """Three calls; a round that gives no answer at all leaves the first one standing."""
    house.use(server, find_files=0)
    furnish(house)
    server.script(
        {"match": POST, "do": {"answer": answer("need_more_files", "prices.py")}},
        {"match": POST, "at": 2, "do": {"text": "no JSON"}},
        {"match": POST, "at": 3, "do": {"answer": FOUND}},
        {"match": POST, "at": 4, "do": {"answer": answer("need_more_files", "prices.py")}},
        {"match": POST, "at": 5, "do": {"outcome": "refusal", "text": "no"}},
    )
    house.up()
    house.drop("a")
    result = house.result("a")
    assert result["verdict"] == "root_cause_found"
    assert [call["call"] for call in result["egress"]] == ["01-first", "02-round", "03-repair"]
    house.drop("b", request_text("another issue"))
    result = house.result("b")
    assert (result["status"], result["verdict"], len(server.bills())) == ("answered", "need_more_files", 5)
    assert any("gave no answer: the model declined" in warning for warning in result["warnings"]), result["warnings"]
    assert json.loads(result["raw_response"])["verdict"] == "need_more_files"
