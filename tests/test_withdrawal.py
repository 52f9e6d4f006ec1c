"""An edit that comes while calls leave: the former words are given up only where nothing of them has left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog

from delegated.agenda import Agenda, Settings
from delegated.calls import JobRecord
from delegated.departed import Departed
from delegated.runner import Runner
from delegated.running import Progress, Running
from delegated.session import Session
from delegated.watch import Bell
from delegated.withdrawal import Withdrawal

NAME = "OPENAI_DELEGATION_REQUEST_k.md"


async def _send(record: JobRecord) -> None:
    await record.call(10, "first").record_sent(
        model="m", endpoint="e", wire="messages", handle="", prompt_sha256="", price_bound_usd=0.5
    )


class Edited:
    """A desk whose job is stopped for an edit just when one of its calls has left."""

    def __init__(self, *, sends: bool) -> None:
        self._sends = sends

    async def answer(self, record: JobRecord, progress: Progress) -> Any:
        if self._sends:
            await _send(record)
        progress.reason = "superseded"
        raise asyncio.CancelledError


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Session]:
    (tmp_path / NAME).write_text("the first words")
    with ThreadPoolExecutor(2) as pool:
        session = Session(str(tmp_path), Bell(), watch="poll", wall=time.time, pool=pool)
        yield session
        session.close()


def agenda_of(session: Session, *, sends: bool = False) -> Agenda:
    desk: Any = Edited(sends=sends)
    return Agenda(session.folder.path, desk, Settings(), wall=time.time, once=False)


async def test_a_call_that_leaves_while_the_edit_is_read_keeps_the_job(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two models one looks at the file, the other is faster: what was asked is asked of both."""
    record = session.journal.claim("k", 1, NAME, b"the first words")
    running = Running("k", NAME, Progress("", lambda progress: None), 1)
    running.record = record
    (tmp_path / NAME).write_text("the second words")
    read, loop = session.folder.read, asyncio.get_running_loop()

    def while_the_other_sends(*args: Any) -> Any:
        found = read(*args)
        asyncio.run_coroutine_threadsafe(_send(record), loop).result(30)
        return found

    monkeypatch.setattr(session.folder, "read", while_the_other_sends)
    running.task = asyncio.create_task(Withdrawal(agenda_of(session)).look_again(session, record, running, None))
    await running.task
    assert running.progress.reason == ""


@pytest.mark.parametrize("sends", [True, False])
async def test_no_job_of_which_a_call_has_left_ends_as_superseded(session: Session, sends: bool) -> None:
    """It is taken up again for its answer; one of which nothing has left is given up."""
    agenda = agenda_of(session, sends=sends)
    record = session.journal.claim("k", 1, NAME, b"the first words")
    runner = Runner(agenda, Departed(structlog.get_logger()), Withdrawal(agenda), lambda result: None)
    agenda.start(session, "k", NAME, lambda running: runner.run(session, record, running, None))
    task = agenda.jobs["k"].task
    assert task is not None
    await task
    done = record.done
    assert (done.status if done else "", agenda.resume) == (("", ["k"]) if sends else ("superseded", []))
