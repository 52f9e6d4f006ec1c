"""The fault matrix is whole: every row of docs/promise.md has a test of its number here, and the other way round."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "promise.md"
ROWS = range(1, 85)


def numbers(name: str) -> set[int]:
    """Return the row numbers that a test's name or a parameter's id begins with: row_12_…, rows_37_38_…, row-12-…"""
    match = re.search(r"\brows?[-_]((?:\d+[-_])*\d+)\b", name.replace("test_", "", 1).replace("_", "-"))
    return {int(each) for each in match[1].split("-")} if match else set()


def rows_with_a_test() -> set[int]:
    found: set[int] = set()
    for path in HERE.glob("test_*.py"):
        if path == Path(__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found |= numbers(node.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("row"):
                found |= numbers(node.value)
    return found


def test_every_row_has_a_test() -> None:
    """A number without a test is a promise that nobody checks."""
    assert sorted(set(ROWS) - rows_with_a_test()) == []


def test_the_page_tells_of_every_row() -> None:
    """The page lists each row once, in its order."""
    listed = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.M)]
    assert listed == list(ROWS)


def test_names_are_read_as_they_are_written() -> None:
    """The reader of names finds what the tests use, and nothing in other names."""
    assert numbers("test_row_12_out_of_inodes") == {12}
    assert numbers("test_rows_37_38_surgery") == {37, 38}
    assert numbers("row-4-random") == {4}
    assert numbers("test_rows_of_a_table") == set()
