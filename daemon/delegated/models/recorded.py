"""A paid wire made safe: every step is on disk before the next, and nothing in doubt is ever sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from delegated.errors import InDoubt, Refused, Unavailable, Uncertain
from delegated.models import CallLog, Posted, Trace, Wire
from delegated.prompt import Prompt
from delegated.reply import Reply


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds, at each point of a call."""

    poll_first_s: float = 0.25
    poll_cap_s: float = 5.0
    deadline_s: float = 600.0
    doubt_s: float = 60.0  # a lost send that is absent this long after the call's deadline is proven absent
    fetch_failures_s: float = 3600.0  # how long an accepted call is looked for while the provider cannot be reached


class Recorded:
    """The Model around a paid `Wire`.

    A call goes through: prepare (free), `sent` on disk, POST, `accepted` on disk, fetch until final, `reply` on disk.
    It may be killed at any point: asked again with the same log it goes on from what the log holds.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        patience: Patience,
        now: Callable[[], float],
        price_bound: Callable[[Prompt], float | None],
    ) -> None:
        self.name = wire.model
        self.endpoint = wire.endpoint
        self.wire = wire.name
        self._wire = wire
        self._patience = patience
        self._now = now
        self._price_bound = price_bound

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the reply, from the log if it is there; see `Model.ask`."""
        if log.reply is not None:
            return log.reply
        if not log.response_id:
            posted = await self._resolve(log) if log.in_doubt else None
            if posted is None:
                posted = await self._send(prompt, log)
            if posted.reply is None or posted.response_id:
                await log.record_accepted(posted.response_id)
            if posted.reply is not None:
                return await self._settle(posted.reply, log)
        return await self._settle(await self._await_final(log), log)

    async def cancel(self, log: CallLog) -> None:
        """Stop an accepted call at the provider; a call that was not accepted is left alone."""
        if log.response_id and log.reply is None:
            await self._wire.cancel(log.response_id)

    async def close(self) -> None:
        """Release the wire's connections."""
        await self._wire.close()

    async def _send(self, prompt: Prompt, log: CallLog) -> Posted:
        log.phase("asking")
        handle = log.handle or await self._wire.prepare(log.call_id)
        try:
            await log.record_sent(
                model=self.name, endpoint=self.endpoint, handle=handle, price_bound_usd=self._price_bound(prompt)
            )
        except asyncio.CancelledError:
            if log.in_doubt:  # recorded, and surely not posted: leave no doubt behind
                await log.record_unsent("cancelled", "stopped before it was sent")
            raise
        try:
            return await self._wire.post(prompt, log.call_id, handle)
        except (Unavailable, Refused) as error:
            await log.record_unsent(error.kind, error.message)
            raise
        except InDoubt as error:
            log.phase("looking up", error.message)
            posted = await self._resolve(log)
            if posted is None:  # proven absent and recorded so: the caller may ask again
                raise Unavailable("provider_failed", f"the call was lost and proven absent: {error.message}") from error
            return posted

    async def _resolve(self, log: CallLog) -> Posted | None:
        """Find out what became of a send in doubt: the call found, None when proven absent, else raises `Uncertain`."""
        log.phase("looking up")
        give_up = log.in_doubt_since + self._patience.deadline_s + self._patience.doubt_s
        pause = self._patience.poll_first_s
        while True:
            try:
                found = await self._wire.find(log.call_id, log.handle)
            except Refused as error:
                raise Uncertain(f"the look-up was refused: {error.message}") from error
            except (Unavailable, InDoubt) as error:
                if self._now() >= give_up + self._patience.fetch_failures_s:
                    raise Uncertain(f"the look-up itself failed: {error.message}") from error
            else:
                if isinstance(found, Posted):
                    return found
                if found is Trace.UNKNOWN:
                    raise Uncertain("the connection was lost after the request was sent, and this provider cannot look it up")
                if self._now() >= give_up:
                    await log.record_unsent("provider_failed", "looked up and proven absent")
                    return None
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._patience.poll_cap_s)

    async def _await_final(self, log: CallLog) -> Reply:
        log.phase("waiting")
        pause = self._patience.poll_first_s
        failing_since: float | None = None
        while True:
            try:
                reply = await self._wire.fetch(log.response_id)
            except Refused as error:
                raise Uncertain(f"the provider accepted the call but will not show it: {error.message}") from error
            except (Unavailable, InDoubt) as error:
                failing_since = failing_since if failing_since is not None else self._now()
                if self._now() - failing_since >= self._patience.fetch_failures_s:
                    raise Uncertain(f"the answer could not be fetched: {error.message}") from error
            else:
                failing_since = None
                if reply is not None:
                    return reply
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, self._patience.poll_cap_s)

    async def _settle(self, reply: Reply, log: CallLog) -> Reply:
        await log.record_reply(reply)
        if log.handle:
            await self._wire.forget(log.handle)
        return reply
