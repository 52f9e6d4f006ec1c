"""What a model said, and what it cost: the words and nothing read into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

Outcome = Literal["completed", "refusal", "truncated", "content_filter", "failed", "cancelled", "empty"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the provider counted; `estimated` when it could not say and we counted ourselves.

    `input_tokens` are all that were read: `cached_input_tokens` of them came from the provider's cache, and
    `written_input_tokens` of them were put into it.
    """

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    estimated: bool = False
    written_input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """One model's final word on one prompt.

    `text` is the model's own text (for `refusal` the words of the refusal, for `failed` the provider's
    error message); `raw` is the body as received, kept whatever it holds; `model` is the name that the
    provider reported; `simulated` is true when no language model was asked (`offline`, `scripted`).
    """

    outcome: Outcome
    text: str
    model: str
    raw: str
    usage: Usage | None = None
    response_id: str = ""
    simulated: bool = False
