"""What an answer's body says, read without trust: what is not of its kind is not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delegated.errors import InDoubt
from delegated.reply import Usage


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer: the body as received, and the JSON object that it holds."""

    raw: str
    body: Mapping[str, Any]


def parse(raw: str) -> Answer:
    """Read the body of a 2xx answer. Raises `InDoubt` on anything but a JSON object: what was done is not known."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise InDoubt("the provider's answer is not JSON") from None
    if not isinstance(body, dict):
        raise InDoubt("the provider's answer is not a JSON object")
    return Answer(raw, body)


def member(value: Any, name: str) -> Mapping[str, Any]:
    """Return an object's member that is an object itself, else an empty one."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def members(value: Any, name: str) -> list[Mapping[str, Any]]:
    """Return the objects in an object's list, else none."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def words(value: Any, name: str) -> str:
    """Return an object's member that is a text, else ""."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else ""


def usage(body: Mapping[str, Any], told: str, said: str) -> Usage | None:
    """Read the tokens counted; `told` and `said` name them (`input_tokens`, …). None when a server does not say."""
    counts = member(body, "usage")
    tokens_in, tokens_out = number(counts, told), number(counts, said)
    if tokens_in is None or tokens_out is None:
        return None
    cached = number(member(counts, f"{told}_details"), "cached_tokens") or 0
    return Usage(tokens_in, min(cached, tokens_in), tokens_out)


def number(value: Any, name: str) -> int | None:
    """Return an object's member that is a whole number from 0 on, else None."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None
