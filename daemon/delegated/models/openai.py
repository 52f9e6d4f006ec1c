"""The Responses wire: a call runs at the provider by itself, and one whose acceptance was lost can be found again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from delegated.errors import InDoubt, Refused, Unavailable, Uncertain
from delegated.models import Posted, Trace, progress
from delegated.models.body import Answer, member, members, usage, words
from delegated.models.client import Client
from delegated.models.meaning import Rejected
from delegated.pricing import ModelFacts
from delegated.prompt import Prompt
from delegated.reply import Outcome, Reply

_RUNNING: Final = ("queued", "in_progress")
_LEAST_OUTPUT: Final = 16  # fewer `max_output_tokens` the interface refuses


class ResponsesWire:
    """Carries a call by `POST /responses`, stored and in the background, inside a conversation made before it.

    The conversation is the handle: its items show what became of a send, and it refuses a second one while the first
    runs. Where the provider has no conversations, or may not store anything (`store=False`), there is no handle, the
    call runs in the foreground if it must, and a lost send cannot be looked up. `temperature` is sent only when given,
    and never to a model that refuses it.
    """

    name = "responses"

    def __init__(
        self,
        client: Client,
        model: str,
        *,
        max_output_tokens: int,
        facts: ModelFacts | None = None,
        temperature: float | None = None,
        store: bool | Literal["auto"] = "auto",
    ) -> None:
        self.model = model
        self.endpoint = client.endpoint
        self._client = client
        self._max_output_tokens = max(max_output_tokens, _LEAST_OUTPUT)
        self._temperature = temperature if facts is None or facts.takes_temperature else None
        self.stored = store is not False
        self._background = self.stored  # until the provider says that this model does not take it

    def key_mark(self, call_id: str) -> str:
        """Return the mark of the key by which the client calls."""
        return self._client.key_mark(call_id)

    async def prepare(self, call_id: str) -> str:
        """Make an empty conversation, which runs no model and costs nothing; "" where there are none."""
        if not self.stored:
            return ""
        try:
            answer = await self._client.call(
                lambda sdk, timeout: sdk.conversations.with_raw_response.create(
                    metadata={"call": call_id}, timeout=timeout
                )
            )
        except Rejected as error:
            if error.status in (404, 405, 501):
                return ""
            raise
        return words(answer.body, "id")

    async def post(self, prompt: Prompt, call_id: str, handle: str) -> Posted:
        """Send the call. One that may not run in the background is sent again to run in the foreground."""
        if self._background:
            try:
                return await self._post(prompt, call_id, handle, background=True)
            except Rejected as error:  # rejected before any work: sending again is no second send
                if error.status != 400 or not error.names("background"):
                    raise
                self._background = False
            try:
                return await self._post(prompt, call_id, handle, background=False)
            except Unavailable as error:
                error.stayed = False  # the words left once already
                raise
            except asyncio.CancelledError as cancelled:
                progress.note_before(cancelled)
                raise
        return await self._post(prompt, call_id, handle, background=False)

    async def _post(self, prompt: Prompt, call_id: str, handle: str, *, background: bool) -> Posted:
        body: dict[str, Any] = {
            "model": self.model,
            "instructions": prompt.system,
            "input": prompt.user,
            "text": {
                "format": {"type": "json_schema", "name": "analysis", "schema": dict(prompt.schema), "strict": True}
            },
            "max_output_tokens": self._max_output_tokens,
            "store": self.stored,
        }
        if background:
            body["background"] = True
        if self.stored:
            body["metadata"] = {"call": call_id}
        if self._temperature is not None:
            body["temperature"] = self._temperature
        if handle:
            body["conversation"] = handle
        answer = await self._client.call(
            lambda sdk, timeout: sdk.responses.with_raw_response.create(**body, timeout=timeout),
            slow=not background,
        )
        response_id, reply = words(answer.body, "id"), read(answer)
        if not response_id and reply is None:
            raise InDoubt("the provider's answer has neither an id nor a reply")
        return Posted(response_id, reply)

    async def fetch(self, response_id: str) -> Reply | None:
        """Get the response; None while it runs."""
        try:
            answer = await self._client.call(
                lambda sdk, timeout: sdk.responses.with_raw_response.retrieve(response_id, timeout=timeout)
            )
        except Rejected as error:
            if error.status in (404, 410):
                raise Uncertain(f"the provider does not have the response {response_id}: {error.message}") from error
            raise
        return read(answer)

    async def find(self, call_id: str, handle: str) -> Posted | Trace:
        """Look for the model's message in the conversation. A response's id is not shown there, nor its usage."""
        if not handle:
            return Trace.UNKNOWN
        # A conversation that is gone raises: it proves nothing, least of all that the call is absent.
        answer = await self._client.call(
            lambda sdk, timeout: sdk.conversations.items.with_raw_response.list(
                handle, limit=20, order="desc", timeout=timeout
            )
        )
        if not isinstance(answer.body.get("data"), list):
            raise InDoubt("the provider's list of items has no items")
        messages = [one for one in members(answer.body, "data") if one.get("role") == "assistant"]
        said = [one for one in messages if one.get("status") != "in_progress"]
        if not said:
            return Trace.ABSENT
        outcome, text = _said(said[:1], "truncated" if said[0].get("status") == "incomplete" else "completed")
        return Posted("", Reply(outcome, text, self.model, answer.raw))

    async def cancel(self, response_id: str) -> None:
        """Stop a response that runs in the background; one that has ended or cannot be stopped is left alone."""
        with contextlib.suppress(Refused):
            await self._client.call(
                lambda sdk, timeout: sdk.responses.with_raw_response.cancel(response_id, timeout=timeout)
            )

    async def forget(self, handle: str) -> None:
        """Delete the conversation. One that is left behind costs nothing."""
        if handle:
            with contextlib.suppress(Refused, Unavailable, InDoubt):
                await self._client.call(
                    lambda sdk, timeout: sdk.conversations.with_raw_response.delete(handle, timeout=timeout)
                )

    async def close(self) -> None:
        """Release the connections."""
        await self._client.close()


def read(answer: Answer) -> Reply | None:
    """Read a response object; None while it runs. Every end has a name: none of them is a success without words."""
    body = answer.body
    status = words(body, "status")
    counted = usage(body, "input_tokens", "output_tokens")
    if status in _RUNNING or not (status or body.get("output")):
        return None
    outcome, text = _outcome(body, status)
    return Reply(outcome, text, words(body, "model"), answer.raw, counted, words(body, "id"))


def _outcome(body: Mapping[str, Any], status: str) -> tuple[Outcome, str]:
    messages = [one for one in members(body, "output") if one.get("type") == "message"]
    if status == "failed":
        error = member(body, "error")
        return "failed", words(error, "message") or words(error, "code") or "the provider gave no reason"
    if status == "cancelled":
        return "cancelled", _said(messages, "cancelled")[1]
    if status == "incomplete":
        reason = words(member(body, "incomplete_details"), "reason")
        return _said(messages, "content_filter" if reason == "content_filter" else "truncated")
    return _said(messages, "completed")


def _said(messages: Sequence[Mapping[str, Any]], outcome: Outcome) -> tuple[Outcome, str]:
    parts = [part for message in messages for part in members(message, "content")]
    text = "".join(words(part, "text") for part in parts if part.get("type") == "output_text")
    refusal = "\n".join(words(part, "refusal") for part in parts if part.get("type") == "refusal")
    if refusal:
        return "refusal", refusal
    if outcome == "completed" and not text.strip():
        return "empty", text
    return outcome, text
