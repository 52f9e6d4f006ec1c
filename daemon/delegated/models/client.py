"""One endpoint's openai client, and what its errors mean: the only place that knows the SDK."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from delegated.errors import InDoubt, Refused, Unavailable
from delegated.reply import Usage

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

OPENAI: Final = "https://api.openai.com/v1"
_SPARE: Final = 4  # connections beside the calls': for a cancel or a look-up while every call holds one
_PIECE: Final = 64 * 1024
_MESSAGE_LIMIT: Final = 600
_PROGRESS: Final = "delegated.progress"


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


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer: the body as received, and the JSON object that it holds."""

    raw: str
    body: Mapping[str, Any]


def preload() -> None:
    """Import what the first call would import: most of a second of CPU. For a thread, once the watch is armed."""
    # The SDK's packages import their contents on first use, so the contents are named. anyio's belong to the transport.
    import anyio.abc
    import anyio.streams.tls  # noqa: F401
    from openai.resources.chat.completions import AsyncCompletions  # noqa: F401
    from openai.resources.conversations import AsyncConversations, AsyncItems  # noqa: F401
    from openai.resources.models import AsyncModels  # noqa: F401
    from openai.resources.responses import AsyncResponses  # noqa: F401


def is_openai(endpoint: str) -> bool:
    """Say whether an endpoint is OpenAI's own (`api.openai.com` or one of its regions)."""
    host = urlsplit(endpoint).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


class Client:
    """One endpoint's connections, opened at the first call. Wires may share it; closing it closes it for all of them.

    Nothing is taken from the SDK's environment variables but the proxies: a daemon's environment is not its
    configuration. `connections` is how many calls run at once. `timeout_s` is how long the provider may be silent
    over an answer, `quick_s` the same for what needs no thinking.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        timeout_s: float = 600.0,
        quick_s: float = 60.0,
        connect_s: float = 5.0,
        connections: int = 100,
        organization: str = "",
        project: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self.endpoint = base_url.rstrip("/")
        self._key = api_key
        self._timeout_s = timeout_s
        self._quick_s = min(quick_s, timeout_s)
        self._connect_s = connect_s
        self._connections = connections
        self._organization = organization
        self._project = project
        self._now = now
        self._sdk: AsyncOpenAI | None = None
        self._opening = asyncio.Lock()

    async def call(
        self, make: Callable[[AsyncOpenAI, httpx2.Timeout], Awaitable[Any]], *, slow: bool = False
    ) -> Answer:
        """Make one HTTP request by one of the SDK's `with_raw_response` methods, once, and read its body.

        `slow` is for a request whose answer is the model's. Raises `Unavailable` and `Refused` (usually `Rejected`)
        where it is certain that nothing was accepted, `InDoubt` where it is not.
        """
        sdk = await self._open()
        import httpx2
        import openai

        timeout = httpx2.Timeout(self._timeout_s if slow else self._quick_s, connect=self._connect_s)
        try:
            response = await make(sdk, timeout)
            raw: str = response.http_response.text
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, ValueError, ssl.SSLError, OSError) as error:
            # From None: the SDK's message may hold a part of the key, and a traceback would print it.
            raise translate(error, key=self._key, now=self._now()) from None
        return Answer(raw, _object(raw))

    async def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        sdk, self._sdk = self._sdk, None
        if sdk is not None:
            await sdk.close()

    async def _open(self) -> AsyncOpenAI:
        async with self._opening:
            if self._sdk is None:
                self._check_key()
                self._sdk = await asyncio.to_thread(self._build)
            return self._sdk

    def _check_key(self) -> None:
        if not self._key and is_openai(self.endpoint):
            raise Refused("missing_key", "OPENAI_API_KEY environment variable required")
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise Refused("bad_key", "the API key holds characters that no key has (a space, a line break, a quote?)")

    def _build(self) -> AsyncOpenAI:
        preload()
        import httpx2
        import openai

        http = httpx2.AsyncClient(
            base_url=self.endpoint,
            timeout=self._timeout_s,
            limits=httpx2.Limits(
                max_connections=self._connections + _SPARE,
                max_keepalive_connections=self._connections,
                keepalive_expiry=5.0,
            ),
            follow_redirects=False,  # a redirect would send a paid POST, and the code in it, to somebody else
            event_hooks={"request": [_watch]},
        )
        sdk = openai.AsyncOpenAI(
            api_key=self._key or "none",  # local servers take any; the SDK insists on one
            base_url=self.endpoint,
            max_retries=0,  # its retries would send a paid POST up to three times
            timeout=self._timeout_s,
            http_client=http,
        )
        sdk.organization = self._organization or None
        sdk.project = self._project or None
        sdk.admin_api_key = None
        sdk._custom_headers = {}  # OPENAI_CUSTOM_HEADERS would go to every endpoint alike
        return sdk


# -- what was sent --


class _Progress:
    """How far a request got: `begun` once a byte was given to the network, `cut` if the body never went out whole."""

    def __init__(self) -> None:
        self.begun = False
        self.cut = False

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Take in an event of the transport (httpcore's `trace` extension)."""
        if event.endswith(".send_request_headers.started"):
            # A proxy's CONNECT is traced like the request itself.
            self.begun = self.begun or getattr(info.get("request"), "method", b"") != b"CONNECT"
        elif event.endswith(".send_request_body.failed"):
            # A write that timed out has still been handed over, and may arrive. One that broke has not.
            self.cut = type(info.get("exception")).__name__ == "WriteError"


async def _watch(request: httpx2.Request) -> None:
    progress = _Progress()
    request.extensions = {**request.extensions, "trace": progress.note, _PROGRESS: progress}
    request.stream = _pieces()(request.content)


@functools.cache
def _pieces() -> Callable[[bytes], httpx2.AsyncByteStream]:
    """Make a stream that gives a body away piece by piece: if a write breaks, the last piece has surely not arrived."""
    import httpx2

    class Pieces(httpx2.AsyncByteStream):
        def __init__(self, body: bytes) -> None:
            self._body = body

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for start in range(0, len(self._body), _PIECE):
                yield self._body[start : start + _PIECE]

    return Pieces


# -- what went wrong --

_QUOTA: Final = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
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
    progress = _progress(error)
    if _never_sent(cause) or (progress is not None and not progress.begun):
        return Unavailable("unreachable", f"the endpoint cannot be reached ({what})")
    if progress is not None and progress.cut:
        return Unavailable("unreachable", f"the connection broke before the request was sent whole ({what})")
    return InDoubt(f"the connection failed after the request was sent ({what})")


def _progress(error: BaseException) -> _Progress | None:
    try:
        request = getattr(error, "request", None)
    except RuntimeError:  # httpx raises it for an error without a request
        return None
    found = request.extensions.get(_PROGRESS) if request is not None else None
    return found if isinstance(found, _Progress) else None


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
    code, param = (value if isinstance(value := details.get(name), str) else "" for name in ("code", "param"))
    kind = details.get("type")
    said = (
        details.get("message") or details.get("detail") or (body if isinstance(body, str) and "<" not in body else "")
    )
    message = _clean(f"HTTP {status}: {said}" if isinstance(said, str) and said else f"HTTP {status}", key)
    if status == 402 or (status == 429 and (code in _QUOTA or kind in _QUOTA)):
        return Unavailable("quota_exhausted", message, retry_after=retry_after(headers, now))
    if status == 429:
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


# -- what the headers and bodies say --

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


def _object(raw: str) -> Mapping[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise InDoubt("the provider's answer is not JSON") from None
    if not isinstance(body, dict):
        raise InDoubt("the provider's answer is not a JSON object")
    return body


def member(value: Any, name: str) -> Mapping[str, Any]:
    """Return an object's member that is an object itself, else an empty one."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def members(value: Any, name: str) -> list[Mapping[str, Any]]:
    """Return the objects in an object's list, else none."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def words(value: Any, name: str) -> str:
    """Return an object's member that is a text, else ""."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else ""


def usage(body: Mapping[str, Any], told: str, said: str) -> Usage | None:
    """Read the tokens counted; `told` and `said` name them (`input_tokens`, …). None when a server does not say."""
    counts = member(body, "usage")
    tokens_in, tokens_out = _count(counts.get(told)), _count(counts.get(said))
    if tokens_in is None or tokens_out is None:
        return None
    cached = _count(member(counts, f"{told}_details").get("cached_tokens")) or 0
    return Usage(tokens_in, min(cached, tokens_in), tokens_out)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


@dataclass(frozen=True, slots=True)
class Description:
    """What the provider says of a model; `shutdown` is YYYY-MM-DD, "" when none is announced."""

    name: str
    shutdown: str


async def describe(client: Client, model: str) -> Description:
    """Ask the provider about a model, free of charge: whether key and model are good, and when it goes.

    Raises `Unavailable` or `Refused`.
    """
    try:
        answer = await client.call(lambda sdk, timeout: sdk.models.with_raw_response.retrieve(model, timeout=timeout))
    except InDoubt as error:
        raise Unavailable("provider_failed", error.message) from error
    shutdown = words(answer.body, "shutdown_date")
    return Description(
        words(answer.body, "id") or model, shutdown if re.fullmatch(r"\d{4}-\d\d-\d\d", shutdown) else ""
    )
