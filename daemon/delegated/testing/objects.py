"""How an accepted call looks from outside, in each of the three protocols."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any, Final

from delegated.testing.faults import Outcome
from delegated.testing.simulated import NOTICE

REFUSAL: Final = f"I'm sorry, I can't help with that. ({NOTICE})"


@dataclass(slots=True)
class Run:
    """One accepted call. Times are seconds since the epoch; `done_at` is None while only a release ends it."""

    id: str
    wire: str
    model: str
    reported: str
    created_at: float
    done_at: float | None
    outcome: Outcome
    text: str
    prompt_bytes: int
    asked: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    conversation: str = ""
    background: bool = False
    store: bool = False
    lag: float = 0.0
    usage: Any = ""
    cancelled: bool = False
    deleted: bool = False

    def finished(self, now: float) -> bool:
        """True once it ended, in whatever way."""
        return self.cancelled or (self.done_at is not None and now >= self.done_at)

    def shown(self, now: float) -> bool:
        """True once the look-ups show it: `lag` seconds after its end."""
        return self.finished(now) and (self.done_at is None or now >= self.done_at + self.lag)

    def state(self, now: float) -> str:
        """Return its status in the words of the Responses interface."""
        if self.cancelled:
            return "cancelled"
        if not self.finished(now):
            return "in_progress"
        if self.outcome in ("max_output_tokens", "content_filter"):
            return "incomplete"
        return self.outcome if self.outcome in ("failed", "cancelled") else "completed"

    def said(self) -> str:
        """Return the words of the answer as this outcome leaves them."""
        if self.outcome == "refusal":
            return REFUSAL
        if self.outcome == "max_output_tokens":
            limit = _token_limit(self.asked)
            return self.text[: min(limit * 4 if limit else len(self.text), ceil(len(self.text) / 2))]
        return self.text if self.outcome == "completed" else ""

    def tokens(self) -> tuple[int, int]:
        """Return the input and output tokens: bytes / 4, rounded up."""
        return ceil(self.prompt_bytes / 4), ceil(len(self.said().encode()) / 4)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data; `Run(**data)` reads it back."""
        return asdict(self)


def _token_limit(asked: Mapping[str, Any]) -> int:
    for name in ("max_output_tokens", "max_completion_tokens", "max_tokens"):
        if isinstance(asked.get(name), int):
            return int(asked[name])
    return 0


def natural_outcome(outcome: Outcome, text: str, asked: Mapping[str, Any]) -> Outcome:
    """Return `max_output_tokens` where a completed answer is longer than the request allows."""
    limit = _token_limit(asked)
    return "max_output_tokens" if outcome == "completed" and limit and len(text) > limit * 4 else outcome


def prompt_text(body: Mapping[str, Any]) -> str:
    """Return all words that a request shows the model, in any of the protocols, joined by newlines."""
    parts = (body.get(name) for name in ("instructions", "system", "input", "messages"))
    return "\n".join(text for part in parts for text in _words(part))


def _words(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, list):
        for one in part:
            yield from _words(one)
    elif isinstance(part, Mapping):
        for name in ("content", "text"):
            yield from _words(part.get(name))


def response_object(run: Run, now: float, *, queued: bool = False) -> dict[str, Any]:
    """Return the run as a `response` object; `queued` for the answer that accepts a background call."""
    status = "queued" if queued else run.state(now)
    finished = status not in ("queued", "in_progress")
    asked = run.asked
    return {
        "id": run.id,
        "object": "response",
        "created_at": int(run.created_at),
        "status": status,
        "background": run.background,
        "completed_at": int(run.done_at or now) if status == "completed" else None,
        "conversation": {"id": run.conversation} if run.conversation else None,
        "error": {"code": "server_error", "message": f"The model failed. ({NOTICE})"} if status == "failed" else None,
        "incomplete_details": {"reason": run.outcome} if status == "incomplete" else None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "max_tool_calls": None,
        "metadata": run.metadata,
        "model": run.reported,
        "output": [output_message(run)] if status in ("completed", "incomplete") and run.said() else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": run.store,
        "temperature": asked.get("temperature", 1.0),
        "text": asked.get("text") or {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": asked.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": _response_usage(run) if finished and status in ("completed", "incomplete") else None,
        "user": None,
    }


def output_message(run: Run) -> dict[str, Any]:
    """Return the assistant's message of a finished run, as it stands in a response and in its conversation."""
    if run.outcome == "refusal":
        part: dict[str, Any] = {"type": "refusal", "refusal": run.said()}
    else:
        part = {"type": "output_text", "text": run.said(), "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{run.id.removeprefix('resp_')}",
        "type": "message",
        "role": "assistant",
        "status": "incomplete" if run.outcome in ("max_output_tokens", "content_filter") else "completed",
        "content": [part],
    }


def input_messages(run_id: str, given: Any) -> list[dict[str, Any]]:
    """Return a response's input as the items that its conversation keeps."""
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())
    items = []
    for number, message in enumerate(messages):
        content = message.get("content", "")
        items.append(
            {
                "id": f"msg_in{number}_{run_id.removeprefix('resp_')}",
                "type": "message",
                "role": message.get("role", "user"),
                "status": "completed",
                "content": [{"type": "input_text", "text": content}] if isinstance(content, str) else content,
            }
        )
    return items


def _response_usage(run: Run) -> Any:
    if run.usage != "":
        return run.usage
    told, said = run.tokens()
    return {
        "input_tokens": told,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": told + said,
    }


_CHAT_FINISH: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}


def completion_object(run: Run) -> dict[str, Any]:
    """Return a finished run as a `chat.completion` object."""
    told, said = run.tokens()
    refused = run.outcome == "refusal"
    usage: Any = {
        "prompt_tokens": told,
        "completion_tokens": said,
        "total_tokens": told + said,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    return {
        "id": run.id,
        "object": "chat.completion",
        "created": int(run.created_at),
        "model": run.reported,
        "metadata": run.metadata,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None if refused else run.said(),
                    "refusal": run.said() if refused else None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": _CHAT_FINISH.get(run.outcome, "stop"),
            }
        ],
        "usage": usage if run.usage == "" else run.usage,
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }


_ANTHROPIC_STOP: Final = {"max_output_tokens": "max_tokens", "refusal": "refusal", "content_filter": "refusal"}


def _stop_details(run: Run) -> dict[str, Any] | None:
    if run.outcome != "refusal":
        return None
    return {"type": "refusal", "category": None, "explanation": REFUSAL}


def message_object(run: Run) -> dict[str, Any]:
    """Return a finished run as Anthropic's `message` object."""
    told, said = run.tokens()
    usage: Any = {
        "input_tokens": told,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": said,
    }
    return {
        "id": run.id,
        "type": "message",
        "role": "assistant",
        "model": run.reported,
        "content": [{"type": "text", "text": run.said()}] if run.said() else [],
        "stop_reason": _ANTHROPIC_STOP.get(run.outcome, "end_turn"),
        "stop_details": _stop_details(run),
        "stop_sequence": None,
        "usage": usage if run.usage == "" else run.usage,
    }


def conversation_object(name: str, created_at: float, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return a `conversation` object."""
    return {"id": name, "object": "conversation", "created_at": int(created_at), "metadata": metadata}


def model_object(name: str, shutdown_date: str | None) -> dict[str, Any]:
    """Return a `model` object."""
    said = {"id": name, "object": "model", "created": 1715367049, "owned_by": "system"}
    return {**said, "shutdown_date": shutdown_date}


def model_info(name: str, shutdown_date: str | None) -> dict[str, Any]:
    """Return a model as Anthropic describes one."""
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2026-05-01T00:00:00Z",
        "lifecycle": "deprecated" if shutdown_date else "active",
        "retires_at": f"{shutdown_date}T00:00:00Z" if shutdown_date else None,
    }


def listing(items: list[dict[str, Any]], query: Mapping[str, str], *, newest_first: bool) -> dict[str, Any]:
    """Return a page of `items` (oldest first) as a `list` object, as `order`, `after` and `limit` ask."""
    order = query.get("order") or ("desc" if newest_first else "asc")
    rows = items[::-1] if order == "desc" else items
    if after := query.get("after"):
        place = next((number for number, row in enumerate(rows) if row["id"] == after), len(rows))
        rows = rows[place + 1 :]
    limit = query.get("limit", "")
    page = rows[: min(max(int(limit), 1), 100) if limit.isdecimal() else 20]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": len(rows) > len(page),
    }


def dump(value: Any) -> bytes:
    """Write JSON data as the bytes of a body."""
    return json.dumps(value, separators=(",", ":")).encode()
