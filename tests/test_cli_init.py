"""`init` sets a workspace up, and the script that it writes takes the seed's flags with whatever is there."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from delegated import config
from delegated.cli import exits, terminal
from delegated.folder import PREFIX, request_id
from delegated.request import parse
from harness import House, until
from test_cli_folder import SEED, Played, run

SCRIPT = ".autonomous_runs/delegate_to_openai.py"


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_init_is_idempotent(house: House) -> None:
    """A second run changes nothing; what a user wrote is kept."""
    (house.workspace / ".gitignore").write_bytes(b"*.pyc\r\nbuild/")
    code, _, err = run(house, "init")
    assert code == 0, err
    assert "next: delegate doctor" in err
    first = tree(house.workspace)
    assert first[".gitignore"] == b"*.pyc\r\nbuild/\r\n.autonomous_runs/openai_delegations/\r\n"
    assert run(house, "init")[0] == 0
    assert tree(house.workspace) == first
    (house.workspace / ".delegated.yaml").write_text("model: offline\n")
    (house.workspace / SCRIPT).write_text("print('mine')\n")
    assert "kept (it is not ours)" in run(house, "init")[1]
    assert (house.workspace / ".delegated.yaml").read_text() == "model: offline\n"
    assert (house.workspace / SCRIPT).read_text() == "print('mine')\n"


@pytest.mark.parametrize("line", [".autonomous_runs/", "/.autonomous_runs", ".autonomous_runs/openai_delegations"])
def test_init_sees_that_git_ignores_it_already(line: str, house: House) -> None:
    """No line is added where one stands that does it."""
    (house.workspace / ".gitignore").write_text(f"{line}\n")
    assert run(house, "init")[0] == 0
    assert (house.workspace / ".gitignore").read_text() == f"{line}\n"


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_init_writes_through_no_link(there: bool, house: House) -> None:
    """A .gitignore that leads out of the workspace is named and left, by the exit code too; all else is done."""
    away = house.outside / "ignore"
    if there:
        away.write_text("*.pyc\n")
    (house.workspace / ".gitignore").symlink_to(away)
    code, out, err = run(house, "init")
    assert code == exits.CONFIGURATION
    assert ".gitignore: left as it is: a symbolic link" in err
    assert ".autonomous_runs/openai_delegations/" in err
    assert "registered" in out
    assert (away.read_text() if there else away.exists()) == ("*.pyc\n" if there else False)
    (house.workspace / ".gitignore").unlink()
    (house.workspace / ".gitignore").mkdir()
    assert "left as it is: not a file" in run(house, "init")[2]


def test_init_renews_its_own_script(house: House) -> None:
    """A script of an older version is replaced by this one's."""
    path = house.workspace / SCRIPT
    path.write_text('"""Old.\n\nWritten by `delegate init`.\n"""\n')
    assert run(house, "init")[0] == 0
    assert "importable" in path.read_text()
    assert path.stat().st_mode & stat.S_IXUSR


def test_init_in_a_fresh_directory(house: House) -> None:
    """The root of the repository becomes the workspace; its folder belongs to this user alone."""
    root = house.outside / "repo"
    (root / "src").mkdir(parents=True)
    (root / ".git").mkdir()
    code, _, err = run(house, "init", cwd=root / "src")
    assert code == 0, err
    folder = root / ".autonomous_runs" / "openai_delegations"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not (root / "src" / ".autonomous_runs").exists()


@pytest.mark.parametrize("name", [".delegated.yaml", ".autonomous_runs"])
def test_init_says_what_stands_in_its_way(name: str, house: House) -> None:
    """A directory in the place of a file, or a file in that of a directory, is not a question of permissions."""
    project = house.outside / "project"
    project.mkdir()
    (project / name).touch() if name == ".autonomous_runs" else (project / name).mkdir()
    code, _, err = run(house, "init", "--workspace", str(project))
    assert (code, f"cannot write {project / name}: " in err) == (exits.CANNOT_WRITE, True), err
    assert "hint: something else stands in its place: move that away" in err


def test_the_configuration_that_init_writes_holds(house: House) -> None:
    """Each line of the template is a default: uncommented it loads, and changes nothing."""
    assert run(house, "init")[0] == 0
    path = house.workspace / ".delegated.yaml"
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join(line.removeprefix("#") if line.startswith("#") and line[1:2] != " " else line for line in lines)
    )
    env = {"HOME": house.env["HOME"]}
    assert "max_cost_usd" in path.read_text()
    loaded = config.load(workspace=str(house.workspace), env=env, system_file=str(house.tmp / "none"))
    assert loaded == config.load(env=env, system_file=str(house.tmp / "none"))


def script(
    house: House, *arguments: str, path: str, python: list[str] | None = None, **env: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*(python or [sys.executable]), SCRIPT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        cwd=house.workspace,
        env=house.env | {"PATH": path} | env,
    )


@pytest.fixture
def bare(house: House) -> list[str]:
    """A Python in which the package is not installed, and a PATH without programs."""
    run(house, "init")
    return [sys.executable, "-I", "-S"]


def test_the_script_hands_over_to_the_program(house: House) -> None:
    """With `delegate` on the PATH the script is `delegate ask`: same flags, same output, same exit code."""
    run(house, "init")
    programs = house.outside / "bin"
    programs.mkdir()
    program = programs / "delegate"
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit(13)\n")
    program.chmod(0o755)
    process = script(house, *SEED, path=str(programs))
    out, _ = process.communicate(timeout=30)
    assert json.loads(out) == ["ask", *SEED]
    assert process.returncode == 13


def test_the_script_hands_over_to_the_package(house: House) -> None:
    """Without the program, but with the package in this Python, it is `python -m delegated ask`."""
    run(house, "init")
    played = Played(house)
    process = script(house, *SEED, "--no-wait", path="", PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert house.request(out.decode().strip()).exists()
    played.close()


def test_the_script_writes_the_request_itself(house: House, bare: list[str]) -> None:
    """With a daemon on the folder and nothing installed, the script needs only the folder."""
    played = Played(house)
    process = script(house, *SEED, "--api-key", "sk-secret", path="", python=bare, PYTHONIOENCODING="cp1252")
    path = until(
        lambda: [p for p in house.folder.iterdir() if request_id(p.name) and p.stat().st_size], what="request"
    )[0]
    key, suffix = request_id(path.name)  # type: ignore[misc]
    request = parse(path.read_bytes(), suffix)
    assert request.issue == SEED[1]
    assert request.files == tuple(SEED[3].split(","))
    assert request.logs.strip() == SEED[7]
    assert request.attempted_fixes == SEED[9:]
    assert b"sk-secret" not in path.read_bytes()
    played.settle(key, "rejected", page="→ Größe \x1b[2J\n")
    out, err = process.communicate(timeout=30)
    assert process.returncode == exits.REJECTED, err
    assert out.decode("utf-8").strip() == "→ Größe [2J"
    played.close()
    assert [p.name for p in house.folder.iterdir() if p.name.endswith(".tmp")] == []


def test_the_script_prints_no_command_for_a_runner(house: House, bare: list[str]) -> None:
    """Where a CI runner reads its output, a RESULT's text is changed as `delegate` changes it."""
    played = Played(house)
    process = script(house, *SEED, path="", python=bare, GITHUB_ACTIONS="true")
    path = until(
        lambda: [p for p in house.folder.iterdir() if request_id(p.name) and p.stat().st_size], what="request"
    )[0]
    played.settle(request_id(path.name)[0], "answered", page=(orders := "a\n ::error::x ##[group]\n::a::\n"))  # type: ignore[index]
    out, err = process.communicate(timeout=30)
    assert process.returncode == exits.OK, err
    assert out.decode().rstrip("\n") == terminal.tame(orders).rstrip("\n") == "a\n : :error::x # #[group]\n: :a::"
    played.close()


def test_the_script_takes_what_the_program_takes(house: House, bare: list[str]) -> None:
    """Texts by `@` and standard input, paths seen from here, a hyphen in front, `--id`: as `delegate ask`."""
    below = house.workspace / "below"
    below.mkdir()
    (below / "f.py").write_text("x")
    (below / "x.log").write_bytes("Größe".encode("utf-16"))
    played = Played(house)
    flags = ["--issue", "-", "--logs", "@x.log", "--context=@@home", "--files", "f.py app.py", "--question", "-why?"]
    more = ["--id", "k", "--force", "--wait", "--no-wait", "--timeout", "90s", "--quiet", "--json"]
    command = [*bare, str(house.workspace / SCRIPT), *flags, *more]
    known = {"cwd": below, "env": house.env | {"PATH": ""}, "capture_output": True, "timeout": 30}
    done = subprocess.run(command, input=b"it fails", **known)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["result"] == str(house.result_path("k"))
    request = parse(house.request("k", ".json").read_bytes(), ".json")
    assert (request.issue, request.logs, request.context) == ("it fails", "Größe", "@home")
    assert (request.files, request.questions, request.options.force) == (("below/f.py", "app.py"), ("-why?",), True)
    done = subprocess.run(command, input=b"it fails", **known)
    assert (done.returncode, b"the id k is taken" in done.stderr) == (exits.USAGE, True)
    played.close()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--issue", "  "], "the issue is empty"),
        (["--issue", "@nowhere"], "cannot read nowhere"),
        (["--issue", "x", "--at", "app.py:3"], "--at takes the program `delegate`"),
        (["--comment=app.py"], "--comment takes the program `delegate`"),
        (["--issue", "x", "--id", "../x"], "cannot be an id"),
        (["--issue", "x", "--timeout", "soon"], "--timeout"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_script_refuses_what_it_cannot_do(house: House, bare: list[str], flags: list[str], said: str) -> None:
    """A wrong usage, and what only the program does: a sentence, exit code 2, and nothing is dropped."""
    played = Played(house)
    process = script(house, *flags, path="", python=bare)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, said in err.decode()) == (exits.USAGE, True), err
    assert not [path for path in house.folder.iterdir() if request_id(path.name)]
    played.close()


def test_the_script_says_how_to_install(house: House, bare: list[str]) -> None:
    """With neither program nor daemon it drops nothing and says what to install."""
    process = script(house, "--issue", "x", path="", python=bare)
    out, err = process.communicate(timeout=30)
    assert process.returncode == exits.UNHEALTHY
    assert b"pipx install ." in err
    assert not out
    assert not [path for path in house.folder.iterdir() if request_id(path.name)]


def test_the_script_has_the_programs_codes(house: House, bare: list[str]) -> None:
    """Its own table of exit codes is the program's."""
    names: dict[str, object] = {"__name__": "script"}
    exec((house.workspace / SCRIPT).read_text(), names)
    assert names["CODES"] == exits.BY_STATUS
    assert names["PREFIX"] == PREFIX


def test_republish_needs_a_record(house: House) -> None:
    """republish tells an id that nobody asked about, a request that is not settled and a RESULT that has no record."""
    house.request("waiting").write_text("x")
    code, _, err = run(house, "republish", "waitin")
    assert code == exits.ABSENT
    assert "there is no request waitin" in err
    assert "did you mean waiting?" in err
    code, _, err = run(house, "republish", "waiting")
    assert (code, "hint: delegate wait waiting" in err) == (exits.ABSENT, True)
    house.result_path("older").write_text('{"status": "answered"}')
    code, _, err = run(house, "republish", "older")
    assert (code, "holds no RESULT" in err) == (exits.ABSENT, True)
