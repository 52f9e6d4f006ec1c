"""Reads what changed in a workspace: its files against the last commit, and who last touched the lines that failed.

Git's own files are read, below the workspace's root and through no link; git is not run. Each search has its time, and
what could not be found in it is told.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

from delegated import git_index
from delegated.changes import LAST_COMMITS, UNCOMMITTED, Changed, History, Touched
from delegated.context import Omitted
from delegated.difference import difference
from delegated.folder import is_ours
from delegated.git_index import Entry, Tracked
from delegated.git_objects import MAX_BLOB, Commit, Late, Repository, Unreadable
from delegated.secrets import forbidden
from delegated.tree import MAX_DEPTH, VENDORED, Tree, decode, why_not
from delegated.workspace import Workspace

SECONDS: Final = 2.0  # for all of it
FRAMES: Final = 6
_AROUND: Final = 2  # lines on either side of a frame's line
_MOST_CHANGED: Final = 40  # files
_MOST_READ: Final = 400  # files that may have changed, and are read to know
_MOST_GONE: Final = 200  # files that may be deleted, and are looked for
_MOST_COMMITS: Final = 8
_MOST_TEXT: Final = 512 << 10  # characters of all texts of one history: they are searched for secrets
_MAX_INDEX: Final = 32 << 20
_MAX_PATHS: Final = 64 << 20  # bytes that the paths of all committed files may take
_PATH: Final = 100  # of these for each, beside its characters
_LFS: Final = "version https://git-lfs"

Stamps = Mapping[str, tuple[int, int, int]]


def read(
    space: Workspace,
    framed: Sequence[tuple[str, int]],
    near: Sequence[str],
    *,
    stamps: Stamps | None = None,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> History:
    """Read what changed; nothing where the workspace is no repository.

    `framed` are the places that the trace names, most suspicious first; `near` the files that the request is about,
    whose changes come first; `stamps` what `Tree.stamps` gave a moment ago, where somebody asked.
    """
    start = clock()
    with space.opened() as tree:
        try:
            repository = Repository(tree, until=start + seconds / 2, clock=clock)
        except Unreadable as error:
            return History(omitted=_both(str(error)) if str(error) else ())
        except OSError as error:
            return History(omitted=_both(why_not(error)))
        with repository:
            if not repository.head:
                return History(omitted=_both("nothing was committed yet, or its newest commit is not known"))
            room = _Room(_MOST_TEXT)
            changed, omitted = _changes(tree, repository, near, stamps, room)
            repository.until = start + seconds
            touched, more = _commits(tree, repository, framed, room)
        return History(repository.head, tuple(changed), tuple(touched), (*omitted, *more))


class _Room:
    """How much text may still be read for a history."""

    def __init__(self, left: int) -> None:
        self.left = left

    def takes(self, *texts: str | None) -> bool:
        """Say whether these fit, and count them when they do."""
        size = sum(len(text) for text in texts if text is not None)
        if size > self.left:
            return False
        self.left -= size
        return True


def _both(reason: str) -> tuple[Omitted, ...]:
    return Omitted(UNCOMMITTED, reason), Omitted(LAST_COMMITS, reason)


# What is not committed yet


def _changes(
    tree: Tree, repository: Repository, near: Sequence[str], stamps: Stamps | None, room: _Room
) -> tuple[list[Changed], list[Omitted]]:
    found: list[Changed] = []
    try:
        index, at = _index(tree, len(repository.head) // 2)
        root = repository.commit(repository.head).tree
        committed = _committed(repository, root, index)
        stamps = dict(tree.stamps()) if stamps is None else stamps
        mine = (path for path in stamps if not is_ours(path))  # else each RESULT would tell of the one before
        unsure = [path for path in mine if _may_differ(path, stamps[path], index, committed, at)]
        order = {path: place for place, path in enumerate(near)}
        unsure.sort(key=lambda path: (order.get(path, len(order)), -stamps[path][0], path))
        skipped = len(unsure[_MOST_READ:])
        gone = _gone(tree, repository, stamps, index, committed)
        for path in (*unsure[:_MOST_READ], *gone):
            each = _changed(tree, repository, path, committed.get(path))
            if each is None:
                continue
            if len(found) == _MOST_CHANGED or not room.takes(each.before, each.after):
                skipped += 1
            else:
                found.append(each)
    except Late:
        return found, [Omitted(UNCOMMITTED, "not all were found in the time that there is for it")]
    except (Unreadable, ValueError) as error:
        return found, [Omitted(UNCOMMITTED, f"git's files could not be read: {error}")]
    except OSError as error:  # of a disk that fails: what is only sent along is no reason to ask nothing
        return found, [Omitted(UNCOMMITTED, f"git's files: {why_not(error)}")]
    if skipped:
        return found, [Omitted(UNCOMMITTED, f"those of up to {skipped:,} more files were not looked at: too many")]
    return found, []


def _index(tree: Tree, size: int) -> tuple[Tracked, int]:
    """Read the index. Returns it with its own modification time (ns): git was not sure of what is as new."""
    fd = tree.open_file((".git", "index"), _MAX_INDEX)
    if isinstance(fd, str):
        raise Unreadable(f"its index: {fd}")
    with open(fd, "rb") as file:
        at = os.fstat(fd).st_mtime_ns
        return git_index.tracked(file.read(_MAX_INDEX), size), at


def _committed(repository: Repository, root: str, index: Tracked) -> dict[str, str]:
    """Return the blob of every committed file. Only directories with a staged change are read for it."""
    found: dict[str, str] = {}
    same: set[str] = set()
    room = _MAX_PATHS
    waiting = [("", root)]
    while waiting:
        directory, name = waiting.pop()
        if index.trees.get(directory) == name:
            same.add(directory)
            continue
        for part, (mode, each) in repository.entries(name).items():
            path = f"{directory}/{part}" if directory else part
            room -= len(path) + _PATH
            if room < 0:
                raise Unreadable("too many files were committed")
            if mode == 0o40000:
                if path.count("/") + 1 < MAX_DEPTH:  # deeper than that no file is known, and one tree may hold itself
                    waiting.append((path, each))
            elif mode & 0o170000 == 0o100000:
                found[path] = each
    if same:
        alike: dict[str, bool] = {}
        for path, entry in index.files.items():
            directory = path.rpartition("/")[0]
            if directory not in alike:
                repository.in_time()
                alike[directory] = any(above in same for above in _above(directory))
            if alike[directory]:
                found[path] = entry.blob
    return found


def _above(directory: str) -> Iterator[str]:
    while directory:
        yield directory
        directory = directory.rpartition("/")[0]
    yield ""


def _may_differ(path: str, stamp: tuple[int, int, int], index: Tracked, committed: Mapping[str, str], at: int) -> bool:
    entry = index.files.get(path)
    if entry is None:
        return path in committed  # no longer tracked, and still there
    return committed.get(path) != entry.blob or not _as_known(entry, stamp) or entry.mtime_ns >= at


def _as_known(entry: Entry, stamp: tuple[int, int, int]) -> bool:
    exact = bool(entry.mtime_ns % 1_000_000_000)  # some builds of git keep whole seconds
    then, now = (at if exact else at // 1_000_000_000 for at in (entry.mtime_ns, stamp[0]))
    return then == now and entry.size == stamp[1] & 0xFFFFFFFF


def _gone(
    tree: Tree, repository: Repository, stamps: Stamps, index: Tracked, committed: Mapping[str, str]
) -> list[str]:
    """Return the committed files that are not there any more, of those that a glob would have given."""
    missing = (path for path in committed if path not in stamps and not is_ours(path))
    looked = (path for path in missing if not VENDORED.intersection(path.split("/")))
    found: list[str] = []
    for number, path in enumerate(looked):
        if number == _MOST_GONE:
            break
        repository.in_time()
        if tree.lists(path) and tree.is_missing(path):
            found.append(path)
    return found


def _changed(tree: Tree, repository: Repository, path: str, blob: str | None) -> Changed | None:
    """Compare a file with what was committed; None when it is the same, or nothing to be shown."""
    if forbidden(path):
        return None
    data = tree.read(path.split("/"), MAX_BLOB)
    if isinstance(data, str) and not tree.is_missing(path):
        return None
    if isinstance(data, bytes) and blob == _name(data, len(repository.head)):
        return None
    after = _text(data) if isinstance(data, bytes) else None
    before = _text(repository.blob(blob)) if blob is not None else None
    if (isinstance(data, bytes) and after is None) or (blob is not None and before is None):
        return None  # binary, now or then
    if before is not None and (before == after or before.startswith(_LFS)):
        return None
    return Changed(path, before, after)


def _name(data: bytes, length: int) -> str:
    """Name a file's content as git does."""
    made = hashlib.sha256 if length == 64 else hashlib.sha1
    return made(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _text(data: bytes) -> str | None:
    read = decode(data)
    return None if read is None else read[0].replace("\r\n", "\n")


# Who last touched the lines that failed


def _commits(
    tree: Tree, repository: Repository, framed: Sequence[tuple[str, int]], room: _Room
) -> tuple[list[Touched], list[Omitted]]:
    found: list[Touched] = []
    try:
        head = repository.commit(repository.head)
        frames = _frames(tree, repository, head, framed)
        walk = _Walk(repository, head, frames)
        for touched in walk.touched():
            if not room.takes(touched.before, touched.after):
                return found, [Omitted(LAST_COMMITS, f"{touched.commit} and older ones: their files are too large")]
            found.append(touched)
            if len(found) == _MOST_COMMITS:
                break
    except Late:
        return found, [Omitted(LAST_COMMITS, "older ones were not found in the time that there is for it")]
    except Unreadable as error:
        why = "the history is cut off here (a shallow clone)" if repository.shallow else str(error)
        return found, [Omitted(LAST_COMMITS, why)]
    except OSError as error:
        return found, [Omitted(LAST_COMMITS, f"git's files: {why_not(error)}")]
    return found, []


def _frames(
    tree: Tree, repository: Repository, head: Commit, framed: Sequence[tuple[str, int]]
) -> dict[str, dict[int, int]]:
    """Return, by path, the committed lines about each frame, each with the frame's own line."""
    found: dict[str, dict[int, int]] = {}
    places = list(dict.fromkeys((path, line) for path, line in framed if line > 0))
    for path, line in places[:FRAMES]:
        blob = "" if forbidden(path) or is_ours(path) else repository.file(head.tree, path)
        now = tree.read(path.split("/"), MAX_BLOB) if blob else ""
        after = _text(now) if isinstance(now, bytes) else None
        before = _text(repository.blob(blob)) if blob and after is not None else None
        if before is None or after is None:
            continue
        compared = difference(before, after)
        for near in (line, *(line + by for by in range(-_AROUND, _AROUND + 1))):
            was = compared.origin(near) if 0 < near <= len(compared.after) else None
            if was is not None:
                found.setdefault(path, {}).setdefault(was, line)
    return found


class _Walk:
    """Goes back from a commit until it is known for every line which commit brought it, the newest commits first."""

    def __init__(self, repository: Repository, head: Commit, frames: dict[str, dict[int, int]]) -> None:
        self._repository = repository
        self._waiting: list[tuple[int, int, str]] = []
        self._lines: dict[str, dict[str, dict[int, set[int]]]] = {}  # by commit and path: a line, the trace's lines
        for path, lines in frames.items():
            for line, of in lines.items():
                self._pass(head, path, {line: {of}})

    def touched(self) -> Iterator[Touched]:
        """Yield the commits, with the lines that each was the last to touch."""
        while self._waiting:
            _, _, name = heapq.heappop(self._waiting)
            commit = self._repository.commit(name)
            parents = [self._repository.commit(each) for each in commit.parents]
            for path, lines in self._lines.pop(name, {}).items():
                touched = self._step(commit, parents, path, lines)
                if touched is not None:
                    yield touched

    def _step(self, commit: Commit, parents: list[Commit], path: str, lines: dict[int, set[int]]) -> Touched | None:
        """Pass the lines of a file that are older than a commit to its parents; the others are the commit's own."""
        ours = self._repository.file(commit.tree, path)
        theirs = [(parent, self._repository.file(parent.tree, path)) for parent in parents]
        for parent, blob in theirs:
            if blob == ours:
                self._pass(parent, path, lines)
                return None
        after = _text(self._repository.blob(ours))
        if after is None:
            return None
        former: str | None = None
        for parent, blob in theirs:
            before = _text(self._repository.blob(blob)) if blob else None
            if before is None:
                continue
            former = before if former is None else former
            compared = difference(before, after)
            origins = {line: compared.origin(line) for line in lines}
            self._pass(parent, path, {was: lines[line] for line, was in origins.items() if was is not None})
            lines = {line: lines[line] for line, was in origins.items() if was is None}
        if not lines:
            return None
        of = sorted(set().union(*lines.values()))
        return Touched(
            commit.name[:10], commit.day, commit.subject, path, former, after, tuple(sorted(lines)), tuple(of)
        )  # fmt: skip

    def _pass(self, commit: Commit, path: str, lines: Mapping[int, Collection[int]]) -> None:
        if not lines:
            return
        if commit.name not in self._lines:
            heapq.heappush(self._waiting, (-commit.at, len(self._lines), commit.name))
        known = self._lines.setdefault(commit.name, {}).setdefault(path, {})
        for line, of in lines.items():
            known.setdefault(line, set()).update(of)
