"""Asks what comments with `DELEGATE TO GPT-4O: …` ask that appear in saved files while a workspace is watched.

What stood there before it was watched, and what git brings, is nobody's question: a comment counts when the file did
not have it at the last look and git has not staged it. A request's id is made of the file and the words, so nothing
need be remembered for it to be asked once. Events are a hint here too; where there are none, times are compared.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from delegated import blobs, remark
from delegated import folder as names
from delegated.context import SourceFile
from delegated.flood import Pace
from delegated.remark import Remark
from delegated.request import render
from delegated.tree import Stamp, Tree
from delegated.watch import open_reader
from delegated.workspace import Workspace

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import InotifyEvent, InotifyFD, WatchDescriptor


_QUIET_S: Final = 0.1  # an editor that saves touches a file several times
_LONGEST_S: Final = 1.0
_FILES: Final = 20  # that change within a second: more are not saved by a person
_POLL_S: Final = 1.0
_SHARE: Final = 250  # between two walks through everything there is so many times the CPU time that one takes
_SHARE_RUNG: Final = 20  # likewise where one is made only when directories come and go
_BUSY_S: Final = 0.25
_BY_HAND: Final = "ask about one: delegate ask --at FILE:LINE"


class Comments:
    """One workspace, watched by a thread of its own from `start` to `close`."""

    def __init__(self, workspace: Workspace, folder: str, *, events: bool = True) -> None:
        self._workspace = workspace
        self._folder = folder
        self._below = os.path.relpath(folder, workspace.root).replace(os.sep, "/") + "/"
        self._events = events
        self._known: dict[str, frozenset[str]] = {}  # what comments of a file asked at the last look
        self._stamps: dict[str, Stamp] | None = None  # until everything was looked through once
        self._pace = Pace()
        self._lock = threading.Lock()
        self._touched: set[str] = set()
        self._walk_wanted = False
        self._rung = threading.Event()
        self._stopped = False
        self._reader: InotifyFD | None = None
        self._watched: dict[tuple[str, ...], _Directory] = {}
        self._log = structlog.get_logger("delegated.comments").bind(workspace=workspace.root)
        self._thread = threading.Thread(target=self._run, name="comments", daemon=True)

    def start(self) -> None:
        """Begin to watch; what stands there by now is never asked about."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching, and wait for the thread."""
        self._stopped = True
        self._rung.set()
        self._thread.join(5)

    def touched(self, parts: tuple[str, ...], *, directory: bool) -> None:
        """Note that something appeared or was saved. Called from the reader's thread."""
        path = "/".join(parts)
        with self._lock:
            if directory:
                self._walk_wanted = True
            elif self._concerns(path):
                self._touched.add(path)
            else:
                return
        self._rung.set()

    def lost(self, directory: _Directory | None = None) -> None:
        """Note that events were lost, or that a directory went away: only a walk tells what is there."""
        with self._lock:
            if directory is not None and self._watched.get(directory.parts) is directory:
                del self._watched[directory.parts]
            self._walk_wanted = True
        self._rung.set()

    def _concerns(self, path: str) -> bool:
        hidden = path.startswith(".") or "/." in path
        return not hidden and not path.startswith(self._below) and remark.known(path)

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:  # noqa: BLE001 - a fault of ours: requests are still answered, and the log says what is not
            self._log.exception("comments.broken")
        finally:
            self._detach()

    def _serve(self) -> None:
        why = "polling, as configured"
        if self._events:
            self._reader, why = open_reader(self._workspace.root)
        took = self._walk()
        self._log.info("comments.watching", watch=why, directories=len(self._watched), seconds=round(took, 3))
        rests_until = time.monotonic() + (took * _SHARE if self._reader is None else 0.0)
        retries_at: float | None = None
        while not self._stopped:
            walks = self._reader is None or self._walk_wanted
            due = min((at for at in (rests_until if walks else None, retries_at) if at is not None), default=None)
            self._rung.wait(None if due is None else max(0.0, due - time.monotonic()))
            self._settle()
            if self._stopped:
                return
            if walks and time.monotonic() >= rests_until:
                took = self._walk()
                share = _SHARE if self._reader is None else _SHARE_RUNG
                rests_until = time.monotonic() + max(_POLL_S, took * share)
            retries_at = time.monotonic() + _BUSY_S if self._look() else None

    def _settle(self) -> None:
        """Wait until nothing more comes for a moment, so that what belongs together is seen together."""
        until = time.monotonic() + _LONGEST_S
        while self._rung.is_set() and not self._stopped and time.monotonic() < until:
            self._rung.clear()
            self._rung.wait(_QUIET_S)
        self._rung.clear()

    def _walk(self) -> float:
        """Look through everything; return the seconds of CPU time that it took. What changed is looked at next.

        The first time what the comments ask is only noted.
        """
        began = time.thread_time()  # of this thread: a busy machine is no reason to look more rarely
        with self._lock:
            self._walk_wanted = False
        with suppress(OSError), self._workspace.opened() as tree:  # a root that is away for now has nothing new
            stamps = {path: stamp for path, stamp in tree.stamps() if self._concerns(path)}
            took = time.thread_time() - began
            if self._attach({parts for parts in tree.directories if self._is_ours(parts)}):
                with self._lock:
                    self._walk_wanted = True  # what came into a directory before it was watched
            if self._stamps is None:
                for path in stamps:
                    if self._stopped:
                        break
                    self._note(path, self._read(tree, path))
                self._stamps = stamps
            else:
                known = self._stamps
                with self._lock:
                    self._touched |= {path for path, stamp in stamps.items() if known.get(path) != stamp}
            return took
        with self._lock:
            self._walk_wanted = True
        return 0.0

    def _look(self) -> bool:
        """Look at what was touched, and ask what is new; return whether something waits for git to come to an end."""
        with self._lock:
            paths = sorted(self._touched)
            self._touched.clear()
        known = self._stamps
        if not paths or known is None:
            return False
        found: list[tuple[str, Remark]] = []
        waits = set(paths)
        with suppress(OSError), self._workspace.opened() as tree:
            stamps = {path: tree.stamp(path) for path in paths}
            changed = [path for path, stamp in stamps.items() if stamp is not None and stamp != known.get(path)]
            for path in changed:
                remarks = self._read(tree, path)
                fresh = [each for each in remarks if self._is_new(tree, path, each)] if len(changed) <= _FILES else []
                if fresh:
                    if lock := blobs.busy(os.path.dirname(self._full(path))):
                        self._log.debug("comments.waiting", lock=lock)
                        continue
                    found += [(path, each) for each in self._not_staged(path, fresh)]
                self._note(path, remarks)
                known[path] = stamps[path] or (0, 0, 0)
                waits.discard(path)
            waits &= set(changed)
        with self._lock:
            self._touched |= waits
        self._ask(found)
        return bool(waits)

    def _read(self, tree: Tree, path: str) -> tuple[Remark, ...]:
        source = tree.source(path, "", remark.MAX_TEXT)
        return remark.find(path, source.text) if isinstance(source, SourceFile) else ()

    def _note(self, path: str, remarks: Iterable[Remark]) -> None:
        """Keep what a file asks. One that is gone keeps its own: it may only be away while an editor saves it."""
        texts = frozenset(each.text for each in remarks)
        if texts or path in self._known:
            self._known[path] = texts

    def _is_new(self, tree: Tree, path: str, found: Remark) -> bool:
        """Say whether a comment did not stand in this file at the last look, nor in one that was moved here since."""
        if found.text in self._known.get(path, ()):
            return False
        return not any(found.text in texts and tree.stamp(other) is None for other, texts in self._known.items())

    def _not_staged(self, path: str, remarks: list[Remark]) -> list[Remark]:
        try:
            return remark.new(path, remarks, blobs.staged(self._full(path)))
        except blobs.Unknown as error:
            self._log.warning("comments.unknown", path=path, reason=str(error), hint=_BY_HAND)
            return []

    def _full(self, path: str) -> str:
        return os.path.join(self._workspace.root, *path.split("/"))

    def _ask(self, found: list[tuple[str, Remark]]) -> None:
        found = [(path, each) for path, each in found if not names.ever_asked(self._folder, remark.key(path, each))]
        if len(found) > self._pace.room(remark.MANY, time.monotonic()):
            self._log.warning("comments.many", comments=len(found), a_minute=remark.MANY, hint=_BY_HAND)
            return
        for path, each in found:
            key = remark.key(path, each)
            data = render(remark.request(path, each), end_mark=True).encode("utf-8", "replace")
            try:
                if not os.path.isdir(self._folder):  # a deleted folder is not brought back
                    raise FileNotFoundError(2, "there is no folder", self._folder)
                names.submit(self._folder, f"{names.PREFIX}REQUEST_{key}.md", data)
            except FileExistsError:
                continue  # an editor has asked it
            except OSError as error:
                self._known[path] -= {each.text}  # saved once more, it is asked
                self._log.error("comments.undropped", path=path, line=each.line, reason=str(error))
                continue
            self._pace.begin(time.monotonic())
            self._log.info("comments.asked", path=path, line=each.line, key=key)

    # Directories

    def _is_ours(self, parts: tuple[str, ...]) -> bool:
        return not any(part.startswith(".") for part in parts) and not "/".join((*parts, "")).startswith(self._below)

    def _attach(self, directories: set[tuple[str, ...]]) -> bool:
        """Watch these directories and no others; return whether one is newly watched."""
        reader = self._reader
        if reader is None:
            return False
        with self._lock:
            gone = [self._watched.pop(parts) for parts in self._watched.keys() - directories]
            fresh = sorted(directories - self._watched.keys())
        reader.remove_callbacks([(each.wd, each.id) for each in gone])
        some = False
        for parts in fresh:
            directory = _Directory(self, parts)
            try:
                directory.attach(reader, self._full("/".join(parts)) if parts else self._workspace.root)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EMFILE, errno.ENOMEM):
                    self._log.warning("comments.polling", reason=f"no inotify watch left ({error.strerror})")
                    self._detach()
                    return False
                continue  # gone meanwhile, or not to be read
            with self._lock:
                self._watched[parts] = directory
            some = True
        return some

    def _detach(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()
            reader.join(5)


class _Directory:
    """A watchdog inotify callback on one directory of the tree."""

    def __init__(self, owner: Comments, parts: tuple[str, ...]) -> None:
        from watchdog.observers.inotify_c import CallbackId

        self.parts = parts
        self.id = CallbackId(id(self))
        self.wd: Any = -1
        self._owner = owner

    def attach(self, reader: InotifyFD, path: str) -> None:
        """Be called for what happens in the directory. Raises `OSError`."""
        from watchdog.observers.inotify_c import InotifyConstants as On
        from watchdog.observers.inotify_c import Mask

        mask = Mask(On.IN_CREATE | On.IN_CLOSE_WRITE | On.IN_MOVED_TO | On.IN_MOVE_SELF)
        self.wd = reader.add_callback(os.fsencode(path), Mask(mask | On.IN_DONT_FOLLOW | On.IN_ONLYDIR), self, self.id)
        if self.wd < 0:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def on_event(self, event: InotifyEvent) -> None:
        """Ring. Runs in the reader's thread, which an exception would kill."""
        from watchdog.observers.inotify_c import InotifyConstants as On

        try:
            if event.mask & On.IN_MOVE_SELF:
                self._owner.lost()
            elif event.mask & On.IN_ISDIR or not event.mask & On.IN_CREATE:
                name = os.fsdecode(event.name)
                self._owner.touched((*self.parts, name), directory=bool(event.mask & On.IN_ISDIR))
        except Exception:  # noqa: BLE001 - whatever it was about, a walk sees it
            self._owner.lost()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Note that the directory is gone."""
        self._owner.lost(self)

    def on_queue_overflow(self) -> None:
        """Note that events were lost."""
        self._owner.lost()
