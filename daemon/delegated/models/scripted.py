"""The model that plays from a script: canned answers for demonstrations and tests, and every reply says so."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any, Final

from delegated.errors import Refused, Uncertain
from delegated.models import CallLog
from delegated.prompt import Prompt
from delegated.reply import OUTCOMES, Outcome, Reply, Usage

_KEYS: Final = ("contains", "call", "answer", "text", "outcome", "delay_s")
_SIZE_LIMIT: Final = 16 << 20


class Scripted:
    """A `Model` that answers from a JSON file, read anew at each call, and asks nobody.

    The file holds a list of answers, or an object with such a list under `answers`. The first that fits is given:
    `contains` must stand in the prompt and `call` in the call's id (both may be left out). It says `answer` (any JSON,
    written out as the model's text) or `text` (the words as they are), with `outcome` (`completed` if left out) and
    after `delay_s` seconds. The same call always gets the same answer, so that a restart changes nothing.
    """

    endpoint = ""
    wire = "local"

    def __init__(self, path: str) -> None:
        self.name = f"scripted:{path}"
        self._path = path

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the reply, from the log if it is there.

        Raises `Refused` if the script has no usable answer, `Uncertain` where a call to a paid model has left.
        """
        if log.reply is not None:
            return log.reply
        if log.in_doubt or log.response_id:
            raise Uncertain(f"a call to another model has left, and {self.name} cannot look it up")
        log.phase("asking", "playing from a script; no language model is asked")
        words = f"{prompt.system}\n{prompt.user}"
        for entry in await asyncio.to_thread(self._read):
            if entry.get("contains", "") in words and entry.get("call", "") in log.call_id:
                break
        else:
            raise Refused("bad_request", f"{self._path} has no answer that fits this prompt")
        await asyncio.sleep(entry.get("delay_s", 0))
        text = entry["text"] if "text" in entry else json.dumps(entry["answer"])
        outcome: Outcome = entry.get("outcome", "completed")
        reply = Reply(outcome, text, self.name, text, Usage(0, 0, 0), simulated=True)
        await log.record_reply(reply)
        return reply

    async def cancel(self, log: CallLog) -> None:
        """Do nothing: there is nobody to tell."""

    async def close(self) -> None:
        """Do nothing: no connection is held."""

    def _read(self) -> list[Mapping[str, Any]]:
        try:
            with open(self._path, encoding="utf-8") as file:
                if os.fstat(file.fileno()).st_size > _SIZE_LIMIT:
                    raise ValueError(f"it is larger than {_SIZE_LIMIT} bytes")
                data = json.load(file)
            entries = data.get("answers") if isinstance(data, dict) else data
            if not isinstance(entries, list):
                raise ValueError("expected a list of answers, or an object with one under `answers`")
            for number, entry in enumerate(entries, 1):
                problem = _problem(entry)
                if problem:
                    raise ValueError(f"answer {number}: {problem}")
        except (OSError, ValueError, RecursionError) as error:
            raise Refused("bad_request", f"the script {self._path} cannot be used: {error}") from error
        return entries


def _problem(entry: Any) -> str:
    if not isinstance(entry, dict):
        return "expected an object"
    unknown = sorted(set(entry) - set(_KEYS))
    if unknown:
        return f"unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}"
    if ("answer" in entry) == ("text" in entry):
        return "expected one of `answer` and `text`"
    if not all(isinstance(entry.get(key, ""), str) for key in ("contains", "call", "text")):
        return "`contains`, `call` and `text` are texts"
    if entry.get("outcome", "completed") not in OUTCOMES:
        return f"`outcome` is one of {', '.join(OUTCOMES)}"
    delay = entry.get("delay_s", 0)
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= 86_400:
        return "`delay_s` is a number of seconds from 0 to 86400"
    return ""
