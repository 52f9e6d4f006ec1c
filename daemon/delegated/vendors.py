"""What a vendor's token proves by itself: checksums that no chance and no placeholder gets right."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Final

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def proven(kind: str, value: str) -> bool:
    """Say whether the checksum in a token is right. Where a kind has none that is published: False."""
    check = _CHECKS.get(kind)
    return check is not None and check(value)


def _crc32_in_base62(value: str) -> bool:
    """GitHub's and npm's tokens: a prefix, 30 random characters, and the CRC-32 of these as 6 digits of base 62."""
    body = value.partition("_")[2]
    if len(body) != 36:
        return False
    number, digits = zlib.crc32(body[:30].encode("utf-8", "replace")), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits == body[30:]


_CHECKS: Final[Mapping[str, Callable[[str], bool]]] = {"github": _crc32_in_base62, "npm": _crc32_in_base62}
