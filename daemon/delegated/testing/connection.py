"""HTTP/1.1 by hand, byte by byte, so that every way in which a connection can fail can be made to happen."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from math import inf
from typing import Final, cast

from delegated.testing.api import Answer, Api, Call
from delegated.testing.faults import NONE, Fault

_HEAD_LIMIT: Final = 64 * 1024
_BODY_LIMIT: Final = 64 * 1024 * 1024
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class _BadRequest(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection(asyncio.Protocol):
    """One client's connection: requests are read and answered one after the other, faults included."""

    def __init__(self, api: Api, live: set[Connection], said: Callable[[str], None] | None = None) -> None:
        self._api = api
        self._live = live
        self._said = said
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._buffer = bytearray()
        self._peer = ""
        self._timer: asyncio.TimerHandle | None = None
        self._held: Answer | None = None
        self._busy = False
        self._clear()

    def _clear(self) -> None:
        self._method = self._target = self._version = ""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._left: int | None = None  # bytes still to come of the body, or of the chunk
        self._chunked = False
        self._trailers = False
        self._reset_at: int | None = None

    # asyncio's side ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else ""
        self._live.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client; what it asked for goes on."""
        self._live.discard(self)
        self.closed.set_result(None)
        self._held = None
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and answer the request that they complete."""
        self._buffer += data
        if self._busy:
            if len(self._buffer) > _HEAD_LIMIT:
                self._transport.pause_reading()
            return
        self._advance()

    def abort(self) -> None:
        """Drop the connection now."""
        self._transport.abort()

    def release(self) -> None:
        """Send an answer that was held for ever."""
        if self._held is not None:
            answer, self._held = self._held, None
            self._send(answer)

    # reading ----------------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        try:
            while not self._busy and not self._transport.is_closing() and self._read():
                self._take()
        except _BadRequest as bad:
            body = f'{{"error":{{"message":"{bad}","type":"invalid_request_error","param":null,"code":null}}}}'
            self._busy = True
            self._write(Answer(lambda: body.encode(), bad.status, headers={"connection": "close"}))
            self._transport.close()

    def _read(self) -> bool:
        """Move on in the buffer; True when a whole request is there."""
        if not self._method and not self._read_head():
            return False
        whole = self._read_chunks() if self._chunked else self._read_plain()
        if self._reset_at is not None and (len(self._body) >= self._reset_at or whole):
            self._reset()
            return False
        return whole

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise _BadRequest(431, "request header fields too large")
            return False
        lines = self._buffer[:end].decode("latin-1").lstrip("\r\n").split("\r\n")
        del self._buffer[: end + 4]
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise _BadRequest(400, "malformed request line")
        self._method, self._target, self._version = words
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise _BadRequest(400, "malformed header")
            self._headers[name.strip().lower()] = value.strip()
        self._frame()
        fault = self._api.at_head(self._method, self._target)
        if fault is not None:
            self._reset_at = 0 if fault.reset == "before_body" else int(fault.reset)
        elif self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _frame(self) -> None:
        length = self._headers.get("content-length", "0")
        if self._headers.get("transfer-encoding", "").lower() == "chunked":
            self._chunked = True
        elif length.isdecimal() and length.isascii() and len(length) < 16:
            self._left = int(length)
            if self._left > _BODY_LIMIT:
                raise _BadRequest(413, "request body too large")
        else:
            raise _BadRequest(400, "malformed content-length")

    def _read_plain(self) -> bool:
        return self._move_into_body()

    def _move_into_body(self) -> bool:
        assert self._left is not None
        part = self._buffer[: self._left]
        self._body += part
        self._left -= len(part)
        del self._buffer[: len(part)]
        if len(self._body) > _BODY_LIMIT:
            raise _BadRequest(413, "request body too large")
        return self._left == 0

    def _read_chunks(self) -> bool:
        while True:
            if self._left and not self._move_into_body():
                return False
            line = self._line()
            if line is None:
                return False
            if self._trailers:
                if not line:
                    return True
            elif self._left == 0:  # the line end that closes a chunk
                if line:
                    raise _BadRequest(400, "malformed chunk")
                self._left = None
            else:
                size = line.partition(b";")[0].strip()
                try:
                    self._left = int(size, 16)
                except ValueError:
                    raise _BadRequest(400, "malformed chunk size") from None
                if not 0 <= self._left <= _BODY_LIMIT:
                    raise _BadRequest(413, "request body too large")
                if self._left == 0:
                    self._trailers = True

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise _BadRequest(400, "malformed chunk")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    # answering --------------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        self._busy = True
        call = Call(self._method, self._target, self._headers, bytes(self._body), self._peer)
        answer = self._api.handle(call)
        if self._said:
            self._said(f"{self._method} {self._target} {answer.status}")
        wait = answer.due - self._api.now()
        if wait == inf:
            self._held = answer
        elif wait > 0:
            self._timer = self._loop.call_later(wait, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        if self._transport.is_closing():
            return
        fault = answer.fault
        if fault.stall == "silent":
            return
        if fault.silent:
            self._reset()
            return
        self._write(answer, fault)
        if fault.stall or self._transport.is_closing():
            return
        if self._version == "HTTP/1.0" or self._headers.get("connection", "").lower() == "close":
            self._transport.close()
            return
        self._busy = False
        self._clear()
        self._transport.resume_reading()
        if self._buffer:
            self._loop.call_soon(self._advance)

    def _write(self, answer: Answer, fault: Fault = NONE) -> None:
        body = answer.render()
        head = {
            "date": formatdate(usegmt=True),
            "content-type": answer.content_type,
            "content-length": str(len(body)),
            "x-request-id": self._api.request_id(),
            **answer.headers,
        }
        lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in head.items()]
        wire = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
        if fault.stall:
            self._transport.write(wire)
        elif fault.reset == "mid_answer":
            self._transport.write(wire + body[: len(body) // 2])
            self._reset()
        elif fault.cut is not None:
            self._transport.write(wire + body[: fault.cut])
            self._transport.close()
        else:
            self._transport.write(wire + body)

    def _reset(self) -> None:
        """Drop the connection with a RST, as a crashed peer or a firewall does, instead of an orderly FIN."""
        plug = self._transport.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
