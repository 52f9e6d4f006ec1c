"""One gate before each endpoint: who is told to wait makes all wait, and they go on in order, a few at first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import structlog

from delegated.errors import Refused, Unavailable
from delegated.models import CallLog, Model
from delegated.models.meaning import Rejected
from delegated.prompt import Prompt
from delegated.reply import Reply

_WIDE: Final = 64.0  # so many at once without a refusal, and the gate stands wide open again
_LOST: Final = 6  # so often lost on the way, and the request itself is what the provider stumbles over
_LEAST_S: Final = 0.05  # between two refusals that ask for no pause at all; doubled in a row


@dataclass(frozen=True, slots=True)
class Pause:
    """How long the gate stays closed when the provider does not say: `first_s`, doubled each time, at most `cap_s`.

    `cap_s` also bounds what the provider says. `person`: waiting does not help, only a person can lift it.
    """

    first_s: float
    cap_s: float
    person: bool = False


def pauses(
    *, base_s: float = 1.0, cap_s: float = 60.0, after_cap_s: float = 300.0, person_s: float = 60.0
) -> Mapping[str, Pause]:
    """Return the pause for each kind of refusal that holds for all calls of an endpoint."""
    return {
        "rate_limited": Pause(min(5.0, after_cap_s), after_cap_s),
        "quota_exhausted": Pause(person_s, 15 * person_s, person=True),
        "bad_key": Pause(person_s, 15 * person_s, person=True),
        "unreachable": Pause(base_s, cap_s),
        "provider_failed": Pause(base_s, cap_s),
    }


PAUSES: Final = pauses()


@dataclass(order=True, slots=True)
class _Waiting:
    place: tuple[int, int]
    turn: asyncio.Future[Pass] = field(compare=False)
    log: CallLog = field(compare=False)
    again: bool = field(compare=False)


class Gate:
    """Lets new sends through, or holds them back, for all jobs of one endpoint.

    It closes when one is refused for a reason that holds for all (`pauses`, by kind). When the time is up one send goes
    through as a probe; each that is accepted widens the gate by one, each that is refused closes it again. Who waits is
    let through in the order of `CallLog.turn`, then of arrival, and a call that comes back after a refusal has kept its
    place. A send that was neither accepted nor refused within `probe_s` seconds lets one more follow: where acceptance
    shows only with the answer it must not hold up all others.

    `chance` gives [0, 1), `wall` is only for what people are told. Belongs to one event loop.
    """

    def __init__(
        self,
        *,
        pauses: Mapping[str, Pause] = PAUSES,
        probe_s: float = 10.0,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.pauses = pauses
        self._probe_s = probe_s
        self._chance = chance
        self._wall = wall
        self._not_before = -inf
        self._error: Unavailable | Refused | None = None
        self._since = 0.0  # wall clock: when it closed
        self._met: set[str] = set()  # kinds of refusal since the last acceptance
        self._row = 0  # refusals of the last kind since the last acceptance, one for each closing
        self._width = inf
        self._through: set[Pass] = set()  # sent, and neither accepted nor refused yet
        self._places: WeakKeyDictionary[CallLog, tuple[int, int]] = WeakKeyDictionary()
        self._next = itertools.count()
        self._queue: list[_Waiting] = []
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def reason(self) -> str:
        """Why sends are held back, "" when they are not."""
        return self._error.message if self._error is not None and self._width < inf else ""

    @property
    def wait_s(self) -> float:
        """For how many more seconds nothing at all is let through."""
        return max(0.0, self._not_before - asyncio.get_running_loop().time())

    async def enter(self, log: CallLog, *, again: bool = False) -> Pass:
        """Wait for this call's turn; its `phase` is told why, anew whenever that changes. `again`: it was refused."""
        place = self._places.setdefault(log, (log.turn, next(self._next)))
        if not self._queue and self._open():
            return self._let_through()
        turn: asyncio.Future[Pass] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(place, turn, log, again)
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
        over = bool(self._met)
        self._met.clear()
        self._row = 0
        self._widen()
        if over:
            structlog.get_logger("delegated.gate").info("lane.resumed", waiting=len(self._queue))
            for waiting in self._queue:
                self._tell(waiting)

    def lingers(self, through: Pass) -> None:
        """Take note that a send is out for so long that the next one need not wait for its end."""
        self._through.discard(through)
        self._widen()

    def _widen(self) -> None:
        self._width = self._width + 1 if self._width < _WIDE else inf
        self._move()

    def refused(self, through: Pass, error: Unavailable | Refused) -> bool:
        """Take note that a send was refused: the gate closes. True for the first of this kind since it was open."""
        self._through.discard(through)
        now = asyncio.get_running_loop().time()
        if self._error is None or error.kind != self._error.kind or not self._met:
            self._row = 1
        elif now >= self._not_before:  # else it was sent before the gate closed, and says the same once more
            self._row += 1
        asked = error.retry_after if isinstance(error, Unavailable) else None
        return self._close(error, now + self._pause(error.kind, self._row, asked))

    def hold(self, error: Unavailable, row: int, ago_s: float) -> None:
        """Stay closed for what an earlier life was told `ago_s` seconds ago, the `row`-th time."""
        left = self._pause(error.kind, row, error.retry_after) - max(ago_s, 0.0)
        if left > 0:
            self._row = row
            self._close(error, asyncio.get_running_loop().time() + left)

    def knock(self) -> None:
        """Let the next one through now: something may have been put right. A limit of the provider's still stands."""
        if self._error is not None and self._error.kind != "rate_limited":
            self._not_before = -inf
            self._move()

    def _pause(self, kind: str, row: int, asked: float | None) -> float:
        pause, chance = self.pauses[kind], self._chance()
        double = 2.0 ** min(row - 1, 30)
        own = min(pause.first_s * double, pause.cap_s)
        if asked is None:
            return own * (1 - chance / 4)
        # Not before the time that was asked for, and not all who were told the same at once.
        return max(min(asked, pause.cap_s) * (1 + chance / 10), min(_LEAST_S * double, own))

    def _close(self, error: Unavailable | Refused, until: float) -> bool:
        if not self._met:
            self._since = self._wall()
        news = error.kind not in self._met
        self._met.add(error.kind)
        self._not_before = max(self._not_before, until)
        self._width = 1
        self._error = error
        if news:
            log = structlog.get_logger("delegated.gate")
            log.warning("lane.paused", kind=error.kind, reason=error.message, seconds=round(self.wait_s, 1))
        for waiting in self._queue:
            self._tell(waiting)
        self._move()
        return news

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
        if not self._met or self._error is None:
            waiting.log.phase("held back", "until its turn comes")
            return
        waiting.log.held = self._error
        now = self._wall()
        at = f"next try {_moment(now + self.wait_s)}" if self.wait_s else "one is being tried"
        words = f"since {_moment(self._since)}, {at}: {self._error.message}"
        if waiting.again:
            waiting.log.phase("backing off", words)
        else:
            waiting.log.phase("held back", words)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Pass:
    """One send's way through the gate. It reports what became of it; after the first report only a refusal counts."""

    def __init__(self, gate: Gate, probe_s: float) -> None:
        self._gate = gate
        self._told = False
        self._alarm = asyncio.get_running_loop().call_later(probe_s, gate.lingers, self)

    def accepted(self) -> None:
        """Report that the provider took the call."""
        if self._first():
            self._gate.accepted(self)

    def refused(self, error: Unavailable | Refused) -> bool:
        """Report why the provider did not take it; see `Gate.refused`."""
        self._first()
        return self._gate.refused(self, error)

    def ended(self) -> None:
        """Report that nothing more will be reported."""
        if self._first():
            self._gate.ended(self)

    def _first(self) -> bool:
        self._alarm.cancel()
        first, self._told = not self._told, True
        return first


class Gated:
    """Asks `model` for one endpoint's jobs, each new send through the shared gate, and again when it was refused there.

    Where nothing was accepted, the call waits at the gate for as long as it takes. `attempts` bounds that: after so
    many failures (a rate limit is none) the last one is raised; one that left and was lost each time is given up
    anyway. What only a person can lift is raised to the first call that meets it, so that somebody is told; the others
    wait, unless `patient` is false.
    """

    def __init__(self, model: Model, gate: Gate, *, attempts: int | None = None, patient: bool = True) -> None:
        self.name = model.name
        self.endpoint = model.endpoint
        self.wire = model.wire
        self._model = model
        self._gate = gate
        self._attempts = attempts
        self._patient = patient

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the reply; a call that sends nothing new does not wait."""
        failures = lost = 0
        again = False
        while not (log.reply is not None or log.response_id or log.in_doubt):
            through = await self._gate.enter(log, again=again)
            before = log.attempt
            try:
                return await self._model.ask(prompt, cast("CallLog", _Watched(log, through)))
            except (Unavailable, Refused) as error:
                if not self._for_all(error):
                    raise
                log.held = error
                news = through.refused(error)
                failures += error.kind != "rate_limited"
                lost += error.kind == "provider_failed" and log.attempt > before
                if self._gate.pauses[error.kind].person and (news or not self._patient):
                    raise
                if failures >= (self._attempts or inf) or lost >= _LOST:
                    raise
            finally:
                through.ended()
            again = True
        return await self._model.ask(prompt, log)

    def _for_all(self, error: Unavailable | Refused) -> bool:
        """Say whether every other call of this endpoint would be refused too."""
        if isinstance(error, Unavailable):
            return error.kind in self._gate.pauses
        # 403 may be about one model; a key that is missing or malformed here has sent nothing at all.
        return isinstance(error, Rejected) and error.kind == "bad_key" and error.status == 401

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
        self._accepted()
        await self._log.record_accepted(response_id)

    async def record_reply(self, reply: Reply) -> None:
        """Report and record."""
        self._accepted()
        await self._log.record_reply(reply)

    def _accepted(self) -> None:
        self._log.held = None
        self._pass.accepted()
