"""What a failed call means for money: surely not accepted, refused for good, or in doubt."""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from delegated.errors import InDoubt, Refused, Unavailable
from delegated.models import progress
from delegated.models.body import member, words

_MESSAGE_LIMIT: Final = 600


class Rejected(Refused):
    """The provider answered, and its status says that it accepted nothing; with the details that a wire acts on."""

    def __init__(self, kind: str, message: str, *, status: int, code: str = "", param: str = "") -> None:
        super().__init__(kind, message)
        self.status = status
        self.code = code
        self.param = param

    def names(self, *words: str) -> bool:
        """Say whether the refusal is about one of these parameters."""
        return any(word in self.param or word in self.message for word in words)


# -- what the status says --

_QUOTA: Final = (
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
    "linked_organization_spend_limit_reached",
)
_SPENT: Final = re.compile(r"credit balance is too low|reached your specified .{0,20}API usage limits")
_OVERLOADED: Final = 529
_RETIRED: Final = re.compile(r"deprecated|retired|decommissioned|shut ?down|no longer (?:available|supported)", re.I)
# A status by which a server says that it did not do what it was asked. All others, and all of the 5xx but "I do not
# know how", leave it open.
_NOT_ACCEPTED: Final = frozenset(
    (400, 401, 402, 403, 404, 405, 406, 410, 411, 413, 414, 415, 417, 421, 422, 426, 428, 431, 451, 501, 505)
)
_REDIRECTS: Final = frozenset((300, 301, 302, 307, 308))


def translate(error: BaseException, *, key: str = "", now: float = 0.0) -> Unavailable | Refused | InDoubt:
    """Say what an error of the SDK means for a call that may cost money.

    `key` is removed from the message; `now` is used for a Retry-After that is a date, in seconds since the epoch.
    """
    status = getattr(error, "status_code", None)
    response = getattr(error, "response", None)
    if isinstance(status, int) and response is not None:
        return _of_status(error, status, response.headers, key, now)
    if isinstance(error, UnicodeEncodeError):
        return Refused("bad_request", f"the prompt holds a character that cannot be sent ({_clean(str(error), key)})")
    cause = error.__cause__ or error
    what = _clean(f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__, key)
    sent = progress.of(error)
    if _never_sent(cause) or (sent is not None and not sent.begun):
        return Unavailable("unreachable", f"the endpoint cannot be reached ({what})", stayed=True)
    if sent is not None and sent.cut:
        return Unavailable("unreachable", f"the connection broke before the request was sent whole ({what})")
    return InDoubt(f"the connection failed after the request was sent ({what})")


def _never_sent(cause: BaseException) -> bool:
    import httpx2

    never = (
        httpx2.ConnectError,  # refused, no route, DNS, TLS
        httpx2.ConnectTimeout,
        httpx2.PoolTimeout,
        httpx2.ProxyError,
        httpx2.UnsupportedProtocol,
        httpx2.InvalidURL,
        ssl.SSLCertVerificationError,
    )
    return isinstance(cause, never)


def _of_status(
    error: BaseException, status: int, headers: Mapping[str, str], key: str, now: float
) -> Unavailable | Refused | InDoubt:
    body = getattr(error, "body", None)
    details: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    details = member(details, "error") or details  # Anthropic's SDK hands out the whole body
    code = words(details, "code") or words(member(details, "details"), "error_code")
    param, kind = words(details, "param"), words(details, "type")
    said = details.get("message") or details.get("detail") or body
    told = isinstance(said, str) and said and not said.lstrip().startswith("<")  # a proxy's page says nothing
    message = _clean(f"HTTP {status}: {said}" if told else f"HTTP {status}", key)
    spent = status in (400, 429) and (code in _QUOTA or kind in _QUOTA or _SPENT.search(message) is not None)
    if status == 402 or spent:
        return Unavailable("quota_exhausted", message, retry_after=retry_after(headers, now))
    # Of its errors only this one says that the request was turned down before any work, and those that fail are not
    # charged for. A 500 or 504 may come after the work, and a 5xx of another server says nothing of the kind.
    if status == 429 or (status == _OVERLOADED and kind == "overloaded_error"):
        return Unavailable("rate_limited", message, retry_after=retry_after(headers, now))
    if status in _REDIRECTS:
        place = _clean(headers.get("location", "elsewhere"), key)
        return Rejected("bad_request", f"the endpoint redirects to {place}: configure that one", status=status)
    if status in _NOT_ACCEPTED and code != "conversation_locked":
        return Rejected(_refusal(status, code, param, message), message, status=status, code=code, param=param)
    return InDoubt(message)


def _refusal(status: int, code: str, param: str, message: str) -> str:
    if status == 401 or (status == 403 and not code.startswith("unsupported_country")):
        return "bad_key"
    if code == "invalid_api_key":
        return "bad_key"
    about_model = code in ("model_not_found", "invalid_model") or param == "model"
    if about_model or (status in (404, 410) and "model" in message.lower()):
        return "retired_model" if _RETIRED.search(message) else "unknown_model"
    return "bad_request"


_SECRETS: Final = re.compile(r"\b(?:sk|pk|rk|key|gsk|xai)-[\w*.…-]{4,}|(?i:\bbearer)\s+\S+|\S*\*{3,}\S*")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def _clean(text: str, key: str) -> str:
    """Return a provider's message fit for a log and a RESULT: on one line, not long, and without any of the key.

    Providers quote the key with its middle masked, so its beginning alone is enough to go.
    """
    text = _CONTROLS.sub(" ", text[: 2 * _MESSAGE_LIMIT])  # first cut, then searched: the patterns are not linear
    if len(key) >= 8:
        text = re.sub(re.escape(key[:6]) + r"[^\s\"'<>,;)]*", "[key]", text)
    text = _SECRETS.sub("[key]", text).strip()
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"


# -- what the headers say --

_NUMBER: Final = r"(\d+(?:\.\d+)?)"
_DURATION: Final = re.compile("".join(f"(?:{_NUMBER}{unit})?" for unit in ("d", "h", "m(?!s)", "s", "ms")))
_UNITS: Final = (86400.0, 3600.0, 60.0, 1.0, 0.001)


def duration(text: str) -> float | None:
    """Read a rate-limit header's time span (`120ms`, `6m0s`, `1s`, or plain seconds); None for -1 and all else."""
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        found = _DURATION.fullmatch(text)
        if not text or found is None:
            return None
        seconds = sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds to wait, the longest that any header asks for; None when none does."""
    waits = [_after(headers.get("retry-after", ""), headers.get("date", ""), now)]
    milliseconds = duration(headers.get("retry-after-ms", ""))
    waits.append(milliseconds / 1000 if milliseconds is not None else None)
    for name in ("requests", "tokens", "project-tokens"):
        # The reset is when the whole limit is back: of a limit that is not used up it says hours, and means nothing.
        if headers.get(f"x-ratelimit-remaining-{name}", "0").strip() in ("0", "-1", ""):
            waits.append(duration(headers.get(f"x-ratelimit-reset-{name}", "")))
    return max((wait for wait in waits if wait is not None), default=None)


def _after(text: str, date: str, now: float) -> float | None:
    seconds = duration(text)
    if seconds is not None or not text:
        return seconds
    moment = _moment(text)
    if moment is None:
        return None
    server_now = _moment(date)  # its own clock, where it tells: ours may be wrong
    return max(0.0, moment - (server_now if server_now is not None else now))


def _moment(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
