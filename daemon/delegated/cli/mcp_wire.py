"""The Model Context Protocol over two pipes: JSON-RPC 2.0, one message a line. What a tool does is not its business."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol

from . import terminal

# By the initialize handshake. Not 2025-03-26: it is the one revision that lets messages come in batches.
VERSIONS: Final = ("2024-11-05", "2025-06-18", "2025-11-25")
PARSE, INVALID, UNKNOWN, PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
_LONGEST: Final = 8 << 20
_LEAVE_S: Final = 2.0
_AT_LEAST_S: Final = 5.0  # clients give up on a call that they hear nothing of


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool says: words for the model, facts for a program, and whether it is an error that can be mended."""

    text: str
    facts: Mapping[str, Any] | None = None
    error: bool = False


class Call:
    """One call of a tool while it runs: may it go on, and what is told of it meanwhile."""

    def __init__(self, tell: Callable[[float, str], None] | None) -> None:
        self._tell = tell
        self._begun = time.monotonic()
        self._at, self._last = -_AT_LEAST_S, ""
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the call to end; nobody waits for its answer any more."""
        self._cancelled.set()

    def cancelled(self) -> bool:
        """Say whether nobody waits for the answer any more."""
        return self._cancelled.is_set()

    def phase(self, text: str, seconds: float | None = None) -> None:
        """Tell what goes on, when it is new or nothing was told for a while. Progress is the seconds since the call."""
        text = " ".join(terminal.clean(text).split())
        now = time.monotonic() - self._begun
        if self._tell is not None and now > self._at and (text != self._last or now - self._at >= _AT_LEAST_S):
            self._at, self._last = now, text
            self._tell(now, text)


class Offers(Protocol):
    """The tools: their descriptions as the protocol wants them, and a way to call one."""

    @property
    def instructions(self) -> str:
        """Return what a model should know of the tools as a whole."""

    def described(self) -> list[dict[str, Any]]:
        """Return one description a tool."""

    def call(self, name: str, arguments: dict[str, Any], call: Call) -> Answer:
        """Do it. Raises `LookupError` when there is no such tool."""


def negotiate(wanted: object) -> str:
    """Return the newest revision that we speak and that is not newer than `wanted`, else our oldest."""
    # The revisions are dates; what is no date is answered with our newest.
    if not isinstance(wanted, str) or not wanted[:2].isdecimal():
        return VERSIONS[-1]
    return max((each for each in VERSIONS if each <= wanted), default=VERSIONS[0])


class Wire:
    """One connection to one client. Each call of a tool has a thread, so that the reader always hears a cancel."""

    def __init__(self, offers: Offers, version: str, out: int) -> None:
        self._offers = offers
        self._version = version
        self._out = out
        self._writing = threading.Lock()
        self._calls: dict[str | int, tuple[Call, threading.Thread]] = {}
        self._known = threading.Lock()
        self._gone = False

    def serve(self, lines: IO[bytes]) -> None:
        """Answer what comes until the end of `lines`; then nobody is left to answer, and the calls that wait end."""
        try:
            while not self._gone:
                line = lines.readline(_LONGEST)
                if not line:
                    break
                if len(line) == _LONGEST and not line.endswith(b"\n"):
                    while line and not line.endswith(b"\n"):
                        line = lines.readline(_LONGEST)
                    self._fail(None, INVALID, f"a message is longer than {_LONGEST >> 20} MiB")
                elif line.strip():
                    self._hear(line)
        finally:
            with self._known:
                running = [*self._calls.values()]
            for call, _ in running:
                call.cancel()
            for _, thread in running:
                thread.join(_LEAVE_S)

    def _hear(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return self._fail(None, PARSE, "this is no JSON")
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            return self._fail(None, INVALID, "this is no JSON-RPC 2.0 message; batches are not taken")
        key, method = message.get("id"), message.get("method")
        if not isinstance(method, str):
            if "result" in message or "error" in message:
                return None  # an answer; nothing was asked
            return self._fail(None, INVALID, "a request has a method")
        params = message.get("params", {})
        if "id" not in message:
            if method == "notifications/cancelled" and isinstance(params, dict):
                self._cancel(params.get("requestId"))
            return None
        if not isinstance(key, str | int) or isinstance(key, bool):
            return self._fail(None, INVALID, "an id is a text or a whole number")
        if not isinstance(params, dict):
            return self._fail(key, PARAMS, "params are an object")
        return self._ask(key, method, params)

    def _ask(self, key: str | int, method: str, params: dict[str, Any]) -> None:
        if method == "initialize":
            self._give(
                key,
                {
                    "protocolVersion": negotiate(params.get("protocolVersion")),
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "delegated", "version": self._version},
                    "instructions": self._offers.instructions,
                },
            )
        elif method == "ping":
            self._give(key, {})
        elif method == "tools/list":
            self._give(key, {"tools": self._offers.described()})
        elif method == "tools/call":
            self._begin(key, params)
        else:
            self._fail(key, UNKNOWN, f"there is no method {method[:100]!a}")

    def _begin(self, key: str | int, params: dict[str, Any]) -> None:
        name, arguments, meta = params.get("name"), params.get("arguments") or {}, params.get("_meta")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return self._fail(key, PARAMS, "a call has a name and an object of arguments")
        token = meta.get("progressToken") if isinstance(meta, dict) else None

        def tell(seconds: float, text: str) -> None:
            params = {"progressToken": token, "progress": round(seconds, 3), "message": text}
            self._send({"method": "notifications/progress", "params": params})

        call = Call(tell if isinstance(token, str | int) else None)
        thread = threading.Thread(target=self._run, args=(key, name, arguments, call), daemon=True)
        with self._known:
            if key in self._calls:
                return self._fail(key, INVALID, "a call with this id runs already")
            self._calls[key] = call, thread
        thread.start()
        return None

    def _run(self, key: str | int, name: str, arguments: dict[str, Any], call: Call) -> None:
        try:
            answer = self._offers.call(name, arguments, call)
        except LookupError as error:
            said = str(error)
            self._end(key, call, lambda: self._fail(key, PARAMS, said))
        except Exception as error:  # noqa: BLE001 - the next call must be answered all the same
            terminal.error(f"{name}: {type(error).__name__}: {error}", "this is a fault of delegated: please report it")
            said = f"a fault of delegated: {type(error).__name__}"
            self._end(key, call, lambda: self._fail(key, INTERNAL, said))
        else:
            value = {"content": [{"type": "text", "text": terminal.clean(answer.text)}], "isError": answer.error}
            if answer.facts is not None:
                value["structuredContent"] = dict(answer.facts)
            self._end(key, call, lambda: self._give(key, value))

    def _end(self, key: str | int, call: Call, answer: Callable[[], None]) -> None:
        with self._known:
            self._calls.pop(key, None)
        if not call.cancelled():
            answer()

    def _cancel(self, key: object) -> None:
        with self._known:
            found = self._calls.get(key) if isinstance(key, str | int) else None
        if found is not None:
            found[0].cancel()

    def _give(self, key: str | int, result: dict[str, Any]) -> None:
        self._send({"id": key, "result": result})

    def _fail(self, key: str | int | None, code: int, message: str) -> None:
        self._send({"id": key, "error": {"code": code, "message": message}})

    def _send(self, message: dict[str, Any]) -> None:
        """Write one line, whole. Past all buffers: a thread that is cut off at the end must not hold their lock."""
        data = json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
        with self._writing:
            try:
                while data:
                    data = data[os.write(self._out, data) :]
            except OSError:
                self._gone = True  # the client left: the end of stdin comes next
