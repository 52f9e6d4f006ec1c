"""The answer: what was read, put into the words and the keys of the schema that every model answers in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from delegated.models.offline import attributes, calls, imports, names, outside, values
from delegated.models.offline.crash import Crash
from delegated.models.offline.finding import Finding, Fix
from delegated.models.offline.scene import Scene, Spot
from delegated.models.offline.source import Edit, Place
from delegated.prompt import Prompt
from delegated.traces import Frame, frames

Reader = Callable[[Scene, Crash, Spot], Finding | None]
READERS: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        "NameError": names.name_error,
        "UnboundLocalError": names.unbound_local,
        "ImportError": imports.import_error,
        "ModuleNotFoundError": imports.module_not_found,
        "AttributeError": attributes.attribute_error,
        "TypeError": calls.type_error,
        "KeyError": values.key_error,
        "IndexError": values.index_error,
        "ZeroDivisionError": values.zero_division,
        "FileNotFoundError": outside.file_not_found,
        "JSONDecodeError": outside.json_error,
    }
)
# raised by a library's frames as a matter of course: the own line that led there tells enough
FROM_OUTSIDE: Final = frozenset(
    {"ImportError", "ModuleNotFoundError", "KeyError", "FileNotFoundError", "JSONDecodeError"}
)
BY_READING: Final = "This was found by reading the trace and the code by fixed rules; no language model was asked."
NOT_ANSWERED: Final = "not answered: no language model was asked"
_LONGEST_QUOTE: Final = 2_000
_QUOTED: Final = re.compile(r"['\"`]([A-Za-z_][\w.]{2,60})['\"`]")


def answer(prompt: Prompt) -> dict[str, Any]:
    """Read the prompt and return the answer, in the order of the schema's keys."""
    scene = Scene(prompt)
    if scene.crashes and any(crash.steps for crash in scene.crashes):
        told = _crashed(scene)
    elif found := _foreign(scene):
        told = _other_language(scene, found)
    else:
        told = _no_trace(scene, prompt)
    told["answers"] = [f"{question.strip()} {NOT_ANSWERED}" for question in prompt.request.questions]
    return {key: told[key] for key in prompt.schema["properties"]} if "properties" in prompt.schema else told


def _crashed(scene: Scene) -> dict[str, Any]:
    hypotheses: list[dict[str, Any]] = []
    findings: list[tuple[Finding, Spot | None]] = []
    for crash in scene.crashes:
        finding, spot = _read(scene, crash)
        findings.append((finding, spot))
        hypotheses.append(_hypothesis(scene, finding, spot, crash, first=not hypotheses))
    finding, spot = findings[0]
    crash = scene.crashes[0]
    wanting = [] if finding.shown and spot is not None else list(scene.missing)
    known = spot is not None and not finding.place_only
    checks = [check for each, _ in findings for check in each.checks]
    if wanting:
        checks.insert(
            0, f"Ask again with {', '.join(wanting[:5])}: the trace passes through, and the code was not sent."
        )
    notes = [at.note for _, at in findings if at is not None and at.note]
    return _told(
        hypotheses=hypotheses,
        verdict="need_more_files" if wanting and scene.unsent(crash) else "likely" if known else "inconclusive",
        root_cause=finding.cause,
        explanation=" ".join([_way(scene, crash), finding.explanation, *notes]),
        fixes=[(fix, at) for each, at in findings for fix in each.fixes],
        examples=[example for each, _ in findings for example in each.examples],
        checks=checks,
        files_needed=wanting if scene.unsent(crash) else [],
        confidence="medium" if known and finding.shown else "low",
        test=f"Repeat what led to the trace: this `{crash.name}` must be gone.",
    )


def _read(scene: Scene, crash: Crash) -> tuple[Finding, Spot | None]:
    """Explain one exception; where no rule fits, say where it struck and no more."""
    spots = scene.spots(crash)
    spot = spots[-1] if spots else None
    missing = scene.unsent(crash)
    outside = spot is not None and spot.step.frame != crash.steps[-1].frame and crash.name not in FROM_OUTSIDE
    if spot is not None and not outside and (missing is None or crash.name == "JSONDecodeError"):
        reader = READERS.get(crash.name)
        finding = reader(scene, crash, spot) if reader else None
        if finding is not None:
            return finding, spot
    if missing is not None:
        last = missing.frame
        text = f" The log shows its line: `{missing.text.strip()}`." if missing.text.strip() else ""
        reason = next((f" ({r})" for p, r in scene.omitted.items() if last.path.replace("\\", "/").endswith(p)), "")
        return (
            Finding(
                f"{crash.sentence[:300]}: raised in {last.path}, line {last.line}, which was not sent{reason}.",
                f"The innermost frame outside libraries is {last.path}, line "
                f"{last.line}{f', in {last.function}' if last.function else ''}.{text} "
                "Without that file nothing more can be said by reading.",
                place_only=True,
            ),
            spot,
        )
    if spot is not None and outside:
        last = crash.steps[-1].frame
        return (
            Finding(
                f"{crash.sentence[:300]}: raised inside {last.path}, line {last.line}, which {spot.where} had called.",
                "The exception comes from code that is not the workspace's own. What was passed to it is decided on "
                "the line quoted; which value was wrong cannot be read off the code.",
                checks=(f"Log the values that {spot.source.path}:{spot.line} passes on, just before it.",),
                place_only=True,
            ),
            spot,
        )
    where = spot.where if spot else "code that was not sent"
    return (
        Finding(
            f"{crash.sentence[:300]}: raised at {where}.",
            "No rule covers this exception, so only the place is certain."
            if crash.name not in READERS
            else "The message fits none of the known forms of this exception, so only the place is certain.",
            checks=(f"Log the values that the line {spot.source.path}:{spot.line} uses, just before it.",)
            if spot
            else (),
            place_only=True,
        ),
        spot,
    )


def _way(scene: Scene, crash: Crash) -> str:
    """Tell the way through the sent code to the failing line."""
    spots = scene.spots(crash)
    if not spots:
        return f"The log ends in `{crash.sentence[:300]}`."
    way = " → ".join(spot.where for spot in spots[-4:])
    return f"`{crash.sentence[:300]}` was raised on the way {way}; the failing line is `{spots[-1].text[:200]}`."


def _hypothesis(scene: Scene, finding: Finding, spot: Spot | None, crash: Crash, *, first: bool) -> dict[str, Any]:
    places = [spot.place] if spot is not None else []
    places += [place for place in finding.evidence if place not in places]
    evidence = [_evidence(place) for place in places if _telling(place.quote)]
    evidence += _said_in(scene, crash.sentence)
    return {
        "cause": finding.cause,
        "evidence": evidence,
        "explanation": f"{finding.explanation} {BY_READING}",
        "likelihood": "medium" if first and finding.shown and spot is not None else "low",
    }


def _telling(quote: str) -> bool:
    """Say whether a quote shows anything: a lone bracket stands everywhere."""
    return len("".join(quote.split())) > 2 and re.search(r"\w", quote) is not None


def _evidence(place: Place) -> dict[str, Any]:
    return {
        "path": place.path,
        "start_line": place.start_line,
        "end_line": place.end_line,
        "quote": place.quote[:_LONGEST_QUOTE],
    }


def _said_in(scene: Scene, quote: str) -> list[dict[str, Any]]:
    """Quote the part of the request that says this, if one does in these very words."""
    quote = quote[:_LONGEST_QUOTE]
    part = next((name for name, text in scene.parts.items() if quote in text and _telling(quote)), "")
    return [{"path": part, "start_line": 0, "end_line": 0, "quote": quote}] if part else []


def _edit(edit: Edit) -> dict[str, str]:
    return {"path": edit.path, "before": edit.before, "after": edit.after}


def _foreign(scene: Scene) -> tuple[Frame, ...]:
    """Return the frames that other languages' traces name, innermost as the trace has it first."""
    for text in scene.parts.values():
        found = tuple(frame for frame in frames(text) if frame.language not in ("python", "pytest"))
        if found:
            return found
    return ()


def _other_language(scene: Scene, found: tuple[Frame, ...]) -> dict[str, Any]:
    own = [frame for frame in found if not frame.library]
    sent = [
        (frame, path) for frame in own if (path := scene.resolve(frame.path)) and scene.sources[path].has(frame.line)
    ]
    missing = list(dict.fromkeys(f.path for f in own if scene.resolve(f.path) is None and ".." not in f.path))[:8]
    language = (sent[0][0] if sent else found[0]).language or "this language"
    message = _message(scene)
    evidence = [_evidence(scene.sources[path].place(frame.line)) for frame, path in sent[:3]]
    evidence += _said_in(scene, message)
    if sent:
        frame, path = sent[0]
        line = scene.sources[path].line(frame.line).strip()
        cause = (
            f"The trace points at {path}:{frame.line}{f' in {frame.function}' if frame.function else ''}: "
            f"`{line[:200]}`."
        )
        said = (
            f"That is the innermost line of the workspace's own code in a trace of {language}. Only "
            "Python's faults are read further, so why it failed is not said."
        )
    else:
        cause = (
            f"A trace of {language} passes through {', '.join(missing[:3]) or 'libraries only'}; none of that was sent."
        )
        said = "Nothing of the code that the trace names can be quoted."
    return _told(
        hypotheses=[{"cause": cause, "evidence": evidence, "explanation": f"{said} {BY_READING}", "likelihood": "low"}]
        if evidence
        else [],
        verdict="inconclusive" if sent or not missing else "need_more_files",
        root_cause=cause,
        explanation=f"{said}{f' The log says: {message}' if message else ''}",
        checks=[f"Log the values used on {path}:{frame.line} just before it." for frame, path in sent[:1]],
        files_needed=[] if sent else missing,
        confidence="low",
    )


_SAYS: Final = re.compile(
    r"(?:Exception in thread|Caused by:|panicked at|panic:|\b\w*(?:Error|Exception)\b:|: "
    r"error:|^error(?:\[E\d+\])?:|fatal error:)"
)


def _message(scene: Scene) -> str:
    """Return the first line of the logs that says what went wrong."""
    lines = (line.strip()[:500] for text in scene.parts.values() for line in text.split("\n"))
    return next((line for line in lines if _SAYS.search(line)), "")


def _no_trace(scene: Scene, prompt: Prompt) -> dict[str, Any]:
    crash = next(iter(scene.crashes), None)
    places: list[Place] = []
    if crash is not None:
        for word in list(dict.fromkeys(_QUOTED.findall(crash.message)))[:4]:
            last = re.compile(rf"\b{re.escape(word.rpartition('.')[2])}\b")
            for source in scene.sources.values():
                places += [source.place(n) for n, line in source.lines() if last.search(line)][:2]
    said = (
        f"The log names `{crash.sentence[:300]}` without a trace."
        if crash
        else "There is no traceback in the logs, the context or the issue."
    )
    evidence = [_evidence(place) for place in places[:4]]
    cause = (
        f"{said} The sent code mentions what it names at {', '.join(f'{p.path}:{p.start_line}' for p in places[:4])}."
        if places
        else said
    )
    python = [path for path, source in scene.sources.items() if source.python]
    checks = [
        (
            "Get the traceback: in the handler that turns the failure into a message, call "
            "`logging.exception(...)`, which logs it whole."
        ),
        (
            f"Run the failing step by itself with `python -X dev -X faulthandler {python[0]}`: it shows "
            "the traceback, warnings, and where a hang or a crash is."
        )
        if python
        else "Run the failing step by itself, outside the service, and keep what it prints on stderr.",
        "If a web framework answers 500 without a trace, log unhandled exceptions in a middleware "
        "around the whole application.",
    ]
    if prompt.request.options.repro:
        checks.insert(0, f"Run `{prompt.request.options.repro}` and put its whole output under Error Logs.")
    return _told(
        hypotheses=[
            {
                "cause": cause,
                "evidence": evidence,
                "explanation": f"The places were found by name. {BY_READING}",
                "likelihood": "low",
            }
        ]
        if evidence
        else [],
        verdict="inconclusive",
        root_cause="",
        explanation=f"{cause} Without a trace there is nothing to follow into the code by rules.",
        checks=checks,
        confidence="low",
    )


def _told(
    *,
    hypotheses: list[dict[str, Any]],
    verdict: str,
    root_cause: str,
    explanation: str,
    confidence: str,
    fixes: Iterable[tuple[Fix, Spot | None]] = (),
    examples: Iterable[Any] = (),
    checks: Iterable[str] = (),
    files_needed: list[str] | None = None,
    test: str = "",
) -> dict[str, Any]:
    return {
        "hypotheses": hypotheses,
        "verdict": verdict,
        "root_cause": root_cause,
        "technical_explanation": f"{explanation} {BY_READING}",
        "recommended_fixes": [
            {
                "priority": number,
                "description": fix.description,
                "file": fix.edits[0].path if fix.edits else spot.source.path if spot else "",
                "edits": [_edit(edit) for edit in fix.edits],
                "rationale": fix.rationale,
                "risk": fix.risk,
                "test": test,
            }
            for number, (fix, spot) in enumerate(fixes, 1)
        ],
        "code_examples": [{"title": each.title, "language": each.language, "code": each.code} for each in examples],
        "additional_investigation": list(checks),
        "answers": [],
        "files_needed": files_needed or [],
        "confidence": confidence,
    }
