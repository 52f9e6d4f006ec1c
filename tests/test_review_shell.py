"""What a hostile look at the shell found: each rule here was broken once."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from asking import PROMPT, call_in, responses
from delegated.journal import CallRecord
from delegated.testing.server import Server as LocalServer
from harness import House, Server, request_text, until

POST = {"method": "POST", "path": "/v1/responses"}

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


def jobs(house: House) -> Path:
    return house.folder / ".delegated" / "jobs"


# The index


def test_an_index_that_somebody_holds_delays_an_edit_and_loses_none(house: House, server: Server) -> None:
    """Another program holds a lock on the index: the edit is asked once it is let go."""
    house.use(server)
    daemon = house.up()
    path = house.drop("one")
    house.result("one")
    until(lambda: list(jobs(house).glob("*/one/r1/done")), what="done")
    holder = sqlite3.connect(house.folder / ".delegated" / "index.sqlite", isolation_level=None)
    holder.execute("begin immediate")
    path.write_text(request_text("another question"))
    until(lambda: daemon.has("job.interrupted") or daemon.has("job.broke"), what="the daemon says so")
    holder.execute("rollback")
    holder.close()
    assert house.revision("one", 2)["status"] == "answered"
    assert len(server.bills()) == 2


def test_an_index_with_a_damaged_page_is_made_anew(house: House, server: Server) -> None:
    """Sound at its head and garbage behind: the daemon starts, and nothing is asked again."""
    house.use(server)
    daemon = house.up()
    for n in range(60):
        house.drop(f"rather-a-long-name-for-a-request-{n:04d}", "")
    house.drop("one")
    house.result("one")
    daemon.stop()
    index = house.folder / ".delegated" / "index.sqlite"
    with sqlite3.connect(index) as db:
        db.executemany(
            "insert or replace into settled values (?, ?, 1, 1, 1, 1)",
            [(f"n{n:090d}", f"k{n:090d}") for n in range(500)],
        )
    db.close()
    data = bytearray(index.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    index.write_bytes(data)
    house.up()
    house.drop("two")
    assert house.result("two")["status"] == "answered"
    assert len(server.bills()) == 2
