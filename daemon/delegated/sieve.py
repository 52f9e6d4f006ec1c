"""Where the rules find secrets in one text, in time that grows with its length and not faster.

Keywords are sought first, all at once (Aho-Corasick); only the rules whose keyword stands there are tried, by re2,
which does not backtrack. A rule that `habits` judges is tried on the lines around its keyword, once as they stand and
once with escapes read (JSON within JSON, URLs, coloured logs); any other rule on the whole text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import ahocorasick_rs
import re2

from delegated import habits, rules, vendors
from delegated.rules import Allow, Rule


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Where a secret stands. Of two that overlap, the smaller rank names the kind."""

    start: int
    end: int
    rank: int
    kind: str
    rule: str = ""


_VENDOR, _HABIT, _ADDED = 2, 3, 4  # ranks; 0 and 1 are exact values and private keys
_BEHIND: Final = 240  # bytes of the keyword's line that are looked at before it
_AHEAD: Final = 4_000  # and after it
_OVERLAP: Final = 1_200  # a keyword this close to the end of what was looked at gets a look of its own
_MAX_ONE_RULE: Final = 20_000  # secrets that one rule may find in one text
_MAX_TRIES: Final = 64  # values of one window that are looked into after they were found to be no secrets
_JUDGED: Final = 2_000  # bytes of a value that its judge sees
_REPLACED: Final = re.compile(rb"\[REDACTED:[a-z0-9-]{1,40}:[0-9a-f]{6}-[0-9]{1,9}\]")
_ESCAPE_BEFORE: Final = re.compile(
    rb"(?:\\[nrtbfv0]|%[0-9A-Fa-f]{2}|\\u00[0-9A-Fa-f]{2}|\\x[0-9A-Fa-f]{2}|\\?(?:\x1b|\\x1b|\\u001b|\\033)\[[0-9;]{0,12}m)$"
)
_ESCAPE: Final = re.compile(
    rb"\\+(?:u00(?:2[267]|3[acdef])|x(?:2[27]|3[ad]))|\\+[\"'`/]|\\+[nrt]|%(?:2[0267]|3[AaDd])"
    rb"|&(?:quot|apos|amp|#39|#34|lt|gt);|(?:\x1b|\\+x1b|\\+u001[bB]|\\+033|\\+e)\[[0-9;]{0,12}[mK]"
)
_ENTITIES: Final = {b"&quot;": b'"', b"&#34;": b'"', b"&apos;": b"'", b"&#39;": b"'", b"&lt;": b"<", b"&gt;": b">"}


_Window = tuple[int, int, int]


class Sieve:
    """A set of rules made ready: the automaton of their keywords, and each expression once it is first needed."""

    def __init__(self, given: Sequence[Rule]) -> None:
        """Build the automaton; an expression that re2 cannot compile raises ValueError when it is first needed."""
        self.rules = tuple(given)
        by_word: dict[bytes, list[int]] = {}
        for number, rule in enumerate(self.rules):
            for word in rule.keywords:
                by_word.setdefault(word.encode(), []).append(number)
        self._always = [number for number, rule in enumerate(self.rules) if not rule.keywords]
        self._of_word = list(by_word.values())
        self._words: Any = ahocorasick_rs.BytesAhoCorasick(list(by_word)) if by_word else None
        self._ready: dict[int, _Ready] = {}

    def spans(self, data: bytes, where: str = "") -> Iterator[Span]:
        """Yield the secrets in `data` (UTF-8) as spans of bytes, in no order; they may overlap.

        `where` is its path, for rules that are for certain paths.
        """
        whole: dict[int, None] = dict.fromkeys(self._always)
        near: dict[int, list[int]] = {}
        hits = self._words.find_matches_as_indexes(data.lower(), overlapping=True) if self._words else ()
        for word, start, _ in hits:
            for number in self._of_word[word]:
                if self.rules[number].look:
                    places = near.setdefault(number, [])
                    if not places or places[-1] < start:
                        places.append(start)
                else:
                    whole[number] = None
        for number in whole:
            yield from self._in_whole(self._rule(number), data, where)
        if near:
            yield from self._near(near, data, where)

    def _in_whole(self, ready: _Ready, data: bytes, where: str) -> Iterator[Span]:
        if not ready.is_for(where):
            return
        at = 0
        for _ in range(_MAX_ONE_RULE):
            match = ready.pattern.search(data, at)
            if match is None:
                return
            if ready.apart and not _apart(data, match.start()):
                at = match.start() + 1
                continue
            span = ready.secret(match)
            if span is not None and ready.accepts(data, match.span(), span, where):
                yield Span(*span, ready.rank, ready.rule.kind, ready.rule.id)
            at = max(match.end(), match.start() + 1)

    def _near(self, near: dict[int, list[int]], data: bytes, where: str) -> Iterator[Span]:
        windows: dict[int, _Window] = {}
        views: dict[int, bytes | None] = {}
        for number, places in near.items():
            ready = self._rule(number)
            done = -1
            for place in places:
                if place < done:
                    continue
                window = windows.get(place)
                if window is None:
                    window = windows[place] = _window(data, place)
                low, high, done = window
                yield from self._in_window(ready, data, low, high, None, where)
                if place not in views:
                    views[place] = _unescaped(data[low:high])
                view = views[place]
                if view is not None:
                    yield from self._in_window(ready, view, 0, len(view), low, where)

    def _in_window(
        self, ready: _Ready, data: bytes, low: int, high: int, offset_of_view: int | None, where: str
    ) -> Iterator[Span]:
        at = low
        for tries in range(_MAX_ONE_RULE):
            match = ready.pattern.search(data, at, high)
            if match is None:
                return
            span = ready.secret(match)
            inside = match.end()
            if span is not None and ready.accepts(data, match.span(), span, where):
                begin, end = span
                if offset_of_view is not None:  # the padding of the quotes is no part of the value
                    value = data[begin:end]
                    begin, end = end - len(value.lstrip()), begin + len(value.rstrip())
                shift = offset_of_view or 0
                yield Span(begin + shift, end + shift, ready.rank, ready.rule.kind, ready.rule.id)
                inside = span[1]
            elif span is not None and tries < _MAX_TRIES:
                inside = span[0]  # what is no secret may hold the name of one: `hint = "token=..."`
            at = max(inside, match.start() + 1)

    def _rule(self, number: int) -> _Ready:
        ready = self._ready.get(number)
        if ready is None:
            ready = self._ready[number] = _Ready(self.rules[number])
        return ready


class _Ready:
    """One rule with its expressions compiled."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.rank = _ADDED if rule.source else _HABIT if rule.look else _VENDOR
        self.apart = rule.regex.startswith(r"\b")
        self.pattern = compiled(rule.regex.removeprefix(r"\b"))
        if rule.group > self.pattern.groups:
            raise ValueError(f"`secretGroup` is {rule.group}, but the expression has {self.pattern.groups} groups")
        self._path = compiled(rule.path) if rule.path else None
        self._look = habits.LOOKS[rule.look] if rule.look else None
        self._allows = tuple(_ReadyAllow(allow) for allow in rule.allows)

    def is_for(self, where: str) -> bool:
        return self._path is None or self._path.search(where.encode("utf-8", "replace")) is not None

    def secret(self, match: Any) -> tuple[int, int] | None:
        if self.rule.group:
            span: tuple[int, int] = match.span(self.rule.group)
            return span if span[0] < span[1] else None
        for group in range(1, self.pattern.groups + 1):
            span = match.span(group)
            if span[0] < span[1]:
                return span
        span = match.span()
        return span if span[0] < span[1] else None

    def accepts(self, data: bytes, match: tuple[int, int], span: tuple[int, int], where: str) -> bool:
        raw = data[span[0] : min(span[1], span[0] + _JUDGED)]
        if b"[REDACTED:" in raw:
            raw = _REPLACED.sub(b"", raw)  # what was replaced before is no secret; what stands beside it may be one
            if not raw:
                return False
        value = raw.decode("utf-8", "replace")
        if self._look is not None:
            ahead = data[max(0, match[0] - 48) : match[0]].decode("utf-8", "replace")
            head = data[match[0] : span[0]].decode("utf-8", "replace")
            after = data[span[1] : span[1] + 80].decode("utf-8", "replace")
            return self._look(ahead, head, value, after)
        if not self.rule.source:
            if vendors.proven(self.rule.kind, value):
                return True
            if habits.is_placeholder_token(value):
                return False
        if self.rule.entropy and entropy(value) <= self.rule.entropy:
            return False
        return not any(allow.passes(data, match, value, where) for allow in self._allows)


class _ReadyAllow:
    def __init__(self, allow: Allow) -> None:
        self._allow = allow
        self._regexes = [compiled(each) for each in allow.regexes]
        self._paths = [compiled(each) for each in allow.paths]

    def passes(self, data: bytes, match: tuple[int, int], value: str, where: str) -> bool:
        allow = self._allow
        checks = []
        if self._regexes:
            if allow.target == "match":
                target = data[match[0] : match[1]]
            elif allow.target == "line":
                begin = data.rfind(b"\n", max(0, match[0] - _AHEAD), match[0]) + 1
                end = data.find(b"\n", match[1], match[1] + _AHEAD)
                target = data[begin or max(0, match[0] - _AHEAD) : end if end >= 0 else match[1] + _AHEAD]
            else:
                target = value.encode()
            checks.append(any(each.search(target) for each in self._regexes))
        if allow.stopwords:
            lower = value.lower()
            checks.append(any(word in lower for word in allow.stopwords))
        if self._paths:
            path = where.encode("utf-8", "replace")
            checks.append(any(each.search(path) for each in self._paths))
        return bool(checks) and (all(checks) if allow.every else any(checks))


@cache
def shipped() -> Sieve:
    """Return the sieve of the shipped rules."""
    return Sieve(rules.shipped())


def usable(given: Iterable[Rule]) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """Compile every expression now; return the rules that can be used, and a sentence for each that cannot."""
    kept: list[Rule] = []
    problems: list[str] = []
    for rule in given:
        try:
            _Ready(rule)
        except ValueError as error:
            problems.append(f"{rule.source}: rule `{rule.id}`: {error}; the rule is left out")
            continue
        kept.append(rule)
    return tuple(kept), tuple(problems)


def compiled(regex: str) -> Any:
    """Compile an expression for bytes of UTF-8. Raises ValueError with re2's words."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 32 << 20
    try:
        return re2.compile(regex.encode(), options=options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        words = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"re2 cannot compile the expression: {words}") from error


def entropy(value: str) -> float:
    """Return Shannon's entropy of the characters, in bits a character."""
    counts: dict[str, int] = {}
    for char in value:
        counts[char] = counts.get(char, 0) + 1
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())


def _apart(data: bytes, start: int) -> bool:
    """Say whether no letter or digit stands before `start`, except as the end of an escape."""
    if not start or not data[start - 1 : start].isalnum() or not data[start : start + 1].isalnum():
        return True
    return _ESCAPE_BEFORE.search(data[max(0, start - 20) : start]) is not None


def _window(data: bytes, place: int) -> _Window:
    """Return where to look for what the keyword at `place` is part of, and where the next look has to begin.

    That is its line and the two after it, or as much of them as is bounded; a keyword on the last of these lines gets
    a look of its own, so that a value on the line after it is seen.
    """
    low = max(0, place - _BEHIND)
    low = max(low, data.rfind(b"\n", low, place) + 1)
    limit = high = min(len(data), place + _AHEAD)
    done = max(place + 1, high - _OVERLAP) if high < len(data) else high
    end = data.find(b"\n", place, limit)
    for _ in range(2):
        following = data.find(b"\n", end + 1, limit) if end >= 0 else -1
        if following < 0:
            high = limit if end >= 0 else high  # the last line of a text need not end
            break
        done, high, end = end + 1, following + 1, following
    # An offset within a character would make re2 refuse it.
    while low < place and 0x80 <= data[low] < 0xC0:
        low += 1
    return low, high, done


def _unescaped(text: bytes) -> bytes | None:
    """Return the text with each escape read and padded to its length, so that offsets stay; None if it has none."""
    if b"\\" not in text and b"%" not in text and b"&" not in text and b"\x1b" not in text:
        return None
    view = _ESCAPE.sub(_read_escape, text)
    return view if view != text else None


def _read_escape(match: re.Match[bytes]) -> bytes:
    escape = match[0]
    if escape.startswith(b"&"):
        char = _ENTITIES.get(escape, b"&")
    elif escape.startswith(b"%"):
        char = bytes([int(escape[1:], 16)])
    elif escape[-1:] in b"mK" and b"[" in escape:
        char = b" "
    else:
        rest = escape.lstrip(b"\\")
        char = bytes([int(rest[1:].removeprefix(b"00"), 16)]) if len(rest) > 1 else rest
        if rest in (b"n", b"r", b"t"):
            char = b"\n" if rest == b"n" else b" "
    # A name and its sign stay together: `password%3Dx` is read as `password__=x`.
    return (b"_" if char == b"=" else b" ") * (len(escape) - 1) + char
