"""README.md and docs/ keep their word: their commands are run, or at least known to the programs that they name."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from delegated.cli import full_parser
from delegated.request import parse
from harness import PREFIX, House, Server, until

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
SHELLS = ("sh", "bash", "console")
PIP = ("PIP_", "SSL_CERT_", "REQUESTS_CA_", "UV_", "XDG_CONFIG_DIRS")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return a page's fenced blocks as (heading that they stand under, language, text)."""
    tokens = MarkdownIt().parse(page.read_text("utf-8"))
    found, heading = [], ""
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = tokens[number + 1].content
        elif token.type == "fence":
            found.append((heading, token.info, token.content))
    return found


def under(heading: str, language: str = "sh", page: Path = README) -> list[str]:
    found = [text for where, info, text in blocks(page) if (where, info) == (heading, language)]
    assert found, f"{page.name} has no {language} block under {heading!r}"
    return found


def bash(script: str, cwd: Path, env: dict[str, str], patience: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=patience,
    )


# Try it


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_command_on_a_fresh_machine(tmp_path: Path, need: Callable[[str], str]) -> None:
    """In a fresh clone, with an empty HOME and no key: installed, and the demo is answered."""
    git = need("git")
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    clone, home, temp = tmp_path / "clone", tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temp.mkdir()
    subprocess.run([git, "clone", "--quiet", str(ROOT), str(clone)], check=True, timeout=60)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(temp), "LANG": "C.UTF-8"}
    env |= {name: value for name, value in os.environ.items() if name.startswith(PIP) or name.lower() in PROXIES}
    done = bash(under("Try it")[0], clone, env, 580)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no language model was asked" in done.stdout.lower()
    assert "demo: answered in" in done.stderr
    (result,) = temp.glob(f"delegated-demo-*/workspace/.autonomous_runs/openai_delegations/{PREFIX}RESULT_*.json")
    assert json.loads(result.read_text("utf-8"))["status"] == "answered"
    changed = subprocess.run([git, "status", "--short"], cwd=clone, capture_output=True, text=True, timeout=60)
    assert changed.stdout == "", "what the command makes is ignored by git"


def test_the_second_command_is_what_ci_runs() -> None:
    """`.ci/run` ends in README's own command."""
    (command,) = (line for text in under("Try it")[1:] for line in text.splitlines())
    assert (ROOT / shlex.split(command)[1]).is_file()
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith(f'exec {command} "$@"')
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


# With GPT-4o

CAUSE = "`start` raises before anything is logged."
LINE = "    raise HTTPException(500)"
ANSWER = {
    "hypotheses": [
        {
            "cause": CAUSE,
            "evidence": [{"path": "src/app/main.py", "start_line": 2, "end_line": 2, "quote": LINE}],
            "explanation": CAUSE,
            "likelihood": "high",
        }
    ],
    "verdict": "root_cause_found",
    "root_cause": CAUSE,
    "technical_explanation": CAUSE,
    "recommended_fixes": [
        {
            "priority": 1,
            "description": "log it first",
            "file": "src/app/main.py",
            "edits": [{"path": "src/app/main.py", "before": LINE, "after": f"    log.error('start')\n{LINE}"}],
            "rationale": "a failure must be seen",
            "risk": "none",
            "test": "pytest",
        }
    ],
    "code_examples": [],
    "additional_investigation": [],
    "answers": [],
    "files_needed": [],
    "confidence": "high",
}


@pytest.fixture
def project(house: House, server: Server) -> House:
    """A project with the files that README names, and GPT-4o played by the local server. The key is README's own."""
    house.use(server)
    del house.env["OPENAI_API_KEY"]
    answer: dict[str, Any] = {"match": {"method": "POST", "path": "/v1/responses"}, "times": "always"}
    server.script({**answer, "do": {"answer": ANSWER}})
    shutil.rmtree(house.workspace / ".autonomous_runs")
    (house.workspace / "src" / "app").mkdir(parents=True)
    (house.workspace / "src" / "app" / "main.py").write_text(f"def start():\n{LINE}\n")
    (house.workspace / "src" / "app" / "models.py").write_text("class Run:\n    pass\n")
    (house.workspace / "logs").mkdir()
    (house.workspace / "logs" / "uvicorn.log").write_text('INFO: "POST /runs/start HTTP/1.1" 500\n')
    programs = Path(sys.executable).parent
    assert (programs / "delegate").exists(), "the package is installed beside this Python"
    house.env["PATH"] = f"{programs}{os.pathsep}{house.env['PATH']}"
    return house


@pytest.fixture
def served(project: House) -> Iterator[House]:
    """README's first terminal: `export`, `init`, `delegated`."""
    with open(project.tmp / "terminal.log", "wb") as log:
        terminal = subprocess.Popen(
            ["bash", "-c", under("With GPT-4o")[0]],
            cwd=project.workspace,
            env=project.env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            lock = project.folder / ".delegated" / "lock"
            until(lambda: lock.exists() and lock.read_text().startswith("pid "), what="the daemon holds the folder")
            yield project
            os.killpg(terminal.pid, signal.SIGTERM)
            terminal.wait(30)
        finally:
            if terminal.poll() is None:
                os.killpg(terminal.pid, signal.SIGKILL)
                terminal.wait(30)


def test_both_ways_of_asking(served: House, server: Server) -> None:
    """The other terminal: `delegate ask` prints the RESULT, and a file written there is answered beside it."""
    _, ask, drop = under("With GPT-4o")
    done = bash(ask, served.workspace, served.env)
    assert done.returncode == 0, done.stderr
    assert CAUSE in done.stdout
    assert bash(drop, served.workspace, served.env).returncode == 0
    result = served.result("20251128_133758")
    assert (result["status"], result["model"]) == ("answered", "gpt-4o")
    assert {file["path"] for file in result["egress"][0]["files"]} == {"src/app/main.py", "src/app/models.py"}
    assert result["request"]["title"] == "500 Internal Server Error on /runs/start, no traceback"
    assert len(server.bills()) == 2
    assert (served.workspace / ".autonomous_runs" / "delegate_to_openai.py").is_file()


# docs/programs.md

AROUND = """\
tried = []
fixes = ["Added Request import", "Restarted the server", "Pinned starlette", "Never tried"]


def apply_and_test(fix):
    tried.append(fix)
    main.start()


"""


@pytest.mark.slow
def test_the_example_of_a_program(project: House, server: Server) -> None:
    """After three failed attempts it asks, and prints the fixes that it may trust."""
    _, example = under("After n failures", "python", ROOT / "docs" / "programs.md")
    program = project.tmp / "program.py"
    source = project.workspace / "src" / "app"
    (source / "main.py").write_text(f"class HTTPException(Exception):\n    pass\n\n\ndef start():\n{LINE}\n")
    program.write_text(f"import sys\nsys.path.insert(0, {str(source)!r})\nimport main\n{AROUND}{example}")
    with open(program, "a") as file:
        file.write("\nassert tried == fixes[:3]\n")
    env = project.env | {"OPENAI_API_KEY": "sk-proj-example"}
    done = subprocess.run(
        [sys.executable, str(program)], cwd=project.workspace, env=env, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 log it first\n"
    (bill,) = server.bills()
    assert bill["model"] == "gpt-4o"
    (path,) = project.folder.glob(f"{PREFIX}REQUEST_*.md")
    asked = parse(path.read_bytes(), ".md")
    assert asked.issue == "POST /runs/start answers 500"
    tried = ("Added Request import", "Restarted the server", "Pinned starlette")
    assert asked.attempted_fixes == tuple(f"{fix}: main.HTTPException: 500" for fix in tried)
    assert list(asked.files) == ["src/app/models.py", "src/app/main.py"]


# docs/service.md, Working on it


def test_the_service_lines_name_what_is_there(tmp_path: Path) -> None:
    """The copy works as written; what is enabled is the unit copied."""
    lines = under("For yourself", "console", ROOT / "docs" / "service.md")[0].replace("$ ", "").splitlines()
    copy = "\n".join(line for line in lines if line.startswith(("mkdir ", "cp ")))
    (enable,) = (line for line in lines if " enable " in line)
    done = bash(copy, ROOT, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    unit = shlex.split(enable)[-1]
    installed = (tmp_path / ".config/systemd/user" / f"{unit}.service").read_text()
    assert "[Install]" in installed


def test_the_tools_of_a_developer_are_there() -> None:
    """Each module that README runs by `python -m` exists."""
    names = re.findall(r"python -m ([\w.]+)", README.read_text("utf-8"))
    assert {"delegated.testing.server", "pytest", "tests.bench"} <= set(names)
    for name in names:
        parts = (ROOT / Path(*name.split("."))).with_suffix(".py"), ROOT / Path(*name.split(".")) / "__main__.py"
        assert any(path.exists() for path in parts) or importlib.util.find_spec(name), name


# All pages


def parsers(program: str) -> dict[str, ArgumentParser]:
    """Return the parsers of a program by command, its own under ""."""
    whole = full_parser(program)
    found: dict[str, ArgumentParser] = dict(whole._subparsers._group_actions[0].choices)  # type: ignore
    return {**found, "": whole}


PARSERS = {program: parsers(program) for program in ("delegate", "delegated")}


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each simple command in a shell script, with `$ ` and `# ` prompts taken off."""
    text = re.sub(r"<<'?(\w+)'?\n.*?\n\1\n", "\n", text, flags=re.DOTALL)
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(re.sub(r"^[$#] ", "", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                yield words
                words = []
            else:
                words.append(word)


def problems(words: list[str]) -> list[str]:
    """Say what a command line names that its program does not have."""
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    program = os.path.basename(words[0]) if words else ""
    if words[:2] == ["python", ".autonomous_runs/delegate_to_openai.py"]:
        program, words = "delegate", ["delegate", "ask", *words[2:]]
    elif words[1:3] == ["-m", "delegated"]:
        program, words = "delegate", ["delegate", *words[3:]]
    if program not in PARSERS:
        return []
    known = PARSERS[program]
    named = words[1] if words[1:] and not words[1].startswith("-") else ""
    if program == "delegate" and not named and words[1:] not in ([], ["--help"], ["--version"]):
        return [f"{' '.join(words)}: which command?"]
    if named not in known:
        return [f"{program}: no command {named!r}"]
    options = {option for action in known[named]._actions for option in action.option_strings} | {"--version"}
    flags = [word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)]
    return [f"{program} {named}: no option {flag}" for flag in flags if flag not in options]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_known(page: Path) -> None:
    """Each command line of ours, in a block or in the text, names commands and flags that exist."""
    scripts = [text for _, info, text in blocks(page) if info in SHELLS]
    inline = re.findall(r"`((?:delegated?|python \.autonomous_runs/\S+) [^`\n]*)`", page.read_text("utf-8"))
    found = [
        problem
        for script in [*scripts, *(text.replace("…", "").replace("bash|zsh|fish", "bash") for text in inline)]
        for words in commands(script)
        for problem in problems(words)
    ]
    assert found == []


def test_a_command_that_does_not_exist_is_found() -> None:
    """The check above can fail."""
    for line in ("delegate aks --issue x", "delegate ask --isue x", "$ delegated --onec", "cd x && delegate --issue y"):
        assert [problem for words in commands(line) for problem in problems(words)], line
    (first, *_) = commands('$ delegate ask --issue "a; b" --logs - < log | cat')
    assert first[-3:] == ["a; b", "--logs", "-"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_scripts_of_a_page_are_shell(page: Path, need: Callable[[str], str]) -> None:
    """bash reads each block without a complaint."""
    shell = need("bash")
    for _, info, text in blocks(page):
        if info in SHELLS:
            script = re.sub(r"(?m)^[$#] ", "", text) if info == "console" else text
            done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, done.stderr


def anchors(page: Path) -> set[str]:
    tokens = MarkdownIt().parse(page.read_text("utf-8"))
    titles = [tokens[n + 1].content for n, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    """Each relative link names a file that is there, and a heading in it."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_can_be_found() -> None:
    """README links to each page of docs/, or to one that does."""
    texts = {page.name: page.read_text("utf-8") for page in PAGES}
    for page in PAGES[1:]:
        assert any(f"{page.name}" in text for name, text in texts.items() if name != page.name), page.name


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_claim_beside_other_programs_is_held() -> None:
    """docs/peers.md: what is said of us has its row of tests, in the same order, and each of them is there."""
    compared, _, held = (ROOT / "docs" / "peers.md").read_text("utf-8").partition("## Which test holds what")
    claims = [line.split("|")[1].strip() for line in compared.splitlines() if line.startswith("| ")][1:]
    rows = [line.strip("| ").split(" | ") for line in held.splitlines() if line.startswith("| ")][1:]
    assert [claim for claim, _ in rows] == claims
    assert len(claims) > 8
    for claim, tests in rows:
        named = re.findall(r"`(tests/[\w/.]+)::(\w+)`", tests)
        assert named, claim
        assert [name for path, name in named if name not in functions(ROOT / path)] == [], claim


def test_the_table_of_commands_is_whole() -> None:
    """README's table names each command, and no other."""
    table = README.read_text("utf-8").partition("\n## Commands\n")[2].partition("\n## ")[0]
    cells = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    inside = re.findall(r"`([^`]+)`", cells)
    named = {word for text in inside for word in [text.removeprefix("delegate ").split()[0]]}
    assert set(PARSERS["delegate"]) - {""} <= named
