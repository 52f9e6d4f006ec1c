"""An answer that is not sure enough is asked again by the steps of the ladder, each shown with what it changed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from answers import GUARDED
from harness import BUG, House, Server, request_text, until
from test_comparison import DIVIDES, EMPTY, of
from test_receipt import verified
from test_rounds import answer, sent, words

LINE = "return sum(item.price for item in items) / len(items)"
POST = {"method": "POST", "path": "/v1/responses"}
WEAK = answer("inconclusive", cause="something with items", quote=("app.py", "not a line of it"))


def script(server: Server, *answers: dict[str, Any]) -> None:
    server.script(*({"match": POST, "at": number, "do": {"answer": each}} for number, each in enumerate(answers, 1)))


def test_a_critic_is_asked_where_the_confidence_is_low(house: House, server: Server) -> None:
    """It sees the material and the answer as data; what both say is laid side by side, and the surer one is shown."""
    house.use(server, retry_below=0.6, ladder="critic", find_files=0)
    script(server, WEAK, DIVIDES)
    house.up()
    house.drop("a")
    result = house.result("a")
    opinions = result["comparison"]["opinions"]
    assert [(each["model"], each["status"]) for each in opinions] == [
        ("gpt-4o", "answered"),
        ("gpt-4o, as a critic", "answered"),
    ]
    assert (result["verdict"], result["root_cause"]) == ("root_cause_found", DIVIDES["root_cause"])
    assert result["comparison"]["shown"] == "gpt-4o, as a critic"
    assert result["model"] == "gpt-4o"
    assert [call["call"] for call in result["egress"]] == ["01-first", "10-critic"]
    assert result["cost_usd"] == pytest.approx(sum(each["cost_usd"] for each in opinions))
    said = words(server, 2)
    assert "Attack that answer" in said
    assert "something with items" in said[said.index("<answer>") : said.index("</answer>")]
    verified(house)


def twice(house: House, server: Server, *further: dict[str, Any]) -> None:
    """Let the line to edit stand once in what is sent of a long file, and twice in the whole."""
    rest = "".join(f"def f{number}(items):\n    return {number} * len(items)\n\n\n" for number in range(2_000))
    (house.workspace / "app.py").write_text(f"{BUG}\n\n{rest}def mean(items):\n    {LINE}\n")
    house.use(server, retry_below=0.9, ladder="critic", find_files=0, max_input_tokens=9_000)
    server.script({"match": POST, "do": {"answer": GUARDED}}, *further)


def test_what_the_ladder_compares_is_the_confidence_that_the_result_shows(house: House, server: Server) -> None:
    """An edit that applies to what was sent, but not to the whole file, makes an answer less sure before that."""
    twice(house, server, {"match": POST, "at": 2, "do": {"answer": DIVIDES}})
    house.up()
    house.drop("a")
    result = house.result("a")
    assert [call["call"] for call in result["egress"]] == ["01-first", "10-critic"]
    (first, critic) = result["comparison"]["opinions"]
    (part,) = (each for each in first["analysis"]["confidence"]["parts"] if each["name"] == "edits")
    assert part["score"] == 0, "as it would stand in the RESULT"
    assert first["analysis"]["confidence"]["score"] < 0.9 <= critic["analysis"]["confidence"]["score"]


@pytest.mark.slow
def test_a_step_that_was_begun_is_gone_on_with_whatever_the_files_are_now(house: House, server: Server) -> None:
    """What made the answer unsure is gone after the kill; the critic was asked all the same, and its answer counts."""
    twice(house, server, {"match": POST, "at": 2, "do": {"answer": DIVIDES, "run": 2}})
    daemon = house.up()
    house.drop("a")
    until(lambda: len(server.bills()) == 2, what="the critic is asked")
    daemon.kill()
    (house.workspace / "app.py").write_text(BUG)
    house.up()
    result = house.result("a")
    assert [each["status"] for each in result["comparison"]["opinions"]] == ["answered", "answered"]
    assert result["comparison"]["opinions"][0]["analysis"]["confidence"]["score"] >= 0.9
    assert len(server.bills()) == 2
    verified(house)


@pytest.mark.slow
def test_the_steps_end_with_the_first_that_is_sure(house: House, server: Server) -> None:
    """A sure answer takes no step; an unsure one those in their order, a stronger model among them, within the cost."""
    house.use(server, retry_below=0.6, ladder="context, critic, gpt-4o-mini", find_files=1, repeat_window_s=0)
    script(server, DIVIDES)
    house.up()
    house.drop("sure")
    assert (house.result("sure")["comparison"], len(server.bills())) == (None, 1)
    (house.workspace / "helper.py").write_text("def total_items(items):\n    return len(items)\n")
    server.script(
        {"match": of("gpt-4o"), "times": "always", "do": {"answer": WEAK}},
        {"match": of("gpt-4o-mini"), "times": "always", "do": {"answer": EMPTY}},
    )
    house.drop("b", request_text("`total_items` is wrong"))
    result = house.result("b")
    assert [each["model"] for each in result["comparison"]["opinions"]] == [
        "gpt-4o",
        "gpt-4o, with more files",
        "gpt-4o, as a critic",
        "gpt-4o-mini",
    ]
    assert [call["call"] for call in result["egress"]] == ["01-first", "10-wider", "19-critic", "28-first"]
    assert [sent(call) for call in result["egress"][:2]] == [["app.py"], ["app.py", "helper.py"]]
    assert (result["model"], result["root_cause"]) == ("gpt-4o-mini", EMPTY["root_cause"])
    verified(house, "b")


def test_what_is_hidden_in_an_answer_is_on_the_receipt(house: House, server: Server) -> None:
    """A model may say a secret that it was not sent: its words, and what was wrong with them, go back without it."""
    house.use(server, retry_below=0.6, ladder="critic", find_files=0)
    secret = "correct-horse-battery-staple"
    (house.workspace / ".env").write_text(f"PASSPHRASE={secret}\n")
    script(
        server,
        {**WEAK, "verdict": secret},
        {**WEAK, "root_cause": f"{WEAK['root_cause']} {secret}", "technical_explanation": f"it is {secret}"},
        DIVIDES,
    )
    house.up()
    house.drop("a", request_text("it fails " * 11 + secret))
    result = house.result("a")
    assert [call["call"] for call in result["egress"]] == ["01-first", "02-repair", "10-critic"]
    for number, call, places in ((2, 1, {"the answer", "the problem"}), (3, 2, {"the answer"})):
        said = words(server, number)
        assert secret not in said
        told = result["egress"][call]["redactions"]
        assert {each["where"] for each in told} == {"issue", *places}
        assert {each["placeholder"] for each in told} == set(re.findall(r"\[REDACTED:[^\]…]+\]", said))
    assert secret[:8] not in json.dumps(result), "nor is it in the title, which is cut"
    verified(house)


@pytest.mark.slow
def test_a_kill_on_the_ladder_repeats_no_step(house: House, server: Server) -> None:
    """Killed while the critic runs: it is fetched; nothing is billed twice."""
    house.use(server, retry_below=0.6, ladder="critic")
    server.script(
        {"match": POST, "do": {"text": "no JSON"}},
        {"match": POST, "at": 2, "do": {"answer": WEAK}},
        {"match": POST, "at": 3, "do": {"answer": DIVIDES, "run": 2}},
    )
    daemon = house.up()
    house.drop("a")
    until(lambda: len(server.bills()) == 3, what="the critic is asked")
    daemon.kill()
    house.up()
    result = house.result("a")
    assert (result["root_cause"], len(server.bills())) == (DIVIDES["root_cause"], 3)
    assert "something with items" in words(server, 3), "the critic sees the answer, not the malformed one before it"
    verified(house)


@pytest.mark.slow
def test_a_step_that_gives_nothing_leaves_the_answer(house: House, server: Server) -> None:
    """No more files to find, a step too expensive, a model that is not known: said in words, and the answer stands."""
    house.use(server, retry_below=0.6, ladder="context, critic, nonsuch", find_files=0)
    server.script({"match": POST, "do": {"answer": WEAK, "usage": {"input_tokens": 1000, "output_tokens": 95_000}}})
    house.up()
    house.drop("a")
    result = house.result("a")
    assert (result["status"], result["verdict"], len(server.bills())) == ("answered", "inconclusive", 1)
    assert any("none were found" in warning for warning in result["warnings"])
    opinions = {each["model"]: each for each in result["comparison"]["opinions"]}
    assert "it could cost up to" in opinions["gpt-4o, as a critic"]["error"]
    assert "nonsuch" in opinions["nonsuch"]["error"]
