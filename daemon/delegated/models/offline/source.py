"""One file as it was sent: its lines, its syntax tree where the whole of it is there, and edits that leave it whole."""

from __future__ import annotations

import ast
import re
import symtable
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final, TypeVar

from delegated.context import Excerpt

LARGEST: Final = 1_000_000  # characters of one file that are parsed
MOST: Final = 20  # changes in one edit, or places weighed on one line; more are a refactoring, not a fix
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_parsing: Final = threading.Lock()  # the filters that silence the parser's warnings belong to the whole process

Node = TypeVar("Node", bound=ast.AST)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Place:
    """Whole lines of a sent file, 1-based and inclusive, with their text."""

    path: str
    start_line: int
    end_line: int
    quote: str


@dataclass(frozen=True, slots=True)
class Change:
    """Replace the characters `start..end` (from 0) of line `line` (from 1) by `text`. start == end inserts."""

    line: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `before`, which stands exactly once in the file as sent, by `after`."""

    path: str
    before: str
    after: str


class Source:
    """The excerpts of one file, and what can be read from them. The tree is made when it is first asked for."""

    def __init__(self, path: str, excerpts: Sequence[Excerpt]) -> None:
        self.path = path
        self.python = path.endswith((".py", ".pyi", ".pyw"))
        self.total = max(excerpt.total_lines for excerpt in excerpts)
        self.text = next((e.text for e in excerpts if e.start_line == 1 and e.end_line >= e.total_lines), "")
        self.whole = bool(self.text)
        self._lines: dict[int, str] = {}
        for excerpt in excerpts:
            for number, line in enumerate(_LINE.findall(excerpt.text), excerpt.start_line):
                self._lines.setdefault(number, line)

    def line(self, number: int) -> str:
        """Return one line without its end, "" where it was not sent."""
        return self._lines.get(number, "").rstrip("\r\n")

    def lines(self) -> Iterator[tuple[int, str]]:
        """Return the numbers and texts of all lines that were sent."""
        for number in sorted(self._lines):
            yield number, self.line(number)

    def has(self, number: int) -> bool:
        """Say whether this line was sent."""
        return number in self._lines

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, line in self.lines():
            found.setdefault(line.strip(), []).append(number)
        return found

    def find(self, text: str) -> list[int]:
        """Return the numbers of the lines that are this text, indents aside."""
        return self._places.get(text, [])

    def place(self, start: int, end: int = 0) -> Place:
        """Quote the lines `start..end`, no further than they were sent."""
        last = start
        while last < max(end, start) and self.has(last + 1):
            last += 1
        return Place(self.path, start, last, "\n".join(self.line(n) for n in range(start, last + 1)))

    def segment(self, node: ast.AST) -> str:
        """Return the source of a node, its lines joined by spaces: for a sentence, not for an edit."""
        start, end = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0) or 0
        if not start or end - start > 20:
            return ""
        parts = [self.line(number) for number in range(start, end + 1)]
        parts[-1] = parts[-1][: column(parts[-1], node.end_col_offset or 0)]  # type: ignore[attr-defined]
        parts[0] = parts[0][column(parts[0], node.col_offset) :]  # type: ignore[attr-defined]
        return " ".join(part.strip() for part in parts)

    @cached_property
    def tree(self) -> ast.Module | None:
        """The syntax tree of a Python file that was sent whole, None when there is none."""
        return parse(self.text) if self.python and self.whole else None

    @cached_property
    def everything(self) -> tuple[ast.AST, ...]:
        """All nodes of the tree, outermost first."""
        return tuple(ast.walk(self.tree)) if self.tree else ()

    @cached_property
    def _statements(self) -> dict[int, ast.stmt]:
        """The innermost statement on each line; walking goes inwards, so the later one wins."""
        found: dict[int, ast.stmt] = {}
        for node in self.everything:
            if isinstance(node, ast.stmt):
                last = _head_end(node)
                for number in range(node.lineno, last + 1):
                    found[number] = node
        return found

    def statement(self, number: int) -> ast.stmt | None:
        """Return the innermost statement whose own part (a block's head, not its body) covers this line."""
        return self._statements.get(number)

    def at(self, number: int, kind: type[Node]) -> list[Node]:
        """Return the nodes of this kind in the statement on this line, in the order of the text.

        Where the file has no tree the line is read alone, and if that fails too there are none.
        """
        statement = self.statement(number)
        nodes: Iterable[ast.AST]
        if statement is not None:
            nodes = _own(statement)
        elif self.python and self.tree is None:
            nodes = _alone(self.line(number), number)
        else:
            nodes = ()
        found = [node for node in nodes if isinstance(node, kind)]
        return sorted(found, key=lambda node: (getattr(node, "lineno", 0), getattr(node, "col_offset", 0)))

    def function(self, number: int) -> Function | None:
        """Return the innermost function around this line."""
        inner = None
        for node in self.everything:
            if isinstance(node, Function) and covers(node, number):
                inner = node
        return inner

    def span(self, node: ast.expr | ast.alias | ast.arg | ast.keyword, text: str) -> Change | None:
        """Return the change that puts `text` for a node of one line."""
        if node.lineno != node.end_lineno:
            return None
        line = self.line(node.lineno)
        return Change(node.lineno, column(line, node.col_offset), column(line, node.end_col_offset or 0), text)

    def edit(self, changes: Iterable[Change]) -> tuple[Edit, ...]:
        """Turn changes into edits; () unless each applies exactly once and the edited file still parses."""
        wanted = sorted(set(changes), key=lambda change: (change.line, change.start))
        if not 0 < len(wanted) <= MOST or not self.whole:
            return ()
        if any(a.line == b.line and a.end > b.start for a, b in pairwise(wanted)):
            return ()
        edited = dict(self._lines)
        for change in reversed(wanted):
            line = edited.get(change.line)
            if line is None or not 0 <= change.start <= change.end <= len(line.rstrip("\r\n")):
                return ()
            edited[change.line] = line[: change.start] + change.text + line[change.end :]
        after = "".join(edited[number] for number in sorted(edited))
        if after == self.text or (self.python and not compiles(after)):
            return ()
        edits: list[Edit] = []
        now = self.text
        for first, last in self._blocks([change.line for change in wanted]):
            before = _join(self._lines, first, last)
            if self.text.count(before) != 1 or now.count(before) != 1:
                return ()
            edits.append(Edit(self.path, before, _join(edited, first, last)))
            now = now.replace(before, edits[-1].after)
        return tuple(edits) if now == after else ()

    def _blocks(self, changed: Sequence[int]) -> list[tuple[int, int]]:
        """Return ranges of lines around the changed ones, apart from each other, each text unique in the file."""
        blocks: list[tuple[int, int]] = []
        for number in dict.fromkeys(changed):
            first = last = number
            while self.text.count(_join(self._lines, first, last)) > 1 and last - first < 12:
                first, last = max(1, first - 1), min(self.total, last + 1)
            if blocks and first <= blocks[-1][1] + 1:
                blocks[-1] = (min(first, blocks[-1][0]), max(last, blocks[-1][1]))
            else:
                blocks.append((first, last))
        return blocks


def parse(text: str) -> ast.Module | None:
    """Return the tree of a text, None for what is not Python or too much for the parser."""
    if len(text) > LARGEST:
        return None
    try:
        with _parsing, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply
        return None


def compiles(text: str) -> bool:
    """Say whether a text is Python in which each name is declared as the language allows."""
    if parse(text) is None:
        return False
    try:
        with _parsing, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            symtable.symtable(text, "edited", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def column(line: str, offset: int) -> int:
    """Return which character a node's offset, counted in bytes of UTF-8, means."""
    return len(line.encode("utf-8", "replace")[:offset].decode("utf-8", "ignore"))


def covers(node: ast.AST, number: int) -> bool:
    """Say whether a line lies within a node."""
    return getattr(node, "lineno", 0) <= number <= (getattr(node, "end_lineno", 0) or 0)


def _own(statement: ast.stmt) -> Iterator[ast.AST]:
    """Walk a statement without the statements, handlers and cases of its body."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        yield node
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                waiting.append(child)


def _head_end(node: ast.stmt) -> int:
    body = getattr(node, "body", None) or getattr(node, "cases", None)
    if not body:
        return node.end_lineno or node.lineno
    if isinstance(body[0], ast.match_case):
        first = body[0].pattern.lineno
    else:
        first = min([body[0].lineno, *(decorator.lineno for decorator in getattr(body[0], "decorator_list", ()))])
    return max(node.lineno, first - 1)


def _alone(line: str, number: int) -> Iterator[ast.AST]:
    text = line.strip()
    indent = len(line) - len(line.lstrip())
    body = text.removeprefix("el") if text.startswith("elif ") else text
    tree = parse(body) or parse(body + " pass") or parse(body.rstrip(":"))
    for node in ast.walk(tree) if tree else ():
        if hasattr(node, "lineno"):
            shift = len(line[:indent].encode("utf-8", "replace")) + len(text) - len(body)
            node.lineno = node.end_lineno = number  # type: ignore[attr-defined]
            node.col_offset += shift  # type: ignore[attr-defined]
            node.end_col_offset += shift  # type: ignore[attr-defined]
        yield node


def _join(lines: dict[int, str], first: int, last: int) -> str:
    return "".join(lines[number] for number in range(first, last + 1)).removesuffix("\n").removesuffix("\r")
