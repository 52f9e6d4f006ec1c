"""An answer is read with patience, checked without mercy, and trusted no further than its evidence."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cases
from cases import ANSWER, changed, reply
from delegated.analysis import THRESHOLDS, WEIGHTS, Analysis, Edit, Evidence, read
from delegated.context import Context
from delegated.errors import AnswerError
from delegated.prompt import Prompt
from delegated.request import Request
from delegated.shape import LIST_CAP, TEXT_CAP

PROMPT = cases.prompt()
MAIN, STORE = "src/autopack/main.py", "src/autopack/store.py"


def evidence(path: str, quote: str, start: int = 0, end: int = 0, prompt: Prompt = PROMPT) -> Evidence:
    given_ = {"path": path, "quote": quote, "start_line": start, "end_line": end}
    one = {"cause": "c", "likelihood": "high", "explanation": "", "evidence": [given_]}
    return read(reply(changed(hypotheses=[one])), prompt).hypotheses[0].evidence[0]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def edits(*given_: tuple[str, str, str], prompt: Prompt = PROMPT) -> tuple[Edit, ...]:
    rows = [{"path": path, "before": before, "after": after} for path, before, after in given_]
    fix = {**ANSWER["recommended_fixes"][0], "edits": rows}
    return read(reply(changed(recommended_fixes=[fix])), prompt).fixes[0].edits


def sent(path: str, text: str, first: int = 1, total: int = 0) -> Prompt:
    return cases.prompt(Request(issue="x"), Context((cases.excerpt(path, text, first=first, total=total),)))


def kind(answer: Any, **changes: Any) -> AnswerError:
    with pytest.raises(AnswerError) as caught:
        read(reply(answer, **changes), PROMPT)
    return caught.value


# What comes back instead of an answer


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("refusal", "refused_by_model"),
        ("truncated", "truncated"),
        ("content_filter", "content_filter"),
        ("failed", "provider_failed"),
        ("cancelled", "cancelled"),
        ("empty", "empty_reply"),
    ],
)
def test_every_outcome_but_completed_has_a_name(outcome: Any, expected: str) -> None:
    """No outcome is taken for a success, even when a whole answer came along with it."""
    error = kind(ANSWER, outcome=outcome)
    assert error.kind == expected


def test_the_words_of_a_refusal_are_in_the_message_without_control_characters() -> None:
    """A person sees why; a terminal sees text."""
    assert "I cannot help with that." in kind("I cannot\x1b[31m help\nwith that.", outcome="refusal").message


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_a_completed_reply_without_text_is_empty(text: str) -> None:
    """Completed with nothing to say is not an answer."""
    assert kind(text).kind == "empty_reply"


@pytest.mark.parametrize(
    "text",
    ["I think the bug is in main.py.", '{"verdict": ', "{" * 50_000, "[" * 100_000, '{"a":' * 100_000, "{,}",
     '{"x": NaN}', "9" * 5_000, "```json\n{broken\n```", "\x00"],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_is_not_json_is_called_so(text: str) -> None:
    """Prose, cut-off JSON and bottomless nesting are `not_json`; nothing else escapes."""
    assert kind(text).kind in ("not_json", "wrong_schema")
    if not text.startswith("9"):
        assert kind(text).kind == "not_json"


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ([], "the answer: found a list; expected an object"),
        ("null", "the answer: found null"),
        ({}, "verdict: missing"),
        ({key: ANSWER[key] for key in ANSWER if key != "root_cause"}, "root_cause: missing"),
        (changed(verdict="certainly"), "verdict: found 'certainly'; expected one of root_cause_found, likely"),
        (changed(hypotheses="none"), "hypotheses: found 'none'; expected a list"),
        (changed(hypotheses=[{"cause": "x", "likelihood": 7}]), "hypotheses[0].likelihood: found a number"),
        (changed(recommended_fixes=[{"description": "x", "edits": [{"before": "a"}]}]), "edits[0].after: missing"),
        (changed(confidence=True), "confidence: found a boolean"),
        (changed(root_cause={"text": "x"}), "root_cause: found an object; expected a string"),
        (changed(verdict="likely", root_cause="", hypotheses=[]), "no root cause is given"),
    ],
)
def test_a_wrong_answer_names_the_place(answer: Any, named: str) -> None:
    """The message says where, what was found and what would be right, so that a repair can be asked for."""
    error = kind(answer)
    assert error.kind == "wrong_schema"
    assert named in error.message


# Patience with the form


@pytest.mark.parametrize(
    "wrap",
    [
        "{}",
        "\ufeff  {}\n",
        "```json\n{}\n```",
        "Here is the analysis:\n\n```\n{}\n```\nI hope it helps!",
        "~~~~json\n{}\n~~~~",
        'Let me think {{about}} this. {{"verdict": 1}} So: {} Good luck.',
        '{{"answer": {}}}',
        "[{}]",
    ],
)
def test_json_is_found_where_weak_models_put_it(wrap: str) -> None:
    """Plain, fenced, amid prose or wrapped once: the first object that fits is the answer."""
    text = wrap.format(json.dumps(ANSWER))
    assert read(reply(text), PROMPT) == read(reply(), PROMPT)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["```json\n", "```json\n{\n", "~~~\n```\n", "{", '{"a":', "```\n\n```\n"])
def test_a_hostile_answer_is_read_in_linear_time(piece: str) -> None:
    """A model may answer anything at length."""
    with pytest.raises(AnswerError):
        read(reply(piece * (1_000_000 // len(piece))), PROMPT)


def test_harmless_faults_are_mended() -> None:
    """Letter case, hyphens, numbers as strings, null for empty, missing optional parts, keys nobody asked for."""
    answer = {
        "verdict": " Root-Cause Found ",
        "root_cause": "x",
        "hypotheses": [{
            "cause": "c", "likelihood": "High", "extra": 1,
            "evidence": [{"path": MAIN, "quote": "result.dict()", "start_line": "15", "end_line": 15.0}],
        }],
        "recommended_fixes": None,
        "additional_investigation": "look",
        "confidence": "HIGH",
        "mood": {"good": True},
    }  # fmt: skip
    found = read(reply(answer), PROMPT)
    assert (found.verdict, found.hypotheses[0].likelihood) == ("root_cause_found", "high")
    assert (found.fixes, found.additional_investigation, found.code_examples) == ((), ("look",), ())
    assert found.hypotheses[0].evidence[0].note == ""


def test_too_much_is_cut_and_said() -> None:
    """Lists and strings have an end; the warning says what was cut."""
    many = [{"cause": f"c{n}", "likelihood": "low", "evidence": [], "explanation": "y " * TEXT_CAP} for n in range(30)]
    found = read(reply(changed(hypotheses=many)), PROMPT)
    assert len(found.hypotheses) == LIST_CAP
    assert max(len(h.explanation) for h in found.hypotheses) == TEXT_CAP - 1
    assert any("hypotheses had 30 items" in warning for warning in found.warnings)
    assert any("hypotheses[0].explanation was 40,000 characters" in warning for warning in found.warnings)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*ANSWER, "cause", "evidence", "quote"]), inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(list(ANSWER)), JSON), st.sampled_from(["{}", "x {} y", "```\n{}\n```"]))
def test_no_answer_raises_anything_but_its_named_error(parts: dict[str, Any], wrap: str) -> None:
    """Whatever a model writes under the right keys is an analysis or an `AnswerError`."""
    with contextlib.suppress(AnswerError):
        read(reply(wrap.replace("{}", json.dumps({**ANSWER, **parts}))), PROMPT)


@given(st.text(max_size=200))
def test_no_text_raises_anything_but_its_named_error(text: str) -> None:
    """Nor does any text at all."""
    assert kind(text).kind in ("not_json", "wrong_schema", "empty_reply")


# Quotes


def test_a_true_quote_is_grounded_with_the_hash_of_its_file() -> None:
    """The place stands as given, and the hash says which bytes were meant."""
    found = evidence(MAIN, "    store.commit()\n    return", 16, 17)
    assert (found.grounded, found.note) == (True, "")
    assert (found.start_line, found.end_line) == (16, 17)
    assert found.sha256 == hashlib.sha256(cases.MAIN.encode()).hexdigest()


@pytest.mark.parametrize(
    ("path", "quote", "start", "place", "note"),
    [
        (MAIN, "phase.result = result.dict()", 99, 15, "lines corrected: the answer said 99"),
        (MAIN, "  15|     phase.result = result.dict()", 15, 15, ""),
        (MAIN, "  15| phase.result = result.dict()\n  16| store.commit()", 15, 15, "the answer said"),
        (MAIN, "phase.result  =\tresult.dict()", 15, 15, "white space differs"),
        (MAIN, "```python\nphase.result = result.dict()\n```", 15, 15, ""),
        (MAIN, "phase.result = result.dict()", 0, 15, ""),
        (STORE, "self.pending.clear()", 17, 18, "lines corrected"),
        (STORE, "self.pending.clear()", 22, 21, "lines corrected"),
        ("./" + MAIN, "store = Store()", 7, 7, ""),
        ("main.py", "store = Store()", 7, 7, ""),
        ("/c/dev/Autopack/" + MAIN, "store = Store()", 7, 7, ""),
        ("src\\autopack\\main.py", "store = Store()", 7, 7, ""),
        (MAIN + ":7", "store = Store()", 7, 7, ""),
    ],
)
def test_a_quote_is_found_where_it_stands(path: str, quote: str, start: int, place: int, note: str) -> None:
    """Wrong lines, leaked line numbers, fences and white space are corrected, to the nearest place, and said."""
    found = evidence(path, quote, start, start)
    assert found.grounded
    assert found.start_line == place
    assert found.path == (STORE if path == STORE else MAIN)
    assert note in found.note if note else not found.note


def test_the_quote_kept_is_the_text_that_was_sent() -> None:
    """Not the model's version of it: what a reader sees as found can be searched for."""
    assert (
        evidence(STORE, "except  Exception:\npass", 16).quote == "            except Exception:\n                pass"
    )


@pytest.mark.parametrize(
    ("path", "quote", "note"),
    [
        (MAIN, "session.rollback()", f"it does not stand in {MAIN} as sent"),
        (MAIN, "self.pending.clear()", f"it stands in {STORE} line 18"),
        (STORE, "AttributeError: 'BuilderResult'", "it stands in logs line 5"),
        ("src/other.py", "store.commit()", f"no file of this path was sent; it stands in {MAIN} line 16"),
        ("/etc/passwd", "root:x:0:0", "no file of this path was sent"),
        (MAIN, "", "too short"),
        (MAIN, "  )\n", "too short"),
        (MAIN, "ok", "too short"),
        (MAIN, "):\n{}", "too short"),
        (MAIN, "@app.post ... return", "does not stand"),
        ("logs", "KeyError", "does not stand in the request"),
    ],
)
def test_a_quote_that_is_not_there_is_not_grounded(path: str, quote: str, note: str) -> None:
    """Invented, trivial, shortened or from another file: it counts for nothing, and the note says why."""
    found = evidence(path, quote, 3, 4)
    assert not found.grounded
    assert found.sha256 == ""
    assert note in found.note


@pytest.mark.parametrize(("path", "where"), [("logs", "logs"), ("", "logs"), ("<logs>", "logs"), ("traceback", "logs")])
def test_logs_and_the_issue_can_be_quoted(path: str, where: str) -> None:
    """The request's own words were sent too."""
    found = evidence(path, "AttributeError: 'BuilderResult' object has no attribute 'dict'")
    assert (found.grounded, found.path, found.start_line) == (True, where, 5)
    assert evidence("issue", "500 Internal Server Error").path == "issue"


def test_a_quote_without_a_path_is_found_in_the_one_file_that_has_it() -> None:
    """A forgotten path is filled in when there is no doubt."""
    found = evidence("", "phase.result = result.dict()\n    store.commit()")
    assert (found.path, found.start_line, found.grounded) == (MAIN, 15, True)


def test_an_excerpt_keeps_its_own_line_numbers() -> None:
    """Lines are those of the file, not of the part that was sent."""
    prompt = sent("a.py", "alpha = 1\nbeta = 2\n", first=100, total=300)
    found = evidence("a.py", "beta = 2", 2, 2, prompt)
    assert (found.start_line, found.note) == (101, "lines corrected: the answer said 2")


def test_windows_line_ends_do_not_matter() -> None:
    """A quote with \\n is found in a file with \\r\\n, without a note."""
    found = evidence("a.py", "alpha = 1\nbeta = 2", 1, 2, sent("a.py", "alpha = 1\r\nbeta = 2\r\n"))
    assert (found.grounded, found.note) == (True, "")


@given(st.data())
def test_every_whole_line_of_the_code_is_found_at_its_place(data: st.DataObject) -> None:
    """Any run of lines of any file, quoted truly, is grounded exactly there."""
    path, text = data.draw(st.sampled_from([(MAIN, cases.MAIN), (STORE, cases.STORE)]))
    lines = text.split("\n")[:-1]
    first = data.draw(st.integers(0, len(lines) - 1))
    last = data.draw(st.integers(first, len(lines) - 1))
    quote = "\n".join(lines[first : last + 1])
    if len("".join(quote.split())) < 3 or not lines[first].strip() or not lines[last].strip():
        return
    found = evidence(path, quote, first + 1, last + 1)
    assert (found.grounded, found.start_line, found.end_line, found.note) == (True, first + 1, last + 1, "")


# Edits


def test_an_edit_applies_when_its_text_stands_exactly_once() -> None:
    """The place is given, nothing is changed about it."""
    (edit,) = edits((MAIN, "result.dict()", "result.model_dump()"))
    assert edit == Edit(MAIN, "result.dict()", "result.model_dump()", True, 15, "", True, _sha256(cases.MAIN))


def test_an_edit_with_other_indentation_is_fitted_to_the_file() -> None:
    """Both texts move by the one margin that is missing; the text kept is the file's own."""
    (edit,) = edits(
        (
            STORE,
            "try:\n    phase.blob = json.dumps(phase.result)",
            "phase.blob = json.dumps(phase.result)\nif x:\n    y()",
        )
    )
    assert edit.applies
    assert edit.before in cases.STORE
    assert edit.after == "            phase.blob = json.dumps(phase.result)\n            if x:\n                y()"
    assert edit.note.startswith("white space fitted to the file")
    assert edit.parses is False, "the `except` that the `try` had is left alone"


def test_leaked_line_numbers_are_taken_from_an_edit() -> None:
    """`  15| code` on both sides is the form in which the code was shown."""
    (edit,) = edits((MAIN, "  15|     phase.result = result.dict()", "  15|     phase.result = None"))
    assert (edit.before, edit.after) == ("    phase.result = result.dict()", "    phase.result = None")
    assert (edit.applies, edit.start_line, edit.note) == (True, 15, "")


def test_a_file_with_windows_line_ends_keeps_them() -> None:
    """An edit must not mix line ends."""
    (edit,) = edits(
        ("a.py", "alpha = 1\nbeta = 2", "alpha = 2\nbeta = 3"), prompt=sent("a.py", "alpha = 1\r\nbeta = 2\r\n")
    )
    assert (edit.applies, edit.before, edit.after) == (True, "alpha = 1\r\nbeta = 2", "alpha = 2\r\nbeta = 3")


@pytest.mark.parametrize(
    ("path", "before", "after", "note"),
    [
        (STORE, "self.pending.clear()", "x", "stands 2 times in this file: lines 18, 21"),
        (
            STORE,
            "self.pending  .clear()",
            "x",
            "does not stand in this file; did you mean line 18: self.pending.clear()",
        ),
        (MAIN, "phase.results = result.dict()", "x", "did you mean line 15"),
        (MAIN, "nothing like it anywhere", "x", "`before` does not stand in this file"),
        ("src/new.py", "a", "b", "this file was not sent"),
        ("../../etc/passwd", "root", "b", "this file was not sent"),
        (MAIN, "", "x", "`before` is empty"),
        (MAIN, "store.commit()", "store.commit()", "it changes nothing"),
        (
            STORE,
            "    def commit(self):\n  for phase in self.pending:",
            "x",
            "did you mean line 12? The indentation differs",
        ),
    ],
)
def test_an_edit_that_does_not_apply_says_why(path: str, before: str, after: str, note: str) -> None:
    """Never the first of two places, never a loose one: refused, with what may have been meant."""
    (edit,) = edits((path, before, after))
    assert not edit.applies
    assert note in edit.note
    assert not edit.path.startswith(("/", ".."))


def test_edits_of_one_fix_must_not_overlap() -> None:
    """They are applied together, each to the file as sent."""
    first, second, third = edits(
        (MAIN, "phase.result = result.dict()", "a"),
        (MAIN, "result.dict()\n    store", "b"),
        (MAIN, "store = Store()", "c"),
    )
    assert (first.applies, second.applies, third.applies) == (True, False, True)
    assert "same text as an edit before it" in second.note


def test_an_edit_checked_against_a_part_says_so() -> None:
    """What was not sent may hold the text a second time."""
    (edit,) = edits(
        ("a.py", "beta = 2", "beta = 3"), prompt=sent("a.py", "alpha = 1\nbeta = 2\n", first=100, total=300)
    )
    assert (edit.applies, edit.start_line, edit.note) == (True, 101, "only a part of this file was sent and checked")


@given(st.data())
def test_an_edit_that_applies_can_be_applied_by_anybody(data: st.DataObject) -> None:
    """`before` is in the file exactly once, so a plain replacement does what was meant, however it was indented."""
    lines = cases.STORE.split("\n")[:-1]
    first = data.draw(st.integers(0, len(lines) - 1))
    last = data.draw(st.integers(first, len(lines) - 1))
    margin = data.draw(st.sampled_from(["", "  ", "    "]))
    shown = [row.removeprefix(margin) for row in lines[first : last + 1]]
    (edit,) = edits((STORE, "\n".join(shown), "NEW"))
    if edit.applies:
        assert cases.STORE.count(edit.before) == 1
        assert cases.STORE[: cases.STORE.index(edit.before)].count("\n") + 1 == edit.start_line


def test_fixes_come_in_their_order_and_stay_in_the_workspace() -> None:
    """Priority 1 first; a file outside is not named to whoever would open it."""
    fixes = [
        {**ANSWER["recommended_fixes"][0], "priority": 2, "description": "second", "file": "/etc/passwd", "edits": []},
        {**ANSWER["recommended_fixes"][0], "priority": 1, "description": "first"},
    ]
    found = read(reply(changed(recommended_fixes=fixes)), PROMPT)
    assert [fix.description for fix in found.fixes] == ["first", "second"]
    assert found.fixes[1].file == ""
    assert any("outside the workspace" in warning for warning in found.warnings)


def test_files_needed_stay_in_the_workspace() -> None:
    """A request for a file elsewhere is dropped, and said."""
    wanted = ["src/a.py", "../b.py", "~/.ssh/id_rsa", "/etc/passwd", "C:/x", "src/a.py", "d/*.py", "x\u202ey"]
    found = read(reply(changed(verdict="need_more_files", files_needed=wanted)), PROMPT)
    assert found.files_needed == ("src/a.py", "d/*.py")
    assert any("5 of the files" in warning for warning in found.warnings)


# The verdict and the confidence


GROUNDED = {"path": MAIN, "start_line": 15, "end_line": 15, "quote": "phase.result = result.dict()"}
LOGGED = {"path": "logs", "start_line": 0, "end_line": 0, "quote": "AttributeError: 'BuilderResult'"}
INVENTED = {"path": MAIN, "start_line": 3, "end_line": 3, "quote": "raise Surprise()"}


def judged(*quotes: dict[str, Any], verdict: str = "root_cause_found", word: str = "high", **changes: Any) -> Analysis:
    one = {"cause": "c", "likelihood": "high", "explanation": "", "evidence": list(quotes)}
    return read(reply(changed(hypotheses=[one], verdict=verdict, confidence=word), **changes), PROMPT)


@pytest.mark.parametrize(
    ("quotes", "verdict"),
    [
        ([GROUNDED], "root_cause_found"),
        ([GROUNDED, INVENTED], "root_cause_found"),
        ([LOGGED], "likely"),
        ([], "likely"),
        ([INVENTED], "inconclusive"),
    ],
)
def test_no_claim_is_published_above_its_evidence(quotes: list[dict[str, Any]], verdict: str) -> None:
    """Found needs code that was found; invented quotes make it inconclusive; what was lowered is said."""
    found = judged(*quotes)
    assert found.verdict == verdict
    assert any("calls the root cause found" in warning for warning in found.warnings) == (verdict != "root_cause_found")


def test_without_a_language_model_nothing_is_more_than_likely() -> None:
    """`simulated` replies are never above `likely`, nor above medium confidence."""
    found = judged(GROUNDED, simulated=True)
    assert found.verdict == "likely"
    assert found.confidence.level == "medium"


def test_a_call_for_files_that_names_none_is_inconclusive() -> None:
    """Nobody could act on it."""
    assert judged(GROUNDED, verdict="need_more_files").verdict == "inconclusive"


def test_hypotheses_are_ranked_by_likelihood_and_then_by_evidence() -> None:
    """A reader starts with the one that has something to show."""
    given_ = [
        {"cause": "low", "likelihood": "low", "evidence": [GROUNDED]},
        {"cause": "bare", "likelihood": "high", "evidence": [INVENTED]},
        {"cause": "shown", "likelihood": "high", "evidence": [GROUNDED]},
    ]
    found = read(reply(changed(hypotheses=given_, root_cause="")), PROMPT)
    assert [h.cause for h in found.hypotheses] == ["shown", "bare", "low"]
    assert found.root_cause == "shown"


@pytest.mark.parametrize(
    ("found", "level", "limit"),
    [
        (judged(GROUNDED), "high", ""),
        (judged(GROUNDED, word="low"), "medium", "the model itself is not confident"),
        (judged(LOGGED), "medium", ""),
        (judged(INVENTED), "low", ""),
        (judged(), "low", ""),
        (judged(GROUNDED, verdict="inconclusive"), "low", "the verdict is inconclusive"),
        (judged(GROUNDED, simulated=True), "medium", "no language model was asked"),
    ],
)
def test_confidence_follows_the_check(found: Analysis, level: str, limit: str) -> None:
    """High needs quotes that were found; each limit that bites is shown as a part of weight 0."""
    assert found.confidence.level == level
    limits = [part.why for part in found.confidence.parts if part.weight == 0]
    assert len(limits) == bool(limit)
    assert limit in "".join(limits)


@given(
    st.lists(st.sampled_from([GROUNDED, LOGGED, INVENTED]), max_size=5),
    st.sampled_from(["root_cause_found", "likely", "inconclusive", "no_bug_found", "need_more_files"]),
    st.sampled_from(["high", "medium", "low"]),
    st.booleans(),
)
def test_confidence_is_the_sum_of_its_parts(
    quotes: list[dict[str, Any]], verdict: str, word: str, simulated: bool
) -> None:
    """Weights sum to 1, the score is the weighted sum unless a limit cuts it, the level follows from the score."""
    found = judged(*quotes, verdict=verdict, word=word, simulated=simulated)
    parts = found.confidence.parts
    assert sum(part.weight for part in parts) == pytest.approx(1)
    full = sum(part.weight * part.score for part in parts)
    limits = [part.score for part in parts if part.weight == 0]
    assert found.confidence.score == pytest.approx(min([full, *limits]), abs=0.006)
    assert found.confidence.level == next(
        level for level, least in THRESHOLDS.items() if found.confidence.score >= least
    )
    if not any(quote is not INVENTED for quote in quotes):
        assert found.confidence.level == "low"
    if simulated:
        assert found.verdict != "root_cause_found"


def test_the_models_own_word_alone_never_changes_much() -> None:
    """Its weight is the smallest, and it stands last."""
    assert WEIGHTS["model"] == min(WEIGHTS.values())
    assert list(WEIGHTS)[-1] == "model"
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    assert judged(GROUNDED).confidence.score - judged(GROUNDED, word="medium").confidence.score < 0.06


def test_parts_that_do_not_apply_are_left_out() -> None:
    """No trace, no edits: nothing to score, and the other parts keep their proportions."""
    request = replace(cases.REQUEST, logs="")
    found = read(reply(changed(recommended_fixes=[])), cases.prompt(request))
    assert {part.name for part in found.confidence.parts} == {"evidence", "coverage", "model"}
    assert sum(part.weight for part in found.confidence.parts) == pytest.approx(1)


def test_quotes_away_from_the_failing_frame_lower_the_confidence() -> None:
    """The program failed at main.py:15: an explanation that never comes near is worth less."""
    near = judged(GROUNDED)
    away = judged({"path": STORE, "start_line": 6, "end_line": 6, "quote": "self.phases = {}"})
    frames = [next(p.score for p in found.confidence.parts if p.name == "frame") for found in (near, away)]
    assert frames == [1.0, 0.0]
    assert near.confidence.score > away.confidence.score
