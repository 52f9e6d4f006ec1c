"""Attributes that are not there: AttributeError."""

from __future__ import annotations

import ast
import builtins
import re
from dataclasses import dataclass
from typing import Final

from delegated.models.offline.crash import Crash
from delegated.models.offline.finding import Example, Finding, Fix
from delegated.models.offline.nothing import origin
from delegated.models.offline.scene import Scene, Spot
from delegated.models.offline.scopes import bindings, stars
from delegated.models.offline.source import Place, Source
from delegated.models.offline.spelling import near, sole

_OBJECT: Final = re.compile(r"'([\w.]+)' object has no attribute '(\w+)'")
_TYPE: Final = re.compile(r"type object '([\w.]+)' has no attribute '(\w+)'")
_MODULE: Final = re.compile(r"(partially initialized )?module '([\w.]+)' has no attribute '(\w+)'")
_DYNAMIC: Final = frozenset({"__getattr__", "__getattribute__", "__dict__", "setattr", "vars"})
# bases that add no attributes that a program of its own spells
_PLAIN_BASES: Final = frozenset({"object", "ABC", "Generic", "Protocol"})


@dataclass(frozen=True, slots=True)
class Members:
    """What a class has, each name with the line that gives it; `closed` when there can be no others."""

    names: dict[str, Place]
    closed: bool


def attribute_error(scene: Scene, crash: Crash, spot: Spot) -> Finding | None:
    """Explain `... has no attribute 'x'`."""
    if match := _MODULE.match(crash.message):
        return _of_module(match[2], match[3], bool(match[1]), scene, spot)
    match = _OBJECT.match(crash.message) or _TYPE.match(crash.message)
    if match is None:
        return None
    owner, name = match[1].rpartition(".")[2], match[2]
    if owner == "NoneType":
        return _of_none(name, scene, spot)
    kind = getattr(builtins, owner, None)
    if isinstance(kind, type):
        return _of_builtin(owner, kind, name, spot)
    return _of_class(owner, name, scene, spot)


def _uses(name: str, spot: Spot) -> list[ast.Attribute]:
    return spot.marked([node for node in spot.at(ast.Attribute) if node.attr == name])


def _renamed(node: ast.Attribute, best: str, spot: Spot) -> Fix:
    end = node.end_col_offset or 0
    name = ast.Name(node.attr, ast.Load())
    name.lineno = name.end_lineno = node.end_lineno or node.lineno
    name.col_offset, name.end_col_offset = end - len(node.attr.encode()), end
    change = spot.source.span(name, best)
    line = spot.source.line(name.lineno)
    sound = change is not None and line[change.start : change.end] == node.attr and isinstance(node.ctx, ast.Load)
    return Fix(
        f"Write `.{best}` instead of `.{node.attr}`.",
        spot.edit(change) if sound else (),
        f"`{best}` is the only attribute there that is spelt alike.",
        "Other uses of the former name stay as they are.",
    )


def _of_none(name: str, scene: Scene, spot: Spot) -> Finding:
    uses = _uses(name, spot)
    if len(uses) != 1:
        found = " or ".join(f"`{spot.source.segment(node.value)}`" for node in uses)
        return Finding(
            f"Something on the line {spot.where} is None, and `.{name}` is read from it.",
            f"None has no attribute `{name}`. {f'It is {found}.' if found else ''}".strip(),
            fixes=(Fix("Find out which value is None, and handle that case where it arises."),),
        )
    what = spot.source.segment(uses[0].value)
    story, places = origin(scene, spot, uses[0].value)
    return Finding(
        f"`{what}` is None in {spot.where}, and `.{name}` is read from it.",
        (
            f"None has no attribute `{name}`, and `{what}` is the only thing on the line from which it is read. {story}"
        ).strip(),
        evidence=places,
        fixes=(
            Fix(
                f"Decide what should happen when `{what}` is None, and handle it before this line; or "
                "see to it that it never is."
            ),
        ),
        examples=(
            Example(
                "Fail where the None arises, with a message that says so",
                f'if {what} is None:\n    raise LookupError("...")',
            ),
        ),
        shown=bool(places),
    )


def _of_builtin(owner: str, kind: type, name: str, spot: Spot) -> Finding:
    uses, has = _uses(name, spot), [n for n in dir(kind) if not n.startswith("_")]
    what = f"`{spot.source.segment(uses[0].value)}`" if len(uses) == 1 else "a value"
    best = sole(name, has)
    if best is not None:
        return Finding(
            f"`{name}` is a misspelling of `{best}` in {spot.where}.",
            f"{what} is of Python's own type {owner}, which has no `{name}`; of what it has, only "
            f"`{best}` is spelt alike.",
            fixes=(_renamed(uses[0], best, spot),) if len(uses) == 1 else (Fix(f"Write `.{best}`."),),
            shown=True,
        )
    alike = near(name, has)[:4]
    hint = f' A dict is asked by key: `["{name}"]`.' if owner == "dict" else ""
    return Finding(
        f"{what[0].upper() + what[1:]} is a {owner} in {spot.where}, and the code expects something "
        f"that has `.{name}`.",
        f"The type {owner} has no `{name}`.{hint}"
        + (f" It has {', '.join(f'`{n}`' for n in alike)}." if alike else ""),
        fixes=(Fix(f"Find where {what} is made, and why it is a {owner}; or use what a {owner} has."),),
        shown=len(uses) == 1,
    )


def _of_module(module: str, name: str, partial: bool, scene: Scene, spot: Spot) -> Finding:
    target = scene.module(module)
    shadow = "." not in module and target is not None and not target.path.endswith("__init__.py")
    if partial or target is None or target.tree is None:
        return Finding(
            f"The module `{module}` had no `{name}` when {spot.where} asked for it.",
            (
                "It had begun to be imported and was not yet done: modules that import each other, or a "
                "file of the workspace with the name of a library's module."
            )
            if partial
            else f"What `{module}` defines was not sent, so it cannot be compared.",
            evidence=(target.place(1),) if target and shadow else (),
            fixes=(Fix(f"If {target.path} hides a library's module of that name, rename it."),)
            if target and shadow
            else (),
            checks=(f'`python -c "import {module}; print({module}.__file__)"`',),
            shown=partial and shadow,
        )
    names = bindings(target.tree)
    uses = _uses(name, spot)
    best = None if stars(target) or _DYNAMIC & set(names) else sole(name, names)
    if best is None or len(uses) != 1:
        alike = near(name, names)[:4]
        return Finding(
            f"{target.path} defines no `{name}`, and {spot.where} asks `{module}` for it.",
            f"The top level of {target.path} binds no such name."
            + (f" It has {', '.join(f'`{n}`' for n in alike)}." if alike else ""),
            fixes=(Fix(f"Define `{name}` in {target.path}, or use what it defines."),),
            shown=True,
        )
    home = min(getattr(node, "lineno", 0) for node in names[best])
    return Finding(
        f"{spot.where} calls `{module}.{name}`, and {target.path} calls it `{best}`.",
        f"{target.path} was sent whole and binds no `{name}`; `{best}` on line {home} is the only name "
        "in it that is spelt alike.",
        evidence=(target.place(home),),
        fixes=(_renamed(uses[0], best, spot),),
        shown=True,
    )


def _of_class(owner: str, name: str, scene: Scene, spot: Spot) -> Finding:
    found = scene.classes(owner)
    uses = _uses(name, spot)
    what = f"`{spot.source.segment(uses[0].value)}`" if len(uses) == 1 else "an object"
    if len(found) != 1:
        why = (
            "No class of that name is in the code that was sent"
            if not found
            else f"{len(found)} classes of that name were sent, so it cannot be said which is meant"
        )
        return Finding(
            f"{what[0].upper() + what[1:]} in {spot.where} is an `{owner}`, which has no `{name}`.",
            f"{why}, so its attributes cannot be compared.",
            evidence=tuple(source.place(node.lineno) for source, node in found[:3]),
            fixes=(Fix(f"Compare `{name}` with what the class `{owner}` defines, in the version that is installed."),),
        )
    source, node = found[0]
    members = _members(node, source, scene)
    best = sole(name, members.names) if members.closed and name not in members.names else None
    if best is None or len(uses) != 1:
        alike = near(name, members.names)[:4]
        late = members.names.get(name)
        return Finding(
            f"{what[0].upper() + what[1:]} in {spot.where} is an `{owner}`, which has no `{name}`.",
            (
                (
                    f"The class does give itself `{name}` (line {late.start_line}), but not on the way "
                    "that this object went."
                )
                if late
                else f"The class `{owner}` in {source.path} never gives itself `{name}`."
            )
            + (
                f" It has {', '.join(f'`{n}`' for n in alike)}; the code does not settle which is meant."
                if alike and not late
                else ""
            )
            + (
                ""
                if members.closed
                else " It may have more than the sent code shows (a base class or dynamic attributes)."
            ),
            evidence=(source.place(node.lineno), *((late,) if late else ())),
            fixes=(Fix(f"Define `{name}` on `{owner}`, or use an attribute that it has."),),
            shown=members.closed,
        )
    return Finding(
        f"{spot.where} reads `.{name}`; the class `{owner}` calls it `{best}`.",
        f"{what[0].upper() + what[1:]} is an `{owner}`. All that this class has is in the code that was sent, and "
        f"no `{name}` is among it; `{best}` ({members.names[best].path}, line {members.names[best].start_line}) is the "
        "only attribute that is spelt alike.",
        evidence=(source.place(node.lineno), members.names[best]),
        fixes=(_renamed(uses[0], best, spot),),
        checks=(
            f"`grep -rn '\\.{name}\\b' --include='*.py' .` finds other uses of the name; {owner} does not have it",
        ),
        shown=True,
    )


def _members(node: ast.ClassDef, source: Source, scene: Scene) -> Members:
    names: dict[str, Place] = {}
    closed, waiting, seen = True, [(node, source)], {node.name}
    while waiting:
        cls, home = waiting.pop()
        for name, place in _given(cls, home):
            if name in _DYNAMIC:
                closed = False
            names.setdefault(name, place)
        closed = closed and not cls.keywords
        for base in cls.bases:
            root = base.value if isinstance(base, ast.Subscript) else base
            simple = root.attr if isinstance(root, ast.Attribute) else root.id if isinstance(root, ast.Name) else ""
            above = scene.classes(simple) if simple and simple not in seen else []
            known = getattr(builtins, simple, None)
            if len(above) == 1:
                seen.add(simple)
                waiting.append((above[0][1], above[0][0]))
            elif isinstance(known, type) and not above:
                names.update({name: home.place(cls.lineno) for name in dir(known) if not name.startswith("_")})
            elif simple not in _PLAIN_BASES:
                closed = False
    return Members(names, closed and all(_plain(decorator) for decorator in node.decorator_list))


def _plain(decorator: ast.expr) -> bool:
    """Say whether a class decorator is known to add nothing that code spells."""
    root = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = root.attr if isinstance(root, ast.Attribute) else getattr(root, "id", "")
    return name in {"dataclass", "total_ordering", "final", "runtime_checkable"}


def _given(cls: ast.ClassDef, source: Source) -> list[tuple[str, Place]]:
    """Return what a class binds in its body and on its instance, and signs of attributes made at run time."""
    given = [(name, source.place(min(getattr(n, "lineno", 1) for n in nodes))) for name, nodes in bindings(cls).items()]
    for node in ast.walk(cls):
        own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
        if isinstance(node, ast.Attribute) and (node.attr == "__dict__" or (own and isinstance(node.ctx, ast.Store))):
            given.append((node.attr, source.place(node.lineno)))
        elif isinstance(node, ast.Name) and node.id in {"setattr", "vars"}:
            given.append((node.id, source.place(node.lineno)))
    return given
