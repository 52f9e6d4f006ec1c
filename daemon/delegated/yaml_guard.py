"""YAML from strangers: plain mappings, lists and scalars with their lines, and nothing that can explode.

Even `safe_load` spends seconds and hundreds of megabytes on a few hundred bytes of anchors and merge keys. So the
events are looked at first, and what no request and no configuration needs is refused by name. Scalars follow YAML
1.2's core schema: `yes` is text, `20251128_133758` is not a number, `2027-01-14` is not a date object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from delegated.errors import Problem

Path = tuple[str | int, ...]
"""Where a value stands: mapping keys and list positions from the root."""

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 24
MAX_EVENTS: Final = 20_000
MAX_DIGITS: Final = 18  # Python's int() of a longer text is slow and of no use to anybody here

_STR_TAG: Final = "tag:yaml.org,2002:str"
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
    """One document: its value, and the 1-based line of the root `()` and of every key and list item."""

    value: object
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """Return the line of `path`, or of the nearest thing around it that is in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class YamlError(Exception):
    """The text is not YAML that we read. `unfinished`: the syntax is broken, as in a file still being written."""

    def __init__(self, problems: tuple[Problem, ...], *, unfinished: bool = False) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems
        self.unfinished = unfinished


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet."""

    path: Path
    into: dict[str, object] | list[object]
    key: str | None = None  # the mapping key that waits for its value


@dataclass(slots=True)
class _Builder:
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    root: object = None

    def refuse(self, line: int, found: str, expected: str) -> None:
        self.problems.append(Problem(line, found, expected))

    def place(self, line: int) -> Path:
        """Return where the value that begins now belongs."""
        if not self.stack:
            path: Path = ()
        else:
            top = self.stack[-1]
            path = (*top.path, len(top.into) if isinstance(top.into, list) else top.key or "")
        self.lines.setdefault(path, line)
        return path

    def put(self, value: object) -> None:
        if not self.stack:
            self.root = value
        elif isinstance((top := self.stack[-1]).into, list):
            top.into.append(value)
        else:
            assert top.key is not None
            top.into[top.key] = value
            top.key = None

    def wants_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].into, dict) and self.stack[-1].key is None

    def take_key(self, text: str, *, plain: bool, line: int) -> None:
        top = self.stack[-1]
        assert isinstance(top.into, dict)
        if plain and text == "<<":
            self.refuse(line, "a merge key `<<`", "write the keys out")
        elif text in top.into:
            first = self.lines.get((*top.path, text), line)
            self.refuse(line, f"`{text[:80]}` a second time (first on line {first})", "give each key once")
        else:
            self.lines[(*top.path, text)] = line
        top.key = text


def load(text: str) -> Tree:
    """Read one YAML document; None when there is nothing in it.

    Raises:
        YamlError: with every problem found up to the first break of the syntax.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise YamlError((Problem(None, f"more than {MAX_BYTES // 1024} KiB of YAML", "keep it smaller"),))
    import yaml  # here, because commands that read no YAML must start without it

    builder = _Builder()
    try:
        _build(yaml, text, builder)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        builder.refuse(
            mark.line + 1 if mark else 1, f"broken YAML: {error.problem}", "correct the syntax here or above"
        )
        raise YamlError(tuple(builder.problems), unfinished=True) from error
    except (yaml.YAMLError, UnicodeError) as error:  # a character that YAML does not allow
        reason = str(getattr(error, "reason", error)).splitlines()[0]
        builder.refuse(_line_of_bad_character(text), f"unreadable YAML: {reason}", "remove the control character")
        raise YamlError(tuple(builder.problems)) from error
    if builder.problems:
        raise YamlError(tuple(builder.problems))
    return Tree(builder.root, builder.lines)


def _build(yaml: Any, text: str, builder: _Builder) -> None:
    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    documents = 0
    for number, event in enumerate(events):
        line = event.start_mark.line + 1
        if number > MAX_EVENTS:
            builder.refuse(line, f"more than {MAX_EVENTS} keys and values", "keep it smaller")
            return
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                builder.refuse(line, "a second document after `---`", "one document per file")
                return
        elif isinstance(event, yaml.AliasEvent):
            builder.refuse(line, f"an alias `*{event.anchor[:40]}`", "write the value out")
            if builder.wants_key():
                builder.take_key(f"*{event.anchor}", plain=False, line=line)
            else:
                builder.put(None)
        elif isinstance(event, yaml.NodeEvent):
            if event.anchor is not None:
                builder.refuse(line, f"an anchor `&{event.anchor[:40]}`", "write the value out where it is used")
            if event.tag is not None and event.tag != "!":
                builder.refuse(line, f"a tag `{event.tag[:40]}`", "write the plain value without a tag")
            if isinstance(event, yaml.ScalarEvent):
                plain = event.style in (None, "")
                if builder.wants_key():
                    builder.take_key(event.value, plain=plain, line=line)
                else:
                    builder.place(line)
                    builder.put(scalar(event.value) if plain else event.value)
            else:
                if builder.wants_key():  # `? [a, b] : c`, or `{{a: b}: c}`
                    builder.refuse(line, "a mapping or list as a key", "quote a value that begins with { or [")
                    return
                if len(builder.stack) >= MAX_DEPTH:
                    builder.refuse(line, f"more than {MAX_DEPTH} levels", "nest less deeply")
                    return
                into: dict[str, object] | list[object] = {} if isinstance(event, yaml.MappingStartEvent) else []
                builder.stack.append(_Open(builder.place(line), into))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = builder.stack.pop().into
            builder.put(closed)


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


def _line_of_bad_character(text: str) -> int:
    bad = re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return text.count("\n", 0, bad.start()) + 1 if bad else 1
