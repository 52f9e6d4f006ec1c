"""`delegate watch`: each RESULT as it comes, in a form that editors take, with nothing in it that misleads them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import cases
from delegated.cli import exits, findings, full_parser
from delegated.cli.place import Place
from delegated.quotes import WORDS
from harness import House, on_terminal, until
from test_readme import blocks

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "editors.md"
MAIN = "import sys; from delegated.cli import main; sys.exit(main())"
GOLDEN = json.loads((ROOT / "tests" / "golden" / "result_root_cause_found.json").read_text())
COMMAND = [sys.executable, "-P", "-c", MAIN, "watch"]
CAUSE = "src/autopack/main.py:15: warning: `builder_result` calls `result.dict()`, which `BuilderResult` does not have."


def furnish(house: House) -> None:
    """Put the files into the workspace that the RESULT of `publish` is about."""
    (house.workspace / "src" / "autopack").mkdir(parents=True)
    (house.workspace / "src" / "autopack" / "main.py").write_text(cases.MAIN)
    (house.workspace / "src" / "autopack" / "store.py").write_text(cases.STORE)


def publish(house: House, key: str, **change: Any) -> None:
    """Put a RESULT there as the daemon does: the page first, then the JSON by a rename."""
    house.result_path(key, "md").write_text("# Answer\n")
    temp = house.outside / f"{key}.json"
    temp.write_text(json.dumps(GOLDEN | change))
    os.rename(temp, house.result_path(key))


def watch(house: House, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=house.workspace, env=house.env, capture_output=True, text=True, timeout=60, **more
    )


@contextmanager
def following(house: House, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """Run `delegate watch` until the end of the block; yields the process and what it wrote so far."""
    out, said = house.tmp / "watch.out", house.tmp / "watch.err"
    with open(out, "w") as stdout, open(said, "w") as stderr:
        process = subprocess.Popen(
            [*COMMAND, *arguments], cwd=house.workspace, env=house.env, stdout=stdout, stderr=stderr, text=True
        )
        try:
            until(lambda: "following" in said.read_text() or process.poll() is not None, what="it follows")
            yield process, out.read_text
        finally:
            process.kill()
            process.wait(10)


def test_what_comes_after_it_began_is_written_and_nothing_before(house: House) -> None:
    """A RESULT that stands is left alone; new ones come in order, and one that is replaced comes again."""
    furnish(house)
    publish(house, "old")
    with following(house, "--format", "gcc") as (process, text):
        for number, key in enumerate(("b", "a", "b"), 1):
            publish(house, key)
            until(lambda number=number: text().count("delegate: end") == number, what=f"RESULT {number}")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == exits.INTERRUPTED
    assert re.findall("delegate: begin (.*)", text()) == ["b", "a", "b"]


@pytest.mark.slow
def test_the_answer_of_a_daemon_is_followed(house: House) -> None:
    """With the real daemon: the finding is at the failing line, and the exit code is that of the RESULT."""
    house.up()
    with following(house, "--format", "gcc", "--once") as (process, text):
        house.drop("a")
        assert process.wait(30) == exits.OK
    assert re.search(r"(?m)^app\.py:2: warning: .+ \[(low|medium)\]$", text())
    with following(house, "--once") as (process, text):
        house.drop("b", "# Files\n- app.py\n")
        assert process.wait(30) == exits.REJECTED
    assert "rejected" in text()


def test_each_finding_is_a_line_of_a_compiler(house: House) -> None:
    """Causes are warnings, fixes notes; the paths are as seen from the current directory."""
    furnish(house)
    publish(house, "a")
    done = watch(house, "--format", "gcc", "--all", "--once")
    assert done.returncode == exits.OK
    assert done.stdout.splitlines() == [
        "delegate: begin a",
        f"{CAUSE} [high]",
        "src/autopack/store.py:16: warning: store.commit() hides a failure to serialise [low]",
        "src/autopack/main.py:15: note: fix: Use `model_dump()` [high]",
        *(line for line in done.stdout.splitlines()[4:-1] if ": note: fix: " in line),
        "delegate: end a: answered, root_cause_found, high",
    ]
    assert done.stderr == ""
    inner = subprocess.run(
        [*COMMAND, "--format=gcc", "--last=1", "--once"],
        cwd=house.workspace / "src",
        env=house.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "\nautopack/main.py:15: warning: " in inner.stdout
    # Where no file can be pointed at, the RESULT's own page is.
    publish(house, "b", status="failed", hypotheses=[], root_cause="", error={"message": "no\nkey"}, confidence=None)
    page = house.result_path("b", "md").relative_to(house.workspace)
    assert f"{page}:1: warning: no key [failed]" in watch(house, "--format=gcc", "--last=1", "--once").stdout


def test_last_and_all_begin_with_what_is_there(house: House) -> None:
    """The oldest first; without either nothing that stands is written, and the time given is kept to."""
    for number, key in enumerate("cab"):
        publish(house, key)
        os.utime(house.result_path(key), (number, number))
    for flags, keys in ((("--all",), "cab"), (("--last", "2"), "ab")):
        done = watch(house, "--format=json", "--once", *flags)
        assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [*keys]
    done = watch(house, "--once", "--timeout", "0.2")
    assert (done.returncode, done.stdout) == (exits.TIMED_OUT, "")
    assert "no daemon serves this folder" in done.stderr
    shutil.rmtree(house.folder)
    assert watch(house, "--once").returncode == exits.ABSENT


BAD = "\x1b]0;owned\x07\x1b[31mred\u202e\nsrc/autopack/main.py:1: warning: forged [high]\r\x9b2J"


def test_nothing_in_a_result_forges_a_line_or_drives_a_terminal(house: House) -> None:
    """A text stays on its own line and is cleaned, in each format; so does a status."""
    furnish(house)
    hypothesis = GOLDEN["hypotheses"][0] | {"cause": BAD, "likelihood": BAD}
    publish(
        house,
        "a",
        root_cause=BAD,
        verdict=BAD,
        model=BAD,
        hypotheses=[hypothesis, hypothesis],
        confidence={"level": BAD},
        request={"title": BAD},
    )
    for name in ("pretty", "gcc", "json"):
        done = watch(house, "--format", name, "--all", "--once")
        assert done.returncode == exits.OK, done.stderr
        shown = json.loads(done.stdout) if name == "json" else done.stdout
        for each in "\x1b\x07\x9b\r\u202e":
            assert each not in str(shown)
            assert each.encode("unicode_escape").decode() not in repr(shown)
        assert not re.search("(?m)^src/autopack/main.py:1: ", done.stdout)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../outside/secret.py",
        "src/../../outside/secret.py",
        "link.py",
        "linked/secret.py",
        "logs",
        "gone",
        *("a:1.py", "src", "new\nline.py", "e\x1b[31mx.py", "src\\autopack\\main.py", "", None, 5, "nul\0.py"),
    ],
)
def test_only_a_file_of_the_workspace_is_a_place(path: object, house: House) -> None:
    """No path that leads outside, is no file, or would be read otherwise by an editor stands before a line number."""
    furnish(house)
    (house.outside / "secret.py").write_text("x\n")
    (house.workspace / "link.py").symlink_to(house.outside / "secret.py")
    (house.workspace / "linked").symlink_to(house.outside)
    for name in ("logs", "a:1.py", "new\nline.py", "e\x1b[31mx.py"):
        (house.workspace / name).write_text("x\n")
    evidence = [GOLDEN["hypotheses"][0]["evidence"][0] | {"path": path}]
    fixes = [{"description": "x", "edits": [{"path": path, "before": "x", "applies": True, "start_line": 1}]}]
    publish(house, "a", hypotheses=[{"cause": "x", "evidence": evidence}], recommended_fixes=fixes)
    lines = watch(house, "--format=gcc", "--all", "--once").stdout.splitlines()
    page = house.result_path("a", "md").relative_to(house.workspace)
    assert [line.partition(": ")[0] for line in lines] == ["delegate", f"{page}:1", "delegate"]


def test_the_words_of_a_request_are_no_files() -> None:
    """What a quote may name in place of a file is known here as it is where quotes are checked."""
    assert frozenset(WORDS) == findings._WORDS


def test_a_result_of_any_shape_is_written_or_named(house: House) -> None:
    """Whatever stands in RESULT.json, the next one is still followed."""
    for key, text in (("a", "[]"), ("b", "{"), ("c", "{}"), ("d", '{"hypotheses": 5, "confidence": [], "error": 1}')):
        house.result_path(key).write_text(text)
    for name in ("pretty", "gcc", "json"):
        done = watch(house, "--format", name, "--all", "--once")
        assert done.returncode == exits.OK, done.stderr
        assert done.stderr.count("cannot be read") == 2
        assert done.stdout


@pytest.mark.parametrize("columns", [40, 80])
def test_pretty_fits_a_terminal(columns: int, house: House) -> None:
    """No line is wider than the terminal, but for a place and a command, which stay whole; no colour is used."""
    furnish(house)
    publish(house, "20251128_133758")
    env = house.env | {"TERM": "xterm-256color"}
    shown = on_terminal([*COMMAND, "--all", "--once"], columns, cwd=house.workspace, env=env)
    assert "\x1b" not in shown
    lines = shown.splitlines()
    assert any("result.dict()" in line for line in lines)
    assert "    src/autopack/main.py:15" in lines
    wide = [line for line in lines if len(line) > columns]
    assert all(line.startswith("  next: ") for line in wide)
    piped = watch(house, "--all", "--once").stdout
    assert "\x1b" not in piped
    assert max(map(len, piped.splitlines())) <= 80


# Editors


def real(house: House) -> list[str]:
    furnish(house)
    publish(house, "a")
    return watch(house, "--format", "gcc", "--last", "1", "--once").stdout.splitlines()


def snippet(language: str, number: int = 0) -> str:
    return [text for _, info, text in blocks(PAGE) if info == language][number]


def known(command: list[str]) -> None:
    """Hold a command line against our parser."""
    assert command[0] == "delegate"
    parsers: Any = full_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    parsers[command[1]].parse_args(command[2:])


def test_the_task_of_vs_code_matches_real_output(house: House, need: Callable[[str], str]) -> None:
    """Its regular expressions, run by JavaScript, find each finding, and where a RESULT begins and ends."""
    (task,) = json.loads(snippet("json"))["tasks"]
    known([task["command"], *task["args"]])
    matcher = task["problemMatcher"]
    program = """
    const {lines, matcher} = JSON.parse(require("fs").readFileSync(0, "utf8"));
    const {file, line, severity, message, regexp} = matcher.pattern;
    const found = lines.map(each => each.match(new RegExp(regexp))).filter(Boolean);
    const count = pattern => lines.filter(each => new RegExp(pattern).test(each)).length;
    console.log(JSON.stringify({
      found: found.map(each => [each[file], Number(each[line]), each[severity], each[message]]),
      begins: count(matcher.background.beginsPattern), ends: count(matcher.background.endsPattern),
    }));
    """
    lines = real(house)
    done = subprocess.run(
        [need("node"), "-e", program],
        input=json.dumps({"lines": lines, "matcher": matcher}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = json.loads(done.stdout)
    assert (told["begins"], told["ends"]) == (1, 1)
    assert len(told["found"]) == len(lines) - 2
    assert told["found"][0][:3] == ["src/autopack/main.py", 15, "warning"]
    assert told["found"][0][3].endswith("[high]")
    assert {each[2] for each in told["found"]} == {"warning", "note"}


def test_the_compiler_of_vim_fills_the_quickfix_list(house: House, need: Callable[[str], str]) -> None:
    """`:make` in the real Vim: each finding is an entry with its file, line, kind and text, and nothing else is."""
    vim, lines = need("vim"), real(house)
    home = Path(house.env["HOME"])
    (home / ".vim" / "compiler").mkdir(parents=True)
    (home / ".vim" / "compiler" / "delegate.vim").write_text(snippet("vim"))
    programs = house.tmp / "bin"
    programs.mkdir()
    program = programs / "delegate"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m delegated "$@"\n')
    program.chmod(0o755)
    listed = house.tmp / "quickfix"
    script = house.tmp / "script.vim"
    script.write_text(
        "compiler delegate\nsilent make!\n"
        "let got = map(getqflist(), {_, e -> [bufname(e.bufnr), e.lnum, e.type, e.text, e.valid]})\n"
        f"call writefile([json_encode(got)], '{listed}')\nqall!\n"
    )
    env = house.env | {"PATH": f"{programs}{os.pathsep}{house.env['PATH']}", "TERM": "dumb", "SHELL": "/bin/sh"}
    subprocess.run(
        [vim, "-N", "-es", "-u", "NONE", "-i", "NONE", "--cmd", f"set rtp^={home}/.vim", "-S", str(script)],
        cwd=house.workspace,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    entries = json.loads(listed.read_text())
    assert [
        f"{name}:{line}: {'note' if kind == 'n' else 'warning'}: {text}" for name, line, kind, text, _ in entries
    ] == (lines[1:-1])
    assert all(valid for *_, valid in entries)


def test_the_file_watcher_of_jetbrains_runs_a_command_that_is_there(house: House) -> None:
    """Its file is XML, its command ours, and its filter, with its macros put in, finds each finding."""
    tree = ElementTree.fromstring(snippet("xml"))
    options = {each.get("name"): each.get("value") for each in tree.iter("option")}
    known([options["program"] or "", *(options["arguments"] or "").split()])
    macros = {"$FILE_PATH$": r"(.+?)", "$LINE$": r"(\d+)", "$MESSAGE$": "(.*)"}
    pattern = options["regExp"] or ""
    for macro, meaning in macros.items():
        pattern = pattern.replace(macro, meaning)
    lines = real(house)
    found = [match.groups() for line in lines if (match := re.fullmatch(pattern, line))]
    assert len(found) == len(lines) - 2
    assert found[0][:2] == ("src/autopack/main.py", "15")


def test_a_place_outside_is_not_named_where_the_folder_lies_outside(house: House) -> None:
    """A drop folder outside the workspace: its page is no place of the workspace."""
    place = Place(str(house.workspace), str(house.outside))
    house.outside.joinpath("OPENAI_DELEGATION_RESULT_a.md").write_text("x")
    assert findings.page(place, "a") == ""
