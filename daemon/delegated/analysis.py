"""Replies read, each quote checked against the bytes sent, confidence computed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from delegated import shape, syntax
from delegated.cuts import short
from delegated.errors import AnswerError
from delegated.markdown import line, named
from delegated.quotes import Sent, Spot, spans, spliced
from delegated.reply import Outcome, Reply
from delegated.secrets import forbidden

if TYPE_CHECKING:  # what checks an answer is imported by `read`: a command that only shows a RESULT starts without it
    from delegated.prompt import Prompt

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
    """Replace `before` by `after` in `path`. `applies` when `before` stands exactly once in the file as sent.

    `parses`: whether the file still does once all edits of the same fix are made in it; None when that is not known.
    `sha256` is of the whole original file; `changed` when another one stood in the workspace as the RESULT was made.
    """

    path: str
    before: str
    after: str
    applies: bool
    start_line: int = 0
    note: str = ""
    parses: bool | None = None
    sha256: str = ""
    changed: bool | None = None

    @property
    def sound(self) -> bool:
        """Say whether it applies and is not known to break its file."""
        return self.applies and self.parses is not False


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
    """Code that shows a point; not an edit. `language` is a name that is known (`markdown.named`), or ""."""

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


# What an answer must have to be of any use; every other key may be missing and is then empty.
_CORE: Final = frozenset(
    {
        "hypotheses",
        "hypotheses[].cause",
        "hypotheses[].likelihood",
        "hypotheses[].evidence[].quote",
        "verdict",
        "root_cause",
        "recommended_fixes[].description",
        "recommended_fixes[].edits[].before",
        "recommended_fixes[].edits[].after",
        "code_examples[].code",
    }
)
_NO_ANSWER: Final[Mapping[Outcome, tuple[str, str]]] = {
    "refusal": ("refused_by_model", "the model declined to answer"),
    "truncated": ("truncated", "the answer was cut off at the model's limit of output"),
    "content_filter": ("content_filter", "the provider's content filter stopped the answer"),
    "failed": ("provider_failed", "the provider reported a failure"),
    "cancelled": ("cancelled", "the call was cancelled at the provider"),
    "empty": ("empty_reply", "the model sent no text"),
}
# A path that names nothing below the root: absolute, at home, on a drive, upwards, or with hidden characters.
_NO_PATH: Final = re.compile(
    r"^$|^[/~]|^[A-Za-z]:|\\|(?:^|/)\.\.(?:/|$)|[\x00-\x1f\x7f-\x9f\u200b-\u206f\ufeff\ud800-\udfff]"
)


def read(reply: Reply, prompt: Prompt) -> Analysis:
    """Read a completed reply and check it against what was sent.

    Raises `AnswerError` of kind refused_by_model, content_filter, truncated, empty_reply, not_json, wrong_schema,
    provider_failed or cancelled.
    """
    if reply.outcome in _NO_ANSWER:
        kind, message = _NO_ANSWER[reply.outcome]
        said = _in_short(reply.text, 300) if reply.outcome in ("refusal", "failed") else ""
        raise AnswerError(kind, f"{message}: {said}" if said else message)
    if not reply.text.strip():
        raise AnswerError("empty_reply", "the model sent no text")
    from delegated.prompt import SCHEMA

    try:
        answer, warnings = shape.read(reply.text, SCHEMA, _CORE)
    except shape.NotJson as error:
        raise AnswerError("not_json", f"the answer is not JSON: {_in_short(str(error), 300)}") from error
    except shape.Misfit as error:
        raise AnswerError(
            "wrong_schema", f"the answer does not fit its schema: {_in_short(str(error), 600)}"
        ) from error
    sent = Sent(prompt)
    notes = list(warnings)
    hypotheses = _hypotheses(answer["hypotheses"], sent)
    fixes = _fixes(answer["recommended_fixes"], sent, notes)
    root_cause = answer["root_cause"].strip()
    verdict = _verdict(answer, hypotheses, sent, notes, simulated=reply.simulated)
    if not root_cause and verdict in ("root_cause_found", "likely"):
        root_cause = hypotheses[0].cause
        notes.append("the answer named no root cause; its most likely hypothesis stands in its place")
    return Analysis(
        verdict=verdict,
        root_cause=root_cause,
        technical_explanation=answer["technical_explanation"].strip(),
        hypotheses=hypotheses,
        fixes=fixes,
        code_examples=tuple(
            CodeExample(**each | {"language": named(each["language"])})
            for each in answer["code_examples"]
            if each["code"].strip()
        ),
        additional_investigation=_said(answer["additional_investigation"]),
        files_needed=_files_needed(answer["files_needed"], notes),
        answers=tuple(text.strip() for text in answer["answers"]),
        confidence=_confidence(verdict, hypotheses, fixes, answer["confidence"], prompt, sent, reply),
        warnings=tuple(notes),
    )


def _in_short(text: str, most: int) -> str:
    """Put a model's words on one line of `most` characters: secrets are sought in it later."""
    return short(line(text), most)


def _hypotheses(given: list[dict[str, Any]], sent: Sent) -> tuple[Hypothesis, ...]:
    """Check every quote, and rank: as likely as the model holds them, those with evidence that was found first."""
    checked = [
        Hypothesis(
            cause=each["cause"].strip(),
            likelihood=each["likelihood"],
            explanation=each["explanation"].strip(),
            evidence=tuple(_evidence(quoted, sent) for quoted in each["evidence"]),
        )
        for each in given
        if each["cause"].strip()
    ]
    return tuple(
        sorted(checked, key=lambda h: (get_args(Level).index(h.likelihood), not any(e.grounded for e in h.evidence)))
    )


def _evidence(given: dict[str, Any], sent: Sent) -> Evidence:
    start, end = max(0, given["start_line"]), max(0, given["end_line"])
    found = sent.find(given["path"], given["quote"], start, end)
    if isinstance(found, str):
        return Evidence(_in_short(given["path"], 300), start, max(start, end), given["quote"], "", False, found)
    return Evidence(found.path, found.start_line, found.end_line, found.quote, found.sha256, True, found.note)


def _fixes(given: list[dict[str, Any]], sent: Sent, notes: list[str]) -> tuple[Fix, ...]:
    fixes = []
    for number, each in enumerate(given, 1):
        file = sent.resolve(each["file"]) or each["file"].strip()
        if file and _NO_PATH.search(file):
            notes.append(
                f"fix {number} names a file outside the workspace ({_in_short(file, 80)!r}); the name was dropped"
            )
            file = ""
        fix = Fix(
            priority=min(max(each["priority"], 0), 99) or number,
            description=each["description"].strip(),
            file=file,
            edits=_edits(each["edits"], file, sent),
            rationale=each["rationale"].strip(),
            risk=each["risk"].strip(),
            test=each["test"].strip(),
        )
        fixes.append(fix)
    return tuple(sorted(fixes, key=lambda fix: fix.priority))


def _edits(given: list[dict[str, Any]], file: str, sent: Sent) -> tuple[Edit, ...]:
    """Check the edits of one fix; they are applied together, so none may touch what another one replaces."""
    edits: list[Edit] = []
    taken: list[Spot] = []
    for each in given:
        spot = sent.edit(each["path"] or file, each["before"], each["after"])
        applies, note = spot.applies, spot.note
        path = "" if _NO_PATH.search(spot.path) else spot.path
        if applies and max(len(each["before"]), len(each["after"])) >= shape.TEXT_CAP:
            applies, note = False, "the text was cut because of its length"
        if applies and any(_overlap(spot, other) for other in taken):
            applies, note = False, "it changes the same text as an edit before it"
        if applies:
            taken.append(spot)
        sha256 = sent.sha256(spot.path) if spot.path in sent.files else ""
        edits.append(Edit(path, spot.before, spot.after, applies, spot.start_line, note, sha256=sha256))
    paths = {edit.path for edit in edits if edit.path in sent.files}
    return parsed(edits, {path: text for path in paths if (text := sent.text(path)) is not None})


def parsed(edits: Sequence[Edit], texts: Mapping[str, str]) -> tuple[Edit, ...]:
    """Say of the edits of one fix whether the files still parse with them; `texts` are those that are known whole."""
    said: dict[str, tuple[bool | None, str]] = {}
    for path in dict.fromkeys(edit.path for edit in edits):
        mine = [edit for edit in edits if edit.path == path]
        changes = spans(texts[path], ((edit.before, edit.after) for edit in mine)) if path in texts else ""
        if all(edit.applies for edit in mine) and not isinstance(changes, str):
            said[path] = syntax.judge(path, texts[path], spliced(texts[path], changes))
    return tuple(_parsed(edit, *said.get(edit.path, (edit.parses, ""))) for edit in edits)


def _parsed(edit: Edit, parses: bool | None, why: str) -> Edit:
    return replace(edit, parses=parses, note="; ".join(filter(None, (edit.note, why))))


def _overlap(one: Spot, other: Spot) -> bool:
    return one.path == other.path and one.span[0] < other.span[1] and other.span[0] < one.span[1]


def _files_needed(given: list[str], notes: list[str]) -> tuple[str, ...]:
    kept = [path for path in _said(given) if not _NO_PATH.search(path)]
    dropped = len(_said(given)) - len(kept)
    if dropped:
        notes.append(f"{dropped} of the files that the answer asks for lie outside the workspace and are not listed")
    inside, kept = len(kept), [path for path in kept if forbidden(path) is None]
    if len(kept) < inside:
        notes.append(f"{inside - len(kept)} of the files that the answer asks for are never sent and are not listed")
    return tuple(dict.fromkeys(kept))


def _said(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts if text.strip())


def _verdict(
    answer: Mapping[str, Any], hypotheses: tuple[Hypothesis, ...], sent: Sent, notes: list[str], *, simulated: bool
) -> Verdict:
    """Hold the answer's verdict to what the check found: a claim is never published above its evidence."""
    verdict: Verdict = answer["verdict"]
    if verdict in ("root_cause_found", "likely") and not hypotheses and not answer["root_cause"].strip():
        raise AnswerError("wrong_schema", f"the verdict is {verdict}, and no root cause is given")
    if verdict == "need_more_files" and not _said(answer["files_needed"]):
        notes.append("the answer asks for more files and names none: the verdict is lowered to inconclusive")
        return "inconclusive"
    if verdict != "root_cause_found":
        return verdict
    quotes = [evidence for hypothesis in hypotheses for evidence in hypothesis.evidence]
    if quotes and not any(evidence.grounded for evidence in quotes):
        notes.append("the answer calls the root cause found, but none of its quotes stands in what was sent")
        return "inconclusive"
    if simulated:
        return "likely"
    decisive = hypotheses[0].evidence if hypotheses else ()
    if not any(evidence.grounded for evidence in decisive):
        notes.append("the answer calls the root cause found, but no quote that was found supports it")
        return "likely"
    if sent.files and not any(evidence.grounded and evidence.path in sent.files for evidence in decisive):
        notes.append("the answer calls the root cause found, but quotes no code for it")
        return "likely"
    return verdict


# Confidence: what a machine could check weighs most, the model's own word least. A part that does not apply (no
# trace in the logs, no edit in the answer) is left out, and the weights of the others are scaled so that they sum to 1.
WEIGHTS: Final[Mapping[str, float]] = {"evidence": 0.45, "frame": 0.20, "edits": 0.15, "coverage": 0.10, "model": 0.10}
assert abs(sum(WEIGHTS.values()) - 1) < 1e-9
THRESHOLDS: Final[Mapping[Level, float]] = {"high": 0.75, "medium": 0.45, "low": 0.0}
BELOW: Final[Mapping[Level, float]] = {"medium": 0.74, "low": 0.44}  # the highest score of a level that is not high
_OWN_WORD: Final[Mapping[str, float]] = {"high": 1.0, "medium": 0.6, "low": 0.2}
_FRAME_MARGIN: Final = 5  # lines: a quote this near to a frame explains it


def _confidence(
    verdict: Verdict,
    hypotheses: tuple[Hypothesis, ...],
    fixes: tuple[Fix, ...],
    own_word: str,
    prompt: Prompt,
    sent: Sent,
    reply: Reply,
) -> Confidence:
    quotes = [evidence for hypothesis in hypotheses for evidence in hypothesis.evidence]
    parts = [
        _evidence_part(quotes, sent),
        _frame_part(hypotheses, prompt, sent),
        _edits_part(fixes),
        _coverage_part(prompt, sent),
        (_OWN_WORD.get(own_word, 0.0), f"the model itself says {own_word or 'nothing'}"),
    ]
    applying = {name: part for name, part in zip(WEIGHTS, parts, strict=True) if part is not None}
    whole = sum(WEIGHTS[name] for name in applying)
    rows = [Part(name, round(score, 4), WEIGHTS[name] / whole, why) for name, (score, why) in applying.items()]
    score = sum(row.score * row.weight for row in rows)
    limits = list(_limits(verdict, quotes, own_word, simulated=reply.simulated))
    if limits:
        level, why = min(limits, key=lambda limit: BELOW[limit[0]])
        if score > BELOW[level]:
            score = BELOW[level]
            rows.append(Part("limit", score, 0.0, f"never above {level}: {why}"))
    score = round(score, 2)
    return Confidence(_level(score), score, tuple(rows))


def _limits(verdict: Verdict, quotes: list[Evidence], own_word: str, *, simulated: bool) -> Iterable[tuple[Level, str]]:
    if simulated:
        yield "medium", "no language model was asked"
    if own_word == "low":
        yield "medium", "the model itself is not confident"
    if not any(evidence.grounded for evidence in quotes):
        yield "low", "no quote was found in what was sent"
    if verdict == "no_bug_found":
        yield "medium", "quotes cannot show that there is no fault"
    if verdict == "inconclusive":
        yield "low", "the verdict is inconclusive"
    if verdict == "need_more_files":
        yield "low", "what would decide it was not sent"


def _evidence_part(quotes: list[Evidence], sent: Sent) -> tuple[float, str]:
    if not quotes:
        return 0.0, "the answer quotes nothing"
    found = [evidence for evidence in quotes if evidence.grounded]
    why = f"{len(found)} of {len(quotes)} quotes stand in what was sent"
    if found and not any(evidence.path in sent.files for evidence in found):
        return 0.5 * len(found) / len(quotes), why + ", none of them in code"
    return len(found) / len(quotes), why


def _frame_part(hypotheses: tuple[Hypothesis, ...], prompt: Prompt, sent: Sent) -> tuple[float, str] | None:
    """Score whether the quotes for the first hypothesis lie where the program failed, by the traces in the logs."""
    from delegated import traces

    frames = []
    for frame in traces.frames("\n".join((prompt.request.logs, prompt.request.issue, prompt.request.context))):
        path = None if frame.library else sent.resolve(frame.path)
        if path is not None:
            frames.append((path, frame.line))
    if not frames:
        return None
    found = [evidence for evidence in hypotheses[0].evidence if evidence.grounded] if hypotheses else []
    for place, (path, at) in enumerate(frames):  # the one where the fault is most likely named comes first
        for evidence in found:
            near = evidence.start_line - _FRAME_MARGIN <= at <= evidence.end_line + _FRAME_MARGIN
            if at and near and evidence.path == path:
                which = "failing frame" if place == 0 else "frame"
                return (1.0 if place == 0 else 0.8), f"the quotes cover the trace's {which} {path}:{at}"
    files = {path for path, _ in frames}
    if any(evidence.path in files for evidence in found):
        return 0.6, "the quotes lie in a file of the trace, away from its frames"
    return 0.0, "no quote lies in a file of the trace"


def _edits_part(fixes: tuple[Fix, ...]) -> tuple[float, str] | None:
    edits = [edit for fix in fixes for edit in fix.edits]
    if not edits:
        return None
    apply, sound = sum(edit.applies for edit in edits), sum(edit.sound for edit in edits)
    why = f"{apply} of {len(edits)} edits apply to the files as sent"
    return sound / len(edits), why + (f", {apply - sound} of which break the syntax" if sound < apply else "")


def with_fixes(found: Analysis, fixes: tuple[Fix, ...]) -> Analysis:
    """Return an analysis whose edits were checked once more, its confidence made anew from that."""
    part, sure = _edits_part(fixes), found.confidence
    if part is None:
        return found
    rows = [replace(row, score=round(part[0], 4), why=part[1]) if row.name == "edits" else row for row in sure.parts]
    limits = [row.score for row in rows if not row.weight]
    score = round(min([sum(row.score * row.weight for row in rows), *limits]), 2)
    return replace(found, fixes=fixes, confidence=Confidence(_level(score), score, tuple(rows)))


def _level(score: float) -> Level:
    return next(level for level, least in THRESHOLDS.items() if score >= least)


def _coverage_part(prompt: Prompt, sent: Sent) -> tuple[float, str]:
    if not sent.files:
        return 0.0, "no file was sent"
    left_out = {omitted.path for omitted in prompt.context.omitted if not omitted.guessed}
    partly = {path for path in sent.files if path in left_out or not sent.whole(path)}
    absent = left_out - set(sent.files)
    score = (len(sent.files) - 0.25 * len(partly)) / (len(sent.files) + len(absent))
    why = f"files sent: {len(sent.files)}"
    why += f", {len(partly)} of them in part" if partly else ""
    return score, why + (f"; left out: {len(absent)}" if absent else "")
