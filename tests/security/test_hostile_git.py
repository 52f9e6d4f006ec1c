"""A workspace in which every way that git has of running a program is set to one that leaves a mark.

No command of ours leaves any, over it or in it; a plain `git status` there does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import House, request_text

COMMANDS = (
    ("delegate", "init"),
    ("delegate", "init", "--help"),
    ("delegate", "ask", "--issue", "it divides by zero", "--files", "app.py,src/**/*.py", "--id", "asked"),
    ("delegate", "ask", "--issue", "again", "--id", "later", "--no-wait"),
    ("delegate", "status"),
    ("delegate", "status", "asked"),
    ("delegate", "list", "--all"),
    ("delegate", "wait", "later", "--timeout", "30"),
    ("delegate", "show", "asked"),
    ("delegate", "show", "asked", "--raw"),
    ("delegate", "receipt", "asked", "--verify"),
    ("delegate", "costs"),
    ("delegate", "doctor"),
    ("delegate", "doctor", "--no-daemon"),
    ("delegate", "secrets", "scan", "."),
    ("delegate", "run", "dropped"),
    ("delegate", "cancel", "asked"),
    ("delegate", "retry", "asked"),
    ("delegate", "republish", "asked"),
    ("delegated", "--once"),
    ("delegated", "check"),
)
HOOKS = (
    *("applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-checkout", "post-commit", "post-index-change"),
    *("post-merge", "post-rewrite", "pre-applypatch", "pre-auto-gc", "pre-commit", "pre-push", "pre-rebase"),
    *("prepare-commit-msg", "reference-transaction", "update"),
)
# What Python would import, from the directory in which a command is run.
MODULES = ("sitecustomize", "usercustomize", "yaml", "openai", "json", "re2", "structlog", "delegated", "conftest")


@pytest.fixture
def git(need: Callable[[str], str]) -> str:
    return need("git")


class Trap:
    """A program that leaves a mark whenever it is run, with what it was run as."""

    def __init__(self, tmp: Path) -> None:
        self.marks = tmp / "marks"
        self.program = tmp / "trap.sh"
        self.program.write_text(
            f'#!/bin/sh\necho "$0 $*" >>"{self.marks}"\ncase "$*" in *nowhere.invalid*) exit 1;; esac\ncat\n'
        )
        self.program.chmod(0o755)

    def sprung(self) -> list[str]:
        marks = self.marks.read_text().splitlines() if self.marks.exists() else []
        self.marks.unlink(missing_ok=True)
        return marks


def set_traps(directory: Path, root: Path, trap: Trap) -> None:
    """Make the git directory and the tree run the trap at every turn."""
    config = f"""
[core]
    fsmonitor = {trap.program}
    hooksPath = {directory / "hooks"}
    sshCommand = {trap.program}
    pager = {trap.program}
    editor = {trap.program}
    askPass = {trap.program}
    gitProxy = {trap.program}
    untrackedCache = true
[filter "trap"]
    clean = {trap.program}
    smudge = {trap.program}
    required = true
[diff]
    external = {trap.program}
[diff "trap"]
    textconv = {trap.program}
    command = {trap.program}
[merge "trap"]
    driver = {trap.program} %O %A %B
[alias]
    status = !{trap.program}
    ls-files = !{trap.program}
    rev-parse = !{trap.program}
    check-ignore = !{trap.program}
[credential]
    helper = !{trap.program}
[gpg]
    program = {trap.program}
[interactive]
    diffFilter = {trap.program}
[uploadpack]
    packObjectsHook = {trap.program}
[include]
    path = more
"""
    with open(directory / "config", "a") as file:
        file.write(config)
    (directory / "more").write_text(f"[pager]\n    status = {trap.program}\n    diff = {trap.program}\n")
    (directory / "hooks").mkdir(exist_ok=True)
    for name in HOOKS:
        (directory / "hooks" / name).unlink(missing_ok=True)
        (directory / "hooks" / name).symlink_to(trap.program)
    (directory / "info").mkdir(exist_ok=True)
    (directory / "info" / "attributes").write_text("* filter=trap diff=trap merge=trap\n")
    (root / ".gitattributes").write_text("* filter=trap diff=trap merge=trap\n")
    (root / ".gitmodules").write_text(f'[submodule "x"]\n    path = x\n    url = x\n    update = !{trap.program}\n')
    for name in MODULES:
        (root / f"{name}.py").write_text(f"import subprocess\nsubprocess.run(['{trap.program}', __file__])\n")
    for name in ("git", "ssh-keygen", "sh"):
        (root / name).symlink_to(trap.program)
    (root / ".envrc").write_text(f"{trap.program}\n")
    (root / "Makefile").write_text(f"all:\n\t{trap.program}\n")


def git_in(root: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.hooksPath=/dev/null", *arguments],
        cwd=root,
        check=True,
        capture_output=True,
        env={"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["directory", "file", "worktree", "bare", "below"])
def test_git_is_never_made_to_run_anything(house: House, tmp_path: Path, git: str, kind: str) -> None:
    """Whatever the repository around or in the workspace says, no program of its author runs."""
    root = house.workspace
    trap = Trap(tmp_path)
    (root / "src").mkdir()
    (root / "src" / "b.py").write_text("x = 1\n")
    if kind == "bare":
        git_in(root, "init", "-q", "--bare", ".")
        directory = root
    elif kind == "file":
        git_in(root, "init", "-q", f"--separate-git-dir={tmp_path / 'elsewhere'}")
        assert (root / ".git").is_file()
        directory = tmp_path / "elsewhere"
    elif kind == "worktree":
        main = tmp_path / "main"
        main.mkdir()
        git_in(main, "init", "-q")
        git_in(main, "commit", "-q", "--allow-empty", "-m", "a")
        git_in(main, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
        os.rename(tmp_path / "tree" / ".git", root / ".git")
        directory = main / ".git"
        (directory / "worktrees" / "tree" / "gitdir").write_text(f"{root / '.git'}\n")
    elif kind == "below":  # the repository is around the workspace
        git_in(tmp_path, "init", "-q")
        directory = tmp_path / ".git"
    else:
        git_in(root, "init", "-q")
        directory = root / ".git"
    if kind != "bare":
        git_in(root, "add", "app.py")
    set_traps(directory, root, trap)
    live = ["status", "--short"] if kind != "bare" else ["ls-remote", "ssh://nowhere.invalid/x"]
    plain = {**house.env, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *live], cwd=root, capture_output=True, timeout=60, env=plain, stdin=subprocess.DEVNULL)
    assert trap.sprung(), f"the traps are live: a plain `git {live[0]}` springs them"

    on_path = tmp_path / "bin"  # and if git were run at all, with whatever flags, it would be seen
    on_path.mkdir()
    for name in ("git", "hg", "ssh", "ssh-keygen", "less", "more", "vi"):
        (on_path / name).symlink_to(trap.program)
    env = {**house.env, "PATH": f"{on_path}:{house.env['PATH']}:."}
    house.drop("dropped", request_text(files="app.py, src/*.py"))
    for command in COMMANDS:
        program = Path(sys.executable).parent / command[0]
        done = subprocess.run(
            [program, *command[1:]], cwd=root, env=env, capture_output=True, timeout=60, stdin=subprocess.DEVNULL
        )
        assert trap.sprung() == [], command
        assert done.returncode != 70, (command, done.stderr)
        assert b"Traceback" not in done.stderr, (command, done.stderr)
    assert house.result("asked")["status"] == "answered"
    assert house.has_result("dropped")
