"""`tests/run` tries a few failed tests once more in CI, and says so; what looks for breaches gets no second try."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from second_try import MOST, allowed

TESTS = Path(__file__).parent
FLAKY = """
from pathlib import Path

def test_passes_the_second_time(request):
    seen = Path("seen")
    if not seen.exists():
        seen.touch()
        raise AssertionError("the first time")

def test_passes():
    pass
"""
FAILING = "import pytest\n\n@pytest.mark.parametrize('n', range({}))\ndef test_fails(n):\n    raise AssertionError\n"
TRIED = "failed, and tried once more alone"
PASSED = "passed only when tried again"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one test file, with this one's `tests/run`; its linters pass whatever there is."""
    for name in ("run", "second_try.py"):
        (tmp_path / "tests").mkdir(exist_ok=True)
        shutil.copy(TESTS / name, tmp_path / "tests" / name)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\ntestpaths = ["tests"]\n')
    (tmp_path / "requirements-dev.lock").write_text("none==1\n")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("ruff", "mypy", "lint-imports", "pip-audit"):
        (programs / name).symlink_to("/bin/true")
    for name, words in (("python", ""), ("pytest", "-m pytest ")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        (programs / name).chmod(0o755)
    wanted = subprocess.run(
        "cat requirements-dev.lock pyproject.toml | cksum",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / ".venv" / "locked").write_text(wanted.stdout)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "text", "ci", "code", "said", "unsaid"),
    [
        pytest.param("test_a.py", FLAKY, True, 0, [TRIED, PASSED, "test_passes_the_second_time"], [], id="flaky"),
        pytest.param("test_a.py", FLAKY, False, 1, [], [TRIED, PASSED], id="flaky, by hand"),
        pytest.param("test_a.py", FAILING.format(MOST), True, 1, [TRIED], [PASSED], id="failing"),
        pytest.param("test_a.py", FAILING.format(MOST + 1), True, 1, [], [TRIED, PASSED], id="too many"),
        pytest.param("faults/test_kill.py", FLAKY, True, 1, [], [TRIED, PASSED], id="a breach"),
        pytest.param("test_a.py", "def test_passes():\n    pass\n", True, 0, [], [TRIED, PASSED], id="passing"),
        pytest.param("test_a.py", "import nothing_of_this_name\n", True, 1, [], [PASSED], id="not collected"),
    ],
)
def test_what_failed_is_tried_once_more_and_named(
    project: Path, place: str, text: str, ci: bool, code: int, said: list[str], unsaid: list[str]
) -> None:
    path = project / "tests" / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CI"))}
    if ci:
        env["CI"] = "true"
    done = subprocess.run(
        ["sh", "tests/run"], cwd=project, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("== all passed" in done.stdout) == (code == 0)
    assert [each for each in said if each not in done.stdout] == []
    assert [each for each in unsaid if each in done.stdout] == []


def test_what_may_be_tried_again() -> None:
    assert allowed(["tests/test_a.py::test_b"])
    assert not allowed([])
    assert not allowed([f"tests/test_a.py::test_b[{n}]" for n in range(MOST + 1)])
    assert not allowed(["tests/test_a.py::test_b", "tests/faults/test_power.py::test_row_8_power_loss[cancel]"])
