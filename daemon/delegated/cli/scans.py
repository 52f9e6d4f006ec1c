"""What a RESULT says about the code, in the two forms in which CI systems take the findings of a scanner."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from delegated import __version__

from .findings import Finding

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_RULES: Final = {
    "cause": (
        "delegate/cause",
        "Probable cause of a failure",
        "A language model names this place as the cause; the quote stands in the code that it was shown. Check it.",
    ),
    "fix": (
        "delegate/fix",
        "Proposed change",
        "A language model proposes to change this place; the text to replace stands there once. Check it.",
    ),
}
_ORDER: Final = tuple(_RULES)


def sarif(found: Sequence[Finding], key: str, *, answered: bool) -> dict[str, Any]:
    """Write findings as a SARIF 2.1.0 log; paths are relative to the root of the repository."""
    from urllib.parse import quote

    rules = [
        {"id": name, "shortDescription": {"text": short}, "fullDescription": {"text": full}, "help": {"text": full}}
        for name, short, full in _RULES.values()
    ]
    results = [
        {
            "ruleId": _RULES[each.kind][0],
            "ruleIndex": _ORDER.index(each.kind),
            "level": "warning" if each.kind == "cause" else "note",
            "message": {"text": _said(each)},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": quote(each.path), "uriBaseId": "%SRCROOT%"},
                        "region": {"startLine": each.line, "endLine": each.end_line},
                    }
                }
            ],
            "partialFingerprints": {"delegatedFailure/v1": mark},
        }
        for each, mark in _marked(found, key)
    ]
    driver = {"name": "delegated", "version": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": "delegated/"},
        "invocations": [{"executionSuccessful": answered}],
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def code_quality(found: Sequence[Finding], key: str) -> list[dict[str, Any]]:
    """Write findings as the list that GitLab takes for a Code Quality report."""
    return [
        {
            "description": _said(each),
            "check_name": _RULES[each.kind][0],
            "fingerprint": mark,
            "severity": "info" if each.kind == "fix" else "major" if each.confidence == "high" else "minor",
            "location": {"path": each.path, "lines": {"begin": each.line, "end": each.end_line}},
        }
        for each, mark in _marked(found, key)
    ]


def _said(finding: Finding) -> str:
    text = finding.text.replace("](", "] (")  # SARIF's form of a link: where it led, a model would have chosen
    return f"{text} [{finding.confidence}]" if finding.confidence else text


def _marked(found: Sequence[Finding], key: str) -> Iterator[tuple[Finding, str]]:
    """Give each finding a name that stays when lines move: of the failure, the file, and its number there."""
    numbers: Counter[tuple[str, str]] = Counter()
    for each in found:
        numbers[each.kind, each.path] += 1
        words = "\0".join((key, each.kind, each.path, str(numbers[each.kind, each.path])))
        yield each, hashlib.sha256(words.encode("utf-8", "replace")).hexdigest()
