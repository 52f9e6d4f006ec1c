"""Several models are asked side by side; what they say is laid side by side, and one that fails fails alone."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from delegated.analysis import Analysis, Confidence, Evidence, Hypothesis, Part
from delegated.comparison import Opinion, compare, same_cause
from harness import House, Server, request_text, until
from test_preview import preview
from test_receipt import verified
from test_rounds import answer

POST = {"method": "POST", "path": "/v1/responses"}
BOTH = "gpt-4o, gpt-4o-mini"


def asked(text: str = "it divides by zero", models: str = BOTH, **options: Any) -> str:
    head = "".join(f"{name}: {json.dumps(value)}\n" for name, value in options.items())
    return f"---\nmodels: [{models}]\n{head}---\n{request_text(text)}"


def of(model: str) -> dict[str, Any]:
    return {**POST, "body": {"model": model}}


def says(cause: str, line: str) -> dict[str, Any]:
    return answer("root_cause_found", cause=cause, quote=("app.py", line))


DIVIDES = says("it divides by the number of items", "return sum(item.price for item in items) / len(items)")
EMPTY = says("the list that is passed is empty", "print(total([]))")


# By rules


def hypothesis(cause: str, *places: tuple[str, int, int], grounded: bool = True) -> Hypothesis:
    evidence = tuple(Evidence(path, start, end, "x", "", grounded) for path, start, end in places)
    return Hypothesis(cause, "high", "", evidence)


def analysis(*hypotheses: Hypothesis, verdict: Any = "likely", score: float = 0.8, **more: Any) -> Analysis:
    sure = Confidence("high", score, (Part("evidence", score, 1.0, "because"), *more.pop("limits", ())))
    cause = hypotheses[0].cause if hypotheses else ""
    return Analysis(verdict, cause, "", hypotheses, (), (), more.pop("checks", ()), (), (), sure)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (hypothesis("a", ("a.py", 10, 12)), hypothesis("b", ("a.py", 15, 15)), True),
        (hypothesis("a", ("a.py", 10, 12)), hypothesis("b", ("a.py", 16, 16)), False),
        (hypothesis("a", ("a.py", 10, 12)), hypothesis("b", ("b.py", 10, 12)), False),
        (hypothesis("a", ("logs", 10, 12)), hypothesis("b", ("logs", 10, 12)), False),
        (hypothesis("a", ("a.py", 10, 12), grounded=False), hypothesis("b", ("a.py", 10, 12)), False),
        (hypothesis("the session is never closed"), hypothesis("session not closed"), True),
        (hypothesis("the session is never closed"), hypothesis("the rate limit is reached"), False),
        (hypothesis(""), hypothesis(""), False),
    ],
)
def test_two_hypotheses_are_one_cause(one: Hypothesis, other: Hypothesis, same: bool) -> None:
    """Quotes that were found at one place of the code, or the same words; a shared line of a log is a symptom."""
    assert same_cause(one, other) is same
    assert same_cause(other, one) is same


def test_the_surest_is_shown_and_the_others_are_laid_beside_it() -> None:
    """Agreement counts among the parts of the confidence, whose weights go on summing to 1."""
    here, there = hypothesis("no close", ("a.py", 1, 2)), hypothesis("bad lock", ("b.py", 7, 9))
    one = Opinion("one", "answered", analysis(here, score=0.6))
    two = Opinion("two", "answered", analysis(hypothesis("never shut", ("a.py", 2, 2)), there, score=0.9))
    three = Opinion("three", "failed", None, "no answer")
    found, shown = compare([one, two, three])
    assert shown is not None
    assert (found.shown, shown.root_cause) == ("two", "never shut")
    assert [(each.models, each.places) for each in found.agreed] == [(("one", "two"), ("a.py:1-2", "a.py:2"))]
    assert [(each.models, each.cause) for each in found.single] == [(("two",), "bad lock")]
    assert (found.contradictions, found.checks) == ((), ())
    assert sum(part.weight for part in shown.confidence.parts) == pytest.approx(1)
    assert shown.confidence.parts[-1].name == "agreement"
    assert shown.confidence.score == pytest.approx(0.9 * 0.85 + 0.15, abs=0.01)


def test_contradictions_come_with_what_tells_them_apart() -> None:
    """Another likeliest cause, or no fault against one; the shortest check of each model. A limit stays a limit."""
    limit = Part("limit", 0.44, 0.0, "never above low")
    one = analysis(hypothesis("no close", ("a.py", 1, 2)), checks=("look at the very long list", "count them"))
    two = analysis(hypothesis("bad lock", ("b.py", 7, 9)), hypothesis("no shut", ("a.py", 1, 1)), checks=("run it",))
    fine = analysis(verdict="no_bug_found", score=0.95, limits=(limit,))
    found, shown = compare([Opinion("one", "answered", one), Opinion("two", "answered", two)])
    assert found.contradictions == ("one and two hold different causes the likeliest: no close / bad lock",)
    assert [(check.model, check.text) for check in found.checks] == [("two", "run it"), ("one", "count them")]
    assert shown is not None
    parts = {part.name: part.score for part in shown.confidence.parts}
    assert (parts["agreement"], parts["limit"], shown.confidence.level) == (0.5, 0.74, "medium")
    found, shown = compare([Opinion("one", "answered", one), Opinion("fine", "answered", fine)])
    assert found.contradictions == ("fine finds no fault in the code sent, one names one",)
    assert shown is not None
    assert (found.shown, shown.confidence.score, shown.confidence.level) == ("fine", 0.44, "low")


def test_an_answer_that_all_others_contradict_is_never_sure() -> None:
    """However well it quotes: a page that shows models at odds does not call one of them sure."""
    sure = analysis(hypothesis("no close", ("a.py", 1, 2)), score=0.99)
    other = analysis(hypothesis("bad lock", ("b.py", 7, 9)), hypothesis("no shut", ("a.py", 1, 1)), score=0.5)
    same = analysis(hypothesis("never shut", ("a.py", 2, 2)), score=0.5)
    unsure = analysis(hypothesis("bad lock", ("b.py", 7, 9)), verdict="inconclusive", score=0.5)
    for others, level in (((other,), "medium"), ((other, same), "high"), ((unsure,), "high")):
        _, shown = compare([Opinion(str(n), "answered", each) for n, each in enumerate((sure, *others))])
        assert shown is not None
        assert shown.confidence.level == level, others
        assert (shown.confidence.parts[-1].name == "limit") is (level == "medium")


def test_one_answer_has_nothing_to_agree_with_and_none_is_none() -> None:
    """Its confidence stays as it was."""
    alone = analysis(hypothesis("no close", ("a.py", 1, 2)))
    found, shown = compare([Opinion("one", "failed", None, "no"), Opinion("two", "answered", alone)])
    assert (found.shown, shown, found.agreed, found.single) == ("two", alone, (), ())
    assert compare([Opinion("one", "failed", None, "no")])[1] is None


# For real


def test_two_models_are_asked_side_by_side(house: House, server: Server) -> None:
    """Two calls, two receipts, one table; the sum is the cost, and the JSON holds both answers whole."""
    house.use(server)
    server.script(
        {"match": of("gpt-4o"), "do": {"answer": DIVIDES}}, {"match": of("gpt-4o-mini"), "do": {"answer": EMPTY}}
    )
    house.up()
    house.drop("a", asked())
    result = house.result("a")
    assert (result["status"], len(server.bills())) == ("answered", 2)
    assert [(call["call"], call["model"]) for call in result["egress"]] == [
        ("01-first", "gpt-4o"),
        ("10-first", "gpt-4o-mini"),
    ]
    assert result["cost_usd"] == pytest.approx(sum(call["cost_usd"] for call in result["egress"]))
    found = result["comparison"]
    assert [(each["model"], each["status"], each["analysis"]["root_cause"]) for each in found["opinions"]] == [
        ("gpt-4o", "answered", DIVIDES["root_cause"]),
        ("gpt-4o-mini", "answered", EMPTY["root_cause"]),
    ]
    assert found["shown"] == result["model"]
    assert "agreement" in [part["name"] for part in result["confidence"]["parts"]]
    page = house.result_path("a", "md").read_text()
    assert "## Comparison of Answers" in page
    assert "| `gpt-4o-mini` | Root cause found |" in page
    verified(house)


@pytest.mark.slow
def test_one_that_fails_fails_alone(house: House, server: Server) -> None:
    """Refused, unknown, too expensive beside the others: a reason in the table. All failed: the request failed."""
    house.use(server, repeat_window_s=0)
    refuse = {"match": of("gpt-4o-mini"), "times": "always", "do": {"outcome": "refusal"}}
    server.script({"match": of("gpt-4o"), "times": "always", "do": {"answer": DIVIDES}}, refuse)
    house.up()
    house.drop("a", asked())
    opinions = house.result("a")["comparison"]["opinions"]
    assert [(each["model"], each["status"]) for each in opinions] == [("gpt-4o", "answered"), ("gpt-4o-mini", "failed")]
    assert "the model declined" in opinions[1]["error"]
    house.drop("b", asked("another", "gpt-4o, nonsuch"))
    result = house.result("b")
    assert (result["status"], [each["status"] for each in result["comparison"]["opinions"]]) == (
        "answered",
        ["answered", "rejected"],
    )
    house.drop("c", asked("a third", "gpt-4o-mini, nonsuch"))
    result = house.result("c")
    assert (result["status"], result["comparison"], result["error"]["kind"]) == ("failed", None, "refused_by_model")
    draft = house.outside / "draft.md"
    draft.write_text(asked("a fourth"))
    bounds = [call["price_bound_usd"] for call in json.loads(preview(house, str(draft), "--json").stdout)["calls"]]
    limit = round(sum(bounds) - 0.001, 4)
    house.drop("d", asked("a fourth", max_cost_usd=limit))
    opinions = house.result("d")["comparison"]["opinions"]
    assert [each["status"] for each in opinions] == ["answered", "rejected"], bounds
    assert f"the limit is ${limit}" in opinions[1]["error"]


@pytest.mark.slow
def test_compare_asks_those_of_the_configuration_and_a_second_time_is_a_duplicate(house: House, server: Server) -> None:
    """`compare: true` needs no names; the same again within the window is not asked, by any of them."""
    house.use(server, compare_models="gpt-4o-mini")
    server.script({"match": POST, "times": "always", "do": {"answer": DIVIDES}})
    house.up()
    text = f"---\ncompare: true\n---\n{request_text('it divides by zero')}"
    house.drop("a", text)
    result = house.result("a")
    assert [each["model"] for each in result["comparison"]["opinions"]] == ["gpt-4o", "gpt-4o-mini"]
    assert result["comparison"]["agreed"][0]["models"] == ["gpt-4o", "gpt-4o-mini"]
    house.drop("b", text)
    result = house.result("b")
    assert (result["status"], result["duplicate_of"], len(server.bills())) == ("duplicate", "a", 2)


@pytest.mark.slow
def test_a_kill_leaves_the_limit_of_cost_to_both_together(house: House, server: Server) -> None:
    """What left in an earlier life counts before another model is asked: one that was too dear stays so."""
    house.use(server)
    server.script({"match": of("gpt-4o"), "do": {"answer": DIVIDES, "run": "forever"}})
    draft = house.outside / "draft.md"
    draft.write_text(asked())
    bounds = [call["price_bound_usd"] for call in json.loads(preview(house, str(draft), "--json").stdout)["calls"]]
    daemon = house.up()
    house.drop("a", asked(max_cost_usd=round(sum(bounds) - 0.001, 4)))
    until(
        lambda: (house.job("a") / "calls/01-first/accepted.1").exists() if server.bills() else False, what="one asked"
    )
    daemon.kill()
    house.up()
    urllib.request.urlopen(f"{server.url}/_test/release", data=b"", timeout=10).close()
    opinions = house.result("a")["comparison"]["opinions"]
    assert [each["status"] for each in opinions] == ["answered", "rejected"]
    assert [bill["model"] for bill in server.bills()] == ["gpt-4o"]


@pytest.mark.slow
def test_a_kill_between_two_models_asks_neither_twice(house: House, server: Server) -> None:
    """One has answered, the other runs: after the restart each was billed once and both answers are there."""
    house.use(server)
    server.script(
        {"match": of("gpt-4o"), "do": {"answer": DIVIDES}},
        {"match": of("gpt-4o-mini"), "do": {"answer": EMPTY, "run": 2}},
    )
    daemon = house.up()
    house.drop("a", asked())
    until(lambda: len(server.bills()) == 2 and (house.job("a") / "calls/01-first/reply").exists(), what="one answered")
    daemon.kill()
    house.up()
    result = house.result("a")
    assert [each["status"] for each in result["comparison"]["opinions"]] == ["answered", "answered"]
    assert len(server.bills()) == 2
    verified(house)
