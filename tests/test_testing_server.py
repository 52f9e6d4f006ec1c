"""The local server: what it promises to the tests, demos and CI jobs that stand on it."""

import asyncio
import contextlib
import hashlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import anthropic
import jsonschema
import openai
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion
from openai.types.conversations import Conversation, ConversationItemList
from openai.types.responses import Response

from delegated import prompt
from delegated.testing import BadRule, ModelCard, Server, ServerThread
from delegated.testing.api import duration
from delegated.testing.checks import strict_problem
from delegated.testing.faults import ERRORS, OUTCOMES, Fault
from delegated.testing.rules import read_rules
from delegated.testing.simulated import NOTICE, sample

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["hypotheses", "verdict", "files_needed"],
    "properties": {
        "hypotheses": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["cause", "line"],
                "properties": {"cause": {"type": "string"}, "line": {"type": "integer"}},
            },
        },
        "verdict": {"type": "string", "enum": ["likely", "inconclusive"]},
        "files_needed": {"type": "array", "items": {"type": "string"}},
    },
}
FORMAT = {"type": "json_schema", "name": "analysis", "strict": True, "schema": SCHEMA}
POST = {"method": "POST", "path": "/v1/responses"}


@pytest.fixture
def server():
    with ServerThread() as server:
        yield server


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.base_url, api_key="sk-test", max_retries=0, timeout=30) as client:
        yield client


def ask(client, **more):
    return client.responses.create(**{"model": "gpt-4o", "input": "why?", **more})


def chat(client, **more):
    return client.chat.completions.create(
        **{"model": "gpt-4o", "messages": [{"role": "user", "content": "why?"}], **more}
    )


def call(server, method, path, body=None, headers=None):
    """Send one request by hand; returns status, headers and body."""
    if headers is None and path == "/v1/messages":
        headers = {"anthropic-version": "2026-10-21"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@contextlib.contextmanager
def plug(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as opened:
        yield opened


def raw_post(body=b'{"model":"gpt-4o","input":"why?"}', path="/v1/responses", more=""):
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def until(true, seconds=30):
    """Wait for a thing that must come; fails when it does not."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


# what a client sees ---------------------------------------------------------------------------------------------------


def test_a_background_response_is_found_by_its_id_and_in_its_conversation(client, server):
    """A background call is queued at once, ends later, and is found by its id and in its conversation."""
    conversation = client.conversations.create(metadata={"for": "a test"})
    accepted = ask(client, conversation=conversation.id, background=True, store=True, metadata={"call": "c1"})
    assert (accepted.status, accepted.background, accepted.conversation.id) == ("queued", True, conversation.id)

    found = client.responses.retrieve(accepted.id)
    assert (found.status, found.metadata, found.model) == ("completed", {"call": "c1"}, "gpt-4o-2024-08-06")
    assert NOTICE in found.output_text
    items = list(client.conversations.items.list(conversation.id))
    assert [item.role for item in items] == ["assistant", "user"]
    assert items[0].content[0].text == found.output_text
    assert items[1].content[0].text == "why?"

    client.conversations.delete(conversation.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.list(conversation.id)
    client.responses.delete(accepted.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(accepted.id)


def test_every_object_is_whole_by_the_official_types(client, server):
    """Everything that it sends passes the validation of the official client's own types."""
    conversation = client.conversations.with_raw_response.create()
    name = conversation.parse().id
    server.script([{"match": POST, "do": {"run": "forever"}}])
    running = client.responses.with_raw_response.create(
        model="gpt-4o",
        input=[{"role": "user", "content": "why?"}],
        instructions="be brief",
        background=True,
        conversation=name,
        text={"format": FORMAT},
    )
    for raw in (running, client.responses.with_raw_response.retrieve(running.parse().id)):
        Response.model_validate_json(raw.text)
    server.release()
    Response.model_validate_json(client.responses.with_raw_response.retrieve(running.parse().id).text)
    Conversation.model_validate_json(conversation.text)
    Conversation.model_validate_json(client.conversations.with_raw_response.retrieve(name).text)
    items = ConversationItemList.model_validate_json(client.conversations.items.with_raw_response.list(name).text)
    assert len(items.data) == 2
    ChatCompletion.model_validate_json(client.chat.completions.with_raw_response.create(**_chat()).text)
    Model.model_validate_json(client.models.with_raw_response.retrieve("gpt-4o").text)
    for outcome in ("refusal", "max_output_tokens", "content_filter", "failed", "cancelled", "empty"):
        server.script([{"do": {"outcome": outcome}}])
        Response.model_validate_json(client.responses.with_raw_response.create(model="gpt-4o", input="x").text)


def _chat():
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": "why?"}]}


async def test_the_asynchronous_client_is_served_on_both_wires_many_at_once():
    """Many calls at once are each answered and each billed once."""
    async with (
        Server() as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client,
    ):
        calls = [ask(client, metadata={"call": f"r{n}"}) for n in range(60)]
        calls += [chat(client, store=True, metadata={"call": f"c{n}"}) for n in range(60)]
        answers = await asyncio.gather(*calls)
        assert len({answer.id for answer in answers}) == 120
        assert set(server.state()["bills_by_call"].values()) == {1}
        assert len(server.bills) == 120


def test_a_stored_completion_is_found_by_its_metadata(client):
    """The list of completions is filtered by metadata, and holds only what was stored."""
    kept = chat(client, store=True, metadata={"call": "kept"})
    chat(client, metadata={"call": "not kept"})
    assert [one.id for one in client.chat.completions.list(metadata={"call": "kept"})] == [kept.id]
    assert list(client.chat.completions.list(metadata={"call": "not kept"})) == []
    assert client.chat.completions.retrieve(kept.id).choices[0].message.content == kept.choices[0].message.content


def test_lists_come_in_pages_and_in_either_order(client):
    """A list is cut into pages that follow on each other, newest or oldest first."""
    conversation = client.conversations.create(
        items=[{"type": "message", "role": "user", "content": str(n)} for n in range(25)]
    )
    pages = client.conversations.items.list
    assert len(pages(conversation.id).data) == 20
    for order, expected in (("asc", range(25)), ("desc", range(24, -1, -1))):
        first = pages(conversation.id, limit=10, order=order)
        assert (len(first.data), first.has_more) == (10, True)
        assert [item.content[0].text for item in first] == [str(n) for n in expected]


def test_models_tell_their_shutdown_date(client):
    """A model says when it will be shut down; an unknown one is not found."""
    assert client.models.retrieve("gpt-4o").shutdown_date == "2027-01-14"
    assert "gpt-6-luna" in {model.id for model in client.models.list()}
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-nope")
    assert caught.value.code == "model_not_found"


def test_anthropic_messages_are_answered_in_their_own_form(server):
    """`POST /v1/messages` speaks Anthropic's protocol, its errors too, and is billed."""
    body = {
        "model": "claude-sonnet-5-5",
        "max_tokens": 1000,
        "system": "be brief",
        "messages": [{"role": "user", "content": "why?"}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    status, headers, raw = call(server, "POST", "/v1/messages", body)
    answer = json.loads(raw)
    assert (status, answer["type"], answer["stop_reason"]) == (200, "message", "end_turn")
    assert headers["anthropic-ratelimit-requests-remaining"] == "9999"
    jsonschema.validate(json.loads(answer["content"][0]["text"]), SCHEMA)
    assert answer["usage"]["input_tokens"] > 0
    assert server.bills[0].wire == "messages"

    status, _, raw = call(server, "POST", "/v1/messages", {**body, "model": "nope"})
    assert (status, json.loads(raw)["error"]["type"]) == (404, "not_found_error")
    server.script([{"do": {"error": "rate_limited"}}])
    status, _, raw = call(server, "POST", "/v1/messages", body)
    assert (status, json.loads(raw)["error"]["type"]) == (429, "rate_limit_error")
    assert len(server.bills) == 1
    server.script([{"do": {"outcome": "failed"}}])
    status, _, raw = call(server, "POST", "/v1/messages", body)
    assert (status, json.loads(raw)["error"]["type"]) == (500, "api_error")
    assert len(server.bills) == 2
    server.script([{"do": {"status": 529}}])
    status, _, raw = call(server, "POST", "/v1/messages", body)
    assert (status, json.loads(raw)["error"]["type"]) == (529, "overloaded_error")


@pytest.mark.parametrize("version", [None, "2019-01-01"])
def test_anthropics_protocol_wants_its_version(server, version):
    """Without a known `anthropic-version` nothing is accepted, and the error has Anthropic's form."""
    body = {"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "why?"}]}
    headers = {"x-api-key": "sk-ant-any", **({"anthropic-version": version} if version else {})}
    status, _, raw = call(server, "POST", "/v1/messages", body, headers=headers)
    assert (status, json.loads(raw)["error"]["type"], server.bills) == (400, "invalid_request_error", [])
    assert "anthropic-version" in json.loads(raw)["error"]["message"]


def test_anthropics_official_client_is_served(server):
    """A message, its usage and its errors, and what is known of a model, as the SDK types them."""
    client = anthropic.Anthropic(api_key="sk-ant-test", base_url=server.base_url.removesuffix("/v1"), max_retries=0)
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    asked = {"model": "claude-sonnet-5-5", "max_tokens": 1000, "messages": [{"role": "user", "content": "why?"}]}
    message = client.messages.create(**asked, system="be brief", output_config=form)
    jsonschema.validate(json.loads(message.content[0].text), SCHEMA)
    assert (message.stop_reason, message.usage.cache_read_input_tokens) == ("end_turn", 0)
    assert client.models.retrieve("claude-sonnet-5-5").lifecycle == "active"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude-nope")
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**asked, extra_body={"temperature": 0.1})
    server.script([{"do": {"status": 529, "retry_after": 3}}])
    with pytest.raises(anthropic.OverloadedError) as caught:
        client.messages.create(**asked)
    assert (caught.value.response.headers["retry-after"], len(server.bills)) == ("3", 1)
    client.close()


def test_answers_carry_limits_and_a_request_id(client):
    """Paid answers carry the rate-limit headers and a request id of their own."""
    first, second = (client.responses.with_raw_response.create(model="gpt-4o", input="x") for _ in range(2))
    assert first.headers["x-ratelimit-remaining-requests"] == "9999"
    assert first.headers["x-ratelimit-reset-requests"] == "6ms"
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert [duration(s) for s in (0.12, 1.5, 59, 360)] == ["120ms", "1.5s", "59s", "6m0s"]


def test_calls_beyond_the_limit_of_a_minute_are_refused_unbilled():
    """With a limit per minute, calls beyond it are refused, count all the same, and pass a minute later."""
    clock = [1000.0]
    with (
        ServerThread(rpm=2, now=lambda: clock[0]) as server,
        openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client,
    ):
        ask(client)
        ask(client)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        assert caught.value.response.headers["retry-after"] == "60"
        assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
        clock[0] += 61
        ask(client)
        assert len(server.bills) == 3


# the answer's words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["responses", "chat"])
def test_the_answer_fits_the_schema_and_says_that_it_is_simulated(client, wire):
    """Without a script the answer is valid for the schema sent, and says that no model was asked."""
    if wire == "responses":
        text = ask(client, text={"format": FORMAT}).output_text
    else:
        form = {"type": "json_schema", "json_schema": {k: v for k, v in FORMAT.items() if k != "type"}}
        text = chat(client, response_format=form).choices[0].message.content
    jsonschema.validate(json.loads(text), SCHEMA)
    assert NOTICE in text
    assert json.loads(text)["files_needed"] == []


@pytest.mark.parametrize(
    "schema",
    [
        prompt.SCHEMA,
        {"type": "object", "properties": {}},
        {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 7}]},
        {"type": ["null", "number"], "exclusiveMinimum": 3, "maximum": 9},
        {"type": "array", "minItems": 3, "items": {"const": "x"}},
        {"type": "string", "minLength": 90},
        {"type": "string", "maxLength": 3},
        {
            "$defs": {
                "node": {"type": "object", "properties": {"next": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
            },
            "$ref": "#/$defs/node",
        },
        {"type": "boolean"},
        {"type": "null"},
    ],
)
def test_a_sample_is_valid_for_its_schema(schema):
    """Whatever the schema, the sample is valid for it."""
    jsonschema.validate(sample(schema), schema)


def test_a_schema_that_is_not_strict_is_refused_as_the_service_does(client, server):
    """A strict schema must require every property and forbid others; else the call is refused and not billed."""
    for spoilt in ({**SCHEMA, "required": ["verdict"]}, {**SCHEMA, "additionalProperties": True}):
        assert strict_problem(spoilt)
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, text={"format": {**FORMAT, "schema": spoilt}})
        assert caught.value.code == "invalid_json_schema"
    assert strict_problem(SCHEMA) == strict_problem(prompt.SCHEMA) == ""
    assert server.bills == []


def test_a_script_gives_words_by_order_and_by_the_prompt(client, server):
    """Rules give the words of an answer: for the n-th call, or for the prompts that hold a text."""
    server.script(
        [
            {"match": {"contains": "apples"}, "times": "always", "do": {"answer": {"fruit": "apple"}}},
            {"match": POST, "at": 2, "do": {"text": "second"}},
        ]
    )
    assert NOTICE in ask(client).output_text
    assert ask(client).output_text == "second"
    for _ in range(2):
        assert json.loads(ask(client, input=[{"role": "user", "content": "about apples"}]).output_text) == {
            "fruit": "apple"
        }
    assert json.loads(
        chat(client, messages=[{"role": "user", "content": [{"type": "text", "text": "apples"}]}])
        .choices[0]
        .message.content
    ) == {"fruit": "apple"}
    assert [(rule["seen"], rule["struck"]) for rule in server.state()["rules"]] == [(3, 3), (4, 1)]


def test_tokens_are_bytes_by_four(client, server):
    """Usage is counted as a quarter of the bytes of the prompt and of the answer."""
    server.script([{"do": {"text": "ä" * 6}}])
    usage = ask(client, input="x" * 9, instructions="y" * 8).usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (5, 3, 8)


def test_a_long_answer_is_cut_at_the_limit_asked_for(client, server):
    """An answer longer than `max_output_tokens` ends incomplete, as a real one does."""
    server.script([{"do": {"text": "x" * 1000}}])
    answer = ask(client, max_output_tokens=16)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output_text == "x" * 64


# what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/responses", b"not json", 400, None),
        ("/v1/responses", b"[" * 100_000, 400, None),
        ("/v1/responses", {"input": "x"}, 400, "missing_required_parameter"),
        ("/v1/responses", {"model": "gpt-4o"}, 400, "missing_required_parameter"),
        ("/v1/responses", {"model": "gpt-4o", "input": ["x"]}, 400, "invalid_type"),
        ("/v1/responses", {"model": "gpt-nope", "input": "x"}, 404, "model_not_found"),
        ("/v1/responses", {"model": "gpt-4o", "input": "x", "stream": True}, 400, "unsupported_value"),
        ("/v1/responses", {"model": "gpt-4o", "input": "x", "background": True, "store": False}, 400, None),
        ("/v1/responses", {"model": "gpt-4o", "input": "x", "conversation": "conv_nope"}, 404, None),
        ("/v1/responses", {"model": "gpt-4o", "input": "x", "max_output_tokens": 15}, 400, "integer_below_min_value"),
        ("/v1/responses", {"model": "gpt-6-luna", "input": "x", "temperature": 0}, 400, "unsupported_parameter"),
        ("/v1/responses", {"model": "gpt-4o", "input": "x", "metadata": {"a" * 65: "b"}}, 400, None),
        ("/v1/responses", {"model": "gpt-4o", "input": "x", "metadata": {"a": "b" * 513}}, 400, None),
        ("/v1/responses", {"model": "gpt-4o", "input": "x", "metadata": {str(n): "" for n in range(17)}}, 400, None),
        ("/v1/chat/completions", {"model": "gpt-4o"}, 400, "missing_required_parameter"),
        ("/v1/chat/completions", {"model": "gpt-6-luna", "max_tokens": 9}, 400, "unsupported_parameter"),
        ("/v1/messages", {"model": "claude-haiku-5-5", "messages": [{}]}, 400, None),
        ("/v1/messages", {"model": "claude-haiku-5-5", "messages": [{}], "max_tokens": 128_001}, 400, None),
        ("/v1/messages", {"model": "claude-haiku-5-5", "messages": [{}], "max_tokens": 9, "top_k": 1}, 400, None),
        ("/v1/nothing", {}, 404, None),
    ],
)
def test_a_wrong_request_is_refused_unbilled(server, path, body, status, code):
    """A request that the service would refuse is refused, in the service's words, and not billed."""
    got, _, raw = call(server, "POST", path, body)
    error = json.loads(raw)["error"]
    assert (got, error.get("code")) == (status, code)
    assert error["message"]
    assert server.bills == []


def test_a_key_is_demanded_when_one_is_set():
    """With a key set, a missing and a wrong key are refused with 401."""
    with ServerThread(key="sk-right") as server:
        for headers in ({}, {"authorization": "Bearer sk-wrong"}):
            assert call(server, "GET", "/v1/models", headers=headers)[0] == 401
        for headers in ({"authorization": "Bearer sk-right"}, {"x-api-key": "sk-right"}, {"api-key": "sk-right"}):
            assert call(server, "GET", "/v1/models", headers=headers)[0] == 200


def test_a_conversation_is_locked_while_a_response_runs_in_it(client, server):
    """A second call into a conversation is refused, unbilled, until the first one has ended."""
    conversation = client.conversations.create()
    server.script([{"match": POST, "do": {"run": "forever"}}])
    running = ask(client, conversation=conversation.id, background=True)
    assert client.responses.retrieve(running.id).status == "in_progress"
    assert list(client.conversations.items.list(conversation.id)) == []
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, conversation=conversation.id, background=True)
    assert caught.value.code == "conversation_locked"
    assert len(server.bills) == 1

    server.release()
    assert client.responses.retrieve(running.id).status == "completed"
    ask(client, conversation=conversation.id, background=True)
    assert len(server.bills) == 2


def test_a_cancelled_response_ends_without_an_answer(client, server):
    """Cancelling ends a running background call for good; it stays billed."""
    conversation = client.conversations.create()
    server.script([{"match": POST, "do": {"run": "forever"}}])
    running = ask(client, conversation=conversation.id, background=True)
    assert client.responses.cancel(running.id).status == "cancelled"
    assert client.responses.cancel(running.id).status == "cancelled"
    server.release()
    found = client.responses.retrieve(running.id)
    assert (found.status, found.output) == ("cancelled", [])
    assert list(client.conversations.items.list(conversation.id)) == []
    assert server.state()["bills"][0]["state"] == "cancelled"
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(ask(client).id)


# bills ----------------------------------------------------------------------------------------------------------------


def test_a_bill_tells_exactly_what_was_sent(server):
    """A bill holds the hash and size of the bytes received, and the call's name; the bytes can be had back."""
    body = json.dumps({"model": "gpt-4o", "input": "why?", "metadata": {"call": "job/1"}}).encode()
    call(server, "POST", "/v1/responses", body)
    (bill,) = server.bills
    assert (bill.n, bill.wire, bill.model, bill.call, bill.status) == (1, "responses", "gpt-4o", "job/1", 200)
    assert (bill.body_sha256, bill.body_bytes) == (hashlib.sha256(body).hexdigest(), len(body))
    assert server.body(1) == body
    assert call(server, "GET", "/_test/bills/1/body")[2] == body
    state = json.loads(call(server, "GET", "/_test/state")[2])
    assert state["bills_by_call"] == {"job/1": 1}
    assert state["requests"] == {"POST /v1/responses": 1}
    call(server, "POST", "/_test/reset")
    assert server.bills == []


def test_looking_and_making_handles_is_free(client, server):
    """Only paid calls are billed: conversations, look-ups, lists and models cost nothing."""
    conversation = client.conversations.create()
    client.conversations.retrieve(conversation.id)
    list(client.conversations.items.list(conversation.id))
    list(client.chat.completions.list(metadata={"call": "x"}))
    client.models.list()
    assert server.bills == []
    assert server.state()["requests"]["GET /v1/conversations/{id}"] == 1


# faults ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("bill", [False, True])
def test_an_error_comes_before_or_after_billing(client, server, name, bill):
    """Each named error reaches the client with its status and code; billed calls have taken effect, others not."""
    conversation = client.conversations.create()
    server.script([{"match": POST, "do": {"error": name, "bill": bill}}])
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, conversation=conversation.id, background=True)
    assert (caught.value.status_code, caught.value.code) == (ERRORS[name][0], ERRORS[name][2])
    assert [b.status for b in server.bills] == [ERRORS[name][0]] * bill
    assert len(list(client.conversations.items.list(conversation.id))) == 2 * bill
    assert ask(client).status == "completed"


@pytest.mark.parametrize(
    ("do", "seen"),
    [
        ({}, None),
        ({"retry_after": 7}, "7"),
        ({"retry_after": 0.5}, "0.5"),
        ({"retry_after": 1e9}, "1000000000"),
        ({"retry_after_date": 90}, "Thu, 01 Jan 1970 00:18:10 GMT"),
        ({"headers": {"retry-after": "soon"}}, "soon"),
    ],
)
def test_retry_after_comes_in_every_form(do, seen):
    """Retry-After is sent as seconds, as an HTTP date, huge, unreadable, or not at all."""
    with ServerThread(now=lambda: 1000.0, rules=[{"do": {"status": 429, **do}}]) as server:
        status, headers, _ = call(server, "POST", "/v1/responses", {})
        assert (status, headers["retry-after"]) == (429, seen)


def test_a_reset_before_the_body_is_unbilled_and_hard(server):
    """The connection can be reset when only the head was read; nothing is billed."""
    server.script([{"match": POST, "do": {"reset": "before_body"}}])
    with plug(server) as opened:
        opened.sendall(raw_post()[:-20])
        with pytest.raises(ConnectionResetError):
            opened.recv(1)
    assert (server.bills, server.state()["requests"]) == ([], {"POST /v1/responses": 1})


def test_a_reset_in_the_middle_of_the_body_waits_for_the_bytes_given(server):
    """The connection can be reset after N bytes of the body, and lives until then; nothing is billed."""
    server.script([{"match": POST, "do": {"reset": 10}}])
    request = raw_post()
    body_at = request.index(b"\r\n\r\n") + 4
    with plug(server) as opened:
        opened.sendall(request[: body_at + 9])
        until(lambda: server.state()["requests_total"] == 1)
        opened.setblocking(False)
        with pytest.raises(BlockingIOError):
            opened.recv(1)
        opened.settimeout(30)
        opened.sendall(request[body_at + 9 : body_at + 10])
        with pytest.raises(ConnectionResetError):
            opened.recv(1)
    assert server.bills == []


@pytest.mark.parametrize("bill", [False, True])
def test_a_reset_after_the_body_leaves_the_client_in_doubt(client, server, bill):
    """After a reset when all was sent, only a look-up can tell whether the call was billed."""
    conversation = client.conversations.create()
    server.script([{"match": POST, "do": {"reset": "after_body", "bill": bill}}])
    with pytest.raises(openai.APIConnectionError):
        ask(client, conversation=conversation.id, background=True)
    assert [b.status for b in server.bills] == [None] * bill
    assert len(list(client.conversations.items.list(conversation.id))) == 2 * bill


def test_an_answer_can_break_off(client, server):
    """The answer can end early, by FIN or by RST; it is billed."""
    for do in ({"cut": 30}, {"reset": "mid_answer"}):
        server.script([{"match": POST, "do": do}])
        with pytest.raises(openai.APIConnectionError):
            ask(client)
    assert len(server.bills) == 2


@pytest.mark.parametrize(("stall", "bill"), [("silent", False), ("silent", True), ("headers", True)])
def test_a_stalled_call_never_ends_by_itself(server, stall, bill):
    """A server can take a call and stay silent, before or after billing, with or without the head of an answer."""
    server.script([{"match": POST, "do": {"stall": stall, "bill": bill}}])
    with plug(server) as opened:
        opened.sendall(raw_post())
        until(lambda: server.state()["requests_total"] == 1)
        opened.sendall(raw_post(path="/v1/nothing"))
        if stall == "headers":
            head = opened.recv(65536)
            assert head.endswith(b"\r\n\r\n")
            assert b"content-length: 0" not in head
        server.release()
        opened.setblocking(False)
        with pytest.raises(BlockingIOError):
            opened.recv(1)
    assert len(server.bills) == bill


@pytest.mark.parametrize(
    ("do", "kind", "text"),
    [
        ({"body": "{not json"}, "application/json", "{not json"),
        ({"body": "<html>", "content_type": "text/html"}, "text/html", "<html>"),
        ({"body": {}}, "application/json", "{}"),
        ({"body": "", "status": 200}, "application/json", ""),
        ({"status": 502, "body": "<html>", "content_type": "text/html", "bill": True}, "text/html", "<html>"),
        ({"content_type": "text/plain", "body": {"a": 1}}, "text/plain", '{"a": 1}'),
    ],
)
def test_an_answer_can_be_any_bytes(server, do, kind, text):
    """The body and its type can be anything, with any status; the call was billed."""
    server.script([{"match": POST, "do": do}])
    status, headers, body = call(server, "POST", "/v1/responses", {"model": "gpt-4o", "input": "x"})
    assert (status, headers["content-type"], body.decode()) == (do.get("status", 200), kind, text)
    assert len(server.bills) == 1


@pytest.mark.parametrize(
    ("outcome", "status", "reason", "part"),
    [
        ("refusal", "completed", None, "refusal"),
        ("max_output_tokens", "incomplete", "max_output_tokens", "output_text"),
        ("content_filter", "incomplete", "content_filter", None),
        ("failed", "failed", None, None),
        ("cancelled", "cancelled", None, None),
        ("empty", "completed", None, None),
    ],
)
def test_a_response_can_end_in_every_way(client, server, outcome, status, reason, part):
    """A response ends in each of the protocol's ways, in the foreground as in the background."""
    server.script([{"match": POST, "times": 2, "do": {"outcome": outcome}}])
    for answer in (ask(client), client.responses.retrieve(ask(client, background=True).id)):
        assert answer.status == status
        assert (answer.incomplete_details.reason if reason else answer.incomplete_details) == reason
        assert [message.content[0].type for message in answer.output] == ([part] if part else [])
        assert (answer.error is not None) == (outcome == "failed")
    assert len(server.bills) == 2


@pytest.mark.parametrize(
    ("outcome", "finish", "content"),
    [
        ("refusal", "stop", None),
        ("max_output_tokens", "length", "…"),
        ("content_filter", "content_filter", ""),
        ("empty", "stop", ""),
    ],
)
def test_a_completion_can_end_in_every_way(client, server, outcome, finish, content):
    """A chat completion ends in each of the protocol's ways."""
    server.script([{"do": {"outcome": outcome}}])
    choice = chat(client).choices[0]
    assert choice.finish_reason == finish
    if content == "…":
        assert choice.message.content in chat(client).choices[0].message.content
    else:
        assert choice.message.content == content
    assert (choice.message.refusal is not None) == (outcome == "refusal")


def test_a_completion_that_fails_is_billed_and_not_listed(client, server):
    """Chat has no failed state: the call ends in 500, billed, and nothing is stored to be found."""
    server.script([{"do": {"outcome": "failed"}}])
    with pytest.raises(openai.InternalServerError):
        chat(client, store=True, metadata={"call": "c"})
    assert len(server.bills) == 1
    assert list(client.chat.completions.list(metadata={"call": "c"})) == []


def test_usage_can_be_missing(client, server):
    """Usage can be absent or odd, as compatible servers send it."""
    server.script([{"times": 2, "do": {"usage": None}}])
    assert ask(client).usage is None
    assert chat(client).usage is None


def test_a_look_up_can_lag_lie_and_fail():
    """Look-ups fail, show a finished call late, or say that it is not there; the call itself is untouched."""
    clock = [1000.0]
    items = {"method": "GET", "path": "/v1/conversations/*/items"}
    with (
        ServerThread(now=lambda: clock[0]) as server,
        openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client,
    ):
        conversation = client.conversations.create()
        server.script(
            [
                {"match": POST, "do": {"run": 5, "lag": 30}},
                {"match": items, "at": 3, "do": {"status": 500}},
                {"match": items, "at": 5, "do": {"absent": True}},
            ]
        )
        answer = ask(client, conversation=conversation.id, background=True)

        def seen():
            return len(list(client.conversations.items.list(conversation.id)))

        clock[0] += 5
        assert client.responses.retrieve(answer.id).status == "completed"
        assert seen() == 0
        clock[0] += 29
        assert seen() == 0
        clock[0] += 1
        with pytest.raises(openai.InternalServerError):
            seen()
        assert seen() == 2
        assert seen() == 0
        assert seen() == 2

        server.script([{"match": {"path": "/v1/chat/completions"}, "do": {"lag": 10}}])
        chat(client, store=True, metadata={"call": "c"})
        assert list(client.chat.completions.list(metadata={"call": "c"})) == []
        clock[0] += 10
        assert len(list(client.chat.completions.list(metadata={"call": "c"}))) == 1


def test_a_look_up_by_id_can_lie_and_lag_too(client, server):
    """A stored call can be denied by its id, and a stored completion is found by its id only once it is shown."""
    answer = ask(client)
    server.script(
        [
            {"match": {"method": "GET"}, "do": {"absent": True}},
            {"match": {"method": "POST"}, "do": {"lag": 3600, "model": "another"}},
        ]
    )
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)
    assert client.responses.retrieve(answer.id).id == answer.id
    completion = chat(client, store=True)
    assert completion.model == "another"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(completion.id)


def test_a_look_up_that_lies_lets_a_twin_be_billed(client, server):
    """With a look-up and a lock that both lie, two calls are billed: the risk that a client cannot remove."""
    conversation = client.conversations.create()
    server.script([{"match": POST, "do": {"run": "forever"}}, {"match": POST, "at": 2, "do": {"unlocked": True}}])
    ask(client, conversation=conversation.id, background=True)
    ask(client, conversation=conversation.id, background=True)
    assert len(server.bills) == 2


@pytest.mark.parametrize("do", [{"latency": "forever"}, {"run": "forever"}])
def test_an_answer_is_held_until_it_is_released(server, do):
    """An answer can be held for as long as a test wants; it is billed from the start."""
    server.script([{"match": POST, "do": do}])
    with plug(server) as opened:
        opened.sendall(raw_post())
        until(lambda: len(server.bills) == 1)
        opened.setblocking(False)
        with pytest.raises(BlockingIOError):
            opened.recv(1)
        opened.settimeout(30)
        assert call(server, "POST", "/_test/release")[0] == 200
        assert opened.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_a_second_request_waits_for_the_held_answer(server):
    """A request that comes while an answer is held on its connection is taken up after that answer."""
    server.script([{"match": POST, "do": {"latency": "forever"}}])
    with plug(server) as opened:
        opened.sendall(raw_post() + b"GET /v1/models/gpt-4o HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: len(server.bills) == 1)
        server.release()
        got = b""
        while b'"object":"model"' not in got:
            part = opened.recv(65536)
            assert part, got
            got += part
    assert got.index(b'"object":"response"') < got.index(b'"object":"model"')


def test_a_client_that_goes_away_is_billed_all_the_same(client, server):
    """A call whose client went away while it ran goes on, and is found afterwards."""
    conversation = client.conversations.create()
    server.script([{"match": POST, "do": {"run": "forever"}}])
    with plug(server) as opened:
        opened.sendall(
            raw_post(json.dumps({"model": "gpt-4o", "input": "x", "conversation": conversation.id}).encode())
        )
        until(lambda: len(server.bills) == 1)
    server.release()
    assert len(list(client.conversations.items.list(conversation.id))) == 2


CLIENT = """
import os, sys, openai
with open(sys.argv[2], "w") as file:
    file.write(str(os.getpid()))
client = openai.OpenAI(base_url=sys.argv[1], api_key="k", max_retries=0)
client.responses.create(model="gpt-4o", input="x", background=True, conversation=sys.argv[3])
print("told")
"""


@pytest.mark.parametrize("bill", [True, False])
def test_a_client_is_killed_at_the_moment_of_billing(client, server, tmp_path, bill):
    """The client can be killed at the instant of billing, or just before it: it learns nothing, the server knows."""
    conversation = client.conversations.create()
    pid_file, mark = tmp_path / "pid", tmp_path / "mark"
    server.script([{"match": POST, "do": {"kill_pid_file": str(pid_file), "touch": str(mark), "bill": bill}}])
    ended = subprocess.run(
        [sys.executable, "-c", CLIENT, server.base_url, str(pid_file), conversation.id],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")
    assert [b.status for b in server.bills] == [None] * bill
    assert len(list(client.conversations.items.list(conversation.id))) == 2 * bill
    assert mark.exists()


def test_a_signal_that_does_not_kill_leaves_the_answer_whole(server, tmp_path):
    """A signal other than KILL is given when billed, and the client is answered as ever."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        server.script([{"match": POST, "do": {"kill": other.pid, "signal": "TERM"}}])
        assert call(server, "POST", "/v1/responses", {"model": "gpt-4o", "input": "x"})[0] == 200
        assert other.wait(30) == -signal.SIGTERM
    server.script([{"match": POST, "do": {"kill_pid_file": str(tmp_path / "none")}}])
    with pytest.raises(ConnectionResetError):
        call(server, "POST", "/v1/responses", {"model": "gpt-4o", "input": "x"})
    assert "none" in server.state()["problems"][0]


def test_rules_count_what_matches_them(client, server):
    """A rule strikes its `at`-th match and `times` in all; what does not match is not counted."""
    status = call(
        server,
        "POST",
        "/_test/faults",
        [
            {
                "match": {**POST, "body": {"background": True, "text.format.type": "json_schema"}},
                "at": 2,
                "times": 2,
                "do": {"status": 503},
            }
        ],
    )[0]
    assert status == 200
    outcomes = []
    for _ in range(5):
        ask(client)
        try:
            ask(client, background=True, text={"format": FORMAT})
            outcomes.append(200)
        except openai.InternalServerError as error:
            outcomes.append(error.status_code)
    assert outcomes == [200, 503, 503, 200, 200]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([{"do": {"explode": 1}}], "'explode'"),
        ([{"when": {}, "do": {}}], "'when'"),
        ([{"match": {"host": "x"}, "do": {}}], "'host'"),
        ([{"match": {}}], "`do`"),
        ([{"do": {"error": "nope"}}], "insufficient_quota"),
        ([{"do": {"status": "500"}}], "HTTP status"),
        ([{"do": {"latency": "long"}}], "seconds"),
        ([{"do": {"reset": "never"}}], "before_body"),
        ([{"do": {"outcome": "nope"}}], "content_filter"),
        ([{"do": {"signal": "NOPE"}}], "signal"),
        ([{"at": 0, "do": {}}], "`at`"),
        ([{"times": 0, "do": {}}], "`times`"),
        ([{"match": {"contains": "x"}, "do": {"reset": 5}}], "body"),
        ([{"do": {"reset": "before_body", "bill": True}}], "`bill`"),
        ("nope", "list"),
        ([3], "object"),
    ],
)
def test_a_wrong_rule_is_refused_with_what_would_be_right(server, rules, said):
    """A rule that cannot be meant is refused, by the function and over HTTP, and the old rules stay."""
    server.script([{"do": {"status": 418}}])
    with pytest.raises(BadRule, match=said.replace("'", ".")):
        read_rules(rules)
    status, _, body = call(server, "POST", "/_test/faults", rules)
    assert status == 400
    assert said in json.loads(body)["error"]
    assert call(server, "GET", "/v1/models")[0] == 418


@pytest.mark.parametrize("headers", [{"origin": "https://example.com"}, {"host": "example.com"}])
def test_no_web_page_can_set_a_rule(server, headers):
    """Rules can signal processes: requests that come by way of a browser are refused."""
    status = call(server, "POST", "/_test/faults", [{"do": {"status": 500}}], headers)[0]
    assert status == 403
    assert server.state()["rules"] == []


# HTTP -----------------------------------------------------------------------------------------------------------------


def test_a_request_may_come_in_any_portions(server):
    """A request is understood however the network cuts it: byte by byte, chunked, or two at once."""
    chunked = (
        b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'10;x=y\r\n{"model":"gpt-4o\r\n10\r\n","input":"why?"\r\n1\r\n}\r\n0\r\nTrailer: x\r\n\r\n'
    )
    for portions in ([bytes([b]) for b in chunked], [chunked + chunked[:50], chunked[50:]], [raw_post() * 3]):
        expected = 3 if len(portions) == 1 else len(portions) if len(portions) == 2 else 1
        with plug(server) as opened:
            for portion in portions:
                opened.sendall(portion)
            got = b""
            while got.count(b'"status":"completed","background"') < expected:
                part = opened.recv(65536)
                assert part, got
                got += part
    assert len(server.bills) == 6


def test_a_client_that_asks_whether_to_go_on_is_told_to(server):
    """`Expect: 100-continue` is answered before the body comes."""
    request = raw_post(more="Expect: 100-continue\r\n")
    body_at = request.index(b"\r\n\r\n") + 4
    with plug(server) as opened:
        opened.sendall(request[:body_at])
        assert opened.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        opened.sendall(request[body_at:])
        assert opened.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HELLO\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431),
    ],
)
def test_broken_http_is_refused_and_closed(server, sent, status):
    """Bytes that are no HTTP get an error and the end of the connection; the server lives."""
    with plug(server) as opened:
        opened.sendall(sent)
        got = b""
        with contextlib.suppress(ConnectionResetError):  # what it did not read makes the close a reset
            while part := opened.recv(65536):
                got += part
    assert got.startswith(f"HTTP/1.1 {status} ".encode())
    assert call(server, "GET", "/v1/models")[0] == 200


def test_a_client_may_close_after_one_answer(server):
    """`Connection: close` and HTTP/1.0 end the connection after the answer."""
    for head in ("HTTP/1.1\r\nConnection: close", "HTTP/1.0"):
        with plug(server) as opened:
            opened.sendall(f"GET /v1/models {head}\r\nHost: x\r\n\r\n".encode())
            got = b""
            while part := opened.recv(65536):
                got += part
        assert got.startswith(b"HTTP/1.1 200")


def test_azure_paths_are_understood(server):
    """The same interface stands under `/openai/v1`."""
    status = call(server, "POST", "/openai/v1/responses?api-version=preview", {"model": "gpt-4o", "input": "x"})[0]
    assert (status, len(server.bills)) == (200, 1)


# life and death -------------------------------------------------------------------------------------------------------


def test_a_server_goes_and_comes_back_with_its_memory(server, client):
    """Stopped, it refuses connections; started again it stands on the same port and remembers."""
    answer = ask(client, background=True)
    server.stop()
    with pytest.raises(openai.APIConnectionError):
        client.responses.retrieve(answer.id)
    server.start()
    assert client.responses.retrieve(answer.id).status == "completed"


async def test_stopping_drops_every_open_connection():
    """Stopping leaves no connection, timer or held answer behind."""
    async with Server(rules=[{"match": POST, "times": "always", "do": {"latency": "forever"}}]) as server:
        pairs = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(5)]
        for _, writer in pairs:
            writer.write(raw_post())
        while len(server.bills) < 5:
            await asyncio.sleep(0.005)
    for reader, writer in pairs:
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


def test_models_can_be_added():
    """Further models are known by name, with their own shutdown date."""
    with ServerThread(models={"llama3": ModelCard(shutdown_date="2020-01-01")}) as server:
        assert json.loads(call(server, "GET", "/v1/models/llama3")[2])["shutdown_date"] == "2020-01-01"
        assert call(server, "POST", "/v1/responses", {"model": "llama3", "input": "x"})[0] == 200


@contextlib.contextmanager
def started(tmp_path, *arguments):
    """Run the server as a shell does; yields the process, with `port` set."""
    port_file = tmp_path / "port"
    port_file.unlink(missing_ok=True)
    with (
        open(tmp_path / "err", "ab") as errors,
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "delegated.testing.server", "--port-file", port_file, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            process.line = process.stdout.readline()
            process.port = int(port_file.read_text())
            yield process
        finally:
            process.kill()


def test_from_a_shell_it_says_where_it_listens_and_ends_on_sigterm(tmp_path):
    """It prints one line, writes the port file, serves by its script, and ends cleanly with 0 on SIGTERM."""
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"rules": [{"match": POST, "do": {"text": "scripted"}}]}))
    arguments = ["--script", script, "--model", "llama3=2030-01-01", "--key", "sk-1", "--latency", "0.001"]
    with started(tmp_path, *arguments) as server:
        assert server.line == f"listening on http://127.0.0.1:{server.port}/v1\n"
        with openai.OpenAI(base_url=server.line.split()[-1], api_key="sk-1", max_retries=0) as client:
            assert ask(client, model="llama3").output_text == "scripted"
        server.terminate()
        assert server.wait(30) == 0
        assert server.stdout.read() == ""
    assert (tmp_path / "err").read_text() == "POST /v1/responses 200\n"


def test_bills_survive_a_killed_server(tmp_path):
    """With a state file, a server killed right after billing knows the bill and the call when it comes back."""
    kept = ["--state", tmp_path / "state.jsonl", "--quiet"]
    with started(tmp_path, *kept) as server:
        with openai.OpenAI(base_url=server.line.split()[-1], api_key="k", max_retries=0) as client:
            conversation = client.conversations.create()
            gone = client.conversations.create()
            client.conversations.delete(gone.id)
            call(server, "POST", "/_test/faults", [{"do": {"run": "forever"}}])
            running = ask(client, conversation=conversation.id, background=True, metadata={"call": "c"})
            done = chat(client, store=True, metadata={"call": "d"})
            cancelled = ask(client, background=True)
            call(server, "POST", "/_test/faults", [{"do": {"run": "forever"}}])
            cancelled = ask(client, background=True)
            client.responses.cancel(cancelled.id)
            before = json.loads(call(server, "GET", "/_test/state")[2])["bills"]
        server.kill()
        server.wait(30)
    with open(tmp_path / "state.jsonl", "ab") as file:
        file.write(b'{"record": "run", "torn')
    for _ in range(2):
        with (
            started(tmp_path, *kept) as server,
            openai.OpenAI(base_url=server.line.split()[-1], api_key="k", max_retries=0) as client,
        ):
            assert json.loads(call(server, "GET", "/_test/state")[2])["bills"] == before
            assert client.responses.retrieve(running.id).status == "in_progress"
            assert client.responses.retrieve(cancelled.id).status == "cancelled"
            assert [one.id for one in client.chat.completions.list(metadata={"call": "d"})] == [done.id]
            with pytest.raises(openai.BadRequestError):
                ask(client, conversation=conversation.id)
            with pytest.raises(openai.NotFoundError):
                client.conversations.retrieve(gone.id)
    with (
        started(tmp_path, *kept) as server,
        openai.OpenAI(base_url=server.line.split()[-1], api_key="k", max_retries=0) as client,
    ):
        call(server, "POST", "/_test/release")
        assert len(list(client.conversations.items.list(conversation.id))) == 2
        added = ask(client)
        assert added.id not in {bill["id"] for bill in before}
    with (
        started(tmp_path, *kept) as server,
        openai.OpenAI(base_url=server.line.split()[-1], api_key="k", max_retries=0) as client,
    ):
        assert client.responses.retrieve(added.id).output_text == added.output_text


def test_a_bad_start_is_explained(tmp_path):
    """A script that cannot be used, or a port that is taken, ends with exit code 2 and a sentence."""
    script = tmp_path / "script.json"
    script.write_text('[{"do": {"explode": 1}}]')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for arguments in (["--script", script], ["--port", str(taken.getsockname()[1])], ["--script", tmp_path / "no"]):
            ended = subprocess.run(
                [sys.executable, "-m", "delegated.testing.server", *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == 2
            assert ended.stderr.startswith("cannot serve: ")
            assert "Traceback" not in ended.stderr


def test_the_page_about_it_is_true():
    """Every rule shown in its documentation is a rule, and every key and error name is explained there."""
    page = (Path(__file__).parent.parent / "docs" / "testing-server.md").read_text()
    blocks = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        read_rules(json.loads(block))
    for word in [*ERRORS, *OUTCOMES, *(key.name for key in fields(Fault))]:
        assert f"`{word}`" in page, word
    usage = subprocess.run(
        [sys.executable, "-m", "delegated.testing.server", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in set(re.findall(r"--[a-z-]+", usage)) - {"--help"}:
        assert f"`{option}" in page or f" {option}" in page, option


def test_the_server_needs_nothing_but_the_standard_library():
    """It imports no third-party package, so that it can be started anywhere, and fast."""
    program = (
        "import sys, delegated.testing.server\n"
        "tops = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(tops & {'openai', 'httpx2', 'pydantic', 'yaml', 'watchdog', 'structlog', 'markdown_it'}))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
