"""A Model that asks again, where it is certain that nothing was accepted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from delegated.errors import Unavailable
from delegated.models import CallLog, Model
from delegated.prompt import Prompt
from delegated.reply import Reply


class Retrying:
    """Asks `model` again after `Unavailable`, waiting longer each time, at least as long as the provider asked for.

    The wait is chosen at random between half of `base_s` · 2ⁿ and the whole (`chance` gives [0, 1)), never above
    `cap_s`; a provider that asks for more gets up to `after_cap_s`. A rate limit is no failure: it does not count
    towards `attempts`, only towards `deadline_s`, which is counted from the first ask in seconds of `clock`. An
    exhausted quota is not waited for here: only a person can lift it.
    """

    def __init__(
        self,
        model: Model,
        *,
        attempts: int = 6,
        deadline_s: float = 3600.0,
        base_s: float = 1.0,
        cap_s: float = 60.0,
        after_cap_s: float = 300.0,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = model.name
        self.endpoint = model.endpoint
        self.wire = model.wire
        self._model = model
        self._attempts = attempts
        self._deadline_s = deadline_s
        self._base_s = base_s
        self._cap_s = cap_s
        self._after_cap_s = after_cap_s
        self._chance = chance
        self._clock = clock
        self._sleep = sleep

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the reply; raises the last `Unavailable` when attempts or time are used up."""
        clock = self._clock or asyncio.get_running_loop().time
        give_up = clock() + self._deadline_s
        failures = waits = 0
        while True:
            try:
                return await self._model.ask(prompt, log)
            except Unavailable as error:
                failures += error.kind != "rate_limited"
                waits += 1
                pause = self._pause(waits, error.retry_after)
                if error.kind == "quota_exhausted" or failures >= self._attempts or clock() + pause >= give_up:
                    raise
                log.phase("backing off", f"{pause:.1f} s: {error.message}")
            await self._sleep(pause)

    def _pause(self, waits: int, asked_for: float | None) -> float:
        whole = min(self._base_s * 2.0 ** min(waits - 1, 30), self._cap_s)
        pause = whole * (1 + self._chance()) / 2
        if asked_for is None:
            return pause
        # On top of what was asked for, so that those who were told the same time do not come back together.
        return min(asked_for, self._after_cap_s) + pause * 0.25

    async def cancel(self, log: CallLog) -> None:
        """Cancel at the model behind."""
        await self._model.cancel(log)

    async def close(self) -> None:
        """Close the model behind."""
        await self._model.close()
