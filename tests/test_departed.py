"""A folder that went away while a call ran: the same request in the one that comes in its place pays nothing."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from delegated.calls import JobRecord
from delegated.departed import Departed
from delegated.disk import Directory
from delegated.job import CallState
from delegated.journal import Journal
from delegated.reply import Reply
from delegated.running import Progress, Running

REPLY = Reply("completed", "{}", "m", "{}", response_id="resp_1")


@dataclass
class Attached:
    """As much of a session as a folder that is left or found needs."""

    journal: Journal

    def leave(self) -> None:
        pass

    def close(self) -> None:
        self.journal.close()


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Callable[[str], Attached]]:
    opened: list[Attached] = []

    def attach(name: str) -> Attached:
        (tmp_path / name).mkdir()
        opened.append(Attached(Journal(Directory(str(tmp_path / name)), now=time.time)))
        return opened[-1]

    yield attach
    for each in opened:
        each.close()


def running(record: JobRecord) -> Running:
    job = Running(record.claim.id, record.claim.name, Progress("", lambda progress: None), 1)
    job.record = record
    return job


def claim(journal: Journal) -> JobRecord:
    return journal.claim("k", 1, "OPENAI_DELEGATION_REQUEST_k.md", b"why?")


async def billed(journal: Journal) -> JobRecord:
    record = claim(journal)
    call = record.call(1, "first")
    call.save_prompt("the prompt", {})
    await call.record_sent(model="m", endpoint="e", wire="messages", handle="", prompt_sha256="", price_bound_usd=0.5)
    await call.record_reply(REPLY)
    return record


@pytest.mark.parametrize("written", [0, 1, 2])
async def test_a_disk_that_fails_once_does_not_make_it_pay_again(
    attach: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Whichever of the inherited records the disk does not take: the job that goes on takes over the answer."""
    old, new = attach("old"), attach("new")
    record = await billed(old.journal)
    departed = Departed(structlog.get_logger())
    departed.leave(old, {"k": running(record)})
    write, left = new.journal.write, iter(range(written))

    def full(path: str, *args: Any) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "no space")
        write(path, *args)

    heir = claim(new.journal)
    monkeypatch.setattr(new.journal, "write", full)
    with pytest.raises(OSError, match="no space"):
        await departed.inherit(new, heir, running(heir))
    monkeypatch.undo()
    resumed = new.journal.latest("k")
    assert resumed is not None
    await departed.inherit(new, resumed, running(resumed))
    call = resumed.call(1, "first")
    assert (call.state, call.reply) == (CallState.REPLIED, REPLY)


async def test_what_left_here_is_not_mixed_with_what_left_there(attach: Callable[[str], Any]) -> None:
    """A request of which a call has left in this folder, too, goes on with that one."""
    old, new = attach("old"), attach("new")
    record = await billed(old.journal)
    departed = Departed(structlog.get_logger())
    departed.leave(old, {"k": running(record)})
    mine = claim(new.journal)
    await mine.call(1, "first").record_sent(
        model="m", endpoint="e", wire="messages", handle="", prompt_sha256="", price_bound_usd=0.5
    )
    await departed.inherit(new, mine, running(mine))
    assert mine.call(1, "first").state is CallState.SENT
