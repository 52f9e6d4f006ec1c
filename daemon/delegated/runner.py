"""One claimed request, from its claim to its RESULT: answered, or ended without an answer, and published."""

from __future__ import annotations

import asyncio
import errno
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from delegated import ends
from delegated import folder as names
from delegated.agenda import ERROR_PAUSE_S, Agenda
from delegated.calls import JobRecord
from delegated.departed import Departed
from delegated.plan import Sig
from delegated.result import Result
from delegated.retention import trim
from delegated.running import Running
from delegated.session import Session
from delegated.withdrawal import Withdrawal

DISK_PAUSE_CAP_S: Final = 5.0


class Runner:
    """Runs jobs; `on_settled` hears of each that was published."""

    def __init__(
        self, agenda: Agenda, departed: Departed, withdrawal: Withdrawal, on_settled: Callable[[Result], None]
    ) -> None:
        self._agenda = agenda
        self._departed = departed
        self._withdrawal = withdrawal
        self._on_settled = on_settled

    async def run(self, session: Session, record: JobRecord, running: Running, sig: Sig | None) -> None:
        """Answer one claimed request and publish."""
        running.record = record
        running.new = not record.found
        running.name = record.claim.name
        record.turn = running.turn
        claim = record.claim
        with structlog.contextvars.bound_contextvars(job=f"{claim.id}.r{claim.revision}"):
            if record.found and await session.journal.run(session.published, record):
                done = record.done
                await self._forget(session, record)
                self._finished(session, record, done.status if done else "", sig)
                return
            if claim.revision > 1:
                await session.journal.run(session.archive, record)
            self._agenda.post_status(session, running)
            if claim.refused or claim.duplicate_of:
                at = self._agenda.timestamp()
                known = ends.refused(record, at) if claim.refused else ends.duplicate(record, at)
                await self._publish(session, record, known, running, sig)
                return
            try:
                await self._departed.inherit(session, record, running)
                running.desk = self._agenda.desk
                # The file, not only the order as heard: it may have come before the request, when it was about nothing.
                if claim.id in self._agenda.cancels or session.folder.dir.exists(f"{names.PREFIX}CANCEL_{claim.id}"):
                    if not (record.found and await session.journal.run(record.may_be_billed)):
                        running.progress.reason = "cancelled"
                        raise asyncio.CancelledError
                    # A former life left a call at the provider: it is taken up, and then stopped there.
                    self._agenda.cancels.add(claim.id)
                    self._agenda.bell.ring()
                record.before_sending = partial(self._withdrawal.look_again, session, record, running, sig)
                record.asked_before = partial(session.asked_before, record, self._agenda.jobs.keys())
                record.former = session.journal.latest
                result = await self._answer(record, running)
            except asyncio.CancelledError:
                superseded = running.progress.reason == "superseded"
                if superseded and not await session.journal.run(record.may_be_billed):
                    await session.journal.run(record.finish, "superseded")
                    await session.journal.run(session.note_end, record, "superseded")
                    await session.journal.run(session.clear_stale, (claim.id,))
                    self._agenda.log.info("job.superseded")
                    raise
                if self._orphaned(session, record):
                    result = ends.uncertain(record, running.progress, self._agenda.timestamp())
                elif running.progress.reason not in ("cancelled", "deleted"):
                    if superseded:  # a call has left all the same: its answer is paid for
                        self._agenda.resume.append(claim.id)
                    raise
                else:
                    result = ends.cancelled(record, running.progress, self._agenda.timestamp())
            except Exception as error:  # the job boundary
                if isinstance(error, OSError) and error.errno is not None:
                    if not self._orphaned(session, record):
                        raise  # the disk: the records are the truth, and the job goes on from them when there is room
                    result = ends.uncertain(record, running.progress, self._agenda.timestamp())
                else:
                    self._agenda.log.exception("job.broke")
                    result = ends.broken(record, running.progress, self._agenda.timestamp(), error)
            running.answered = True
            await self._publish(session, record, result, running, sig)

    async def _answer(self, record: JobRecord, running: Running) -> Result:
        """Ask the desk; ask the new one when another has taken its place while the job only waited."""
        while True:
            running.desk = self._agenda.desk
            try:
                return await running.desk.answer(record, running.progress)
            except asyncio.CancelledError:
                if running.progress.reason != "reloaded" or self._agenda.stopping:
                    raise
                running.progress.reason = ""
                if running.task is not None:
                    running.task.uncancel()

    def _orphaned(self, session: Session, record: JobRecord) -> bool:
        """Say whether a call has left of which no record is left: without a RESULT the next start would pay again."""
        return session.journal.gone and record.may_be_billed()

    async def _publish(
        self, session: Session, record: JobRecord, result: Result, running: Running, sig: Sig | None
    ) -> None:
        claim = record.claim
        pause, told = ERROR_PAUSE_S, ""
        result = session.calibrated(result)  # once: what is known meanwhile is no reason for other bytes
        while True:
            if not session.folder.still_there():  # nothing is put into a folder that is not ours any more
                raise OSError(errno.ENOENT, "the folder went away; the answer is in the journal that went with it")
            try:
                whole = replace(result, warnings=(*result.warnings, *session.siblings(record)))
                await session.journal.run_whole(self._put_out, session, record, whole)
                break
            except OSError as error:
                # The answer is in the journal; it comes out as soon as the disk allows.
                if str(error.strerror) != told:
                    told = str(error.strerror)
                    self._agenda.log.error("result.unpublished", reason=str(error))
                running.progress.tell("waiting for the disk", told)
                await asyncio.sleep(pause)
                pause = min(pause * 2, DISK_PAUSE_CAP_S)
        await self._forget(session, record)
        self._finished(session, record, result.status, sig)
        self._on_settled(whole)
        self._agenda.log.info(
            "job.settled",
            status=result.status,
            kind=result.error.kind if result.error else "",
            cost_usd=result.cost_usd,
            seconds=round(self._agenda.wall() - claim.at, 3),
        )

    def _put_out(self, session: Session, record: JobRecord, result: Result) -> None:
        session.publish(record, result)
        session.note_end(record, result.status)

    async def _forget(self, session: Session, record: JobRecord) -> None:
        """Keep only the hashes of what was sent, where nothing more is to be kept of a settled request."""
        if self._agenda.settings.retention_days == 0:
            with suppress(OSError):  # the daily look finds what is left
                await session.journal.run_whole(trim, session.journal.dir, os.path.dirname(record.place), math.inf)

    def _finished(self, session: Session, record: JobRecord, status: str, sig: Sig | None) -> None:
        claim = record.claim
        self._agenda.cancels.discard(claim.id)
        self._agenda.broken.pop(claim.id, None)
        session.clear_notices(claim.id)
        if self._agenda.once:
            self._agenda.ended[claim.id] = status
        if sig is not None:
            self._agenda.settled(session, claim.name, claim.id, sig)
