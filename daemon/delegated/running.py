"""A job under way: what it says of itself, who answers it, and what the loop must know of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from delegated.calls import JobRecord
from delegated.record import Refusal
from delegated.result import Egress, Result


class Progress:
    """What a job says of itself while it runs; shown in its STATUS file."""

    def __init__(self, started: str, changed: Callable[[Progress], None]) -> None:
        self.started = started
        self.phase = "claimed"
        self.detail = ""
        self.model = ""
        self.attempt = 0
        self.tokens = 0  # of all prompts so far
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

    def recall(self, refusals: Iterable[Refusal]) -> None:
        """Keep to what providers told an earlier life."""

    def knock(self) -> None:
        """Try at once where calls are held back: a person may have put something right."""

    async def stop(self, record: JobRecord, progress: Progress) -> bool:
        """Ask the providers to stop this job's calls; True when there was one running there."""


class Running:
    """A job's task, and what the loop must know of it."""

    def __init__(self, key: str, name: str, progress: Progress, turn: int) -> None:
        self.turn = turn  # its place in the order in which jobs began
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
        self.new = False  # it was claimed just now
        self.left = False  # its folder went away: what it pays for is recorded, nothing is published

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

    def halt(self) -> None:
        """Stop it where it is; its records survive that."""
        if self.task is not None:
            self.progress.reason = self.progress.reason or "stopping"
            self.task.cancel()
