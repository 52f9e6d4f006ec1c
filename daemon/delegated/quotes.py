"""Where a quote stands in what was sent, and whether an edit would apply there."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from delegated.prompt import Prompt

PARTLY: Final = "only a part of this file was sent and checked"
_HIDDEN: Final = re.compile(r"\[REDACTED:[^\]\n]{1,80}:([0-9a-f]{6})-[0-9]{1,9}\]")  # what was sent in a secret's place
# What a model makes of one that it does not repeat to the letter.
_ALIKE: Final = re.compile(r"[\[({<]\s*redacted\s*:|\bredacted\s*:\s*[\w-]+\s*:\s*[0-9a-f]{4}", re.IGNORECASE)
_NUMBER: Final = re.compile(r"^[ \t]*\d+\|[ ]?", re.MULTILINE)
_OCCURRENCES_CAP: Final = 1_000
WORDS: Final = ("logs", "issue", "context", "attempted_fixes", "questions")  # the request's own, quoted by these names
_EXTRAS: Final = ("changes", "commits")  # quoted by these names too; no code that is there now
_NONCES: Final = 20  # one is drawn for each prompt; a text that quotes others has more
_TRIVIAL: Final = 3  # a quote of fewer characters, spaces apart, stands everywhere and shows nothing


Mark = tuple[int, int]  # a line of the file, and an offset in it


@dataclass(frozen=True, slots=True)
class Place:
    """Where a quote stands: the text as it is there, and what was corrected. `code` when it is in a file."""

    path: str
    start_line: int
    end_line: int
    quote: str
    sha256: str
    note: str
    code: bool


@dataclass(frozen=True, slots=True)
class Spot:
    """What became of an edit: `before` and `after` as they would apply, and where; `span` tells overlaps."""

    path: str
    before: str
    after: str
    applies: bool
    start_line: int
    note: str
    span: tuple[Mark, Mark] = ((0, 0), (0, 0))


class _Piece:
    """One contiguous text that was sent, with its first line's number."""

    def __init__(self, path: str, text: str, first: int, sha256: str, *, code: bool) -> None:
        self.path, self.text, self.first, self.sha256, self.code = path, text, first, sha256, code

    @cached_property
    def starts(self) -> list[int]:
        return [0, *(found.end() for found in re.finditer("\n", self.text))]

    def line(self, offset: int) -> int:
        return self.first + bisect_right(self.starts, offset) - 1

    def mark(self, offset: int) -> Mark:
        line = bisect_right(self.starts, offset) - 1
        return self.first + line, offset - self.starts[line]

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    @cached_property
    def squashed_lines(self) -> list[str]:
        return [" ".join(line.split()) for line in self.lines]

    @cached_property
    def words(self) -> list[frozenset[str]]:
        return [frozenset(re.findall(r"\w+", line)) for line in self.lines]

    @cached_property
    def squashed(self) -> str:
        """The text with every run of white space as one space."""
        return " ".join(self.text.split())

    @cached_property
    def word_starts(self) -> tuple[list[int], list[int]]:
        """Where each word starts in `squashed` and in the text."""
        words = list(re.finditer(r"\S+", self.text))
        there, at = [], 0
        for word in words:
            there.append(at)
            at += word.end() - word.start() + 1
        return there, [word.start() for word in words]

    def exact(self, quote: str) -> Iterator[tuple[int, int]]:
        for at in _every(self.text, quote):
            yield at, at + len(quote)

    def loose(self, quote: str) -> Iterator[tuple[int, int]]:
        wanted = " ".join(quote.split())
        for at in _every(self.squashed, wanted):
            there, here = self.word_starts  # made only where something is found: most quotes stand as they are
            first, last = (bisect_right(there, offset) - 1 for offset in (at, at + len(wanted) - 1))
            yield here[first] + at - there[first], here[last] + at + len(wanted) - there[last]


class Sent:
    """What one prompt sent: the lines of its files, the request's own words, and what changed."""

    def __init__(self, prompt: Prompt) -> None:
        self.files: dict[str, list[_Piece]] = {}
        self._totals: dict[str, int] = {}
        self._shown: dict[str, int] = {}
        for excerpt in prompt.context.excerpts:
            piece = _Piece(excerpt.path, excerpt.text, excerpt.start_line, excerpt.sha256, code=True)
            self.files.setdefault(excerpt.path, []).append(piece)
            self._totals[excerpt.path] = excerpt.total_lines
            seen = self._shown.get(excerpt.path, 0)
            self._shown[excerpt.path] = seen + max(0, excerpt.end_line - excerpt.start_line + 1)
        self._placeholders = [each.placeholder for each in prompt.redactions]
        request = prompt.request
        words = (
            request.logs,
            request.issue,
            request.context,
            "\n".join(request.attempted_fixes),
            "\n".join(request.questions),
        )
        self.words = {
            name: _Piece(name, text, 1, hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(), code=False)
            for name, text in (*zip(WORDS, words, strict=True), *_extras(prompt))
            if text
        }

    def whole(self, path: str) -> bool:
        """Say whether every line of a sent file went along."""
        return self._shown[path] >= self._totals[path]

    def text(self, path: str) -> str | None:
        """Return all of a sent file as it was sent, placeholders included; None when only a part of it was."""
        pieces = sorted(self.files[path], key=lambda piece: piece.first)
        return "".join(piece.text for piece in pieces) if self.whole(path) else None

    def sha256(self, path: str) -> str:
        """Return the hash of the whole original file of which something was sent."""
        return self.files[path][0].sha256

    def resolve(self, given: str) -> str | None:
        """Return the path of the sent file that is meant, or None: the same, or the only one with the same ending."""
        path = re.sub(r":\d+(?:[:-]\d+)?$", "", given.strip().strip("`'\"").replace("\\", "/")).removeprefix("./")
        if path in self.files:
            return path
        if not path:
            return None
        tail = "/" + path.lstrip("/")
        alike = [sent for sent in self.files if ("/" + sent).endswith(tail) or tail.endswith("/" + sent)]
        return alike[0] if len(alike) == 1 else None

    def find(self, given: str, quote: str, start: int, end: int) -> Place | str:
        """Look a quote up: its place, or the reason why it counts for nothing."""
        if len("".join(quote.split())) < _TRIVIAL or not re.search(r"\w", quote):
            return "too short to show anything"
        path = self.resolve(given)
        name = given.strip().strip("`<>").lower()
        if path is not None:
            found = _best(self.files[path], quote, start, end)
            if found is not None:
                return found
            return f"it does not stand in {path} as sent" + self._elsewhere(quote, path)
        if not name or name in self.words or name in ("log", "request", "traceback"):
            pieces = [self.words[name]] if name in self.words else list(self.words.values())
            found = _best(pieces, quote, start, end)
            if found is None and not name:
                found = self._only_file(quote, start, end)
            return found if found is not None else "it does not stand in the request" + self._elsewhere(quote, "")
        return "no file of this path was sent" + self._elsewhere(quote, "")

    def edit(self, given: str, before: str, after: str) -> Spot:
        """Check that `before` stands exactly once in the file as sent, and fit the edit's white space to it."""
        path = self.resolve(given)
        if path is None:
            return Spot(given, before, after, False, 0, "this file was not sent")
        if not before.strip():
            return Spot(path, before, after, False, 0, "`before` is empty: there is nothing to replace")
        if before == after:
            return Spot(path, before, after, False, 0, "it changes nothing")
        if _HIDDEN.search(before) or _HIDDEN.search(after) or self._nearly_hidden(before, after):
            note = "it holds the placeholder of a secret, in whose place something else stands in the file"
            return Spot(path, before, after, False, 0, note)
        pieces = self.files[path]
        partly = "" if self.whole(path) else PARTLY
        variants = [(before, after)]
        if _numbered(before):
            variants.append((_NUMBER.sub("", before), _NUMBER.sub("", after) if _numbered(after) else after))
        for old, new in variants:
            matches = _matches(pieces, old)
            if len(matches) > 1:
                note = f"`before` stands {len(matches)} times in this file: lines {_some(line for line, _ in matches)}"
                return Spot(path, old, new, False, 0, note)
            for begin, finish in matches.items():
                fitted = _line_ends(new, pieces)
                note = "; ".join(filter(None, ("line ends fitted to the file" if fitted != new else "", partly)))
                return Spot(path, old, fitted, True, begin[0], note, (begin, finish))
        return _fitted(path, pieces, *variants[-1], partly)

    def _nearly_hidden(self, before: str, after: str) -> bool:
        """Say whether an edit brings in what is meant for a placeholder and is none: cut, in other letters, escaped."""
        return any(len(near.findall(after)) > len(near.findall(before)) for near in (_ALIKE, *self._nonces))

    @cached_property
    def _nonces(self) -> tuple[re.Pattern[str], ...]:
        pieces = (*(piece for some in self.files.values() for piece in some), *self.words.values())
        found = {nonce for piece in pieces for nonce in _HIDDEN.findall(piece.text)}
        return tuple(
            re.compile(f"(?<![0-9a-f]){nonce}(?![0-9a-f])", re.IGNORECASE) for nonce in sorted(found)[:_NONCES]
        )

    def _only_file(self, quote: str, start: int, end: int) -> Place | None:
        places = [found for pieces in self.files.values() if (found := _best(pieces, quote, start, end))]
        return places[0] if len(places) == 1 else None

    def _elsewhere(self, quote: str, but: str) -> str:
        others = [pieces for path, pieces in self.files.items() if path != but]
        for pieces in (*others, *([piece] for piece in self.words.values())):
            found = _best(pieces, quote, 0, 0)
            if found is not None:
                return f"; it stands in {found.path} line {found.start_line}"
        return ""


def _extras(prompt: Prompt) -> Iterator[tuple[str, str]]:
    for extra in prompt.context.extras:
        if extra.kind in _EXTRAS:
            yield extra.kind, extra.text


def _every(text: str, wanted: str) -> Iterator[int]:
    at = text.find(wanted) if wanted else -1
    for _ in range(_OCCURRENCES_CAP):
        if at < 0:
            return
        yield at
        at = text.find(wanted, at + 1)


def _line_ends(text: str, pieces: Sequence[_Piece]) -> str:
    """End the lines of a replacement as the file does, where it ends all of them in CRLF."""
    if "\n" not in text or any(re.search(r"(?<!\r)\n", piece.text) for piece in pieces):
        return text
    return re.sub(r"\r?\n", "\r\n", text) if any("\r\n" in piece.text for piece in pieces) else text


def spans(text: str, edits: Iterable[tuple[str, str]]) -> list[tuple[int, int, str]] | str:
    """Return where edits (before, after) apply in a text, as (start, end, after); or why one of them does not."""
    found: list[tuple[int, int, str]] = []
    for before, after in edits:
        at = text.find(before) if before else -1
        if at < 0:
            return "`before` does not stand in the whole file"
        if text.find(before, at + 1) >= 0:
            return "`before` stands more than once in the whole file"
        if any(at < end and start < at + len(before) for start, end, _ in found):
            return "it changes the same text as an edit before it"
        found.append((at, at + len(before), after))
    return sorted(found)


def spliced(text: str, changes: Iterable[tuple[int, int, str]]) -> str:
    """Put replacements (start, end, after) that do not overlap into a text."""
    pieces, at = [], 0
    for start, end, after in sorted(changes):
        pieces += [text[at:start], after]
        at = end
    return "".join([*pieces, text[at:]])


def _numbered(text: str) -> bool:
    """Say whether every line bears the `  123| ` that it was sent with."""
    rows = [row for row in text.split("\n") if row.strip()]
    return bool(rows) and all(_NUMBER.match(row) for row in rows)


def _best(pieces: Sequence[_Piece], quote: str, start: int, end: int) -> Place | None:
    """Return the occurrence of a quote that is nearest to the lines given: as it is, then with white space forgiven."""
    bare = quote.replace("\r\n", "\n").strip("\n")
    fenced = re.fullmatch(r"(`{3,})[^\n`]*\n(.*)\n\1", bare, re.DOTALL)
    bare = fenced[2] if fenced else bare
    variants = [bare, _NUMBER.sub("", bare)] if _numbered(bare) else [bare]
    for loose in (False, True):
        for wanted in variants:
            found = [
                (abs(piece.line(s) - start) if start > 0 else 0, piece.line(s), s, e, piece)
                for piece in pieces
                for s, e in (piece.loose(wanted) if loose else piece.exact(wanted))
            ]
            if found:
                _, _, s, e, piece = min(found, key=lambda each: each[:2])
                return _place(piece, s, e, wanted, start, end)
    return None


def _place(piece: _Piece, s: int, e: int, wanted: str, start: int, end: int) -> Place:
    first, last = piece.line(s), piece.line(e - 1)
    notes = []
    if start > 0 and (start, max(start, end)) != (first, last):
        notes.append(f"lines corrected: the answer said {_range(start, end)}")
    quote = piece.text[s:e].replace("\r\n", "\n")
    if quote != wanted:
        notes.append("white space differs in the answer")
    margin = piece.text[piece.starts[first - piece.first] : s]
    if not margin.strip():
        quote = margin + quote  # a quote that begins a line is shown with its indentation
    return Place(piece.path, first, last, quote, piece.sha256, "; ".join(notes), piece.code)


def _matches(pieces: Sequence[_Piece], old: str) -> dict[Mark, Mark]:
    return {piece.mark(s): piece.mark(e) for piece in pieces for s, e in piece.exact(old)}


def _fitted(path: str, pieces: Sequence[_Piece], before: str, after: str, partly: str) -> Spot:
    """Fit an edit whose lines stand in the file with other white space, or say what may have been meant.

    Spaces within a line and at its end are forgiven. Indentation only when it is off by the same margin in every
    line, so that `after` can be moved by it too: anything looser could change what the code means.
    """
    old, new = (text.replace("\r\n", "\n").strip("\n").split("\n") for text in (before, after))
    wanted = [" ".join(row.split()) for row in old]
    found: dict[int, tuple[_Piece, int]] = {}
    for piece in pieces:
        have = piece.squashed_lines
        for at in range(len(have) - len(wanted) + 1):
            if have[at] == wanted[0] and have[at : at + len(wanted)] == wanted:
                found[piece.first + at] = piece, at
    if len(found) > 1:
        note = f"`before` stands {len(found)} times in this file, white space apart: lines {_some(found)}"
        return Spot(path, before, after, False, 0, note)
    for line, (piece, at) in found.items():
        there = [row.rstrip("\r") for row in piece.lines[at : at + len(old)]]
        moved = _moved(old, there, new)
        if moved is None:
            note = f"did you mean line {line}? The indentation differs"
            return Spot(path, before, after, False, 0, note)
        s, e = piece.starts[at], piece.starts[at] + len("\n".join(piece.lines[at : at + len(old)]))
        actual = piece.text[s:e].removesuffix("\r")
        fitted = "\n".join(moved)
        if "\r\n" in piece.text:
            fitted = fitted.replace("\n", "\r\n")
        note = "; ".join(filter(None, ("white space fitted to the file", partly)))
        return Spot(path, actual, fitted, True, line, note, (piece.mark(s), piece.mark(e)))
    return Spot(path, before, after, False, 0, "`before` does not stand in this file" + _did_you_mean(pieces, old))


def _moved(old: list[str], there: list[str], new: list[str]) -> list[str] | None:
    """Return `new` moved by the margin between `old` and the lines that are there; None when it is not one margin."""
    pairs = [(_margin(o), _margin(t)) for o, t in zip(old, there, strict=True) if o.strip()]
    longer = {t.removesuffix(o) for o, t in pairs if t.endswith(o)}
    shorter = {o.removesuffix(t) for o, t in pairs if o.endswith(t)}
    if len(longer) == 1 and all(t.endswith(o) for o, t in pairs):
        by = longer.pop()
        return [by + row if row.strip() else row for row in new]
    if len(shorter) == 1 and all(o.endswith(t) for o, t in pairs):
        by = shorter.pop()
        if all(row.startswith(by) or not row.strip() for row in new):
            return [row.removeprefix(by) for row in new]
    return None


def _margin(row: str) -> str:
    return row[: len(row) - len(row.lstrip())]


def _did_you_mean(pieces: Sequence[_Piece], old: Sequence[str]) -> str:
    row = next((row for row in old if row.strip()), "")
    wanted = frozenset(re.findall(r"\w+", row))
    best, place = 0.0, ""
    for piece in pieces:
        for at, words in enumerate(piece.words):
            alike = len(words & wanted) / len(words | wanted) if words and wanted else 0.0
            if alike > best:
                best, place = alike, f"line {piece.first + at}: {' '.join(piece.lines[at].split())[:120]}"
    return f"; did you mean {place}" if best >= 0.5 else ""


def _range(start: int, end: int) -> str:
    return f"{start}-{end}" if end > start else f"{start}"


def _some(lines: Iterable[int]) -> str:
    ordered = sorted(lines)
    return ", ".join(map(str, ordered[:5])) + (", …" if len(ordered) > 5 else "")
