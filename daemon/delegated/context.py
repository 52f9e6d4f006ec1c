"""Which excerpts fit the budget, and what was left out, with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from types import MappingProxyType
from typing import Final

RADII: Final = (30, 20, 12, 6, 3, 1, 0)  # lines on either side of a mentioned one, from generous to bare
MAX_MENTIONS: Final = 200  # lines of one file
MIN_HEAD: Final = 10  # lines: a shorter beginning of a file tells nothing that its name does not
GUESSED: Final = "a guess"  # begins the reason of what nobody asked for
_GAP: Final = 3  # windows this close become one: a fold would cost as much as the lines


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that may go along: its path relative to the workspace (POSIX), its whole text as it may be sent
    (secrets already replaced), the SHA-256 of its original bytes, their number, and why it is a candidate.
    """

    path: str
    text: str
    sha256: str
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class Omitted:
    """A file or part that stays at home, and the reason a person can act on."""

    path: str
    reason: str

    @property
    def guessed(self) -> bool:
        """Say whether nobody asked for it: it was found, and others were found more likely."""
        return self.reason.startswith(GUESSED)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Whole lines of one file as they are sent: `start_line..end_line`, 1-based and inclusive, of `total_lines`.

    `text` is those lines without numbers, newline-terminated as in the file. `sha256` is of the original file.
    """

    path: str
    text: str
    start_line: int
    end_line: int
    total_lines: int
    sha256: str
    why: str

    @property
    def head(self) -> str:
        """Return what stands behind the tag that opens its block: its place, on one line."""
        return (
            f'path="{_attribute(self.path)}" lines="{self.start_line}-{self.end_line}" '
            f'total="{self.total_lines}" why="{_attribute(self.why)}"'
        )


@dataclass(frozen=True, slots=True)
class Extra:
    """What goes along beside files: its kind, which is the name of its block, its text as sent, and what it is."""

    kind: str
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Context:
    """The code that goes along. `tokens` counts the excerpts as rendered in the prompt."""

    excerpts: tuple[Excerpt, ...] = ()
    omitted: tuple[Omitted, ...] = ()
    warnings: tuple[str, ...] = ()
    tokens: int = 0
    extras: tuple[Extra, ...] = ()


def lines_of(text: str) -> list[str]:
    """Split a text into its lines with their ends. Only a line feed ends a line, as editors and compilers count."""
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def block_tag(texts: Iterable[str]) -> str:
    """Choose a tag (`file`, `file-1`, ...) whose blocks nothing in `texts` can open or close."""
    used = {int(number or 0) for text in texts for number in _TAG.findall(text)}
    free = next(number for number in range(len(used) + 1) if number not in used)
    return f"file-{free}" if free else "file"


_TAG: Final = re.compile(r"<\s{0,20}/?\s{0,20}file(?:-([0-9]{1,9}))?(?![\w-])", re.IGNORECASE)


def render_excerpt(excerpt: Excerpt, tag: str) -> str:
    """Write an excerpt as it stands in the prompt: a block with its place, and numbered lines."""
    width = max(4, len(str(excerpt.end_line)))
    numbered = [
        f"{number:>{width}}| {line}" for number, line in enumerate(lines_of(excerpt.text), start=excerpt.start_line)
    ]
    end = "" if numbered and numbered[-1].endswith("\n") else "\n"
    return f"<{tag} {excerpt.head}>\n{''.join(numbered)}{end}</{tag}>\n"


def read_excerpts(text: str, tag: str) -> Iterator[tuple[str, str]]:
    """Yield (head, lines without their numbers) of each block in a text, as `render_excerpt` wrote it.

    The last line of each comes with an end, also where the file's has none.
    """
    for block in re.finditer(rf"^<{tag} (path=\"[^\n]*\")>\n(.*?)^</{tag}>$", text, re.MULTILINE | re.DOTALL):
        rows = lines_of(block[2])
        yield block[1], "".join(row.partition("| ")[2] for row in rows)


def _attribute(value: str) -> str:
    """Escape a value so that it stays within its quotes and on its line."""
    return "".join(char if char.isprintable() else f"&#{ord(char)};" for char in escape(value))


def choose(
    files: Sequence[SourceFile],
    mentions: Mapping[str, Sequence[int]],
    budget: int,
    count: Callable[[str], int],
    *,
    guessed: Collection[str] = (),
    pinned: Mapping[str, Sequence[tuple[int, int]]] = MappingProxyType({}),
    pins: int = 0,
    omitted: Sequence[Omitted] = (),
    warnings: Sequence[str] = (),
) -> Context:
    """Fit `files` (most wanted first) into `budget` tokens as counted by `count`.

    `mentions` maps a path to the lines that logs or the request point at, most suspicious first. A file that fits goes
    whole; else excerpts around its mentioned lines; else its beginning; else its name only, in `omitted`. One large
    file never fails the rest: what the mentioned lines of later files need is kept free for them, but nothing is for
    files that were only `guessed` (paths; they come last). `pinned` are ranges of lines by path that go along whole,
    the first ones before the others, as far as `pins` tokens reach for one file. A path that is given twice counts
    once. `Context.tokens` is the sum over the excerpts, each as written by `render_excerpt` with `block_tag` of all the
    files' texts. Never raises.
    """
    choice = _Choice(files, mentions, budget, count)
    choice.pin(pinned, pins)
    return choice.made(frozenset(guessed), tuple(omitted), tuple(warnings))


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file with its lines, the mentioned ones among them, and the ranges that go along whole."""

    file: SourceFile
    lines: Sequence[str]
    mentioned: Sequence[int]
    pinned: Sequence[tuple[int, int]] = ()

    def excerpt(self, start: int, end: int, note: str = "") -> Excerpt:
        """Cut out the lines start..end."""
        why = "; ".join(part for part in (self.file.why, note) if part)
        text = "".join(self.lines[start - 1 : end])
        return Excerpt(self.file.path, text, start, end, len(self.lines), self.file.sha256, why)

    def windows(self, radius: int, mentions: int) -> tuple[Excerpt, ...]:
        """Cut out what is pinned and what is around the first so many mentioned lines; what touches becomes one."""
        spans: list[list[int]] = []
        around = [(max(1, line - radius), min(len(self.lines), line + radius)) for line in self.mentioned[:mentions]]
        for start, end in sorted((*self.pinned, *around)):
            if spans and start <= spans[-1][1] + 1 + _GAP:
                spans[-1][1] = max(spans[-1][1], end)
            else:
                spans.append([start, end])
        return tuple(self.excerpt(start, end, self._named(start, end)) for start, end in spans)

    def _named(self, start: int, end: int) -> str:
        lines = [str(line) for line in sorted(self.mentioned) if start <= line <= end]
        return f"lines around {', '.join(lines[:5])}{', ...' if len(lines) > 5 else ''}" if lines else ""


class _Choice:
    """The state of one choosing: what is left of the budget, and what was taken."""

    def __init__(
        self,
        files: Sequence[SourceFile],
        mentions: Mapping[str, Sequence[int]],
        budget: int,
        count: Callable[[str], int],
    ) -> None:
        self.candidates: list[_Candidate] = []
        firsts: dict[str, SourceFile] = {}
        for file in files:
            firsts.setdefault(file.path, file)
        for file in firsts.values():
            lines = lines_of(file.text)
            sound = (line for line in mentions.get(file.path, ()) if 1 <= line <= len(lines))
            self.candidates.append(_Candidate(file, lines, tuple(dict.fromkeys(sound))[:MAX_MENTIONS]))
        self.budget = budget
        self.left = budget
        self.count = count
        self.tag = block_tag(file.text for file in files)
        self.taken: dict[str, tuple[Excerpt, ...]] = {}
        self.reasons: dict[str, str] = {}
        self.wanted: dict[str, Sequence[tuple[int, int]]] = {}

    def pin(self, pinned: Mapping[str, Sequence[tuple[int, int]]], most: int) -> None:
        """Have ranges of lines go along whole, as far as `most` tokens reach for each file."""
        for number, candidate in enumerate(self.candidates):
            kept: list[tuple[int, int]] = []
            wanted = [each for each in pinned.get(candidate.file.path, ()) if 1 <= each[0] <= each[1]]
            for span in wanted:
                within = span[1] <= len(candidate.lines)
                if within and self._cost([candidate.excerpt(*each) for each in (*kept, span)]) <= most:
                    kept.append(span)
            self.wanted[candidate.file.path] = wanted
            self.candidates[number] = replace(candidate, pinned=tuple(kept))

    def made(self, guessed: frozenset[str], omitted: tuple[Omitted, ...], warnings: tuple[str, ...]) -> Context:
        """Choose, and say what was left out."""
        reserves = [
            0 if candidate.file.path in guessed else self._cost(candidate.windows(RADII[3], MAX_MENTIONS))
            for candidate in self.candidates
        ]
        too_large: list[_Candidate] = []
        for number, candidate in enumerate(self.candidates):
            kept_free = min(sum(reserves[number + 1 :]), max(self.left, 0) // 2)
            if not candidate.lines:
                self.reasons[candidate.file.path] = "the file is empty"
            elif not self._take_whole(candidate, kept_free) and not self._take_windows(candidate, kept_free):
                too_large.append(candidate)
        for candidate in self.candidates:
            self._grow(candidate)
        for number, candidate in enumerate(too_large):
            self._take_head(candidate, max(self.left, 0) // (len(too_large) - number))
        order = [candidate.file.path for candidate in self.candidates]
        return Context(
            excerpts=tuple(excerpt for path in order for excerpt in self.taken.get(path, ())),
            omitted=omitted + tuple(Omitted(path, self.reasons[path]) for path in order if path in self.reasons),
            warnings=warnings,
            tokens=self.budget - self.left,
        )

    def _cost(self, excerpts: Sequence[Excerpt]) -> int:
        return sum(self.count(render_excerpt(excerpt, self.tag)) for excerpt in excerpts)

    def _take(self, candidate: _Candidate, excerpts: tuple[Excerpt, ...], within: int) -> bool:
        cost = self._cost(excerpts)
        if not excerpts or cost > within:
            return False
        self.taken[candidate.file.path] = excerpts
        self.left -= cost
        return True

    def _take_whole(self, candidate: _Candidate, kept_free: int) -> bool:
        return self._take(candidate, (candidate.excerpt(1, len(candidate.lines)),), self.left - kept_free)

    def _grow(self, candidate: _Candidate) -> None:
        """Replace excerpts by the whole file where the later files left enough of the budget."""
        former = self.taken.get(candidate.file.path, ())
        if former and candidate.file.path not in self.reasons:
            return
        cost = self._cost(former)
        self.left += cost
        if candidate.lines and self._take_whole(candidate, 0):
            self.reasons.pop(candidate.file.path, None)
        else:
            self.left -= cost

    def _take_windows(self, candidate: _Candidate, kept_free: int) -> bool:
        for each in (candidate, replace(candidate, pinned=())):
            mentions = len(each.mentioned)
            while mentions or each.pinned:
                for radius in RADII:
                    excerpts = each.windows(radius, mentions)
                    if self._take(each, excerpts, self.left - kept_free):
                        self._note(each, excerpts)
                        return True
                if not mentions:
                    break
                mentions //= 2  # the later half is the less suspicious one
        return False

    def _take_head(self, candidate: _Candidate, within: int) -> None:
        """Take as many of the first lines as fit, found by halving, unless the whole was taken meanwhile."""
        if candidate.file.path in self.taken:
            return
        low, high = 0, len(candidate.lines) - 1
        while low < high:
            middle = (low + high + 1) // 2
            fits = self._cost((candidate.excerpt(1, middle, "its beginning only"),)) <= within
            low, high = (middle, high) if fits else (low, middle - 1)
        head = (candidate.excerpt(1, low, "its beginning only"),) if low >= MIN_HEAD else ()
        self._take(candidate, head, within)
        self._note(candidate, self.taken.get(candidate.file.path, ()))

    def _note(self, candidate: _Candidate, kept: Sequence[Excerpt]) -> None:
        """Record which lines stay out, and the numbers that say why."""
        total = len(candidate.lines)
        gaps: list[str] = []
        at = 1
        for excerpt in kept:
            if excerpt.start_line > at:
                gaps.append(f"{at}-{excerpt.start_line - 1}")
            at = excerpt.end_line + 1
        if at <= total:
            gaps.append(f"{at}-{total}")
        if not gaps:  # windows that together are the whole file
            return
        what = f"lines {', '.join(gaps)} left out" if kept else f"all {total:,} line{'s' * (total != 1)} left out"
        if lost := [each for each in self.wanted.get(candidate.file.path, ()) if not _covered(each, kept)]:
            what = f"the failing test in lines {', '.join(f'{a}-{b}' for a, b in lost)} did not fit; {what}"
        whole = self._cost((candidate.excerpt(1, total),))
        self.reasons[candidate.file.path] = (
            f"{what}: the whole file needs {whole:,} tokens, and the budget for code is {self.budget:,}"
        )


def _covered(span: tuple[int, int], kept: Sequence[Excerpt]) -> bool:
    return any(each.start_line <= span[0] and span[1] <= each.end_line for each in kept)
