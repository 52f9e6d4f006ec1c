"""Row 25 at full length: tens of thousands of requests come while the daemon is stopped; each must be answered once."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

from delegated.folder import PREFIX
from faults.judging import judge
from harness import House, request_text, running, until


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults overflow", description=__doc__)
    parser.add_argument("--count", type=int, default=30_000, help="requests; the kernel keeps 16,384 events")
    count = parser.parse_args(argv).count
    with tempfile.TemporaryDirectory(prefix="overflow-") as tmp, running(House(Path(tmp))) as house:
        house.set(rescan_s=3600, concurrency=32)
        daemon = house.up()
        daemon.process.send_signal(signal.SIGSTOP)
        keys = [f"r{n}" for n in range(count)]
        for key in keys:
            house.drop(key, request_text(f"it divides by zero, {key}"))
        start = time.monotonic()
        daemon.process.send_signal(signal.SIGCONT)
        until(lambda: daemon.has("request.claimed"), what="the first claim", patience=120)
        first = time.monotonic() - start

        def answered() -> int:
            return sum(
                name.startswith(f"{PREFIX}RESULT_") and name.endswith(".json") for name in os.listdir(house.folder)
            )

        until(lambda: answered() == count, what=f"{count} RESULTs", patience=count / 5 + 60, pause=2)
        whole = time.monotonic() - start
        judge(house, None, keys, patience=120)
        print(f"{count} requests came while it was stopped; seconds after it went on:", end=" ")
        print(f"first claim {first:.2f}, all answered {whole:.1f}")
    return 0
