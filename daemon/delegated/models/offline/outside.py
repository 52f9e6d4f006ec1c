"""What comes from outside the program and is not as expected: FileNotFoundError, JSONDecodeError."""

from __future__ import annotations

import ast
import json
import posixpath
import re
from itertools import islice
from typing import Final

from delegated.models.offline.crash import Crash
from delegated.models.offline.finding import Example, Finding, Fix
from delegated.models.offline.names import import_change
from delegated.models.offline.scene import Scene, Spot
from delegated.models.offline.scopes import bindings
from delegated.models.offline.source import MOST, Change, Edit, Source
from delegated.models.offline.spelling import near

_FILE: Final = re.compile(
    r"\[Errno 2\] No such file or directory: (?P<quoted>'(?P<one>.*?)'|\"(?P<two>.*?)\")(?: -> .*)?$"
)
_JSON: Final = re.compile(r"(?P<what>.+?): line (?P<line>\d+) column (?P<column>\d+) \(char (?P<at>\d+)\)$")
_TRAILING: Final = re.compile(r",(?=\s*[}\]])")
_WHY: Final = (
    ("Unexpected UTF-8 BOM", 'The text begins with a byte order mark: open the file with encoding="utf-8-sig".'),
    (
        "Extra data",
        "A whole JSON document ended and more text follows. Several documents, one a line (JSON "
        "Lines), are to be read line by line.",
    ),
    (
        "Expecting property name enclosed in double quotes",
        "Keys need double quotes. Single quotes (a printed Python dict) and a comma before `}` both give this message.",
    ),
    ("Illegal trailing comma", "JSON allows no comma before `}` or `]`."),
    (
        "Unterminated string",
        "A string does not end: most often the text was cut off, by a partial write, a partial read or a length limit.",
    ),
    ("Invalid control character", "A string holds a raw line break or tab, which JSON wants escaped."),
    ("Invalid \\escape", "A string holds a backslash that begins no escape, such as a Windows path."),
)


def file_not_found(scene: Scene, crash: Crash, spot: Spot) -> Finding | None:
    """Explain a path that leads nowhere."""
    match = _FILE.match(crash.message)
    if match is None:
        return None
    path = match["one"] or match["two"] or ""
    if any("subprocess" in step.frame.path for step in crash.steps) and "/" not in path:
        return Finding(
            f"The program `{path}` that {spot.where} starts is not installed, or not on PATH.",
            "The failure comes from subprocess: what was not found is the command itself. A service "
            "has a shorter PATH than a shell.",
            fixes=(Fix(f"Install `{path}`, or give its full path; or handle its absence with shutil.which."),),
            checks=(f"command -v {path}; systemctl show -p Environment <unit>",),
            shown=True,
        )
    if posixpath.isabs(path) or re.match(r"[A-Za-z]:", path):
        return Finding(
            f"{spot.where} opens {path}, which does not exist on the machine that ran it.",
            "The path is absolute, so the working directory does not matter: the file or one of its "
            "directories is missing, or not mounted there.",
            fixes=(Fix(f"Create {path} before it is read, or correct the path where it is configured."),),
            checks=(f"ls -ld {posixpath.dirname(path)} {path}",),
        )
    wanted = posixpath.normpath(path.replace("\\", "/"))
    known = [*scene.sources, *scene.omitted]
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(spot.source.path), wanted))
    rule = (
        f"`{path}` is relative, so it is looked up in the directory that the process was started in, not "
        f"beside {spot.source.path}."
    )
    if beside in known and not (wanted in known and wanted == beside):
        return Finding(
            f"{spot.where} looks for `{path}` in the working directory; the file lies beside the module, in {beside}.",
            f"{rule} {beside} is in the workspace. From any other directory than "
            f"{posixpath.dirname(spot.source.path) or 'the root'} the program does not find it.",
            evidence=(scene.sources[beside].place(1),) if beside in scene.sources else (),
            fixes=(
                Fix(
                    "Start from the module's own directory instead of the working directory.",
                    _anchored(path, spot),
                    "It then does not matter where the program is started.",
                    "A file of that name in the working directory is no longer read.",
                ),
            ),
            shown=True,
        )
    there = [p for p in known if p == wanted or p.endswith("/" + wanted)]
    alike = [
        p
        for p in known
        if p.rpartition("/")[2] in near(wanted.rpartition("/")[2], (k.rpartition("/")[2] for k in known))
    ]
    return Finding(
        f"`{path}`, which {spot.where} opens, is not where the program looked.",
        rule
        + (
            f" The workspace has it as {', '.join(there[:3])}: the program was started from another directory."
            if there
            else ""
        )
        + (f" The workspace has {', '.join(alike[:3])}, which is spelt alike." if alike and not there else ""),
        fixes=(
            Fix(
                "Build the path from a known place (the module's directory, a setting), or start the "
                "program from the right directory."
            ),
        ),
        examples=(
            Example(
                "A path that does not depend on the working directory",
                f"from pathlib import Path\n\nPath(__file__).parent / {path!r}",
            ),
        ),
        checks=("Log `os.getcwd()` just before the line, and compare it with where the file is.",),
        shown=bool(there),
    )


def _anchored(path: str, spot: Spot) -> tuple[Edit, ...]:
    """Return the edit that puts the module's directory before a path that is written out in `open(...)`."""
    literals = [node for node in spot.at(ast.Constant) if node.value == path]
    opened = [
        c for c in spot.at(ast.Call) if isinstance(c.func, ast.Name) and c.func.id == "open" and c.args[:1] == literals
    ]
    if len(literals) != 1 or len(opened) != 1 or spot.source.tree is None:
        return ()
    literal, names = literals[0], bindings(spot.source.tree)
    text = f"Path(__file__).parent / {spot.source.segment(literal)}"
    if "Path" not in names:
        return spot.edit(spot.source.span(literal, text), import_change(spot.source, "from pathlib import Path"))
    imported = any(isinstance(n, ast.ImportFrom) and n.module == "pathlib" for n in names["Path"])
    return spot.edit(spot.source.span(literal, text)) if imported and len(names["Path"]) == 1 else ()


def json_error(scene: Scene, crash: Crash, spot: Spot) -> Finding | None:
    """Explain text that is not JSON. A sent JSON file that fails with the very same message is the text."""
    match = _JSON.match(crash.message)
    if match is None:
        return None
    broken = [
        source
        for path, source in scene.sources.items()
        if path.endswith(".json") and source.whole and _fails(source) == crash.message
    ]
    what, line, at = match["what"], int(match["line"]), int(match["at"])
    why = next((text for start, text in _WHY if what.startswith(start)), "")
    if not why and what.startswith("Expecting value"):
        why = (
            "Not one character of it is JSON: the text is empty, or something else, such as an HTML error page."
            if at == 0
            else (
                "Where a value should begin there is none: the text ends early, a comma stands before the "
                "closing bracket, or it is Python's None, True or 'text'."
            )
        )
    if len(broken) != 1:
        return Finding(
            f"The text that {spot.where} reads as JSON is not JSON at line {line}, column {match['column']}.",
            why or "The parser names the place at which the text stops being JSON.",
            fixes=(
                Fix(
                    "Check what was received before it is parsed: for a response its status and "
                    "content type, for a file whether it is empty or half written."
                ),
            ),
            examples=(
                Example(
                    "See what it was",
                    "text = ...  # what the failing line parses\nprint(len(text), "
                    f"repr(text[{max(0, at - 40)}:{at + 40}]))",
                ),
            ),
            checks=(
                f"Log the first 200 characters of the text and its length just before {spot.source.path}:{spot.line}.",
            ),
            shown=False,
        )
    source = broken[0]
    edits = _without_comma(source, at)
    return Finding(
        f"{source.path} is not JSON: {what}, line {line}.",
        f"Read as JSON, {source.path} as sent fails with exactly the message in the log. {why}".strip(),
        evidence=(source.place(max(1, line - 1), line),),
        fixes=(
            Fix(
                f"Remove the comma before the closing bracket in {source.path}."
                if edits
                else f"Correct {source.path} at line {line}.",
                edits,
                "The rest of the file is JSON." if edits else "",
            ),
        ),
        checks=(f"python -m json.tool {source.path}",),
        shown=True,
    )


def _fails(source: Source) -> str:
    try:
        json.loads(source.text)
    except json.JSONDecodeError as error:
        return str(error)
    except (ValueError, RecursionError):
        return ""
    return ""


def _without_comma(source: Source, at: int) -> tuple[Edit, ...]:
    """Return the edit that drops the trailing comma at which the parser stopped, if the file is JSON without it."""
    near_by = _TRAILING.finditer(source.text, max(0, at - 200), min(len(source.text), at + 200))
    for comma in islice(near_by, MOST):
        fixed = source.text[: comma.start()] + source.text[comma.end() :]
        try:
            json.loads(fixed)
        except (ValueError, RecursionError):
            continue
        line = source.text.count("\n", 0, comma.start()) + 1
        column = comma.start() - (source.text.rfind("\n", 0, comma.start()) + 1)
        return source.edit([Change(line, column, column + 1, "")])
    return ()
