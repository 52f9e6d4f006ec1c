"""Names that are not there: NameError, and UnboundLocalError."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from itertools import takewhile
from types import ModuleType
from typing import Final

from delegated.models.offline.crash import Crash
from delegated.models.offline.finding import Example, Finding, Fix
from delegated.models.offline.scene import Scene, Spot
from delegated.models.offline.scopes import BUILTINS, bindings, scopes, stars, visible, within
from delegated.models.offline.source import MOST, Change, Place, Source
from delegated.models.offline.spelling import near, sole

# Modules that do nothing but define when they are imported, so that what they hold can be asked of Python itself.
PLAIN: Final = frozenset({
    "argparse", "array", "ast", "asyncio", "base64", "bisect", "collections", "configparser", "contextlib",
    "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "enum", "errno", "fnmatch", "fractions",
    "functools", "getpass", "glob", "gzip", "hashlib", "heapq", "hmac", "html", "inspect", "io", "ipaddress",
    "itertools", "json", "logging", "math", "mimetypes", "operator", "os", "pathlib", "pickle", "pprint", "queue",
    "random", "re", "secrets", "shelve", "shlex", "shutil", "signal", "sqlite3", "statistics", "string", "struct",
    "subprocess", "sys", "tempfile", "textwrap", "threading", "time", "traceback", "types", "typing",
    "unicodedata", "uuid", "warnings", "weakref", "zipfile", "zlib",
})  # fmt: skip
_NAME: Final = re.compile(r"name '(\w+)' is not defined")
_FREE: Final = re.compile(r"(?:cannot access )?free variable '(\w+)'")
_LOCAL: Final = re.compile(r"(?:cannot access )?local variable '(\w+)'")


def name_error(scene: Scene, crash: Crash, spot: Spot) -> Finding | None:
    """Explain `name 'x' is not defined`."""
    if free := _FREE.match(crash.message):
        return Finding(
            f"`{free[1]}` is read in {spot.where} before the function around it has given it a value.",
            "An inner function reads variables of the outer one at the time it is called. It was "
            "called, or the variable "
            "deleted, before the assignment in the outer function had run.",
            checks=(f"Find where the function around {spot.where} assigns `{free[1]}`, and move that above the call.",),
        )
    match = _NAME.match(crash.message)
    if match is None:
        return None
    name, source = match[1], spot.source
    if source.tree is None:
        return Finding(f"`{name}` has no meaning in {spot.where}.", _UNSENT.format(path=source.path))
    around = scopes(source, spot.line)
    bound = bindings(around[-1]).get(name)
    if bound:
        return _too_early(name, spot, sorted(getattr(node, "lineno", 0) for node in bound))
    return _module(name, spot) or _imported_elsewhere(name, scene, spot) or _misspelt(name, spot)


_UNSENT: Final = (
    "Only part of {path} was sent, so it cannot be said which names it defines. A misspelling and a "
    "missing import are the usual causes."
)


def _too_early(name: str, spot: Spot, lines: list[int]) -> Finding:
    later = [line for line in lines if line > spot.line] or lines
    return Finding(
        f"{spot.where} uses `{name}`, which the module defines on line {later[0]}, and that had not run yet.",
        f"Module code runs from top to bottom. When line {spot.line} ran, line {later[0]}, which binds "
        f"`{name}`, had not: it stands "
        "below, in a branch that was not taken, or the name was deleted since.",
        evidence=(spot.source.place(later[0]),),
        fixes=(Fix(f"Move the definition of `{name}` above its first use, or call from below it."),),
        shown=later[0] > spot.line,
    )


def _uses(name: str, source: Source) -> list[ast.Name]:
    return [node for node in source.everything if isinstance(node, ast.Name) and node.id == name]


def _module(name: str, spot: Spot) -> Finding | None:
    """Propose `import name` where every use of the name in the file is an attribute that this module really has."""
    if name not in sys.stdlib_module_names:
        return None
    source = spot.source
    uses = {id(node) for node in _uses(name, source)}
    reached = {n.attr for n in source.everything if isinstance(n, ast.Attribute) and id(n.value) in uses}
    through = sum(isinstance(n, ast.Attribute) and id(n.value) in uses for n in source.everything)
    if name not in PLAIN or through != len(uses) or not all(_has(name, attribute) for attribute in reached):
        return Finding(
            f"`{name}` is used in {spot.where} and bound nowhere in {source.path}; a module of the "
            "standard library has that name.",
            "Either the import is missing, or a variable of that name was meant: its uses in this "
            "file do not settle which.",
            fixes=(Fix(f"If the module is meant, add `import {name}` at the top of {source.path}."),),
        )
    had = ", ".join(f"`{name}.{attribute}`" for attribute in sorted(reached)[:5])
    edits = spot.edit(import_change(source, f"import {name}"))
    return Finding(
        f"{source.path} uses the standard library's `{name}` and does not import it.",
        f"`{name}` is bound nowhere in {source.path}. Every use of it there ({had}) is something that "
        f"the module `{name}` has.",
        fixes=(
            Fix(
                f"Import `{name}` at the top of {source.path}.",
                edits,
                "It makes the name exist.",
                "None known: nothing else there has the name.",
            ),
        ),
        shown=True,
    )


def _has(module: str, attribute: str) -> bool:
    """Say whether a plain import of this module gives this attribute, which it need not for a submodule."""
    found = getattr(importlib.import_module(module), attribute, None)
    return found is not None and (not isinstance(found, ModuleType) or (module, attribute) == ("os", "path"))


def _imported_elsewhere(name: str, scene: Scene, spot: Spot) -> Finding | None:
    """Propose the import by which another sent file gets this very name."""
    found: dict[str, Place] = {}
    modules: set[str] = set()
    for source in scene.python(name):
        for node in source.everything:
            if isinstance(node, ast.ImportFrom) and any(
                a.name == name and a.asname in (None, name) for a in node.names
            ):
                module = "." * node.level + (node.module or "")
                found.setdefault(f"from {module} import {name}", source.place(node.lineno, node.end_lineno or 0))
                modules.add(module)
    if not found:
        return None
    statement = next(iter(found))
    # an import from the workspace's own code may close a circle, and a relative one means something else elsewhere
    safe = len(found) == 1 and next(iter(modules)).partition(".")[0] in sys.stdlib_module_names
    edits = spot.edit(import_change(spot.source, statement)) if safe and not stars(spot.source) else ()
    return Finding(
        f"{spot.source.path} uses `{name}` and does not import it.",
        f"`{name}` is bound nowhere in {spot.source.path}. {next(iter(found.values())).path} gets it by `{statement}`.",
        evidence=tuple(found.values())[:3],
        fixes=(Fix(f"Import `{name}` at the top of {spot.source.path}.", edits, "It makes the name exist."),),
        examples=() if edits else (Example("The import that another file uses", statement),),
        shown=True,
    )


def _misspelt(name: str, spot: Spot) -> Finding:
    source = spot.source
    names = visible(source, spot.line)
    best = None if stars(source) else sole(name, names)
    if best is None:
        alike = near(name, names)[:4]
        return Finding(
            f"`{name}` is bound nowhere that {spot.where} can see.",
            f"Neither the function nor {source.path} nor Python itself defines `{name}`."
            + (
                (
                    f" Names that look like it: {', '.join(f'`{other}`' for other in alike)}; the code "
                    "does not say which is meant."
                )
                if alike
                else ""
            )
            + (" The file imports names with `*`, so what it defines cannot be seen in full." if stars(source) else ""),
            fixes=(Fix(f"Define or import `{name}`, or correct its spelling."),),
        )
    scope = scopes(source, spot.line)[0]
    uses = [node for node in within(scope) if isinstance(node, ast.Name) and node.id == name]
    edits = spot.edit(*(source.span(node, best) for node in uses[: MOST + 1]))
    lines = [
        line
        for around in scopes(source, spot.line)
        for node in bindings(around).get(best, ())
        if (line := getattr(node, "lineno", 0))
    ]
    others = sorted({n.lineno for n in _uses(name, source)} - {n.lineno for n in uses})
    return Finding(
        f"`{name}` in {spot.where} is a misspelling of `{best}`.",
        f"`{name}` is bound nowhere in {source.path}. Of all names that this line can see, `{best}` is "
        "the only one that is spelt "
        f"alike{' (it is one of Python itself)' if best in BUILTINS and not lines else ''}.",
        evidence=(source.place(lines[0]),) if lines else (),
        fixes=(
            Fix(f"Write `{best}` instead of `{name}`.", edits, "It is the only name in reach that is spelt alike."),
        ),
        checks=(f"`{name}` also stands on line {', '.join(map(str, others[:8]))} of {source.path}.",) if others else (),
        shown=True,
    )


def import_change(source: Source, statement: str) -> Change | None:
    """Return the change that adds an import at the top of a file, among those that are there."""
    if source.tree is None:
        return None
    end = "\r\n" if "\r\n" in source.text else "\n"
    body = list(source.tree.body)
    head = 1 if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) else 0
    while head < len(body) and isinstance(body[head], ast.ImportFrom) and body[head].module == "__future__":  # type: ignore[attr-defined]
        head += 1
    rest = body[head:]
    if not rest or (head and body[head - 1].end_lineno == rest[0].lineno):
        return None
    plain = list(takewhile(lambda node: isinstance(node, ast.Import), rest))
    later = next((node for node in plain if f"import {node.names[0].name}" > statement), None)  # type: ignore[attr-defined]
    if plain and later is None:
        last = plain[-1].end_lineno or 0
        at = len(source.line(last))
        return Change(last, at, at, end + statement)
    anchor = later or rest[0]
    first = min([anchor.lineno, *(decorator.lineno for decorator in getattr(anchor, "decorator_list", ()))])
    gap = 0 if isinstance(anchor, ast.Import | ast.ImportFrom) else 2 if hasattr(anchor, "body") else 1
    return Change(first, 0, 0, statement + end * (gap + 1)) if anchor.col_offset == 0 else None


def unbound_local(scene: Scene, crash: Crash, spot: Spot) -> Finding | None:
    """Explain a local variable that is read before it has a value."""
    match, source = _LOCAL.match(crash.message), spot.source
    function = source.function(spot.line)
    if match is None or function is None:
        return None
    name = match[1]
    here = bindings(function).get(name, [])
    lines = sorted({getattr(node, "lineno", 0) for node in here})
    if not lines:
        return None
    outer = next((scope for scope in scopes(source, spot.line)[1:] if name in bindings(scope)), None)
    evidence = tuple(source.place(line) for line in lines[:3] if line != spot.line)
    rule = (
        f"An assignment anywhere in a function makes the name local to the whole of it. `{function.name}` "
        f"assigns `{name}` on line {_listed(lines)}"
    )
    if outer is None or len(here) > MOST or not all(_reads_itself(function, node, name) for node in here):
        return Finding(
            f"{spot.where} reads `{name}` on a path on which it was never assigned.",
            f"{rule}, and on the way taken that assignment had not run: a branch not taken, a loop "
            "over nothing, an exception in between, or a line below.",
            evidence=evidence,
            fixes=(
                Fix(
                    f"Give `{name}` a value before the branches in `{function.name}`, or handle the "
                    "path that skips the assignment."
                ),
            ),
            shown=True,
        )
    word = "global" if isinstance(outer, ast.Module) else "nonlocal"
    home = min(getattr(node, "lineno", 0) for node in bindings(outer)[name])
    first = next(
        (n for n in function.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))),
        function.body[0],
    )
    indent = source.line(first.lineno)[: first.col_offset]
    end = "\r\n" if "\r\n" in source.text else "\n"
    alone = not indent.strip() and first.lineno > function.lineno
    edits = spot.edit(Change(first.lineno, 0, 0, f"{indent}{word} {name}{end}") if alone else None)
    return Finding(
        f"`{function.name}` changes `{name}` of the "
        f"{'module' if word == 'global' else 'function around it'} without declaring it `{word}`.",
        f"{rule}, and each of these reads the value that it changes, so a local `{name}` could never "
        f"have one. Line {home} binds the one that is meant.",
        evidence=(source.place(home), *evidence),
        fixes=(
            Fix(
                f"Declare `{word} {name}` in `{function.name}`.",
                edits,
                "The assignments then change the outer variable.",
                "Threads share it.",
            ),
        ),
        shown=True,
    )


def _reads_itself(function: ast.AST, node: ast.AST, name: str) -> bool:
    """Say whether this binding is part of `name += ...` or `name = ... name ...`."""
    for statement in ast.walk(function):
        if isinstance(statement, ast.AugAssign) and statement.target is node:
            return True
        if isinstance(statement, ast.Assign) and statement.targets == [node]:
            return any(
                isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)
                for n in ast.walk(statement.value)
            )
    return False


def _listed(lines: list[int]) -> str:
    return ", ".join(map(str, lines[:6]))
