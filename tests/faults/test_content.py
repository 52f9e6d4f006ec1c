# ruff: noqa: E501 (the tables hold one case a line)
"""Rows 50, 54, 55 and 58 to 62 of the fault matrix: what stands in a request, what a request is, what it is called.

One daemon serves them all, so every row also shows that the rows before it have left it well: after each one an
ordinary request is answered by the same process.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import PREFIX, request_text
from serving import BILLION_LAUGHS, Served, delegate, page, shown_in_page

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
MAX_GROWTH = 50 << 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon that asks the local server."""
    served = Served(tmp_path_factory.mktemp("served"))
    served.house.use(served.server, quiet_s=0.6, rescan_s=1)
    served.daemon = served.house.up()
    served.well()
    yield served
    served.close()


# -- what stands in a request --

MERGE_BOMB = (
    "a: &a {k: v}\n"
    + "".join(f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in itertools.pairwise("abcdefghi"))
    + "issue: x\n"
)
REJECTED: dict[str, tuple[str, str | bytes, str, str]] = {
    # suffix, bytes, what the RESULT says was found, what it says is right
    "row-60 malformed front matter": (".md", "---\nmodels: [gpt-4o\n---\nit fails\n", "line 2: this is not YAML", "correct the YAML"),
    "row-60 front matter never closed": (".md", "---\nmodels: gpt-4o\nit fails\n", "front matter that is never closed", "---"),
    "row-60 malformed YAML": (".yaml", "issue: it fails: badly\n", "line 1: this is not YAML", "quotes"),
    "row-60 a tab in YAML": (".yaml", "issue: a\nfiles:\n\t- b\n", "line 3: this is not YAML", "a tab where YAML takes only spaces"),
    "row-60 malformed JSON": (".json", '{"issue": "a",}', "line 1:", "double quotes"),
    "row-58 UTF-16 without its mark": (".md", "it fails".encode("utf-16-le"), "a NUL byte at offset 1", "UTF-8"),
    "row-58 Latin-1": (".md", "# Issue\n\nla clé échoue\n".encode("latin-1"), "line 3: byte 0xe9 at offset 14", "UTF-8"),
    "row-58 a lone 0x92": (".md", b"it\x92s bad\n", "byte 0x92 at offset 2", "UTF-8"),
    "row-58 NUL": (".md", b"it fails\nhere\0there\n", "line 2: a NUL byte at offset 13", "UTF-8"),
    "row-50 spaces alone": (".md", "  \n\t\n   \n", "no text", "## Issue"),
    "row-50 front matter alone": (".md", "---\nmodels: gpt-4o\n---\n", "nothing below", "## Issue"),
    "row-50 no issue": (".md", "# Context\n\nc\n\n# Error Logs\n\nl\n", "the headings are", "## Issue"),
    "row-50 no issue in YAML": (".yaml", "context: c\n", "no issue", "issue:"),
    "row-50 no issue in JSON": (".json", '{"context": "c"}', "no issue", "issue:"),
    "row-60 an unknown key": (".md", "---\nmax_cost: 1\n---\nit fails\n", "unknown key 'max_cost'", "did you mean `max_cost_usd`?"),
    "row-60 an unknown key in JSON": (".json", '{"issue": "a", "logz": "b"}', "unknown key 'logz'", "did you mean `logs`?"),
    "row-60 billion laughs": (".yaml", BILLION_LAUGHS, "line 1: the anchor `&a`", "aliases are not read"),
    "row-60 billion laughs in front matter": (".md", f"---\n{BILLION_LAUGHS}---\nit fails\n", "line 2: the anchor `&a`", "aliases are not read"),
    "row-60 a bomb of merge keys": (".yaml", MERGE_BOMB, "the merge key `<<`", "themselves"),
    "row-60 a YAML tag": (".yaml", "issue: !!python/object/apply:os.system [id]\n", "the tag", "remove"),
    "row-60 bottomless nesting": (".json", '{"issue": ' + "[" * 200_000, "nesting deeper than", "flat"),
}  # fmt: skip


@pytest.mark.parametrize("row", REJECTED)
def test_rows_50_58_60_what_cannot_be_used_is_rejected_with_its_place(served: Served, row: str) -> None:
    """A request that cannot be read is rejected, unbilled: what was found, where, and what would be right."""
    suffix, data, found, right = REJECTED[row]
    with served.billed(0):
        result = served.drop(data, suffix)
        assert (result["status"], result["error"]["kind"]) == ("rejected", "invalid_request")
        assert any(found in problem and right in problem for problem in result["problems"]), result["problems"]
        assert result["error"]["hint"]
        assert result["egress"] == []
        shown_in_page(served, result, *result["problems"], result["error"]["hint"])


READ: dict[str, tuple[str, bytes]] = {
    "row-58 UTF-8 with its mark": (".md", b"\xef\xbb\xbf" + request_text("it fails ü").encode()),
    "row-58 UTF-16": (".md", request_text("it fails ü").encode("utf-16")),
    "row-58 UTF-16 in big endian": (".yaml", b"\xfe\xff" + "issue: it fails ü\n".encode("utf-16-be")),
    "row-59 CRLF": (".md", request_text("it fails ü").replace("\n", "\r\n").encode()),
    "row-59 CR": (".md", request_text("it fails ü").replace("\n", "\r").encode()),
    "row-59 CRLF in front matter": (".md", b"---\r\npriority: 5\r\n---\r\n# Issue\r\n\r\nit fails \xc3\xbc\r\n"),
    "row-59 no final newline": (".md", "it fails ü".encode()),
    "row-59 U+2028 and U+0085": (".md", "# Issue\n\nit fails ü\n\n# Context\n\na\u2028b\u0085c\x0bd\x0ce\n".encode()),
    "row-61 1 MB": (
        ".md",
        "# Issue\n\nit fails ü\n\n# Error Logs\n\n```\n".encode() + b"a line\n" * 149_796 + b"```\n",
    ),
    "row-59 a line of 1 MB": (".md", "# Issue\n\nit fails ü\n\n# Error Logs\n\n".encode() + b"x" * (1 << 20)),
}


@pytest.mark.parametrize("row", [pytest.param(row, marks=[pytest.mark.slow] if "1 MB" in row else []) for row in READ])
def test_rows_58_59_what_only_looks_odd_is_read(served: Served, row: str) -> None:
    """Other editors' line ends and marks, and UTF-16 that says what it is, are text like any other."""
    suffix, data = READ[row]
    before = served.bills()
    result = served.drop(data, suffix)
    assert result["status"] == "answered", result["problems"]
    assert result["request"]["title"] == "it fails ü"
    assert served.bills() == before + 1
    served.well()


def test_row_61_a_file_of_0_bytes_is_not_a_request_yet(served: Served) -> None:
    """A file of no bytes is waited for in silence; once it is filled it is answered."""
    key = served.key()
    path = served.house.request(key)
    with served.billed(1):
        path.touch()
        served.well()  # a look later
        assert not served.house.has_result(key)
    path.write_text(request_text())
    assert served.house.result(key)["status"] == "answered"


def test_row_60_a_broken_file_is_given_time_and_may_be_corrected(served: Served) -> None:
    """Broken syntax written in place may be half a file: rejected after the quiet time; saved right, it is answered."""
    key = served.key()
    path = served.house.request(key, ".yaml")
    with served.billed(0):
        path.write_text("issue: it fails\nfiles: [app.py")
        assert served.house.result(key)["status"] == "rejected"
    path.write_text("issue: it fails\nfiles: [app.py]\n")
    assert served.house.revision(key, 2)["status"] == "answered"


def test_row_61_a_file_of_1_byte(served: Served) -> None:
    """One letter is an issue; one line end is none."""
    assert served.drop("x")["status"] == "answered"
    with served.billed(0):
        assert served.drop("\n")["status"] == "rejected"


# -- what is too large --


@pytest.mark.parametrize(("words", "size"), [("1 GB", 1 << 30), ("1 TB", 1 << 40), ("a byte too many", (4 << 20) + 1)])
def test_row_61_a_huge_file_is_refused_unread(served: Served, words: str, size: int) -> None:
    """The limit holds before the first byte is read: the memory stays flat, and the RESULT names limit and setting."""
    key = served.key()
    temp = served.house.outside / key
    with open(temp, "wb") as file:
        file.truncate(size)
    before = served.rss()
    with served.billed(0):
        os.rename(temp, served.house.request(key))
        result = served.house.result(key)
        assert (result["status"], result["error"]["kind"]) == ("rejected", "invalid_request")
        assert "larger than" in str(result["problems"])
        assert "4,194,304 bytes" in str(result["problems"])
        assert "`max_request_bytes`" in str(result["problems"])
        assert served.rss() - before < MAX_GROWTH
    served.house.request(key).unlink()


# -- what is no file --


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:  # bound through /proc: the real path is longer than a socket's may be
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sock.bind(f"/proc/self/fd/{fd}/{path.name}")
        finally:
            os.close(fd)


def device(path: Path) -> None:
    if not ROOT:
        pytest.skip("only root can make a device")
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: it never ends
    except PermissionError as error:
        pytest.skip(f"this machine does not let root make a device: {error}")


def valid(path: Path) -> Path:
    target = path.parent.parent / "valid.md"
    target.write_text(request_text())
    return target


NO_FILES = {
    "row-55 directory": (lambda path: path.mkdir(), "a directory"),
    "row-55 FIFO": (fifo, "a FIFO"),
    "row-55 socket": (unix_socket, "a socket"),
    "row-55 device": (device, "a device"),
    "row-55 link to /etc/shadow": (lambda path: path.symlink_to("/etc/shadow"), "a symbolic link"),
    "row-55 link to a request": (lambda path: path.symlink_to(valid(path)), "a symbolic link"),
    "row-55 dangling link": (lambda path: path.symlink_to("nowhere"), "a symbolic link"),
    "row-55 link to itself": (lambda path: path.symlink_to(path.name), "a symbolic link"),
}


@pytest.mark.parametrize("row", NO_FILES)
def test_row_55_what_is_no_file_is_refused_unopened(served: Served, row: str) -> None:
    """A request's name on anything but a file is rejected without a read; a file in its place is answered."""
    make, found = NO_FILES[row]
    key = served.key()
    path = served.house.request(key)
    make(path)
    with served.billed(0):
        result = served.house.result(key)
        assert (result["status"], result["error"]["kind"]) == ("rejected", "invalid_request")
        assert found in str(result["problems"])
        assert "ordinary file" in str(result["problems"])
        assert "root:" not in page(served, result)
        shown_in_page(served, result, *result["problems"])
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    served.house.drop(key)
    assert served.house.revision(key, 2)["status"] == "answered"


# -- what is named otherwise --

MISNAMED: dict[str, bytes] = {
    "newline": b"a\nb",
    "emoji": "bug-🐛".encode(),
    "space": b"my bug",
    "quotes": b"a\"b'c",
    "NFD": "cafe\u0301".encode(),
    "NFC": "café".encode(),
    "invalid UTF-8": b"caf\xe9",
    "escape sequence": b"a\x1b[2Jb",
    "leading dot": b".hidden",
    "101 characters": b"x" * 101,
    "255 bytes": b"x" * (255 - len(f"{PREFIX}REQUEST_.md")),
    "no id": b"",
}


def test_row_62_a_name_that_is_none_is_told(served: Served) -> None:
    """A request after whose name no RESULT can be named is never asked; `delegate doctor` says so, and how it goes."""
    folder = os.fsencode(served.house.folder)
    names = [PREFIX.encode() + b"REQUEST_" + each + b".md" for each in MISNAMED.values()]
    results = set(served.house.folder.glob(f"{PREFIX}RESULT_*"))
    with served.billed(1):
        for name in names:
            temp = served.house.outside / "misnamed"
            temp.write_text(request_text())
            os.rename(temp, os.path.join(folder, name))
        served.well()  # a look later
    assert len(set(served.house.folder.glob(f"{PREFIX}RESULT_*")) - results) == 4, "RESULTs of the ordinary ones alone"
    told = delegate(served.house, "doctor", "--offline", "--json")
    checks = [check for check in json.loads(told.stdout)["checks"] if check["name"] == "names"]
    assert f"{len(names) - 5} more" in checks[-1]["message"]
    assert all(f"{PREFIX}REQUEST_<id>.md" in check["hint"] and check["message"].isascii() for check in checks)
    logged = [event for event in served.daemon.events() if event["event"] == "request.misnamed"]
    assert len(logged) == len(names), "each in one whole line, once"
    assert all(event["name"].isascii() and "<id>" in event["hint"] for event in logged)
    for name in names:
        os.unlink(os.path.join(folder, name))


def test_row_62_the_longest_name_is_served(served: Served) -> None:
    """An id of 100 characters, of all that are allowed, is an id like any other; case twins are two requests."""
    keys = ["z" * 100, "A.b_c-1", "a.b_c-1"]
    for key in keys:
        served.house.drop(key)
    assert [served.house.result(key)["status"] for key in keys] == ["answered"] * 3
    served.well()


DROPPINGS = [
    "OPENAI_DELEGATION_REQUEST_{}.md~",
    ".OPENAI_DELEGATION_REQUEST_{}.md.swp",
    ".#OPENAI_DELEGATION_REQUEST_{}.md",
    "#OPENAI_DELEGATION_REQUEST_{}.md#",
    "4913",
    "._OPENAI_DELEGATION_REQUEST_{}.md",
    ".OPENAI_DELEGATION_REQUEST_{}.md.Xa81Zq",
    "sedXa81Zq",
    "OPENAI_DELEGATION_REQUEST_{}.md.tmp",
    "OPENAI_DELEGATION_REQUEST_{}.md.part",
    "OPENAI_DELEGATION_REQUEST_{}.md.crdownload",
    "OPENAI_DELEGATION_REQUEST_{}.md.vsctmp",
    "OPENAI_DELEGATION_REQUEST_{}.md.bak",
    "OPENAI_DELEGATION_REQUEST_{}.md.orig",
    "openai_delegation_request_{}.md",
    "OPENAI_DELEGATION_REQUEST_{}.txt",
    "OPENAI_DELEGATION_REQUEST_{}",
]  # fmt: skip
CONFLICTS = [
    "OPENAI_DELEGATION_REQUEST_{}.sync-conflict-20260101-101010-ABCDEFG.md",
    "OPENAI_DELEGATION_REQUEST_{}_Conflict.md",
    "OPENAI_DELEGATION_REQUEST_{}.Conflict.md",
    "OPENAI_DELEGATION_REQUEST_{}-conflicted-copy.md",
    "OPENAI_DELEGATION_REQUEST_{} (conflicted copy 2026-01-01).md",
    "OPENAI_DELEGATION_REQUEST_{} (Ann's conflicted copy 2026-01-01).md",
    "OPENAI_DELEGATION_REQUEST_{} (1).md",
    "OPENAI_DELEGATION_REQUEST_{} 2.md",
]


def test_row_54_what_editors_drop_is_never_billed(served: Served) -> None:
    """Back-ups, swap files, locks and half downloads with a request's whole text in them are not requests."""
    key = served.key()
    names = [name.format(key) for name in DROPPINGS]
    results = set(served.house.folder.glob(f"{PREFIX}RESULT_*"))
    with served.billed(1):
        for name in names:
            (served.house.folder / name).write_text(request_text())
        served.well()  # a look later
    new = set(served.house.folder.glob(f"{PREFIX}RESULT_*")) - results
    assert not [path for path in new if key in path.name]
    for name in names:
        (served.house.folder / name).unlink()


def test_row_54_conflict_copies_are_never_billed(served: Served) -> None:
    """A sync tool's copy of a known request is a duplicate where its name is a request's, and passed over else."""
    key = served.key()
    data = served.house.drop(key, request_text(f"the issue of {key}")).read_bytes()
    assert served.house.result(key)["status"] == "answered"
    with served.billed(0):
        for name in CONFLICTS:
            (served.house.folder / name.format(key)).write_bytes(data)
        for name in CONFLICTS[:4]:
            copy = name.format(key).removeprefix(f"{PREFIX}REQUEST_").removesuffix(".md")
            result = served.house.result(copy)
            assert (result["status"], result["duplicate_of"]) == ("duplicate", key)
    for name in CONFLICTS:
        (served.house.folder / name.format(key)).unlink()
