"""A YAML file as plain values, each with its line; `request.tree` reads it, so nothing in it can explode.

Scalars follow YAML 1.2's core schema: `yes` is text, `20251128_133758` is not a number, `2027-01-14` is not a date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from delegated.request.tree import MAX_YAML_BYTES, Node, read_yaml

MAX_BYTES: Final = MAX_YAML_BYTES
MAX_DIGITS: Final = 18  # Python's int() of a longer text is slow, and no setting needs it

Path = tuple[str | int, ...]
"""Where a value stands: mapping keys and list positions from the root."""

_INT: Final = re.compile(r"[-+]?[0-9]+")
_BASED_INT: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, object]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True)
class Tree:
    """One document: its value (of JSON's types), and the 1-based line of every key and list item."""

    value: object
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """Return the line of `path`, or of the nearest thing around it that is in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def load(text: str) -> Tree:
    """Read one document; its value is None when there is nothing in it. Raises `RequestError` with every problem."""
    lines: dict[Path, int] = {}
    root = read_yaml(text.replace("\r\n", "\n").replace("\r", "\n"))
    return Tree(_value(root, (), lines), lines)


def _value(node: Node, at: Path, lines: dict[Path, int]) -> object:
    lines.setdefault(at, node.line)  # a key's own line wins over that of its value
    if node.kind == "list":
        return [_value(each, (*at, index), lines) for index, each in enumerate(node.items)]
    if node.kind == "map":
        found: dict[str, object] = {}
        for key, value in node.entries:
            lines[(*at, key.text)] = key.line
            found[key.text] = _value(value, (*at, key.text), lines)
        return found
    return node.text if node.kind == "text" else scalar(node.text)


def scalar(text: str) -> object:
    """Return what a plain (unquoted) scalar means: None, a bool, an int, a finite float, else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= MAX_DIGITS:
        if _INT.fullmatch(text):
            return int(text)
        if _BASED_INT.fullmatch(text):
            return int(text, 0)
    if len(text) <= 40 and _FLOAT.fullmatch(text):
        value = float(text)
        return value if abs(value) < float("inf") else text
    return text
