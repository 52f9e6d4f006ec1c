"""Frozen types become plain JSON values, and plain JSON values become those types again or a `ValueError`."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

T = TypeVar("T")
_ESCAPE = re.compile(r"\\(?:u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|u([0-9a-f]{4})|(.))", re.DOTALL | re.IGNORECASE)


def dump(value: Any) -> Any:
    """Return `value` as dicts, lists and scalars. A number that JSON cannot hold (NaN, infinity) becomes None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: dump(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): dump(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [dump(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def load(kind: type[T], value: object, where: str = "$") -> T:
    """Build a `kind` from what `dump` made of one; keys that the type does not have are ignored.

    Raises `ValueError` that names the place, what was found and what would be right.
    """
    return cast("T", _load(kind, value, where))


def parse(text: str) -> Any:
    """Read strict JSON. Raises `ValueError` also for NaN, for numbers beyond all bounds and for bottomless nesting."""
    try:
        return json.loads(text, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def settled(text: str) -> str:
    r"""Escape in JSON only what has to be, in one way: text that is `\u0073o` or `s\/o` to a reader says so itself.

    It means the same as before; what is no JSON may not.
    """

    def said(found: re.Match[str]) -> str:
        if found[4]:
            return "/" if found[4] == "/" else found[0]
        try:
            return json.dumps(json.loads(f'"{found[0]}"'), ensure_ascii=False).encode().decode()[1:-1]
        except UnicodeEncodeError:  # one half of a pair
            return found[0]

    return _ESCAPE.sub(said, text) if "\\" in text else text


def word(value: object) -> str:
    """Name a JSON value's type as a person would."""
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def refuse_constant(name: str) -> Any:
    """Refuse NaN and Infinity, which Python's reader takes and no other does: a `parse_constant` for `json`."""
    raise ValueError(f"{name} is not JSON")


@functools.cache
def _fields(kind: type) -> tuple[tuple[str, Any, bool], ...]:
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    return tuple(
        (field.name, hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(kind)
    )


def _load(kind: Any, value: object, where: str) -> Any:
    if kind is Any:
        return value
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return value if value in args else _refuse(where, value, f"one of {', '.join(map(str, args))}")
    if origin in (types.UnionType, typing.Union):
        present = [arg for arg in args if arg is not types.NoneType]
        if value is None and len(present) < len(args):
            return None
        return _load(present[0], value, where)
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return _refuse(where, value, "a list")
        return tuple(_load(args[0], item, f"{where}[{place}]") for place, item in enumerate(value))
    if origin in (Mapping, dict):
        if not isinstance(value, Mapping):
            return _refuse(where, value, "an object")
        return {str(key): _load(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _load_fields(cast("type", kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return _refuse(where, value, {str: "a string", int: "a number", float: "a number", bool: "a boolean"}[kind])
    return value


def _load_fields(kind: type, value: object, where: str) -> Any:
    if not isinstance(value, Mapping):
        return _refuse(where, value, "an object")
    found = {}
    for name, hint, required in _fields(kind):
        if name in value:
            found[name] = _load(hint, value[name], f"{where}.{name}")
        elif required:
            raise ValueError(f"{where}.{name}: missing")
    return kind(**found)


def _refuse(where: str, value: object, wanted: str) -> Any:
    shown = f"{value[:40]!r}" if isinstance(value, str) else word(value)
    raise ValueError(f"{where}: found {shown}; expected {wanted}")
