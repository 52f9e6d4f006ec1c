"""A result, as Markdown for people and as JSON for programs, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from delegated import plain, receipt
from delegated.analysis import Analysis, Edit, Evidence, Fix, Hypothesis, Verdict
from delegated.calibration import ENOUGH, Calibration
from delegated.comparison import Cause, Comparison, Opinion
from delegated.errors import KINDS
from delegated.markdown import after, cell, clean, fence, indent, inline, line, prose, span
from delegated.patch import Patch
from delegated.quotes import WORDS
from delegated.reach import second_look
from delegated.receipt import Egress, SentFile, usd
from delegated.reply import Usage

__all__ = [
    "SCHEMA",
    "TITLES",
    "Egress",
    "Failure",
    "RequestRef",
    "Result",
    "SentFile",
    "Status",
    "clean",
    "ending",
    "failure",
    "from_json",
    "to_json",
    "to_markdown",
]

SCHEMA: Final = "delegated/result/1"
Status = Literal["answered", "rejected", "failed", "uncertain", "cancelled", "duplicate"]


@dataclass(frozen=True, slots=True)
class RequestRef:
    """Which request this answers: id, file name in the folder, SHA-256 of its bytes, revision, its title.

    `follows` is the id whose RESULT it asks about, "" for a request of its own.
    """

    id: str
    path: str
    sha256: str
    revision: int
    title: str = ""
    follows: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer: `kind` is one of `errors.KINDS`."""

    kind: str
    message: str
    hint: str
    retryable: bool
    next_command: str


@dataclass(frozen=True, slots=True)
class Result:
    """What the daemon has to say about one revision of one request.

    `timings` are seconds by phase; `problems` are a rejected request's, as sentences; `raw_response` is the
    model's text as received; `simulated` when no language model was asked; times are RFC 3339 in UTC. `patch_notes` say
    which fixes are not in `patch`, or why there is none.
    """

    status: Status
    request: RequestRef
    timestamp: str
    model: str = ""
    simulated: bool = False
    analysis: Analysis | None = None
    error: Failure | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    egress: tuple[Egress, ...] = ()
    usage: Usage | None = None
    cost_usd: float | None = None
    attempts: int = 0
    timings: Mapping[str, float] = field(default_factory=dict)
    raw_response: str = ""
    duplicate_of: str = ""
    comparison: Comparison | None = None
    patch: Patch | None = None
    patch_notes: tuple[str, ...] = ()
    calibration: Calibration | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


CANCELLED: Final = "it was cancelled by its CANCEL file"
BILLED: Final = "a call had left already and may be billed by the provider"
KEPT: Final = "the REQUEST was edited after it was answered; `on_edit: keep` is set, so it was not asked again"


def failure(kind: str, message: str, request_id: str) -> Failure:
    """Make the failure of one of `errors.KINDS` for one request, with its hint and the command to run next."""
    known = KINDS[kind]
    return Failure(kind, message, known.hint, known.retryable, known.next_command.replace("{id}", request_id))


# JSON


def to_json(result: Result) -> str:
    """Write RESULT.json: the published schema, a superset of the original script's keys."""
    found = result.analysis
    said = plain.dump(found) if found is not None else {}
    value = {
        "schema": SCHEMA,
        "status": result.status,
        "verdict": said.get("verdict"),
        "confidence": said.get("confidence"),
        "confidence_level": found.confidence.level if found is not None else "",
        "calibration": plain.dump(result.calibration),
        "simulated": result.simulated,
        "root_cause": said.get("root_cause", ""),
        "technical_explanation": said.get("technical_explanation", ""),
        "analysis": "\n\n".join(filter(None, (found.root_cause, found.technical_explanation))) if found else "",
        "hypotheses": said.get("hypotheses", []),
        "recommended_fixes": [_fix_value(fix) for fix in found.fixes] if found else [],
        "code_examples": said.get("code_examples", []),
        "answers": said.get("answers", []),
        "additional_investigation": said.get("additional_investigation", []),
        "files_needed": said.get("files_needed", []),
        "check_warnings": said.get("warnings", []),
        "warnings": list(result.warnings),
        "problems": list(result.problems),
        "error": plain.dump(result.error),
        "duplicate_of": result.duplicate_of,
        "comparison": plain.dump(result.comparison),
        "patch": plain.dump(result.patch),
        "patch_notes": list(result.patch_notes),
        "request": plain.dump(result.request),
        "egress": plain.dump(result.egress),
        "model": result.model,
        "attempts": result.attempts,
        "usage": plain.dump(result.usage),
        "cost_usd": plain.dump(result.cost_usd),
        "timings": {name: seconds for name, seconds in plain.dump(result.timings).items() if seconds is not None},
        "timestamp": result.timestamp,
        "extra": plain.dump(result.extra),
        "raw_response": result.raw_response,
    }
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
    return re.sub("[\ud800-\udfff]", "\ufffd", text) + "\n"  # half a character is legal here and fails most readers


def _fix_value(fix: Fix) -> dict[str, Any]:
    changes = "\n".join(_diff(edit) for edit in fix.edits if edit.before or edit.after)
    return {**plain.dump(fix), "changes": changes}


def from_json(text: str) -> Result:
    """Read what `to_json` wrote. Raises `ValueError` on anything else."""
    value = plain.parse(text)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise ValueError(f"not a result: its `schema` is not {SCHEMA!r}")
    found = None
    if value.get("verdict") is not None:
        renamed = {"fixes": value.get("recommended_fixes"), "warnings": value.get("check_warnings", [])}
        found = plain.load(Analysis, {**value, **renamed})
    return plain.load(Result, {**value, "analysis": plain.dump(found)})


# Markdown

TITLES: Final[Mapping[Verdict, str]] = {
    "root_cause_found": "Root cause found",
    "likely": "Likely cause",
    "inconclusive": "Inconclusive",
    "no_bug_found": "No bug found in the code sent",
    "need_more_files": "More files are needed",
}
_NO_CAUSE: Final[Mapping[Verdict, str]] = {
    "root_cause_found": "The answer names no root cause.",
    "likely": "The answer names no root cause.",
    "inconclusive": "Several causes remain possible; none is shown.",
    "no_bug_found": "None: by this answer the code sent does what it should.",
    "need_more_files": "Not known yet: what would decide it was not sent.",
}
_ENDINGS: Final[Mapping[Status, str]] = {
    "answered": "Answered",
    "rejected": "Rejected: the request cannot be used",
    "failed": "Failed: there is no answer",
    "uncertain": "Uncertain: the call may have been billed, and its answer is not known",
    "cancelled": "Cancelled",
    "duplicate": "Duplicate: nothing was asked",
}
_BY_LIMIT: Final = "Rejected: a limit forbids the call"
_LIMITS: Final = frozenset({"budget", "over_budget", "loop", "unknown_price"})  # the request itself is sound
_PART_NAMES: Final[Mapping[str, str]] = {
    "evidence": "Quotes found",
    "frame": "Failing frame explained",
    "edits": "Edits apply",
    "coverage": "Code sent",
    "model": "The model's own word",
    "agreement": "Answers agree",
    "limit": "Limit",
}
_LANGUAGES: Final[Mapping[str, str]] = {
    "py": "python", "pyi": "python", "js": "javascript", "mjs": "javascript", "ts": "typescript", "rs": "rust",
    "rb": "ruby", "sh": "sh", "yml": "yaml", "md": "markdown", "kt": "kotlin", "cs": "csharp", "h": "c",
}  # fmt: skip
_MOST_ROWS: Final = 20
_MOST_LINES: Final = 30
_NOT_ASKED: Final = (
    "> **No language model was asked.** This analysis was made by rules on this machine{by}. "
    "Take it as a first reading, not as an expert's opinion."
)


def to_markdown(result: Result) -> str:
    """Write RESULT.md for a person.

    Nothing in it that came from a model or a request can break the page or a terminal.
    """
    blocks: list[str] = []
    found = result.analysis
    if result.simulated:
        blocks.append(_NOT_ASKED.format(by=f" (model {span(result.model)})" if result.model else ""))
    title = TITLES[found.verdict] if found is not None else ending(result)
    about = inline(result.request.title, 120)
    blocks.append(f"# {title}" + (f": {about}" if about and found is not None else ""))
    if found is not None:
        blocks += _answered(result, found)
    else:
        blocks += _unanswered(result)
    blocks += receipt.to_markdown(result.egress, key=result.request.id, in_doubt=in_doubt(result))
    blocks += _section("Warnings", _bullets(result.warnings))
    blocks += _details(result)
    return "\n\n".join(block for block in blocks if block) + "\n"


def ending(result: Result) -> str:
    """Say in a line how a request without an answer ended."""
    return _BY_LIMIT if _limited(result) else _ENDINGS[result.status]


def _limited(result: Result) -> bool:
    return result.status == "rejected" and result.error is not None and result.error.kind in _LIMITS


def _section(title: str, *blocks: str) -> list[str]:
    kept = [block for block in blocks if block]
    return [f"## {title}", *kept] if kept else []


def _bullets(texts: tuple[str, ...]) -> str:
    return "\n".join(f"- {indent(prose(text), '  ')}" for text in texts if text.strip())


def _answered(result: Result, found: Analysis) -> list[str]:
    sure = found.confidence
    asked = "" if result.simulated else f" Model: {span(result.model)}." if result.model else ""
    blocks = [f"**Confidence: {sure.level}** ({sure.score:.2f} of 1), {_in_short(found)}.{_so_far(result)}{asked}"]
    if found.warnings:
        blocks.append("\n".join(["**What the check of the answer says:**", "", _bullets(found.warnings)]))
    if found.verdict == "need_more_files":
        blocks += _section("Files Needed", "\n".join(f"- {span(path)}" for path in found.files_needed))
        blocks.append("Add them to the request's files and save it: it is then asked again.")
    blocks += _section("Root Cause Analysis", prose(found.root_cause) or _NO_CAUSE[found.verdict])
    if result.comparison is not None:
        blocks += _section("Comparison of Answers", *_comparison(result.comparison))
    blocks += _section("Technical Explanation", prose(found.technical_explanation))
    hypotheses = [_hypothesis(number, each) for number, each in enumerate(found.hypotheses, 1)]
    blocks += _section("Hypotheses and Evidence", *hypotheses)
    blocks += _section("Recommended Fixes", *(_fix(number, fix) for number, fix in enumerate(found.fixes, 1)))
    if found.fixes:
        blocks += _section("Patch", *_patch(result))
    examples = (f"**{inline(e.title) or 'Example'}**\n\n{fence(e.code, e.language)}" for e in found.code_examples)
    blocks += _section("Code Examples", *examples)
    answers = (
        f"{number}. {indent(prose(text) or 'No answer.', ' ' * (len(str(number)) + 2))}"
        for number, text in enumerate(found.answers, 1)
    )
    blocks += _section("Answers to the Questions", "\n".join(answers))
    blocks += _section("Additional Investigation", _bullets(found.additional_investigation))
    return blocks + _section("Confidence Level", *_confidence_table(found), _say_how(result))


def _comparison(found: Comparison) -> Iterator[str]:
    rows = ["| Answer of | Says | Confidence | Root cause | Cost | Time |", "|---|---|---|---|---|---|"]
    rows += [_opinion(each) for each in found.opinions]
    yield "\n".join(rows)
    yield f"This page shows the answer of {span(found.shown)}; the JSON holds each of them whole, under `comparison`."
    for title, causes in (("They agree", found.agreed), ("Only one names", found.single)):
        if causes:
            yield "\n".join([f"**{title}:**", "", *map(_cause, causes)])
    if found.contradictions:
        yield "\n".join(["**They contradict each other:**", "", _bullets(found.contradictions)])
    if found.checks:
        checks = (f"- {span(each.model)}: {indent(prose(each.text), '  ')}" for each in found.checks)
        yield "\n".join(["**To tell them apart, the shortest first:**", "", *checks])


def _opinion(each: Opinion) -> str:
    said = each.analysis
    if said is None:
        cells = [cell(span(each.model)), each.status, "", cell(inline(each.error, 200))]
    else:
        sure = f"{said.confidence.level} ({said.confidence.score:.2f})"
        cells = [cell(span(each.model)), TITLES[said.verdict], sure, cell(inline(said.root_cause, 200))]
    return f"| {' | '.join([*cells, usd(each.cost_usd) if each.cost_usd else '', f'{each.seconds:.1f} s'])} |"


def _cause(each: Cause) -> str:
    places = f" ({', '.join(map(span, each.places))})" if each.places else ""
    return f"- {', '.join(map(span, each.models))}: {inline(each.cause, 200)}{places}"


def _in_short(found: Analysis) -> str:
    quotes = [evidence for hypothesis in found.hypotheses for evidence in hypothesis.evidence]
    edits = [edit for fix in found.fixes for edit in fix.edits]
    words = [
        f"{sum(q.grounded for q in quotes)} of {len(quotes)} quotes found in what was sent" if quotes else "no quotes",
    ]
    if edits:
        words.append(f"{sum(edit.applies for edit in edits)} of {len(edits)} edits apply")
        if broken := sum(edit.applies and not edit.sound for edit in edits):
            words.append(f"{broken} of them break the syntax" if broken > 1 else "1 of them breaks the syntax")
    return ", ".join(words)


def _hypothesis(number: int, each: Hypothesis) -> str:
    blocks = [f"### {number}. {inline(each.cause, 160)}", f"Likelihood: **{each.likelihood}**", prose(each.explanation)]
    return "\n\n".join(filter(None, [*blocks, *map(_evidence, each.evidence)]))


def _evidence(each: Evidence) -> str:
    place = span(each.path) if each.path else "the request"
    if each.start_line > 0:
        last = f"-{each.end_line}" if each.end_line > each.start_line else ""
        place += f" line{'s' if last else ''} {each.start_line}{last}"
    where = "the request" if each.path in WORDS else "the code sent"
    word = f"✓ found in {where}" if each.grounded else f"✗ **NOT found in {where}**"
    note = f" ({inline(each.note)})" if each.note else ""
    return f"{place}: {word}{note}\n\n{fence(_shown(_dedented(each.quote), _MOST_LINES), _language(each.path))}"


def _dedented(code: str) -> str:
    rows = clean(code).expandtabs(4).strip("\n").split("\n")
    margin = min((len(row) - len(row.lstrip(" ")) for row in rows if row.strip()), default=0)
    return "\n".join(row[margin:] for row in rows)


def _fix(number: int, fix: Fix) -> str:
    blocks = [f"### {number}. {inline(fix.description, 160)}"]
    if len(line(fix.description)) > 160:
        blocks.append(prose(fix.description))
    if fix.file and fix.file not in {edit.path for edit in fix.edits}:
        blocks.append(f"File: {span(fix.file)}")
    for edit in fix.edits:
        where = f"{span(edit.path)}" if edit.path else "An edit without a path"
        note = f" ({inline(edit.note)})" if edit.note else ""
        blocks.append(f"{where}: {_applies(edit)}{note}")
        why = second_look(edit.path)
        if why:
            blocks.append(f"**Look twice** before you apply it: {why}.")
        blocks.append(fence(_diff(edit), "diff"))
    rows = [
        f"- {indent(after(f'**{name}:**', text), '  ')}"
        for name, text in (("Why", fix.rationale), ("Risk", fix.risk), ("Test", fix.test))
        if text.strip()
    ]
    return "\n\n".join([*blocks, *(["\n".join(rows)] if rows else [])])


def _applies(edit: Edit) -> str:
    if not edit.applies:
        return "**does not apply as it stands**"
    words = f"applies at line {edit.start_line}"
    if edit.parses is not None:
        words += ", and the file still parses" if edit.parses else ", and **the file does not parse any more**"
    return words + (", but **the file changed since it was sent**" if edit.changed else "")


def _patch(result: Result) -> Iterator[str]:
    if result.patch is not None:
        numbers = " and ".join(", ".join(map(str, result.patch.fixes)).rsplit(", ", 1))
        which = f"fix{'es' if len(result.patch.fixes) > 1 else ''} {numbers}"
        yield (
            f"{span(result.patch.name)} makes {which}, in {', '.join(map(span, result.patch.files))}. "
            "In the workspace's root: `git apply` and the path of that file."
        )
    elif result.patch_notes:
        yield "There is none:"
    yield _bullets(result.patch_notes)


def _diff(edit: Edit) -> str:
    """Return an edit as a unified diff, its hunks numbered as in the file."""
    before, after = (re.split(r"\r?\n", text.removesuffix("\n")) if text else [] for text in (edit.before, edit.after))
    path = line(edit.path) or "file"
    if max(len(before), len(after)) > 2_000:  # comparing line by line costs the square of them
        rows = [f"--- a/{path}", f"+++ b/{path}", *(f"-{row}" for row in before), *(f"+{row}" for row in after)]
        return "\n".join(rows) + "\n"
    import difflib

    rows = list(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}", lineterm=""))

    def numbered(hunk: str) -> str:
        if not edit.start_line:
            return "@@ place not known @@"
        return re.sub(r"([-+])(\d+)", lambda m: f"{m[1]}{int(m[2]) + edit.start_line - 1}", hunk)

    # A row that begins with @@ is a hunk's header: a line of code begins with a space, a minus or a plus.
    return "\n".join(numbered(row) if row.startswith("@@ ") else row for row in rows) + "\n"


def _language(path: str) -> str:
    suffix = path.rpartition(".")[2].lower() if "." in path.rpartition("/")[2] else ""
    return _LANGUAGES.get(suffix, suffix if suffix.isalnum() and len(suffix) <= 5 else "")


def _shown(code: str, most: int) -> str:
    rows = code.split("\n")
    if len(rows) <= most:
        return code
    return "\n".join([*rows[:most], f"[… {len(rows) - most} more lines are in the JSON]"])


def _confidence_table(found: Analysis) -> Iterator[str]:
    sure = found.confidence
    yield f"**{sure.level}**: {sure.score:.2f} of 1, computed from what could be checked."
    rows = ["| Part | Score | Weight | Why |", "|---|---|---|---|"]
    for part in sure.parts:
        name = _PART_NAMES.get(part.name) or inline(part.name)
        weight = f"{part.weight:.0%}" if part.weight else ""
        rows.append(f"| {cell(name)} | {part.score:.2f} | {weight} | {cell(inline(part.why))} |")
    yield "\n".join(rows)


def _so_far(result: Result) -> str:
    known = result.calibration
    if known is None:
        return ""
    level, text = inline(known.level), inline(known.text)
    return f" {text[:1].upper()}{text[1:]}." if known.of >= ENOUGH else f" How often {level} is right here: {text}."


def _say_how(result: Result) -> str:
    if result.calibration is None:
        return ""
    command = span(f"delegate outcome {result.request.id} fixed")
    return f"Once it was tried, {command} (or {span('partly')}, {span('wrong')}) tells later RESULTs how good this was."


def _unanswered(result: Result) -> list[str]:
    blocks: list[str] = []
    about = inline(result.request.title, 120)
    if about:
        blocks.append(f"Request: {about}")
    faulty = result.status == "rejected" and not _limited(result)
    if faulty:
        count = len(result.problems)
        blocks.append(f"{span(result.request.path)} has {count} problem{'' if count == 1 else 's'}:")
        blocks.append("\n".join(f"{number}. {inline(text)}" for number, text in enumerate(result.problems, 1)))
    if result.status == "duplicate":
        first = span(result.duplicate_of)
        blocks.append(f"This asks the same as the request {first}. It was not asked about again.")
        blocks.append(f"The answer is in {span(f'OPENAI_DELEGATION_RESULT_{result.duplicate_of}.md')}.")
    error = result.error
    if error is not None:
        if not faulty or not result.problems:
            blocks.append(after("**What happened:**", error.message))
        if result.status != "cancelled":
            blocks.append(after("**What to do:**", error.hint))
        if error.next_command:
            blocks += ["To ask again:", fence(error.next_command, "sh")]
        if result.status == "failed":
            again = "may succeed later as it is" if error.retryable else "will fail again until something is changed"
            blocks.append(f"Kind: {span(error.kind)}. The same request {again}.")
    elif result.status == "cancelled":
        blocks.append("The request was cancelled. Nothing more is sent for it.")
    if result.raw_response.strip():
        blocks += _section("What the Model Sent", fence(_shown(result.raw_response[:4_000], 60)))
    return blocks


def in_doubt(result: Result) -> bool:
    """Say whether something may have left although no receipt came with the result: the job ended in between."""
    broke = result.error is not None and result.error.kind == "internal"
    return result.status == "uncertain" or broke or BILLED in result.warnings


def _details(result: Result) -> list[str]:
    request = result.request
    rows = [f"- Request: {span(request.id)}, revision {request.revision}, {span(request.path)}"]
    if request.sha256:
        rows[0] += f", SHA-256 {span(request.sha256[:16])}…"
    if request.follows:
        rows.append(f"- Asks further about: {span(f'OPENAI_DELEGATION_RESULT_{request.follows}.md')}")
    rows.append(f"- Cost: {_cost(result)}")
    seconds = [f"{inline(name)} {_seconds(took)}" for name, took in result.timings.items()]
    rows.append(f"- Finished: {inline(result.timestamp)}" + (f" ({', '.join(seconds)})" if seconds else ""))
    rows.append(f"- For programs: {span(f'OPENAI_DELEGATION_RESULT_{request.id}.json')}")
    return _section("Cost and Details", "\n".join(rows))


def _cost(result: Result) -> str:
    cost = result.cost_usd
    if cost is None or cost - cost != 0:  # not known, or no number
        billed = any(each.endpoint for each in result.egress)
        words = "not known" if billed or in_doubt(result) else "nothing"
    else:
        words = usd(cost)
    usage = result.usage
    if usage is not None and (usage.input_tokens or usage.output_tokens):
        cached = f" ({usage.cached_input_tokens:,} of them cached)" if usage.cached_input_tokens else ""
        words += f"; {usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out"
        words += " (estimated)" if usage.estimated else ""
    if result.attempts:
        words += f"; {result.attempts} attempt{'' if result.attempts == 1 else 's'}"
    return words


def _seconds(took: float) -> str:
    return f"{took:.3f} s" if took < 1 else f"{took:.1f} s"
