"""What an agent's transcript tells of its work: files in play, what failed, what was tried. Pure, and never raises.

The hosts write one JSON value a line and document little of it, so this goes by what they have in common: a call of a
tool has a name and its input, the result of one says whether it failed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from delegated.cuts import short, tail

_MOST_LINE: Final = 1 << 20
_MOST_NODES: Final = 4_000
_MOST_DEPTH: Final = 12
_FILES: Final = 12
_ERRORS: Final = 3
_ERROR_CHARS: Final = 4_000
_FIXES: Final = 10
_CLIP: Final = 160
_SAID: Final = 1_500
_PATHS: Final = frozenset(
    ("file_path", "filePath", "path", "target_file", "relative_workspace_path", "notebook_path", "file", "absolutePath")
)
_OLD: Final = ("old_string", "oldString", "old_str", "old_text", "oldText")
_NEW: Final = ("new_string", "newString", "new_str", "new_text", "newText", "code_edit")
_RESULTS: Final = frozenset(
    ("tool_result", "function_call_output", "custom_tool_call_output", "tool.execution_complete")
)
_PATCH: Final = re.compile(r"^\*\*\* (?:Add|Update|Delete) File: (.+)$", re.MULTILINE)
_FAILED: Final = re.compile(
    r"Traceback \(most recent call last\)|^(?:[\w.]+\.)?\w*(?:Error|Exception)(?::|$)|panicked at|^FAILED |^E {3}"
    r"|^error(?:\[\w+\])?:|\bfatal error\b|^npm ERR!|^[ \t]{1,80}at [^\n(]{1,400}\([^\n]{1,800}?:\d",
    re.MULTILINE,
)
_EXIT: Final = re.compile(r"(?:exit(?:ed with)?[ _]code|exit_code)\D{0,3}([1-9]\d{0,2})\b", re.IGNORECASE)


@dataclass(slots=True)
class Told:
    """What was found, each in the order in which it happened: `files` as they were named, the last used last."""

    files: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    fixes: list[str] = field(default_factory=list)
    said: str = ""


def records(data: bytes) -> Iterator[Any]:
    """Yield the JSON values of a transcript's lines; what is no JSON, or too long, is left out."""
    for line in data.splitlines():
        if 2 <= len(line) <= _MOST_LINE:
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                continue


def gather(values: Iterable[Any]) -> Told:
    """Find the last files, errors and edits in a transcript's records."""
    told = Told()
    for value in values:
        for each in _nodes(value):
            _call(each, told)
            _result(each, told)
            _words(each, told)
            # At once: each is looked for in what was found before it.
            del told.errors[:-_ERRORS], told.fixes[:-_FIXES]
    return told


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects in a value, outer before inner, in order."""
    waiting = [(value, 0)]
    for _ in range(_MOST_NODES):
        if not waiting:
            return
        each, depth = waiting.pop()
        if isinstance(each, dict):
            yield each
            inner: Iterable[Any] = each.values()
        elif isinstance(each, list):
            inner = each
        else:
            continue
        if depth < _MOST_DEPTH:
            waiting.extend((item, depth + 1) for item in reversed([*inner]) if isinstance(item, (dict, list)))


def _call(each: dict[str, Any], told: Told) -> None:
    name = _first(each, ("name", "toolName", "tool_name"))
    given = next((each[key] for key in ("input", "arguments", "tool_input") if key in each), None)
    if not name or given is None:
        return
    if isinstance(given, str):
        patch = given
        try:
            given = json.loads(given) if len(given) <= _MOST_LINE else None
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            _patch(patch, told)
            return
    if not isinstance(given, dict):
        return
    path = next((given[key] for key in given if key in _PATHS and isinstance(given[key], str)), "")
    if path:
        _use(path, told)
    for value in given.values():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and "*** Begin Patch" in text:
                _patch(text, told)
    edits, shown = given.get("edits"), _line(path) or "a file"
    for edit in edits if isinstance(edits, list) else [given]:
        if isinstance(edit, dict) and (new := _first(edit, _NEW)) + (old := _first(edit, _OLD)):
            told.fixes.append(f"Edited {shown}: {_change(old, new)}")


def _patch(text: str, told: Told) -> None:
    found = [*_PATCH.finditer(text)]
    for at, match in enumerate(found):
        _use(match[1].strip(), told)
        body = text[match.end() : found[at + 1].start() if at + 1 < len(found) else len(text)].split("\n")
        old = "\n".join(line[1:] for line in body if line.startswith("-"))
        new = "\n".join(line[1:] for line in body if line.startswith("+"))
        told.fixes.append(f"Edited {_line(match[1])}: {_change(old, new)}")


def _change(old: str, new: str) -> str:
    if not old.strip():
        return f"added `{_line(new)}`"
    return f"replaced `{_line(old)}` by `{_line(new)}`" if new.strip() else f"removed `{_line(old)}`"


def _result(each: dict[str, Any], told: Told) -> None:
    if each.get("type") not in _RESULTS:
        return
    inner = each.get("data")
    body = inner if isinstance(inner, dict) else each
    text, code = _output(next((body[key] for key in ("content", "output", "result", "error") if body.get(key)), ""))
    bad = each.get("is_error") is True or body.get("success") is False or code not in (None, 0)
    if text.strip() and (bad or (code is None and (_FAILED.search(text) or _EXIT.search(text[:400])))):
        error = tail(text.strip(), _ERROR_CHARS)
        if error in told.errors:
            told.errors.remove(error)
        if error:  # nothing of an endless word without spaces may be kept
            told.errors.append(error)


def _output(value: Any, depth: int = 0) -> tuple[str, int | None]:
    """Return the text of a tool's result, and its exit code where it names one."""
    if isinstance(value, str):
        if depth == 0 and value.startswith("{") and len(value) <= _MOST_LINE:
            try:
                inner = json.loads(value)
            except (ValueError, RecursionError):
                return value, None
            return _output(inner, 1) if isinstance(inner, dict) and "output" in inner else (value, None)
        return value, None
    if isinstance(value, list) and depth < 3:
        return "\n".join(_output(item, depth + 1)[0] for item in value), None
    if not isinstance(value, dict) or depth >= 3:
        return "", None
    about = value.get("metadata")
    code = about.get("exit_code") if isinstance(about, dict) else value.get("exit_code")
    text = next((value[key] for key in ("text", "output", "content", "message") if value.get(key)), "")
    return _output(text, depth + 1)[0], code if isinstance(code, int) else None


def _words(each: dict[str, Any], told: Told) -> None:
    if each.get("role") != "assistant" and each.get("type") != "assistant.message":
        return
    content = each.get("content")
    if content is None and isinstance(each.get("data"), dict):
        content = each["data"].get("content")
    if content is None and isinstance(each.get("message"), dict):
        content = each["message"].get("content")
    parts = [content] if isinstance(content, str) else content if isinstance(content, list) else []
    texts = [part if isinstance(part, str) else part.get("text") for part in parts if isinstance(part, (str, dict))]
    text = "\n".join(text for text in texts if isinstance(text, str)).strip()
    if text:
        told.said = tail(text, _SAID)


def _use(path: str, told: Told) -> None:
    path = path.strip()
    if path in told.files:
        told.files.remove(path)
    told.files.append(path)
    del told.files[:-_FILES]


def _first(value: dict[str, Any], names: Iterable[str]) -> str:
    return next((value[name] for name in names if isinstance(value.get(name), str)), "")


def _line(text: str) -> str:
    return short(" ".join(text.split()).replace("`", "'"), _CLIP)
