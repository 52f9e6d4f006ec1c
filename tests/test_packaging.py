"""What is built and installed is whole: the wheel alone, in a fresh environment, runs the demo and is typed."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import delegated

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "daemon" / "delegated"
PROGRAM = """\
import delegated

result: delegated.Result = delegated.ask("x fails", files=["app.py"], timeout=60)
if result.analysis is not None:
    print(result.status, result.analysis.confidence.level)
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=env or dict(os.environ), capture_output=True, text=True, timeout=500
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the sdist, and the wheel that was built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment into which only the wheel was installed."""
    place = tmp_path_factory.mktemp("fresh") / "venv"
    done = run(sys.executable, "-m", "venv", place, cwd=place.parent)
    assert done.returncode == 0, done.stderr
    done = run(place / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=place.parent)
    assert done.returncode == 0, done.stderr
    return place / "bin"


def test_the_wheel_holds_the_whole_package(wheel: Path) -> None:
    """Every file of the package is in it, and nothing beside it but its own description."""
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if ".dist-info/" not in name}
        about = {name.partition(".dist-info/")[2]: file.read(name) for name in set(file.namelist()) - inside}
    ours = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert inside == {path.relative_to(PACKAGE.parent).as_posix() for path in ours}
    for name in (
        "py.typed",
        "demo/request.md",
        "demo/workspace/shop/billing.py",
        "cli/shells/delegate.bash",
        "cli/shells/delegate.zsh",
        "cli/shells/delegate.fish",
        "cli/shim.py",
    ):
        assert f"delegated/{name}" in inside
    assert about["licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    told = message_from_bytes(about["METADATA"])
    assert (told["Name"], told["Version"], told["License-Expression"]) == ("delegated", delegated.__version__, "MIT")
    assert about["entry_points.txt"].decode().split() == [
        *("[console_scripts]", "delegate", "=", "delegated.cli:main"),
        *("delegated", "=", "delegated.cli:main_daemon"),
    ]


def test_the_sdist_holds_what_its_tests_need(built: Path) -> None:
    """Source, tests, configuration, units, pages, changelog: what stands in a checkout, and no leftovers."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "daemon/delegated/worker.py",
        "tests/run",
        "tests/golden/result_uncertain.md",
        "config/delegated.yaml",
        "config/schemas/status.schema.json",
        "systemd/delegated.service",
        "docs/folder.md",
        "requirements-dev.lock",
    ):
        assert name in names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/", "dist"))]


def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """With nothing but the wheel and what it needs: the demo is answered, and both commands are there."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = run(installed / "delegate", "demo", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "no language model was asked" in done.stdout.lower()
    assert "shop/billing.py" in done.stdout
    for program in ("delegate", "delegated"):
        done = run(installed / program, "--version", cwd=tmp_path, env=env)
        assert done.stdout.split() == [program, delegated.__version__]
    done = run(installed / "python", "-m", "delegated.testing.server", "--help", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr


def test_a_program_that_uses_it_passes_mypy(installed: Path, tmp_path: Path) -> None:
    """`delegated.ask` is typed for others: strict mypy sees the installed package, and its complaints are real."""
    command = (sys.executable, "-m", "mypy", "--strict", "--python-executable", installed / "python")
    program = tmp_path / "program.py"
    cache = f"--cache-dir={tmp_path / 'cache'}"
    program.write_text(PROGRAM)
    env = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    done = run(*command, cache, program, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout
    program.write_text(PROGRAM.replace('files=["app.py"]', "files=5").replace("is not None", "is None"))
    wrong = run(*command, cache, program, cwd=tmp_path, env=env).stdout
    assert 'Argument "files" to "ask"' in wrong
    assert 'has no attribute "confidence"' in wrong
