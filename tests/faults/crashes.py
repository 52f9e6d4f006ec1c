"""What a disk may hold after a power cut: every state that the recorded operations of a daemon allow.

Data that was not synced survives as none, half or all of it. Names that were not synced survive, in the *ordered*
model, as any prefix of the operations on them; in the *weak* model as any subset, where a rename counts as two: the new
name may be there without the old one gone, and the old one gone without the new one there. A sync of a file covers its
data and of a directory the names in it, nothing else: no real file system is as forgetful.

What nobody can see is left out of the combinations: the lock's bytes, SQLite's own files (see `Row`), and `tmp/`, which
every start empties unread; whatever may be left there is put there all at once, torn.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any, Final, Literal

from delegated.record import unpack

Model = Literal["ordered", "weak"]
DIRECTORY: Final = -1
JOURNAL: Final = ".delegated/"
_UNSEEN: Final = (".delegated/tmp/", ".delegated/lock", ".delegated/index.sqlite")
_WHOLE: Final = 12  # up to 2**12 subsets are tried at one point; above, prefixes and all but / only one or two


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the index, by what it means: this name was dealt with when its file held these bytes."""

    name: str
    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class State:
    """What is there after a cut: files, directories, rows, and how many lines of the server's memory.

    `point` is the number of events before the cut.
    """

    point: int
    files: dict[str, bytes]
    directories: frozenset[str]
    rows: tuple[Row, ...]
    net: int
    leftovers: tuple[str, ...]

    def exact(self) -> str:
        """Name this state: two with one name are the same."""
        return self._digest(lambda _, data: hashlib.sha256(data).hexdigest())

    def seen(self) -> str:
        """Name what a start reads of this state: two with one name cannot be told apart by the program.

        A record without its end mark is torn whatever its bytes are; of a STATUS only the name is looked at.
        """
        return self._digest(_reading)

    def _digest(self, of: Any) -> str:
        told = [sorted((path, of(path, data)) for path, data in self.files.items()), sorted(self.directories)]
        return hashlib.sha256(repr([told, self.rows, self.net]).encode()).hexdigest()


def is_record(path: str) -> bool:
    """Say whether a path is a record of the journal."""
    return path.startswith(JOURNAL + "jobs/")


def _reading(path: str, data: bytes) -> str:
    if is_record(path) and unpack(data) is None:
        return "torn"
    return "there" if "_STATUS_" in path else hashlib.sha256(data).hexdigest()


@dataclass(slots=True)
class _File:
    born: int
    durable: bytes = b""
    current: bytes = b""

    def survivals(self) -> tuple[bytes, ...]:
        """Return none, half and all of what was not synced."""
        if self.current == self.durable:
            return (self.current,)
        base = self.durable if self.current.startswith(self.durable) else b""
        half = self.current[: len(base) + (len(self.current) - len(base)) // 2]
        return tuple(dict.fromkeys((self.durable, half, self.current)))


@dataclass(slots=True)
class _Change:
    halves: list[tuple[str, int | None]]  # (path, the node that it leads to or None)


@dataclass(slots=True)
class Count:
    """How many combinations were looked at, and how many points had too many to try each."""

    points: int = 0
    combinations: int = 0
    bounded: int = 0


@dataclass(slots=True)
class Disk:
    """Replays a record and knows at each point what is durable and what is not."""

    model: Model
    files: list[_File] = field(default_factory=list)
    view: dict[str, int] = field(default_factory=dict)
    durable: dict[str, int] = field(default_factory=dict)
    pending: list[_Change] = field(default_factory=list)
    rows: list[tuple[Row | None, str]] = field(default_factory=list)  # (row or None for "forget", key)
    rows_durable: int = 0
    _fds: dict[int, str | int] = field(default_factory=dict)

    def apply(self, line: dict[str, Any]) -> bool:
        """Do one recorded operation; False when it cannot have changed what a cut leaves."""
        made = len(self.files)
        op, path = line["op"], line.get("path", "")
        match op:
            case "open":
                node = self.view.get(path)
                if path != "." and node is None:
                    node = self._born()
                    self._change((path, node))
                elif line["trunc"] and node is not None:
                    self.files[node].current = b""
                self._fds[line["fd"]] = path if node in (None, DIRECTORY) else node
            case "write" | "ftruncate":
                node = self._fds[line["fd"]]
                assert isinstance(node, int)
                file = self.files[node]
                file.current = (
                    file.current + base64.b64decode(line["data"]) if op == "write" else file.current[: line["length"]]
                )
            case "close":
                self._fds.pop(line["fd"], None)
            case "fsync" | "fdatasync":
                what = self._fds[line["fd"]]
                if isinstance(what, int):
                    self.files[what].durable = self.files[what].current
                else:
                    self._sync_directory(what)
            case "link":
                self._change((line["to"], self.view[path]))
            case "rename":
                self._change((line["to"], self.view[path]), (path, None))
            case "unlink":
                self._change((path, None))
            case "mkdir":
                self._change((path, DIRECTORY))
            case "put":  # a writer's rename: neither the bytes nor the name are synced
                self._change((path, self._born(base64.b64decode(line["data"]))))
            case "edit":  # a writer's open, truncate and write
                self.files[self.view[path]].current = base64.b64decode(line["data"])
            case "settle":
                there = self.files[self.view[line["name"]]].current if line["name"] in self.view else b""
                row = Row(line["name"], line["key"], hashlib.sha256(there).hexdigest())
                self.rows.append((row, line["key"]))
            case "reopen":
                self.rows.append((None, line["key"]))
                self.rows_durable = len(self.rows)
            case _:
                raise AssertionError(f"an operation that the model does not know: {op}")
        return op != "close" and (op != "open" or line["trunc"] or len(self.files) > made)

    def _born(self, data: bytes = b"") -> int:
        self.files.append(_File(len(self.files), current=data))
        return len(self.files) - 1

    def _change(self, *halves: tuple[str, int | None]) -> None:
        for path, node in halves:
            _put(self.view, path, node)
        self.pending.append(_Change(list(halves)))

    def _sync_directory(self, directory: str) -> None:
        """Make the names in a directory durable; in the weak model a rename's other half stays open."""
        for change in self.pending:
            here = [half for half in change.halves if _parent(half[0]) == directory]
            for path, node in tuple(change.halves) if here and self.model == "ordered" else here:
                _put(self.durable, path, node)
                change.halves.remove((path, node))
        self.pending = [change for change in self.pending if change.halves]

    def states(self, point: int, net: int, count: Count) -> Iterator[State]:
        """Yield the states that a cut at this point may leave; some of them more than once."""
        leftovers = tuple(
            {path for change in self.pending for path, node in change.halves if node is not None and _unseen(path)}
            | {path for path in self.view if path.startswith(_UNSEEN[0])}
        )
        changes = [[half for half in change.halves if not _unseen(half[0])] for change in self.pending]
        changes = [halves for halves in changes if halves]
        rows = dict.fromkeys((self._rows(self.rows_durable), self._rows(len(self.rows))))
        count.points += 1
        for kept in self._kept(changes, count):
            tree = dict(self.durable)
            for path, node in kept:
                _put(tree, path, node)
            tree = {path: node for path, node in tree.items() if not _unseen(path) and _reachable(path, tree)}
            found = {path: node for path, node in tree.items() if node != DIRECTORY}
            found = dict(sorted(found.items(), key=lambda item: self.files[item[1]].born))
            directories = frozenset(path for path, node in tree.items() if node == DIRECTORY)
            for datas in self._datas(tuple(found.values()), count):
                for some in rows:
                    count.combinations += 1
                    files = dict(zip(found, datas, strict=True))
                    yield State(point, files, directories, some, net, leftovers)

    def _rows(self, until: int) -> tuple[Row, ...]:
        kept: dict[str, Row] = {}
        for row, key in self.rows[:until]:
            kept = {name: one for name, one in kept.items() if row is not None or one.key != key}
            if row is not None:
                kept[row.name] = row
        return tuple(kept.values())

    def _kept(
        self, changes: list[list[tuple[str, int | None]]], count: Count
    ) -> Iterator[list[tuple[str, int | None]]]:
        if self.model == "ordered":
            for length in range(len(changes) + 1):
                yield [half for halves in changes[:length] for half in halves]
            return
        halves = [half for each in changes for half in each]
        whole = range(len(halves))
        if len(halves) <= _WHOLE:
            sizes: Iterable[int] = range(len(halves) + 1)
        else:
            count.bounded += 1
            sizes = (0, 1, 2)
            for length in whole:
                yield halves[:length]
            for size in sizes:
                for without in combinations(whole, size):
                    yield [halves[n] for n in whole if n not in without]
        for size in sizes:
            for chosen in combinations(whole, size):
                yield [halves[n] for n in chosen]

    def _datas(self, nodes: tuple[int, ...], count: Count) -> Iterator[tuple[bytes, ...]]:
        choices = [self.files[node].survivals() for node in nodes]
        torn = sum(len(choice) > 1 for choice in choices)
        if torn <= 4:
            yield from product(*choices)
            return
        count.bounded += 1
        for which in (0, 1, -1):
            yield tuple(choice[min(which, len(choice) - 1)] for choice in choices)
        for n, choice in enumerate(choices):
            for one in choice[:-1]:
                yield tuple(one if m == n else other[-1] for m, other in enumerate(choices))


def _put(tree: dict[str, int], path: str, node: int | None) -> None:
    if node is None:
        tree.pop(path, None)
    else:
        tree[path] = node


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _unseen(path: str) -> bool:
    return path.startswith(_UNSEEN)


def _reachable(path: str, tree: dict[str, int]) -> bool:
    while "/" in path:
        path = path.rpartition("/")[0]
        if tree.get(path) != DIRECTORY:
            return False
    return True


class Recording:
    """The operations of one daemon's life, and between them the lines that the server's memory gained."""

    def __init__(self, log: bytes, ledger: bytes) -> None:
        self.ledger = ledger.splitlines(keepends=True)
        ends, total = [], 0
        for line in self.ledger:
            total += len(line)
            ends.append(total)
        self.events: list[dict[str, Any]] = []
        told = 0
        for text in log.splitlines():
            line = json.loads(text)
            while told < len(ends) and ends[told] <= line["net"]:
                self.events.append({"op": "net"})
                told += 1
            self.events.append(line)
        self.events += [{"op": "net"}] * (len(ends) - told)

    def states(self, model: Model, count: Count) -> Iterator[State]:
        """Yield every distinct state, in the order of the points at which the power may fail."""
        disk, net, seen = Disk(model), 0, set()
        for point, line in enumerate(self.events, 1):
            if line["op"] == "net":
                net += 1
            elif not disk.apply(line):
                continue
            for state in disk.states(point, net, count):
                name = state.exact()
                if name not in seen:
                    seen.add(name)
                    yield state
