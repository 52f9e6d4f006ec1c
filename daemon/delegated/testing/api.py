"""One HTTP request in, one answer out: routes, limits, the rules by which things go wrong, and the tests' controls."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Any, Final
from urllib.parse import parse_qsl

from delegated.testing import objects
from delegated.testing.checks import (
    ModelCard,
    Refusal,
    anthropic_error,
    check_paid,
    check_version,
    invalid,
    missing,
    named,
    read_object,
)
from delegated.testing.faults import NONE, Fault
from delegated.testing.objects import Run, dump
from delegated.testing.provider import Provider
from delegated.testing.rules import Rules, read_rules

_LOG_KEPT: Final = 10_000
_AN_ID: Final = re.compile(r"(resp|conv|chatcmpl|msg)_[^/]+")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


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


class Api:
    """The provider's front desk. Knows no sockets, and never waits."""

    def __init__(
        self,
        provider: Provider,
        *,
        models: Mapping[str, ModelCard],
        now: Callable[[], float],
        key: str = "",
        rpm: int | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.now = now
        self.rules = rules or Rules()
        self.released: Callable[[], None] = lambda: None
        self._provider = provider
        self._models = models
        self._key = key
        self._rpm = rpm
        self._window: deque[float] = deque()
        self._requests: Counter[str] = Counter()
        self._log: deque[dict[str, Any]] = deque(maxlen=_LOG_KEPT)
        self._problems: list[str] = []
        self._answered = 0

    def request_id(self) -> str:
        """Return the next request id."""
        self._answered += 1
        return f"req_{self._answered:012d}"

    def at_head(self, method: str, target: str) -> Fault | None:
        """Return the fault that strikes before the body is read, if any; such a request counts, but reaches nothing."""
        path = _path(target)
        fault = self.rules.at_head(method, path)
        if fault is not None:
            self._count(method, path, 0)
            self._reach_out(fault)
        return fault

    def handle(self, call: Call) -> Answer:
        """Answer one request; a paid one that is accepted is billed when this returns."""
        path = _path(call.target)
        if path.startswith("/_test/"):
            return self._control(call, path)
        now, body = self.now(), read_object(call.body)
        self._count(call.method, path, len(call.body))
        fault = self.rules.at_end(call.method, path, body) or NONE
        try:
            answer = self._route(call, path, body, fault, now) if fault.carried_out else Answer(lambda: b"")
        except Refusal as refusal:
            said = refusal.body(anthropic=_anthropic(call, path))
            answer, fault = Answer(lambda: said, refusal.status, headers=refusal.headers), NONE
        if call.method == "POST":
            answer.headers.update(self._anthropic_limits(now) if path == "/v1/messages" else self._limits(now))
        self._reach_out(fault)
        return _disturbed(answer, fault, now, anthropic=_anthropic(call, path))

    # routes -----------------------------------------------------------------------------------------------------------

    def _route(self, call: Call, path: str, body: dict[str, Any] | None, fault: Fault, now: float) -> Answer:
        self._check_key(call)
        match (call.method, *path.strip("/").split("/")):
            case ("POST", "v1", "responses"):
                run = self._paid("responses", body, call, fault, now)
                due = now if run.background else _due(run)
                return _say(lambda: objects.response_object(run, self.now(), queued=run.background), due)
            case ("POST", "v1", "chat", "completions"):
                return self._at_once(self._paid("chat", body, call, fault, now), objects.completion_object)
            case ("POST", "v1", "messages"):
                check_version(call.headers.get("anthropic-version"))
                return self._at_once(self._paid("messages", body, call, fault, now), objects.message_object)
            case (method, "v1", "responses" | "conversations" | "chat", *_):
                query = dict(parse_qsl(call.target.partition("?")[2], keep_blank_values=True))
                return self._stored(method, path, query, body or {}, fault, now)
            case ("GET", "v1", "models"):
                return _say(lambda: {"object": "list", "data": [_model(*one) for one in self._models.items()]})
            case ("GET", "v1", "models", name) if name in self._models:
                make = objects.model_info if _anthropic(call, path) else objects.model_object
                return _say(lambda: make(name, self._models[name].shutdown_date))
            case ("GET", "v1", "models", name):
                raise named("model_not_found", f"The model '{name}' does not exist")
        raise _no_such_url(call.method, path)

    def _stored(
        self, method: str, path: str, query: Mapping[str, str], body: dict[str, Any], fault: Fault, now: float
    ) -> Answer:
        provider = self._provider
        match (method, *path.removeprefix("/v1/").replace("chat/completions", "chat").split("/")):
            case ("GET" | "DELETE", "responses" | "chat", name) if fault.absent:
                raise missing("Response", name)
            case ("GET", "responses", name):
                run = provider.run("responses", name, now)
                return _say(lambda: objects.response_object(run, self.now()))
            case ("POST", "responses", name, "cancel"):
                run = provider.run("responses", name, now)
                provider.cancel(run, now)
                return _say(lambda: objects.response_object(run, self.now()))
            case ("DELETE", "responses" | "chat" as wire, name):
                provider.delete(provider.run(wire, name, now))
                noun = "response" if wire == "responses" else "chat.completion.deleted"
                return _say(lambda: {"id": name, "object": noun, "deleted": True})
            case ("GET", "chat"):
                rows = [] if fault.absent else provider.completions(query, now)
                return _say(lambda: objects.listing(rows, query, newest_first=False))
            case ("GET", "chat", name):
                run = provider.run("chat", name, now)
                return _say(lambda: objects.completion_object(run))
            case ("POST", "conversations"):
                made = provider.new_thread(body, now)
                return _say(lambda: objects.conversation_object(made.id, made.created_at, made.metadata))
            case ("GET", "conversations", name):
                found = provider.thread(name)
                return _say(lambda: objects.conversation_object(found.id, found.created_at, found.metadata))
            case ("GET", "conversations", name, "items"):
                items = provider.items(provider.thread(name), now)
                return _say(lambda: objects.listing([] if fault.absent else items, query, newest_first=True))
            case ("DELETE", "conversations", name):
                provider.forget(provider.thread(name))
                return _say(lambda: {"id": name, "object": "conversation.deleted", "deleted": True})
        raise _no_such_url(method, path)

    def _paid(self, wire: str, body: dict[str, Any] | None, call: Call, fault: Fault, now: float) -> Run:
        self._check_rate(now)
        if body is None:
            invalid("We could not parse the JSON body of your request.")
        check_paid(wire, body, self._models)
        return self._provider.accept(wire, body, call.body, fault, now)

    def _at_once(self, run: Run, render: Callable[[Run], dict[str, Any]]) -> Answer:
        if run.outcome in ("failed", "cancelled"):  # these protocols have no such end: the call fails, billed or not
            body = named("server_error").body(anthropic=run.wire == "messages")
            return Answer(lambda: body, 500, _due(run))
        return _say(lambda: render(run), _due(run))

    def _check_key(self, call: Call) -> None:
        if not self._key:
            return
        bearer = call.headers.get("authorization", "").removeprefix("Bearer ")
        given = bearer or call.headers.get("x-api-key") or call.headers.get("api-key", "")
        if not given:
            raise Refusal(401, "invalid_request_error", None, None, "You didn't provide an API key.")
        if given != self._key:
            raise named("bad_key")

    # limits -----------------------------------------------------------------------------------------------------------

    def _check_rate(self, now: float) -> None:
        if self._rpm is None:
            return
        while self._window and self._window[0] <= now - 60:
            self._window.popleft()
        self._window.append(now)  # a refused request counts against the limit too
        if len(self._window) > self._rpm:
            refusal = named("rate_limited")
            refusal.headers["retry-after"] = str(max(1, int(self._window[0] + 60 - now)))
            raise refusal

    def _limits(self, now: float) -> dict[str, str]:
        limit = self._rpm or 10_000
        left = max(0, limit - max(1, len(self._window)))
        reset_s = 60 / limit if left or not self._window else max(0.0, self._window[0] + 60 - now)
        return {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": duration(reset_s),
            "x-ratelimit-limit-tokens": "30000000",
            "x-ratelimit-remaining-tokens": "29999000",
            "x-ratelimit-reset-tokens": "2ms",
        }

    def _anthropic_limits(self, now: float) -> dict[str, str]:
        said = self._limits(now)
        reset = datetime.fromtimestamp(now + (60.0 if self._window else 0.0), UTC)
        return {
            "anthropic-ratelimit-requests-limit": said["x-ratelimit-limit-requests"],
            "anthropic-ratelimit-requests-remaining": said["x-ratelimit-remaining-requests"],
            "anthropic-ratelimit-requests-reset": reset.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    # for tests --------------------------------------------------------------------------------------------------------

    def script(self, rules: Any) -> None:
        """Replace the rules by these (JSON data, or `Rules`). Raises `BadRule`."""
        self.rules = rules if isinstance(rules, Rules) else read_rules(rules)

    def release(self) -> None:
        """End every call that still runs, and send every answer that is held for ever."""
        self._provider.release(self.now())
        self.released()

    def reset(self) -> None:
        """Forget everything: bills, calls, conversations, counts and rules."""
        self._provider.reset()
        for memory in (self._window, self._requests, self._log, self._problems):
            memory.clear()
        self.rules = Rules()

    def state(self) -> dict[str, Any]:
        """Return everything that a test may want to count, as JSON data."""
        return {
            **self._provider.state(self.now()),
            "requests": dict(self._requests),
            "requests_total": self._requests.total(),
            "log": list(self._log),
            "rules": self.rules.state(),
            "problems": list(self._problems),
        }

    def _control(self, call: Call, path: str) -> Answer:
        # a rule can signal processes and write files: no web page and no other host may set one
        host = call.headers.get("host", "").rsplit(":", 1)[0]
        if "origin" in call.headers or host not in _LOOPBACK or not _is_loopback(call.peer):
            return _say(lambda: {"error": "for this machine only"}, status=403)
        match (call.method, *path.strip("/").split("/")):
            case ("GET", "_test", "state"):
                return _say(self.state)
            case ("GET", "_test", "bills", number, "body") if number.isdecimal():
                body = self._provider.body(int(number))
                return Answer(lambda: body or b"", 404 if body is None else 200)
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
        self._requests[f"{method} {_AN_ID.sub('{id}', path)}"] += 1
        self._log.append({"method": method, "path": path, "bytes": size, "at": self.now()})

    def _reach_out(self, fault: Fault) -> None:
        pid: int | str = fault.kill or fault.kill_pid_file
        try:
            if fault.touch:
                with open(fault.touch, "ab"):
                    os.utime(fault.touch)
            if fault.kill_pid_file:
                with open(fault.kill_pid_file, encoding="ascii") as file:
                    pid = int(file.read())
            if pid:
                os.kill(int(pid), getattr(signal, f"SIG{fault.signal}"))
        except (OSError, ValueError) as error:
            self._problems.append(f"could not touch {fault.touch!r} or signal {pid!r}: {error}")


def _anthropic(call: Call, path: str) -> bool:
    """Say whether a request speaks Anthropic's protocol, so that its answer, and an error, has that form."""
    return path == "/v1/messages" or "anthropic-version" in call.headers


def _disturbed(answer: Answer, fault: Fault, now: float, *, anthropic: bool) -> Answer:
    answer.fault = fault
    answer.due = max(answer.due, now) + fault.latency
    answer.headers.update(fault.answer_headers(now))
    if not fault.replaces_answer:
        return answer
    answer.status = fault.http_status
    answer.content_type = fault.content_type
    body = fault.answer_body()
    if body is not None:
        if anthropic and fault.body is None:
            body = anthropic_error(fault.http_status, json.loads(body)["error"]["message"])
        answer.render = lambda: body
        answer.due = now + fault.latency
    return answer


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


def _model(name: str, card: ModelCard) -> dict[str, Any]:
    return objects.model_object(name, card.shutdown_date)


def _no_such_url(method: str, path: str) -> Refusal:
    return Refusal(404, "invalid_request_error", None, None, f"Invalid URL ({method} {path})")


def _is_loopback(peer: str) -> bool:
    return peer.startswith("127.") or peer in ("::1", "::ffff:127.0.0.1")
