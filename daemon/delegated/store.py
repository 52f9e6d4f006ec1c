"""The directory of a journal: locked, on one file system, each write whole and durable or told."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

from delegated.disk import Directory
from delegated.errors import OperatorError
from delegated.lock import EX_IOERR, Lock
from delegated.record import pack, unpack
from delegated.uptime import Uptime, uptime

NAME: Final = ".delegated"
_LIMIT: Final = 256 << 20
_PROBE_CAP: Final = 1 << 20
# What a disk says that fails or is full, or a system without descriptors. EPERM and the like are about one name.
_DISK_SAYS: Final = (
    *("EIO", "ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ENOTCONN", "ENXIO"),
)
_DISK: Final = frozenset(getattr(errno, name) for name in _DISK_SAYS if hasattr(errno, name))
_ID: Final = re.compile(rb"[0-9a-f]{16}")

T = TypeVar("T")


class Store:
    """The open directory of a journal. Opening takes the folder's lock; closing gives it back.

    `until` says, in the lock and for people, what its holder leaves after ("" for one that stays).

    Raises `OperatorError`: exit code 75 when another daemon holds the folder, 74 when the journal cannot be written or
    does not lie on the folder's own file system.
    """

    def __init__(
        self,
        folder: Directory,
        *,
        now: Callable[[], float],
        executor: Executor | None = None,
        up: Callable[[], Uptime] = uptime,
        until: str = "",
    ) -> None:
        self.now = now
        self.up = up
        self._executor = executor
        self._temps = itertools.count(1)  # shared by threads
        self._shards: set[str] = set()  # those that surely survive a power cut
        self.life = os.urandom(8).hex()  # tells our own `sent` from that of another daemon
        self.trouble = ""  # why the last write failed; nothing new is begun until a fresh one passes
        self._least = 0  # bytes of the largest write that failed since
        self.gone = False  # it was taken away while it was in use: what runs is only brought to its end
        self._lock: Lock | None = None
        path = os.path.join(folder.path, NAME)
        try:
            folder.mkdir(NAME)
            self.dir = Directory(path)
        except OSError as error:
            raise OperatorError(
                f"cannot open {path}: {error.strerror}", EX_IOERR, "make the folder writable for this user"
            ) from error
        try:
            self._lock = Lock(self.dir, until=until)
            self._hold_to_one_mount(self.dir, folder, path)
            self._prepare(folder, path)
        except OSError as error:  # of the lock: a full disk has no room for it either
            self.close()
            raise OperatorError(
                f"cannot write in {path}: {error.strerror}", EX_IOERR, "free space, or make it writable for this user"
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the lock back and release the descriptors."""
        if self._lock is not None:
            self._lock.release()
        self.dir.close()

    def renew_lock(self) -> bool:
        """Put the lock's file back if somebody took it away; True when it was gone. Raises `OSError` when it cannot."""
        return not self.gone and self._lock is not None and self._lock.renew()

    def _hold_to_one_mount(self, inner: Directory, outer: Directory, path: str) -> None:
        if inner.identity[0] != outer.identity[0] or inner.mount != outer.mount:
            raise OperatorError(
                f"{path} lies on another file system than its folder, or is mounted there",
                EX_IOERR,
                "RESULTs are published by rename, which needs one file system and one mount: unmount it",
            )

    def _prepare(self, folder: Directory, path: str) -> None:
        try:
            for name in ("tmp", "jobs", "history"):
                self.dir.mkdir(name)
                with Directory(os.path.join(path, name)) as inner:
                    self._hold_to_one_mount(inner, self.dir, inner.path)
            for name in self.dir.names("tmp"):  # nobody else writes here while we hold the lock
                self.dir.remove(f"tmp/{name}")
            self.journal_id = self._read_id() or self._make_id()
            self._jobs_at = self.dir.identify("jobs")
            self.dir.sync()  # what every record stands on: it may have been made by a life that was killed
            folder.sync()
        except OSError as error:
            raise OperatorError(
                f"cannot write in {path}: {error.strerror}", EX_IOERR, "free space, or make it writable for this user"
            ) from error

    def _read_id(self) -> str:
        """Return this journal's name, "" when it has none or it is damaged."""
        if not self.dir.exists("id"):
            return ""
        data = self.dir.read("id", 1000)
        record = unpack(data)
        name = str(record[0].get("id", "")).encode() if record else data
        if _ID.fullmatch(name):
            return name.decode()
        self.quarantine("id")  # calls that left under the old name have it in their `sent`
        return ""

    def _make_id(self) -> str:
        name = os.urandom(8).hex()
        self.dir.create(self._temp(), "id", pack({"id": name}))
        return name

    def whole(self) -> bool:
        """Say whether the jobs are still those that this journal was opened with."""
        return self.dir.identify("jobs") == self._jobs_at

    # A disk that fails

    @contextlib.contextmanager
    def writing(self, size: int = 0) -> Iterator[None]:
        """Note it when the disk does not take what is written in here, of at most `size` bytes."""
        try:
            yield
        except OSError as error:
            if error.errno in _DISK:
                self.trouble, self._least = error.strerror or str(error), max(self._least, size)
            elif error.errno == errno.ENOENT:
                with contextlib.suppress(OSError):
                    self.dir.mkdir("tmp")  # somebody cleared it away: the next try finds it
            raise

    def probe(self) -> None:
        """Write as much as could not be written, and sync it, to see whether the disk takes it again. Raises `OSError`.

        Always a new file: what a failed sync has lost, another sync of the same file need not report.
        """
        self.dir.mkdir("tmp")
        temp = self._temp()
        self.dir.write_temp(temp, os.urandom(max(4096, min(self._least, _PROBE_CAP))))
        self.dir.remove(temp)
        self.dir.sync("tmp")
        self.trouble, self._least = "", 0

    def _temp(self) -> str:
        return f"tmp/{os.getpid()}-{next(self._temps)}"

    def deleted(self) -> bool:
        """Say whether the open journal's directory was removed: what is written there can never be read."""
        return self.dir.fd >= 0 and os.fstat(self.dir.fd).st_nlink == 0

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run a blocking function beside the loop: a slow disk must not stop the other jobs."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def run_whole(self, function: Callable[..., T], *args: Any) -> T:
        """Run a blocking function to its end, also when the job is cancelled meanwhile; then the cancellation goes on.

        A cancelled job must not leave while its record is half way to the disk: what is in memory and what is on disk
        would differ, and the folder could be closed under the thread that writes.
        """
        running = asyncio.ensure_future(self.run(function, *args))
        cancelled: asyncio.CancelledError | None = None
        while not running.done():
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError as error:
                cancelled = error
            except Exception:  # noqa: BLE001 - raised below, by result()
                break
        if cancelled is not None:
            raise cancelled from running.exception()
        return running.result()

    # Records

    def write(self, path: str, header: dict[str, Any], body: bytes = b"") -> None:
        """Make a record durable under its name. Raises `FileExistsError` if somebody was first, `OSError` otherwise."""
        data = pack({**header, "at": self.now()}, body)
        with self.writing(len(data)):
            self.dir.create(self._temp(), path, data)

    def read(self, path: str) -> tuple[dict[str, Any], bytes] | None:
        """Read a record; None when it is absent or torn."""
        try:
            return unpack(self.dir.read(path, _LIMIT))
        except FileNotFoundError:
            return None

    def publish(self, folder: Directory, files: dict[str, bytes]) -> None:
        """Put files into the folder in the order given, each whole or not at all, each durable before the next."""
        for name, data in files.items():
            with self.writing(len(data)):
                self._put(folder, name, data, durable=True)
                folder.sync()

    def _put(self, folder: Directory, name: str, data: bytes, *, durable: bool) -> None:
        source, temp = (folder, f".{name}.tmp") if self.gone else (self.dir, self._temp())
        source.write_temp(temp, data, durable=durable)
        try:
            source.rename_into(temp, folder, name)
        except BaseException:
            with contextlib.suppress(OSError):
                source.remove(temp)
            raise

    def post_notice(self, folder: Directory, name: str, data: bytes) -> None:
        """Put a file that need not survive a power cut (STATUS) into the folder, whole."""
        self._put(folder, name, data, durable=False)

    def archive(self, folder: Directory, key: str, revision: int, names: dict[str, str]) -> None:
        """Move a former RESULT's files (`suffix: name in the folder`) to the history, in the order given.

        They are safe there before the first of them goes: half of a rename may survive a power cut.
        """
        for place in ("history", f"history/{key}"):
            self.dir.mkdir(place)
        for suffix, name in names.items():
            to = f"history/{key}/{revision}.{suffix}"
            with contextlib.suppress(FileNotFoundError):
                # Another file than ours of a life that was killed in here: a former RESULT came back, and was edited.
                if self.dir.exists(to) and self.dir.stat(to).st_ino != folder.stat(name).st_ino:
                    self.dir.keep(to)
                folder.link_into(name, self.dir, self._temp(), to)
        self.dir.sync(f"history/{key}")
        self.dir.sync("history")
        for name in names.values():
            folder.remove(name)
            folder.sync()

    def note_former(self, key: str, name: str, data: bytes) -> None:
        """Put a file beside the former RESULTs of a request, whole and durable."""
        with self.writing(len(data)):
            for place in ("history", f"history/{key}"):
                self.dir.mkdir(place)
            self._put(self.dir, f"history/{key}/{name}", data, durable=True)
            for place in (f"history/{key}", "history"):
                self.dir.sync(place)

    def root(self, place: str) -> None:
        """Make a request's directory durable up to the journal's own: what stands in it must survive with it.

        Whoever made them: a life may have been killed, or a sync may have failed, before they were synced.
        """
        shard = os.path.dirname(place)
        with self.writing():
            for parent in (place, shard) if shard in self._shards else (place, shard, "jobs"):
                self.dir.sync(parent)
        self._shards.add(shard)

    def quarantine(self, path: str) -> None:
        """Set a damaged record aside under a name that no reader takes for a record."""
        import structlog

        structlog.get_logger("delegated.journal").error("record.damaged", record=path)
        for n in range(1, 1000):
            aside = f"{path}.torn{n}"
            if not self.dir.exists(aside):
                self.dir.rename_into(path, self.dir, aside)
                self.dir.sync(os.path.dirname(path) or ".")
                return
