"""A paid Model within budgets: the most that a call can cost is set aside before it leaves, what it did cost after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog

from delegated.errors import Refused, Unavailable
from delegated.ledger import Budget, Charge, Ledger, Overrun
from delegated.models import CallLog, Model
from delegated.prompt import Prompt
from delegated.reply import Reply

_LOOK_S: Final = 30.0  # another window may be the one that holds, and a reservation may be given back


class Budgeted:
    """Asks `model` only what the budgets allow.

    `ledger` opens the ledger and raises `OSError` where it cannot; `bound` and `price` are in USD, None where that is
    not known; `run` runs a blocking function beside the loop. A call that is over a budget is refused, or waits where
    `wait` is true. A reservation is given back when the call was certainly not accepted; while that is in doubt it
    stands, also through restarts.
    """

    def __init__(
        self,
        model: Model,
        ledger: Callable[[], Ledger],
        budgets: Sequence[Budget],
        *,
        workspace: str,
        bound: Callable[[Prompt], float | None],
        price: Callable[[Reply], float | None],
        wait: bool,
        run: Callable[..., Awaitable[Any]],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = model.name
        self.endpoint = model.endpoint
        self.wire = model.wire
        self._model = model
        self._ledger = ledger
        self._budgets = tuple(budgets)
        self._workspace = workspace
        self._bound = bound
        self._price = price
        self._wait = wait
        self._run = run
        self._wall = wall

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the reply, within the budgets; a call that may have left already goes on whatever they say."""
        await self._reserve(prompt, log)
        try:
            reply = await self._model.ask(prompt, log)
        except BaseException:
            if not _left(log):
                await self._note(Ledger.release, log.call_id)
            raise
        await self._note(Ledger.settle, log.call_id, self._price(reply))
        return reply

    async def _reserve(self, prompt: Prompt, log: CallLog) -> None:
        left = _left(log)
        budgets = () if left else self._budgets

        def first() -> tuple[Charge, Overrun | None] | None:
            bound = self._bound(prompt)
            if bound is None:
                return None
            charge = Charge(log.call_id, self._workspace, self.endpoint, self.name, bound)
            return charge, self._ledger().reserve(charge, budgets)

        try:
            reserved: tuple[Charge, Overrun | None] | None = await self._set_aside(log, first)
        except OSError as error:
            if not left:
                raise
            _unaccounted(error)  # what it may cost is owed already: its answer must not wait for the account
            return
        if reserved is None:
            if left:
                return
            raise Refused("unknown_price", f"the price of {self.name} is not known, so no budget can be held")
        charge, overrun = reserved
        while overrun is not None:
            if not self._wait:
                raise Refused("over_budget", str(overrun))
            log.held = Unavailable("over_budget", str(overrun))
            log.phase("held back", str(overrun))
            await asyncio.sleep(min(max(overrun.again_at - self._wall(), 0.05), _LOOK_S))
            overrun = await self._set_aside(log, self._ledger().reserve, charge, budgets)
        log.held = None

    async def _set_aside(self, log: CallLog, function: Callable[..., Any], *args: Any) -> Any:
        """Reserve beside the loop; stopped meanwhile, give back what the thread has reserved by then."""
        reserving = asyncio.ensure_future(self._run(function, *args))

        async def give_back() -> None:
            await asyncio.gather(reserving, return_exceptions=True)
            await self._note(Ledger.release, log.call_id)

        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            if not _left(log):
                await asyncio.shield(asyncio.ensure_future(give_back()))
            raise

    async def _note(self, function: Callable[..., None], *args: Any) -> None:
        """Write down what became of a call. A ledger that cannot be written leaves it at the most that it can be."""
        try:
            await asyncio.shield(asyncio.ensure_future(self._run(lambda: function(self._ledger(), *args))))
        except OSError as error:
            _unaccounted(error)

    async def cancel(self, log: CallLog) -> None:
        """Cancel at the model behind."""
        await self._model.cancel(log)

    async def close(self) -> None:
        """Close the model behind."""
        await self._model.close()


def _unaccounted(error: OSError) -> None:
    structlog.get_logger("delegated.budget").warning("ledger.failed", reason=str(error))


def _left(log: CallLog) -> bool:
    return bool(log.reply is not None or log.response_id or log.in_doubt)
