"""What a provider knows: which calls it accepted, what it billed for them, and what it answers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import signal
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, urlsplit

from delegated.testing import objects
from delegated.testing.faults import ERRORS, NONE, BadRule, Fault, Rules, error_body, read_rules
from delegated.testing.ledger import Ledger
from delegated.testing.objects import Run, dump
from delegated.testing.simulated import answer_text, strict_problem

_BODIES_KEPT: Final = 1000
_LOG_KEPT: Final = 10_000
_AN_ID: Final = re.compile(r"(resp|conv|chatcmpl|msg)_[^/]+")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the server knows of a model: the name it reports, when it leaves, whether it takes `temperature`."""

    snapshot: str = ""
    shutdown_date: str | None = None
    reasoning: bool = False


MODELS: Final[dict[str, ModelCard]] = {
    "gpt-4o": ModelCard("gpt-4o-2024-08-06", "2027-01-14"),
    "gpt-4o-2024-08-06": ModelCard(shutdown_date="2027-01-14"),
    "gpt-4o-mini": ModelCard("gpt-4o-mini-2024-07-18"),
    "gpt-6-luna": ModelCard(reasoning=True),
    "gpt-6.1-sol": ModelCard(reasoning=True),
    "gpt-6-astra": ModelCard(reasoning=True),
    "claude-sonnet-5-5": ModelCard(),
    "claude-haiku-5-5": ModelCard(),
    "claude-opus-5-5": ModelCard(),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request as it came. `target` is path and query, header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    peer: str = "127.0.0.1"


@dataclass(slots=True)
class Answer:
    """What goes back, and when: `due` in seconds since the epoch, infinite while only a release brings it.

    `render` is called when it is due, so that the answer shows what is true then.
    """

    render: Callable[[], bytes]
    status: int = 200
    due: float = 0.0
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    fault: Fault = NONE


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
class _Conversation:
    id: str
    created_at: float
    metadata: dict[str, str]
    items: list[dict[str, Any]]
    runs: list[Run] = field(default_factory=list)


class _Refusal(Exception):
    def __init__(self, status: int, kind: str, code: str | None, param: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.message = status, kind, code, param, message
        self.headers: dict[str, str] = {}


def _refuse(name: str, message: str = "", *, param: str | None = None) -> NoReturn:
    status, kind, code, usual, text = ERRORS[name]
    raise _Refusal(status, kind, code, param or usual, message or text)


def _invalid(message: str, param: str | None = None, code: str | None = None) -> NoReturn:
    raise _Refusal(400, "invalid_request_error", code, param, message)


class Provider:
    """A provider's memory and its rules. Knows no sockets; `handle` never waits.

    With a ledger every bill is on disk before `handle` returns, and an earlier life's calls are known again.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        ledger: Ledger | None = None,
        models: Mapping[str, ModelCard] = MODELS,
        key: str = "",
        latency: float = 0.0,
        rpm: int | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.now = now
        self.latency = latency
        self._ledger = ledger
        self._models = dict(models)
        self._key = key
        self._rpm = rpm
        self.rules = rules or Rules()
        self.bills: list[Bill] = []
        self.requests: Counter[str] = Counter()
        self.problems: list[str] = []
        self.released: Callable[[], None] = lambda: None
        self._runs: dict[str, Run] = {}
        self._conversations: dict[str, _Conversation] = {}
        self._bodies: dict[int, bytes] = {}
        self._log: deque[dict[str, Any]] = deque(maxlen=_LOG_KEPT)
        self._window: deque[float] = deque()
        self._made = self._answered = 0
        self._life = secrets.token_hex(4)  # ids of two lives without a ledger must never look alike
        for record in ledger.load() if ledger else ():
            self._recall(record)

    def request_id(self) -> str:
        """Return a new request id."""
        self._answered += 1
        return f"req_{self._life}{self._answered:08d}"

    # requests ---------------------------------------------------------------------------------------------------------

    def at_head(self, method: str, target: str) -> Fault | None:
        """Return the fault that strikes before the body is read, if any; such a request counts, but reaches nothing."""
        fault = self.rules.at_head(method, _path(target)) if len(self.rules) else None
        if fault is not None:
            self._count(method, _path(target), 0)
            self._reach_out(fault)
        return fault

    def handle(self, call: Call) -> Answer:
        """Answer one request, and book it if it is a paid one that is accepted."""
        now = self.now()
        path = _path(call.target)
        query = dict(parse_qsl(urlsplit(call.target).query, keep_blank_values=True))
        if path.startswith("/_test/"):
            return self._control(call, path)
        body = _json_object(call.body)
        fault = NONE
        if len(self.rules):
            text = objects.prompt_text(body) if body else ""
            fault = self.rules.at_end(call.method, path, body, text) or NONE
        self._count(call.method, path, len(call.body))
        refused = False
        if fault.carried_out:
            try:
                answer = self._route(call, path, query, body, fault, now)
            except _Refusal as refusal:
                answer, refused = self._refused(refusal, path), True
        else:
            answer = Answer(lambda: b"")
        answer.headers.update(self._limit_headers(now) if call.method == "POST" else {})
        if not refused:
            self._disturb(answer, fault, path, now)
            self._reach_out(fault)
        return answer

    def _disturb(self, answer: Answer, fault: Fault, path: str, now: float) -> None:
        answer.fault = fault
        answer.due = max(answer.due, now) + fault.latency
        answer.headers.update(fault.answer_headers(now))
        if not fault.replaces_answer:
            return
        answer.status = fault.http_status
        answer.content_type = fault.content_type
        if (body := fault.answer_body()) is not None:
            if path == "/v1/messages" and fault.body is None:
                body = _anthropic_error(fault.http_status, json.loads(body)["error"]["message"])
            answer.render = lambda: body
            answer.due = now + fault.latency

    def _reach_out(self, fault: Fault) -> None:
        if fault.touch:
            with open(fault.touch, "ab"):
                os.utime(fault.touch)
        pid = fault.kill
        try:
            if fault.kill_pid_file:
                with open(fault.kill_pid_file, encoding="ascii") as file:
                    pid = int(file.read())
            if pid:
                os.kill(pid, getattr(signal, f"SIG{fault.signal}"))
        except (OSError, ValueError) as error:
            self.problems.append(f"could not signal {pid or fault.kill_pid_file}: {error}")

    def _refused(self, refusal: _Refusal, path: str) -> Answer:
        if path == "/v1/messages":
            body = _anthropic_error(refusal.status, refusal.message)
        else:
            body = error_body(refusal.kind, refusal.code, refusal.param, refusal.message)
        return Answer(lambda: body, refusal.status, headers=refusal.headers)

    def _route(
        self, call: Call, path: str, query: Mapping[str, str], body: dict[str, Any] | None, fault: Fault, now: float
    ) -> Answer:
        self._check_key(call)
        match (call.method, *path.strip("/").split("/")):
            case ("POST", "v1", "responses"):
                return self._create_response(call, _needed(body), fault, now)
            case ("POST", "v1", "chat", "completions"):
                return self._create_completion(call, _needed(body), fault, now)
            case ("POST", "v1", "messages"):
                return self._create_message(call, _needed(body), fault, now)
            case ("GET", "v1", "responses", name):
                run = self._stored(name, "responses", "Response", fault)
                return _say(lambda: objects.response_object(run, self.now()))
            case ("POST", "v1", "responses", name, "cancel"):
                return self._cancel(self._stored(name, "responses", "Response", fault), now)
            case ("DELETE", "v1", "responses", name):
                self._delete(self._stored(name, "responses", "Response", fault))
                return _say(lambda: {"id": name, "object": "response", "deleted": True})
            case ("POST", "v1", "conversations"):
                return self._create_conversation(body or {}, now)
            case ("GET", "v1", "conversations", name):
                found = self._conversation(name)
                return _say(lambda: _conversation_object(found))
            case ("GET", "v1", "conversations", name, "items"):
                items = self._items(self._conversation(name), now) if not fault.absent else []
                return _say(lambda: objects.listing(items, query, newest_first=True))
            case ("DELETE", "v1", "conversations", name):
                self._forget(self._conversation(name))
                return _say(lambda: {"id": name, "object": "conversation.deleted", "deleted": True})
            case ("GET", "v1", "chat", "completions"):
                rows = self._completions(query, now) if not fault.absent else []
                return _say(lambda: objects.listing(rows, query, newest_first=False))
            case ("GET", "v1", "chat", "completions", name):
                run = self._stored(name, "chat", "Chat completion", fault)
                return _say(lambda: objects.completion_object(run))
            case ("DELETE", "v1", "chat", "completions", name):
                self._delete(self._stored(name, "chat", "Chat completion", fault))
                return _say(lambda: {"id": name, "object": "chat.completion.deleted", "deleted": True})
            case ("GET", "v1", "models"):
                cards = [_model_object(name, card) for name, card in self._models.items()]
                return _say(lambda: {"object": "list", "data": cards})
            case ("GET", "v1", "models", name):
                card = self._model(name)
                return _say(lambda: _model_object(name, card))
        raise _Refusal(404, "invalid_request_error", None, None, f"Invalid URL ({call.method} {path})")

    def _check_key(self, call: Call) -> None:
        if not self._key:
            return
        bearer = call.headers.get("authorization", "").removeprefix("Bearer ")
        given = bearer or call.headers.get("x-api-key") or call.headers.get("api-key", "")
        if not given:
            raise _Refusal(401, "invalid_request_error", None, None, "You didn't provide an API key.")
        if given != self._key:
            _refuse("bad_key")

    # paid calls -------------------------------------------------------------------------------------------------------

    def _create_response(self, call: Call, body: dict[str, Any], fault: Fault, now: float) -> Answer:
        self._check_common(body, now, "max_output_tokens")
        background, store = bool(body.get("background")), body.get("store") is not False
        if background and not store:
            _invalid("Background mode requires 'store' to be true.", "background")
        given = body.get("conversation")
        name = given.get("id", "") if isinstance(given, dict) else given or ""
        if not isinstance(body.get("input"), str | list) and not name:
            _invalid("Missing required parameter: 'input'.", "input", "missing_required_parameter")
        if isinstance(body.get("input"), list) and not all(isinstance(item, dict) for item in body["input"]):
            _invalid("Invalid type for 'input': expected objects.", "input", "invalid_type")
        conversation = self._conversation(str(name)) if name else None
        if conversation and not fault.unlocked and any(not run.finished(now) for run in conversation.runs):
            _invalid(
                "Another process is currently operating on this conversation. Please retry in a few seconds.",
                None,
                "conversation_locked",
            )
        text = body.get("text")
        form = text.get("format") if isinstance(text, dict) else None
        run = self._accept(call, body, "responses", form, form, fault, now)
        run.background, run.store = background, store
        if conversation:
            run.conversation = conversation.id
            conversation.runs.append(run)
        self._book(call, run, fault, now)
        due = now if background else _due(run)
        return _say(lambda: objects.response_object(run, self.now(), queued=background), due)

    def _create_completion(self, call: Call, body: dict[str, Any], fault: Fault, now: float) -> Answer:
        self._check_common(body, now, "max_completion_tokens")
        if not isinstance(body.get("messages"), list) or not body["messages"]:
            _invalid("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
        if self._model(str(body["model"])).reasoning and "max_tokens" in body:
            _unsupported("max_tokens", " Use 'max_completion_tokens' instead.")
        form = body.get("response_format")
        schema_of = form.get("json_schema") if isinstance(form, dict) else None
        run = self._accept(call, body, "chat", form, schema_of, fault, now)
        run.store = body.get("store") is True
        return self._in_foreground(call, run, fault, now, objects.completion_object)

    def _create_message(self, call: Call, body: dict[str, Any], fault: Fault, now: float) -> Answer:
        self._check_common(body, now, "max_tokens")
        if not isinstance(body.get("max_tokens"), int):
            _invalid("max_tokens: Field required")
        if not isinstance(body.get("messages"), list) or not body["messages"]:
            _invalid("messages: Field required")
        config = body.get("output_config")
        form = config.get("format") if isinstance(config, dict) else None
        run = self._accept(call, body, "messages", form, form, fault, now)
        return self._in_foreground(call, run, fault, now, objects.message_object)

    def _in_foreground(
        self, call: Call, run: Run, fault: Fault, now: float, render: Callable[[Run], dict[str, Any]]
    ) -> Answer:
        self._book(call, run, fault, now)
        if run.outcome in ("failed", "cancelled"):  # these protocols have no such end: the call fails, billed or not
            body = fault.answer_body() or error_body("server_error", None, None, "The model failed.")
            return Answer(lambda: body, 500, _due(run))
        return _say(lambda: render(run), _due(run))

    def _check_common(self, body: dict[str, Any], now: float, limit: str) -> None:
        self._rate_limit(now)
        if not isinstance(body.get("model"), str):
            _invalid("Missing required parameter: 'model'.", "model", "missing_required_parameter")
        if body.get("stream"):
            _invalid("Streaming is not simulated by this server.", "stream", "unsupported_value")
        card = self._model(body["model"])
        for name in ("temperature", "top_p"):
            if card.reasoning and body.get(name) is not None:
                _unsupported(name)
        _check_metadata(body.get("metadata"))
        least = 16 if limit == "max_output_tokens" else 1
        value = body.get(limit)
        if value is not None and (not isinstance(value, int) or value < least):
            _invalid(
                f"Invalid '{limit}': integer below minimum value. Expected a value >= {least}, but got {value!r}.",
                limit,
                "integer_below_min_value",
            )

    def _accept(
        self, call: Call, body: dict[str, Any], wire: str, form: Any, schema_of: Any, fault: Fault, now: float
    ) -> Run:
        text = self._answer_text(form, schema_of, fault)
        metadata = body.get("metadata") or {}
        self._made += 1
        prefix = {"responses": "resp", "chat": "chatcmpl", "messages": "msg"}[wire]
        last = hashlib.sha256(call.body).hexdigest()[:16]
        run_for = self.latency if fault.run is None else fault.run
        return Run(
            id=f"{prefix}_{self._made:06d}{self._life}{last}",
            wire=wire,
            model=body["model"],
            reported=fault.model or self._model(body["model"]).snapshot or body["model"],
            created_at=now,
            done_at=None if run_for == inf else now + run_for,
            outcome=objects.natural_outcome(fault.outcome, text, body),
            text=text,
            prompt_bytes=len(objects.prompt_text(body).encode()),
            asked={name: value for name, value in body.items() if name not in ("messages", "metadata")},
            metadata=metadata,
            lag=fault.lag,
            usage=fault.usage,
        )

    def _answer_text(self, form: Any, schema_of: Any, fault: Fault) -> str:
        kind = form.get("type") if isinstance(form, dict) else None
        schema = None
        if kind == "json_schema":
            schema = schema_of.get("schema") if isinstance(schema_of, dict) else None
            if not isinstance(schema, dict):
                _invalid("Missing required parameter: the format's 'schema'.", "schema", "missing_required_parameter")
            problem = strict_problem(schema) if schema_of.get("strict") else ""
            if problem:
                name = schema_of.get("name", "")
                _invalid(f"Invalid schema for response_format '{name}': {problem}", "schema", "invalid_json_schema")
        if fault.answer is not None:
            return json.dumps(fault.answer)
        return fault.text if fault.text is not None else answer_text(schema, as_json=kind == "json_object")

    def _book(self, call: Call, run: Run, fault: Fault, now: float) -> None:
        named = run.metadata.get("call") or run.metadata.get("user_id") or ""
        bill = Bill(
            n=len(self.bills) + 1,
            wire=run.wire,
            id=run.id,
            model=run.model,
            call=named,
            body_sha256=hashlib.sha256(call.body).hexdigest(),
            body_bytes=len(call.body),
            at=now,
            status=None if fault.silent else fault.http_status,
        )
        if self._ledger:
            self._ledger.write({"record": "run", "bill": asdict(bill), "run": run.to_json()})
        self.bills.append(bill)
        self._runs[run.id] = run
        self._bodies[bill.n] = call.body
        self._bodies.pop(bill.n - _BODIES_KEPT, None)

    # what is stored ---------------------------------------------------------------------------------------------------

    def _model(self, name: str) -> ModelCard:
        if name not in self._models:
            _refuse("model_not_found", f"The model `{name}` does not exist or you do not have access to it.")
        return self._models[name]

    def _stored(self, name: str, wire: str, noun: str, fault: Fault) -> Run:
        run = self._runs.get(name)
        visible = run is not None and run.wire == wire and run.store and not run.deleted and not fault.absent
        if run is None or not visible or (wire == "chat" and not run.shown(self.now())):
            raise _Refusal(404, "invalid_request_error", None, None, f"{noun} with id '{name}' not found.")
        return run

    def _conversation(self, name: str) -> _Conversation:
        if name not in self._conversations:
            raise _Refusal(404, "invalid_request_error", None, None, f"Conversation with id '{name}' not found.")
        return self._conversations[name]

    def _create_conversation(self, body: dict[str, Any], now: float) -> Answer:
        _check_metadata(body.get("metadata"))
        self._made += 1
        made = _Conversation(f"conv_{self._made:06d}{self._life}", now, body.get("metadata") or {}, [])
        made.items = objects.input_messages(made.id, body.get("items"))
        self._conversations[made.id] = made
        self._record(
            {"record": "conversation", "id": made.id, "created_at": now, "metadata": made.metadata, "items": made.items}
        )
        return _say(lambda: _conversation_object(made))

    def _items(self, conversation: _Conversation, now: float) -> list[dict[str, Any]]:
        items = list(conversation.items)
        for run in conversation.runs:  # a response's items appear when it ends, and only if it ended with an answer
            if run.shown(now) and run.state(now) in ("completed", "incomplete"):
                items += objects.input_messages(run.id, run.asked.get("input"))
                items += [objects.output_message(run)] if run.said() else []
        return items

    def _completions(self, query: Mapping[str, str], now: float) -> list[dict[str, Any]]:
        wanted = {name[9:-1]: value for name, value in query.items() if re.fullmatch(r"metadata\[.+\]", name)}
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

    def _cancel(self, run: Run, now: float) -> Answer:
        if not run.background:
            _invalid("Cannot cancel a synchronous response.")
        if not run.finished(now):
            run.cancelled = True
            self._record({"record": "change", "id": run.id, "cancelled": True})
        return _say(lambda: objects.response_object(run, self.now()))

    def _delete(self, run: Run) -> None:
        run.deleted = True
        self._record({"record": "change", "id": run.id, "deleted": True})

    def _forget(self, conversation: _Conversation) -> None:
        del self._conversations[conversation.id]
        self._record({"record": "forget", "id": conversation.id})

    def _record(self, record: dict[str, Any]) -> None:
        if self._ledger:
            self._ledger.write(record)

    def _recall(self, record: dict[str, Any]) -> None:
        match record["record"]:
            case "run":
                run = Run(**record["run"])
                self.bills.append(Bill(**record["bill"]))
                self._runs[run.id] = run
                if run.conversation in self._conversations:
                    self._conversations[run.conversation].runs.append(run)
            case "conversation":
                self._conversations[record["id"]] = _Conversation(
                    record["id"], record["created_at"], record["metadata"], record["items"]
                )
            case "change":
                for name in record.keys() - {"record", "id"}:
                    setattr(self._runs[record["id"]], name, record[name])
            case "forget":
                self._conversations.pop(record["id"], None)

    # limits -----------------------------------------------------------------------------------------------------------

    def _rate_limit(self, now: float) -> None:
        if self._rpm is None:
            return
        while self._window and self._window[0] <= now - 60:
            self._window.popleft()
        self._window.append(now)  # a refused request counts against the limit too
        if len(self._window) > self._rpm:
            status, kind, code, param, message = ERRORS["rate_limited"]
            refusal = _Refusal(status, kind, code, param, message)
            refusal.headers["retry-after"] = str(max(1, int(self._window[0] + 60 - now)))
            raise refusal

    def _limit_headers(self, now: float) -> dict[str, str]:
        limit = self._rpm or 10_000
        left = max(0, limit - max(1, len(self._window)))
        reset = 60 / limit if left or not self._window else max(0.0, self._window[0] + 60 - now)
        return {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": duration(reset),
            "x-ratelimit-limit-tokens": "30000000",
            "x-ratelimit-remaining-tokens": "29999000",
            "x-ratelimit-reset-tokens": "2ms",
        }

    # control ----------------------------------------------------------------------------------------------------------

    def script(self, rules: Any) -> None:
        """Replace the rules by these (JSON data, or `Rules`). Raises `BadRule`."""
        self.rules = rules if isinstance(rules, Rules) else read_rules(rules)

    def release(self) -> None:
        """End every call that still runs, and send every answer that is held for ever."""
        now = self.now()
        for run in self._runs.values():
            if not run.finished(now):
                run.done_at = now
                self._record({"record": "change", "id": run.id, "done_at": now})
        self.released()

    def reset(self) -> None:
        """Forget everything: bills, calls, conversations, counts and rules."""
        self.bills.clear()
        self._runs.clear()
        self._conversations.clear()
        self._bodies.clear()
        self._log.clear()
        self._window.clear()
        self.requests.clear()
        self.problems.clear()
        self.rules = Rules()
        if self._ledger:
            self._ledger.clear()

    def body(self, n: int) -> bytes | None:
        """Return the body of the n-th bill as it was received, None if it is not kept (any more)."""
        return self._bodies.get(n)

    def state(self) -> dict[str, Any]:
        """Return everything that a test may want to count, as JSON data."""
        now = self.now()
        return {
            "bills": [asdict(bill) | {"state": self._runs[bill.id].state(now)} for bill in self.bills],
            "bills_by_call": dict(Counter(bill.call for bill in self.bills)),
            "requests": dict(self.requests),
            "requests_total": self.requests.total(),
            "log": list(self._log),
            "running": sum(not run.finished(now) for run in self._runs.values()),
            "conversations": len(self._conversations),
            "rules": self.rules.state(),
            "problems": list(self.problems),
        }

    def _control(self, call: Call, path: str) -> Answer:
        # a rule can signal processes and write files: no web page and no other host may set one
        host = call.headers.get("host", "").rsplit(":", 1)[0]
        if "origin" in call.headers or host not in ("127.0.0.1", "localhost", "[::1]") or not _is_loopback(call.peer):
            return _say(lambda: {"error": "for this machine only"}, status=403)
        match (call.method, *path.strip("/").split("/")):
            case ("GET", "_test", "state"):
                return _say(self.state)
            case ("GET", "_test", "bills", number, "body") if number.isdecimal():
                body = self.body(int(number))
                return Answer(lambda: body or b"", 200 if body is not None else 404)
            case ("POST", "_test", "faults"):
                try:
                    self.script(json.loads(call.body or b"[]"))
                except (ValueError, RecursionError) as error:
                    said = str(error)
                    return _say(lambda: {"error": said}, status=400)
            case ("POST", "_test", "release"):
                self.release()
            case ("POST", "_test", "reset"):
                self.reset()
            case _:
                return _say(lambda: {"error": "no such control"}, status=404)
        return _say(lambda: {"ok": True})

    def _count(self, method: str, path: str, size: int) -> None:
        self.requests[f"{method} {_AN_ID.sub('{id}', path)}"] += 1
        self._log.append({"method": method, "path": path, "bytes": size, "at": self.now()})


def duration(seconds: float) -> str:
    """Write a time span as the rate-limit headers do: `120ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:.3g}s"


def _path(target: str) -> str:
    path = target.partition("?")[0].removeprefix("/openai")  # Azure's prefix
    return path.rstrip("/") or "/"


def _due(run: Run) -> float:
    return inf if run.done_at is None else run.done_at


def _say(make: Callable[[], Any], due: float = 0.0, *, status: int = 200) -> Answer:
    return Answer(lambda: dump(make()), status, due)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _needed(body: dict[str, Any] | None) -> dict[str, Any]:
    if body is None:
        _invalid("We could not parse the JSON body of your request.")
    return body


def _unsupported(name: str, more: str = "") -> NoReturn:
    _invalid(f"Unsupported parameter: '{name}' is not supported with this model.{more}", name, "unsupported_parameter")


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or len(metadata) > 16:
        _invalid("Invalid 'metadata': an object with at most 16 properties is expected.", "metadata")
    for name, value in metadata.items():
        if not isinstance(value, str) or len(value) > 512 or len(name) > 64:
            _invalid(
                f"Invalid 'metadata.{name[:64]}': keys have at most 64 characters, values are strings of at most 512.",
                f"metadata.{name[:64]}",
            )


def _conversation_object(one: _Conversation) -> dict[str, Any]:
    return {"id": one.id, "object": "conversation", "created_at": int(one.created_at), "metadata": one.metadata}


def _model_object(name: str, card: ModelCard) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 1715367049,
        "owned_by": "system",
        "shutdown_date": card.shutdown_date,
    }


_ANTHROPIC_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def _anthropic_error(status: int, message: str) -> bytes:
    kind = _ANTHROPIC_KINDS.get(status, "api_error")
    return dump({"type": "error", "error": {"type": kind, "message": message}, "request_id": None})


def _is_loopback(peer: str) -> bool:
    return peer.startswith("127.") or peer in ("::1", "::ffff:127.0.0.1")


__all__ = ["MODELS", "Answer", "BadRule", "Bill", "Call", "ModelCard", "Provider", "duration"]
