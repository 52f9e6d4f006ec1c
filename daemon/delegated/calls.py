"""The records of one job and of its calls, and the only way from one to the next."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from delegated.errors import Refused, Unavailable
from delegated.flood import Asked, Prints
from delegated.job import CallState, Record, call_state, move
from delegated.record import Claim, Done, Refusal, place_of
from delegated.reply import Reply, Usage
from delegated.store import Store
from delegated.uptime import Uptime, surely_passed

_DISK_PAUSE_S: Final = 0.5
_DISK_PAUSE_CAP_S: Final = 5.0


class JobRecord:
    """One claimed revision: its claim, its calls, its end."""

    def __init__(self, journal: Store, claim: Claim, *, found: bool = True) -> None:
        self.journal = journal
        self.claim = claim
        self.found = found  # not made just now: a RESULT of this very revision may stand already
        self.rooted = not found  # its directories surely survive a power cut
        self.before_sending: Callable[[], Awaitable[None]] | None = None  # a last look; it may stop the job
        self.asked_before: Callable[[Prints], Sequence[Asked]] = (
            lambda mine: ()
        )  # notes an asking, returns those like it
        # The newest revision of another request; one below a number if that is given.
        self.former: Callable[..., JobRecord | None] = lambda key, below=0: None
        self.decided: dict[str, Any] = {}  # by which settings it is answered; noted with each send
        self.heir = False  # it has calls of the same request in a journal that went away
        self.place = f"{place_of(claim.id)}/r{claim.revision}"
        self.turn = 0  # its place in the order in which this life began its jobs
        self._calls: dict[str, CallRecord] = {}  # each once, so that they are known also when the journal is gone

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
        if self.journal.gone:
            return
        path = f"{self.place}/done"
        if self.journal.dir.exists(path):
            if self.journal.read(path) is not None:
                return
            self.journal.quarantine(path)
        header = {"status": status, "request": self.claim.sha256}
        self.journal.write(path, header, result.encode("utf-8", "surrogatepass"))

    def call_names(self) -> list[str]:
        """List the calls made so far, in order (`01-first`, …)."""
        return sorted(self.journal.dir.names(f"{self.place}/calls"))

    def call(self, number: int, name: str) -> CallRecord:
        """Open the record of the job's `number`-th call, making its directory."""
        return self._call(f"{number:02d}-{name}")

    def _call(self, name: str) -> CallRecord:
        if name not in self._calls:
            self._calls[name] = CallRecord(self, name)
        return self._calls[name]

    def calls(self) -> list[CallRecord]:
        """Return the calls made so far, in order, also those whose records were deleted since."""
        return [self._call(name) for name in sorted({*self._calls, *self.call_names()})]

    def may_be_billed(self) -> bool:
        """Say whether any call of this job has left the machine for good."""
        return any(call.may_be_billed for call in self.calls())

    def under_way(self) -> list[str]:
        """Name the calls that have left and whose end is not known."""
        return [call.name for call in self.calls() if call.state in (CallState.SENT, CallState.ACCEPTED)]

    def may_inherit(self, former: JobRecord) -> bool:
        """Say whether nothing has left under this job, but what it inherited from `former` before a disk failed."""
        known = {name: call.call_id for name, call in former._calls.items()}
        return all(known.get(call.name) == call.call_id for call in self.calls() if call.may_be_billed)

    def inherit(self, former: JobRecord) -> None:
        """Record here what is known of the calls of the same request in a journal that went away. Blocking.

        May be done again when more is known. Raises `OSError` when the disk does not take it.
        """
        self.journal.dir.mkdir(f"{self.place}/calls")
        for name, call in former._calls.items():
            place = f"{self.place}/calls/{name}"
            self.journal.dir.mkdir(place)
            # In the order in which they were made: a kill in between leaves what a kill there would have left.
            for record, (header, body) in sorted(call.known.items(), key=lambda item: item[0] != "prompt"):
                if not self.journal.dir.exists(f"{place}/{record}"):
                    self.journal.write(f"{place}/{record}", header, body)
            self.journal.dir.sync(f"{self.place}/calls")
        self.journal.dir.sync(self.place)
        self._calls.clear()  # to be read anew
        self.heir = True


class CallRecord:
    """The durable log of one call: `models.CallLog` on disk. Each `record_…` returns once the record is safe."""

    def __init__(self, job: JobRecord, name: str, phase: Callable[[str, str], None] | None = None) -> None:
        self.job = job
        self.name = name
        self.on_phase = phase
        self.held: Unavailable | Refused | None = None
        self.sends = 0
        self.known: dict[str, tuple[dict[str, Any], bytes]] = {}  # each record by its name, in the order made
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
        self.departures = self._departures(names)
        if self._state is CallState.NEW:
            # An attempt that was proven absent may leave its handle: the next one goes by the same, where a running
            # twin would be refused.
            previous = self._journal.read(f"{self._place}/sent.{self._attempt - 1}") if self._attempt > 1 else None
            self._sent = previous[0] if previous else {}
        else:
            record = self._recall(f"sent.{self._attempt}")
            self._sent = record[0] if record else {}
            if record is None and self._state is CallState.SENT:
                self.known[f"sent.{self._attempt}"] = ({}, b"")  # torn, and still it was sent
        if self._state is CallState.ACCEPTED:
            accepted = self._recall(f"accepted.{self._attempt}")
            self._response_id = str(accepted[0].get("response_id", "")) if accepted else ""
        if self._state is CallState.REPLIED:
            record = self._recall("reply")
            self._reply = _reply(*record) if record else None

    def _departures(self, names: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Read what the record before each send says that may have left; a damaged one says nothing."""
        found = {}
        for name in names:
            number = re.fullmatch(r"sent\.([1-9][0-9]{0,5})", name)
            if number is None:
                continue
            back = self._journal.read(f"{self._place}/unsent.{number[1]}") if f"unsent.{number[1]}" in names else None
            if back is None or back[0].get("left", True):
                sent = self._journal.read(f"{self._place}/{name}")
                found[int(number[1])] = sent[0] if sent else {}
        return found

    def _recall(self, name: str) -> tuple[dict[str, Any], bytes] | None:
        record = self._journal.read(f"{self._place}/{name}")
        if record is not None:
            self.known[name] = record
        return record

    def _sound(self, name: str) -> bool:
        if not re.fullmatch(r"(unsent|accepted)\.\d+|reply|prompt", name):
            return False
        if self._journal.read(f"{self._place}/{name}") is not None:
            return True
        self._journal.quarantine(f"{self._place}/{name}")
        return False

    @property
    def call_id(self) -> str:
        """Our own name for this call, the same at every attempt, after a restart and in another journal.

        No other call ever has it, also where the journal was purged of this one or copied: the ledger and the provider
        know it by this name alone.
        """
        # Under this name it left, whatever the journal is called now; the prompt has it where that record is damaged.
        recorded = self._sent.get("call_id") or self.prompt_header.get("call")
        return recorded if isinstance(recorded, str) and recorded else self._new_id()

    def _new_id(self) -> str:
        claim = self.job.claim
        whose = "-".join(part for part in (self._journal.journal_id, claim.nonce) if part)
        return f"{whose}.{claim.id}.r{claim.revision}.{self.name}"

    @property
    def state(self) -> CallState:
        """Where the call stands."""
        return self._state

    @property
    def turn(self) -> int:
        """The job's."""
        return self.job.turn

    @property
    def refusal(self) -> Refusal | None:
        """What the provider said when it refused the last attempt; None when it did not, or something came after."""
        record = self._journal.read(f"{self._place}/unsent.{self._attempt - 1}") if self._attempt > 1 else None
        if record is None or self._state is not CallState.NEW:
            return None
        said = record[0]
        asked = said.get("retry_after")
        return Refusal(
            endpoint=str(self._sent.get("endpoint", "")),
            kind=str(said.get("kind", "")),
            reason=str(said.get("reason", "")),
            ago_s=self.in_doubt_for,
            retry_after=float(asked) if isinstance(asked, int | float) else None,
            row=self._attempt - 1,
        )

    @property
    def sent(self) -> dict[str, Any]:
        """What the record before the last send says; empty when there is none, or none that is sound."""
        return self._sent

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
    def in_doubt_for(self) -> float:
        """For how many seconds it has been sent for sure; 0.0 when the record is damaged."""
        try:
            at, then = float(self._sent["at"]), Uptime(str(self._sent["boot"]), float(self._sent["up"]))
        except (KeyError, TypeError, ValueError):
            return 0.0
        return surely_passed(then, self._journal.up(), self._journal.now() - at)

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
        record = self._recall("prompt")
        return record[1].decode("utf-8") if record and not record[0].get("dropped") else None

    def save_prompt(self, text: str, header: dict[str, Any]) -> None:
        """Record what is about to be sent; the answer is checked against exactly this. Synced together with `sent`."""
        self._make_place()
        header = {**header, "request": self.job.claim.sha256, "call": self._new_id()}
        self._journal.write(f"{self._place}/prompt", header, text.encode())
        self.known["prompt"] = (header, text.encode())

    @property
    def prompt_header(self) -> dict[str, Any]:
        """Return what was noted of the recorded prompt; empty without one."""
        record = self.known.get("prompt") or self._recall("prompt")
        return record[0] if record else {}

    @property
    def prompt_lost(self) -> bool:
        """True when the call may have left and what was sent is not known any more: its record is damaged."""
        return self.may_be_billed and self.load_prompt() is None

    def _make_place(self) -> None:
        if self._placed:
            return
        calls = f"{self.job.place}/calls"
        with self._journal.writing():
            self._journal.dir.mkdir(calls)
            self._journal.dir.mkdir(self._place)
            # Also when they were there: a life that was killed between making and syncing them left them unsure.
            self._journal.dir.sync(calls)
            self._journal.dir.sync(self.job.place)
        if not self.job.rooted:
            self._journal.root(os.path.dirname(self.job.place))
            self.job.rooted = True
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
            know()

        def know() -> None:
            self._state = after
            self.known[name] = (header, body)
            apply()

        pause, told = _DISK_PAUSE_S, ""
        while True:
            try:
                return await self._journal.run_whole(write)
            except OSError as error:
                if record is Record.SENT:
                    raise
                if self._journal.gone or self._journal.deleted():
                    return know()  # nothing can be kept on disk any more; what came is used for the RESULT
                # What is known of a call that has left, its reply above all, must not be lost for want of space.
                told = self._unwritten(name, error, told)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _DISK_PAUSE_CAP_S)

    def _unwritten(self, name: str, error: OSError, told: str) -> str:
        reason = error.strerror or str(error)
        if reason != told:  # once, not at each try of a day with a full disk
            import structlog

            structlog.get_logger("delegated.journal").error("record.unwritten", record=name, reason=str(error))
        self.phase("waiting for the disk", reason)
        return reason

    async def record_sent(
        self,
        *,
        model: str,
        endpoint: str,
        wire: str,
        handle: str,
        prompt_sha256: str,
        price_bound_usd: float | None,
        key_mark: str = "",
        stored: bool | None = None,
    ) -> None:
        """Record, before the POST, that it is about to be made, of which words, and where it could be looked up."""
        if self.job.before_sending is not None:
            await self.job.before_sending()
        up = self._journal.up()
        header = {
            "life": self._journal.life,
            "boot": up.boot,
            "up": up.seconds,
            "call_id": self.call_id,
            "attempt": self._attempt,
            "model": model,
            "endpoint": endpoint,
            "wire": wire,
            "handle": handle,
            "prompt_sha256": prompt_sha256,
            "price_bound_usd": price_bound_usd,
            "key_mark": key_mark,
            "stored": stored,
            "decided": self.job.decided,
        }
        at = self._journal.now()

        def apply() -> None:
            self._sent = self.departures[self._attempt] = {**header, "at": at}
            self.sends += 1

        name = f"sent.{self._attempt}"
        try:
            await self._write(Record.SENT, name, header, apply)
        except FileExistsError:
            raise  # somebody else's: nothing may be said of it
        except OSError:
            # It may have its name all the same, and would count as sent. Nobody posts after this: say so.
            if await self._journal.run(self._is_ours, name):
                self._state, self.known[name] = move(self._state, Record.SENT), (header, b"")
                apply()
                why = "the record of the send could not be made durable: nothing was sent"
                await self.record_unsent("disk", why, left=False)
            raise

    def _is_ours(self, name: str) -> bool:
        try:
            record = self._journal.read(f"{self._place}/{name}")
        except OSError:
            return False  # then it stays in doubt, and is looked up
        return record is not None and record[0].get("life") == self._journal.life

    async def record_unsent(
        self, kind: str, reason: str, *, retry_after: float | None = None, left: bool = True
    ) -> None:
        """Record that this attempt was certainly not accepted, and how long the provider wants to be left alone.

        `left`: whether any of it may have left the machine all the same.
        """
        header = {"kind": kind, "reason": reason, "retry_after": retry_after, "left": left}

        def apply() -> None:
            if not left:
                self.departures.pop(self._attempt, None)
            self._attempt += 1

        await self._write(Record.UNSENT, f"unsent.{self._attempt}", header, apply)

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
