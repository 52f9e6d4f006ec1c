# ruff: noqa: E501, RUF001 (the tables hold one case a line)
"""What a request may look like, what it is read as, and what a writer is told who got it wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from delegated.errors import RequestError
from delegated.request import Embedded, Options, Request, parse, render
from delegated.request.fields import KEYS
from delegated.request.marks import SECTIONS

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "config" / "schemas" / "request.schema.json").read_text())


def md(text: str) -> Request:
    return parse(text.encode(), ".md")


def refused(data: bytes | str, suffix: str = ".md") -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(data.encode() if isinstance(data, str) else data, suffix)
    return caught.value


# The original script's page, with a README among its files that holds fences, headings and one of our section names.
README = """\
# Title

```bash
# install
pip install x
```

## Context

Not a section of the request.

```
bare
```

### `other.py`

```python
x = 1
```

The end.
"""
MAIN = 'def main():\n    """\n    # Issue\n    """\n'
ORIGINAL = f"""\
# OpenAI Delegation Request

**Timestamp**: 2025-11-28T13:37:58
**Status**: PENDING

---

## Issue Description

500 Internal Server Error on /runs/start

---

## Full Context

Error persists after fixing the import.

### Environment

Python 3.11

## Error Logs

```
Traceback (most recent call last):
  File "main.py", line 3
# Issue
NameError: name 'Request' is not defined
```

## Attempted Fixes

1. Added Request import
2. Separated request_data
   from request parameter

## File Paths

- `src/autopack/main.py`
- src/autopack/*.py

## File Contents

### README.md

```markdown
{README}
```

### src/autopack/main.py

```python
{MAIN}
```

---

## Specific Questions

1. What is the root cause?
2. Which line is at fault?
"""


def test_a_page_of_the_original_script_is_read_whole() -> None:
    """Every part of a page as the original script wrote it lands in its field; title and metadata in none."""
    request = md(ORIGINAL)
    assert request == Request(
        issue="500 Internal Server Error on /runs/start",
        context="Error persists after fixing the import.\n\n### Environment\n\nPython 3.11",
        logs='Traceback (most recent call last):\n  File "main.py", line 3\n# Issue\n'
        "NameError: name 'Request' is not defined",
        attempted_fixes=("Added Request import", "Separated request_data\nfrom request parameter"),
        files=("src/autopack/main.py", "src/autopack/*.py"),
        contents=(
            Embedded("README.md", README, "markdown", 44),
            Embedded("src/autopack/main.py", MAIN, "python", 72),
        ),
        questions=("What is the root cause?", "Which line is at fault?"),
    )
    assert [ORIGINAL.split("\n")[file.line - 1] for file in request.contents] == [
        "### README.md",
        "### src/autopack/main.py",
    ]


CODE = "x = 1\n"
EMBEDDED: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("one file", "### a.py\n```python\nx = 1\n```\n", [("a.py", CODE)]),
    ("no blank lines", "### a.py\n```\nx = 1\n```\n### b.py\n```\nx = 1\n```", [("a.py", CODE), ("b.py", CODE)]),
    ("path in backticks", "### `a b.py`\n\n```\nx = 1\n```\n", [("a b.py", CODE)]),
    ("path with a label", "### File: src/a.py (12 lines)\n```\nx = 1\n```\n", [("src/a.py", CODE)]),
    ("bold path", "**a.py**\n\n```\nx = 1\n```\n\n**b.py**:\n```\nx = 1\n```\n", [("a.py", CODE), ("b.py", CODE)]),
    ("path as a code span", "`a.py`:\n```\nx = 1\n```\n", [("a.py", CODE)]),
    ("file without a suffix", "### Makefile\n```\nx = 1\n```\n", [("Makefile", CODE)]),
    ("headings of the section's own level", "## src/a.py\n```\nx = 1\n```\n", [("src/a.py", CODE)]),
    ("empty file", "### a.py\n```\n```\n\n### b.py\n```\nx = 1\n```\n", [("a.py", ""), ("b.py", CODE)]),
    ("tildes", "### a.md\n~~~markdown\n```\nx\n```\n~~~\n", [("a.md", "```\nx\n```\n")]),
    (
        "longer fence",
        "### a.md\n````md\n```\n# b\n````\n\n### b.py\n```\nx = 1\n```",
        [("a.md", "```\n# b\n"), ("b.py", CODE)],
    ),
    ("longer fence that holds an own path", "### a.md\n````md\n### b.py\n```\n````\n", [("a.md", "### b.py\n```\n")]),
    ("indented fence", "### a.py\n  ```\n  x = 1\n  ```\n", [("a.py", CODE)]),
    ("fences inside", "### a.md\n```md\n```sh\n# b\n```\nc\n```\n", [("a.md", "```sh\n# b\n```\nc\n")]),
    ("bare fences inside", "### a.md\n```md\na\n```\n# b\n```\nc\n```\n", [("a.md", "a\n```\n# b\n```\nc\n")]),
    (
        "a section's name behind a fence inside",
        "### a.md\n```md\na\n```\nb\n```\n\n## Files\n\n- z.py\n```\n\n### b.py\n```\nx = 1\n```\n",
        [("a.md", "a\n```\nb\n```\n\n## Files\n\n- z.py\n"), ("b.py", CODE)],
    ),
    (
        "a path with its fence inside",
        "### a.md\n```md\na\n\n```sh\nb\n```\n\n### z.py\n\n```python\nz\n```\n\nend\n```\n\n### b.py\n```\nx = 1\n```\n",
        [("a.md", "a\n\n```sh\nb\n```\n\n### z.py\n\n```python\nz\n```\n\nend\n"), ("b.py", CODE)],
    ),
    (
        "a note between files",
        "### a.py\n```\nx = 1\n```\nA note.\n\n### b.py\n```\nx = 1\n```\n",
        [("a.py", CODE), ("b.py", CODE)],
    ),
    (
        "a fence inside that nobody closes",
        "### a.py\n```\n```json\n```\n\n### b.py\n```\nx = 1\n```\n",
        [("a.py", "```json\n"), ("b.py", CODE)],
    ),
    ("words first", "Here they are:\n\n### a.py\n```\nx = 1\n```\n", [("a.py", CODE)]),
    (
        "rules between",
        "### a.py\n```\nx = 1\n```\n\n---\n\n### b.py\n```\nx = 1\n```\n---\n",
        [("a.py", CODE), ("b.py", CODE)],
    ),
]


@pytest.mark.parametrize(("body", "files"), [row[1:] for row in EMBEDDED], ids=[row[0] for row in EMBEDDED])
@pytest.mark.parametrize("after", ["", "\n## Questions\n\n1. Why?\n"], ids=["last", "first"])
def test_embedded_files_are_read_right(body: str, files: list[tuple[str, str]], after: str) -> None:
    """A file that goes along ends where its writer ended it, also when it holds fences and headings itself."""
    request = md(f"## Issue\n\nit fails\n\n## File Contents\n\n{body}{after}")
    assert [(file.path, file.text) for file in request.contents] == files
    assert request.issue == "it fails"
    assert request.questions == (("Why?",) if after else ())
    assert request.files == ()


def test_a_file_that_is_never_closed_is_kept() -> None:
    """Where the page ends inside a file, the file is what there is of it."""
    request = md("## Issue\nx\n## File Contents\n### a.py\n```\nx = 1\n")
    assert request.contents == (Embedded("a.py", CODE, "", 4),)


def test_words_between_embedded_files_go_to_the_context() -> None:
    """Text under File Contents that is no file is kept, and told."""
    request = md("## Issue\nx\n## File Contents\nHere.\n### a.py\n```\n1\n```\nA note.\n### b.py\n```\n2\n```\n")
    assert request.context == "Here.\nA note."
    assert request.warnings == ("line 4: text under File Contents without a path and a fence went to the context",)


def test_files_below_a_files_heading_are_embedded() -> None:
    """A path with a fence below the heading Files is a file that goes along."""
    request = md("## Issue\nx\n## Files\n- a.py\n### b.py\n```\n1\n```\n## Context\nc")
    assert (request.files, request.contents) == (("a.py",), (Embedded("b.py", "1\n", "", 5),))
    assert request.context == "c"


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize(
    "form", ["# {}", "## {}", "###### {} ######", "**{}**:\n---", "{}\n===", "## 2. {}:", "## 🐛 {}"]
)
def test_every_heading_is_understood(name: str, form: str) -> None:
    """All names of the sections open them, at any level, underlined or not, in any letter case."""
    body = "### a.py\n```\nx\n```" if SECTIONS[name] == "contents" else "a.py"
    for written in (name, name.title(), name.upper()):
        request = md(f"# Problem\n\nit fails\n\n{form.format(written)}\n\n{body}\n")
        value = getattr(request, SECTIONS[name])
        expected: Any = {
            "issue": "it fails\n\na.py",
            "context": "a.py",
            "logs": "a.py",
            "contents": (Embedded("a.py", "x\n", "", value[0].line if SECTIONS[name] == "contents" else 0),),
        }.get(SECTIONS[name], ("a.py",))
        assert value == expected
        assert request.warnings == ()


ISSUE = "it fails"
# What is written, and what differs from the plain request then.
ACCEPTED: list[tuple[str, str, str, dict[str, Any]]] = [
    ("no heading", ".md", "it fails\n", {}),
    ("no heading, several paragraphs", ".md", "it fails\n\nbadly", {"issue": "it fails\n\nbadly"}),
    ("unknown headings only", ".md", "it\n\n## Steps\n\none", {"issue": "it\n\n## Steps\n\none"}),
    ("phrase", ".md", "DELEGATE TO GPT-4O: it fails", {}),
    ("phrase in lower case", ".md", "delegate to gpt-4o: it fails\n", {}),
    ("phrase in bold", ".md", "**Delegate to GPT-4o: it fails**", {}),
    ("phrase in a list", ".md", "text\n\n- DELEGATE TO GPT-4O: it fails", {"context": "text"}),
    ("phrase below other headings", ".md", "## Context\nc\n\nDELEGATE TO GPT-4O: it fails\n\nd", {"context": "c\n\n\nd"}),
    ("phrase below an issue heading", ".md", "## Issue\nDELEGATE TO GPT-4O: it fails", {}),
    ("heading wins over phrase", ".md", "DELEGATE TO GPT-4O: b\n\n# Issue\nit fails", {"context": "DELEGATE TO GPT-4O: b"}),
    (
        "phrase in code",
        ".md",
        "it fails\n\n```\nDELEGATE TO GPT-4O: b\n```",
        {"issue": "it fails\n\n```\nDELEGATE TO GPT-4O: b\n```"},
    ),
    ("title as issue", ".md", "# it fails\n\n## Files\n\na.py", {"files": ("a.py",)}),
    ("title and text as issue", ".md", "it\n===\n\nfails\n\n## Files\na.py", {"issue": "it\n\nfails", "files": ("a.py",)}),
    ("title beside an issue", ".md", "# Ticket 5\n\n## Issue\nit fails", {"context": "# Ticket 5"}),
    ("generic title", ".md", "# GPT-4o Delegation Request\n\nit fails", {}),
    ("metadata kept if unknown", ".md", "**Version**: 2\n\n## Issue\nit fails", {"context": "**Version**: 2"}),
    ("issue in a fence", ".md", "## Issue\n\n```\nit fails\n```\n", {}),
    ("heading in a fence", ".md", "# Issue\nit fails\n\n```\n# Logs\n```", {"issue": "it fails\n\n```\n# Logs\n```"}),
    ("heading in a list", ".md", "# Issue\nit fails\n- # Logs", {"issue": "it fails\n- # Logs"}),
    ("heading in a quote", ".md", "# Issue\nit fails\n\n> # Logs", {"issue": "it fails\n\n> # Logs"}),
    ("line under text", ".md", "# Issue\nit fails\n---\n# Context\nc", {"context": "c"}),
    ("sub-heading stays", ".md", "## Issue\nit fails\n### Here\nx", {"issue": "it fails\n### Here\nx"}),
    ("comment", ".md", "## Issue\n<!-- say\n what -->\nit fails", {}),
    ("two logs", ".md", "## Issue\nit fails\n## Logs\na\n## Error Log\nb", {"logs": "a\n\nb"}),
    ("indented log", ".md", "## Issue\nit fails\n## Logs\n\n    at a\n  at b\n", {"logs": "    at a\n  at b"}),
    ("log in two fences", ".md", "# Issue\nit fails\n# Logs\n```\na\n```\n```\nb\n```", {"logs": "```\na\n```\n```\nb\n```"}),
    ("bullets", ".md", "# Issue\nit fails\n# Attempted Fixes\n* a\n\n  b\n* c", {"attempted_fixes": ("a\n\nb", "c")}),
    ("ten items", ".md", "# Issue\nit fails\n# Questions\n" + "".join(f"{n}. q{n}\n" for n in range(1, 12)),
     {"questions": tuple(f"q{n}" for n in range(1, 12))}),
    ("item with code", ".md", "# Issue\nit fails\n# Questions\n- a\n  ```\n  # b\n  ```\n", {"questions": ("a\n```\n# b\n```",)}),
    ("item in a tab", ".md", "# Issue\nit fails\n# Questions\n-\ta\n\tb\n", {"questions": ("a\nb",)}),
    ("fixes without a list", ".md", "# Issue\nit fails\n# Attempted Fixes\nRestarted it", {"attempted_fixes": ("Restarted it",)}),
    ("no fixes", ".md", "# Issue\nit fails\n# Attempted Fixes\n\n_None yet._", {}),
    ("paths with commas", ".md", "# Issue\nit fails\n# Files\na.py, `b c.py`,src/{d,e}.py", {"files": ("a.py", "b c.py", "src/{d,e}.py")}),
    ("paths listed", ".md", "# Issue\nit fails\n# Files\n1. a.py - main\n2. `b.py`\n- a.py", {"files": ("a.py", "b.py")}),
    ("paths in a fence", ".md", "# Issue\nit fails\n# Files\n```\na.py\nb.py\n```", {"files": ("a.py", "b.py")}),
    ("end mark", ".md", "it fails\n<!-- END -->\n\n", {}),
    ("end mark after code", ".md", "# Issue\nit fails\n# Logs\n```\na\n```\n<!-- END -->", {"logs": "a"}),
    ("front matter", ".md", "---\nid: a\nmodels: [b, c]\n---\nit fails", {"options": Options(id="a", models=("b", "c"))}),
    ("front matter closed by dots", ".md", "---\n# mine\npriority: -5\n...\nit fails", {"options": Options(priority=-5)}),
    ("front matter with fields", ".md", "---\nissue: it fails\nfiles: a.py, b.py\n---\n## Files\nc.py", {"files": ("a.py", "b.py", "c.py")}),
    ("empty front matter", ".md", "---\n---\nit fails", {}),
    ("a line on top", ".md", "---\n\n## Issue\nit fails\n\n---\n## Context\nc", {"context": "c"}),
    ("draft", ".md", "---\ndraft: true\n---\n", {"issue": "", "options": Options(draft=True)}),
    ("yaml", ".yaml", "issue: it fails\n", {}),
    ("yaml with an end", ".yml", "---\nissue: it fails\n...\n", {}),
    ("yaml block", ".yaml", "issue: it fails\nlogs: |\n  a\n    b\n", {"logs": "a\n  b"}),
    ("yaml scalars are texts", ".yaml", "issue: 500\nfiles: [NO, 1.0, 2025-11-28, on]\n", {"issue": "500", "files": ("NO", "1.0", "2025-11-28", "on")}),
    ("yaml phrase", ".yaml", "issue: 'DELEGATE TO GPT-4O: it fails'", {}),
    ("yaml nothing", ".yaml", "issue: it fails\ncontext:\nfiles: ~\nquestions: [null]\n", {}),
    ("yaml single texts", ".yaml", "issue: it fails\nattempted_fixes: a\nfiles: 'a.py, b.py'\nmodel: m\nlabels: a b, c",
     {"attempted_fixes": ("a",), "files": ("a.py", "b.py"), "options": Options(models=("m",), labels=("a b", "c"))}),
    ("yaml options", ".yaml", "issue: it fails\ncompare: yes\nmax_cost_usd: .5\nmax_input_tokens: 10_000\ndeadline_s: 1e2\nid: 007\nrepro: make\ntest: pytest",
     {"options": Options(compare=True, max_cost_usd=0.5, max_input_tokens=10_000, deadline_s=100.0, id="007", repro="make", test="pytest")}),
    ("yaml contents", ".yaml", "issue: it fails\ncontents:\n  a.py: |\n    x\n  'b.py': ''", {"contents": (Embedded("a.py", "x\n", "", 3), Embedded("b.py", "", "", 5))}),
    ("json", ".json", '{"issue": "it fails"}', {}),
    ("json of the original", ".json",
     '{"timestamp": "x", "issue_description": "it fails", "file_paths": ["a.py"],\n"error_logs": "l", "attempted_fixes": ["f"],'
     '\n"specific_questions": ["q"], "context": "c",\n"file_contents": {"a.py": "x", "gone.py": null}}',
     {"files": ("a.py",), "logs": "l", "attempted_fixes": ("f",), "questions": ("q",), "context": "c",
      "contents": (Embedded("a.py", "x\n", "", 4),)}),
    ("json numbers", ".json", '{"issue": "it fails", "max_cost_usd": 1, "priority": 3}', {"options": Options(max_cost_usd=1.0, priority=3)}),
    ("json escapes", ".json", '{"issue": "it fails", "context": "\\ud83d\\ude00\\r\\nb"}', {"context": "😀\nb"}),
    ("json number as text", ".json", '{"issue": 12345678901234567890.10}', {"issue": "12345678901234567890.10"}),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "text", "changed"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_accepted(suffix: str, text: str, changed: dict[str, Any], ending: str) -> None:
    """All of these are requests, whatever ends their lines, and read back the same from what is written of them."""
    request = parse(text.replace("\n", ending).encode(), suffix)
    expected = Request(**({"issue": ISSUE} | changed))
    assert Request(**{name: getattr(request, name) for name in Request.__slots__ if name != "warnings"}) == expected
    again = md(render(request))
    assert [(file.path, file.text) for file in again.contents] == [(file.path, file.text) for file in request.contents]
    assert again.issue == request.issue
    assert again.options == request.options


# What is written, and each problem told: its line, a part of what was found, a part of what would be right.
REFUSED: list[tuple[str, str, str, list[tuple[int | None, str, str]]]] = [
    ("empty", ".md", "", [(1, "no text", "## Issue")]),
    ("spaces", ".md", " \n\t\n", [(1, "no text", "## Issue")]),
    ("end mark alone", ".md", "<!-- END -->", [(1, "no text", "## Issue")]),
    ("front matter alone", ".md", "---\nid: a\n---\n", [(3, "nothing below", "## Issue")]),
    ("no issue", ".md", "## Context\nc\n## Logs\nl", [(1, "the headings are 'Context', 'Logs'", "DELEGATE TO")]),
    ("empty issue", ".md", "# R\n\n## Issue\n\n<!-- here -->\n## Context\nc", [(3, "no text under the heading 'Issue'", "what is wrong")]),
    ("empty phrase", ".md", "DELEGATE TO GPT-4O:", [(1, "no text", "## Issue")]),
    ("front matter with an unknown key", ".md", "---\nid: a\nmodles: b\n---\nx", [(3, "unknown key 'modles'", "`models`?")]),
    ("front matter and several problems", ".md", "---\ndraft: maybe\npriority: x\n---\n## Context\n",
     [(2, "`draft` is `maybe`", "true or false"), (3, "`priority` is `x`", "whole number"), (5, "no issue", "## Issue")]),
    ("yaml empty", ".yaml", "# nothing\n", [(1, "no values", "`issue:`")]),
    ("yaml list", ".yaml", "- a\n", [(1, "a list instead of keys", "issue:")]),
    ("yaml text", ".yaml", "just text\n", [(1, "`just text` instead of keys", "issue:")]),
    ("yaml empty issue", ".yaml", "context: a\nissue:\n", [(2, "`issue` is empty", "what is wrong")]),
    ("yaml twice", ".yaml", "issue: a\nfiles: b\nissue: c\n", [(3, "the key 'issue' a second time (first in line 1)", "one of them")]),
    ("yaml alias key twice", ".yaml", "issue: a\n\nissue_description: c\n", [(3, "says the same as `issue` in line 1", "one of them")]),
    ("yaml unknown", ".yaml", "issue: a\nattempted-fixes: b\nzzz: c\n", [(2, "'attempted-fixes'", "`attempted_fixes`?"), (3, "'zzz'", "the keys are issue")]),
    ("yaml list as text", ".yaml", "issue: [a]\ncontext: {a: b}\n", [(1, "`issue` is a list", "one text"), (2, "`context` is a mapping", "quotes")]),
    ("yaml colon in an item", ".yaml", "issue: a\nquestions:\n- b\n- Why: this\n", [(4, "`questions` is a mapping", "quotes")]),
    ("yaml quoted flag", ".yaml", "issue: a\ncompare: 'true'\n", [(2, "`compare` is 'true'", "without quotes")]),
    ("yaml number as flag", ".yaml", "issue: a\ndraft: 1\n", [(2, "`draft` is `1`", "true or false")]),
    ("yaml bad numbers", ".yaml", "issue: a\nmax_cost_usd: 0\nmax_input_tokens: 0.5\ndeadline_s: .inf\npriority: 5000\n",
     [(2, "`max_cost_usd` is `0`", "above 0"), (3, "`0.5`", "a whole number at least 1"), (4, "`.inf`", "a finite number at least 1"), (5, "`5000`", "at most 1,000")]),
    ("yaml quoted number", ".yaml", "issue: a\npriority: '5'\n", [(2, "`priority` is '5'", "without quotes")]),
    ("yaml flag as number", ".yaml", "issue: a\nmax_cost_usd: yes\n", [(2, "`yes`", "a finite number")]),
    ("yaml bad id", ".yaml", "issue: a\nid: ../b\n", [(2, "`id` is `../b`", "starts with a letter or digit")]),
    ("yaml long id", ".yaml", f"issue: a\nid: {'b' * 101}\n", [(2, "`id` is a word of 101 characters", "1 to 100")]),
    ("yaml path with a line end", ".yaml", 'issue: a\nfiles: ["a\\nb"]\n', [(2, r"'a\nb'", "one line")]),
    ("yaml model with a space", ".yaml", "issue: a\nmodels: [gpt 4o]\n", [(2, "`gpt 4o`", "no spaces")]),
    ("yaml NUL", ".yaml", 'issue: "a\\0"\n', [(1, r"'a\x00'", r"remove the character '\x00'"), (1, "no issue", "issue:")]),
    ("yaml contents as a list", ".yaml", "issue: a\ncontents: [b]\n", [(2, "`contents` is a list", "each path")]),
    ("yaml anchor", ".yaml", "issue: &a b\ncontext: *a\n", [(1, "the anchor `&a`", "remove"), (2, "the alias `*a`", "the value itself")]),
    ("yaml tag", ".yaml", "issue: !!python/object:os.system x\n", [(1, "the tag 'tag:yaml.org,2002:python/object:os.system'", "remove")]),
    ("yaml merge", ".yaml", "issue: a\n<<: {context: b}\n", [(2, "the merge key `<<`", "themselves")]),
    ("yaml key of lists", ".yaml", "issue: a\n? [b]\n: c\n", [(2, "a list as a key", "single word")]),
    ("yaml second document", ".yaml", "issue: a\n---\nissue: b\n", [(2, "a second YAML document", "one document")]),
    ("yaml too deep", ".yaml", "issue: a\nfiles: " + "[" * 30 + "]" * 30, [(2, "nesting deeper than 24", "flat")]),
    ("yaml too many", ".yaml", "issue: a\nfiles:\n" + "- a\n" * 20_000, [(19_996, "more than 20,000 YAML events", "shorter")]),
    ("yaml too large", ".yaml", "issue: a\nlogs: |\n" + "  aaaaaaaaaaaaa\n" * 17_000, [(1, "bytes of YAML", "at most 262,144")]),
    ("yaml control character", ".yaml", "issue: a\nlogs: \x1b[0m\n", [(2, r"the character '\x1b'", "escape")]),
    ("too many files", ".yaml", "issue: a\nfiles:\n" + "".join(f"- f{n}\n" for n in range(201)), [(203, "201 entries under `files`", "at most 200")]),
    ("too many fixes", ".md", "# Issue\na\n# Attempted Fixes\n" + "- a\n" * 101, [(104, "101 entries under `attempted_fixes`", "at most 100")]),
    ("too many questions", ".json", json.dumps({"issue": "a", "questions": ["q"] * 51}), [(1, "51 entries under `questions`", "at most 50")]),
    ("json empty", ".json", " \n", [(1, "no values", "`issue:`")]),
    ("json twice", ".json", '{"issue": "a",\n"issue": "b"}', [(2, "'issue' a second time", "one of them")]),
    ("json too deep", ".json", '{"files": ' + "[" * 100_000, [(1, "nesting deeper than 24", "flat")]),
    ("json NaN", ".json", '{"issue": "a",\n"max_cost_usd": NaN}', [(2, "`NaN`", "a finite number above 0")]),
    ("json huge number", ".json", '{"issue": "a", "max_input_tokens": ' + "9" * 10_000 + "}", [(1, "`max_input_tokens` is a word of 10,000 characters", "at most 1,000,000,000,000")]),
    ("json lone surrogate", ".json", '{"issue": "a", "context": "\\ud800"}', [(1, r"'\ud800'", "not text")]),
    ("hostile lists", ".md", "it fails\n\n" + "- " * 60 + "x", [(3, "nested too deeply", "fenced")]),
    ("hostile lines", ".md", "it fails\n\n" + "a\n" * 200_001, [(199_996, "more than 200,000", "fenced")]),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "text", "problems"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(suffix: str, text: str, problems: list[tuple[int | None, str, str]]) -> None:
    """None of these is a request; every problem is told with its line, what was found and what would be right."""
    error = refused(text, suffix)
    told = [(problem.line, problem.found, problem.expected) for problem in error.problems]
    assert len(told) == len(problems), told
    for (line, found, expected), (at, part, right) in zip(told, problems, strict=True):
        assert line == at, told
        assert part in found
        assert right in expected
    assert not error.unfinished


UNFINISHED: list[tuple[str, str, bytes, int | None, str]] = [
    ("front matter", ".md", b"---\nid: a\nmodels: [b", 1, "front matter that is never closed"),
    ("front matter's start", ".md", b"---\nid: a\n", 1, "front matter that is never closed"),
    ("front matter's syntax", ".md", b"---\nid: a\nmodels: [b\n---\nx", 3, "this is not YAML"),
    ("yaml", ".yaml", b"issue: a\nfiles: [b", 2, "this is not YAML"),
    ("yaml quotes", ".yaml", b"issue: 'a\n", 2, "this is not YAML"),
    ("yaml tab", ".yaml", b"issue: a\nfiles:\n\t- b\n", 3, "this is not YAML"),
    ("yaml colon", ".yaml", b"issue: it fails: badly\n", 1, "this is not YAML: mapping values are not allowed"),
    ("json", ".json", b'{"issue": "a",\n "files": [', 2, "the end of the file where a value should be"),
    ("json string", ".json", b'{"issue":\n "a', 2, "Unterminated string"),
    ("json comma", ".json", b'{"issue": "a",\n}', 2, "'}' where a key in double quotes should be"),
    ("json single quotes", ".json", b"{'issue': 'a'}", 1, "where a key in double quotes should be"),
    ("json comment", ".json", b'{"issue": "a"} // b', 1, "where the end of the file should be"),
    ("json constant", ".json", b'{"issue": None}', 1, "where a value should be"),
    ("utf-8 character", ".md", "it fails ü".encode()[:-1], 1, "byte 0xc3 at offset 9 is not UTF-8"),
    ("utf-16 character", ".md", "it fails".encode("utf-16")[:-1], 1, "is not UTF-16"),
]


@pytest.mark.parametrize(("suffix", "data", "line", "found"), [row[1:] for row in UNFINISHED], ids=[row[0] for row in UNFINISHED])  # fmt: skip
def test_unfinished(suffix: str, data: bytes, line: int | None, found: str) -> None:
    """Broken syntax is told as unfinished, because the file may still be being written."""
    error = refused(data, suffix)
    assert error.unfinished
    assert error.problems[0].line == line
    assert found in error.problems[0].found


@pytest.mark.parametrize(
    ("data", "line", "found", "expected"),
    [
        (
            b"it fails\nit\x92s bad\n",
            2,
            "byte 0x92 at offset 11 is not UTF-8 (in Windows-1252 it would be '’')",
            "UTF-8",
        ),
        ("café\r\ntrès".encode("latin-1"), 1, "byte 0xe9 at offset 3", "save the file as UTF-8"),
        (b"\xef\xbb\xbfa\rb\xff", 2, "byte 0xff at offset 6", "UTF-8"),
        (b"a\nb\0c", 2, "a NUL byte at offset 3", "UTF-8"),
        ("ab\0".encode("utf-16"), 1, "a NUL byte at offset 6", "UTF-8"),
        ("it fails".encode("utf-16-le"), 1, "a NUL byte at offset 1", "UTF-8"),
    ],
    ids=["0x92", "latin-1", "bad byte behind a mark", "NUL", "NUL in UTF-16", "UTF-16 without a mark"],
)
def test_other_encodings_are_refused_with_their_place(data: bytes, line: int, found: str, expected: str) -> None:
    """What is not UTF-8 is told by its byte's offset and line, and so is a NUL."""
    error = refused(data)
    assert error.problems[0].line == line
    assert found in error.problems[0].found
    assert expected in error.problems[0].expected
    assert not error.unfinished


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("suffix", "text"), [(".md", "## Issue\nÜ 😀"), (".yaml", "issue: Ü 😀"), (".json", '{"issue": "Ü 😀"}')]
)
def test_utf_8_and_utf_16_with_a_mark_are_read(encoding: str, suffix: str, text: str) -> None:
    """A byte order mark says what the file is, and is no part of it."""
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    assert parse(mark + text.encode(encoding), suffix).issue == "Ü 😀"


def test_unusual_line_ends_and_long_lines_are_text() -> None:
    """Only CR, LF and CRLF end a line; a line of a megabyte is a line."""
    issue = "a\u2028# Logs\x0b# Logs\x85# Logs"
    assert md(f"## Issue\n{issue}").issue == issue
    long = "x" * 2**20
    assert md(f"## Issue\nit fails\n## Logs\n{long}").logs == long


def test_lines_of_yaml_are_lines_of_the_file() -> None:
    """A problem's line is counted as an editor counts, also behind characters that YAML takes for line ends."""
    assert refused("issue: 'a\u2028b 😀 ü'\nfoo: 1\n", ".yaml").problems[0].line == 2
    assert refused("---\nissue: 'a\u2028b 😀 ü'\nfoo: 1\n---\n").problems[0].line == 3


def test_a_draft_is_never_refused_for_what_it_lacks() -> None:
    """A draft may lack everything and hold anything that can be read; what is wrong in it is a warning."""
    request = parse(b"draft: true\nfoo: 1\npriority: high\nmodels: gpt-4o\n", ".yaml")
    assert request == Request("", options=Options(draft=True, models=("gpt-4o",)), warnings=request.warnings)
    assert [warning.partition(";")[0] for warning in request.warnings] == [
        "draft: line 2: unknown key 'foo'",
        "draft: line 3: `priority` is `high`",
        "draft: line 1: no issue",
    ]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("## Issue\na\n## Steps\none", "line 3: unknown heading 'Steps'; it went to the context"),
        ("## Issue\na\n## Logs\n```\nx\n## Context\nc", "line 4: this fence is never closed; the headings below it were read as code"),
        ("## Issue\na\n<!-- b\n## Context\nc", "line 3: this comment is never closed; all below it was read as part of it"),
        ("## Issue\na\n## Files\n`a.py` is the main file", "line 4: the words beside the paths were not taken; say them under Context"),
        ("## Issue\na\n## File Contents\n", "line 3: no file under File Contents: each is a heading `### path` and a fenced block"),
        ("## Issue\na\n## File Contents\n### a.py\n```\nx", "line 5: this fence is never closed; all below it was taken as the file's text"),
        ("## Issue\na\n## File Contents\n### a.py\n```\nx\n```\n### a.py\n```\ny\n```", "line 8: the contents of 'a.py' a second time; those in line 4 were taken"),
    ],
    ids=["heading", "fence", "comment", "words", "no file", "open file", "twice"],
)  # fmt: skip
def test_warned(text: str, warning: str) -> None:
    """What was read in a way that its writer may not have meant is told."""
    assert md(text).warnings == (warning,)


def test_text_below_an_unknown_heading_is_kept() -> None:
    """Nothing that was written is lost: an unknown section goes to the context with its heading."""
    assert md("## Issue\na\n## Steps\none\n### Two\n## Context\nc").context == "## Steps\none\n### Two\n\nc"


def test_a_rendered_request_reads_well() -> None:
    """What is written is what a person would write; a fence stands only where a line would be read as structure."""
    request = Request(
        issue="It fails.\n\n- here\n- there\n\n```python\n# Issue\nraise\n```\n\n### Steps",
        context="# Logs",
        logs="Traceback\n```",
        attempted_fixes=("Restarted", "Cleared\nthe cache", "```sh\nmake\n```"),
        files=("src/*.py", "a`b.py"),
        contents=(Embedded("README.md", "```\nx\n```\n", "markdown"), Embedded("src/a.py", "x\n", "python")),
        questions=("Why?",),
        options=Options(
            id="20251128_133758", models=("gpt-4o", "o3"), max_cost_usd=0.5, repro="make 'a': b", draft=True
        ),
    )
    assert render(request, end_mark=True) == (
        '---\nid: "20251128_133758"\ndraft: true\nmodels: [gpt-4o, o3]\nmax_cost_usd: 0.5\nrepro: "make \'a\': b"\n---\n\n'
        "## Issue\n\nIt fails.\n\n- here\n- there\n\n```python\n# Issue\nraise\n```\n\n### Steps\n\n"
        "## Context\n\n```\n# Logs\n```\n\n"
        "## Error Logs\n\n````\nTraceback\n```\n````\n\n"
        "## Attempted Fixes\n\n1. Restarted\n2. Cleared\n   the cache\n3. ````\n   ```sh\n   make\n   ```\n   ````\n\n"
        "## Files\n\n- `src/*.py`\n- ``a`b.py``\n\n"
        "## Questions\n\n1. Why?\n\n"
        "## File Contents\n\n### `README.md`\n\n````markdown\n```\nx\n```\n````\n\n### `src/a.py`\n\n```python\nx\n```\n\n"
        "<!-- END -->\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "[", ">", "- ", "1. ", "`", "*", "#", "# ", "<", "|", "\\", "&amp;", "a *", "![", "](", "<!--", "\t", "> a\nb\n", "- a\n", "- a\nb\n", "a\n=\n",
        "```\n", "```x\n", "# a\n", "## Issue\n", "## File Contents\n", "**a.py**\n",
        "# File Contents\n## a.py\n```\n```sh\n```\nstray\n", "[a]: b\n", "<pre>\n", "DELEGATE TO GPT-4O:", "DELEGATE TO GPT-4O:\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "before", ["", "## File Contents\n### a.py\n```\n", "## Files\n- "], ids=["bare", "contents", "files"]
)
def test_hostile_pages_end(text: str, before: str) -> None:
    """A great deal of anything is read or refused; the suite's time limit would end a reader that is not linear."""
    # A reader whose time grows with the square of the text does not end within the time limit.
    data = (before + text * (2**17 // len(text))).encode()
    told: tuple[object, ...]
    try:
        told = parse(data, ".md").warnings
    except RequestError as error:
        told = error.problems
    assert len(told) <= 101


def test_yaml_bombs_are_refused_before_they_are_built() -> None:
    """Ten entries that each name the one before ten times stay ten entries."""
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    error = refused(bomb, ".yaml")
    assert error.problems[0].found == "the anchor `&a0`"
    assert len(error.problems) <= 50


def test_the_schema_has_the_keys_of_the_parser() -> None:
    """The published schema and the parser know the same keys, in a file and in front matter."""
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert list(SCHEMA["properties"]) == list(KEYS)
    assert list(SCHEMA["definitions"]["front_matter"]["properties"]) == list(KEYS)


@pytest.mark.parametrize("row", [row for row in ACCEPTED if row[1] != ".md"], ids=lambda row: row[0])
def test_the_schema_accepts_what_the_parser_accepts(row: tuple[str, str, str, dict[str, Any]]) -> None:
    """A request that the parser takes passes the schema, so that an editor does not mark it."""
    values = yaml.safe_load(row[2]) if row[1] != ".json" else json.loads(row[2])
    if row[0] == "yaml scalars are texts":
        values["files"] = list(map(str, values["files"]))  # What YAML makes a date is a text to an editor's schema.
    if row[0] == "yaml options":
        values["deadline_s"] = 100.0  # YAML 1.1 reads 1e2 as a text; 1.2 and the parser, as a number.
    jsonschema.validate(values, SCHEMA, jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"context": "a"},
        {"issue": ["a"]},
        {"issue": "a", "foo": 1},
        {"issue": "a", "draft": "true"},
        {"issue": "a", "compare": 1},
        {"issue": "a", "max_cost_usd": 0},
        {"issue": "a", "max_cost_usd": "1"},
        {"issue": "a", "max_input_tokens": 0},
        {"issue": "a", "max_input_tokens": 1.5},
        {"issue": "a", "deadline_s": 0.5},
        {"issue": "a", "priority": 1001},
        {"issue": "a", "id": "../b"},
        {"issue": "a", "files": [["b"]]},
        {"issue": "a", "files": [f"{n}" for n in range(201)]},
        {"issue": "a", "questions": ["q"] * 51},
        {"issue": "a", "contents": ["b"]},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_parser_refuses(values: dict[str, Any]) -> None:
    """What an editor lets pass is not refused later: both say no."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA, jsonschema.Draft7Validator)
    assert refused(json.dumps(values), ".json").problems


def test_writing_a_request_needs_the_standard_library_alone() -> None:
    """A client that writes a request and exits loads no parser."""
    program = (
        "import sys; from delegated.request import Request, render; render(Request('a', logs='b', files=('c',)));"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'yaml', 'markdown_it', 'pydantic', 'logging'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "\n"


def test_every_example_of_the_page_on_requests_is_one() -> None:
    """The examples that the documentation gives are read without a problem or a warning."""
    page = (ROOT / "docs" / "requests.md").read_text()
    examples = re.findall(r"^(`{3,})(markdown|yaml|json)\n(.*?)^\1$", page, re.MULTILINE | re.DOTALL)
    assert {language for _, language, _ in examples} == {"markdown", "yaml", "json"}
    for _, language, text in examples:
        assert parse(text.encode(), ".md" if language == "markdown" else f".{language}").warnings == ()


def test_the_page_on_requests_names_every_key_and_section() -> None:
    """Nothing that the parser understands is left out of the documentation."""
    page = (ROOT / "docs" / "requests.md").read_text()
    assert [key for key in KEYS if f"`{key}`" not in page] == []
    assert [name for name in SECTIONS if not re.search(rf"\b{name}\b", page, re.IGNORECASE)] == []
