"""Rows 25 to 36 of the fault matrix: what the daemon is told of the folder is too much, too little, late or nothing."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.judging import judge
from harness import House, Server, request_text, until

EARS = str(Path(__file__).with_name("ears"))
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


def bend(house: House, kind: str) -> Path:
    """Give the next daemon bad ears; return the file that steers them."""
    flag = house.tmp / "ears"
    paths = os.pathsep.join(filter(None, (EARS, house.env["PYTHONPATH"])))
    house.env |= {"PYTHONPATH": paths, "EARS": kind, "EARS_FLAG": str(flag)}
    return flag


def flood(house: House, count: int, make: Callable[[int], None]) -> None:
    """Overflow the kernel's queue of a stopped daemon: first with names that concern nobody, then `make` requests."""
    daemon = house.up()
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        junk = [house.folder / f"junk{n}" for n in range(2)]
        for n in range(int(QUEUE.read_text())):  # two names in turn: the kernel folds two equal events into one
            os.close(os.open(junk[n % 2], os.O_CREAT | os.O_WRONLY | os.O_EXCL))
            os.unlink(junk[n % 2])
        for n in range(count):
            make(n)
    finally:
        daemon.process.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_row_25_overflow(house: House, server: Server) -> None:
    """More events than the kernel keeps while the daemon is stopped: each request is found, and billed once."""
    house.use(server, rescan_s=3600, concurrency=16)
    flood(house, 60, lambda n: house.drop(f"r{n}") and None)
    judge(house, server, [f"r{n}" for n in range(60)], patience=90)
    assert len(server.bills()) == 60


@contextmanager
def limited(house: House, what: str) -> Iterator[tuple[str, ...]]:
    """Yield the words that start a program in a user namespace without a single inotify `watches` or `instances`."""
    words = ("unshare", "-Ur", "sh", "-c", f'echo 0 > /proc/sys/user/max_inotify_{what} && exec "$@"', "sh")
    probe = subprocess.run([*words, "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"user namespaces cannot be made here: {probe.stderr.strip()}")
    yield words


@pytest.mark.slow
@pytest.mark.parametrize("what", ["watches", "instances"], ids=["row-26-watch-limit", "row-27-instance-limit"])
def test_rows_26_27_no_inotify_left(house: House, server: Server, need: Callable[[str], str], what: str) -> None:
    """No watch, or no instance, to be had: said so, polled, served; listened again once there is one."""
    need("unshare")
    need("nsenter")
    with limited(house, what) as words:
        house.use(server, poll_s=0.2, rescan_s=0.5)
        daemon = house.start(prefix=words).ready()
        told = [event for event in daemon.events() if event.get("event") == "watch.polling"]
        assert len(told) == 1
        assert f"max_user_{what}" in told[0]["why"]
        house.drop("polled")
        house.request("written").write_text(request_text())
        judge(house, server, ["polled", "written"])
        enter = ["nsenter", "--preserve-credentials", "-U", "-t", str(daemon.process.pid)]
        echo = f"echo 100 > /proc/sys/user/max_inotify_{what}"
        if subprocess.run([*enter, "sh", "-c", echo], capture_output=True).returncode == 0:
            until(lambda: daemon.has("watch.attached"), what="it listens again")
        house.drop("after")
        judge(house, server, ["polled", "written", "after"])
        assert len(server.bills()) == 3


@pytest.mark.slow
def test_row_28_a_handler_that_raises(house: House, server: Server) -> None:
    """Whatever goes wrong with each single event, requests are found: the thread goes on, a full look is made."""
    bend(house, "raise")
    house.use(server, rescan_s=3600)
    daemon = house.up()
    house.drop("moved")
    house.request("written").write_text(request_text())
    os.link(house.drop("linked").rename(house.outside / "l"), house.request("hard"))
    judge(house, server, ["moved", "written", "hard"])
    assert not daemon.has("watch.lost")
    assert len(server.bills()) == 3


@pytest.mark.slow
def test_row_28_a_reader_that_dies(house: House, server: Server) -> None:
    """The thread that reads the events ends: seen within a tick, replaced, and what came meanwhile is found."""
    flag = bend(house, "die")
    flag.write_text("xx")
    house.use(server, rescan_s=3600)
    daemon = house.up()
    house.drop("one")
    until(lambda: daemon.has("watch.lost"), what="the loss is told")
    judge(house, server, ["one"])
    until(lambda: house.drop("two") and not flag.stat().st_size, what="the second reader dies", pause=0.2)
    judge(house, server, ["one", "two"])
    house.drop("three")
    judge(house, server, ["one", "two", "three"])
    assert len(server.bills()) == 3
    assert [event.get("event") for event in daemon.events()].count("watch.attached") >= 2


@pytest.mark.slow
def test_row_29_no_stall_behind_a_file_that_was_moved_out(house: House) -> None:
    """A file leaves the folder, another comes: it is not held for half a second, as grouping moves would hold each."""
    daemon = house.up()
    took = []
    for n in range(9):
        (house.folder / "leaves").write_text("x")
        os.rename(house.folder / "leaves", house.outside / "left")
        start = time.monotonic()
        house.drop(f"r{n}")
        until(lambda n=n: house.request(f"r{n}").name and claimed(house, f"r{n}"), what="claimed", pause=0.002)
        took.append(time.monotonic() - start)
        house.result(f"r{n}")
    assert statistics.median(took) < 0.5, took
    assert daemon.process.poll() is None
    judge(house, None)


def claimed(house: House, key: str) -> bool:
    return any((house.folder / ".delegated" / "jobs").glob(f"*/{key}/r1/claim"))


@pytest.mark.slow
def test_row_30_an_event_is_lost(house: House, server: Server) -> None:
    """No word of a new request, nor of an edit that leaves all names as they are: the next look in turn finds it."""
    bend(house, "deaf")
    house.use(server, rescan_s=0.5)
    house.up()
    path = house.drop("deaf")
    judge(house, server, ["deaf"])
    # Looks that a name that came or went brought about are over: only one that is made anyway can see the edit.
    until(lambda: time.time() - house.folder.stat().st_mtime > 1.5, what="nothing comes or goes")
    text = path.read_text() + "\n# Context\n\nmore\n"
    with open(path, "r+") as file:  # no name comes or goes by this
        file.write(text)
    assert house.revision("deaf", 2)["status"] == "answered"
    judge(house, server, ["deaf"])
    assert len(server.bills()) == 2


@pytest.mark.slow
def test_row_31_there_before_the_start_and_between_attach_and_look(house: House, server: Server) -> None:
    """There at the start; come after the watch was attached and before the first look, so seen twice: taken once."""
    flag = bend(house, "late")
    house.use(server, rescan_s=3600)
    house.drop("before")
    house.start()
    until(flag.exists, what="attached, not looked yet")
    house.drop("between")
    house.request("written").write_text(request_text())
    flag.unlink()
    judge(house, server, ["before", "between", "written"])
    assert len(server.bills()) == 3


@pytest.mark.slow
def test_row_32_a_look_misses_a_file(house: House, server: Server) -> None:
    """The first look does not see a file that no event tells of, and nothing else changes: the next look finds it."""
    bend(house, "blind")
    house.use(server, rescan_s=0.5)
    house.drop("hidden")
    house.up()
    judge(house, server, ["hidden"])
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_row_32_looks_that_miss_a_file_that_is_dealt_with(house: House, server: Server) -> None:
    """A file that a look does not see and a later one sees again was neither deleted nor is it new."""
    flag = bend(house, "blind")
    house.use(server, rescan_s=0.3)
    daemon = house.up()
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"latency": 1.5}})
    house.drop("hidden")
    until(server.bills, what="asked")
    flag.touch()
    for n in range(3):
        house.drop(f"other{n}")
        house.result(f"other{n}")
    flag.unlink()
    judge(house, server, ["hidden"])
    daemon.stop()
    house.up("--once").process.wait(30)
    assert len(server.bills()) == 4


@pytest.mark.slow
def test_row_33_events_that_come_ten_times_and_late(house: House, server: Server) -> None:
    """Doubled, contradicting and late events: one bill each."""
    bend(house, "replay")
    house.use(server, rescan_s=1)
    house.up()
    for n in range(4):
        house.drop(f"moved{n}")
        house.request(f"written{n}").write_text(request_text())
    keys = [f"{how}{n}" for how in ("moved", "written") for n in range(4)]
    judge(house, server, keys)
    house.drop("last")
    judge(house, server, [*keys, "last"])
    assert len(server.bills()) == 9


@contextmanager
def mounted(point: Path, *command: str) -> Iterator[None]:
    """Mount something for a while; skip where mounting is not allowed."""
    point.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([*command, str(point)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{command[0]} cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


def served_from_behind(house: House, server: Server, behind: Path, kind: str) -> None:
    """Drop through the mount and behind its back: both are served, and how it is done is said."""
    house.outside = house.folder / "below"  # on the same file system, so that a file can be moved in
    house.outside.mkdir()
    house.use(server, poll_s=0.3, rescan_s=3600)
    daemon = house.up()
    told = [event["why"] for event in daemon.events() if event.get("event") == "watch.polling"]
    assert len(told) == 1
    assert kind in told[0]
    house.drop("through")
    judge(house, server, ["through"])
    for n, name in enumerate(("behind", "again")):
        temp = behind / "incoming"
        temp.write_text(request_text(f"it fails, {n}"))
        os.rename(temp, behind / house.request(name).name)
        judge(house, server, ["through", name])
    with open(behind / house.request("again").name, "r+") as file:
        file.write(request_text("edited in place behind its back"))
    assert house.revision("again", 2)["status"] == "answered"
    assert len(server.bills()) == 4
    house.close()


@pytest.mark.slow
def test_row_34_a_file_system_in_user_space(house: House, server: Server, need: Callable[[str], str]) -> None:
    """What is written behind a FUSE mount gives no event: found by polling; what comes through the mount is heard."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("/dev/fuse is not here")
    behind = house.tmp / "behind"
    behind.mkdir()
    with mounted(house.folder, need("bindfs"), "--no-allow-other", str(behind)):
        served_from_behind(house, server, behind, "fuse")


@pytest.mark.slow
def test_row_35_the_upper_layer_of_an_overlay(house: House, server: Server) -> None:
    """What is written straight into an overlay's upper layer gives no event: found by polling."""
    lower, upper, work = (house.tmp / name for name in ("lower", "upper", "work"))
    for path in (lower, upper, work):
        path.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    with mounted(house.folder, "mount", "-t", "overlay", "overlay", "-o", options):
        served_from_behind(house, server, upper, "overlay")


def bounds() -> tuple[str, str]:
    """Return the lowest watchdog that pyproject.toml allows, and the bound that it must stay below."""
    text = Path(__file__).parents[2].joinpath("pyproject.toml").read_text()
    found = re.search(r'"watchdog>=([0-9.]+),<([0-9]+)"', text)
    assert found is not None
    return found[1], found[2]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["6.0.0", "7.0.0", "lowest", "newest"])
def test_row_36_each_version_of_watchdog(house: House, server: Server, tmp_path: Path, which: str) -> None:
    """The lowest and the newest that are allowed are listened to; an older one, which hides overflows, is not used."""
    lowest, below = bounds()
    wanted = {"lowest": f"watchdog~={lowest}.0,=={lowest}.*", "newest": f"watchdog<{below}"}.get(
        which, f"watchdog=={which}"
    )
    where = tmp_path / "site"
    installed = install(where, "watchdog==7.1.0" if which == "lowest" and lowest == "7.1" else wanted)
    if installed is None:
        pytest.skip("packages cannot be had here")
    house.env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(where), house.env["PYTHONPATH"])))
    house.use(server, poll_s=0.3, rescan_s=3600)
    daemon = house.up()
    told = [event["why"] for event in daemon.events() if event.get("event") == "watch.polling"]
    assert bool(told) == (which[0] in "67"), told
    house.drop("moved")
    house.request("written").write_text(request_text())
    judge(house, server, ["moved", "written"])
    os.rename(house.folder, house.tmp / "old")
    house.folder.mkdir()
    house.drop("new")
    judge(house, None, ["new"])  # its journal knows of one call only
    assert len(server.bills()) == 3


def install(where: Path, what: str) -> str | None:
    """Install a package beside this environment; None where no registry can be reached."""
    import shutil

    uv = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
    for command in ([uv, "pip", "install", "-q", "-p", sys.executable], [sys.executable, "-m", "pip", "install", "-q"]):
        if (
            command[0]
            and not subprocess.run(
                [*command, "--no-deps", "--target", str(where), what], capture_output=True, timeout=100
            ).returncode
        ):
            return what
    if os.environ.get("CI"):
        pytest.fail(f"{what} could not be installed")
    return None
