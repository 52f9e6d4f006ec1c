"""Rows 66 to 69 of the fault matrix: two daemons on one folder, and the lock between them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from faults.judging import billed_twice, judge, results, unsettled
from harness import Daemon, House, Server, until

#: Run by Python at the start of a daemon. `NO_LOCK`: each lock is granted. `CHILD`: once a lock is held, this process
#: has a child that outlives it and was given every descriptor that may be inherited; its id goes into that file.
SITE = """
import fcntl, os, subprocess
real = fcntl.flock
if os.environ.get("NO_LOCK"):
    fcntl.flock = lambda fd, how: None
child = os.environ.get("CHILD")
if child:
    def locked(fd, how):
        real(fd, how)
        if not os.path.exists(child):
            kept = subprocess.Popen(["sleep", "600"], close_fds=False, start_new_session=True)
            kept.returncode = 0  # nobody will wait for it
            with open(child, "w") as file:
                file.write(str(kept.pid))
    fcntl.flock = locked
"""


def fault(house: House, **switches: str) -> None:
    """Let the daemons that are started from now on begin with `SITE` and these switches."""
    place = house.tmp / "site"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(SITE)
    house.env |= {"PYTHONPATH": str(place), **switches}


def second(house: House) -> Daemon:
    """Start another daemon on the same folder, with a log of its own."""
    daemon = Daemon(house.workspace, house.tmp / "second.log", house.env)
    house._daemons.append(daemon)
    return daemon


@pytest.mark.slow
def test_row_66_two_daemons_on_one_folder(house: House, server: Server) -> None:
    """Started together, one works and the other leaves with 75 and says who holds it; each request is paid once."""
    house.use(server, concurrency=32)
    count = int(os.environ.get("FAULTS_REQUESTS", "100"))
    for n in range(count):
        house.drop(f"k{n:04d}")
    both = house.start(), second(house)
    until(lambda: any(daemon.process.poll() is not None for daemon in both), what="one has left")
    (left,) = (daemon for daemon in both if daemon.process.poll() is not None)
    assert left.process.returncode == 75
    assert "is held by" in left.log.read_text()
    judge(house, server, patience=30 + count / 5)
    assert len(server.bills()) == count


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["responses", "chat"])
def test_row_67_two_daemons_without_a_lock(house: House, server: Server, wire: str) -> None:
    """Where the lock is granted to both, the exclusive creation of `claim` and `sent` lets nothing be paid twice."""
    house.use(server, wire, concurrency=16, doubt_wait_s=0.5, deadline_s=10, endpoints__openai__store="true")
    fault(house, NO_LOCK="1")
    one, other = house.up(), second(house).ready()
    count = 60
    for n in range(count):
        house.drop(f"k{n:04d}")
    until(lambda: len(results(house.folder)) == count, what="all RESULTs", patience=60)
    until(lambda: not unsettled(house.folder), what="each job has its end")
    # Both may publish one job: a page may then be the other's, and who finds the other's call under way may not know
    # its end. Without a lock no more is promised than that nothing is lost, and nothing paid twice.
    assert {each["status"] for each in results(house.folder).values()} <= {"answered", "uncertain"}
    assert all(house.result_path(key, "md").stat().st_size for key in results(house.folder))
    assert not billed_twice(house.folder, server)
    assert len(server.bills()) == count
    served = [sum(event.get("event") == "request.claimed" for event in daemon.events()) for daemon in (one, other)]
    assert sum(served) == count, "each is claimed by one of them"
    assert all(daemon.process.poll() is None for daemon in (one, other))


@pytest.mark.slow
def test_row_68_the_holder_is_killed_and_its_child_lives(house: House) -> None:
    """A child that outlives the holder has not inherited the lock: the next daemon starts."""
    pid_file = house.tmp / "child"
    fault(house, CHILD=str(pid_file))
    house.up().kill()
    child = int(pid_file.read_text())
    try:
        os.kill(child, 0)
        assert not [path for path in Path(f"/proc/{child}/fd").iterdir() if ".delegated" in os.readlink(path)]
        house.up()
        house.drop("one")
        judge(house, None, ["one"])
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_row_69_the_lock_file_is_deleted(house: House, server: Server) -> None:
    """Deleted while it is held, the file locks nobody out, and the directory does: a second daemon leaves with 75.

    The holder puts the file back, so that whoever asks is told who it is.
    """
    house.use(server)
    daemon = house.up()
    lock = house.folder / ".delegated" / "lock"
    lock.unlink()
    other = second(house)
    assert other.process.wait(30) == 75
    assert "is held by" in other.log.read_text()
    until(lambda: lock.exists() and f"pid {daemon.process.pid} " in lock.read_text(), what="the holder's name is back")
    assert subprocess.run(["flock", "-n", lock, "true"], check=False).returncode == 1
    house.drop("one")
    judge(house, server, ["one"])
    assert len(server.bills()) == 1
    assert daemon.stop() == 0
    house.up()
