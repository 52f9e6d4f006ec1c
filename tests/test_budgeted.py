"""A paid call within budgets, and what is set aside for one that is stopped."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from delegated.disk import Directory
from delegated.errors import Unavailable
from delegated.journal import Journal
from delegated.ledger import Budget, Ledger
from delegated.models.budgeted import Budgeted


class Unreached:
    """A provider that cannot be reached."""

    name, endpoint, wire = "m", "https://provider.test", "responses"

    async def ask(self, prompt: Any, log: Any) -> Any:
        raise Unavailable("unreachable", "no network")


async def test_what_was_set_aside_for_a_job_that_is_stopped_is_given_back(tmp_path: Path) -> None:
    """Also when the thread that reserves it ends after the job does: nothing of it can leave any more."""
    ledger = Ledger(str(tmp_path / "state" / "spending.sqlite"))
    reserved, go_on = threading.Event(), threading.Event()

    def slowly(function: Any, *args: Any) -> Any:
        found = function(*args)
        reserved.set()
        assert go_on.wait(30)
        return found

    model: Any = Unreached()
    held = Budgeted(
        model,
        lambda: ledger,
        (Budget("day", 1.0),),
        workspace="w",
        bound=lambda prompt: 0.75,
        price=lambda reply: None,
        wait=False,
        run=lambda function, *args: asyncio.to_thread(slowly, function, *args),
    )
    journal = Journal(Directory(str(tmp_path)), now=time.time)
    prompt: Any = None
    job = asyncio.create_task(held.ask(prompt, journal.claim("k", 1, "n.md", b"x").call(1, "first")))
    await asyncio.to_thread(reserved.wait, 30)
    assert ledger.taken("day") == 0.75
    job.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert ledger.taken("day") == 0.0
    journal.close()
    ledger.close()
