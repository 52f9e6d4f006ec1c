"""Requests, code and answers that the tests of prompt, analysis and result share."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from delegated.context import Context, Excerpt, Omitted
from delegated.prompt import Prompt, render
from delegated.reply import Reply, Usage
from delegated.request import Options, Request
from delegated.secrets import Redaction

MAIN = """\
from fastapi import FastAPI, HTTPException

from autopack.schemas import BuilderResult
from autopack.store import Store

app = FastAPI()
store = Store()


@app.post("/runs/{run_id}/phases/{phase_id}/builder_result")
def builder_result(run_id: str, phase_id: str, result: BuilderResult):
    phase = store.phase(run_id, phase_id)
    if phase is None:
        raise HTTPException(404, "no such phase")
    phase.result = result.dict()
    store.commit()
    return {"ok": True}
"""
STORE = """\
import json


class Store:
    def __init__(self):
        self.phases = {}
        self.pending = []

    def phase(self, run_id, phase_id):
        return self.phases.get((run_id, phase_id))

    def commit(self):
        for phase in self.pending:
            try:
                phase.blob = json.dumps(phase.result)
            except Exception:
                pass
        self.pending.clear()

    def close(self):
        self.pending.clear()
"""
TRACE = """\
WARNING: Failed to post builder result: 500 Server Error
Traceback (most recent call last):
  File "/srv/app/src/autopack/main.py", line 15, in builder_result
    phase.result = result.dict()
AttributeError: 'BuilderResult' object has no attribute 'dict'
"""


def excerpt(path: str, text: str, why: str = "named in the request", first: int = 1, total: int = 0) -> Excerpt:
    lines = text.count("\n")
    return Excerpt(path, text, first, first + lines - 1, total or lines, hashlib.sha256(text.encode()).hexdigest(), why)


REQUEST = Request(
    issue="500 Internal Server Error on /builder_result endpoint",
    context="Health check passes. Phases execute and advance correctly despite the error.",
    logs=TRACE,
    attempted_fixes=("Restarted the server with the new code", "Verified that the payload matches the schema"),
    files=("src/autopack/main.py", "src/autopack/store.py"),
    questions=("Why is nothing in the database?", "Is the 500 raised before the commit?"),
    options=Options(test="pytest tests/test_api.py"),
)
CONTEXT = Context(
    (excerpt("src/autopack/main.py", MAIN, "frame 1; named in the request"), excerpt("src/autopack/store.py", STORE)),
    (Omitted("src/autopack/models.py", "no such file below the workspace root"),),
)
REDACTIONS = (Redaction("openai-key", "[REDACTED:openai-key:3fa2b1-1]", "src/autopack/main.py", 7),)


def prompt(request: Request = REQUEST, context: Context = CONTEXT) -> Prompt:
    return render(request, context, REDACTIONS)


ANSWER: dict[str, Any] = {
    "hypotheses": [
        {
            "cause": "BuilderResult is a Pydantic v2 model without `dict()` in this version",
            "evidence": [
                {
                    "path": "src/autopack/main.py",
                    "start_line": 15,
                    "end_line": 16,
                    "quote": "    phase.result = result.dict()\n    store.commit()",
                },
                {
                    "path": "logs",
                    "start_line": 0,
                    "end_line": 0,
                    "quote": "AttributeError: 'BuilderResult' object has no attribute 'dict'",
                },
            ],
            "explanation": "The handler calls `result.dict()`, which raises **before** `store.commit()` runs.",
            "likelihood": "high",
        },
        {
            "cause": "store.commit() hides a failure to serialise",
            "evidence": [
                {
                    "path": "src/autopack/store.py",
                    "start_line": 14,
                    "end_line": 16,
                    "quote": "except Exception:\n    pass",
                },
                {
                    "path": "src/autopack/store.py",
                    "start_line": 3,
                    "end_line": 3,
                    "quote": "session.rollback()",
                },
            ],
            "explanation": "Even without the first fault a result that is no JSON would be lost without a word.",
            "likelihood": "low",
        },
    ],
    "verdict": "root_cause_found",
    "root_cause": "`builder_result` calls `result.dict()`, which `BuilderResult` does not have.",
    "technical_explanation": (
        "1. FastAPI validates the body into `BuilderResult`.\n2. `result.dict()` raises `AttributeError`.\n"
        "3. Starlette answers 500 and `store.commit()` is never reached, so nothing is persisted."
    ),
    "recommended_fixes": [
        {
            "priority": 1,
            "description": "Use `model_dump()`",
            "file": "src/autopack/main.py",
            "edits": [
                {
                    "path": "src/autopack/main.py",
                    "before": "    phase.result = result.dict()\n",
                    "after": '    phase.result = result.model_dump(mode="json")\n',
                }
            ],
            "rationale": "`model_dump` is the method that Pydantic v2 has.",
            "risk": "None for callers; the stored form is the same.",
            "test": "`pytest tests/test_api.py -k builder_result`",
        },
        {
            "priority": 2,
            "description": "Do not swallow errors while committing",
            "file": "src/autopack/store.py",
            "edits": [
                {
                    "path": "src/autopack/store.py",
                    "before": "try:\n    phase.blob = json.dumps(phase.result)\nexcept Exception:\n    pass",
                    "after": "phase.blob = json.dumps(phase.result)",
                },
                {"path": "src/autopack/store.py", "before": "self.pending.clear()", "after": "self.pending = []"},
            ],
            "rationale": "A failure must be seen.",
            "risk": "Requests that lost data in silence now answer 500.",
            "test": "Post a result that holds a datetime.",
        },
    ],
    "code_examples": [
        {
            "title": "A test that fails before the fix",
            "language": "python",
            "code": 'def test_builder_result(client):\n    assert client.post(URL, json=BODY).json() == {"ok": True}\n',
        }
    ],
    "additional_investigation": ["Run `pip show pydantic`: 2.x confirms the cause, 1.x refutes it."],
    "answers": ["Because the handler fails before `store.commit()`.", "Yes, at line 15 of `main.py`."],
    "files_needed": [],
    "confidence": "high",
}


def reply(answer: Any = ANSWER, **changes: Any) -> Reply:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    usage = Usage(3905, 1024, 612)
    return Reply(
        **{"outcome": "completed", "text": text, "model": "gpt-4o-2024-08-06", "raw": text, "usage": usage} | changes
    )


def changed(**changes: Any) -> dict[str, Any]:
    return {**ANSWER, **changes}
