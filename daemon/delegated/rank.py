"""Which files a request is probably about: six signals, each a ranking of its own, fused by how sure each one is.

A signal gives each file a strength between 0 and 1, and a file's score is their weighted sum. Ranks would not do: the
second of two equals and the second by far have the same, and a signal that has little to say still has a first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Final

from delegated import paths
from delegated.clues import Clues, is_compound
from delegated.corpus import Corpus
from delegated.signals import pieces, route_parts

SIGNALS: Final = ("trace", "mentioned", "convention", "imports", "words", "graph")
WEIGHTS: Final[Mapping[str, float]] = {
    "trace": 1.0,
    "mentioned": 0.2,  # where a name is defined that people write is seldom where the fault is
    "convention": 0.5,
    "imports": 0.2,
    "words": 1.0,
    "graph": 0.2,  # it knows what is near, and likes what everything is near to
}
_IN_TEST: Final = 0.3  # of a word of the request: what a failing test's body says is half preparation
_SURE: Final = 2.0  # a name in backticks that one file defines: as strong as a definition can be
_LIKELY: Final = 0.3  # of the best score, to be sent without having been asked for
_NEAR: Final = 3  # files that only references speak for: they are near to something, and perhaps about nothing
_DEPTH: Final = 50  # of each ranking
_TOO_COMMON: Final = 20  # a name that more files define tells nothing
_JUMP: Final = 0.15
_LEAST: Final = 1e-3  # weight that is not passed on: with less, it takes twice as long to the same ranking
_PUSHES: Final = 2_000
_WHY: Final = {
    "words": "ranked {} by names in the request",
    "graph": "ranked {} by references from the code it names",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be the one: its score, its rank in each signal, why, and the lines that the request means."""

    path: str
    score: float
    ranks: Mapping[str, int]
    why: str
    lines: tuple[int, ...] = ()
    likely: bool = True  # enough speaks for it to be sent without having been asked for


@dataclass(slots=True)
class Signal:
    """One ranking, best first: paths, each with its reason, lines and strength (the first to name a path counts)."""

    found: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    strengths: dict[str, float] = field(default_factory=dict)

    def add(self, path: str, why: str = "", lines: Iterable[int] = (), *, strength: float | None = None) -> None:
        """Append a path unless it is there. Without a `strength` it has that of its place: 1, 1/2, 1/3 and so on."""
        if path not in self.found and len(self.found) < _DEPTH:
            self.found[path] = (why, tuple(line for line in lines if line > 0))
            self.strengths[path] = 1 / len(self.found) if strength is None else min(1.0, strength)


def failing_tests(corpus: Corpus, clues: Clues, framed: Iterable[str], named: Iterable[str]) -> list[str]:
    """Return the tests that the request is about: in a trace, named by their path, or by a name that they define."""
    found = dict.fromkeys(path for path in (*framed, *named) if path in corpus.files and corpus.files[path].test)
    for name in clues.names:
        if name.lower().startswith("test") or name.endswith(("Test", "Tests", "IT")):
            definers = sorted(path for path in corpus.definers(name) if corpus.files[path].test)
            found |= dict.fromkeys(definers if len(definers) <= 3 else ())
    return list(found)[:5]


def located(corpus: Corpus, clues: Clues) -> list[tuple[str, str]]:
    """Return the files whose paths the request writes, each with the path as written."""
    found: list[tuple[str, str]] = []
    known = [*corpus.files]
    for written in clues.paths[:20]:
        path = written if written in corpus.files else paths.locate(written, known)
        if path is not None:
            found.append((path, written))
    return found


def signals(
    corpus: Corpus, clues: Clues, framed: Sequence[tuple[str, int]], given: Collection[str], bodies: Mapping[str, float]
) -> tuple[dict[str, Signal], list[str]]:
    """Rank by each signal alone. Returns the rankings by name, and the failing tests.

    `framed` are the trace's own places (path, line), most suspicious first; `given` are files that go along anyway;
    `bodies` are the words of the failing tests' bodies with their number.
    """
    by = {name: Signal() for name in SIGNALS}
    for path, line in framed:
        if path in corpus.files and not corpus.files[path].test:
            by["trace"].add(path, f"named by the trace, line {line}", (line,))
    places = located(corpus, clues)
    tests = failing_tests(corpus, clues, (path for path, _ in framed), (*given, *(path for path, _ in places)))
    for path, written in places:
        if not corpus.files[path].test:
            by["mentioned"].add(path, f"`{paths.shown(written)}` is named by the request", strength=1.0)
    _routes(corpus, clues, by["mentioned"])
    _names(corpus, clues, by["mentioned"])
    for test in tests:
        for path in corpus.subjects(test):
            by["convention"].add(path, f"`{paths.shown(test)}` is its test by name")
    for test in tests:
        for path in _imported(corpus, test):
            by["imports"].add(path, "imported by the failing test")
    words: dict[str, float] = dict(clues.words)
    for word, number in bodies.items():
        words[word] = words.get(word, 0.0) + _IN_TEST * min(number, 3)
    matches = corpus.matching(words)
    for path, score in matches[:_DEPTH]:
        if score >= 0.2 * matches[0][1]:
            by["words"].add(path, strength=score / matches[0][1])
    seeds = _seeds(by, tests, [path for path in given if path in corpus.files])
    mentioned = {*clues.names, *sorted(clues.words, key=lambda word: -clues.words[word])[:100]}
    walked = _walk(corpus, seeds, mentioned)
    for path, score in walked[:_DEPTH]:
        by["graph"].add(path, strength=score / walked[0][1])
    return by, tests


def fuse(by: Mapping[str, Signal], only: Collection[str] = SIGNALS) -> list[Candidate]:
    """Fuse the rankings: a file's score is the sum of its strength times the weight of each signal that knows it."""
    scores: dict[str, float] = {}
    ranks: dict[str, dict[str, int]] = {}
    for name in SIGNALS:
        for rank, path in enumerate(by[name].found if name in only else (), start=1):
            scores[path] = scores.get(path, 0.0) + WEIGHTS[name] * by[name].strengths[path]
            ranks.setdefault(path, {})[name] = rank
    ordered = sorted(scores, key=lambda path: (-scores[path], path))
    least = _LIKELY * scores[ordered[0]] if ordered else 0.0
    return [
        Candidate(
            path,
            scores[path],
            ranks[path],
            *_reason(path, ranks[path], by),
            any(name not in _WHY for name in ranks[path])
            or (scores[path] >= least and ("words" in ranks[path] or ranks[path]["graph"] <= _NEAR)),
        )
        for path in ordered
    ]


def ordinal(number: int) -> str:
    """Write 1 as 1st, 2 as 2nd, 12 as 12th."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _reason(path: str, ranks: Mapping[str, int], by: Mapping[str, Signal]) -> tuple[str, tuple[int, ...]]:
    reasons: list[str] = []
    lines: dict[int, None] = {}
    for name, rank in ranks.items():
        why, at = by[name].found[path]
        lines |= dict.fromkeys(at)
        if name not in _WHY:
            reasons.append(why)
        elif len(reasons) < 1 or (name == "graph" and len(ranks) == 2 and "words" in ranks):
            reasons.append(_WHY[name].format(ordinal(rank)))
    return "; ".join(reasons[:2]), tuple(lines)


def _routes(corpus: Corpus, clues: Clues, into: Signal) -> None:
    """Find where a mentioned route is served: as a whole, or its end in a file that its beginning leads to."""
    found: list[tuple[float, str, str, int]] = []
    wanted = [(route, parts) for route in clues.routes if (parts := route_parts(route))]
    if not wanted:
        return
    for path, parts, _, line in corpus.served():
        if not parts:
            continue
        for route, asked in wanted:
            if len(parts) > len(asked) or not _same(parts, asked[-len(parts) :]):
                continue
            before = [part for part in asked[: -len(parts)] if part != "*" and part != "api"]
            words = {piece for name in path.replace(".", "/").split("/") for piece in pieces(name)}
            words |= {part for other, _, _ in corpus.files[path].routes for part in other}
            led = sum(part in words or bool(words & set(pieces(part))) for part in before)
            score = len(parts) + led - 0.5 * (len(before) - led)
            if score > 0.5 and any(part != "*" for part in parts):
                found.append((score, path, route, line))
    best = max((score for score, *_ in found), default=0.0)
    for score, path, route, line in sorted(found, key=lambda each: (-each[0], each[1], each[3])):
        if score >= best - 1:
            into.add(path, f"defines `{paths.shown(route)}`", (line,))


def _same(parts: Sequence[str], asked: Sequence[str]) -> bool:
    return all(ours == theirs or ours == "*" for ours, theirs in zip(parts, asked, strict=True))


def _names(corpus: Corpus, clues: Clues, into: Signal) -> None:
    """Find where the names of code in the request are defined; a name that few files define tells most."""
    scores: dict[str, float] = {}
    told: dict[str, list[tuple[float, str]]] = {}
    for name, weight in clues.names.items():
        definers = [path for path in corpus.definers(name) if not corpus.files[path].test]
        if not definers or len(definers) > _TOO_COMMON:
            continue
        worth = weight * (1.0 if is_compound(name) else 0.5) / len(definers)
        for path in definers:
            scores[path] = scores.get(path, 0.0) + worth
            told.setdefault(path, []).append((-worth, name))
    for path in sorted(scores, key=lambda path: (-scores[path], path)):
        names = [name for _, name in sorted(told[path])]
        at = (corpus.line_of(path, name) for name in names[:10])
        into.add(path, f"defines `{names[0]}`", at, strength=scores[path] / _SURE)


def _imported(corpus: Corpus, test: str) -> list[str]:
    """Return what a test imports; what only hands names on (`index.ts`, `__init__.py`) is followed one step."""
    direct = [path for path in corpus.imported(test) if not corpus.files[path].test]
    if corpus.files[test].language == "java":  # a test shares its package with its subject: no import names it
        used = {name for name, _ in corpus.uses(test)}
        near = (path for name in used for path in corpus.definers(name) if _package(path) == _package(test))
        direct += sorted({path for path in near if not corpus.files[path].test} - {*direct})
    if corpus.files[test].language == "go":
        used = {name for name, _ in corpus.uses(test)}
        direct.sort(key=lambda path: not used & {name for name, _ in corpus.files[path].defines})
    through: list[str] = []
    for path in direct:
        if path.rpartition("/")[2].partition(".")[0] in ("index", "__init__", "mod"):
            through += corpus.imported(path)
    return list(dict.fromkeys((*direct, *(path for path in through if not corpus.files[path].test))))


def _package(path: str) -> str:
    """Return a Java file's package as a path, whatever source root it lies below."""
    directory = path.rpartition("/")[0]
    return directory.partition("/java/")[2] or directory


def _seeds(by: Mapping[str, Signal], tests: Sequence[str], given: Sequence[str]) -> dict[str, float]:
    """Choose where the walk over references begins: at what the request surely means, else at what its words match."""
    seeds: dict[str, float] = {}
    for paths_, weight in ((tests, 1.0), (given, 0.5), (list(by["trace"].found)[:5], 1.0)):
        for path in paths_:
            seeds[path] = seeds.get(path, 0.0) + weight
    for path in list(by["mentioned"].found)[:5]:
        seeds[path] = seeds.get(path, 0.0) + 0.5
    for place, path in enumerate(list(by["words"].found)[:5]):
        seeds[path] = seeds.get(path, 0.0) + 0.5 / (1 + place)
    return seeds


def _walk(corpus: Corpus, seeds: Mapping[str, float], mentioned: Collection[str]) -> list[tuple[str, float]]:
    """Rank by personalised PageRank from `seeds` over references to definitions, by pushing (no matrix is made).

    What is pushed on is what can still matter: the cost depends on the seeds' surroundings, not on the workspace.
    """
    total = sum(seeds.values())
    if not total:
        return []
    rank: dict[str, float] = {}
    rest = {path: weight / total for path, weight in seeds.items()}
    edges: dict[str, list[tuple[str, float]]] = {}
    waiting = deque(rest)
    queued = set(rest)
    for _ in range(_PUSHES):
        if not waiting:
            break
        path = waiting.popleft()
        queued.discard(path)
        mass = rest.pop(path, 0.0)
        if mass < _LEAST:
            rank[path] = rank.get(path, 0.0) + mass
            continue
        rank[path] = rank.get(path, 0.0) + _JUMP * mass
        if path not in edges:
            edges[path] = _edges(corpus, path, mentioned)
        out = edges[path] or [(seed, weight / total) for seed, weight in seeds.items()]
        for target, share in out:
            rest[target] = rest.get(target, 0.0) + (1 - _JUMP) * mass * share
            if target not in queued:
                queued.add(target)
                waiting.append(target)
    for path, weight in seeds.items():  # what a seed has for being one, the other rankings say already
        rank[path] = rank.get(path, 0.0) - _JUMP * weight / total
    ranked = [(path, score) for path, score in rank.items() if score > 1e-9 and not corpus.files[path].test]
    return sorted(ranked, key=lambda each: (-each[1], each[0]))


def _edges(corpus: Corpus, path: str, mentioned: Collection[str]) -> list[tuple[str, float]]:
    """Return the files that define what a file uses, each with its share of the weight."""
    weights: dict[str, float] = {}
    for name, count in corpus.uses(path):
        definers = corpus.definers(name)
        if not definers or len(definers) > _TOO_COMMON or path in definers:
            continue
        weight = sqrt(count) * corpus.rarity(name)
        weight *= 10 if name in mentioned or any(piece in mentioned for piece in pieces(name)) else 1
        weight *= 10 if len(name) >= 8 and is_compound(name) else 1
        weight *= 0.1 if name.startswith("_") or len(definers) > 5 else 1
        for definer in sorted(definers):  # a set's order differs between processes, and a walk that is cut short by it
            if not corpus.files[definer].test:
                weights[definer] = weights.get(definer, 0.0) + weight
    total = sum(weights.values())
    return [(target, weight / total) for target, weight in weights.items()]
