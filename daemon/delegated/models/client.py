"""One endpoint's connections, and OpenAI's client on them: the only place that imports its SDK, which it does late."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

from delegated.errors import InDoubt, Refused, Unavailable
from delegated.models import progress
from delegated.models.body import Answer, parse, words
from delegated.models.meaning import translate
from delegated.plain import settled

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

Sdk = TypeVar("Sdk")
_LEAST_SECRET: Final = 8  # characters: a shorter key is a word that stands in any text
_SPARE: Final = 4  # connections beside the calls': for a cancel or a look-up while every call holds one


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


class Connections(Generic[Sdk]):
    """One endpoint's connections, opened at the first call. Wires may share it; closing it closes it for all of them.

    A provider's own class says which SDK goes on top. Nothing is taken from its environment variables but the proxies:
    a daemon's environment is not its configuration. `connections` is how many calls run at once. `timeout_s` is how
    long the provider may be silent over an answer, `quick_s` the same for what needs no thinking.
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
        now: Callable[[], float] = time.time,
    ) -> None:
        self.endpoint = base_url.rstrip("/")
        self._key = api_key
        self._timeout_s = timeout_s
        self._quick_s = min(quick_s, timeout_s)
        self._connect_s = connect_s
        self._connections = connections
        self._now = now
        self._sdk: Sdk | None = None
        self._opening = asyncio.Lock()

    async def call(self, make: Callable[[Sdk, httpx2.Timeout], Awaitable[Any]], *, slow: bool = False) -> Answer:
        """Make one HTTP request by one of the SDK's `with_raw_response` methods, once, and read its body.

        `slow` is for a request whose answer is the model's. Raises `Unavailable` and `Refused` (usually `Rejected`)
        where it is certain that nothing was accepted, `InDoubt` where it is not.
        """
        sent = progress.begin()
        try:
            return await self._call(make, slow=slow)
        except asyncio.CancelledError as cancelled:
            if not sent.begun:
                progress.note_unsent(cancelled)
            raise

    async def _call(self, make: Callable[[Sdk, httpx2.Timeout], Awaitable[Any]], *, slow: bool) -> Answer:
        sdk = await self._open()
        import httpx2

        timeout = httpx2.Timeout(self._timeout_s if slow else self._quick_s, connect=self._connect_s)
        try:
            response = await make(sdk, timeout)
            raw: str = response.http_response.text
            if len(self._key) >= _LEAST_SECRET:  # it is recorded as it came, and a server may say what it was sent
                said = settled(raw)
                raw = (said if self._key in said else raw).replace(self._key, "[key]")
        except (self._error(), httpx2.HTTPError, httpx2.InvalidURL, ValueError, ssl.SSLError, OSError) as error:
            # From None: the SDK's message may hold a part of the key, and a traceback would print it.
            raise translate(error, key=self._key, now=self._now()) from None
        return parse(raw)

    def key_mark(self, call_id: str) -> str:
        """Return 16 hex digits that are the same for this call under this key only. The key cannot be read in them."""
        return hmac.new(self._key.encode("utf-8", "surrogatepass"), call_id.encode(), hashlib.sha256).hexdigest()[:16]

    async def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        sdk, self._sdk = self._sdk, None
        if sdk is not None:
            await self._end(sdk)

    async def _open(self) -> Sdk:
        async with self._opening:
            if self._sdk is None:
                self._check_key()
                self._sdk = await asyncio.to_thread(self._build)
            return self._sdk

    def _check_key(self) -> None:
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise Refused("bad_key", "the API key holds characters that no key has (a space, a line break, a quote?)")

    def _build(self) -> Sdk:
        """Make the SDK's client; imports, so it is called in a thread."""
        raise NotImplementedError

    def _error(self) -> type[Exception]:
        """Return what the SDK raises; called once it is imported."""
        raise NotImplementedError

    async def _end(self, sdk: Sdk) -> None:
        """Close the SDK's client."""
        raise NotImplementedError

    def _http(self) -> httpx2.AsyncClient:
        import httpx2

        return httpx2.AsyncClient(
            base_url=self.endpoint,
            timeout=self._timeout_s,
            limits=httpx2.Limits(
                max_connections=self._connections + _SPARE,
                max_keepalive_connections=self._connections,
                keepalive_expiry=5.0,
            ),
            follow_redirects=False,  # a redirect would send a paid POST, and the code in it, to somebody else
            event_hooks={"request": [progress.watch]},
        )


class Client(Connections["AsyncOpenAI"]):
    """The connections of an endpoint that speaks one of OpenAI's interfaces."""

    def __init__(self, *, base_url: str, api_key: str, organization: str = "", project: str = "", **more: Any) -> None:
        super().__init__(base_url=base_url, api_key=api_key, **more)
        self._organization = organization
        self._project = project

    def key_mark(self, call_id: str) -> str:
        """Return the mark of the key, which is another for each organization and project that it is used for."""
        return super().key_mark("\n".join((call_id, self._organization, self._project)))

    def _check_key(self) -> None:
        if not self._key and is_openai(self.endpoint):
            raise Refused("missing_key", "OPENAI_API_KEY environment variable required")
        super()._check_key()

    def _build(self) -> AsyncOpenAI:
        preload()
        import openai

        sdk = openai.AsyncOpenAI(
            api_key=self._key or "none",  # local servers take any; the SDK insists on one
            base_url=self.endpoint,
            max_retries=0,  # its retries would send a paid POST up to three times
            timeout=self._timeout_s,
            http_client=self._http(),
        )
        sdk.organization = self._organization or None
        sdk.project = self._project or None
        sdk.admin_api_key = None
        sdk._custom_headers = {}  # OPENAI_CUSTOM_HEADERS would go to every endpoint alike
        return sdk

    def _error(self) -> type[Exception]:
        import openai

        return openai.OpenAIError

    async def _end(self, sdk: AsyncOpenAI) -> None:
        await sdk.close()


@dataclass(frozen=True, slots=True)
class Description:
    """What the provider says of a model; `shutdown` is YYYY-MM-DD, "" when none is announced.

    `at` is the provider's own time, in seconds since the epoch to the second, None when it does not tell.
    """

    name: str
    shutdown: str
    at: float | None = None


async def describe(client: Client, model: str) -> Description:
    """Ask the provider about a model, free of charge: whether key and model are good, and when it goes.

    Raises `Unavailable` or `Refused`.
    """

    async def retrieve(sdk: AsyncOpenAI, timeout: httpx2.Timeout) -> Any:
        return await sdk.models.with_raw_response.retrieve(model, timeout=timeout)

    answer, at = await reached(client, retrieve)
    return Description(words(answer.body, "id") or model, day(words(answer.body, "shutdown_date")), at)


async def reached(
    client: Connections[Sdk], make: Callable[[Sdk, httpx2.Timeout], Awaitable[Any]]
) -> tuple[Answer, float | None]:
    """Make a request that costs nothing; return its answer and the provider's own time (`Description.at`).

    Raises `Unavailable` or `Refused`.
    """
    dates: list[str] = []

    async def dated(sdk: Sdk, timeout: httpx2.Timeout) -> Any:
        response = await make(sdk, timeout)
        dates.append(response.headers.get("date", ""))
        return response

    try:
        answer = await client.call(dated)
    except InDoubt as error:
        raise Unavailable("provider_failed", error.message) from error
    return answer, _instant(dates[-1])


def day(text: str) -> str:
    """Return the date that a text begins with, as YYYY-MM-DD; "" when it begins with none."""
    found = re.match(r"\d{4}-\d\d-\d\d(?!\d)", text)
    return found[0] if found else ""


def _instant(date: str) -> float | None:
    """Read an HTTP date; None when it is none."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
