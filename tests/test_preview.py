"""What would be sent is what is sent, and to look at it costs nothing and leaves nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from delegated.cli import exits
from harness import PREFIX, House, Server, on_terminal, request_text
from repositories import git, repository
from test_receipt import body, furnish, words_of


def preview(house: House, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-m", "delegated", "preview", *arguments]
    return subprocess.run(command, cwd=house.workspace, env=house.env, capture_output=True, timeout=60)


def tree(top: Path) -> list[str]:
    return sorted(os.path.join(at, name) for at, names, files in os.walk(top) for name in (*names, *files))


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["responses", "chat", "messages"])
def test_the_words_shown_are_the_words_sent(
    wire: str, house: House, server: Server, need: Callable[[str], str]
) -> None:
    """Of a request in the folder, to the byte: files, placeholders, what was found, what changed since a commit."""
    need("git")
    if wire == "messages":
        house.use(server, model="claude-sonnet-5-5", endpoints__anthropic__base_url=server.url)
        house.env["ANTHROPIC_API_KEY"] = "sk-ant-test-0123456789abcdefghij"
    else:
        house.use(server, wire)
    house.set(max_input_tokens=9000)
    text = furnish(house)
    repository(house.workspace)
    (house.workspace / ".gitignore").write_text(".autonomous_runs/\n.env\n")
    git(house.workspace, "add", "-A")
    git(house.workspace, "commit", "-qm", "Begin")
    (house.workspace / "vault.py").write_text(f"{(house.workspace / 'vault.py').read_text()}more = 1\n")
    house.drop("a", text)
    shown = preview(house, "a", "--full")
    assert shown.returncode == exits.OK, shown.stderr
    told = json.loads(preview(house, "a", "--json").stdout)
    house.up()
    receipt = house.result("a")["egress"][0]
    system, user = words_of(body(server, server.bills()[0]["n"]))
    assert shown.stdout.decode() == f"{system}\n\n{user}"
    (call,) = told["calls"]
    assert call["prompt_sha256"] == receipt["prompt_sha256"]
    assert call["bytes"] == receipt["bytes"]
    assert [{k: v for k, v in file.items() if k != "tokens"} for file in call["files"]] == receipt["files"]
    assert {extra["kind"] for extra in call["extras"]} == {"changes", "commits"}
    assert [{k: v for k, v in extra.items() if k != "tokens"} for extra in call["extras"]] == receipt["extras"]
    assert (call["omitted"], call["redactions"]) == (receipt["omitted"], receipt["redactions"])
    assert 0 < call["price_bound_usd"] <= call["max_cost_usd"]


def test_nothing_is_asked_and_nothing_is_left(house: House) -> None:
    """No key, no daemon, no folder touched: by flags, as a file beside the folder, on standard input."""
    house.set(model="gpt-4o")
    (house.workspace / ".env").write_text("TOKEN=abcdefghijklmnop123\n")
    text = house.outside / "asked.md"
    text.write_text(request_text("it divides by zero", files="app.py, .env"))
    before = tree(house.tmp)
    flags = preview(house, "--issue", "it divides by zero", "--files", "app.py,.env")
    assert flags.returncode == exits.OK, flags.stderr
    assert preview(house, str(text)).stdout.split(b"\n\n", 1)[1] == flags.stdout.split(b"\n\n", 1)[1]
    lines = flags.stdout.decode().splitlines()
    assert lines[0] == "asks     gpt-4o at https://api.openai.com/v1"
    assert any(line.startswith("price    at most $0.") for line in lines)
    assert any(line.split()[:2] == ["app.py", "all"] for line in lines)
    assert "  .env: environment files hold secrets and are never sent" in lines
    assert b"nothing was sent" in flags.stderr
    assert tree(house.tmp) == before


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_gets_whole_words(house: House, columns: int) -> None:
    """No line is wider than the terminal, none ends within a word; what is piped has a line for each file."""
    house.set(model="gpt-4o")
    (house.workspace / ".env").write_text("TOKEN=abcdefghijklmnop123\n")
    flags = ("--issue", "app.py divides by zero", "--files", "app.py,.env")
    command = [sys.executable, "-P", "-m", "delegated", "preview", *flags]
    lines = on_terminal(command, columns, cwd=house.workspace, env=house.env).splitlines()
    shown = [line for line in lines if not line.startswith("delegate: ")]  # on stderr, a line for each warning
    assert max(map(len, shown)) <= columns
    piped = preview(house, *flags).stdout.decode()
    assert re.search(r"(?m)^app\.py +all [0-9]+ +[0-9]+  named by the request", piped)
    assert " ".join(piped.split()) in " ".join(" ".join(shown).split())


def test_every_model_that_would_be_asked_is_shown_and_held_to_the_limit(house: House) -> None:
    """Those of `compare_models` too, with the limit of the request itself; one that is above it would not be asked."""
    house.set(model="gpt-4o", compare_models="gpt-4o-mini")
    text = house.outside / "asked.md"
    text.write_text("---\ncompare: true\nmax_cost_usd: 0.02\n---\n" + request_text("it divides by zero"))
    shown = json.loads(preview(house, str(text), "--json").stdout)["calls"]
    assert [(call["model"], call["max_cost_usd"]) for call in shown] == [("gpt-4o", 0.02), ("gpt-4o-mini", 0.02)]
    assert shown[0]["price_bound_usd"] > 0.02 > shown[1]["price_bound_usd"]
    told = preview(house, str(text)).stderr
    assert b"gpt-4o would not be asked" in told
    assert b"gpt-4o-mini would not be asked" not in told


def test_a_follow_up_is_not_shown_as_what_it_is_not(house: House) -> None:
    """Its own text is not what would be sent: the request that it follows and its answers are not in it."""
    (house.folder / f"{PREFIX}FOLLOWUP_a_1.md").write_text("Why is that?\n")
    shown = preview(house, "a_1")
    assert (shown.returncode, shown.stdout) == (exits.USAGE, b"")
    assert b"delegate preview a" in shown.stderr


def test_what_cannot_be_shown_is_said(house: House) -> None:
    """An unknown model, an unusable request, a name of nothing: each by its exit code, as the real thing would end."""
    unknown = preview(house, "--issue", "x", "--model", "nonsuch")
    assert unknown.returncode == exits.REJECTED
    assert b"nonsuch" in unknown.stderr
    bad = house.outside / "bad.yaml"
    bad.write_text("files: [a.py]\n")
    assert preview(house, str(bad)).returncode == exits.REJECTED
    assert preview(house, "no-such-request").returncode == exits.ABSENT
    assert preview(house).returncode == exits.USAGE
    assert preview(house, str(bad), "--issue", "x").returncode == exits.USAGE
