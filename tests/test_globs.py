"""Globs and ignore lines mean what git says they mean, and no pattern takes long."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from delegated.globs import glob, ignored, is_glob, rules
from delegated.workspace import Workspace

NAMES = ("a", "b", "ab", "x.py", "b b", "#y", "!z", "a.b", "[a]")  # git takes `?` for one byte, so no é
NAKED = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": os.devnull}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, need: Callable[[str], str]) -> Path:
    """Make a repository with every name at three depths."""
    need("git")
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True, env=NAKED, timeout=60)
    for folder in (".", "d", "d/e", "f", "ab.d", "a.d/d"):
        (root / folder).mkdir(exist_ok=True, parents=True)
        for name in NAMES:
            (root / folder / name).write_text("x")
    return root


def as_git_lists(root: Path) -> set[str]:
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=root,
        check=True,
        env=NAKED,
        capture_output=True,
        timeout=60,
    )
    return {name for name in done.stdout.decode().split("\0") if name}


PIECES = st.one_of(
    st.sampled_from(["a", "b", "d", "e", "f", "ab", "x.py", "*.py", "a.d", ".", " ", "#", "!"]),
    st.sampled_from(["*", "**", "?", "[ab]", "[!a]", "[^b]", "/", "**/", "/**", "\\*", "\\a", "\\#", "\\!", "\\ "]),
)
LINES = st.builds(
    lambda negated, pieces: ("!" if negated else "") + "".join(pieces),
    st.booleans(),
    st.lists(PIECES, min_size=1, max_size=5),
)
# "Other consecutive asterisks are considered regular asterisks", says gitignore(5). git itself departs from that where
# letters stand before the first `**`: it cuts them off and takes what is left for a leading `**/`. We keep to the page.
FILES = st.lists(LINES.filter(lambda line: not re.search(r"[^/!*]\*\*", line)), max_size=5)


@pytest.mark.slow
@example(["*", "!*/", "!*.py"], ["*.py"])
@example(["d/", "!d/e"], [])
@example(["/a", "**/b", "f/**", "d/**/x.py"], ["!a"])
@example(["a ", "b\\ b", "\\#y", "\\!z", "# comment", "\\[a]"], ["[!a]"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILES, FILES)
def test_what_git_ignores_is_ignored_and_nothing_else(repository: Path, outer: list[str], inner: list[str]) -> None:
    (repository / ".gitignore").write_text("\n".join(outer) + "\n")
    (repository / "d" / ".gitignore").write_text("\n".join(inner))
    with Workspace(str(repository)) as workspace:
        assert set(workspace.files()) == as_git_lists(repository)


def test_the_repositorys_own_excludes_count_too(repository: Path) -> None:
    (repository / "d" / ".gitignore").unlink(missing_ok=True)
    (repository / ".gitignore").write_text("!d/b\n")
    (repository / ".git" / "info" / "exclude").write_text("b\n")
    try:
        with Workspace(str(repository)) as workspace:
            files = set(workspace.files())
        assert files == as_git_lists(repository)
        assert "b" not in files
        assert "d/b" in files
    finally:
        (repository / ".git" / "info" / "exclude").write_text("")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("src/*.py", "src/a.py", True),
        ("src/*.py", "src/b/a.py", False),
        ("src/**/*.py", "src/a.py", True),
        ("src/**/*.py", "src/b/c/a.py", True),
        ("**/*.py", "a.py", True),
        ("**", "a/b", True),
        ("src/**", "src/a/b", True),
        ("src/**", "src", False),
        ("src/**", "srcs/a", False),
        ("a/**/b/**/c", "a/b/c", True),
        ("a/**/b/**/c", "a/x/b/y/z/c", True),
        ("a/**/b/**/c", "a/x/c", False),
        ("*.py", ".py", True),
        ("a[0-9].py", "a5.py", True),
        ("a[!0-9].py", "a5.py", False),
        ("?.py", "é.py", True),
        ("A.py", "a.py", False),
        ("[", "[", True),
    ],
)
def test_a_glob_means_whole_paths(pattern: str, path: str, matches: bool) -> None:
    assert glob(pattern).match(path.split("/")) is matches


def test_only_wildcards_make_a_glob() -> None:
    assert [is_glob(text) for text in ("a/b.py", "a*", "a?", "[a]", "")] == [False, True, True, True, False]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "pattern", ["*a" * 100 + "*b", "**/" * 200 + "b", "*/**/" * 100 + "b", "[a" * 300, "?*" * 300, "**a" * 200 + "b"]
)
def test_no_pattern_takes_long(pattern: str) -> None:
    """A matcher that backtracks would not end within the time limit of this test."""
    path = ("a" * 250 + "/") * 60 + "a" * 250
    assert not glob(pattern).match(path.split("/"))
    levels = [(0, rules("\n".join([pattern] * 50)))]
    assert not ignored(levels, path.split("/"), directory=False)


@given(st.text(max_size=80), st.text(max_size=40))
def test_any_text_can_be_read_as_patterns(text: str, path: str) -> None:
    glob(text).match(path.split("/"))
    ignored([(0, rules(text))], path.split("/"), directory=True)
