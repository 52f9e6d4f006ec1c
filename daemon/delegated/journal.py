"""The records of a job, and how each is made durable before the next step.

    .delegated/
      lock, id                          held for the daemon's life; this journal's own random name
      tmp/                              every temporary file
      jobs/<xx>/<key>/r<n>/claim        the exact bytes of the request
      jobs/<xx>/<key>/r<n>/calls/<nn>-<name>/{prompt,sent.k,unsent.k,accepted.k,reply}
      jobs/<xx>/<key>/r<n>/done         the published RESULT
      history/<key>/<n>.{md,json}       former RESULTs

A record is one line of JSON, a body of any bytes, and the end mark `END <sha256>`. Without a right end mark it is torn
and counts as absent, except `sent`: that it is there at all means that a paid request may have left.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

from delegated.disk import Directory
from delegated.errors import OperatorError
from delegated.job import CallState, Record, call_state, move
from delegated.reply import Reply, Usage

try:
    import fcntl
except ImportError:  # Windows: the exclusive creation of each record remains as the guard
    fcntl = None  # type: ignore[assignment]

NAME: Final = ".delegated"
_LIMIT: Final = 256 << 20
_REVISION: Final = re.compile(r"r([1-9][0-9]{0,5})")
_DISK_PAUSE_S: Final = 0.5
_DISK_PAUSE_CAP_S: Final = 15.0
EX_TEMPFAIL: Final = 75
EX_IOERR: Final = 74

T = TypeVar("T")


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Write a record: a line of JSON, the body, the end mark."""
    payload = json.dumps(header, sort_keys=True).encode() + b"\n" + body
    return payload + b"\nEND " + hashlib.sha256(payload).hexdigest().encode() + b"\n"


def unpack(data: bytes) -> tuple[dict[str, Any], bytes] | None:
    """Read a record back; None when it is torn or was altered."""
    payload, mark, tail = data.rpartition(b"\nEND ")
    if not mark or tail != hashlib.sha256(payload).hexdigest().encode() + b"\n":
        return None
    line, _, body = payload.partition(b"\n")
    try:
        header = json.loads(line)
    except ValueError:
        return None
    return (header, body) if isinstance(header, dict) else None


@dataclass(frozen=True, slots=True)
class Claim:
    """A request made ours: file name, exact bytes, their SHA-256, when, and why it was refused unread ("" if not)."""

    id: str
    revision: int
    name: str
    sha256: str
    data: bytes
    at: float
    refused: str = ""
    order: str = ""  # the RETRY file that this revision obeys
    duplicate_of: str = ""  # the request of which this is a sync tool's copy


@dataclass(frozen=True, slots=True)
class Done:
    """A settled job: its status, when, the RESULT.json that was published ("" for a superseded job)."""

    status: str
    at: float
    result: str


class Journal:
    """The open journal of one drop folder. Opening takes the folder's lock; closing gives it back.

    Raises `OperatorError`: exit code 75 when another daemon holds the folder, 74 when the journal cannot be written or
    does not lie on the folder's own file system.
    """

    def __init__(self, folder: Directory, *, now: Callable[[], float], executor: Executor | None = None) -> None:
        self.now = now
        self._executor = executor
        self._temps = itertools.count(1)  # shared by threads
        self._shards: set[str] = set()  # those that surely survive a power cut
        self._lock_fd = -1
        path = os.path.join(folder.path, NAME)
        try:
            folder.mkdir(NAME)
            self.dir = Directory(path)
        except OSError as error:
            raise OperatorError(
                f"cannot open {path}: {error.strerror}", EX_IOERR, "make the folder writable for this user"
            ) from error
        try:
            self._take_lock(path)
            if self.dir.identity[0] != folder.identity[0]:
                raise OperatorError(
                    f"{path} lies on another file system than its folder",
                    EX_IOERR,
                    "RESULTs are published by rename, which needs one file system: unmount it",
                )
            self._prepare(folder, path)
        except OSError as error:  # of the lock: a full disk has no room for it either
            self.close()
            raise OperatorError(
                f"cannot write in {path}: {error.strerror}", EX_IOERR, "free space, or make it writable for this user"
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the lock back and release the descriptors."""
        self._unlock()
        self.dir.close()

    def _unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _take_lock(self, path: str) -> None:
        deadline = time.monotonic() + 0.2
        while True:
            self._lock_fd = fd = self.dir.open("lock", os.O_RDWR | os.O_CREAT)
            if fcntl is not None:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                        raise OperatorError(f"cannot lock {path}: {error.strerror}", EX_IOERR) from error
                    if time.monotonic() < deadline:  # a client that only asks who holds it lets go at once
                        self._unlock()
                        time.sleep(0.02)
                        continue
                    holder = os.read(fd, 200).decode("utf-8", "replace").strip() or "another process"
                    raise OperatorError(
                        f"this folder is held by {holder!a}",
                        EX_TEMPFAIL,
                        "one daemon serves a folder: stop that one first, or let it do the work",
                    ) from error
            with contextlib.suppress(FileNotFoundError):
                info = self.dir.stat("lock")
                if (info.st_dev, info.st_ino) == (os.fstat(fd).st_dev, os.fstat(fd).st_ino):
                    break
            self._unlock()  # the lock file was replaced between open and lock: lock the one that has the name now
        os.ftruncate(fd, 0)
        os.write(fd, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())

    def _prepare(self, folder: Directory, path: str) -> None:
        try:
            for name in ("tmp", "jobs", "history"):
                self.dir.mkdir(name)
            for name in self.dir.names("tmp"):  # nobody else writes here while we hold the lock
                self.dir.remove(f"tmp/{name}")
            if not self.dir.exists("id"):
                self.dir.create(self._temp(), "id", os.urandom(8).hex().encode())
            self.journal_id = self.dir.read("id", 100).decode("ascii", "replace")[:16]
            self.dir.sync()  # what every record stands on: it may have been made by a life that was killed
            folder.sync()
        except OSError as error:
            raise OperatorError(
                f"cannot write in {path}: {error.strerror}", EX_IOERR, "free space, or make it writable for this user"
            ) from error

    def _temp(self) -> str:
        return f"tmp/{os.getpid()}-{next(self._temps)}"

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run a blocking function beside the loop: a slow disk must not stop the other jobs."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def run_whole(self, function: Callable[..., T], *args: Any) -> T:
        """Run a blocking function to its end, also when the job is cancelled meanwhile; then the cancellation goes on.

        A cancelled job must not leave while its record is half way to the disk: what is in memory and what is on disk
        would differ, and the folder could be closed under the thread that writes.
        """
        running = asyncio.ensure_future(self.run(function, *args))
        cancelled: asyncio.CancelledError | None = None
        while not running.done():
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError as error:
                cancelled = error
            except Exception:  # noqa: BLE001 - raised below, by result()
                break
        if cancelled is not None:
            raise cancelled from running.exception()
        return running.result()

    # Records

    def write(self, path: str, header: dict[str, Any], body: bytes = b"") -> None:
        """Make a record durable under its name. Raises `FileExistsError` if somebody was first, `OSError` otherwise."""
        self.dir.create(self._temp(), path, pack({**header, "at": self.now()}, body))

    def read(self, path: str) -> tuple[dict[str, Any], bytes] | None:
        """Read a record; None when it is absent or torn."""
        try:
            return unpack(self.dir.read(path, _LIMIT))
        except FileNotFoundError:
            return None

    def publish(self, folder: Directory, files: dict[str, bytes]) -> None:
        """Put files into the folder in the order given, each whole or not at all, each durable before the next."""
        for name, data in files.items():
            self._put(folder, name, data, durable=True)
            folder.sync()

    def _put(self, folder: Directory, name: str, data: bytes, *, durable: bool) -> None:
        temp = self._temp()
        self.dir.write_temp(temp, data, durable=durable)
        try:
            self.dir.rename_into(temp, folder, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self.dir.remove(temp)
            raise

    def post_notice(self, folder: Directory, name: str, data: bytes) -> None:
        """Put a file that need not survive a power cut (STATUS) into the folder, whole."""
        self._put(folder, name, data, durable=False)

    def archive(self, folder: Directory, key: str, revision: int, names: dict[str, str]) -> None:
        """Move a former RESULT's files (`suffix: name in the folder`) to the history."""
        for place in ("history", f"history/{key}"):
            self.dir.mkdir(place)
        for suffix, name in names.items():
            with contextlib.suppress(FileNotFoundError):
                folder.rename_into(name, self.dir, f"history/{key}/{revision}.{suffix}")
        self.dir.sync(f"history/{key}")
        folder.sync()

    # Jobs

    def keys(self) -> Iterator[str]:
        """Yield the keys of all jobs there ever were."""
        for shard in self.dir.names("jobs"):
            yield from self.dir.names(f"jobs/{shard}")

    def latest(self, key: str) -> JobRecord | None:
        """Return the newest claimed revision of a request, or None. A torn claim counts as none."""
        place = _place(key)
        revisions = sorted((int(m[1]) for n in self.dir.names(place) if (m := _REVISION.fullmatch(n))), reverse=True)
        for revision in revisions:
            job = self.job(key, revision)
            if job is not None:
                return job
        return None

    def job(self, key: str, revision: int) -> JobRecord | None:
        """Return one revision, or None when it has no sound claim."""
        record = self.read(f"{_place(key)}/r{revision}/claim")
        if record is None:
            return None
        header, body = record
        try:
            claim = Claim(
                key,
                revision,
                header["name"],
                header["sha256"],
                body,
                header["at"],
                header.get("refused", ""),
                header.get("order", ""),
                header.get("duplicate_of", ""),
            )
        except KeyError:
            return None
        return JobRecord(self, claim)

    def claim(
        self,
        key: str,
        revision: int,
        name: str,
        data: bytes,
        *,
        refused: str = "",
        order: str = "",
        duplicate_of: str = "",
    ) -> JobRecord:
        """Make a request ours, durably. Raises `FileExistsError` if that revision is claimed already."""
        place = _place(key)
        shard = os.path.dirname(place)
        self.dir.mkdir(shard)
        self.dir.mkdir(place)
        revision_dir = f"{place}/r{revision}"
        self.dir.mkdir(revision_dir)
        torn = f"{revision_dir}/claim"
        if self.dir.exists(torn) and self.read(torn) is None:
            self.quarantine(torn)
        sha256 = hashlib.sha256(data).hexdigest()
        header = {"id": key, "revision": revision, "name": name, "sha256": sha256, "size": len(data)}
        self.write(torn, {**header, "refused": refused, "order": order, "duplicate_of": duplicate_of}, data)
        # The record's own directory is synced; its parents must survive with it, whoever made them: a life that was
        # killed before it synced them may have.
        for parent in (place, shard) if shard in self._shards else (place, shard, "jobs"):
            self.dir.sync(parent)
        self._shards.add(shard)
        claimed = Claim(key, revision, name, sha256, data, self.now(), refused, order, duplicate_of)
        return JobRecord(self, claimed, found=False)

    def quarantine(self, path: str) -> None:
        """Set a damaged record aside under a name that no reader takes for a record."""
        for n in range(1, 1000):
            aside = f"{path}.torn{n}"
            if not self.dir.exists(aside):
                self.dir.rename_into(path, self.dir, aside)
                self.dir.sync(os.path.dirname(path))
                return


class JobRecord:
    """One claimed revision: its claim, its calls, its end."""

    def __init__(self, journal: Journal, claim: Claim, *, found: bool = True) -> None:
        self.journal = journal
        self.claim = claim
        self.found = found  # not made just now: a RESULT of this very revision may stand already
        self.place = f"{_place(claim.id)}/r{claim.revision}"

    @property
    def done(self) -> Done | None:
        """How it ended, or None."""
        record = self.journal.read(f"{self.place}/done")
        if record is None:
            return None
        header, body = record
        return Done(str(header.get("status", "")), float(header.get("at", 0.0)), body.decode("utf-8", "replace"))

    def finish(self, status: str, result: str = "") -> None:
        """Record the end; nothing happens when it is recorded already."""
        path = f"{self.place}/done"
        if self.journal.dir.exists(path):
            if self.journal.read(path) is not None:
                return
            self.journal.quarantine(path)
        self.journal.write(path, {"status": status}, result.encode("utf-8", "surrogatepass"))

    def call_names(self) -> list[str]:
        """List the calls made so far, in order (`01-first`, …)."""
        return sorted(self.journal.dir.names(f"{self.place}/calls"))

    def call(self, number: int, name: str) -> CallRecord:
        """Open the record of the job's `number`-th call, making its directory."""
        return CallRecord(self, f"{number:02d}-{name}")

    def may_be_billed(self) -> bool:
        """Say whether any call of this job has left the machine for good."""
        return any(self.call(int(name[:2]), name[3:]).may_be_billed for name in self.call_names())


class CallRecord:
    """The durable log of one call: `models.CallLog` on disk. Each `record_…` returns once the record is safe."""

    def __init__(self, job: JobRecord, name: str, phase: Callable[[str, str], None] | None = None) -> None:
        self.job = job
        self.name = name
        self.on_phase = phase
        self.sends = 0
        self._journal = job.journal
        self._place = f"{job.place}/calls/{name}"
        self._sent: dict[str, Any] = {}
        self._response_id = ""
        self._reply: Reply | None = None
        self._placed = False
        names = self._journal.dir.names(self._place)
        sound = [n for n in names if n.startswith("sent.") or self._sound(n)]
        position = call_state(sound)
        self._state, self._attempt = position.state, position.attempt
        self.sends = sum(1 for n in names if re.fullmatch(r"sent\.\d+", n))
        if self._state is CallState.NEW:
            # An attempt that was proven absent may leave its handle: the next one goes by the same, where a running
            # twin would be refused.
            previous = self._journal.read(f"{self._place}/sent.{self._attempt - 1}") if self._attempt > 1 else None
            self._sent = previous[0] if previous else {}
        else:
            record = self._journal.read(f"{self._place}/sent.{self._attempt}")
            self._sent = record[0] if record else {}
        if self._state is CallState.ACCEPTED:
            accepted = self._journal.read(f"{self._place}/accepted.{self._attempt}")
            self._response_id = str(accepted[0].get("response_id", "")) if accepted else ""
        if self._state is CallState.REPLIED:
            record = self._journal.read(f"{self._place}/reply")
            self._reply = _reply(*record) if record else None

    def _sound(self, name: str) -> bool:
        if not re.fullmatch(r"(unsent|accepted)\.\d+|reply|prompt", name):
            return False
        if self._journal.read(f"{self._place}/{name}") is not None:
            return True
        self._journal.quarantine(f"{self._place}/{name}")
        return False

    @property
    def call_id(self) -> str:
        """Our own name for this call, the same at every attempt and after a restart."""
        claim = self.job.claim
        return f"{self._journal.journal_id}.{claim.id}.r{claim.revision}.{self.name}"

    @property
    def state(self) -> CallState:
        """Where the call stands."""
        return self._state

    @property
    def may_be_billed(self) -> bool:
        """Say whether this call may cost money already."""
        return self._state is not CallState.NEW

    @property
    def attempt(self) -> int:
        """The attempt under way, or the next one."""
        return self._attempt

    @property
    def handle(self) -> str:
        """The look-up handle of the last attempt, "" when there is none."""
        return str(self._sent.get("handle", ""))

    @property
    def in_doubt(self) -> bool:
        """True when this attempt was sent and nothing is known after that."""
        return self._state is CallState.SENT

    @property
    def in_doubt_since(self) -> float:
        """When it was sent, seconds since the epoch (0.0 when the record is damaged: long ago)."""
        return float(self._sent.get("at", 0.0))

    @property
    def response_id(self) -> str:
        """The provider's id, "" when it is not known."""
        return self._response_id

    @property
    def reply(self) -> Reply | None:
        """The recorded reply."""
        return self._reply

    def load_prompt(self) -> str | None:
        """Return the prompt as it was recorded before the first send, or None."""
        record = self._journal.read(f"{self._place}/prompt")
        return record[1].decode("utf-8") if record else None

    def save_prompt(self, text: str, header: dict[str, Any]) -> None:
        """Record what is about to be sent; the answer is checked against exactly this. Synced together with `sent`."""
        self._make_place()
        self._journal.write(f"{self._place}/prompt", header, text.encode())

    def _make_place(self) -> None:
        if self._placed:
            return
        calls = f"{self.job.place}/calls"
        self._journal.dir.mkdir(calls)
        self._journal.dir.mkdir(self._place)
        # Also when they were there: a life that was killed between making and syncing them left them unsure.
        self._journal.dir.sync(calls)
        self._journal.dir.sync(self.job.place)
        self._placed = True

    async def _write(
        self,
        record: Record,
        name: str,
        header: dict[str, Any],
        apply: Callable[[], None],
        body: bytes = b"",
    ) -> None:
        after = move(self._state, record)
        path = f"{self._place}/{name}"

        def write() -> None:
            self._make_place()
            try:
                self._journal.write(path, header, body)
            except FileExistsError:
                # Ours, of an earlier try: it got its name and the sync failed. Never so for `sent`, whose name is the
                # guard against a second send.
                if record is Record.SENT or self._journal.read(path) is None:
                    raise
                self._journal.dir.sync(self._place)
            self._state = after
            apply()

        pause = _DISK_PAUSE_S
        while True:
            try:
                return await self._journal.run_whole(write)
            except OSError as error:
                if record is Record.SENT:
                    raise
                # What is known of a call that has left, its reply above all, must not be lost for want of space.
                self._unwritten(name, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _DISK_PAUSE_CAP_S)

    def _unwritten(self, name: str, error: OSError) -> None:
        import structlog

        structlog.get_logger("delegated.journal").error("record.unwritten", record=name, reason=str(error))
        self.phase("waiting for the disk", error.strerror or "")

    async def record_sent(self, *, model: str, endpoint: str, handle: str, price_bound_usd: float | None) -> None:
        """Record, before the POST, that it is about to be made."""
        header = {
            "call_id": self.call_id,
            "attempt": self._attempt,
            "model": model,
            "endpoint": endpoint,
            "handle": handle,
            "price_bound_usd": price_bound_usd,
        }
        at = self._journal.now()

        def apply() -> None:
            self._sent = {**header, "at": at}
            self.sends += 1

        await self._write(Record.SENT, f"sent.{self._attempt}", header, apply)

    async def record_unsent(self, kind: str, reason: str) -> None:
        """Record that this attempt was certainly not accepted."""

        def apply() -> None:
            self._attempt += 1

        await self._write(Record.UNSENT, f"unsent.{self._attempt}", {"kind": kind, "reason": reason}, apply)

    async def record_accepted(self, response_id: str) -> None:
        """Record the provider's id."""

        def apply() -> None:
            self._response_id = response_id

        await self._write(Record.ACCEPTED, f"accepted.{self._attempt}", {"response_id": response_id}, apply)

    async def record_reply(self, reply: Reply) -> None:
        """Record the final reply; its raw body is the record's body."""
        header = asdict(reply)
        raw = header.pop("raw").encode("utf-8", "surrogatepass")

        def apply() -> None:
            self._reply = reply

        await self._write(Record.REPLY, "reply", header, apply, raw)

    def phase(self, name: str, detail: str = "") -> None:
        """Pass on what is going on to whoever watches."""
        if self.on_phase is not None:
            self.on_phase(name, detail)


def _reply(header: dict[str, Any], body: bytes) -> Reply:
    usage = header.get("usage")
    return Reply(
        outcome=header["outcome"],
        text=header["text"],
        model=header["model"],
        raw=body.decode("utf-8", "surrogatepass"),
        usage=Usage(**usage) if usage else None,
        response_id=header.get("response_id", ""),
        simulated=bool(header.get("simulated", False)),
    )


def _place(key: str) -> str:
    return f"jobs/{hashlib.sha256(key.encode()).hexdigest()[:2]}/{key}"
