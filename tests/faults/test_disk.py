"""Rows 10 to 22 of the fault matrix: a disk that is full, slow, broken, read-only, or another one."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.disk import TROUBLE, Mounted, Mounts, Shim, fill, in_trouble, last, records, sweep, use_up_names
from faults.judging import judge, torn
from harness import House, Server, until

POST = {"method": "POST", "path": "/v1/responses"}


@pytest.fixture
def mounted(tmp_path: Path, need: Callable[[str], str]) -> Iterator[Mounted]:
    """A workspace whose drop folder will be a mount of its own."""
    need("unshare")
    mounts = Mounts()
    house = Mounted(tmp_path, mounts)
    yield house
    house.close()
    mounts.close()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shim") / "disk.so"


@pytest.fixture
def shim(house: House, library: Path, need: Callable[[str], str]) -> Shim:
    """Lets single system calls of the daemon fail."""
    return Shim(house, need("cc"), library)


def mount_ext4(mounted: Mounted, need: Callable[[str], str], options: str = "rw", *, make: bool = True) -> str:
    """Mount a small ext4 on the folder; returns its device, which is gone once it is unmounted."""
    if not mounted.mounts.root:
        pytest.skip("a loop device needs root")
    image = mounted.tmp / "ext4"
    if make:
        with open(image, "wb") as file:
            file.truncate(6 << 20)
        subprocess.run([need("mkfs.ext4"), "-q", "-F", "-m", "0", "-b", "1024", str(image)], check=True)
    done = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device here: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        mounted.mount("-t", "ext4", "-o", options, device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)  # at once if it is not mounted, else with the mount
    return device


# Full


@pytest.mark.slow
def test_rows_10_11_no_space_left(mounted: Mounted, server: Server) -> None:
    """Row 10, 11: wherever space ends, nothing is sent unrecorded, and all goes on by itself when there is room."""
    mounted.mount("-t", "tmpfs", "-o", "size=4m", "none")
    mounted.use(server)
    daemon = mounted.up()
    stuck = sweep(mounted, server, daemon, fill, range(14))
    assert {"", "claim", "prompt"} & set(stuck), "row 11: before `sent`"
    assert {"accepted.1", "reply", "RESULT.md"} & set(stuck), "row 10: with an answer that could not be kept or shown"
    judge(mounted, server)


@pytest.mark.slow
def test_row_12_out_of_inodes(mounted: Mounted, server: Server) -> None:
    """Row 12: the same where names run out."""
    mounted.mount("-t", "tmpfs", "-o", "size=8m,nr_inodes=400", "none")
    mounted.use(server)
    daemon = mounted.up()
    stuck = sweep(mounted, server, daemon, use_up_names, range(14))
    assert {"", "claim", "prompt"} & set(stuck)
    assert {"accepted.1", "reply", "RESULT.md"} & set(stuck)
    judge(mounted, server)


@pytest.mark.slow
def test_row_10_a_start_without_room(mounted: Mounted, server: Server) -> None:
    """Row 10: a start on a full disk ends with a message and code 74; one with hardly any room serves."""
    mounted.mount("-t", "tmpfs", "-o", "size=1m", "none")
    mounted.use(server)
    for step, left in enumerate((0, 1, 2, 6)):
        ballast = fill(mounted.folder, left)
        daemon = mounted.start()
        until(
            lambda daemon=daemon: (
                daemon.process.poll() is not None or daemon.has("folder.missing") or daemon.has("worker.ready")
            ),
            what=f"with {left} pages left it ends, waits or serves",
        )
        assert daemon.process.poll() == 74 if not step else daemon.process.poll() in (74, None)
        said = [event for event in daemon.events() if "cannot be used" in str(event) or "No space left" in str(event)]
        assert said or daemon.has("worker.ready"), daemon.events()
        for file in ballast:
            file.unlink()
        if daemon.process.poll() is not None:
            daemon = mounted.start()
        daemon.ready()
        mounted.put(f"n{step}", b"# Issue\n\nquestion %d\n" % step).rename(mounted.request(f"n{step}"))
        judge(mounted, server)
        daemon.stop()
    assert len(server.bills()) == 4


@pytest.mark.slow
def test_row_21_a_full_ext4(mounted: Mounted, server: Server, need: Callable[[str], str]) -> None:
    """Row 21: names can still be made on a full ext4, and bytes cannot: no empty RESULT is ever visible."""
    mount_ext4(mounted, need)
    mounted.use(server)
    daemon = mounted.up()

    def use_up(folder: Path, left: int) -> list[Path]:
        return fill(folder, 2 * left, unit=1024)

    stuck = sweep(mounted, server, daemon, use_up, range(12))
    assert stuck, "the disk was never full"
    judge(mounted, server)


# Short writes


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 10])
def test_row_13_short_writes(house: House, server: Server, shim: Shim, size: int) -> None:
    """Row 13: a write that takes fewer bytes than it was given is gone on with: every record is whole."""
    house.use(server)
    house.up()
    short, *_ = shim.order(("write", "*/.delegated/tmp/*", 1, 1 << 30, "short", size))
    house.drop("one", "# Issue\n\nwhy?\n")
    judge(house, server)
    assert len(server.bills()) == 1
    assert len(shim.hits(short)) > 100


@pytest.mark.slow
def test_row_14_a_file_size_limit(house: House, server: Server, need: Callable[[str], str]) -> None:
    """Row 14: past the limit a write is short first and fails then; whatever record meets it, nothing is lost."""
    house.use(server)
    # The log is an open file of this process too: another one writes it, so that it does not meet the limit.
    daemon = house.start(prefix=(need("bash"), "-c", 'exec "$@" > >(exec cat) 2>&1', "bash")).ready()
    pid = daemon.process.pid
    stuck = set()
    for n, limit in enumerate((100, 300, 900, 2000, 3000, 5000)):
        key, since = f"limit{limit}", len(daemon.events())
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        house.drop(key)
        until(lambda since=since, key=key: in_trouble(daemon, since) or house.has_result(key), what="stuck or done")
        stuck.add(last(records(house, key)))
        assert len(server.bills()) - n <= ("sent.1" in records(house, key))
        assert not torn(house.folder)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        house.result(key)
        assert len(server.bills()) == n + 1
    assert {"", "claim"} & stuck
    judge(house, server)


# Errors


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("kind", ["once", "lasting"])
def test_row_15_fsync_fails(house: House, server: Server, shim: Shim, kind: str, first: int) -> None:
    """Row 15: EIO from every sync of a job in turn, once or until the disk is mended: no send without its record."""
    house.use(server, doubt_wait_s=1, deadline_s=3)
    daemon = house.up()
    nth, reached = first, set()
    while True:
        key, since, billed = f"sync{nth}", len(daemon.events()), len(server.bills())
        last_of = nth if kind == "once" else 1 << 30
        number, *_ = shim.order(("fsync", "*/openai_delegations*", nth, last_of, "errno", errno.EIO))
        house.drop(key)
        if kind == "lasting":
            until(lambda since=since, key=key: in_trouble(daemon, since) or house.has_result(key), what="stuck or done")
            assert len(server.bills()) - billed <= ("sent.1" in records(house, key)), "sent without a record"
            assert not torn(house.folder)
        until(lambda key=key, number=number: shim.hits(number) or house.has_result(key), what="hit or done")
        hit = shim.hits(number)
        if kind == "lasting":
            shim.heal()
        assert house.result(key)["status"] == "answered"
        until(lambda key=key: "done" in records(house, key), what="done")
        hit = hit or shim.hits(number)
        assert len(server.bills()) == billed + 1
        shim.heal()
        if not hit:
            break
        reached |= {path.split("/.delegated/")[-1].split("/")[0] for path in hit}
        nth += 2
    assert nth > 15, "a job syncs its records"
    assert {"tmp", "jobs"} <= reached
    judge(house, server)


FAILURES = [
    ("link", "ENOSPC", "errno"),
    ("link", "EIO", "errno"),
    ("link", "EIO", "late"),
    ("rename", "ENOSPC", "errno"),
    ("rename", "EIO", "late"),
    ("mkdir", "ENOSPC", "errno"),
    ("mkdir", "EIO", "late"),
    ("unlink", "EIO", "errno"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("call", "error", "action"), FAILURES, ids=["-".join(row) for row in FAILURES])
def test_row_16_a_name_cannot_be_given(
    house: House, server: Server, shim: Shim, call: str, error: str, action: str
) -> None:
    """Row 16: link, rename, mkdir or unlink fails, each in turn, also after it was done: as a full disk."""
    house.use(server, doubt_wait_s=1, deadline_s=3)
    daemon = house.up()
    nth = 1
    while True:
        billed = len(server.bills())
        number, *_ = shim.order((call, "*", nth, nth, action, getattr(errno, error)))
        house.drop(f"n{nth}", f"# Issue\n\nwhy, {nth}?\n")
        assert house.result(f"n{nth}")["status"] == "answered"
        until(lambda nth=nth: "done" in records(house, f"n{nth}"), what="done")
        assert len(server.bills()) == billed + 1
        if not shim.hits(number):
            break
        nth += 1
    shim.heal()
    assert nth > 2
    assert daemon.process.poll() is None
    daemon.stop()
    judge(house, server)


@pytest.mark.slow
def test_row_16_a_send_whose_record_seems_to_fail_is_not_in_doubt(house: House, server: Server, shim: Shim) -> None:
    """Row 15, 16: `sent` stands and was reported as failed: it is known that nothing was posted, without a look-up."""
    house.use(server, "chat", endpoints__openai__store="false", doubt_wait_s=60)
    house.up()
    shim.order(("link", "*/sent.1", 1, 1, "late", errno.EIO))
    house.drop("one")
    assert house.result("one")["status"] == "answered"
    assert {"sent.1", "unsent.1", "sent.2"} <= records(house, "one")
    judge(house, server)
    assert len(server.bills()) == 1


# Slow


@pytest.mark.slow
def test_row_17_a_slow_disk_holds_up_nobody_else(house: House, server: Server, shim: Shim) -> None:
    """Row 17: syncs of some requests hang: others are answered meanwhile, and new ones are seen."""
    house.use(server, heartbeat_s=0.1)
    daemon = house.up()
    number, *_ = shim.order(("fsync", "*/jobs/*/slow*", 1, 1 << 30, "hang", 0))
    slow = [f"slow{n}" for n in range(7)]  # of 8 that may run at once
    for key in slow:
        house.drop(key)
    until(lambda: len(shim.hits(number)) >= len(slow), what="seven requests hang")
    for n in range(5):
        house.drop(f"quick{n}")
        assert house.result(f"quick{n}")["status"] == "answered"
    assert not any(house.has_result(key) for key in slow)
    assert daemon.process.poll() is None
    shim.heal()
    judge(house, server)
    assert len(server.bills()) == len(slow) + 5


@pytest.mark.slow
def test_row_17_every_sync_takes_300_ms(house: House, server: Server, shim: Shim) -> None:
    """Row 17: the whole disk is slow: all is answered, once."""
    house.use(server)
    house.up()
    shim.order(("fsync", "*/openai_delegations*", 1, 1 << 30, "wait", 300))
    for n in range(12):
        house.drop(f"n{n}", f"# Issue\n\nwhy, {n}?\n")
    judge(house, server, patience=60)
    assert len(server.bills()) == 12


# Read-only, immutable


READ_ONLY = ("create", "write", "link", "rename", "mkdir", "unlink")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "during"])
def test_row_18_read_only_and_back(house: House, server: Server, shim: Shim, when: str) -> None:
    """Row 18: every change is refused for a while, before a request is claimed or while its call runs: it waits.

    A file system cannot be remounted read-only while the daemon has its lock open: the refusals are injected.
    """
    house.use(server)
    server.script({"match": POST, "do": {"run": 1.5}})
    daemon = house.up()
    if when == "during":
        house.drop("one")
        until(lambda: "accepted.1" in records(house, "one"), what="accepted")
    since = len(daemon.events())
    shim.order(
        *(
            (call, "*/.delegated/tmp/*" if call == "write" else "*", 1, 1 << 30, "errno", errno.EROFS)
            for call in READ_ONLY
        )
    )
    if when == "before":
        house.drop("one")
    until(lambda: in_trouble(daemon, since), what="the daemon says so")
    assert len(server.bills()) == (when == "during")
    assert not house.has_result("one")
    house.drop("two")
    until(lambda: daemon.has("disk.failing"), what="nothing new is begun")
    shim.heal()
    judge(house, server)
    assert len(server.bills()) == 2
    assert daemon.has("disk.recovered")


@pytest.mark.slow
def test_row_18_ext4_turns_read_only(mounted: Mounted, server: Server, need: Callable[[str], str]) -> None:
    """Row 18: ext4 turns itself read-only after an error: the answer is held; after a repair it is billed no more."""
    device = mount_ext4(mounted, need, "errors=remount-ro")
    trigger = Path(f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error")
    if not trigger.exists():
        pytest.skip("this kernel cannot be told to find an error in ext4")
    mounted.use(server, grace_s=1)
    server.script({"match": POST, "do": {"run": 1}})
    daemon = mounted.up()
    mounted.put("one", b"# Issue\n\nwhy?\n").rename(mounted.request("one"))
    until(lambda: "accepted.1" in records(mounted, "one"), what="accepted")
    since = len(daemon.events())
    trigger.write_text("1")
    until(lambda: in_trouble(daemon, since), what="the daemon says so")
    assert daemon.process.poll() is None
    assert daemon.stop() == 0
    mounted.mounts.run("umount", str(mounted.inside))
    subprocess.run([need("e2fsck"), "-y", str(mounted.tmp / "ext4")], capture_output=True)
    mount_ext4(mounted, need, "errors=remount-ro", make=False)
    judge(mounted, server)
    assert len(server.bills()) == 1


def chattr(flag: str, path: Path) -> None:
    done = subprocess.run(["chattr", flag, str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no chattr {flag} here: {done.stderr.strip()}")


@pytest.mark.slow
@pytest.mark.parametrize("restarted", [False, True])
def test_row_19_an_immutable_result(house: House, server: Server, need: Callable[[str], str], restarted: bool) -> None:
    """Row 19: a RESULT file that nobody may replace: told, the answer is kept, others are served, published later."""
    need("chattr")
    house.use(server, grace_s=1)
    daemon = house.up()
    page = house.result_path("one", "md")
    page.write_text("mine\n")
    chattr("+i", page)
    try:
        house.drop("one")
        until(lambda: daemon.has("result.unpublished"), what="the daemon says so")
        assert "reply" in records(house, "one")
        house.drop("two")
        house.result("two")
        assert not house.has_result("one")
        assert page.read_text() == "mine\n"
        if restarted:
            assert daemon.stop() == 0
    finally:
        chattr("-i", page)
    judge(house, server)
    assert len(server.bills()) == 2


@pytest.mark.slow
def test_row_19_an_append_only_folder(house: House, server: Server, need: Callable[[str], str]) -> None:
    """Row 19: in a folder that only takes new names RESULTs are published; what cannot be removed goes at a start."""
    need("chattr")
    house.use(server, heartbeat_s=0.1)
    server.script({"match": POST, "do": {"run": 1}})
    daemon = house.up()
    chattr("+a", house.folder)
    try:
        house.drop("one")
        house.result("one")
        until(lambda: "done" in records(house, "one"), what="done")
    finally:
        chattr("-a", house.folder)
    daemon.stop()
    judge(house, server)
    assert len(server.bills()) == 1


# Descriptors


@pytest.mark.slow
def test_row_20_no_descriptors_left(house: House, server: Server) -> None:
    """Row 20: no descriptor is left, or hardly any: it backs off and serves all once there are some again."""
    house.use(server)
    daemon = house.up()
    pid = daemon.process.pid
    house.drop("first")
    house.result("first")
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    troubled = 0
    for spare in range(8):
        since = len(daemon.events())
        used = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + spare, before[1]))
        keys = [f"n{spare}.{n}" for n in range(3)]
        for key in keys:
            house.drop(key)
        until(
            lambda since=since, keys=keys: (
                any(event.get("event") in (*TROUBLE, "folder.unreadable") for event in daemon.events()[since:])
                or all(map(house.has_result, keys))
            ),
            what="in trouble or done",
        )
        troubled += not all(map(house.has_result, keys))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        for key in keys:
            result = house.result(key)
            assert result["status"] == "answered"
            assert [file["path"] for file in result["egress"][0]["files"]] == ["app.py"], (
                "none is asked without its code"
            )
    assert troubled
    judge(house, server)
    assert len(server.bills()) == 25


# Another file system


@pytest.mark.slow
@pytest.mark.parametrize("what", ["another", "the same", "jobs"])
def test_row_22_the_journal_is_mounted(mounted: Mounted, what: str) -> None:
    """Row 22: `.delegated`, or a part of it, is a mount: rename and link would fail, so the daemon refuses to start."""
    mounted.mount("-t", "tmpfs", "none")
    place = mounted.inside / ".delegated"
    if what == "jobs":
        (mounted.folder / ".delegated").mkdir()
        place /= "jobs"
    mounted.mounts.at(place).mkdir()
    if what == "another":
        mounted.mounts.run("mount", "-t", "tmpfs", "none", str(place))
    else:
        (mounted.folder / "elsewhere").mkdir()
        mounted.mounts.run("mount", "--bind", str(mounted.inside / "elsewhere"), str(place))
    mounted.put("one", b"# Issue\n\nwhy?\n").rename(mounted.request("one"))
    daemon = mounted.start()
    assert daemon.process.wait(30) == 74
    assert "another file system" in daemon.log.read_text()
    mounted.mounts.run("umount", str(place))
    judge(mounted, None)


@pytest.mark.slow
def test_row_22_the_journal_is_mounted_over_while_it_runs(mounted: Mounted) -> None:
    """Row 22: mounted over while it is in use, it counts as taken away: the daemon ends with a message."""
    mounted.mount("-t", "tmpfs", "none")
    daemon = mounted.up()
    mounted.mounts.run("mount", "-t", "tmpfs", "none", str(mounted.inside / ".delegated"))
    assert daemon.process.wait(30) == 74
    assert "was taken away" in daemon.log.read_text()
