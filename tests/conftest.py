from __future__ import annotations

import os
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
