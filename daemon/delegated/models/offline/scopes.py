"""Which names are bound where in one file, as Python's own rules have it."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from typing import Final

from delegated.models.offline.source import Source, covers

BUILTINS: Final = frozenset(dir(builtins))

Scope = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
Bindings = dict[str, list[ast.AST]]
_Functions: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def scopes(source: Source, line: int) -> list[Scope]:
    """Return the scopes around a line that its names are looked up in, innermost first; the module is the last."""
    found: list[Scope] = []
    for node in source.everything:
        if isinstance(node, Scope) and (isinstance(node, ast.Module) or (covers(node, line) and _inside(node, line))):
            found.append(node)
    found.reverse()
    return [scope for place, scope in enumerate(found) if place == 0 or not isinstance(scope, ast.ClassDef)]


def bindings(scope: Scope) -> Bindings:
    """Return the names that a scope binds, each with the nodes that bind it, in no order."""
    found: Bindings = {}
    for node in within(scope):
        for name in _bound(node):
            found.setdefault(name, []).append(node)
    if isinstance(scope, _Functions):
        for arg in parameters(scope.args):
            found.setdefault(arg.arg, []).append(arg)
    return found


def within(scope: Scope) -> Iterator[ast.AST]:
    """Walk what runs in a scope itself: not the bodies of functions and classes in it, but comprehensions too."""
    waiting: list[ast.AST] = list(ast.iter_child_nodes(scope)) if isinstance(scope, ast.Module) else _body(scope)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        elif isinstance(node, ast.ClassDef):
            waiting += [*node.decorator_list, *node.bases]
        elif isinstance(node, ast.Lambda):
            waiting += [*node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        else:
            waiting += ast.iter_child_nodes(node)


def parameters(args: ast.arguments) -> list[ast.arg]:
    """Return all parameters of a function, in order."""
    extra = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *extra]


def stars(source: Source) -> bool:
    """Say whether the file imports names with `*`, so that what it binds cannot be known from it."""
    return any(
        isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names) for node in source.everything
    )


def _body(scope: Scope) -> list[ast.AST]:
    return [scope.body] if isinstance(scope, ast.Lambda) else list(scope.body)


def _inside(scope: Scope, line: int) -> bool:
    """Say whether a line is in the body: a decorator or a default on the head runs in the scope around it."""
    return isinstance(scope, ast.Module | ast.Lambda) or line >= scope.body[0].lineno


def _bound(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=aliases):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
        case ast.ImportFrom(names=aliases):
            yield from (alias.asname or alias.name for alias in aliases)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            yield from names


def visible(source: Source, line: int) -> set[str]:
    """Return the names that code on a line can read: bound around it, or before it where order matters."""
    statement = source.statement(line)
    first = statement.lineno if statement else line
    loops = [loop for node in source.at(line, ast.expr) for loop in getattr(node, "generators", ())]
    targets = {id(node) for loop in loops for node in ast.walk(loop.target)}
    names = set(BUILTINS)
    for place, scope in enumerate(scopes(source, line)):
        for name, nodes in bindings(scope).items():
            # in the innermost scope: parameters, what is bound above, and what a comprehension binds on the spot
            if place or any(
                isinstance(n, ast.arg) or getattr(n, "lineno", 0) < first or id(n) in targets for n in nodes
            ):
                names.add(name)
    return names
