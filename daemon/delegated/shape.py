"""A model's words, fitted to a JSON Schema: what is harmless is mended, what is wrong is named with its place."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from delegated import plain
from delegated.cuts import head

TEXT_CAP: Final = 20_000  # characters of one string
LIST_CAP: Final = 20  # items of one list
_SCAN_CAP: Final = 200  # objects tried in prose: `{` by the thousand must not cost a thousand scans to the end
_OPENS: Final = re.compile(r"(`{3,}|~{3,})[ \t]*(?:json[c5]?)?", re.I)


class NotJson(ValueError):
    """There is no JSON in the words."""


class Misfit(ValueError):
    """There is JSON, and it does not fit; `problems` are sentences that name each place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else ""))
        self.problems = problems


def read(text: str, schema: Mapping[str, Any], core: Collection[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the first object in `text` that fits `schema`, and warnings about what was mended.

    The text may be JSON, JSON in a fence, or JSON amid prose, as weak models write it. Keys that the schema does not
    have are dropped; a missing one is an error when `core` holds its place (`verdict`, `hypotheses[].cause`), else it
    is filled with an empty value. Raises `NotJson` or `Misfit`, nothing else.
    """
    first: Misfit | None = None
    problem = ""
    for candidate in _candidates(text):
        if isinstance(candidate, ValueError):
            problem = problem or str(candidate)
            continue
        for value in (candidate, *_wrapped(candidate)):
            fit = _Fit(core)
            fitted = fit.fit(schema, value, "")
            if not fit.problems:
                return fitted, tuple(fit.warnings)
            if first is None:
                first = Misfit(fit.problems)
    if first is not None:
        raise first
    raise NotJson(problem or "no JSON object in it")


def _candidates(text: str) -> Iterator[Any]:
    try:
        whole = plain.parse(text.strip().removeprefix("\ufeff"))
    except ValueError as error:
        yield ValueError(_reason(error))
    else:
        yield whole
        return
    for block in _fenced(text):
        try:
            yield plain.parse(block)
        except ValueError as error:
            yield ValueError(_reason(error))
    decoder = json.JSONDecoder(parse_constant=plain.refuse_constant)
    at = text.find("{")
    for _ in range(_SCAN_CAP):
        if at < 0:
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield value
        at = text.find("{", end)


def _fenced(text: str) -> Iterator[str]:
    """Yield what stands in fences of JSON; one that is never closed is none. In time linear in the text."""
    rows = text.split("\n")
    bare = [row.strip() for row in rows]
    closing: dict[str, list[int]] = {}
    for place, row in enumerate(bare):
        if row[:3] in ("```", "~~~"):
            closing.setdefault(row, []).append(place)
    at = 0
    while at < len(rows):
        opened = _OPENS.fullmatch(bare[at])
        ends = closing.get(opened[1], []) if opened else []
        end = bisect_right(ends, at)
        if end < len(ends):
            yield "\n".join(rows[at + 1 : ends[end]])
            at = ends[end]
        at += 1


def _wrapped(value: object) -> Iterator[Any]:
    """Yield the objects one level down: weak models like to answer `{"answer": {…}}` or `[{…}]`."""
    if isinstance(value, Mapping) and len(value) <= 3:
        yield from (item for item in value.values() if isinstance(item, Mapping))
    elif isinstance(value, list) and len(value) == 1:
        yield value[0]


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    return str(error)[:200]


class _Fit:
    def __init__(self, core: Collection[str]) -> None:
        self.core = core
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def fit(self, schema: Mapping[str, Any], value: object, where: str) -> Any:
        kind = schema["type"]
        if kind == "object":
            return self._object(schema, value, where)
        if kind == "array":
            return self._array(schema, value, where)
        if kind == "integer":
            return self._integer(value, where)
        if "enum" in schema:
            return self._choice(schema["enum"], value, where)
        return self._string(value, where)

    def _refuse(self, where: str, value: object, wanted: str) -> None:
        shown = repr(head(value, 40)) if isinstance(value, str) else plain.word(value)
        self.problems.append(f"{where or 'the answer'}: found {shown}; expected {wanted}")

    def _object(self, schema: Mapping[str, Any], value: object, where: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            self._refuse(where, value, "an object")
            return {}
        fitted: dict[str, Any] = {}
        for name, part in schema["properties"].items():
            place = f"{where}.{name}" if where else name
            if value.get(name) is not None:
                fitted[name] = self.fit(part, value[name], place)
            elif re.sub(r"\[\d+\]", "[]", place) in self.core:
                self.problems.append(f"{place}: missing")
            else:
                fitted[name] = {"array": [], "integer": 0}.get(part["type"], "")
        return fitted

    def _array(self, schema: Mapping[str, Any], value: object, where: str) -> list[Any]:
        if isinstance(value, str) and schema["items"]["type"] == "string":
            value = [value] if value.strip() else []
        if not isinstance(value, list):
            self._refuse(where, value, "a list")
            return []
        if len(value) > LIST_CAP:
            self.warnings.append(f"{where} had {len(value)} items; the first {LIST_CAP} are kept")
        return [self.fit(schema["items"], item, f"{where}[{place}]") for place, item in enumerate(value[:LIST_CAP])]

    def _integer(self, value: object, where: str) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value):
            return int(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
            self._refuse(where, value, "a whole number")
            return 0
        return int(min(max(value, -(10**9)), 10**9))

    def _choice(self, choices: list[str], value: object, where: str) -> str:
        word = re.sub(r"[\s-]+", "_", value.strip().lower()) if isinstance(value, str) else None
        if word not in choices:
            self._refuse(where, value, f"one of {', '.join(choices)}")
            return ""
        return word

    def _string(self, value: object, where: str) -> str:
        if not isinstance(value, str):
            self._refuse(where, value, "a string")
            return ""
        if len(value) > TEXT_CAP:
            self.warnings.append(f"{where} was {len(value):,} characters long and is cut to {TEXT_CAP:,}")
        return head(value, TEXT_CAP)
