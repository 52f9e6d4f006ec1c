"""An answer whose edit applies to the program that the harness writes, and a test of its own for it."""

from __future__ import annotations

from typing import Any

_LINE = "return sum(item.price for item in items) / len(items)"


def fix(path: str, before: str, after: str, priority: int = 1) -> dict[str, Any]:
    """Make a fix of one edit."""
    said = {"priority": priority, "description": f"Change {path}", "file": path}
    edits = [{"path": path, "before": before, "after": after}]
    return {**said, "edits": edits, "rationale": "", "risk": "", "test": ""}


def answer(*fixes: dict[str, Any]) -> dict[str, Any]:
    """Make an answer that holds the harness's program for the fault and proposes these fixes."""
    quote = {"path": "app.py", "start_line": 2, "end_line": 2, "quote": _LINE}
    cause = "it divides by the number of items"
    return {
        "hypotheses": [{"cause": cause, "evidence": [quote], "explanation": "", "likelihood": "high"}],
        "verdict": "likely",
        "root_cause": cause,
        "technical_explanation": "",
        "recommended_fixes": list(fixes),
        "code_examples": [],
        "additional_investigation": [],
        "answers": [],
        "files_needed": [],
        "confidence": "high",
    }


GUARDED = answer(fix("app.py", _LINE, f"{_LINE} if items else 0"))
