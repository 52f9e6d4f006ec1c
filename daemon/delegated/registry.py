"""Which workspaces their user asked to have served, since when, and what may run there only when asked for by name.

Code comes from strangers, and request files may come with it. What stood in a folder when its workspace was registered,
and what git tracks there, is not run by itself. A registration lies in the user's own state, outside every workspace,
and is about one directory on this machine: a copy, or a clone in its place, has none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import struct
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from delegated import folder as names
from delegated import git_index
from delegated.disk import Directory
from delegated.plan import Sig

OLDER: Final = "older than the registration"
TRACKED: Final = "tracked by git"
UNKNOWN: Final = "git's index cannot be read"
JOURNAL: Final = ".delegated"

_SCHEMA: Final = "delegated/registration/1"
_LIMIT: Final = 256 << 20
_REQUEST_LIMIT: Final = 4 << 20
_INDEX_LIMIT: Final = 512 << 20
_NEEDLES: Final = (names.PREFIX.lower().encode(), b".delegated/")
_DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class Standing:
    """A file that stood there at the registration: its state, and the SHA-256 of its bytes ("" when not read)."""

    sig: Sig
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Registration:
    """What stood in a folder when its workspace was registered: REQUESTs and orders by name, unfinished jobs by key.

    `at` is in seconds since the epoch, for people. `trouble` says why it could not be kept: then the next start of a
    daemon registers anew.
    """

    at: float
    files: Mapping[str, Standing] = field(default_factory=dict)
    jobs: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""


def find(state: str, workspace: str, folder: str) -> Registration | None:
    """Return the registration of a workspace's folder; None when there is none that is about this directory."""
    try:
        with Directory(os.path.join(state, "workspaces")) as place:
            value = json.loads(place.read(_name(workspace, folder), _LIMIT))
        if value["schema"] != _SCHEMA or value["identity"] != _identity(workspace):
            return None
        return Registration(
            value["at"],
            {name: Standing(Sig(*of[:4]), of[4]) for name, of in value["files"].items()},
            {key: int(revision) for key, revision in value["jobs"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError, IndexError):
        return None  # a damaged one is none


def register(state: str, workspace: str, folder: str, *, now: float | None = None) -> Registration:
    """Return the registration of a workspace's folder; make it, of what stands there now, when there is none. Blocks.

    One that cannot be written is returned with its `trouble`. Raises `OSError` when nobody can say what stands there.
    """
    known = find(state, workspace, folder)
    if known is not None:
        return known
    files, jobs = _standing(folder), _unfinished(folder)
    at = time.time() if now is None else now
    value = {
        "schema": _SCHEMA,
        "workspace": workspace,
        "folder": folder,
        "at": at,
        "jobs": jobs,
        "files": {
            name: [each.sig.ino, each.sig.size, each.sig.mtime_ns, each.sig.ctime_ns, each.sha256]
            for name, each in files.items()
        },
    }
    trouble = ""
    try:
        value["identity"] = _identity(workspace)
        _write(os.path.join(state, "workspaces"), _name(workspace, folder), json.dumps(value, indent=1).encode())
    except OSError as error:
        trouble = f"{error.filename or state}: {error.strerror}"
    return Registration(at, files, jobs, trouble)


def _name(workspace: str, folder: str) -> str:
    """Name the file: by the workspace's real path, and the folder as it is reached from there, through links or not."""
    key = (os.path.realpath(workspace), os.path.relpath(os.path.abspath(folder), os.path.abspath(workspace)))
    return hashlib.sha256(os.fsencode("\0".join(key))).hexdigest()[:32] + ".json"


def _write(place: str, name: str, data: bytes) -> None:
    with Directory(place, create=True) as directory:
        temp = f".{name}.{os.getpid()}.{os.urandom(4).hex()}"
        directory.write_temp(temp, data)
        directory.rename_into(temp, directory, name)
        directory.sync()


def _identity(workspace: str) -> list[int]:
    """Tell this directory from every other one that has had or may get its path: inode number and time of birth.

    Not the device, which another start of the machine may number otherwise. Neither can be set from within a clone.
    """
    info = os.stat(workspace)
    return [info.st_ino, _born(workspace, info)]


def _born(path: str, info: os.stat_result) -> int:
    """Return when a directory was made, in nanoseconds; 0 where the system or the file system does not say."""
    known = getattr(info, "st_birthtime_ns", None) or getattr(info, "st_birthtime", None)
    if known is not None:
        return int(known if isinstance(known, int) else known * 1e9)
    with suppress(Exception):  # no such call, no such library: then it is not known
        import ctypes

        buffer = ctypes.create_string_buffer(256)
        # AT_FDCWD, STATX_BTIME; of struct statx: stx_mask at byte 0, stx_btime at 80 (seconds) and 88 (nanoseconds).
        if ctypes.CDLL(None).statx(-100, os.fsencode(path), 0, 0x800, buffer) == 0:
            mask, seconds, nanoseconds = struct.unpack_from("=I76xqI", buffer.raw)
            return seconds * 10**9 + nanoseconds if mask & 0x800 else 0
    return 0


def _standing(folder: str) -> dict[str, Standing]:
    """List the REQUESTs and orders that stand in a folder now; none when there is no folder yet. Raises `OSError`."""
    found: dict[str, Standing] = {}
    try:
        directory = Directory(folder)
    except (FileNotFoundError, NotADirectoryError):
        return found
    with directory, directory.scan() as scan:
        for entry in scan:
            if names.request_id(entry.name) is None and names.order(entry.name) is None:
                continue
            with suppress(OSError):  # it went meanwhile
                info = directory.stat(entry.name)
                sha256 = ""
                if stat.S_ISREG(info.st_mode):
                    with suppress(OSError):  # too large, unreadable: its state has to do
                        sha256 = hashlib.sha256(directory.read(entry.name, _REQUEST_LIMIT)).hexdigest()
                found[entry.name] = Standing(names.sig_of(info), sha256)
    return found


def _unfinished(folder: str) -> dict[str, int]:
    """List the jobs of a folder's journal that have not ended, with their newest revision."""
    found: dict[str, int] = {}
    jobs = os.path.join(folder, JOURNAL, "jobs")
    for shard in _directories(jobs):
        for key in _directories(os.path.join(jobs, shard)):
            place = os.path.join(jobs, shard, key)
            revisions = [int(name[1:]) for name in _directories(place) if re.fullmatch(r"r[1-9][0-9]{0,5}", name)]
            newest = max(revisions, default=0)
            if newest and not os.path.lexists(os.path.join(place, f"r{newest}", "done")):
                found[key] = newest
    return found


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as scan:
            return [entry.name for entry in scan if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class Tracked:
    """What git tracks of a folder: names (as `folded` writes them). `busy` while git changes it, `trouble` when it
    cannot be known; `journal` when a daemon's records were committed.
    """

    names: frozenset[str] = frozenset()
    busy: str = ""
    trouble: str = ""
    journal: str = ""


class Repositories:
    """The git repositories that a folder lies in, the nearest and those around it. An index is read when it changed."""

    def __init__(self, folder: str) -> None:
        self._folder = os.path.realpath(folder)
        self._read: dict[str, tuple[Sig, tuple[str, ...]]] = {}

    def look(self) -> Tracked:
        """Say what is tracked now. Blocks."""
        found: set[str] = set()
        busy = trouble = journal = ""
        for root, place in around(self._folder):
            index = os.path.join(place, "index")
            # Git writes the files first and the index last: whoever looks in between would take them for untracked.
            if os.path.lexists(f"{index}.lock"):
                busy = busy or f"{index}.lock"
            try:
                paths = self._paths(index)
            except (OSError, ValueError) as error:
                trouble = trouble or f"{index}: {getattr(error, 'strerror', None) or error}"
                continue
            below = folded(os.path.relpath(self._folder, root).replace(os.sep, "/"))
            prefix = "" if below == "." else f"{below}/"
            for path in paths:
                if path.startswith(prefix):
                    name = path[len(prefix) :]
                    found.add(name)
                    if name.startswith(f"{JOURNAL}/"):
                        journal = journal or os.path.join(self._folder, name)
        return Tracked(frozenset(found), busy, trouble, journal)

    def changed(self) -> bool:
        """Say whether an index is another one than when it was read last."""
        for _, place in around(self._folder):
            index = os.path.join(place, "index")
            known = self._read.get(index)
            try:
                sig = names.sig_of(os.stat(index))
            except (OSError, ValueError):  # a name with a NUL, which a file of the repository gave
                sig = None
            if (known[0] if known else None) != sig:
                return True
        return False

    def _paths(self, index: str) -> tuple[str, ...]:
        try:
            info = os.stat(index)
        except FileNotFoundError:
            if os.path.isdir(os.path.dirname(index)):
                self._read.pop(index, None)
                return ()  # nothing was ever added
            raise
        sig = names.sig_of(info)
        known = self._read.get(index)
        if known is not None and known[0] == sig:
            return known[1]
        read = git_index.read(_bytes(index), _NEEDLES)
        found = read.paths
        if read.shared:  # a split index; what it takes away from the shared one counts as tracked still
            shared = os.path.join(os.path.dirname(index), f"sharedindex.{read.shared}")
            found += git_index.read(_bytes(shared), _NEEDLES).paths
        paths = tuple(folded(path.decode("utf-8", "surrogateescape")) for path in found)
        self._read[index] = (sig, paths)
        return paths


def around(path: str) -> Iterator[tuple[str, str]]:
    """Yield (root of the work tree, directory) of the repositories that a directory lies in, the nearest first."""
    at = path
    for _ in range(_DEPTH):
        mark = os.path.join(at, ".git")
        with suppress(OSError):
            mode = os.lstat(mark).st_mode
            if stat.S_ISREG(mode):  # a worktree or a submodule: one line says where its repository is
                line = said_in(mark)
                if line.startswith("gitdir:"):
                    yield at, os.path.join(at, line.removeprefix("gitdir:").strip())
            else:
                yield at, mark
        if os.path.dirname(at) == at:
            return
        at = os.path.dirname(at)


def index_of(repository: str) -> bytes:
    """Return the bytes of a repository's index. Raises `OSError`."""
    return _bytes(os.path.join(repository, "index"))


def attributes(root: str, below: str, repository: str) -> Iterator[bytes]:
    """Yield what a repository says of how git writes a file of it, `below` its work tree. Raises `OSError`."""
    parts = below.split("/")[:-1]
    places = [os.path.join(root, *parts[:depth], ".gitattributes") for depth in range(len(parts) + 1)]
    for path in (os.path.join(repository, "info", "attributes"), *places):
        with suppress(FileNotFoundError):
            yield _bytes(path)


def folded(path: str) -> str:
    """Write a path as file systems that fold letter case and composition compare it."""
    return unicodedata.normalize("NFC", path.casefold())


def said_in(path: str) -> str:
    """Return the line that a small file of git's holds. Raises `OSError`, and `ValueError` for a name with a NUL."""
    with _opened(path) as file:
        return os.fsdecode(file.read(4096)).strip()


def _bytes(path: str) -> bytes:
    with _opened(path) as file:
        data = file.read(_INDEX_LIMIT + 1)
    if len(data) > _INDEX_LIMIT:
        raise OSError(errno.EFBIG, "it is too large", path)
    return data


def _opened(path: str) -> BinaryIO:
    """Open a regular file; a FIFO in its place is not waited on."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return open(fd, "rb")
    os.close(fd)
    raise OSError(errno.EINVAL, "not a regular file", path)


class Consent:
    """What may run by itself in one folder. `names` of requests; ids in `asked` were asked for by name.

    `once`: everything untracked that stands there is asked for. `only`: one request was asked for by name.
    """

    def __init__(self, registration: Registration, folder: str, *, once: bool = False, only: bool = False) -> None:
        self.registration = registration
        self.repositories = Repositories(folder)
        self.asked: set[str] = set()
        self._once = once or only
        self._only = only

    def older(self, name: str, sig: Sig, sha256: str = "") -> bool:
        """Say whether a file is one that stood there at the registration, touched since perhaps, not edited."""
        before = self.registration.files.get(name)
        return before is not None and (before.sig == sig or (before.sha256 != "" and before.sha256 == sha256))

    def foreign(self, key: str, revision: int) -> bool:
        """Say whether an unfinished job was in the journal already at the registration: it may not be ours."""
        return not self._once and key not in self.asked and self.registration.jobs.get(key) == revision

    def standing(self, name: str, key: str, sig: Sig) -> bool:
        """Say, without reading it, whether a request is to be left alone because it is older."""
        return not self._once and key not in self.asked and self.older(name, sig)

    def why_not(self, name: str, key: str, sig: Sig, sha256: str, tracked: Tracked) -> str:
        """Say why a request is not run by itself, "" when it is."""
        if self._only or key in self.asked:
            return ""
        if not self._once and self.older(name, sig, sha256):
            return OLDER
        return untracked(name, tracked)

    def order_counts(self, name: str, sig: Sig, tracked: Tracked) -> str:
        """Say why an order is not obeyed, "" when it is: one that came with the code is nobody's."""
        return OLDER if self.older(name, sig) else untracked(name, tracked)


def untracked(name: str, tracked: Tracked) -> str:
    """Return "" for a file that git surely does not track, else why it does not count."""
    if folded(name) in tracked.names:
        return TRACKED
    return f"{UNKNOWN} ({tracked.trouble})" if tracked.trouble else ""


def not_run(registration: Registration | None, folder: str) -> Callable[[str, Sig, str], str]:
    """Return a function of (name, state, SHA-256) that says why a request would not be run by a daemon that starts."""
    tracked = Repositories(folder).look()
    if registration is None:
        return lambda name, sig, sha256: untracked(name, tracked) or OLDER
    consent = Consent(registration, folder)
    return lambda name, sig, sha256: consent.why_not(name, "", sig, sha256, tracked)
