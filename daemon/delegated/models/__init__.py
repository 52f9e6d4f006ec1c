"""Who can be asked: one method, prompt in, reply out; and how a paid call crosses a wire.

A `Model` answers prompts. `recorded.Recorded` is the Model around a paid `Wire`: it keeps to the order sent,
posted, accepted, reply in the call's durable log. The gate, which also asks again, is a Model around a Model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from delegated.errors import Refused, Unavailable
from delegated.prompt import Prompt
from delegated.reply import Reply


class CallLog(Protocol):
    """The durable memory of one call, as `journal.CallRecord` keeps it: a record is on disk when its method returns."""

    held: Unavailable | Refused | None
    """The last refusal for which this call had to wait; None once it was accepted. Not durable."""

    @property
    def turn(self) -> int:
        """The place of its job in the order in which jobs began."""

    @property
    def call_id(self) -> str:
        """Our own name for this call, the same after a restart; ASCII, at most 200 characters."""

    @property
    def attempt(self) -> int:
        """The number of the attempt that is under way or comes next, from 1."""

    @property
    def handle(self) -> str:
        """What `Wire.prepare` returned for the attempt that is in doubt, "" when there is none."""

    @property
    def sent(self) -> Mapping[str, Any]:
        """What the record before the last send says of where it went; empty when there is none, or none is sound."""

    @property
    def in_doubt(self) -> bool:
        """True when this attempt was recorded as sent, and nothing is known after that."""

    @property
    def in_doubt_for(self) -> float:
        """For how many seconds it has been sent, at least: no clock that somebody can set may make it more."""

    @property
    def response_id(self) -> str:
        """The provider's id once it accepted the call, else ""."""

    @property
    def reply(self) -> Reply | None:
        """The recorded reply."""

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
        """Record, before the POST, that it is about to be made, of which words, and where it could be looked up.

        What is left out is not known, and then no look-up can prove it absent.
        """

    async def record_unsent(
        self, kind: str, reason: str, *, retry_after: float | None = None, left: bool = True
    ) -> None:
        """Record that this attempt was certainly not accepted; the next one may be sent `retry_after` s later.

        `left`: whether any of it may have left the machine all the same.
        """

    async def record_accepted(self, response_id: str) -> None:
        """Record the provider's id."""

    async def record_reply(self, reply: Reply) -> None:
        """Record the final reply."""

    def phase(self, name: str, detail: str = "") -> None:
        """Tell whoever watches what is going on (`asking`, `waiting`, `out of reach`, `looking up`). Not durable."""


class Model(Protocol):
    """Somebody who can be asked.

    `name` is the model's name as configured, `endpoint` a URL or "" when no network is used, `wire` one of
    `responses`, `chat`, `messages`, `local`.
    """

    name: str
    endpoint: str
    wire: str

    async def ask(self, prompt: Prompt, log: CallLog) -> Reply:
        """Return the one reply to this call; a recorded one is returned without asking again.

        Raises `Unavailable` (nothing accepted, later perhaps), `Refused` (nothing accepted, pointless) or
        `Uncertain` (may have been billed, cannot be known).
        """

    async def cancel(self, log: CallLog) -> None:
        """Ask the provider to stop this call, if it runs there. Never raises for a call that is not running."""

    async def close(self) -> None:
        """Release connections."""


@dataclass(frozen=True, slots=True)
class Posted:
    """The provider accepted: its id, and the reply when it came at once."""

    response_id: str
    reply: Reply | None


class Trace(Enum):
    """What a look-up can say when it does not find the call."""

    # A running twin would be refused or shown, so sending again is safe once the deadline has passed.
    ABSENT = "not there now"
    UNKNOWN = "the provider cannot say"


class Wire(Protocol):
    """How one provider's interface carries a paid call. Only `recorded.Recorded` uses it.

    `post` sends once and never retries. Every method may raise `Unavailable` or `Refused` when it is certain that
    nothing was accepted, and `InDoubt` when it is not (time-out, reset after the body was written, 408, 409, 5xx,
    an unreadable body).
    """

    name: str  # responses, chat, messages
    model: str
    endpoint: str
    stored: bool  # whether the provider keeps what is sent now, so that a lost send can be looked up

    def key_mark(self, call_id: str) -> str:
        """Return what tells later whether a call went under the key that is used then, and nothing of the key."""

    async def prepare(self, call_id: str) -> str:
        """Make, without running a model, the handle by which a lost send can be found; "" where there is none."""

    async def post(self, prompt: Prompt, call_id: str, handle: str) -> Posted:
        """Send the paid request, once."""

    async def fetch(self, response_id: str) -> Reply | None:
        """Get an accepted call's final reply; None while it still runs. Raises `Uncertain` when it is gone."""

    async def find(self, call_id: str, handle: str) -> Posted | Trace:
        """Look a lost send up, which was stored."""

    async def cancel(self, response_id: str) -> None:
        """Ask the provider to stop an accepted call."""

    async def forget(self, handle: str) -> None:
        """Drop the handle once the reply is recorded. Never raises."""

    async def close(self) -> None:
        """Release connections."""
