"""The server's memory on disk: one JSON line an event, there before the event can be seen by a client."""

from __future__ import annotations

import json
import os
from typing import Any


class Ledger:
    """An append-only file of JSON lines."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def load(self) -> list[dict[str, Any]]:
        """Read every whole line; a last one that a kill left torn is cut off, as nobody was told of it."""
        records = []
        with open(self._path, "rb") as file:
            good = 0
            for line in file:
                try:
                    records.append(json.loads(line))
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    records.pop()
                    break
                good += len(line)
        if good != os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, good)
        return records

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it is on disk when this returns."""
        data = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]
        os.fdatasync(self._fd)

    def clear(self) -> None:
        """Forget everything."""
        os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
