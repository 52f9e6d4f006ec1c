"""What can go wrong with one request, and the words in which a provider says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Final, Literal, get_args

Outcome = Literal["completed", "refusal", "max_output_tokens", "content_filter", "failed", "cancelled", "empty"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

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
    "site_overloaded": (529, "server_error", None, None, "Overloaded"),
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
    529: "site_overloaded",
}


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
            return self.bill
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
