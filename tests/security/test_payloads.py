"""Text that would drive a terminal, open a page or call home, in everything that is read; and what is made of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from golden_files import assert_golden
from harness import PREFIX, House, Server
from security.seeking import answer_with, delegate_on_terminal, looks, on_terminal

TERMINAL = {
    "clipboard": "\x1b]52;c;Y2FuYXJ5\x07",
    "title": "\x1b]0;owned\x07 \x1b]2;owned\x1b\\",
    "screen": "\x1b[2J\x1b[H\x1b[3A\x1b[1;31m\x1b[?1049h",
    "eight bits": "\x9b2J\x9d0;owned\x9c\x90q\x9c\x85",
    "link": "\x1b]8;;https://beacon.invalid/8\x07here\x1b]8;;\x07",
    "device": "\x1bP$q q\x1b\\ \x1bPq#0\x1b\\ \x1b[6n \x1b[21t \x1bc \x1b(0",
    "cut off": "\x1b]0;never ended",
    "carriage": "good\rbad \x08\x08\x08\x7f \x0b\x0c \x0e\x0f \a",
    "bidi": "a\u202egnp.exe\u202c \u2066x\u2069 \u200f\u061c",
    "unseen": "in\u200bvis\u200dib\u2060le\ufeff \U000e0041\U000e007f \u3164 \u00ad",
    "line ends": "a\u2028b\u2029c\u0085d",
}
PAGE = {
    "fence": "```\nout\n```\n~~~~\nout\n~~~~",
    "runs": "``````` `a``b```c````",
    "image": "![x](https://beacon.invalid/a.png) ![y][r] [![z](https://beacon.invalid/b.png)](https://beacon.invalid)",
    "html": '<img src="https://beacon.invalid/c.png"> <script>alert(1)</script> <details open><a href="x">y</a>',
    "block": "<div>\n<iframe src=https://beacon.invalid></iframe>\n</div>",
    "comment": "<!-- hidden --> <?php ?> <![CDATA[x]]> <!DOCTYPE x>",
    "script link": "[click](javascript:alert(1)) [d](data:text/html;base64,PGI+) [v](<vbscript:x>)",
    "autolink": "<https://beacon.invalid/d> <javascript:alert(1)> <me@beacon.invalid>",
    "bare": "https://beacon.invalid/e www.beacon.invalid/f ftp://beacon.invalid",
    "reference": '[r]\n\n[r]: https://beacon.invalid/g "t"\n\n[^1]\n\n[^1]: note',
    "heading": "# Approved\n\nApproved\n========\n\nThis too\n---",
    "table": "| a | b |\n|---|---|\n| c | ![x](https://beacon.invalid/h) |",
    "entity": "&lt;img src=x&gt; &#60;script&#62; &#x1b;[2J &NewLine;# x",
    "nested": "> - 1. > <img src=x>\n>     code\n\n- [ ] task\n\n\\<img>\\![x](y) \\\\`",
    "end": "</file>\n</issue>\n<!-- END -->\n---\n...\n",
}
ALL = "\n\n".join([*TERMINAL.values(), *PAGE.values()])
ALLOWED_INLINE = {"text", "code_inline", "strong", "softbreak", "text_special", "hardbreak"}
RENDERERS = [MarkdownIt("commonmark").enable(["table", "strikethrough"]), MarkdownIt("js-default", {"html": True})]


def unsafe_characters(text: str) -> set[str]:
    """Say which characters of a text steer a terminal, turn the reading direction or are not seen."""
    return {
        f"U+{ord(each):04X}"
        for each in text
        if each not in "\n\t" and (unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp", "Cs") or each == "\u3164")
    }


def active_parts(page: str) -> set[str]:
    """Say what a renderer would make of a page beside words: an image, HTML, a link, also one of a bare address."""
    found = set()
    for renderer in RENDERERS:
        for token in renderer.parse(page):
            if token.type.startswith("html"):
                found.add(f"{token.type}: {token.content[:60]}")
            for child in token.children or []:
                kind = child.type.removesuffix("_open").removesuffix("_close")
                if kind not in ALLOWED_INLINE:
                    found.add(f"{kind}: {child.content or child.attrs}")
                if child.type == "text" and re.search(
                    r"(?i)\b(?:https?|ftp)://|\bwww\.|[\w.+-]@\w[\w-]*\.\w", child.content
                ):
                    found.add(f"address: {child.content[:80]}")
    return found


def headings(page: str) -> list[str]:
    tokens = RENDERERS[0].parse(page)
    return [
        f"{token.tag} {tokens[at + 1].content.split(':')[0] if token.tag == 'h1' else tokens[at + 1].content}"
        for at, token in enumerate(tokens)
        if token.type == "heading_open" and token.tag in ("h1", "h2")
    ]


def steered(said: bytes, *, colours: bool = False) -> list[str]:
    """Say what in these bytes a terminal would obey, beside the line ends (and colours, where they are ours)."""
    text = said.decode("utf-8").replace("\r\n", "\n")  # a terminal's driver makes them
    if colours:
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return sorted(unsafe_characters(text))


NAMES = {
    "title": "\x1b]0;owned\x07.py",
    "lines": "two\nlines.py",
    "bidi": "a\u202eyp.exe.py",
    "image": "![x](https:beacon.invalid).py",
    "html": "<img src=x>.py",
    "runs": "``a`.py",
    "pipe": "a|b|c.py",
    "spaces": "  .py",
}


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One request and one answer with everything hostile in every field, one that is rejected, one that fails."""
    tmp = tmp_path_factory.mktemp("payloads")
    server, house = Server(tmp), House(tmp)
    try:
        (house.workspace / "evil").mkdir()
        for name in NAMES.values():
            (house.workspace / "evil" / name).write_text(f"x = 1\n{ALL}\n")
        house.use(server, log__level="debug", retry__base_s=0.05, model="gpt-4o")
        responses = {"method": "POST", "path": "/v1/responses"}
        error = {"error": {"message": ALL, "type": ALL, "param": ALL, "code": ALL}}
        server.script(
            {"match": {**responses, "contains": "answer me"}, "times": "always", "do": {"answer": answer_with(ALL)}},
            {
                "match": {**responses, "contains": "refuse me"},
                "times": "always",
                "do": {"outcome": "refusal", "text": ALL},
            },
            {"match": {**responses, "contains": "stop me"}, "times": "always", "do": {"status": 400, "body": error}},
        )
        for key in ("answer", "refuse", "stop"):
            house.drop(key, json.dumps(request(f"{key} me")), ".json")
        bad = {
            **request("reject me"),
            "files": [*NAMES.values()],
            ALL: ALL,
            "models": [ALL],
            "id": ALL,
            "priority": ALL,
        }
        house.drop("reject", json.dumps(bad), ".json")
        house.drop("yaml", f"issue: [\x1b]0;owned\x07\n{ALL}\n", ".yaml")
        for name in NAMES.values():
            (house.folder / f"{PREFIX}REQUEST_{name.replace('/', '')}.md").write_text("x")
        house.set(quiet_s=0.5)
        with open(tmp / "daemon.log", "wb"):
            pass
        house.start("--once").process.wait(90)
        yield house
    finally:
        house.close()
        server.close()


def request(issue: str) -> dict[str, Any]:
    return {
        "issue": f"{issue} {ALL}",
        "context": ALL,
        "logs": ALL,
        "attempted_fixes": [ALL, ALL],
        "questions": [ALL],
        "files": ["evil/*.py", "app.py"],
        "contents": {f"given-{PAGE['bare'].split('/')[-1]}-<img src=x>.py": ALL},
        "labels": ["a", PAGE["image"]],
        "repro": TERMINAL["title"].replace("\n", " "),
    }


ENDS = {"answer": "answered", "refuse": "failed", "stop": "failed", "reject": "rejected", "yaml": "rejected"}


@pytest.mark.parametrize("key", ENDS)
def test_a_page_shows_words_whatever_it_was_made_from(answered: House, key: str) -> None:
    """No image, no HTML, no link, no address that a renderer makes a link, no heading that is not ours, no control."""
    result = json.loads(answered.result_path(key).read_text())
    assert result["status"] == ENDS[key], result["error"]
    page = answered.result_path(key, "md").read_text()
    assert active_parts(page) == set()
    assert unsafe_characters(page) == set()
    assert not {"h1 Approved", "h2 This too", "h1 x"} & set(headings(page))
    normal = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:0", page.partition("\n## What Was Sent\n")[0])
    normal = re.sub(r"the keys are [\w, ]+", "the keys are these", normal)  # which, says the schema
    assert_golden(f"hostile_{key}.md", normal)


@pytest.mark.parametrize("key", ["answer", "reject"])
def test_no_command_that_shows_it_drives_the_terminal(answered: House, key: str) -> None:
    """What `show`, `wait`, `list` and `status` write to a terminal holds nothing that it would obey."""
    for command, said in looks(answered, key):
        assert said
        assert steered(said, colours=command == "costs") == [], command


def test_the_log_is_harmless_on_a_terminal(answered: House) -> None:
    """Each line of the log is one event: no value begins a line of its own, and none drives the terminal."""
    lines = (answered.tmp / "daemon.log").read_bytes().splitlines()
    assert sum(b"request.misnamed" in line for line in lines) == len(NAMES)
    for line in lines:
        json.loads(line)
        assert steered(line) == []


@pytest.mark.slow
def test_the_log_for_people_is_harmless_too(house: House, server: Server) -> None:
    """The daemon started by hand on a terminal: colours of its own, and one line an event."""
    for name in NAMES.values():
        (house.folder / f"{PREFIX}REQUEST_{name}.md").write_text("x")
    house.use(server, log__level="debug", log__format="auto", retry__attempts=1)
    server.script({"times": "always", "do": {"status": 503, "body": {"error": {"message": ALL}}}})
    house.drop("k")
    program = [sys.executable, "-P", "-m", "delegated.cli.serve", "--workspace", str(house.workspace), "--once"]
    _, said = on_terminal(program, house.env, house.workspace, columns=200)
    assert said.count(b"request.misnamed") == len(NAMES)
    assert steered(said, colours=True) == []
    first = re.compile(r"(?:\x1b\[[0-9;]*m)*\d{4}-\d\d-\d\dT")
    assert all(first.match(line) for line in said.decode().splitlines() if line.strip())


def planted(value: Any) -> dict[str, Any]:
    """A RESULT.json by whoever can write to the folder."""
    return {
        "schema": "delegated/result/1",
        "status": value,
        "verdict": value,
        "confidence": {"level": value, "score": value},
        "request": {"id": value, "title": value, "path": value, "sha256": value, "revision": value},
        "model": value,
        "cost_usd": value,
        "timestamp": value,
        "raw_response": value,
        "error": {"kind": value, "message": value},
    }


@pytest.mark.parametrize("value", [ALL, 1e400, None, [ALL], {ALL: ALL}], ids=["text", "inf", "null", "list", "object"])
def test_files_that_somebody_else_put_there_drive_no_terminal(house: House, value: Any) -> None:
    """RESULT and STATUS files are read by commands too; whoever wrote them says nothing to the terminal."""
    house.drop("k", "It fails\n")
    house.drop("runs", "It fails\n")
    house.result_path("k").write_text(json.dumps(planted(value), ensure_ascii=False))
    house.result_path("k", "md").write_bytes(ALL.encode() + b"\xff\xfe\x00")
    status = {"id": value, "state": value, "phase": value, "detail": value, "model": value, "attempt": value}
    (house.folder / f"{PREFIX}STATUS_runs.json").write_text(json.dumps(status, ensure_ascii=False))
    for arguments in (
        ("show", "k"),
        ("show", "k", "--raw"),
        ("list",),
        ("status",),
        ("status", "runs"),
        ("status", "k"),
    ):
        code, said = delegate_on_terminal(house, *arguments)
        assert steered(said) == [], arguments
        assert code != 70, (arguments, said)
    code, said = delegate_on_terminal(house, "wait", "k", "--timeout", "0.1s")
    assert steered(said.replace(b"\r\x1b[K", b"")) == []


@pytest.mark.slow
def test_a_hostile_workspace_is_shown_harmlessly(house: House, tmp_path: Path) -> None:
    """Its own name is in what commands and the log say."""
    for name in ("\x1b]0;owned\x07", "a\nb", "![x](y)\u202e"):
        workspace = tmp_path / name
        (workspace / ".autonomous_runs" / "openai_delegations").mkdir(parents=True)
        for command in (("status",), ("list",), ("doctor", "--no-daemon")):
            said = on_terminal([sys.executable, "-P", "-m", "delegated", *command], house.env, workspace)[1]
            assert said
            assert steered(said, colours=command[0] == "doctor") == [], (command, said)
        program = [sys.executable, "-P", "-m", "delegated.cli.serve", "--workspace", str(workspace), "--once"]
        done = subprocess.run(program, env=house.env, cwd=workspace, capture_output=True, timeout=60)
        assert steered(done.stdout + done.stderr) == []
        assert os.listdir(workspace)
