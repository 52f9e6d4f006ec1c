"""The loop: look, plan, claim, run, publish, wait for the bell.

There is no queue beside the folder, so there is nothing to lose: what waits is read from the folder, what is unfinished
from the journal. A job claims, runs and publishes in a task of its own; the loop only decides.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
import os
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import structlog

from delegated import ends
from delegated import folder as names
from delegated.answer import timestamp
from delegated.calls import JobRecord
from delegated.departed import Departed
from delegated.errors import OperatorError, RequestError
from delegated.flood import Pace, admit
from delegated.folder import Bytes, Held, Look
from delegated.journal import Journal
from delegated.plan import Plan, Queue, Rules, Sig, Waiting, plan, put_off, settle
from delegated.registry import OLDER, Consent, Tracked
from delegated.request import parse
from delegated.result import Result
from delegated.retention import Keeper, trim
from delegated.running import Answerer, Progress, Running
from delegated.session import Session
from delegated.watch import Bell, Polling, Rung

_TICK_S: Final = 1.0
_STATUS_PAUSE_S: Final = 0.1
_HELD: Final = ("held back", "backing off", "out of reach", "looking up")
_GONE_S: Final = 1.0  # vim takes the name away for a moment when it saves
_ERROR_PAUSE_S: Final = 1.0
_TRIES: Final = 3  # of a job that breaks by a fault of ours, in one life
_DISK_PAUSE_S: Final = 0.25
_DISK_PAUSE_CAP_S: Final = 5.0
_KEEP_S: Final = 0.25  # a run that ends takes no longer over what need not be kept
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
    max_requests_per_minute: int = 120
    max_waiting: int = 10_000
    retention_days: float = 30


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
        consent: Callable[[], Consent] | None = None,
        on_settled: Callable[[Result], None] = lambda result: None,
    ) -> None:
        self.path = path
        self._on_settled = on_settled
        self._consent = consent
        self.ended: dict[str, str] = {}  # by id, in a run that ends
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
        self._disk_test: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._disk_pause = _DISK_PAUSE_S
        self._turns = 0
        self._pace: Pace | None = None  # over all attachments: another folder is no way around it
        self._log = structlog.get_logger("delegated.worker").bind(folder=path)
        self._departed = Departed(self._log)
        self._reset()

    def _reset(self) -> None:
        self._waiting = Queue()
        self._jobs: dict[str, Running] = {}
        self._resume: list[str] = []
        self._cancels: set[str] = set()
        self._retries: set[str] = set()
        self._runs: set[str] = set()
        self._told_orders: set[str] = set()
        self._paced = False
        self._beyond = 0  # waiting requests that are left for later, as far as is known
        self._misnamed: set[str] = set()
        self._broken: dict[str, int] = {}  # jobs that broke by a fault of ours, and how often
        self._journal_gone_since: float | None = None

    def reconfigure(self, desk: Answerer, settings: Settings) -> None:
        """Use new settings for jobs that start from now on, and for those that wait for the provider to be reached."""
        self._desk, self._settings = desk, settings
        for running in self._jobs.values():
            self._renew(running)
        self._bell.ring()

    def _renew(self, running: Running) -> None:
        """Move a job that began under former settings to the present ones, if all it does is wait."""
        if running.desk is self._desk or not running.stoppable or running.task is None:
            return
        if running.progress.phase in _HELD:
            running.progress.reason = "reloaded"
            running.task.cancel()

    def stop(self) -> None:
        """Stop taking; let running jobs finish within `grace_s`."""
        self._stopping = True
        self._bell.ring()

    async def run(self) -> None:
        """Serve until stopped. Raises `OperatorError` when the folder cannot be served."""
        told = ""
        try:
            while not self._stopping:
                try:
                    session = await self._open()
                except OSError as error:
                    reason = error.strerror or str(error)
                    if self._once:
                        raise OperatorError(f"cannot open {self.path}: {reason}", 74, "delegate init") from error
                    if reason != told:
                        self._log.error("folder.missing", reason=reason)
                        told = reason
                    self._on_beat()
                    await self._bell.wait(0.25)
                    self._bell.answer()
                    continue
                told = ""
                left = False
                try:
                    left = not await self._serve(session)
                finally:
                    if left:
                        self._departed.leave(session, self._jobs)
                    else:
                        stopped = tuple(self._jobs)
                        await self._drain(self._settings.grace_s)
                        # What goes on at the provider is in the journal; a STATUS would say that somebody here works.
                        session.clear_stale(stopped)
                    await self._end(self._disk_test)
                    await self._end(self._keeping)
                    if not left:
                        session.close()
                    self._reset()
                if not left:
                    return
        finally:
            await self._drain(self._settings.grace_s)

    # Folders that go away and come back

    async def _open(self) -> Session:
        """Open the folder; one that was left and is back is taken up as it is. Raises `OSError` when there is none."""
        back = await self._departed.rejoin(self._bell, self._settings.watch)
        if back is not None:
            session, jobs = back
            self._jobs.update(jobs)
            return session
        return Session(
            self.path,
            self._bell,
            watch=self._settings.watch,
            wall=self._wall,
            pool=self._pool,
            until=f"{self._only} is settled" if self._only else "nothing waits" if self._once else "",
            consent=self._consent,
        )

    # One attachment

    async def _serve(self, session: Session) -> bool:
        """Serve while the folder stays the same one; True when everything is done that was asked for."""
        self._log.info("folder.attached", watch=session.watch.why)
        if session.watch.polling:
            self._tell_watch(session)
        unfinished: list[str] | None = None
        next_full = next_anyway = last_tick = 0.0
        next_watch = time.monotonic() + self._settings.rescan_s
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
                    if self._pace is None:
                        self._pace = Pace()
                        for ago in await session.journal.run(session.begun):
                            self._pace.begin(now - ago)
                    self._resume = [key for key in unfinished if self._mine(key)]
                    # Before any job goes on: whoever comes first would be sent too early.
                    self._desk.recall(await session.journal.run(session.refusals, tuple(self._resume)))
                must = first or missed or rung.lost
                full = must or now >= next_full
                if full and not must and not session.watch.polling and now < next_anyway:
                    full = session.folder.changed_at() != changed_at
                    next_full = now + self._settings.rescan_s
                if full:
                    changed_at = (
                        session.folder.changed_at()
                    )  # before the scan: what changes meanwhile is seen next time
                    started = time.monotonic()
                    look = await session.journal.run(session.look, None, self._waiting)
                    now = time.monotonic()
                    took = now - started
                    # Where something rings, looking may cost a hundredth of the time; where nothing does, a tenth.
                    share = 10 if isinstance(session.watch, Polling) else 100
                    pause = self._settings.poll_s if session.watch.polling else self._settings.rescan_s
                    next_full = now + max(pause, share * took)
                    # Now and then also when no name came or went: an edit in place changes none, a scan may miss one.
                    next_anyway = now + max(self._settings.rescan_s, 300 * took)
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
                self._answer_pings(session, look, rung, first=first)
                if first:
                    first = False
                    await session.journal.run(session.clear_stale, look.statuses - set(unfinished))
                    await session.journal.run(session.post_notice)
                    self._on_ready()
                    if not self._once:
                        self._keeping = asyncio.create_task(Keeper(session.journal, self._retention_days).run())
                    self._log.info("worker.ready", waiting=len(self._waiting), unfinished=len(self._resume))
            self._act(session, now)
            if self._stopping or (self._once and self.drained()):
                if not self._stopping:
                    with suppress(OSError):
                        await Keeper(session.journal, self._retention_days).some(_KEEP_S)
                return True
            if rung.lost or now - last_tick >= _TICK_S:  # lost: perhaps it was told that the folder went away
                last_tick = now
                if not session.folder.still_there():
                    self._log.warning("folder.replaced")
                    return False
                self._check(session, now)
                session.post_notice(self._slow())
                if now >= next_watch:
                    next_watch = now + self._settings.rescan_s
                    self._regain(session)
                self._heartbeat(session, now)
            await self._bell.wait(self._sleep(next_full, last_tick, halted=bool(session.journal.trouble)))

    def _check(self, session: Session, now: float) -> None:
        """See that the folder still has our journal, and that events still arrive."""
        if session.journal_there():
            self._journal_gone_since = None
            with suppress(OSError):  # somebody asks for it just now: the next tick tries again
                if session.journal.renew_lock():
                    self._log.warning("lock.renewed")
        elif self._journal_gone_since is None:
            self._journal_gone_since = now
        elif now - self._journal_gone_since >= _JOURNAL_GONE_S:
            session.journal.gone = True
            raise OperatorError(
                f"{session.journal.dir.path} was taken away while it was in use",
                74,
                "start again: finished requests are protected by their RESULTs, unfinished ones are asked anew",
            )
        if not session.watch.alive():
            self._log.warning("watch.lost", why=session.watch.why)
            with suppress(OSError):  # the next tick tries again, or finds the folder gone
                session.watch_again(self._bell, self._settings.watch)
                self._tell_watch(session)
            self._bell.lose()

    def _tell_watch(self, session: Session) -> None:
        (self._log.warning if isinstance(session.watch, Polling) else self._log.info)(
            "watch.polling" if session.watch.polling else "watch.attached", why=session.watch.why
        )

    def _regain(self, session: Session) -> None:
        """Listen again once there are watches to be had."""
        if isinstance(session.watch, Polling) and session.watch.lacking:
            with suppress(OSError):
                session.watch_again(self._bell, self._settings.watch)
            if not isinstance(session.watch, Polling):
                self._tell_watch(session)
                self._bell.lose()

    def _sleep(self, next_full: float, last_tick: float, *, halted: bool) -> float:
        now = time.monotonic()
        wakes = [last_tick + _TICK_S, next_full if next_full > now else now + _TICK_S]
        slots = 0 if halted else self._settings.concurrency - len(self._jobs)
        room = self._room(now)
        decided = plan(self._waiting, busy=self._jobs.keys(), slots=min(slots, room, 1), now=now)
        if decided.take:
            return 0.0
        if room == 0 and self._pace is not None and self._waiting:
            wakes.append(self._pace.free_at(self._settings.max_requests_per_minute))
        if decided.wake_at is not None:
            wakes.append(decided.wake_at)
        return max(0.0, min(wakes) - now)

    def _mine(self, key: str) -> bool:
        return self._only is None or key == self._only

    def drained(self) -> bool:
        """Say whether nothing waits and nothing is under way."""
        return not (self._waiting or self._beyond or self._jobs or self._resume or self._retries or self._runs)

    async def _glance(self, session: Session, rung: Rung) -> Look:
        """Look only at what rang."""
        if not rung.touched:
            return Look((), (), frozenset(), frozenset(), full=False)
        if len(rung.touched) <= 8 and not any(map(names.outcome, rung.touched)):  # these are read, and their RESULTs
            return session.look(rung.touched, self._waiting)
        return await session.journal.run(session.look, rung.touched, self._waiting)

    def _fold(self, session: Session, look: Look, rung: Rung, now: float) -> None:
        seen = {entry.name for entry in look.entries}
        mine = look.entries if self._only is None else [entry for entry in look.entries if self._mine(entry.id)]
        kept, beyond = admit(mine, self._waiting, self._settings.max_waiting)
        if beyond and not self._beyond:
            self._log.warning(
                "requests.beyond", beyond=beyond, waiting=len(self._waiting), limit=self._settings.max_waiting
            )
        self._beyond = beyond if look.full else self._beyond + beyond
        gone = (self._waiting.keys() - seen) if look.full else (rung.touched & self._waiting.keys()) - seen
        changes = settle(
            self._waiting,
            kept,
            known=session.known,
            touched=rung.touched,
            moved_in=rung.moved_in,
            gone=gone,
            now=now,
            rules=self._settings.rules,
        )
        self._waiting.change(changes)
        for name in sorted(look.misnamed - self._misnamed):  # told once: somebody waits for it in vain
            self._log.warning("request.misnamed", name=ascii(name)[1:-1], hint=names.NAMING)
        self._misnamed = set(look.misnamed) if look.full else self._misnamed | look.misnamed
        for kind, key in look.orders:
            if kind != "PING" and self._mine(key):
                {"CANCEL": self._cancels, "RETRY": self._retries, "RUN": self._runs}[kind].add(key)

    def _answer_pings(self, session: Session, look: Look, rung: Rung, *, first: bool) -> None:
        """Take PING files away, which tells whoever left them that a request would be seen.

        One that only a rescan found stays: it is the sign of a watch that gives no events. One that leaves after its
        work, or has been told to stop, answers nobody.
        """
        if self._once or self._stopping:
            return
        anyhow = first or rung.lost or session.watch.polling
        for kind, key in look.orders:
            name = f"{names.PREFIX}PING_{key}"
            if kind == "PING" and (anyhow or name in rung.touched):
                with suppress(OSError):
                    session.folder.dir.remove(name)

    def _act(self, session: Session, now: float) -> None:
        for key in tuple(self._cancels):
            self._cancel(session, key)
        if self._stopping:
            return
        if session.journal.trouble:
            self._test_disk(session)
            return
        for key in tuple(self._retries):
            if key not in self._jobs:
                self._retries.discard(key)
                self._start(session, key, "", partial(self._retry, session, key), redo=partial(self._retries.add, key))
        for key in tuple(self._runs):
            if key not in self._jobs:
                self._runs.discard(key)
                self._start(
                    session, key, "", partial(self._run_by_name, session, key), redo=partial(self._runs.add, key)
                )
        while self._resume and len(self._jobs) < self._settings.concurrency:
            key = self._resume.pop(0)
            if key not in self._jobs:
                self._start(
                    session, key, "", partial(self._go_on, session, key), redo=partial(self._resume.append, key)
                )
        if self._beyond and len(self._waiting) <= self._settings.max_waiting // 2:
            self._bell.lose()  # there is room again for what was left untouched
        slots = self._settings.concurrency - len(self._jobs)
        room = self._room(now)
        decided: Plan = plan(self._waiting, busy=self._jobs.keys(), slots=min(slots, room), now=now)
        for wait in decided.take:
            if self._pace is not None:
                self._pace.begin(now)
            self._start(session, wait.entry.id, wait.entry.name, partial(self._take, session, wait), begun=now)
        paced = slots > 0 and room <= len(decided.take) and bool(self._next(now).take)
        if paced and not self._paced:
            limit = self._settings.max_requests_per_minute
            self._log.warning("requests.paced", limit=limit, waiting=len(self._waiting))
        self._paced = paced
        for running in tuple(self._jobs.values()):
            edited = self._waiting.get(running.name)
            if edited is not None and edited.ready_at <= now and running.record is not None:
                self._consider_edit(session, running, edited)

    # A flood

    def _room(self, now: float) -> int:
        return self._pace.room(self._settings.max_requests_per_minute, now) if self._pace is not None else 0

    def _next(self, now: float) -> Plan:
        return plan(self._waiting, busy=self._jobs.keys(), slots=1, now=now)

    def _slow(self) -> str:
        """Say why requests wait although nothing is wrong with them, "" when none do."""
        found = []
        if self._paced:
            found.append(f"{self._settings.max_requests_per_minute} a minute may begin (`max_requests_per_minute`)")
        if self._beyond:
            found.append(f"{self._beyond} or more are left for later (`max_waiting`: {self._settings.max_waiting})")
        return "; ".join(found)

    def _retention_days(self) -> float:
        return self._settings.retention_days

    async def _forget(self, session: Session, record: JobRecord) -> None:
        """Keep only the hashes of what was sent, where nothing more is to be kept of a settled request."""
        if self._settings.retention_days == 0:
            with suppress(OSError):  # the daily look finds what is left
                await session.journal.run_whole(trim, session.journal.dir, os.path.dirname(record.place), math.inf)

    # A disk that fails

    async def _end(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _test_disk(self, session: Session) -> None:
        """Begin nothing more until a fresh write passes; what runs goes on, and holds what it cannot write."""
        if self._disk_test is None or self._disk_test.done():
            self._disk_test = asyncio.create_task(self._until_disk_takes(session.journal))

    async def _until_disk_takes(self, journal: Journal) -> None:
        self._log.error("disk.failing", reason=journal.trouble)
        while True:
            await asyncio.sleep(self._disk_pause)
            self._disk_pause = min(self._disk_pause * 2, _DISK_PAUSE_CAP_S)
            with suppress(OSError):
                await journal.run_whole(journal.probe)
                break
        self._log.info("disk.recovered")
        self._bell.ring()

    # Jobs

    def _start(
        self,
        session: Session,
        key: str,
        name: str,
        work: Callable[[Running], Awaitable[None]],
        *,
        redo: Callable[[], None] = lambda: None,
        begun: float | None = None,
    ) -> None:
        def changed(progress: Progress) -> None:
            self._post_status_soon(session, running)
            self._renew(running)  # it was asking when the settings changed, and now it waits

        progress = Progress(self._timestamp(), changed)
        self._turns += 1
        running = Running(key, name, progress, self._turns)
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
                    if running.left:
                        self._log.info("job.left", reason=str(error))
                        return
                    # The disk or the folder failed under us. Nothing is lost: the file and the records are the truth.
                    self._log.error("job.interrupted", reason=str(error))
                    again = True
                    await asyncio.sleep(_ERROR_PAUSE_S)
                except Exception:  # noqa: BLE001 - the job boundary: one job's fault must not stop the others
                    self._log.exception("job.broke")
                    self._broken[key] = tries = self._broken.get(key, 0) + 1
                    again = tries < _TRIES
                    wait = self._waiting.get(running.name) if not running.left else None
                    if again:
                        await asyncio.sleep(_ERROR_PAUSE_S * tries)
                    elif wait is not None:
                        # A fault of ours must not become a busy loop; the next start tries again.
                        self._dealt_with(session, running.name, wait.entry.sig)
                finally:
                    if self._jobs.get(key) is running:
                        del self._jobs[key]
                    if begun is not None and self._pace is not None and not running.new:
                        self._pace.take_back(begun)
                    if again and not running.left:
                        redo()
                        if running.record is not None and key not in self._resume:
                            self._resume.append(key)
                    self._bell.ring()

        running.task = asyncio.create_task(guarded(), name=f"job {key}")

    async def _take(self, session: Session, wait: Waiting, running: Running) -> None:
        """Read a request that seems complete, decide what it is, and run it."""
        entry, rules = wait.entry, self._settings.rules
        name = entry.name
        tracked = Tracked()

        def read() -> tuple[Bytes | Held, JobRecord | None]:
            nonlocal tracked
            # Before the bytes: what git writes while they are read is seen by the stat after them.
            tracked = session.consent.repositories.look()
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
        if tracked.busy:
            return self._put_off(wait, "busy", why=f"git is changing this repository: {tracked.busy}")
        return await self._claim(session, wait, got, latest, running, tracked)

    async def _claim(
        self,
        session: Session,
        wait: Waiting,
        got: Bytes,
        latest: JobRecord | None,
        running: Running,
        tracked: Tracked,
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
                if session.consent.foreign(key, claim.revision):
                    return self._leave_alone(session, name, got.sig, OLDER)
                if same or await journal.run(latest.may_be_billed):
                    await self._run(session, latest, running, got.sig if same else None)
                    return None  # an edit waits on: the file is looked at again
                await journal.run(latest.finish, "superseded")
                await journal.run(session.note_end, latest, "superseded")
            elif done.status == "superseded":
                pass  # it was never answered, so there is nothing to keep, and the same bytes are still to be asked
            elif same and not await journal.run(journal.torn_above, key, claim.revision):
                return self._settled(session, name, key, got.sig)
            elif not same and self._settings.on_edit == "keep":
                await journal.run(session.note_kept, latest)
                return self._settled(session, name, key, got.sig)
        why = session.consent.why_not(name, key, got.sig, _sha256(got.data), tracked)
        if why:
            return self._leave_alone(session, name, got.sig, why)
        lost = await journal.run(journal.torn_above, key, latest.claim.revision if latest else 0)
        if lost:  # its claim is damaged: what was asked then counts, unless it was about other bytes
            same = await journal.run(journal.is_about, key, lost, _sha256(got.data))
            revision = lost if same else lost + 1
        origin = names.conflict_origin(key)
        if latest is None and not lost and origin is not None:
            first = await journal.run(journal.latest, origin)
            if first is not None and first.claim.sha256 == _sha256(got.data):
                # In the claim, so that it is still known as one after a kill.
                record = await self._new_revision(session, key, 1, name, got.data, duplicate_of=origin)
                return await self._run(session, record, running, got.sig)
        record = await self._new_revision(session, key, revision, name, got.data)
        return await self._run(session, record, running, got.sig)

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
            await session.journal.run(session.clear_stale, (key,))  # ended by another, or while we were interrupted
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
        if not await self._heed(session, name, info, partial(self._retries.add, key)):
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
        if sig is None and latest.claim.dropped:
            # Of what it asks only the hash is left, and the file cannot be read: now, or ever again.
            self._log.warning("order.nothing_to_ask", order="RETRY", key=key, hint="save its REQUEST again")
            await self._remove_order(session, name)
            return
        # The claim names this very order: killed before the order is removed, the next start does not obey it twice.
        record = await self._new_revision(session, key, latest.claim.revision + 1, latest.claim.name, data, order=order)
        await self._remove_order(session, name)
        self._desk.knock()
        await self._run(session, record, running, sig)

    async def _heed(self, session: Session, name: str, info: os.stat_result, redo: Callable[[], None]) -> bool:
        """Say whether an order is somebody's: one that came with the code is not obeyed, and stays where it is."""
        tracked = await session.journal.run(session.consent.repositories.look)
        if tracked.busy:
            await asyncio.sleep(_GONE_S)
            redo()
            return False
        why = session.consent.order_counts(name, names.sig_of(info), tracked)
        if why and name not in self._told_orders:
            self._told_orders.add(name)
            self._log.warning("order.not_obeyed", name=name, why=why, hint="remove it, and give the order again")
        return not why

    async def _run_by_name(self, session: Session, key: str, running: Running) -> None:
        """Run a request that is not run by itself, because somebody asked for it by a RUN file.

        The file goes once the RESULT stands: a kill before that leaves it in force.
        """
        name = f"{names.PREFIX}RUN_{key}"
        try:
            info = session.folder.dir.stat(name)
        except OSError:
            return
        heeded = stat.S_ISREG(info.st_mode) and await self._heed(session, name, info, partial(self._runs.add, key))
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
            await self._go_on(session, key, running)
        elif any(session.there(each) for each in requests):
            self._bell.lose()  # it is taken by the next look, or found to be settled
        else:
            self._log.warning("order.unknown_request", order="RUN", key=key)
            await self._remove_order(session, name)

    async def _run(self, session: Session, record: JobRecord, running: Running, sig: Sig | None) -> None:
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
            self._post_status(session, running)
            if claim.refused or claim.duplicate_of:
                at = self._timestamp()
                known = ends.refused(record, at) if claim.refused else ends.duplicate(record, at)
                await self._publish(session, record, known, running, sig)
                return
            try:
                await self._departed.inherit(session, record, running)
                running.desk = self._desk
                # The file, not only the order as heard: it may have come before the request, when it was about nothing.
                if claim.id in self._cancels or session.folder.dir.exists(f"{names.PREFIX}CANCEL_{claim.id}"):
                    if not (record.found and await session.journal.run(record.may_be_billed)):
                        running.progress.reason = "cancelled"
                        raise asyncio.CancelledError
                    # A former life left a call at the provider: it is taken up, and then stopped there.
                    self._cancels.add(claim.id)
                    self._bell.ring()
                record.before_sending = partial(self._look_again, session, record, running, sig)
                record.asked_before = partial(session.asked_before, record)
                record.former = session.journal.latest
                result = await self._answer(record, running)
            except asyncio.CancelledError:
                if running.progress.reason == "superseded":
                    await session.journal.run(record.finish, "superseded")
                    await session.journal.run(session.note_end, record, "superseded")
                    await session.journal.run(session.clear_stale, (claim.id,))
                    self._log.info("job.superseded")
                    raise
                if self._orphaned(session, record):
                    result = ends.uncertain(record, running.progress, self._timestamp())
                elif running.progress.reason not in ("cancelled", "deleted"):
                    raise
                else:
                    result = ends.cancelled(record, running.progress, self._timestamp())
            except Exception as error:  # the job boundary
                if isinstance(error, OSError) and error.errno is not None:
                    if not self._orphaned(session, record):
                        raise  # the disk: the records are the truth, and the job goes on from them when there is room
                    result = ends.uncertain(record, running.progress, self._timestamp())
                else:
                    self._log.exception("job.broke")
                    result = ends.broken(record, running.progress, self._timestamp(), error)
            running.answered = True
            await self._publish(session, record, result, running, sig)

    async def _answer(self, record: JobRecord, running: Running) -> Result:
        """Ask the desk; ask the new one when another has taken its place while the job only waited."""
        while True:
            running.desk = self._desk
            try:
                return await running.desk.answer(record, running.progress)
            except asyncio.CancelledError:
                if running.progress.reason != "reloaded" or self._stopping:
                    raise
                running.progress.reason = ""
                if running.task is not None:
                    running.task.uncancel()

    def _orphaned(self, session: Session, record: JobRecord) -> bool:
        """Say whether a call has left of which no record is left: without a RESULT the next start would pay again."""
        return session.journal.gone and record.may_be_billed()

    # Publishing

    async def _publish(
        self, session: Session, record: JobRecord, result: Result, running: Running, sig: Sig | None
    ) -> None:
        claim = record.claim
        pause, told = _ERROR_PAUSE_S, ""
        result = session.calibrated(result)  # once: what is known meanwhile is no reason for other bytes
        while True:
            if not session.folder.still_there():  # nothing is put into a folder that is not ours any more
                raise OSError(errno.ENOENT, "the folder went away; the answer is in the journal that went with it")
            try:
                whole = replace(result, warnings=(*result.warnings, *session.siblings(record)))
                await session.journal.run_whole(session.publish, record, whole)
                await session.journal.run(session.note_end, record, result.status)
                break
            except OSError as error:
                # The answer is in the journal; it comes out as soon as the disk allows.
                if str(error.strerror) != told:
                    told = str(error.strerror)
                    self._log.error("result.unpublished", reason=str(error))
                running.progress.tell("waiting for the disk", told)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _DISK_PAUSE_CAP_S)
        await self._forget(session, record)
        self._disk_pause = _DISK_PAUSE_S  # a whole job went through: only then is the disk well
        self._finished(session, record, result.status, sig)
        self._on_settled(whole)
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
        self._broken.pop(claim.id, None)
        session.clear_notices(claim.id)
        if self._once:
            self.ended[claim.id] = status
        if sig is not None:
            self._settled(session, claim.name, claim.id, sig)

    # What is dealt with

    def _dealt_with(self, session: Session, name: str, sig: Sig) -> None:
        session.known[name] = sig.mark
        wait = self._waiting.get(name)
        if wait is not None and wait.entry.sig == sig:
            del self._waiting[name]

    def _settled(self, session: Session, name: str, key: str, sig: Sig) -> None:
        self._dealt_with(session, name, sig)
        session.settle(name, key, sig)
        if key in session.consent.asked:
            session.consent.asked.discard(key)
            session.clear_notices(key)

    def _leave_alone(self, session: Session, name: str, sig: Sig, why: str) -> None:
        session.leave_alone(name, why)
        self._dealt_with(session, name, sig)

    def _put_off(self, wait: Waiting, held: str, sig: Sig | None = None, *, why: str = "") -> None:
        later = put_off(wait, held, now=time.monotonic(), rules=self._settings.rules)
        if sig is not None:
            entry = wait.entry
            later = replace(later, entry=replace(entry, sig=sig))
        if held == "busy" and not wait.held:
            self._log.info("request.held", name=wait.entry.name, why=why or "somebody has it open for writing")
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

    async def _look_again(self, session: Session, record: JobRecord, running: Running, sig: Sig | None) -> None:
        """Let nothing leave for a request that was edited or deleted before anything of it left: stop its job.

        The loop hears of an edit when it has settled and of a deletion a while later; a job that is quicker, or that a
        start takes up again, must not pay for what nobody asks any more. `sig` is the claimed state of the file.
        """
        claim = record.claim
        until = time.monotonic() + _GONE_S
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
                got = await session.journal.run(session.folder.read, claim.name, self._settings.max_request_bytes)
            except PermissionError:
                return
            except OSError:
                got = Held.CHANGED  # too large by now, a link, a directory: not what was claimed
            if got is Held.GONE:
                continue
            if isinstance(got, Bytes) and _sha256(got.data) == claim.sha256:
                return
            running.progress.reason = "superseded"
            self._bell.lose()  # whatever it is now, the next look finds it
            break
        if running.task is not None:
            running.task.cancel()
        await asyncio.Event().wait()

    def _heartbeat(self, session: Session, now: float) -> None:
        for running in tuple(self._jobs.values()):
            if not running.stoppable:
                continue
            if session.there(running.name):
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
            "tokens": progress.tokens,
            "cost_usd": round(progress.cost_usd, 6),
            "pid": os.getpid(),
        }
        session.post_status(record.claim.id, status)

    async def _drain(self, grace: float) -> None:
        """Let running jobs finish within the grace; then stop them where they are, which their records survive.

        A job that has sent nothing is stopped at once: it would only begin what there may be no time to end.
        """
        jobs = [*self._jobs.values(), *self._departed.jobs()]
        for running in jobs:
            with suppress(OSError):
                if running.stoppable and not running.sent:
                    running.halt()
        tasks = [job.task for job in jobs if job.task is not None and not job.task.done()]
        if not tasks:
            return
        self._log.info("worker.draining", jobs=len(tasks))
        deadline = time.monotonic() + grace
        pending = set(tasks)
        while pending and time.monotonic() < deadline:
            self._on_beat()
            _, pending = await asyncio.wait(pending, timeout=min(1.0, max(0.0, deadline - time.monotonic())))
        for running in jobs:
            running.halt()
        if pending:
            await asyncio.wait(pending, timeout=5)
        await self._departed.end(5)

    def _timestamp(self) -> str:
        return timestamp(self._wall())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
