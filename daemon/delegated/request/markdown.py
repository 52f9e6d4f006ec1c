"""A Markdown request: CommonMark decides what is a heading and what is code; every text is a slice of the source."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from delegated import cuts
from delegated.errors import Problem, RequestError
from delegated.request import embedded, fields, tree
from delegated.request.fields import Gathered, Given
from delegated.request.marks import (
    CODE_SPAN,
    COMMENT,
    END,
    RULE,
    clean,
    clean_path,
    dedent,
    fence,
    heading,
    phrase,
    section,
    unfence,
)
from delegated.request.outline import Budget, Heading, Outline, TooMuch, outline_of
from delegated.request.tree import Node

# A path line longer than this is not searched for code spans, whose cost grows faster than the line.
_MAX_SPAN_LINE: Final = 50_000
_MAX_REREADS: Final = 8

_FRONT_KEY: Final = re.compile(r"""(?:[A-Za-z_][\w-]*|"[^"]*"|'[^']*')[ \t]*:(?:[ \t]|$)|\{""")
_METADATA: Final = re.compile(r"\*\*([\w /-]{1,40}):?\*\*:?[ \t]")
_METADATA_KEYS: Final = frozenset(
    (
        *("author", "by", "created", "date", "from", "generated", "id", "model", "priority", "requested by"),
        *("request id", "source", "status", "timestamp", "time", "workspace"),
    )
)
_GENERIC_TITLE: Final = re.compile(
    r"\b(?:delegation|openai|gpt[- ]?4o)\b.*\brequest\b|^\W*(?:delegation )?request\W*$", re.I
)
_NOTHING: Final = re.compile(r"[\W_]*(?:none|n/?a|nothing|no fixes attempted)(?: yet| so far| provided)?[\W_]*", re.I)
_BULLET: Final = re.compile(r"([ \t]*)([-+*]|\d{1,9}[.)])([ \t]+|$)")


@dataclass(slots=True)
class _Section:
    """A heading and the lines below it; `field` is None where the heading is not one of ours."""

    field: str | None
    heading: Heading
    end: int = 0


def read(text: str) -> Gathered:
    """Read a Markdown request. Raises `RequestError` for front matter that cannot be read and for hostile text."""
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if lines and END.match(lines[-1]):
        lines.pop()
    front, start = _front_matter(lines)
    gathered = fields.from_tree(front) if front is not None else Gathered()
    try:
        _Page(lines, start, gathered).read()
    except TooMuch as error:
        problem = Problem(error.line + 1, error.found, "put logs and code into fenced blocks (```)")
        raise RequestError((problem,)) from error
    return gathered


def _front_matter(lines: list[str]) -> tuple[Node | None, int]:
    """Read the YAML between two `---` lines at the top; return it and the line where the text starts.

    A `---` with anything but a key below it is a line across the page.
    """
    if not lines or lines[0].rstrip() != "---":
        return None, 0
    first = next((line for line in lines[1:] if line.strip() and not line.startswith("#")), "---")
    closing = first.rstrip() in ("---", "...")
    if not closing and not _FRONT_KEY.match(first):
        return None, 0
    end = next((at for at in range(1, len(lines)) if lines[at].rstrip() in ("---", "...")), None)
    if closing and (end is None or any(line.strip() for line in lines[1:end])):
        return None, 0
    if end is None:
        problem = Problem(1, "front matter that is never closed", "end it with a line `---`")
        raise RequestError((problem,), unfinished=True)
    node = tree.read_yaml("\n".join(lines[1:end]), first_line=2)
    return (None if node.kind == "null" else node), end + 1


class _Page:
    """One reading of one Markdown text, from line `start` on."""

    def __init__(self, lines: list[str], start: int, gathered: Gathered) -> None:
        self.lines = lines
        self.start = start
        self.gathered = gathered
        self.outline = Outline()
        self.sections: list[_Section] = []
        self.title: Heading | None = None
        self.gone: set[int] = set()
        self.covered: list[tuple[int, int]] = []
        self.titled = False
        self.paired = False
        self.patience = embedded.Patience(3 * len(lines))

    def read(self) -> None:
        """Fill `gathered`."""
        self._divide()
        self._drop_comments()
        ours = [part for part in self.sections if part.field]
        if not ours and not self.covered:
            self.sections = []
        has_issue = any(part.field == "issue" for part in ours) or any(g.field == "issue" for g in self.gathered.given)
        said = None if has_issue else self._phrase()
        front = self._preamble(keep_title=has_issue or said is not None)
        if not has_issue:
            self._give("issue", "issue", Node("text", *((said[0] + 1, said[1]) if said else (self.start + 1, front))))
        if (has_issue or said) and front:
            self._give("context", "context", Node("text", self.start + 1, front))
        for part in self.sections:
            self._read_section(part)
        self._tell_missing(has_issue)

    def _give(self, name: str, key: str, node: Node) -> None:
        self.gathered.given.append(Given(name, key, node))

    def _warn(self, line: int, what: str) -> None:
        self.gathered.warnings.append(f"line {line + 1}: {what}")

    # What belongs where.

    def _divide(self) -> None:
        """Cut the text into sections, and take the embedded files out."""
        budget = Budget()
        at, rereads = self.start, 0
        outline = outline_of(self.lines, at, budget)
        headings = iter(outline.headings)
        while at < len(self.lines):
            files = self._add_sections(head for head in headings if head.start >= at)
            until = files[0] if files else len(self.lines)
            self.outline.add(outline, at, until)
            if self.sections and not self.sections[-1].end:
                self.sections[-1].end = until
            if files is None:
                return
            at = self._embedded(*files)
            if self.paired and rereads < _MAX_REREADS:
                rereads += 1
                outline = outline_of(self.lines, at, budget)
                headings = iter(outline.headings)

    def _add_sections(self, headings: Iterable[Heading]) -> tuple[int, int, int] | None:
        """Add sections up to embedded files; return where those start, where their first line is, and the level."""
        for head in headings:
            current = self.sections[-1] if self.sections and not self.sections[-1].end else None
            name = section(head.text)
            if name is None and (head.underlined or (current and head.level > current.heading.level)):
                holds_files = current is not None and current.field == "files" and not head.underlined
                if holds_files and embedded.opens(self.lines, head.start) is not None:
                    return head.start, head.start, head.level - 1
                if head.underlined:
                    self._maybe_title(head)
                continue
            if name is None and self._maybe_title(head):
                continue
            if current:
                current.end = head.start
            if name == "contents":
                return head.start, head.end, head.level
            self.sections.append(_Section(name, head))
        return None

    def _maybe_title(self, head: Heading) -> bool:
        """Take the first heading of the first level as the page's title, if nothing but metadata stands above it."""
        if head.level != 1 or self.titled or self.sections or self.covered:
            return False
        self.titled = True
        above = (line.strip() for line in self.lines[self.start : head.start])
        if any(line and not _is_metadata(line) and not COMMENT.match(line) and not RULE.match(line) for line in above):
            return False
        self.title = head
        return True

    def _embedded(self, start: int, first: int, level: int) -> int:
        reading = embedded.read(self.lines, first, level, self.patience)
        self.paired = reading.paired
        self.gathered.contents += reading.files
        self.covered.append((start, reading.end))
        if reading.unclosed is not None:
            self._warn(reading.unclosed, "this fence is never closed; all below it was taken as the file's text")
        stray = clean("\n".join(self.lines[at] for at in reading.strays))
        if stray:
            self._warn(reading.strays[0], "text under File Contents without a path and a fence went to the context")
            self._give("context", "context", Node("text", reading.strays[0] + 1, stray))
        elif not reading.files:
            self._warn(start, "no file under File Contents: each is a heading `### path` and a fenced block")
        return reading.end

    def _drop_comments(self) -> None:
        for start, end in self.outline.html:
            block = "\n".join(self.lines[start:end])
            if not block.lstrip().startswith("<!--"):
                continue
            close = block.find("-->")
            if close < 0:
                self._warn(start, "this comment is never closed; all below it was read as part of it")
            elif not block[close + 3 :].strip():
                self.gone.update(range(start, end))
        for start, end in self.outline.fences:
            opening = fence(self.lines[start])
            closed = end - start > 1 and opening is not None and opening.closed_by(self.lines[end - 1])
            if not closed and any(section((heading(line) or (0, ""))[1]) for line in self.lines[start + 1 : end]):
                self._warn(start, "this fence is never closed; the headings below it were read as code")

    # What it says.

    def _phrase(self) -> tuple[int, str] | None:
        """Find the first line outside of code that says `DELEGATE TO GPT-4O: …`, and take it out of the text."""
        for start, end in self.outline.prose:
            for at in range(start, end):
                if said := phrase(self.lines[at]):
                    self.gone.add(at)
                    return at, said
        return None

    def _preamble(self, *, keep_title: bool) -> str:
        """Return what stands above the first section, without a title that only says that this is a request."""
        end = min(
            [part.heading.start for part in self.sections] + [start for start, _ in self.covered] + [len(self.lines)]
        )
        kept = []
        for at in range(self.start, end):
            if at in self.gone:
                continue
            line = self.lines[at]
            if self.title and self.title.start <= at < self.title.end:
                if at == self.title.start and not _GENERIC_TITLE.search(self.title.text):
                    kept += [line if keep_title else self.title.text, ""]
            elif not _is_metadata(line) and (line.strip() or kept[-1:] != [""]):
                kept.append(line)
        while kept and (not kept[0].strip() or RULE.match(kept[0])):
            kept.pop(0)
        return self._tidy(kept)

    @staticmethod
    def _tidy(lines: list[str]) -> str:
        while lines and (not lines[-1].strip() or RULE.match(lines[-1])):
            lines.pop()
        return clean(unfence(clean("\n".join(lines))))

    def _lines(self, start: int, end: int) -> list[str]:
        return [self.lines[at] for at in range(start, end) if at not in self.gone]

    def _read_section(self, part: _Section) -> None:
        head = part.heading
        first = next((at for at in range(head.end, part.end) if self.lines[at].strip()), head.start) + 1
        if part.field is None:
            self._warn(head.start, f"unknown heading {cuts.head(head.text, 80)!r}; it went to the context")
            self._give(
                "context", head.text, Node("text", head.start + 1, self._tidy(self._lines(head.start, part.end)))
            )
        elif part.field == "files":
            self._give("files", head.text, Node("list", first, items=tuple(self._paths(head.end, part.end))))
        elif part.field in ("attempted_fixes", "questions"):
            self._give(part.field, head.text, Node("list", first, items=tuple(self._items(head.end, part.end))))
        else:
            text = self._tidy(self._lines(head.end, part.end))
            self._give(part.field, head.text, Node("text", first, text))

    def _items(self, start: int, end: int) -> Iterable[Node]:
        """Yield each item of the lists between two lines, and each text around them as an item of its own."""
        at = start
        every = self.outline.items
        listed = every[bisect_left(every, (start, 0)) : bisect_left(every, (end, 0))]
        for a, b in [*listed, (end, end)]:
            around = self._tidy(self._lines(at, a))
            if around and (listed or not _NOTHING.fullmatch(around)):
                yield Node("text", at + 1, around)
            if a < b:
                yield Node("text", a + 1, self._item(self._lines(a, b)))
            at = b

    @staticmethod
    def _item(lines: list[str]) -> str:
        bullet = _BULLET.match(lines[0]) if lines else None
        if bullet is None:
            return clean("\n".join(lines))
        marker = len(bullet[1].expandtabs(4)) + len(bullet[2])
        space = len((" " * marker + bullet[3]).expandtabs(4)) - marker
        # Five spaces or more are one space and indented code.
        width = marker + (space if 1 <= space <= 4 else 1)
        inside = [" " * marker + lines[0][bullet.end(2) :], *lines[1:]]
        return clean(unfence(clean("\n".join(dedent(inside, width)))))

    def _paths(self, start: int, end: int) -> Iterable[Node]:
        for at in range(start, end):
            line = self.lines[at]
            if at in self.gone or not line.strip() or fence(line) or RULE.match(line):
                continue
            bullet = _BULLET.match(line)
            listed = line[bullet.end() :] if bullet else line
            if "`" not in listed and _NOTHING.fullmatch(listed):
                continue
            for path in self._paths_in(listed, at):
                yield Node("text", at + 1, path)

    def _paths_in(self, line: str, at: int) -> Iterable[str]:
        """Yield the paths of a line: code spans if it starts with one, else what stands between commas."""
        span = CODE_SPAN.match(line.lstrip()) if len(line) <= _MAX_SPAN_LINE else None
        if span is None:
            for piece in fields.split_paths(line):
                path, dash, _ = piece.strip().partition(" - ")
                yield clean_path(path if dash and " " not in path else piece)
            return
        yield from (clean_path(match[2]) for match in CODE_SPAN.finditer(line))
        if re.search(r"\w{3}", CODE_SPAN.sub("", line)):
            self._warn(at, "the words beside the paths were not taken; say them under Context")

    def _tell_missing(self, has_issue: bool) -> None:
        hint = "write a heading `## Issue` with what is wrong below it, or a line `DELEGATE TO GPT-4O: …`"
        empty = next((part for part in self.sections if part.field == "issue"), None)
        if empty is not None:
            found = f"no text under the heading {cuts.head(empty.heading.text, 80)!r}"
            self.gathered.missing = Problem(empty.heading.start + 1, found, "say there what is wrong")
        elif self.sections or self.covered:
            names = (
                ", ".join(repr(cuts.head(part.heading.text, 40)) for part in self.sections[:10]) or "'File Contents'"
            )
            self.gathered.missing = Problem(self.start + 1, f"no issue; the headings are {names}", hint)
        elif not has_issue:
            where = "nothing below the front matter" if self.start else "the file holds no text"
            self.gathered.missing = Problem(max(self.start, 1), where, hint)


def _is_metadata(line: str) -> bool:
    """Recognise a line such as `**Timestamp**: …`, with which the original script began."""
    match = _METADATA.match(line.strip() + " ")
    return match is not None and match[1].strip().lower() in _METADATA_KEYS
