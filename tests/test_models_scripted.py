"""The scripted model: plays what stands in its file, always the same for the same call, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asking import PROMPT, call_in
from delegated.errors import Refused
from delegated.models.scripted import Scripted


def script(path: Path, content: Any) -> Scripted:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return Scripted(str(path))


async def test_the_first_answer_that_fits_is_given_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    """`contains` is looked for in the prompt, `call` in the call's id; the reply is recorded like any other."""
    model = script(
        tmp_path / "script.json",
        {
            "answers": [
                {"contains": "no such words", "text": "wrong"},
                {"call": "02-repair", "text": "wrong"},
                {"contains": "fail? ü", "call": "01-first", "answer": {"root_cause": "ü"}, "delay_s": 0.01},
                {"text": "too late"},
            ]
        },
    )
    with call_in(tmp_path) as call:
        reply = await model.ask(PROMPT, call)
        assert call.reply == reply
        assert not call.sends
    assert json.loads(reply.text) == {"root_cause": "ü"}
    assert (reply.outcome, reply.simulated) == ("completed", True)
    assert reply.model == model.name == f"scripted:{tmp_path / 'script.json'}"
    assert (model.wire, model.endpoint) == ("local", "")
    (tmp_path / "script.json").unlink()
    with call_in(tmp_path) as call:
        assert await model.ask(PROMPT, call) == reply


async def test_a_script_can_end_in_any_outcome(tmp_path: Path) -> None:
    """What a provider can end in, a demonstration can show."""
    model = script(tmp_path / "s.json", [{"text": "I will not.", "outcome": "refusal"}])
    with call_in(tmp_path) as call:
        reply = await model.ask(PROMPT, call)
    assert (reply.outcome, reply.text) == ("refusal", "I will not.")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "line 1"),
        ("3", "a list of answers"),
        ({"answer": []}, "a list of answers"),
        (["x"], "answer 1: expected an object"),
        ([{"text": "a"}, {"txt": "b"}], "answer 2: unknown key 'txt'"),
        ([{"contains": "a"}], "one of `answer` and `text`"),
        ([{"text": "a", "answer": 1}], "one of `answer` and `text`"),
        ([{"text": 1}], "are texts"),
        ([{"text": "a", "outcome": "great"}], "`outcome` is one of completed"),
        ([{"text": "a", "delay_s": -1}], "`delay_s`"),
        ([{"text": "a", "delay_s": True}], "`delay_s`"),
        ([{"text": "a", "contains": "no such words"}], "no answer that fits"),
        ("[" * 100_000, "cannot be used"),
        ("[" + "1" * 5000 + "]", "cannot be used"),
    ],
)
async def test_a_script_that_cannot_be_used_says_why(tmp_path: Path, content: Any, problem: str) -> None:
    """The file, the entry and what would be right are named; nothing is recorded."""
    model = script(tmp_path / "s.json", content)
    with call_in(tmp_path) as call:
        with pytest.raises(Refused) as caught:
            await model.ask(PROMPT, call)
        assert call.reply is None
    assert problem in caught.value.message
    assert str(tmp_path / "s.json") in caught.value.message


async def test_a_missing_script_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere is refused with its name."""
    with call_in(tmp_path) as call, pytest.raises(Refused, match=r"nowhere\.json"):
        await Scripted(str(tmp_path / "nowhere.json")).ask(PROMPT, call)
