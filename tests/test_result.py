"""A RESULT reads well to a person, is exact for a program, and cannot be broken by what it quotes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import cases
from delegated import folder, prompt, result
from delegated.analysis import (
    Analysis,
    CodeExample,
    Confidence,
    Edit,
    Evidence,
    Fix,
    Hypothesis,
    Level,
    Part,
    Verdict,
    read,
)
from delegated.calibration import Calibration
from delegated.comparison import Opinion, compare
from delegated.context import Context, Omitted
from delegated.errors import KINDS
from delegated.patch import Patch
from delegated.plain import settled
from delegated.prompt import Prompt
from delegated.reply import Usage
from delegated.request import Request
from delegated.result import (
    BILLED,
    Egress,
    Failure,
    RequestRef,
    Result,
    SentFile,
    Status,
    failure,
    from_json,
    to_json,
    to_markdown,
)
from delegated.secrets import Redaction
from delegated.trial import tried
from delegated.veil import veil
from golden_files import assert_golden
from security.seeking import answer_with
from test_markdown import ALLOWED_INLINE, HOSTILE, inline_kinds, kinds

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "config/schemas/result.schema.json").read_text("utf-8"))
RULES = jsonschema.Draft202012Validator(SCHEMA)
ID = "20251128_133758"
REF = RequestRef(ID, f"OPENAI_DELEGATION_REQUEST_{ID}.md", "9f" * 32, 1, cases.REQUEST.issue)
STAMP = "2025-11-28T13:38:13.120Z"


def receipt(made: Prompt, *, call: str = "first", local: bool = False, **more: Any) -> Egress:
    files = tuple(
        SentFile(e.path, e.start_line, e.end_line, e.total_lines, e.sha256, len(e.text), e.why)
        for e in made.context.excerpts
    )
    where = ("offline", "", "local") if local else ("gpt-4o", "https://api.openai.com/v1", "responses")
    size = 0 if local else len(made.system + made.user)
    return Egress(
        call, *where, files, made.context.omitted, made.redactions, size, size // 4, prompt.sha256(made),
        0.0 if local else 0.1737, sends=0 if local else 1, **more,
    )  # fmt: skip


def answered(answer: Any = cases.ANSWER, made: Prompt | None = None, **changes: Any) -> Result:
    made = made or cases.prompt()
    simulated = changes.get("simulated", False)
    reply = cases.reply(answer, simulated=simulated)
    missing = "src/autopack/models.py: no such file; paths are relative to the workspace root"
    said = {
        "status": "answered", "request": REF, "timestamp": STAMP, "model": "gpt-4o", "analysis": read(reply, made),
        "warnings": (missing,), "usage": reply.usage,
        "egress": (receipt(made, local=simulated, cost_usd=None if simulated else 0.0146),), "cost_usd": 0.0146,
        "attempts": 1, "timings": {"gather": 0.012, "ask": 8.21, "check": 0.004}, "raw_response": reply.text,
    }  # fmt: skip
    return Result(**{**said, **changes})


def on_disk(made: Result) -> Result:
    """Try the edits on a workspace that has the files as they were sent."""
    files = {"src/autopack/main.py": cases.MAIN, "src/autopack/store.py": cases.STORE}
    name = folder.result_name(ID, "patch")
    return tried(made, name, lambda path: files[path].encode(), lambda parts: [text for _, text in parts])


def compared() -> Result:
    """What three models said, one of them nothing."""
    second = cases.changed(
        root_cause="`Store.commit` swallows the error of `json.dumps`, so the result is never written.",
        hypotheses=[{**cases.ANSWER["hypotheses"][1], "likelihood": "high"}],
        additional_investigation=["Log the exception in `commit`: a TypeError there confirms it."],
    )
    first, other = (read(cases.reply(each), cases.prompt()) for each in (cases.ANSWER, second))
    comparison, shown = compare(
        [
            Opinion("gpt-4o", "answered", first, cost_usd=0.0146, seconds=8.2),
            Opinion("local-llama", "answered", other, cost_usd=None, seconds=31.0),
            Opinion(
                "gpt-4o-mini", "failed", None, "no answer within 60 s; the call had left and may be billed", None, 60.0
            ),
        ]
    )
    return answered(analysis=shown, comparison=comparison)


OFFLINE = cases.changed(
    verdict="likely",
    root_cause="`AttributeError`: `BuilderResult` has no attribute `dict`, which line 15 uses.",
    technical_explanation="The trace ends at `main.py` line 15.",
    hypotheses=cases.ANSWER["hypotheses"][:1],
    recommended_fixes=[],
    code_examples=[],
    answers=[],
    confidence="medium",
)
NEEDS = cases.changed(
    verdict="need_more_files",
    root_cause="",
    technical_explanation="The handler writes through `Store`, whose `commit` serialises `phase.result`. Whether "
    "`BuilderResult` has `dict()` depends on its base class, which was not sent.",
    hypotheses=[{**cases.ANSWER["hypotheses"][0], "likelihood": "medium"}],
    recommended_fixes=[],
    code_examples=[],
    answers=[],
    files_needed=["src/autopack/schemas.py", "requirements.txt"],
    confidence="low",
)
CLEAN = cases.changed(
    verdict="no_bug_found",
    root_cause="",
    technical_explanation="`Store.commit` and the handler do what they should; the log shows a client's error.",
    hypotheses=[
        {
            "cause": "The code is correct",
            "likelihood": "medium",
            "explanation": "The handler checks for a missing phase and answers 404.",
            "evidence": [{"path": "src/autopack/main.py", "start_line": 13, "end_line": 14,
                          "quote": "    if phase is None:\n        raise HTTPException(404, \"no such phase\")"}],
        }
    ],
    recommended_fixes=[], code_examples=[], answers=["Nothing in this code explains it.", ""], confidence="medium",
)  # fmt: skip


@cache
def goldens() -> dict[str, Result]:
    none = Result("failed", REF, STAMP, model="gpt-4o")
    calm = cases.prompt(replace(cases.REQUEST, logs=""))
    return {
        "root_cause_found": on_disk(answered()),
        "likely_offline": answered(
            OFFLINE, simulated=True, model="offline", warnings=(), usage=Usage(0, 0, 0), cost_usd=0.0
        ),
        "need_more_files": answered(NEEDS),
        "no_bug_found": answered(CLEAN, calm, warnings=()),
        "comparison": compared(),
        "rejected": replace(
            none,
            status="rejected",
            model="",
            request=replace(REF, title=""),
            problems=(
                "line 2: found the unknown key `modle`; did you mean `models`?",
                "line 5: found `soon` for `deadline_s`; write a number of seconds",
                "there is no issue; write one under `## Issue`",
            ),
            error=failure("invalid_request", "the request has 3 problems", ID),
        ),
        "missing_key": replace(none, error=failure("missing_key", "OPENAI_API_KEY environment variable required", ID)),
        "not_json": replace(
            none,
            error=failure("not_json", "the answer is not JSON: Expecting value at line 1 column 1", ID),
            egress=(receipt(cases.prompt()), receipt(cases.prompt(), call="repair")),
            raw_response="I think the problem is in main.py, line 15.\n\n```python\nresult.model_dump()\n```\n",
            cost_usd=0.031,
            attempts=2,
            usage=Usage(7810, 3905, 640),
        ),
        "uncertain": replace(
            none,
            status="uncertain",
            error=failure("uncertain", "the connection was lost after the request was sent, and this provider "
                          "cannot look it up", ID),
            egress=(receipt(cases.prompt()),),
            attempts=1,
        ),
        "cancelled": replace(
            none,
            status="cancelled",
            error=failure("cancelled", "it was cancelled by its CANCEL file", ID),
            warnings=("a call had left already and may be billed by the provider",),
        ),
        "duplicate": replace(
            none, status="duplicate", model="", duplicate_of=ID, request=replace(REF, id=f"{ID}-conflict", title="")
        ),
    }  # fmt: skip


NAMES = ("root_cause_found", "likely_offline", "need_more_files", "no_bug_found", "comparison", "rejected",
         "missing_key", "not_json", "uncertain", "cancelled", "duplicate")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_as_it_was_read_and_approved(name: str) -> None:
    """One RESULT.md of every kind stands beside the tests, to be read by a person."""
    assert_golden(f"result_{name}.md", to_markdown(goldens()[name]))


@pytest.mark.parametrize("name", NAMES)
def test_the_json_fits_its_published_schema_and_comes_back(name: str) -> None:
    """Every kind of RESULT validates, and reads back as the same Result."""
    made = goldens()[name]
    RULES.validate(json.loads(to_json(made)))
    assert from_json(to_json(made)) == made


def test_the_json_is_as_it_was_read_and_approved() -> None:
    """One RESULT.json stands beside the tests; programs are written against it."""
    assert_golden("result_root_cause_found.json", to_json(goldens()["root_cause_found"]))


def walk(schema: dict[str, Any], value: Any, where: str = "$") -> Iterator[tuple[str, set[str], set[str]]]:
    if isinstance(value, dict) and "properties" in schema:
        yield where, set(schema["properties"]), set(value)
        for key, item in value.items():
            yield from walk(schema["properties"].get(key, {}), item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from walk(schema.get("items", {}), item, where + "[]")


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_names_every_key_that_is_written(name: str) -> None:
    """No key is undocumented, none is promised and missing."""
    for where, promised, written in walk(SCHEMA, json.loads(to_json(goldens()[name]))):
        assert promised == written, where


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (Calibration("high", 14, 17, "high was right 14 of 17 times here"), "High was right 14 of 17 times here."),
        (
            Calibration("high", 2, 3, "not enough data (n = 3)"),
            "How often high is right here: not enough data (n = 3).",
        ),
    ],
)
def test_it_says_how_often_such_a_confidence_was_right(known: Calibration, said: str) -> None:
    """Beside the confidence, and how to say what came of this one; a RESULT of before says nothing of it."""
    made = answered(calibration=known)
    value = json.loads(to_json(made))
    RULES.validate(value)
    assert from_json(to_json(made)) == made
    for where, promised, written in walk(SCHEMA, value):
        assert promised == written, where
    (beside,) = (line for line in to_markdown(made).splitlines() if line.startswith("**Confidence: "))
    assert said in beside
    assert f"`delegate outcome {ID} fixed`" in to_markdown(made)
    del value["calibration"]
    assert from_json(json.dumps(value)) == answered()
    assert "right here" not in to_markdown(answered())
    hostile = answered(calibration=Calibration("<b>\x1b[31m", 9, 9, "![x](http://e.com) <img src=x>\n# no"))
    tokens = MarkdownIt("commonmark").enable("table").parse(to_markdown(hostile))
    assert inline_kinds(tokens) <= ALLOWED_INLINE
    assert "\x1b" not in to_markdown(hostile)


def test_readers_of_the_original_format_go_on_working() -> None:
    """Its keys are there, as strings and lists where they were."""
    value = json.loads(to_json(goldens()["root_cause_found"]))
    for key in ("analysis", "root_cause", "raw_response", "timestamp", "confidence_level"):
        assert isinstance(value[key], str)
        assert value[key]
    assert value["confidence_level"] == value["confidence"]["level"]
    assert isinstance(value["additional_investigation"], list)
    for fix in value["recommended_fixes"]:
        assert isinstance(fix["priority"], int)
        for key in ("description", "file", "changes", "rationale"):
            assert isinstance(fix[key], str)
    assert "-    phase.result = result.dict()" in value["recommended_fixes"][0]["changes"]


# Exactness


TEXT = st.text(max_size=12)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
INT = st.integers(0, 10**9)
EVIDENCE = st.builds(Evidence, TEXT, INT, INT, TEXT, TEXT, st.booleans(), TEXT)
EDIT = st.builds(
    Edit, TEXT, TEXT, TEXT, st.booleans(), INT, TEXT, st.none() | st.booleans(), TEXT, st.none() | st.booleans()
)
LEVEL = st.sampled_from(get_args(Level))


def several(one: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(one, max_size=2).map(tuple)


ANALYSIS = st.builds(
    Analysis,
    st.sampled_from(get_args(Verdict)),
    TEXT,
    TEXT,
    several(st.builds(Hypothesis, TEXT, LEVEL, TEXT, several(EVIDENCE))),
    several(st.builds(Fix, INT, TEXT, TEXT, several(EDIT), TEXT, TEXT, TEXT)),
    several(st.builds(CodeExample, TEXT, TEXT, TEXT)),
    several(TEXT),
    several(TEXT),
    several(TEXT),
    st.builds(Confidence, LEVEL, FLOAT, several(st.builds(Part, TEXT, FLOAT, FLOAT, TEXT))),
    several(TEXT),
)
EGRESS = st.builds(
    Egress, TEXT, TEXT, TEXT, TEXT, several(st.builds(SentFile, TEXT, INT, INT, INT, TEXT, INT, TEXT)),
    several(st.builds(Omitted, TEXT, TEXT)), several(st.builds(Redaction, TEXT, TEXT, TEXT, INT)), INT, INT, TEXT,
    st.none() | FLOAT, st.none() | FLOAT, INT, TEXT,
)  # fmt: skip
FAILURE = st.builds(Failure, st.sampled_from(list(KINDS)), TEXT, TEXT, st.booleans(), TEXT)
PLAIN = st.recursive(
    st.none() | st.booleans() | INT | FLOAT | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=4,
)


@st.composite
def results(draw: st.DrawFn) -> Result:
    status = draw(st.sampled_from(get_args(Status)))
    return draw(
        st.builds(
            Result,
            status=st.just(status),
            request=st.builds(RequestRef, TEXT, TEXT, TEXT, INT, TEXT),
            timestamp=TEXT,
            model=TEXT,
            simulated=st.booleans(),
            analysis=ANALYSIS if status == "answered" else st.none(),
            error=st.none() if status == "answered" else FAILURE,
            problems=several(TEXT),
            warnings=several(TEXT),
            egress=several(EGRESS),
            usage=st.none() | st.builds(Usage, INT, INT, INT, st.booleans()),
            cost_usd=st.none() | FLOAT,
            attempts=INT,
            timings=st.dictionaries(TEXT, FLOAT, max_size=2),
            raw_response=TEXT,
            duplicate_of=st.text(min_size=1, max_size=5),
            extra=st.dictionaries(TEXT, PLAIN, max_size=2),
            patch=st.none() | st.builds(Patch, TEXT, several(INT), several(TEXT), TEXT),
            patch_notes=several(TEXT),
        )
    )


SLOW_TO_DRAW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=60)


@SLOW_TO_DRAW
@given(results())
def test_any_result_comes_back_equal_and_fits_the_schema(made: Result) -> None:
    """`from_json(to_json(r)) == r`, pretty-printed UTF-8 with a final newline, valid by the published schema."""
    text = to_json(made)
    assert text.endswith("}\n")
    assert '\n  "status":' in text
    assert from_json(text) == made
    RULES.validate(json.loads(text))


def test_what_json_cannot_hold_does_not_break_it() -> None:
    """NaN is left out or null, half a character is replaced: every reader of JSON takes the file."""
    made = replace(
        goldens()["missing_key"],
        cost_usd=math.nan,
        timings={"ask": math.inf, "gather": 1.0},
        raw_response="a\ud800b",
        extra={"x": [math.nan]},
    )
    text = to_json(made)
    text.encode()
    value = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert (value["cost_usd"], value["timings"], value["extra"]) == (None, {"gather": 1.0}, {"x": [None]})
    assert value["raw_response"] == "a\ufffdb"
    RULES.validate(value)
    assert from_json(text).cost_usd is None
    assert "Cost: nothing" in to_markdown(made)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"schema": "delegated/result/2"}', "[" * 100_000, to_json(goldens()["uncertain"])[:-3],
     to_json(goldens()["uncertain"]).replace('"status": "uncertain"', '"status": "fine"'),
     to_json(goldens()["root_cause_found"]).replace('"grounded": true', '"grounded": "yes"'),
     to_json(goldens()["uncertain"]).replace('"attempts": 1', '"attempts": NaN')],
    ids=range(9),
)  # fmt: skip
def test_anything_else_is_a_value_error(text: str) -> None:
    """A RESULT that somebody else wrote, or half of one, is refused."""
    with pytest.raises(ValueError):
        from_json(text)


def test_keys_of_a_later_version_do_not_stop_a_reader() -> None:
    """A program that was written today reads what tomorrow adds."""
    value = {**json.loads(to_json(goldens()["uncertain"])), "novelty": {"a": 1}}
    assert from_json(json.dumps(value)) == goldens()["uncertain"]


# The page


SECTIONS = {
    "Root Cause Analysis", "Technical Explanation", "Hypotheses and Evidence", "Recommended Fixes", "Patch",
    "Code Examples", "Answers to the Questions", "Additional Investigation", "Comparison of Answers",
    "Confidence Level", "What Was Sent", "Warnings", "Cost and Details", "Files Needed", "What the Model Sent",
}  # fmt: skip
PAGE = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def replaced(value: Any, text: str) -> Any:
    """Put `text` into every string of a JSON value but the words that a type fixes."""
    if isinstance(value, dict):
        fixed = ("schema", "status", "verdict", "level", "likelihood", "kind")
        return {key: item if key in fixed else replaced(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, text) for item in value]
    return text if isinstance(value, str) else value


@pytest.mark.slow
@given(HOSTILE, st.sampled_from(NAMES))
@example("![a](http://x/y.png)|a|b|", "comparison")  # a pipe that ends a model's cell would let go of its code span
def test_no_text_in_any_field_can_break_the_page(text: str, name: str) -> None:
    """With hostile text in every field the headings stay, and there is no HTML, image, link or control character."""
    page = to_markdown(from_json(json.dumps(replaced(json.loads(to_json(goldens()[name])), text))))
    tokens = PAGE.parse(page)
    headings = [
        (tokens[at].tag, tokens[at + 1].content) for at, token in enumerate(tokens) if token.type == "heading_open"
    ]
    assert [tag for tag, _ in headings].count("h1") == 1
    assert {words for tag, words in headings if tag == "h2"} <= SECTIONS
    expected = [tag for tag, _ in headings_of(to_markdown(goldens()[name]))]
    thirds = [tag for tag, _ in headings if tag == "h3"]
    assert thirds == [tag for tag in expected if tag == "h3"]
    assert kinds(tokens) <= {"heading", "paragraph", "inline", "bullet_list", "ordered_list", "list_item", "fence",
                             "table", "thead", "tbody", "tr", "th", "td", "blockquote"}  # fmt: skip
    assert inline_kinds(tokens) <= ALLOWED_INLINE
    assert result.clean(page) == page
    page.encode()


def headings_of(page: str) -> list[tuple[str, str]]:
    tokens = PAGE.parse(page)
    return [(tokens[at].tag, tokens[at + 1].content) for at, token in enumerate(tokens) if token.type == "heading_open"]


@given(HOSTILE)
def test_every_table_keeps_its_columns(text: str) -> None:
    """A pipe or a newline in a path or a reason stays in its cell."""
    page = to_markdown(from_json(json.dumps(replaced(json.loads(to_json(goldens()["root_cause_found"])), text))))
    for block in re.findall(r"(?m)^(\|.*\n\|---.*\n(?:\|.*\n)+)", page):
        tokens = PAGE.parse(block)
        columns = sum(token.type == "th_open" for token in tokens)
        rows = sum(token.type == "tr_open" for token in tokens) - 1
        assert rows == block.count("\n") - 2
        assert sum(token.type == "td_open" for token in tokens) == columns * rows


def test_a_page_made_without_a_language_model_says_so_first() -> None:
    """The very first line, before the title."""
    first = to_markdown(goldens()["likely_offline"]).split("\n")[0]
    assert first.startswith("> **No language model was asked.**")
    assert to_markdown(goldens()["root_cause_found"]).startswith("# Root cause found: 500 Internal Server Error")


def test_the_sections_of_the_original_are_there_in_its_order() -> None:
    """A reader, or a program that splits the page at its headings, finds them by their names."""
    found = [words for tag, words in headings_of(to_markdown(goldens()["root_cause_found"])) if tag == "h2"]
    wanted = ["Root Cause Analysis", "Technical Explanation", "Recommended Fixes", "Patch", "Code Examples",
              "Additional Investigation", "Confidence Level", "What Was Sent"]  # fmt: skip
    assert [words for words in found if words in wanted] == wanted


def test_a_diff_has_the_line_numbers_of_the_file() -> None:
    """A reader finds the place; an edit whose place is not known does not pretend to one."""
    page = to_markdown(goldens()["root_cause_found"])
    assert "@@ -15 +15 @@\n-    phase.result = result.dict()" in page
    assert "@@ place not known @@\n-self.pending.clear()" in page


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_failure_says_what_to_do(kind: str) -> None:
    """The hint and the command of its kind, with the request's id filled in, are on the page and in the JSON."""
    made = Result("failed", REF, STAMP, error=failure(kind, "it broke", ID))
    page = to_markdown(made)
    assert "it broke" in page
    assert made.error is not None
    assert made.error.retryable == KINDS[kind].retryable
    assert "{id}" not in made.error.next_command
    assert made.error.next_command in page
    assert json.loads(to_json(made))["error"]["hint"] == KINDS[kind].hint


def test_a_result_that_may_have_been_sent_does_not_claim_the_contrary() -> None:
    """Nothing left this machine is said only where that is known."""
    assert "Nothing left this machine." in to_markdown(goldens()["missing_key"])
    for kind, status in (("internal", "failed"), ("cancelled", "cancelled"), ("uncertain", "uncertain")):
        billed = (BILLED,) if status == "cancelled" else ()
        made = Result(status, REF, STAMP, error=failure(kind, "x", ID), warnings=billed)  # type: ignore[arg-type]
        page = to_markdown(made)
        assert "Nothing left" not in page
        assert "Cost: not known" in page


def test_an_empty_answer_is_still_a_page() -> None:
    """Nothing is required of a result but its types."""
    bare = Analysis("inconclusive", "", "", (), (), (), (), (), (), Confidence("low", 0.0, ()))
    page = to_markdown(Result("answered", RequestRef("a", "b", "", 1), "", analysis=bare))
    assert page.startswith("# Inconclusive\n")
    long = "x" * 300 + "\n" + "y\n" * 3_000
    edit = Edit("a.py", long, long.replace("y", "z"), True, 7)
    fix = Fix(1, long, "", (edit,), "", "", "")
    assert to_markdown(Result("answered", REF, STAMP, analysis=replace(bare, fixes=(fix,))))


# docs/results.md


DOC = (ROOT / "docs/results.md").read_text("utf-8") if (ROOT / "docs/results.md").exists() else ""


def test_the_table_of_error_kinds_is_the_one_in_the_code() -> None:
    """Every kind, whether it may succeed later, its hint and its command, in the code's order."""
    rows = ["| kind | may succeed later | what to do | next command |", "|---|---|---|---|"]
    for kind in KINDS.values():
        command = f"`{kind.next_command}`" if kind.next_command else ""
        hint = kind.hint.replace("|", "\\|")
        rows.append(f"| `{kind.name}` | {'yes' if kind.retryable else 'no'} | {hint} | {command} |")
    assert "\n".join(rows) in DOC


def test_the_doc_names_every_field_and_every_word() -> None:
    """A reader finds each key, status, verdict, part of the confidence and its weight."""
    from delegated.analysis import THRESHOLDS, WEIGHTS

    for key in SCHEMA["properties"]:
        assert f"`{key}`" in DOC
    for word in (*get_args(Status), *get_args(Verdict), *get_args(Level)):
        assert f"`{word}`" in DOC
    for name, weight in WEIGHTS.items():
        assert f"| `{name}` | {weight:.2f} |" in DOC
    for level, least in THRESHOLDS.items():
        assert f"`{level}`" in DOC
        assert f"{least:.2f}" in DOC or not least


def test_an_issue_alone_can_be_answered() -> None:
    """No file, no log: the page says that no code was sent."""
    bare = cases.prompt(Request(issue="x"), Context())
    page = to_markdown(answered(cases.changed(verdict="likely"), bare))
    assert "no file was sent" in page
    assert "NOT found in the code sent" in page


KEY = "sk-proj-Own0Key1Of2This3Daemon4"
ESCAPED = "".join(f"\\u{ord(char):04X}" for char in KEY[:4]) + KEY[4:]


def _published(text: str) -> Result:
    """What comes of a model's own text, with the key known to the daemon."""
    found = read(cases.reply(text), cases.prompt())
    return veil(Result("answered", REF, STAMP, analysis=found, raw_response=text), known=[KEY], seed="k")


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for each in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        yield from _strings(each)


@pytest.mark.parametrize("wrap", ["{}", "Here it is:\n```json\n{}\n```\n"])
@pytest.mark.parametrize("written", [KEY, ESCAPED, KEY.replace("-", "\\u002d")])
def test_no_text_of_a_model_is_published_with_a_secret(written: str, wrap: str) -> None:
    """Whichever field holds it and however JSON escapes it: not in the RESULTs, and not in what the raw reply says."""
    answer = json.dumps(answer_with("@")).replace("@", written)
    made = _published(wrap.replace("{}", answer))
    value = json.loads(to_json(made))
    for text in (*_strings(value), *_strings(json.loads(re.search(r"\{.*\}", made.raw_response, re.DOTALL)[0]))):  # type: ignore[index]
        assert KEY not in text
    assert KEY not in to_markdown(made)
    assert any("escapes" in warning for warning in made.warnings) == (written != KEY)


def test_a_raw_reply_without_a_secret_is_kept_as_it_came() -> None:
    """Escapes alone are no reason to rewrite it."""
    text = json.dumps(cases.ANSWER | {"root_cause": "caf\u00e9 \U0001f600 a/b \\ \ud83d"}).replace("a/b", "a\\/b")
    made = _published(text)
    assert (made.raw_response, made.warnings) == (text, ())
    assert json.loads(settled(text)) == json.loads(text)


def test_the_language_of_an_example_is_a_name_that_is_known() -> None:
    """It is shown as it is, so nothing else is taken for one."""
    for said, shown in (("Python", "python"), (KEY, ""), ("mermaid", ""), ("python " + KEY, "python")):
        answer = cases.ANSWER | {"code_examples": [{"title": "t", "language": said, "code": "x"}]}
        assert read(cases.reply(json.dumps(answer)), cases.prompt()).code_examples[0].language == shown
