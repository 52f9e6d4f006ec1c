"""What other systems lack, lacking here: each documented other way is taken and keeps the promise, or it says no."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from delegated import disk, folder, watch
from delegated.disk import Directory
from delegated.folder import Bytes, Folder
from delegated.watch import Bell, open_watch
from faults.judging import judge
from harness import PREFIX, House, Server, request_text, until
from test_cli_folder import run
from test_restart import killed_before, records

NAME = f"{PREFIX}REQUEST_a.md"
LACKING = Path(__file__).with_name("crash")


def lacking(house: House, *what: str) -> None:
    """Let whatever the house starts find a system without these."""
    house.env |= {"LACKS": ",".join(what), "PYTHONPATH": str(LACKING)}


# -- macOS: no leases; some network file systems: no links, no sync of a directory --


@pytest.mark.slow
def test_without_leases_a_file_written_in_place_waits_for_calm(house: House, server: Server) -> None:
    """Nobody can say who has it open: taken after 2 s without a change, whole, once; a rename is no less careful."""
    lacking(house, "lease")
    house.use(server)
    house.up()
    text = request_text("the whole issue, in two parts")
    path = house.request("a")
    with path.open("w") as file:
        file.write(text[:40])
        file.flush()
        time.sleep(1)  # longer than `settle_ms`
        file.write(text[40:])
    house.drop("b")
    found = judge(house, server, ("a", "b"))
    assert found["a"]["status"] == "answered"
    claim = (house.job("a") / "claim").read_bytes()
    assert text.encode() in claim
    assert len(server.bills()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("lack", ["links", "directory_sync"])
def test_a_file_system_without_them_serves_all_the_same(house: House, server: Server, lack: str) -> None:
    """FAT knows no hard links, some network systems sync no directory: requests are answered, once each."""
    lacking(house, lack)
    house.use(server)
    daemon = house.up()
    for key in ("a", "b"):
        house.drop(key)
    judge(house, server)
    assert daemon.stop() == 0
    house.up("--once").process.wait(30)
    assert len(server.bills()) == 2
    assert run(house, "doctor", "--no-daemon", "--offline")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["sent.1", "reply", "done"])
def test_a_kill_where_there_are_no_links(house: House, server: Server, victim: str) -> None:
    """An empty file takes the name first: killed before it is filled, `sent` counts as sent, the rest as absent."""
    house.use(server, doubt_wait_s=0.5, deadline_s=8)  # a busy machine may take seconds to open its first client
    house.env["LACKS"] = "links"
    killed_before(house, victim if victim == "done" else f"calls/01-first/{victim}", "a")
    lacking(house, "links")
    empty = [path for path in (house.folder / ".delegated" / "jobs").rglob(victim) if path.is_file()]
    assert [path.stat().st_size for path in empty] == [0], "the name is there, and nothing in it"
    house.up()
    # An empty `sent` does not say by which handle it could be looked up, and nothing is sent again without that.
    found = judge(house, server, could_tell=victim != "sent.1")
    assert found["a"]["status"] == ("uncertain" if victim == "sent.1" else "answered")
    assert len(server.bills()) == (0 if victim == "sent.1" else 1)
    assert "done" in records(house, "a")


def test_without_links_the_second_writer_still_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exclusive empty file takes the name, and is taken away again where it cannot be filled."""

    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links")

    monkeypatch.setattr(os, "link", no_link)
    with Directory(str(tmp_path)) as directory:
        directory.create("t1", "record", b"first")
        with pytest.raises(FileExistsError):
            directory.create("t2", "record", b"second")
        assert directory.read("record", 100) == b"first"

        def no_rename(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        with monkeypatch.context() as full:
            full.setattr(os, "rename", no_rename)
            with pytest.raises(OSError, match="full"):
                directory.create("t3", "other", b"third")
        directory.create("t4", "other", b"fourth")
        assert sorted(directory.names()) == ["other", "record"]


@pytest.mark.parametrize(("error", "passes"), [(errno.EINVAL, True), (errno.EOPNOTSUPP, True), (errno.EIO, False)])
def test_a_directory_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, passes: bool
) -> None:
    """That the system knows no such thing is passed over; that it failed is not, and neither is a file's failure."""
    real = os.fsync

    def sync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(error, os.strerror(error))
        real(fd)

    with Directory(str(tmp_path)) as directory:
        monkeypatch.setattr(os, "fsync", sync)
        if passes:
            directory.create("t", "record", b"x")
            assert directory.exists("record")
        else:
            with pytest.raises(OSError, match=os.strerror(error)):
                directory.create("t", "record", b"x")
        monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.EINVAL, "of a file")))
        with pytest.raises(OSError, match="of a file"):
            directory.write_temp("file", b"x")


def test_where_the_drive_has_a_cache_of_its_own_it_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS: F_FULLFSYNC in place of fsync; a file system that does not know it gets the fsync."""
    import fcntl

    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Directory(str(tmp_path)) as directory:
        monkeypatch.setattr(disk, "_FULL_SYNC", fcntl.F_GETFD)  # a command that succeeds and does nothing
        directory.write_temp("flushed", b"x")
        assert not synced
        monkeypatch.setattr(disk, "_FULL_SYNC", 0x7FFF)  # one that no system knows: EINVAL
        directory.write_temp("synced", b"x")
        assert len(synced) == 1


async def test_elsewhere_the_observer_of_that_system_rings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no inotify, watchdog's own observer does; a move is told as one, and a dead thread is noticed."""
    monkeypatch.setattr(watch, "sys", SimpleNamespace(platform="darwin"))
    place = tmp_path / "folder"
    place.mkdir()
    bell = Bell()
    found = open_watch(str(place), bell)
    try:
        assert type(found).__name__ == "_Observed"
        assert found.alive()
        (place / NAME).write_text("x")
        seen: set[str] = set()
        deadline = time.monotonic() + 30
        while NAME not in seen and time.monotonic() < deadline:
            await bell.wait(1)
            seen |= bell.answer().touched
        assert NAME in seen
        for emitter in found._observer.emitters:  # type: ignore[attr-defined]
            emitter.stop()
            emitter.join(10)
        assert not found.alive(), "the loop attaches anew"
    finally:
        found.close()


# -- no dir_fd, no fcntl: Windows, where only the clients run --


@pytest.fixture
def by_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Directory:
    """A directory on a system whose functions take no directory's descriptor."""
    monkeypatch.setattr(disk, "_DIR_FD", False)
    return Directory(str(tmp_path))


def test_a_directory_without_descriptors(by_path: Directory, tmp_path: Path) -> None:
    """Everything goes by its path, with the same outcome."""
    assert by_path.fd == -1
    assert by_path.identity == (tmp_path.stat().st_dev, tmp_path.stat().st_ino)
    assert by_path.mkdir("sub")
    assert not by_path.mkdir("sub")
    by_path.create("t", "sub/record", b"first")
    with pytest.raises(FileExistsError):
        by_path.create("t", "sub/record", b"second")
    assert by_path.read("sub/record", 10) == b"first"
    assert by_path.names("sub") == ["record"]
    assert by_path.names("nowhere") == []
    assert (by_path.exists("sub/record"), by_path.exists("sub/other")) == (True, False)
    (tmp_path / "target").write_bytes(b"a user's")
    (tmp_path / "planted").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        by_path.read("planted", 10)
    by_path.write_temp("new", b"ours")
    by_path.rename_into("new", by_path, "planted")
    assert (by_path.read("planted", 10), (tmp_path / "target").read_bytes()) == (b"ours", b"a user's")
    with by_path.scan() as entries:
        assert sorted(entry.name for entry in entries) == ["planted", "sub", "target"]
    by_path.sync()
    by_path.remove("planted")
    by_path.remove("planted")
    by_path.close()


def test_a_folder_without_leases_and_descriptors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A request is read, and that nobody could be asked about its writers is said."""
    monkeypatch.setattr(disk, "_DIR_FD", False)
    monkeypatch.setattr(folder, "fcntl", None)
    (tmp_path / NAME).write_text("x" * 3000 + "\n<!-- END -->\n")
    drop = Folder(str(tmp_path))
    try:
        (entry,) = drop.look().entries
        assert drop.peek(entry) == (True, 0)
        got = drop.read(NAME, 10_000)
        assert isinstance(got, Bytes)
        assert not got.sure
    finally:
        drop.close()


@pytest.mark.parametrize("lack", ["fcntl", "dir_fd"])
def test_a_daemon_that_could_not_keep_its_promise_says_so(house: House, lack: str) -> None:
    """Native Windows: 78, a sentence and where to go; no traceback."""
    lacking(house, lack)
    daemon = house.start()
    assert daemon.process.wait(30) == 78
    said = daemon.log.read_text()
    assert "the daemon needs a POSIX system" in said
    assert "WSL 2" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_clients_need_none_of_it(house: House, server: Server) -> None:
    """`delegate` beside a folder that a daemon elsewhere serves: it drops a request and reads the RESULT."""
    house.use(server)
    house.up()
    lacking(house, "fcntl", "dir_fd")
    code, out, err = run(house, "ask", "--issue", "it divides by zero", "--no-wait", "--json")
    assert "Traceback" not in err
    assert code == 0, err
    until(lambda: list(house.folder.glob(f"{PREFIX}RESULT_*.json")), what="a RESULT")
    code, out, err = run(house, "list")
    assert (code, "Traceback" in err) == (0, False)
    assert "settled" in out or "answered" in out
    assert run(house, "status")[0] == 0
    (house.workspace / "app.py").write_text("# DELEGATE TO GPT-4O: why?\n")
    code, out, err = run(house, "ask", "--comment", "app.py")
    assert (code, out[:8]) == (0, "comment-"), err


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="POSIX")
def test_this_system_serves() -> None:
    """Where the tests run, nothing is lacking."""
    assert disk.SERVES
    assert sys.platform != "win32"
