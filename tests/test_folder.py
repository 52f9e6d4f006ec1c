from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from delegated import folder as names
from delegated.folder import Bytes, Folder, Held


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("OPENAI_DELEGATION_REQUEST_20251128_133758.md", ("20251128_133758", ".md")),
        ("OPENAI_DELEGATION_REQUEST_a.b-c.yaml", ("a.b-c", ".yaml")),
        ("OPENAI_DELEGATION_REQUEST_a.md.md", ("a.md", ".md")),
        ("OPENAI_DELEGATION_REQUEST_" + "x" * 100 + ".json", ("x" * 100, ".json")),
        *(
            (name, None)
            for name in (
                "OPENAI_DELEGATION_REQUEST_" + "x" * 101 + ".md",
                "OPENAI_DELEGATION_REQUEST_a.md~",
                ".OPENAI_DELEGATION_REQUEST_a.md.swp",
                ".#OPENAI_DELEGATION_REQUEST_a.md",
                "#OPENAI_DELEGATION_REQUEST_a.md#",
                "._OPENAI_DELEGATION_REQUEST_a.md",
                ".OPENAI_DELEGATION_REQUEST_a.md.aBc123",
                "OPENAI_DELEGATION_REQUEST_a.md.tmp",
                "OPENAI_DELEGATION_REQUEST_a.md.part",
                "OPENAI_DELEGATION_REQUEST_a.md.vsctmp",
                "OPENAI_DELEGATION_REQUEST_a.md\n",
                "OPENAI_DELEGATION_REQUEST_a\n.md",
                "OPENAI_DELEGATION_REQUEST_.md",
                "OPENAI_DELEGATION_REQUEST_-a.md",
                "OPENAI_DELEGATION_REQUEST_a (1).md",
                "OPENAI_DELEGATION_REQUEST_\N{SNOWMAN}.md",
                "OPENAI_DELEGATION_REQUEST_a\N{COMBINING ACUTE ACCENT}.md",
                "OPENAI_DELEGATION_REQUEST_../a.md",
                "openai_delegation_request_a.md",
                "4913",
                "sedXXXX",
            )
        ),
    ],
)
def test_the_whole_basename_decides(name: str, found: tuple[str, str] | None) -> None:
    """Only `OPENAI_DELEGATION_REQUEST_<id>.<suffix>` is a request; what editors and sync tools drop never is."""
    assert names.request_id(name) == found


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OPENAI_DELEGATION_REQUEST_a b.md", True),
        ("OPENAI_DELEGATION_REQUEST_a\nb.md", True),
        ("OPENAI_DELEGATION_REQUEST_\udce9.yaml", True),
        ("OPENAI_DELEGATION_REQUEST_" + "x" * 101 + ".json", True),
        ("OPENAI_DELEGATION_REQUEST_.md", True),
        ("OPENAI_DELEGATION_REQUEST_a.MD", True),
        ("OPENAI_DELEGATION_REQUEST_a.txt", True),
        ("OPENAI_DELEGATION_REQUEST_a.md", False),
        ("OPENAI_DELEGATION_REQUEST_a.md~", False),
        ("OPENAI_DELEGATION_REQUEST_a.md.tmp", False),
        (".OPENAI_DELEGATION_REQUEST_a.md", False),
        ("OPENAI_DELEGATION_RESULT_a b.md", False),
        ("notes.md", False),
    ],
)
def test_a_misnamed_request_is_known_as_one(name: str, meant: bool) -> None:
    """What has a request's prefix and suffix and no id between them was meant as one; a look and the bell tell it."""
    assert names.misnamed(name) is meant
    if meant:
        assert names.concerns_us(name) == name


def test_a_look_tells_what_is_misnamed(tmp_path: Path) -> None:
    """Neither a request nor nothing: a look sets it apart, whole or of some names."""
    for name in ("OPENAI_DELEGATION_REQUEST_a b.md", "OPENAI_DELEGATION_REQUEST_c.md", "4913"):
        (tmp_path / name).write_text("it fails")
    folder = Folder(str(tmp_path))
    look = folder.look()
    assert look.misnamed == {"OPENAI_DELEGATION_REQUEST_a b.md"}
    assert [entry.id for entry in look.entries] == ["c"]
    assert folder.look(["OPENAI_DELEGATION_REQUEST_a b.md"]).misnamed == look.misnamed
    folder.close()


@pytest.mark.parametrize(
    ("key", "origin"),
    [
        ("a.sync-conflict-20260101-101010-ABCDEFG", "a"),
        ("a_Conflict", "a"),
        ("a.Conflict", "a"),
        ("a", None),
        ("20251128_133758", None),
    ],
)
def test_conflict_copies_are_told_by_their_names(key: str, origin: str | None) -> None:
    """The names that sync tools give to conflict copies lead back to the id they were made of."""
    assert names.conflict_origin(key) == origin


@pytest.fixture
def folder(tmp_path: Path):
    folder = Folder(str(tmp_path))
    yield folder
    folder.close()


REQUEST = "OPENAI_DELEGATION_REQUEST_a.md"


def test_a_file_that_somebody_writes_is_not_read(folder: Folder, tmp_path: Path) -> None:
    """As long as it is open for writing anywhere the read says so; a reader does not matter."""
    with open(tmp_path / REQUEST, "w") as writer:
        writer.write("half")
        writer.flush()
        assert folder.read(REQUEST, 1000) is Held.BUSY
    with open(tmp_path / REQUEST):
        got = folder.read(REQUEST, 1000)
    assert isinstance(got, Bytes)
    assert (got.data, got.sure) == (b"half", True)


@pytest.mark.parametrize("way", ["in place", "by a rename"])
def test_a_file_that_changes_while_it_is_read_is_not_taken(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A writer who comes between the first byte and the last, and writes as many: the read says that it changed."""
    (tmp_path / REQUEST).write_text("before")
    read = os.read

    def slow_read(fd: int, size: int) -> bytes:
        data = read(fd, size)
        if data:
            target = tmp_path / REQUEST if way == "in place" else tmp_path / "other"
            target.write_text("behind")
            os.replace(target, tmp_path / REQUEST)
        return data

    monkeypatch.setattr(os, "read", slow_read)
    assert folder.read(REQUEST, 1000) is Held.CHANGED


def test_nothing_but_a_regular_file_is_opened(folder: Folder, tmp_path: Path) -> None:
    """A symlink, a FIFO, a directory and a too large file raise at once: no read, no hang, nothing followed."""
    os.symlink("/etc/passwd", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    os.mkdir(tmp_path / "dir")
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 40)
    expected = {"link": errno.ELOOP, "fifo": errno.EINVAL, "dir": errno.EINVAL, "huge": errno.EFBIG}
    for name, number in expected.items():
        with pytest.raises(OSError) as caught:
            folder.read(name, 1000)
        assert caught.value.errno == number
    assert folder.read("absent", 1000) is Held.GONE


def test_end_marks_and_priorities_are_seen_without_reading_all(folder: Folder, tmp_path: Path) -> None:
    """A last line `<!-- END -->` (md) or `...` (yaml) marks a complete file; a mark in the middle does not."""
    cases = {
        "a.md": (b"text\n<!-- END -->\n", (True, 0)),
        "b.md": (b"---\npriority: 7\n---\n" + b"x" * 5000 + b"\n<!-- END -->", (True, 7)),
        "c.md": (b"<!-- END -->\nmore", (False, 0)),
        "d.md": (b"text\n...\n", (False, 0)),
        "e.yaml": (b"issue: x\npriority: -2\n...\n", (True, -2)),
        "f.yaml": (b"issue: wait...", (False, 0)),
        "g.json": (b'{"issue": "x", "priority": 3}', (False, 0)),
    }
    for tail, (data, expected) in cases.items():
        name = f"OPENAI_DELEGATION_REQUEST_{tail}"
        (tmp_path / name).write_bytes(data)
        entry = folder.entry(name)
        assert entry is not None
        if tail != "g.json":
            assert folder.peek(entry) == expected, tail
        else:
            assert folder.peek(entry)[0] is False


def test_a_done_file_marks_its_request(folder: Folder, tmp_path: Path) -> None:
    """`<request>.done` beside a request says that it is complete, in a full look and in one by name."""
    (tmp_path / REQUEST).write_text("x")
    assert [e.marked for e in folder.look().entries] == [False]
    (tmp_path / f"{REQUEST}.done").touch()
    assert [e.marked for e in folder.look().entries] == [True]
    assert [e.marked for e in folder.look([REQUEST]).entries] == [True]


def test_submit_never_overwrites_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A request is dropped whole under its name, once."""
    where = tmp_path / "new" / "folder"
    names.submit(str(where), REQUEST, b"one")
    with pytest.raises(FileExistsError):
        names.submit(str(where), REQUEST, b"two")
    assert os.listdir(where) == [REQUEST]
    assert (where / REQUEST).read_bytes() == b"one"


def test_a_folder_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    """Renamed away, deleted, or another one in its place: the open folder says that it is not the path's any more."""
    path = tmp_path / "f"
    path.mkdir()
    folder = Folder(str(path))
    assert folder.still_there()
    path.rename(tmp_path / "g")
    assert not folder.still_there()
    path.mkdir()
    assert not folder.still_there()
    folder.close()
