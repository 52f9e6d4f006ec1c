"""The figures of docs/security.md: `python -m tests.security [--seconds S]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from delegated.errors import RequestError
from delegated.request import parse
from delegated.workspace import Workspace
from security.test_confinement import REFUSED, SWAPS, odd_files, race
from test_workspace import BAD_NAMES


def timed(function: Callable[[], object], times: int = 5) -> float:
    """The slowest of some runs, in milliseconds of CPU: other processes are no part of it."""
    slowest = 0.0
    for _ in range(times):
        began = time.process_time()
        function()
        slowest = max(slowest, time.process_time() - began)
    return slowest * 1000


def refuse(data: bytes) -> None:
    try:
        parse(data, ".yaml")
    except RequestError:
        return
    raise AssertionError("it was read")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each race")
    given = parser.parse_args()
    leaks = 0
    for swap in SWAPS:
        for both in (True, False):
            with tempfile.TemporaryDirectory() as tmp:
                seen = race(Path(tmp), swap, given.seconds, both=both)
            leaks += seen["ours: leak"]
            of = {who: sum(n for name, n in seen.items() if name.startswith(who)) for who in ("ours", "naive")}
            usual = f"; resolve and open: {seen['naive: leak']:,} leaks of {of['naive']:,}" if both else ""
            print(f"{swap}: {seen['ours: leak']} leaks of {of['ours']:,} reads{usual}")
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp) / "root"
        names = [*odd_files(root), *BAD_NAMES]
        with Workspace(str(root)) as space:
            took = {name: timed(lambda name=name: space.gather([name])) for name in names}
    name = max(took, key=lambda each: took[each])
    print(f"{len(took)} paths that are none: refused in {took[name]:.1f} ms of CPU at most ({name[:40]!a})")
    took = {name: timed(lambda text=text: refuse(text.encode())) for name, (text, _) in REFUSED.items()}
    name = max(took, key=lambda each: took[each])
    print(f"{len(took)} YAML documents: refused in {took[name]:.1f} ms of CPU at most ({name})")
    return 1 if leaks else 0


if __name__ == "__main__":
    sys.exit(main())
