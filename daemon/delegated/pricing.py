"""The models: limits, prices, abilities and shutdown dates in one table, data not code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

from delegated.reply import Usage

WARN_DAYS: Final = 90
_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model. Prices in USD per million tokens, None when unknown; dates as YYYY-MM-DD.

    Where a prompt of more than `long_from_tokens` is dearer, the prices of the whole call are multiplied by
    `long_input_factor` and `long_output_factor`; 0 means that the price does not depend on the length. What is put
    into the provider's cache costs `written_factor` times the input.
    """

    name: str
    provider: str  # openai, chat, anthropic, offline, scripted
    context_tokens: int
    output_tokens: int
    input_usd: float | None
    cached_usd: float | None
    output_usd: float | None
    takes_temperature: bool = True
    shutdown: str = ""
    successor: str = ""
    as_of: str = ""
    long_from_tokens: int = 0
    long_input_factor: float = 1.0
    long_output_factor: float = 1.0
    written_factor: float = 1.0

    @property
    def counted_as_ours(self) -> bool:
        """Whether the tokenizer that we have is the model's: what it counts is no bound for another one's tokens."""
        return self.provider != "anthropic"


def _gpt_6(name: str, input_usd: float, cached_usd: float, output_usd: float) -> ModelFacts:
    # One family: a reasoning model (no temperature), 922k tokens in and 128k out of one window, dearer from 272k on.
    return ModelFacts(
        name,
        "openai",
        1_050_000,
        128_000,
        input_usd,
        cached_usd,
        output_usd,
        takes_temperature=False,
        as_of="2026-10-31",
        long_from_tokens=272_000,
        long_input_factor=2.0,
        long_output_factor=1.5,
    )


def _claude(
    name: str, input_usd: float, cached_usd: float, output_usd: float, *, long_from_tokens: int = 0, factor: float = 1.0
) -> ModelFacts:
    # One family as well: no temperature, and what the provider caches costs a quarter more when it is put there.
    return ModelFacts(
        name,
        "anthropic",
        1_000_000,
        128_000,
        input_usd,
        cached_usd,
        output_usd,
        takes_temperature=False,
        as_of="2026-10-31",
        long_from_tokens=long_from_tokens,
        long_input_factor=factor,
        long_output_factor=factor,
        written_factor=1.25,
    )


def _free(name: str) -> ModelFacts:
    return ModelFacts(name, name, 1_000_000, 16_384, 0.0, 0.0, 0.0, as_of="2026-10-31")


_GPT_4O: Final = ModelFacts(
    "gpt-4o",
    "openai",
    128_000,
    16_384,
    2.50,
    1.25,
    10.00,
    shutdown="2027-01-14",
    successor="gpt-6-luna",
    as_of="2026-10-31",
)
TABLE: Final = (
    _GPT_4O,
    replace(
        _GPT_4O,
        name="gpt-4o-2024-05-13",
        output_tokens=4_096,
        input_usd=5.00,
        cached_usd=None,
        output_usd=15.00,
        shutdown="2026-10-23",
    ),
    ModelFacts("gpt-4o-mini", "openai", 128_000, 16_384, 0.15, 0.075, 0.60, as_of="2026-10-31"),
    _gpt_6("gpt-6-luna", 0.10, 0.01, 0.50),
    _gpt_6("gpt-6.1-sol", 2.00, 0.10, 10.00),
    _gpt_6("gpt-6-astra", 10.00, 1.00, 50.00),
    _claude("claude-sonnet-5-5", 2.00, 0.10, 10.00),
    _claude("claude-haiku-5-5", 0.10, 0.01, 0.50, long_from_tokens=100_000, factor=5.0),
    _claude("claude-opus-5-5", 4.00, 0.20, 20.00),
    _free("offline"),
    _free("scripted"),
)
_BY_NAME: Final = {row.name: row for row in TABLE}
assert len(_BY_NAME) == len(TABLE), "a model stands in the table once"
assert all(not row.successor or row.successor in _BY_NAME for row in TABLE), "a successor stands in the table too"

_SNAPSHOT: Final = re.compile(r"(.+)-(?:\d{4}-\d\d-\d\d|\d{8})")
_UNKNOWN: Final = ModelFacts("", "chat", 32_768, 4_096, None, None, None)


def facts(name: str, extra: Mapping[str, Mapping[str, Any]] | None = None) -> ModelFacts | None:
    """Return what is known of a model under the name given; None when nothing is, and so neither its price.

    `extra` holds configured facts by name, which go before the table's: what they leave out is as in the table, or for
    a model that is not there, cautious (a small window, an unknown price). A dated snapshot (`gpt-4o-2024-11-20`)
    without a row of its own is what its family is; `scripted:PATH` is `scripted`. Raises `TypeError` on a key in
    `extra` that is no field of `ModelFacts`.
    """
    row = _BY_NAME.get(name)
    if row is None and name.startswith("scripted:"):
        row = _BY_NAME["scripted"]
    if row is None and (snapshot := _SNAPSHOT.fullmatch(name)):
        row = _BY_NAME.get(snapshot[1])
    given = (extra or {}).get(name)
    if given is not None:
        row = replace(row or _UNKNOWN, **given)
    return replace(row, name=name) if row is not None else None


def bound(known: ModelFacts | None, input_tokens: int, max_output_tokens: int) -> float | None:
    """Return the most, in USD, that a call can cost; None when the price is unknown, which is never the same as 0."""
    return _price(known, input_tokens, 0, input_tokens, max_output_tokens)


def cost(known: ModelFacts | None, usage: Usage | None) -> float | None:
    """Return what a call cost in USD; None when the price or the usage is unknown."""
    if usage is None:
        return None
    cached, written = usage.cached_input_tokens, usage.written_input_tokens
    return _price(known, usage.input_tokens, cached, written, usage.output_tokens)


def _price(known: ModelFacts | None, tokens_in: int, cached: int, written: int, tokens_out: int) -> float | None:
    if known is None or known.input_usd is None or known.output_usd is None:
        return None
    cached = min(max(cached, 0), tokens_in)
    written = min(max(written, 0), tokens_in - cached)
    cached_usd = known.input_usd if known.cached_usd is None else known.cached_usd
    long = 0 < known.long_from_tokens < tokens_in
    full = tokens_in - cached - written + written * known.written_factor
    told = (full * known.input_usd + cached * cached_usd) * (known.long_input_factor if long else 1.0)
    said = tokens_out * known.output_usd * (known.long_output_factor if long else 1.0)
    return (told + said) / _MILLION


def days_left(known: ModelFacts, today: str) -> int | None:
    """Return the days until the model leaves its provider's API, negative after that; None when no date is known.

    `today` is YYYY-MM-DD. Raises `ValueError` on any other form.
    """
    if not known.shutdown:
        return None
    return (date.fromisoformat(known.shutdown) - date.fromisoformat(today)).days


def warning(known: ModelFacts, today: str) -> str:
    """Return the sentence that a RESULT says about a model that goes within 90 days or is gone, else ""."""
    left = days_left(known, today)
    if left is None or left > WARN_DAYS:
        return ""
    advice = f"; name its successor in `model:`, for example {known.successor}" if known.successor else ""
    if left <= 0:
        return f"{known.name} left its provider's API on {known.shutdown}{advice}"
    when = "tomorrow" if left == 1 else f"in {left} days"
    return f"{known.name} leaves its provider's API on {known.shutdown}, {when}{advice}"
