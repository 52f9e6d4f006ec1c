"""Comments in code that delegate: where `DELEGATE TO GPT-4O: …` stands in one, and what it asks.

Read by the line, not by a parser for each language: a comment is what begins as one does in files of this name. The
text is a stranger's, so every repeat that is looked for is bounded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Final

from delegated.cuts import head
from delegated.request import Request
from delegated.request.marks import fence, phrase

MAX_TEXT: Final = 1 << 20  # characters of one file that are looked at
MANY: Final = 8  # comments that appear at once: more are no person's, but a program's, an archive's or a patch's
_MOST: Final = 20  # in one file
_LINES: Final = 40  # of one comment
_OPENINGS: Final = 100  # on one line
_LENGTH: Final = 4_000  # characters of one comment

_MAYBE: Final = re.compile(r"delegate[ \t]+to[ \t]+gpt", re.IGNORECASE)
_QUOTES: Final = "\"'`"


@dataclass(frozen=True, slots=True)
class _Style:
    """How a language writes comments: the marks that last to the end of the line, and the pairs around a block."""

    lines: tuple[str, ...] = ()
    blocks: tuple[tuple[str, str], ...] = ()


_HASH: Final = "py pyi pyx rb sh bash zsh fish yaml yml toml pl pm r jl ex exs cmake mk nix cfg conf properties"
_SLASHES: Final = (
    "js jsx mjs cjs ts tsx mts cts java kt kts go rs c h cc cpp cxx hpp hh cs swift scala dart groovy gradle proto zig"
    " m mm scss less sol v sv"
)
_DASHES: Final = "hs elm adb ads vhd vhdl"
_SEMICOLON: Final = "el lisp lsp clj cljs cljc scm rkt asm s"
_C: Final = ("/*", "*/")
_MARKUP: Final = ("<!--", "-->")
_STYLES: Final[Mapping[str, _Style]] = {
    **dict.fromkeys(_HASH.split(), _Style(("#",))),
    **dict.fromkeys(_SLASHES.split(), _Style(("//",), (_C,))),
    **dict.fromkeys(("php", "tf", "hcl"), _Style(("//", "#"), (_C,))),
    **dict.fromkeys(("ps1", "psm1"), _Style(("#",), (("<#", "#>"),))),
    **dict.fromkeys(_DASHES.split(), _Style(("--",), (("{-", "-}"),))),
    **dict.fromkeys(_SEMICOLON.split(), _Style((";",))),
    **dict.fromkeys(("tex", "sty", "erl", "hrl"), _Style(("%",))),
    **dict.fromkeys(("html", "htm", "xml", "xhtml", "svg", "md", "markdown"), _Style((), (_MARKUP,))),
    **dict.fromkeys(("vue", "svelte"), _Style(("//",), (_C, _MARKUP))),
    **dict.fromkeys(("ml", "mli"), _Style((), (("(*", "*)"),))),
    "css": _Style((), (_C,)),
    "sql": _Style(("--",), (_C,)),
    "lua": _Style(("--",), (("--[[", "]]"),)),
    "ini": _Style((";", "#")),
    "vim": _Style(('"',)),
}
_BY_NAME: Final = {"makefile": "mk", "dockerfile": "sh", "rakefile": "rb", "gemfile": "rb", "cmakelists.txt": "cmake"}


@dataclass(frozen=True, slots=True)
class Remark:
    """A comment that delegates: the line of the phrase (1-based), the last line of the comment, and what it asks."""

    line: int
    end: int
    text: str


def known(path: str) -> bool:
    """Say whether it is known how files of this name write comments."""
    return _style(path) is not None


def find(path: str, text: str) -> tuple[Remark, ...]:
    """Return the comments of a file that delegate, from the first on; each asks something.

    A comment goes on over the lines below it that continue it. In Markdown a fenced block is a quotation; elsewhere a
    mark behind code on its line is taken for part of a string where the same quote stands open before and behind it.
    """
    style = _style(path)
    if style is None or _MAYBE.search(text, 0, MAX_TEXT) is None:
        return ()
    lines = text[:MAX_TEXT].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    quoted = _fenced(lines) if path.lower().endswith((".md", ".markdown")) else frozenset()
    found: list[Remark] = []
    for at, line in enumerate(lines):
        if at in quoted or (found and at < found[-1].end) or _MAYBE.search(line) is None:
            continue
        remark = _read(lines, at, style)
        if remark is not None:
            found.append(remark)
            if len(found) == _MOST:
                break
    return tuple(found)


def new(path: str, remarks: Sequence[Remark], before: bytes | None) -> list[Remark]:
    """Return the comments that did not ask the same in the file as it was before; None: there was none."""
    old = {each.text for each in find(path, (before or b"").decode("utf-8-sig", "replace"))}
    return [each for each in remarks if each.text not in old]


def key(path: str, remark: Remark) -> str:
    """Name the request of a comment: by the file and the words, not the line, so that it is the same wherever it moves.

    Nothing else tells two savings of one file apart, and nothing else needs to be remembered.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.rpartition("/")[2])[:40].strip("-") or "file"
    said = "\0".join((path, " ".join(remark.text.split())))
    return f"comment-{name}-{hashlib.sha256(said.encode('utf-8', 'replace')).hexdigest()[:12]}"


def request(path: str, remark: Remark) -> Request:
    """Make the request of a comment in a file of the workspace; `path` is relative to its root."""
    return Request(remark.text, context=place(path, remark.line), files=(path,))


def place(path: str, line: int) -> str:
    """Say which place is asked about, in the form of a compiler: what stands there is then sent first."""
    return f"{path}:{line}: note: this is what is asked about"


def _style(path: str) -> _Style | None:
    name = path.rpartition("/")[2].lower()
    ending = _BY_NAME.get(name, name.rpartition(".")[2] if "." in name else "")
    return _STYLES.get(ending)


@cache
def _opening(style: _Style) -> re.Pattern[str]:
    """Match what opens a block, and at the begin of a line or behind white space a mark, repeated ones (`///`) too."""
    blocks = "|".join(re.escape(opening) + r"\*?" for opening, _ in sorted(style.blocks, key=lambda b: -len(b[0])))
    marks = "|".join(f"{re.escape(mark)}(?:{re.escape(mark[-1])}){{0,80}}!?" for mark in style.lines)
    return re.compile("|".join(filter(None, (blocks, rf"(?:^|(?<=\s))(?:{marks})" if marks else ""))))


def _read(lines: Sequence[str], at: int, style: _Style) -> Remark | None:
    line = lines[at]
    for match in islice(_opening(style).finditer(line), _OPENINGS):
        said = _said(line[match.end() :])
        if said is None or _in_string(line, match.start(), match.end()):
            continue
        closing = next((closing for opening, closing in style.blocks if match[0].startswith(opening)), None)
        if closing is not None:
            return _block(lines, at, said, closing)
        alone = not line[: match.start()].strip()
        return _made(at, [said, *(_below(lines, at, match[0]) if alone else ())])
    said = _said(line.lstrip().removeprefix("*"))
    if said is None:
        return None
    before = "\n".join(lines[max(0, at - _LINES) : at])
    for opened, closing in style.blocks:
        if before.rfind(opened) > before.rfind(closing):
            return _block(lines, at, said, closing)
    return None


def _said(text: str) -> str | None:
    """Return what follows the phrase; behind `>` it is a quotation."""
    return None if text.lstrip().startswith(">") else phrase(text)


def _in_string(line: str, start: int, end: int) -> bool:
    before, after = line[:start], line[end:]
    return any(before.count(quote) % 2 and quote in after for quote in _QUOTES)


def _below(lines: Sequence[str], at: int, mark: str) -> Iterator[str]:
    """Yield the lines below that begin with the same mark: the comment goes on."""
    for line in lines[at + 1 : at + _LINES]:
        text = line.strip()
        if not text.startswith(mark) or phrase(text.removeprefix(mark)) is not None:
            return
        yield text.removeprefix(mark).strip()


def _block(lines: Sequence[str], at: int, said: str, closing: str) -> Remark | None:
    words: list[str] = []
    for line in (said, *lines[at + 1 : at + _LINES]):
        text, closed, _ = line.partition(closing)
        text = text.strip()
        words.append(text.removeprefix("*").strip() if words else text)
        if closed:
            break
    return _made(at, words)


def _made(at: int, words: Sequence[str]) -> Remark | None:
    text = head("\n".join(words).strip(), _LENGTH)
    return Remark(at + 1, at + len(words), text) if text else None


def _fenced(lines: Sequence[str]) -> frozenset[int]:
    """Return the lines of fenced blocks."""
    found, opening = set(), None
    for at, line in enumerate(lines):
        if opening is not None:
            found.add(at)
            opening = None if opening.closed_by(line) else opening
        else:
            opening = fence(line)
    return frozenset(found)
