"""Rows 37 to 43 of the fault matrix: the folder itself is deleted, renamed, covered, forbidden, or another thing."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.judging import judge, torn
from harness import PREFIX, Daemon, House, Server, request_text, until

FOREVER = {"match": {"method": "POST", "contains": "WAITS"}, "times": "always"}
WAITS = request_text("it WAITS and then divides by zero")
WIRES = pytest.mark.parametrize("wire", ["responses", "chat"])


def release(server: Server) -> None:
    """Let every call that waits end."""
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/_test/release", data=b""), timeout=10).close()


def billed_once(server: Server, count: int) -> None:
    """Hold the server's word: so many calls, none of them twice."""
    calls = Counter(bill["call"] for bill in server.bills())
    assert sum(calls.values()) == count, calls
    assert set(calls.values()) <= {1}, calls


def visible(folder: Path) -> set[str]:
    """List what people see of a folder."""
    return {name for name in os.listdir(folder) if name != ".delegated"}


def waiting_call(house: House, server: Server, wire: str, **settings: Any) -> Daemon:
    """Start a daemon and drop a request whose call has left and does not end."""
    house.use(server, wire, endpoints__openai__store="true", doubt_wait_s=0.5, rescan_s=3600, **settings)
    # On the Responses wire a call runs by itself at the provider; on the Chat wire the connection is the call.
    server.script({**FOREVER, "do": {"run" if wire == "responses" else "latency": "forever"}})
    daemon = house.up()
    house.drop("waits", WAITS)
    last = "accepted.1" if wire == "responses" else "sent.1"
    until(lambda: records(house.folder, last), what="the call has left")
    until(lambda: any(rule["struck"] for rule in server.state_json()["rules"]), what="the server has the call")
    return daemon


def records(folder: Path, name: str, key: str = "waits") -> list[Path]:
    return list((folder / ".delegated" / "jobs").glob(f"*/{key}/r1/**/{name}"))


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 5.0], ids=["at-once", "after-5-s"])
def test_row_37_deleted_and_made_anew(house: House, server: Server, pause: float) -> None:
    """The folder is deleted with all that is in it and made anew: served again; what comes with it is asked once."""
    house.use(server, rescan_s=3600)
    daemon = house.up()
    for turn in range(3):
        house.drop(f"before{turn}")
        judge(house, None, [f"before{turn}"])  # nothing is being written any more: it would be in the way of `rm`
        shutil.rmtree(house.folder)
        if pause:
            until(lambda: daemon.has("folder.missing"), what="its absence is told")
            with pytest.raises(subprocess.TimeoutExpired):
                daemon.process.wait(pause / 3)
        house.folder.mkdir()
        house.drop(f"r{turn}")
        judge(house, None, [f"r{turn}"])
    billed_once(server, 6)
    assert daemon.process.poll() is None


@pytest.mark.slow
@WIRES
def test_row_37_deleted_while_a_call_runs(house: House, server: Server, wire: str) -> None:
    """The folder goes while a call runs, and comes back with the same request: that call's answer is taken for it."""
    daemon = waiting_call(house, server, wire)
    shutil.rmtree(house.folder)
    until(lambda: daemon.has("folder.left"), what="noticed")
    house.folder.mkdir()
    house.drop("other")
    house.result("other")
    house.drop("waits", WAITS)
    until(lambda: records(house.folder, "sent.1"), what="what was sent is known in the new journal")
    assert not house.has_result("waits")
    release(server)
    judge(house, None, ["waits", "other"])
    billed_once(server, 2)
    assert daemon.process.poll() is None


@pytest.mark.slow
@WIRES
def test_row_37_an_answer_that_came_while_there_was_no_folder(house: House, server: Server, wire: str) -> None:
    """The call ends when its journal is gone: kept for the same request; other words under its id are asked."""
    daemon = waiting_call(house, server, wire)
    shutil.rmtree(house.folder)
    until(lambda: daemon.has("folder.missing"), what="noticed")
    release(server)
    until(lambda: daemon.has("job.left"), what="the answer is here")
    house.folder.mkdir()
    house.drop("waits", request_text("another question"))
    judge(house, None, ["waits"])
    billed_once(server, 2)
    shutil.rmtree(house.folder)
    house.folder.mkdir()
    house.drop("waits", WAITS)
    judge(house, None, ["waits"])
    billed_once(server, 2)


@pytest.mark.slow
@WIRES
def test_row_37_killed_once_the_new_journal_knows(house: House, server: Server, wire: str) -> None:
    """Killed while the same request in the new folder waits for the old call: the next life looks that call up."""
    daemon = waiting_call(house, server, wire, deadline_s=30)
    shutil.rmtree(house.folder)
    until(lambda: daemon.has("folder.left"), what="noticed")
    house.folder.mkdir()
    house.drop("waits", WAITS)
    until(lambda: records(house.folder, "sent.1"), what="what was sent is known in the new journal")
    daemon.kill()
    release(server)
    house.up()
    judge(house, None, ["waits"])
    billed_once(server, 1)


@pytest.mark.slow
def test_row_38_renamed_away(house: House, server: Server) -> None:
    """Renamed away and replaced: served from the new one, and nothing is written into the old one."""
    house.use(server, rescan_s=3600)
    daemon = house.up()
    house.drop("first")
    judge(house, server, ["first"])
    old = house.tmp / "old"
    os.rename(house.folder, old)
    house.folder.mkdir()
    before = visible(old)
    house.drop("second")
    judge(house, None, ["second"])
    (old / house.request("third").name).write_text(request_text())
    house.drop("fourth")
    judge(house, None, ["second", "fourth"])
    assert visible(old) == before | {house.request("third").name}
    billed_once(server, 3)
    assert daemon.process.poll() is None


@pytest.mark.slow
@WIRES
def test_row_38_renamed_away_while_a_call_runs_and_put_back(house: House, server: Server, wire: str) -> None:
    """The answer that comes meanwhile is recorded where its journal went, and published once the folder is back."""
    waiting_call(house, server, wire)
    old = house.tmp / "old"
    os.rename(house.folder, old)
    house.folder.mkdir()
    house.drop("other")
    judge(house, None, ["other"])
    before = visible(old)
    release(server)
    until(lambda: records(old, "reply"), what="the answer is recorded")
    assert not {name for name in visible(old) - before if "RESULT" in name}
    os.rename(house.folder, house.tmp / "new")
    os.rename(old, house.folder)
    judge(house, None, ["waits"])
    billed_once(server, 2)
    assert not torn(house.folder)


@pytest.mark.slow
@WIRES
def test_row_38_renamed_away_and_back_while_a_call_runs(house: House, server: Server, wire: str) -> None:
    """Away and back before the call ends: it goes on as if nothing had been, and the folder is served."""
    daemon = waiting_call(house, server, wire)
    for turn in range(2):
        os.rename(house.folder, house.tmp / "old")
        until(lambda turn=turn: count(daemon, "folder.left") == turn + 1, what="noticed")
        os.rename(house.tmp / "old", house.folder)
        until(lambda turn=turn: count(daemon, "folder.attached") == turn + 2, what="taken up again")
    house.drop("other")
    house.result("other")
    release(server)
    judge(house, server, ["waits", "other"])
    billed_once(server, 2)


def count(daemon: Daemon, event: str) -> int:
    return [each.get("event") for each in daemon.events()].count(event)


@pytest.mark.slow
@WIRES
def test_row_38_the_same_request_in_the_new_folder(house: House, server: Server, wire: str) -> None:
    """Its call still runs for the folder that went: the new folder gets that answer, and it is paid for once."""
    waiting_call(house, server, wire)
    old = house.tmp / "old"
    os.rename(house.folder, old)
    house.folder.mkdir()
    shutil.copy2(old / house.request("waits").name, house.folder)
    until(lambda: records(house.folder, "sent.1"), what="what was sent is known in the new journal")
    release(server)
    judge(house, None, ["waits"])
    billed_once(server, 1)


@pytest.mark.slow
@WIRES
def test_row_38_stopped_while_the_old_folder_s_call_runs(house: House, server: Server, wire: str) -> None:
    """SIGTERM: the old folder's call is given the same grace as any; put back, a new life takes it up."""
    daemon = waiting_call(house, server, wire, grace_s=1, deadline_s=30)
    os.rename(house.folder, house.tmp / "old")
    until(lambda: daemon.has("folder.missing"), what="noticed")
    assert daemon.stop() == 0
    os.rename(house.tmp / "old", house.folder)
    release(server)
    judge(house, server, ["waits"])
    billed_once(server, 1)


@pytest.mark.slow
def test_row_39_a_symlink_is_not_followed(house: House, server: Server) -> None:
    """A folder that becomes a symlink is refused, whatever it leads to, and served when it is a folder again."""
    house.use(server, rescan_s=3600)
    daemon = house.up()
    targets = [house.tmp / "a", house.tmp / "b"]
    real = house.tmp / "real"
    os.rename(house.folder, real)
    for target in targets:
        target.mkdir()
        (target / house.request("linked").name).write_text(request_text())
        subprocess.run(["ln", "-sfn", str(target), str(house.folder)], check=True)
    until(lambda: any("symbolic link" in str(event.get("reason")) for event in daemon.events()), what="told")
    house.folder.unlink()
    os.rename(real, house.folder)
    house.drop("one")
    judge(house, server, ["one"])
    for target in targets:
        assert os.listdir(target) == [house.request("linked").name]
    billed_once(server, 1)


@pytest.mark.slow
def test_row_39_a_symlink_on_the_way_is_swapped(house: House, server: Server) -> None:
    """A symlink above the folder leads to it: followed, and after a swap only the new target is served."""
    runs = house.folder.parent
    targets = [house.tmp / name for name in ("a", "b")]
    for target in targets:
        (target / "openai_delegations").mkdir(parents=True)
    house.folder.rmdir()
    runs.rmdir()
    runs.symlink_to(targets[0])
    house.use(server, rescan_s=3600)
    daemon = house.up()
    house.drop("one")
    judge(house, server, ["one"])
    before = visible(targets[0] / "openai_delegations")
    subprocess.run(["ln", "-sfn", str(targets[1]), str(runs)], check=True)
    house.drop("two")
    judge(house, None, ["two"])
    assert visible(targets[0] / "openai_delegations") == before
    billed_once(server, 2)
    assert daemon.process.poll() is None


@pytest.mark.slow
def test_row_40_mounted_over_and_unmounted(house: House, server: Server) -> None:
    """A file system mounted over the folder is served in its place, and the folder again once it is gone."""
    house.use(server, rescan_s=3600)
    daemon = house.up()
    house.drop("below")
    judge(house, server, ["below"])
    mount = subprocess.run(["mount", "-t", "tmpfs", "none", str(house.folder)], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"nothing can be mounted here: {mount.stderr.strip()}")
    try:
        assert visible(house.folder) == set()
        house.outside = house.folder / "inside"
        house.outside.mkdir()
        house.drop("above")
        judge(house, None, ["above"])
    finally:
        subprocess.run(["umount", "--lazy", str(house.folder)], check=True)
    assert house.has_result("below")
    house.outside = house.tmp / "outside"
    house.drop("again")
    judge(house, None, ["below", "again"])
    assert not house.request("above").exists()
    billed_once(server, 3)
    assert daemon.process.poll() is None


@pytest.mark.slow
def test_row_41_parents_missing_and_made_later(house: House, server: Server) -> None:
    """No folder and no parent: waited for, and served once somebody makes them; the daemon makes none itself."""
    house.use(server, rescan_s=3600)
    daemon = house.up()
    for _ in range(2):
        shutil.rmtree(house.folder.parent)
        until(lambda: daemon.has("folder.missing"), what="told")
        assert not house.folder.parent.exists()
        house.folder.mkdir(parents=True)
        house.drop("one")
        judge(house, None, ["one"])
    billed_once(server, 2)


@pytest.mark.slow
def test_row_41_missing_at_the_start(house: House, server: Server) -> None:
    """Started before its folder can be made (a file stands in the way), it says so, waits and serves."""
    house.use(server, rescan_s=3600)
    shutil.rmtree(house.folder.parent)
    house.folder.parent.write_text("not a directory")
    daemon = house.start()
    until(lambda: daemon.has("folder.missing"), what="told")
    house.folder.parent.unlink()
    house.folder.mkdir(parents=True)
    house.drop("one")
    judge(house, server, ["one"])
    billed_once(server, 1)


@pytest.fixture
def plain(server: Server) -> Iterator[tuple[House, tuple[str, ...]]]:
    """A house, and the words that start its daemon as a user whom modes bind: root is not."""
    base = Path(tempfile.mkdtemp(prefix="faults-", dir="/var/tmp"))
    house = House(base)
    words: tuple[str, ...] = ()
    if os.geteuid() == 0:
        words = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        base.chmod(0o755)
        home = house.tmp / "home"
        for path in (house.workspace, *house.workspace.rglob("*"), house.outside, home, *home.rglob("*")):
            os.chown(path, 65534, 65534)
        probe = subprocess.run([*words, sys.executable, "-c", "import delegated.cli"], capture_output=True, text=True)
        if probe.returncode:
            shutil.rmtree(base)
            pytest.skip(f"an unprivileged user cannot run this checkout: {probe.stderr.strip()[-100:]}")
    house.use(server, rescan_s=3600)
    yield house, words
    house.close()
    house.folder.chmod(0o755)
    shutil.rmtree(base)


def give(house: House, key: str) -> None:
    """Drop a request that the daemon's user may read."""
    path = house.drop(key)
    path.chmod(0o644)


@pytest.mark.slow
def test_row_42_no_permission_for_a_while(plain: tuple[House, tuple[str, ...]], server: Server) -> None:
    """chmod 000 for longer than any patience, with a call that runs: loud, nothing is taken for deleted, resumes."""
    house, words = plain
    server.script({**FOREVER, "do": {"run": "forever"}})
    daemon = house.start(prefix=words).ready()
    give(house, "before")
    house.result("before")
    house.drop("waits", WAITS).chmod(0o644)
    until(lambda: records(house.folder, "accepted.1"), what="the call has left")
    house.folder.chmod(0)
    if os.geteuid() == 0:
        give(house, "during")
    until(lambda: daemon.has("folder.unreadable"), what="told")
    release(server)
    until(lambda: daemon.has("record.unwritten") or daemon.has("result.unpublished"), what="the answer waits")
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(5)  # longer than a journal may be missing before the daemon leaves
    house.folder.chmod(0o755)
    give(house, "during")
    judge(house, server, ["before", "during", "waits"], patience=60)
    billed_once(server, 3)


@pytest.mark.slow
def test_row_42_no_permission_at_the_start(plain: tuple[House, tuple[str, ...]], server: Server) -> None:
    """A folder that may not be read at the start is told of and waited for."""
    house, words = plain
    give(house, "one")
    house.folder.chmod(0)
    daemon = house.start(prefix=words)
    until(lambda: any("ermission" in str(event.get("reason")) for event in daemon.events()), what="told")
    house.folder.chmod(0o755)
    judge(house, server, ["one"])
    billed_once(server, 1)


def a_file(path: Path) -> None:
    path.write_text("in its place")


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket may not be long
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.slow
@pytest.mark.parametrize("make", [a_file, a_fifo, a_socket])
def test_row_43_replaced_by_something_else(house: House, server: Server, make: Callable[[Path], None]) -> None:
    """A file, a FIFO, a socket in its place: refused, no hang; SIGTERM is heard; served when it is a folder again."""
    house.use(server, rescan_s=3600)
    daemon = house.up()
    os.rename(house.folder, house.tmp / "old")
    make(house.folder)
    until(lambda: any("Not a directory" in str(e.get("reason")) for e in daemon.events()), what="told")
    assert daemon.stop(signal.SIGTERM) == 0
    again = house.start()
    until(lambda: again.has("folder.missing"), what="told at a start")
    house.folder.unlink()
    os.rename(house.tmp / "old", house.folder)
    house.drop("one")
    judge(house, server, ["one"])
    assert not list(house.folder.glob(f"{PREFIX}STATUS_*"))
    billed_once(server, 1)
