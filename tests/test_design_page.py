"""docs/design.md shows the house as it stands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import delegated
from delegated import errors

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "design.md").read_text("utf-8")


def column(heading: str) -> list[str]:
    section = PAGE.partition(f"\n## {heading}")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_the_rooms_of_the_page_are_the_layers() -> None:
    """Each room has its line, in the order in which imports go, and each is there."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert column("Rooms") == [room.strip() for layer in layers for room in layer.split(":")]
    home = Path(delegated.__file__).parent
    assert all((home / f"{room}.py").is_file() or (home / room / "__init__.py").is_file() for room in column("Rooms"))


def test_the_errors_of_the_page_are_the_programs() -> None:
    """Each class of error that leaves its room has its row."""
    public = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.DelegatedError) and not name.startswith("_")
    }
    assert set(column("Errors")) == public - {"DelegatedError", "InDoubt"}


def test_the_changelog_knows_this_version() -> None:
    """The version that is built has its entry."""
    assert f"\n## [{delegated.__version__}] - 20" in (ROOT / "CHANGELOG.md").read_text("utf-8")
