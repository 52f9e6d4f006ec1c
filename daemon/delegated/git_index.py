"""What git tracks, read from the bytes of its index: git itself would run what a hostile repository tells it to.

The format is Git's own index-format document: versions 2, 3 and 4, SHA-1 and SHA-256, split indexes.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_HEADER: Final = 12
_STAT: Final = 40  # bytes of an entry before its object name
_EXTENDED: Final = 0x4000
_STAGE: Final = 0x3000  # not 0: in conflict
_SKIPPED: Final = 0x6000  # of the further flags: not checked out, or only meant to be added
_LENGTH: Final = 0x0FFF
_LONGEST: Final = 4096  # bytes of a path; no system opens a longer one
_UNFOLDED: Final = 64 << 20  # bytes by which all paths together may be more than the index: version 4 shares beginnings
_DEEPEST: Final = 2048  # directories
_HASHES: Final = (20, 32)  # the index does not say which: only one of them fits


@dataclass(frozen=True, slots=True)
class Index:
    """The paths found, and the name of the shared index that holds the rest of a split one ("" when there is none)."""

    paths: tuple[bytes, ...]
    shared: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tracked file as it was when git last looked at it: modification time (ns), size, and the blob of its content.

    `size` is 0 where git was not sure. `blob` is in hex.
    """

    mtime_ns: int
    size: int
    blob: str


@dataclass(frozen=True, slots=True)
class Tracked:
    """Every tracked regular file by path, and which tree each directory was when all in it was committed."""

    files: Mapping[str, Entry]
    trees: Mapping[str, str]


def tracked(data: bytes, size: int) -> Tracked:
    """Read a whole index whose object names have `size` bytes.

    Links, submodules, files in conflict and those that are not checked out are no part of it, nor are names that are no
    UTF-8. Raises `ValueError` when the bytes are no index that can be understood, or hold only a part of one.
    """
    version, count = _version(data)
    files: dict[str, Entry] = {}
    end = _HEADER
    try:
        for path, at, flags, more, end in _walk(data, version, count, size):  # noqa: B007 - where it ended is used
            if flags & _STAGE or more & _SKIPPED:
                continue
            second, nanosecond = struct.unpack_from(">II", data, at + 8)
            mode, length = struct.unpack_from(">I8xI", data, at + 24)
            if stat.S_ISREG(mode):
                blob = data[at + _STAT : at + _STAT + size].hex()
                try:
                    files[path.decode()] = Entry(second * 1_000_000_000 + nanosecond, length, blob)
                except UnicodeDecodeError:
                    continue
        extensions = dict(_extensions(data, end, size))
        if b"link" in extensions or b"sdir" in extensions:
            raise ValueError("it is only a part of an index")
        return Tracked(files, dict(_trees(extensions.get(b"TREE", b""), size)))
    except (IndexError, struct.error) as error:
        raise ValueError(str(error)) from None


def read(data: bytes, needles: Collection[bytes]) -> Index:
    """Return the tracked paths that hold one of `needles` (lower-case ASCII), in any letter case.

    Raises `ValueError` when the bytes are no index that can be understood: then nothing is known.
    """
    version, count = _version(data)
    if version < 4 and b"link" not in data:  # whole paths, and all of them here: most indexes need no more than this
        lower = data.lower()
        if not any(needle in lower for needle in needles):
            return Index(())
    wrong = ""
    for size in _HASHES:
        try:
            found, end = _entries(data, version, count, size, needles)
            return Index(found, _shared(data, end, size))
        except (ValueError, IndexError, struct.error) as error:
            wrong = wrong or str(error)
    raise ValueError(wrong)


def staged(data: bytes, path: bytes) -> str | None:
    """Return the blob with a path's staged content, in hex, "" while it is in conflict; None when it is not tracked.

    Raises `ValueError` when that is not known: these bytes cannot be understood, or are one part of a split index.
    """
    version, count = _version(data)
    if version < 4 and b"link" not in data and path not in data:
        return None
    wrong = ""
    for size in _HASHES:
        found, end = None, _HEADER
        try:
            for each, at, flags, _, end in _walk(data, version, count, size):  # noqa: B007 - where it ended is used
                if each == path:
                    found = "" if flags & _STAGE else data[at + _STAT : at + _STAT + size].hex()
            if b"link" in dict(_extensions(data, end, size)):
                raise ValueError("it is split")
            return found
        except (ValueError, IndexError, struct.error) as error:
            wrong = wrong or str(error)
    raise ValueError(wrong)


def _version(data: bytes) -> tuple[int, int]:
    if len(data) < _HEADER or data[:4] != b"DIRC":
        raise ValueError("it does not begin as an index does")
    version, count = struct.unpack(">II", data[4:_HEADER])
    if version not in (2, 3, 4):
        raise ValueError(f"its version is {version}")
    return version, count


def _entries(
    data: bytes, version: int, count: int, size: int, needles: Collection[bytes]
) -> tuple[tuple[bytes, ...], int]:
    found = []
    end = _HEADER
    for path, _, _, _, end in _walk(data, version, count, size):  # noqa: B007 - where it ended is returned
        lower = path.lower()
        if any(needle in lower for needle in needles):
            found.append(path)
    return tuple(found), end


def _walk(data: bytes, version: int, count: int, size: int) -> Iterator[tuple[bytes, int, int, int, int]]:
    """Yield each entry: its path, where it begins, its flags, its further flags, and where the next one begins."""
    at, path = _HEADER, b""
    room = len(data) + _UNFOLDED
    for _ in range(count):
        start = at
        flags_at = at + _STAT + size
        flags, more = (data[flags_at] << 8) | data[flags_at + 1], 0
        at = flags_at + 2
        if flags & _EXTENDED:
            if version < 3:
                raise ValueError("an entry has flags that its version does not know")
            more = (data[at] << 8) | data[at + 1]
            at += 2
        if version == 4:
            strip, at = _varint(data, at)
            if strip > len(path):
                raise ValueError("an entry takes more of the path before it than there is")
            end = data.index(0, at)
            path = path[: len(path) - strip] + data[at:end]
            at = end + 1
        else:
            end = data.index(0, at)
            path = data[at:end]
            at = start + ((end - start + 8) & ~7)
        if len(path) != flags & _LENGTH and (flags & _LENGTH != _LENGTH or len(path) < _LENGTH):
            raise ValueError("the length of a path is not what its entry says")
        if at > len(data):
            raise ValueError("it ends within an entry")
        room -= len(path)
        if len(path) > _LONGEST or room < 0:
            raise ValueError("its paths are too long")
        yield path, start, flags, more, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    value = byte & 0x7F
    while byte & 0x80:
        byte = data[at]
        at += 1
        value = ((value + 1) << 7) | (byte & 0x7F)
        if value > 1 << 32:
            raise ValueError("a number in it is too large")
    return value, at


def _shared(data: bytes, at: int, size: int) -> str:
    """Return the shared index that a split one names."""
    shared = dict(_extensions(data, at, size)).get(b"link", b"")[:size].hex()
    return "" if not shared.strip("0") else shared


def _extensions(data: bytes, at: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each extension, up to the end, where the checksum stands."""
    while at < len(data) - size:
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "big")
        at += 8
        if at + length > len(data) - size:
            raise ValueError("an extension is longer than the file")
        yield name, data[at : at + length]
        at += length
    if at != len(data) - size:
        raise ValueError("it does not end where it should")


def _trees(data: bytes, size: int) -> Iterator[tuple[str, str]]:
    """Yield each directory ("" for the root) with its tree, as git keeps them for those without a staged change."""
    at = 0
    room = len(data) + _UNFOLDED
    above: list[tuple[str, int]] = []  # directories whose own directories still follow: path, how many
    while at < len(data):
        end = data.index(0, at)
        line = data.index(b"\n", end)
        count, below = (int(part) for part in data[end + 1 : line].split(b" "))
        while above and not above[-1][1]:
            above.pop()
        name = data[at:end].decode("utf-8", "surrogateescape")
        path = name
        if above:
            parent, left = above[-1]
            above[-1] = (parent, left - 1)
            path = f"{parent}/{name}" if parent else name
        room -= len(path)
        if len(path) > _LONGEST or len(above) > _DEEPEST or room < 0:
            raise ValueError("its directories are too deep")
        at = line + 1
        if count >= 0:
            yield path, data[at : at + size].hex()
            at += size
        above.append((path, below))
