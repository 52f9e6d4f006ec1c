"""Models that are asked side by side: what becomes of the one does not take from the other what is paid for."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delegated.answer import Desk
from delegated.calls import CallRecord, JobRecord
from delegated.disk import Directory
from delegated.gather import Gatherer, Limits, Tokens
from delegated.job import CallState
from delegated.journal import Journal
from delegated.pricing import TABLE
from delegated.prompt import Prompt
from delegated.reply import Reply
from delegated.running import Progress
from delegated.workspace import Workspace
from harness import request_text

REQUEST = f"---\nmodels: [one, two]\n---\n{request_text('it divides by zero')}"


class Paid:
    """A provider that stores nothing and answers when it is told to: until then the connection is the call."""

    wire = "messages"
    endpoint = "https://provider.test"

    def __init__(self, name: str) -> None:
        self.name = name
        self.posted = asyncio.Event()
        self.may_post = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def ask(self, prompt: Prompt, log: CallRecord) -> Reply:
        await self.may_post.wait()
        await log.record_sent(
            model=self.name, endpoint=self.endpoint, wire=self.wire, handle="", prompt_sha256="", price_bound_usd=0.1
        )
        self.posted.set()
        await self.may_answer.wait()
        reply = Reply("completed", "{}", self.name, "{}")
        await log.record_reply(reply)
        return reply

    async def cancel(self, log: CallRecord) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.fixture
def record(tmp_path: Path) -> Iterator[JobRecord]:
    folder = tmp_path / "folder"
    folder.mkdir()
    journal = Journal(Directory(str(folder)), now=time.time)
    yield journal.claim("k", 1, "OPENAI_DELEGATION_REQUEST_k.md", REQUEST.encode())
    journal.close()


def begin(tmp_path: Path, record: JobRecord, models: dict[str, Paid]) -> asyncio.Task[Any]:
    space = Workspace(str(tmp_path))
    (tmp_path / "app.py").write_text("x = 1\n")
    gatherer = Gatherer(space, tokens=lambda: Tokens(len, exact=False), limits=Limits(max_input_tokens=60_000))
    model: Callable[[str], Any] = lambda name: (models[name], replace(TABLE[0], name=name))  # noqa: E731
    return asyncio.create_task(Desk(gatherer, model=model).answer(record, Progress("", lambda progress: None)))


async def test_a_disk_that_fails_the_one_does_not_cut_off_the_other(
    tmp_path: Path, record: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that has left comes to its end, and its reply is recorded; only then is the job interrupted."""
    one, two = Paid("one"), Paid("two")
    job = begin(tmp_path, record, {"one": one, "two": two})
    two.may_post.set()
    await two.posted.wait()
    write, loop = record.journal.write, asyncio.get_running_loop()

    def full(path: str, *args: Any) -> None:
        if path.endswith("01-first/sent.1"):
            loop.call_soon_threadsafe(loop.call_later, 0.05, two.may_answer.set)  # cut off, it would be by then
            raise OSError(errno.ENOSPC, "no space")
        write(path, *args)

    monkeypatch.setattr(record.journal, "write", full)
    one.may_post.set()
    with pytest.raises(OSError, match="no space"):
        await job
    assert [record.call(number, "first").state for number in (1, 10)] == [CallState.NEW, CallState.REPLIED]


async def test_a_job_that_is_stopped_stops_all_its_calls(tmp_path: Path, record: JobRecord) -> None:
    """A cancellation from outside reaches every model that is asked."""
    models = {name: Paid(name) for name in ("one", "two")}
    job = begin(tmp_path, record, models)
    for model in models.values():
        model.may_post.set()
        await model.posted.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert [record.call(number, "first").state for number in (1, 10)] == [CallState.SENT, CallState.SENT]
