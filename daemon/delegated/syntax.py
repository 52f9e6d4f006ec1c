"""Whether a file still parses after a change. It is compiled by nobody, and nothing of it is run."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from importlib import import_module
from typing import Any, Final

from delegated.markdown import line

_CAP: Final = 256 << 10  # characters: a tree takes a hundred times that, and nothing else runs while Python makes it
UNREAD: Final = "not parsed"  # begins the words on what could not be judged
_NAME: Final = "an-answers-edit"  # what a warning names as the module: it is silenced by that
_PYTHON: Final = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
_GRAMMARS: Final = {  # suffix: the wheel that brings the grammar, its function, the language in words
    "js": ("tree_sitter_javascript", "language", "JavaScript"),
    "jsx": ("tree_sitter_javascript", "language", "JavaScript"),
    "mjs": ("tree_sitter_javascript", "language", "JavaScript"),
    "cjs": ("tree_sitter_javascript", "language", "JavaScript"),
    "ts": ("tree_sitter_typescript", "language_typescript", "TypeScript"),
    "mts": ("tree_sitter_typescript", "language_typescript", "TypeScript"),
    "cts": ("tree_sitter_typescript", "language_typescript", "TypeScript"),
    "tsx": ("tree_sitter_typescript", "language_tsx", "TypeScript"),
    "java": ("tree_sitter_java", "language", "Java"),
    "go": ("tree_sitter_go", "language", "Go"),
    "rs": ("tree_sitter_rust", "language", "Rust"),
}


def judge(path: str, before: str, after: str) -> tuple[bool | None, str]:
    """Say whether a file parses after a change, and in words what is wrong or why that cannot be said.

    None, and no words, for a language that nothing here can read. Only what parsed before can be broken: other
    languages than Python are held to having no more errors than before.
    """
    suffix = path.rpartition("/")[2].rpartition(".")[2].lower()
    if suffix not in ("py", "pyi") and _grammar(suffix) is None:
        return None, ""
    if max(len(before), len(after)) > _CAP:
        return None, f"{UNREAD}: the file is too large for that"
    return _python(before, after) if suffix in ("py", "pyi") else _other(suffix, before, after)


def _python(before: str, after: str) -> tuple[bool | None, str]:
    if _fault(before) is not None:
        return None, f"{UNREAD}: {_PYTHON} cannot read the file as it was sent either"
    fault = _fault(after)
    return (True, "") if fault is None else (False, f"it does not parse after it, as {_PYTHON}: {fault}")


@lru_cache(maxsize=4)  # one file is read before each of several fixes
def _fault(source: str) -> str | None:
    """Return what keeps Python from reading a source, None when nothing does."""
    # A warning about a doubtful escape is no fault, and it would write the source to the daemon's terminal. The filter
    # is put in once and stays: `catch_warnings` is for one thread.
    if not any(each[0] == "ignore" and each[3] and each[3].match(_NAME) for each in warnings.filters):
        warnings.filterwarnings("ignore", module=re.escape(_NAME))
    try:
        ast.parse(source.removeprefix("\ufeff"), _NAME)
    except SyntaxError as error:
        return f"line {error.lineno}: {line(str(error.msg), 120)}" if error.lineno else line(str(error.msg), 120)
    except (RecursionError, MemoryError):
        return "it is nested too deeply"
    except ValueError as error:  # a NUL, half a character
        return line(str(error), 120)
    return None


def _other(suffix: str, before: str, after: str) -> tuple[bool | None, str]:
    made = _grammar(suffix)
    if made is None:
        return None, ""
    try:
        was, now = (_errors(made().parse(text.encode("utf-8", "replace")).root_node) for text in (before, after))
    except Exception as error:  # noqa: BLE001 - whatever a library has against a text, it is no word on the edit
        return None, f"{UNREAD}: {_GRAMMARS[suffix][2]} cannot be read here ({type(error).__name__})"
    if len(now) <= len(was):
        return True, ""
    at = next((row for row in now if row not in was), now[0])
    return False, f"it does not parse after it, as {_GRAMMARS[suffix][2]}: line {at + 1}"


@cache
def _grammar(suffix: str) -> Callable[[], Any] | None:
    """Return what makes a parser of a language, None where its wheel (the extra `syntax`) is not installed."""
    known = _GRAMMARS.get(suffix)
    if known is None:
        return None
    try:
        library, grammar = import_module("tree_sitter"), import_module(known[0])
        language = library.Language(getattr(grammar, known[1])())
    except (ImportError, AttributeError, TypeError, ValueError):  # also: of another age than the other one
        return None
    return lambda: library.Parser(language)  # one for each use: they are not for several threads


def _errors(root: Any) -> list[int]:
    """List the lines, from 0, on which a tree has an error or lacks something."""
    rows, todo = [], [root]
    while todo:
        node = todo.pop()
        if node.is_error or node.is_missing:
            rows.append(node.start_point[0])
        if node.has_error:
            todo += reversed(node.children)
    return rows
