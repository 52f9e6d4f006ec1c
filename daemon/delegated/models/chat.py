"""The Chat Completions wire: any compatible server, by the strictest form of answer that it takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from delegated.errors import InDoubt, Unavailable, Uncertain
from delegated.models import Posted, Trace, progress
from delegated.models.body import Answer, member, members, usage, words
from delegated.models.client import Client, is_openai
from delegated.models.meaning import Rejected
from delegated.pricing import ModelFacts
from delegated.prompt import Prompt
from delegated.reply import Outcome, Reply

Form = Literal["json_schema", "json_object", "prompt"]
LADDER: Final[tuple[Form, ...]] = ("json_schema", "json_object", "prompt")
_ABOUT_FORM: Final = ("response_format", "json_schema", "json_object", "structured output", "guided", "grammar")
_FINISHED: Final[dict[str, Outcome]] = {"length": "truncated", "content_filter": "content_filter"}


class ChatWire:
    """Carries a call by `POST /chat/completions`, in the foreground.

    The form of the answer steps down LADDER when the server says that it does not know the higher one, and stays there:
    a wire serves one endpoint and one model. With `store` (`auto`: on OpenAI's own endpoint only) a lost call can be
    found by its metadata once it has finished; without, it cannot be looked up. `temperature` is sent only when given,
    and never to a model that refuses it.
    """

    name = "chat"

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
        self._max_output_tokens = max_output_tokens
        self._temperature = temperature if facts is None or facts.takes_temperature else None
        self.stored = is_openai(client.endpoint) if store == "auto" else store
        self._form: Form = "json_schema"
        # Reasoning models refuse the old name, older servers do not know the new one.
        self._limit = "max_completion_tokens" if is_openai(client.endpoint) else "max_tokens"
        self._limit_settled = False

    @property
    def form(self) -> Form:
        """The form of answer that is asked for at present."""
        return self._form

    def key_mark(self, call_id: str) -> str:
        """Return the mark of the key by which the client calls."""
        return self._client.key_mark(call_id)

    async def prepare(self, call_id: str) -> str:
        """Nothing can be made beforehand."""
        return ""

    async def post(self, prompt: Prompt, call_id: str, handle: str) -> Posted:
        """Send the call; again in a plainer form where the server rejects the form before any work."""
        before = False
        while True:
            body, form, limit = self._body(prompt, call_id), self._form, self._limit
            try:
                answer = await self._client.call(
                    lambda sdk, timeout, body=body: sdk.chat.completions.with_raw_response.create(  # type: ignore[misc]
                        **body, timeout=timeout
                    ),
                    slow=True,
                )
            except Rejected as error:
                if not self._step_down(error, form, limit):
                    raise
                before = True
                continue
            except Unavailable as error:
                error.stayed = error.stayed and not before  # the words left in the form that was rejected
                raise
            except asyncio.CancelledError as cancelled:
                if before:
                    progress.note_before(cancelled)
                raise
            reply = read(answer)
            if reply is None:
                raise InDoubt("the provider's answer has no choices")
            return Posted(reply.response_id, reply)

    def _body(self, prompt: Prompt, call_id: str) -> dict[str, Any]:
        system = prompt.system
        body: dict[str, Any] = {"model": self.model, self._limit: self._max_output_tokens}
        if self._form == "json_schema":
            schema = {"name": "analysis", "schema": dict(prompt.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        else:
            system = f"{system}\n\n{_in_words(prompt.schema)}"
        if self._form == "json_object":
            body["response_format"] = {"type": "json_object"}
        if self._temperature is not None:
            body["temperature"] = self._temperature
        if self.stored:
            body |= {"store": True, "metadata": {"call": call_id}}
        body["messages"] = [{"role": "system", "content": system}, {"role": "user", "content": prompt.user}]
        return body

    def _step_down(self, error: Rejected, form: Form, limit: str) -> bool:
        """Change the form or limit of a body that was rejected for it, unless another call of this wire just did.

        False when it was rejected for another reason or nothing is left.
        """
        if error.status not in (400, 422):
            return False
        if error.names(*_ABOUT_FORM) and form != "prompt":
            if form == self._form:
                self._form = LADDER[LADDER.index(form) + 1]
            return True
        if error.names("max_tokens", "max_completion_tokens") and not (limit == self._limit and self._limit_settled):
            if limit == self._limit:
                self._limit = "max_tokens" if limit == "max_completion_tokens" else "max_completion_tokens"
                self._limit_settled = True
            return True
        return False

    async def fetch(self, response_id: str) -> Reply | None:
        """Get a stored completion."""
        if not self.stored:
            raise Uncertain("the answer was received but not recorded, and this provider does not keep it")
        try:
            answer = await self._client.call(
                lambda sdk, timeout: sdk.chat.completions.with_raw_response.retrieve(response_id, timeout=timeout)
            )
        except Rejected as error:
            if error.status in (404, 405, 410):
                raise Uncertain(f"the provider no longer has the answer {response_id}: {error.message}") from error
            raise
        reply = read(answer)
        if reply is None:
            raise InDoubt("the provider's stored answer has no choices")
        return reply

    async def find(self, call_id: str, handle: str) -> Posted | Trace:
        """Look for a stored completion with our call id. One that still runs is not shown."""
        answer = await self._client.call(
            lambda sdk, timeout: sdk.chat.completions.with_raw_response.list(
                metadata={"call": call_id}, limit=20, order="desc", timeout=timeout
            )
        )
        if not isinstance(answer.body.get("data"), list):
            raise InDoubt("the provider's list of completions has no completions")
        rows = members(answer.body, "data")
        for row in rows:
            # Checked here as well: a server that ignores the filter would hand us another call's answer.
            if words(member(row, "metadata"), "call") == call_id:
                reply = read(Answer(json.dumps(row), row))
                if reply is not None:
                    return Posted(reply.response_id, reply)
        return Trace.UNKNOWN if rows else Trace.ABSENT

    async def cancel(self, response_id: str) -> None:
        """Do nothing: a call in the foreground ends with its connection."""

    async def forget(self, handle: str) -> None:
        """Do nothing: there is no handle."""

    async def close(self) -> None:
        """Release the connections."""
        await self._client.close()


def read(answer: Answer) -> Reply | None:
    """Read a chat completion; None when it has neither a choice nor an error, so that nothing is known."""
    body = answer.body
    counted = usage(body, "prompt_tokens", "completion_tokens")
    outcome, text = _outcome(body)
    if outcome is None:
        return None
    return Reply(outcome, text, words(body, "model"), answer.raw, counted, words(body, "id"))


def _outcome(body: Mapping[str, Any]) -> tuple[Outcome | None, str]:
    choices = members(body, "choices")
    error = member(choices[0], "error") if choices else member(body, "error")
    if error:  # some routers answer 200 with the upstream's error inside
        return "failed", words(error, "message") or "the provider gave no reason"
    if not choices:
        return None, ""
    choice, message = choices[0], member(choices[0], "message")
    text = _text(message.get("content"))
    if words(message, "refusal"):
        return "refusal", words(message, "refusal")
    outcome = _FINISHED.get(words(choice, "finish_reason"), "completed")
    return ("empty" if outcome == "completed" and not text.strip() else outcome), text


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(words(part, "text") for part in members({"parts": content}, "parts"))


def _in_words(schema: Mapping[str, Any]) -> str:
    """Ask for the form in the prompt, where the server cannot be told otherwise."""
    return (
        "Answer with one JSON object and nothing else: no Markdown fence, no words before or after it. "
        "It must be valid against this JSON Schema:\n" + json.dumps(schema, ensure_ascii=False)
    )
