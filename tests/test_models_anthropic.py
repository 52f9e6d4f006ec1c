"""The Messages wire: Anthropic's own SDK, one POST, every end named, and a lost call that nobody can look up."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from asking import KEY, MESSAGES, PROMPT, SCHEMA, answering, call_in, messages
from delegated.errors import InDoubt, Refused, Unavailable, Uncertain
from delegated.job import CallState
from delegated.models.anthropic import AnthropicClient, MessagesWire, describe
from delegated.reply import Usage
from delegated.testing import ModelCard, Server


def posts(server: Server) -> int:
    return server.state()["requests"].get("POST /v1/messages", 0)


async def ask_once(base_url: str, folder: Path, **settings: Any) -> Any:
    model = messages(base_url, **settings)
    try:
        with call_in(folder) as call:
            return await model.ask(PROMPT, call)
    finally:
        await model.close()


async def post(base_url: str, **client: Any) -> Any:
    """Send one paid request by the wire, without the records around it."""
    line = AnthropicClient(**{"base_url": base_url, "api_key": KEY, "timeout_s": 20.0, **client})
    try:
        return await MessagesWire(line, "claude-sonnet-5-5", max_output_tokens=500).post(PROMPT, "call", "")
    finally:
        await line.close()


def message(**more: Any) -> str:
    whole = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [{"type": "text", "text": "x"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }
    return json.dumps({**whole, **more})


async def test_a_call_is_one_post_with_the_schema_and_no_more(tmp_path: Path) -> None:
    """What the interface needs goes out, and nothing that names the call, the user or the machine."""
    async with Server() as server:
        reply = await ask_once(server.base_url, tmp_path)
        sent = json.loads(server.body(1) or b"")
        assert (posts(server), len(server.bills), server.bills[0].wire) == (1, 1, "messages")
    assert reply.outcome == "completed"
    assert set(json.loads(reply.text)) == {"root_cause"}
    assert reply.response_id.startswith("msg_")
    assert not reply.usage.estimated
    assert sent == {
        "model": "claude-sonnet-5-5",
        "max_tokens": 500,
        "system": PROMPT.system,
        "messages": [{"role": "user", "content": PROMPT.user}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }


async def test_an_answer_in_one_piece_is_never_asked_to_be_longer_than_it_may(tmp_path: Path) -> None:
    """More than 16,000 tokens would have to be streamed; a base URL may end in the version or not."""
    async with Server() as server:
        await ask_once(server.base_url.removesuffix("/v1"), tmp_path, max_output_tokens=64_000)
        assert json.loads(server.body(1) or b"")["max_tokens"] == 16_000


@pytest.mark.parametrize(
    ("outcome", "named"), [("refusal", "refusal"), ("max_output_tokens", "truncated"), ("empty", "empty")]
)
async def test_every_end_has_a_name(tmp_path: Path, outcome: str, named: str) -> None:
    """Refused, cut off, empty: never a completed answer, and the words of a refusal are the reason."""
    async with Server(rules=[{"match": MESSAGES, "do": {"outcome": outcome}}]) as server:
        reply = await ask_once(server.base_url, tmp_path)
    assert reply.outcome == named
    assert ("can't help" in reply.text) == (named == "refusal")


@pytest.mark.parametrize(
    ("more", "outcome", "text"),
    [
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]}, "completed", "a"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "completed", "ab"),
        ({"stop_reason": "model_context_window_exceeded"}, "truncated", "x"),
        ({"stop_reason": "stop_sequence"}, "completed", "x"),
        ({"stop_reason": None}, "completed", "x"),
        ({"stop_reason": "refusal"}, "refusal", "x"),
        ({"stop_reason": "pause_turn"}, "failed", "the model stopped in a way that was not asked for ('pause_turn')"),
        ({"content": [{"type": "tool_use", "name": "t"}]}, "empty", ""),
        ({"content": None}, "empty", ""),
    ],
)
async def test_what_the_provider_answers_is_understood(
    tmp_path: Path, more: dict[str, Any], outcome: str, text: str
) -> None:
    """Thinking is no answer, an end that nobody asked for is a failure by its name; the body is kept as it came."""
    body = message(**more)
    async with answering(lambda line, headers, sent: (200, {}, body)) as base_url:
        reply = await ask_once(base_url, tmp_path)
    assert (reply.outcome, reply.text, reply.raw) == (outcome, text, body)


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"input_tokens": 7, "output_tokens": 3}, Usage(7, 0, 3)),
        (
            {"input_tokens": 7, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 3},
            Usage(127, 100, 3, written_input_tokens=20),
        ),
        (
            {"input_tokens": 7, "cache_read_input_tokens": None, "cache_creation_input_tokens": -1, "output_tokens": 3},
            Usage(7, 0, 3),
        ),
    ],
)
async def test_what_was_cached_is_part_of_the_input(tmp_path: Path, counts: dict[str, Any], usage: Usage) -> None:
    """The provider counts it beside its `input_tokens`; here the sum is the input, and each part is priced as it is."""
    async with Server(rules=[{"match": MESSAGES, "do": {"usage": counts}}]) as server:
        assert (await ask_once(server.base_url, tmp_path)).usage == usage


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"error": "bad_key"}, "bad_key"),
        ({"status": 403}, "bad_key"),
        ({"status": 404, "body": {"type": "error", "error": {"message": "model: claude-x"}}}, "unknown_model"),
        ({"error": "context_length_exceeded"}, "bad_request"),
        ({"status": 413, "body": "<html>too large</html>"}, "bad_request"),
    ],
)
async def test_a_rejection_is_final_and_known_not_to_be_accepted(fault: dict[str, Any], kind: str) -> None:
    """Statuses that say "not done" are `Refused` with the kind by which a person acts; one POST, no bill."""
    async with Server(rules=[{"match": MESSAGES, "times": "always", "do": fault}]) as server:
        with pytest.raises(Refused) as caught:
            await post(server.base_url)
        assert caught.value.kind == kind
        assert (posts(server), server.bills) == (1, [])


def refused(status: int, type_: str, text: str, code: str = "") -> dict[str, Any]:
    details = {"details": {"error_code": code}} if code else {}
    return {"status": status, "body": {"type": "error", "error": {"type": type_, "message": text, **details}}}


@pytest.mark.parametrize(
    ("fault", "kind", "seconds"),
    [
        ({"error": "rate_limited", "retry_after": 7}, "rate_limited", 7.0),
        ({"status": 529, "retry_after": 9}, "rate_limited", 9.0),
        ({"status": 529}, "rate_limited", None),
        ({"error": "payment_required"}, "quota_exhausted", None),
        (refused(429, "rate_limit_error", "no more", "enforced_spend_limit_reached"), "quota_exhausted", None),
        (refused(400, "invalid_request_error", "Your credit balance is too low to go on."), "quota_exhausted", None),
        (
            refused(400, "invalid_request_error", "You have reached your specified workspace API usage limits."),
            "quota_exhausted",
            None,
        ),
    ],
)
async def test_limits_are_waited_for(fault: dict[str, Any], kind: str, seconds: float | None) -> None:
    """429, 402, the provider's own 529: not accepted, with the wait that it asks for; spent money by name."""
    async with Server(rules=[{"match": MESSAGES, "times": "always", "do": fault}]) as server:
        with pytest.raises(Unavailable) as caught:
            await post(server.base_url)
        assert (caught.value.kind, caught.value.retry_after) == (kind, seconds)
        assert (posts(server), server.bills) == (1, [])


@pytest.mark.parametrize(
    "fault",
    [
        {"reset": "after_body", "bill": True},
        {"reset": "mid_answer"},
        {"cut": 10},
        {"stall": "silent", "bill": True},
        {"status": 500, "bill": True},
        {"status": 503, "bill": True},
        {"status": 504, "bill": True},
        {"status": 529, "bill": True, "body": "<html>overloaded</html>", "content_type": "text/html"},
        {"status": 409, "bill": True},
        {"status": 200, "bill": True, "body": "{}"},
        {"status": 200, "bill": True, "body": "<html>", "content_type": "text/html"},
    ],
    ids=lambda fault: ",".join(f"{k}={v}" for k, v in fault.items() if k != "bill"),
)
async def test_what_may_have_been_accepted_is_uncertain_for_good(tmp_path: Path, fault: dict[str, Any]) -> None:
    """At once and after a restart, and nothing is ever sent again: the provider has nothing to be asked."""
    async with Server(rules=[{"match": MESSAGES, "do": fault}]) as server:
        for _ in range(2):
            with pytest.raises(Uncertain):
                await ask_once(server.base_url, tmp_path, client={"timeout_s": 0.4})
        assert (len(server.bills), posts(server)) == (1, 1)


async def test_a_call_that_was_turned_down_is_sent_again_and_billed_once(tmp_path: Path) -> None:
    """After a 529 of the provider's own the record says unsent, and the next attempt is the first that costs."""
    async with Server(rules=[{"match": MESSAGES, "do": {"status": 529}}]) as server:
        model = messages(server.base_url)
        with call_in(tmp_path) as call:
            with pytest.raises(Unavailable):
                await model.ask(PROMPT, call)
            assert call.state is CallState.NEW
            assert (await model.ask(PROMPT, call)).outcome == "completed"
        await model.close()
        assert (len(server.bills), posts(server)) == (1, 2)


async def test_an_accepted_answer_that_was_not_recorded_is_uncertain(tmp_path: Path) -> None:
    """Killed between `accepted` and `reply`: nobody keeps the answer."""
    async with Server() as server:
        await ask_once(server.base_url, tmp_path)
        (reply_file,) = tmp_path.glob(".delegated/jobs/*/k/r1/calls/01-first/reply")
        reply_file.unlink()
        with pytest.raises(Uncertain, match="does not keep it"):
            await ask_once(server.base_url, tmp_path)
        assert (len(server.bills), posts(server)) == (1, 1)


async def test_an_endpoint_that_cannot_be_reached_was_sent_nothing() -> None:
    """Refused, unknown host: `unreachable`, certain that nothing was accepted."""
    async with Server() as server:
        closed = server.port
    for base_url in (f"http://127.0.0.1:{closed}", "http://no-such-host.invalid"):
        with pytest.raises(Unavailable) as caught:
            await post(base_url, connect_s=0.5)
        assert (caught.value.kind, caught.value.stayed) == ("unreachable", True)


async def test_a_body_that_was_not_sent_whole_was_not_accepted() -> None:
    """A connection that breaks in the middle of a large body leaves no doubt: half a request is none."""
    line: AnthropicClient
    async with Server(rules=[{"match": MESSAGES, "do": {"reset": 1000}}]) as server:
        line = AnthropicClient(base_url=server.base_url, api_key=KEY)
        body: dict[str, Any] = {"model": "claude-sonnet-5-5", "max_tokens": 9}
        said = [{"role": "user", "content": "x" * 30_000_000}]
        with pytest.raises(Unavailable) as caught:
            await line.call(
                lambda sdk, timeout: sdk.messages.with_raw_response.create(**body, messages=said, timeout=timeout)
            )
        await line.close()
        assert (caught.value.kind, server.bills) == ("unreachable", [])


async def test_no_message_shows_the_key() -> None:
    """The SDK's errors hold the request with the key in it; no message and no traceback of ours repeats any of it."""
    quoted = f"invalid x-api-key {KEY[:11]}*******{KEY[-4:]}. Also {KEY} and Bearer {KEY}\x1b[31m\nnext"
    async with Server(rules=[{"match": MESSAGES, "do": refused(401, "authentication_error", quoted)}]) as server:
        with pytest.raises(Refused) as caught:
            await post(server.base_url)
    shown = caught.value.message + "".join(traceback.format_exception(caught.value))
    for part in (KEY, KEY[:11], KEY[-4:], "Abc123", "\x1b"):
        assert part not in shown
    assert (caught.value.__cause__, caught.value.kind) == (None, "bad_key")


async def test_the_environment_says_nothing_to_the_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Endpoint, credentials, headers and tracing are configuration; the SDK's variables and files are not read."""
    seen: list[dict[str, str]] = []

    def answer(line: str, headers: dict[str, str], body: Any) -> tuple[int, dict[str, str], str]:
        seen.append(headers)
        return 200, {}, message()

    profile = tmp_path / "configs" / "default.json"
    profile.parent.mkdir()
    profile.write_text(json.dumps({"base_url": "http://127.0.0.1:9", "api_key": "sk-ant-of-a-file"}))
    for name, value in {
        "ANTHROPIC_API_KEY": "sk-ant-other-key-of-the-shell",
        "ANTHROPIC_AUTH_TOKEN": "token-of-the-shell",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        "ANTHROPIC_CUSTOM_HEADERS": "X-Shell: yes\nAuthorization: Bearer stolen",
        "ANTHROPIC_CONFIG_DIR": str(tmp_path),
        "ANTHROPIC_PROFILE": "default",
        "ANTHROPIC_WORKSPACE_ID": "wrkspc_shell",
        "ANTHROPIC_WEBHOOK_SIGNING_KEY": "whsec_shell",
    }.items():
        monkeypatch.setenv(name, value)
    async with answering(answer) as base_url:
        await post(base_url)
        await post(base_url, api_key="")
    assert seen[0].get("authorization", seen[0].get("x-api-key", "")).endswith(KEY)
    assert seen[0]["anthropic-version"] == "2026-10-21"
    for headers in seen:
        assert not {"x-shell", "anthropic-workspace-id", "traceparent"} & headers.keys()
        assert not any("shell" in value or "stolen" in value or "file" in value for value in headers.values())


async def test_a_redirect_is_not_followed() -> None:
    """A paid POST, and the code in it, goes to the configured endpoint or nowhere."""
    async with Server() as other:
        fault = {"status": 308, "headers": {"location": other.base_url}, "body": ""}
        async with Server(rules=[{"match": MESSAGES, "do": fault}]) as server:
            with pytest.raises(Refused, match="redirects to"):
                await post(server.base_url)
        assert other.state()["requests_total"] == 0


async def test_the_provider_is_asked_when_a_model_goes() -> None:
    """Free of charge: its name, the day on which it retires, the provider's clock; or why not."""
    async with Server(models={"claude-old": ModelCard(shutdown_date="2027-02-03")}, key=KEY) as server:
        line = AnthropicClient(base_url=server.base_url, api_key=KEY)
        told = await describe(line, "claude-old")
        assert (told.name, told.shutdown) == ("claude-old", "2027-02-03")
        assert told.at is not None
        assert (await describe(line, "claude-sonnet-5-5")).shutdown == ""
        with pytest.raises(Refused) as caught:
            await describe(line, "claude-nope")
        assert caught.value.kind == "unknown_model"
        await line.close()
        assert server.bills == []


async def test_an_answer_without_a_message_is_in_doubt() -> None:
    """A success that says nothing may have cost something."""
    async with answering(lambda line, headers, sent: (200, {}, '{"type": "message"}')) as base_url:
        with pytest.raises(InDoubt, match="is no message"):
            await post(base_url)


def test_the_sdk_is_imported_only_when_it_is_needed() -> None:
    """Its import takes a second and a half, which nobody pays who asks no such model."""
    code = "import sys, delegated.outfit, delegated.models.anthropic; assert 'anthropic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
