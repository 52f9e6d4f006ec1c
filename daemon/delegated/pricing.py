"""The models: limits, prices, abilities and shutdown dates in one table, data not code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model. Prices in USD per million tokens, None when unknown; dates as YYYY-MM-DD."""

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
