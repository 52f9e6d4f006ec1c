"""Whole texts that were read by a person and found good; a change of one shows up as a diff to read again."""

from __future__ import annotations

import os
from pathlib import Path

_PLACE = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    """Compare with tests/golden/<name>; `GOLDEN=write` writes the file instead, to be read before it is committed."""
    path = _PLACE / name
    if os.environ.get("GOLDEN") == "write":
        _PLACE.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    assert path.read_bytes().decode() == text, f"{name} differs; run with GOLDEN=write, then read the diff"
