"""Where a None came from, as far as the sent code shows it."""

from __future__ import annotations

import ast
from typing import Final

from delegated.models.offline.scene import Scene, Spot
from delegated.models.offline.scopes import within
from delegated.models.offline.source import Place, Source

# calls that return None for "not there", and methods that change their object and return nothing
_FINDERS: Final = frozenset(
    {"get", "match", "search", "fullmatch", "find_spec", "getenv", "first", "one_or_none", "scalar", "fetchone", "find"}
)
_DOERS: Final = frozenset(
    {"append", "extend", "sort", "reverse", "update", "clear", "insert", "remove", "add", "shuffle"}
)


def origin(scene: Scene, spot: Spot, value: ast.expr) -> tuple[str, tuple[Place, ...]]:
    """Tell how this expression may have become None, with the lines that show it; ("", ()) if not known."""
    if isinstance(value, ast.Call):
        return _call(scene, value, spot.source)
    if not isinstance(value, ast.Name):
        return "", ()
    function = spot.source.function(spot.line)
    scope = function or spot.source.tree
    if scope is None:
        return "", ()
    last: ast.Assign | ast.AnnAssign | None = None
    for node in within(scope):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        named = any(isinstance(target, ast.Name) and target.id == value.id for target in targets)
        if (
            named
            and isinstance(node, ast.Assign | ast.AnnAssign)
            and node.lineno < spot.line
            and (last is None or node.lineno > last.lineno)
        ):
            last = node
    if last is not None and last.value is not None:
        here = spot.source.place(last.lineno, last.end_lineno or 0)
        if isinstance(last.value, ast.Constant) and last.value.value is None:
            return f"Line {last.lineno} sets it to None.", (here,)
        story, places = _call(scene, last.value, spot.source) if isinstance(last.value, ast.Call) else ("", ())
        return f"It was assigned on line {last.lineno}. {story}".strip(), (here, *places)
    if function is not None:
        arguments = function.args
        for arg, default in zip(
            reversed([*arguments.posonlyargs, *arguments.args]), reversed(arguments.defaults), strict=False
        ):
            if arg.arg == value.id and isinstance(default, ast.Constant) and default.value is None:
                return f"It is a parameter of `{function.name}` that is None when it is not given.", (
                    spot.source.place(function.lineno),
                )
        if any(arg.arg == value.id for arg in arguments.args):
            return f"It is a parameter of `{function.name}`: the caller passed None.", (
                spot.source.place(function.lineno),
            )
    return "", ()


def _call(scene: Scene, call: ast.Call, source: Source) -> tuple[str, tuple[Place, ...]]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    shown = source.segment(call.func)
    found = scene.functions(name) if name else []
    if len(found) == 1:
        home, function = found[0]
        returns = [node for node in within(function) if isinstance(node, ast.Return)]
        empty = [n for n in returns if n.value is None or (isinstance(n.value, ast.Constant) and n.value.value is None)]
        if empty:
            return f"`{shown}` returns None on line {empty[0].lineno} of {home.path}.", (home.place(empty[0].lineno),)
        if returns and not isinstance(function.body[-1], ast.Return | ast.Raise):
            return (
                f"`{shown}` in {home.path} returns None when it comes to its end without meeting a `return`.",
                (home.place(function.lineno),),
            )
        if not returns:
            return f"`{shown}` in {home.path} never returns a value.", (home.place(function.lineno),)
        return "", ()
    if found or not isinstance(call.func, ast.Attribute):
        return "", ()
    if name in _DOERS:
        return f"`{shown}` changes its object and returns None.", ()
    if name in _FINDERS:
        return f"`{shown}` returns None when there is nothing to find.", ()
    return "", ()
