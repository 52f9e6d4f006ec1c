"""A paid wire made safe: every step is on disk before the next, and nothing in doubt is ever sent again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from delegated.errors import InDoubt, Refused, Unavailable, Uncertain
from delegated.models import CallLog, Posted, Trace, Wire, progress
from delegated.models.meaning import Rejected
from delegated.prompt import Prompt, sha256
from delegated.reply import Reply, Usage


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds, at each point of a call."""

    poll_first_s: float = 0.25
    poll_cap_s: float = 5.0
    unreached_cap_s: float = 40.0  # between two polls while the provider cannot be reached, a quarter more by chance
    deadline_s: float = 600.0
    doubt_s: float = 60.0  # a lost send that is absent this long after the call's deadline is proven absent
    fetch_failures_s: float = 3600.0  # how long an accepted call is looked for while the provider answers with errors
    endless: bool = True  # longer than that, as long as it takes, while it cannot be got at
    forget_s: float = 10.0  # how long closing waits for handles that are still being dropped


class Recorded:
    """The Model around a paid `Wire`.

    A call goes through: prepare (free), `sent` on disk, POST, `accepted` on disk, fetch until final, `reply` on disk.
    It may be killed at any point: asked again with the same log it goes on from what the log holds. `count` counts a
    text's tokens where the provider did not.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        patience: Patience,
        price_bound: Callable[[Prompt], float | None],
        count: Callable[[str], int] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = wire.model
        self.endpoint = wire.endpoint
        self.wire = wire.name
        self._wire = wire
        self._patience = patience
        self._price_bound = price_bound
        self._count = count or _estimate
        self._chance = chance
        self._forgetting: set[asyncio.Task[None]] = set()

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the reply, from the log if it is there; see `Model.ask`."""
        if log.reply is not None:
            return log.reply
        if not log.response_id:
            posted = await self._resolve(log, self._patience.doubt_s) if log.in_doubt else None
            if posted is None:
                posted = await self._send(prompt, log)
            if posted.response_id:
                await log.record_accepted(posted.response_id)
            if posted.reply is not None:
                return await self._settle(posted.reply, prompt, log)
        return await self._settle(await self._await_final(log), prompt, log)

    async def cancel(self, log: CallLog) -> None:
        """Stop an accepted call at the provider, if it can be reached; any other is left alone."""
        if log.response_id and log.reply is None:
            with contextlib.suppress(Unavailable, Refused, InDoubt, Uncertain):
                await self._wire.cancel(log.response_id)

    async def close(self) -> None:
        """Release the wire's connections, once the handles that are being dropped are."""
        if self._forgetting:
            await asyncio.wait(self._forgetting, timeout=self._patience.forget_s)
        await self._wire.close()

    async def _send(self, prompt: Prompt, log: CallLog) -> Posted:
        log.phase("asking")
        try:
            known = "" if self._elsewhere(log) else log.handle  # one that was made elsewhere nobody knows here
            handle = known or await self._wire.prepare(log.call_id)
        except InDoubt as error:  # nothing that is paid for has left: a handle too many costs nothing
            raise Unavailable("provider_failed", error.message) from error
        try:
            await log.record_sent(
                model=self.name,
                endpoint=self.endpoint,
                wire=self.wire,
                handle=handle,
                prompt_sha256=sha256(prompt),
                price_bound_usd=self._price_bound(prompt),
                key_mark=self._wire.key_mark(log.call_id),
                stored=self._wire.stored,
            )
        except asyncio.CancelledError:
            if log.in_doubt:  # recorded, and surely not posted: leave no doubt behind
                await log.record_unsent("cancelled", "stopped before it was sent", left=False)
            raise
        try:
            return await self._wire.post(prompt, log.call_id, handle)
        except (Unavailable, Refused) as error:
            await log.record_unsent(error.kind, error.message, retry_after=_asked_for(error), left=_left(error))
            raise
        except asyncio.CancelledError as cancelled:
            if progress.unsent(cancelled):  # stopped while it was still connecting: leave no doubt behind
                left = progress.before(cancelled)
                await log.record_unsent("cancelled", "stopped before it was sent", left=left)
            raise
        except InDoubt as error:
            posted = await self._resolve(log, self._patience.deadline_s + self._patience.doubt_s, error.message)
            if posted is None:  # proven absent and recorded so: the caller may ask again
                raise Unavailable("provider_failed", f"the call was lost and proven absent: {error.message}") from error
            return posted

    async def _resolve(self, log: CallLog, least_s: float, why: str = "") -> Posted | None:
        """Find out what became of a send in doubt.

        Returns the call found, or None once it is absent after its deadline and at least `least_s` from now; raises
        `Uncertain` otherwise. The wall clock is not asked: it may jump, and send twice. The provider is asked as the
        configuration is now, which may not be how the call was sent: only where it went can it be proven absent.
        """
        log.phase("looking up", why)
        clock = asyncio.get_running_loop().time
        stored = log.sent.get("stored")
        stored = self._wire.stored if stored is None else stored
        whole = self._patience.deadline_s + self._patience.doubt_s
        give_up = clock() + min(max(whole - log.in_doubt_for, least_s), whole)
        pause = self._patience.poll_first_s
        while True:
            asked = clock()
            try:
                found = await self._wire.find(log.call_id, log.handle) if stored else Trace.UNKNOWN
            except (Refused, Unavailable, InDoubt) as error:
                if isinstance(error, Refused) and not _locked_out(error):
                    raise Uncertain(f"the look-up was refused: {error.message}") from error
                # A network that is off and a key that is not taken say nothing about the call, however long it lasts.
                if not self._waits(error) and clock() >= give_up + self._patience.fetch_failures_s:
                    raise Uncertain(f"the look-up itself failed: {error.message}") from error
                log.phase("looking up", error.message)
                pause = self._unreached(pause, error)
            else:
                if isinstance(found, Posted):
                    return found
                if found is Trace.UNKNOWN:
                    raise Uncertain(
                        "the connection was lost after the request was sent, and this provider cannot look it up"
                        + (f" ({why})" if why else "")
                    )
                if asked >= give_up:
                    elsewhere = self._elsewhere(log)
                    if elsewhere:
                        raise Uncertain(f"the look-up does not find the call, which proves nothing: {elsewhere}")
                    await log.record_unsent("provider_failed", "looked up and proven absent")
                    return None
                pause = min(pause, self._patience.poll_cap_s)
            await asyncio.sleep(pause)
            pause = min(pause * 2, max(pause, self._patience.poll_cap_s))

    def _elsewhere(self, log: CallLog) -> str:
        """Say why the last send may have gone elsewhere than what is asked now; "" when it went there."""
        sent = log.sent
        if not sent.get("key_mark"):  # its record is damaged, or of a version that did not note it
            return "it is not known under which key it was sent"
        if sent.get("endpoint") != self.endpoint:
            return "it was sent to another endpoint than is asked now"
        if sent.get("wire") != self.wire:
            return "it was sent over another interface than is asked now"
        if sent["key_mark"] != self._wire.key_mark(log.call_id):
            return "it was sent under another key than is used now"
        return ""

    async def _await_final(self, log: CallLog) -> Reply:
        log.phase("waiting")
        clock = asyncio.get_running_loop().time
        pause = self._patience.poll_first_s
        failing_since: float | None = None
        while True:
            try:
                reply = await self._wire.fetch(log.response_id)
            except (Refused, Unavailable, InDoubt) as error:
                if isinstance(error, Refused) and not _locked_out(error):
                    raise Uncertain(f"the provider accepted the call but will not show it: {error.message}") from error
                failing_since = failing_since if failing_since is not None else clock()
                if not self._waits(error) and clock() - failing_since >= self._patience.fetch_failures_s:
                    raise Uncertain(f"the answer could not be fetched: {error.message}") from error
                log.phase("out of reach", error.message)
                pause = self._unreached(pause, error)
            else:
                if reply is not None:
                    return reply
                if failing_since is not None:
                    log.phase("waiting")
                    failing_since, pause = None, self._patience.poll_first_s
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, max(pause, self._patience.poll_cap_s))

    def _waits(self, error: Unavailable | Refused | InDoubt) -> bool:
        return self._patience.endless and _locked_out(error)

    def _unreached(self, pause: float, error: Unavailable | Refused | InDoubt) -> float:
        """Return the pause after a look or a fetch that failed: the longer it lasts, the rarer, and not all at once."""
        asked = min(_asked_for(error) or 0.0, self._patience.doubt_s)
        return max(asked, min(pause * 1.5, self._patience.unreached_cap_s)) * (1 + self._chance() / 4)

    async def _settle(self, reply: Reply, prompt: Prompt, log: CallLog) -> Reply:
        if reply.usage is None and reply.outcome != "failed":
            told = self._count(prompt.system) + self._count(prompt.user)
            reply = replace(reply, usage=Usage(told, 0, self._count(reply.text), estimated=True))
        await log.record_reply(reply)
        if log.handle:  # beside the way to the result: nobody waits for this
            task = asyncio.create_task(self._wire.forget(log.handle))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)
        return reply


def _estimate(text: str) -> int:
    return ceil(len(text.encode("utf-8", "replace")) / 2.5)


def _locked_out(error: Unavailable | Refused | InDoubt) -> bool:
    """Say whether we cannot get at the provider at all: the network, or a key that is not taken any more."""
    return error.kind == "unreachable" or (isinstance(error, Rejected) and error.status == 401)


def _left(error: Unavailable | Refused) -> bool:
    """Say whether the words may have left, although nothing was accepted: then they are on the receipt."""
    return isinstance(error, Rejected) if isinstance(error, Refused) else not error.stayed


def _asked_for(error: Unavailable | Refused | InDoubt) -> float | None:
    return error.retry_after if isinstance(error, Unavailable) else None
