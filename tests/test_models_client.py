"""The openai client and its errors: what was surely not accepted, what must not be repeated, what no message shows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import traceback
from email.utils import formatdate
from typing import Any

import pytest

from asking import CHAT, KEY, answering, client_of
from delegated.errors import InDoubt, Refused, Unavailable
from delegated.models.body import usage
from delegated.models.client import Client, is_openai
from delegated.models.meaning import Rejected, duration, retry_after
from delegated.reply import Usage
from delegated.testing import Server


async def send(client: Client, text: str = "why?") -> Any:
    """Send one paid request as a wire does."""
    body: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    return await client.call(
        lambda sdk, timeout: sdk.chat.completions.with_raw_response.create(**body, timeout=timeout), slow=True
    )


async def post(client: Client, text: str = "why?") -> Any:
    """Send one paid request, and close the client."""
    try:
        return await send(client, text)
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120ms", 0.12),
        ("6m0s", 360.0),
        ("1s", 1.0),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("2", 2.0),
        (" 0.5 ", 0.5),
        ("0s", 0.0),
        ("-1", None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1s2m", None),
    ],
)
def test_time_spans_of_the_headers_are_read(text: str, seconds: float | None) -> None:
    """OpenAI writes `120ms` and `6m0s`, Azure -1 or nothing; what is no time span is none."""
    assert duration(text) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "1000000000"}, 1e9),
        ({"retry-after": formatdate(1_000_030, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(1_000_030, usegmt=True), "date": formatdate(1_000_020, usegmt=True)}, 10.0),
        ({"retry-after": formatdate(999_000, usegmt=True)}, 0.0),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "1", "x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, 360.0),
        ({"retry-after": "1", "x-ratelimit-reset-requests": "17h5m", "x-ratelimit-remaining-requests": "99"}, 1.0),
        ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-reset-tokens": "-1"}, None),
    ],
)
def test_the_longest_wait_that_a_header_asks_for_counts(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, a date by the server's own clock, milliseconds, or the reset of a limit that is used up."""
    assert retry_after(headers, now=1_000_000.0) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"error": "bad_key"}, "bad_key"),
        ({"error": "forbidden"}, "bad_request"),
        ({"status": 403, "body": {"error": {"message": "not allowed", "code": None}}}, "bad_key"),
        ({"error": "model_not_found"}, "unknown_model"),
        ({"status": 404, "body": {"error": "model 'x' not found, try pulling it first"}}, "unknown_model"),
        (
            {
                "status": 404,
                "body": {"error": {"message": "The model `gpt-4o` has been deprecated", "code": "model_not_found"}},
            },
            "retired_model",
        ),
        ({"error": "not_found"}, "bad_request"),
        ({"error": "context_length_exceeded"}, "bad_request"),
        ({"error": "unprocessable"}, "bad_request"),
        ({"status": 413, "body": "<html>too large</html>"}, "bad_request"),
        ({"status": 307, "headers": {"location": "http://127.0.0.1:1/v1"}, "body": "", "bill": False}, "bad_request"),
    ],
)
async def test_a_rejection_is_final_and_known_not_to_be_accepted(fault: dict[str, Any], kind: str) -> None:
    """Statuses that say "not done" are `Refused` with the kind by which a person acts; one POST, no bill."""
    async with Server(rules=[{"match": CHAT, "times": "always", "do": fault}]) as server:
        with pytest.raises(Refused) as caught:
            await post(client_of(server.base_url))
        assert caught.value.kind == kind
        assert "<html" not in caught.value.message
        assert (server.state()["requests"]["POST /v1/chat/completions"], server.bills) == (1, [])


@pytest.mark.parametrize(
    ("fault", "kind", "seconds"),
    [
        ({"error": "rate_limited", "retry_after": 7}, "rate_limited", 7.0),
        ({"error": "rate_limited", "retry_after_date": 30}, "rate_limited", 30.0),
        ({"error": "rate_limited"}, "rate_limited", None),
        ({"error": "insufficient_quota"}, "quota_exhausted", None),
        ({"error": "billing_hard_limit_reached"}, "quota_exhausted", None),
        ({"error": "payment_required"}, "quota_exhausted", None),
    ],
)
async def test_limits_are_waited_for(fault: dict[str, Any], kind: str, seconds: float | None) -> None:
    """429 and 402 are `Unavailable`: an exhausted quota by name, else with the wait that the provider asks for."""
    async with Server(rules=[{"match": CHAT, "times": "always", "do": fault}]) as server:
        with pytest.raises(Unavailable) as caught:
            await post(client_of(server.base_url))
        assert caught.value.kind == kind
        assert caught.value.retry_after == (pytest.approx(seconds, abs=2) if seconds is not None else None)
        assert server.state()["requests"]["POST /v1/chat/completions"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 408},
        {"status": 409},
        {"status": 418},
        {"status": 500},
        {"status": 503, "retry_after": 1},
        {"status": 529},
        {"status": 303, "headers": {"location": "/"}, "body": ""},
        {"reset": "after_body"},
        {"reset": "mid_answer"},
        {"cut": 7},
        {"stall": "silent"},
        {"stall": "headers"},
        {"body": "<html>login</html>", "content_type": "text/html"},
        {"body": "null"},
        {"body": '{"a":' * 100_000},
        {"body": ""},
    ],
    ids=lambda fault: ",".join(f"{k}={str(v)[:12]}" for k, v in fault.items()),
)
async def test_what_may_have_been_accepted_is_in_doubt_and_sent_once(fault: dict[str, Any]) -> None:
    """Time-outs, resets after the body, 5xx, unreadable answers: never repeated by us nor by the SDK."""
    async with Server(rules=[{"match": CHAT, "times": "always", "do": fault}]) as server:
        with pytest.raises(InDoubt):
            await post(client_of(server.base_url, timeout_s=0.4))
        assert server.state()["requests"]["POST /v1/chat/completions"] == 1


async def test_an_endpoint_that_cannot_be_reached_was_sent_nothing() -> None:
    """Refused, unknown host, no TLS, a URL that is none: `unreachable`, certain that nothing was accepted."""
    async with Server() as server:
        closed = server.port
        tls = f"https://127.0.0.1:{server.port}/v1"
        with pytest.raises(Unavailable) as caught:
            await post(client_of(tls, connect_s=0.5))
        assert caught.value.kind == "unreachable"
        assert server.bills == []
    for base_url in (f"http://127.0.0.1:{closed}/v1", "http://no-such-host.invalid/v1", "ftp://127.0.0.1/v1"):
        with pytest.raises(Unavailable) as caught:
            await post(client_of(base_url, connect_s=0.5))
        assert caught.value.kind == "unreachable"


@pytest.mark.parametrize("way", ["TLS handshake", "proxy"])
async def test_a_hang_up_before_the_request_was_sent_nothing(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """What breaks before the first byte of the request is known not to be accepted, whatever the error is called."""
    heard: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(7))
        writer.close()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        if way == "proxy":
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        base_url = "https://provider.invalid/v1" if way == "proxy" else f"https://127.0.0.1:{port}/v1"
        with pytest.raises(Unavailable) as caught:
            await post(client_of(base_url))
    assert caught.value.kind == "unreachable"
    assert heard[0].startswith(b"CONNECT" if way == "proxy" else b"\x16")


async def test_a_full_pool_was_sent_nothing() -> None:
    """Waiting for a free connection in vain is `unreachable`, not a doubt."""
    async with Server(rules=[{"match": CHAT, "times": "always", "do": {"stall": "silent"}}]) as server:
        client = client_of(server.base_url, connections=1, timeout_s=0.5)
        outcomes = await asyncio.gather(*(send(client) for _ in range(8)), return_exceptions=True)
        kinds = sorted(type(outcome).__name__ for outcome in outcomes)
        sent = kinds.count("InDoubt")
        assert kinds == ["InDoubt"] * sent + ["Unavailable"] * (8 - sent)
        assert 1 <= sent < 8
        assert server.state()["requests"]["POST /v1/chat/completions"] == sent
        await client.close()


async def test_a_body_that_was_not_sent_whole_was_not_accepted() -> None:
    """A connection that breaks in the middle of a large body leaves no doubt: half a request is none."""
    rules = [{"match": CHAT, "times": "always", "do": {"reset": 1000}}]
    async with Server(rules=rules) as server:
        with pytest.raises(Unavailable) as caught:
            await post(client_of(server.base_url), text="x" * 30_000_000)
        assert caught.value.kind == "unreachable"
        assert server.bills == []


async def test_no_body_is_kept_that_says_the_key() -> None:
    """A server may repeat what it was sent, and escape it: what is recorded says it in no way that JSON is read."""
    for said in (KEY, KEY.replace("sk-", "\\u0073k\\u002D", 1)):
        body = f'{{"id": "x", "said": "a \\u00e9 {said}"}}'
        async with Server(rules=[{"match": CHAT, "do": {"body": body}}]) as server:
            answer = await post(client_of(server.base_url))
        assert KEY not in answer.raw
        assert answer.body["said"] == "a é [key]"


async def test_no_message_shows_the_key() -> None:
    """Providers quote the key with its middle masked; no message and no traceback of ours repeats any of it."""
    quoted = f"Incorrect API key provided: {KEY[:11]}*******{KEY[-4:]}. Also {KEY} and Bearer {KEY}\x1b[31m\nnext"
    fault = {"status": 401, "body": {"error": {"message": quoted, "code": "invalid_api_key"}}}
    async with Server(rules=[{"match": CHAT, "do": fault}]) as server:
        with pytest.raises(Refused) as caught:
            await post(client_of(server.base_url))
    shown = caught.value.message + "".join(traceback.format_exception(caught.value))
    for part in (KEY, KEY[:11], KEY[-4:], "Abc123", "\x1b"):
        assert part not in shown
    assert caught.value.message.startswith("HTTP 401: Incorrect API key provided: [key]")
    assert "\n" not in caught.value.message


async def test_a_long_message_is_cut() -> None:
    """A provider cannot fill our logs, nor keep us busy with reading it."""
    fault = {"status": 400, "body": {"error": {"message": "x" * 1_000_000}}}
    async with Server(rules=[{"match": CHAT, "do": fault}]) as server:
        with pytest.raises(Refused) as caught:
            await post(client_of(server.base_url))
    assert len(caught.value.message) <= 600


@pytest.mark.parametrize("key", ["sk-with space", "sk-line\nbreak", "sk-„quoted“", "sk-\x00"])
async def test_a_key_that_cannot_be_one_is_refused_before_anything_is_sent(key: str) -> None:
    """Such a key would break the HTTP header, in an error that prints it."""
    async with Server() as server:
        with pytest.raises(Refused) as caught:
            await post(client_of(server.base_url, api_key=key))
        assert caught.value.kind == "bad_key"
        assert key not in caught.value.message
        assert server.state()["requests_total"] == 0


async def test_openai_without_a_key_says_what_is_required() -> None:
    """The words that users know, before any connection is made."""
    with pytest.raises(Refused, match="OPENAI_API_KEY environment variable required") as caught:
        await post(client_of("https://api.openai.com/v1", api_key=""))
    assert caught.value.kind == "missing_key"


async def test_a_prompt_that_cannot_be_encoded_is_refused() -> None:
    """A lone surrogate cannot be sent, and is known not to have been: refused, never a doubt."""
    async with Server() as server:
        with pytest.raises(Refused) as caught:
            await post(client_of(server.base_url), text="\udc80")
        assert caught.value.kind == "bad_request"
        assert server.state()["requests_total"] == 0


async def test_the_environment_says_nothing_to_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoint, key, organization, project and headers are configuration; the SDK's variables are not read."""
    seen: list[dict[str, str]] = []

    def answer(line: str, headers: dict[str, str], body: Any) -> tuple[int, dict[str, str], str]:
        seen.append(headers)
        return 200, {}, "{}"

    for name, value in {
        "OPENAI_API_KEY": "sk-other-key-of-the-shell",
        "OPENAI_ADMIN_KEY": "sk-admin-key",
        "OPENAI_ORG_ID": "org-shell",
        "OPENAI_PROJECT_ID": "proj-shell",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "OPENAI_CUSTOM_HEADERS": "X-Shell: yes\nAuthorization: Bearer stolen",
    }.items():
        monkeypatch.setenv(name, value)
    async with answering(answer) as base_url:
        await post(client_of(base_url))
        await post(client_of(base_url, organization="org-mine", project="proj-mine"))
        await post(client_of(base_url, api_key=""))
    assert seen[0]["authorization"] == f"Bearer {KEY}"
    assert not {"openai-organization", "openai-project", "x-shell"} & seen[0].keys()
    assert (seen[1]["openai-organization"], seen[1]["openai-project"]) == ("org-mine", "proj-mine")
    assert seen[2]["authorization"] == "Bearer none"


async def test_a_redirect_is_not_followed() -> None:
    """A paid POST, and the code in it, goes to the configured endpoint or nowhere."""
    async with Server() as other:
        rules = [{"match": CHAT, "do": {"status": 308, "headers": {"location": other.base_url}, "body": ""}}]
        async with Server(rules=rules) as server:
            with pytest.raises(Rejected, match="redirects to"):
                await post(client_of(server.base_url))
        assert other.state()["requests_total"] == 0


async def test_a_closed_client_opens_again() -> None:
    """Closing releases the connections and is no end: a shared client may be closed by each of its wires."""
    async with Server() as server:
        client = client_of(server.base_url)
        await client.close()
        for _ in range(2):
            assert (await post(client)).body["object"] == "chat.completion"


@pytest.mark.parametrize(
    ("endpoint", "own"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://api.openai.com.evil.example/v1", False),
        ("https://evil.example/api.openai.com", False),
        ("http://127.0.0.1:11434/v1", False),
    ],
)
def test_openais_own_endpoint_is_known_by_its_host(endpoint: str, own: bool) -> None:
    """Only the host counts, and only whole labels of it."""
    assert is_openai(endpoint) is own


@pytest.mark.parametrize(
    ("counts", "read"),
    [
        ({"input_tokens": 10, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 4}}, Usage(10, 4, 3)),
        ({"input_tokens": 10, "output_tokens": 3, "input_tokens_details": None}, Usage(10, 0, 3)),
        ({"input_tokens": 10, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 99}}, Usage(10, 10, 3)),
        ({"input_tokens": None, "output_tokens": 3}, None),
        ({"input_tokens": -1, "output_tokens": 3}, None),
        ({"input_tokens": "10", "output_tokens": 3}, None),
        ("none", None),
        (None, None),
    ],
)
def test_a_usage_is_read_whole_or_not_at_all(counts: Any, read: Usage | None) -> None:
    """Compatible servers leave out what they like; a number that is not there is never taken for 0."""
    assert usage({"usage": counts}, "input_tokens", "output_tokens") == read


def test_openai_is_imported_only_when_it_is_needed() -> None:
    """Importing every room of the models leaves the SDK alone: it costs most of a second."""
    rooms = ("body", "meaning", "progress", "client", "openai", "chat", "recorded", "gate", "scripted")
    lines = "; ".join(f"import delegated.models.{room}" for room in rooms)
    check = "import sys; assert not {'openai', 'httpx2', 'pydantic'} & sys.modules.keys(), 'imported'"
    subprocess.run([sys.executable, "-c", f"{lines}; {check}"], check=True, timeout=60)
