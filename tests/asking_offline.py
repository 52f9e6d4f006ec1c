"""Asking the offline model about programs that are really run."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema

from delegated import analysis
from delegated import prompt as prompts
from delegated.context import Context, Excerpt, Omitted
from delegated.models.offline import Offline
from delegated.prompt import Prompt
from delegated.reply import Reply
from delegated.request import Request


@dataclass
class Memory:
    """A call log that keeps its records in memory: enough to show what is recorded, and when."""

    call_id: str = "call-1"
    attempt: int = 1
    handle: str = ""
    in_doubt: bool = False
    in_doubt_for: float = 0.0
    response_id: str = ""
    reply: Reply | None = None
    phases: list[str] = field(default_factory=list)

    async def record_sent(self, **words: object) -> None:
        raise AssertionError("nothing is sent")

    async def record_unsent(self, kind: str, reason: str) -> None:
        raise AssertionError("nothing is sent")

    async def record_accepted(self, response_id: str) -> None:
        raise AssertionError("nobody accepts")

    async def record_reply(self, reply: Reply) -> None:
        self.reply = reply

    def phase(self, name: str, detail: str = "") -> None:
        self.phases.append(name)


class Program:
    """A small project on disk that is run for real."""

    def __init__(self, root: Path, files: dict[str, str]) -> None:
        self.root = root / "project"
        for path, text in files.items():
            target = self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode())
        self.paths = list(files)

    def run(self, *command: str, cwd: str = ".") -> subprocess.CompletedProcess[str]:
        command = command or ("main.py",)
        environment = {"PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [sys.executable, *command], cwd=self.root / cwd, env=environment, capture_output=True, text=True, timeout=60
        )

    def trace(self, *command: str, cwd: str = ".") -> str:
        """Run it, and return what it says on stderr when it fails."""
        done = self.run(*command, cwd=cwd)
        assert done.returncode != 0, f"it was to fail, and printed {done.stdout!r}"
        assert "Traceback" in done.stderr
        return done.stderr

    def excerpts(self, *paths: str) -> tuple[Excerpt, ...]:
        return tuple(whole(path, (self.root / path).read_bytes().decode()) for path in paths or self.paths)

    def apply(self, told: dict[str, Any]) -> None:
        """Apply every edit as a reader of the answer would: `before` must stand exactly once."""
        edits = [edit for fix in told["recommended_fixes"] for edit in fix["edits"]]
        assert edits, "no edit was offered"
        for edit in edits:
            target = self.root / edit["path"]
            text = target.read_bytes().decode()
            assert text.count(edit["before"]) == 1, edit
            target.write_bytes(text.replace(edit["before"], edit["after"]).encode())


def whole(path: str, text: str) -> Excerpt:
    total = text.count("\n") + (not text.endswith("\n"))
    return Excerpt(path, text, 1, total, total, "0" * 64, "named in the request")


def part(path: str, text: str, start: int, end: int) -> Excerpt:
    lines = text.splitlines(keepends=True)
    return Excerpt(path, "".join(lines[start - 1 : end]), start, end, len(lines), "0" * 64, "near a frame")


def make(logs: str, *excerpts: Excerpt, omitted: tuple[Omitted, ...] = (), **request: Any) -> Prompt:
    words = Request(issue="it fails", logs=logs, **request)
    return prompts.render(words, Context(excerpts, omitted))


def ask(prompt: Prompt) -> dict[str, Any]:
    """Ask offline, and hold its answer to the prompt's schema, each quote to what was sent, each edit to the files."""
    reply = asyncio.run(Offline().ask(prompt, Memory()))
    assert reply.outcome == "completed"
    told: dict[str, Any] = json.loads(reply.text)
    jsonschema.Draft202012Validator(dict(prompt.schema)).validate(told)
    read = analysis.read(reply, prompt)
    for hypothesis in read.hypotheses:
        assert all(evidence.grounded and not evidence.note for evidence in hypothesis.evidence), hypothesis
    assert all(edit.applies for fix in read.fixes for edit in fix.edits), read.fixes
    assert read.verdict == told["verdict"], read.warnings
    return told


def diagnose(program: Program, *command: str, cwd: str = ".") -> dict[str, Any]:
    return ask(make(program.trace(*command, cwd=cwd), *program.excerpts()))


def edits(told: dict[str, Any]) -> list[dict[str, str]]:
    return [edit for fix in told["recommended_fixes"] for edit in fix["edits"]]


def quotes(told: dict[str, Any]) -> list[tuple[str, int, str]]:
    return [
        (item["path"], item["start_line"], item["quote"])
        for hypothesis in told["hypotheses"]
        for item in hypothesis["evidence"]
    ]
