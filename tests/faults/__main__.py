"""Run a fault at full length: `python -m tests.faults NAME [options]`, from the root of a checkout."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

#: Each module has `main(argv) -> int`; 0 means that the promise held.
TABLE = {
    "sweep": ("faults.sweep", "a kill at every system call of a job (--pairs: and of its recovery)"),
    "kills": ("faults.kills", "kills at random moments with many requests in flight"),
    "writers": ("faults.writers", "every way of writing a file, many times each (--runs)"),
    "power": ("faults.power", "power cuts: every state that the disk may be left in (--model ordered|weak)"),
    "outage": ("faults.test_api", "the network off for an hour (--minutes), with a hundred requests waiting"),
    "scale": ("faults.test_scale", "100,000 old RESULTs, 10,000 requests at once, 10,000 that are none"),
    "soak": ("faults.soak", "faults at random for a long time (--minutes, --seed)"),
    "mutations": ("faults.mutations", "each safeguard taken out: what catches it"),
    "overflow": ("faults.overflow", "30,000 requests while the daemon is stopped"),
    "raising": ("faults.raising", "an exception at every call of the rooms that touch disk and network"),
}


def main(argv: list[str]) -> int:
    if not argv or argv[0] not in TABLE:
        print(__doc__, file=sys.stderr)
        for name, (_, words) in TABLE.items():
            print(f"  {name:<12} {words}", file=sys.stderr)
        return 0 if argv in (["-h"], ["--help"]) else 64
    run: Callable[[list[str]], int] = import_module(TABLE[argv[0]][0]).main
    return run(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
