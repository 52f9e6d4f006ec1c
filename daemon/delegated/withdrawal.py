"""How a job is stopped from outside, by a CANCEL file, an edit or a deletion: what has left is not taken back."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from delegated import folder as names
from delegated.agenda import GONE_S, Agenda
from delegated.calls import JobRecord
from delegated.errors import Refused
from delegated.folder import Bytes, Held
from delegated.plan import Sig, Waiting
from delegated.result import CANCELLED
from delegated.running import Running
from delegated.session import Session


class Withdrawal:
    """Sees to what was asked for and is wanted no more."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._stoppers: set[asyncio.Task[None]] = set()

    def cancel(self, session: Session, key: str) -> None:
        """Obey a CANCEL file; one that came before its request is heeded as soon as that is claimed."""
        agenda = self._agenda
        running = agenda.jobs.get(key)
        if running is None:
            waits = any(wait.entry.id == key for wait in agenda.waiting.values())
            if not waits and key not in agenda.resume and not agenda.stopping:
                agenda.cancels.discard(key)
                agenda.start(session, key, "", partial(self._cancel_late, session, key))
            return  # it stays in the set: the job sees it as soon as it is claimed
        if running.stoppable:
            self._stop_job(running, "cancelled")

    async def _cancel_late(self, session: Session, key: str, running: Running) -> None:
        """See to a CANCEL file whose job neither runs nor waits."""
        latest = await session.journal.run(session.journal.latest, key)
        if latest is None:
            return
        if await session.journal.run(lambda: latest.done) is None:
            self._agenda.cancels.add(key)
            self._agenda.resume.append(key)
            return
        self._agenda.log.info("order.too_late", order="CANCEL", key=key)
        await self.remove_order(session, f"{names.PREFIX}CANCEL_{key}")

    async def remove_order(self, session: Session, name: str) -> None:
        """Take away the file of an order that was obeyed."""
        try:
            await session.journal.run(session.folder.dir.remove, name)
        except OSError as error:  # it was obeyed; that it stays there is no reason to stop
            self._agenda.log.error("order.stays", name=name, reason=str(error))

    def _stop_job(self, running: Running, reason: str) -> None:
        """Stop a job, and before that its calls at their providers."""
        running.progress.reason = reason
        running.progress.tell("stopping", reason)

        async def stop() -> None:
            record, desk = running.record, running.desk
            try:
                if record is not None and desk is not None and await desk.stop(record, running.progress):
                    return  # it runs at the provider: the fetch ends with the provider's word
            except Exception:  # whatever is wrong with the provider, here it is stopped
                self._agenda.log.exception("job.stop_failed")
            if running.task is not None and not running.answered:
                running.task.cancel()

        task = asyncio.create_task(stop())
        self._stoppers.add(task)
        task.add_done_callback(self._stoppers.discard)

    def consider_edit(self, session: Session, running: Running, wait: Waiting) -> None:
        """Drop a running job that has sent nothing when its file was edited: the new bytes are taken."""
        record = running.record
        if record is None or not running.stoppable or wait.entry.name != record.claim.name or running.sent:
            return
        try:
            got = session.folder.read(wait.entry.name, self._agenda.settings.max_request_bytes)
        except OSError:
            return
        if not isinstance(got, Bytes):
            return
        if got.sha256 == record.claim.sha256:
            self._agenda.dealt_with(session, wait.entry.name, got.sig)
            return
        running.progress.reason = "superseded"
        if running.task is not None:
            running.task.cancel()

    def consider_absence(self, session: Session, running: Running, now: float) -> None:
        """Stop a job whose REQUEST is gone, for longer than an editor takes it away, if nothing of it has left."""
        if session.there(running.name):
            running.gone_since, running.seen = None, True
        elif running.ordered and not running.seen:
            pass  # asked again by a RETRY file after its REQUEST was deleted: it was not deleted to stop this
        elif running.gone_since is None:
            running.gone_since = now
        elif now - running.gone_since >= GONE_S and not running.sent:
            running.progress.reason = "deleted"
            if running.task is not None:
                running.task.cancel()

    async def look_again(self, session: Session, record: JobRecord, running: Running, sig: Sig | None) -> None:
        """Let nothing leave for a request that was edited or deleted before anything of it left: stop its job.

        The loop hears of an edit when it has settled and of a deletion a while later; a job that is quicker, or that a
        start takes up again, must not pay for what nobody asks any more. `sig` is the claimed state of the file.
        """
        claim = record.claim
        if running.progress.reason == "cancelled":
            raise Refused("cancelled", CANCELLED)  # one of its calls is being stopped at the provider; no other leaves
        until = time.monotonic() + GONE_S
        while True:
            entry = session.folder.entry(claim.name)
            if (entry is not None and entry.sig == sig) or running.sent:
                return
            if entry is None:
                if running.ordered and not running.seen:
                    return
                if time.monotonic() < until:
                    await asyncio.sleep(0.05)
                    continue
                running.progress.reason = "deleted"
                break
            try:
                got = await session.journal.run(
                    session.folder.read, claim.name, self._agenda.settings.max_request_bytes
                )
            except PermissionError:
                return
            except OSError:
                got = Held.CHANGED  # too large by now, a link, a directory: not what was claimed
            if got is Held.GONE:
                continue
            if running.sent or (isinstance(got, Bytes) and got.sha256 == claim.sha256):
                return  # another model's call may have left while the file was read
            running.progress.reason = "superseded"
            self._agenda.bell.lose()  # whatever it is now, the next look finds it
            break
        if running.task is not None:
            running.task.cancel()
        await asyncio.Event().wait()
