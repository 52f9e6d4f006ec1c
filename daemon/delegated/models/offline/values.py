"""Values that are not what the code counts on: KeyError, IndexError, ZeroDivisionError."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from delegated.models.offline.crash import Crash
from delegated.models.offline.finding import Example, Finding, Fix
from delegated.models.offline.scene import Scene, Spot
from delegated.models.offline.scopes import Scope, bindings, scopes, within
from delegated.models.offline.source import MOST, Place, Source
from delegated.models.offline.spelling import near, sole

_KEY: Final = re.compile(r"'(?P<one>[^'\\]*)'|\"(?P<two>[^\"\\]*)\"|(?P<number>-?[0-9]{1,30})")
_ENVIRONMENT: Final = frozenset({"os.environ", "environ"})


def key_error(scene: Scene, crash: Crash, spot: Spot) -> Finding | None:
    """Explain a key that a mapping does not have."""
    shown = crash.message
    if not shown:
        return None
    written = _KEY.fullmatch(shown)
    key: object = (
        int(written["number"]) if written and written["number"] else written and (written["one"] or written["two"])
    )
    reads = spot.marked(spot.at(ast.Subscript))
    if spot.step.frame != crash.steps[-1].frame:  # raised further in: only os.environ is known to be asked here
        reads = [n for n in reads[:MOST] if spot.source.segment(n.value) in _ENVIRONMENT]
    exact = [
        n for n in reads if isinstance(n.slice, ast.Constant) and n.slice.value == key and isinstance(n.ctx, ast.Load)
    ]
    if any(spot.source.segment(node.value) in _ENVIRONMENT for node in (exact or reads)[:MOST]):
        return Finding(
            f"The environment variable {shown} is not set in the process that ran {spot.where}.",
            "os.environ is asked by subscript, which raises when the variable is not there.",
            fixes=(
                Fix(
                    f"Set {shown} where the program is started (shell, service unit, container), or "
                    f"read it with a default: os.environ.get({shown}, ...)."
                ),
            ),
            checks=("Compare the environment of the service with that of the shell in which it works.",),
            shown=True,
        )
    if len(exact) == 1 and isinstance(key, str):
        literal = _literal(exact[0].value, spot, scene)
        if literal is not None:
            home, node = literal
            names = [k.value for k in node.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)]
            best = sole(key, names) if key not in names else None
            places = (home.place(node.lineno, min(node.end_lineno or 0, node.lineno + 15)),)
            if best is not None:
                text = spot.source.segment(exact[0].slice)
                change = spot.source.span(exact[0].slice, text.replace(key, best)) if text.count(key) == 1 else None
                return Finding(
                    f"{spot.where} asks for the key {shown}; the dict calls it {best!r}.",
                    f"The dict is written out in {home.path} on line {node.lineno}, and nothing in "
                    f"that file changes it. Of its keys only {best!r} is spelt like {shown}.",
                    evidence=places,
                    fixes=(
                        Fix(f"Ask for {best!r}.", spot.edit(change), "It is the only key there that is spelt alike."),
                    ),
                    shown=True,
                )
            return Finding(
                f"The dict that {spot.where} asks for {shown} is written out without that key.",
                f"{home.path} writes it out on line {node.lineno} with the keys "
                f"{', '.join(map(repr, names[:12])) or 'none'}.",
                evidence=places,
                fixes=(_with_get(exact[0], shown, spot),),
                shown=True,
            )
    return _unknown_dict(key, shown, exact or reads, scene, spot)


def _unknown_dict(key: object, shown: str, reads: list[ast.Subscript], scene: Scene, spot: Spot) -> Finding:
    spelt = _keys(spot.source)
    alike = near(key, spelt) if isinstance(key, str) else ()
    tables = [
        (n, found)
        for n in reads[:MOST]
        if not isinstance(n.slice, ast.Constant) and (found := _literal(n.value, spot, scene))
    ]
    if len(tables) == 1:
        read, (home, node) = tables[0]
        keys = ", ".join(repr(k.value) for k in node.keys[:12] if isinstance(k, ast.Constant))
        return Finding(
            f"`{spot.source.segment(read.slice)}` was {shown} in {spot.where}, and the dict has no such key.",
            f"{home.path} writes the dict out on line {node.lineno} with the keys {keys or 'none'}; "
            f"{shown} is not one of them. So either the value is wrong or the table lacks a row.",
            evidence=(home.place(node.lineno, min(node.end_lineno or 0, node.lineno + 15)),),
            fixes=(
                Fix(
                    f"Add {shown} to the dict if it is a legitimate value; else refuse it where it "
                    "comes in, with a message that says which values are known."
                ),
            ),
            shown=True,
        )
    what = f"`{spot.source.segment(reads[0].value)}`" if len(reads) == 1 else "a mapping on that line"
    lines = [line for other in alike[:2] for line in spelt[other][:1]]
    return Finding(
        f"{what[0].upper() + what[1:]} has no key {shown} in {spot.where}.",
        (
            "A subscript raises when the key is not there. What the mapping holds is decided at run time, "
            "so the code does not say why it is not."
        )
        + (f" The same file spells keys {', '.join(repr(n) for n in alike[:4])}, which look like it." if alike else ""),
        evidence=tuple(spot.source.place(line) for line in lines if line != spot.line),
        fixes=(_with_get(reads[0], shown, spot),) if len(reads) == 1 else (),
        checks=(
            f"Log `sorted({spot.source.segment(reads[0].value)})` just before "
            f"{spot.source.path}:{spot.line}, to see which keys there are.",
        )
        if len(reads) == 1
        else (),
    )


def _with_get(node: ast.Subscript, shown: str, spot: Spot) -> Fix:
    what = spot.source.segment(node.value)
    return Fix(
        f"If {shown} may be absent, ask with `{what}.get({spot.source.segment(node.slice)})` and "
        "handle None; if it must be there, find out why the mapping was made without it.",
        risk="A default hides that data is missing.",
    )


def _keys(source: Source) -> dict[str, list[int]]:
    """Return the strings that a file uses as keys, each with its lines."""
    found: dict[str, list[int]] = {}
    for node in source.everything:
        keys: list[ast.expr | None] = []
        if isinstance(node, ast.Dict):
            keys = [*node.keys]
        elif isinstance(node, ast.Subscript):
            keys = [node.slice]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"get", "pop", "setdefault"}
        ):
            keys = [*node.args[:1]]
        for key in keys:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                found.setdefault(key.value, []).append(key.lineno)
    return found


def _literal(value: ast.expr, spot: Spot, scene: Scene) -> tuple[Source, ast.Dict] | None:
    """Return the one dict display that an expression must be, with its file; None when it may be anything else."""
    source = spot.source
    if isinstance(value, ast.Dict):
        return (source, value) if _written_out(value) else None
    if not isinstance(value, ast.Name) or source.tree is None:
        return None
    for scope in scopes(source, spot.line):
        bound = bindings(scope).get(value.id)
        if bound:
            made = _assigned(scope, value.id) if len(bound) == 1 else None
            if isinstance(made, ast.Call) and isinstance(made.func, ast.Name):
                return _returned(made.func.id, value.id, source, scene)
            same = isinstance(made, ast.Dict) and _written_out(made) and not _changed(value.id, source)
            return (source, made) if same and isinstance(made, ast.Dict) else None
    return None


def _returned(function: str, name: str, source: Source, scene: Scene) -> tuple[Source, ast.Dict] | None:
    """Return the dict display that a function of the sent code returns, when it returns nothing else."""
    found = scene.functions(function)
    if len(found) != 1 or isinstance(found[0][1], ast.AsyncFunctionDef) or found[0][1].decorator_list:
        return None
    if _changed(name, source):
        return None
    returns = [node.value for node in within(found[0][1]) if isinstance(node, ast.Return)]
    one = returns[0] if len(returns) == 1 else None
    return (found[0][0], one) if isinstance(one, ast.Dict) and _written_out(one) else None


def _written_out(node: ast.Dict) -> bool:
    return all(isinstance(key, ast.Constant) for key in node.keys)


def _assigned(scope: Scope, name: str) -> ast.expr | None:
    for node in within(scope):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if len(targets) == 1 and isinstance(targets[0], ast.Name) and targets[0].id == name:
            return node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return None


def _changed(name: str, source: Source) -> bool:
    """Say whether the file uses this name in any way but to read a key of it: then its keys are not known."""
    read = {id(n.value) for n in source.everything if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Load)}
    looked = {"get", "keys", "values", "items"}
    read |= {id(n.value) for n in source.everything if isinstance(n, ast.Attribute) and n.attr in looked}
    return any(
        isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load) and id(n) not in read
        for n in source.everything
    )


def index_error(scene: Scene, crash: Crash, spot: Spot) -> Finding | None:
    """Explain an index beyond the end."""
    what = crash.message.partition(" index")[0] if " index out of range" in crash.message else ""
    if crash.message.startswith("pop from"):
        return Finding(
            f"{spot.where} takes an element out of something that is empty.",
            "pop() on an empty list or deque raises. The code does not check that anything is left.",
            fixes=(Fix("Check that something is left before taking it, or handle the empty case."),),
        )
    reads = spot.marked([n for n in spot.at(ast.Subscript) if not isinstance(n.slice, ast.Slice)])
    for read in reads[:MOST]:
        if past := _past_the_end(read, spot):
            return past
    if len(reads) != 1:
        named = " or ".join(f"`{spot.source.segment(n)}`" for n in reads[:4])
        return Finding(
            f"An index in {spot.where} is beyond the end of the {what or 'sequence'}.",
            "The sequence is shorter than the code counts on." + (f" On that line it may be {named}." if named else ""),
            fixes=(Fix("Check the length before the access."),),
        )
    read, held = reads[0], spot.source.segment(reads[0].value)
    index = spot.source.segment(read.slice)
    if held in {"sys.argv", "argv"}:
        why = f"The program was started with fewer than {index} arguments."
    elif (
        isinstance(read.value, ast.Call)
        and isinstance(read.value.func, ast.Attribute)
        and "split" in read.value.func.attr
    ):
        why = (
            f"`{held}` gave fewer parts than the code counts on: the text that it splits does not hold the "
            "separator often enough."
        )
    elif isinstance(read.slice, ast.Constant):
        why = f"`{held}` has no element {index}: it is shorter than the code counts on, perhaps empty."
    else:
        why = f"`{index}` is not smaller than the length of `{held}`."
    return Finding(
        f"`{spot.source.segment(read)}` in {spot.where} is beyond the end of `{held}`.",
        why,
        fixes=(
            Fix(f"Check the length of `{held}` before the access, and say what should happen when it is too short."),
        ),
        checks=(f"Log `len({held})` and its content just before {spot.source.path}:{spot.line}.",),
    )


def _past_the_end(read: ast.Subscript, spot: Spot) -> Finding | None:
    """Prove the loop `for i in range(len(xs) + 1)` whose last turn reads `xs[len(xs)]`."""
    source = spot.source
    if not isinstance(read.slice, ast.Name) or not isinstance(read.value, ast.Name):
        return None
    index, held = read.slice.id, read.value.id
    loops = [
        n
        for n in source.everything
        if isinstance(n, ast.For) and isinstance(n.target, ast.Name) and n.target.id == index
    ]
    around = [n for n in loops if n.lineno <= spot.line <= (n.end_lineno or 0)]
    if not around:
        return None
    match around[-1].iter:
        case ast.Call(
            func=ast.Name(id="range"),
            args=[
                ast.BinOp(
                    left=ast.Call(func=ast.Name(id="len"), args=[ast.Name(id=measured)]) as length,
                    op=ast.Add(),
                    right=ast.Constant(value=1),
                ) as bound
            ],
            keywords=[],
        ) if measured == held and not _stored(around[-1], {index, held}):
            change = source.span(bound, source.segment(length))
            return Finding(
                f"The loop on line {around[-1].lineno} of {source.path} goes one turn too far.",
                f"`range({source.segment(bound)})` ends with `{index}` equal to `len({held})`, and the "
                "last element has the index one below, so the last turn always fails.",
                evidence=(source.place(around[-1].lineno),),
                fixes=(
                    Fix(
                        f"Loop over `range(len({held}))`.",
                        spot.edit(change),
                        "These are exactly the indexes that there are.",
                    ),
                ),
                shown=True,
            )
    return None


def _stored(loop: ast.For, names: set[str]) -> bool:
    """Say whether the body of a loop binds one of these names, or calls a method of one."""
    nodes: Iterator[ast.AST] = (node for statement in loop.body for node in ast.walk(statement))
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in names and not isinstance(node.ctx, ast.Load):
            return True
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and getattr(node.func.value, "id", "") in names
        ):
            return True
    return False


def zero_division(scene: Scene, crash: Crash, spot: Spot) -> Finding | None:
    """Explain a division by zero."""
    operators = (ast.Div, ast.FloorDiv, ast.Mod)
    found = spot.marked([n for n in spot.at(ast.BinOp) if isinstance(n.op, operators)])
    divisors = [n.right for n in found] + [n.value for n in spot.at(ast.AugAssign) if isinstance(n.op, operators)]
    if len(divisors) != 1:
        named = " or ".join(f"`{spot.source.segment(n)}`" for n in divisors[:4])
        return Finding(
            f"A divisor in {spot.where} is zero.",
            f"The line divides by {named}; one of them was zero."
            if named
            else "The line was not sent in a form in which the divisor can be seen.",
            fixes=(
                Fix("Decide what the result should be when there is nothing to divide by, and handle that case first."),
            ),
        )
    divisor = divisors[0]
    what = spot.source.segment(divisor)
    places, why = _made(divisor, spot)
    return Finding(
        f"`{what}` is zero in {spot.where}, and the line divides by it.",
        f"{why} What the result should be then is a decision that the code does not hold.".strip(),
        evidence=places,
        fixes=(
            Fix(
                f'Handle `{what} == 0` before the division: a value that means "none", or an error '
                "that says what was empty."
            ),
        ),
        examples=(
            Example(
                "A guard",
                f"if not {what}:\n    return 0  # or raise: what an empty input means is for you to say\n{spot.text}",
            ),
        )
        if isinstance(divisor, ast.Name | ast.Call | ast.Attribute)
        else (),
        shown=bool(why),
    )


def _made(divisor: ast.expr, spot: Spot) -> tuple[tuple[Place, ...], str]:
    """Tell what made the divisor zero, if the code around shows it."""
    match divisor:
        case ast.Constant():
            return (), "The divisor is written as zero."
        case ast.Call(func=ast.Name(id="len"), args=[inner]):
            return (), f"`{spot.source.segment(inner)}` is empty."
        case ast.Name(id=name) if spot.source.tree is not None:
            for scope in scopes(spot.source, spot.line):
                bound = bindings(scope).get(name)
                if bound:
                    made = _assigned(scope, name) if len(bound) == 1 else None
                    line = min(getattr(n, "lineno", 0) for n in bound)
                    text = (
                        f"`{name}` comes from line {line}."
                        if made is None
                        else f"Line {line} makes it: `{spot.source.segment(made)}`."
                    )
                    return ((spot.source.place(line),) if line != spot.line else ()), text
    return (), ""
