"""How long a request's prompt takes to make in a large workspace, and what the history adds to it.

`python -m tests.bench --only gathering` makes a repository of 5,000 files with 300 commits, asks about a trace in it
with the history and without, and prints the times and their ratio.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from delegated import pricing
from delegated.gather import Gatherer, Limits, Tokens
from delegated.request import Request
from delegated.survey import Survey
from delegated.workspace import Workspace
from repositories import commit, git, repository

COMMITS = 300
Add = Callable[[str, str, str, str], None]


def make(root: Path, files: int) -> None:
    """Write files of 40 lines in directories of 50, commit them, edit some of them commit after commit, and pack."""
    chance = random.Random(1)
    repository(root)
    for number in range(files):
        path = root / f"package{number // 50}" / f"module{number}.py"
        path.parent.mkdir(exist_ok=True)
        body = "".join(f"def function_{number}_{n}(value):\n    return value + {n}\n\n\n" for n in range(10))
        path.write_text(body)
    commit(root, "Begin")
    for number in range(COMMITS):
        at = chance.randrange(min(files, 200))
        path = root / f"package{at // 50}" / f"module{at}.py"
        lines = path.read_text().splitlines(keepends=True)
        lines[4 * chance.randrange(10) + 1] = f"    return value * {number}\n"
        path.write_text("".join(lines))
        git(root, "commit", "-q", "-a", "-m", f"Change {number}", at=1_700_000_000 + number)
    git(root, "gc", "-q")
    for number in range(5):
        with open(root / f"package0/module{number}.py", "a") as file:
            file.write("LIMIT = 3\n")


def request(number: int) -> Request:
    frames = "".join(
        f'  File "package{at // 50}/module{at}.py", line {4 * (at % 10) + 2}, in function_{at}_{at % 10}\n'
        for at in range(number, number + 30, 5)
    )
    return Request(issue="it fails", logs=f"Traceback (most recent call last):\n{frames}ValueError: no\n")


def spend(files: int, rounds: int = 9) -> dict[str, tuple[float, float, float]]:
    """Return, without and with the history: seconds of the first request, of a later one, and CPU seconds of that.

    The later ones take turns and are medians, so that what else the machine does falls on both alike.
    """
    tmp = Path(tempfile.mkdtemp(prefix="delegated-bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")))
    facts = pricing.facts("gpt-4o")
    assert facts is not None
    try:
        make(tmp / "code", files)
        with Workspace(str(tmp / "code")) as space:
            gatherers = {
                name: Gatherer(
                    space,
                    tokens=lambda: Tokens(lambda text: len(text) // 4, exact=False),
                    limits=Limits(git_context=name == "with"),
                    survey=Survey(space),
                )
                for name in ("without", "with")
            }
            took: dict[str, list[tuple[float, float]]] = {name: [] for name in gatherers}
            for number in range(rounds + 1):
                for name, gatherer in gatherers.items():
                    wall, cpu = time.perf_counter(), time.process_time()
                    gatherer.gather(request(number), facts, "k")
                    took[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        middle = statistics.median
        return {
            name: (each[0][0], middle(wall for wall, _ in each[1:]), middle(cpu for _, cpu in each[1:]))
            for name, each in took.items()
        }
    finally:
        shutil.rmtree(tmp)


def measure(add: Add, files: int = 5_000) -> None:
    """Add the rows."""
    found = spend(files)
    for name, (first, later, cpu) in found.items():
        measured = f"{first * 1000:.0f} ms, then {later * 1000:.0f} ms"
        add(f"a prompt about {files:,} files, {name} git", measured, "", f"{cpu * 1000:.0f} ms of CPU")
    ratio = found["with"][1] / found["without"][1]
    added = found["with"][1] - found["without"][1]
    add("a later request with git, against one without", f"{ratio:.2f}", "< 3", f"{added * 1000:.0f} ms more")
