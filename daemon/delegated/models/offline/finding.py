"""What reading one exception came to: a cause, the lines that show it, and an edit if the code proves one."""

from __future__ import annotations

from dataclasses import dataclass

from delegated.models.offline.source import Edit, Place


@dataclass(frozen=True, slots=True)
class Fix:
    """A recommended change. Without `edits` it is advice: the code does not say what the right change is."""

    description: str
    edits: tuple[Edit, ...] = ()
    rationale: str = ""
    risk: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """Code that shows a point; not an edit."""

    title: str
    code: str
    language: str = "python"


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause read off the trace and the code.

    `cause` is one sentence, `explanation` a paragraph. `evidence` comes beside the failing line, which is always
    quoted. `shown` is true when the lines quoted show the whole mechanism, not only where it struck. `checks` is
    what to look at next.
    """

    cause: str
    explanation: str
    evidence: tuple[Place, ...] = ()
    fixes: tuple[Fix, ...] = ()
    examples: tuple[Example, ...] = ()
    checks: tuple[str, ...] = ()
    shown: bool = False
    place_only: bool = False  # no rule applied: only where it was raised is known
