"""A signed call to an address of the user's, by Standard Webhooks: how a request ended, and nothing of the code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from . import Notice

TYPE: Final = "delegated.result"
_TIMEOUT_S: Final = 5.0
_PAUSES_S: Final = (1.0, 5.0, 25.0)  # before the second, third and fourth try
_AGAIN: Final = frozenset({408, 425, 429})  # and 500 and above
_HEAD_BYTES: Final = 256


class Webhook:
    """Calls one address. A call that failed is made again with the same `webhook-id`, so it may arrive twice."""

    name = "webhook"

    def __init__(
        self,
        url: str,
        secret: bytes,
        *,
        pauses: Sequence[float] = _PAUSES_S,
        timeout_s: float = _TIMEOUT_S,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._secret = secret
        self._pauses = pauses
        self._timeout_s = timeout_s
        self._wall = wall

    def deliver(self, notices: Sequence[Notice], stopping: threading.Event) -> int:
        """Send the first notice, several times if need be. Raises `OSError` when all of them failed."""
        first = notices[0]
        data = body(first)
        for pause in (*self._pauses, None):
            try:
                status = self._post(first.key, data)
            except (OSError, http.client.HTTPException) as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if 200 <= status < 300:
                    return 1
                why = f"it answered {status}"
                if status < 500 and status not in _AGAIN:
                    break
            if pause is None or stopping.wait(pause):
                break
        # The host alone: the rest of an address may be as good as a password.
        raise OSError(0, f"{urlsplit(self._url).hostname}: {why}")

    def _post(self, key: str, data: bytes) -> int:
        """Make one call; return the status. Follows no redirect, uses no proxy, reads no more than the first line."""
        deadline = time.monotonic() + self._timeout_s
        to = urlsplit(self._url)
        host, target = to.hostname or "", f"{to.path or '/'}{f'?{to.query}' if to.query else ''}"
        connection = (
            http.client.HTTPSConnection(host, to.port, timeout=self._timeout_s, context=ssl.create_default_context())
            if to.scheme == "https"
            else http.client.HTTPConnection(host, to.port, timeout=self._timeout_s)
        )
        at = int(self._wall())
        headers = {
            "content-type": "application/json",
            "user-agent": "delegated",
            "connection": "close",
            "webhook-id": key,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(self._secret, key, at, data),
        }
        try:
            connection.request("POST", target, data, headers)
            return _status(connection.sock, deadline)
        finally:
            connection.close()


def body(notice: Notice) -> bytes:
    """Write what is sent: `config/schemas/notification.schema.json`."""
    value = {
        "type": TYPE,
        "timestamp": notice.timestamp,
        "data": {
            "id": notice.id,
            "workspace": notice.workspace,
            "status": notice.status,
            "verdict": notice.verdict or None,
            "confidence": notice.confidence or None,
            "cost_usd": notice.cost_usd,
        },
    }
    return json.dumps(value, allow_nan=False).encode("ascii")


def signature(secret: bytes, key: str, at: int, data: bytes) -> str:
    """Sign a message by the scheme `v1`: HMAC-SHA256 over its id, the time in seconds and its bytes."""
    signed = b".".join((key.encode(), str(at).encode(), data))
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def _status(sock: socket.socket, deadline: float) -> int:
    """Read the status of an answer that may be slow, endless or none. Raises `OSError`."""
    head = b""
    while b"\n" not in head and len(head) < _HEAD_BYTES:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        sock.settimeout(left)
        got = sock.recv(_HEAD_BYTES)
        if not got:
            break
        head += got
    found = re.match(rb"HTTP/1\.[01] ([1-5]\d\d)[ \r\n]", head)
    if found is None:
        raise ConnectionError("what it answered is no HTTP")
    return int(found[1])
