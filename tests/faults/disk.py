"""Disks that are full, read-only, slow or broken, on order: mounts in a namespace of their own, a preloaded shim."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from faults.judging import torn
from harness import Daemon, House, Server, until

TROUBLE = ("disk.failing", "record.unwritten", "result.unpublished", "job.interrupted")
ORDER = ("claim", "prompt", "sent.1", "accepted.1", "reply", "RESULT.md", "RESULT.json", "done")
PAGE = 4096


class Shim:
    """Makes single system calls of a daemon fail: see disk.c. Daemons started after it was made have it."""

    def __init__(self, house: House, compiler: str, library: Path) -> None:
        if not library.exists():
            source = Path(__file__).with_name("disk.c")
            partial = library.with_suffix(f".{os.getpid()}")
            command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(partial), str(source), "-ldl", "-lpthread"]
            subprocess.run(command, check=True)
            partial.rename(library)
        self._rules = house.tmp / "faults"
        self._rules.touch()
        self._hits = house.tmp / "faults.hits"
        self._next = 0
        house.env |= {"LD_PRELOAD": str(library), "DISK_FAULTS": str(self._rules)}

    def order(self, *rules: tuple[str, str, int, int, str, int]) -> list[int]:
        """Replace all rules by these: (call, pattern, from, to, action, value). Returns their numbers."""
        numbers = [self._next + n for n in range(len(rules))]
        self._next += len(rules)
        text = "".join(f"{n} {' '.join(map(str, rule))}\n" for n, rule in zip(numbers, rules, strict=True))
        fresh = self._rules.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self._rules)
        return numbers

    def heal(self) -> None:
        self.order()

    def hits(self, number: int) -> list[str]:
        """List `call path` of each call that met a rule."""
        if not self._hits.exists():
            return []
        lines = (line.split(" ", 1) for line in self._hits.read_text().splitlines())
        return [rest for n, rest in lines if int(n) == number]


class Mounts:
    """A mount namespace that ends with this process. Paths inside are reached through `at`, daemons with `prefix`."""

    def __init__(self) -> None:
        self.root = os.geteuid() == 0
        command = ["unshare", *([] if self.root else ["--user", "--map-root-user"]), "--mount", "cat"]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdin
        assert self._holder.stdout
        with suppress(OSError):
            self._holder.stdin.write(b"x")
            self._holder.stdin.flush()
        if self._holder.stdout.read(1) != b"x":
            self.close()
            pytest.skip("no mounts here: this system lets this user have no mount namespace")
        user = [] if self.root else ["--user", "--preserve-credentials"]
        self.prefix = ("nsenter", "--target", str(self._holder.pid), "--mount", *user)

    def run(self, *command: str) -> None:
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"

    def at(self, path: Path) -> Path:
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def close(self) -> None:
        for stream in (self._holder.stdin, self._holder.stdout):
            with suppress(OSError):
                stream.close()
        self._holder.wait(10)


class Mounted(House):
    """A workspace whose drop folder is a mount: `mount(*arguments)` is given to mount(8), the folder comes last."""

    def __init__(self, tmp: Path, mounts: Mounts) -> None:
        super().__init__(tmp)
        self.mounts = mounts
        self.inside = self.folder

    def mount(self, *arguments: str) -> None:
        self.mounts.run("mount", *arguments, str(self.inside))
        self.folder = self.mounts.at(self.inside)

    def start(self, *arguments: str, prefix: tuple[str, ...] = ()) -> Daemon:
        return super().start(*arguments, prefix=(*self.mounts.prefix, *prefix))

    def put(self, key: str, data: bytes) -> Path:
        """Write a request under a name that nobody takes; renaming it needs no room."""
        path = self.folder / f".{key}.part"
        path.write_bytes(data)
        return path


@contextmanager
def without(*files: Path) -> Iterator[None]:
    """Take away what fills a disk, at the end."""
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def fill(folder: Path, left: int, *, unit: int = PAGE) -> list[Path]:
    """Fill a file system but for `left` units of space."""
    ballast = folder / ".ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 16, unit):
            with suppress(OSError):
                while file.write(b"\xa5" * size) == size:
                    pass
        size = file.tell() // unit * unit
        file.truncate(max(0, size - left * unit))
        os.fsync(file.fileno())
    return [ballast]


def use_up_names(folder: Path, left: int) -> list[Path]:
    """Use up a file system's inodes but for `left`."""
    made: list[Path] = []
    place = folder / ".names"
    place.mkdir(exist_ok=True)
    with suppress(OSError):
        while True:
            path = place / str(len(made))
            path.touch()
            made.append(path)
    for path in made[len(made) - left :]:
        path.unlink()
    return made


def records(house: House, key: str) -> set[str]:
    """Name the records and RESULT files that a request has."""
    jobs = house.folder / ".delegated" / "jobs"
    found = {path.name for path in jobs.glob(f"*/{key}/r1/**/*") if path.is_file()}
    return found | {f"RESULT.{suffix}" for suffix in ("md", "json") if house.result_path(key, suffix).exists()}


def last(found: set[str]) -> str:
    """Name how far a request has come."""
    return max((name for name in found if name in ORDER), key=ORDER.index, default="")


def in_trouble(daemon: Daemon, since: int) -> bool:
    return any(event.get("event") in TROUBLE for event in daemon.events()[since:])


def sweep(
    house: Mounted, server: Server, daemon: Daemon, use_up: Callable[[Path, int], list[Path]], steps: range
) -> dict[str, int]:
    """Drop one request after the other with ever more room left; give room once the daemon is stuck.

    Returns how often it was stuck with which record as the last. Holds on the way: nothing is sent without its `sent`,
    each RESULT is whole or absent, the daemon goes on by itself, and each request is billed once.
    """
    stuck: dict[str, int] = {}
    for step in steps:
        key = f"room{step}"
        part = house.put(key, f"# Issue\n\nwhy is {key} so?\n".encode())
        billed, since = len(server.bills()), len(daemon.events())
        with without(*use_up(house.folder, step)):
            part.rename(house.request(key))
            until(
                lambda since=since, key=key: in_trouble(daemon, since) or "done" in records(house, key),
                what=f"{key} is stuck or done",
            )
            found = records(house, key)
            assert len(server.bills()) - billed <= ("sent.1" in records(house, key))
            assert not torn(house.folder)
            assert daemon.process.poll() is None
            if "done" not in found:
                stuck[last(found)] = stuck.get(last(found), 0) + 1
        assert house.result(key)["status"] == "answered"
        until(lambda key=key: "done" in records(house, key), what="done")
        assert len(server.bills()) == billed + 1
    return stuck
