"""The command line as such: quick to start, readable on any console, honest in its exit code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import delegated
from delegated.cli import COMMANDS, DAEMON, exits, full_parser, terminal
from delegated.cli.completions import SHELLS
from delegated.cli.completions import path as shell_path
from harness import House

ROOT = Path(__file__).parent.parent
HEAVY = {
    *("yaml", "openai", "httpx", "httpx2", "watchdog", "structlog", "pydantic", "pydantic_core", "markdown_it"),
    *("re2", "ahocorasick_rs", "delegated.finder"),
    *("asyncio", "pathspec", "concurrent.futures", "logging", "sqlite3", "ssl", "urllib.request", "typing_extensions"),
}


def run(*arguments: str, house: House, env: dict[str, str] | None = None, program: str = "delegate", **more: object):
    main = "main" if program == "delegate" else "main_daemon"
    code = f"import sys; from delegated.cli import {main}; sys.exit({main}())"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        capture_output=True,
        timeout=60,
        cwd=house.workspace,
        env=house.env | (env or {}),
        **more,  # type: ignore[call-overload]
    )


def imported(*arguments: str, house: House) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", "-m", "delegated", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=house.workspace,
        env=house.env,
    )
    names = re.findall(r"^import time:.*\|\s*([\w.]+)$", done.stderr, re.MULTILINE)
    assert "delegated.cli" in names, done.stderr[-2000:]
    return set(names)


LIGHT = (
    ["--help"],
    ["--version"],
    *([command.name, "--help"] for command in COMMANDS),
    ["list"],
    ["list", "--json"],
    ["status"],
    ["status", "answered"],
    ["show", "answered"],
    ["show", "answered", "--json"],
    ["wait", "answered"],
    ["outcome", "answered", "fixed"],
    ["stats"],
    ["stats", "--json"],
    ["cancel", "waiting"],
    ["retry", "answered", "--no-wait"],
    ["init"],
    ["init", "--agent", "all"],
    ["completions", "bash"],
    ["ci", "--log", "app.py", "--print-id"],
    ["ask", "--issue", "it fails", "--files", "app.py", "--no-wait"],
    ["ask", "--comment", "asks.py"],
)


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_a_client_command_imports_nothing_heavy(arguments: list[str], house: House) -> None:
    """Nothing that costs tens of milliseconds is imported by a command that runs no job."""
    house.result_path("answered").write_text('{"status": "answered", "request": {"id": "answered"}}')
    house.result_path("answered", "md").write_text("# Answer\n")
    house.request("waiting").write_text("x")
    (house.folder / ".delegated" / "jobs" / "00" / "answered").mkdir(parents=True)
    (house.workspace / "asks.py").write_text("# DELEGATE TO GPT-4O: why?\n")
    assert not {name for name in imported(*arguments, house=house) if name in HEAVY or name.split(".")[0] in HEAVY}


def test_import_delegated_is_free() -> None:
    """`import delegated` imports none of its own rooms; what it offers comes on first use."""
    code = (
        "import sys, delegated; delegated.ask; print([name for name in sys.modules if name.startswith('delegated.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
    assert delegated.Result.__name__ == "Result"
    assert delegated.OperatorError("x", 75).exit_code == 75
    with pytest.raises(AttributeError):
        _ = delegated.nothing


@pytest.mark.slow
def test_help_and_version(house: House) -> None:
    """Help goes to stdout with exit code 0; no command at all is a wrong usage."""
    for argument in ("--help", "-h", "help"):
        done = run(argument, house=house)
        assert done.returncode == 0
        assert b"exit codes:" in done.stdout
        assert not done.stderr
    assert run(house=house).returncode == exits.USAGE
    assert run("--version", house=house).stdout.decode().split() == ["delegate", delegated.__version__]
    assert run("--version", house=house, program="delegated").stdout.decode().split()[0] == "delegated"
    for command in COMMANDS:
        done = run(command.name, "--help", house=house)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().startswith(f"usage: delegate {command.name}")
    for command in DAEMON:
        assert run(command.name, "--help", house=house, program="delegated").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (["lst"], "there is no command 'lst'", "did you mean `delegate list`"),
        (["--issue", "x"], "there is no command '--issue'", "delegate ask --issue"),
        (["ask"], "--issue is missing", "say in a sentence"),
        (["ask", "--issue", "  "], "the issue is empty", "say in a sentence"),
        (["ask", "--isue", "x"], "unrecognized arguments", "--help"),
        (["ask", "--issue", "x", "--timeout", "soon"], "'soon' is no time", "--help"),
        (["ask", "--issue", "x", "--workspace", "/nowhere"], "is not a directory", "the root of the code"),
        (["ask", "--issue", "x", "--id", "../x"], "cannot be an id", "letters, digits"),
        (["ask", "--issue", "x", "--id", "x.md"], "cannot be an id", "does not end like a file"),
        (["ask", "--issue", "@nowhere.txt"], "cannot read nowhere.txt", "@@nowhere.txt"),
        (["ask", "--issue", "-", "--logs", "-"], "read only once", "@path"),
        (["ask", "--issue", "x", "--timeout", "0"], "'0' is no time to wait", "--help"),
        (["ask", "--issue", "x", "--timeout=-1"], "'-1' is no time", "--help"),
        (["list", "-n", "0"], "'0' is no number of rows", "--help"),
        (["list", "-n", "-3"], "'-3' is no number of rows", "--help"),
        (["show", "../../etc/passwd/"], None, None),
        (["wait", "a b"], "is not a request's id", "delegate list"),
        (["completions", "tcsh"], "invalid choice", "--help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(arguments: list[str], said: str | None, hint: str | None, house: House) -> None:
    """A wrong usage says what was found and what would be right, on stderr, and leaves with 2."""
    done = run(*arguments, house=house, input=b"text")
    assert not done.stdout
    text = done.stderr.decode()
    assert re.match(r"delegate( \w+)?: error: ", text)
    if said is not None:
        assert done.returncode == exits.USAGE
        assert said in text
        assert hint in text
        assert "\nhint: " in text
    assert not list(house.folder.iterdir()), "nothing is dropped by a wrong usage"


def test_exit_codes_are_documented() -> None:
    """The table in the documentation is the table in the program."""
    text = (ROOT / "docs" / "commands.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert [(int(code), name, words) for code, name, words in rows] == list(exits.TABLE)


def test_every_command_is_documented() -> None:
    """Each command has its heading, and each of its flags is named below it."""
    text = (ROOT / "docs" / "commands.md").read_text()
    parsers = full_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert list(parsers) == [command.name for command in COMMANDS]  # type: ignore[arg-type]
    for name, parser in parsers.items():  # type: ignore[union-attr]
        section = text.partition(f"\n## delegate {name}")[2].partition("\n## ")[0]
        assert section, f"{name} has no section"
        for action in parser._actions:
            for option in action.option_strings:
                if option.startswith("--") and option not in ("--help", "--workspace", "--folder"):
                    assert f"`{option}" in section, f"{name} {option}"
    daemon = text.partition("\n## delegated")[2].partition("\n## ")[0]
    for action in full_parser("delegated")._actions:
        for option in action.option_strings:
            if option.startswith("--") and option != "--help":
                assert f"`{option}" in daemon, option


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_are_in_step(shell: str, house: House) -> None:
    """The shipped completions are those of the parser as it is."""
    import shtab

    with open(shell_path(shell), encoding="utf-8") as file:
        shipped = file.read()
    assert shipped == shtab.complete(full_parser(), shell=shell), (
        f"{shell}: python -m delegated.cli.completions makes it anew"
    )
    assert run("completions", shell, house=house).stdout.decode() == shipped.rstrip("\n") + "\n"


def test_bash_completes(need, house: House) -> None:
    """bash itself completes a command and a flag."""
    bash = need("bash")
    script = (
        f". {shell_path('bash')}; complete -p delegate;"
        "for words in 'delegate rep' 'delegate ask --attem'; do"
        " COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]}-1));"
        '_shtab_delegate; echo "${COMPREPLY[@]}"; done'
    )
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, timeout=30, env=house.env)
    assert done.stderr == ""
    assert done.stdout.split()[-2:] == ["republish", "--attempted-fixes"]


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=("cp1252", "ascii", "C"),
)
def test_utf8_on_any_console(env: dict[str, str], house: House) -> None:
    """What is written is UTF-8 whatever the console's code page: no 'charmap' error, no PYTHONUTF8 needed."""
    house.result_path("x").write_text('{"status": "answered"}')
    house.result_path("x", "md").write_text("Größe → 日本語 ✓ 🐞\n", encoding="utf-8")
    done = run("show", "x", house=house, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("utf-8") == "Größe → 日本語 ✓ 🐞\n"
    done = run("show", "größer", house=house, env=env)
    assert "error" in done.stderr.decode("utf-8")


def test_a_reader_that_leaves_is_no_fault(house: House) -> None:
    """`delegate show | head -1` ends quietly."""
    house.result_path("x").write_text('{"status": "answered"}')
    house.result_path("x", "md").write_text("a line of text\n" * 200_000)
    command = [sys.executable, "-P", "-m", "delegated", "show", "x"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=house.workspace, env=house.env
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(30) == exits.CLOSED
    assert b"Traceback" not in said
    assert b"Exception ignored" not in said


@pytest.mark.parametrize("arguments", [["show", "x"], ["list"], ["--help"], ["list", "--json"]], ids=" ".join)
def test_a_full_disk_is_told(arguments: list[str], house: House) -> None:
    """What cannot be written to stdout: one line, exit code 74, no traceback."""
    house.result_path("x").write_text('{"status": "answered"}')
    house.result_path("x", "md").write_text("a line of text\n" * 2_000)
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-P", "-m", "delegated", *arguments]
        known = {"cwd": house.workspace, "env": house.env, "timeout": 60}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, **known)
        assert done.returncode == exits.CANNOT_WRITE
        assert done.stderr.endswith(b"delegate: error: cannot write to standard output: No space left on device\n")
        assert b"Traceback" not in done.stderr
        assert subprocess.run([*command], stdout=subprocess.DEVNULL, stderr=full, **known).returncode == exits.OK


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["list", "ask --issue 'it fails' --files app.py --quiet"])
def test_a_stream_that_is_closed_is_no_fault(command: str, closed: str, house: House) -> None:
    """Closed is as good as /dev/null: the rest arrives, and the exit code is that of the command."""
    house.result_path("x").write_text('{"status": "answered"}')
    script = f'"{sys.executable}" -P -m delegated {command} {closed}'
    done = subprocess.run(
        ["sh", "-c", script], cwd=house.workspace, env=house.env, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "Traceback" in done.stderr, bool(done.stdout)) == (
        exits.OK,
        False,
        ">&-" not in closed.split(),
    )


def test_a_directory_that_was_deleted_below_us(house: House) -> None:
    """It is a wrong usage, told in a line; with the workspace by its path all is as ever."""
    house.result_path("x").write_text('{"status": "answered"}')
    gone = house.outside / "gone"
    gone.mkdir()
    program = f'cd "{gone}" && rmdir "{gone}" && "{sys.executable}" -P -m delegated'
    known = {"env": house.env, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(["sh", "-c", f"{program} list"], **known)
    assert done.returncode == exits.USAGE
    assert done.stderr.startswith("delegate: error: the current directory is not there any more\nhint: ")
    gone.mkdir()
    ask = 'ask --issue "it fails" --files app.py --workspace'
    done = subprocess.run(["sh", "-c", f'{program} {ask} "{house.workspace}"'], **known)
    assert (done.returncode, "# " in done.stdout) == (exits.OK, True), done.stderr


def test_a_fault_of_ours_is_called_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An unexpected exception ends in exit code 1, a traceback and one sentence."""
    from delegated import cli

    def broken() -> int:
        raise ZeroDivisionError("\x1b[31mred")

    assert cli._guarded("delegate", broken) == exits.BUG
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "this is a fault of delegated" in said
    assert "\x1b" not in said


def test_clean_lets_nothing_drive_a_terminal() -> None:
    """Escape sequences, C1 controls, bidirectional and invisible characters do not get through; text stays."""
    assert terminal.clean("a\tb\nc\r\nd é 日本") == "a\tb\nc\nd é 日本"
    assert terminal.clean("a\x1b[31mb\x1b]0;title\x07c\x9b2Jd") == "abcd"
    for bad in "\x1b\x07\x08\r\x00\x7f\x9b\x85\u202e\u2066\u200f\ufeff\U000e0041\ud800\u2028":
        assert bad not in terminal.clean(f"a{bad}b")
        terminal.clean(f"a{bad}b").encode("utf-8")


def test_modules_in_the_workspace_are_not_imported(house: House) -> None:
    """A stranger's `yaml.py` or `delegated/` in the current directory is never run by a process that we start."""
    bait = "open('caught', 'w').close()\n"
    for name in ("yaml.py", "structlog.py", "json.py"):
        (house.workspace / name).write_text(bait)
    (house.workspace / "delegated").mkdir()
    (house.workspace / "delegated" / "__init__.py").write_text(bait)
    done = run("ask", "--issue", "it fails", "--files", "app.py", "--model", "offline", "-q", house=house)
    assert done.returncode == 0, done.stderr
    assert not (house.workspace / "caught").exists()


def test_no_colour_without_a_terminal(house: House) -> None:
    """What is not a terminal gets no escape sequences."""
    assert b"\x1b" not in run("--help", house=house).stdout
    house.request("x").write_text("x")
    done = run("status", house=house)
    assert b"\x1b" not in done.stdout + done.stderr
