"""A model that cannot be asked now: what it answered before is still there to be read."""

from __future__ import annotations

from delegated.errors import Refused, Uncertain
from delegated.models import CallLog
from delegated.prompt import Prompt
from delegated.reply import Reply


class Refusing:
    """Stands for a model whose key is missing or that was retired. It sends nothing and fetches nothing."""

    def __init__(self, name: str, endpoint: str, wire: str, why: Refused) -> None:
        self.name = name
        self.endpoint = endpoint
        self.wire = wire
        self._why = why

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the recorded reply. Raises `Refused` where nothing is out, `Uncertain` where a call has left."""
        if log.reply is not None:
            return log.reply
        if log.in_doubt or log.response_id:
            raise Uncertain(f"a call has left and cannot be looked up now: {self._why.message}")
        raise self._why

    async def cancel(self, log: CallLog) -> None:
        """Do nothing: the provider cannot be reached without a key."""

    async def close(self) -> None:
        """Nothing to release."""
