"""What came of a CI job's failure, told to the CI system in each form that it shows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from delegated import folder as drop
from delegated.disk import put

from . import exits, scans, terminal, workflow
from . import place as places
from .findings import Finding, confidence_of, findings, headline, one_line
from .place import Place

if TYPE_CHECKING:
    from .failure import Ci

_OUTPUTS: Final = "GITHUB_OUTPUT"
_SUMMARY: Final = "GITHUB_STEP_SUMMARY"


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of it: the RESULT if there is one and whether it was asked for now; else `why` there is none, and the
    exit `code` of that, 0 where nothing was to be asked.
    """

    key: str = ""
    result: dict[str, Any] | None = None
    asked: bool = False
    why: str = ""
    code: int = exits.OK


def report(place: Place, root: str, ci: Ci, ending: Ending, *, sarif_path: str, quality_path: str) -> None:
    """Tell what came of it, with paths from `root`, that of the repository.

    A form that cannot be written is warned of: it is no reason to fail the job.
    """
    result = ending.result
    if result is None:
        what = "no answer" if ending.code else "nothing was asked"
        terminal.out(f"delegate: {what}: {' '.join(ending.why.split())}")
        tell({"id": ending.key, "status": "unanswered" if ending.code else "skipped", "asked": "false"})
        return
    found = [_from_root(place, root, each) for each in findings(place, result) if ":" not in each.path]
    status, verdict, sure = one_line(result.get("status")), one_line(result.get("verdict")), confidence_of(result)
    how = "asked now" if ending.asked else "known from before, nothing was asked"
    terminal.out(f"delegate: {ending.key}: {', '.join(filter(None, (status, verdict, sure)))} ({how})")
    terminal.out(f"delegate: {headline(result)}")
    written: dict[str, str] = {}
    if _write(sarif_path, scans.sarif(found, ending.key, answered=status == "answered")):
        written["sarif"] = sarif_path
    if _write(quality_path, scans.code_quality(found, ending.key)):
        written["codequality"] = quality_path
    if ci.system == "GitHub Actions":
        for line in workflow.commands(_annotations(found, result)):
            terminal.command(line)
        _summarize(place, ending, how)
    else:
        for each in found:
            kind = "warning" if each.kind == "cause" else "note"
            terminal.out(f"{each.path}:{each.line}: {kind}: {each.text} [{each.confidence}]")
    cost = result.get("cost_usd") if ending.asked else 0
    tell(
        {
            "id": ending.key,
            "status": status,
            "verdict": verdict,
            "confidence": sure,
            "cost-usd": f"{cost:.6f}" if isinstance(cost, int | float) else "",
            "result": place.path(drop.result_name(ending.key, "json")),
            "page": place.path(drop.result_name(ending.key, "md")),
            "asked": str(ending.asked).lower(),
            **written,
        }
    )


def tell(values: Mapping[str, str]) -> None:
    """Set outputs of the step, where a runner takes some."""
    _append(_OUTPUTS, workflow.outputs(values))


def _from_root(place: Place, root: str, finding: Finding) -> Finding:
    """Write a finding's path from the root of the repository, where the workspace is a directory below that."""
    below = os.path.relpath(os.path.realpath(place.workspace), os.path.realpath(root))
    if below == "." or below.startswith(".."):
        return finding
    return replace(finding, path=f"{below.replace(os.sep, '/')}/{finding.path}")


def _annotations(found: Sequence[Finding], result: dict[str, Any]) -> list[workflow.Annotation]:
    """Make remarks of the findings: claims to check, hence warnings. One that names no place stands for itself."""
    remarks = [
        workflow.Annotation(
            level="warning" if each.kind == "cause" else "notice",
            text=f"{each.text} [{each.confidence}]" if each.confidence else each.text,
            title="delegate: probable cause" if each.kind == "cause" else "delegate: proposed change",
            path=each.path,
            line=each.line,
            end_line=each.end_line,
        )
        for each in found
    ]
    if any(each.kind == "cause" for each in found):
        return remarks
    return [workflow.Annotation("warning", headline(result), "delegate"), *remarks]


def _summarize(place: Place, ending: Ending, how: str) -> None:
    path = os.environ.get(_SUMMARY, "")
    page = drop.result_name(ending.key, "md")
    text = places.read_text(place, page)
    if not path:
        return
    head = f"Failure `{ending.key}`: {how}.\n\n"
    body = terminal.clean(text) if text is not None else headline(ending.result or {})
    try:
        workflow.summarize(path, f"{head}{body.rstrip()}\n\n", f"The whole page: `{page}`")
    except OSError as error:
        terminal.warn(f"the summary cannot be written: {error.strerror}")


def _append(variable: str, text: str) -> None:
    if path := os.environ.get(variable, ""):
        try:
            workflow.append(path, text)
        except OSError as error:
            terminal.warn(f"{variable} cannot be written: {error.strerror}")


def _write(path: str, value: Any) -> bool:
    """Write a report; the checkout, whoever's it is, does not choose where: no link that has its name is followed."""
    if not path:
        return False
    try:
        if os.path.lexists(path) and (os.path.islink(path) or not os.path.isfile(path)):
            terminal.warn(f"{path} is not written: a link or something else that is no file has that name")
            return False
        put(path, (json.dumps(value, indent=2) + "\n").encode())
    except OSError as error:
        terminal.warn(f"{path} cannot be written: {error.strerror}")
        return False
    return True
