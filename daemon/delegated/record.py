"""What a record is: a line of JSON, a body of any bytes, the end mark `END <sha256>`. And what some of them say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Write a record: a line of JSON, the body, the end mark."""
    payload = json.dumps(header, sort_keys=True).encode() + b"\n" + body
    return payload + b"\nEND " + hashlib.sha256(payload).hexdigest().encode() + b"\n"


def unpack(data: bytes) -> tuple[dict[str, Any], bytes] | None:
    """Read a record back; None when it is torn or was altered."""
    payload, mark, tail = data.rpartition(b"\nEND ")
    if not mark or tail != hashlib.sha256(payload).hexdigest().encode() + b"\n":
        return None
    line, _, body = payload.partition(b"\n")
    try:
        header = json.loads(line)
    except ValueError:
        return None
    return (header, body) if isinstance(header, dict) else None


@dataclass(frozen=True, slots=True)
class Claim:
    """A request made ours: file name, exact bytes, their SHA-256, when, and why it was refused unread ("" if not)."""

    id: str
    revision: int
    name: str
    sha256: str
    data: bytes
    at: float
    refused: str = ""
    order: str = ""  # the RETRY file that this revision obeys
    duplicate_of: str = ""  # the request of which this is a sync tool's copy
    dropped: bool = False  # only the SHA-256 of its bytes is kept
    nonce: str = ""  # tells its calls from those of a former claim of the same id; "" in those of older versions


@dataclass(frozen=True, slots=True)
class Done:
    """A settled job: its status, when, the RESULT.json that was published ("" for a superseded job)."""

    status: str
    at: float
    result: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an endpoint said when it accepted nothing: when (for sure), which pause it asked for, how often."""

    endpoint: str
    kind: str
    reason: str
    ago_s: float
    retry_after: float | None
    row: int


def place_of(key: str) -> str:
    """Return where a request's records lie, relative to the journal."""
    return f"jobs/{hashlib.sha256(key.encode()).hexdigest()[:2]}/{key}"
