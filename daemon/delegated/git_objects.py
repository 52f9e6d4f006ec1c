"""Git's objects, from the bytes of its files: no git is run, no link followed, nothing outside the workspace read.

Loose objects and packs of version 2, SHA-1 and SHA-256. Alternates, grafts, replacements and promises of a remote are
not followed: an object that is not in the repository itself is missing. The bytes are a stranger's, so every size in
them is bounded before it is believed.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Self

from delegated import cuts
from delegated.tree import Tree

MAX_BLOB: Final = 256 << 10
_MAX_OBJECT: Final = 4 << 20  # a tree with 100,000 entries
_MAX_COMMIT: Final = 1 << 20
_MAX_PARENTS: Final = 256
_MAX_PACKS: Final = 64
_MAX_CHAIN: Final = 512  # deltas upon each other; git makes 50, and 250 when told to try hard
_MAX_LISTED: Final = 100_000  # entries of one directory
_MAX_REFS: Final = 8 << 20
_MAX_CACHE: Final = 32 << 20
_SLACK: Final = 1 << 16  # bytes of a pack beyond what an object can need
_PIECE: Final = 4096  # most objects are smaller
_NO_LIMIT: Final = 1 << 62
_BITS: Final = 62  # of a size or a distance
_KINDS: Final = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
_OFFSET_DELTA, _NAME_DELTA = 6, 7
_NAME: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MODE: Final = re.compile(rb"(?:100[0-7]{3}|1[26]0000|40000)\Z")
_REF: Final = re.compile(r"refs/(?!\.)[^\x00-\x20\x7f~^:?*\[\\]{1,1000}")


class Unreadable(Exception):
    """An object or a reference that cannot be had, and why."""


class Late(Exception):
    """The time that there is for it has run out."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: its tree and parents by name, seconds since the epoch, the day as its author saw it, its subject."""

    name: str
    tree: str
    parents: tuple[str, ...]
    at: int
    day: str
    subject: str


@dataclass(frozen=True, slots=True)
class _Pack:
    """An open pack and its index: `count` names of `size` bytes each."""

    data: int
    index: int
    count: int
    size: int


class Repository:
    """The repository at a workspace's root, during one operation. Raises `Unreadable` where it is none to be read."""

    def __init__(self, tree: Tree, *, until: float, clock: Callable[[], float]) -> None:
        """`until` by `clock` every read raises `Late`: also of what is known, for a ring has no end."""
        self._tree = tree
        self.until = until
        self._clock = clock
        self._packs: list[_Pack] | None = None
        self._cache: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._cached = 0
        self._trees: dict[str, bytes] = {}
        self._held = 0  # bytes of these trees
        self._files: dict[tuple[str, str], str] = {}
        self._commits: dict[str, Commit] = {}
        names = dict(islice(tree.entries((".git",)), _MAX_LISTED))
        if not names:
            raise Unreadable(_no_directory(tree))
        if "commondir" in names:
            raise Unreadable("`.git` leads to a repository elsewhere, and nothing outside the workspace is read")
        self.shallow = "shallow" in names
        self.head = self._head()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pack in self._packs or ():
            os.close(pack.data)
            os.close(pack.index)
        self._packs = []

    def commit(self, name: str) -> Commit:
        """Read a commit."""
        self.in_time()
        if name not in self._commits:
            self._commits[name] = _commit(name, self._read(name, "commit", _MAX_COMMIT))
        return self._commits[name]

    def entries(self, name: str) -> Mapping[str, tuple[int, str]]:
        """Read a tree: by file name, mode and object. A name that is no UTF-8 is left out."""
        self.in_time()
        return dict(_entries(self._tree_of(name), len(name) // 2))

    def file(self, root: str, path: str) -> str:
        """Return the blob that a path has below a tree; "" when there is no regular file of this name."""
        self.in_time()
        found = self._files.get((root, path))
        if found is None:
            at, mode = root, stat.S_IFDIR
            for part in path.split("/"):
                mode, at = _entry(self._tree_of(at), part.encode(), len(root) // 2) if stat.S_ISDIR(mode) else (0, "")
            found = self._files[root, path] = at if stat.S_ISREG(mode) else ""
        return found

    def _tree_of(self, name: str) -> bytes:
        self.in_time()
        found = self._trees.get(name)
        if found is None:
            found = self._read(name, "tree", _MAX_OBJECT)
            if self._held + len(found) > _MAX_CACHE:
                self._trees.clear()
                self._held = 0
            self._trees[name] = found
            self._held += len(found)
        return found

    def blob(self, name: str) -> bytes:
        """Read a file's content."""
        return self._read(name, "blob", MAX_BLOB)

    def _head(self) -> str:
        """Resolve HEAD; "" when nothing was committed yet."""
        at = "HEAD"
        for _ in range(5):
            data = self._tree.read((".git", *at.split("/")), 4096)
            text = data.decode("utf-8", "replace").strip() if isinstance(data, bytes) else ""
            if _NAME.fullmatch(text):
                return text
            if not text.startswith("ref:"):
                break
            at = text.removeprefix("ref:").strip()
            if not _REF.fullmatch(at) or any(part in ("", ".", "..") for part in at.split("/")):
                raise Unreadable("its HEAD names no branch")
        if at == "HEAD":
            raise Unreadable("its HEAD cannot be read")
        packed = self._tree.read((".git", "packed-refs"), _MAX_REFS)
        text = packed.decode("utf-8", "replace") if isinstance(packed, bytes) else ""
        found = re.search(rf"^([0-9a-f]{{40,64}}) {re.escape(at)}$", text, re.MULTILINE)
        return found[1] if found and _NAME.fullmatch(found[1]) else ""

    def in_time(self) -> None:
        """Raise `Late` when the time has run out."""
        if self._clock() > self.until:
            raise Late

    def _read(self, name: str, kind: str, limit: int) -> bytes:
        self.in_time()
        found = self._packed(name, limit) or self._loose(name, limit)
        if found is None:
            info = islice(self._tree.entries((".git", "objects", "info")), _MAX_LISTED)
            lent = any(each == "alternates" for each, _ in info)
            where = "in another repository, and none outside the workspace is read" if lent else "not in the repository"
            raise Unreadable(f"object {name[:12]} is {where}")
        if found[0] != kind:
            raise Unreadable(f"object {name[:12]} is no {kind}")
        return found[1]

    def _loose(self, name: str, limit: int) -> tuple[str, bytes] | None:
        data = self._tree.read((".git", "objects", name[:2], name[2:]), limit + (64 << 10))
        if isinstance(data, str):
            return None
        try:
            text = zlib.decompressobj().decompress(data, limit + 64)
        except zlib.error:
            raise Unreadable(f"object {name[:12]} is damaged") from None
        head, _, content = text.partition(b"\0")
        kind, _, size = head.partition(b" ")
        if not size.isdigit() or int(size[:12]) != len(content) or len(content) > limit:
            raise Unreadable(f"object {name[:12]} is too large or damaged")
        return kind.decode("latin-1"), content

    def _packed(self, name: str, limit: int) -> tuple[str, bytes] | None:
        wanted = bytes.fromhex(name)
        if self._packs is None:
            self._packs = []  # those that were opened are closed, also when one of them cannot be read
            for pack in self._opened(len(wanted)):
                self._packs.append(pack)
        for number, pack in enumerate(self._packs):
            offset = _offset(pack, wanted)
            if offset is not None:
                try:
                    kind, content = self._unpacked(number, offset, limit)
                except (IndexError, ValueError, OSError, struct.error, zlib.error) as error:
                    raise Unreadable(f"object {name[:12]} is damaged: {error}") from None
                return _KINDS.get(kind, ""), content
        return None

    def _opened(self, size: int) -> Iterator[_Pack]:
        place = (".git", "objects", "pack")
        listed = islice(self._tree.entries(place), _MAX_LISTED)
        names = sorted(name for name, kind in listed if kind == stat.S_IFREG and _is_index(name))
        for name in names[:_MAX_PACKS]:
            index = self._tree.open_file((*place, name), _NO_LIMIT)
            data = self._tree.open_file((*place, name[:-4] + ".pack"), _NO_LIMIT)
            head = b""
            try:
                if isinstance(index, int) and isinstance(data, int):
                    head = os.pread(index, 8 + 1024, 0)
            finally:
                sound = len(head) == 8 + 1024 and head[:8] == b"\xfftOc\0\0\0\2"
                for fd in (index, data):
                    if isinstance(fd, int) and not sound:
                        os.close(fd)
            if sound and isinstance(index, int) and isinstance(data, int):
                yield _Pack(data, index, int.from_bytes(head[-4:]), size)

    def _unpacked(self, number: int, offset: int, limit: int) -> tuple[int, bytes]:
        """Read an object of a pack, deltas applied. Raises `ValueError` and its like on what cannot be."""
        packs = self._packs or []
        deltas: list[tuple[tuple[int, int], bytes]] = []
        held = 0
        while True:
            key = (number, offset)
            if key in self._cache:
                kind, content = self._cache[key]
                break
            if len(deltas) > _MAX_CHAIN or held > _MAX_CACHE:
                raise ValueError("deltas without an end")
            self.in_time()
            pack = packs[number]
            head = os.pread(pack.data, _PIECE, offset)
            kind, size, at = _header(head)
            if size > max(limit, _MAX_OBJECT):
                raise ValueError(f"it has {size:,} bytes")
            if kind == _OFFSET_DELTA:
                back, at = _distance(head, at)
                base = number, offset - back
                if not 0 < back < offset:
                    raise ValueError("a delta of what is not before it")
            elif kind == _NAME_DELTA:
                wanted, at = head[at : at + pack.size], at + pack.size
                base = next(((n, o) for n, p in enumerate(packs) if (o := _offset(p, wanted)) is not None), (-1, 0))
                if base[0] < 0:
                    raise ValueError("a delta of what is not there")
            elif kind not in _KINDS:
                raise ValueError(f"its kind is {kind}")
            content = _inflated(pack.data, offset + at, head[at:], size)
            if kind in _KINDS:
                self._keep(key, kind, content)
                break
            deltas.append((key, content))
            held += len(content)
            number, offset = base
        for key, delta in reversed(deltas):
            self.in_time()
            content = _applied(delta, content, max(limit, _MAX_OBJECT))
            self._keep(key, kind, content)
        if len(content) > limit:
            raise ValueError(f"it has {len(content):,} bytes")
        return kind, content

    def _keep(self, key: tuple[int, int], kind: int, content: bytes) -> None:
        if self._cached + len(content) > _MAX_CACHE:
            self._cache.clear()
            self._cached = 0
        self._cache[key] = (kind, content)
        self._cached += len(content)


def _no_directory(tree: Tree) -> str:
    for name, kind in tree.entries(()):
        if name == ".git" and kind != stat.S_IFDIR:
            return "`.git` leads to a repository elsewhere, and nothing outside the workspace is read"
    return ""


def _is_index(name: str) -> bool:
    return re.fullmatch(r"pack-[0-9a-f]{40,64}\.idx", name) is not None


def _offset(pack: _Pack, name: bytes) -> int | None:
    """Look a name up in a pack's index; each step reads a few bytes of it."""
    first = name[0]
    fan = os.pread(pack.index, 8, 8 + 4 * (first - 1) if first else 8)
    low, high = (int.from_bytes(fan[:4]), int.from_bytes(fan[4:8])) if first else (0, int.from_bytes(fan[:4]))
    high = min(high, pack.count)
    names = 8 + 1024
    while low < high:
        middle = (low + high) // 2
        found = os.pread(pack.index, pack.size, names + pack.size * middle)
        if found == name:
            offsets = names + pack.count * (pack.size + 4)
            offset = int.from_bytes(os.pread(pack.index, 4, offsets + 4 * middle))
            if offset & 0x80000000:
                far = offsets + 4 * pack.count + 8 * (offset & 0x7FFFFFFF)
                offset = int.from_bytes(os.pread(pack.index, 8, far))
            return offset if offset < 1 << 62 else None
        if found < name:
            low = middle + 1
        else:
            high = middle
    return None


def _header(data: bytes) -> tuple[int, int, int]:
    """Read kind, size and where the rest begins of an object in a pack."""
    byte, at = data[0], 1
    kind, size, shift = (byte >> 4) & 7, byte & 15, 4
    while byte & 0x80:
        if shift > _BITS:
            raise ValueError("its size is too large")
        byte = data[at]
        size |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return kind, size, at


def _distance(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    value = byte & 0x7F
    while byte & 0x80:
        if value >> _BITS:
            raise ValueError("a delta of what is not before it")
        at += 1
        byte = data[at]
        value = ((value + 1) << 7) | (byte & 0x7F)
    return value, at + 1


def _inflated(fd: int, at: int, piece: bytes, size: int) -> bytes:
    """Inflate exactly `size` bytes, of which `piece` is the compressed beginning."""
    stream = zlib.decompressobj()
    found: list[bytes] = []
    left = size
    last = at + size + (size >> 3) + _SLACK  # deflate makes nothing much larger; empty blocks, however, have no end
    at += len(piece)
    while piece:
        out = stream.decompress(piece, left + 1)
        found.append(out)
        left -= len(out)
        if stream.eof or left < 0:
            break
        if at > last:
            raise ValueError("it takes more bytes than it has")
        piece = stream.unconsumed_tail or os.pread(fd, 1 << 16, at)
        at += 0 if stream.unconsumed_tail else len(piece)
    if left:
        raise ValueError("its size is not what is said")
    return b"".join(found)


def _applied(delta: bytes, base: bytes, limit: int) -> bytes:
    """Apply a delta to what it is of."""
    before, at = _number(delta, 0)
    after, at = _number(delta, at)
    if before != len(base) or after > limit:
        raise ValueError("a delta of something else")
    found: list[bytes] = []
    left = after
    while at < len(delta):
        code = delta[at]
        at += 1
        if code & 0x80:
            start = length = 0
            for bit in range(4):
                if code & (1 << bit):
                    start |= delta[at] << (8 * bit)
                    at += 1
            for bit in range(3):
                if code & (16 << bit):
                    length |= delta[at] << (8 * bit)
                    at += 1
            piece = base[start : start + (length or 0x10000)]
            if len(piece) != (length or 0x10000):
                raise ValueError("a delta copies what is not there")
        elif code:
            piece = delta[at : at + code]
            at += code
        else:
            raise ValueError("a delta with an unknown step")
        left -= len(piece)
        if left < 0:
            raise ValueError("a delta that makes more than it says")
        found.append(piece)
    if left:
        raise ValueError("a delta that makes less than it says")
    return b"".join(found)


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > _BITS:
            raise ValueError("a number in it is too large")


def _commit(name: str, data: bytes) -> Commit:
    head, _, message = data.partition(b"\n\n")
    fields: dict[str, list[str]] = {}
    for line in head.decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition(" ")
        fields.setdefault(key, []).append(value)
    trees, parents = fields.get("tree", []), fields.get("parent", [])
    if len(parents) > _MAX_PARENTS:
        raise Unreadable(f"commit {name[:12]} has {len(parents):,} parents")
    if len(trees) != 1 or not all(_NAME.fullmatch(each) and len(each) == len(name) for each in (*trees, *parents)):
        raise Unreadable(f"commit {name[:12]} is damaged")
    subject = message.decode("utf-8", "replace").strip().partition("\n")[0]
    at, _ = _moment(fields.get("committer", [""])[0])
    return Commit(
        name, trees[0], tuple(parents), at, _moment(fields.get("author", [""])[0])[1], cuts.head(subject, 200)
    )


def _moment(line: str) -> tuple[int, str]:
    """Read the end of an author's line, as `1700000000 +0100`: the moment, and the day that it was there."""
    found = re.search(r" ([0-9]{1,11}) ([+-])([0-9]{2})([0-9]{2})$", line)
    if found is None:
        return 0, ""
    at = int(found[1])
    away = (int(found[3]) * 60 + int(found[4])) * 60 * (1 if found[2] == "+" else -1)
    return at, _day((at + away) // 86_400)


def _day(days: int) -> str:
    """Write a day, counted from the epoch, as YYYY-MM-DD; "" where there is no such year."""
    from datetime import date, timedelta

    try:
        return (date(1970, 1, 1) + timedelta(days=days)).isoformat()
    except OverflowError:
        return ""


def _entry(data: bytes, name: bytes, size: int) -> tuple[int, str]:
    """Look one name up in a tree, without reading all of it; (0, "") when it is not there."""
    at = data.find(b" " + name + b"\0")
    while at >= 0:
        found = _MODE.search(data, max(0, at - 6), at)
        end = at + len(name) + 2
        if found is not None and found.end() == at and end + size <= len(data):
            return int(found[0], 8), data[end : end + size].hex()
        at = data.find(b" " + name + b"\0", at + 1)  # that was in the middle of a hash
    return 0, ""


def _entries(data: bytes, size: int) -> Iterator[tuple[str, tuple[int, str]]]:
    at = 0
    while at < len(data):
        end = data.find(b"\0", at)
        mode, space, name = data[at:end].partition(b" ")
        at = end + 1 + size
        if end < 0 or not space or at > len(data) or not re.fullmatch(rb"[0-7]{5,6}", mode):
            raise Unreadable("a tree is damaged")
        try:
            yield name.decode(), (int(mode, 8), data[end + 1 : at].hex())
        except UnicodeDecodeError:
            continue
