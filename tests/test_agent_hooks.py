"""A hook delegates what a prompt asks for, once, brings the answer back in the host's own form, and never breaks it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_payloads import SAYS, TRANSCRIPTS, prompt, stop, transcript
from delegated.agents import NAMES, hosts, said
from delegated.agents.transcript import gather, records
from delegated.cli.digest import MOST, digest
from delegated.cli.evidence import files_in, tail_of
from delegated.folder import request_id
from delegated.request import parse
from harness import TRACE, House, Server, until
from test_cli_folder import Played, dropped
from test_cli_start import HEAVY, imported
from test_receipt import body

CALL = [sys.executable, "-P", "-m", "delegated", "hook"]
LATER = ("cursor", "vscode")
NOW = ("claude", "codex")


def begin(house: House, host: str, payload: object, *flags: str, **env: str) -> subprocess.Popen[bytes]:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with open(house.tmp / "payload", "w+b") as file:
        file.write(data)
        file.seek(0)
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*CALL, host, *flags], stdin=file, stdout=pipe, stderr=pipe, cwd=house.outside, env=house.env | env
        )


def hook(house: House, host: str, payload: object, *flags: str, **env: str) -> Any:
    """Call a hook as a host does; return the JSON that it answers, None where it is silent."""
    process = begin(house, host, payload, *flags, **env)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, b"")
    return json.loads(out) if out else None


def told(host: str, answer: Any) -> str:
    """Take the text out of the form that the host takes it in."""
    if host == "cursor":
        (text,) = answer.values()
        assert list(answer) == ["followup_message"]
    elif host == "vscode":
        assert answer["decision"] == answer["hookSpecificOutput"]["decision"] == "block"
        assert answer["hookSpecificOutput"]["hookEventName"] == "Stop"
        text = answer["reason"]
    else:
        assert list(answer) == ["hookSpecificOutput"]
        assert answer["hookSpecificOutput"]["hookEventName"] == "UserPromptSubmit"
        text = answer["hookSpecificOutput"]["additionalContext"]
    return str(text)


@pytest.mark.slow
@pytest.mark.parametrize("host", NAMES)
def test_from_the_prompt_to_the_answer(host: str, house: House) -> None:
    """Issue, file, error and attempt reach the request; the answer comes back, once, with no daemon running."""
    path = transcript(host, Path(house.env["HOME"]), house.workspace)
    payload = prompt(host, house.workspace, f"We are stuck.\n\n{SAYS}", str(path))
    answer = hook(house, host, payload)
    if host in LATER:
        assert answer == {"continue": True} if host == "cursor" else answer["systemMessage"].startswith("Delegated as ")
        answer = hook(house, host, stop(host, house.workspace))
    text = told(host, answer)
    assert "Verdict: likely" in text
    assert "Root cause: `len(items)` is zero in `total` (app.py:2)" in text
    assert str(house.folder) in text
    (file,) = dropped(house)
    request = parse(file.read_bytes(), ".md")
    assert request.issue == "it divides by zero"
    assert request.files == ("app.py",)
    assert request.logs.endswith(TRACE.strip())
    assert request.attempted_fixes == ("Edited app.py: replaced `len(items)` by `max(len(items), 1)`",)
    assert "We are stuck." in request.context
    assert "Still fails." in request.context
    assert hook(house, host, stop(host, house.workspace)) is None, "an answer is brought once"


@pytest.mark.slow
def test_a_secret_of_the_session_does_not_leave(house: House, server: Server) -> None:
    """What a transcript holds goes the way of every request: a token in it is replaced before anything is sent."""
    house.use(server)
    token = "ghp_" + "x7Kd93mQpLw2ZtR8vYbN4cJ6sHfG1aUe5oTi"
    path = transcript("claude", Path(house.env["HOME"]), house.workspace)
    failed = {"type": "tool_result", "is_error": True, "content": f"{TRACE}\nGITHUB_TOKEN={token}"}
    path.write_bytes(path.read_bytes() + b"\n" + json.dumps({"message": {"content": [failed]}}).encode())
    text = told("claude", hook(house, "claude", prompt("claude", house.workspace, transcript=str(path))))
    assert "was answered (gpt-4o)" in text
    (bill,) = server.bills()
    sent = json.dumps(body(server, bill["n"]))
    assert "GITHUB_TOKEN=[REDACTED:" in sent
    assert token not in sent


def test_a_prompt_reported_twice_delegates_once(house: House) -> None:
    """Two entries of a host may report one prompt, at the same moment or one after the other."""
    daemon = Played(house)
    payload = prompt("claude", house.workspace)
    both = [begin(house, "claude", payload) for _ in range(2)]
    (file,) = until(lambda: dropped(house), what="request")
    daemon.settle(request_id(file.name)[0], root_cause="it is empty")  # type: ignore[index]
    outs = [process.communicate(timeout=60)[0] for process in both]
    assert sorted(map(bool, outs)) == [False, True], outs
    assert hook(house, "claude", payload) is None
    assert dropped(house) == [file]
    daemon.close()


def test_the_next_turn_may_ask_the_same(house: House) -> None:
    """Where the host names the turn, it is the turn that counts; elsewhere ten seconds."""
    one = hosts.read("codex", prompt("codex", house.workspace))
    two = hosts.read("codex", prompt("codex", house.workspace, turn_id="another"))
    assert one
    assert two
    assert not {*hosts.keys(one, "/w", "it", 0)} & {*hosts.keys(two, "/w", "it", 0)}
    assert hosts.keys(one, "/w", "it  Fails", 0) == hosts.keys(one, "/w", "it fails\n", 99)
    old = hosts.read("claude", prompt("claude", house.workspace))
    assert old
    assert {*hosts.keys(old, "/w", "it", 9)} & {*hosts.keys(old, "/w", "it", 11)}
    assert hosts.keys(old, "/w", "it", 9)[0] not in hosts.keys(old, "/w", "it", 31)


@pytest.mark.parametrize("host", NAMES)
def test_an_answer_that_takes_too_long(host: str, house: House) -> None:
    """The agent is told the id and the command; where it can still come, it comes when the agent stops."""
    daemon = Played(house)
    answer = hook(house, host, prompt(host, house.workspace), "--timeout", "0.1")
    (file,) = dropped(house)
    key = request_id(file.name)[0]  # type: ignore[index]
    if host in LATER:
        answer = hook(house, host, stop(host, house.workspace), "--timeout", "0.1")
    assert f"delegate wait {key} --workspace '{house.workspace}'" in told(host, answer)
    daemon.settle(key, verdict="likely", root_cause="it is empty", model="gpt-4o")
    late = hook(house, host, stop(host, house.workspace))
    assert late is None if host in LATER else "Root cause: it is empty" in late["reason"]
    assert hook(house, host, stop(host, house.workspace)) is None
    daemon.close()


def test_a_duplicate_is_followed_to_its_answer(house: House) -> None:
    """The RESULT of the request that was asked already is the answer."""
    daemon = Played(house)
    daemon.settle("before", verdict="likely", root_cause="it is empty")
    process = begin(house, "codex", prompt("codex", house.workspace))
    (file,) = until(lambda: dropped(house), what="request")
    daemon.settle(request_id(file.name)[0], "duplicate", duplicate_of="before")  # type: ignore[index]
    text = told("codex", json.loads(process.communicate(timeout=60)[0]))
    assert "The delegation before was answered" in text
    assert "Root cause: it is empty" in text
    daemon.close()


@pytest.mark.parametrize("host", NAMES)
def test_foreign_and_malformed_payloads(host: str, house: House) -> None:
    """Whatever arrives, the exit code is 0, nothing is said and nothing is dropped."""
    w = house.workspace
    good = prompt(host, w)
    for other in NAMES:
        if other != host and (host, other) != ("codex", "claude"):  # of one shape but for the turn
            assert hosts.read(host, prompt(other, w)) is None, other
    event = "hookEventName" if host == "vscode" else "hook_event_name"
    wrong: list[Any] = [None, 7, [], [good], {}, {"prompt": SAYS}, {**good, event: "PreToolUse"}, {**good, "prompt": 7}]
    wrong += [
        {**good, "prompt": None},
        {**good, "source": "plugin"},
        {**good, "source": ["user"]},
        {**good, event: [1]},
    ]
    wrong += [{**good, "cwd": "relative", "workspace_roots": ["relative", 7, None]}, {**good, "prompt": "\0"}]
    wrong += [
        {**stop(host, w), "loop_count": 3, "status": "aborted", "session_id": 1, "sessionId": 2, "conversation_id": 3}
    ]
    assert [payload for payload in wrong if hosts.read(host, payload) is not None] == []
    assert hosts.read(host, good) is not None
    assert hosts.read(host, {**good, "source": "sdk"}) is not None
    odd = hosts.read(host, {**good, "attachments": {"type": "file"}})
    assert odd
    assert odd.files == ()
    text = json.dumps(good).encode()
    for data in (b"", b"{", text[:-1], b"\xff\xfe" + text, text + b"{}", b"[" * 100_000 + b"delegate 4o"):
        assert hook(house, host, data) is None
    assert dropped(house) == []


def test_wrong_words_on_the_command_line_refuse_no_prompt(house: House) -> None:
    """Exit code 2 would take the user's prompt away: not even an unknown host ends so."""
    for flags in (["emacs"], ["claude", "--timeout", "soon"], ["claude", "--nonsense"]):
        process = begin(house, flags[0], b"{}", *flags[1:])
        assert (*process.communicate(timeout=60), process.returncode) == (b"", b"", 0)


def test_a_person_is_told_what_it_is_for(house: House) -> None:
    """On a terminal, where no host calls, the command says how it is set up."""
    master, slave = os.openpty()
    done = subprocess.run([*CALL, "claude"], stdin=slave, capture_output=True, env=house.env, timeout=60)
    os.close(master)
    os.close(slave)
    assert done.returncode == 2
    assert b"delegate init --agent claude" in done.stderr


def test_a_workspace_that_nobody_set_up(house: House) -> None:
    """There nothing is written, and the agent is told how it would be."""
    bare = house.tmp / "bare"
    bare.mkdir()
    assert "`delegate init` sets it up" in told("claude", hook(house, "claude", prompt("claude", bare)))
    assert [*bare.iterdir()] == []


def test_what_a_prompts_answer_cannot_say_is_said_at_the_stop(house: House) -> None:
    """Cursor shows no word of a hook that lets a prompt pass: why nothing was delegated comes as the next message."""
    bare = house.tmp / "bare"
    bare.mkdir()
    (house.workspace / ".delegated.yaml").write_text("modell: x\n")
    for workspace, words in ((bare, "`delegate init` sets it up"), (house.workspace, "modell")):
        for _ in range(2):  # two entries report one prompt
            assert hook(house, "cursor", prompt("cursor", workspace)) == {"continue": True}
        text = told("cursor", hook(house, "cursor", stop("cursor", workspace)))
        assert text.startswith("Nothing was delegated: ")
        assert words in text
        assert hook(house, "cursor", stop("cursor", workspace)) is None
    assert [*bare.iterdir()] == []
    assert dropped(house) == []


def test_a_configuration_that_cannot_be_used(house: House) -> None:
    """Nothing is dropped that could not be answered, and the agent is told why."""
    text = told("claude", hook(house, "claude", prompt("claude", house.workspace), DELEGATED_CONCURRENCY="many"))
    assert "Nothing was delegated" in text
    assert "concurrency" in text
    assert dropped(house) == []


@pytest.mark.parametrize("host", NAMES)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("We are stuck.\n\nDELEGATE TO GPT-4O:\n", "nothing stands behind the colon"),
        (f"{SAYS}\n" + "log line\n" * 125_000, "longer than 1,048,576 characters"),
    ],
    ids=["no issue", "too long"],
)
def test_a_prompt_that_delegates_and_cannot_is_not_met_with_silence(
    text: str, words: str, host: str, house: House
) -> None:
    """Its user meant it: why nothing came of it is told as every other reason is."""
    answer = hook(house, host, prompt(host, house.workspace, text))
    if host == "cursor":
        answer = hook(house, host, stop(host, house.workspace))
    said_ = answer["systemMessage"] if host == "vscode" else told(host, answer)
    assert said_.startswith("Nothing was delegated: ")
    assert words in said_
    assert dropped(house) == []


def test_no_state_directory(house: House) -> None:
    """Where nothing can be noted for later, the answer still comes with the prompt."""
    daemon = Played(house)
    (house.tmp / "state").write_text("a file")
    process = begin(house, "claude", prompt("claude", house.workspace), XDG_STATE_HOME=str(house.tmp / "state"))
    (file,) = until(lambda: dropped(house), what="request")
    daemon.settle(request_id(file.name)[0], root_cause="it is empty")  # type: ignore[index]
    assert "it is empty" in told("claude", json.loads(process.communicate(timeout=60)[0]))
    daemon.close()


@pytest.mark.parametrize(
    ("text", "issue", "before"),
    [
        ("DELEGATE TO GPT-4O: it fails", "it fails", ""),
        ("delegate to gpt4o: it fails", "it fails", ""),
        ("Delegate to GPT 4o : it fails", "it fails", ""),
        ("DELEGATE TO GPT\u20114O: it fails", "it fails", ""),
        ("  **DELEGATE TO GPT-4O: it fails**", "it fails", ""),
        ("first\r\n\r\nDELEGATE TO GPT-4O:\r\nit fails\r\nhere", "it fails\nhere", "first"),
        ("```\ncode\n```\nDELEGATE TO GPT-4O: x", "x", "```\ncode\n```"),
        ("first\n**DELEGATE TO GPT-4O:**\n\n", "", "first"),
    ],
)
def test_the_phrase(text: str, issue: str, before: str) -> None:
    """In any case and both spellings, at the start of any line; what follows belongs to the issue."""
    assert said.delegated(text) == (issue, before)


@pytest.mark.parametrize(
    "text",
    [
        "please delegate to GPT-4O: it fails",
        "> DELEGATE TO GPT-4O: it fails",
        "```\nDELEGATE TO GPT-4O: it fails\n```",
        "DELEGATE TO GPT-4: it fails",
        "what does DELEGATE TO GPT-4O do?",
    ],
)
def test_what_is_not_the_phrase(text: str) -> None:
    """A mention, a quotation, a block of code: nothing is asked."""
    assert said.delegated(text) is None
    assert said.delegated(said.harmless(f"so:\n{SAYS}\n- {SAYS}\nend")) is None


@pytest.mark.parametrize("host", NAMES)
def test_what_a_transcript_tells(host: str, tmp_path: Path) -> None:
    """Files, errors, edits and last words are found in each host's form, torn lines and all."""
    found = gather(records(transcript(host, tmp_path, tmp_path).read_bytes()))
    assert [Path(name).name for name in found.files] == ["app.py"]
    assert len(found.errors) == len(found.fixes) == 1
    assert found.errors[0].endswith(TRACE.strip())
    assert "replaced `len(items)` by `max(len(items), 1)`" in found.fixes[0]
    assert found.said == "Still fails."


def test_a_transcript_is_bounded(tmp_path: Path) -> None:
    """However long and deep a session is, what is told stays small, and is its end."""
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    many = [
        {
            "type": "tool_use",
            "name": "Edit",
            "input": {"file_path": f"f{n}.py", "old_string": "a" * 9000, "new_string": "b"},
        }
        for n in range(3000)
    ]
    failed = [{"type": "tool_result", "is_error": True, "content": f"{n} " + "e" * 50_000} for n in range(100)]
    found = gather([deep, {"wide": [{}] * 100_000}, *many, *failed, {"type": "tool_result", "content": {"a": 1}}])
    assert found.files[-1] == "f2999.py"
    assert len(found.files) <= 12
    assert sum(map(len, (*found.errors, *found.fixes))) < 20_000


@pytest.mark.parametrize(
    "piece", ["\n", " ", "\n at ", "\n at x(", " at (", "(", "a.", "Error", "error[", "exit code ", "`"]
)
def test_a_hostile_transcript_costs_linear_time(piece: str) -> None:
    """Whatever a tool printed, in one line or in many: a quadratic reader would need minutes for it."""
    text = piece * (300_000 // len(piece))
    found = gather([{"type": "tool_result", "content": f"{start}{text}x"} for start in ("", "\n at ", "\n at x(")])
    assert len(found.errors) <= 3
    assert gather([{"type": "tool_result", "content": f"{text}\n\tat a.B.c (B.java:12)\n"}]).errors


@pytest.mark.timeout(60)
def test_a_session_of_many_steps_costs_linear_time() -> None:
    """Each file and error is looked for among the last few alone."""
    many = range(100_000)
    patch = "\n".join(f"*** Add File: {number}.py" for number in many)
    failed = ({"type": "tool_result", "is_error": True, "content": str(number)} for number in many)
    long = {"name": "edit", "input": {"path": "a b " * 250_000, "edits": [{"old_string": "a"}] * 25_000}}
    found = gather([{"name": "apply_patch", "input": patch}, *failed, long])
    assert found.files[:-1] == [f"{number}.py" for number in many][-11:]
    assert found.errors == ["99997", "99998", "99999"]


@pytest.mark.parametrize("host", NAMES)
def test_only_the_hosts_own_transcripts_are_read(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload cannot name a key, a link, a FIFO, a directory, or a file beside the host's records."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    good = transcript(host, home, tmp_path)
    assert tail_of(host, str(good)).startswith(b'{"torn"')
    other = next(name for name in NAMES if name != host)
    secret = home / ".ssh" / "id.jsonl"
    secret.parent.mkdir()
    secret.write_text("{}\n")
    (good.parent / "link.jsonl").symlink_to(secret)
    (good.parent / "way").symlink_to(secret.parent)
    os.mkfifo(good.parent / "pipe.jsonl")
    (good.parent / "dir.jsonl").mkdir()
    (good.parent / "key").write_text("{}\n")
    bad = [
        good.parent / name for name in ("link.jsonl", "way/id.jsonl", "pipe.jsonl", "dir.jsonl", "key", "gone.jsonl")
    ]
    for path in (*map(str, bad), str(secret), "relative.jsonl", f"{good.parent}/../../../../../../.ssh/id.jsonl", ""):
        assert tail_of(host, path) == b"", path
    assert tail_of(other, str(good)) == b""
    good.write_bytes(b"first\n" + b"x" * (3 << 20) + b"\nlast\n")
    assert tail_of(host, str(good)) == b"last\n"


@pytest.mark.parametrize(
    ("host", "theirs", "not_theirs"),
    [
        ("claude", (".claude", ".claude-work", ".config/claude"), ("claude", "claude-api", ".claudette")),
        ("codex", (".codex",), ("codex", ".codexes", ".config/codex")),
        ("cursor", (".cursor", ".cursor-server", "Library/Application Support/Cursor"), ("Cursor", "Cursor-rules")),
        (
            "vscode",
            (".config/Code", ".config/Code - Insiders", "Roaming/VSCodium", ".vscode-server", ".copilot"),
            ("Code", "Code - Insiders", "CodeReview", "VSCodium", ".config/Coder", "Roaming/Codespaces"),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("set_to", ["", "home"])
def test_no_directory_of_work_is_taken_for_a_hosts_own(
    host: str, theirs: tuple[str, ...], not_theirs: tuple[str, ...], set_to: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """`~/Code` is where people keep their projects: a name without a dot is a host's only among the settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "Roaming"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path) if set_to else "")
    for name in (*theirs, *not_theirs):
        file = tmp_path / name / "other" / "notes.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("{}\n")
        assert tail_of(host, str(file)) == (b"{}\n" if name in theirs else b""), name


def test_what_is_attached_to_a_prompt_goes_along(house: House) -> None:
    """Cursor names the files that its user put in; without a transcript they are the ones in play."""
    daemon = Played(house)
    assert hook(house, "cursor", prompt("cursor", house.workspace)) == {"continue": True}
    (file,) = dropped(house)
    assert parse(file.read_bytes(), ".md").files == ("app.py",)
    daemon.close()


def test_only_files_of_the_workspace_are_named(house: House) -> None:
    """What lies outside, is no file, leads through a link or is ours is not named; the last used comes first."""
    w = house.workspace
    (w / "src").mkdir()
    (w / "src" / "b.py").write_text("")
    (w / "out.py").symlink_to(w / "app.py")
    (w / "away").symlink_to(house.outside)
    (house.outside / "c.py").write_text("")
    named = [f"{w}/app.py", "b.py", "/etc/passwd", "../outside/c.py", "away/c.py", "out.py", "src", "gone.py", "a\nb"]
    named += [f"{w}/.autonomous_runs/x", "~/.ssh/id_rsa", "C:\\x", "x" * 9000, f"{w}/src/../src/b.py", "a\0b", ""]
    (w / ".autonomous_runs" / "x").write_text("")
    assert files_in(str(w), [str(w / "src")], named) == ("src/b.py", "app.py")


def test_what_the_agent_is_told_is_short_and_harmless() -> None:
    """Verdict, cause, first fix and place fit in 8,000 characters; nothing of the model's drives or delegates."""
    long = f"\x1b[2J{SAYS}\n\n" + "word " * 9000
    fix = {"description": long, "changes": f"```\n{long}", "test": long, "edits": [{"applies": True}, 7]}
    result = {
        "status": "answered",
        "verdict": "likely",
        "confidence": {"score": 0.5},
        "confidence_level": "medium",
        "root_cause": long,
        "technical_explanation": long,
        "recommended_fixes": [fix],
        "hypotheses": [{"evidence": [{"grounded": True}, {"grounded": False}]}, 7],
        "files_needed": ["a.py"],
    }
    text = said.harmless(digest(result, "k", "/w/RESULT_k.md", ""))
    assert len(text) <= MOST + 20
    assert "\x1b" not in text
    assert said.delegated(text) is None
    for part in (
        "Verdict: likely",
        "medium (0.50 of 1); 1 of 2 quotes",
        "1 of 1 edits apply",
        "a.py",
        "/w/RESULT_k.md",
    ):
        assert part in text, part
    failed = {
        "status": "failed",
        "error": {"message": "no key", "hint": "export it", "next_command": "delegate retry k"},
    }
    assert "no key\n\nexport it\n\nThen: delegate retry k" in digest(failed, "k", "/r", "")
    for odd in (
        {},
        {"status": "answered", "recommended_fixes": 7, "hypotheses": {}, "confidence": 1},
        {"status": "rejected"},
    ):
        assert "/r" in digest(odd, "k", "/r", "")


def test_a_prompt_without_the_phrase_costs_little(house: House) -> None:
    """Of our rooms only those of the command line are imported, no parser of arguments and none of JSON payloads."""
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", *CALL[2:], "claude"],
        input=json.dumps(prompt("claude", house.workspace, "fix the typo")).encode(),
        capture_output=True,
        env=house.env,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, b"")
    names = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert {name for name in names if name.startswith("delegated")} == {
        *("delegated", "delegated.cli", "delegated.cli.exits", "delegated.cli.terminal"),
    }
    assert not names & (HEAVY | {"argparse", "dataclasses", "subprocess", "hashlib"})
    assert not imported("hook", "--help", house=house) & HEAVY


def test_every_shape_is_tried() -> None:
    """Each host has its transcript here, and its events in the entries that `init` writes."""
    assert set(TRANSCRIPTS) == set(NAMES)
    for host in NAMES:
        names = hosts.entries(host)["hooks"]
        kinds = [(hosts.read(host, make(host, Path("/w"))) or pytest.fail(host)).kind for make in (prompt, stop)]
        assert kinds == ["prompt", "stop"]
        assert list(names) == (["beforeSubmitPrompt", "stop"] if host == "cursor" else ["UserPromptSubmit", "Stop"])


@pytest.mark.parametrize("host", NAMES)
def test_an_entry_where_nothing_is_installed(host: str, house: House) -> None:
    """The command of an entry, in a checkout of somebody who has no `delegate`, or one too old to know hooks."""
    text = json.dumps(hosts.entries(host))
    (command,) = {json.loads(found) for found in re.findall(r'"command": ("[^"]*")', text) if "delegate" in found}
    bin_ = house.tmp / "bin"
    bin_.mkdir()
    for script in (None, "#!/bin/sh\nexit 2\n"):
        if script:
            (bin_ / "delegate").write_text(script)
            (bin_ / "delegate").chmod(0o755)
        done = subprocess.run(["/bin/sh", "-c", command], env={"PATH": str(bin_)}, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, b"")
