"""Every secret in a set of texts: exact values, private keys and what the rules find, joined where they overlap."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus

import ahocorasick_rs

from delegated.habits import is_random
from delegated.pem import private_keys
from delegated.sieve import Sieve, Span, shipped


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret found: its kind, the rule's id (empty: an exact value or a private key), its place, 1-based line."""

    kind: str
    rule: str
    start: int
    end: int
    line: int


def find(
    parts: Sequence[tuple[str, str]], *, known: Iterable[str] = (), sieve: Sieve | None = None
) -> list[list[Secret]]:
    """Find the secrets of each part, in order, in characters, not touching.

    `known` are exact values, also sought as URLs, JSON, HTML, base 64 and hex write them.
    """
    sieve = sieve or shipped()
    seek = _sought(tuple(known))
    found = []
    for where, text in parts:
        spans = _from_bytes(text, sieve.spans(text.encode("utf-8", "replace"), where))
        found.append(_merged([*seek.spans(text), *_keys(text), *spans]))
    elsewhere = _telling([text for _, text in parts], found)
    if elsewhere:
        seek = _Exact(elsewhere, rank=_ELSEWHERE)
        found = [_merged([*spans, *seek.spans(text)]) for (_, text), spans in zip(parts, found, strict=True)]
    return [_with_lines(text, spans) for (_, text), spans in zip(parts, found, strict=True)]


_MIN_ELSEWHERE: Final = 8  # characters: what is sought everywhere must not be a word of ordinary code
_MAX_ELSEWHERE: Final = 4_000
_ELSEWHERE: Final = 5  # its rank: what a rule finds there itself names it
_MAX_VALUES: Final = 2_000  # so that a hostile text cannot make the automaton large
_PERCENT: Final = re.compile(r"%[0-9A-F]{2}")
_URL_SAFE: Final = str.maketrans("+/", "-_")
_CUT: Final = (0, 2, 3)  # characters of base 64 that hold bits of what stands so many bytes before a value


def _keys(text: str) -> Iterator[Span]:
    return (Span(start, end, 1, "private-key") for start, end in private_keys(text))


def _with_lines(text: str, spans: Sequence[Span]) -> list[Secret]:
    found: list[Secret] = []
    at, line = 0, 1
    for span in spans:
        line += text.count("\n", at, span.start)
        at = span.start
        found.append(Secret(span.kind, span.rule, span.start, span.end, line))
    return found


def _from_bytes(text: str, spans: Iterable[Span]) -> list[Span]:
    """Turn offsets of bytes into offsets of characters."""
    if text.isascii():
        return list(spans)
    data = text.encode("utf-8", "replace")
    listed = list(spans)
    at = characters = 0
    places: dict[int, int] = {}
    for offset in sorted({offset for span in listed for offset in (span.start, span.end)}):
        characters += len(data[at:offset].decode("utf-8", "replace"))
        places[offset], at = characters, offset
    return [replace(span, start=places[span.start], end=places[span.end]) for span in listed]


def _forms(value: str) -> Iterator[str]:
    """Yield the ways in which a known value stands in text: as it is, in URLs, JSON, HTML, base 64, hex."""
    raw = value.encode("utf-8", "replace")
    yield value
    whole = quote(value, safe="", errors="replace")
    for form in (whole, quote(value, errors="replace"), quote_plus(value, errors="replace"), quote(whole, safe="")):
        yield form
        yield _PERCENT.sub(lambda found: found[0].lower(), form)
    for form in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        for each in (form, form.replace("/", "\\/")):  # as PHP writes it
            yield each
            yield json.dumps(each, ensure_ascii=False)[1:-1]  # JSON within JSON
    yield html.escape(value)
    yield html.escape(value, quote=False)
    yield raw.hex()
    yield raw.hex().upper()
    for before, cut in enumerate(_CUT):  # `user:value` and its like: what stands before it shifts the bits
        coded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        for form in (coded[cut:], coded[cut : (before + len(raw)) * 4 // 3]):
            yield form
            yield form.translate(_URL_SAFE)


@lru_cache(maxsize=4)  # they seldom change, and a thousand values take a third of a second
def _sought(known: tuple[str, ...]) -> _Exact:
    return _Exact({form: ("known", "") for value in known for form in _forms(value)})


class _Exact:
    """Values sought as they stand, all at once."""

    def __init__(self, kinds: Mapping[str, tuple[str, str]], rank: int = 0) -> None:
        """`kinds` gives each value's kind and rule; `rank` is that of the spans."""
        self._rank = rank

        # A lone surrogate cannot be told to the automaton, nor be looked at in a text by it.
        self._odd = {value: kind for value, kind in kinds.items() if not _encodable(value)}
        self._kinds = [(value, kind) for value, kind in kinds.items() if value not in self._odd]
        self._all = kinds
        values = [value for value, _ in self._kinds]
        self._automaton = ahocorasick_rs.AhoCorasick(values) if values else None

    def spans(self, text: str) -> Iterator[Span]:
        if not _encodable(text):
            yield from _one_by_one(text, self._all, self._rank)
            return
        yield from _one_by_one(text, self._odd, self._rank)
        if self._automaton is not None:
            for number, start, end in self._automaton.find_matches_as_indexes(text, overlapping=True):
                kind, rule = self._kinds[number][1]
                yield Span(start, end, self._rank, kind, rule)


def _encodable(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode()) or True
    except UnicodeEncodeError:
        return False


def _one_by_one(text: str, kinds: Mapping[str, tuple[str, str]], rank: int) -> Iterator[Span]:
    for value, (kind, rule) in kinds.items():
        at = text.find(value)
        while at >= 0:
            yield Span(at, at + len(value), rank, kind, rule)
            at = text.find(value, at + len(value))


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Join spans that overlap, so that no part of either stays readable."""
    merged: list[Span] = []
    for span in sorted(spans):
        last = merged[-1] if merged else None
        if last is not None and span.start < last.end:
            best = min(last, span, key=lambda one: (one.rank, one.start - one.end))
            merged[-1] = replace(best, start=last.start, end=max(last.end, span.end))
        else:
            merged.append(span)
    return merged


def _telling(texts: Sequence[str], found: Sequence[Sequence[Span]]) -> dict[str, tuple[str, str]]:
    """Collect the values that are worth seeking everywhere: those that no ordinary text would hold by chance."""
    values: dict[str, tuple[str, str]] = {}
    for text, spans in zip(texts, found, strict=True):
        for span in spans:
            value = text[span.start : span.end]
            if not _MIN_ELSEWHERE <= len(value) <= _MAX_ELSEWHERE or "\n" in value or len(values) >= _MAX_VALUES:
                continue
            if len(value) >= 20 or is_random(value):
                values.setdefault(value, (span.kind, span.rule))
    return values
