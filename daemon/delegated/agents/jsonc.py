"""JSON as editors write it, with comments and trailing commas: read with places, added to and taken from as text.

What is foreign stays as it is, to the byte. Places are offsets in characters.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

_SKIP: Final = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_LINE_END: Final = re.compile(r"[ \t]*\r?\n")
_WORD: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")
_DEEP: Final = 100

Inserts = list[tuple[int, str]]


class Malformed(ValueError):
    """A text that is no JSON, or holds something else where a list or an object belongs."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place. `items` are (key or "", where the item starts, value); `comma`: one stands behind them."""

    value: Any
    start: int
    end: int
    items: tuple[tuple[str, int, Node], ...] = ()
    comma: bool = False

    def child(self, key: str) -> Node | None:
        """Return the value of a key; of one that is given twice the last, as every reader does."""
        return next((node for name, _, node in reversed(self.items) if name == key), None)


def parse(text: str) -> Node:
    """Read a text. Raises `Malformed` with the line."""
    node = _value(text, _after(text, 0), 0)
    if _after(text, node.end) != len(text):
        _fail(text, _after(text, node.end), "something stands after the end")
    return node


def additions(text: str, wanted: dict[str, Any], stands_for: Callable[[Any, Any], bool] = operator.eq) -> Inserts:
    """Say what has to be inserted where, so that the text's object holds `wanted`; nothing when it does already.

    Objects are merged, to lists is added what none of their elements `stands_for`, and a plain value that is there
    stays.
    """
    node = parse(text)
    if not isinstance(node.value, dict):
        _fail(text, node.start, "an object belongs here")
    first = node.items[0][1] if node.items else 0
    found = re.match(r"[ \t]+", text[text.rfind("\n", 0, first) + 1 : first])
    return [*_merge(text, node, wanted, found[0] if found else "  ", stands_for)]


def insert(text: str, inserts: Inserts) -> str:
    """Return the text with all pieces inserted, each at its place in the text as it was."""
    for at, piece in sorted(inserts, key=lambda each: each[0], reverse=True):
        text = text[:at] + piece + text[at:]
    return text


def extract(text: str, inserts: Inserts) -> str | None:
    """Take the same pieces out again; None when one of them does not stand where it was put."""
    for at, piece in sorted(inserts, key=lambda each: each[0]):  # with the earlier ones out, each place is as it was
        if at < 0 or text[at : at + len(piece)] != piece:
            return None
        text = text[:at] + text[at + len(piece) :]
    return text


def without(text: str, ours: Callable[[Any], bool]) -> str:
    """Take out each element of a list that is `ours`, and the lists and objects that are empty for want of it.

    One that holds a comment stays: somebody wrote it for those who come after.
    """
    for _ in range(1_000):
        found = _first_of(parse(text), ours)
        if found is None:
            break
        parents, at = found
        while len(parents[-1][0].items) == 1 and len(parents) > 1 and not _has_comment(text, parents):
            at = parents[-1][1]
            parents = parents[:-1]
        text = _cut(text, parents[-1][0], at)
    return text


def _first_of(node: Node, ours: Callable[[Any], bool]) -> tuple[list[tuple[Node, int]], int] | None:
    """Find an element that is ours: the containers down to it, each with its number in the one above, and its own."""
    waiting: list[tuple[list[tuple[Node, int]], Node]] = [([(node, 0)], node)]
    while waiting:
        way, each = waiting.pop()
        for number, (_, _, item) in enumerate(each.items):
            if isinstance(each.value, list) and ours(item.value):
                return way, number
            if item.items:
                waiting.append(([*way, (item, number)], item))
    return None


def _has_comment(text: str, parents: list[tuple[Node, int]]) -> bool:
    """Say whether a comment stands in the last of some containers, around its one item, or between it and its key."""
    above, (node, number) = parents[-2][0], parents[-1]
    key = _STRING.match(text, above.items[number][1])
    _, start, item = node.items[0]
    around = (key.end() if key else node.start, node.start), (node.start + 1, start), (item.end, node.end - 1)
    return any("/" in text[begin:end] for begin, end in around)


def _cut(text: str, parent: Node, number: int) -> str:
    """Take one item out of its container, with one comma and the white space before it."""
    _, start, node = parent.items[number]
    after = _after(text, node.end)
    follows = after + 1 if text[after] == "," else node.end
    begin = len(text[:start].rstrip(" \t\r\n"))
    if not _LINE_END.match(text, follows) and "\n" in text[begin:start]:
        begin = start  # the end of the line above may be the end of a comment
    if number == len(parent.items) - 1 and number > 0 and follows == node.end:
        previous = parent.items[number - 1][2].end
        comma = _after(text, previous)
        return text[:comma] + text[comma + 1 : begin] + text[follows:]
    return text[:begin] + text[follows:]


def _merge(
    text: str, node: Node, wanted: Any, unit: str, stands_for: Callable[[Any, Any], bool]
) -> Iterator[tuple[int, str]]:
    if isinstance(wanted, dict):
        if not isinstance(node.value, dict):
            _fail(text, node.start, "an object belongs here")
        new = []
        for key, value in wanted.items():
            there = node.child(key)
            if there is None:
                new.append((key, value))
            else:
                yield from _merge(text, there, value, unit, stands_for)
        yield from _append(text, node, new, unit)
    elif isinstance(wanted, list):
        if not isinstance(node.value, list):
            _fail(text, node.start, "a list belongs here")
        new = [("", value) for value in wanted if not any(stands_for(there, value) for there in node.value)]
        yield from _append(text, node, new, unit)


def _append(text: str, node: Node, new: list[tuple[str, Any]], unit: str) -> Iterator[tuple[int, str]]:
    """Put items behind the last one, in the manner of those that are there."""
    if not new:
        return
    end = "\r\n" if "\r\n" in text else "\n"
    rows = "\n" in text[node.start : node.end] or not node.items
    line = text.rfind("\n", 0, node.start) + 1
    outer = text[line : node.start][: len(text[line : node.start]) - len(text[line : node.start].lstrip(" \t"))]
    inner = outer + unit
    if node.items and rows:
        first = node.items[0][1]
        before = text[text.rfind("\n", 0, first) + 1 : first]
        inner = before if not before.strip(" \t") else inner
    form = (inner, unit, end) if rows else ("", "", "")
    written = [_written(key, value, *form) for key, value in new]
    gap = end + inner if rows else " "
    piece = gap + f",{gap}".join(written)
    body = text[node.start + 1 : node.end - 1]
    last = node.items[-1][2].end if node.items else node.start + 1
    at = node.start + 1 + len(body.rstrip(" \t\r\n"))  # behind the last comment: it belongs to what is before it
    if not node.items:
        yield at, piece + ("" if "\n" in text[at : node.end] else end + outer)
    elif node.comma:
        yield at, piece
    elif at == last:
        yield at, "," + piece
    else:
        yield last, ","
        yield at, piece


def _written(key: str, value: Any, inner: str, unit: str, end: str) -> str:
    text = json.dumps(value, indent=unit or None, ensure_ascii=False)
    return (f"{json.dumps(key)}: " if key else "") + text.replace("\n", end + inner)


def _after(text: str, at: int) -> int:
    """Skip white space and comments."""
    found = _SKIP.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int, depth: int) -> Node:
    if depth > _DEEP:
        _fail(text, at, "it is nested too deep")
    opened = text[at : at + 1]
    if opened in ("{", "["):
        return _container(text, at, depth)
    found = _STRING.match(text, at) if opened == '"' else _WORD.match(text, at)
    if found is None:
        _fail(text, at, "a value belongs here" if opened else "it ends too early")
    try:
        return Node(json.loads(found[0]), at, found.end())
    except ValueError:
        _fail(text, at, "a value belongs here")


def _container(text: str, start: int, depth: int) -> Node:
    is_object = text[start] == "{"
    close = "}" if is_object else "]"
    items: list[tuple[str, int, Node]] = []
    comma = False
    at = _after(text, start + 1)
    while text[at : at + 1] != close:
        if items and not comma:
            _fail(text, at, f"a comma or {close} belongs here" if at < len(text) else "it ends too early")
        begin, key = at, ""
        if is_object:
            found = _STRING.match(text, at)
            colon = _after(text, found.end()) if found else at
            if found is None or text[colon : colon + 1] != ":":
                _fail(text, at, "a key belongs here" if at < len(text) else "it ends too early")
            try:
                key = json.loads(found[0])
            except ValueError:
                _fail(text, at, "a key belongs here")
            at = _after(text, colon + 1)
        node = _value(text, at, depth + 1)
        items.append((key, begin, node))
        at = _after(text, node.end)
        comma = text[at : at + 1] == ","
        at = _after(text, at + 1) if comma else at
    value: Any = {key: node.value for key, _, node in items} if is_object else [node.value for _, _, node in items]
    return Node(value, start, at + 1, tuple(items), comma)


def _fail(text: str, at: int, what: str) -> NoReturn:
    raise Malformed(f"line {text.count(chr(10), 0, at) + 1}: {what}")
