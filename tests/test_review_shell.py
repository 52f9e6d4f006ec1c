"""What a hostile look at the shell found: each rule here was broken once."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from asking import PROMPT, call_in, responses
from delegated.journal import CallRecord
from delegated.testing.server import Server as LocalServer

# Calls


async def test_a_job_stopped_between_its_sent_record_and_the_post_leaves_no_doubt(tmp_path: Path) -> None:
    """What was recorded as sent and never posted is recorded as unsent: a restart need not look it up, nor wait."""
    async with LocalServer() as server:
        model = responses(server.base_url)
        with call_in(tmp_path) as call:
            journal, write = call.job.journal, call.job.journal.write
            entered, go_on = threading.Event(), threading.Event()

            def slow(path: str, *rest) -> None:  # the disk takes its time; the record itself is the real one
                if path.endswith("sent.1") and not entered.is_set():
                    entered.set()
                    go_on.wait(10)
                write(path, *rest)

            journal.write = slow  # type: ignore[method-assign]
            asking = asyncio.create_task(model.ask(PROMPT, call))
            await asyncio.to_thread(entered.wait, 10)
            asking.cancel()
            await asyncio.sleep(0)
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert not call.may_be_billed
            assert not CallRecord(call.job, "01-first").may_be_billed
            assert server.bills == []
            assert (await model.ask(PROMPT, call)).outcome == "completed"
            assert len(server.bills) == 1
        await model.close()
