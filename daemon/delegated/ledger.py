"""What was spent and what is still out: one ledger for all workspaces of a user, so no two jobs overshoot a budget.

A call is reserved at the most that it can cost before it leaves, and settled at what it did cost. What is uncertain
stays reserved: it may have been billed. Hours, days and months are those of UTC, as on the provider's bill.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from delegated.disk import make_private

_VERSION: Final = 1
_BUSY_S: Final = 10.0

Window = Literal["hour", "day", "month"]
WINDOWS: Final[tuple[Window, ...]] = ("hour", "day", "month")


@dataclass(frozen=True, slots=True)
class Charge:
    """One call that costs: its own name for ever, whose it is, and the most that it can cost in USD."""

    call: str
    workspace: str
    endpoint: str
    model: str
    bound_usd: float


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in USD on a window of time; of one workspace or one endpoint where that is given, else of everything."""

    window: Window
    usd: float
    workspace: str | None = None
    endpoint: str | None = None

    def __str__(self) -> str:
        of = (
            f" of workspace {self.workspace}"
            if self.workspace
            else f" of endpoint {self.endpoint}"
            if self.endpoint
            else ""
        )
        return f"the budget of ${self.usd:g} a {self.window}{of}"


@dataclass(frozen=True, slots=True)
class Overrun:
    """Why a call may not leave now: the budget, what is spent or reserved of it, and when its next window begins."""

    budget: Budget
    taken_usd: float
    wanted_usd: float
    again_at: float

    def __str__(self) -> str:
        at = datetime.fromtimestamp(self.again_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return (
            f"{self.budget} holds: ${self.taken_usd:.4f} are spent or reserved, and this call could cost up to "
            f"${self.wanted_usd:.4f} more; the next {self.budget.window} begins at {at}"
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """A line of the account: what it is about, calls, USD settled, USD reserved for calls that are out or uncertain."""

    name: str
    calls: int
    settled_usd: float
    reserved_usd: float


def window_start(window: Window, now: float) -> float:
    """Return when the window that holds `now` began; seconds since the epoch."""
    at = datetime.fromtimestamp(now, UTC).replace(minute=0, second=0, microsecond=0)
    if window != "hour":
        at = at.replace(hour=0)
    if window == "month":
        at = at.replace(day=1)
    return at.timestamp()


def next_window(window: Window, now: float) -> float:
    """Return when the window after the one that holds `now` begins."""
    start = datetime.fromtimestamp(window_start(window, now), UTC)
    if window == "month":
        return (start + timedelta(days=32)).replace(day=1).timestamp()
    return (start + timedelta(**{f"{window}s": 1})).timestamp()


class Ledger:
    """The open ledger. Any thread of any process may use it at the same time.

    Made with mode 0600 in a directory of mode 0700. Raises `OSError` when it cannot be opened or written: what cannot
    be accounted for must not be spent. A damaged file is put aside under another name, and counted anew from the
    journals (`missing_journal`, `enter`).
    """

    def __init__(self, path: str, *, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self._wall = wall
        self._lock = threading.Lock()
        make_private(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
        try:
            self._db = self._open()
        except sqlite3.OperationalError as error:
            raise self._failed(error) from error
        except sqlite3.DatabaseError:
            self._put_aside()

    def _open(self) -> sqlite3.Connection:
        with contextlib.suppress(OSError):  # SQLite would make it readable for all, and says more of what is wrong
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=_BUSY_S)
        try:
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = full")
            db.execute("pragma secure_delete = on")
            version = db.execute("pragma user_version").fetchone()[0]
            if version > _VERSION:
                raise sqlite3.OperationalError(f"it was written by a newer version ({version})")
            if version < _VERSION:
                db.execute("begin immediate")
                db.execute(
                    "create table if not exists calls (call text primary key, at real not null,"
                    " workspace text not null, endpoint text not null, model text not null,"
                    " bound real not null, cost real) without rowid"
                )
                db.execute("create index if not exists calls_at on calls (at)")
                db.execute("create table if not exists journals (id text primary key) without rowid")
                db.execute(f"pragma user_version = {_VERSION}")
                db.execute("commit")
        except BaseException:
            db.close()
            raise
        return db

    def _put_aside(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._path + suffix, f"{self._path}.damaged{suffix}")
        try:
            self._db = self._open()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.Error) -> OSError:
        return OSError(errno.EIO, f"the ledger cannot be used ({error})", self._path)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def reserve(self, charge: Charge, budgets: Sequence[Budget] = ()) -> Overrun | None:
        """Set the most that a call can cost aside, durably; or say which budget forbids it, and change nothing.

        A call that is in the ledger already is left as it stands, whatever the budgets say: it may have been sent.
        """
        now = self._wall()
        with self._transaction() as db:
            if db.execute("select 1 from calls where call = ?", (charge.call,)).fetchone():
                return None
            for budget in budgets:
                if budget.workspace not in (None, charge.workspace) or budget.endpoint not in (None, charge.endpoint):
                    continue
                # Without an upper end: a clock that was set back must not make spent money unspent.
                taken = db.execute(
                    "select coalesce(sum(coalesce(cost, bound)), 0) from calls where at >= ?"
                    " and (? is null or workspace = ?) and (? is null or endpoint = ?)",
                    (window_start(budget.window, now), *2 * (budget.workspace,), *2 * (budget.endpoint,)),
                ).fetchone()[0]
                if taken + charge.bound_usd > budget.usd:
                    return Overrun(budget, taken, charge.bound_usd, next_window(budget.window, now))
            _insert(db, charge, now, None)
        return None

    def settle(self, call: str, cost_usd: float | None) -> None:
        """Replace what was set aside by what the call did cost; None leaves it, as the most that it can have been."""
        if cost_usd is not None:
            with self._transaction() as db:
                db.execute("update calls set cost = ? where call = ?", (cost_usd, call))

    def release(self, call: str) -> None:
        """Give back what was set aside for a call that certainly was not accepted."""
        with self._transaction() as db:
            db.execute("delete from calls where call = ? and cost is null", (call,))

    def missing_journal(self, journal: str) -> bool:
        """Say whether this ledger has never counted the calls of that journal, as when it is new or was damaged."""
        with self._transaction() as db:
            return not db.execute("select 1 from journals where id = ?", (journal,)).fetchone()

    def enter(self, journal: str, calls: Iterable[tuple[Charge, float, float | None]]) -> None:
        """Count a journal's calls, each with when it was sent and what it cost (None while that is not known)."""
        with self._transaction() as db:
            for charge, at, cost in calls:
                _insert(db, charge, at, cost)
            db.execute("insert or ignore into journals values (?)", (journal,))

    def taken(self, window: Window, *, workspace: str | None = None, endpoint: str | None = None) -> float:
        """Return the USD spent or reserved in the window that is running."""
        with self._transaction() as db:
            return float(
                db.execute(
                    "select coalesce(sum(coalesce(cost, bound)), 0) from calls where at >= ?"
                    " and (? is null or workspace = ?) and (? is null or endpoint = ?)",
                    (window_start(window, self._wall()), *2 * (workspace,), *2 * (endpoint,)),
                ).fetchone()[0]
            )

    def account(self, by: Literal["day", "month", "model", "workspace", "endpoint"], since: float) -> list[Spent]:
        """Sum the calls since a moment: by day or month in their order, else the dearest first."""
        what = {"day": "strftime('%Y-%m-%d', at, 'unixepoch')", "month": "strftime('%Y-%m', at, 'unixepoch')"}.get(
            by, by
        )
        order = "1" if by in ("day", "month") else "sum(coalesce(cost, bound)) desc, 1"
        with self._transaction() as db:
            rows = db.execute(
                f"select {what}, count(*), coalesce(sum(cost), 0), coalesce(sum(iif(cost is null, bound, 0)), 0)"  # noqa: S608 - of our own words only
                f" from calls where at >= ? group by 1 order by {order}",
                (since,),
            ).fetchall()
        return [Spent(*row) for row in rows]

    def forget(self, before: float) -> int:
        """Remove the calls before a moment, but none of the month that is running; return how many."""
        with self._transaction() as db:
            gone = db.execute(
                "delete from calls where at < ?", (min(before, window_start("month", self._wall())),)
            ).rowcount
        with self._lock, contextlib.suppress(sqlite3.Error):  # the log of what is written holds them for a while
            self._db.execute("pragma wal_checkpoint(truncate)")
        return gone

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("begin immediate")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("rollback")
                    raise
                self._db.execute("commit")
            except sqlite3.Error as error:
                raise self._failed(error) from error


def _insert(db: sqlite3.Connection, charge: Charge, at: float, cost: float | None) -> None:
    db.execute(
        "insert or ignore into calls values (?, ?, ?, ?, ?, ?, ?)",
        (charge.call, at, charge.workspace, charge.endpoint, charge.model, charge.bound_usd, cost),
    )
