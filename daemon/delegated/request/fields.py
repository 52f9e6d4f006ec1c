"""The fields of a request: which keys name them, and what each may hold. Every problem is told at once."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from delegated.cuts import head
from delegated.errors import Problem, RequestError
from delegated.request import Embedded, Options, Request
from delegated.request.marks import CONTROL, MAX_PATH, clean, clean_issue, clean_path
from delegated.request.tree import Node

# Every key of a YAML or JSON request and of front matter, with the field that it fills. A field of "" is read over:
# the original script wrote the time, which says nothing about the issue.
KEYS: Final[dict[str, str]] = {
    "issue": "issue",
    "issue_description": "issue",
    "context": "context",
    "logs": "logs",
    "error_logs": "logs",
    "attempted_fixes": "attempted_fixes",
    "files": "files",
    "file_paths": "files",
    "contents": "contents",
    "file_contents": "contents",
    "questions": "questions",
    "specific_questions": "questions",
    "id": "id",
    "draft": "draft",
    "models": "models",
    "model": "models",
    "compare": "compare",
    "force": "force",
    "priority": "priority",
    "max_cost_usd": "max_cost_usd",
    "max_input_tokens": "max_input_tokens",
    "deadline_s": "deadline_s",
    "repro": "repro",
    "test": "test",
    "labels": "labels",
    "timestamp": "",
}
# The most entries that a list may have.
LIMITS: Final = {"files": 200, "contents": 200, "attempted_fixes": 100, "questions": 50, "models": 10, "labels": 50}
MAX_PRIORITY: Final = 1_000
MAX_PROBLEMS: Final = 100

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TRUE: Final = frozenset({"true", "yes", "on"})
_FALSE: Final = frozenset({"false", "no", "off"})
_NUMBER: Final = re.compile(r"[+-]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?")
_NOT_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")
_MISSING: Final = Problem(1, "no issue", "add `issue:` with what is wrong")


@dataclass(frozen=True, slots=True)
class Given:
    """One value as the writer gave it; `key` is what they called it."""

    field: str
    key: str
    node: Node


@dataclass(slots=True)
class Gathered:
    """All that was read from a file, before it is checked. `missing` is the problem if there is no issue."""

    given: list[Given] = field(default_factory=list)
    contents: list[Embedded] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    missing: Problem | None = _MISSING


def from_tree(root: Node) -> Gathered:
    """Read the root of a YAML or JSON file, or of front matter."""
    gathered = Gathered()
    if root.kind == "null":
        gathered.missing = Problem(root.line, "the file holds no values", "add `issue:` with what is wrong")
    elif root.kind != "map":
        gathered.problems.append(Problem(root.line, f"{_show(root)} instead of keys with values", "write `issue: …`"))
        gathered.missing = None
    seen: dict[str, Node] = {}
    for key, node in root.entries:
        name = KEYS.get(key.text)
        if name is None:
            near = difflib.get_close_matches(key.text[:80].lower().replace("-", "_"), KEYS, 1)
            expected = f"did you mean `{near[0]}`?" if near else f"the keys are {', '.join(k for k in KEYS if KEYS[k])}"
            gathered.problems.append(Problem(key.line, f"unknown key {head(key.text, 80)!r}", expected))
        elif name and name in seen:
            found = f"`{key.text}` says the same as `{seen[name].text}` in line {seen[name].line}"
            gathered.problems.append(Problem(key.line, found, "keep one of them"))
        elif name:
            seen[name] = key
            if node.kind == "null" and name == "issue":
                gathered.missing = Problem(key.line, f"`{key.text}` is empty", "say what is wrong")
            if node.kind != "null":
                gathered.given.append(Given(name, key.text, node))
    return gathered


def build(gathered: Gathered) -> Request:
    """Check all that was given and make the request.

    Raises `RequestError` with every problem. A draft has none: what is wrong in it is left out, with a warning.
    """
    check = _Check(gathered)
    options = Options(
        id=check.word(
            "id", _ID, "an id is 1 to 100 letters, digits, `.`, `_` or `-`, and starts with a letter or digit"
        ),
        draft=check.flag("draft"),
        models=check.words("models"),
        compare=check.flag("compare"),
        force=check.flag("force"),
        priority=int(check.number("priority", -MAX_PRIORITY, MAX_PRIORITY, whole=True) or 0),
        max_cost_usd=check.number("max_cost_usd", 0, math.inf, whole=False),
        max_input_tokens=check.whole("max_input_tokens", 1),
        deadline_s=check.number("deadline_s", 1, math.inf, whole=False),
        repro=clean(check.text("repro")),
        test=clean(check.text("test")),
        labels=check.words("labels", spaces=True),
    )
    request = Request(
        issue=clean_issue(check.text("issue")),
        context=clean(check.text("context")),
        logs=clean(check.text("logs")),
        attempted_fixes=check.items("attempted_fixes"),
        files=check.paths("files"),
        contents=check.contents(),
        questions=check.items("questions"),
        options=options,
    )
    problems = check.problems
    badly_said = any(given.field == "issue" and given.node.kind in ("list", "map") for given in gathered.given)
    if not request.issue and not badly_said and gathered.missing:
        problems.append(gathered.missing)
    if problems and not options.draft:
        problems.sort(key=lambda problem: problem.line or 0)
        if (more := len(problems) - MAX_PROBLEMS) > 0:
            problems[MAX_PROBLEMS:] = [Problem(None, f"{more} more problems", "correct those above first")]
        raise RequestError(tuple(problems))
    warnings = (*check.warnings, *(f"draft: {problem}" for problem in problems))
    if (more := len(warnings) - MAX_PROBLEMS) > 0:
        warnings = (*warnings[:MAX_PROBLEMS], f"{more} more warnings")
    return replace(request, warnings=warnings)


def _show(node: Node) -> str:
    if node.kind in ("list", "map"):
        return "a list" if node.kind == "list" else "a mapping"
    text = node.text if len(node.text) <= 60 else head(node.text, 60) + "…"
    if text == "…":  # of one long word no part is shown: it may be a secret
        return f"a word of {len(node.text):,} characters"
    return repr(text) if node.kind == "text" else f"`{ascii(text)[1:-1]}`"


class _Check:
    """One reading of what was given; problems and warnings gather in it."""

    def __init__(self, gathered: Gathered) -> None:
        self.problems = list(gathered.problems)
        self.warnings = list(gathered.warnings)
        self._given: dict[str, list[Given]] = {}
        for given in gathered.given:
            self._given.setdefault(given.field, []).append(given)
        self._contents = gathered.contents

    def _wrong(self, node: Node, key: str, expected: str) -> None:
        self.problems.append(Problem(node.line, f"`{key}` is {_show(node)}", expected))

    def _scalar(self, node: Node, key: str) -> str:
        """Return a scalar's text as it was written; `NO` and `500` are texts where a text is wanted."""
        if node.kind in ("list", "map"):
            hint = "write one text; a text with `: ` in it goes into quotes" if node.kind == "map" else "write one text"
            self._wrong(node, key, hint)
            return ""
        if bad := _NOT_TEXT.search(node.text):
            self._wrong(node, key, f"remove the character {bad.group()!r}, which is not text")
            return ""
        return "" if node.kind == "null" else node.text

    def text(self, name: str) -> str:
        """Join the texts given for a field."""
        return "\n\n".join(filter(None, (clean(self._scalar(g.node, g.key)) for g in self._given.get(name, ()))))

    def word(self, name: str, form: re.Pattern[str], expected: str) -> str:
        """Return a scalar that has the form given."""
        for given in self._given.get(name, ()):
            word = self._scalar(given.node, given.key)
            if word and form.fullmatch(word):
                return word
            if given.node.kind not in ("list", "map"):
                self._wrong(given.node, given.key, expected)
        return ""

    def flag(self, name: str) -> bool:
        """Return true or false; a text in quotes is neither."""
        for given in self._given.get(name, ()):
            word = given.node.text.lower()
            if given.node.kind == "plain" and word in _TRUE | _FALSE:
                return word in _TRUE
            self._wrong(given.node, given.key, "write true or false, without quotes")
        return False

    def number(self, name: str, least: float, most: float, *, whole: bool) -> float | None:
        """Return a number in its range; a range that starts at 0 does not include it."""
        for given in self._given.get(name, ()):
            node = given.node
            bound = f"at least {least:,.15g}" if least else "above 0"
            kind = "a whole number" if whole else "a finite number"
            expected = f"write {kind} {bound}" + (f" and at most {most:,.15g}" if most < math.inf else "")
            if node.kind != "plain" or not _NUMBER.fullmatch(node.text) or len(node.text) > 40:
                self._wrong(node, given.key, expected + (", without quotes" if node.kind == "text" else ""))
                continue
            value = float(node.text.replace("_", ""))
            in_range = (value >= least if least else value > 0) and value <= most and math.isfinite(value)
            if not in_range or (whole and not re.fullmatch(r"[+-]?[\d_]+", node.text)):
                self._wrong(node, given.key, expected)
                continue
            return value
        return None

    def whole(self, name: str, least: int) -> int | None:
        """Return a whole number, exactly."""
        value = self.number(name, least, 10**12, whole=True)
        return None if value is None else int(value)

    def _nodes(self, name: str) -> list[tuple[str, Node, bool]]:
        """Return each value of a field that may hold a list, with its key, and whether it stands in a list."""
        nodes = []
        for given in self._given.get(name, ()):
            listed = given.node.kind == "list"
            nodes += [(given.key, node, listed) for node in (given.node.items if listed else (given.node,))]
        return nodes

    def _limit(self, name: str, lines: Sequence[int], hint: str = "") -> None:
        if len(lines) > (most := LIMITS[name]):
            self.problems.append(Problem(lines[most], f"{len(lines)} entries under `{name}`", f"at most {most}{hint}"))

    def items(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        found = [(clean(self._scalar(node, key)).strip(), node.line) for key, node, _ in self._nodes(name)]
        found = [(text, line) for text, line in found if text]
        self._limit(name, [line for _, line in found])
        return tuple(text for text, _ in found)

    def words(self, name: str, *, spaces: bool = False) -> tuple[str, ...]:
        """Return short names, each once, from a list or a text with commas."""
        found: dict[str, int] = {}
        for key, node, listed in self._nodes(name):
            text = self._scalar(node, key)
            for word in map(str.strip, [text] if listed else text.split(",")):
                if len(word) > 200 or not word.isprintable() or (not spaces and " " in word):
                    self._wrong(node, key, f"a name has at most 200 characters{'' if spaces else ' and no spaces'}")
                elif word:
                    found.setdefault(word, node.line)
        self._limit(name, list(found.values()))
        return tuple(found)

    def paths(self, name: str) -> tuple[str, ...]:
        """Return paths and globs, each once, from a list or a text with commas."""
        found: dict[str, int] = {}
        for key, node, listed in self._nodes(name):
            text = self._scalar(node, key)
            for path in map(clean_path, [text] if listed else split_paths(text)):
                if path and self._is_path(path, node, key):
                    found.setdefault(path, node.line)
        self._limit(name, list(found.values()), "; a glob such as `src/*.py` is one entry")
        return tuple(found)

    def _is_path(self, path: str, node: Node, key: str) -> bool:
        if CONTROL.search(path):
            self._wrong(node, key, "a path is one line without control characters")
        elif len(path) > MAX_PATH:
            self._wrong(node, key, f"a path has at most {MAX_PATH:,} characters")
        else:
            return True
        return False

    def contents(self) -> tuple[Embedded, ...]:
        """Return the files that came along, each path once."""
        files: dict[str, Embedded] = {}
        for embedded in (*self._contents, *self._mapped_contents()):
            if not self._is_path(embedded.path, Node("text", embedded.line, embedded.path), "path"):
                continue
            if (first := files.setdefault(embedded.path, embedded)) is not embedded:
                found = f"line {embedded.line}: the contents of {embedded.path!r} a second time"
                self.warnings.append(f"{found}; those in line {first.line} were taken")
        self._limit("contents", [file.line for file in files.values()], "; name the others under `files`")
        return tuple(files.values())

    def _mapped_contents(self) -> Sequence[Embedded]:
        found = []
        for given in self._given.get("contents", ()):
            if given.node.kind != "map":
                self._wrong(given.node, given.key, "write a mapping from each path to its text")
            for key, node in given.node.entries:
                path = clean_path(self._scalar(key, given.key))
                if not path:
                    self._wrong(key, given.key, "the path is empty")
                elif node.kind != "null":
                    text = re.sub(r"\r\n?", "\n", self._scalar(node, path)).rstrip("\n")
                    found.append(Embedded(path, text + "\n" if text else "", "", key.line))
        return found


def split_paths(text: str) -> list[str]:
    """Split at commas and line ends, but not inside the braces of a glob or a code span."""
    parts, start, depth, span = [], 0, 0, False
    for at, character in enumerate(text):
        if character == "`":
            span = not span
        elif character == "\n":
            parts.append(text[start:at])
            start, depth, span = at + 1, 0, False
        elif character in "{}":
            depth = max(0, depth + (1 if character == "{" else -1))
        elif character == "," and not depth and not span:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]
