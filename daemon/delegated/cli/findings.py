"""What a RESULT says about places in the code, as an editor lists them; a place outside the workspace is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from delegated import folder as drop

from . import terminal
from .place import Place

# What a quote of the request's own words names in place of a file (`delegated.quotes` says the same).
_WORDS: Final = frozenset({"logs", "issue", "context", "attempted_fixes", "questions"})
_MOST_TEXT: Final = 300
_MOST: Final = 50


@dataclass(frozen=True, slots=True)
class Finding:
    """One place: `path` from the workspace's root, lines from 1, `kind` `cause` or `fix`, `confidence` a word or ""."""

    kind: str
    path: str
    line: int
    end_line: int
    text: str
    confidence: str


def one_line(value: object, limit: int = _MOST_TEXT) -> str:
    """Return a text on one line, harmless for a terminal and cut to `limit` characters; "" for anything else."""
    text = " ".join(terminal.clean(value).split()) if isinstance(value, str) else ""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def confidence_of(result: dict[str, Any]) -> str:
    """Return the computed confidence of a RESULT in a word, "" when there is no answer."""
    return one_line(_dict(result.get("confidence")).get("level"))


def headline(result: dict[str, Any]) -> str:
    """Say the main thing of a RESULT in a line: the root cause, else why there is none."""
    error, problems = _dict(result.get("error")), _list(result.get("problems"))
    first = one_line(result.get("root_cause")) or one_line(error.get("message")) or one_line(next(iter(problems), ""))
    if not first and result.get("duplicate_of"):
        first = f"the same as {one_line(result['duplicate_of'])}"
    return first or one_line(result.get("verdict")).replace("_", " ") or one_line(result.get("status"))


def findings(place: Place, result: dict[str, Any]) -> list[Finding]:
    """Return the places that a RESULT names: of each cause the first quote that was found, of each fix the first edit.

    A place counts when it is a file below the workspace's root, itself and not by a link.
    """
    return list(_causes(place, result))[:_MOST] + list(_fixes(place, result))[:_MOST]


def _causes(place: Place, result: dict[str, Any]) -> Iterator[Finding]:
    for number, hypothesis in enumerate(_list(result.get("hypotheses"))):
        hypothesis = _dict(hypothesis)
        text = headline(result) if number == 0 and result.get("root_cause") else one_line(hypothesis.get("cause"))
        sure = confidence_of(result) if number == 0 else one_line(hypothesis.get("likelihood"))
        for evidence in map(_dict, _list(hypothesis.get("evidence"))):
            line = evidence.get("start_line")
            path = inside(place, evidence.get("path"))
            if evidence.get("grounded") is True and path and isinstance(line, int) and line > 0:
                end = evidence.get("end_line")
                yield Finding("cause", path, line, end if isinstance(end, int) and end >= line else line, text, sure)
                break


def _fixes(place: Place, result: dict[str, Any]) -> Iterator[Finding]:
    for fix in map(_dict, _list(result.get("recommended_fixes"))):
        for edit in map(_dict, _list(fix.get("edits"))):
            line, before = edit.get("start_line"), edit.get("before")
            path = inside(place, edit.get("path"))
            if edit.get("applies") is True and path and isinstance(line, int) and line > 0 and isinstance(before, str):
                end = line + max(0, len(before.splitlines()) - 1)
                text = f"fix: {one_line(fix.get('description'))}"
                yield Finding("fix", path, line, end, text, confidence_of(result))
                break


def inside(place: Place, path: object) -> str:
    """Return `path` when it names a file of the workspace, "" when it does not, leads outside or hides characters."""
    if not isinstance(path, str) or not path or path in _WORDS or path != one_line(path, len(path)):
        return ""
    if os.path.isabs(path) or ".." in path.split("/") or "\\" in path:
        return ""
    root = os.path.realpath(place.workspace)
    full = os.path.join(root, path)
    try:
        real = os.path.realpath(full)
        within = os.path.commonpath([root, real]) == root and os.path.isfile(real)
    except (OSError, ValueError):
        return ""
    return path if within and real == os.path.normpath(full) else ""


def page(place: Place, key: str) -> str:
    """Return the path of RESULT.md from the workspace's root; "" where the drop folder lies outside of it."""
    path = os.path.relpath(place.path(drop.result_name(key, "md")), place.workspace).replace(os.sep, "/")
    return inside(place, path)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
