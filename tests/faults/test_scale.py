"""Rows 79 to 82 of the fault matrix: very many RESULTs, REQUESTs, files that are none; a long time."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from faults.judging import judge, results
from harness import PREFIX, Daemon, House, request_text, running, until

MIB = 1 << 20


def memory(daemon: Daemon) -> int:
    """Return the resident memory of a process in bytes."""
    with open(f"/proc/{daemon.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(daemon: Daemon) -> int:
    """Return the most resident memory that a process ever had, in bytes."""
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def cpu(daemon: Daemon) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def old_pairs(house: House, count: int) -> None:
    """Put `count` requests there that were answered long ago, with the RESULTs as the daemon published them."""
    house.drop("model")
    daemon = house.up()
    house.result("model")
    judge(house, None, ["model"])
    assert daemon.stop() == 0
    text, page, data = (
        house.request("model").read_text(),
        house.result_path("model", "md").read_text(),
        house.result_path("model").read_text(),
    )
    for n in range(count):
        key = f"old{n:06d}"
        house.request(key).write_text(text)
        house.result_path(key, "md").write_text(page)
        house.result_path(key).write_text(data.replace('"model"', f'"{key}"', 1))


def many_results(house: House, count: int) -> dict[str, float]:
    """Start on a folder full of old RESULTs: none is asked again, a new request is answered. Returns what it took."""
    old_pairs(house, count)
    began = time.monotonic()
    daemon = house.up()
    ready = time.monotonic() - began
    house.drop("new")
    assert house.result("new", patience=60)["status"] == "answered"
    claimed = {event["request"] for event in daemon.events() if event.get("event") == "request.claimed"}
    assert claimed == {"new"}, "what was answered is not asked again"
    before, since = cpu(daemon), time.monotonic()
    time.sleep(10)  # nothing goes on: this is what is measured
    idle = (cpu(daemon) - before) / (time.monotonic() - since)
    return {"ready_s": ready, "idle_cpu": idle, "rss_mib": peak(daemon) / MIB}


@pytest.mark.slow
def test_row_79_very_many_old_results(house: House) -> None:
    """Ten thousand old RESULTs: the daemon starts, asks none of them again, answers what is new, and stays small."""
    seen = many_results(house, 10_000)
    assert seen["rss_mib"] < 150


def many_requests(house: House, count: int, *, concurrency: int = 8) -> dict[str, float]:
    """Answer `count` requests that are all there at once; one that comes last and must not wait overtakes them."""
    house.set(concurrency=concurrency, log__level="info")
    keys = [f"k{n:05d}" for n in range(count)]
    for key in keys:
        house.drop(key)
    began = time.monotonic()
    daemon = house.up()
    until(lambda: len(os.listdir(house.folder)) > count + 30, what="some are answered", pause=0.1, patience=120)
    house.drop("urgent", request_text().replace("# Issue", "---\npriority: 1\n---\n# Issue", 1))
    house.result("urgent", patience=120)
    waited_for = len(list(house.folder.glob(f"{PREFIX}RESULT_*.json")))
    assert waited_for < count, "it did not wait for all the others"
    judge(house, None, {*keys, "urgent"}, patience=60 + count / 10)
    taken = time.monotonic() - began
    claimed = [event["request"] for event in daemon.events() if event.get("event") == "request.claimed"]
    assert sorted(claimed) == sorted([*keys, "urgent"]), "each once"
    # Those that are there at the start were seen at the same moment: the order among them is that of their names.
    place = {key: n for n, key in enumerate(sorted(keys))}
    others = [key for key in claimed if key != "urgent"]
    assert all(abs(place[key] - n) < 2 * concurrency for n, key in enumerate(others)), "in order"
    return {"seconds": taken, "cpu_ms_each": 1000 * cpu(daemon) / count, "rss_mib": peak(daemon) / MIB}


@pytest.mark.slow
def test_row_80_very_many_requests(house: House) -> None:
    """Six hundred at once: each is answered once, in order; the last overtakes by its priority, not its size."""
    assert many_requests(house, 600)["rss_mib"] < 150


WRONG = (
    b"---\nissue: [unclosed\n---\n",
    b"\xff\xfe\x00\x00\x01" * 50,
    b"---\nmodle: gpt-4o\npriority: soon\n---\n# Issue\n\nSomething.\n",
    b"# Files\n\n- ../../etc/passwd\n",
    b"\x00" * 5000,
)


def invalid_storm(house: House, count: int) -> dict[str, float]:
    """Reject `count` files that are no requests, without a model, a traceback, much memory or much of a log."""
    house.set(quiet_s=0.05, settle_ms=10)
    daemon = house.up()
    before = memory(daemon)
    keys = [f"bad{n:05d}" for n in range(count)]
    for n, key in enumerate(keys):
        house.drop(key, WRONG[n % len(WRONG)])
        (house.folder / f"{PREFIX}REQUEST_no name {n}.md").touch()
    judge(house, None, keys, statuses=["rejected", "failed"], patience=60 + count / 10)
    log = daemon.log.stat().st_size
    assert not daemon.has("job.broke")
    assert "Traceback" not in daemon.log.read_text()
    assert daemon.process.poll() is None
    house.drop("good")
    assert house.result("good")["status"] == "answered"
    return {"rss_mib": peak(daemon) / MIB, "grown_mib": (memory(daemon) - before) / MIB, "log_bytes_each": log / count}


@pytest.mark.slow
def test_row_81_a_storm_of_invalid_files(house: House) -> None:
    """Five hundred broken files and as many misnamed: each is told what is wrong; memory and log stay bounded."""
    seen = invalid_storm(house, 500)
    assert seen["rss_mib"] < 150
    assert seen["log_bytes_each"] < 2048
    assert all(
        each["problems"] or each["error"] for each in results(house.folder).values() if each["status"] != "answered"
    )


@pytest.mark.slow
def test_row_82_soak(tmp_path: Path) -> None:
    """Kills, a full disk, overflows, resets and outages at random: nothing is lost, and nothing grows."""
    from faults import soak

    soak.soak(tmp_path, seconds=8, seed=int(os.environ.get("FAULTS_SEED", "82")))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults scale")
    parser.add_argument("--results", type=int, default=100_000, help="old RESULTs at the start (row 79)")
    parser.add_argument("--requests", type=int, default=10_000, help="requests at once (row 80)")
    parser.add_argument("--invalid", type=int, default=10_000, help="files that are no requests (row 81)")
    args = parser.parse_args(argv)
    rows = (
        ("row 79", many_results, args.results),
        ("row 80", many_requests, args.requests),
        ("row 81", invalid_storm, args.invalid),
    )
    for name, run, count in rows:
        if count:
            with tempfile.TemporaryDirectory() as tmp, running(House(Path(tmp))) as house:
                print(name, count, json.dumps({key: round(value, 3) for key, value in run(house, count).items()}))
                sys.stdout.flush()
    return 0
