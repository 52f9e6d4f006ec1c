"""Show what would be hidden before anything is sent, and explain the rules by which it is found."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from . import exits, terminal
from .arguments import place_flags, place_of
from .place import Absent, Usage

if TYPE_CHECKING:
    from delegated.config import Config
    from delegated.context import Omitted, SourceFile
    from delegated.rules import Rule

_TOGETHER: Final = 200  # files of which a value found in one is sought in the others, as in a request


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `secrets`."""
    parser.add_argument("action", choices=("scan", "explain"), help="scan files, or explain a rule")
    parser.add_argument("names", nargs="*", metavar="PATH|RULE", help="files and directories; the id or kind of a rule")
    parser.add_argument("--json", action="store_true", help="print JSON")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Do what is asked. No value is ever printed."""
    from delegated import config

    place = place_of(args)
    found = config.load(workspace=place.workspace)
    rules, problems = config.secret_rules(found, (place.workspace,))
    for problem in problems:
        terminal.warn(problem)
    if args.action == "explain":
        return _explain(args.names, rules, as_json=args.json)
    if not args.names:
        raise Usage("secrets scan needs a file or a directory", "delegate secrets scan .")
    return _scan(args.names, rules, found, place.workspace, as_json=args.json)


# -- scan --


def _scan(names: Sequence[str], rules: Sequence[Rule], found: Config, workspace: str, *, as_json: bool) -> int:
    from delegated.context import SourceFile
    from delegated.finder import find
    from delegated.sieve import Sieve
    from delegated.workspace import Workspace

    sieve = Sieve(rules)
    keys = _own_keys(found)
    hidden: list[dict[str, Any]] = []
    omitted: list[dict[str, str]] = []
    looked_at = 0
    for name in names:
        root, patterns = _below(name, workspace)
        with Workspace(root) as space:
            known = (*keys, *space.env_values())
            for files in _batches(space, patterns, omitted, name):
                texts = [(each.path, each.text) for each in files if isinstance(each, SourceFile)]
                looked_at += len(texts)
                for (path, text), secrets in zip(texts, find(texts, known=known, sieve=sieve), strict=True):
                    shown = os.path.relpath(os.path.join(root, path))
                    hidden += [
                        {
                            "path": shown,
                            "line": secret.line,
                            "kind": secret.kind,
                            "rule": secret.rule,
                            "length": secret.end - secret.start,
                            "lines": 1 + text.count("\n", secret.start, secret.end),
                        }
                        for secret in secrets
                    ]
    if as_json:
        terminal.out_json({"files": looked_at, "hidden": hidden, "never_sent": omitted})
        return exits.OK
    for each in hidden:
        lines = f", {each['lines']} lines" if each["lines"] > 1 else ""
        by = f" (by {each['rule']})" if each["rule"] else ""
        terminal.out(f"{each['path']}:{each['line']}: {each['kind']}, {each['length']} characters{lines}{by}")
    for one in omitted:
        terminal.out(f"{one['path']}: not sent: {one['reason']}")
    places = f"{len(hidden)} place{'' if len(hidden) == 1 else 's'}"
    terminal.say(f"{places} would be hidden in {looked_at} file{'' if looked_at == 1 else 's'}")
    return exits.OK


def _below(name: str, workspace: str) -> tuple[str, tuple[str, ...] | None]:
    """Return the root to read below, and the paths there; None: every file that a glob would give."""
    path = os.path.abspath(os.path.expanduser(name))
    if not os.path.lexists(path):
        raise Absent(
            f"there is no file or directory {name}", "delegate secrets scan takes paths as they are seen from here"
        )
    inside = path == workspace or path.startswith(workspace.rstrip("/") + "/")
    if os.path.isdir(path):
        if inside and path != workspace:
            return workspace, (os.path.relpath(path, workspace) + "/**",)
        return path, None
    root = workspace if inside else os.path.dirname(path)
    return root, (os.path.relpath(path, root),)


def _batches(
    space: Any, patterns: tuple[str, ...] | None, omitted: list[dict[str, str]], name: str
) -> Iterator[list[SourceFile | Omitted]]:
    from delegated.context import Omitted

    paths = list(patterns) if patterns else list(space.files())
    if patterns and patterns[0].endswith("/**"):
        below = patterns[0].removesuffix("**")
        paths = [path for path in space.files() if path.startswith(below)]
    for at in range(0, len(paths), _TOGETHER):
        batch = [space.read(path) for path in paths[at : at + _TOGETHER]]
        omitted += [{"path": each.path, "reason": each.reason} for each in batch if isinstance(each, Omitted)]
        yield batch


def _own_keys(found: Config) -> tuple[str, ...]:
    from delegated import keys
    from delegated.errors import OperatorError

    found_keys: list[str] = []
    for endpoint in found.endpoints.values():
        try:
            key = keys.find(endpoint, os.environ)
        except OperatorError:
            continue
        if key:
            found_keys.append(key.value)
    return tuple(found_keys)


# -- explain --


def _explain(names: Sequence[str], rules: Sequence[Rule], *, as_json: bool) -> int:
    if not names:
        kinds = sorted({rule.kind for rule in rules})
        if as_json:
            terminal.out_json([_facts(rule) for rule in rules])
            return exits.OK
        for kind in kinds:
            terminal.out(f"{kind}: {', '.join(rule.id for rule in rules if rule.kind == kind)}")
        return exits.OK
    chosen: list[Rule] = []
    for name in names:
        found = [rule for rule in rules if rule.id == name] or [rule for rule in rules if rule.kind == name]
        if not found:
            import difflib

            near = difflib.get_close_matches(name, {one for rule in rules for one in (rule.id, rule.kind)}, 1)
            hint = f"did you mean `delegate secrets explain {near[0]}`? " if near else ""
            raise Usage(f"there is no rule {name!a}", f"{hint}`delegate secrets explain` lists them all")
        chosen += found
    if as_json:
        terminal.out_json([_facts(rule) for rule in chosen])
        return exits.OK
    for number, rule in enumerate(chosen):
        if number:
            terminal.out("")
        for key, value in _facts(rule).items():
            words = ", ".join(value) if isinstance(value, list) else str(value)
            if words:
                terminal.out(f"{key:<9} {words}")
    return exits.OK


def _facts(rule: Rule) -> dict[str, Any]:
    from delegated.habits import LOOKS

    judged = ""
    if rule.look:
        judged = re.sub(r"\s+", " ", (LOOKS[rule.look].__doc__ or "").partition("\n")[0].strip()) or rule.look
    return {
        "id": rule.id,
        "kind": rule.kind,
        "words": rule.words,
        "keywords": list(rule.keywords),
        "regex": rule.regex,
        "entropy": rule.entropy or "",
        "judged": judged,
        "where": "the lines around a keyword" if rule.look else "the whole text",
        "from": rule.source or "delegated itself",
    }
