from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from harness import House, Server

settings.register_profile("busy", deadline=None)  # an example that is slow on a busy machine is not a failure
settings.load_profile("busy")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A workspace, its drop folder and the daemons that serve it; all are killed at the end."""
    house = House(tmp_path)
    yield house
    house.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The local server in a process of its own."""
    server = Server(tmp_path)
    yield server
    server.close()


@pytest.fixture(scope="session")
def need() -> Callable[[str], str]:
    """Find a tool that a test drives: a missing one skips here and fails in CI."""
    import shutil

    def find(tool: str) -> str:
        path = shutil.which(tool) or shutil.which(tool, path=os.path.dirname(sys.executable))
        if path is None:
            message = f"{tool} is not installed"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        return path

    return find


@pytest.fixture
def git(house: House, need: Callable[[str], str]) -> Callable[..., str]:
    """Run git in the workspace, which is a repository."""
    program = need("git")

    def run(*arguments: str, cwd: Path = house.workspace) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(house.tmp), "GIT_CONFIG_NOSYSTEM": "1"}
        who = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "protocol.file.allow=always")
        done = subprocess.run([program, *who, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("init", "-q")
    return run
