"""What each exit code means: one table, for the programs, their help, the documentation and the tests."""

from __future__ import annotations

from typing import Final

OK: Final = 0
BUG: Final = 1
USAGE: Final = 2
ABSENT: Final = 3
REJECTED: Final = 10
FAILED: Final = 11
UNCERTAIN: Final = 12
CANCELLED: Final = 13
DUPLICATE: Final = 14
UNHEALTHY: Final = 69  # sysexits.h: EX_UNAVAILABLE
UNSURE: Final = 15
DIFFERS: Final = 65  # sysexits.h: EX_DATAERR
CANNOT_WRITE: Final = 74  # EX_IOERR
HELD: Final = 75  # EX_TEMPFAIL
CONFIGURATION: Final = 78  # EX_CONFIG
TIMED_OUT: Final = 124  # as timeout(1)
INTERRUPTED: Final = 130  # 128 + SIGINT
CLOSED: Final = 141  # 128 + SIGPIPE

TABLE: Final[tuple[tuple[int, str, str], ...]] = (
    (OK, "answered", "the request was answered, or the command did what it was asked to do"),
    (BUG, "bug", "a fault of delegated itself; the traceback is on stderr"),
    (USAGE, "usage", "the command line cannot be used as it stands"),
    (ABSENT, "absent", "there is no such request, or no RESULT for it yet"),
    (REJECTED, "rejected", "the request cannot be used; the RESULT lists every problem with its line"),
    (FAILED, "failed", "there is no answer; the RESULT says why, and what to do"),
    (UNCERTAIN, "uncertain", "the call may have been billed and the provider cannot say"),
    (CANCELLED, "cancelled", "the request was cancelled"),
    (DUPLICATE, "duplicate", "the request asks what another one asked already, and was not asked about"),
    (UNSURE, "unsure", "ci --fail-on unsure: there is an answer, and it is not sure of the cause"),
    (DIFFERS, "differs", "receipt --verify: the receipt and the records of what was sent do not agree"),
    (
        UNHEALTHY,
        "unhealthy",
        "doctor: a request dropped now would not be answered; demo: it was not; service: it does not run",
    ),
    (CANNOT_WRITE, "cannot write", "the folder, its journal or standard output cannot be written"),
    (HELD, "held", "another daemon serves this folder"),
    (CONFIGURATION, "configuration", "the configuration has problems; all of them are listed"),
    (TIMED_OUT, "timed out", "the time given to --timeout is over; the request itself goes on"),
    (INTERRUPTED, "interrupted", "stopped by Ctrl+C; a request that a daemon works on goes on"),
    (CLOSED, "closed", "whoever read our output went away"),
)

BY_STATUS: Final[dict[str, int]] = {
    "answered": OK,
    "rejected": REJECTED,
    "failed": FAILED,
    "uncertain": UNCERTAIN,
    "cancelled": CANCELLED,
    "duplicate": DUPLICATE,
}
assert len({code for code, _, _ in TABLE}) == len(TABLE), "each exit code says one thing"
assert set(BY_STATUS.values()) <= {code for code, _, _ in TABLE}, "every status has its row"


def for_status(status: str) -> int:
    """Return the exit code of a RESULT's status; an unknown one counts as failed."""
    return BY_STATUS.get(status, FAILED)
