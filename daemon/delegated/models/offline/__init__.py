"""The model that asks nobody: it reads the trace and the code in the prompt, by rules, on this machine.

It says only what these show, and proposes an edit only where the code proves it. It is chosen by its name; it never
stands in for another model.
"""

from __future__ import annotations

import asyncio
import json

from delegated.errors import Uncertain
from delegated.models import CallLog
from delegated.models.offline.answer import answer
from delegated.prompt import Prompt
from delegated.reply import Reply, Usage

NAME = "offline"


class Offline:
    """A `Model` without a network."""

    name = NAME
    endpoint = ""
    wire = "local"

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the reply, from the log if it is there. Reading runs in a thread: it may parse megabytes of code.

        Raises `Uncertain` where a call to a paid model has left under this log.
        """
        if log.reply is not None:
            return log.reply
        if log.in_doubt or log.response_id:
            raise Uncertain(f"a call to another model has left, and {self.name} cannot look it up")
        log.phase("asking", "reading the trace and the code; no language model is asked")
        text = json.dumps(await asyncio.to_thread(answer, prompt), ensure_ascii=True)
        reply = Reply("completed", text, NAME, text, Usage(0, 0, 0), simulated=True)
        await log.record_reply(reply)
        return reply

    async def cancel(self, log: CallLog) -> None:
        """Do nothing: there is nobody to tell."""

    async def close(self) -> None:
        """Do nothing: no connection is held."""
