"""What must stay secret is planted everywhere, everything goes wrong in turn, and then every byte is searched.

Where a planted value may stand is one table, `MAY_HOLD`; the page docs/security.md says the same in words.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import string
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delegated.ledger import Ledger
from delegated.registry import register
from harness import House, Server, until
from repositories import commit, repository, write
from security.seeking import answer_with, holds, looks, places

RAISING = Path(__file__).parent / "raising"
ROOT = Path(__file__).parents[2]


def _token(number: int) -> str:
    return "glpat-" + "".join(random.Random(number).choices(string.ascii_letters + string.digits, k=20))


KEY = "sk-test-Canary0Key1abcdefghijKLMNOP"
ISSUE, CONTEXT, CODE, LOGS, TRIED, QUESTION, REPRO, LABEL, PATH, GIVEN, ANSWER = map(_token, range(11))
ENV_FILE = "seven blue herons walk"  # nothing but its place makes it a secret
IN_REQUEST = {
    "issue": ISSUE,
    "context": CONTEXT,
    "logs": LOGS,
    "attempted fixes": TRIED,
    "questions": QUESTION,
    "repro": REPRO,
    "labels": LABEL,
    "path": PATH,
    "embedded": GIVEN,
}
SECRETS = {**IN_REQUEST, "code": CODE, "env file": ENV_FILE, "answer": ANSWER}

REQUEST = "{folder}/OPENAI_DELEGATION_REQUEST_k.md"
CLAIM = r".*/\.delegated/jobs/../k/r\d/claim"
REPLY = r".*/\.delegated/jobs/../k/r\d/calls/\d\d-\w+/reply"
# Which files may hold a planted value, as expressions for paths below the workspace. All else, HOME and the log: none.
MAY_HOLD: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(IN_REQUEST, (r".*REQUEST_k\.md", CLAIM)),
    "path": (r".*REQUEST_k\.md", CLAIM, rf"src/{PATH}(/app\.py)?"),
    "code": (rf"src/{PATH}/app\.py",),
    "env file": (r"\.env", rf"src/{PATH}/app\.py"),
    "answer": (REPLY,),
    "key": (),
}


def plant(house: House) -> None:
    folder = house.workspace / "src" / PATH
    folder.mkdir(parents=True)
    (folder / "app.py").write_text(
        f'TOKEN = "{CODE}"\nTHEIRS = "{ENV_FILE}"\n\n\ndef total(items):\n    return sum(items) / len(items)\n'
    )
    (house.workspace / ".env").write_text(f'PHRASE="{ENV_FILE}"\n')


def request_text() -> str:
    return f"""---
repro: "curl -H 'PRIVATE-TOKEN: {REPRO}' https://example.org"
labels: [a, {LABEL}]
---
# Issue

It fails with {ISSUE} in the first line

# Context

We use {CONTEXT}.

# Files

- src/{PATH}/app.py
- src/{PATH}/none.py
- nowhere/{PATH}/*.py

# Error Logs

```
token {LOGS} refused
  File "src/{PATH}/app.py", line 6, in total
ZeroDivisionError: division by zero
```

# Attempted Fixes

1. Used {TRIED} instead

# Questions

1. Is {QUESTION} the cause?

# File Contents

### given-{PATH}.py

```python
KEEP = "{GIVEN}"
```
"""


def settle(house: House, server: Server, *arguments: str) -> None:
    """Serve until nothing waits, everything logged."""
    plant(house)
    house.use(server, log__level="debug", retry__base_s=0.05)
    house.env |= {"OPENAI_API_KEY": KEY}
    house.drop("k", request_text())
    house.start("--once", *arguments).process.wait(90)


def breaches(house: House) -> list[str]:
    """Say where a planted value stands that may not stand there."""
    found = []
    for name, value in {**SECRETS, "key": KEY}.items():
        held = places(value, house.workspace, Path(house.env["HOME"]), house.tmp / "daemon.log")
        found += [f"{name}: {path}" for path in held if not _may(MAY_HOLD[name], path)]
    return sorted(found)


def _may(allowed: tuple[str, ...], path: str) -> bool:
    return any(re.fullmatch(one, path) for one in allowed)


def seen_on_terminals(house: House, commands: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{name}: delegate {command}"
        for command, said in looks(house, "k", commands)
        for name, value in {**SECRETS, "key": KEY}.items()
        if holds(said, value)
    ]


def sent(server: Server) -> bytes:
    """Everything that the server was paid to read."""
    bodies = b""
    for bill in server.bills():
        with urllib.request.urlopen(f"{server.url}/_test/bills/{bill['n']}/body", timeout=10) as answer:
            bodies += answer.read()
    return bodies


@pytest.mark.slow
@pytest.mark.parametrize("format", ["json", "console"])
def test_a_secret_is_only_where_its_owner_put_it(house: House, server: Server, format: str) -> None:
    """An ordinary run: what was planted stays in the request, its claim and the code; nothing else has or shows it."""
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"answer": answer_with(ANSWER)}})
    house.set(log__format=format)
    settle(house, server)
    result = house.result("k")
    assert result["status"] == "answered", result["error"]
    assert breaches(house) == []
    assert seen_on_terminals(house) == []
    body = sent(server)
    assert body
    assert [name for name, value in {**SECRETS, "key": KEY}.items() if holds(body, value)] == []
    # The search itself finds what is there, and what was taken out is told.
    assert places(ISSUE, house.workspace) == {
        ".autonomous_runs/openai_delegations/OPENAI_DELEGATION_REQUEST_k.md",
        house.job("k").joinpath("claim").relative_to(house.workspace).as_posix(),
    }
    assert any(re.fullmatch(REPLY, path) for path in places(ANSWER, house.workspace))
    page = house.result_path("k", "md").read_text()
    assert page.count("[REDACTED:gitlab:") > 15
    assert not result["recommended_fixes"][0]["edits"][0]["applies"]
    # Beside the request's own: code, env file, and the name of an embedded file. Labels are not sent.
    assert len(result["egress"][0]["redactions"]) == len(IN_REQUEST) + 2


FORMER, SUBJECT, NEW, COMMENT, FURTHER, NOTE = map(_token, range(20, 26))
HOOK_SECRET = "whsec_" + base64.b64encode(random.Random(30).randbytes(24)).decode()
HOOK_PATH = "hook-path-4-its-receiver-alone"
CODE_BEFORE = "def total(items):\n    number = len(items)\n    return sum(items) / number\n"
MAY_HOLD_BESIDE: dict[str, tuple[str, ...]] = {
    FORMER: (),
    SUBJECT: (),
    NEW: (r"vault\.py",),
    COMMENT: (r"note\.py", r".*REQUEST_comment-.*\.md", r".*/jobs/../comment-[^/]+/r1/claim"),
    FURTHER: (r".*FOLLOWUP_k_1\.md", r".*/jobs/../k_1/r1/claim"),
    NOTE: (r".*OUTCOME_k\.yaml",),
    HOOK_SECRET: (),
    HOOK_PATH: (),
    KEY: (),
}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["json", "console"])
def test_a_secret_of_what_came_later_is_only_where_its_owner_put_it(
    house: House, server: Server, need: Callable[[str], str], format: str
) -> None:
    """What git knows, a comment that asks, a further question, an outcome, a patch, a webhook that fails, a program
    that prints the key: each has its planted value, and none of them is anywhere else.
    """
    need("git")
    root = house.workspace
    repository(root)
    (root / ".gitignore").write_text(".autonomous_runs/\n")
    commit(root, f"Count with {SUBJECT}", app=CODE_BEFORE.replace("/ number", "/ (number)"), vault=f'T = "{FORMER}"\n')
    commit(root, "Divide by the number", day=2, app=CODE_BEFORE)
    write(root, vault=f'T = "{NEW}"\n', app=CODE_BEFORE + "# mean\n")
    fix = {"path": "app.py", "before": "/ number\n", "after": "/ (number or 1)\n"}
    answer = answer_with("it")
    answer["recommended_fixes"][0] |= {"file": "app.py", "edits": [fix]}
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "times": "always", "do": {"answer": answer}})
    house.use(server, log__format=format, log__level="debug", comments="true", retry__base_s=0.05)
    del house.env["OPENAI_API_KEY"]
    program = house.outside / "print-the-key"
    program.write_text(f"#!/bin/sh\necho {KEY}\n")
    program.chmod(0o700)
    house.env |= {
        "DELEGATED_ENDPOINTS__OPENAI__KEY_COMMAND": str(program),
        "DELEGATED_NOTIFY__WEBHOOK_URL": f"http://127.0.0.1:9/{HOOK_PATH}",
        "DELEGATE_WEBHOOK_SECRET": HOOK_SECRET,
    }
    daemon = house.start()
    log = daemon.log
    until(lambda: b"comments.watching" in log.read_bytes(), what="the comments are watched", pause=0.02)
    trace = (
        'Traceback (most recent call last):\n  File "app.py", line 3, in total\nZeroDivisionError: division by zero\n'
    )
    house.drop("k", f"# Issue\nIt divides by zero\n\n# Error Logs\n```\n{trace}```\n\n<!-- END -->\n")
    assert house.result("k")["status"] == "answered"
    further = f"# Issue\nIs it {FURTHER}?\n\n<!-- END -->\n"
    (house.folder / "OPENAI_DELEGATION_FOLLOWUP_k_1.md").write_text(further)
    assert house.result("k_1")["status"] == "answered"
    (house.folder / "OPENAI_DELEGATION_OUTCOME_k.yaml").write_text(f"outcome: fixed\nnote: {NOTE}\n")
    (root / "note.py").write_text(f"# DELEGATE TO GPT-4O: why is {COMMENT} refused?\n")
    until(lambda: list(house.folder.glob("*RESULT_comment-*.json")), what="the comment is answered")
    until(lambda: b"notify.failed" in log.read_bytes(), what="the webhook fails", patience=90)
    daemon.stop()
    assert (house.folder / "OPENAI_DELEGATION_RESULT_k.patch").is_file()
    held = {value: places(value, root, Path(house.env["HOME"]), house.tmp / "daemon.log") for value in MAY_HOLD_BESIDE}
    wrong = {value: [path for path in found if not path.startswith(".git/")] for value, found in held.items()}
    wrong = {
        value: [each for each in found if not _may(MAY_HOLD_BESIDE[value], each)] for value, found in wrong.items()
    }
    assert {value: found for value, found in wrong.items() if found} == {}
    body = sent(server)
    assert b"divides by zero" in body
    assert b"Divide by the number" in body
    assert [value for value in MAY_HOLD_BESIDE if holds(body, value)] == []
    for command, said in looks(house, "k"):
        shown = [value for value in MAY_HOLD_BESIDE if holds(said, value)]
        assert {*shown} <= ({NOTE} if command.startswith(("show", "wait")) else set()), (
            command
        )  # the note, as it was written
    ours = [*house.folder.glob("*_RESULT_*"), *house.folder.glob("*_REQUEST_comment-*")]
    assert len(ours) > 7
    assert [path.name for path in ours if path.stat().st_mode & 0o077] == []


@pytest.mark.slow
def test_a_rejected_request_is_quoted_without_its_secrets(house: House, server: Server) -> None:
    """Problems quote what they found; a secret among it is taken out."""
    house.use(server)
    house.drop("k", f"---\nmodels: [{ISSUE}]\n{LOGS}: 1\nmax_cost_usd: {CODE}\nid: {TRIED}!\n---\nIt fails\n")
    house.start("--once").process.wait(60)
    assert len(house.result("k")["problems"]) > 2
    for value in (ISSUE, LOGS, CODE, TRIED):
        kept = places(value, house.workspace, house.tmp / "daemon.log")
        assert all(re.fullmatch(rf".*REQUEST_k\.md|{CLAIM}", path) for path in kept), kept


SAID: dict[str, list[dict[str, Any]]] = {
    # the provider's own words hold the key, or what it was sent
    "401 with the key": [{"do": {"status": 401, "body": {"error": {"message": f"Incorrect API key: {KEY}."}}}}],
    "400 with the key as a parameter": [{"do": {"status": 400, "body": {"error": {"message": "no", "param": KEY}}}}],
    "500 with the key": [{"times": "always", "do": {"status": 500, "body": {"error": {"message": f"upstream {KEY}"}}}}],
    "a redirect with the key": [{"do": {"status": 307, "headers": {"location": f"http://127.0.0.1:9/{KEY}"}}}],
    "a proxy's page with the key": [{"do": {"status": 403, "body": f"<html>{KEY}</html>"}}],
    "no JSON but the key": [{"times": "always", "do": {"body": f"Authorization: Bearer {KEY}"}}],
    "a failed response with the key": [
        {
            "do": {
                "body": {
                    "id": "resp_1",
                    "object": "response",
                    "status": "failed",
                    "error": {"code": "x", "message": f"401 {KEY}"},
                }
            }
        }
    ],
    "the answer is the key": [{"times": "always", "do": {"text": f"Your key is {KEY} and the token {ANSWER}"}}],
    "every field is the key": [{"do": {"answer": answer_with(KEY)}}],
    "every field is the key, escaped": [
        {"do": {"text": json.dumps(answer_with(KEY)).replace(KEY, KEY.replace("sk-", "\\u0073k\\u002D"))}}
    ],
    "a refusal with secrets": [{"do": {"outcome": "refusal", "text": f"I will not: {ANSWER}"}}],
}


@pytest.mark.parametrize(
    "said", [pytest.param(said, marks=[] if "401" in said else [pytest.mark.slow]) for said in SAID]
)
def test_a_provider_that_repeats_the_key_is_not_believed_a_confidant(house: House, server: Server, said: str) -> None:
    """Whatever an endpoint says, the key is in no file, no log line and on no terminal, and no secret in a RESULT."""
    house.set(doubt_wait_s=0.1, deadline_s=3)
    server.script(*({"match": {"method": "POST", "path": "/v1/responses"}, **rule} for rule in SAID[said]))
    settle(house, server)
    assert house.has_result("k")
    assert breaches(house) == []
    assert seen_on_terminals(house) == []


PHASES = {
    # where it breaks: the function; how the request ends, or that the daemon does, or that the fault is overcome
    "reading the request": ("request/__init__.py parse", ""),
    "claiming": ("journal.py Journal.claim", ""),
    "gathering": ("gather.py Gatherer.gather", "failed"),
    "reading what changed": ("history.py read", "failed"),
    "hiding": ("secrets.py redact", "failed"),
    "rendering": ("prompt.py render", "failed"),
    "recording the prompt": ("calls.py CallRecord.save_prompt", "failed"),
    "opening the connection": ("models/client.py Client._build", ""),
    "sending": ("models/client.py Connections._call", ""),
    "reading the reply": ("models/openai.py read", ""),
    "recording the reply": ("calls.py CallRecord.record_reply", ""),
    "checking": ("analysis.py read", "failed"),
    "trying the edits": ("trial.py tried", ""),
    "making the result": ("answer.py Desk._result", ""),
    "taking out what the answer holds": ("veil.py veil", ""),
    "writing the page": ("result.py to_markdown", ""),
    "publishing": ("session.py Session.publish", ""),
    "recording the end": ("calls.py JobRecord.finish", ""),
    "telling": ("notify/__init__.py notice", ""),
    "watching": ("watch.py Bell.note", "untold"),
    "watching comments": ("comments.py Comments._serve", ""),
    "finding the key": ("keys.py find", "ends"),
    "looking": ("session.py Session.look", "ends"),
    "starting": ("app.py App._desk", "ends"),
    "configuring": ("config.py load", "ends"),
}


CONSOLE = [(each, "console") for each in ("claiming", "gathering", "sending", "checking", "publishing", "configuring")]


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "format"), [*((each, "json") for each in PHASES), *CONSOLE])
def test_an_error_in_any_phase_tells_no_secret(house: House, server: Server, phase: str, format: str) -> None:
    """A fault that quotes all it was given, the environment too, is logged without the key and without a secret."""
    function, status = PHASES[phase]
    server.script(
        {"match": {"method": "POST", "path": "/v1/responses"}, "times": "always", "do": {"answer": answer_with(ANSWER)}}
    )
    house.set(log__format=format, deadline_s=6, doubt_wait_s=0.1)
    hit = house.tmp / "hit"
    if phase == "watching comments":
        house.set(comments="true")
    elif phase == "telling":
        house.env |= {"DELEGATED_NOTIFY__WEBHOOK_URL": "http://127.0.0.1:9/", "DELEGATE_WEBHOOK_SECRET": HOOK_SECRET}
    house.env |= {
        "PYTHONPATH": os.pathsep.join([str(RAISING), house.env["PYTHONPATH"]]),
        "RAISE_AT": function,
        "RAISE_HIT": str(hit),
    }
    plant(house)
    house.use(server, log__level="debug", retry__base_s=0.05)
    house.env["OPENAI_API_KEY"] = KEY
    daemon = house.start()
    began = daemon.process
    log = daemon.log
    until(
        lambda: began.poll() is not None or b"worker.ready" in log.read_bytes() or hit.exists(), what="up", pause=0.02
    )
    house.drop("k", request_text())
    until(lambda: began.poll() is not None or house.has_result("k") or hit.exists(), what="the fault", pause=0.02)
    if status == "ends":
        assert began.wait(60)
    elif status == "failed":
        assert house.result("k")["status"] == status
    if status != "untold":
        until(
            lambda: began.poll() is not None or b"RuntimeError" in log.read_bytes(), what="the fault told", pause=0.02
        )
    daemon.stop()
    assert hit.exists(), f"{function} was never called"
    assert status == "untold" or b"RuntimeError" in daemon.log.read_bytes(), "the fault is told"
    del house.env["RAISE_AT"]
    assert breaches(house) == []
    assert not holds(log.read_bytes(), HOOK_SECRET)
    assert seen_on_terminals(house, ("show", "status")) == []


@pytest.mark.parametrize("command", ["show k", "doctor --no-daemon"])
def test_a_fault_of_a_command_shows_no_key(house: House, command: str) -> None:
    """The traceback that a person pastes into a report has neither the key nor what looks like a secret."""
    hit = house.tmp / "hit"
    house.env |= {
        "PYTHONPATH": os.pathsep.join([str(RAISING), house.env["PYTHONPATH"]]),
        "RAISE_AT": "cli/arguments.py place_of",
        "RAISE_HIT": str(hit),
        "OPENAI_API_KEY": KEY,
        "GITLAB": CODE,
    }
    done = subprocess.run(
        [sys.executable, "-m", "delegated", *command.split()],
        env=house.env,
        cwd=house.workspace,
        capture_output=True,
        timeout=60,
    )
    assert hit.exists()
    assert b"RuntimeError" in done.stderr
    assert not holds(done.stdout + done.stderr, KEY)
    assert not holds(done.stdout + done.stderr, CODE)


@pytest.mark.slow
def test_a_key_in_the_wrong_place_is_not_repeated(house: House) -> None:
    """A configuration or a variable that holds the key where none belongs is refused without showing it."""
    refused = 0
    for text, more in (
        (f"api_key: {KEY}\n", {}),
        (f"endpoints: {{openai: {{key: {KEY}}}}}\n", {}),
        (f"endpoints: {{openai: {{key_env: {KEY}}}}}\n", {}),
        (f"endpoints: {{openai: {{base_url: 'https://me:{KEY}@example.org/v1'}}}}\n", {}),
        (f"model: {KEY}\n", {}),
        ("", {"DELEGATED_API_KEY": KEY}),
        ("", {"DELEGATED_MODEL": KEY}),
    ):
        for command in (("delegated.cli.serve", "--once"), ("delegated", "doctor", "--no-daemon")):
            env = {**house.env, "OPENAI_API_KEY": "sk-another-0123456789abcdef", **more}
            if not more:
                del env["DELEGATED_MODEL"]  # the file is to be heard
            settings = Path(env["HOME"], ".config", "delegated", "config.yaml")
            settings.parent.mkdir(parents=True, exist_ok=True)
            settings.write_text(text)
            done = subprocess.run(
                [sys.executable, "-m", *command], env=env, cwd=house.workspace, capture_output=True, timeout=60
            )
            refused += done.returncode != 0
            assert not holds(done.stdout + done.stderr, KEY), (text, more, command, done.stderr)
    assert refused > 10, "they were heard"


def test_every_test_that_the_documentation_names_is_there() -> None:
    """docs/security.md names, for each promise, the tests that hold it; README leads to the page."""
    page = (ROOT / "docs" / "security.md").read_text()
    promises = page.partition("## What is promised")[2].partition("### ")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and "held by" not in line]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(tests/[\w/.]+)`", row)
        assert named, row
        assert [name for name in named if not (ROOT / name).is_file()] == []
    assert "docs/security.md" in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_records_are_for_their_owner_alone(house: House, server: Server) -> None:
    """What the daemon writes has mode 0600, its directories 0700, whatever the umask."""
    before = os.umask(0)
    try:
        settle(house, server)
    finally:
        os.umask(before)
    ours = house.folder / ".delegated"
    written = [*house.folder.glob("OPENAI_DELEGATION_RESULT_*"), ours, *sorted(ours.rglob("*"))]
    wrong = [str(path) for path in written if path.stat().st_mode & 0o077]
    assert wrong == []
    assert json.loads(house.result_path("k").read_text())["status"] == "answered"


def test_a_users_own_state_is_for_nobody_else(tmp_path: Path) -> None:
    """Also the directories above it that were not there: who may write in one of them could put others in its place."""
    state, workspace = tmp_path / "home/.local/state/delegated", tmp_path / "workspace"
    workspace.mkdir()
    (tmp_path / "home").mkdir()
    before = os.umask(0)
    try:
        register(str(state), str(workspace), str(workspace / "folder"))
        Ledger(str(tmp_path / "home/elsewhere/delegated/ledger.sqlite3")).close()
    finally:
        os.umask(before)
    written = [*(tmp_path / "home").rglob("*")]
    assert len(written) >= 7
    assert [str(path) for path in written if path.stat().st_mode & 0o077] == []
