"""What failed, as words that a request takes: the error in a line, tracebacks, the files that they name."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from delegated.cuts import after, before, head

_LINE_CHARS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that failed: its place in the run (from 1), what was tried, the error in a line, the traceback."""

    number: int
    tried: str
    error: str
    log: str
    frames: tuple[str, ...] = ()


def failed(
    number: int, tried: str, error: Exception, tb: TracebackType | None, *, most: int, without: str = ""
) -> Failed:
    """Make the record of an exception, its log of at most `most` characters, without leading frames of one file."""
    while tb is not None and tb.tb_frame.f_code.co_filename == without:
        tb = tb.tb_next
    log = "".join(traceback.format_exception(type(error), error, tb))
    paths = tuple(dict.fromkeys(path for path in frames_of(error) if path != without))
    return Failed(number, tried, one_line(error), shortened(log, most), paths)


def counts(error: BaseException) -> bool:
    """Say whether an exception is a failure; cancellation of any library is none."""
    return isinstance(error, Exception) and all(each.__name__ != "CancelledError" for each in type(error).__mro__)


def one_line(error: BaseException) -> str:
    """Say an exception in one line, as Python does: its type and its message."""
    return head(" ".join("".join(traceback.format_exception_only(error)).split()), _LINE_CHARS)


def frames_of(error: BaseException) -> Iterator[str]:
    """Yield the files in which an exception, what it came of and what it holds were raised; the nearest first."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(each.__traceback__)]
        yield from reversed(frames)
        waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        waiting += [each.__cause__, None if each.__suppress_context__ else each.__context__]


def shortened(log: str, limit: int) -> str:
    """Cut a long log in its middle: how it began and how it ended say most."""
    if len(log) <= limit:
        return log
    end, start = before(log, limit // 4), after(log, len(log) - (limit - limit // 4))
    return f"{log[:end]}\n[… {start - end:,} characters …]\n{log[start:]}"


def as_logs(run: Sequence[Failed]) -> str:
    """Put the logs of a run below each other; what failed alike stands there once."""
    alike: dict[str, list[Failed]] = {}
    for each in run:
        alike.setdefault(each.log or each.error, []).append(each)
    parts = []
    for log, those in alike.items():
        numbers = ", ".join(str(each.number) for each in those)
        parts.append(f"Attempt{'s' if len(those) > 1 else ''} {numbers} of {len(run)}:\n{log.rstrip()}\n")
    return "\n".join(parts)
