"""Which request goes wrong, and how: rules read from JSON, counted as requests match them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from email.utils import formatdate
from fnmatch import fnmatchcase
from math import inf
from typing import Any, Final, Literal

Outcome = Literal["completed", "refusal", "max_output_tokens", "content_filter", "failed", "cancelled", "empty"]
OUTCOMES: Final = ("completed", "refusal", "max_output_tokens", "content_filter", "failed", "cancelled", "empty")

#: Errors by name, as the live service words them: HTTP status, error type, code, param, message.
ERRORS: Final[dict[str, tuple[int, str, str | None, str | None, str]]] = {
    "background_unsupported": (
        400,
        "invalid_request_error",
        "unsupported_parameter",
        "background",
        "Unsupported parameter: 'background' is not supported with this model.",
    ),
    "format_unsupported": (
        400,
        "invalid_request_error",
        "unsupported_parameter",
        "response_format",
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
    ),
    "context_length_exceeded": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "input",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
    ),
    "bad_key": (401, "invalid_request_error", "invalid_api_key", None, "Incorrect API key provided: sk-*****."),
    "payment_required": (402, "insufficient_quota", "insufficient_quota", None, "Insufficient credits."),
    "forbidden": (
        403,
        "invalid_request_error",
        "unsupported_country_region_territory",
        None,
        "Country, region, or territory not supported",
    ),
    "model_not_found": (
        404,
        "invalid_request_error",
        "model_not_found",
        "model",
        "The model does not exist or you do not have access to it.",
    ),
    "not_found": (404, "invalid_request_error", None, None, "Not found"),
    "request_timeout": (408, "invalid_request_error", None, None, "Request timed out."),
    "conflict": (409, "invalid_request_error", None, None, "The resource was modified concurrently."),
    "unprocessable": (422, "invalid_request_error", None, None, "Unprocessable entity."),
    "rate_limited": (429, "requests", "rate_limit_exceeded", None, "Rate limit reached for requests per min (RPM)."),
    "insufficient_quota": (
        429,
        "insufficient_quota",
        "insufficient_quota",
        None,
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "billing_hard_limit_reached": (
        429,
        "invalid_request_error",
        "billing_hard_limit_reached",
        None,
        "Billing hard limit has been reached.",
    ),
    "server_error": (
        500,
        "server_error",
        None,
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
    "bad_gateway": (502, "server_error", None, None, "Bad gateway."),
    "overloaded": (503, "server_error", None, None, "The engine is currently overloaded, please try again later."),
    "gateway_timeout": (504, "server_error", None, None, "Gateway timeout."),
}

_NAME_OF_STATUS: Final = {
    401: "bad_key",
    402: "payment_required",
    403: "forbidden",
    404: "not_found",
    408: "request_timeout",
    409: "conflict",
    422: "unprocessable",
    429: "rate_limited",
    500: "server_error",
    502: "bad_gateway",
    503: "overloaded",
    504: "gateway_timeout",
}


class BadRule(ValueError):
    """A rule that cannot be used; the message says which key, and what would be right."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request. Everything left alone behaves as a healthy server would.

    `bill` says whether the request is carried out (and billed, if it is a paid one) before the fault shows; None means
    the natural thing: carried out if it is answered with a status below 400, else not.
    """

    bill: bool | None = None
    # the answer on the wire
    error: str = ""
    status: int | None = None
    body: Any = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    retry_after_date: float | None = None
    latency: float = 0.0
    reset: str | int = ""
    stall: str = ""
    cut: int | None = None
    # the answer in substance
    outcome: Outcome = "completed"
    text: str | None = None
    answer: Any = None
    model: str = ""
    usage: Any = ""
    run: float | None = None
    lag: float = 0.0
    absent: bool = False
    unlocked: bool = False
    # the world outside
    kill: int = 0
    kill_pid_file: str = ""
    signal: str = "KILL"
    touch: str = ""

    @property
    def at_head(self) -> bool:
        """True when it strikes before the body was read, so that nothing of the body can decide about it."""
        return self.reset == "before_body" or isinstance(self.reset, int)

    @property
    def replaces_answer(self) -> bool:
        """True when the client does not get the answer that the server would give."""
        return bool(self.error or self.status or self.reset or self.stall or self.body is not None)

    @property
    def carried_out(self) -> bool:
        """True when the request takes effect, and a paid one is billed."""
        if self.bill is not None:
            return self.bill and not self.at_head
        if self.reset in ("", "mid_answer") and self.stall in ("", "headers"):
            return self.http_status < 400
        return False

    @property
    def silent(self) -> bool:
        """True when the client is told nothing at all; a client that is killed never reads an answer."""
        killed = bool(self.kill or self.kill_pid_file) and self.signal == "KILL"
        return killed or self.at_head or self.reset == "after_body" or self.stall == "silent"

    @property
    def http_status(self) -> int:
        """The status that the client is shown, 200 when the fault sets none."""
        return self.status or (ERRORS[self.error][0] if self.error else 200)

    def answer_headers(self, now: float) -> dict[str, str]:
        """Build the extra headers; an HTTP date is counted from `now`, in seconds since the epoch."""
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["retry-after"] = f"{self.retry_after:.15g}"
        if self.retry_after_date is not None:
            headers["retry-after"] = formatdate(now + self.retry_after_date, usegmt=True)
        return headers

    def answer_body(self) -> bytes | None:
        """Build the body that replaces the server's own; None to keep that."""
        if self.body is not None:
            return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()
        if self.http_status < 400:
            return None
        _, kind, code, param, message = ERRORS[self.error or _NAME_OF_STATUS.get(self.http_status, "server_error")]
        return error_body(kind, code, param, message)


def error_body(kind: str, code: str | None, param: str | None, message: str) -> bytes:
    """Write an error in OpenAI's shape."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


NONE: Final = Fault()


@dataclass(slots=True)
class Rule:
    """A fault, the requests that it is for, and how many of them it has seen and struck.

    It strikes the `at`-th matching request (from 1) and the `times - 1` after it.
    """

    fault: Fault
    match: Mapping[str, Any]
    at: int = 1
    times: float = 1
    seen: int = 0
    struck: int = 0

    def takes(self, method: str, path: str, body: Mapping[str, Any] | None, text: str) -> bool:
        """Count a request that matches; True when the fault strikes it."""
        if not self._matches(method, path, body, text):
            return False
        self.seen += 1
        strikes = self.at <= self.seen < self.at + self.times
        self.struck += strikes
        return strikes

    def _matches(self, method: str, path: str, body: Mapping[str, Any] | None, text: str) -> bool:
        match = self.match
        if match.get("method", method) != method or not fnmatchcase(path, match.get("path", "*")):
            return False
        if "contains" in match and match["contains"] not in text:
            return False
        return all(_at_path(body, dotted) == wanted for dotted, wanted in match.get("body", {}).items())


def _at_path(body: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        body = body.get(name) if isinstance(body, Mapping) else None
    return body


class Rules:
    """The rules in force. The first that strikes decides; every rule counts the requests that match it."""

    def __init__(self, rules: list[Rule] | None = None) -> None:
        self._rules = rules or []

    def __len__(self) -> int:
        return len(self._rules)

    def at_head(self, method: str, path: str) -> Fault | None:
        """Return the fault that strikes before the body is read, if any."""
        return self._first(True, method, path, None, "")

    def at_end(self, method: str, path: str, body: Mapping[str, Any] | None, text: str) -> Fault | None:
        """Return the fault that strikes once the whole request is there, if any; `text` is the prompt."""
        return self._first(False, method, path, body, text)

    def _first(self, head: bool, method: str, path: str, body: Mapping[str, Any] | None, text: str) -> Fault | None:
        struck = [
            rule.fault for rule in self._rules if rule.fault.at_head is head and rule.takes(method, path, body, text)
        ]
        return struck[0] if struck else None

    def state(self) -> list[dict[str, Any]]:
        """Return what each rule has seen and struck, in the order of the rules."""
        return [{"match": dict(rule.match), "seen": rule.seen, "struck": rule.struck} for rule in self._rules]


def read_rules(data: Any) -> Rules:
    """Read rules from JSON data: a list of rules, or an object with the list under `rules`. Raises `BadRule`."""
    if isinstance(data, Mapping) and "rules" in data:
        data = data["rules"]
    if isinstance(data, Mapping):
        data = [data]
    if not isinstance(data, list):
        raise BadRule("rules must be a list of objects")
    return Rules([_rule(item, f"rule {number}") for number, item in enumerate(data, 1)])


_RULE_KEYS: Final = {"match", "at", "times", "do"}
_MATCH_KEYS: Final = {"method", "path", "contains", "body"}
_DO_KEYS: Final = {one.name for one in fields(Fault)}
_SECONDS: Final = ("retry_after", "retry_after_date", "latency", "lag", "run")
#: What each plain key of `do` must be, in words and as a test.
_FORMS: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    **dict.fromkeys(_SECONDS, ('a number of seconds, or "forever"', lambda value: _is_number(value) and value >= 0)),
    **dict.fromkeys(("bill", "absent", "unlocked"), ("true or false", lambda value: isinstance(value, bool))),
    **dict.fromkeys(
        ("text", "model", "kill_pid_file", "touch", "content_type"), ("a text", lambda v: isinstance(v, str))
    ),
    **dict.fromkeys(("cut", "kill"), ("a whole number", lambda value: _is_number(value) and value == int(value) >= 0)),
    "status": ("an HTTP status from 200", lambda value: isinstance(value, int) and 200 <= value <= 599),
    "headers": (
        "an object of texts",
        lambda value: isinstance(value, Mapping) and all(isinstance(one, str) for one in value.values()),
    ),
    "error": (f"one of {', '.join(ERRORS)}", lambda value: value in ERRORS),
    "outcome": (f"one of {', '.join(OUTCOMES)}", lambda value: value in OUTCOMES),
    "reset": (
        "before_body, after_body, mid_answer or a number of bytes of the body",
        lambda value: value in ("before_body", "after_body", "mid_answer") or (_is_number(value) and value >= 1),
    ),
    "stall": ("silent or headers", lambda value: value in ("silent", "headers")),
    "signal": ("the name of a signal without SIG", lambda value: hasattr(signal, f"SIG{value}")),
}


def _rule(item: Any, where: str) -> Rule:
    if not isinstance(item, Mapping):
        raise BadRule(f"{where}: must be an object")
    _only(item, _RULE_KEYS, where)
    match, do = item.get("match", {}), item.get("do")
    if not isinstance(match, Mapping) or not isinstance(do, Mapping):
        raise BadRule(f"{where}: `do` must be an object, and `match` too if it is there")
    _only(match, _MATCH_KEYS, f"{where}, match")
    fault = _fault(do, f"{where}, do")
    if fault.at_head and {"contains", "body"} & match.keys():
        raise BadRule(f"{where}: a reset before the end of the body cannot look into the body: match method and path")
    at, times = item.get("at", 1), item.get("times", 1)
    times = inf if times == "always" else times
    if not isinstance(at, int) or at < 1 or not isinstance(times, int | float) or times < 1:
        raise BadRule(f'{where}: `at` must be a number from 1, `times` a number from 1 or "always"')
    return Rule(fault, match, at, times)


def _fault(do: Mapping[str, Any], where: str) -> Fault:
    _only(do, _DO_KEYS, where)
    values = dict(do)
    for name, value in do.items():
        if value == "forever" and name in _SECONDS:
            values[name] = value = inf
        words, fits = _FORMS.get(name, ("", lambda value: True))
        if not fits(value):
            raise BadRule(f"{where}: `{name}` is {value!r}, and must be {words}")
    return Fault(**values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _only(item: Mapping[str, Any], allowed: set[str], where: str) -> None:
    if unknown := sorted(set(item) - allowed):
        raise BadRule(f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(sorted(allowed))}")
