"""What is settled, in SQLite: saves reading every old request at a start. Rebuildable; never decides a state.

A row says: this file, in exactly this state (inode, size, times), was dealt with. A row that is missing costs a read
and a hash; a row that is stale cannot match. Before a request gets a new revision its row is removed durably.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator

from delegated.plan import Sig

_VERSION = 1


class Index:
    """The open index. Every method may be called from any one thread at a time (they run beside the loop)."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._db = self._open()
        except sqlite3.DatabaseError:
            # A damaged index is worth nothing and costs nothing: make it anew.
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path + suffix)
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=5)
        try:
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = normal")
            version = db.execute("pragma user_version").fetchone()[0]
            if version != _VERSION:
                db.execute("drop table if exists settled")
                db.execute(
                    "create table settled (name text primary key, key text not null, ino integer not null,"
                    " size integer not null, mtime_ns integer not null, ctime_ns integer not null) without rowid"
                )
                db.execute(f"pragma user_version = {_VERSION}")
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def settled(self) -> Iterator[tuple[str, str, Sig]]:
        """Yield (file name, key, state) of every request that was dealt with."""
        for name, key, *sig in self._db.execute("select name, key, ino, size, mtime_ns, ctime_ns from settled"):
            yield name, key, Sig(*sig)

    def settle(self, name: str, key: str, sig: Sig) -> None:
        """Note that a file in this state is dealt with."""
        self._db.execute(
            "insert or replace into settled values (?, ?, ?, ?, ?, ?)",
            (name, key, _signed(sig.ino), sig.size, sig.mtime_ns, sig.ctime_ns),
        )

    def reopen(self, key: str) -> None:
        """Forget a request durably, before it gets a new revision: a stale row would hide the unfinished one."""
        self._db.execute("pragma synchronous = full")
        self._db.execute("delete from settled where key = ?", (key,))
        self._db.execute("pragma synchronous = normal")


def _signed(value: int) -> int:
    """Fit an inode number into SQLite's signed 64 bits (some file systems use all 64)."""
    return value - (1 << 64) if value >= 1 << 63 else value
