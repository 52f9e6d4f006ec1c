"""What is to be done in one drop folder: what waits there, what was ordered, what is under way, by which settings.

It outlives the folder: one that goes away and comes back finds its jobs here. The loop decides, intake and runner do.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from delegated.answer import timestamp
from delegated.flood import Pace
from delegated.plan import Queue, Rules, Sig, Waiting, put_off
from delegated.running import Answerer, Progress, Running
from delegated.session import Session
from delegated.watch import Bell

ERROR_PAUSE_S: Final = 1.0
GONE_S: Final = 1.0  # vim takes the name away for a moment when it saves
_STATUS_PAUSE_S: Final = 0.1
_HELD: Final = ("held back", "backing off", "out of reach", "looking up")
_TRIES: Final = 3  # of a job that breaks by a fault of ours, in one life


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


class Agenda:
    """The state that the loop and its jobs share; `once` when the run is to end, `ended` how its requests did."""

    def __init__(self, path: str, desk: Answerer, settings: Settings, *, wall: Callable[[], float], once: bool) -> None:
        self.desk = desk
        self.settings = settings
        self.wall = wall
        self.once = once
        self.ended: dict[str, str] = {}  # by id, in a run that ends
        self.stopping = False
        self.bell = Bell()
        self.pace: Pace | None = None  # over all attachments: another folder is no way around it
        self.log = structlog.get_logger("delegated.worker").bind(folder=path)
        self._turns = 0
        self.reset()

    def reset(self) -> None:
        """Forget what is about one attachment to the folder."""
        self.waiting = Queue()
        self.jobs: dict[str, Running] = {}
        self.resume: list[str] = []
        self.cancels: set[str] = set()
        self.retries: set[str] = set()
        self.runs: set[str] = set()
        self.told_orders: set[str] = set()
        self.broken: dict[str, int] = {}  # jobs that broke by a fault of ours, and how often

    def reconfigure(self, desk: Answerer, settings: Settings) -> None:
        """Use new settings for jobs that start from now on, and for those that wait for the provider to be reached."""
        self.desk, self.settings = desk, settings
        for running in self.jobs.values():
            self._renew(running)
        self.bell.ring()

    def _renew(self, running: Running) -> None:
        """Move a job that began under former settings to the present ones, if all it does is wait."""
        if running.desk is self.desk or not running.stoppable or running.task is None:
            return
        if running.progress.phase in _HELD:
            running.progress.reason = "reloaded"
            running.task.cancel()

    def start(
        self,
        session: Session,
        key: str,
        name: str,
        work: Callable[[Running], Awaitable[None]],
        *,
        redo: Callable[[], None] = lambda: None,
        begun: float | None = None,
    ) -> None:
        """Do some work about a request in a task of its own, again by `redo` where the disk or the folder failed."""

        def changed(progress: Progress) -> None:
            self._post_status_soon(session, running)
            self._renew(running)  # it was asking when the settings changed, and now it waits

        progress = Progress(self.timestamp(), changed)
        self._turns += 1
        running = Running(key, name, progress, self._turns)
        self.jobs[key] = running

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
                        self.log.info("job.left", reason=str(error))
                        return
                    # The disk or the folder failed under us. Nothing is lost: the file and the records are the truth.
                    self.log.error("job.interrupted", reason=str(error))
                    again = True
                    await asyncio.sleep(ERROR_PAUSE_S)
                except Exception:  # the job boundary: one job's fault must not stop the others
                    self.log.exception("job.broke")
                    self.broken[key] = tries = self.broken.get(key, 0) + 1
                    again = tries < _TRIES
                    wait = self.waiting.get(running.name) if not running.left else None
                    if again:
                        await asyncio.sleep(ERROR_PAUSE_S * tries)
                    elif wait is not None:
                        # A fault of ours must not become a busy loop; the next start tries again.
                        self.dealt_with(session, running.name, wait.entry.sig)
                finally:
                    if self.jobs.get(key) is running:
                        del self.jobs[key]
                    if begun is not None and self.pace is not None and not running.new:
                        self.pace.take_back(begun)
                    if again and not running.left:
                        redo()
                        if running.record is not None and key not in self.resume:
                            self.resume.append(key)
                    self.bell.ring()

        running.task = asyncio.create_task(guarded(), name=f"job {key}")

    def _post_status_soon(self, session: Session, running: Running) -> None:
        """Post the STATUS in a moment: the phases of a quick job are not worth a file each."""
        if running.status_due is None or running.status_due.when() <= asyncio.get_running_loop().time():
            running.status_due = asyncio.get_running_loop().call_later(
                _STATUS_PAUSE_S, self.post_status, session, running
            )

    def post_status(self, session: Session, running: Running) -> None:
        """Say in its STATUS file how far a job is."""
        record, progress = running.record, running.progress
        if record is None or self.jobs.get(running.key) is not running:  # told too late: its STATUS is gone
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
            "heartbeat": self.timestamp(),
            "tokens": progress.tokens,
            "cost_usd": round(progress.cost_usd, 6),
            "pid": os.getpid(),
        }
        session.post_status(record.claim.id, status)

    # What is dealt with

    def dealt_with(self, session: Session, name: str, sig: Sig) -> None:
        """Look at a file no more as long as it stays as it is."""
        session.known[name] = sig.mark
        wait = self.waiting.get(name)
        if wait is not None and wait.entry.sig == sig:
            del self.waiting[name]

    def settled(self, session: Session, name: str, key: str, sig: Sig) -> None:
        """Note that a request as it stands has its RESULT."""
        self.dealt_with(session, name, sig)
        session.settle(name, key, sig)
        if key in session.consent.asked:
            session.consent.asked.discard(key)
            session.clear_notices(key)

    def leave_alone(self, session: Session, name: str, sig: Sig, why: str) -> None:
        """Leave a request to a person's word."""
        session.leave_alone(name, why)
        self.dealt_with(session, name, sig)

    def put_off(self, wait: Waiting, held: str, sig: Sig | None = None, *, why: str = "") -> None:
        """Look at a file again later: somebody writes it, or seems to."""
        later = put_off(wait, held, now=time.monotonic(), rules=self.settings.rules)
        if sig is not None:
            entry = wait.entry
            later = replace(later, entry=replace(entry, sig=sig))
        if held == "busy" and not wait.held:
            self.log.info("request.held", name=wait.entry.name, why=why or "somebody has it open for writing")
        if wait.entry.name in self.waiting:
            self.waiting[wait.entry.name] = later

    def timestamp(self) -> str:
        """Return the time of now as it stands in files."""
        return timestamp(self.wall())
