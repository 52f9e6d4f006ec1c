"""Kill the daemon at moments chosen by chance, with many requests in flight, again and again (row 4), and judge.

A cycle is one life: begun, killed after a time drawn over what a whole batch takes. New requests are dropped, before
the start and after it, so that as many as asked for are always unsettled. After a round of cycles a life that nobody
kills has to settle everything: each request answered, and billed exactly once.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

from faults import nursery
from faults.judging import left_over, results, torn, unsettled
from harness import House, request_text

ROUND = 50  # cycles: a folder that only grew would measure the folder


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults kills", description=__doc__)
    parser.add_argument("--cycles", type=int, default=500, metavar="N", help="how many kills (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=50, metavar="N", help="unsettled at once")
    parser.add_argument("--minutes", type=float, default=1e6, metavar="M", help="begin no further cycle after that")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    given = parser.parse_args(argv)
    if not hasattr(os, "fork"):
        print("this system cannot fork", file=sys.stderr)
        return 69
    nursery.prepare()
    began = time.monotonic()
    cycles = requests = calls_cut = 0
    breaches: list[str] = []
    stop = began + given.minutes * 60
    while cycles < given.cycles and time.monotonic() < stop:
        seed = given.seed + cycles
        wire = ("responses", "chat")[seed // ROUND % 2]
        with nursery.ground() as tmp:
            now = Round(tmp, wire, random.Random(seed), given.requests)
            try:
                now.run(min(ROUND, given.cycles - cycles), stop)
            finally:
                now.provider.stop()
        cycles += now.cycles
        requests += now.dropped
        calls_cut += now.cut
        breaches += now.breaches
        for breach in now.breaches:
            print(f"round of seed {seed}, {wire}: {breach}", file=sys.stderr)
        spent = time.monotonic() - began
        print(
            f"{cycles} kills, {requests} requests, {calls_cut} times a call was found without its answer after one, "
            f"{len(breaches)} breaches, {spent:.0f} s",
            flush=True,
        )
    return 1 if breaches else 0


class Round:
    """One folder and one server through a number of kills."""

    def __init__(self, tmp: Path, wire: str, chance: random.Random, many: int) -> None:
        self.house = House(tmp)
        self.provider = nursery.Provider(tmp)
        self.chance = chance
        self.many = many
        self.cycles = self.dropped = self.cut = 0
        self.breaches: list[str] = []
        self.log = tmp / "daemon.log"
        self.provider.start([], "--latency", "0.1")
        self.house.env |= {
            "DELEGATED_MODEL": "gpt-4o",
            "OPENAI_API_KEY": "sk-test-0123456789abcdefghij",
            "DELEGATED_ENDPOINTS__OPENAI__BASE_URL": self.provider.base_url,
            "DELEGATED_ENDPOINTS__OPENAI__WIRE": wire,
            "DELEGATED_ENDPOINTS__OPENAI__STORE": "true",
            "DELEGATED_CONCURRENCY": str(many),
            "DELEGATED_DEADLINE_S": "10",
            "DELEGATED_DOUBT_WAIT_S": "0.5",
        }

    def run(self, cycles: int, stop: float) -> None:
        span = self._batch()
        for _ in range(cycles):
            if time.monotonic() > stop:
                break
            new = self.many - self._open()
            early = self.chance.randint(0, new)
            self._drop(early)
            life = self._begin()
            end = time.monotonic() + span * self.chance.random() ** 2  # rather early: more lives in the same time
            self._drop(new - early)
            time.sleep(max(0.0, end - time.monotonic()))
            if life.over():
                self.breaches.append(f"a life ended by itself:\n{self.log.read_text()[-800:]}")
                return
            life.kill()
            self.cycles += 1
            self.cut += self._in_doubt()
            self.breaches += torn(self.house.folder)
        self._settle()
        self._judge()

    def _begin(self, *arguments: str) -> nursery.Life:
        workspace = self.house.workspace
        return nursery.Life(nursery.daemon(workspace, *arguments), self.log, env=self.house.env, cwd=workspace)

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self.dropped += 1
            self.house.drop(f"r{self.dropped:05d}", request_text(f"it divides by zero, case {self.dropped}"))

    def _open(self) -> int:
        return self.dropped - sum(1 for _ in self.house.folder.glob("OPENAI_DELEGATION_RESULT_*.json"))

    def _in_doubt(self) -> int:
        calls = self.house.folder.glob(".delegated/jobs/*/*/r*/calls/*")
        return sum(1 for call in calls if (call / "sent.1").exists() and not (call / "reply").exists())

    def _batch(self) -> float:
        """Return how long a life takes to settle a whole batch, in seconds."""
        began = time.monotonic()
        self._drop(self.many)
        self._settle()
        return time.monotonic() - began

    def _settle(self) -> None:
        code = self._begin("--once").wait()
        if code:
            self.breaches.append(f"a life that nobody killed ended with {code}:\n{self.log.read_text()[-800:]}")

    def _judge(self) -> None:
        folder = self.house.folder
        self.breaches += torn(folder)
        self.breaches += [f"not settled: {job}" for job in unsettled(folder)]
        self.breaches += [f"left over: {name}" for name in left_over(folder)]
        found = results(folder)
        billed = Counter(bill["call"].split(".", 1)[1] for bill in self.provider.bills())
        for number in range(1, self.dropped + 1):
            key = f"r{number:05d}"
            status = found.pop(key, {"status": "lost"})["status"]
            times = billed.pop(f"{key}.r1.01-first", 0)
            if (status, times) != ("answered", 1):
                self.breaches.append(f"{key}: {status}, billed {times} times")
        self.breaches += [f"nobody asked for {what}" for what in (*found, *billed)]
