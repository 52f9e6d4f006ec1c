"""Files of git that were written to cost: rings, numbers without an end, paths that unfold, what is read forever.

Names of objects are not checked against their content, so a stranger can tie an object to itself. Time is a clock that
goes on with each look at it: what ends here ends after so many steps, on any machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import threading
import zlib
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from delegated import blobs, git_index, history
from delegated.changes import History
from delegated.registry import Repositories
from delegated.workspace import Workspace
from repositories import git, repository

TREE, COMMIT, BLOB = "a" * 40, "b" * 40, "c" * 40
LATE = "in the time that there is for it"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a repository of one commit by hand; its objects are each test's own."""
    git_directory = tmp_path / ".git"
    (git_directory / "refs/heads").mkdir(parents=True)
    (git_directory / "HEAD").write_text("ref: refs/heads/main\n")
    (git_directory / "refs/heads/main").write_text(f"{COMMIT}\n")
    (git_directory / "index").write_bytes(index())
    (tmp_path / "a.py").write_text("x = 1\n" * 5)
    loose(tmp_path, COMMIT, "commit", commit())
    return tmp_path


def loose(root: Path, name: str, kind: str, body: bytes) -> None:
    place = root / ".git/objects" / name[:2] / name[2:]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(zlib.compress(f"{kind} {len(body)}\0".encode() + body))


def commit(*parents: str) -> bytes:
    lines = [f"tree {TREE}", *(f"parent {each}" for each in parents), "author a <a> 1 +0000", "committer a <a> 1 +0000"]
    return "\n".join([*lines, "", "words", ""]).encode()


def entry(mode: str, name: str, of: str) -> bytes:
    return f"{mode} {name}\0".encode() + bytes.fromhex(of)


def index(entries: bytes = b"", number: int = 0, trees: bytes = b"", version: int = 2) -> bytes:
    extension = b"TREE" + struct.pack(">I", len(trees)) + trees if trees else b""
    body = b"DIRC" + struct.pack(">II", version, number) + entries + extension
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def pack(root: Path, objects: dict[str, bytes]) -> None:
    """Write a pack of objects, each as it stands in there, header included."""
    place = root / ".git/objects/pack"
    place.mkdir(parents=True)
    data, offsets = b"PACK" + struct.pack(">II", 2, len(objects)), {}
    for name, raw in objects.items():
        offsets[bytes.fromhex(name)] = len(data)
        data += raw
    names = sorted(offsets)
    fan = b"".join(struct.pack(">I", sum(name[0] <= first for name in names)) for first in range(256))
    rows = b"".join(names) + bytes(4 * len(names)) + b"".join(struct.pack(">I", offsets[name]) for name in names)
    (place / f"pack-{'d' * 40}.pack").write_bytes(data + bytes(20))
    (place / f"pack-{'d' * 40}.idx").write_bytes(b"\xfftOc\0\0\0\2" + fan + rows + bytes(40))


def header(kind: int, size: int) -> bytes:
    first, size = (kind << 4) | (size & 15), size >> 4
    made = []
    while size:
        made.append(first | 0x80)
        first, size = size & 127, size >> 7
    return bytes([*made, first])


def read(root: Path, *framed: tuple[str, int]) -> History:
    """Read what changed, with a clock by which 2 seconds are 20,000 looks."""
    moments = count(0, 0.0001)
    with Workspace(str(root)) as space:
        return history.read(space, framed, (), clock=lambda: next(moments))


def reasons(found: History) -> str:
    return "; ".join(each.reason for each in found.omitted)


@pytest.mark.parametrize("several", [1, 40])
def test_a_tree_that_holds_itself_ends(root: Path, several: int) -> None:
    """Depth, time and the paths that are held are bounded: one line goes down so far, many take too much on the way."""
    loose(root, TREE, "tree", b"".join(entry("40000", f"d{number}", TREE) for number in range(several)))
    found = read(root)
    assert found.changed == ()
    assert several == 1 or "too many files" in reasons(found) or LATE in reasons(found)


def test_a_commit_that_is_its_own_parent_ends(root: Path) -> None:
    """It is known by the second step, and what is known costs time as well."""
    loose(root, COMMIT, "commit", commit(COMMIT))
    loose(root, TREE, "tree", entry("100644", "a.py", BLOB))
    loose(root, BLOB, "blob", b"x = 1\n" * 5)
    assert LATE in reasons(read(root, ("a.py", 2)))


def test_a_commit_has_no_crowd_of_parents(root: Path) -> None:
    """More than any merge has is refused before the first of them is read."""
    loose(root, COMMIT, "commit", commit(*[COMMIT] * 1000))
    assert "has 1,000 parents" in reasons(read(root))


@pytest.mark.parametrize("raw", [
    pytest.param(header(6, 4_000_000) + b"\x20" + zlib.compress(b"\xff" * 4_000_000), id="the size of a delta's base"),
    pytest.param(b"\xff" * 4090, id="the size of an object"),
    pytest.param(header(6, 2) + b"\xff" * 4090, id="the distance of a base"),
    pytest.param(header(2, 40) + b"\x78\x01" + b"\0\0\0\xff\xff" * 60_000, id="empty blocks"),
])  # fmt: skip
def test_a_number_without_an_end_is_none(root: Path, raw: bytes) -> None:
    """To read one of a million bits takes longer than anybody waits; so does what unfolds to nothing without end."""
    base = entry("100644", "a.py", BLOB)
    first = (header(2, len(base)) + zlib.compress(base)).ljust(0x20, b"\0")
    pack(root, {"01" * 20: first, TREE: raw})
    assert re.search(rf"object {TREE[:12]} is damaged: (a number|its size is|a delta of|it takes)", reasons(read(root)))


def test_the_paths_of_an_index_do_not_unfold() -> None:
    """Version 4 writes of each path what is new in it: 20,000 entries of a few bytes would be 20 GB."""
    head = bytes(24) + struct.pack(">I", 0o100644) + bytes(12) + bytes(20) + b"\x0f\xff"
    more = b"".join(head + b"\1" + bytes([97 + number % 26]) + b"\0" for number in range(20_000))
    data = index(head + b"\0" + b"p" * 1_000_000 + b"\0" + more, 20_001, version=4)
    for used in (lambda: git_index.tracked(data, 20), lambda: git_index.read(data, [b"p"])):
        with pytest.raises(ValueError, match="too long"):
            used()
    head = head.replace(b"\x0f\xff", b"\x0f\xa0")
    more = b"".join(head + b"\1" + bytes([97 + number % 26]) + b"\0" for number in range(20_000))
    with pytest.raises(ValueError, match="too long"):
        git_index.tracked(index(head + b"\0" + b"p" * 4000 + b"\0" + more, 20_001, version=4), 20)


@pytest.mark.parametrize("name", [b"a", b""])
def test_the_directories_of_an_index_do_not_either(name: bytes) -> None:
    """One below the other without an end, with names and without."""
    with pytest.raises(ValueError, match="too deep"):
        git_index.tracked(index(trees=b"\0-1 1\n" + (name + b"\0-1 1\n") * 200_000), 20)


def test_what_lies_below_more_directories_than_are_walked_is_not_listed(tmp_path: Path) -> None:
    """A path that only git knows is looked up part by part, each time from the top."""
    with Workspace(str(tmp_path)) as space, space.opened() as tree:
        assert tree.lists("d/" * 60 + "a.py")
        assert not tree.lists("d/" * 70 + "a.py")


def test_a_pipe_among_git_s_files_holds_nobody_up(tmp_path: Path, need: Callable[[str], str]) -> None:
    """Opened as a file is, it would be waited on for as long as the daemon runs."""
    need("git")
    root = repository(tmp_path / "code")
    (root / "a.py").write_text("x = 1\n")
    git(root, "add", "a.py")
    os.mkfifo(root / ".git/commondir")
    said: list[str] = []

    def ask() -> None:
        try:
            blobs.staged(str(root / "a.py"))
        except blobs.Unknown as error:
            said.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(20)
    assert "not a regular file" in "".join(said)


def test_a_repository_elsewhere_by_a_name_that_is_none(tmp_path: Path) -> None:
    """A NUL in what `.git` says: nothing is known of what is tracked, and the daemon goes on."""
    (tmp_path / ".git").write_bytes(b"gitdir: a\0b\n")
    repositories = Repositories(str(tmp_path))
    assert repositories.look().trouble
    assert repositories.changed() is False
    with pytest.raises(blobs.Unknown):
        blobs.staged(str(tmp_path / "a.py"))
