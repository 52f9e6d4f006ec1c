"""What a request's own words point at: paths, routes, names of code, and the words to look for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from delegated.signals import LANGUAGES, pieces

_MAX_ISSUE: Final = 40_000  # characters of what a person wrote
_MAX_LOGS: Final = 40_000  # of the end of the logs: what failed stands there
_MOST: Final = 60  # paths, routes or names
_IN_TITLE: Final = 6.0  # a word of the first line: people say there what is wrong, and below how they came to it
_IN_ISSUE: Final = 2.0  # of the rest; one of the logs weighs 1

_EXTENSIONS: Final = "|".join(sorted(LANGUAGES, key=len, reverse=True))
_PATH: Final = re.compile(
    rf"(?<![\w./@-])((?:[\w.@-]{{1,80}}[/\\]){{0,12}}[\w.@-]{{1,80}}\.(?:{_EXTENSIONS}))(?![\w/])"
)
_URL: Final = re.compile(r"\bhttps?://[^/\s\"'`<>]{1,200}(/[^\s\"'`<>?#)\]]{1,200})")
_ROUTE: Final = re.compile(
    r"(?:\b(?:GET|POST|PUT|PATCH|DELETE|HEAD)[ \t]{1,4}|(?<![\w.:/~<-]))(/[A-Za-z0-9_{}:*-][\w{}:*./-]{0,200})"
)
_SYSTEM: Final = re.compile(r"/(?:usr|home|tmp|var|etc|opt|proc|dev)/")
_QUOTED: Final = re.compile(r"`([^`\n]{1,200})`")
_CODE: Final = re.compile(r"[A-Za-z_$][\w$]{1,100}(?:(?:\.|::|#|->)[A-Za-z_$][\w$]{1,100}){0,8}(?:\(\))?")
_WORD: Final = re.compile(r"[A-Za-z_$][\w$]{1,100}")
_NUMBER: Final = re.compile(r"\b[1-9][0-9]{2,5}\b")
_LEVELS: Final = re.compile(r"^[A-Z]+$")

_COMMON: Final = """
a about above actual after again all also always an and another any are as assert at away be because been
before being below bool broken bug but by call called came can cannot class come comes const could debug def
describe did do does doing done down each either else error even every everything exception expect expected
fail failed fails failure false fatal few file first for from function gave get gets give given go goes going
gone got had happen happened happens has have having he her here him his how however if import in info instead
int into is issue it its itself just keep know last later least less let like line look looks made make makes
many may me might more most much must my need never new no nobody none nor not nothing now null of off old on
once one only or other our out over own people please private public put really recent return returns right
said same saw say says second see seem seems seen self she should show shows since so some something static
still str string such sure take takes test tests than that the their them then there these they thing this
those though three through time to today together too took traceback tried true try two under until up us use
used using var very void want wants warn warning was way we week well went were what when where whether which
while who whole why will with without work working works would wrong yes yet you your
"""
COMMON: Final = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True)
class Clues:
    """Paths and routes as written, names of code as written with what they weigh, words with their number."""

    paths: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    names: Mapping[str, float] = ()  # type: ignore[assignment]
    words: Mapping[str, float] = ()  # type: ignore[assignment]


def clues(issue: str, logs: str = "") -> Clues:
    """Read what a person wrote (`issue`) and what a program did (`logs`). Never raises."""
    issue, logs = issue[:_MAX_ISSUE], logs[-_MAX_LOGS:]
    text = f"{issue}\n{logs}"
    names: dict[str, float] = {}
    for name, weight in _names(issue):
        names[name] = max(names.get(name, 0.0), weight)
    for name, weight in _names(logs):
        names[name] = max(names.get(name, 0.0), weight / 2)
    words: Counter[str] = Counter()
    title, _, rest = issue.lstrip().partition("\n")
    for part, weight in ((title, _IN_TITLE), (rest, _IN_ISSUE), (logs, 1.0)):
        numbers = _NUMBER.findall(part) if weight > 1 else []  # in logs they are lines, times and sizes
        for word, number in Counter([*_WORD.findall(part), *numbers]).items():
            if word.lower() in COMMON:
                continue
            for piece in pieces(word):
                if piece not in COMMON:
                    words[piece] += weight * min(number, 3)  # type: ignore[assignment]
    heaviest = sorted(names, key=lambda name: (-names[name], name))[: 2 * _MOST]
    return Clues(
        tuple(_first(path.replace("\\", "/").removeprefix("./") for path in _PATH.findall(text))),
        tuple(_first(_routes(text))),
        {name: names[name] for name in heaviest},
        dict(words.most_common(400)),
    )


def is_compound(name: str) -> bool:
    """Say whether a name is made of several words, as names in code are and English words are not."""
    return len(name) > 3 and ("_" in name.strip("_") or any(char.isupper() for char in name[1:])) and not name.isupper()


def _first(found: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(found))[:_MOST]


def _routes(text: str) -> Iterator[str]:
    for pattern in (_URL, _ROUTE):
        for found in pattern.finditer(text):
            route = found[1].rstrip(".,:;-")
            if not _PATH.search(route) and not _SYSTEM.match(route):
                yield route


def _names(text: str) -> Iterator[tuple[str, float]]:
    """Yield names of code: in backticks, with dots or parentheses, or made of several words."""
    for quoted in _QUOTED.findall(text):
        for name in _WORD.findall(quoted):
            if name.lower() not in COMMON:
                yield name, 2.0
    for found in _CODE.finditer(text):
        whole = found[0]
        parts = _WORD.findall(whole)
        for name in parts:
            if is_compound(name) or (name.isupper() and "_" in name):
                yield name, 1.5
            elif (len(parts) > 1 or whole.endswith("()")) and name.lower() not in COMMON and not _LEVELS.match(name):
                yield name, 0.7
