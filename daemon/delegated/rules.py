"""What secrets look like, as data: rules in gitleaks' format, the shipped ones and those of the user's own files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

_LOOK: Final = "look:"
_KIND: Final = re.compile(r"[^a-z0-9]+")
_OF_FILE: Final = frozenset(
    {"title", "description", "minVersion", "betterleaksMinVersion", "allowlist", "allowlists", "rules"}
)
_OF_RULE: Final = frozenset(
    {"id", "description", "regex", "secretGroup", "entropy", "keywords", "path", "tags", "allowlist", "allowlists"}
)
_OF_ALLOW: Final = frozenset(
    {"description", "condition", "regexTarget", "regexes", "stopwords", "paths", "commits", "targetRules", "id"}
)


@dataclass(frozen=True, slots=True)
class Allow:
    """What a rule lets pass: one of the lists, or one of each where `every`. `target` is secret, match or line."""

    regexes: tuple[str, ...] = ()
    target: str = "secret"
    stopwords: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    every: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One form of secret. `kind` stands in the placeholder; `look` names how `habits` judges a value, or is empty.

    `group` is the group that holds the secret; 0: the first one that takes part, or the whole match where none is.
    `entropy` in bits a character; `keywords` in lower case, of which one stands in every text with such a secret; none:
    sought in every text. `source` is the file it came from, empty for a shipped one.
    """

    id: str
    kind: str
    words: str
    regex: str
    keywords: tuple[str, ...] = ()
    group: int = 0
    entropy: float = 0.0
    look: str = ""
    path: str = ""
    allows: tuple[Allow, ...] = ()
    source: str = ""


@cache
def shipped() -> tuple[Rule, ...]:
    """Return the rules that come with the package."""
    text = resources.files(__package__).joinpath("rules.toml").read_text("utf-8")
    rules, problems = parse(text, "")
    assert not problems, problems
    return rules


def parse(text: str, source: str) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """Read a file of rules; return those that can be used, and a sentence for each thing that cannot.

    What stands in an allow list of the whole file holds for that file's own rules only: an added file never silences
    a shipped rule. `source` is its name in the sentences. That a regular expression compiles is not checked here.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return (), (f"{source}: it should be TOML: {error}",)
    problems = [f"{source}: `{key}` is not supported and is ignored" for key in sorted(tree.keys() - _OF_FILE)]
    common = _allows(tree, source, problems)
    found = tree.get("rules", [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        return (), (*problems, f"{source}: `rules` should be tables, each below a line [[rules]]")
    rules: list[Rule] = []
    ids: set[str] = set()
    for number, each in enumerate(found, 1):
        name = str(each.get("id") or f"number {number}")
        where = f"{source}: rule `{name}`"
        try:
            rule = _rule(each, name, source, where, common, problems)
        except (TypeError, ValueError) as error:
            problems.append(f"{where}: {error}; the rule is left out")
            continue
        if rule is None:
            continue
        if rule.id in ids:
            problems.append(f"{where}: another rule has this id; the rule is left out")
            continue
        ids.add(rule.id)
        rules.append(rule)
    return tuple(rules), tuple(problems)


def _rule(
    tree: Mapping[str, object],
    name: str,
    source: str,
    where: str,
    common: tuple[tuple[Allow, frozenset[str]], ...],
    problems: list[str],
) -> Rule | None:
    regex = tree.get("regex")
    if not regex:
        problems.append(f"{where}: it has no `regex`: what is never sent by its name is not set here; it is left out")
        return None
    if "required" in tree:
        problems.append(f"{where}: `required` is not supported; the rule is left out, as alone it would hide too much")
        return None
    for key in sorted(tree.keys() - _OF_RULE):
        problems.append(f"{where}: `{key}` is not supported and is ignored")
    tags = _texts(tree.get("tags", ()), "tags")
    kinds = [tag for tag in tags if not tag.startswith(_LOOK)] if not source else []
    looks = [tag.removeprefix(_LOOK) for tag in tags if tag.startswith(_LOOK)] if not source else []
    group, entropy, path = tree.get("secretGroup", 0), tree.get("entropy", 0.0), tree.get("path", "")
    if not isinstance(regex, str) or not isinstance(path, str):
        raise TypeError("`regex` and `path` should be texts")
    if not isinstance(group, int) or group < 0 or not isinstance(entropy, int | float):
        raise TypeError("`secretGroup` should be a whole number and `entropy` a number")
    own = tuple(allow for allow, _ in _allows(tree, where, problems))
    return Rule(
        name,
        _KIND.sub("-", (kinds[0] if kinds else name).lower()).strip("-")[:40] or "secret",
        str(tree.get("description", "")),
        regex,
        tuple(word.lower() for word in _texts(tree.get("keywords", ()), "keywords") if word),
        group,
        float(entropy),
        looks[0] if looks else "",
        path,
        own + tuple(allow for allow, only in common if not only or name in only),
        source,
    )


def _allows(tree: Mapping[str, object], where: str, problems: list[str]) -> tuple[tuple[Allow, frozenset[str]], ...]:
    """Read the allow lists of a file or a rule, with the ids of the rules that each is for; none: for all."""
    given = tree.get("allowlists", [])
    listed = [*(given if isinstance(given, list) else [given]), *([tree["allowlist"]] if "allowlist" in tree else [])]
    found: list[tuple[Allow, frozenset[str]]] = []
    for each in listed:
        try:
            if not isinstance(each, dict):
                raise TypeError("it should be a table")
            if each.keys() - _OF_ALLOW:
                raise ValueError(f"`{min(each.keys() - _OF_ALLOW)}` is not supported")
            lists = {key: _texts(each.get(key, ()), key) for key in ("regexes", "stopwords", "paths", "commits")}
            every = str(each.get("condition", "OR")).upper() in ("AND", "&&")
            if lists["commits"] and every:
                raise ValueError("`commits` is not supported: what is sent has no commit")
            target = str(each.get("regexTarget", "") or "secret")
            if target not in ("secret", "match", "line"):
                raise ValueError("`regexTarget` should be secret, match or line")
            allow = Allow(
                lists["regexes"], target, tuple(word.lower() for word in lists["stopwords"]), lists["paths"], every
            )
            found.append((allow, frozenset(_texts(each.get("targetRules", ()), "targetRules"))))
        except (TypeError, ValueError) as error:
            problems.append(f"{where}: an allow list is left out: {error}")
    return tuple(found)


def _texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"`{name}` should be a list of texts")
    return tuple(value)
