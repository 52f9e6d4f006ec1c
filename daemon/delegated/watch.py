"""The bell, and the thread that rings it.

The watcher is a hint, the folder is the truth: what rings here only says "look now". The names that come along save
time and decide nothing; a lost or doubled ring costs at most one rescan.

On Linux one thread reads inotify through watchdog's own descriptor class, without its emitter and dispatcher: their
grouping of moves holds every later event for 500 ms behind a file that was moved out, and an overflow of the kernel's
queue (16,384 events) never reaches their handlers. Elsewhere watchdog's observer for that system rings.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from delegated.folder import concerns_us

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import InotifyEvent, InotifyFD

# File systems on which another machine, the other side of a FUSE mount or whoever writes into an overlay's upper layer
# does so without an event reaching us.
_SILENT: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "drvfs", "vboxsf", "virtiofs", "prl_fs", "ceph", "afs", "overlay"}
)
_MANY: Final = 4096


@dataclass(frozen=True, slots=True)
class Rung:
    """What was rung since the last look: names with an event, those that came by rename, whether events were lost."""

    touched: frozenset[str]
    moved_in: frozenset[str]
    lost: bool


class Bell:
    """The one place where the loop sleeps. Anybody may ring: the watcher's thread, a free slot, a timer, a signal."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._lock = threading.Lock()
        self._touched: set[str] = set()
        self._moved: set[str] = set()
        self._lost = False

    def ring(self) -> None:
        """Wake the loop, from its own thread."""
        self._event.set()

    def ring_from_thread(self) -> None:
        """Wake the loop from any thread; too late is not an error."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to wake
            self._loop.call_soon_threadsafe(self._event.set)

    def note(self, name: str, *, moved_in: bool) -> None:
        """Note an event on a file of the folder and ring. Called from the watcher's thread; cannot fail."""
        about = concerns_us(name)
        if about is None:
            return
        with self._lock:
            first = not self._touched and not self._lost
            if len(self._touched) >= _MANY:
                self._lost = True  # a full look is cheaper than so many names
            else:
                self._touched.add(about)
                if moved_in and about == name:
                    self._moved.add(about)
                else:
                    self._moved.discard(about)  # written to after it came: it may go on
        if first:
            self.ring_from_thread()

    def lose(self) -> None:
        """Note that events were lost: only a full look tells what is there."""
        with self._lock:
            self._lost = True
        self.ring_from_thread()

    def answer(self) -> Rung:
        """Take what was rung since the last time."""
        with self._lock:
            self._event.clear()
            rung = Rung(frozenset(self._touched), frozenset(self._moved), self._lost)
            self._touched.clear()
            self._moved.clear()
            self._lost = False
        return rung

    async def wait(self, timeout: float) -> None:
        """Sleep until somebody rings, at most `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()


class Watch(Protocol):
    """Something that rings the bell. `polling`: not every change rings, so that the loop must look by itself too."""

    polling: bool
    why: str

    def alive(self) -> bool:
        """Say whether events can still arrive."""

    def close(self) -> None:
        """Stop ringing."""


class Polling:
    """No events to be had: the loop looks by itself. `why` says so to people; `lacking`: they may come back."""

    polling = True

    def __init__(self, why: str, *, lacking: bool = False) -> None:
        self.why = why
        self.lacking = lacking

    def alive(self) -> bool:
        """Nothing can die here."""
        return True

    def close(self) -> None:
        """Nothing to stop."""


class _Inotify:
    """A watchdog inotify callback on one flat directory."""

    def __init__(self, path: str, bell: Bell, reader: InotifyFD, silent: str = "") -> None:
        from watchdog.observers.inotify_c import CallbackId, InotifyConstants, Mask

        self.polling = bool(silent)
        self.why = f"inotify, and polling: a {silent} file system may not tell of every change" if silent else "inotify"
        self._bell = bell
        self._reader = reader
        self._gone = False
        constants = InotifyConstants
        mask = Mask(
            constants.IN_CREATE  # a hard link gives nothing else
            | constants.IN_CLOSE_WRITE
            | constants.IN_MOVED_TO
            | constants.IN_DELETE_SELF
            | constants.IN_MOVE_SELF
            | constants.IN_DONT_FOLLOW
            | constants.IN_ONLYDIR
        )
        self._id = CallbackId(id(self))
        self._moved_to = constants.IN_MOVED_TO
        self._self = constants.IN_DELETE_SELF | constants.IN_MOVE_SELF
        if reader.add_callback(os.fsencode(path), mask, self, self._id) < 0:
            # What watchdog makes of EACCES: a watch of nothing, without a word.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def on_event(self, event: InotifyEvent) -> None:
        """Ring. Runs in the reader's thread, which an exception would kill."""
        try:
            if event.mask & self._self:
                self._bell.lose()
            else:
                self._bell.note(os.fsdecode(event.name), moved_in=bool(event.mask & self._moved_to))
        except Exception:  # noqa: BLE001 - whatever it was about, a full look sees it
            self._bell.lose()

    def on_watch_deleted(self, wd: int) -> None:
        """Note that the kernel dropped the watch: the directory is gone."""
        self._gone = True
        self._bell.lose()

    def on_queue_overflow(self) -> None:
        """Note that events were lost."""
        self._bell.lose()

    def alive(self) -> bool:
        """Say whether the reader's thread runs and the watch stands."""
        return not self._gone and self._reader.is_alive()

    def close(self) -> None:
        """Stop the reader's thread and wait for it."""
        self._reader.stop()
        self._reader.join(5)


class _Observed:
    """watchdog's observer for this system (FSEvents, kqueue, ReadDirectoryChangesW)."""

    polling = False

    def __init__(self, path: str, bell: Bell) -> None:
        from watchdog.events import FileSystemEvent, FileSystemEventHandler
        from watchdog.observers import Observer

        class Ringer(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                if event.is_directory or event.event_type not in ("created", "modified", "moved", "closed"):
                    return
                moved = event.event_type == "moved"
                where = event.dest_path if moved else event.src_path
                bell.note(os.path.basename(os.fsdecode(where)), moved_in=moved)

        self._observer: Any = Observer()
        self.why = type(self._observer).__name__
        self._observer.schedule(Ringer(), path, recursive=False)
        self._observer.start()

    def alive(self) -> bool:
        """Say whether all of the observer's threads run: the one that hands events on, and those that hear them."""
        return bool(self._observer.is_alive() and all(each.is_alive() for each in self._observer.emitters))

    def close(self) -> None:
        """Stop the observer."""
        self._observer.stop()
        self._observer.join(5)


def open_watch(path: str, bell: Bell, *, mode: str = "auto", file_system: Callable[[str], str] | None = None) -> Watch:
    """Attach to a directory. `mode`: `auto`, `inotify`, `poll`. Falls back to polling, saying why.

    Raises `OSError` when the directory is not there.
    """
    if mode == "poll":
        return Polling("polling, as configured")
    kind = (file_system or file_system_of)(path)
    silent = kind if mode == "auto" and (kind in _SILENT or kind.startswith("fuse")) else ""
    if not sys.platform.startswith("linux"):
        return _Observed(path, bell)
    reader = _read_inotify()
    if isinstance(reader, Polling):
        return reader
    try:
        return _Inotify(path, bell, reader, silent)
    except OSError as error:
        reader.stop()
        reader.join(5)
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            raise
        why = f"polling: no inotify watch left ({error.strerror}); see fs.inotify.max_user_watches"
        return Polling(why, lacking=True)


def open_reader(path: str) -> tuple[InotifyFD | None, str]:
    """Start to read inotify's events for a tree of directories; None where it must be polled. Returns why, too."""
    if not sys.platform.startswith("linux"):
        return None, "polling: there is no inotify"
    kind = file_system_of(path)
    if kind in _SILENT or kind.startswith("fuse"):
        return None, f"polling: a {kind} file system may not tell of every change"
    reader = _read_inotify()
    return (None, reader.why) if isinstance(reader, Polling) else (reader, "inotify")


def _read_inotify() -> InotifyFD | Polling:
    from watchdog.observers import inotify_c

    if not hasattr(getattr(inotify_c, "WatchCallback", None), "on_queue_overflow"):
        return Polling("polling: this watchdog tells of no overflow; events need 7.1 or later")
    from watchdog.observers.inotify_c import InotifyFD

    try:
        reader = InotifyFD()
    except OSError as error:
        why = f"polling: no inotify instance left ({error.strerror}); see fs.inotify.max_user_instances"
        return Polling(why, lacking=True)
    reader.start()
    return reader


def file_system_of(path: str) -> str:
    """Name the type of the file system that holds a path (Linux: from /proc/self/mountinfo), "" when unknown."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            lines = mounts.readlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        parts = fields.split()
        if len(parts) < 5 or not rest:
            continue
        point = parts[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    return kind
