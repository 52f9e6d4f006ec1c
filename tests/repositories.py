"""Repositories for tests, made by the real git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def git(root: Path, *arguments: str, at: int = 1_700_000_000) -> str:
    """Run git in a directory, without the configuration of whoever runs the tests; return what it printed."""
    person = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    moment = {"GIT_AUTHOR_DATE": f"{at} +0100", "GIT_COMMITTER_DATE": f"{at} +0100"}
    done = subprocess.run(
        ["git", *person, *arguments],
        cwd=root,
        check=True,
        capture_output=True,
        env={"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1", **moment},
    )
    return done.stdout.decode("utf-8", "replace")


def write(root: Path, **files: str) -> None:
    """Write files; `__` in a name is a slash, and every file is of Python."""
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def commit(root: Path, subject: str, *, day: int = 0, **files: str) -> str:
    """Commit everything, after writing some files; `day` counts from 2023-11-14. Returns the hash."""
    write(root, **files)
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", subject, at=1_700_000_000 + day * 86_400)
    return git(root, "rev-parse", "HEAD").strip()


def repository(root: Path, *options: str) -> Path:
    """Make an empty repository."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", *options)
    return root
