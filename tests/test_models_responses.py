"""The Responses wire: a paid call, through every way in which it can go wrong, is paid for once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from asking import KEY, PROMPT, RESPONSES, SCHEMA, answering, call_in, client_of, responses
from delegated.errors import Refused, Unavailable, Uncertain
from delegated.job import CallState
from delegated.models.client import describe
from delegated.models.recorded import Patience
from delegated.pricing import facts
from delegated.reply import OUTCOMES
from delegated.testing import Server
from delegated.uptime import Uptime, uptime

ITEMS = {"method": "GET", "path": "/v1/conversations/*/items"}
SLOW = Patience(poll_first_s=0.01, poll_cap_s=0.05, deadline_s=60, doubt_s=60, fetch_failures_s=60)


def posts(server: Server) -> int:
    return server.state()["requests"].get("POST /v1/responses", 0)


async def ask_once(server: Server, folder: Path, **settings: Any) -> Any:
    model = responses(server.base_url, **settings)
    try:
        with call_in(folder) as call:
            return await model.ask(PROMPT, call)
    finally:
        await model.close()


async def test_a_call_is_sent_in_the_background_with_all_that_finds_it_again(tmp_path: Path) -> None:
    """One POST in a conversation made before it, stored, with our call id and the strict schema; the reply is whole."""
    said: list[tuple[str, str]] = []
    async with Server(latency=0.05) as server:
        model = responses(server.base_url)
        with call_in(tmp_path, said=said) as call:
            reply = await model.ask(PROMPT, call)
            assert call.state is CallState.REPLIED
            assert call.reply == reply
        await model.close()
        assert len(server.bills) == 1
        sent = json.loads(server.body(1) or b"")
        assert (sent["background"], sent["store"], sent["model"]) == (True, True, "gpt-4o")
        assert sent["metadata"] == {"call": call.call_id}
        assert sent["conversation"].startswith("conv_")
        assert (sent["instructions"], sent["input"]) == (PROMPT.system, PROMPT.user)
        assert sent["text"]["format"]["schema"] == SCHEMA
        assert sent["text"]["format"]["strict"] is True
        assert "temperature" not in sent
        assert server.state()["requests"]["POST /v1/conversations"] == 1
    assert reply.outcome == "completed"
    assert set(json.loads(reply.text)) == {"root_cause"}
    assert json.loads(reply.raw)["id"] == reply.response_id
    assert reply.model == "gpt-4o-2024-08-06"
    assert reply.usage is not None
    assert not reply.usage.estimated
    assert reply.usage.output_tokens > 0
    assert [name for name, _ in said] == ["asking", "waiting"]


async def test_the_conversation_is_deleted_once_the_reply_is_recorded(tmp_path: Path) -> None:
    """Nothing that was made for the look-up stays behind at the provider."""
    async with Server() as server:
        await ask_once(server, tmp_path)
        assert server.state()["requests"]["DELETE /v1/conversations/{id}"] == 1


async def test_a_recorded_reply_needs_no_network(tmp_path: Path) -> None:
    """Asked again with the same log, nothing is sent; not even a server is needed."""
    async with Server() as server:
        first = await ask_once(server, tmp_path)
    assert await ask_once(server, tmp_path) == first
    assert len(server.bills) == 1


@pytest.mark.parametrize(
    ("outcome", "named"),
    [
        ("refusal", "refusal"),
        ("max_output_tokens", "truncated"),
        ("content_filter", "content_filter"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
        ("empty", "empty"),
    ],
)
async def test_every_end_has_a_name(tmp_path: Path, outcome: str, named: str) -> None:
    """Whatever a response ends in is an outcome of our list, and never a completed one without words."""
    assert named in OUTCOMES
    async with Server(rules=[{"match": RESPONSES, "do": {"outcome": outcome}}]) as server:
        reply = await ask_once(server, tmp_path)
    assert reply.outcome == named
    assert json.loads(reply.raw)["object"] == "response"
    if named in ("refusal", "failed"):
        assert reply.text


async def test_a_model_that_runs_in_the_foreground_only_is_asked_so_from_then_on(tmp_path: Path) -> None:
    """A 400 that names `background` was no send: the same call goes again without it, and the next call at once."""
    match = {**RESPONSES, "body": {"background": True}}
    rules = [{"match": match, "times": "always", "do": {"error": "background_unsupported"}}]
    async with Server(rules=rules, latency=0.05) as server:
        model = responses(server.base_url)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            with call_in(tmp_path / name) as call:
                assert (await model.ask(PROMPT, call)).outcome == "completed"
                assert call.sends == 1
        await model.close()
        assert posts(server) == 3
        assert len(server.bills) == 2
        assert "background" not in json.loads(server.body(1) or b"")


async def test_only_what_the_table_says_is_sent(tmp_path: Path) -> None:
    """`temperature` goes to a model that takes it, and never to a reasoning model, which would refuse the call."""
    async with Server() as server:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        await ask_once(server, tmp_path / "a", temperature=0.2, facts=facts("gpt-4o"))
        await ask_once(server, tmp_path / "b", temperature=0.2, facts=facts("gpt-6-luna"), model="gpt-6-luna")
        assert json.loads(server.body(1) or b"")["temperature"] == 0.2
        assert "temperature" not in json.loads(server.body(2) or b"")


@pytest.mark.parametrize(
    "fault",
    [
        {"reset": "after_body", "bill": True},
        {"reset": "mid_answer"},
        {"cut": 10},
        {"stall": "silent", "bill": True},
        {"stall": "headers"},
        {"status": 500, "bill": True},
        {"status": 502, "bill": True, "body": "<html>bad gateway</html>", "content_type": "text/html"},
        {"status": 503, "bill": True, "retry_after": 1},
        {"status": 504, "bill": True},
        {"status": 408, "bill": True},
        {"status": 409, "bill": True},
        {"status": 200, "bill": True, "body": "<html>hello</html>", "content_type": "text/html"},
        {"status": 200, "bill": True, "body": '{"id": "resp'},
        {"status": 200, "bill": True, "body": "[]"},
        {"status": 200, "bill": True, "body": "{}"},
    ],
    ids=lambda fault: ",".join(f"{k}={v}" for k, v in fault.items() if k != "bill"),
)
async def test_a_call_whose_acceptance_was_lost_is_found_and_billed_once(tmp_path: Path, fault: dict[str, Any]) -> None:
    """When the answer to the POST is lost, the call is looked up and adopted, and never sent again."""
    async with Server(rules=[{"match": RESPONSES, "do": {**fault, "run": 0.1}}]) as server:
        reply = await ask_once(server, tmp_path, client={"timeout_s": 0.4}, patience=SLOW)
        assert len(server.bills) == 1
        assert posts(server) == 1
    assert reply.outcome == "completed"
    assert set(json.loads(reply.text)) == {"root_cause"}
    assert reply.usage is not None
    assert reply.usage.estimated
    assert reply.usage.input_tokens > 0


async def test_a_call_that_was_killed_after_it_was_sent_is_found_after_a_restart(tmp_path: Path) -> None:
    """`sent` on disk and nothing else: the next life looks it up by the handle, and adopts what it finds."""
    async with Server(rules=[{"match": RESPONSES, "do": {"stall": "silent", "bill": True}}]) as server:
        model = responses(server.base_url, patience=SLOW)
        with call_in(tmp_path) as call:
            task = asyncio.create_task(model.ask(PROMPT, call))
            while not server.bills:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await model.close()
        with call_in(tmp_path) as call:
            assert call.state is CallState.SENT
        assert (await ask_once(server, tmp_path, patience=SLOW)).outcome == "completed"
        assert (len(server.bills), posts(server)) == (1, 1)


async def test_a_call_that_was_killed_while_it_ran_is_fetched_after_a_restart(tmp_path: Path) -> None:
    """`accepted` on disk: the next life fetches by the id, with the usage that the provider counted."""
    async with Server(rules=[{"match": RESPONSES, "do": {"run": "forever"}}]) as server:
        model = responses(server.base_url)
        with call_in(tmp_path) as call:
            task = asyncio.create_task(model.ask(PROMPT, call))
            while call.state is not CallState.ACCEPTED:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await model.close()
        server.release()
        reply = await ask_once(server, tmp_path)
        assert (len(server.bills), posts(server)) == (1, 1)
    assert reply.usage is not None
    assert not reply.usage.estimated


async def test_a_look_up_that_fails_for_a_while_is_repeated(tmp_path: Path) -> None:
    """The look-up costs nothing: it is made again through outages and rate limits until it gives a word."""
    rules = [
        {"match": RESPONSES, "do": {"status": 500, "bill": True}},
        {"match": ITEMS, "do": {"status": 500}},
        {"match": ITEMS, "at": 2, "do": {"status": 429, "retry_after": 0.05}},
        {"match": ITEMS, "at": 3, "do": {"reset": "after_body"}},
        {"match": ITEMS, "at": 4, "do": {"status": 200, "body": "{}"}},
    ]
    async with Server(rules=rules) as server:
        assert (await ask_once(server, tmp_path, patience=SLOW)).outcome == "completed"
        assert len(server.bills) == 1
        assert server.state()["requests"]["GET /v1/conversations/{id}/items"] == 5


async def test_a_look_up_that_says_nothing_proves_nothing(tmp_path: Path) -> None:
    """An answer without a list is no absence, however long it goes on: the call is uncertain in the end."""
    rules = [
        {"match": RESPONSES, "do": {"status": 500, "bill": True}},
        {"match": ITEMS, "times": "always", "do": {"status": 200, "body": "{}"}},
    ]
    brief = Patience(poll_first_s=0.01, poll_cap_s=0.02, deadline_s=0.1, doubt_s=0.1, fetch_failures_s=0.2)
    async with Server(rules=rules) as server:
        with pytest.raises(Uncertain):
            await ask_once(server, tmp_path, patience=brief)
        with call_in(tmp_path) as call:
            assert call.state is CallState.SENT


async def test_a_call_of_long_ago_is_looked_for_patiently_all_the_same(tmp_path: Path) -> None:
    """After a long stop, and by whatever any clock says, a call is not absent before it was looked for a while."""
    rules = [{"match": RESPONSES, "do": {"stall": "silent", "bill": True, "lag": 0.4}}]
    async with Server(rules=rules) as server:
        model = responses(server.base_url)
        with call_in(tmp_path) as call:
            task = asyncio.create_task(model.ask(PROMPT, call))
            while not server.bills:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
        await model.close()
        patient = Patience(poll_first_s=0.01, poll_cap_s=0.05, deadline_s=0.1, doubt_s=20)
        later = responses(server.base_url, patience=patient)
        real = uptime()
        with call_in(tmp_path, up=lambda: Uptime(real.boot, real.seconds + 86_400)) as call:
            assert (await later.ask(PROMPT, call)).outcome == "completed"
        await later.close()
        assert (len(server.bills), posts(server)) == (1, 1)


async def test_a_fetch_that_fails_for_a_while_is_repeated(tmp_path: Path) -> None:
    """An accepted call is fetched until it is there, through errors of every kind."""
    get = {"method": "GET", "path": "/v1/responses/*"}
    faults = [{"status": 500}, {"status": 429, "retry_after": 0.05}, {"reset": "after_body"}, {"cut": 5}]
    rules = [{"match": get, "at": n, "do": fault} for n, fault in enumerate(faults, 1)]
    async with Server(rules=rules) as server:
        assert (await ask_once(server, tmp_path)).outcome == "completed"
        assert posts(server) == 1


async def test_a_call_that_is_absent_after_its_deadline_may_be_sent_again(tmp_path: Path) -> None:
    """Reset before anything was accepted, and absent past the deadline: recorded as unsent, and asked anew in the
    conversation of before, where a running twin would be refused."""
    async with Server(rules=[{"match": RESPONSES, "do": {"reset": "after_body"}}]) as server:
        model = responses(server.base_url)
        with call_in(tmp_path) as call:
            with pytest.raises(Unavailable) as caught:
                await model.ask(PROMPT, call)
            assert caught.value.kind == "provider_failed"
            assert (call.state, call.attempt) == (CallState.NEW, 2)
            assert (await model.ask(PROMPT, call)).outcome == "completed"
            assert call.sends == 2
        await model.close()
        assert len(server.bills) == 1
        assert server.state()["requests"]["POST /v1/conversations"] == 1


async def test_a_twin_that_still_runs_is_not_asked_a_second_time(tmp_path: Path) -> None:
    """Taken for absent too early, the call is refused by its locked conversation, and found there when it ends."""
    rules = [{"match": RESPONSES, "do": {"reset": "after_body", "bill": True, "run": 1.2}}]
    async with Server(rules=rules) as server:
        model = responses(server.base_url)
        with call_in(tmp_path) as call:
            with pytest.raises(Unavailable):
                await model.ask(PROMPT, call)
            patient = responses(server.base_url, patience=SLOW)
            assert (await patient.ask(PROMPT, call)).outcome == "completed"
            await patient.close()
        await model.close()
        assert posts(server) == 2
        assert len(server.bills) == 1


async def test_a_vanished_conversation_proves_nothing(tmp_path: Path) -> None:
    """When the handle itself is not found, the call is uncertain: it is neither absent nor sent again."""
    rules = [
        {"match": RESPONSES, "do": {"status": 500, "bill": True}},
        {"match": ITEMS, "times": "always", "do": {"error": "not_found"}},
    ]
    async with Server(rules=rules) as server:
        with pytest.raises(Uncertain):
            await ask_once(server, tmp_path)
        with pytest.raises(Uncertain):
            await ask_once(server, tmp_path)
        assert posts(server) == 1


@pytest.mark.parametrize("how", ["no conversations", "not stored"])
async def test_without_a_handle_a_lost_call_is_uncertain(tmp_path: Path, how: str) -> None:
    """A server without conversations, or one that may store nothing, is asked all the same; a lost call stays so."""
    conversations = {"method": "POST", "path": "/v1/conversations"}
    rules = [
        {"match": conversations, "times": "always", "do": {"error": "not_found"}},
        {"match": RESPONSES, "do": {"status": 500, "bill": True}},
    ]
    settings = {"store": False} if how == "not stored" else {}
    async with Server(rules=rules) as server:
        with pytest.raises(Uncertain):
            await ask_once(server, tmp_path, **settings)
        (tmp_path / "next").mkdir()
        assert (await ask_once(server, tmp_path / "next", **settings)).outcome == "completed"
        assert len(server.bills) == 2
        sent = json.loads(server.body(2) or b"")
        assert sent["store"] is (how != "not stored")
        assert "conversation" not in sent
        if how == "not stored":
            assert "POST /v1/conversations" not in server.state()["requests"]
            assert "metadata" not in sent


async def test_a_refused_call_is_recorded_as_unsent(tmp_path: Path) -> None:
    """A status that says "not accepted" frees the call at once; nothing is looked up."""
    async with Server(rules=[{"match": RESPONSES, "do": {"error": "context_length_exceeded"}}]) as server:
        with call_in(tmp_path) as call:
            model = responses(server.base_url)
            with pytest.raises(Refused) as caught:
                await model.ask(PROMPT, call)
            await model.close()
            assert (call.state, call.attempt) == (CallState.NEW, 2)
        assert caught.value.kind == "bad_request"
        assert "context window" in caught.value.message
        assert (len(server.bills), posts(server)) == (0, 1)


async def test_what_fails_before_the_send_is_no_doubt(tmp_path: Path) -> None:
    """A failure while the handle is made leaves no record of a send: nothing that is paid for has left."""
    conversations = {"method": "POST", "path": "/v1/conversations"}
    async with Server(rules=[{"match": conversations, "do": {"reset": "after_body"}}]) as server:
        model = responses(server.base_url)
        with call_in(tmp_path) as call:
            with pytest.raises(Unavailable):
                await model.ask(PROMPT, call)
            assert (call.state, call.sends) == (CallState.NEW, 0)
            assert (await model.ask(PROMPT, call)).outcome == "completed"
        await model.close()


async def test_a_running_call_can_be_cancelled(tmp_path: Path) -> None:
    """Cancel stops it at the provider, the asker gets the outcome; a call that ended or never was is left alone."""
    async with Server(rules=[{"match": RESPONSES, "do": {"run": "forever"}}]) as server:
        model = responses(server.base_url)
        with call_in(tmp_path) as call:
            await model.cancel(call)
            task = asyncio.create_task(model.ask(PROMPT, call))
            while call.state is not CallState.ACCEPTED:
                await asyncio.sleep(0.01)
            await model.cancel(call)
            assert (await task).outcome == "cancelled"
            await model.cancel(call)
        await model.close()
        assert server.state()["requests"]["POST /v1/responses/{id}/cancel"] == 1


async def test_a_response_that_is_gone_is_uncertain(tmp_path: Path) -> None:
    """Accepted, and later unknown to the provider: billed, and nobody can say what it said."""
    get = {"method": "GET", "path": "/v1/responses/*"}
    async with Server(rules=[{"match": get, "times": "always", "do": {"error": "not_found"}}]) as server:
        with pytest.raises(Uncertain):
            await ask_once(server, tmp_path)


async def test_a_compatible_server_that_says_little_is_understood(tmp_path: Path) -> None:
    """No conversations, an answer at once, without a usage: the reply is taken and the tokens are estimated."""

    def answer(line: str, headers: dict[str, str], body: Any) -> tuple[int, dict[str, str], str]:
        if "conversations" in line:
            return 404, {}, '{"detail": "Not Found"}'
        message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "{}"}]}
        return 200, {}, json.dumps({"status": "completed", "output": [message], "usage": None})

    async with answering(answer) as base_url:
        model = responses(base_url)
        with call_in(tmp_path) as call:
            reply = await model.ask(PROMPT, call)
        await model.close()
    assert (reply.outcome, reply.text) == ("completed", "{}")
    assert reply.usage is not None
    assert reply.usage.estimated


async def test_a_model_is_described_free_of_charge() -> None:
    """Key, model and shutdown date are checked by a request that bills nothing."""
    async with Server(key=KEY) as server:
        client = client_of(server.base_url)
        assert (await describe(client, "gpt-4o")).shutdown == "2027-01-14"
        assert (await describe(client, "gpt-4o-mini")).shutdown == ""
        with pytest.raises(Refused) as caught:
            await describe(client, "gpt-5o")
        assert caught.value.kind == "unknown_model"
        await client.close()
        stranger = client_of(server.base_url, api_key="sk-wrong-1234567890")
        with pytest.raises(Refused) as caught:
            await describe(stranger, "gpt-4o")
        assert caught.value.kind == "bad_key"
        await stranger.close()
        assert server.bills == []
