"""What the journal forgets, and when: words that were sent leave their hashes behind; an unfinished job loses nothing.

Once a revision has been settled for `retention_days`, its `prompt` and `reply` keep their headers and the hash of their
body. The newest settled revision keeps its claim and its RESULT, which retry and republish need; older ones keep the
hashes of theirs, and their RESULTs in the history go. What guards against a second bill (the names of all records, the
claim's SHA-256, the record before a send, the end) always stays. `purge` removes more, by a person's word.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from delegated.disk import Directory
from delegated.folder import FORMER
from delegated.journal import Journal
from delegated.prompt import sendable
from delegated.record import pack, place_of, unpack

STAMP: Final = "retention"
DAY_S: Final = 86_400.0
_LIMIT: Final = 256 << 20
_REVISION: Final = re.compile(r"r([1-9][0-9]{0,5})")
_FORMER: Final = re.compile(r"([0-9]{1,6})\.(?:json|md|patch|outcome\.yaml)(?:\.edited-[0-9]+)?")
_STEP_S: Final = 0.02  # of work, between pauses ten times as long: whoever waits for an answer does not notice
_PAUSE_S: Final = 0.2
_LOOK_S: Final = 600.0
_FIRST_S: Final = 5.0  # a start has other things to do


@dataclass(frozen=True, slots=True)
class Settled:
    """How a revision ended, and when."""

    status: str
    at: float


def revisions(directory: Directory, place: str) -> dict[int, Settled | None]:
    """Return every revision of a request by its number; None for one that is not settled, or whose ends are damaged."""
    found: dict[int, Settled | None] = {}
    for name in directory.names(place):
        number = _REVISION.fullmatch(name)
        if number:
            claim, done = (_read(directory, f"{place}/{name}/{record}") for record in ("claim", "done"))
            found[int(number[1])] = _end(done[0]) if claim and done else None
    return dict(sorted(found.items()))


def busy(directory: Directory, place: str, found: dict[int, Settled | None]) -> bool:
    """Say whether one of these revisions is under way, or will be: what else lacks its end was half removed."""
    return any(
        end is None and (number == max(found) or directory.exists(f"{place}/r{number}/claim"))
        for number, end in found.items()
    )


def _end(header: dict[str, Any]) -> Settled | None:
    at = header.get("at")
    return Settled(str(header.get("status", "")), float(at)) if isinstance(at, int | float) else None


def _read(directory: Directory, path: str) -> tuple[dict[str, Any], bytes] | None:
    try:
        return unpack(directory.read(path, _LIMIT))
    except FileNotFoundError:
        return None


# Dropping what a record holds


def _drop(directory: Directory, path: str) -> int:
    """Leave of a record its header and the hash of its body; 1 when there was something to drop."""
    record = _read(directory, path)
    if record is None:
        return _remove(directory, path)  # damaged, or not there: of no use to anybody, and it may hold what it held
    header, body = record
    text = header.get("text")
    if header.get("dropped") or not (body or text):
        return 0
    slim = header | {"dropped": True, "body_sha256": hashlib.sha256(body).hexdigest(), "body_bytes": len(body)}
    if isinstance(text, str):
        slim |= {"text": "", "text_sha256": hashlib.sha256(sendable(text).encode()).hexdigest()}
    _replace(directory, path, pack(slim))
    return 1


def _replace(directory: Directory, path: str, data: bytes) -> None:
    """Put a record in the place of another: after a power cut it is the one or the other, whole."""
    temp = f"tmp/{os.getpid()}-{os.urandom(6).hex()}"
    directory.write_temp(temp, data)
    try:
        directory.rename_into(temp, directory, path)
    except OSError:
        with suppress(OSError):
            directory.remove(temp)
        raise
    directory.sync(os.path.dirname(path) or ".")


def _remove(directory: Directory, path: str) -> int:
    there = directory.exists(path)
    directory.remove(path)
    return int(there)


def trim(directory: Directory, place: str, before: float) -> int:
    """Drop of one request what its revisions that were settled before a moment hold; return how many files changed.

    Raises `OSError`; done again, it goes on where it stopped.
    """
    found = revisions(directory, place)
    newest = max((number for number, end in found.items() if end and end.status != "superseded"), default=0)
    count = 0
    for number, end in found.items():
        if end is None or end.at > before:
            continue
        at = f"{place}/r{number}"
        for call in directory.names(f"{at}/calls"):
            for name in directory.names(f"{at}/calls/{call}"):
                if name in ("prompt", "reply"):
                    count += _drop(directory, f"{at}/calls/{call}/{name}")
                elif ".torn" in name:
                    count += _remove(directory, f"{at}/calls/{call}/{name}")
        for name in directory.names(at):
            if ".torn" in name:
                count += _remove(directory, f"{at}/{name}")
            elif name in ("claim", "done") and number < newest:
                count += _drop(directory, f"{at}/{name}")
    if not busy(directory, place, found):  # else the former RESULT may be the only one that there is
        count += _trim_history(directory, os.path.basename(place), found, before)
    return count


def _trim_history(directory: Directory, key: str, found: dict[int, Settled | None], before: float) -> int:
    at, count = f"history/{key}", 0
    for name in directory.names(at):
        if name.endswith(FORMER):  # a word and a few numbers, which the count of what was right needs for good
            continue
        number = _FORMER.fullmatch(name)
        end = found.get(int(number[1])) if number else None
        with suppress(FileNotFoundError):
            if (end.at if end else directory.stat(f"{at}/{name}").st_mtime) <= before:
                count += _remove(directory, f"{at}/{name}")
    if count:
        directory.rmdir(at)
    return count


# All of the journal, little by little


@dataclass(frozen=True, slots=True)
class Stamp:
    """How far it came: all that was settled until `through` is dealt with, and until `before` below `shard`."""

    through: float = -math.inf
    before: float = -math.inf
    shard: str = ""


def read_stamp(directory: Directory) -> Stamp:
    """Read the stamp; a damaged one counts as none, which costs reading all once more."""
    record = _read(directory, STAMP)
    header = record[0] if record else {}
    try:
        return Stamp(float(header["through"]), float(header["before"]), str(header["shard"]))
    except (KeyError, TypeError, ValueError):
        return Stamp()


def sweep(directory: Directory, stamp: Stamp, dropped: Callable[[int], None] = lambda count: None) -> Iterator[str]:
    """Go on with what the stamp says, one request a step; yields the shard that it is in."""
    for shard in sorted(directory.names("jobs")):
        if shard < stamp.shard:
            continue
        for key in directory.names(f"jobs/{shard}"):
            place = f"jobs/{shard}/{key}"
            if _ended(directory, place) > stamp.through:
                dropped(trim(directory, place, stamp.before))
            yield shard
    for key in directory.names("history"):  # of a journal that was deleted
        if not directory.exists(place_of(key)):
            dropped(_trim_history(directory, key, {}, stamp.before))
            yield "~"


def _ended(directory: Directory, place: str) -> float:
    """Return when the newest revision was settled, by the first line of its end; infinity when that is not known."""
    numbers = [int(number[1]) for name in directory.names(place) if (number := _REVISION.fullmatch(name))]
    try:
        fd = directory.open(f"{place}/r{max(numbers, default=0)}/done")
    except OSError:
        return math.inf
    try:
        line = os.read(fd, 4096).partition(b"\n")[0]
    finally:
        os.close(fd)
    try:
        return float(json.loads(line)["at"])
    except (ValueError, KeyError, TypeError):
        return math.inf


class Keeper:
    """Holds one journal to `days()`, daily, beside whatever else is done with it."""

    def __init__(self, journal: Journal, days: Callable[[], float]) -> None:
        self._journal = journal
        self._days = days
        self._stamp = Stamp()
        self._work: Iterator[str] | None = None
        self._dropped = 0

    async def run(self) -> None:
        """Go on until cancelled."""
        import structlog

        log = structlog.get_logger("delegated.retention")
        await asyncio.sleep(_FIRST_S)
        while True:
            try:
                await self.some()
            except OSError as error:
                self._work = None
                log.warning("retention.failed", reason=str(error))
            except Exception:
                self._work = None
                log.exception("retention.broke")
            if self._dropped:
                log.info("retention.dropped", files=self._dropped, days=self._days())
                self._dropped = 0
            await asyncio.sleep(_LOOK_S)

    async def some(self, seconds: float = math.inf) -> None:
        """Do what is due, for at most so long; what is left is gone on with at the next occasion.

        Raises `OSError`.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        whole = await self._journal.run_whole(self._begin)
        try:
            while not whole:
                # What was taken up earlier may have had an earlier bound: once it is done, a later one may be due.
                whole = await self._journal.run_whole(self._step) and await self._journal.run_whole(self._begin)
                if clock() >= until:
                    break
                if not whole and seconds == math.inf:
                    await asyncio.sleep(_PAUSE_S)
        finally:
            if not whole:
                await self._journal.run_whole(self._note)

    def _begin(self) -> bool:
        """Take up what is due; True when nothing is."""
        directory, now = self._journal.dir, self._journal.now()
        stamp, before = read_stamp(directory), now - self._days() * DAY_S
        if max(stamp.through, stamp.before) > now:  # somebody set the clock back
            stamp = Stamp()
        if not stamp.shard:
            if before - stamp.through < DAY_S:
                return True
            stamp = Stamp(stamp.through, before)
        self._stamp, self._work = stamp, sweep(directory, stamp, self._count)
        return False

    def _count(self, files: int) -> None:
        self._dropped += files

    def _step(self) -> bool:
        """Work for a moment; True when all is done, and noted."""
        until = time.monotonic() + _STEP_S
        assert self._work is not None
        for shard in self._work:
            if shard != "~" and shard != self._stamp.shard:
                self._stamp = Stamp(self._stamp.through, self._stamp.before, shard)
            if time.monotonic() >= until:
                return False
        self._work = None
        self._stamp = Stamp(self._stamp.before, self._stamp.before)
        self._note()
        return True

    def _note(self) -> None:
        if self._stamp.before > -math.inf:
            header = {"through": self._stamp.through, "before": self._stamp.before, "shard": self._stamp.shard}
            _replace(self._journal.dir, STAMP, pack(header))


# By a person's word


@dataclass(frozen=True, slots=True)
class Holding:
    """What the journal holds of one request: when it ended, its revisions, files and bytes; `why` it must stay."""

    key: str
    at: float
    revisions: int
    files: int
    bytes: int
    why: str = ""


def holding(directory: Directory, key: str, *, stands: bool) -> Holding | None:
    """Say what the journal holds of a request and whether that may go; None when it holds nothing."""
    place = place_of(key)
    found = revisions(directory, place)
    sizes = []
    for path in _files(directory, key):
        with suppress(FileNotFoundError):
            sizes.append(directory.stat(path).st_size)
    if not found and not sizes:
        return None
    ends = list(found.values())
    why = ""
    if stands and ends and (ends[-1] is None or ends[-1].status == "superseded"):
        why = "it is not settled"
    elif any(end is None and directory.exists(f"{place}/r{number}/claim") for number, end in found.items()):
        why = "it is not settled, or a record of it is damaged"
    at = max((end.at for end in ends if end), default=0.0)
    return Holding(key, at, len(found), len(sizes), sum(sizes), why)


def _files(directory: Directory, key: str) -> Iterator[str]:
    place = place_of(key)
    for name in filter(_REVISION.fullmatch, directory.names(place)):
        at = f"{place}/{name}"
        yield from (f"{at}/{record}" for record in directory.names(at) if record != "calls")
        for call in directory.names(f"{at}/calls"):
            yield from (f"{at}/calls/{call}/{record}" for record in directory.names(f"{at}/calls/{call}"))
    yield from (f"history/{key}/{name}" for name in directory.names(f"history/{key}"))


def purge(directory: Directory, key: str, *, stands: Callable[[], bool]) -> bool:
    """Remove what the journal holds of a settled request; True when hashes stay, for its REQUEST still `stands`.

    A kill at any point leaves a request that is settled, or none: the calls go while the end stands, and the claim
    goes before the end. Only `holding` knows whether a request may go. Raises `OSError`; may be done again.
    """
    place = place_of(key)
    found = revisions(directory, place)
    if stands() and busy(directory, place, found):
        return True  # meanwhile it is being asked again
    newest = max(found, default=0)
    for number in found:
        at = f"{place}/r{number}"
        keep = number == newest and stands()
        if keep:
            _leave_hashes(directory, at)
        _remove_calls(directory, f"{at}/calls")
        for name in directory.names(at):
            if name not in ("claim", "done"):
                directory.remove(f"{at}/{name}")
        directory.sync(at)
        if number == newest and not keep and stands():  # it came back
            _leave_hashes(directory, at)
            keep = True
        if not keep:
            for record in ("claim", "done"):
                directory.remove(f"{at}/{record}")
                directory.sync(at)
            directory.rmdir(at)
    for name in directory.names(f"history/{key}"):
        directory.remove(f"history/{key}/{name}")
    directory.rmdir(f"history/{key}")
    directory.rmdir(place)  # its shard stays: a daemon knows it to be durable
    return directory.exists(place)


def _leave_hashes(directory: Directory, at: str) -> None:
    for record in ("claim", "done"):
        _drop(directory, f"{at}/{record}")


def _remove_calls(directory: Directory, at: str) -> None:
    for call in directory.names(at):
        for name in directory.names(f"{at}/{call}"):
            directory.remove(f"{at}/{call}/{name}")
        directory.rmdir(f"{at}/{call}")
    directory.rmdir(at)
