"""Request and context become the words and the schema that are sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delegated.context import Context
from delegated.request import Request
from delegated.secrets import Redaction

VERSION = 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything that one call sends, and what is needed to check its answer later.

    `system` and `user` are the words; `schema` is the portable JSON Schema of the answer; `request` and `context`
    are as sent, that is after redaction. `to_json`/`from_json` keep it in the journal.
    """

    version: int
    system: str
    user: str
    schema: Mapping[str, Any]
    request: Request
    context: Context
    redactions: tuple[Redaction, ...] = ()


def render(request: Request, context: Context, redactions: tuple[Redaction, ...] = ()) -> Prompt:
    """Build the prompt. File text, logs and issue are data in blocks that nothing in them can close."""
    raise NotImplementedError


def repair(prompt: Prompt, bad_text: str, problem: str) -> Prompt:
    """Build the one follow-up that asks for the same answer in the right form."""
    raise NotImplementedError


def to_json(prompt: Prompt) -> str:
    """Write the prompt as one JSON text; `from_json` reads it back to an equal prompt."""
    raise NotImplementedError


def from_json(text: str) -> Prompt:
    """Read what `to_json` wrote. Raises `ValueError` on anything else."""
    raise NotImplementedError
