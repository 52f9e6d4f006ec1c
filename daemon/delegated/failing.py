"""The test that failed: which one the words mean, and where it stands in its file."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from delegated.signals import language

MOST: Final = 3  # tests of one file
_MAX_TEXT: Final = 256 << 10
_MAX_SAID: Final = 200_000  # characters of the end of what was said
_MAX_TESTS: Final = 2_000
_MAX_TRIES: Final = 200_000  # of a name at a place
_MAX_LINES: Final = 400  # of one test

_PASSED: Final = re.compile(
    r"\b(?:PASSED|SKIPPED|XFAIL|XPASS)\b|^\s{0,20}(?:[\u2713\u2714\u221a]|ok\b|--- (?:PASS|SKIP))"
    r"|\.\.\. ?(?:ok|ignored)\s*$"
)
_WORD: Final = re.compile(r"\w+")
_NAMED: Final = {
    "python": r"^[ \t]{0,40}(?:async[ \t]{1,4})?def[ \t]{1,4}(test\w{0,200})",
    "go": r"^func[ \t]{1,4}((?:Test|Benchmark|Fuzz|Example)\w{0,200})\(",
    "rust": r"^[ \t]{0,40}(?:pub[ \t]{1,4})?(?:async[ \t]{1,4})?fn[ \t]{1,4}(\w{1,200})",
    "java": r"^[ \t]{1,12}(?:(?:public|private|protected|static|final)[ \t]{1,4}){0,3}(?:void|fun)[ \t]{1,4}"
    r"`?([\w $]{1,200}?)`?\(",
    "other": r"^[ \t]{1,40}(?:\w{1,20}[ \t]{1,4}){0,4}(?:def|fun|void|function|Task)[ \t]{1,4}"
    r"`?(\w[\w $]{0,200}?)`?[ \t]?(?:\(|$)",
}
_TITLED: Final = re.compile(
    r"^[ \t]{0,40}(?:it|test|specify)(?:\.\w{1,20}){0,2}(?:\([^)\n]{0,200}\))?\([ \t]{0,4}(['\"`])(.{1,300}?)\1",
    re.MULTILINE,
)
_DEFINES: Final = {of: re.compile(pattern, re.MULTILINE) for of, pattern in _NAMED.items()}
_MARKED: Final = ("rust", "java", "other")  # a test is told by its name or by what stands above it
_IS_TEST: Final = re.compile(r"(?i)test|\bfact\b|\btheory\b")
_CLOSING: Final = ("}", ")", "]", "end")
_ABOVE: Final = ("@", "#[", "//", "#", "*", "/*")


@dataclass(frozen=True, slots=True)
class Test:
    """One test: its name or title, and its lines, what stands directly above it included."""

    name: str
    start: int
    end: int


def failing(path: str, text: str, *, lines: Collection[int], said: str) -> tuple[Test, ...]:
    """Return the tests of a file that failed, at most `MOST`: those with one of `lines`, then those that `said` names.

    `lines` are what the trace names of this file, most suspicious first; `said` are logs and commands. A name on a line
    that tells of a test that passed does not count. Never raises.
    """
    found = sorted(_tests(path, text[:_MAX_TEXT]), key=lambda test: test.start)
    held = [test for line in lines for test in found if test.start <= line <= test.end]
    words = "\n".join(line for line in said[-_MAX_SAID:].split("\n") if not _PASSED.search(line))
    places = _places({test.name for test in found}, words)
    named = [(places[test.name], test) for test in found if test.name in places]
    named.sort(key=lambda each: (each[0], each[1].start))
    return tuple(dict.fromkeys((*held, *(test for _, test in named))))[:MOST]


def _places(names: Collection[str], words: str) -> dict[str, int]:
    """Return where each name that stands in `words` as a whole first does so; looked for by its first word."""
    by_word: dict[str, list[tuple[str, int]]] = {}
    for name in names:
        if first := _WORD.search(name):
            by_word.setdefault(first[0], []).append((name, first.start()))
    found: dict[str, int] = {}
    tries = _MAX_TRIES
    for word in _WORD.finditer(words):
        waiting = by_word.get(word[0], [])
        for name, before in tuple(waiting):
            tries -= 1
            if tries < 0:  # titles by the hundred that all begin with the same word
                return found
            at = word.start() - before
            end = at + len(name)
            whole = at >= 0 and not _WORD.match(words[at - 1 : at]) and not _WORD.match(words, end)
            if whole and words.startswith(name, at):
                found[name] = at
                waiting.remove((name, before))
    return found


def _tests(path: str, text: str) -> Iterator[Test]:
    of = language(path)
    rows = text.split("\n")
    for name, start in islice(_heads(of, text), _MAX_TESTS):
        first = _first(rows, start)
        if of not in _MARKED or _IS_TEST.search("\n".join(rows[first - 1 : start])):
            yield Test(name, first, _last(rows, start))


def _heads(of: str, text: str) -> Iterator[tuple[str, int]]:
    """Yield the name of each test and the line, from 1, that begins it."""
    pattern = _TITLED if of == "javascript" else _DEFINES.get(of)
    line, at = 1, 0
    for found in pattern.finditer(text) if pattern is not None else ():
        group = found.lastindex or 1
        line += text.count("\n", at, found.start(group))
        at = found.start(group)
        yield found[group].strip(), line


def _first(rows: Sequence[str], line: int) -> int:
    """Return the first line of what belongs to a definition: decorators, attributes and comments directly above it."""
    margin = _margin(rows[line - 1])
    while line > 1 and rows[line - 2].lstrip().startswith(_ABOVE) and _margin(rows[line - 2]) >= margin:
        line -= 1
    return line


def _last(rows: Sequence[str], line: int) -> int:
    """Return the last line of a definition: what is indented deeper, and the bracket that closes it."""
    margin = _margin(rows[line - 1])
    last = line
    for at in range(line, min(len(rows), line + _MAX_LINES)):
        row = rows[at]
        if not row.strip():
            continue
        deeper = _margin(row) > margin
        closes = row.lstrip().startswith(_CLOSING)
        if not deeper and not closes:
            break
        last = at + 1
        if not deeper and not row.rstrip().endswith((":", "{", "(")):  # `) -> None:` is the end of a head alone
            break
    return last


def _margin(row: str) -> int:
    return len(row) - len(row.lstrip())
