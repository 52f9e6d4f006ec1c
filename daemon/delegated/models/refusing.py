"""A model that is asked nothing new: what has left already is still looked up, fetched and read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from delegated.errors import Refused, Uncertain
from delegated.models import CallLog, Model
from delegated.models.recorded import Patience
from delegated.prompt import Prompt
from delegated.reply import Reply

_KEYS: Final = ("missing_key", "bad_key")


class Refusing:
    """Stands for a model that cannot be reached now: no key can be had, its SDK is not there, nothing is known of it.

    A call that has left is in the provider's hands, whatever became of our key: it waits, as for a key that is not
    taken, until `again` finds the model, and goes on there. `unlock` is called before `again`, in a thread: it may run
    a program that prints the key. Without `again` nobody is waited for.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        wire: str,
        why: Refused,
        *,
        unlock: Callable[[], None] = lambda: None,
        again: Callable[[], Model] | None = None,
        patience: Patience = Patience(),  # noqa: B008 - it is frozen
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.wire = wire
        self._why = why
        self._unlock = unlock
        self._again = again
        self._patience = patience
        self._found: Model | None = None

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the reply. Raises `Refused` where nothing is out, `Uncertain` where nobody can be asked about it."""
        if log.reply is not None:
            return log.reply
        if not _out(log):
            raise self._why
        if self._again is None or self._why.kind not in _KEYS or log.sent.get("stored") is False:
            raise Uncertain(f"a call has left and cannot be looked up now: {self._why.message}")
        self._found = await self._reached(self._again, log)
        return await self._found.ask(prompt, log)

    async def _reached(self, again: Callable[[], Model], log: CallLog) -> Model:
        clock = asyncio.get_running_loop().time
        give_up = clock() + self._patience.fetch_failures_s
        pause = self._patience.poll_first_s
        while True:
            log.phase("looking up" if log.in_doubt else "out of reach", self._why.message)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, self._patience.unreached_cap_s)
            await asyncio.to_thread(self._unlock)
            model = again()
            if not isinstance(model, Refusing):
                return model
            self._why = model._why
            if not self._patience.endless and clock() >= give_up:
                raise Uncertain(f"a call has left and could not be looked up: {self._why.message}")

    async def cancel(self, log: CallLog) -> None:
        """Cancel at the model, if it could be reached since."""
        if self._found is not None:
            await self._found.cancel(log)

    async def close(self) -> None:
        """Nothing to release: what was found is closed by whoever made it."""


class Retired:
    """Stands before a model that has left the provider's API: its calls are looked up and fetched, and none is sent."""

    def __init__(self, model: Model, why: Refused) -> None:
        self.name = model.name
        self.endpoint = model.endpoint
        self.wire = model.wire
        self._model = model
        self._why = why

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the reply to a call that has left. Raises `Refused` where none has, or it is proven absent."""
        if log.reply is None and not _out(log):
            raise self._why
        return await self._model.ask(prompt, cast("CallLog", _Closed(log, self._why)))

    async def cancel(self, log: CallLog) -> None:
        """Cancel at the model behind."""
        await self._model.cancel(log)

    async def close(self) -> None:
        """Close the model behind."""
        await self._model.close()


class _Closed:
    """A call's log that takes no further send: nothing is posted that was not recorded as sent before."""

    def __init__(self, log: CallLog, why: Refused) -> None:
        self._log = log
        self._why = why

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def record_sent(self, **words: Any) -> None:
        """Refuse."""
        raise self._why


def _out(log: CallLog) -> bool:
    return bool(log.in_doubt or log.response_id)
