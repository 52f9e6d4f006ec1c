"""What a provider refuses before it accepts: each wrong request with the status and code of the live service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from delegated.testing.faults import ERRORS, error_body
from delegated.testing.objects import dump


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the server knows of a model: the name it reports, when it leaves, whether it is a reasoning model."""

    snapshot: str = ""
    shutdown_date: str | None = None
    reasoning: bool = False


MODELS: Final[Mapping[str, ModelCard]] = {
    "gpt-4o": ModelCard("gpt-4o-2024-08-06", "2027-01-14"),
    "gpt-4o-2024-08-06": ModelCard(shutdown_date="2027-01-14"),
    "gpt-4o-mini": ModelCard("gpt-4o-mini-2024-07-18"),
    "gpt-6-luna": ModelCard(reasoning=True),
    "gpt-6.1-sol": ModelCard(reasoning=True),
    "gpt-6-astra": ModelCard(reasoning=True),
    "claude-sonnet-5-5": ModelCard(),
    "claude-haiku-5-5": ModelCard(),
    "claude-opus-5-5": ModelCard(),
}

_LIMITS: Final = {"responses": "max_output_tokens", "chat": "max_completion_tokens", "messages": "max_tokens"}
_ANTHROPIC_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_ANTHROPIC_MOST: Final = 128_000  # tokens of one answer
_ANTHROPIC_VERSIONS: Final = ("2023-06-01", "2026-10-21")
_ANTHROPIC_LACKS: Final = frozenset(
    {"temperature", "top_p", "top_k", "response_format", "input", "instructions", "store", "background"}
)


class Refusal(Exception):
    """The request is refused; nothing took effect."""

    def __init__(self, status: int, kind: str, code: str | None, param: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.message = status, kind, code, param, message
        self.headers: dict[str, str] = {}

    def body(self, *, anthropic: bool) -> bytes:
        """Write it in the form of the protocol that was spoken."""
        if anthropic:
            return anthropic_error(self.status, self.message)
        return error_body(self.kind, self.code, self.param, self.message)


def named(name: str, message: str = "") -> Refusal:
    """Make the refusal that `ERRORS` lists under this name."""
    status, kind, code, param, text = ERRORS[name]
    return Refusal(status, kind, code, param, message or text)


def missing(noun: str, name: str) -> Refusal:
    """Make the refusal for a thing that is not stored."""
    return Refusal(404, "invalid_request_error", None, None, f"{noun} with id '{name}' not found.")


def invalid(message: str, param: str | None = None, code: str | None = None) -> NoReturn:
    """Refuse with 400."""
    raise Refusal(400, "invalid_request_error", code, param, message)


def anthropic_error(status: int, message: str) -> bytes:
    """Write an error in Anthropic's shape."""
    kind = _ANTHROPIC_KINDS.get(status, "api_error")
    return dump({"type": "error", "error": {"type": kind, "message": message}, "request_id": None})


def read_object(body: bytes) -> dict[str, Any] | None:
    """Read a JSON object; None when it is anything else."""
    try:
        value = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def check_paid(wire: str, body: Mapping[str, Any], models: Mapping[str, ModelCard]) -> None:
    """Check what the three paid requests have in common. Raises `Refusal`."""
    name = body.get("model")
    if not isinstance(name, str):
        _lacks("model")
    if name not in models:
        raise named("model_not_found", f"The model `{name}` does not exist or you do not have access to it.")
    if body.get("stream"):
        invalid("Streaming is not simulated by this server.", "stream", "unsupported_value")
    if models[name].reasoning:
        for parameter in ("temperature", "top_p", *(["max_tokens"] if wire == "chat" else [])):
            if body.get(parameter) is not None:
                message = f"Unsupported parameter: '{parameter}' is not supported with this model."
                invalid(message, parameter, "unsupported_parameter")
    if wire == "messages":
        _check_message(body)
    else:
        check_metadata(body.get("metadata"))
    _check_limit(_LIMITS[wire], body)
    if wire == "responses":
        _check_response(body)
    elif not isinstance(body.get("messages"), list) or not body["messages"]:
        _lacks("messages")


def _check_response(body: Mapping[str, Any]) -> None:
    given = body.get("input")
    if body.get("background") and body.get("store") is False:
        invalid("Background mode requires 'store' to be true.", "background")
    if not isinstance(given, str | list) and not body.get("conversation"):
        _lacks("input")
    if isinstance(given, list) and not all(isinstance(item, dict) for item in given):
        invalid("Invalid type for 'input': expected objects.", "input", "invalid_type")


def _check_message(body: Mapping[str, Any]) -> None:
    for name, kinds in (("system", str | list), ("metadata", dict), ("output_config", dict)):
        if name in body and not isinstance(body[name], kinds):
            invalid(f"{name}: Input should be a valid {'dictionary' if kinds is dict else 'string or list'}", name)
    for name in sorted(_ANTHROPIC_LACKS & body.keys()):
        invalid(f"{name}: Extra inputs are not permitted", name)
    if extra := sorted(set(body.get("metadata") or {}) - {"user_id"}):
        invalid(f"metadata.{extra[0]}: Extra inputs are not permitted", "metadata")
    most = body.get("max_tokens")
    if isinstance(most, int) and most > _ANTHROPIC_MOST:
        invalid(f"max_tokens: {most} > {_ANTHROPIC_MOST}, which is the maximum allowed for this model", "max_tokens")


def check_version(given: str | None) -> None:
    """Check the version of the interface that Anthropic has each request name. Raises `Refusal`."""
    if given is None:
        invalid("anthropic-version: header is required")
    if given not in _ANTHROPIC_VERSIONS:
        invalid(f'anthropic-version: "{given}" is not a valid version.')


def _check_limit(name: str, body: Mapping[str, Any]) -> None:
    value, least = body.get(name), 16 if name == "max_output_tokens" else 1
    if value is None and name == "max_tokens":
        _lacks(name)
    if value is not None and (not isinstance(value, int) or value < least):
        message = f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {value!r}."
        invalid(message, name, "integer_below_min_value")


def _lacks(name: str) -> NoReturn:
    invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def check_metadata(metadata: Any) -> None:
    """Check metadata: at most 16 pairs, keys of at most 64 and values of at most 512 characters."""
    if metadata is None:
        return
    if not isinstance(metadata, dict) or len(metadata) > 16:
        invalid("Invalid 'metadata': an object with at most 16 properties is expected.", "metadata")
    for name, value in metadata.items():
        if not isinstance(value, str) or len(value) > 512 or len(name) > 64:
            message = "keys have at most 64 characters, values are strings of at most 512."
            invalid(f"Invalid 'metadata.{name[:64]}': {message}", f"metadata.{name[:64]}")


def schema_asked(wire: str, body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """Return the form of answer that is asked for (`text`, `json_object`, `json_schema`) and its schema, checked."""
    holder = {"responses": "text", "messages": "output_config"}.get(wire)
    outer: Any = body.get(holder) if holder else {"format": body.get("response_format")}
    form = outer.get("format") if isinstance(outer, dict) else None
    if not isinstance(form, dict):
        return "text", None
    kind = str(form.get("type", "text"))
    if kind != "json_schema":
        return kind, None
    inner = form.get("json_schema") if wire == "chat" else form
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or not isinstance(schema, dict):
        _lacks("schema")
    strict = wire == "messages" or inner.get("strict")
    if strict and (problem := strict_problem(schema, all_required=wire != "messages")):
        message = f"Invalid schema for response_format '{inner.get('name', '')}': {problem}"
        invalid(message, "schema", "invalid_json_schema")
    return kind, schema


def strict_problem(schema: Any, where: str = "()", depth: int = 0, *, all_required: bool = True) -> str:
    """Say why a schema is refused under `strict`, as the live service does; "" when it is fine.

    Every object must set `additionalProperties: false` and, with `all_required`, require each of its properties.
    """
    if not isinstance(schema, Mapping):
        return ""
    if depth > 30:
        return f"In context={where}, the schema is nested too deeply."
    properties = schema.get("properties") or {}
    if schema.get("type") == "object" or properties:
        if schema.get("additionalProperties") is not False:
            return f"In context={where}, 'additionalProperties' is required to be supplied and to be false."
        if all_required and (lacking := sorted(set(properties) - set(schema.get("required") or ()))):
            return (
                f"In context={where}, 'required' is required to be supplied and to be an array including every key "
                f"in properties. Missing '{lacking[0]}'."
            )
    parts = [(f"properties.{name}", part) for name, part in properties.items()]
    parts += [(f"$defs.{name}", part) for name, part in (schema.get("$defs") or {}).items()]
    parts += [(f"anyOf.{number}", part) for number, part in enumerate(schema.get("anyOf") or ())]
    parts += [("items", schema["items"])] if "items" in schema else []
    problems = (strict_problem(part, f"{where}.{step}", depth + 1, all_required=all_required) for step, part in parts)
    return next((problem for problem in problems if problem), "")
