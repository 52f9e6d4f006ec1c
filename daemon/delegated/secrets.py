"""What must not leave the machine, and the typed placeholder that goes in its stead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Redaction:
    """One replaced secret: its kind, the placeholder that was sent, where (a path or a part's name), 1-based line."""

    kind: str
    placeholder: str
    where: str
    line: int


def forbidden(path: str) -> str | None:
    """Say why a file of this workspace-relative POSIX path is never sent (`.env`, keys, stores, `.git/`), or None."""
    raise NotImplementedError


def redact(
    parts: Sequence[tuple[str, str]], *, known: Iterable[str] = (), seed: str = ""
) -> tuple[tuple[str, ...], tuple[Redaction, ...]]:
    """Replace secrets in `parts`, a sequence of (where, text), by `[REDACTED:kind:nonce-n]`.

    The same value gets the same n in every part; `known` are exact values to hide (own keys, values of
    the workspace's env files); the nonce (6 hex digits, from `seed`) occurs in no part. The number of lines is kept.
    """
    raise NotImplementedError
