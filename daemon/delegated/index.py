"""What is settled, in SQLite: saves reading every old request at a start. Rebuildable; never decides a state.

A row says: this file, in exactly this state (inode, size, times), was dealt with. A row that is missing costs a read
and a hash; a row that is stale cannot match. Before a request gets a new revision its row is removed durably.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading

from delegated.plan import Sig

_VERSION = 1


class Index:
    """The open index. Any thread may call any method. Raises `OSError` when it cannot be opened or written."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._db = self._open()
        except sqlite3.DatabaseError:
            self._make_anew()

    def _make_anew(self) -> None:
        """Replace a damaged index, which is worth nothing and costs nothing, by an empty one."""
        if hasattr(self, "_db"):
            self._db.close()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path + suffix)
        try:
            self._db = self._open()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.Error) -> OSError:
        return OSError(errno.EIO, f"the index cannot be used ({error})", self._path)

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=0.25)
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

    def settled(self) -> list[tuple[str, str, Sig]]:
        """List (file name, key, state) of every request that was dealt with."""
        with self._lock:
            try:
                rows = self._db.execute("select name, key, ino, size, mtime_ns, ctime_ns from settled").fetchall()
            except sqlite3.DatabaseError:  # sound at its head only
                self._make_anew()
                rows = []
        return [(name, key, Sig(*sig)) for name, key, *sig in rows]

    def settle(self, name: str, key: str, sig: Sig) -> None:
        """Note that a file in this state is dealt with."""
        row = (name, key, _signed(sig.ino), sig.size, sig.mtime_ns, sig.ctime_ns)
        self._write("insert or replace into settled values (?, ?, ?, ?, ?, ?)", row)

    def reopen(self, key: str) -> None:
        """Forget a request durably, before it gets a new revision: a stale row would hide the unfinished one."""
        self._write("delete from settled where key = ?", (key,), durable=True)

    def _write(self, sql: str, values: tuple[str | int, ...], *, durable: bool = False) -> None:
        with self._lock:
            try:
                if durable:
                    self._db.execute("pragma synchronous = full")
                self._db.execute(sql, values)
                if durable:
                    self._db.execute("pragma synchronous = normal")
            except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:  # held, no space, closed
                raise self._failed(error) from error
            except sqlite3.DatabaseError:  # damaged: without any row no request is hidden
                self._make_anew()


def _signed(value: int) -> int:
    """Fit an inode number into SQLite's signed 64 bits (some file systems use all 64)."""
    return value - (1 << 64) if value >= 1 << 63 else value
