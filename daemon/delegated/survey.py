"""Finds the files that a request is probably about: reads the workspace once, then only what changed.

What is remembered is kept by path, modification time, size and inode, in memory, for as long as the daemon lives.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from delegated import rank, signals
from delegated.clues import COMMON, Clues, clues
from delegated.context import GUESSED, Omitted, SourceFile
from delegated.corpus import Corpus
from delegated.rank import Candidate, Signal
from delegated.tree import Tree
from delegated.workspace import Workspace

_CLOSE: Final = 5  # candidates left out that are named
_AROUND: Final = 25  # lines of a test about a frame, where no definition tells where it begins


@dataclass(frozen=True, slots=True)
class Limits:
    """How far one survey goes: seconds of reading, files, bytes of one file and of all that one request reads."""

    seconds: float = 10.0
    files: int = 20_000
    file_bytes: int = 256 << 10
    total: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """The files that were chosen, most wanted first, what was nearly chosen, and what to tell of it."""

    chosen: tuple[Candidate, ...] = ()
    close: tuple[Omitted, ...] = ()
    warnings: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()  # those that failed, given ones among them
    stamps: Mapping[str, tuple[int, int, int]] | None = None  # of all files, as they were looked at just now


@dataclass(frozen=True, slots=True)
class Ranking:
    """Every signal's own ranking, and the failing tests that were found."""

    signals: Mapping[str, Signal]
    tests: tuple[str, ...]
    clues: Clues


class Survey:
    """What is known of one workspace's files. Safe to use from several threads: they wait for each other."""

    def __init__(
        self, workspace: Workspace, *, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workspace = workspace
        self._limits = limits or Limits()
        self._clock = clock
        self._lock = threading.Lock()
        self._corpus = Corpus()
        self._unread: dict[str, tuple[int, int, int]] = {}  # binary, or gone before it could be read

    def find(
        self,
        issue: str,
        logs: str,
        *,
        framed: Sequence[tuple[str, int]] = (),
        given: Collection[str] = (),
        limit: int,
    ) -> Found:
        """Choose up to `limit` files besides those `given`, for what a person wrote and what a program logged.

        `framed` are the places that the trace names, most suspicious first, relative to the root.
        """
        if limit <= 0:
            return Found()
        with self._lock, self._workspace.opened() as tree:
            stamps = dict(tree.stamps())
            warnings = self._refresh(tree, stamps)
            ranking = self._ranking(tree, issue, logs, framed, given)
            ranked = rank.fuse(ranking.signals)
            tests = [Candidate(path, 1.0, {}, "the failing test") for path in ranking.tests if path not in given]
        wanted = [each for each in ranked if each.path not in given]
        chosen = [*tests[:2], *(each for each in wanted if each.likely)][:limit]
        taken = {each.path for each in chosen}
        close = [
            Omitted(each.path, f"{GUESSED}, {rank.ordinal(place)} of them ({each.why}); {_why_not(each, limit)}")
            for place, each in enumerate(wanted, start=1)
            if each.path not in taken
        ]
        return Found(tuple(chosen), tuple(close[:_CLOSE]), warnings, ranking.tests, stamps)

    def rank(
        self, issue: str, logs: str, *, framed: Sequence[tuple[str, int]] = (), given: Collection[str] = ()
    ) -> Ranking:
        """Rank by each signal alone, for whoever wants to measure them."""
        with self._lock, self._workspace.opened() as tree:
            self._refresh(tree, dict(tree.stamps()))
            return self._ranking(tree, issue, logs, framed, given)

    def _refresh(self, tree: Tree, found: Mapping[str, tuple[int, int, int]]) -> tuple[str, ...]:
        """Read what is new or changed, forget what is gone."""
        until = self._clock() + self._limits.seconds
        stamps = {path: stamp for path, stamp in found.items() if _is_code(path)}
        warnings = list(tree.warnings)
        if len(stamps) > self._limits.files:
            warnings.append(f"files were looked for among {self._limits.files:,} of {len(stamps):,}")
            stamps = dict(list(stamps.items())[: self._limits.files])
        corpus = self._corpus
        corpus.worn()
        for path in [path for path in corpus.files if path not in stamps]:
            corpus.drop(path)
        self._unread = {path: stamp for path, stamp in self._unread.items() if stamps.get(path) == stamp}
        left, unread = self._limits.total, 0
        for path, stamp in stamps.items():
            known = corpus.files.get(path)
            if (known is not None and known.stamp == stamp) or path in self._unread:
                continue
            if self._clock() > until or left < 0:
                unread += 1
                continue
            read = tree.source(path, "", self._limits.file_bytes)
            if isinstance(read, SourceFile):
                left -= read.size
                corpus.put(path, stamp, signals.facts(path, read.text))
            else:
                corpus.drop(path)
                self._unread[path] = stamp
        if unread:
            warnings.append(f"{unread:,} files of the workspace were not looked at yet when files were looked for")
        return tuple(warnings)

    def _ranking(
        self, tree: Tree, issue: str, logs: str, framed: Sequence[tuple[str, int]], given: Collection[str]
    ) -> Ranking:
        asked = clues(issue, logs)
        corpus = self._corpus
        places = [path for path, _ in rank.located(corpus, asked)]
        tests = rank.failing_tests(corpus, asked, (path for path, _ in framed), (*given, *places))
        bodies: Counter[str] = Counter()
        for test in tests[:2]:
            bodies += self._body(tree, test, [line for path, line in framed if path == test], asked)
        found, tests = rank.signals(corpus, asked, framed, given, bodies)
        return Ranking(found, tuple(tests), asked)

    def _body(self, tree: Tree, test: str, lines: Sequence[int], asked: Clues) -> Counter[str]:
        """Count the words of the test that failed: of its own lines where they are known, else of the whole file."""
        source = tree.source(test, "", self._limits.file_bytes)
        if not isinstance(source, SourceFile):
            return Counter()
        text = source.text.split("\n")
        defined = self._corpus.files[test].defines
        starts = sorted(line for _, line in defined)
        at = [line for name, line in defined if name in asked.names and name.lower().startswith("test")]
        spans = [_span(line, starts, len(text)) for line in (*at[:3], *[line for line in lines[:3] if line > 0])]
        body = "\n".join("\n".join(text[start - 1 : end]) for start, end in spans) if spans else source.text
        words: Counter[str] = Counter()
        for name, number in signals.facts(test, body).names.items():
            words.update({piece: number for piece in signals.pieces(name) if piece not in COMMON})
        return words


def _is_code(path: str) -> bool:
    """Say whether a file may be found: code, not hidden, and no request or result, wherever the folder lies."""
    hidden = path.startswith(".") or "/." in path
    return not hidden and "OPENAI_DELEGATION_" not in path and bool(signals.language(path))


def _span(line: int, starts: Sequence[int], total: int) -> tuple[int, int]:
    """Return the lines of the definition that holds a line, at most `_AROUND` before it and twice as many after."""
    start = max((each for each in starts if each <= line), default=1)
    end = min((each - 1 for each in starts if each > line), default=total)
    return max(start, line - _AROUND), min(end, line + 2 * _AROUND)


def _why_not(candidate: Candidate, limit: int) -> str:
    if candidate.likely:
        return f"at most {limit} file{'s are' if limit != 1 else ' is'} added (`find_files`)"
    return "too little speaks for it"
