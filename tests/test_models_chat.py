"""The Chat Completions wire: any compatible server, the strictest form that it takes, and no second bill."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from asking import CHAT, PROMPT, SCHEMA, answering, call_in, chat, client_of
from delegated.errors import Refused, Unavailable, Uncertain
from delegated.job import CallState
from delegated.models.chat import ChatWire
from delegated.models.recorded import Patience
from delegated.pricing import facts
from delegated.testing import Server

SLOW = Patience(poll_first_s=0.01, poll_cap_s=0.05, deadline_s=60, doubt_s=60, fetch_failures_s=60)
LIST = {"method": "GET", "path": "/v1/chat/completions"}


def posts(server: Server) -> int:
    return server.state()["requests"].get("POST /v1/chat/completions", 0)


async def ask_once(base_url: str, folder: Path, **settings: Any) -> Any:
    model = chat(base_url, **settings)
    try:
        with call_in(folder) as call:
            return await model.ask(PROMPT, call)
    finally:
        await model.close()


def completion(message: Any, **more: Any) -> str:
    choice = {"index": 0, "finish_reason": "stop", "message": message, **more}
    return json.dumps({"id": "c1", "model": "m", "choices": [choice]})


async def test_a_call_is_one_post_with_the_strict_schema(tmp_path: Path) -> None:
    """To a server that is not OpenAI's nothing is sent but what every compatible one knows."""
    async with Server() as server:
        reply = await ask_once(server.base_url, tmp_path)
        sent = json.loads(server.body(1) or b"")
        assert (posts(server), len(server.bills)) == (1, 1)
    assert reply.outcome == "completed"
    assert set(json.loads(reply.text)) == {"root_cause"}
    assert reply.response_id.startswith("chatcmpl_")
    assert not reply.usage.estimated
    assert sent.keys() == {"model", "messages", "max_tokens", "response_format"}
    assert sent["response_format"]["json_schema"] == {"name": "analysis", "schema": SCHEMA, "strict": True}
    assert [m["content"] for m in sent["messages"]] == [PROMPT.system, PROMPT.user]


async def test_a_stored_call_carries_its_name(tmp_path: Path) -> None:
    """Where the provider stores, the call id goes along, so that a lost one can be found."""
    async with Server() as server:
        await ask_once(server.base_url, tmp_path, store=True)
        sent = json.loads(server.body(1) or b"")
    with call_in(tmp_path) as call:
        assert sent["metadata"] == {"call": call.call_id}
    assert sent["store"] is True


def test_openais_own_endpoint_stores_by_itself() -> None:
    """`store: auto` stores where it can be looked up, which is at OpenAI only, and may be switched off there."""
    own, other = client_of("https://api.openai.com/v1"), client_of("http://127.0.0.1:1/v1")

    def body(wire: ChatWire) -> dict[str, Any]:
        return wire._body(PROMPT, "id")

    assert body(ChatWire(own, "gpt-4o", max_output_tokens=9))["store"] is True
    assert "store" not in body(ChatWire(own, "gpt-4o", max_output_tokens=9, store=False))
    assert "store" not in body(ChatWire(other, "gpt-4o", max_output_tokens=9))
    assert body(ChatWire(own, "gpt-4o", max_output_tokens=9))["max_completion_tokens"] == 9


async def test_the_form_of_the_answer_steps_down_and_stays_there(tmp_path: Path) -> None:
    """json_schema, then json_object, then asked for in words; what was rejected once is not tried again."""
    rules = [
        {
            "match": {**CHAT, "body": {"response_format.type": form}},
            "times": "always",
            "do": {"error": "format_unsupported"},
        }
        for form in ("json_schema", "json_object")
    ]
    async with Server(rules=rules) as server:
        model = chat(server.base_url)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            with call_in(tmp_path / name) as call:
                await model.ask(PROMPT, call)
                assert call.sends == 1
        await model.close()
        assert posts(server) == 4
        assert len(server.bills) == 2
        sent = json.loads(server.body(2) or b"")
        assert "response_format" not in sent
        assert json.dumps(SCHEMA) in sent["messages"][0]["content"]


@pytest.mark.parametrize("about", ["limit", "form"])
async def test_calls_that_are_rejected_at_once_step_down_together(about: str) -> None:
    """What one call has learned from its rejection is no news from another's: each goes again as the first one does."""
    forms: list[str] = []

    def answer(line: str, headers: dict[str, str], body: Any) -> tuple[int, dict[str, str], str]:
        form = body.get("response_format", {}).get("type", "prompt")
        forms.append(form)
        if about == "limit" and "max_tokens" in body:
            error = {"message": "Unsupported parameter: 'max_tokens'.", "param": "max_tokens"}
            return 400, {}, json.dumps({"error": error})
        if about == "form" and form == "json_schema":
            return 400, {}, json.dumps({"error": {"message": "response_format json_schema is not known"}})
        return 200, {}, completion({"content": "{}"})

    async with answering(answer) as base_url:
        wire = ChatWire(client_of(base_url), "gpt-4o", max_output_tokens=9)
        posted = await asyncio.gather(*(wire.post(PROMPT, f"call-{n}", "") for n in range(3)))
        await wire.close()
    assert [each.reply and each.reply.outcome for each in posted] == ["completed"] * 3
    assert sorted(forms) == (["json_object"] * 3 if about == "form" else ["json_schema"] * 3) + ["json_schema"] * 3


async def test_a_form_that_is_known_is_not_left_for_another_error(tmp_path: Path) -> None:
    """A 400 about something else is final; it is not taken for a server that does not know the form."""
    async with Server(rules=[{"match": CHAT, "do": {"error": "context_length_exceeded"}}]) as server:
        with pytest.raises(Refused):
            await ask_once(server.base_url, tmp_path)
        assert posts(server) == 1


async def test_the_limit_goes_by_the_name_that_the_server_knows(tmp_path: Path) -> None:
    """Reasoning models refuse `max_tokens`: the call goes again as `max_completion_tokens`, without `temperature`."""
    async with Server() as server:
        known = facts("gpt-6-luna")
        reply = await ask_once(server.base_url, tmp_path, model="gpt-6-luna", facts=known, temperature=0.1)
        assert reply.outcome == "completed"
        sent = json.loads(server.body(1) or b"")
        assert sent["max_completion_tokens"] == 500
        assert not {"max_tokens", "temperature"} & sent.keys()
        assert (posts(server), len(server.bills)) == (2, 1)


async def test_a_limit_that_no_name_fits_is_refused(tmp_path: Path) -> None:
    """The renaming is tried once, not for ever."""
    fault = {"status": 400, "body": {"error": {"message": "max_tokens is too large", "param": "max_tokens"}}}
    async with Server(rules=[{"match": CHAT, "times": "always", "do": fault}]) as server:
        with pytest.raises(Refused, match="too large"):
            await ask_once(server.base_url, tmp_path)
        assert posts(server) == 2


@pytest.mark.parametrize(
    ("outcome", "named"),
    [
        ("refusal", "refusal"),
        ("max_output_tokens", "truncated"),
        ("content_filter", "content_filter"),
        ("empty", "empty"),
    ],
)
async def test_every_end_has_a_name(tmp_path: Path, outcome: str, named: str) -> None:
    """Refused, cut off, filtered, empty: never a completed answer."""
    async with Server(rules=[{"match": CHAT, "do": {"outcome": outcome}}]) as server:
        assert (await ask_once(server.base_url, tmp_path)).outcome == named


@pytest.mark.parametrize(
    ("body", "outcome", "text"),
    [
        (completion({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), "completed", "ab"),
        (completion({"content": None, "tool_calls": []}), "empty", ""),
        (completion(None), "empty", ""),
        (completion({"content": "{}", "refusal": "no"}), "refusal", "no"),
        (completion({"content": "x"}, finish_reason=None), "completed", "x"),
        (json.dumps({"error": {"message": "upstream died", "code": 502}}), "failed", "upstream died"),
        (completion(None, error={"message": "upstream died"}), "failed", "upstream died"),
    ],
)
async def test_what_compatible_servers_answer_is_understood(tmp_path: Path, body: str, outcome: str, text: str) -> None:
    """Without a usage, with content in parts, with an error inside a success; the body is kept as it came."""
    async with answering(lambda line, headers, sent: (200, {}, body)) as base_url:
        reply = await ask_once(base_url, tmp_path)
    assert (reply.outcome, reply.text, reply.raw) == (outcome, text, body)
    assert (reply.usage is None) == (outcome == "failed")
    assert reply.usage is None or reply.usage.estimated


@pytest.mark.parametrize(
    "fault",
    [
        {"reset": "after_body", "bill": True},
        {"reset": "mid_answer"},
        {"cut": 10},
        {"stall": "silent", "bill": True},
        {"status": 500, "bill": True},
        {"status": 200, "bill": True, "body": "{}"},
        {"status": 200, "bill": True, "body": "<html>", "content_type": "text/html"},
    ],
    ids=lambda fault: ",".join(f"{k}={v}" for k, v in fault.items() if k != "bill"),
)
async def test_a_stored_call_whose_answer_was_lost_is_found(tmp_path: Path, fault: dict[str, Any]) -> None:
    """The answer is adopted whole, with its id and its usage, though it shows up late; one POST, one bill."""
    async with Server(rules=[{"match": CHAT, "do": {**fault, "lag": 0.2}}]) as server:
        reply = await ask_once(server.base_url, tmp_path, store=True, patience=SLOW, client={"timeout_s": 0.4})
        assert (len(server.bills), posts(server)) == (1, 1)
        assert reply.response_id == server.bills[0].id
    assert reply.outcome == "completed"
    assert not reply.usage.estimated


async def test_a_lost_call_that_nobody_stored_is_uncertain_for_good(tmp_path: Path) -> None:
    """It says so at once and after every restart, and nothing is ever sent again."""
    async with Server(rules=[{"match": CHAT, "do": {"status": 500, "bill": True}}]) as server:
        for _ in range(2):
            with pytest.raises(Uncertain):
                await ask_once(server.base_url, tmp_path)
        assert (len(server.bills), posts(server)) == (1, 1)


async def test_another_calls_answer_is_never_adopted(tmp_path: Path) -> None:
    """A server that ignores the filter of the look-up proves nothing: neither found nor absent."""
    other = {"call": "other"}
    rules = [
        {"match": CHAT, "do": {"status": 500}},
        {
            "match": LIST,
            "times": "always",
            "do": {"status": 200, "body": {"data": [{**json.loads(completion({"content": "x"})), "metadata": other}]}},
        },
    ]
    async with Server(rules=rules) as server:
        with pytest.raises(Uncertain):
            await ask_once(server.base_url, tmp_path, store=True)


async def test_a_stored_call_that_is_absent_may_be_sent_again(tmp_path: Path) -> None:
    """Nothing stored under its name once its deadline has passed: recorded as unsent."""
    async with Server(rules=[{"match": CHAT, "do": {"reset": "after_body"}}]) as server:
        model = chat(server.base_url, store=True)
        with call_in(tmp_path) as call:
            with pytest.raises(Unavailable):
                await model.ask(PROMPT, call)
            assert call.state is CallState.NEW
            assert (await model.ask(PROMPT, call)).outcome == "completed"
        await model.close()
        assert (len(server.bills), posts(server)) == (1, 2)


async def test_an_accepted_answer_is_fetched_again_where_it_is_stored(tmp_path: Path) -> None:
    """Killed between `accepted` and `reply`: a stored answer is fetched, any other is uncertain."""
    async with Server() as server:
        await ask_once(server.base_url, tmp_path, store=True)
        (reply_file,) = tmp_path.glob(".delegated/jobs/*/k/r1/calls/01-first/reply")
        first = reply_file.read_bytes()
        reply_file.unlink()
        with pytest.raises(Uncertain):
            await ask_once(server.base_url, tmp_path)
        again = await ask_once(server.base_url, tmp_path, store=True)
        assert again.text.encode() in first or json.dumps(again.text).encode() in first
        assert (len(server.bills), posts(server)) == (1, 1)
