"""The loop: look, plan, claim, run, publish, wait for the bell.

There is no queue beside the folder, so there is nothing to lose: what waits is read from the folder, what is unfinished
from the journal. A job claims, runs and publishes in a task of its own; the loop only decides.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

import structlog

from delegated import folder as names
from delegated.answer import timestamp
from delegated.errors import OperatorError, Problem, RequestError
from delegated.folder import Bytes, Held, Look
from delegated.journal import JobRecord
from delegated.plan import Plan, Rules, Sig, Waiting, plan, put_off, settle
from delegated.request import parse
from delegated.result import Egress, RequestRef, Result, failure
from delegated.session import Session
from delegated.watch import Bell, Polling, Rung

_TICK_S: Final = 1.0
_STATUS_PAUSE_S: Final = 0.1
_GONE_S: Final = 1.0  # vim takes the name away for a moment when it saves
_ERROR_PAUSE_S: Final = 1.0
_JOURNAL_GONE_S: Final = 3.0  # `rm -r` of the whole folder takes the journal away a while before the folder itself


@dataclass(frozen=True, slots=True)
class Settings:
    """What the loop needs to know, in seconds and bytes."""

    rules: Rules = field(default_factory=Rules)
    rescan_s: float = 30.0
    poll_s: float = 1.0
    watch: str = "auto"
    concurrency: int = 8
    grace_s: float = 30.0
    heartbeat_s: float = 5.0
    on_edit: str = "ask"
    max_request_bytes: int = 4 << 20


class Progress:
    """What a job says of itself while it runs; shown in its STATUS file."""

    def __init__(self, started: str, changed: Callable[[Progress], None]) -> None:
        self.started = started
        self.phase = "claimed"
        self.detail = ""
        self.model = ""
        self.attempt = 0
        self.cost_usd = 0.0
        self.egress: tuple[Egress, ...] = ()  # the receipts of the calls that have left
        self.reason = ""  # why it is to stop: cancelled, deleted, superseded, stopping
        self._changed = changed

    def tell(self, phase: str, detail: str = "") -> None:
        """Say what is going on now."""
        if (phase, detail) != (self.phase, self.detail):
            self.phase, self.detail = phase, detail
            self._changed(self)


class Answerer(Protocol):
    """Turns a claimed request into a result; see `answer.Desk`."""

    async def answer(self, record: JobRecord, progress: Progress) -> Result:
        """Return the result; a job that was answered in part before a crash goes on from its records."""

    async def stop(self, record: JobRecord, progress: Progress) -> bool:
        """Ask the providers to stop this job's calls; True when there was one running there."""


class Running:
    """A job's task, and what the loop must know of it."""

    def __init__(self, key: str, name: str, progress: Progress) -> None:
        self.key = key
        self.name = name
        self.progress = progress
        self.task: asyncio.Task[None] | None = None
        self.record: JobRecord | None = None
        self.desk: Answerer | None = None  # the one that has the job's calls; a reload may have brought another
        self.answered = False  # on its way out: nothing stops it any more
        self.gone_since: float | None = None
        self.status_due: asyncio.TimerHandle | None = None
        self.seen = False  # its REQUEST stood there while it ran

    @property
    def ordered(self) -> bool:
        """Say whether a RETRY file asked for this run."""
        return self.record is not None and bool(self.record.claim.order)

    @property
    def stoppable(self) -> bool:
        """Say whether a reason to stop this job would change how it ends: it is being answered."""
        return self.desk is not None and not self.progress.reason and not self.answered

    @property
    def sent(self) -> bool:
        """Say whether anything of this job has left for good."""
        return self.record is not None and self.record.may_be_billed()


class Worker:
    """Serves one drop folder until told to stop."""

    def __init__(
        self,
        path: str,
        desk: Answerer,
        settings: Settings,
        *,
        pool: Executor,
        wall: Callable[[], float] = time.time,
        on_ready: Callable[[], None] = lambda: None,
        on_beat: Callable[[], None] = lambda: None,
        only: str | None = None,
        once: bool = False,
    ) -> None:
        self.path = path
        self.outcomes: dict[str, str] = {}
        self._desk = desk
        self._settings = settings
        self._pool = pool
        self._wall = wall
        self._on_ready = on_ready
        self._on_beat = on_beat
        self._only = only
        self._once = once or only is not None
        self._stopping = False
        self._bell = Bell()
        self._last_beat = 0.0
        self._stoppers: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("delegated.worker").bind(folder=path)
        self._reset()

    def _reset(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._jobs: dict[str, Running] = {}
        self._resume: list[str] = []
        self._cancels: set[str] = set()
        self._retries: set[str] = set()
        self._misnamed: set[str] = set()
        self._journal_gone_since: float | None = None

    def reconfigure(self, desk: Answerer, settings: Settings) -> None:
        """Use new settings for jobs that start from now on."""
        self._desk, self._settings = desk, settings
        self._bell.ring()

    def stop(self) -> None:
        """Stop taking; let running jobs finish within `grace_s`."""
        self._stopping = True
        self._bell.ring()

    async def run(self) -> None:
        """Serve until stopped. Raises `OperatorError` when the folder cannot be served."""
        missing_told = False
        while not self._stopping:
            try:
                session = Session(self.path, self._bell, watch=self._settings.watch, wall=self._wall, pool=self._pool)
            except OSError as error:
                if self._once:
                    raise OperatorError(f"cannot open {self.path}: {error.strerror}", 74, "delegate init") from error
                if not missing_told:
                    self._log.error("folder.missing", reason=error.strerror or str(error))
                    missing_told = True
                self._on_beat()
                await self._bell.wait(0.25)
                self._bell.answer()
                continue
            missing_told = False
            grace = self._settings.grace_s
            try:
                drained = await self._serve(session)
                if not drained:
                    grace = 0.0  # whoever drops into the new folder does not wait for the jobs of the old one
            finally:
                await self._drain(grace)
                session.close()
                self._reset()
            if drained:
                return

    # One attachment

    async def _serve(self, session: Session) -> bool:
        """Serve while the folder stays the same one; True when everything is done that was asked for."""
        self._log.info("folder.attached", watch=session.watch.why)
        if isinstance(session.watch, Polling):
            self._log.warning("watch.polling", why=session.watch.why)
        unfinished: list[str] | None = None
        next_full = 0.0
        last_tick = 0.0
        changed_at = -1
        first = True
        missed = False
        while True:
            self._on_beat()
            rung = self._bell.answer()
            now = time.monotonic()
            try:
                if unfinished is None:
                    unfinished = await session.journal.run(session.recall)
                    self._resume = [key for key in unfinished if self._mine(key)]
                must = first or missed or rung.lost
                full = must or now >= next_full
                if full and not must and not session.watch.polling:
                    full = session.folder.changed_at() != changed_at
                    next_full = now + self._settings.rescan_s
                if full:
                    changed_at = (
                        session.folder.changed_at()
                    )  # before the scan: what changes meanwhile is seen next time
                    started = time.monotonic()
                    look = await session.journal.run(session.look, None, self._waiting)
                    now = time.monotonic()
                    pause = self._settings.poll_s if session.watch.polling else self._settings.rescan_s
                    next_full = now + max(pause, 10 * (now - started))
                else:
                    look = await self._glance(session, rung)
            except OSError as error:
                # No descriptors left, no permission for a while: what rang meanwhile is seen by the next full look.
                if self._once:
                    raise OperatorError(f"cannot read {self.path}: {error.strerror}", 74) from error
                if not missed:
                    self._log.error("folder.unreadable", reason=str(error))
                missed = True
                await asyncio.sleep(_ERROR_PAUSE_S)
            else:
                missed = False
                self._fold(session, look, rung, now)
                if first:
                    first = False
                    await session.journal.run(session.clear_stale, look.statuses - set(unfinished))
                    self._on_ready()
                    self._log.info("worker.ready", waiting=len(self._waiting), unfinished=len(self._resume))
            self._act(session, now)
            if self._stopping or (self._once and self._drained()):
                return True
            if now - last_tick >= _TICK_S:
                last_tick = now
                if not session.folder.still_there():
                    self._log.warning("folder.replaced")
                    return False
                self._check(session, now)
                self._heartbeat(session, now)
            await self._bell.wait(self._sleep(next_full, last_tick))

    def _check(self, session: Session, now: float) -> None:
        """See that the folder still has our journal, and that events still arrive."""
        if session.journal_there():
            self._journal_gone_since = None
        elif self._journal_gone_since is None:
            self._journal_gone_since = now
        elif now - self._journal_gone_since >= _JOURNAL_GONE_S:
            raise OperatorError(
                f"{session.journal.dir.path} was taken away while it was in use",
                74,
                "start again: finished requests are protected by their RESULTs, unfinished ones are asked anew",
            )
        if not session.watch.alive():
            self._log.warning("watch.lost", why=session.watch.why)
            with suppress(OSError):  # the next tick tries again, or finds the folder gone
                session.watch_again(self._bell, self._settings.watch)
            self._bell.lose()

    def _sleep(self, next_full: float, last_tick: float) -> float:
        now = time.monotonic()
        wakes = [last_tick + _TICK_S, next_full if next_full > now else now + _TICK_S]
        slots = self._settings.concurrency - len(self._jobs)
        for wait in self._waiting.values():
            if wait.ready_at > now:
                wakes.append(wait.ready_at)
            elif slots > 0 and wait.entry.id not in self._jobs and self._mine(wait.entry.id):
                return 0.0
        return max(0.0, min(wakes) - now)

    def _mine(self, key: str) -> bool:
        return self._only is None or key == self._only

    def _drained(self) -> bool:
        waiting = any(self._mine(wait.entry.id) for wait in self._waiting.values())
        return not waiting and not self._jobs and not self._resume and not self._retries

    async def _glance(self, session: Session, rung: Rung) -> Look:
        """Look only at what rang."""
        if not rung.touched:
            return Look((), (), frozenset(), frozenset(), full=False)
        if len(rung.touched) <= 8:
            return session.look(rung.touched, self._waiting)
        return await session.journal.run(session.look, rung.touched, self._waiting)

    def _fold(self, session: Session, look: Look, rung: Rung, now: float) -> None:
        seen = {entry.name for entry in look.entries}
        gone = (self._waiting.keys() - seen) if look.full else (rung.touched & self._waiting.keys()) - seen
        self._waiting = settle(
            self._waiting,
            look.entries,
            known=session.known,
            touched=rung.touched,
            moved_in=rung.moved_in,
            gone=gone,
            now=now,
            rules=self._settings.rules,
        )
        for name in sorted(look.misnamed - self._misnamed):  # told once: somebody waits for it in vain
            self._log.warning("request.misnamed", name=ascii(name)[1:-1], hint=names.NAMING)
        self._misnamed = set(look.misnamed) if look.full else self._misnamed | look.misnamed
        for kind, key in look.orders:
            if self._mine(key):
                (self._cancels if kind == "CANCEL" else self._retries).add(key)

    def _act(self, session: Session, now: float) -> None:
        for key in tuple(self._cancels):
            self._cancel(session, key)
        if self._stopping:
            return
        for key in tuple(self._retries):
            if key not in self._jobs:
                self._retries.discard(key)
                self._start(session, key, "", partial(self._retry, session, key), redo=partial(self._retries.add, key))
        while self._resume and len(self._jobs) < self._settings.concurrency:
            key = self._resume.pop(0)
            if key not in self._jobs:
                self._start(
                    session, key, "", partial(self._go_on, session, key), redo=partial(self._resume.append, key)
                )
        decided: Plan = plan(
            self._waiting
            if self._only is None
            else {name: wait for name, wait in self._waiting.items() if self._mine(wait.entry.id)},
            busy=self._jobs.keys(),
            slots=self._settings.concurrency - len(self._jobs),
            now=now,
        )
        for wait in decided.take:
            self._start(session, wait.entry.id, wait.entry.name, partial(self._take, session, wait))
        for running in tuple(self._jobs.values()):
            edited = self._waiting.get(running.name)
            if edited is not None and edited.ready_at <= now and running.record is not None:
                self._consider_edit(session, running, edited)

    # Jobs

    def _start(
        self,
        session: Session,
        key: str,
        name: str,
        work: Callable[[Running], Awaitable[None]],
        *,
        redo: Callable[[], None] = lambda: None,
    ) -> None:
        progress = Progress(self._timestamp(), lambda p: self._post_status_soon(session, running))
        running = Running(key, name, progress)
        self._jobs[key] = running

        async def guarded() -> None:
            again = False
            with structlog.contextvars.bound_contextvars(request=key):
                try:
                    await work(running)
                except asyncio.CancelledError:
                    if not progress.reason:
                        raise
                except OSError as error:
                    # The disk or the folder failed under us. Nothing is lost: the file and the records are the truth.
                    self._log.error("job.interrupted", reason=str(error))
                    again = True
                    await asyncio.sleep(_ERROR_PAUSE_S)
                except Exception:  # noqa: BLE001 - the job boundary: one job's fault must not stop the others
                    self._log.exception("job.broke")
                    wait = self._waiting.get(running.name)
                    if wait is not None:
                        # A fault of ours must not become a busy loop; the next start tries again.
                        self._dealt_with(session, running.name, wait.entry.sig)
                finally:
                    if self._jobs.get(key) is running:
                        del self._jobs[key]
                    if again:
                        redo()
                        if running.record is not None and key not in self._resume:
                            self._resume.append(key)
                    self._bell.ring()

        running.task = asyncio.create_task(guarded(), name=f"job {key}")

    async def _take(self, session: Session, wait: Waiting, running: Running) -> None:
        """Read a request that seems complete, decide what it is, and run it."""
        entry, rules = wait.entry, self._settings.rules
        name = entry.name

        def read() -> tuple[Bytes | Held, JobRecord | None]:
            got = session.folder.read(name, self._settings.max_request_bytes)
            if not isinstance(got, Bytes):
                return got, None
            try:
                return got, session.journal.latest(entry.id)
            except OSError as error:  # not to be taken for a fault of the request's file
                raise OSError(errno.EIO, f"the journal cannot be read: {error}") from error

        try:
            got, latest = await session.journal.run(read) if entry.kind == "file" else (None, None)
        except OSError as error:
            if error.errno not in (errno.EFBIG, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR):
                if error.errno == errno.EACCES:
                    if not wait.held:  # told once, not at every try
                        self._log.error("request.unreadable", name=name, hint="make it readable for this user")
                    return self._put_off(wait, "busy")
                raise
            limit = f"larger than the limit of {self._settings.max_request_bytes:,} bytes (`max_request_bytes`)"
            why = limit if error.errno == errno.EFBIG else f"not a regular file ({error.strerror})"
            return await self._refuse(session, wait, running, why)
        now = time.monotonic()
        if got is None:
            return await self._refuse(session, wait, running, f"a {entry.kind}, not a regular file")
        if got is Held.GONE:
            if self._waiting.get(name) is wait:  # else it came back meanwhile
                del self._waiting[name]
            return None
        if got is Held.BUSY:
            return self._put_off(wait, "busy")
        if not isinstance(got, Bytes) or got.sig != entry.sig:
            return self._put_off(wait, "changed", sig=got.sig if isinstance(got, Bytes) else None)
        if not got.sure and now - wait.since < rules.unsure_s:
            return self._put_off(wait, "unsure")
        calm = wait.ready_at <= wait.since or now - wait.since >= rules.quiet_s  # came whole, or had its quiet time
        # Anywhere in the file, and in UTF-16 too: in JSON and YAML the keys come in any order.
        if not calm or b"draft" in got.data.replace(b"\0", b"").lower():
            try:
                request = await session.journal.run(parse, got.data, entry.suffix)
            except RequestError as error:
                if error.unfinished and not calm:
                    return self._put_off(wait, "unfinished")
            else:
                if request.options.draft:
                    self._log.info("request.draft", name=name)
                    self._dealt_with(session, name, got.sig)
                    return None
        return await self._claim(session, wait, got, latest, running)

    async def _claim(
        self, session: Session, wait: Waiting, got: Bytes, latest: JobRecord | None, running: Running
    ) -> None:
        entry = wait.entry
        name, key = entry.name, entry.id
        journal = session.journal
        revision = 1
        if latest is None:
            about = session.answered(key)
            if about is not None:
                if about.get("sha256") in (None, _sha256(got.data)):
                    return self._settled(session, name, key, got.sig)
                former = about.get("revision")
                revision = former + 1 if isinstance(former, int) and former > 0 else 1
        else:
            claim = latest.claim
            revision = claim.revision + 1
            if claim.name != name and session.folder.entry(claim.name) is not None:
                self._log.warning("request.second_file", name=name, first=claim.name)
                return self._dealt_with(session, name, got.sig)
            same = claim.sha256 == _sha256(got.data) and not claim.refused
            done = await journal.run(lambda: latest.done)
            if done is None:
                if same or await journal.run(latest.may_be_billed):
                    await self._run(session, latest, running, got.sig if same else None)
                    return None  # an edit waits on: the file is looked at again
                await journal.run(latest.finish, "superseded")
            elif done.status == "superseded":
                pass  # it was never answered, so there is nothing to keep, and the same bytes are still to be asked
            elif same:
                return self._settled(session, name, key, got.sig)
            elif self._settings.on_edit == "keep":
                await journal.run(session.note_kept, latest)
                return self._settled(session, name, key, got.sig)
        origin = names.conflict_origin(key)
        if latest is None and origin is not None:
            first = await journal.run(journal.latest, origin)
            if first is not None and first.claim.sha256 == _sha256(got.data):
                # In the claim, so that it is still known as one after a kill.
                record = await journal.run(partial(journal.claim, key, 1, name, got.data, duplicate_of=origin))
                return await self._run(session, record, running, got.sig)
        record = await self._new_revision(session, key, revision, name, got.data)
        return await self._run(session, record, running, got.sig)

    async def _new_revision(
        self, session: Session, key: str, revision: int, name: str, data: bytes, *, order: str = "", refused: str = ""
    ) -> JobRecord:
        def claim() -> JobRecord:
            if revision > 1:
                session.index.reopen(key)
            return session.journal.claim(key, revision, name, data, refused=refused, order=order)

        record = await session.journal.run_whole(claim)
        self._log.info("request.claimed", revision=revision, bytes=len(data))
        return record

    async def _refuse(self, session: Session, wait: Waiting, running: Running, why: str) -> None:
        key, name = wait.entry.id, wait.entry.name
        latest = await session.journal.run(session.journal.latest, key)
        if latest is not None and latest.claim.refused == why and latest.done is not None:
            return self._dealt_with(session, name, wait.entry.sig)
        if latest is not None and latest.done is None:
            return await self._run(session, latest, running, None)
        revision = latest.claim.revision + 1 if latest else 1
        record = await self._new_revision(session, key, revision, name, b"", refused=why)
        return await self._run(session, record, running, wait.entry.sig)

    async def _go_on(self, session: Session, key: str, running: Running) -> None:
        """Resume what a stop or a kill left unfinished."""
        latest = await session.journal.run(session.journal.latest, key)
        if latest is None or latest.done is not None:
            return
        self._log.info("job.resumed", revision=latest.claim.revision)
        entry = session.folder.entry(latest.claim.name)
        sig: Sig | None = None
        if entry is not None and entry.kind == "file":
            with suppress(OSError):
                got = await session.journal.run(session.folder.read, entry.name, self._settings.max_request_bytes)
                if isinstance(got, Bytes) and _sha256(got.data) == latest.claim.sha256:
                    sig = got.sig
        await self._run(session, latest, running, sig)

    async def _retry(self, session: Session, key: str, running: Running) -> None:
        """Run a settled request again, because somebody asked for it by a RETRY file."""
        name = f"{names.PREFIX}RETRY_{key}"
        try:
            info = session.folder.dir.stat(name)
        except OSError:
            return
        if not stat.S_ISREG(info.st_mode):
            self._log.error("order.no_file", name=name, kind=names.kind_of(info))
            return
        order = f"{info.st_ino}.{info.st_mtime_ns}"
        journal = session.journal
        latest = await journal.run(journal.latest, key)
        if latest is not None and latest.done is None:
            await self._run(session, latest, running, None)
            self._retries.add(key)  # a job has one end: what was ordered is the next one's
            return
        if latest is None or latest.claim.order == order:
            if latest is None:
                self._log.warning("order.unknown_request", order="RETRY", key=key)
            await self._remove_order(session, name)
            return
        data, sig = latest.claim.data, None
        with suppress(OSError):
            got = await journal.run(session.folder.read, latest.claim.name, self._settings.max_request_bytes)
            if isinstance(got, Bytes):
                data, sig = got.data, got.sig
        # The claim names this very order: killed before the order is removed, the next start does not obey it twice.
        record = await self._new_revision(session, key, latest.claim.revision + 1, latest.claim.name, data, order=order)
        await self._remove_order(session, name)
        await self._run(session, record, running, sig)

    async def _run(self, session: Session, record: JobRecord, running: Running, sig: Sig | None) -> None:
        """Answer one claimed request and publish."""
        running.record = record
        running.name = record.claim.name
        claim = record.claim
        with structlog.contextvars.bound_contextvars(job=f"{claim.id}.r{claim.revision}"):
            if record.found and await session.journal.run(session.published, record):
                done = record.done
                self._finished(session, record, done.status if done else "", sig)
                return
            if claim.revision > 1:
                await session.journal.run(session.archive, record)
            self._post_status(session, running)
            if claim.refused or claim.duplicate_of:
                known = self._refused(record) if claim.refused else self._duplicate(record)
                await self._publish(session, record, known, sig)
                return
            try:
                running.desk = self._desk
                # The file, not only the order as heard: it may have come before the request, when it was about nothing.
                if claim.id in self._cancels or session.folder.dir.exists(f"{names.PREFIX}CANCEL_{claim.id}"):
                    if not (record.found and await session.journal.run(record.may_be_billed)):
                        running.progress.reason = "cancelled"
                        raise asyncio.CancelledError
                    # A former life left a call at the provider: it is taken up, and then stopped there.
                    self._cancels.add(claim.id)
                    self._bell.ring()
                result = await running.desk.answer(record, running.progress)
            except asyncio.CancelledError:
                if running.progress.reason == "superseded":
                    await session.journal.run(record.finish, "superseded")
                    await session.journal.run(session.clear_stale, (claim.id,))
                    self._log.info("job.superseded")
                    raise
                if running.progress.reason not in ("cancelled", "deleted"):
                    raise
                result = self._cancelled(record, running.progress)
            except Exception as error:  # the job boundary
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the disk: the records are the truth, and the job goes on from them when there is room
                self._log.exception("job.broke")
                result = Result(
                    status="failed",
                    request=_ref(record),
                    timestamp=self._timestamp(),
                    error=failure("internal", f"{type(error).__name__}", claim.id),
                    warnings=_billed(record),
                    egress=running.progress.egress,
                )
            running.answered = True
            await self._publish(session, record, result, sig)

    def _refused(self, record: JobRecord) -> Result:
        problem = Problem(
            None,
            record.claim.refused,
            "write the request as an ordinary file below the size limit; large files and logs are named under `Files`",
        )
        return Result(
            status="rejected",
            request=_ref(record),
            timestamp=self._timestamp(),
            problems=(str(problem),),
            error=failure("invalid_request", record.claim.refused, record.claim.id),
        )

    def _duplicate(self, record: JobRecord) -> Result:
        origin = record.claim.duplicate_of
        return Result(status="duplicate", request=_ref(record), timestamp=self._timestamp(), duplicate_of=origin)

    def _cancelled(self, record: JobRecord, progress: Progress) -> Result:
        message = (
            "its REQUEST file was deleted" if progress.reason == "deleted" else "it was cancelled by its CANCEL file"
        )
        return Result(
            status="cancelled",
            request=_ref(record),
            timestamp=self._timestamp(),
            error=failure("cancelled", message, record.claim.id),
            warnings=_billed(record),
            model=progress.model,
            egress=progress.egress,
        )

    # Publishing

    async def _publish(self, session: Session, record: JobRecord, result: Result, sig: Sig | None) -> None:
        claim = record.claim
        result = replace(result, warnings=(*result.warnings, *session.siblings(record)))
        pause = _ERROR_PAUSE_S
        while True:
            try:
                await session.journal.run_whole(session.publish, record, result)
                break
            except OSError as error:
                # The answer is in the journal; it comes out as soon as the disk allows.
                self._log.error("result.unpublished", reason=str(error))
                if not session.folder.still_there():
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30.0)
        self._finished(session, record, result.status, sig)
        self._log.info(
            "job.settled",
            status=result.status,
            kind=result.error.kind if result.error else "",
            cost_usd=result.cost_usd,
            seconds=round(self._wall() - claim.at, 3),
        )

    def _finished(self, session: Session, record: JobRecord, status: str, sig: Sig | None) -> None:
        claim = record.claim
        self._cancels.discard(claim.id)
        session.clear_notices(claim.id)
        if self._once:
            self.outcomes[claim.id] = status
        if sig is not None:
            self._settled(session, claim.name, claim.id, sig)

    # What is dealt with

    def _dealt_with(self, session: Session, name: str, sig: Sig) -> None:
        session.known[name] = sig
        wait = self._waiting.get(name)
        if wait is not None and wait.entry.sig == sig:
            del self._waiting[name]

    def _settled(self, session: Session, name: str, key: str, sig: Sig) -> None:
        self._dealt_with(session, name, sig)
        session.settle(name, key, sig)

    def _put_off(self, wait: Waiting, why: str, sig: Sig | None = None) -> None:
        later = put_off(wait, why, now=time.monotonic(), rules=self._settings.rules)
        if sig is not None:
            entry = wait.entry
            later = replace(later, entry=replace(entry, sig=sig))
        if why == "busy" and not wait.held:
            self._log.info("request.held", name=wait.entry.name)
        if wait.entry.name in self._waiting:
            self._waiting[wait.entry.name] = later

    # Cancel, edit, delete

    def _cancel(self, session: Session, key: str) -> None:
        running = self._jobs.get(key)
        if running is None:
            waits = any(wait.entry.id == key for wait in self._waiting.values())
            if not waits and key not in self._resume and not self._stopping:
                self._cancels.discard(key)
                self._start(session, key, "", partial(self._cancel_late, session, key))
            return  # it stays in the set: the job sees it as soon as it is claimed
        if running.stoppable:
            self._stop_job(running, "cancelled")

    async def _cancel_late(self, session: Session, key: str, running: Running) -> None:
        """See to a CANCEL file whose job neither runs nor waits."""
        latest = await session.journal.run(session.journal.latest, key)
        if latest is None:
            return
        if await session.journal.run(lambda: latest.done) is None:
            self._cancels.add(key)
            self._resume.append(key)
            return
        self._log.info("order.too_late", order="CANCEL", key=key)
        await self._remove_order(session, f"{names.PREFIX}CANCEL_{key}")

    async def _remove_order(self, session: Session, name: str) -> None:
        try:
            await session.journal.run(session.folder.dir.remove, name)
        except OSError as error:  # it was obeyed; that it stays there is no reason to stop
            self._log.error("order.stays", name=name, reason=str(error))

    def _stop_job(self, running: Running, reason: str) -> None:
        running.progress.reason = reason
        running.progress.tell("stopping", reason)

        async def stop() -> None:
            record, desk = running.record, running.desk
            try:
                if record is not None and desk is not None and await desk.stop(record, running.progress):
                    return  # it runs at the provider: the fetch ends with the provider's word
            except Exception:  # noqa: BLE001 - whatever is wrong with the provider, here it is stopped
                self._log.exception("job.stop_failed")
            if running.task is not None and not running.answered:
                running.task.cancel()

        task = asyncio.create_task(stop())
        self._stoppers.add(task)
        task.add_done_callback(self._stoppers.discard)

    def _consider_edit(self, session: Session, running: Running, wait: Waiting) -> None:
        """Drop a running job that has sent nothing when its file was edited: the new bytes are taken."""
        record = running.record
        if record is None or not running.stoppable or wait.entry.name != record.claim.name or running.sent:
            return
        try:
            got = session.folder.read(wait.entry.name, self._settings.max_request_bytes)
        except OSError:
            return
        if not isinstance(got, Bytes):
            return
        if _sha256(got.data) == record.claim.sha256:
            self._dealt_with(session, wait.entry.name, got.sig)
            return
        running.progress.reason = "superseded"
        if running.task is not None:
            running.task.cancel()

    def _heartbeat(self, session: Session, now: float) -> None:
        for running in tuple(self._jobs.values()):
            if not running.stoppable:
                continue
            if session.folder.entry(running.name) is not None:
                running.gone_since, running.seen = None, True
            elif running.ordered and not running.seen:
                pass  # asked again by a RETRY file after its REQUEST was deleted: it was not deleted to stop this
            elif running.gone_since is None:
                running.gone_since = now
            elif now - running.gone_since >= _GONE_S and not running.sent:
                running.progress.reason = "deleted"
                if running.task is not None:
                    running.task.cancel()
        if now - self._last_beat >= self._settings.heartbeat_s:
            self._last_beat = now
            for running in tuple(self._jobs.values()):
                if running.record is not None:
                    self._post_status(session, running)

    def _post_status_soon(self, session: Session, running: Running) -> None:
        """Post the STATUS in a moment: the phases of a quick job are not worth a file each."""
        if running.status_due is None or running.status_due.when() <= asyncio.get_running_loop().time():
            running.status_due = asyncio.get_running_loop().call_later(
                _STATUS_PAUSE_S, self._post_status, session, running
            )

    def _post_status(self, session: Session, running: Running) -> None:
        record, progress = running.record, running.progress
        if record is None or self._jobs.get(running.key) is not running:  # told too late: its STATUS is gone
            return
        status: Mapping[str, Any] = {
            "schema": "delegated/status/1",
            "id": record.claim.id,
            "revision": record.claim.revision,
            "state": "running",
            "phase": progress.phase,
            "detail": progress.detail,
            "attempt": progress.attempt,
            "model": progress.model,
            "started": progress.started,
            "heartbeat": self._timestamp(),
            "cost_usd": round(progress.cost_usd, 6),
            "pid": os.getpid(),
        }
        session.post_status(record.claim.id, status)

    async def _drain(self, grace: float) -> None:
        """Let running jobs finish within the grace; then stop them where they are, which their records survive.

        A job that has sent nothing is stopped at once: it would only begin what there may be no time to end.
        """
        for running in tuple(self._jobs.values()):
            with suppress(OSError):
                if running.stoppable and not running.sent:
                    self._halt(running)
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        if not tasks:
            return
        self._log.info("worker.draining", jobs=len(tasks))
        deadline = time.monotonic() + grace
        pending = set(tasks)
        while pending and time.monotonic() < deadline:
            self._on_beat()
            _, pending = await asyncio.wait(pending, timeout=min(1.0, max(0.0, deadline - time.monotonic())))
        for running in tuple(self._jobs.values()):
            self._halt(running)
        if pending:
            await asyncio.wait(pending, timeout=5)

    def _halt(self, running: Running) -> None:
        if running.task is not None:
            running.progress.reason = running.progress.reason or "stopping"
            running.task.cancel()

    def _timestamp(self) -> str:
        return timestamp(self._wall())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _billed(record: JobRecord) -> tuple[str, ...]:
    return ("a call had left already and may be billed by the provider",) if record.may_be_billed() else ()


def _ref(record: JobRecord) -> RequestRef:
    claim = record.claim
    return RequestRef(claim.id, claim.name, claim.sha256, claim.revision)
