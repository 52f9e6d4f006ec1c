"""What git tracks, read from the bytes of its index: git itself would run what a hostile repository tells it to.

The format is Git's own index-format document: versions 2, 3 and 4, SHA-1 and SHA-256, split indexes.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

_HEADER: Final = 12
_STAT: Final = 40  # bytes of an entry before its object name
_EXTENDED: Final = 0x4000
_LENGTH: Final = 0x0FFF
_HASHES: Final = (20, 32)  # the index does not say which: only one of them fits


@dataclass(frozen=True, slots=True)
class Index:
    """The paths found, and the name of the shared index that holds the rest of a split one ("" when there is none)."""

    paths: tuple[bytes, ...]
    shared: str = ""


def read(data: bytes, needles: Collection[bytes]) -> Index:
    """Return the tracked paths that hold one of `needles` (lower-case ASCII), in any letter case.

    Raises `ValueError` when the bytes are no index that can be understood: then nothing is known.
    """
    if len(data) < _HEADER or data[:4] != b"DIRC":
        raise ValueError("it does not begin as an index does")
    version, count = struct.unpack(">II", data[4:_HEADER])
    if version not in (2, 3, 4):
        raise ValueError(f"its version is {version}")
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


def _entries(
    data: bytes, version: int, count: int, size: int, needles: Collection[bytes]
) -> tuple[tuple[bytes, ...], int]:
    found = []
    at, path = _HEADER, b""
    for _ in range(count):
        start = at
        flags_at = at + _STAT + size
        flags = (data[flags_at] << 8) | data[flags_at + 1]
        at = flags_at + 2
        if flags & _EXTENDED:
            if version < 3:
                raise ValueError("an entry has flags that its version does not know")
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
        lower = path.lower()
        if any(needle in lower for needle in needles):
            found.append(path)
    if at > len(data):
        raise ValueError("it ends within an entry")
    return tuple(found), at


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
    """Walk through the extensions to the end, where the checksum stands; return the shared index that `link` names."""
    shared = ""
    while at < len(data) - size:
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "big")
        at += 8
        if at + length > len(data) - size:
            raise ValueError("an extension is longer than the file")
        if name == b"link":
            shared = data[at : at + size].hex()
        at += length
    if at != len(data) - size:
        raise ValueError("it does not end where it should")
    return "" if not shared.strip("0") else shared
