"""One gate before each endpoint: who is told to wait makes all wait, and they go on in order, a few at first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from delegated.errors import Unavailable
from delegated.models import CallLog, Model
from delegated.prompt import Prompt
from delegated.reply import Reply

_WIDE: Final = 64.0  # so many at once without a refusal, and the gate stands wide open again


@dataclass(frozen=True, slots=True)
class Pause:
    """How long the gate stays closed when the provider does not say: `first_s`, doubled each time, at most `cap_s`.

    `cap_s` also bounds what the provider says.
    """

    first_s: float
    cap_s: float


PAUSES: Final[Mapping[str, Pause]] = {
    "rate_limited": Pause(5.0, 300.0),
    "quota_exhausted": Pause(60.0, 900.0),  # only a person can lift it
    "unreachable": Pause(1.0, 60.0),
}


@dataclass(order=True, slots=True)
class _Waiting:
    place: int
    turn: asyncio.Future[Pass] = field(compare=False)
    log: CallLog = field(compare=False)


class Gate:
    """Lets new sends through, or holds them back, for all jobs of one endpoint.

    It closes when one is refused for a reason that holds for all (`pauses`, by kind). When the time is up one send goes
    through as a probe; each that is accepted widens the gate by one, each that is refused closes it again. A call that
    comes back after a refusal has kept its place in the queue. A send that was neither accepted nor refused within
    `probe_s` seconds counts as accepted: where acceptance shows only with the answer it must not hold up all others.

    `chance` gives [0, 1). Belongs to one event loop.
    """

    def __init__(
        self,
        *,
        pauses: Mapping[str, Pause] = PAUSES,
        probe_s: float = 10.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.pauses = pauses
        self._probe_s = probe_s
        self._chance = chance
        self._not_before = -inf
        self._reason = ""
        self._width = inf
        self._row = 0  # refusals since the last acceptance, one for each closing
        self._through: set[Pass] = set()  # sent, and neither accepted nor refused yet
        self._places: WeakKeyDictionary[CallLog, int] = WeakKeyDictionary()
        self._next = itertools.count()
        self._queue: list[_Waiting] = []
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def reason(self) -> str:
        """Why sends are held back, "" when they are not."""
        return self._reason if self._width < inf else ""

    @property
    def wait_s(self) -> float:
        """For how many more seconds nothing at all is let through."""
        return max(0.0, self._not_before - asyncio.get_running_loop().time())

    async def enter(self, log: CallLog) -> Pass:
        """Wait for this call's turn; its `phase` is told why, and again whenever the reason changes."""
        place = self._places.setdefault(log, next(self._next))
        if not self._queue and self._open():
            return self._let_through()
        waiting = _Waiting(place, asyncio.get_running_loop().create_future(), log)
        heapq.heappush(self._queue, waiting)
        self._tell(waiting)
        self._move()
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if not waiting.turn.cancel() and not waiting.turn.cancelled():
                waiting.turn.result().ended()  # its turn had come, and goes to the next
            self._move()
            raise

    def accepted(self, through: Pass) -> None:
        """Take note that a send went through: the gate opens a little further."""
        self._through.discard(through)
        self._row = 0
        self._width = self._width + 1 if self._width < _WIDE else inf
        self._move()

    def refused(self, through: Pass, error: Unavailable) -> None:
        """Take note that a send was refused: the gate closes for as long as the provider asks."""
        self._through.discard(through)
        now, pause = asyncio.get_running_loop().time(), self.pauses[error.kind]
        if now >= self._not_before:  # else it was sent before the gate closed, and says the same once more
            self._row += 1
        wait = pause.first_s * 2.0 ** min(max(self._row - 1, 0), 30) if error.retry_after is None else error.retry_after
        self._not_before = max(self._not_before, now + min(wait * (1 + self._chance() / 10), pause.cap_s))
        self._width = 1
        self._reason = error.message
        for waiting in self._queue:
            self._tell(waiting)
        self._move()

    def ended(self, through: Pass) -> None:
        """Take note that a send ended in a way that says nothing about the others."""
        self._through.discard(through)
        self._move()

    def _open(self) -> bool:
        return len(self._through) < self._width and not self.wait_s

    def _move(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while self._queue and self._open():
            waiting = heapq.heappop(self._queue)
            if not waiting.turn.cancelled():
                waiting.turn.set_result(self._let_through())
        if self._queue and self.wait_s:
            self._alarm = asyncio.get_running_loop().call_at(self._not_before, self._move)

    def _let_through(self) -> Pass:
        through = Pass(self, self._probe_s)
        self._through.add(through)
        return through

    def _tell(self, waiting: _Waiting) -> None:
        wait = self.wait_s
        waiting.log.phase("held back", f"{wait:.0f} s: {self._reason}" if wait else "until its turn comes")


class Pass:
    """One send's way through the gate. It reports what became of it; after the first report only a refusal counts."""

    def __init__(self, gate: Gate, probe_s: float) -> None:
        self._gate = gate
        self._told = False
        self._alarm = asyncio.get_running_loop().call_later(probe_s, self.accepted)

    def accepted(self) -> None:
        """Report that the provider took the call."""
        if self._first():
            self._gate.accepted(self)

    def refused(self, error: Unavailable) -> None:
        """Report why the provider did not take it."""
        self._first()
        self._gate.refused(self, error)

    def ended(self) -> None:
        """Report that nothing more will be reported."""
        if self._first():
            self._gate.ended(self)

    def _first(self) -> bool:
        self._alarm.cancel()
        first, self._told = not self._told, True
        return first


class Gated:
    """Asks `model` for one endpoint's jobs, each new send through the shared gate."""

    def __init__(self, model: Model, gate: Gate) -> None:
        self.name = model.name
        self.endpoint = model.endpoint
        self.wire = model.wire
        self._model = model
        self._gate = gate

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the reply; a call that sends nothing new does not wait."""
        if log.reply is not None or log.response_id or log.in_doubt:
            return await self._model.ask(prompt, log)
        through = await self._gate.enter(log)
        try:
            return await self._model.ask(prompt, cast("CallLog", _Watched(log, through)))
        except Unavailable as error:
            if error.kind in self._gate.pauses:
                through.refused(error)
            raise
        finally:
            through.ended()

    async def cancel(self, log: CallLog) -> None:
        """Cancel at the model behind."""
        await self._model.cancel(log)

    async def close(self) -> None:
        """Close the model behind."""
        await self._model.close()


class _Watched:
    """A call's log that also reports the acceptance: the gate need not wait for the reply to know."""

    def __init__(self, log: CallLog, through: Pass) -> None:
        self._log = log
        self._pass = through

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def record_accepted(self, response_id: str) -> None:
        """Report and record."""
        self._pass.accepted()
        await self._log.record_accepted(response_id)

    async def record_reply(self, reply: Reply) -> None:
        """Report and record."""
        self._pass.accepted()
        await self._log.record_reply(reply)
