"""The drop folder: what is there, is it complete, and putting a RESULT there. A rename is the only commit.

The client commands use this room too, so it imports nothing heavy.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from delegated.disk import Directory, read_all
from delegated.plan import Entry, Sig

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_RESULT_LIMIT: Final = 64 << 20
DEFAULT: Final = ".autonomous_runs/openai_delegations"
_HOME: Final = DEFAULT.partition("/")[0]
PREFIX: Final = "OPENAI_DELEGATION_"
FORMER: Final = ".outcome.json"  # in the history, behind a revision's number: how that one turned out
SUFFIXES: Final = (".md", ".yaml", ".yml", ".json")
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REQUEST: Final = re.compile(
    PREFIX
    + r"(?:REQUEST_(?=[A-Za-z0-9._-]{1,100}\.)|FOLLOWUP_(?=[A-Za-z0-9._-]{1,94}_[1-9][0-9]{0,3}\.[a-z]+\Z))"
    + r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})(\.md|\.yaml|\.yml|\.json)"
)
_FOLLOWS: Final = re.compile(PREFIX + r"FOLLOWUP_(.+)_([1-9][0-9]{0,3})\.[a-z]+")
_MEANT: Final = re.compile(
    PREFIX + r"(?:REQUEST|FOLLOWUP)_.*\.(?:md|markdown|txt|ya?ml|json)", re.DOTALL | re.IGNORECASE
)
_ORDER: Final = re.compile(PREFIX + r"(CANCEL|RETRY|RUN|PING)_([A-Za-z0-9][A-Za-z0-9._-]{0,99})")
_OUTCOME: Final = re.compile(PREFIX + r"OUTCOME_([A-Za-z0-9][A-Za-z0-9._-]{0,99})\.yaml")
_RESULT: Final = re.compile(PREFIX + r"RESULT_[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(?:patch|md|json)")
_CONFLICT: Final = re.compile(r"(.+?)(?:\.sync-conflict-[0-9A-Za-z-]+|[._-]?[Cc]onflict(?:ed)?[0-9A-Za-z._-]*)")
_END: Final = re.compile(rb"(?:^|\n)[ \t]*<!--[ \t]*END[ \t]*-->[ \t]*(?:\r?\n)*\Z|(?:^|\n)\.\.\.[ \t]*(?:\r?\n)*\Z")
_PRIORITY: Final = re.compile(rb"(?m)^[ \t\"]*priority[\"]?[ \t]*:[ \t]*(-?[0-9]{1,6})\b")


def request_id(name: str) -> tuple[str, str] | None:
    """Split a whole basename into (id, suffix); None when it is not a request's name (droppings never are)."""
    found = _REQUEST.fullmatch(name)
    return (found[1], found[2]) if found else None


def request_names(key: str) -> Iterator[str]:
    """Yield every name that a request with this id can have."""
    for suffix in SUFFIXES:
        for kind in ("REQUEST", "FOLLOWUP"):
            name = f"{PREFIX}{kind}_{key}{suffix}"
            if request_id(name) is not None:
                yield name


def followed(name: str) -> tuple[str, int] | None:
    """Return whose RESULT a FOLLOWUP asks about, and as the how manieth; None for any other name."""
    found = _FOLLOWS.fullmatch(name) if _REQUEST.fullmatch(name) else None
    return (found[1], int(found[2])) if found else None


def order(name: str) -> tuple[str, str] | None:
    """Split a whole basename into (`CANCEL`, `RETRY`, `RUN` or `PING`, id), or None."""
    found = _ORDER.fullmatch(name)
    return (found[1], found[2]) if found else None


def outcome(name: str) -> str | None:
    """Return the id whose RESULT an OUTCOME file judges; None for any other name."""
    found = _OUTCOME.fullmatch(name)
    return found[1] if found else None


def concerns_us(name: str) -> str | None:
    """Return the request, order or OUTCOME that a changed file is about (a `.done` mark: its request), or None.

    A misnamed request concerns us too: somebody waits for it in vain and is to be told.
    """
    name = name.removesuffix(".done")
    known = _REQUEST.fullmatch(name) or _ORDER.fullmatch(name) or _OUTCOME.fullmatch(name) or misnamed(name)
    return name if known else None


def misnamed(name: str) -> bool:
    """Say whether a basename was surely meant as a request's, but no RESULT could be named after it."""
    return _MEANT.fullmatch(name) is not None and _REQUEST.fullmatch(name) is None


NAMING: Final = (
    f"name it {PREFIX}REQUEST_<id>.md (.yaml, .json): <id> is 1 to 100 of A-Za-z0-9._-, a letter or digit first; "
    f"a further question about RESULT <id>: {PREFIX}FOLLOWUP_<id>_<n>.md, <n> from 1"
)


def conflict_origin(key: str) -> str | None:
    """Return the id of which this one looks like a sync tool's conflict copy, or None."""
    found = _CONFLICT.fullmatch(key)
    return found[1] if found else None


def is_ours(path: str) -> bool:
    """Say whether a path of the workspace is of delegations, not of its code, whichever folder is the drop folder."""
    parts = path.split("/")
    return _HOME in parts[:-1] or parts[-1].startswith(PREFIX)


def result_name(key: str, suffix: str) -> str:
    """Name a RESULT file; `suffix` is `patch`, `md` or `json`."""
    return f"{PREFIX}RESULT_{key}.{suffix}"


def is_results(name: str) -> bool:
    """Say whether a basename is that of a RESULT file."""
    return _RESULT.fullmatch(name) is not None


def outcome_name(key: str) -> str:
    """Name the file that says how a RESULT turned out."""
    return f"{PREFIX}OUTCOME_{key}.yaml"


def ever_asked(path: str, key: str) -> bool:
    """Say whether a request of this id stands in a folder, has its RESULT there, or was claimed before."""
    shard = hashlib.sha256(key.encode()).hexdigest()[:2]
    found = (*request_names(key), result_name(key, "json"), os.path.join(".delegated", "jobs", shard, key))
    return any(os.path.lexists(os.path.join(path, each)) for each in found)


def status_name(key: str) -> str:
    """Name the STATUS file of a running job."""
    return f"{PREFIX}STATUS_{key}.json"


@dataclass(frozen=True, slots=True)
class Look:
    """What one scan saw: requests, orders (`kind, id`), ids with a RESULT.json, ids with a STATUS. `full` when the
    whole folder was read, so that what is missing is gone. `misnamed` were meant as requests and can be none;
    `outcomes` are the ids whose OUTCOME file is there, or rang.
    """

    entries: tuple[Entry, ...]
    orders: tuple[tuple[str, str], ...]
    results: frozenset[str]
    statuses: frozenset[str]
    full: bool
    misnamed: frozenset[str] = frozenset()
    outcomes: frozenset[str] = frozenset()


class Held(Enum):
    """What `Folder.read` says when it does not return the bytes."""

    BUSY = "somebody has it open for writing"
    UNKNOWN = "the system cannot say whether somebody writes"
    CHANGED = "it changed while it was read"
    GONE = "it is not there"


@dataclass(frozen=True, slots=True)
class Bytes:
    """A complete file's bytes, and the stat that was equal before and after the read."""

    data: bytes
    sig: Sig
    sure: bool  # the lease said that nobody writes; when False the caller wants two equal stats 2 s apart

    @property
    def sha256(self) -> str:
        """Return the hash of the bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()


class Folder:
    """The open drop folder."""

    def __init__(self, path: str, *, create: bool = True) -> None:
        self.path = path
        self.dir = Directory(path, create=create)

    def close(self) -> None:
        """Release the descriptor."""
        self.dir.close()

    def still_there(self) -> bool:
        """Say whether the path still leads to this directory (it may be renamed, deleted, unmounted, mounted over)."""
        try:
            info = os.stat(self.path)
        except OSError:
            return False
        return (info.st_dev, info.st_ino) == self.dir.identity

    def changed_at(self) -> int:
        """Return the directory's own mtime in nanoseconds: names came or went since."""
        return self.dir.stat(".").st_mtime_ns

    def look(
        self,
        names: Collection[str] | None = None,
        leave: Callable[[Entry, Collection[str]], bool] = lambda entry, results: False,
    ) -> Look:
        """Scan the folder, or only look at `names`.

        `leave(entry, results)` says which to leave out: a hundred thousand that were answered are never there at once.
        """
        entries: list[Entry] = []
        orders: list[tuple[str, str]] = []
        results: set[str] = set()
        statuses: set[str] = set()
        wrong: set[str] = set()
        outcomes: set[str] = set()
        full = names is None
        found: list[str] = []
        marks: set[str] = set()
        with self._names(names) as each:
            for name in each:
                if not name.startswith(PREFIX):
                    continue
                rest = name[len(PREFIX) :]
                if rest.startswith("RESULT_"):
                    if rest.endswith(".json"):
                        results.add(rest[7:-5])
                elif rest.startswith("STATUS_"):
                    statuses.add(rest[7:-5])
                elif rest.startswith("OUTCOME_"):
                    judged = outcome(name)
                    if judged is not None:
                        outcomes.add(judged)
                elif rest.endswith(".done"):
                    marks.add(name)
                else:
                    found.append(name)
        for name in found:
            asked = order(name)
            if asked is not None:
                if full or self.dir.exists(name):
                    orders.append(asked)
                continue
            entry = self.entry(name, marked=(f"{name}.done" in marks) if full else None)
            if entry is not None:
                if not leave(entry, results):
                    entries.append(entry)
            elif misnamed(name):
                wrong.add(name)
        return Look(
            tuple(entries),
            tuple(orders),
            frozenset(results),
            frozenset(statuses),
            full,
            misnamed=frozenset(wrong),
            outcomes=frozenset(outcomes),
        )

    @contextmanager
    def _names(self, names: Collection[str] | None) -> Iterator[Iterable[str]]:
        if names is not None:
            yield names
            return
        with self.dir.scan() as scan:
            yield (entry.name for entry in scan)

    def entry(self, name: str, *, marked: bool | None = None) -> Entry | None:
        """Stat one request by name; None when it is gone or no request.

        Raises `PermissionError` when the folder may not be searched.
        """
        parts = request_id(name)
        if parts is None:
            return None
        try:
            info = self.dir.stat(name)
            if marked is None:
                marked = self.dir.exists(f"{name}.done")
        except PermissionError:
            raise  # it is the folder that may not be searched: nobody can say what is there
        except OSError:
            return None
        return Entry(name, parts[0], parts[1], kind_of(info), sig_of(info), marked)

    def peek(self, entry: Entry) -> tuple[bool, int]:
        """Look at a small file's ends: (does it bear an end mark, its priority)."""
        try:
            fd = self.dir.open(entry.name)
        except OSError:
            return False, 0
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return False, 0
            head = os.read(fd, 2048)
            size = entry.sig.size
            if size > 2048:
                os.lseek(fd, size - 64, os.SEEK_SET)
            tail = os.read(fd, 64) if size > 2048 else head[-64:]
        except OSError:
            return False, 0
        finally:
            os.close(fd)
        mark = _END.search(tail)
        front = head.split(b"\n#", 1)[0]
        priority = _PRIORITY.search(front)
        ended = mark is not None and (entry.suffix == ".md") == (b"<!--" in mark[0]) and entry.suffix != ".json"
        return ended, int(priority[1]) if priority else 0

    def read(self, name: str, limit: int) -> Bytes | Held:
        """Read a request that nobody has open for writing. Raises `OSError` EFBIG, ELOOP or EINVAL to refuse it."""
        try:
            fd = self.dir.open(name)
        except FileNotFoundError:
            return Held.GONE
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.EINVAL, kind_of(before), name)
            free = _nobody_writes(fd)
            if free is Held.BUSY:
                return Held.BUSY
            data = read_all(fd, limit, name)
            try:
                after = self.dir.stat(name)
            except FileNotFoundError:
                return Held.GONE
            if sig_of(before) != sig_of(after) or len(data) != after.st_size:
                return Held.CHANGED
            return Bytes(data, sig_of(after), sure=free is None)
        finally:
            os.close(fd)

    def secure(self, name: str) -> None:
        """Make a request and its name survive a power cut; writers seldom do.

        To be done before the claim is: where the claim came back from a power cut and only half of the file did, or its
        former bytes, that would be read as an edit and asked about.
        """
        with suppress(OSError):  # gone meanwhile, or its own disk fails: what was read is asked all the same
            self.dir.sync_file(name)
        self.dir.sync()

    def read_json(self, name: str, limit: int = 64 << 20) -> dict[str, Any] | None:
        """Read a JSON object that stands in the folder; None when it is absent or not one."""
        try:
            value = json.loads(self.dir.read(name, limit))
        except (OSError, ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


def keep_edited(directory: Directory, name: str, ours: Collection[bytes]) -> str:
    """Keep a RESULT file that is about to be replaced if somebody edited it, or has it open to do so.

    `ours` are the contents that are not worth keeping. Returns the name that it is kept under, "" if it is not.
    Raises `OSError` when it should be kept and cannot.
    """
    try:
        fd = directory.open(name)
    except OSError:  # nothing there, or no file of anybody's: a link is replaced, and its target left alone
        return ""
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return ""
        if _nobody_writes(fd) is not Held.BUSY and read_all(fd, _RESULT_LIMIT, name) in ours:
            return ""
    finally:
        os.close(fd)
    return directory.keep(name)


def _nobody_writes(fd: int) -> Held | None:
    """Ask the kernel whether somebody has this file open for writing; None means surely nobody.

    A read lease is granted only then; it is given back at once, for a writer would wait for it.
    """
    if fcntl is None or not hasattr(fcntl, "F_SETLEASE"):
        return Held.UNKNOWN
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return Held.BUSY if error.errno == errno.EAGAIN else Held.UNKNOWN
    return None


def sig_of(info: os.stat_result) -> Sig:
    """Take from a stat what tells one state of a file from another."""
    return Sig(info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


_KINDS: Final = (
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
)


def kind_of(info: os.stat_result) -> str:
    """Name what kind of thing a stat describes, in words."""
    if stat.S_ISREG(info.st_mode):  # nearly always, and a hundred thousand times at a start
        return "file"
    return next((word for test, word in _KINDS if test(info.st_mode)), "device")


def submit(path: str, name: str, data: bytes) -> str:
    """Drop a request as a well-behaved writer does: a temporary file, sync, rename. Returns its path.

    Raises `FileExistsError` when the name is taken, `OSError` when the folder cannot be written.
    """
    os.makedirs(path, mode=0o700, exist_ok=True)
    with Directory(path) as folder:
        temp = f".{name}.{os.getpid()}.tmp"
        folder.create(temp, name, data)
    return os.path.join(path, name)
