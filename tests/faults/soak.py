"""A long time with faults at random: `python -m tests.faults soak --minutes M --seed S`.

Two daemons serve a workspace each before one server. The first is killed again and again; the second lives through all
of it, so that what it holds (descriptors, threads, memory) can be compared with what it held in the beginning.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from faults.judging import judge
from harness import Daemon, House, Server, running

CRASH = Path(__file__).parents[1] / "crash"
PAID = {"method": "POST", "path": "/v1/responses"}
#: What the server may do to the next calls: (how many, what).
TROUBLES: tuple[tuple[int, dict[str, Any]], ...] = (
    (2, {"reset": "before_body"}),
    (2, {"reset": "after_body", "bill": True}),
    (2, {"reset": "mid_answer"}),
    (3, {"error": "rate_limited", "retry_after": 0.3}),
    (2, {"status": 500, "bill": True}),
    (2, {"status": 503, "bill": True}),
    (2, {"cut": 10, "bill": True}),
)


class Soak:
    """The two houses, the server before them, and what is done to them."""

    def __init__(self, tmp: Path, seed: int, stack: ExitStack) -> None:
        self.dice = random.Random(seed)
        self.tmp = tmp
        self.server = Server(tmp)
        stack.callback(lambda: self.server.close())
        self.houses = []
        for name in ("killed", "lives"):
            (tmp / name).mkdir()
            house = stack.enter_context(running(House(tmp / name)))
            house.use(
                self.server,
                doubt_wait_s=0.5,
                deadline_s=20,
                retry__base_s=0.1,
                retry__cap_s=0.5,
                rescan_s=1,
                heartbeat_s=0.5,
            )
            house.env |= {
                "PYTHONPATH": str(CRASH),
                "FULL_FOR": ".md",
                "FULL_WHILE": str(tmp / name / "full"),
            }
            self.houses.append(house)
        self.killed, self.lives = self.houses
        self.mortal = self.killed.up()
        self.immortal = self.lives.up()
        self.dropped: list[set[str]] = [set(), set()]
        self.done: Counter[str] = Counter()

    def drop(self, count: int) -> None:
        """Drop some requests into both folders."""
        for house, keys in zip(self.houses, self.dropped, strict=True):
            for _ in range(count):
                key = f"k{len(keys):06d}"
                keys.add(key)
                house.drop(key)

    def fault(self) -> None:
        """Do one thing that goes wrong, at random."""
        name = self.dice.choice(("kill", "restart", "full", "overflow", "trouble", "trouble", "off", "reload"))
        self.done[name] += 1
        getattr(self, name)()

    def kill(self) -> None:
        self.mortal.kill()
        self.drop(2)
        self.mortal = self.killed.up()

    def restart(self) -> None:
        assert self.mortal.stop() == 0
        self.mortal = self.killed.up()

    def full(self) -> None:
        """Let the disk take no RESULT for a while."""
        for house in self.houses:
            (house.tmp / "full").touch()
        self.drop(3)
        time.sleep(self.dice.uniform(0.1, 1.0))  # the fault itself
        for house in self.houses:
            (house.tmp / "full").unlink()

    def overflow(self) -> None:
        """Let more happen in the folder than the kernel keeps for a process that does not look."""
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        os.kill(self.immortal.process.pid, signal.SIGSTOP)
        try:
            one, other = self.lives.folder / "noise.0", self.lives.folder / "noise.1"
            one.touch()
            for _ in range(limit // 2 + 100):  # two events each, and no two alike in a row: none is merged
                one.rename(other)
                one, other = other, one
            self.drop(3)
        finally:
            os.kill(self.immortal.process.pid, signal.SIGCONT)
            one.unlink()

    def trouble(self) -> None:
        """Let the server fail some of the next calls."""
        times, do = self.dice.choice(TROUBLES)
        self.server.script({"match": PAID, "times": times, "do": do})
        self.drop(3)

    def off(self) -> None:
        """Let nobody listen for a while."""
        self.server.close()
        self.drop(2)
        time.sleep(self.dice.uniform(0.1, 1.0))  # the fault itself
        self.server = Server(self.tmp, port=self.server.port)

    def reload(self) -> None:
        for daemon in (self.mortal, self.immortal):
            daemon.process.send_signal(signal.SIGHUP)

    def settle(self) -> None:
        """Let all be answered, and judge it."""
        for house, keys in zip(self.houses, self.dropped, strict=True):
            judge(house, None, keys, patience=90)
        bills = Counter(bill["call"] for bill in self.server.bills())
        assert max(bills.values(), default=0) <= 1, [call for call, count in bills.items() if count > 1]
        assert len(bills) == sum(map(len, self.dropped)), "each was paid for"


def holds(daemon: Daemon) -> dict[str, int]:
    """Count what a process holds: descriptors, threads, KiB of memory."""
    place = Path(f"/proc/{daemon.process.pid}")
    status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
    return {
        "fds": len(os.listdir(place / "fd")),
        "threads": int(status["Threads"]),
        "rss_kib": int(status["VmRSS"].split()[0]),
    }


def soak(tmp: Path, *, seconds: float, seed: int) -> dict[str, Any]:
    """Go on for so long; raises `AssertionError` when something was lost, paid twice, or grew. Returns the counts."""
    with ExitStack() as stack:
        run = Soak(tmp, seed, stack)
        for name in ("trouble", "full", "overflow", "off", "reload"):  # each once: what it needs is then loaded
            getattr(run, name)()
            run.drop(2)
        run.settle()
        # Connections are kept for 5 s, and a thread pool grows up to its size: neither is growth.
        time.sleep(6)
        before = holds(run.immortal)
        until_then = time.monotonic() + seconds
        while time.monotonic() < until_then:
            run.drop(run.dice.randint(0, 5))
            run.fault()
            time.sleep(run.dice.uniform(0.0, 0.3))
        run.server.script()
        run.settle()
        time.sleep(6)
        after = holds(run.immortal)
        assert run.immortal.process.poll() is None
        answered = sum(map(len, run.dropped))
        seen = {"seed": seed, "requests": answered, "faults": dict(run.done), "before": before, "after": after}
        assert after["fds"] <= before["fds"] + 4, seen
        assert after["threads"] <= before["threads"] + 8, seen
        assert after["rss_kib"] <= before["rss_kib"] + 16 * 1024 + 2 * answered, seen
        return seen


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults soak")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args(argv)
    print(f"seed {args.seed}")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as tmp:
        print(soak(Path(tmp), seconds=args.minutes * 60, seed=args.seed))
    return 0
