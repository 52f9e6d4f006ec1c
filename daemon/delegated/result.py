"""A result, as Markdown for people and as JSON for programs, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from delegated.analysis import Analysis
from delegated.context import Omitted
from delegated.reply import Usage
from delegated.secrets import Redaction

SCHEMA: Final = "delegated/result/1"
Status = Literal["answered", "rejected", "failed", "uncertain", "cancelled", "duplicate"]


@dataclass(frozen=True, slots=True)
class RequestRef:
    """Which request this answers: id, file name in the folder, SHA-256 of its bytes, revision from 1, its issue's first line."""

    id: str
    path: str
    sha256: str
    revision: int
    title: str = ""


@dataclass(frozen=True, slots=True)
class SentFile:
    """One range of one file that left the machine: 1-based inclusive lines, hash of the original file, bytes as sent."""

    path: str
    start_line: int
    end_line: int
    total_lines: int
    sha256: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Egress:
    """The receipt of one call: what left the machine, whereto, and its price bound in USD (None: unknown)."""

    call: str
    model: str
    endpoint: str
    wire: str
    files: tuple[SentFile, ...]
    omitted: tuple[Omitted, ...]
    redactions: tuple[Redaction, ...]
    bytes: int
    tokens: int
    prompt_sha256: str
    price_bound_usd: float | None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer: `kind` is one of `errors.KINDS`."""

    kind: str
    message: str
    hint: str
    retryable: bool
    next_command: str


@dataclass(frozen=True, slots=True)
class Result:
    """What the daemon has to say about one revision of one request.

    `timings` are seconds by phase; `problems` are a rejected request's, as sentences; `raw_response` is the
    model's text as received; `simulated` when no language model was asked; times are RFC 3339 in UTC.
    """

    status: Status
    request: RequestRef
    timestamp: str
    model: str = ""
    simulated: bool = False
    analysis: Analysis | None = None
    error: Failure | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    egress: tuple[Egress, ...] = ()
    usage: Usage | None = None
    cost_usd: float | None = None
    attempts: int = 0
    timings: Mapping[str, float] = field(default_factory=dict)
    raw_response: str = ""
    duplicate_of: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def to_json(result: Result) -> str:
    """Write RESULT.json: the published schema, a superset of the original script's keys."""
    raise NotImplementedError


def from_json(text: str) -> Result:
    """Read what `to_json` wrote. Raises `ValueError` on anything else."""
    raise NotImplementedError


def to_markdown(result: Result) -> str:
    """Write RESULT.md for a person. Nothing in it that came from a model or a request can break the page or a terminal."""
    raise NotImplementedError
