"""What one file of code tells about itself: what it defines, which names it uses, its routes, its imports.

One regular expression per language, no parser: a file costs well under a millisecond, and the text is a stranger's, so
every pattern is anchored to a line and every repeat in it is bounded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

MAX_TEXT: Final = 256 << 10  # characters of one file that are looked at
_MAX_FOUND: Final = 2_000  # definitions, routes or imports of one file

_OTHERS: Final = "rb php kt kts cs swift scala c h cc cpp hpp cxx m mm ex exs lua dart pl"
_PLAIN: Final = "yaml yml toml sql sh bash html vue svelte proto graphql tf css scss ini cfg jinja j2 erb"
LANGUAGES: Final[Mapping[str, str]] = {
    **dict.fromkeys(["py", "pyi"], "python"),
    **dict.fromkeys(["ts", "tsx", "mts", "cts", "js", "jsx", "mjs", "cjs"], "javascript"),
    **dict.fromkeys(_OTHERS.split(), "other"),
    **dict.fromkeys(_PLAIN.split(), "plain"),
    "java": "java",
    "go": "go",
    "rs": "rust",
}

_DEFINITIONS: Final[Mapping[str, re.Pattern[str]]] = {
    language: re.compile(pattern, re.MULTILINE)
    for language, pattern in {
        "python": r"^[ \t]{0,40}(?:async[ \t]{1,4})?(?:def|class)[ \t]{1,4}(\w{1,100})"
        r"|^([A-Za-z_]\w{1,100})[ \t]{0,4}(?::[^=\n]{1,80})?=(?!=)",
        "javascript": r"^[ \t]{0,40}(?:export[ \t]{1,4})?(?:default[ \t]{1,4})?(?:declare[ \t]{1,4})?"
        r"(?:abstract[ \t]{1,4})?(?:async[ \t]{1,4})?(?:function\*?|class|interface|type|enum|namespace)[ \t]{1,4}"
        r"([A-Za-z_$][\w$]{0,100})"
        r"|^(?:export[ \t]{1,4})?(?:const|let|var)[ \t]{1,4}([A-Za-z_$][\w$]{0,100})"
        r"|^[ \t]{1,12}(?:(?:public|private|protected|static|async|override|get|set)[ \t]{1,4}){0,4}"
        r"(?!(?:if|for|while|switch|catch|function|return|super)\b)([A-Za-z_$][\w$]{0,100})"
        r"(?:<[^>\n]{0,80}>)?\([^;\n]{0,300}\{[ \t]*$",
        "java": r"\b(?:class|interface|enum|record)[ \t]{1,4}([A-Z]\w{0,100})"
        r"|^[ \t]{1,12}(?!(?:return|new|throw|else|case|assert)\b)(?:[\w<>\[\],.?@]{1,80}[ \t]{1,4}){1,6}"
        r"([a-z]\w{0,100})[ \t]{0,2}\([^;{}=]{0,400}\)[^;{}=\n]{0,200}[{;]",
        "go": r"^func[ \t]{1,4}(?:\([^)\n]{1,100}\)[ \t]{0,4})?(\w{1,100})|^type[ \t]{1,4}(\w{1,100})"
        r"|^(?:var|const)[ \t]{1,4}(\w{1,100})|^\t([A-Z]\w{1,100})[^\n(]{0,80}=",
        "rust": r"^[ \t]{0,40}(?:pub(?:\([^)\n]{1,40}\))?[ \t]{1,4})?(?:(?:default|const|async|unsafe)[ \t]{1,4}){0,3}"
        r"(?:fn|struct|enum|trait|type|mod|union|const|static|macro_rules!)[ \t]{1,4}(\w{1,100})",
        "other": r"^[ \t]{0,40}(?:\w{1,20}[ \t]{1,4}){0,4}(?:def|class|fun|func|function|interface|struct|module|trait"
        r"|enum|object)[ \t]{1,4}(?:self\.)?(\w{1,100})",
    }.items()
}
_IMPORTS: Final[Mapping[str, re.Pattern[str]]] = {
    "python": re.compile(
        r"^[ \t]{0,40}from[ \t]{1,4}([.\w]{1,200})[ \t]{1,4}import[ \t]{1,4}(\([^)]{0,4000}\)|[^\n#(]{1,1000})"
        r"|^[ \t]{0,40}import[ \t]{1,4}([\w., \t]{1,400})",
        re.MULTILINE,
    ),
    "javascript": re.compile(r"(?:\bfrom|\bimport|\brequire\(|\bimport\()[ \t]{0,4}['\"]([^'\"\n]{1,300})['\"]"),
    "java": re.compile(r"^import[ \t]{1,4}(?:static[ \t]{1,4})?([\w.]{1,300})", re.MULTILINE),
    "go": re.compile(r"^(?:import)?[ \t]{1,8}(?:[\w.]{1,60}[ \t]{1,4})?\"([^\"\n]{1,300})\"[ \t]*$", re.MULTILINE),
    "rust": re.compile(r"^[ \t]{0,40}(?:pub[ \t]{1,4})?(?:use|mod)[ \t]{1,4}([\w:]{1,300})", re.MULTILINE),
}
_ROUTE: Final = re.compile(r"[\"'`]((?:[A-Z]{3,7} )?/[\w{}:<>.*/$-]{1,200})[\"'`]")
_SERVES: Final = re.compile(
    r"(?i)rout|mapping|handle|\bpath\b|@path|\burl|mount|prefix|blueprint|\bapi\b|\bapp\.|@(?:get|post|put|delete|patch)"
    r"|group|server\.|\b(?:r|mux|api|users?)\.(?:get|post|put|delete|patch|any|use)"
)
_ASKS: Final = re.compile(
    r"(?i)client|fetch|axios|requests\.|http\.(?:get|post|newrequest)|httptest|navigate|redirect|href"
)
_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{1,100}|\b[1-9][0-9]{2,5}\b")  # numbers too: 429 is a name as well
_PIECE: Final = re.compile(r"[A-Z]{2,}(?![a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_TEST: Final = re.compile(
    r"(?:^|/)(?:tests?|__tests__|specs?|e2e|testdata)/"
    r"|(?:^|/)(?:test_[^/]*|[^/]*_test|conftest|[^/]*_spec|tests)\.(?:py|go|rb|rs|ex|exs)$"
    r"|\.(?:test|spec|cy)\.[cm]?[jt]sx?$|(?:^|/)[^/]*(?:Test|Tests|IT|Spec|TestCase)\.(?:java|kt|scala|cs|groovy)$"
)
_ASIDE: Final = re.compile(
    r"(?:^|/)(?:docs?|examples?|samples?|demos?|bench(?:es|marks?)?|scripts|tools|tooling|fixtures|_?vendor(?:ed)?"
    r"|third_?party|_?extern(?:al)?|generated|declarations)/|(?:^|/)(?:setup|conf|noxfile)\.py$|\.d\.[cm]?ts$|\.pyi$"
    r"|\.config\.[cm]?[jt]s$|[._-]min\.|\.generated\.|_pb2\.py$|\.pb\.go$"
)
_NO_SUBJECT: Final = re.compile(
    r"^(?:test|it|spec)[_-]|[_-](?:test|spec)$|\.(?:test|spec|cy)$|(?:Tests?|IT|Spec|TestCase)$"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """One file: definitions and served routes with their 1-based lines, modules it imports, names with their number."""

    language: str
    defines: tuple[tuple[str, int], ...]
    routes: tuple[tuple[str, int], ...]
    imports: tuple[str, ...]
    names: Mapping[str, int]


def language(path: str) -> str:
    """Name the language by the file's extension; "" for a file that is not looked at."""
    name = path.rpartition("/")[2]
    if name in ("Dockerfile", "Makefile"):
        return "plain"
    return LANGUAGES.get(name.rpartition(".")[2].lower(), "") if "." in name else ""


def is_test(path: str) -> bool:
    """Say whether a file is a test, by its place or its name."""
    return _TEST.search(path) is not None


def is_aside(path: str) -> bool:
    """Say whether a file stands beside the program: examples, tools, declarations, copies of others' code, markup."""
    return _ASIDE.search(path) is not None or language(path) == "plain"


def subject(path: str) -> str:
    """Return the name, without extension, of the file that a test is about by convention; "" for none."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    bare = _NO_SUBJECT.sub("", stem)
    return bare if bare != stem else ""


def facts(path: str, text: str) -> Facts:
    """Read one file. Never raises; of a long text only the first `MAX_TEXT` characters."""
    text = text[:MAX_TEXT]
    of = language(path)
    return Facts(
        of, tuple(_defined(of, text)), tuple(_routes(text)), tuple(_imports(of, text)), Counter(_NAME.findall(text))
    )


@lru_cache(maxsize=1 << 16)
def pieces(name: str) -> tuple[str, ...]:
    """Split an identifier into lower-case words; the whole comes first: `getRunId` → getrunid, get, run, id."""
    parts = [part.lower() for part in _PIECE.findall(name) if len(part) > 1]
    whole = name.strip("_$").lower()
    found = [whole, *parts] if parts != [whole] else [whole]
    return tuple(_stem(each) for each in found if len(each) > 1)


def _stem(word: str) -> str:
    """Take the commonest English endings off, so that `retries` in an issue meets `retry` in the code."""
    for ending, instead, least in (
        ("ies", "y", 5),
        ("ied", "y", 5),
        ("sses", "ss", 6),
        ("ing", "", 6),
        ("ed", "", 5),
        ("s", "", 4),
    ):
        if word.endswith(ending) and len(word) >= least and not word.endswith("ss"):
            return word[: -len(ending)] + instead
    return word


def route_parts(route: str) -> tuple[str, ...]:
    """Split a route into its parts, parameters as `*`: `/users/{id}`, `/users/:id`, `/users/42` → users, *."""
    parts = [part for part in route.rpartition(" ")[2].split("?")[0].split("/") if part]
    return tuple("*" if part[0] in "{:<*$" or part.isdigit() else part.lower() for part in parts)


def _defined(of: str, text: str) -> Iterator[tuple[str, int]]:
    pattern = _DEFINITIONS.get(of)
    if pattern is None:
        return
    line, at = 1, 0
    for number, found in enumerate(pattern.finditer(text)):
        if number >= _MAX_FOUND:
            return
        group = found.lastindex or 1
        start = found.start(group)
        line += text.count("\n", at, start)
        at = start
        yield found[group], line


def _routes(text: str) -> Iterator[tuple[str, int]]:
    line, at = 1, 0
    for number, found in enumerate(_ROUTE.finditer(text)):
        if number >= _MAX_FOUND:
            return
        start = found.start()
        line += text.count("\n", at, start)
        at = start
        before = text[max(text.rfind("\n", 0, start) + 1, start - 120) : start]
        if " " in found[1] or (_SERVES.search(before) and not _ASKS.search(before)):
            yield found[1], line


def _imports(of: str, text: str) -> Iterator[str]:
    pattern = _IMPORTS.get(of)
    if pattern is None:
        return
    for number, found in enumerate(pattern.finditer(text)):
        if number >= _MAX_FOUND:
            return
        if of != "python":
            yield found[1]
        elif found[3]:
            yield from (part.split()[0] for part in found[3].split(",") if part.strip())
        else:
            yield found[1]
            dot = "" if found[1].endswith(".") else "."
            for part in found[2].strip("() \t").split(","):
                if words := part.split("#")[0].split():
                    yield f"{found[1]}{dot}{words[0]}"
