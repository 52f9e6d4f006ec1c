"""What several models make of the same request: where they agree, what only one saw, what would tell them apart.

Plain comparison of checked answers: by the places that their evidence stands at, else by the words of the cause. No
model is asked to judge another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from delegated.analysis import BELOW, THRESHOLDS, Analysis, Confidence, Evidence, Hypothesis, Level, Part, Verdict
from delegated.quotes import WORDS

_MARGIN: Final = 3  # lines: quotes this near to each other are about the same place
_ALIKE: Final = 0.5  # share of the words that two causes have in common
_WEIGHT: Final = 0.15  # of the agreement in the confidence; the other parts keep the rest in their proportion
_MOST: Final = 5
_WORD: Final = re.compile(r"[a-z_][a-z0-9_]{2,}")
_LITTLE: Final = frozenset(
    (
        *("the", "and", "that", "this", "with", "for", "from", "not", "are", "was", "has", "have", "its", "which"),
        *("when", "where", "before", "after", "because", "does", "into", "than", "then", "there", "will", "would"),
        *("never", "always", "only", "also", "but", "can", "may", "all", "any", "one", "two", "line", "lines", "file"),
        *("function", "method", "call", "calls"),
    )
)
_CLAIMS: Final[tuple[Verdict, ...]] = ("root_cause_found", "likely")


@dataclass(frozen=True, slots=True)
class Opinion:
    """What came of asking one model. `analysis` is None when there is no answer; `error` says in words why."""

    model: str
    status: str
    analysis: Analysis | None = None
    error: str = ""
    cost_usd: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause and the models that name it, the one with the best evidence first. `places` are `path:start-end`."""

    cause: str
    models: tuple[str, ...]
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at, proposed by a model, whose outcome speaks for one cause and against another."""

    model: str
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The opinions in the order asked, and what comes of laying them side by side.

    `shown` is the model whose answer stands in the RESULT. `contradictions` are sentences.
    """

    shown: str
    opinions: tuple[Opinion, ...]
    agreed: tuple[Cause, ...] = ()
    single: tuple[Cause, ...] = ()
    contradictions: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()


def compare(opinions: Sequence[Opinion]) -> tuple[Comparison, Analysis | None]:
    """Lay opinions side by side. Returns also the answer to show: the one with the highest confidence.

    Its confidence has the agreement as a further part where at least one other model answered.
    """
    answered = [(each, each.analysis) for each in opinions if each.analysis is not None]
    if not answered:
        return Comparison("", tuple(opinions)), None
    best, shown = max(answered, key=lambda pair: pair[1].confidence.score)  # the first of equals
    groups = _groups([(opinion.model, found) for opinion, found in answered])
    comparison = Comparison(
        best.model,
        tuple(opinions),
        agreed=tuple(_cause(group) for group in groups if _voices(group) > 1)[:_MOST],
        single=tuple(_cause(group) for group in groups if _voices(group) == 1)[:_MOST] if len(answered) > 1 else (),
        contradictions=tuple(_contradictions([(opinion.model, found) for opinion, found in answered])),
    )
    if len(answered) > 1:
        apart = bool(comparison.contradictions)
        comparison = replace(comparison, checks=tuple(_checks(answered)) if apart else ())
        shown = replace(shown, confidence=_confidence(shown, [found for _, found in answered if found is not shown]))
    return comparison, shown


_Named = tuple[str, Hypothesis]


def _groups(answers: Iterable[tuple[str, Analysis]]) -> list[list[_Named]]:
    """Put hypotheses that are about the same cause together; the most likely of each model come first."""
    named = [(rank, model, hypothesis) for model, found in answers for rank, hypothesis in enumerate(found.hypotheses)]
    groups: list[list[_Named]] = []
    for _, model, hypothesis in sorted(named, key=lambda each: each[0]):
        for group in groups:
            if any(model != other and same_cause(hypothesis, known) for other, known in group):
                group.append((model, hypothesis))
                break
        else:
            groups.append([(model, hypothesis)])
    return groups


def same_cause(one: Hypothesis, other: Hypothesis) -> bool:
    """Say whether two hypotheses are about the same cause: evidence at one place, or the same words."""
    here, there = _in_code(one), _in_code(other)
    for a in here:
        for b in there:
            near = a.start_line <= b.end_line + _MARGIN and b.start_line <= a.end_line + _MARGIN
            if a.path == b.path and near:
                return True
    words, others = _words(one.cause), _words(other.cause)
    return bool(words and others) and len(words & others) / len(words | others) >= _ALIKE


def _in_code(hypothesis: Hypothesis) -> list[Evidence]:
    """Return the evidence in code: two that quote the same line of a log name the same symptom, not the same cause."""
    return [each for each in hypothesis.evidence if each.grounded and each.start_line and each.path not in WORDS]


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - _LITTLE


def _voices(group: Sequence[_Named]) -> int:
    return len({model for model, _ in group})


def _cause(group: Sequence[_Named]) -> Cause:
    ranked = sorted(group, key=lambda each: -sum(evidence.grounded for evidence in each[1].evidence))
    places = [
        f"{each.path}:{each.start_line}" + (f"-{each.end_line}" if each.end_line > each.start_line else "")
        for _, hypothesis in ranked
        for each in _in_code(hypothesis)
    ]
    models = dict.fromkeys(model for model, _ in ranked)
    return Cause(ranked[0][1].cause, tuple(models), tuple(dict.fromkeys(places))[:_MOST])


def _contradictions(answers: Sequence[tuple[str, Analysis]]) -> Iterable[str]:
    for number, (model, found) in enumerate(answers):
        for other, theirs in answers[number + 1 :]:
            pair = {found.verdict, theirs.verdict}
            if "no_bug_found" in pair and pair & set(_CLAIMS):
                fine = model if found.verdict == "no_bug_found" else other
                yield f"{fine} finds no fault in the code sent, {other if fine == model else model} names one"
            elif found.verdict in _CLAIMS and theirs.verdict in _CLAIMS and not _agree(found, theirs):
                first, second = found.root_cause, theirs.root_cause
                yield f"{model} and {other} hold different causes the likeliest: {first} / {second}"


def _agree(one: Analysis, other: Analysis) -> bool:
    return bool(one.hypotheses and other.hypotheses) and same_cause(one.hypotheses[0], other.hypotheses[0])


def _checks(answered: Sequence[tuple[Opinion, Analysis]]) -> Iterable[Check]:
    """Return one check of each model, the shortest first: what is said shortest is most often the cheapest to do."""
    found: dict[str, Check] = {}
    for opinion, analysis in answered:
        tests = [fix.test for fix in analysis.fixes[:1] if fix.test.strip()]
        texts = [*analysis.additional_investigation, *tests]
        if texts:
            shortest = min(texts, key=len)
            found.setdefault(shortest, Check(opinion.model, shortest))
    return sorted(found.values(), key=lambda check: len(check.text))[:_MOST]


def _confidence(shown: Analysis, others: Sequence[Analysis]) -> Confidence:
    agree = 0.0
    for other in others:
        if _agree(shown, other):
            agree += 1
        elif shown.hypotheses and any(same_cause(shown.hypotheses[0], each) for each in other.hypotheses):
            agree += 0.5
    share = agree / len(others)
    why = f"{agree:g} of {len(others)} other answers name the same cause"
    before = shown.confidence
    limit = [part for part in before.parts if not part.weight]
    parts = [replace(part, weight=part.weight * (1 - _WEIGHT)) for part in before.parts if part.weight]
    parts.append(Part("agreement", round(share, 4), _WEIGHT, why))
    score = round(min([sum(part.score * part.weight for part in parts), *(part.score for part in limit)]), 2)
    contradicted = all(any(_contradictions((("", shown), ("", other)))) for other in others)
    if contradicted and score > BELOW["medium"]:
        score = BELOW["medium"]
        limit = [Part("limit", score, 0.0, "never above medium: every other answer contradicts this one")]
    level: Level = next(level for level, least in THRESHOLDS.items() if score >= least)
    return Confidence(level, score, (*parts, *limit))
