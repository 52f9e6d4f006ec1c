"""What a file in the folder is: taken, put off, refused, settled before or gone on with; and what an order asks for."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from delegated import folder as names
from delegated.agenda import GONE_S, Agenda
from delegated.calls import JobRecord
from delegated.errors import RequestError
from delegated.folder import Bytes, Held
from delegated.plan import Entry, Sig, Waiting
from delegated.registry import OLDER, Tracked
from delegated.request import parse
from delegated.runner import Runner
from delegated.running import Running
from delegated.session import Session
from delegated.withdrawal import Withdrawal


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a request when it is taken: its bytes, its newest revision, a newer one whose claim is torn."""

    tracked: Tracked
    got: Bytes | Held
    latest: JobRecord | None = None
    lost: int = 0


class Intake:
    """Claims what is to be answered, and hands it to the runner."""

    def __init__(self, agenda: Agenda, withdrawal: Withdrawal, runner: Runner) -> None:
        self._agenda = agenda
        self._withdrawal = withdrawal
        self._runner = runner

    async def take(self, session: Session, wait: Waiting, running: Running) -> None:
        """Read a request that seems complete, decide what it is, and run it."""
        entry, rules = wait.entry, self._agenda.settings.rules
        name = entry.name
        if entry.kind != "file":
            return await self._refuse(session, wait, running, f"a {entry.kind}, not a regular file")
        try:
            known = await session.journal.run(self._read, session, entry)
        except OSError as error:
            if error.errno not in (errno.EFBIG, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR):
                if error.errno == errno.EACCES:
                    if not wait.held:  # told once, not at every try
                        self._agenda.log.error("request.unreadable", name=name, hint="make it readable for this user")
                    return self._agenda.put_off(wait, "busy")
                raise
            limit = f"larger than the limit of {self._agenda.settings.max_request_bytes:,} bytes (`max_request_bytes`)"
            why = limit if error.errno == errno.EFBIG else f"not a regular file ({error.strerror})"
            return await self._refuse(session, wait, running, why)
        got, now = known.got, time.monotonic()
        if got is Held.GONE:
            if self._agenda.waiting.get(name) is wait:  # else it came back meanwhile
                del self._agenda.waiting[name]
            return None
        if got is Held.BUSY:
            return self._agenda.put_off(wait, "busy")
        if not isinstance(got, Bytes) or got.sig != entry.sig:
            return self._agenda.put_off(wait, "changed", sig=got.sig if isinstance(got, Bytes) else None)
        if not got.sure and now - wait.since < rules.unsure_s:
            return self._agenda.put_off(wait, "unsure")
        calm = wait.ready_at <= wait.since or now - wait.since >= rules.quiet_s  # came whole, or had its quiet time
        # Anywhere in the file, and in UTF-16 too: in JSON and YAML the keys come in any order.
        if not calm or b"draft" in got.data.replace(b"\0", b"").lower():
            try:
                request = await session.journal.run(parse, got.data, entry.suffix)
            except RequestError as error:
                if error.unfinished and not calm:
                    return self._agenda.put_off(wait, "unfinished")
            else:
                if request.options.draft:
                    self._agenda.log.info("request.draft", name=name)
                    self._agenda.dealt_with(session, name, got.sig)
                    return None
        if known.tracked.busy:
            return self._agenda.put_off(wait, "busy", why=f"git is changing this repository: {known.tracked.busy}")
        return await self._claim(session, entry, got, known, running)

    def _read(self, session: Session, entry: Entry) -> _Known:
        # Before the bytes: what git writes while they are read is seen by the stat after them.
        tracked = session.consent.repositories.look()
        got = session.folder.read(entry.name, self._agenda.settings.max_request_bytes)
        if not isinstance(got, Bytes):
            return _Known(tracked, got)
        try:
            latest = session.journal.latest(entry.id)
            lost = session.journal.torn_above(entry.id, latest.claim.revision if latest else 0)
        except OSError as error:  # not to be taken for a fault of the request's file
            raise OSError(errno.EIO, f"the journal cannot be read: {error}") from error
        return _Known(tracked, got, latest, lost)

    async def _claim(self, session: Session, entry: Entry, got: Bytes, known: _Known, running: Running) -> None:
        name, key = entry.name, entry.id
        journal, latest, lost = session.journal, known.latest, known.lost
        revision = 1
        if latest is None:
            about = session.answered(key)
            if about is not None:
                if about.get("sha256") in (None, got.sha256):
                    return self._agenda.settled(session, name, key, got.sig)
                former = about.get("revision")
                revision = former + 1 if isinstance(former, int) and former > 0 else 1
        else:
            claim = latest.claim
            revision = claim.revision + 1
            if claim.name != name and session.folder.entry(claim.name) is not None:
                self._agenda.log.warning("request.second_file", name=name, first=claim.name)
                return self._agenda.dealt_with(session, name, got.sig)
            same = claim.sha256 == got.sha256 and not claim.refused
            done = await journal.run(lambda: latest.done)
            if done is None:
                if session.consent.foreign(key, claim.revision):
                    return self._agenda.leave_alone(session, name, got.sig, OLDER)
                if same or await journal.run(latest.may_be_billed):
                    await self._runner.run(session, latest, running, got.sig if same else None)
                    return None  # an edit waits on: the file is looked at again
                await journal.run(latest.finish, "superseded")
                await journal.run(session.note_end, latest, "superseded")
            elif done.status == "superseded":
                pass  # it was never answered, so there is nothing to keep, and the same bytes are still to be asked
            elif same and not lost:
                return self._agenda.settled(session, name, key, got.sig)
            elif not same and self._agenda.settings.on_edit == "keep":
                await journal.run(session.note_kept, latest)
                return self._agenda.settled(session, name, key, got.sig)
        why = session.consent.why_not(name, key, got.sig, got.sha256, known.tracked)
        if why:
            return self._agenda.leave_alone(session, name, got.sig, why)
        if lost:  # its claim is damaged: what was asked then counts, unless it was about other bytes
            same = await journal.run(journal.is_about, key, lost, got.sha256)
            revision = lost if same else lost + 1
        origin = names.conflict_origin(key)
        if latest is None and not lost and origin is not None:
            first = await journal.run(journal.latest, origin)
            if first is not None and first.claim.sha256 == got.sha256:
                # In the claim, so that it is still known as one after a kill.
                record = await self._new_revision(session, key, 1, name, got.data, duplicate_of=origin)
                return await self._runner.run(session, record, running, got.sig)
        record = await self._new_revision(session, key, revision, name, got.data)
        return await self._runner.run(session, record, running, got.sig)

    async def _new_revision(
        self,
        session: Session,
        key: str,
        revision: int,
        name: str,
        data: bytes,
        *,
        order: str = "",
        refused: str = "",
        duplicate_of: str = "",
    ) -> JobRecord:
        def claim() -> JobRecord:
            if not refused:
                session.folder.secure(name)
            if revision > 1:
                session.index.reopen(key)
            return session.journal.claim(
                key, revision, name, data, refused=refused, order=order, duplicate_of=duplicate_of
            )

        record = await session.journal.run_whole(claim)
        self._agenda.log.info("request.claimed", revision=revision, bytes=len(data))
        return record

    async def _refuse(self, session: Session, wait: Waiting, running: Running, why: str) -> None:
        key, name = wait.entry.id, wait.entry.name
        latest = await session.journal.run(session.journal.latest, key)
        if latest is not None and latest.claim.refused == why and latest.done is not None:
            return self._agenda.dealt_with(session, name, wait.entry.sig)
        if latest is not None and latest.done is None:
            return await self._runner.run(session, latest, running, None)
        revision = latest.claim.revision + 1 if latest else 1
        record = await self._new_revision(session, key, revision, name, b"", refused=why)
        return await self._runner.run(session, record, running, wait.entry.sig)

    async def go_on(self, session: Session, key: str, running: Running) -> None:
        """Resume what a stop or a kill left unfinished."""
        latest = await session.journal.run(session.journal.latest, key)
        if latest is None or latest.done is not None:
            await session.journal.run(session.clear_stale, (key,))  # ended by another, or while we were interrupted
            return
        self._agenda.log.info("job.resumed", revision=latest.claim.revision)
        entry = session.folder.entry(latest.claim.name)
        sig: Sig | None = None
        if entry is not None and entry.kind == "file":
            with suppress(OSError):
                got = await session.journal.run(
                    session.folder.read, entry.name, self._agenda.settings.max_request_bytes
                )
                if isinstance(got, Bytes) and got.sha256 == latest.claim.sha256:
                    sig = got.sig
        await self._runner.run(session, latest, running, sig)

    async def retry(self, session: Session, key: str, running: Running) -> None:
        """Run a settled request again, because somebody asked for it by a RETRY file."""
        name = f"{names.PREFIX}RETRY_{key}"
        try:
            info = session.folder.dir.stat(name)
        except OSError:
            return
        if not stat.S_ISREG(info.st_mode):
            self._agenda.log.error("order.no_file", name=name, kind=names.kind_of(info))
            return
        if not await self._heed(session, name, info, partial(self._agenda.retries.add, key)):
            return
        order = f"{info.st_ino}.{info.st_mtime_ns}"
        journal = session.journal
        latest = await journal.run(journal.latest, key)
        if latest is not None and latest.done is None:
            await self._runner.run(session, latest, running, None)
            self._agenda.retries.add(key)  # a job has one end: what was ordered is the next one's
            return
        if latest is None or latest.claim.order == order:
            if latest is None:
                self._agenda.log.warning("order.unknown_request", order="RETRY", key=key)
            await self._withdrawal.remove_order(session, name)
            return
        data, sig = latest.claim.data, None
        with suppress(OSError):
            got = await journal.run(session.folder.read, latest.claim.name, self._agenda.settings.max_request_bytes)
            if isinstance(got, Bytes):
                data, sig = got.data, got.sig
        if sig is None and latest.claim.dropped:
            # Of what it asks only the hash is left, and the file cannot be read: now, or ever again.
            self._agenda.log.warning("order.nothing_to_ask", order="RETRY", key=key, hint="save its REQUEST again")
            await self._withdrawal.remove_order(session, name)
            return
        # The claim names this very order: killed before the order is removed, the next start does not obey it twice.
        record = await self._new_revision(session, key, latest.claim.revision + 1, latest.claim.name, data, order=order)
        await self._withdrawal.remove_order(session, name)
        self._agenda.desk.knock()
        await self._runner.run(session, record, running, sig)

    async def _heed(self, session: Session, name: str, info: os.stat_result, redo: Callable[[], None]) -> bool:
        """Say whether an order is somebody's: one that came with the code is not obeyed, and stays where it is."""
        tracked = await session.journal.run(session.consent.repositories.look)
        if tracked.busy:
            await asyncio.sleep(GONE_S)
            redo()
            return False
        why = session.consent.order_counts(name, names.sig_of(info), tracked)
        if why and name not in self._agenda.told_orders:
            self._agenda.told_orders.add(name)
            self._agenda.log.warning("order.not_obeyed", name=name, why=why, hint="remove it, and give the order again")
        return not why

    async def run_by_name(self, session: Session, key: str, running: Running) -> None:
        """Run a request that is not run by itself, because somebody asked for it by a RUN file.

        The file goes once the RESULT stands: a kill before that leaves it in force.
        """
        name = f"{names.PREFIX}RUN_{key}"
        try:
            info = session.folder.dir.stat(name)
        except OSError:
            return
        heeded = stat.S_ISREG(info.st_mode) and await self._heed(
            session, name, info, partial(self._agenda.runs.add, key)
        )
        if not heeded:
            return
        requests = list(names.request_names(key))
        if key in session.consent.asked and any(session.there(each) for each in requests):
            return  # heard before; the order lies there until the RESULT stands
        session.consent.asked.add(key)
        for each in requests:
            session.not_run.pop(each, None)
            session.known.pop(each, None)
        latest = await session.journal.run(session.journal.latest, key)
        if latest is not None and latest.done is None:
            await self.go_on(session, key, running)
        elif any(session.there(each) for each in requests):
            self._agenda.bell.lose()  # it is taken by the next look, or found to be settled
        else:
            self._agenda.log.warning("order.unknown_request", order="RUN", key=key)
            await self._withdrawal.remove_order(session, name)
