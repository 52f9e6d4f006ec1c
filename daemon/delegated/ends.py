"""Ends that no answer has: results of a job that was refused, cancelled, cut off, or broken by a fault of ours."""

from __future__ import annotations

from delegated.calls import JobRecord
from delegated.errors import Problem
from delegated.result import BILLED, CANCELLED, RequestRef, Result, failure
from delegated.running import Progress


def refused(record: JobRecord, at: str) -> Result:
    """Say why what bears a request's name cannot be read as one. `at` is the moment, as RFC 3339."""
    problem = Problem(
        None,
        record.claim.refused,
        "write the request as an ordinary file below the size limit; large files and logs are named under `Files`",
    )
    return Result(
        status="rejected",
        request=_ref(record),
        timestamp=at,
        problems=(str(problem),),
        error=failure("invalid_request", record.claim.refused, record.claim.id),
    )


def duplicate(record: JobRecord, at: str) -> Result:
    """Name the request that a conflict copy is a copy of."""
    return Result(status="duplicate", request=_ref(record), timestamp=at, duplicate_of=record.claim.duplicate_of)


def uncertain(record: JobRecord, progress: Progress, at: str) -> Result:
    """Say that a call left whose records were taken away."""
    message = "the journal was taken away while the call ran; it may have been billed, and its answer is lost"
    return Result(
        status="uncertain",
        request=_ref(record),
        timestamp=at,
        error=failure("uncertain", message, record.claim.id),
        model=progress.model,
        egress=progress.egress,
    )


def cancelled(record: JobRecord, progress: Progress, at: str) -> Result:
    """Say who stopped a job, and whether it is billed all the same."""
    message = "its REQUEST file was deleted" if progress.reason == "deleted" else CANCELLED
    return Result(
        status="cancelled",
        request=_ref(record),
        timestamp=at,
        error=failure("cancelled", message, record.claim.id),
        warnings=_billed(record),
        model=progress.model,
        egress=progress.egress,
    )


def broken(record: JobRecord, progress: Progress, at: str, error: Exception) -> Result:
    """Say that a fault of ours ended a job; the log has the traceback."""
    return Result(
        status="failed",
        request=_ref(record),
        timestamp=at,
        error=failure("internal", type(error).__name__, record.claim.id),
        warnings=_billed(record),
        egress=progress.egress,
    )


def _billed(record: JobRecord) -> tuple[str, ...]:
    return (BILLED,) if record.may_be_billed() else ()


def _ref(record: JobRecord) -> RequestRef:
    claim = record.claim
    return RequestRef(claim.id, claim.name, claim.sha256, claim.revision)
