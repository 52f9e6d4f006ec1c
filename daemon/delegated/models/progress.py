"""How far a request got before it failed: what never left, or never left whole, was not accepted."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import httpx2

_KEY: Final = "delegated.progress"
_BEFORE: Final = "delegated.before"
_PIECE: Final = 64 * 1024


class Progress:
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


_NOW: ContextVar[Progress] = ContextVar("delegated.progress")


def begin() -> Progress:
    """Follow the request that this task makes next."""
    progress = Progress()
    _NOW.set(progress)
    return progress


def note_unsent(cancelled: asyncio.CancelledError) -> None:
    """Let a cancellation say that it came before anything left. A class of its own would not be taken for one."""
    vars(cancelled)[_KEY] = True


def unsent(cancelled: asyncio.CancelledError) -> bool:
    """Say whether this cancellation surely came before anything left."""
    return _KEY in vars(cancelled)


def note_before(cancelled: asyncio.CancelledError) -> None:
    """Let a cancellation say that the same words have left before, in a form that was rejected."""
    vars(cancelled)[_BEFORE] = True


def before(cancelled: asyncio.CancelledError) -> bool:
    """Say whether the words have left before, in a form that was rejected."""
    return _BEFORE in vars(cancelled)


async def watch(request: httpx2.Request) -> None:
    """Follow a request from now on; an event hook of the HTTP client."""
    progress = _NOW.get(None) or Progress()
    request.extensions = {**request.extensions, "trace": progress.note, _KEY: progress}
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


def of(error: BaseException) -> Progress | None:
    """Return how far the request of a failed call got, None when it is not known."""
    try:
        request = getattr(error, "request", None)
    except RuntimeError:  # httpx raises it for an error without a request
        return None
    found = request.extensions.get(_KEY) if request is not None else None
    return found if isinstance(found, Progress) else None
