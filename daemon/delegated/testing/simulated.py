"""An answer without a model: the smallest text that a JSON Schema allows, and that says it is simulated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

NOTICE: Final = "simulated by the local test server; no language model was asked"
_DEEPEST: Final = 12


def answer_text(schema: Mapping[str, Any] | None, *, as_json: bool = False) -> str:
    """Write the answer: JSON that is valid for `schema`, any JSON object if `as_json`, else a sentence."""
    if schema is not None:
        return json.dumps(sample(schema), indent=1)
    return json.dumps({"simulated": True, "note": NOTICE}) if as_json else f"This answer was {NOTICE}."


def sample(schema: Mapping[str, Any]) -> Any:
    """Build a value for a JSON Schema: the first of an enum, one element in lists of objects, other lists empty.

    Lists of plain values stay empty because their words would be acted on (names of files, for example).
    """
    return _sample(schema, schema, "", 0)


def _sample(schema: Any, root: Mapping[str, Any], name: str, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    schema = _resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            choices = [one for one in schema[several] if not (isinstance(one, Mapping) and one.get("type") == "null")]
            return _sample(choices[0] if choices else schema[several][0], root, name, depth + 1)
    return _of_kind(_kind(schema), schema, root, name, depth)


def _of_kind(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], name: str, depth: int) -> Any:
    match kind:
        case "object":
            properties = schema.get("properties") or {}
            return {key: _sample(value, root, key, depth + 1) for key, value in properties.items()}
        case "array":
            items = schema.get("items") or {}
            holds_objects = isinstance(items, Mapping) and _kind(_resolved(items, root)) == "object"
            count = max(schema.get("minItems", 0), 1 if holds_objects and depth < _DEEPEST - 1 else 0)
            return [_sample(items, root, name, depth + 1) for _ in range(min(count, 100))]
        case "integer" | "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
            return min(least, schema.get("maximum", least))
        case "boolean":
            return False
        case "null":
            return None
    text = f"{name.replace('_', ' ')}: {NOTICE}" if name else NOTICE
    text = text.ljust(schema.get("minLength", 0), ".")
    return text[: schema.get("maxLength", len(text))]


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    return str(kind)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(_DEEPEST):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        found: Any = root
        for step in reference.lstrip("#/").split("/") if reference != "#" else ():
            found = found.get(step, {}) if isinstance(found, Mapping) else {}
        schema = found if isinstance(found, Mapping) else {}
    return schema
