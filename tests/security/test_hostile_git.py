"""A workspace in which every way that git has of running a program is set to one that leaves a mark.

No command of ours leaves any, over it or in it; a plain `git status` there does. And every way that git has of leading
to another repository leads to one with a secret story: none of it is in what would be sent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from delegated import pricing
from delegated.gather import Gatherer, Limits, Tokens
from delegated.request import Request
from delegated.workspace import Workspace
from harness import BUG, House, request_text

COMMANDS = (
    ("delegate", "init"),
    ("delegate", "init", "--help"),
    ("delegate", "ask", "--issue", "it divides by zero", "--files", "app.py,src/**/*.py", "--id", "asked"),
    ("delegate", "ask", "--issue", "again", "--id", "later", "--no-wait"),
    ("delegate", "status"),
    ("delegate", "status", "asked"),
    ("delegate", "list", "--all"),
    ("delegate", "wait", "later", "--timeout", "30"),
    ("delegate", "preview", "asked", "--full"),
    ("delegate", "show", "asked"),
    ("delegate", "show", "asked", "--raw"),
    ("delegate", "outcome", "asked", "fixed"),
    ("delegate", "stats"),
    ("delegate", "ask", "--comment", "src/b.py"),
    ("delegate", "ask", "--at", "src/b.py:1", "--no-wait"),
    ("delegate", "ci", "--log", "failed.log", "--base", "HEAD"),
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
    (root / "src" / "b.py").write_text("x = 1\n# DELEGATE TO GPT-4O: why is it one?\n")
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
        git_in(root, "commit", "-q", "-m", "The first story")
        (root / "app.py").write_text(f"import math\n{BUG}")
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
    real = {**house.env, "PATH": f"{root}:.::{house.env['PATH']}"}  # this one asks git, in its own way
    house.drop("dropped", request_text(files="app.py, src/*.py"))
    (root / "failed.log").write_text("ZeroDivisionError: division by zero\n")
    for command in COMMANDS:
        program = Path(sys.executable).parent / command[0]
        done = subprocess.run(
            [program, *command[1:]],
            cwd=root,
            env=real if command[1] == "ci" else env,
            capture_output=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert trap.sprung() == [], command
        assert done.returncode != 70, (command, done.stderr)
        assert b"Traceback" not in done.stderr, (command, done.stderr)
        if command[1] == "preview":  # git's files are read all the same, where they are the workspace's own
            assert (b"\n+import math\n" in done.stdout) is (kind == "directory")
    assert house.result("asked")["status"] == "answered"
    assert house.has_result("dropped")


CANARY = "the story of another repository"


def _lead(name: str, inside: Path, outside: Path, head: str) -> None:
    """Set one lure in the git directory `inside` that leads into the git directory `outside`."""
    objects, ref = inside / "objects", inside / "refs/heads/main"
    ref.write_text(head + "\n")
    if name in ("alternates", "http-alternates"):
        (objects / "info" / name).write_text(f"{outside / 'objects'}\n")
    elif name == "linked objects":
        os.rename(objects, inside / "former")
        objects.symlink_to(outside / "objects")
    elif name == "linked parts":
        for part in (outside / "objects").iterdir():
            if not (objects / part.name).exists():
                (objects / part.name).symlink_to(part)
            for each in part.iterdir():
                if not (objects / part.name / each.name).exists():
                    (objects / part.name / each.name).symlink_to(each)
    elif name == "linked reference":
        ref.unlink()
        ref.symlink_to(outside / "refs/heads/main")
    elif name in ("HEAD that climbs", "HEAD from the root"):
        above = "refs/heads/../../../../outside/.git/" if name == "HEAD that climbs" else f"{outside}/"
        (inside / "HEAD").write_text(f"ref: {above}refs/heads/main\n")
    elif name == "commondir":
        (inside / "commondir").write_text(f"{outside}\n")
    elif name == "promised":
        with open(inside / "config", "a") as file:
            file.write(
                f'[extensions]\n\tpartialClone = far\n[remote "far"]\n\turl = {outside}\n\tpromisor = true\n'
                "\tpartialclonefilter = blob:none\n"
            )
    elif name == "replaced":
        own = (inside / "own").read_text().strip()
        ref.write_text(own + "\n")
        (inside / "refs/replace").mkdir()
        (inside / "refs/replace" / own).write_text(head + "\n")
        (objects / "info/alternates").write_text(f"{outside / 'objects'}\n")
    elif name == "graft":
        own = (inside / "own").read_text().strip()
        ref.write_text(own + "\n")
        (inside / "info").mkdir(exist_ok=True)
        (inside / "info/grafts").write_text(f"{own} {head}\n")
        (objects / "info/alternates").write_text(f"{outside / 'objects'}\n")
    elif name == "linked index":
        (inside / "index").unlink()
        (inside / "index").symlink_to(outside / "index")
    elif name == "submodule":
        (inside / "modules").symlink_to(outside)


LURES = (
    *("alternates", "http-alternates", "linked objects", "linked parts", "linked reference", "HEAD that climbs"),
    *("HEAD from the root", "commondir", "promised", "replaced", "graft", "linked index", "submodule"),
)


@pytest.mark.parametrize("lure", LURES)
def test_no_other_repository_is_read(tmp_path: Path, git: str, lure: str) -> None:
    """Whatever leads there: objects, references, the index, parents; and no program is run to fetch what is missing."""
    outside, root = tmp_path / "outside", tmp_path / "work"
    heads = {}
    for place, words in ((outside, CANARY), (root, "our own story")):
        place.mkdir()
        git_in(place, "init", "-q", "-b", "main")
        (place / "app.py").write_text(f"# {words}\n{BUG}")
        git_in(place, "add", "app.py")
        git_in(place, "commit", "-q", "-m", words)
        heads[place] = (place / ".git/refs/heads/main").read_text().strip()
    (root / ".git/own").write_text(heads[root])
    trap = Trap(tmp_path)
    set_traps(root / ".git", root, trap)
    (root / "app.py").write_text(f"# {'x' * 40}\n{BUG}")
    _lead(lure, root / ".git", outside / ".git", heads[outside])
    facts = pricing.facts("gpt-4o")
    assert facts is not None
    with Workspace(str(root)) as space:
        gatherer = Gatherer(space, tokens=lambda: Tokens(len, exact=False), limits=Limits())
        logs = '  File "app.py", line 1, in f\n  File "app.py", line 2, in total\nZeroDivisionError: division by zero\n'
        made = gatherer.gather(
            Request(issue="it fails", logs=f"Traceback (most recent call last):\n{logs}"), facts, "k"
        )
    assert CANARY not in made.user
    assert trap.sprung() == []
    told = {each.path: each.reason for each in made.context.omitted}
    if lure in ("replaced", "graft"):
        assert "our own story" in made.user
    else:
        assert {"uncommitted changes", "last commits"} <= set(told), told
