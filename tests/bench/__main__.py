"""Measure and print. `python -m tests.bench [--quick] [--only NAME]`; nothing here passes or fails."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import finding, gathering, hiding
from harness import Daemon, House, Server, until

_TEXTS = itertools.count(1)
TICKS = os.sysconf("SC_CLK_TCK")
LINE = "    value = compute(first, second)  # a line of ordinary code\n"


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


class Table:
    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str]] = []

    def add(self, what: str, measured: str, target: str = "", note: str = "") -> None:
        self.rows.append((what, measured, target, note))
        print(f"  {what}: {measured} {note}", file=sys.stderr, flush=True)

    def show(self) -> None:
        head = ("what", "measured", "target", "")
        widths = [max(len(row[column]) for row in (head, *self.rows)) for column in range(4)]
        for row in (head, tuple("-" * width for width in widths), *self.rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def scene(*, latency: float = 0.0, server: bool = True, **settings: object) -> Iterator[tuple[House, Server | None]]:
    """A workspace with 20 kB of code, a server, and the settings of the daemon, in a directory on a real disk."""
    tmp = Path(tempfile.mkdtemp(prefix="delegated-bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")))
    house = House(tmp)
    (house.workspace / "app.py").write_text("def compute(first, second):\n" + LINE * 320)
    running = Server(tmp, "--latency", str(latency)) if server else None
    if running is not None:
        house.use(running, **settings)
    else:
        house.set(**settings)
    try:
        yield house, running
    finally:
        house.close()
        if running is not None:
            running.close()
        shutil.rmtree(tmp)


def warm(house: House, daemon: Daemon) -> None:
    """Let the first request pay for the imports, as it would seconds after a start."""
    for n in range(3):
        house.drop(f"warm{n}")
        house.result(f"warm{n}")


def claimed_at(daemon: Daemon) -> dict[str, float]:
    return {
        event["request"]: datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")).timestamp()
        for event in daemon.events()
        if event.get("event") == "request.claimed"
    }


def text() -> str:
    """Write a request; each time another one, as the same question is not asked twice."""
    return (
        f"# Issue\n\nit is slow, text {next(_TEXTS):06d}\n\n# Files\n\n- app.py\n\n# Error Logs\n\n```\n"
        + "a log line\n" * 20
        + "```\n"
    )


def latency(table: Table, count: int) -> None:
    with scene() as (house, server):
        assert server is not None
        daemon = house.up()
        warm(house, daemon)
        before = len(server.bills())
        dropped: dict[str, float] = {}
        cpu = cpu_s(daemon.process.pid)
        for n in range(count):
            key = f"r{n:04d}"
            path = house.outside / key
            path.write_text(text())
            dropped[key] = time.time()
            os.rename(path, house.request(key))
            house.result(key)
            time.sleep(0.02)
        cpu = cpu_s(daemon.process.pid) - cpu
        claims = claimed_at(daemon)
        claim = [(claims[key] - at) * 1e3 for key, at in dropped.items()]
        bills = server.bills()[before:]
        sent = {bill["call"].split(".")[1]: bill["at"] for bill in bills}
        post = [(sent[key] - at) * 1e3 for key, at in dropped.items()]
        with urllib.request.urlopen(f"{server.url}/_test/bills/{bills[0]['n']}/body") as answer:
            body = answer.read()
        floor = measure_floor(house, server, body, count)
        once = measure_one_shot(house, server, body, max(3, count // 40))
    p50, p99 = percentile(claim, 0.5), percentile(claim, 0.99)
    table.add("rename-in to claim durable", f"p50 {p50:.2f} ms, p99 {p99:.2f} ms", "p50 <= 2, p99 <= 20")
    middle, low = percentile(post, 0.5), percentile(floor, 0.5)
    table.add(
        "rename-in to request at the server",
        f"p50 {middle:.2f} ms, p99 {percentile(post, 0.99):.2f} ms",
        "p50 <= 3 x floor",
        f"{middle / low:.1f} x floor ({low:.2f} ms), 1/{once / middle:.0f} of a new process ({once:.0f} ms)",
    )
    table.add("CPU a request, 20 kB of context", f"{cpu / count * 1e3:.1f} ms", "<= 10")


def measure_floor(house: House, server: Server, body: bytes, count: int) -> list[float]:
    folder = house.tmp / "floor-folder" / "in"
    folder.mkdir(parents=True)
    body_file = house.tmp / "body.json"
    small = json.loads(body)
    small.pop("conversation", None)
    small.pop("metadata", None)
    body_file.write_text(json.dumps(small))
    command = [sys.executable, "-m", "tests.bench.floor", str(folder), f"{server.base_url}/responses", str(body_file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    before = len(server.bills())
    at = []
    for n in range(count):
        path = house.outside / "floor"
        path.write_text(text())
        at.append(time.time())
        os.rename(path, folder / str(n))
        process.stdout.readline()
        time.sleep(0.02)
    (house.outside / "floor").write_text("")
    os.rename(house.outside / "floor", folder / "stop")
    process.communicate(timeout=10)
    return [(bill["at"] - start) * 1e3 for bill, start in zip(server.bills()[before:], at, strict=True)]


def measure_one_shot(house: House, server: Server, body: bytes, count: int) -> float:
    spans = []
    for _ in range(count):
        before = len(server.bills())
        start = time.time()
        script = Path(__file__).with_name("one_shot.py")
        subprocess.run([sys.executable, str(script), server.base_url, str(house.tmp / "body.json")], check=True)
        spans.append((server.bills()[before]["at"] - start) * 1e3)
    return statistics.median(spans)


def in_place(table: Table, count: int) -> None:
    with scene() as (house, _):
        daemon = house.up()
        warm(house, daemon)
        closed: dict[str, float] = {}
        for n in range(count):
            key = f"w{n:04d}"
            with open(house.request(key), "w") as file:
                file.write(text())
            closed[key] = time.time()
            house.result(key)
        claims = claimed_at(daemon)
    after = [(claims[key] - at) * 1e3 - 300 for key, at in closed.items()]
    table.add(
        "written in place: claimed after settle (300 ms) +",
        f"p50 {percentile(after, 0.5):.1f} ms, p99 {percentile(after, 0.99):.1f} ms",
        "<= 10",
    )


def flood(table: Table, count: int) -> None:
    with scene(latency=0.2, concurrency=64) as (house, server):
        assert server is not None
        daemon = house.up()
        warm(house, daemon)
        before = len(server.bills())
        cpu = cpu_s(daemon.process.pid)
        start = time.monotonic()
        for n in range(count):
            path = house.outside / f"f{n}"
            path.write_text(text())
            os.rename(path, house.request(f"f{n:05d}"))
        until(
            lambda: (
                sum(name.startswith("OPENAI_DELEGATION_RESULT_f") for name in os.listdir(house.folder)) == 2 * count
            ),
            what="all answered",
            patience=300,
            pause=0.05,
        )
        span = time.monotonic() - start
        cpu = cpu_s(daemon.process.pid) - cpu
        billed = len(server.bills()) - before
    table.add(
        f"{count:,} at once, answers 200 ms, 64 at a time",
        f"{count / span:.0f} a second, {span:.1f} s",
        "all once",
        f"billed {billed:,}; CPU {cpu / count * 1e3:.1f} ms a request",
    )


def idle(table: Table, seconds: float) -> None:
    with scene() as (house, _):
        daemon = house.up()
        time.sleep(3)  # the warm-up thread has its imports to do
        cpu = cpu_s(daemon.process.pid)
        time.sleep(seconds)
        share = (cpu_s(daemon.process.pid) - cpu) / seconds * 100
        resident = rss_mb(daemon.process.pid)
    table.add("idle CPU", f"{share:.2f} %", "< 0.2 %", f"over {seconds:.0f} s")
    table.add("RSS idle, all imports done", f"{resident:.0f} MB")


def waiting(table: Table, count: int) -> None:
    with scene(concurrency=8) as (house, server):
        assert server is not None
        server.script({"match": {"path": "/v1/responses"}, "times": "always", "do": {"run": "forever"}})
        daemon = house.up()
        for n in range(count):
            path = house.outside / f"q{n}"
            path.write_text(text())
            os.rename(path, house.request(f"q{n:05d}"))
        until(lambda: len(server.bills()) == 8, what="eight in flight")
        time.sleep(3)
        table.add(f"RSS with {count:,} waiting", f"{rss_mb(daemon.process.pid):.0f} MB")


def start(table: Table, old: int) -> None:
    for pairs in (0, old):
        with scene() as (house, _):
            for n in range(pairs):
                for kind, suffix, data in (
                    ("REQUEST", "md", "x fails"),
                    ("RESULT", "md", "page"),
                    ("RESULT", "json", "{}"),
                ):
                    (house.folder / f"OPENAI_DELEGATION_{kind}_{n:06d}.{suffix}").write_text(data)
            spans = []
            for _ in range(3):
                begin = time.monotonic()
                daemon = house.up()
                spans.append(time.monotonic() - begin)
                resident = rss_mb(daemon.process.pid)
                daemon.stop()
            name = f"start to READY, {pairs:,} old RESULT pairs" if pairs else "start to READY, empty folder"
            table.add(
                name, f"{statistics.median(spans):.2f} s", "<= 2 s" if pairs else "<= 1 s", f"RSS {resident:.0f} MB"
            )


def client(table: Table, count: int) -> None:
    """Start-up of the commands that run no job, as a ratio to the bare interpreter."""

    def median(*command: str) -> float:
        spans = []
        for _ in range(count):
            begin = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=workspace, env=env)
            spans.append((time.perf_counter() - begin) * 1e3)
        return statistics.median(spans)

    with scene(server=False) as (house, _):
        workspace, env = house.workspace, house.env
        bare = median(sys.executable, "-c", "pass")
        limit = 2.5 * bare + 60
        program = shutil.which("delegate", path=os.path.dirname(sys.executable)) or "delegate"
        for arguments in (("--help",), ("list",), ("status",), ("ask", "--issue", "x", "--no-wait")):
            spent = median(program, *arguments)
            table.add(
                f"delegate {' '.join(arguments)}", f"{spent:.0f} ms", f"<= {limit:.0f}", f"bare python {bare:.0f} ms"
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, for a first look")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help="latency, in_place, flood, idle, waiting, start, client, secrets, finding, gathering",
    )
    parser.add_argument("--cases", type=Path, default=finding.CASES, help="a directory of cases for `finding`")
    given = parser.parse_args()
    share = 10 if given.quick else 1
    parts: dict[str, Callable[[Table], None]] = {
        "latency": lambda t: latency(t, 200 // share),
        "in_place": lambda t: in_place(t, 50 // share),
        "flood": lambda t: flood(t, 1000 // share),
        "idle": lambda t: idle(t, 30 / share),
        "waiting": lambda t: waiting(t, 1000 // share),
        "start": lambda t: start(t, 100_000 // share),
        "client": lambda t: client(t, 20 // share),
        "secrets": lambda t: hiding.measure(t.add),
        "finding": lambda t: finding.measure(t.add, given.cases, 5_000 // share),
        "gathering": lambda t: gathering.measure(t.add, 5_000 // share),
    }
    table = Table()
    for name, part in parts.items():
        if not given.only or name in given.only:
            print(name, file=sys.stderr)
            part(table)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}\n")
    table.show()


if __name__ == "__main__":
    main()
