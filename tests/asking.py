"""What the tests of the models share: a prompt, a call in a real journal, a paid model before the local server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from delegated.calls import CallRecord
from delegated.context import Context
from delegated.disk import Directory
from delegated.journal import Journal
from delegated.models.anthropic import AnthropicClient, MessagesWire
from delegated.models.chat import ChatWire
from delegated.models.client import Client
from delegated.models.openai import ResponsesWire
from delegated.models.recorded import Patience, Recorded
from delegated.prompt import Prompt
from delegated.request import Request
from delegated.uptime import Uptime, uptime

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["root_cause"],
    "properties": {"root_cause": {"type": "string"}},
}
PROMPT = Prompt(
    version=1,
    system="You find root causes.",
    user="Why does it fail? ü",
    schema=SCHEMA,
    request=Request(issue="Why does it fail?"),
    context=Context(),
)
KEY = "sk-proj-Abc123Def456Ghi789"
QUICK = Patience(poll_first_s=0.01, poll_cap_s=0.05, deadline_s=0.3, doubt_s=0.1, fetch_failures_s=20)
RESPONSES = {"method": "POST", "path": "/v1/responses"}
CHAT = {"method": "POST", "path": "/v1/chat/completions"}
MESSAGES = {"method": "POST", "path": "/v1/messages"}


@contextmanager
def call_in(
    folder: Path,
    *,
    said: list[tuple[str, str]] | None = None,
    now: Callable[[], float] = time.time,
    up: Callable[[], Uptime] = uptime,
) -> Iterator[CallRecord]:
    """Open the one call of the journal in `folder`: for the first time, or as a restarted daemon finds it."""
    with Directory(str(folder)) as directory:
        journal = Journal(directory, now=now, up=up)
        try:
            job = journal.latest("k") or journal.claim("k", 1, "OPENAI_DELEGATION_REQUEST_k.md", b"# Issue\n\nWhy?\n")
            call = job.call(1, "first")
            if said is not None:
                call.on_phase = lambda name, detail: said.append((name, detail))
            yield call
        finally:
            journal.close()


@contextmanager
def calls_in(folder: Path, count: int) -> Iterator[list[CallRecord]]:
    """Open several calls of one journal."""
    with Directory(str(folder)) as directory:
        journal = Journal(directory, now=time.time)
        try:
            job = journal.claim("k", 1, "OPENAI_DELEGATION_REQUEST_k.md", b"# Issue\n\nWhy?\n")
            yield [job.call(number, "first") for number in range(1, count + 1)]
        finally:
            journal.close()


def client_of(base_url: str, **settings: Any) -> Client:
    return Client(**{"base_url": base_url, "api_key": KEY, "timeout_s": 20.0, **settings})


def responses(
    base_url: str,
    *,
    patience: Patience = QUICK,
    client: Any = None,
    **settings: Any,
) -> Recorded:
    wire = ResponsesWire(
        client_of(base_url, **(client or {})), **{"model": "gpt-4o", "max_output_tokens": 500, **settings}
    )
    return Recorded(wire, patience=patience, price_bound=lambda prompt: 0.5)


def chat(base_url: str, *, patience: Patience = QUICK, client: Any = None, **settings: Any) -> Recorded:
    wire = ChatWire(client_of(base_url, **(client or {})), **{"model": "gpt-4o", "max_output_tokens": 500, **settings})
    return Recorded(wire, patience=patience, price_bound=lambda prompt: 0.5)


def messages(base_url: str, *, patience: Patience = QUICK, client: Any = None, **settings: Any) -> Recorded:
    line = AnthropicClient(**{"base_url": base_url, "api_key": KEY, "timeout_s": 20.0, **(client or {})})
    wire = MessagesWire(line, **{"model": "claude-sonnet-5-5", "max_output_tokens": 500, **settings})
    return Recorded(wire, patience=patience, price_bound=lambda prompt: 0.5)


@asynccontextmanager
async def answering(
    answer: Callable[[str, dict[str, str], Any], tuple[int, dict[str, str], str]],
) -> AsyncIterator[str]:
    """Serve HTTP by a function of request line, headers and JSON body; yield the base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            status, more, text = answer(head[0], headers, json.loads(body) if body else None)
            lines = [f"HTTP/1.1 {status} X", f"content-length: {len(text.encode())}", "connection: close"]
            lines += [f"{name}: {value}" for name, value in {"content-type": "application/json", **more}.items()]
            writer.write(("\r\n".join(lines) + "\r\n\r\n" + text).encode())
            await writer.drain()
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
