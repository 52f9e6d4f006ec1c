"""What is settled, in SQLite: saves reading every old request at a start. Rebuildable; never decides a state.

A row says: this file, in exactly this state (inode, size, times), was dealt with. A row that is missing costs a read
and a hash; a row that is stale cannot match. Before a request gets a new revision its row is removed durably.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sqlite3
import threading
from collections.abc import Collection, Iterable
from urllib.parse import quote

from delegated.calibration import WORDS, Judged
from delegated.flood import Asked
from delegated.outcomes import Standing
from delegated.plan import Sig

_VERSION = 1
_DAY_S = 86_400.0
_BUSY_S = 10.0
_JUDGED = (  # made when somebody first says how a RESULT turned out
    "create table if not exists judged (key text primary key, state text not null, revision integer not null,"
    " word text not null, level text not null, score real not null, model text not null) without rowid"
)


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
        with contextlib.suppress(OSError):  # SQLite would make it readable for all, and says more of what is wrong
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=0.25)
        try:
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = normal")
            db.execute("pragma secure_delete = on")
            version = db.execute("pragma user_version").fetchone()[0]
            if version != _VERSION:
                db.execute("drop table if exists settled")
                db.execute(
                    "create table settled (name text primary key, key text not null, ino integer not null,"
                    " size integer not null, mtime_ns integer not null, ctime_ns integer not null) without rowid"
                )
                db.execute(f"pragma user_version = {_VERSION}")
            db.execute(
                "create table if not exists asked (key text not null, revision integer not null, at real not null,"
                " question text not null, code text not null, whole text not null, ended text not null,"
                " primary key (key, revision)) without rowid"
            )
            db.execute("create index if not exists asked_question on asked (question)")
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

    def ask(self, key: str, revision: int, asked: Asked, *, ended: str = "") -> list[Asked]:
        """Note that a question is about to be asked; return the askings of others that are like it, of one day.

        Of those that have not ended only the ones before it: no two can so be taken for each other's repeat. Noted
        again, it keeps its place; a new one comes after all others, also where the clock was set back.
        """
        with self._lock:
            try:
                self._db.execute("delete from asked where at < ?", (asked.at - _DAY_S,))
                found = self._db.execute(
                    "select key, at, question, code, whole, ended, revision from asked where question = ?",
                    (asked.question,),
                ).fetchall()
                others = [Asked(*row[:6]) for row in found if row[0] != key]
                at = next((row[1] for row in found if (row[0], row[6]) == (key, revision)), None)
                if at is None:
                    last = max((other.at for other in others if not (ended or other.ended)), default=-math.inf)
                    at = max(asked.at, math.nextafter(last, math.inf))
                self._db.execute(
                    "insert or replace into asked values (?, ?, ?, ?, ?, ?, ?)",
                    (key, revision, at, asked.question, asked.code, asked.whole, ended),
                )
            except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
                raise self._failed(error) from error
            except sqlite3.DatabaseError:
                self._make_anew()
                return []
        return [other for other in others if other.ended or other.at < at]

    def knows(self, key: str, revision: int) -> bool:
        """Say whether an asking is noted here."""
        with self._lock, contextlib.suppress(sqlite3.DatabaseError):
            row = self._db.execute("select 1 from asked where key = ? and revision = ?", (key, revision)).fetchone()
            return row is not None
        return False

    def forget(self, asked: Asked) -> None:
        """Forget an asking that did not come about; should it after all, it is noted anew, after all others."""
        self._write("delete from asked where key = ? and at = ?", (asked.key, asked.at))

    def ended(self, key: str, revision: int, how: str | None) -> None:
        """Note how an asking ended; None forgets it: nothing was asked."""
        if how is None:
            self._write("delete from asked where key = ? and revision = ?", (key, revision))
        else:
            self._write("update asked set ended = ? where key = ? and revision = ?", (how, key, revision))

    def begun(self, since: float) -> list[float]:
        """List when questions were asked, in seconds since the epoch."""
        with self._lock, contextlib.suppress(sqlite3.DatabaseError):
            return [row[0] for row in self._db.execute("select at from asked where at > ? order by at", (since,))]
        return []

    def judged(self) -> list[Standing]:
        """List the OUTCOME files that counted, in the state in which they did."""
        with self._lock, contextlib.suppress(sqlite3.DatabaseError):
            return _judged(self._db)
        return []

    def judge(self, seen: Iterable[Standing], gone: Iterable[str]) -> None:
        """Note what OUTCOME files say now; those that do not count are read again each time."""
        rows = [(each.key, each.state, each.revision, each.judged) for each in seen]
        with self._lock, contextlib.suppress(sqlite3.DatabaseError):  # a row that is missing costs a read
            self._db.execute("begin")
            try:
                self._db.execute(_JUDGED)
                forget = [(key,) for key in (*gone, *(key for key, *_, judged in rows if judged is None))]
                self._db.executemany("delete from judged where key = ?", forget)
                self._db.executemany(
                    "insert or replace into judged values (?, ?, ?, ?, ?, ?, ?)",
                    [(*row, one.word, one.level, one.score, one.model) for *row, one in rows if one is not None],
                )
            finally:
                self._db.execute("commit")

    def reopen(self, key: str) -> None:
        """Forget a request durably, before it gets a new revision: a stale row would hide the unfinished one."""
        self._write("delete from settled where key = ?", (key,), durable=True)

    def _write(self, sql: str, values: tuple[str | float, ...], *, durable: bool = False) -> None:
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


def purge(path: str, keys: Collection[str]) -> None:
    """Remove the rows of requests that are gone, and what is left of them in free pages. A daemon may have it open.

    Raises `OSError` when somebody holds it for long, or it is damaged.
    """
    if not os.path.exists(path):
        return
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S)) as db:
            db.execute("pragma secure_delete = on")
            rows = [(key,) for key in keys]
            db.executemany("delete from settled where key = ?", rows)
            db.executemany("delete from asked where key = ?", rows)
            db.execute(_JUDGED)
            db.executemany("delete from judged where key = ?", rows)
            db.execute("vacuum")
            db.execute("pragma wal_checkpoint(truncate)")
    except sqlite3.Error as error:
        raise OSError(errno.EIO, f"the index cannot be used ({error})", path) from error


def judged(path: str) -> list[Standing]:
    """List what an index remembers of OUTCOME files, also while a daemon has it open; nothing when it cannot say."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as db,
    ):
        return _judged(db)
    return []


def _judged(db: sqlite3.Connection) -> list[Standing]:
    rows = db.execute("select key, state, revision, word, level, score, model from judged").fetchall()
    return [Standing(key, state, Judged(*rest), revision) for key, state, revision, *rest in rows if rest[0] in WORDS]


def _signed(value: int) -> int:
    """Fit an inode number into SQLite's signed 64 bits (some file systems use all 64)."""
    return value - (1 << 64) if value >= 1 << 63 else value
