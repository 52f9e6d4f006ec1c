"""Replies read, each quote checked against the bytes sent, confidence computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from delegated.prompt import Prompt
from delegated.reply import Reply

Verdict = Literal["root_cause_found", "likely", "inconclusive", "no_bug_found", "need_more_files"]
Level = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A quote with its place. `grounded` when it stands in the bytes sent; `note` says when lines were corrected."""

    path: str
    start_line: int
    end_line: int
    quote: str
    sha256: str
    grounded: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One possible cause, with how likely the model holds it and the evidence for it."""

    cause: str
    likelihood: Level
    explanation: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `before` by `after` in `path`. `applies` when `before` stands exactly once in the file as sent."""

    path: str
    before: str
    after: str
    applies: bool
    start_line: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fix:
    """A recommended change; priority 1 comes first."""

    priority: int
    description: str
    file: str
    edits: tuple[Edit, ...]
    rationale: str
    risk: str
    test: str


@dataclass(frozen=True, slots=True)
class CodeExample:
    """Code that shows a point; not an edit."""

    title: str
    language: str
    code: str


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the confidence: its score in 0..1, its weight, and why in words."""

    name: str
    score: float
    weight: float
    why: str


@dataclass(frozen=True, slots=True)
class Confidence:
    """Computed from its parts, never from the model's word alone. `score` in 0..1."""

    level: Level
    score: float
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """A reply, read and checked."""

    verdict: Verdict
    root_cause: str
    technical_explanation: str
    hypotheses: tuple[Hypothesis, ...]
    fixes: tuple[Fix, ...]
    code_examples: tuple[CodeExample, ...]
    additional_investigation: tuple[str, ...]
    files_needed: tuple[str, ...]
    answers: tuple[str, ...]
    confidence: Confidence
    warnings: tuple[str, ...] = ()


def read(reply: Reply, prompt: Prompt) -> Analysis:
    """Read a completed reply and check it against what was sent.

    Raises `AnswerError` of kind refused_by_model, content_filter, truncated, empty_reply, not_json, wrong_schema,
    provider_failed or cancelled.
    """
    raise NotImplementedError
