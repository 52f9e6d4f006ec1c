"""Calls that do not fit what they call: TypeError by arity, and None used as if it were a value."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Final

from delegated.models.offline.crash import Crash
from delegated.models.offline.finding import Finding, Fix
from delegated.models.offline.nothing import origin
from delegated.models.offline.scene import Scene, Spot
from delegated.models.offline.scopes import parameters
from delegated.models.offline.source import MOST, Change, Function, Place, Source
from delegated.models.offline.spelling import near, sole

_CALLED: Final = r"(?P<called>[\w.<>]+)\(\) "
_MISSING: Final = re.compile(_CALLED + r"missing \d+ required (?:positional|keyword-only) arguments?: (?P<names>.+)$")
_TOO_MANY: Final = re.compile(_CALLED + r"takes (?P<takes>.+?) positional arguments? but (?P<given>\d+) .*given$")
_UNEXPECTED: Final = re.compile(_CALLED + r"got an unexpected keyword argument '(?P<name>\w+)'")
_TWICE: Final = re.compile(_CALLED + r"got multiple values for argument '(?P<name>\w+)'")
_NONE: Final = re.compile(
    r"'NoneType' object is not (subscriptable|iterable|callable)|cannot unpack non-iterable NoneType object"
)


@dataclass(frozen=True, slots=True)
class Callee:
    """What was called: its file, the lines that say what it takes, its parameters, and its definition if it has one."""

    source: Source
    place: Place
    names: tuple[str, ...]
    keywords: frozenset[str]  # parameters that can be given by keyword
    any_keyword: bool
    function: Function | None
    owner: ast.ClassDef | None


def type_error(scene: Scene, crash: Crash, spot: Spot) -> Finding | None:
    """Explain a call with the wrong arguments, or a None where a value was wanted."""
    text = crash.message
    if match := _UNEXPECTED.match(text):
        return _unexpected(match["name"], match["called"], scene, spot)
    if match := _MISSING.match(text):
        return _missing(match["names"], match["called"], scene, spot)
    if match := _TOO_MANY.match(text):
        return _too_many(match["takes"], int(match["given"]), match["called"], scene, spot)
    if match := _TWICE.match(text):
        return _described(
            f"the call passes `{match['name']}` twice, by place and by keyword",
            "Drop one of the two, or pass every argument by keyword; in a method that lacks `self` "
            "the instance itself takes the first place.",
            match["called"],
            scene,
            spot,
        )
    return _none(scene, spot) if _NONE.match(text) else None


def _unexpected(name: str, called: str, scene: Scene, spot: Spot) -> Finding:
    callee, calls = _callee(called, scene), _calls(called, spot)
    given = [keyword for call in calls for keyword in call.keywords if keyword.arg == name]
    if callee is None or callee.any_keyword or len(calls) != 1 or len(given) != 1:
        return _described(
            f"the call passes `{name}`, which it does not take", "Pass what the definition takes.", called, scene, spot
        )
    taken = {keyword.arg for keyword in calls[0].keywords} | set(callee.names[: len(calls[0].args)])
    free = callee.keywords - {arg for arg in taken if arg}
    certain = not any(isinstance(arg, ast.Starred) for arg in calls[0].args) and None not in taken
    best = sole(name, free) if certain else None
    if best is None:
        alike = near(name, callee.keywords)[:4]
        return _described(
            f"the call passes `{name}`, which it does not take",
            "Pass what the definition takes"
            + (
                f"; spelt alike: {', '.join(f'`{n}`' for n in alike)}, but the code does not settle which is meant."
                if alike
                else "."
            ),
            called,
            scene,
            spot,
        )
    change = spot.source.span(given[0], "")
    renamed = (
        Change(change.line, change.start, change.start + len(name), best)
        if change
        else _head(given[0], name, best, spot)
    )
    return Finding(
        f"{spot.where} passes `{name}=` to `{called}`, which calls that parameter `{best}`.",
        f"`{called}` takes {_listed(callee.names)} and no other keyword. `{best}` is the only "
        f"parameter that is spelt like `{name}`, and the call does not give it otherwise.",
        evidence=(callee.place,),
        fixes=(
            Fix(
                f"Pass `{best}=` instead of `{name}=`.",
                spot.edit(renamed),
                f"It is what {callee.source.path} calls the parameter.",
            ),
        ),
        checks=(f"`grep -rn '{name}=' --include='*.py' .` finds other calls with the name; {called} does not take it",),
        shown=True,
    )


def _head(keyword: ast.keyword, name: str, best: str, spot: Spot) -> Change | None:
    """Return the change of a keyword's name where its value goes on over several lines."""
    line = spot.source.line(keyword.lineno)
    start = len(line.encode()[: keyword.col_offset].decode(errors="ignore"))
    return Change(keyword.lineno, start, start + len(name), best) if line[start:].startswith(name) else None


def _missing(names: str, called: str, scene: Scene, spot: Spot) -> Finding:
    wanted = re.findall(r"'(\w+)'", names)
    if wanted[:1] == ["self"]:
        return _described(
            "it is a method, and it was called on the class itself instead of an instance, so nothing "
            "was there for `self`",
            f"Make an instance first: `{called.split('.')[0]}(...)`, with the parentheses, and call "
            "the method on that.",
            called,
            scene,
            spot,
        )
    return _described(
        f"the call does not give {_listed(tuple(wanted))}",
        f"Pass {_listed(tuple(wanted))} in the call, or give the parameter a default where it is defined.",
        called,
        scene,
        spot,
    )


def _too_many(takes: str, given: int, called: str, scene: Scene, spot: Spot) -> Finding:
    callee = _callee(called, scene)
    function = callee.function if callee else None
    if callee and callee.owner and function and not function.decorator_list:
        first = next(iter(parameters(function.args)), None)
        uses_self = any(isinstance(node, ast.Name) and node.id == "self" for node in ast.walk(function))
        if (first is None or first.arg != "self") and uses_self and "self" not in callee.names:
            return Finding(
                f"The method `{called}` lacks the parameter `self`.",
                f"A call through an instance passes that instance first, so `{called}` got {given} "
                f"where it takes {takes}. "
                f"Its body uses `self`, which nothing else in it defines.",
                evidence=(callee.place,),
                fixes=(
                    Fix(
                        f"Add `self` as the first parameter of `{called}`.",
                        callee.source.edit(change) if (change := _with_self(callee.source, function)) else (),
                        "The instance then has a place to go.",
                    ),
                ),
                shown=True,
            )
    return _described(
        f"the call passes {given} arguments by place where it takes {takes}",
        "Compare the call with the definition, and drop or rename what is too much.",
        called,
        scene,
        spot,
    )


def _with_self(source: Source, function: Function) -> list[Change] | None:
    line = source.line(function.lineno)
    found = re.compile(rf"(?:async\s+)?def\s+{function.name}\s*\(").search(line)
    if found is None:
        return None
    return [Change(function.lineno, found.end(), found.end(), "self, " if parameters(function.args) else "self")]


def _described(what: str, advice: str, called: str, scene: Scene, spot: Spot) -> Finding:
    """Say what does not fit, beside the definition if it was sent."""
    callee = _callee(called, scene)
    took = (
        f" It is defined in {callee.source.path} on line {callee.place.start_line} and takes {_listed(callee.names)}."
        if callee
        else (f" The definition of `{called}` is not in the code that was sent.")
    )
    return Finding(
        f"{spot.where} calls `{called}` with arguments that do not fit: {what}.",
        f"The call and the definition disagree: {what}.{took}",
        evidence=(callee.place,) if callee else (),
        fixes=(Fix(advice),),
        shown=callee is not None,
    )


def _none(scene: Scene, spot: Spot) -> Finding:
    values = (
        [n.value for n in spot.at(ast.Subscript)]
        + [n.iter for n in spot.at(ast.For)]
        + [n.func for n in spot.at(ast.Call)]
    )
    known = [(value, *origin(scene, spot, value)) for value in values[:MOST]]
    told = [(value, story, places) for value, story, places in known if places]
    if len(told) != 1:
        return Finding(
            f"A value in {spot.where} is None where the code goes on to use it.",
            "None can be neither indexed, iterated, called nor unpacked. The trace does not say which expression it was"
            + (
                f"; on this line it may be {' or '.join(f'`{spot.source.segment(v)}`' for v in values[:4])}."
                if values
                else "."
            ),
            fixes=(Fix("Find out which value is None, and handle that case where it arises."),),
        )
    value, story, places = told[0]
    what = spot.source.segment(value)
    return Finding(
        f"`{what}` is None in {spot.where}, and the code goes on to use it.",
        f"None can be neither indexed, iterated, called nor unpacked. {story}",
        evidence=places,
        fixes=(Fix(f"Decide what should happen when `{what}` is None, and handle it before this line."),),
        shown=True,
    )


def _calls(called: str, spot: Spot) -> list[ast.Call]:
    """Return the calls in the failing statement that may be the one that failed."""
    parts = [part for part in called.split(".") if part != "<locals>"]
    names = {parts[-2] if parts[-1] in {"__init__", "__new__"} and len(parts) > 1 else parts[-1]}
    found = [
        c
        for c in spot.at(ast.Call)
        if (c.func.attr if isinstance(c.func, ast.Attribute) else getattr(c.func, "id", "")) in names
    ]
    return spot.marked(found)


def _callee(called: str, scene: Scene) -> Callee | None:
    """Find the one definition in the sent code that a qualified name means."""
    parts = [part for part in called.split(".") if part != "<locals>"]
    owner, name = (parts[-2] if len(parts) > 1 else ""), parts[-1]
    if owner and "<locals>" not in called:
        classes = scene.classes(owner)
        if len(classes) != 1:
            return None
        source, cls = classes[0]
        methods = [node for node in cls.body if isinstance(node, Function) and node.name == name]
        if len(methods) == 1:
            return _from_function(source, methods[0], cls)
        return _from_fields(source, cls) if name == "__init__" and not methods else None
    found = scene.functions(name)
    return _from_function(*found[0], None) if len(found) == 1 else None


def _from_function(source: Source, function: Function, owner: ast.ClassDef | None) -> Callee:
    args = function.args
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    skip = (
        1
        if owner is not None
        and not static
        and (args.posonlyargs or args.args)
        and (args.posonlyargs + args.args)[0].arg in {"self", "cls"}
        else 0
    )
    last = max(function.lineno, function.body[0].lineno - 1)
    return Callee(
        source,
        source.place(function.lineno, min(last, function.lineno + 12)),
        tuple(arg.arg for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs][skip:]),
        frozenset(arg.arg for arg in [*args.args, *args.kwonlyargs]) - {"self", "cls"},
        args.kwarg is not None,
        function,
        owner,
    )


def _from_fields(source: Source, cls: ast.ClassDef) -> Callee | None:
    """Read a plain dataclass's parameters off its fields; None for a class whose fields come from elsewhere too."""
    if cls.bases or cls.keywords or len(cls.decorator_list) != 1:
        return None
    decorator = cls.decorator_list[0]
    root = decorator.func if isinstance(decorator, ast.Call) else decorator
    if (root.attr if isinstance(root, ast.Attribute) else getattr(root, "id", "")) != "dataclass":
        return None
    names = []
    for node in cls.body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and "ClassVar" not in source.segment(node.annotation)
        ):
            if isinstance(node.value, ast.Call) and any(
                keyword.arg in {"init", "kw_only"} for keyword in node.value.keywords
            ):
                return None
            names.append(node.target.id)
    return Callee(
        source, source.place(cls.lineno, cls.lineno + 1 + len(names)), tuple(names), frozenset(names), False, None, cls
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names[:12]) or "nothing"
