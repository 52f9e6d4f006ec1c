"""The local server itself: started in a program, in a thread, or from a shell; it serves until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from delegated.testing.api import Api
from delegated.testing.checks import MODELS, ModelCard
from delegated.testing.connection import Connection
from delegated.testing.ledger import Ledger
from delegated.testing.provider import Bill, Provider
from delegated.testing.rules import BadRule, Rules, read_rules

_T = TypeVar("_T")


class Server:
    """A running server, as an async context manager.

    `port` 0 takes a free one. `state` is a file in which every bill is durable before anybody is told of it; a server
    started on it again knows its calls. `models` are further models by name; `latency` is how long, in seconds, a
    model takes; `rpm` the paid calls allowed in a minute (None: unlimited); `rules` what goes wrong (see
    docs/testing-server.md). Stopped and entered again it comes back on the same port with its memory intact.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        state: str | os.PathLike[str] | None = None,
        models: Mapping[str, ModelCard] | None = None,
        key: str = "",
        latency: float = 0.0,
        rpm: int | None = None,
        rules: Any = (),
        now: Callable[[], float] = time.time,
        said: Callable[[str], None] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._said = said
        self._live: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._ledger = Ledger(os.fspath(state)) if state is not None else None
        known = {**MODELS, **(models or {})}
        self._provider = Provider(models=known, latency=latency, ledger=self._ledger)
        given = rules if isinstance(rules, Rules) else read_rules(list(rules))
        self._api = Api(self._provider, models=known, now=now, key=key, rpm=rpm, rules=given)
        self._api.released = self._release

    @property
    def base_url(self) -> str:
        """Return what a client is given as its base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    @property
    def bills(self) -> list[Bill]:
        """Return the bills so far, oldest first."""
        return list(self._provider.bills)

    def script(self, rules: Any) -> None:
        """Replace the rules by which requests go wrong. Raises `BadRule`."""
        self._api.script(rules)

    def state(self) -> dict[str, Any]:
        """Return what `GET /_test/state` returns."""
        return self._api.state()

    def release(self) -> None:
        """End every call that still runs, and send every answer that is held for ever."""
        self._api.release()

    def body(self, n: int) -> bytes | None:
        """Return the body of the n-th bill as it was received."""
        return self._provider.body(n)

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self._api, self._live, self._said), self.host, self.port, backlog=1024
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection, as a network that goes away; the memory stays."""
        if self._listener is None:
            return
        self._listener.close()
        live = tuple(self._live)
        for connection in live:
            connection.abort()
        await asyncio.gather(*(connection.closed for connection in live))
        await self._listener.wait_closed()
        self._listener = None

    async def aclose(self) -> None:
        """Stop for good."""
        await self.stop()
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _release(self) -> None:
        for connection in tuple(self._live):
            connection.release()


class ServerThread:
    """The same server in a thread of its own, for programs without a loop. Takes what `Server` takes."""

    def __init__(self, **settings: Any) -> None:
        self._server = Server(**settings)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="testing-server", daemon=True)
        self._thread.start()
        try:
            self._await(self._server.start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def base_url(self) -> str:
        """Return what a client is given as its base URL."""
        return self._server.base_url

    @property
    def port(self) -> int:
        """Return the port that it listens on."""
        return self._server.port

    @property
    def bills(self) -> list[Bill]:
        """Return the bills so far, oldest first."""
        return self._call(lambda: self._server.bills)

    def script(self, rules: Any) -> None:
        """Replace the rules by which requests go wrong. Raises `BadRule`."""
        self._call(lambda: self._server.script(rules))

    def state(self) -> dict[str, Any]:
        """Return what `GET /_test/state` returns."""
        return self._call(self._server.state)

    def release(self) -> None:
        """End every call that still runs, and send every answer that is held for ever."""
        self._call(self._server.release)

    def body(self, n: int) -> bytes | None:
        """Return the body of the n-th bill as it was received."""
        return self._call(lambda: self._server.body(n))

    def stop(self) -> None:
        """Stop listening and drop every connection; `start` brings it back on the same port."""
        self._await(self._server.stop())

    def start(self) -> None:
        """Listen again after `stop`."""
        self._await(self._server.start())

    def _call(self, function: Callable[[], _T]) -> _T:
        async def inside() -> _T:
            return function()

        return self._await(inside())

    def _await(self, waited: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(waited, self._loop).result()

    def _end(self) -> None:
        self._await(self._server.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m delegated.testing.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port; 0, the default, takes a free one")
    parser.add_argument("--port-file", metavar="PATH", help="write the port into this file once it listens")
    parser.add_argument("--state", metavar="PATH", help="keep bills and calls in this file, over restarts")
    parser.add_argument("--latency", type=float, default=0.0, metavar="S", help="seconds that a model takes")
    parser.add_argument("--script", metavar="FILE.json", help="rules by which requests go wrong or are answered")
    parser.add_argument("--key", default="", help="the only API key that is accepted (default: any, or none)")
    parser.add_argument("--rpm", type=int, metavar="N", help="paid calls allowed in a minute")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME[=DATE]",
        help="a further model, and the date on which it is shut down; may be repeated",
    )
    parser.add_argument("--quiet", action="store_true", help="do not write a line for each request to stderr")
    given = parser.parse_args(arguments)
    try:
        return asyncio.run(_serve(given))
    except (OSError, BadRule, json.JSONDecodeError) as error:
        sys.stderr.write(f"cannot serve: {error}\n")
        return 2


async def _serve(given: argparse.Namespace) -> int:
    rules = Rules()
    if given.script:
        with open(given.script, encoding="utf-8") as file:
            rules = read_rules(json.load(file))
    models = {name: ModelCard(shutdown_date=date or None) for name, _, date in (m.partition("=") for m in given.model)}
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(
        host=given.host,
        port=given.port,
        state=given.state,
        models=models,
        key=given.key,
        latency=given.latency,
        rpm=given.rpm,
        rules=rules,
        said=None if given.quiet else _say,
    )
    async with server:
        if given.port_file:
            _write_whole(given.port_file, f"{server.port}\n")
        sys.stdout.write(f"listening on {server.base_url}\n")
        sys.stdout.flush()
        await stop.wait()
    return 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _write_whole(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(text)
    os.replace(temporary, path)  # a reader that polls never sees it half written


if __name__ == "__main__":
    sys.exit(main())
