# ruff: noqa: E501 (the tables hold one case a line)
"""Bad input gets a clear error, and nothing is lost: the real daemon is given what goes wrong, a row each.

Each group of rows is served by one daemon, so every row also shows that the rows before it have left it well: after
each one an ordinary request is answered by the same process.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import PREFIX, Daemon, House, Server, request_text, until

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
MAX_GROWTH = 50 << 20


class Served:
    """A daemon with a house and a server, for several tests."""

    def __init__(self, tmp: Path, *arguments: str) -> None:
        self.house = House(tmp)
        self.server = Server(tmp, *arguments)
        self.daemon: Daemon
        self._numbers = itertools.count(1)

    def close(self) -> None:
        self.house.close()
        self.server.close()

    def drop(self, data: str | bytes, suffix: str = ".md") -> dict[str, Any]:
        return self.house.result(self.dropped(data, suffix))

    def dropped(self, data: str | bytes, suffix: str = ".md") -> str:
        key = self.key()
        self.house.drop(key, data, suffix)
        return key

    def key(self) -> str:
        return f"row{next(self._numbers)}"

    def bills(self) -> int:
        return len(self.server.bills())

    def well(self) -> None:
        """The same process still answers an ordinary request, and bills it once."""
        before = self.bills()
        result = self.drop(request_text())
        assert result["status"] == "answered", result["error"]
        assert self.bills() == before + 1
        assert self.daemon.process.poll() is None

    def rss(self) -> int:
        status = Path(f"/proc/{self.daemon.process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    @contextmanager
    def billed(self, calls: int) -> Iterator[None]:
        """Hold what happens within to so many paid calls; after it the daemon is well."""
        before = self.bills()
        yield
        assert self.bills() - before == calls
        self.well()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon that asks the local server."""
    served = Served(tmp_path_factory.mktemp("served"))
    served.house.use(served.server, quiet_s=0.6, rescan_s=1)
    served.daemon = served.house.up()
    served.well()
    yield served
    served.close()


def page(served: Served, result: dict[str, Any]) -> str:
    return served.house.result_path(result["request"]["id"], "md").read_text()


def shown_in_page(served: Served, result: dict[str, Any], *sentences: str) -> None:
    """What RESULT.json says, RESULT.md says to a person (who sees Markdown, not its escapes)."""
    text = plain(page(served, result))
    for sentence in sentences:
        assert plain(sentence) in text, text


def plain(text: str) -> str:
    return re.sub(r"[\s\\`*_]+", "", text)


# -- what stands in a request --

BILLION_LAUGHS = (
    "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefghi"))
    + "issue: *i\n"
)
MERGE_BOMB = (
    "a: &a {k: v}\n"
    + "".join(f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in itertools.pairwise("abcdefghi"))
    + "issue: x\n"
)
REJECTED: dict[str, tuple[str, str | bytes, str, str]] = {
    # suffix, bytes, what the RESULT says was found, what it says is right
    "malformed front matter": (".md", "---\nmodels: [gpt-4o\n---\nit fails\n", "line 2: this is not YAML", "correct the YAML"),
    "front matter never closed": (".md", "---\nmodels: gpt-4o\nit fails\n", "front matter that is never closed", "---"),
    "malformed YAML": (".yaml", "issue: it fails: badly\n", "line 1: this is not YAML", "quotes"),
    "a tab in YAML": (".yaml", "issue: a\nfiles:\n\t- b\n", "line 3: this is not YAML", "a tab where YAML takes only spaces"),
    "malformed JSON": (".json", '{"issue": "a",}', "line 1:", "double quotes"),
    "UTF-16 without its mark": (".md", "it fails".encode("utf-16-le"), "a NUL byte at offset 1", "UTF-8"),
    "Latin-1": (".md", "# Issue\n\nla clé échoue\n".encode("latin-1"), "line 3: byte 0xe9 at offset 14", "UTF-8"),
    "a lone 0x92": (".md", b"it\x92s bad\n", "byte 0x92 at offset 2", "UTF-8"),
    "NUL": (".md", b"it fails\nhere\0there\n", "line 2: a NUL byte at offset 13", "UTF-8"),
    "spaces alone": (".md", "  \n\t\n   \n", "no text", "## Issue"),
    "front matter alone": (".md", "---\nmodels: gpt-4o\n---\n", "nothing below", "## Issue"),
    "no issue": (".md", "# Context\n\nc\n\n# Error Logs\n\nl\n", "the headings are", "## Issue"),
    "no issue in YAML": (".yaml", "context: c\n", "no issue", "issue:"),
    "no issue in JSON": (".json", '{"context": "c"}', "no issue", "issue:"),
    "an unknown key": (".md", "---\nmax_cost: 1\n---\nit fails\n", "unknown key 'max_cost'", "did you mean `max_cost_usd`?"),
    "an unknown key in JSON": (".json", '{"issue": "a", "logz": "b"}', "unknown key 'logz'", "did you mean `logs`?"),
    "billion laughs": (".yaml", BILLION_LAUGHS, "line 1: the anchor `&a`", "aliases are not read"),
    "billion laughs in front matter": (".md", f"---\n{BILLION_LAUGHS}---\nit fails\n", "line 2: the anchor `&a`", "aliases are not read"),
    "a bomb of merge keys": (".yaml", MERGE_BOMB, "the merge key `<<`", "themselves"),
    "a YAML tag": (".yaml", "issue: !!python/object/apply:os.system [id]\n", "the tag", "remove"),
    "bottomless nesting": (".json", '{"issue": ' + "[" * 200_000, "nesting deeper than", "flat"),
}  # fmt: skip


@pytest.mark.parametrize("row", REJECTED)
def test_what_cannot_be_used_is_rejected_with_its_place(served: Served, row: str) -> None:
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
    "UTF-8 with its mark": (".md", b"\xef\xbb\xbf" + request_text("it fails ü").encode()),
    "UTF-16": (".md", request_text("it fails ü").encode("utf-16")),
    "UTF-16 in big endian": (".yaml", b"\xfe\xff" + "issue: it fails ü\n".encode("utf-16-be")),
    "CRLF": (".md", request_text("it fails ü").replace("\n", "\r\n").encode()),
    "CR": (".md", request_text("it fails ü").replace("\n", "\r").encode()),
    "CRLF in front matter": (".md", b"---\r\npriority: 5\r\n---\r\n# Issue\r\n\r\nit fails \xc3\xbc\r\n"),
    "no final newline": (".md", "it fails ü".encode()),
    "a line of 1 MB": (".md", "# Issue\n\nit fails ü\n\n# Error Logs\n\n".encode() + b"x" * (1 << 20)),
}


@pytest.mark.parametrize("row", READ)
def test_what_only_looks_odd_is_read(served: Served, row: str) -> None:
    """Other editors' line ends and marks, and UTF-16 that says what it is, are text like any other."""
    suffix, data = READ[row]
    before = served.bills()
    result = served.drop(data, suffix)
    assert result["status"] == "answered", result["problems"]
    assert result["request"]["title"] == "it fails ü"
    assert served.bills() == before + 1
    served.well()


def test_an_empty_file_is_not_a_request_yet(served: Served) -> None:
    """A file of no bytes is waited for in silence; once it is filled it is answered."""
    key = served.key()
    path = served.house.request(key)
    with served.billed(1):
        path.touch()
        served.well()  # a look later
        assert not served.house.has_result(key)
    path.write_text(request_text())
    assert served.house.result(key)["status"] == "answered"


def test_a_broken_file_is_given_time_and_may_be_corrected(served: Served) -> None:
    """Broken syntax written in place may be half a file: rejected after the quiet time; saved right, it is answered."""
    key = served.key()
    path = served.house.request(key, ".yaml")
    with served.billed(0):
        path.write_text("issue: it fails\nfiles: [app.py")
        assert served.house.result(key)["status"] == "rejected"
    path.write_text("issue: it fails\nfiles: [app.py]\n")
    assert served.house.revision(key, 2)["status"] == "answered"


# -- what is too large --


@pytest.mark.parametrize(("words", "size"), [("1 GB", 1 << 30), ("1 TB", 1 << 40), ("a byte too many", (4 << 20) + 1)])
def test_a_huge_file_is_refused_unread(served: Served, words: str, size: int) -> None:
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
    "directory": (lambda path: path.mkdir(), "a directory"),
    "FIFO": (fifo, "a FIFO"),
    "socket": (unix_socket, "a socket"),
    "device": (device, "a device"),
    "link to /etc/shadow": (lambda path: path.symlink_to("/etc/shadow"), "a symbolic link"),
    "link to a request": (lambda path: path.symlink_to(valid(path)), "a symbolic link"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "a symbolic link"),
    "link to itself": (lambda path: path.symlink_to(path.name), "a symbolic link"),
}


@pytest.mark.parametrize("row", NO_FILES)
def test_what_is_no_file_is_refused_unopened(served: Served, row: str) -> None:
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


def test_a_name_that_is_none_is_told(served: Served) -> None:
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


def delegate(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "delegated", *arguments],
        env=house.env,
        cwd=house.workspace,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_longest_name_is_served(served: Served) -> None:
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


def test_what_editors_drop_is_never_billed(served: Served) -> None:
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


def test_conflict_copies_are_never_billed(served: Served) -> None:
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


# -- what the answer may be --

PAID = {"method": "POST", "path": "/v1/responses"}
GOOD_ENOUGH = "this is not JSON at all"
REPLIES: dict[str, tuple[dict[str, Any], str, str]] = {
    # what the server does, the error's kind, a part of its message
    "refusal": ({"outcome": "refusal"}, "refused_by_model", ""),
    "truncated": ({"outcome": "max_output_tokens"}, "truncated", ""),
    "content filter": ({"outcome": "content_filter"}, "content_filter", ""),
    "empty": ({"outcome": "empty"}, "empty_reply", ""),
    "the provider failed": ({"outcome": "failed"}, "provider_failed", ""),
}


@pytest.mark.parametrize("row", REPLIES)
def test_an_answer_that_is_none_is_a_named_outcome(served: Served, row: str) -> None:
    """Paid for, and no analysis: `failed` by a kind of its own with what to do; not asked again by itself."""
    do, kind, message = REPLIES[row]
    before = served.bills()
    served.server.script({"match": PAID, "do": do, "times": 1})
    result = served.drop(request_text(row))
    assert (result["status"], result["error"]["kind"]) == ("failed", kind)
    assert message in result["error"]["message"]
    assert result["error"]["hint"]
    assert served.bills() == before + 1
    assert result["egress"], "what left is on the receipt"
    shown_in_page(served, result, result["error"]["hint"])
    served.well()


MALFORMED = {
    "not JSON": ({"text": GOOD_ENOUGH}, "not_json", GOOD_ENOUGH),
    "wrong schema": ({"answer": {"verdict": "likely"}}, "wrong_schema", '"verdict"'),
    "JSON of another kind": ({"answer": ["a list"]}, "wrong_schema", "a list"),
}


@pytest.mark.parametrize("row", MALFORMED)
def test_a_malformed_answer_is_asked_for_once_more(served: Served, row: str) -> None:
    """Malformed once: repaired by a second call, both billed and on the receipt."""
    do, _, _ = MALFORMED[row]
    before = served.bills()
    served.server.script({"match": PAID, "do": do, "times": 1})
    result = served.drop(request_text(row))
    assert result["status"] == "answered", result["error"]
    assert served.bills() == before + 2
    assert [each["call"] for each in result["egress"]] == ["01-first", "02-repair"]
    assert "once more" in str(result["warnings"])
    served.well()


@pytest.mark.parametrize("row", MALFORMED)
def test_a_malformed_answer_twice_is_kept_raw(served: Served, row: str) -> None:
    """Malformed again: failed, the raw answer is in the RESULT, and there is no third call."""
    do, kind, raw = MALFORMED[row]
    before = served.bills()
    served.server.script({"match": PAID, "do": do, "times": 2})
    result = served.drop(request_text(row))
    assert (result["status"], result["error"]["kind"]) == ("failed", kind)
    assert raw in result["raw_response"]
    assert result["error"]["next_command"] == f"delegate retry {result['request']['id']}"
    assert served.bills() == before + 2
    shown_in_page(served, result, raw)
    served.well()


# -- whom to ask, and with what --

RIGHT_KEY = "sk-right-0123456789abcdefghij"
SETTINGS = """
model: served
retry: {{attempts: 2, base_s: 0.05, cap_s: 0.05}}
endpoints:
  good: {{base_url: "{url}", wire: responses, key_env: RIGHT_KEY}}
  chatty: {{base_url: "{url}", wire: chat, key_env: RIGHT_KEY}}
  wrong: {{base_url: "{url}", wire: responses, key_env: WRONG_KEY}}
  spaced: {{base_url: "{url}", wire: responses, key_env: SPACED_KEY}}
  open: {{base_url: "{url}", wire: responses, key_file: "{key}"}}
  absent: {{base_url: "{url}", wire: responses, key_file: "{key}.absent"}}
  closed: {{base_url: "http://127.0.0.1:{closed}/v1", wire: responses, key_env: RIGHT_KEY}}
  nowhere: {{base_url: "http://no-such-host.invalid/v1", wire: responses, key_env: RIGHT_KEY}}
models:
  served: {{endpoint: good, input_usd: 0, output_usd: 0}}
"""
FREE = "input_usd: 0, output_usd: 0"
MODELS = {
    "chatty": f"{{endpoint: chatty, {FREE}}}",
    "wrong-key": f"{{endpoint: wrong, {FREE}}}",
    "spaced-key": f"{{endpoint: spaced, {FREE}}}",
    "open-key": f"{{endpoint: open, {FREE}}}",
    "absent-key": f"{{endpoint: absent, {FREE}}}",
    "closed": f"{{endpoint: closed, {FREE}}}",
    "nowhere": f"{{endpoint: nowhere, {FREE}}}",
    "gone": f"{{endpoint: good, {FREE}, shutdown: 2024-01-01, successor: served}}",
    "not-at-the-provider": f"{{endpoint: good, {FREE}}}",
    "priceless": "{endpoint: good}",
    "dear": "{endpoint: good, input_usd: 1000, output_usd: 100000}",
}


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon without OPENAI_API_KEY, with models behind good and bad endpoints."""
    tmp = tmp_path_factory.mktemp("asked")
    names = ["served", *(name for name in MODELS if name != "not-at-the-provider")]
    served = Served(tmp, "--key", RIGHT_KEY, *(word for name in names for word in ("--model", name)))
    key = tmp / "key"
    key.write_text(RIGHT_KEY)
    key.chmod(0o644)
    config = tmp / "config.yaml"
    config.write_text(
        SETTINGS.format(url=served.server.base_url, key=key, closed=closed_port())
        + "".join(f"  {name}: {facts}\n" for name, facts in MODELS.items())
    )
    del served.house.env["DELEGATED_MODEL"]
    served.house.env |= {"RIGHT_KEY": RIGHT_KEY, "WRONG_KEY": "sk-wrong-9876543210zyxwvutsrq", "SPACED_KEY": "sk-a b"}
    served.daemon = served.house.up("--config", str(config))
    served.well()
    yield served
    served.close()


KEY_HINTS = ("export OPENAI_API_KEY=", "0600", "systemd credential")
UNASKED: dict[str, tuple[str, str, str, str, tuple[str, ...]]] = {
    # model, status, kind, a part of the message, parts of what the RESULT says is to be done
    "no key": ("gpt-4o", "failed", "missing_key", "OPENAI_API_KEY environment variable required", KEY_HINTS),
    "a wrong key": ("wrong-key", "failed", "bad_key", "HTTP 401", ("OPENAI_API_KEY",)),
    "a key that is none": ("spaced-key", "failed", "bad_key", "$SPACED_KEY holds more than a key", ("correct it",)),
    "a key file that others may read": ("open-key", "failed", "bad_key", "others may read the key", ("chmod 600",)),
    "no key file": ("absent-key", "failed", "bad_key", "is absent or empty", ("write the key into it",)),
    "an unknown model": ("gtp-4o", "rejected", "unknown_model", "did you mean gpt-4o?", ("docs/models.md", "`models:`")),
    "a model unlike any": ("qqq", "rejected", "unknown_model", "known are", ("docs/models.md", "`models:`")),
    "a model the provider does not know": (
        "not-at-the-provider", "failed", "unknown_model", "does not exist", ("docs/models.md", "`models:`")
    ),
    "a model past its shutdown": ("gone", "failed", "retired_model", "left the provider's API on 2024-01-01", ("served",)),
    "a closed port": ("closed", "failed", "unreachable", "cannot be reached", ("delegate doctor",)),
    "no such host": ("nowhere", "failed", "unreachable", "cannot be reached", ("delegate doctor",)),
    "an unknown price": ("priceless", "rejected", "unknown_price", "is not known", ("add the model's price",)),
    "too dear": ("dear", "rejected", "budget", "it could cost up to $", ("max_cost_usd",)),
}  # fmt: skip


@pytest.mark.parametrize("row", UNASKED)
def test_what_cannot_be_asked_says_what_to_do(asked: Served, row: str) -> None:
    """No key, no such model, nobody there, too dear: named, unbilled, with what to do; no key is ever shown."""
    model, status, kind, message, todo = UNASKED[row]
    with asked.billed(0):
        result = asked.drop(f"---\nmodels: {model}\n---\n{request_text()}")
        assert (result["status"], result["error"]["kind"]) == (status, kind), result["error"]
        assert message in result["error"]["message"]
        advice = result["error"]["message"] + result["error"]["hint"]
        assert [part for part in todo if part not in advice] == []
        if result["error"]["retryable"]:
            assert result["error"]["next_command"] == f"delegate retry {result['request']['id']}"
        shown_in_page(asked, result, result["error"]["message"], result["error"]["hint"])
    told = json.dumps(result) + page(asked, result) + asked.daemon.log.read_text()
    assert "sk-right" not in told
    assert "sk-wrong" not in told


def test_a_limit_of_the_request_itself_holds(asked: Served) -> None:
    """`max_cost_usd` in a request that could cost more: rejected with both sums, nothing sent."""
    with asked.billed(0):
        result = asked.drop("---\nmodels: dear\nmax_cost_usd: 0.000001\n---\nit fails\n")
        assert (result["status"], result["error"]["kind"]) == ("rejected", "budget")
        assert "the limit is $0.000001" in result["error"]["message"]


@pytest.mark.parametrize(
    "body", [{"body": "<html><h1>Welcome to our Wi-Fi</h1></html>", "content_type": "text/html"}, {"body": {}}], ids=str
)
def test_a_body_that_is_none_is_looked_up_and_never_sent_again(asked: Served, body: dict[str, Any]) -> None:
    """200 with a web page or `{}`: the call may be billed. It is looked up where it can be, else it is `uncertain`."""
    with asked.billed(1):
        asked.server.script({"match": PAID, "do": body, "times": 1})
        result = asked.drop(request_text())
        assert result["status"] == "answered", result["error"]
    with asked.billed(1):
        asked.server.script({"match": {"method": "POST", "path": "/v1/chat/completions"}, "do": body, "times": 1})
        result = asked.drop(f"---\nmodels: chatty\n---\n{request_text()}")
        assert (result["status"], result["error"]["kind"]) == ("uncertain", "uncertain")
        assert "may bill twice" in result["error"]["hint"]
        assert result["egress"]


# -- where it runs --


def ends(house: House, code: int, *arguments: str, prefix: tuple[str, ...] = ()) -> str:
    """Start a daemon that ends by itself with this exit code; return what it said."""
    log = house.tmp / "daemon.log"
    before = log.stat().st_size if log.exists() else 0
    daemon = house.start(*arguments, prefix=prefix)
    assert daemon.process.wait(30) == code, log.read_text()
    return log.read_text()[before:]


def test_a_second_daemon_leaves_the_first_alone(served: Served) -> None:
    """One daemon serves a folder: the second exits 75, names the first and says what to do; the first goes on."""
    with served.billed(0):
        said = ends(served.house, 75)
        assert f"pid {served.daemon.process.pid}" in said
        assert "hint: one daemon serves a folder" in said


BAD_CONFIGS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "several problems": (
        b"modle: gpt-4o\nsettle_ms: soon\nretry:\n  attempts: 0\nendpoints:\n  mine: {base_url: ftp://x}\n",
        (
            "config.yaml:1",
            "did you mean `model`?",
            "config.yaml:2",
            "config.yaml:4",
            "config.yaml:6",
            "should be a URL",
        ),
    ),
    "malformed": (b"model: [gpt-4o\n", ("config.yaml:", "this is not YAML")),
    "Latin-1": (b"# cl\xe9\nmodel: gpt-4o\n", ("config.yaml", "should be UTF-8")),
    "a bomb": (BILLION_LAUGHS.encode(), ("config.yaml:1", "the anchor `&a`")),
    "no keys": (b"just text\n", ("config.yaml:1", "should hold keys")),
}


@pytest.mark.parametrize("row", BAD_CONFIGS)
def test_a_bad_configuration_is_told_whole(house: House, row: str) -> None:
    """Exit 78 with every problem and its line; once it is right, what waited is answered."""
    data, said = BAD_CONFIGS[row]
    config = house.tmp / "config.yaml"
    config.write_bytes(data)
    house.drop("waits")
    told = ends(house, 78, "--config", str(config))
    assert [part for part in said if part not in told] == [], told
    assert "hint: `delegated check`" in told
    assert "Traceback" not in told
    assert not house.has_result("waits")


def test_a_bad_variable_and_a_missing_file_are_configuration_too(house: House) -> None:
    """Exit 78 names the variable, or the file that --config asked for."""
    house.set(settle_ms="soon", retyr__attempts=3)
    told = ends(house, 78, "--config", str(house.tmp / "nowhere.yaml"))
    assert "DELEGATED_SETTLE_MS" in told
    assert "nowhere.yaml: there is no such file" in told
    assert "Traceback" not in told


def test_a_bad_configuration_on_reload_changes_nothing(served: Served) -> None:
    """SIGHUP with a bad file: it is refused in the log, and the daemon serves on as before."""
    path = served.house.workspace / ".delegated.yaml"
    with served.billed(0):
        path.write_text("modle: x\n")
        served.daemon.process.send_signal(signal.SIGHUP)
        refused = lambda: [event for event in served.daemon.events() if event["event"] == "config.refused"]  # noqa: E731
        assert "did you mean `model`?" in until(refused, what="refused")[0]["reason"]
        path.unlink()


# -- the disk --


def mount(path: Path, *options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        assert "denied" in done.stderr or "permitted" in done.stderr or "superuser" in done.stderr, done.stderr
        pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def small(house: House) -> Iterator[House]:
    """A house whose drop folder is a disk of its own, of 256 KiB."""
    if not ROOT:
        pytest.skip("mounting a small disk takes root")
    mount(house.folder, "size=256k", "mode=700")
    yield house
    house.close()
    subprocess.run(["umount", "--lazy", str(house.folder)], check=True)


def fill(house: House) -> Path:
    """Take every block that is left."""
    ballast = house.folder / "ballast"
    with open(ballast, "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return ballast
    raise AssertionError("the disk takes no end")


def place(house: House, key: str) -> Path:
    """Write a request on the folder's own disk under a name that is none yet."""
    temp = house.folder / f"{key}.part"
    temp.write_text(request_text())
    return temp


def test_a_full_disk_at_the_start(small: House, server: Server) -> None:
    """Nothing can be recorded, so nothing is asked: exit 74 with what to do; with space again, all is answered."""
    small.use(server)
    os.rename(place(small, "full"), small.request("full"))
    ballast = fill(small)
    said = ends(small, 74)
    assert "No space left on device" in said
    assert "hint: free space" in said
    assert "Traceback" not in said
    ballast.unlink()
    small.up()
    assert small.result("full")["status"] == "answered"
    assert len(server.bills()) == 1


def test_a_disk_that_fills_before_the_claim(small: House, server: Server) -> None:
    """No claim, no call: loud in the log while it lasts; with space again it is answered, once."""
    small.use(server)
    daemon = small.up()
    temp = place(small, "full")
    ballast = fill(small)
    os.rename(temp, small.request("full"))
    until(lambda: interrupted(daemon), what="the log says so")
    assert server.bills() == []
    assert not small.has_result("full")
    ballast.unlink()
    result = small.result("full")
    assert (result["status"], result["request"]["revision"]) == ("answered", 1)
    assert len(server.bills()) == 1


def interrupted(daemon: Daemon) -> bool:
    """Say whether the log names the disk as the reason for which a job cannot go on."""
    reasons = ("No space left on device", "Permission denied")
    told = [
        event
        for event in daemon.events()
        if event["event"] in ("job.interrupted", "record.unwritten", "result.unpublished")
    ]
    return any(reason in event["reason"] for event in told for reason in reasons)


def test_a_disk_that_fills_while_the_model_works(small: House, server: Server) -> None:
    """The answer is fetched again once it can be recorded: nothing is lost, and nothing is billed twice."""
    small.use(server)
    server.script({"match": PAID, "do": {"run": 1}})
    daemon = small.up()
    os.rename(place(small, "full"), small.request("full"))
    until(lambda: list((small.folder / ".delegated" / "jobs").glob("*/full/r1/calls/*/accepted.1")), what="accepted")
    ballast = fill(small)
    until(lambda: interrupted(daemon), what="the log says so")
    assert not small.has_result("full")
    ballast.unlink()
    assert small.result("full")["status"] == "answered"
    assert len(server.bills()) == 1
    assert daemon.process.poll() is None


def test_a_disk_mounted_read_only(small: House, server: Server) -> None:
    """Exit 74, and the sentence names the place; mounted for writing, what waited is answered."""
    small.use(server)
    os.rename(place(small, "waits"), small.request("waits"))
    subprocess.run(["mount", "-o", "remount,ro", str(small.folder)], check=True)
    said = ends(small, 74)
    assert "Read-only file system" in said
    assert str(small.folder) in said
    assert "hint: " in said
    subprocess.run(["mount", "-o", "remount,rw", str(small.folder)], check=True)
    small.up()
    assert small.result("waits")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.fixture
def bound(need: Any) -> tuple[str, ...]:
    """What makes a process heed the modes of files even where it is root's."""
    return (need("setpriv"), "--bounding-set=-dac_override,-dac_read_search") if ROOT else ()


def test_a_folder_that_may_not_be_written(house: House, server: Server, bound: tuple[str, ...]) -> None:
    """Exit 74, and the sentence names the place; once it may be written, what waited is answered."""
    house.use(server)
    house.drop("waits")
    house.folder.chmod(0o500)
    said = ends(house, 74, prefix=bound)
    assert "Permission denied" in said
    assert str(house.folder) in said
    assert "hint: make" in said
    house.folder.chmod(0o700)
    house.start(prefix=bound).ready()
    assert house.result("waits")["status"] == "answered"
    assert len(server.bills()) == 1


def test_a_journal_that_may_be_written_no_more(house: House, server: Server, bound: tuple[str, ...]) -> None:
    """While it lasts nothing is asked and the log is loud; then the request is answered, once."""
    house.use(server)
    daemon = house.start(prefix=bound).ready()
    temp = house.folder / ".delegated" / "tmp"
    temp.chmod(0o500)
    house.drop("waits")
    until(lambda: interrupted(daemon), what="the log says so")
    assert server.bills() == []
    temp.chmod(0o700)
    assert house.result("waits")["status"] == "answered"
    assert len(server.bills()) == 1


def test_a_request_that_may_not_be_read(house: House, server: Server, bound: tuple[str, ...]) -> None:
    """It is told once, loudly, with what to do, while others are served; once it may be read it is answered."""
    house.use(server)
    daemon = house.start(prefix=bound).ready()
    temp = house.outside / "closed"
    temp.write_text(request_text())
    temp.chmod(0)
    os.rename(temp, house.request("closed"))
    unreadable = lambda: [each for each in daemon.events() if each["event"] == "request.unreadable"]  # noqa: E731
    until(unreadable, what="the log says so")
    house.drop("other")
    assert house.result("other")["status"] == "answered"
    assert len(unreadable()) == 1
    assert "make it readable" in unreadable()[0]["hint"]
    house.request("closed").chmod(0o600)
    assert house.result("closed")["status"] == "answered"
    assert len(server.bills()) == 2


def test_an_id_in_the_text_that_is_not_the_names_is_told(served: Served) -> None:
    """The file's name is the id; another one in the front matter is not heeded, and the RESULT says so."""
    with served.billed(1):
        result = served.drop("---\nid: another\n---\nit fails\n")
        assert result["status"] == "answered"
        assert any("`id: another` is not heeded" in warning for warning in result["warnings"])
