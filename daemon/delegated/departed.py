"""Folders that went away while calls ran: what is paid for is recorded, and not paid for again when they come back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from delegated.calls import JobRecord
from delegated.running import Running
from delegated.session import Session
from delegated.watch import Bell

_PAID: Final = 256  # calls whose folder went away that are kept in mind, for when the same request comes again


@dataclass(slots=True, eq=False)
class Left:
    """A folder that went away while calls of its jobs ran: its session, which has the journal, and these jobs."""

    session: Session
    jobs: Mapping[str, Running]

    def tasks(self, reason: str | None = None) -> list[asyncio.Task[None]]:
        """List the tasks that still run; with `reason` only those of jobs that are being stopped for it."""
        return [
            job.task
            for job in self.jobs.values()
            if job.task is not None and not job.task.done() and reason in (None, job.progress.reason)
        ]


class Departed:
    """The folders that were left, in the order in which that was, until their last call has ended."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._left: list[Left] = []
        self._leaving: set[asyncio.Task[None]] = set()
        # Calls that left from a folder that went away, by id and SHA-256 of the request: they are not paid for again
        # when the same request is found in the folder that comes in its place.
        self._paid: dict[tuple[str, str], Running] = {}

    def jobs(self) -> list[Running]:
        """List the jobs of all folders that were left."""
        return [job for left in self._left for job in left.jobs.values()]

    def leave(self, session: Session, jobs: Mapping[str, Running]) -> None:
        """Give up a folder that went away, so that whoever drops into the new one does not wait.

        Calls that have left go on to their end: what they say is recorded in the journal, wherever it went.
        """
        left = Left(session, jobs)
        for running in jobs.values():
            running.left = True
            if running.record is not None and running.sent:
                claim = running.record.claim
                self._paid[claim.id, claim.sha256] = running
            else:
                running.halt()
        while len(self._paid) > _PAID:
            del self._paid[next(iter(self._paid))]
        session.leave()
        self._left.append(left)
        self._log.info("folder.left", calls=sum(running.sent for running in jobs.values()))
        task = asyncio.create_task(self._see_out(left))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def rejoin(self, bell: Bell, watch: str) -> tuple[Session, dict[str, Running]] | None:
        """Take up a folder that is back, with its jobs that still run; None when none is. Raises `OSError`."""
        for left in self._left:
            session = left.session
            if not session.folder.still_there():
                continue
            if stopped := left.tasks("stopping"):
                await asyncio.wait(stopped)  # they end at once, and are taken up anew
            session.rejoin(bell, watch)
            self._left.remove(left)
            running = {key: job for key, job in left.jobs.items() if job.task is not None and not job.task.done()}
            for job in running.values():
                job.left = False
            here = left.jobs.values()
            self._paid = {known: job for known, job in self._paid.items() if job not in here}
            return session, running
        return None

    async def inherit(self, session: Session, record: JobRecord, running: Running) -> None:
        """Take over what was paid for the very same request before its folder was replaced, rather than pay again."""
        claim = record.claim
        former = self._paid.get((claim.id, claim.sha256))
        if former is None or former.record is None or not record.may_inherit(former.record):
            return
        running.progress.tell("waiting", "it was asked already, before the folder was replaced")
        # At once, too: were this life to end now, the next one would know of nothing.
        await session.journal.run_whole(record.inherit, former.record)
        if former.task is not None and not former.task.done():
            await asyncio.wait([former.task])
            await session.journal.run_whole(record.inherit, former.record)
        self._paid.pop((claim.id, claim.sha256), None)

    async def end(self, patience_s: float) -> None:
        """Wait until all that were left are closed, so long at most."""
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=patience_s)

    async def _see_out(self, left: Left) -> None:
        """Close a folder that was left once its calls have ended, unless it came back before."""
        while tasks := left.tasks():
            await asyncio.wait(tasks)
        if left in self._left:
            self._left.remove(left)
            left.session.close()
