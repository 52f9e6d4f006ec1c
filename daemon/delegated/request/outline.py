"""The outline of a page as CommonMark sees it: where blocks begin and end, at a bounded cost."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock

# A line within a paragraph takes a step or more, a block four: in all some seconds for the most hostile text.
MAX_STEPS: Final = 200_000
MAX_LEVELS: Final = 90


class TooMuch(Exception):
    """The text would cost more than a request is worth; `line` is 0-based."""

    def __init__(self, line: int, found: str) -> None:
        super().__init__(found)
        self.line = line
        self.found = found


@dataclass(slots=True)
class Budget:
    """What is left to spend on one page, however often it is read."""

    steps: int = MAX_STEPS


@dataclass(slots=True)
class Heading:
    """A heading of the top level: its lines (0-based, end exclusive), its text, and whether it is underlined."""

    start: int
    end: int
    level: int
    text: str
    underlined: bool


@dataclass(slots=True)
class Outline:
    """The blocks of a text by their lines (0-based, end exclusive); all but `prose` are those of the top level."""

    headings: list[Heading] = field(default_factory=list)
    items: list[tuple[int, int]] = field(default_factory=list)
    prose: list[tuple[int, int]] = field(default_factory=list)
    fences: list[tuple[int, int]] = field(default_factory=list)
    html: list[tuple[int, int]] = field(default_factory=list)

    def add(self, other: Outline, start: int, end: int) -> None:
        """Append the blocks of another outline that start between two lines."""
        for mine, theirs in zip(self._lists(), other._lists(), strict=True):
            mine += theirs[bisect_left(theirs, (start, 0)) : bisect_left(theirs, (end, 0))]

    def _lists(self) -> tuple[list[tuple[int, int]], ...]:
        return self.items, self.prose, self.fences, self.html


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"maxNesting": MAX_LEVELS + 10})
    # Blocks alone decide the outline. Reference definitions are text like any other here.
    parser.core.ruler.disable(["normalize", "inline", "text_join"])
    parser.block.ruler.disable(["reference"])
    terminates: Any = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    parser.block.ruler.before("code", "budget", _spend, terminates)
    return parser


def _spend(state: StateBlock, line: int, _end: int, silent: bool) -> bool:
    env: MutableMapping[str, Any] = state.env
    env["budget"].steps -= 1 if silent else 4
    if env["budget"].steps < 0:
        raise TooMuch(env["start"] + line, f"more than {MAX_STEPS:,} lines and blocks outside of code")
    if state.level > MAX_LEVELS:
        raise TooMuch(env["start"] + line, "lists and quotes nested too deeply")
    return False


def outline_of(lines: list[str], start: int, budget: Budget) -> Outline:
    """Read the lines from `start` on. Raises `TooMuch` when the budget is spent or the nesting too deep."""
    outline = Outline()
    tokens = _parser().parse("\n".join(lines[start:]), {"start": start, "budget": budget})
    for number, token in enumerate(tokens):
        if token.map is None:
            continue
        where = (token.map[0] + start, token.map[1] + start)
        if token.type == "inline":
            outline.prose.append(where)
        elif token.type == "heading_open" and token.level == 0:
            text = tokens[number + 1].content
            underlined = not token.markup.startswith("#")
            outline.headings.append(Heading(*where, int(token.tag[1:]), text, underlined))
        elif token.type == "list_item_open" and token.level == 1:
            outline.items.append(where)
        elif token.type == "fence" and token.level == 0:
            outline.fences.append(where)
        elif token.type == "html_block" and token.level == 0:
            outline.html.append(where)
    return outline
