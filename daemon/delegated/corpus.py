"""Everything that is known of a workspace's files, kept so that one changed file costs one file.

Words and names are numbers here, and lists of numbers are arrays: 5,000 files take some tens of megabytes.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from delegated.signals import Facts, is_aside, is_test, pieces, route_parts, subject

Stamp = tuple[int, int, int]  # st_mtime_ns, st_size, st_ino
_K1: Final = 2.0  # higher than for prose: a file that says a word often is about it, however long
_B: Final = 0.75
_IN_PATH: Final = 6  # a word of the path counts as so many in the text
_IN_DEFINITION: Final = 2  # and one of a name that is defined here so many more
_BESIDE: Final = 0.5  # what examples, tools and copies of others' code have of their score
_MOST_WORDS: Final = 60  # of a request that are looked up
_SHIFT: Final = 16  # a posting is document << 16 | number of occurrences
_MOST: Final = (1 << _SHIFT) - 1


@dataclass(frozen=True, slots=True)
class Known:
    """A file as the corpus keeps it. `names` are numbers of names, `counts` how often each stands there."""

    path: str
    stamp: Stamp
    test: bool
    aside: bool
    language: str
    length: int
    defines: tuple[tuple[str, int], ...]
    routes: tuple[tuple[tuple[str, ...], str, int], ...]
    imports: tuple[str, ...]
    names: array[int]
    counts: array[int]


class Corpus:
    """The files of one workspace. Not safe for several threads at once."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.files: dict[str, Known] = {}
        self._documents: list[str] = []  # by number; "" for one that is no more
        self._numbers: dict[str, int] = {}
        self._postings: dict[str, array[int]] = {}
        self._vocabulary: dict[str, int] = {}
        self._spelled: list[str] = []
        self._definers: dict[str, set[str]] = {}
        self._stems: dict[str, set[str]] = {}
        self._directories: dict[str, set[str]] = {}
        self._length = 0
        self._sources = 0  # files that are no tests: only their words are kept
        self._dead = 0

    def put(self, path: str, stamp: Stamp, facts: Facts) -> None:
        """Take a file in, in place of what was known of it."""
        self.drop(path)
        test = is_test(path)
        words = {} if test else _words(path, facts)
        names = array("I", (self._number(name) for name in facts.names))
        counts = array("H", (min(number, _MOST) for number in facts.names.values()))
        length = sum(words.values())
        routes = tuple((route_parts(route), route, line) for route, line in facts.routes)
        aside, of = is_aside(path), facts.language
        known = Known(path, stamp, test, aside, of, length, facts.defines, routes, facts.imports, names, counts)
        self.files[path] = known
        document = len(self._documents)
        self._documents.append(path)
        self._numbers[path] = document
        for word, number in words.items():
            postings = self._postings.get(word)
            if postings is None:
                postings = self._postings[word] = array("Q")
            postings.append(document << _SHIFT | min(number, _MOST))
        self._length += length
        self._sources += not test
        for name, _ in facts.defines:
            self._definers.setdefault(name, set()).add(path)
        directory, _, name = path.rpartition("/")
        self._stems.setdefault(name.partition(".")[0].lower(), set()).add(path)
        self._directories.setdefault(directory, set()).add(path)

    def drop(self, path: str) -> None:
        """Forget a file; no-op for one that is not known."""
        known = self.files.pop(path, None)
        if known is None:
            return
        self._documents[self._numbers.pop(path)] = ""
        self._dead += 1
        self._length -= known.length
        self._sources -= not known.test
        for name, _ in known.defines:
            self._definers[name].discard(path)
        directory, _, name = path.rpartition("/")
        self._stems[name.partition(".")[0].lower()].discard(path)
        self._directories[directory].discard(path)

    def worn(self) -> bool:
        """Say whether so much was replaced that reading all anew is the better way; then it has forgotten all."""
        if self._dead <= 1_000 or self._dead <= len(self.files):
            return False
        self._clear()
        return True

    def _number(self, name: str) -> int:
        number = self._vocabulary.get(name)
        if number is None:
            number = self._vocabulary[name] = len(self._spelled)
            self._spelled.append(name)
        return number

    # What is asked of it

    def definers(self, name: str) -> Collection[str]:
        """Return the files that define a name."""
        return self._definers.get(name, ())

    def line_of(self, path: str, name: str) -> int:
        """Return the line where a file defines a name; 0 when it does not."""
        return next((line for defined, line in self.files[path].defines if defined == name), 0)

    def uses(self, path: str) -> Iterator[tuple[str, int]]:
        """Yield the names that a file uses, with how often."""
        known = self.files[path]
        for number, count in zip(known.names, known.counts, strict=True):
            yield self._spelled[number], count

    def served(self) -> Iterator[tuple[str, tuple[str, ...], str, int]]:
        """Yield every route that code (no test) serves: path, its parts, as written, line."""
        for path, known in self.files.items():
            if not known.test:
                for parts, route, line in known.routes:
                    yield path, parts, route, line

    def subjects(self, test: str) -> list[str]:
        """Return the files that a test is about by its name, nearest directory first."""
        wanted = subject(test).lower()
        if not wanted:
            return []
        exact = self._stems.get(wanted, set()) | self._stems.get(wanted.replace("-", "_"), set())
        found = [path for path in exact if not self.files[path].test]
        if not found and "_" in wanted:  # test_billing_rounding.py is about billing.py
            shorter = wanted
            while not found and "_" in shorter:
                shorter = shorter.rpartition("_")[0]
                found = [path for path in self._stems.get(shorter, ()) if not self.files[path].test]
        return sorted(found, key=lambda path: (-_alike(path, test), path.count("/"), path))

    def imported(self, path: str) -> list[str]:
        """Return the workspace's files that a file imports, in the order of its imports."""
        known = self.files[path]
        found: dict[str, None] = {}
        for module in known.imports:
            found |= dict.fromkeys(self._resolved(path, known.language, module))
        if known.language == "go":  # a package is a directory: no import names its own
            directory = path.rpartition("/")[0]
            found |= dict.fromkeys(
                sorted(each for each in self._directories.get(directory, ()) if not self.files[each].test)
            )
        found.pop(path, None)
        return list(found)

    def _resolved(self, path: str, language: str, module: str) -> list[str]:
        directory = path.rpartition("/")[0]
        if language == "python":
            if module.startswith("."):
                up = len(module) - len(module.lstrip("."))
                base = directory.split("/")[: len(directory.split("/")) - up + 1] if directory else []
                return self._ending([*base, *module.lstrip(".").split(".")], ("__init__",), whole=True)
            return self._ending(module.split("."), ("__init__",))
        if language == "javascript":
            if module.startswith("."):
                parts = [part for part in directory.split("/") if part]
                for part in module.split("/"):
                    if part == "..":
                        parts = parts[:-1]
                    elif part != ".":
                        parts.append(part)
                return self._ending(parts, ("index",), whole=True)
            bare = module[2:] if module.startswith(("@/", "~/")) else ""
            return self._ending(bare.split("/"), ("index",)) if bare else []
        if language == "java":
            return self._ending(module.split("."), ())
        if language == "go":
            parts = module.split("/")
            for skip in range(len(parts)):
                found = self._directories.get("/".join(parts[skip:]), ())
                if found:
                    return sorted(each for each in found if not self.files[each].test and each.endswith(".go"))
            return []
        parts = [part for part in module.split("::") if part not in ("crate", "self", "super")]
        return self._ending(parts, ("mod", "lib")) or self._ending(parts[:-1], ("mod", "lib"))

    def _ending(self, parts: list[str], index: tuple[str, ...], *, whole: bool = False) -> list[str]:
        """Return the files whose path without extension ends with these parts, or with these and an index's name."""
        if parts and "." in parts[-1] and parts[-1].rpartition(".")[2] in ("js", "ts", "jsx", "tsx", "mjs"):
            parts = [*parts[:-1], parts[-1].rpartition(".")[0]]
        found: list[str] = []
        for tail in (parts, *([*parts, name] for name in index)):
            if not tail or not tail[-1]:
                continue
            wanted = "/".join(tail)
            for path in self._stems.get(tail[-1].partition(".")[0].lower(), ()):
                stem = path.rpartition(".")[0]
                if stem == wanted or (not whole and len(tail) > 1 and stem.endswith("/" + wanted)):
                    found.append(path)
            if not whole and len(tail) == 1:
                found += [path for path in self._stems.get(tail[0].lower(), ()) if path.count("/") <= 1]
        return sorted(set(found), key=lambda path: (path.count("/"), path))

    def matching(self, words: Mapping[str, float]) -> list[tuple[str, float]]:
        """Rank the files that are no tests by BM25 over the words of their identifiers, the best first."""
        total = self._sources
        if not total:
            return []
        average = self._length / total or 1.0
        scores: dict[int, float] = {}
        for word, weight in self._telling(words, total):
            postings = self._postings[word]
            idf = math.log(1 + (total - len(postings) + 0.5) / (len(postings) + 0.5)) if len(postings) < total else 0.05
            for posting in postings:
                document, number = posting >> _SHIFT, posting & _MOST
                path = self._documents[document]
                if path:
                    known = self.files[path]
                    norm = _K1 * (1 - _B + _B * known.length / average)
                    gain = weight * idf * number * (_K1 + 1) / (number + norm)
                    scores[document] = scores.get(document, 0.0) + (gain * _BESIDE if known.aside else gain)
        ranked = ((self._documents[document], score) for document, score in scores.items())
        return sorted(ranked, key=lambda each: (-each[1], each[0]))

    def rarity(self, name: str) -> float:
        """Say how much a name tells: the less, the more files use it."""
        words = pieces(name)
        return math.log(1 + self._sources / (1 + len(self._postings.get(words[0], ())))) if words else 0.0

    def _telling(self, words: Mapping[str, float], total: int) -> Iterable[tuple[str, float]]:
        """Keep the words that tell most: the rare ones, and those that the request repeats."""
        known = [(word, weight) for word, weight in words.items() if word in self._postings]

        def worth(each: tuple[str, float]) -> float:
            return math.sqrt(each[1]) * math.log(1 + total / len(self._postings[each[0]]))

        most = sorted(known, key=lambda each: (-worth(each), each[0]))[:_MOST_WORDS]
        return [(word, math.sqrt(weight)) for word, weight in most]


def _words(path: str, facts: Facts) -> dict[str, int]:
    """Count the words of a file's names; those of its path and of what it defines weigh more."""
    words: dict[str, int] = {}
    for name, number in facts.names.items():
        for piece in pieces(name):
            words[piece] = words.get(piece, 0) + number
    for name in path.replace(".", "/").split("/")[:-1]:
        for piece in pieces(name):
            words[piece] = words.get(piece, 0) + _IN_PATH
    for name, _ in facts.defines:
        for piece in pieces(name):
            words[piece] = words.get(piece, 0) + _IN_DEFINITION
    return words


def _alike(path: str, other: str) -> int:
    """Count the directories that two paths have in common, wherever they stand in them."""
    return len(set(path.split("/")[:-1]) & set(other.split("/")[:-1]))
