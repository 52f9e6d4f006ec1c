"""The power fails: every state that the disk may be left in, at every operation of a job, recovered and judged.

The real daemon does a job while its operations are recorded (`recording/`); from the record follow the crash states
(`crashes`), each with the server's memory of that moment; the real program recovers them (`recovering`). States that a
start cannot tell apart, by all that it reads, are recovered once.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from delegated.record import unpack
from faults.crashes import Count, Model, Recording, State, is_record
from harness import PREFIX, TRACE, Daemon, House, Server, request_text, until

_HERE: Final = Path(__file__).parent
_PATIENCE_S: Final = 150.0
KEY: Final = "one"
_REQUEST: Final = f"{PREFIX}REQUEST_{KEY}.md"
_RETRY: Final = f"{PREFIX}RETRY_{KEY}"
_CANCEL: Final = f"{PREFIX}CANCEL_{KEY}"
_EDITED: Final = request_text("it divides by zero when nothing was sold")
_MALFORMED: Final = (
    {"match": {"contains": "You have answered this once"}, "times": "always", "do": {"latency": 0}},
    {"match": {"method": "POST", "path": "/v1/responses"}, "times": "always", "do": {"text": "not JSON at all"}},
)
_LONG: Final = ({"match": {"method": "POST", "path": "/v1/responses"}, "times": "always", "do": {"run": 3600}},)
_BUSY: Final = ({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"status": 429, "retry_after": 0}},)


class Writer:
    """Somebody who writes into the folder, and never syncs; in the record, what he does comes before it is seen."""

    def __init__(self, house: House, server: Server, log: Path) -> None:
        self._house, self._server, self._log = house, server, log
        self.orders: dict[str, str] = {}

    def put(self, name: str, text: str) -> None:
        """Move a file in, over what is there."""
        temp = self._house.outside / "new"
        temp.write_text(text)
        info = temp.stat()
        self.orders[name] = f"{info.st_ino}.{info.st_mtime_ns}"
        self._tell("put", name, text)
        os.rename(temp, self._house.folder / name)

    def edit(self, name: str, text: str) -> None:
        """Write a file anew where it stands."""
        self._tell("edit", name, text)
        (self._house.folder / name).write_text(text)

    def until_there(self, record: str) -> None:
        """Wait until a record has its name."""
        until(lambda: list((self._house.folder / ".delegated").glob(record)), what=record)

    def _tell(self, op: str, name: str, text: str) -> None:
        data = base64.b64encode(text.encode()).decode()
        line = json.dumps({"net": self._server.state.stat().st_size, "op": op, "path": name, "data": data})
        with open(self._log, "a") as log:
            log.write(line + "\n")


def _settled(daemon: Daemon, times: int) -> None:
    until(
        lambda: sum(event.get("event") == "job.settled" for event in daemon.events()) >= times,
        what=f"{times} job(s) settled",
        pause=0.05,
    )


def _once(writer: Writer, daemon: Daemon) -> None:
    writer.put(_REQUEST, request_text())
    _settled(daemon, 1)


def _edited(writer: Writer, daemon: Daemon) -> None:
    _once(writer, daemon)
    writer.edit(_REQUEST, _EDITED)
    _settled(daemon, 2)


def _replaced(writer: Writer, daemon: Daemon) -> None:
    _once(writer, daemon)
    writer.put(_REQUEST, _EDITED)
    _settled(daemon, 2)


def _asked_again(writer: Writer, daemon: Daemon) -> None:
    _once(writer, daemon)
    writer.put(_RETRY, "")
    _settled(daemon, 2)


def _bad(writer: Writer, daemon: Daemon) -> None:
    writer.put(_REQUEST, "---\nmodles: gpt-4o\n---\n# Issue\n\nit breaks\n")
    _settled(daemon, 1)


def _cancelled(writer: Writer, daemon: Daemon) -> None:
    writer.put(_REQUEST, request_text())
    writer.until_there("jobs/*/one/r1/calls/*/accepted.1")
    writer.put(_CANCEL, "")
    _settled(daemon, 1)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A job to be recorded, and what may come of it."""

    name: str
    words: str
    act: Callable[[Writer, Daemon], None] = _once
    wire: str = "responses"
    store: str = "auto"
    bills: int = 1  # paid at most, whenever the power fails
    statuses: tuple[str, ...] = ("answered",)
    could_tell: bool = True  # the provider's look-up shows a call whose answer was lost
    rules: tuple[dict[str, Any], ...] = ()
    deadline_s: float = 60.0  # of a call that is made after the cut
    rules_after: bool = False  # the server that is met after the cut keeps to them too
    settings: dict[str, Any] = field(default_factory=dict)


SCENARIOS: Final = (
    Scenario("one", "one call on the Responses wire"),
    Scenario("chat", "one call on the Chat wire, found by its metadata", wire="chat", store="true"),
    Scenario("chat-unstored", "one call that nobody can look up", wire="chat", store="false", could_tell=False),
    Scenario("two", "two calls: the first answer is malformed", bills=2, rules=_MALFORMED, rules_after=True),
    Scenario("refused", "a call refused with 429 and sent again", rules=_BUSY, settings={"retry__base_s": "0.05"}),
    Scenario("edit", "an answered request edited in place: a new revision", _edited, bills=2),
    Scenario("replace", "an answered request replaced by a rename", _replaced, bills=2),
    Scenario("retry", "an answered request asked again by a RETRY file", _asked_again, bills=2),
    Scenario(
        "cancel",
        "a call that runs at the provider for an hour, and a CANCEL file",
        _cancelled,
        statuses=("cancelled", "failed"),  # a CANCEL that was not synced may be gone: then its deadline ends the call
        could_tell=False,  # the look-up shows a call when it ends
        rules=_LONG,
        rules_after=True,
        deadline_s=1.0,
    ),
    Scenario("rejected", "a request that is rejected", _bad, bills=0, statuses=("rejected",)),
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A scenario as it was recorded, with the environment in which it is recovered."""

    scenario: Scenario
    recording: Recording
    orders: dict[str, str]
    env: dict[str, str]


def record(scenario: Scenario, tmp: Path) -> Recorded:
    """Let a real daemon do the job, from the first start on an empty folder, against a real server."""
    tmp.mkdir()
    house, server = House(tmp), Server(tmp)
    try:
        log = tmp / "operations"
        log.touch()
        house.use(server, scenario.wire, endpoints__openai__store=scenario.store, **scenario.settings)
        if scenario.rules:
            server.script(*scenario.rules)
        env = dict(house.env)
        house.env |= {
            "PYTHONPATH": os.pathsep.join([str(_HERE / "recording"), *filter(None, [house.env["PYTHONPATH"]])]),
            "RECORD_LOG": str(log),
            "RECORD_ROOT": str(house.folder),
            "RECORD_LEDGER": str(server.state),
        }
        daemon = house.up()
        writer = Writer(house, server, log)
        scenario.act(writer, daemon)
        code = daemon.stop()
        assert code == 0, f"the daemon ended with {code}: {daemon.log.read_text()[-1500:]}"
        return Recorded(scenario, Recording(log.read_bytes(), server.state.read_bytes()), writer.orders, env)
    finally:
        house.close()
        server.close()


class Recoverer:
    """The process that recovers states, started anew when it hangs or dies."""

    def __init__(self, recorded: Recorded, room: Path) -> None:
        self._recorded = recorded
        self._room = room
        self._env = recorded.env | {
            "DELEGATED_SETTLE_MS": "1",
            "DELEGATED_QUIET_S": "0.1",
            "DELEGATED_DEADLINE_S": str(recorded.scenario.deadline_s),
            "DELEGATED_DOUBT_WAIT_S": "0.02",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    def recover(self, state: State) -> dict[str, Any]:
        """Return what `recovering.recover` found, or `{"broke": why}`."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(_HERE / "recovering.py"), str(self._room)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._env,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        scenario = self._recorded.scenario
        order = {
            "files": {path: base64.b64encode(data).decode() for path, data in state.files.items()},
            "directories": sorted(state.directories),
            "leftovers": state.leftovers,
            "rows": [[row.name, row.key, row.sha256] for row in state.rows],
            "ledger": b"".join(self._recorded.recording.ledger[: state.net]).decode(),
            "orders": self._recorded.orders,
            "rules": list(scenario.rules) if scenario.rules_after else [],
        }
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._end()
            return {"broke": "the program ended"}
        if not select.select([self._process.stdout], [], [], _PATIENCE_S)[0]:
            self._end()
            return {"broke": f"not recovered within {_PATIENCE_S:g} s"}
        line = self._process.stdout.readline()
        if not line:
            self._end()
            return {"broke": "the program ended"}
        answer: dict[str, Any] = json.loads(line)
        return answer


def breaches(scenario: Scenario, state: State, found: dict[str, Any]) -> Iterator[str]:
    """Yield what breaks the promise."""
    if "broke" in found:
        yield f"not recovered: {found['broke']}"
        return
    yield from (f"right after the cut: {words}" for words in found["torn"])
    first, second = found["first"], found["second"]
    for start in (first, second):
        yield from start["torn"] + start["twice"]
        yield from (f"left: {name}" for name in start["left"])
        yield from (f"no `done`: {name}" for name in start["unsettled"])
    if second["bills"] != first["bills"] or second["results"] != first["results"]:
        yield f"the second start changed something: {first} became {second}"
    if first["bills"] > scenario.bills:
        yield f"billed {first['bills']} times, {scenario.bills} at most were asked for"
    claims, done = _sound(state, "claim"), _sound(state, "done")
    if f"{PREFIX}RESULT_{KEY}.md" in state.files and scenario.statuses == ("answered",) and not _answered(state):
        yield "a RESULT was published before the reply was recorded"
    request = state.files.get(_REQUEST, b"")
    wanted = bool(request) or bool(claims) or found["billed_before"] > 0 or KEY in found["stood"]
    status, revision = first["results"].get(KEY, (None, 0))
    if wanted and status is None:
        yield "lost: no RESULT"
    allowed = {*scenario.statuses}
    if request and not _is_whole(request):
        allowed.add("rejected")  # its writer did not sync it, and nothing of it was taken: it may be half
    if not scenario.could_tell and _in_doubt(state):
        allowed.add("uncertain")
    if status is not None and status not in allowed:
        yield f"ended as {status}"
    if revision < max(claims, default=0):
        yield f"revision {max(claims)} was claimed, and the RESULT is of {revision}"
    for former in range(1, revision):
        if former in done and not {f"{KEY}/{former}.md", f"{KEY}/{former}.json"} <= set(first["history"]):
            yield f"the RESULT of revision {former} is gone"
    if first["orders"]:
        yield f"obeyed and still there: {first['orders']}"


def _end(scenario: Scenario, found: dict[str, Any]) -> object:
    """Return what two states that read alike must have in common: all but which of the good ends it was."""
    first = found.get("first", {})
    status, revision = first.get("results", {}).get(KEY, ("", 0))
    good = "good" if status in scenario.statuses else status
    return good, revision, first.get("bills"), first.get("history"), first.get("orders")


def _sound(state: State, name: str) -> list[int]:
    """Return the revisions whose record of this name is there and sound."""
    found = []
    for path, data in state.files.items():
        if path.endswith(f"/{name}") and is_record(path) and unpack(data) is not None:
            found.append(int(path.split("/")[-2][1:]))
    return found


def _answered(state: State) -> bool:
    return any(path.endswith("/reply") and unpack(data) is not None for path, data in state.files.items())


def _is_whole(data: bytes) -> bool:
    return data.endswith(TRACE.encode() + b"```\n")


def _in_doubt(state: State) -> bool:
    names = [path for path in state.files if is_record(path)]
    return any("/sent." in path and path.rpartition("/")[0] + "/reply" not in names for path in names)


@dataclass(slots=True)
class Verdict:
    """What was enumerated, what was recovered, and each breach with the first state that showed it."""

    count: Count = field(default_factory=Count)
    states: int = 0
    groups: int = 0
    recovered: int = 0
    twins: int = 0  # groups of which a second state was recovered too, and ended like the first
    uncertain: int = 0
    seconds: float = 0.0
    breaches: Counter[str] = field(default_factory=Counter)
    examples: dict[str, State] = field(default_factory=dict)

    def line(self) -> str:
        """Say it in one line."""
        bounded = f", {self.count.bounded} of {self.count.points} points bounded" if self.count.bounded else ""
        return (
            f"{self.states:,} states in {self.groups:,} groups, {self.recovered:,} recovered (and {self.twins} twins) "
            f"in {self.seconds:.0f} s{bounded}, {self.uncertain} uncertain, {self.breaches.total()} breaches"
        )


def judge(
    recorded: Recorded, model: Model, room: Path, *, sample: int | None = None, seed: int = 0, first: bool = False
) -> Verdict:
    """Recover every group of states (or a seeded sample of so many) and judge it; with `first` until one breach."""
    verdict = Verdict()
    groups: dict[str, State] = {}
    twins: dict[str, State] = {}
    sizes: Counter[str] = Counter()
    for state in recorded.recording.states(model, verdict.count):
        name = state.seen()
        if name in groups:
            twins[name] = state
        groups.setdefault(name, state)
        sizes[name] += 1
    verdict.states, verdict.groups = sizes.total(), len(groups)
    chosen = list(groups)
    if sample is not None and sample < len(chosen):
        chosen = random.Random(seed).sample(chosen, sample)
    started = time.monotonic()
    with Recoverer(recorded, room) as recoverer:
        for name in chosen:
            found = recoverer.recover(groups[name])
            verdict.recovered += 1
            verdict.uncertain += found.get("first", {}).get("results", {}).get(KEY, [""])[0] == "uncertain"
            broken = list(breaches(recorded.scenario, groups[name], found))
            if name in twins and not broken:
                verdict.twins += 1
                other = recoverer.recover(twins[name])
                broken += breaches(recorded.scenario, twins[name], other)
                # Where a deadline ends it, a slow machine may be late with either of them.
                if recorded.scenario.deadline_s >= 60 and _end(recorded.scenario, other) != _end(
                    recorded.scenario, found
                ):
                    broken.append(f"two states that read alike ended apart: {found} and {other}")
            for breach in dict.fromkeys(broken):
                verdict.breaches[breach] += sizes[name]
                verdict.examples.setdefault(breach, groups[name])
            if first and verdict.breaches:
                break
    verdict.seconds = time.monotonic() - started
    return verdict


def describe(recorded: Recorded, state: State) -> str:
    """Show where a state comes from: the last operations before the cut, and what was left."""
    lines = [f"  cut after event {state.point}; the server remembers {state.net} line(s); index rows {state.rows}"]
    for event in recorded.recording.events[max(0, state.point - 6) : state.point]:
        lines.append("    " + json.dumps({name: value for name, value in event.items() if name not in ("data", "net")}))
    lines += [f"    left: {path} ({len(data)} bytes)" for path, data in sorted(state.files.items())]
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Enumerate, recover and judge all states; 0 when there is no breach."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults power", description=main.__doc__)
    parser.add_argument("--model", choices=("ordered", "weak"), action="append", help="default: both")
    parser.add_argument("--job", choices=[each.name for each in SCENARIOS], action="append", help="default: all")
    parser.add_argument("--sample", type=int, metavar="N", help="recover only so many groups of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", action="store_true", help="stop each at its first breach")
    given = parser.parse_args(argv)
    models: list[Model] = given.model or ["ordered", "weak"]
    failed, totals = 0, {model: Counter[str]() for model in models}
    with tempfile.TemporaryDirectory(prefix="power-", dir=_memory()) as tmp:
        for scenario in SCENARIOS:
            if given.job and scenario.name not in given.job:
                continue
            recorded = record(scenario, Path(tmp) / scenario.name)
            for model in models:
                verdict = judge(
                    recorded, model, Path(tmp) / "room", sample=given.sample, seed=given.seed, first=given.first
                )
                totals[model].update(states=verdict.states, groups=verdict.groups, recovered=verdict.recovered)
                print(f"{scenario.name:<14} {model:<8} {verdict.line()}", flush=True)
                for breach, times in verdict.breaches.most_common():
                    print(f"  {times} times: {breach}\n{describe(recorded, verdict.examples[breach])}")
                failed += verdict.breaches.total()
    for model, total in totals.items():
        print(f"{model}: {total['states']:,} states, {total['groups']:,} groups, {total['recovered']:,} recovered")
    return 1 if failed else 0


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
