"""Raise an exception at every Python call of the file-system and provider rooms (row 9), and judge.

A life is ready, gets a request, raises once, gets a second request, which must be answered by that same life, and is
stopped. A life without any fault then has to leave both requests settled, each call billed at most once. A call is
told by its function and the line that makes it; a coroutine that goes on after waiting is called again.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import delegated
from faults import nursery
from faults.judging import left_over, results, torn, unsettled
from harness import House, request_text, until

SOURCE = os.path.dirname(delegated.__file__) + os.sep
ROOMS = (
    *("disk.py", "lock.py", "store.py", "calls.py", "journal.py", "folder.py", "session.py", "index.py", "watch.py"),
    "models" + os.sep,
)
KINDS: dict[str, Callable[[], BaseException]] = {
    "OSError": lambda: OSError(errno.EIO, "an input/output error for a test"),
    "RuntimeError": lambda: RuntimeError("a fault for a test"),
    "MemoryError": MemoryError,
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults raising", description=__doc__)
    parser.add_argument("--wire", choices=("responses", "chat"), default="responses")
    parser.add_argument("--kind", choices=tuple(KINDS), default="OSError")
    parser.add_argument("--often", type=int, default=1, metavar="K", help="raise at the first K calls from each line")
    parser.add_argument("--sample", type=int, metavar="N", help="only N calls")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="for --sample")
    parser.add_argument("--verbose", action="store_true", help="print how each ended")
    parser.add_argument("--list", action="store_true", help="only print the calls")
    given = parser.parse_args(argv)
    if not hasattr(os, "fork"):
        print("this system cannot fork", file=sys.stderr)
        return 69
    nursery.prepare()
    began = time.monotonic()
    ends: Counter[str] = Counter()
    breaches = missed = 0
    with nursery.ground() as tmp:
        made: dict[str, None] = {}
        for number in range(2):
            trial = Trial(tmp / f"whole{number}", given.wire, given.kind)
            trial.run("")
            assert not trial.breaches, trial.breaches
            made |= dict.fromkeys(trial.calls())
        calls = [name for name in made if int(name.rpartition("#")[2]) <= given.often]
        if given.list:
            print("\n".join(calls))
            return 0
        chosen = calls
        if given.sample:
            chosen = random.Random(given.seed).sample(calls, min(given.sample, len(calls)))
        for number, name in enumerate(chosen):
            trial = Trial(tmp / str(number), given.wire, given.kind)
            trial.run(name)
            if not trial.hit:
                missed += 1
            ends[trial.end] += 1
            breaches += bool(trial.breaches)
            if given.verbose:
                print(f"{trial.end}: {name}", flush=True)
            for breach in trial.breaches:
                print(f"{given.kind} at {name}: {breach}", file=sys.stderr, flush=True)
    print(
        f"{given.kind} at {len(chosen) - missed} of {len(calls)} calls, {given.wire}: "
        + ", ".join(f"{count} {end}" for end, count in ends.most_common())
        + f"; {missed} not come by again; breaches: {breaches}; {time.monotonic() - began:.0f} s"
    )
    return 1 if breaches else 0


class Trial:
    """One exception."""

    def __init__(self, tmp: Path, wire: str, kind: str) -> None:
        tmp.mkdir()
        self.tmp = tmp
        self.kind = kind
        self.house = House(tmp)
        self.provider = nursery.Provider(tmp)
        self.provider.start([])
        self.house.env |= {
            "DELEGATED_MODEL": "gpt-4o",
            "OPENAI_API_KEY": "sk-test-0123456789abcdefghij",
            "DELEGATED_ENDPOINTS__OPENAI__BASE_URL": self.provider.base_url,
            "DELEGATED_ENDPOINTS__OPENAI__WIRE": wire,
            "DELEGATED_ENDPOINTS__OPENAI__STORE": "true",
            "DELEGATED_DEADLINE_S": "4",
            "DELEGATED_DOUBT_WAIT_S": "0.2",
            "DELEGATED_RETRY__BASE_S": "0.1",
            "DELEGATED_RESCAN_S": "2",
            "DELEGATED_GRACE_S": "10",
        }
        self.log = tmp / "daemon.log"
        self.log.touch()
        self.breaches: list[str] = []
        self.end = ""

    @property
    def hit(self) -> bool:
        return (self.tmp / "hit").exists()

    def calls(self) -> list[str]:
        return (self.tmp / "calls").read_text().splitlines()

    def run(self, victim: str) -> None:
        house = self.house
        body = nursery.daemon(house.workspace)
        life = nursery.Life(lambda: self._watched(body, victim), self.log, env=house.env, cwd=house.workspace)
        try:
            self._live(life)
        except AssertionError as error:
            self.breaches.append(f"{error}\n{self._tail()}")
        finally:
            life.kill()
        code = nursery.Life(
            nursery.daemon(house.workspace, "--once"), self.log, env=house.env, cwd=house.workspace
        ).wait()
        self._judge(code)
        self.provider.stop()

    def _live(self, life: nursery.Life) -> None:
        house = self.house
        until(lambda: life.over() or b'"worker.ready"' in self.log.read_bytes(), what="ready", pause=0.005)
        house.drop("one", request_text("it divides by zero, case one"))
        begun = time.monotonic()
        until(lambda: life.over() or house.has_result("one") or time.monotonic() - begun > 3, what="one", pause=0.005)
        at_once = house.has_result("one")
        house.drop("two", request_text("it divides by zero, case two"))
        until(lambda: life.over() or house.has_result("two"), what="the second request answered", pause=0.005)
        if life.over():
            code = life.wait()
            self.end = f"ended with {code}"
            ready = b'"worker.ready"' in self.log.read_bytes()
            told = b"delegated: error: " in self.log.read_bytes()
            # A fault of ours in the loop itself ends the daemon, aloud, and its supervisor starts it again.
            if not told or code not in ((74, 75) if ready and self.kind == "OSError" else (1, 74, 75)):
                when = "when it was ready" if ready else "at its start"
                self.breaches.append(f"it ended by itself, {when}, with {code}\n{self._tail()}")
            return
        if not at_once:  # it may take its time, within reason, but not for ever
            until(lambda: life.over() or house.has_result("one"), what="the first request settled", pause=0.02)
        os.kill(life.pid, signal.SIGTERM)
        code = life.wait()
        self.end = ("at once: " if at_once else "late: ") + results(house.folder).get("one", {}).get("status", "open")
        # a stop that fails says so
        if code and not (code in (1, 74) and b"delegated: error: " in self.log.read_bytes()):
            self.breaches.append(f"stopped, it ended with {code}\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-12:])[-3000:]

    def _judge(self, code: int) -> None:
        folder = self.house.folder
        self.breaches += torn(folder)
        self.breaches += [f"not settled: {job}" for job in unsettled(folder)]
        self.breaches += [f"left over: {name}" for name in left_over(folder)]
        found = results(folder)
        for key in ("one", "two"):
            result = found.get(key)
            if result is None:
                self.breaches.append(f"{key} is lost (exit {code})\n{self._tail()}")
            elif result["status"] != "answered" and (key == "two" or result["error"]["kind"] != "internal"):
                self.breaches.append(f"{key} ended as {result['status']}: {result['error']}\n{self._tail()}")
        for call, times in Counter(bill["call"] for bill in self.provider.bills()).items():
            if times > 1:
                self.breaches.append(f"{call} was billed {times} times")

    def _watched(self, body: Callable[[], int], victim: str) -> int:
        """Live with an eye on every call of the rooms; raise at the one that is named."""
        seen: Counter[str] = Counter()
        lock = threading.Lock()
        made: list[str] = []
        raised = KINDS[self.kind]

        def profile(frame: FrameType, event: str, _: Any) -> None:
            if event != "call":
                return
            code, caller = frame.f_code, frame.f_back
            if not code.co_filename.startswith(SOURCE):
                return
            room = code.co_filename[len(SOURCE) :]
            if not room.startswith(ROOMS) or "offline" in room:
                return
            by = f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}" if caller else ""
            name = f"{room} {code.co_qualname} from {by}"
            with lock:
                seen[name] += 1
                name = f"{name}#{seen[name]}"
                made.append(name)
            if name == victim:
                (self.tmp / "hit").touch()
                raise raised()

        threading.setprofile(profile)
        sys.setprofile(profile)
        try:
            return body()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            (self.tmp / "calls").write_text("\n".join(made))
