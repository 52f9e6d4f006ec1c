"""A provider's memory: which calls it accepted, what it billed for them, and where they are found again."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, Final

from delegated.testing import objects
from delegated.testing.checks import ModelCard, check_metadata, invalid, missing, schema_asked
from delegated.testing.faults import Fault
from delegated.testing.ledger import Ledger
from delegated.testing.objects import Run
from delegated.testing.simulated import answer_text

_BODIES_KEPT: Final = 1000
_PREFIXES: Final = {"responses": "resp", "chat": "chatcmpl", "messages": "msg"}


@dataclass(frozen=True, slots=True)
class Bill:
    """One paid call that was accepted. `status` is the HTTP status shown to the client, None when it got no answer."""

    n: int
    wire: str
    id: str
    model: str
    call: str
    body_sha256: str
    body_bytes: int
    at: float
    status: int | None


@dataclass(slots=True)
class Thread:
    """A conversation: a handle that is made for nothing, and the calls that were made in it."""

    id: str
    created_at: float
    metadata: dict[str, str]
    items: list[dict[str, Any]]
    runs: list[Run] = field(default_factory=list)


class Provider:
    """What is remembered. Every time is an argument, in seconds since the epoch.

    With a ledger every change is on disk before it can be told, and an earlier life's calls are known again.
    """

    def __init__(self, *, models: Mapping[str, ModelCard], latency: float = 0.0, ledger: Ledger | None = None) -> None:
        self.bills: list[Bill] = []
        self._models = models
        self._latency = latency
        self._ledger = ledger
        self._runs: dict[str, Run] = {}
        self._threads: dict[str, Thread] = {}
        self._bodies: dict[int, bytes] = {}
        self._made = 0
        self._life = secrets.token_hex(4)  # ids of two lives without a ledger must never look alike
        for record in ledger.load() if ledger else ():
            self._recall(record)

    # paid calls -------------------------------------------------------------------------------------------------------

    def accept(self, wire: str, body: dict[str, Any], raw: bytes, fault: Fault, now: float) -> Run:
        """Accept a paid call that was checked, and bill it. Raises `Refusal` for a conversation or schema of no use."""
        given = body.get("conversation") if wire == "responses" else None
        name = given.get("id") if isinstance(given, dict) else given
        thread = self.thread(str(name)) if name else None
        if thread and not fault.unlocked and any(not run.finished(now) for run in thread.runs):
            message = "Another process is currently operating on this conversation. Please retry in a few seconds."
            invalid(message, None, "conversation_locked")
        text = self._words(wire, body, fault)
        run_s = self._latency if fault.run is None else fault.run
        run = Run(
            id=self._new_id(_PREFIXES[wire]),
            wire=wire,
            model=body["model"],
            reported=fault.model or self._models[body["model"]].snapshot or body["model"],
            created_at=now,
            done_at=None if run_s == inf else now + run_s,
            outcome=objects.natural_outcome(fault.outcome, text, body),
            text=text,
            prompt_bytes=len(objects.prompt_text(body).encode()),
            asked={name: value for name, value in body.items() if name not in ("messages", "metadata")},
            metadata=body.get("metadata") or {},
            conversation=thread.id if thread else "",
            background=wire == "responses" and bool(body.get("background")),
            store=body.get("store") is True or (wire == "responses" and body.get("store") is not False),
            lag=fault.lag,
            usage=fault.usage,
        )
        self._book(run, raw, fault, now)
        if thread:
            thread.runs.append(run)
        return run

    def _words(self, wire: str, body: Mapping[str, Any], fault: Fault) -> str:
        kind, schema = schema_asked(wire, body)
        if fault.answer is not None:
            return json.dumps(fault.answer)
        return fault.text if fault.text is not None else answer_text(schema, as_json=kind == "json_object")

    def _book(self, run: Run, raw: bytes, fault: Fault, now: float) -> None:
        bill = Bill(
            n=len(self.bills) + 1,
            wire=run.wire,
            id=run.id,
            model=run.model,
            call=run.metadata.get("call") or run.metadata.get("user_id") or "",
            body_sha256=hashlib.sha256(raw).hexdigest(),
            body_bytes=len(raw),
            at=now,
            status=None if fault.silent else fault.http_status,
        )
        self._record({"record": "run", "bill": asdict(bill), "run": run.to_json()})
        self.bills.append(bill)
        self._runs[run.id] = run
        self._bodies[bill.n] = raw
        self._bodies.pop(bill.n - _BODIES_KEPT, None)

    # what is stored ---------------------------------------------------------------------------------------------------

    def run(self, wire: str, name: str, now: float) -> Run:
        """Return a stored call by its id. Raises `Refusal`."""
        run = self._runs.get(name)
        if run is None or run.wire != wire or not run.store or run.deleted or (wire == "chat" and not run.shown(now)):
            raise missing("Response" if wire == "responses" else "Chat completion", name)
        return run

    def completions(self, query: Mapping[str, str], now: float) -> list[dict[str, Any]]:
        """List the stored chat completions that ended with an answer, as `model` and `metadata[…]` ask."""
        wanted = {name[9:-1]: value for name, value in query.items() if name.startswith("metadata[")}
        return [
            objects.completion_object(run)
            for run in self._runs.values()
            if run.wire == "chat"
            and run.store
            and not run.deleted
            and run.shown(now)
            and run.outcome not in ("failed", "cancelled")
            and query.get("model") in (None, "", run.model)
            and all(run.metadata.get(name) == value for name, value in wanted.items())
        ]

    def cancel(self, run: Run, now: float) -> None:
        """Stop a background call; one that has ended stays as it is. Raises `Refusal` for a call in the foreground."""
        if not run.background:
            invalid("Cannot cancel a synchronous response.")
        if not run.finished(now):
            self._change(run, "cancelled", True)

    def delete(self, run: Run) -> None:
        """Show a call no more."""
        self._change(run, "deleted", True)

    def thread(self, name: str) -> Thread:
        """Return a conversation by its id. Raises `Refusal`."""
        if name not in self._threads:
            raise missing("Conversation", name)
        return self._threads[name]

    def new_thread(self, body: Mapping[str, Any], now: float) -> Thread:
        """Make a conversation. Raises `Refusal`."""
        check_metadata(body.get("metadata"))
        name = self._new_id("conv")
        given = body.get("items")
        items = objects.input_messages(name, given if isinstance(given, list) else [])
        self._threads[name] = thread = Thread(name, now, body.get("metadata") or {}, items)
        said = {"id": name, "created_at": now, "metadata": thread.metadata, "items": items}
        self._record({"record": "conversation", **said})
        return thread

    def forget(self, thread: Thread) -> None:
        """Delete a conversation; its calls stay."""
        del self._threads[thread.id]
        self._record({"record": "forget", "id": thread.id})

    @staticmethod
    def items(thread: Thread, now: float) -> list[dict[str, Any]]:
        """List a conversation's items, oldest first: a call's appear when it ends, and only with an answer."""
        items = list(thread.items)
        for run in thread.runs:
            if run.shown(now) and run.state(now) in ("completed", "incomplete"):
                items += objects.input_messages(run.id, run.asked.get("input"))
                items += [objects.output_message(run)] if run.said() else []
        return items

    # for tests --------------------------------------------------------------------------------------------------------

    def body(self, n: int) -> bytes | None:
        """Return the body of the n-th bill as it was received; None if it is not kept (the last 1,000 are)."""
        return self._bodies.get(n)

    def release(self, now: float) -> None:
        """End every call that still runs."""
        for run in self._runs.values():
            if not run.finished(now):
                self._change(run, "done_at", now)

    def reset(self) -> None:
        """Forget everything."""
        for memory in (self.bills, self._runs, self._threads, self._bodies):
            memory.clear()
        if self._ledger:
            self._ledger.clear()

    def state(self, now: float) -> dict[str, Any]:
        """Return what was billed and what runs, as JSON data."""
        return {
            "bills": [asdict(bill) | {"state": self._runs[bill.id].state(now)} for bill in self.bills],
            "bills_by_call": dict(Counter(bill.call for bill in self.bills)),
            "running": sum(not run.finished(now) for run in self._runs.values()),
            "conversations": len(self._threads),
        }

    def _new_id(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}_{self._made:08d}{self._life}"

    def _change(self, run: Run, name: str, value: Any) -> None:
        self._record({"record": "change", "id": run.id, name: value})
        setattr(run, name, value)

    def _record(self, record: dict[str, Any]) -> None:
        if self._ledger:
            self._ledger.write(record)

    def _recall(self, record: dict[str, Any]) -> None:
        match record["record"]:
            case "run":
                run = Run(**record["run"])
                self.bills.append(Bill(**record["bill"]))
                self._runs[run.id] = run
                if run.conversation in self._threads:
                    self._threads[run.conversation].runs.append(run)
            case "conversation":
                self._threads[record["id"]] = Thread(
                    record["id"], record["created_at"], record["metadata"], record["items"]
                )
            case "change":
                for name in record.keys() - {"record", "id"}:
                    setattr(self._runs[record["id"]], name, record[name])
            case "forget":
                self._threads.pop(record["id"], None)
