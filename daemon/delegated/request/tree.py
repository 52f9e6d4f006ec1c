"""YAML and JSON as a tree of texts that know their lines; nothing resolved, nothing expanded, nothing built."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from delegated.cuts import head
from delegated.errors import Problem, RequestError

MAX_DEPTH = 24
MAX_NODES = 20_000
MAX_YAML_BYTES = 256 * 1024
MAX_PROBLEMS = 50

Kind = Literal["text", "plain", "null", "list", "map"]

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
# What YAML 1.1 allows in a stream. Checked here because the two YAML readers report it without a line.
_UNPRINTABLE = re.compile("[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_YAML_HINT = "correct the YAML; text with `: `, `#` or quotes in it goes into quotes or under `key: |`"
_JSON_HINT = "correct the JSON: keys and texts in double quotes, no comma before a closing bracket, no comments"


@dataclass(frozen=True, slots=True)
class Node:
    """One value as it was written.

    `plain` is an unquoted scalar whose meaning depends on who asks: `NO` is a file's name, a text, or false. `text` is
    its source. `line` is 1-based. A `list` has `items`, a `map` has `entries`.
    """

    kind: Kind
    line: int
    text: str = ""
    items: tuple[Node, ...] = ()
    entries: tuple[tuple[Node, Node], ...] = ()


class _Lines:
    """Offsets into a text, told as lines."""

    def __init__(self, text: str, first: int) -> None:
        self._starts = [match.end() for match in re.finditer("\n", text)]
        self._first = first

    def at(self, offset: int) -> int:
        return self._first + bisect_right(self._starts, offset)


def read_yaml(text: str, first_line: int = 1) -> Node:
    """Read one YAML document; `first_line` is the line of the file where `text` starts.

    The events are checked before anything is built from them, so that no input costs more than its own size: anchors,
    aliases, tags, merge keys and second documents are refused. Raises `RequestError`.
    """
    if (size := len(text.encode())) > MAX_YAML_BYTES:
        found = f"{size:,} bytes of YAML"
        expected = f"at most {MAX_YAML_BYTES:,}: name the files instead of embedding them, or write Markdown"
        raise RequestError((Problem(first_line, found, expected),))
    lines = _Lines(text, first_line)
    if bad := _UNPRINTABLE.search(text):
        found = f"the character {bad.group()!r}, which YAML does not allow"
        expected = 'remove it, or write it as an escape in double quotes ("\\e")'
        raise RequestError((Problem(lines.at(bad.start()), found, expected),))
    return _yaml_events(text, lines)


def _yaml_events(text: str, lines: _Lines) -> Node:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    problems: list[Problem] = []
    open_nodes: list[tuple[Kind, int, list[Node]]] = [("list", 1, [])]
    documents = 0
    try:
        for count, event in enumerate(yaml.parse(text, Loader=loader)):
            line = lines.at(event.start_mark.index if event.start_mark else 0)
            if len(problems) >= MAX_PROBLEMS:
                break  # no more are told, and a bomb is not worth reading to its end
            if count >= MAX_NODES:
                problems.append(Problem(line, f"more than {MAX_NODES:,} YAML events", "write a shorter request"))
                break
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    problems.append(Problem(line, "a second YAML document", "one document per request"))
                    break
                continue
            if isinstance(event, yaml.AliasEvent):
                problems.append(Problem(line, f"the alias `*{event.anchor}`", "write the value itself"))
                open_nodes[-1][2].append(Node("null", line))
            elif isinstance(event, (yaml.ScalarEvent, yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                if event.anchor is not None:
                    problems.append(Problem(line, f"the anchor `&{event.anchor}`", "remove it; aliases are not read"))
                if event.tag is not None:
                    problems.append(Problem(line, f"the tag {event.tag!r}", "remove it; values need no type"))
                if isinstance(event, yaml.ScalarEvent):
                    open_nodes[-1][2].append(_scalar(event.value, event.style, line))
                else:
                    if len(open_nodes) > MAX_DEPTH:
                        problems.append(Problem(line, f"nesting deeper than {MAX_DEPTH}", "write a flat request"))
                        break
                    open_nodes.append(("map" if isinstance(event, yaml.MappingStartEvent) else "list", line, []))
            elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                kind, start, children = open_nodes.pop()
                open_nodes[-1][2].append(_collection(kind, start, children, problems))
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or "it cannot be read"
        if mark is not None and text[mark.index : mark.index + 1] == "\t":
            what = "a tab where YAML takes only spaces"
        problem = Problem(lines.at(mark.index) if mark else None, f"this is not YAML: {what}", _YAML_HINT)
        raise RequestError((problem, *problems[:MAX_PROBLEMS]), unfinished=True) from error
    if problems:
        raise RequestError(tuple(problems[:MAX_PROBLEMS]))
    root = open_nodes[0][2]
    return root[0] if root else Node("null", lines.at(0))


def _scalar(value: str, style: str | None, line: int) -> Node:
    if style is not None and style != "":
        return Node("text", line, value)
    return Node("null" if value in _NULLS else "plain", line, value)


def _collection(kind: Kind, line: int, children: list[Node], problems: list[Problem]) -> Node:
    if kind == "list":
        return Node("list", line, items=tuple(children))
    entries = tuple(zip(children[::2], children[1::2], strict=True))
    _check_keys(entries, problems)
    return Node("map", line, entries=entries)


def _check_keys(entries: tuple[tuple[Node, Node], ...], problems: list[Problem]) -> None:
    seen: dict[str, int] = {}
    for key, _ in entries:
        if key.kind in ("list", "map"):
            problems.append(Problem(key.line, f"a {key.kind} as a key", "a key is a single word"))
        elif key.kind == "plain" and key.text == "<<":
            problems.append(Problem(key.line, "the merge key `<<`", "write the values themselves"))
        elif key.text in seen:
            found = f"the key {head(key.text, 80)!r} a second time (first in line {seen[key.text]})"
            problems.append(Problem(key.line, found, "keep one of them"))
        else:
            seen[key.text] = key.line


_SPACE = re.compile(r"[ \t\n\r]*")
_LITERAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null|NaN|-?Infinity")
_decode_string = json.JSONDecoder().raw_decode


class _JsonReader:
    """One reading of one JSON text.

    The standard reader gives no lines, keeps the last of two equal keys, and recurses as deep as the text asks it to.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = _Lines(text, 1)
        self.problems: list[Problem] = []
        self.count = 0

    def skip(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        return match.end() if match else at

    def fail(self, at: int, wanted: str) -> RequestError:
        seen = "the end of the file" if at >= len(self.text) else repr(self.text[at : at + 20])
        problem = Problem(self.lines.at(at), f"this is not JSON: {seen} where {wanted} should be", _JSON_HINT)
        return RequestError((problem, *self.problems[:MAX_PROBLEMS]), unfinished=True)

    def string(self, at: int) -> tuple[str, int]:
        try:
            value, end = _decode_string(self.text, at)
        except json.JSONDecodeError as error:
            problem = Problem(self.lines.at(error.pos), f"this is not JSON: {error.msg}", _JSON_HINT)
            raise RequestError((problem, *self.problems[:MAX_PROBLEMS]), unfinished=True) from error
        return str(value), end

    def value(self, at: int, depth: int) -> tuple[Node, int]:
        line = self.lines.at(at)
        self.count += 1
        if self.count > MAX_NODES:
            raise RequestError((Problem(line, f"more than {MAX_NODES:,} JSON values", "write a shorter request"),))
        opening = self.text[at : at + 1]
        if opening == '"':
            text, at = self.string(at)
            return Node("text", line, text), at
        if opening and opening in "[{":
            if depth >= MAX_DEPTH:
                raise RequestError((Problem(line, f"nesting deeper than {MAX_DEPTH}", "write a flat request"),))
            return self.members(at, depth + 1, line) if opening == "{" else self.elements(at, depth + 1, line)
        match = _LITERAL.match(self.text, at)
        if match is None:
            raise self.fail(at, "a value")
        return Node("null" if match.group() == "null" else "plain", line, match.group()), match.end()

    def elements(self, at: int, depth: int, line: int) -> tuple[Node, int]:
        items: list[Node] = []
        at = self.skip(at + 1)
        while self.text[at : at + 1] != "]" or items:
            item, at = self.value(at, depth)
            items.append(item)
            at = self.skip(at)
            if self.text[at : at + 1] == "]":
                break
            if self.text[at : at + 1] != ",":
                raise self.fail(at, "`,` or `]`")
            at = self.skip(at + 1)
        return Node("list", line, items=tuple(items)), at + 1

    def members(self, at: int, depth: int, line: int) -> tuple[Node, int]:
        entries: list[tuple[Node, Node]] = []
        at = self.skip(at + 1)
        while self.text[at : at + 1] != "}" or entries:
            if self.text[at : at + 1] != '"':
                raise self.fail(at, "a key in double quotes")
            key_line = self.lines.at(at)
            key, at = self.string(at)
            at = self.skip(at)
            if self.text[at : at + 1] != ":":
                raise self.fail(at, "`:`")
            value, at = self.value(self.skip(at + 1), depth)
            entries.append((Node("text", key_line, key), value))
            at = self.skip(at)
            if self.text[at : at + 1] == "}":
                break
            if self.text[at : at + 1] != ",":
                raise self.fail(at, "`,` or `}`")
            at = self.skip(at + 1)
        _check_keys(tuple(entries), self.problems)
        return Node("map", line, entries=tuple(entries)), at + 1


def read_json(text: str) -> Node:
    """Read one JSON value; numbers stay as they are written. Raises `RequestError`."""
    reader = _JsonReader(text)
    start = reader.skip(0)
    if start == len(text):
        return Node("null", 1)
    node, end = reader.value(start, 0)
    if (end := reader.skip(end)) != len(text):
        raise reader.fail(end, "the end of the file")
    if reader.problems:
        raise RequestError(tuple(reader.problems[:MAX_PROBLEMS]))
    return node
