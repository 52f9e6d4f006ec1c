"""Anthropic's wire: a call runs while its connection stands, and of a lost one nobody can be asked."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from delegated.errors import InDoubt, Refused, Uncertain
from delegated.models import Posted, Trace
from delegated.models.body import Answer, member, members, number, words
from delegated.models.client import Connections, Description, day, reached
from delegated.prompt import Prompt
from delegated.reply import Outcome, Reply, Usage

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic

_MOST_OUTPUT: Final = 16_000  # tokens of an answer that comes in one piece: a longer one has to be streamed
_ENDS: Final[dict[str, Outcome]] = {
    "end_turn": "completed",
    "stop_sequence": "completed",
    "max_tokens": "truncated",
    "model_context_window_exceeded": "truncated",
    "refusal": "refusal",
}


def check_installed(model: str) -> None:
    """Refuse a model whose SDK is not there. Raises `Refused` with the command that brings it."""
    if importlib.util.find_spec("anthropic") is None:
        message = (
            f"{model} is asked with the package anthropic, which is not installed: pip install 'delegated[anthropic]' "
            "(where pipx installed delegated: pipx inject delegated 'anthropic>=2.10,<3')"
        )
        raise Refused("missing_package", message)


def preload() -> None:
    """Import what the first call would import: a second and a half of CPU. For a thread, once the watch is armed."""
    import anyio.abc
    import anyio.streams.tls  # noqa: F401
    from anthropic.resources.messages import AsyncMessages  # noqa: F401
    from anthropic.resources.models import AsyncModels  # noqa: F401


class AnthropicClient(Connections["AsyncAnthropic"]):
    """The connections of an endpoint that speaks Anthropic's interface.

    The SDK looks for endpoint, credentials, headers and tracing in its environment and in files of its own: all of
    them are given here, so that nothing but the key that was configured is read.
    """

    def _build(self) -> AsyncAnthropic:
        preload()
        import anthropic

        sdk = anthropic.AsyncAnthropic(
            api_key=self._key or "none",
            base_url=self.endpoint.removesuffix("/v1"),  # which the SDK adds itself
            max_retries=0,  # its retries would send a paid POST up to three times
            timeout=self._timeout_s,
            http_client=self._http(),
            open_telemetry={"traces": False, "propagation": False},
        )
        sdk.webhook_key = None
        sdk._custom_headers = {}  # ANTHROPIC_CUSTOM_HEADERS
        return sdk

    def _error(self) -> type[Exception]:
        import anthropic

        return anthropic.AnthropicError

    async def _end(self, sdk: AsyncAnthropic) -> None:
        await sdk.close()


class MessagesWire:
    """Carries a call by `POST /v1/messages`, in the foreground and in one piece.

    The interface stores nothing and lists nothing, so there is no handle, and a call whose answer was lost stays in
    doubt. No caching is asked for, and no temperature: the interface has none.
    """

    name = "messages"
    stored = False

    def __init__(self, client: AnthropicClient, model: str, *, max_output_tokens: int) -> None:
        self.model = model
        self.endpoint = client.endpoint
        self._client = client
        self._max_tokens = min(max_output_tokens, _MOST_OUTPUT)

    def key_mark(self, call_id: str) -> str:
        """Return the mark of the key by which the client calls."""
        return self._client.key_mark(call_id)

    async def prepare(self, call_id: str) -> str:
        """Nothing can be made beforehand."""
        return ""

    async def post(self, prompt: Prompt, call_id: str, handle: str) -> Posted:
        """Send the call."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self._max_tokens,
            "system": prompt.system,
            "messages": [{"role": "user", "content": prompt.user}],
            "output_config": {"format": {"type": "json_schema", "schema": dict(prompt.schema)}},
        }
        answer = await self._client.call(
            lambda sdk, timeout: sdk.messages.with_raw_response.create(**body, timeout=timeout), slow=True
        )
        reply = read(answer)
        if reply is None:
            raise InDoubt("the provider's answer is no message")
        return Posted(reply.response_id, reply)

    async def fetch(self, response_id: str) -> Reply | None:
        """Fail: the provider keeps no answer."""
        raise Uncertain("the answer was received but not recorded, and this provider does not keep it")

    async def find(self, call_id: str, handle: str) -> Posted | Trace:
        """Say that it cannot be known."""
        return Trace.UNKNOWN

    async def cancel(self, response_id: str) -> None:
        """Do nothing: a call in the foreground ends with its connection."""

    async def forget(self, handle: str) -> None:
        """Do nothing: there is no handle."""

    async def close(self) -> None:
        """Release the connections."""
        await self._client.close()


def read(answer: Answer) -> Reply | None:
    """Read a message; None when it has neither content nor an end, so that nothing is known."""
    body = answer.body
    reason = words(body, "stop_reason")
    if not reason and not isinstance(body.get("content"), list):
        return None
    said = "".join(words(part, "text") for part in members(body, "content") if part.get("type") == "text")
    outcome, text = _outcome(body, reason, said)
    return Reply(outcome, text, words(body, "model"), answer.raw, _usage(body), words(body, "id"))


def _outcome(body: Mapping[str, Any], reason: str, said: str) -> tuple[Outcome, str]:
    outcome = _ENDS.get(reason or "end_turn")
    if outcome is None:
        return "failed", f"the model stopped in a way that was not asked for ({reason[:40]!a})"
    if outcome == "refusal":
        return outcome, words(member(body, "stop_details"), "explanation") or said
    return ("empty" if outcome == "completed" and not said.strip() else outcome), said


def _usage(body: Mapping[str, Any]) -> Usage | None:
    """Read the tokens counted. What Anthropic calls the input is what neither came from its cache nor went there."""
    counts = member(body, "usage")
    fresh, output = number(counts, "input_tokens"), number(counts, "output_tokens")
    if fresh is None or output is None:
        return None
    cached = number(counts, "cache_read_input_tokens") or 0
    written = number(counts, "cache_creation_input_tokens") or 0
    return Usage(fresh + cached + written, cached, output, written_input_tokens=written)


async def describe(client: AnthropicClient, model: str) -> Description:
    """Ask the provider about a model, free of charge: whether key and model are good, and when it goes.

    Raises `Unavailable` or `Refused`.
    """

    async def retrieve(sdk: AsyncAnthropic, timeout: httpx2.Timeout) -> Any:
        return await sdk.models.with_raw_response.retrieve(model, timeout=timeout)

    answer, at = await reached(client, retrieve)
    return Description(words(answer.body, "id") or model, day(words(answer.body, "retires_at")), at)
