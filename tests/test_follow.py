"""A further question about a RESULT is asked with all that was said before, and has a RESULT of its own."""

from __future__ import annotations

import json

import pytest

from delegated import folder
from delegated.cli import exits
from harness import PREFIX, House, Server, request_text
from test_comparison import DIVIDES, EMPTY
from test_receipt import delegate, verified
from test_rounds import POST, words

END = "\n<!-- END -->\n"


def ask(house: House, key: str, number: int, text: str) -> None:
    (house.folder / f"{PREFIX}FOLLOWUP_{key}_{number}.md").write_text(text + END)


@pytest.mark.parametrize(
    ("name", "key", "follows"),
    [
        ("FOLLOWUP_a_1.md", "a_1", ("a", 1)),
        ("FOLLOWUP_20251128_133758_12.yaml", "20251128_133758_12", ("20251128_133758", 12)),
        ("REQUEST_a_1.md", "a_1", None),
        ("FOLLOWUP_a.md", None, None),
        ("FOLLOWUP_a_0.md", None, None),
        ("FOLLOWUP_a_x.md", None, None),
        ("FOLLOWUP_a_1.txt", None, None),
        (f"FOLLOWUP_{'a' * 94}_1.md", f"{'a' * 94}_1", ("a" * 94, 1)),
        (f"FOLLOWUP_{'a' * 100}_1.md", None, None),
        (f"REQUEST_{'a' * 100}.md", "a" * 100, None),
        (f"REQUEST_{'a' * 101}.md", None, None),
    ],
)
def test_its_name_says_what_it_follows(name: str, key: str | None, follows: tuple[str, int] | None) -> None:
    """Its id is that of the RESULT with a number; every name of an id is found again by the id."""
    asked = folder.request_id(PREFIX + name)
    assert (asked[0] if asked else None) == key
    assert folder.followed(PREFIX + name) == follows
    if key is not None:
        assert PREFIX + name in folder.request_names(key)


@pytest.mark.slow
def test_a_question_about_a_result(house: House, server: Server) -> None:
    """The code and the logs of the first request go along, with both answers so far; plain text is a question."""
    house.use(server)
    server.script(
        {"match": POST, "do": {"answer": DIVIDES | {"technical_explanation": "len(items) is 0"}}},
        {"match": POST, "at": 2, "do": {"answer": EMPTY | {"answers": ["Because nothing was loaded."]}}},
        {"match": POST, "at": 3, "do": {"answer": DIVIDES}},
    )
    house.up()
    house.drop("a")
    house.result("a")
    ask(house, "a", 1, "Why is the list empty?")
    result = house.result("a_1")
    assert (result["status"], result["answers"]) == ("answered", ["Because nothing was loaded."])
    assert result["request"]["follows"] == "a"
    assert result["request"]["title"] == "Why is the list empty?"
    assert result["egress"][0]["files"][0]["path"] == "app.py"
    said = words(server, 2)
    assert "len(items) is 0" in said[said.index("<earlier>") : said.index("</earlier>")]
    assert "1. Why is the list empty?" in said[said.index("<questions>\n") : said.index("</questions>")]
    assert "`OPENAI_DELEGATION_RESULT_a.md`" in house.result_path("a_1", "md").read_text()
    ask(house, "a", 2, "## Issue\n\nAnd who calls it?\n\n## Files\n\n- other.py\n")
    (house.workspace / "other.py").write_text("import app\n")
    result = house.result("a_2")
    assert [file["path"] for file in result["egress"][0]["files"]] == ["app.py", "other.py"]
    said = words(server, 3)
    assert "Question 1: Why is the list empty?" in said
    assert "Because nothing was loaded." in said
    verified(house, "a_2")


@pytest.mark.slow
def test_a_follow_up_that_cannot_be_asked_says_why(house: House) -> None:
    """About nothing, about a request without an answer, about another follow-up: rejected, with what to do."""
    house.set(model="offline")
    house.up()
    ask(house, "none", 1, "Why?")
    result = house.result("none_1")
    assert (result["status"], result["error"]["kind"]) == ("rejected", "invalid_request")
    assert "there is no answer to none on record" in result["problems"][0]
    house.drop("a", request_text("it divides by zero"))
    house.result("a")
    ask(house, "a", 1, "Why?")
    assert house.result("a_1")["status"] == "answered"
    ask(house, "a_1", 1, "Why is that?")
    assert "ask further about a" in house.result("a_1_1")["problems"][0]
    (house.folder / f"{PREFIX}FOLLOWUP_a_2.yaml").write_text("files: [a.py]\n...\n")
    assert "issue" in house.result("a_2")["problems"][0]


@pytest.mark.slow
def test_the_command_asks_further_and_show_names_it(house: House) -> None:
    """The next number each time; about nothing, or with an id of its own, nothing is written."""
    house.set(model="offline")
    assert delegate(house, "ask", "--issue", "it divides by zero", "--files", "app.py", "--id", "a").returncode == 0
    for number in (1, 2):
        done = delegate(house, "ask", "--follow-up", "a", "--issue", f"Why, {number}?", "--no-wait", "--json")
        told = json.loads(done.stdout)
        assert told["id"] == f"a_{number}"
        assert told["request"].endswith(f"FOLLOWUP_a_{number}.md")
        assert delegate(house, "wait", f"a_{number}").returncode == 0
    assert b"asked further: a_1, a_2" in delegate(house, "show", "a").stderr
    assert delegate(house, "ask", "--follow-up", "b", "--issue", "Why?").returncode == exits.ABSENT
    assert delegate(house, "ask", "--follow-up", "a", "--id", "c", "--issue", "Why?").returncode == exits.USAGE
    assert len(list(house.folder.glob(f"{PREFIX}FOLLOWUP_*"))) == 2
