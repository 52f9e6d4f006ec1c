"""Which request goes wrong: rules read from JSON, counted as requests match them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from math import inf
from typing import Any, Final

from delegated.testing.faults import ERRORS, OUTCOMES, Fault
from delegated.testing.objects import prompt_text


class BadRule(ValueError):
    """A rule that cannot be used; the message says which key, and what would be right."""


@dataclass(slots=True)
class Rule:
    """A fault, the requests that it is for, and how many of them it has seen and struck.

    It strikes the `at`-th matching request (from 1) and the `times - 1` after it.
    """

    fault: Fault
    match: Mapping[str, Any]
    at: int = 1
    times: float = 1
    seen: int = 0
    struck: int = 0

    def takes(self, method: str, path: str, body: Mapping[str, Any] | None, text: str) -> bool:
        """Count a request that matches; True when the fault strikes it."""
        if not self._matches(method, path, body, text):
            return False
        self.seen += 1
        strikes = self.at <= self.seen < self.at + self.times
        self.struck += strikes
        return strikes

    def _matches(self, method: str, path: str, body: Mapping[str, Any] | None, text: str) -> bool:
        match = self.match
        if match.get("method", method) != method or not fnmatchcase(path, match.get("path", "*")):
            return False
        if "contains" in match and match["contains"] not in text:
            return False
        return all(_at_path(body, dotted) == wanted for dotted, wanted in match.get("body", {}).items())


def _at_path(body: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        body = body.get(name) if isinstance(body, Mapping) else None
    return body


class Rules:
    """The rules in force. The first that strikes decides; every rule counts the requests that match it."""

    def __init__(self, rules: list[Rule] | None = None) -> None:
        self._rules = rules or []

    def at_head(self, method: str, path: str) -> Fault | None:
        """Return the fault that strikes before the body is read, if any."""
        return self._first(True, method, path, None, "")

    def at_end(self, method: str, path: str, body: Mapping[str, Any] | None) -> Fault | None:
        """Return the fault that strikes once the whole request is there, if any."""
        return self._first(False, method, path, body, prompt_text(body) if body and self._rules else "")

    def _first(self, head: bool, method: str, path: str, body: Mapping[str, Any] | None, text: str) -> Fault | None:
        struck = [
            rule.fault for rule in self._rules if rule.fault.at_head is head and rule.takes(method, path, body, text)
        ]
        return struck[0] if struck else None

    def state(self) -> list[dict[str, Any]]:
        """Return what each rule has seen and struck, in the order of the rules."""
        return [{"match": dict(rule.match), "seen": rule.seen, "struck": rule.struck} for rule in self._rules]


def read_rules(data: Any) -> Rules:
    """Read rules from JSON data: a list of rules, or an object with the list under `rules`. Raises `BadRule`."""
    if isinstance(data, Mapping) and "rules" in data:
        data = data["rules"]
    if isinstance(data, Mapping):
        data = [data]
    if not isinstance(data, list):
        raise BadRule("rules must be a list of objects")
    return Rules([_rule(item, f"rule {number}") for number, item in enumerate(data, 1)])


_RULE_KEYS: Final = {"match", "at", "times", "do"}
_MATCH_KEYS: Final = {"method", "path", "contains", "body"}
_DO_KEYS: Final = {one.name for one in fields(Fault)}
_SECONDS: Final = ("retry_after", "retry_after_date", "latency", "lag", "run")
#: What each plain key of `do` must be, in words and as a test.
_FORMS: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    **dict.fromkeys(_SECONDS, ('a number of seconds, or "forever"', lambda value: _is_number(value) and value >= 0)),
    **dict.fromkeys(("bill", "absent", "unlocked"), ("true or false", lambda value: isinstance(value, bool))),
    **dict.fromkeys(
        ("text", "model", "kill_pid_file", "touch", "content_type"), ("a text", lambda v: isinstance(v, str))
    ),
    **dict.fromkeys(("cut", "kill"), ("a whole number", lambda value: _is_number(value) and value == int(value) >= 0)),
    "status": ("an HTTP status from 200", lambda value: isinstance(value, int) and 200 <= value <= 599),
    "headers": (
        "an object of texts",
        lambda value: isinstance(value, Mapping) and all(isinstance(one, str) for one in value.values()),
    ),
    "error": (f"one of {', '.join(ERRORS)}", lambda value: value in ERRORS),
    "outcome": (f"one of {', '.join(OUTCOMES)}", lambda value: value in OUTCOMES),
    "reset": (
        "before_body, after_body, mid_answer or a number of bytes of the body",
        lambda value: value in ("before_body", "after_body", "mid_answer") or (_is_number(value) and value >= 1),
    ),
    "stall": ("silent or headers", lambda value: value in ("silent", "headers")),
    "signal": ("the name of a signal without SIG", lambda value: hasattr(signal, f"SIG{value}")),
}


def _rule(item: Any, where: str) -> Rule:
    if not isinstance(item, Mapping):
        raise BadRule(f"{where}: must be an object")
    _only(item, _RULE_KEYS, where)
    match, do = item.get("match", {}), item.get("do")
    if not isinstance(match, Mapping) or not isinstance(do, Mapping):
        raise BadRule(f"{where}: `do` must be an object, and `match` too if it is there")
    _only(match, _MATCH_KEYS, f"{where}, match")
    fault = _fault(do, f"{where}, do")
    if fault.at_head and {"contains", "body"} & match.keys():
        raise BadRule(f"{where}: a reset before the end of the body cannot look into the body: match method and path")
    if fault.at_head and fault.bill:
        raise BadRule(f"{where}: a request whose body was not read cannot take effect: `bill` must go")
    at, times = item.get("at", 1), item.get("times", 1)
    times = inf if times == "always" else times
    if not isinstance(at, int) or at < 1 or not isinstance(times, int | float) or times < 1:
        raise BadRule(f'{where}: `at` must be a number from 1, `times` a number from 1 or "always"')
    return Rule(fault, match, at, times)


def _fault(do: Mapping[str, Any], where: str) -> Fault:
    _only(do, _DO_KEYS, where)
    values = dict(do)
    for name, value in do.items():
        if value == "forever" and name in _SECONDS:
            values[name] = value = inf
        words, fits = _FORMS.get(name, ("", lambda value: True))
        if not fits(value):
            raise BadRule(f"{where}: `{name}` is {value!r}, and must be {words}")
    return Fault(**values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _only(item: Mapping[str, Any], allowed: set[str], where: str) -> None:
    if unknown := sorted(set(item) - allowed):
        raise BadRule(f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(sorted(allowed))}")
