"""docs/programs.md: its examples run as they stand, against the offline model."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import delegated
from delegated.request import parse
from harness import PREFIX, House
from test_readme import blocks

PAGE = Path(__file__).parent.parent / "docs" / "programs.md"


def test_an_executor_gets_a_second_opinion_after_three_tries(house: House) -> None:
    """The page's own program: a phase that works is left alone, one that fails is asked about once."""
    for where, info, text in blocks(PAGE):
        name = re.match(r"# (\w+\.py)\n", text)
        if where == "An executor" and info == "python" and name:
            (house.workspace / name[1]).write_text(text)
    done = subprocess.run(
        [sys.executable, "executor.py"], cwd=house.workspace, env=house.env, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    schema, billing = done.stdout.splitlines()
    assert schema == "schema: done"
    assert re.fullmatch(r"billing: failed: likely \((low|medium)\): `len\(prices\)` is zero in `mean`.*", billing)
    (path,) = house.folder.glob(f"{PREFIX}REQUEST_*.md")
    request = parse(path.read_bytes(), ".md")
    assert request.issue == "the phase billing fails"
    assert request.files == ("billing.py", "executor.py")
    assert [fix.partition(":")[0] for fix in request.attempted_fixes] == [
        "as planned",
        "Cleared the cache",
        "Built it anew",
    ]


@pytest.mark.parametrize("text", [text for _, info, text in blocks(PAGE) if info == "python"])
def test_what_an_example_names_is_there(text: str) -> None:
    """Each is Python, and takes nothing of `delegated` that it does not have."""
    names = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "delegated"
    }
    assert names <= set(delegated.__all__)


def test_every_name_that_a_guard_has_is_on_the_page() -> None:
    """The page is whole: what a guard and a pending question offer is named."""
    page = PAGE.read_text("utf-8")
    for kind, word in ((delegated.Guard, "guard"), (delegated.Pending, "pending")):
        for name in vars(kind):
            assert name.startswith("_") or f"{word}.{name}" in page, f"{word}.{name}"
