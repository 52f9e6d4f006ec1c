"""The loop: look, plan, claim, run, publish, wait for the bell.

There is no queue beside the folder, so there is nothing to lose: what waits is read from the folder, what is unfinished
from the journal. A job claims, runs and publishes in a task of its own; the loop only decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Final

from delegated import folder as names
from delegated.agenda import ERROR_PAUSE_S, Agenda, Settings
from delegated.departed import Departed
from delegated.errors import OperatorError
from delegated.flood import Pace, admit
from delegated.folder import Look
from delegated.intake import Intake
from delegated.journal import Journal
from delegated.plan import Plan, plan, settle
from delegated.registry import Consent
from delegated.result import Result
from delegated.retention import Keeper
from delegated.runner import DISK_PAUSE_CAP_S, Runner
from delegated.running import Answerer
from delegated.session import Session
from delegated.watch import Polling, Rung
from delegated.withdrawal import Withdrawal

_TICK_S: Final = 1.0
_DISK_PAUSE_S: Final = 0.25
_KEEP_S: Final = 0.25  # a run that ends takes no longer over what need not be kept
_JOURNAL_GONE_S: Final = 3.0  # `rm -r` of the whole folder takes the journal away a while before the folder itself


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
        self._pool = pool
        self._on_ready = on_ready
        self._on_beat = on_beat
        self._only = only
        self._agenda = Agenda(path, desk, settings, wall=wall, once=once or only is not None)
        self._bell = self._agenda.bell
        self._log = self._agenda.log
        self._departed = Departed(self._log)
        self._withdrawal = Withdrawal(self._agenda)
        self._runner = Runner(self._agenda, self._departed, self._withdrawal, self._hear)
        self._intake = Intake(self._agenda, self._withdrawal, self._runner)
        self._last_beat = 0.0
        self._disk_test: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._disk_pause = _DISK_PAUSE_S
        self._reset()

    def _reset(self) -> None:
        self._agenda.reset()
        self._paced = False
        self._beyond = 0  # waiting requests that are left for later, as far as is known
        self._misnamed: set[str] = set()
        self._journal_gone_since: float | None = None

    @property
    def _settings(self) -> Settings:
        return self._agenda.settings

    @property
    def ended(self) -> dict[str, str]:
        """Return how each request of a run that ends was settled, by id."""
        return self._agenda.ended

    def reconfigure(self, desk: Answerer, settings: Settings) -> None:
        """Use new settings for jobs that start from now on, and for those that wait for the provider to be reached."""
        self._agenda.reconfigure(desk, settings)

    def stop(self) -> None:
        """Stop taking; let running jobs finish within `grace_s`."""
        self._agenda.stopping = True
        self._bell.ring()

    async def run(self) -> None:
        """Serve until stopped. Raises `OperatorError` when the folder cannot be served."""
        told = ""
        try:
            while not self._agenda.stopping:
                try:
                    session = await self._open()
                except OSError as error:
                    reason = error.strerror or str(error)
                    if self._agenda.once:
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
                        self._departed.leave(session, self._agenda.jobs)
                    else:
                        stopped = tuple(self._agenda.jobs)
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
            self._agenda.jobs.update(jobs)
            return session
        return Session(
            self.path,
            self._bell,
            watch=self._settings.watch,
            wall=self._agenda.wall,
            pool=self._pool,
            until=f"{self._only} is settled" if self._only else "nothing waits" if self._agenda.once else "",
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
                    if self._agenda.pace is None:
                        self._agenda.pace = Pace()
                        for ago in await session.journal.run(session.begun):
                            self._agenda.pace.begin(now - ago)
                    self._agenda.resume = [key for key in unfinished if self._mine(key)]
                    # Before any job goes on: whoever comes first would be sent too early.
                    self._agenda.desk.recall(await session.journal.run(session.refusals, tuple(self._agenda.resume)))
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
                    look = await session.journal.run(session.look, None, self._agenda.waiting)
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
                if self._agenda.once:
                    raise OperatorError(f"cannot read {self.path}: {error.strerror}", 74) from error
                if not missed:
                    self._log.error("folder.unreadable", reason=str(error))
                missed = True
                await asyncio.sleep(ERROR_PAUSE_S)
            else:
                missed = False
                self._fold(session, look, rung, now)
                self._answer_pings(session, look, rung, first=first)
                if first:
                    first = False
                    await session.journal.run(session.clear_stale, look.statuses - set(unfinished))
                    await session.journal.run(session.post_notice)
                    self._on_ready()
                    if not self._agenda.once:
                        self._keeping = asyncio.create_task(Keeper(session.journal, self._retention_days).run())
                    self._log.info(
                        "worker.ready", waiting=len(self._agenda.waiting), unfinished=len(self._agenda.resume)
                    )
            self._act(session, now)
            if self._agenda.stopping or (self._agenda.once and self.drained()):
                if not self._agenda.stopping:
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
        agenda = self._agenda
        now = time.monotonic()
        wakes = [last_tick + _TICK_S, next_full if next_full > now else now + _TICK_S]
        slots = 0 if halted else self._settings.concurrency - len(agenda.jobs)
        room = self._room(now)
        decided = plan(agenda.waiting, busy=agenda.jobs.keys(), slots=min(slots, room, 1), now=now)
        if decided.take:
            return 0.0
        if room == 0 and agenda.pace is not None and agenda.waiting:
            wakes.append(agenda.pace.free_at(self._settings.max_requests_per_minute))
        if decided.wake_at is not None:
            wakes.append(decided.wake_at)
        return max(0.0, min(wakes) - now)

    def _mine(self, key: str) -> bool:
        return self._only is None or key == self._only

    def drained(self) -> bool:
        """Say whether nothing waits and nothing is under way."""
        agenda = self._agenda
        return not (agenda.waiting or self._beyond or agenda.jobs or agenda.resume or agenda.retries or agenda.runs)

    async def _glance(self, session: Session, rung: Rung) -> Look:
        """Look only at what rang."""
        if not rung.touched:
            return Look((), (), frozenset(), frozenset(), full=False)
        if len(rung.touched) <= 8 and not any(map(names.outcome, rung.touched)):  # these are read, and their RESULTs
            return session.look(rung.touched, self._agenda.waiting)
        return await session.journal.run(session.look, rung.touched, self._agenda.waiting)

    def _fold(self, session: Session, look: Look, rung: Rung, now: float) -> None:
        agenda = self._agenda
        seen = {entry.name for entry in look.entries}
        mine = look.entries if self._only is None else [entry for entry in look.entries if self._mine(entry.id)]
        kept, beyond = admit(mine, agenda.waiting, self._settings.max_waiting)
        if beyond and not self._beyond:
            self._log.warning(
                "requests.beyond",
                beyond=beyond,
                waiting=len(agenda.waiting),
                limit=self._settings.max_waiting,
            )
        self._beyond = beyond if look.full else self._beyond + beyond
        gone = (agenda.waiting.keys() - seen) if look.full else (rung.touched & agenda.waiting.keys()) - seen
        changes = settle(
            agenda.waiting,
            kept,
            known=session.known,
            touched=rung.touched,
            moved_in=rung.moved_in,
            gone=gone,
            now=now,
            rules=self._settings.rules,
        )
        agenda.waiting.change(changes)
        for name in sorted(look.misnamed - self._misnamed):  # told once: somebody waits for it in vain
            self._log.warning("request.misnamed", name=ascii(name)[1:-1], hint=names.NAMING)
        self._misnamed = set(look.misnamed) if look.full else self._misnamed | look.misnamed
        for kind, key in look.orders:
            if kind != "PING" and self._mine(key):
                {"CANCEL": agenda.cancels, "RETRY": agenda.retries, "RUN": agenda.runs}[kind].add(key)

    def _answer_pings(self, session: Session, look: Look, rung: Rung, *, first: bool) -> None:
        """Take PING files away, which tells whoever left them that a request would be seen.

        One that only a rescan found stays: it is the sign of a watch that gives no events. One that leaves after its
        work, or has been told to stop, answers nobody.
        """
        if self._agenda.once or self._agenda.stopping:
            return
        anyhow = first or rung.lost or session.watch.polling
        for kind, key in look.orders:
            name = f"{names.PREFIX}PING_{key}"
            if kind == "PING" and (anyhow or name in rung.touched):
                with suppress(OSError):
                    session.folder.dir.remove(name)

    def _act(self, session: Session, now: float) -> None:
        agenda = self._agenda
        for key in tuple(agenda.cancels):
            self._withdrawal.cancel(session, key)
        if agenda.stopping:
            return
        if session.journal.trouble:
            self._test_disk(session)
            return
        for orders, obey in ((agenda.retries, self._intake.retry), (agenda.runs, self._intake.run_by_name)):
            for key in tuple(orders):
                if key not in agenda.jobs:
                    orders.discard(key)
                    agenda.start(session, key, "", partial(obey, session, key), redo=partial(orders.add, key))
        while agenda.resume and len(agenda.jobs) < self._settings.concurrency:
            key = agenda.resume.pop(0)
            if key not in agenda.jobs:
                go_on = partial(self._intake.go_on, session, key)
                agenda.start(session, key, "", go_on, redo=partial(agenda.resume.append, key))
        if self._beyond and len(agenda.waiting) <= self._settings.max_waiting // 2:
            self._bell.lose()  # there is room again for what was left untouched
        slots = self._settings.concurrency - len(agenda.jobs)
        room = self._room(now)
        decided: Plan = plan(agenda.waiting, busy=agenda.jobs.keys(), slots=min(slots, room), now=now)
        for wait in decided.take:
            if agenda.pace is not None:
                agenda.pace.begin(now)
            agenda.start(session, wait.entry.id, wait.entry.name, partial(self._intake.take, session, wait), begun=now)
        paced = slots > 0 and room <= len(decided.take) and bool(self._next(now).take)
        if paced and not self._paced:
            limit = self._settings.max_requests_per_minute
            self._log.warning("requests.paced", limit=limit, waiting=len(agenda.waiting))
        self._paced = paced
        for running in tuple(agenda.jobs.values()):
            edited = agenda.waiting.get(running.name)
            if edited is not None and edited.ready_at <= now and running.record is not None:
                self._withdrawal.consider_edit(session, running, edited)

    # A flood

    def _room(self, now: float) -> int:
        return (
            self._agenda.pace.room(self._settings.max_requests_per_minute, now) if self._agenda.pace is not None else 0
        )

    def _next(self, now: float) -> Plan:
        return plan(self._agenda.waiting, busy=self._agenda.jobs.keys(), slots=1, now=now)

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
            self._disk_pause = min(self._disk_pause * 2, DISK_PAUSE_CAP_S)
            with suppress(OSError):
                await journal.run_whole(journal.probe)
                break
        self._log.info("disk.recovered")
        self._bell.ring()

    def _hear(self, result: Result) -> None:
        self._disk_pause = _DISK_PAUSE_S  # a whole job went through: only then is the disk well
        self._on_settled(result)

    def _heartbeat(self, session: Session, now: float) -> None:
        agenda = self._agenda
        for running in tuple(agenda.jobs.values()):
            if running.stoppable:
                self._withdrawal.consider_absence(session, running, now)
        if now - self._last_beat >= self._settings.heartbeat_s:
            self._last_beat = now
            for running in tuple(agenda.jobs.values()):
                if running.record is not None:
                    agenda.post_status(session, running)

    # The end

    async def _drain(self, grace: float) -> None:
        """Let running jobs finish within the grace; then stop them where they are, which their records survive.

        A job that has sent nothing is stopped at once: it would only begin what there may be no time to end.
        """
        jobs = [*self._agenda.jobs.values(), *self._departed.jobs()]
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
