"""Kill the daemon at every system call of a job that can leave something behind (rows 1 and 2), and judge what comes.

A life goes from the first call of the process through start, request, answers and RESULT to its end after SIGTERM. It
is killed at one point; a life without a tracer then has to finish. With --pairs that second life is killed too, at
every point of its own, and a third has to finish.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from answers import GUARDED
from delegated.folder import PREFIX, Folder
from delegated.outcomes import Outcomes
from delegated.record import pack, unpack
from faults import nursery
from faults.judging import left_over, results, torn, unsettled
from faults.tracer import Trail, calls
from harness import House, request_text, until

KEY = "one"
MALFORMED = {"match": {"path": "/v1/responses", "method": "POST"}, "do": {"text": "I think it is the division."}}

EDITED = {"match": {"path": "/v1/responses", "method": "POST"}, "times": "always", "do": {"answer": GUARDED}}


@dataclass(frozen=True)
class Scene:
    """One kind of job: its wire, whether the provider stores calls, its first answer, how many calls it makes."""

    wire: str = "responses"
    store: str = "true"
    rules: tuple[dict[str, Any], ...] = ()
    calls: int = 1
    statuses: tuple[str, ...] = ("answered",)
    again: bool = False  # it was answered before, somebody said how that turned out, and now it is edited

    @property
    def text(self) -> str:
        """Return the REQUEST that is dropped."""
        return request_text("it fails otherwise" if self.again else "it divides by zero")


SCENES = {
    "responses": Scene(),
    "chat": Scene("chat"),
    "repair": Scene(rules=(MALFORMED,), calls=2),
    "patch": Scene(rules=(EDITED,)),
    "chat-unstored": Scene("chat", "false", statuses=("answered", "uncertain")),
    "messages": Scene("messages", statuses=("answered", "uncertain")),
    "outcome": Scene(calls=2, again=True),
}


@dataclass
class Tally:
    """What a sweep did."""

    points: int = 0  # kills that hit
    pairs: int = 0
    stands_for: int = 0  # pairs with the same states before them
    lives: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)


class Ground:
    """A workspace, the daemon's lives on it, and the provider; as one whole it can be saved and brought back."""

    def __init__(self, tmp: Path, scene: Scene) -> None:
        self.tmp = tmp
        self.scene = scene
        self.place = tmp / "now"
        self.place.mkdir(parents=True)
        self.house = House(self.place)
        self.provider = nursery.Provider(self.place)
        self.lives = 0
        self._serve()
        self.house.env |= {
            "DELEGATED_MODEL": "gpt-4o",
            "OPENAI_API_KEY": "sk-test-0123456789abcdefghij",
            "DELEGATED_ENDPOINTS__OPENAI__BASE_URL": self.provider.base_url,
            "DELEGATED_ENDPOINTS__OPENAI__WIRE": scene.wire,
            "DELEGATED_ENDPOINTS__OPENAI__STORE": scene.store,
            "DELEGATED_DOUBT_WAIT_S": "0.2",
            "DELEGATED_DEADLINE_S": "30",
            "DELEGATED_SETTLE_MS": "10",
        }
        if scene.again:
            self.house.drop(KEY, request_text("it divides by zero"))
            assert self.recover() == 0, self.log.read_text()
            (self.house.folder / f"{PREFIX}OUTCOME_{KEY}.yaml").write_text("outcome: fixed\n")
        self.save("start")

    def _serve(self) -> None:
        told = len(self.provider.bills())
        self.provider.start(list(self.scene.rules[told:]))

    def save(self, name: str) -> None:
        self.provider.stop()
        shutil.copytree(self.place, self.tmp / name, symlinks=True)
        self._serve()

    def restore(self, name: str) -> None:
        self.provider.stop()
        shutil.rmtree(self.place)
        shutil.copytree(self.tmp / name, self.place, symlinks=True)
        self._serve()

    def forget(self, name: str) -> None:
        shutil.rmtree(self.tmp / name)

    def close(self) -> None:
        self.provider.stop()

    def _life(self, *arguments: str) -> dict[str, Any]:
        self.lives += 1
        self.log = self.place / f"life{self.lives}.log"
        self.log.touch()
        return {
            "body": nursery.daemon(self.house.workspace, *arguments),
            "log": self.log,
            "env": self.house.env,
            "cwd": self.house.workspace,
        }

    def _traced(self, *arguments: str, victim: str, after: bool) -> nursery.Traced:
        return nursery.Traced(**self._life(*arguments), root=self.place, victim=victim, after=after)

    def serve(self, victim: str = "", *, after: bool = False) -> Trail:
        """Live through a whole service, traced: start, a request dropped when ready, SIGTERM when it is settled."""
        life = self._traced(victim=victim, after=after)
        until(lambda: life.over() or b'"worker.ready"' in self.log.read_bytes(), what="ready", pause=0.003)
        if not life.over():
            self.house.drop(KEY, self.scene.text)
            folder = self.house.folder
            settled = lambda: self._stands() and not unsettled(folder) and not left_over(folder)  # noqa: E731
            until(lambda: life.over() or settled(), what=f"settled or killed at {victim}", pause=0.003)
        if not life.over():
            try:
                os.kill(life.pid, 15)
            except ProcessLookupError:
                pass
        trail = life.end()
        request = self.house.request(KEY)
        if not request.exists() or request.read_text() != self.scene.text:  # killed before: dropped all the same
            self.house.drop(KEY, self.scene.text)
        return trail

    def _stands(self) -> bool:
        """Say whether the RESULT of the REQUEST that was dropped stands."""
        try:
            result = json.loads((self.house.folder / f"{PREFIX}RESULT_{KEY}.json").read_bytes())
        except FileNotFoundError:
            return False
        return result["request"]["revision"] == 1 + self.scene.again

    def later(self) -> None:
        """Let an hour pass for what was sent: every call's deadline is over, so that a look-up need not wait for it."""
        for path in self.house.folder.glob(".delegated/jobs/*/*/r*/calls/*/sent.*"):
            record = unpack(path.read_bytes())
            if record is not None:
                header, body = record
                aged = {name: header[name] - 3600 for name in ("at", "up")}
                path.write_bytes(pack({**header, **aged}, body))

    def finish(self, victim: str = "", *, after: bool = False) -> Trail:
        """Live until everything in the folder is settled, traced."""
        self.later()
        return self._traced("--once", victim=victim, after=after).end()

    def recover(self) -> int:
        """Live until everything in the folder is settled, without a tracer; return the exit code."""
        self.later()
        return nursery.Life(**self._life("--once")).wait()

    def state(self) -> tuple[str, ...]:
        """Say what is on disk and at the provider, but for times, numbers of processes and the like.

        Records never change under their name, so the names say it; temporary files count by their sizes.
        """
        folder = self.house.folder
        found = []
        for path in folder.rglob("*"):
            name = str(path.relative_to(folder))
            if name.startswith(".delegated/tmp/"):
                name = f"tmp {path.stat().st_size // 64}"
            elif "index.sqlite" in name:
                name += f" {path.stat().st_size}"
            found.append(name)
        known = Counter(record["record"] for record in self.provider.records())
        return (*sorted(found), *(f"{kind} {count}" for kind, count in sorted(known.items())))

    def judge(self) -> tuple[str, list[str]]:
        """Return how the request ended and every breach of the promise."""
        folder = self.house.folder
        breaches = torn(folder)
        ended = "lost"
        try:
            result = results(folder)[KEY]
        except KeyError:
            breaches.append("the request has no RESULT")
        else:
            ended = result["status"]
            if ended not in self.scene.statuses:
                breaches.append(f"it ended as {ended}: {result.get('error')}")
            if not self._stands():
                breaches.append(f"the RESULT is about {result.get('request')}")
        if self.scene.again:
            breaches += self._outcome()
        breaches += [f"not settled: {name}" for name in unsettled(folder)]
        breaches += [f"left over: {name}" for name in left_over(folder)]
        bills = Counter(bill["call"] or "?" for bill in self.provider.bills())
        breaches += [f"{call} was billed {count} times" for call, count in bills.items() if count > 1]
        if bills.total() > self.scene.calls:
            breaches.append(f"{bills.total()} bills for {self.scene.calls} call(s)")
        return ended, breaches

    def _outcome(self) -> list[str]:
        """Say where what somebody said of the former RESULT is not kept with it, or does not count once."""
        folder = Folder(str(self.house.folder), create=False)
        try:
            outcomes = Outcomes(folder)
            outcomes.see([KEY], full=True)
        finally:
            folder.close()
        words = [one.word for one in outcomes.judged]
        breaches = [] if words == ["fixed"] else [f"of one outcome there count {words}"]
        if (self.house.folder / f"{PREFIX}OUTCOME_{KEY}.yaml").exists():
            breaches.append("an OUTCOME about the former RESULT lies beside the new one")
        return breaches


class Sweep:
    """All kills of one scene."""

    def __init__(self, ground: Ground, tally: Tally, *, after: bool = False, talk: bool = False) -> None:
        self.ground = ground
        self.tally = tally
        self.after = after
        self.talk = talk

    def baseline(self, *, times: int = 3) -> list[str]:
        """Return every point that lives without a kill came by, in the order in which they were first seen."""
        seen: dict[str, None] = {}
        for _ in range(times):
            self.ground.restore("start")
            trail = self.ground.serve()
            assert os.waitstatus_to_exitcode(trail.status) == 0, self.ground.log.read_text()
            _, breaches = self.ground.judge()
            assert not breaches, breaches
            seen |= dict.fromkeys(trail.points)
        return list(seen)

    def singles(self, points: list[str]) -> None:
        """Kill at each of these points; each must really be hit, if a few tries come by it."""
        for point in points:
            if self._first(point):
                self.tally.points += 1
                self._recover(f"killed at {point}")
            else:
                self.tally.missed.append(point)

    def _first(self, point: str, tries: int = 4) -> bool:
        for _ in range(tries):
            self.ground.restore("start")
            if self.ground.serve(point, after=self.after).killed_at:
                return True
        return False

    def _recover(self, what: str) -> None:
        code = self.ground.recover()
        ended, breaches = self.ground.judge()
        self.tally.ends[ended] += 1
        if breaches or (code != 0) != (ended != "answered"):
            self.tally.breaches.append(f"{what}: exit {code}; {'; '.join(breaches)}\n{self._tail()}")
            print(self.tally.breaches[-1], file=sys.stderr, flush=True)

    def _tail(self) -> str:
        return "\n".join(self.ground.log.read_text().splitlines()[-4:])

    def some_pairs(self, points: list[str], count: int, chance: random.Random) -> None:
        """Kill at a point chosen by chance, then the recovery at one of its own, then recover; `count` times."""
        while self.tally.pairs < count:
            point = chance.choice(points)
            if not self._first(point):
                continue
            self.tally.points += 1
            self.ground.save("killed")
            seconds = self.ground.finish().points
            self.ground.restore("killed")
            self.ground.forget("killed")
            trail = self.ground.finish(second := chance.choice(seconds), after=self.after)
            if trail.killed_at:
                self.tally.pairs += 1
                self.tally.stands_for += 1
            self._recover(f"killed at {point}, then at {second}")

    def pairs(self, points: list[str], *, merge: bool, until_s: float) -> None:
        """Kill at each of these points, then the recovery at each of its own, then recover.

        With `merge`, of first kills that left the same state one is followed up: a recovery is made from the state
        alone. The same holds for the states that the second kills leave.
        """
        followed: dict[tuple[str, ...], int] = {}
        recovered: set[tuple[str, ...]] = set()
        for number, point in enumerate(points, 1):
            if time.monotonic() > until_s:
                print(f"  out of time after the first kills at {number - 1} of {len(points)} points")
                return
            if not self._first(point):
                self.tally.missed.append(point)
                continue
            self.tally.points += 1
            before = self.ground.state()
            if merge and before in followed:
                self.tally.stands_for += followed[before]
                continue
            self.ground.save("killed")
            seen: dict[str, None] = dict.fromkeys(self.ground.finish().points)
            _, breaches = self.ground.judge()
            if breaches:
                self.tally.breaches.append(f"killed at {point}: {'; '.join(breaches)}")
            done: set[str] = set()
            missed = 0
            while todo := [second for second in seen if second not in done]:
                second = todo[0]
                done.add(second)
                for _ in range(3):
                    self.ground.restore("killed")
                    trail = self.ground.finish(second, after=self.after)
                    if trail.killed_at:
                        break
                    seen |= dict.fromkeys(trail.points)
                else:
                    missed += 1
                    continue
                self.tally.pairs += 1
                self.tally.stands_for += 1
                after = self.ground.state()
                if not (merge and after in recovered):
                    self._recover(f"killed at {point}, then at {second}")
                    recovered.add(after)
            followed[before] = len(done) - missed
            self.ground.forget("killed")
            if self.talk:
                print(f"  {number}/{len(points)} {point}: {len(done) - missed} second kills", flush=True)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults sweep", description=__doc__)
    parser.add_argument("--wire", choices=tuple(SCENES), action="append", help="only this kind of job; may be repeated")
    parser.add_argument("--pairs", action="store_true", help="kill the recovery too, at each of its points")
    parser.add_argument("--all", action="store_true", help="with --pairs: also where the state was met before")
    parser.add_argument("--after", action="store_true", help="kill when the call has returned, not before it is made")
    parser.add_argument("--sample", type=int, metavar="N", help="only N points (or pairs) of each kind of job")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="for --sample, and for the order of --pairs")
    parser.add_argument(
        "--minutes", type=float, default=1e6, metavar="M", help="with --pairs: begin nothing after that"
    )
    parser.add_argument(
        "--part", type=_part, default=(1, 1), metavar="I/N", help="only the I-th of N shares of the points"
    )
    parser.add_argument("--list", action="store_true", help="only print the points")
    given = parser.parse_args(argv)
    if sys.platform != "linux" or not calls():
        print("a tracer for this machine is not written", file=sys.stderr)
        return 69
    nursery.prepare()
    failed = 0
    for name in given.wire or (["responses"] if given.pairs else SCENES):
        failed += not _scene(name, given)
    return 1 if failed else 0


def _part(text: str) -> tuple[int, int]:
    number, _, shares = text.partition("/")
    share = int(number), int(shares)
    if not 1 <= share[0] <= share[1]:
        raise ValueError(text)
    return share


def _scene(name: str, given: argparse.Namespace) -> bool:
    began = time.monotonic()
    tally = Tally()
    with nursery.ground() as tmp:
        ground = Ground(tmp, SCENES[name])
        try:
            sweep = Sweep(ground, tally, after=given.after, talk=given.pairs)
            points = sweep.baseline()
            if given.list:
                print("\n".join(points))
                return True
            chance = random.Random(given.seed)
            chosen = points
            if given.sample or given.pairs:
                chosen = chance.sample(points, min(given.sample or len(points), len(points)))
            number, shares = given.part  # by name: another process may have come by a few others
            chosen = [point for point in chosen if crc32(point.encode()) % shares == number - 1]
            if given.pairs and given.sample:
                sweep.some_pairs(points, given.sample, chance)
            elif given.pairs:
                sweep.pairs(chosen, merge=not given.all, until_s=began + given.minutes * 60)
            else:
                sweep.singles(chosen)
        finally:
            ground.close()
    spent = time.monotonic() - began
    words = f"{name}: killed at {tally.points} of {len(points)} points"
    if given.pairs:
        words += f", {tally.pairs} pairs run, which stand for {tally.stands_for}"
    ends = ", ".join(f"{count} {end}" for end, count in tally.ends.most_common())
    print(
        f"{words}; recovered: {ends}; breaches: {len(tally.breaches)}; {ground.lives} lives, {spent:.0f} s", flush=True
    )
    for point in tally.missed:
        print(f"  not come by again: {point}")
    return not tally.breaches
