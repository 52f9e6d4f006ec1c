"""However a request is written, it is taken once, whole, and with the bytes that its writer meant."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import House, Server, request_text, until

TEXT = request_text("a request of several lines" + " and words" * 50)
HALF = len(TEXT) // 2


def shell(script: str, *arguments: str) -> Callable[[House, Path], None]:
    def write(house: House, path: Path) -> None:
        source = house.outside / f"source of {path.name}"
        source.write_text(TEXT)
        subprocess.run(["sh", "-ec", script, "sh", str(source), str(path)], check=True)

    return write


def python(program: str) -> Callable[[House, Path], None]:
    def write(house: House, path: Path) -> None:
        prelude = "import os, sys, time, mmap\npath, text = sys.argv[1:]\nhalf = len(text) // 2\n"
        subprocess.run([sys.executable, "-c", prelude + program, str(path), TEXT], check=True)

    return write


WRITERS: dict[str, Callable[[House, Path], None]] = {
    "mv": shell('mv "$1" "$2"'),
    "cp": shell('cp "$1" "$2"'),
    "cp -p": shell('touch -d 1999-01-01 "$1"; cp -p "$1" "$2"'),
    "echo >": shell('cat "$1" > "$2"'),
    "tee": shell('tee "$2" < "$1" > /dev/null'),
    "touch, then fill": shell('touch "$2"; sleep 0.6; cat "$1" > "$2"'),
    "two appends": shell('head -n 3 "$1" > "$2"; tail -n +4 "$1" >> "$2"'),
    "two appends, a pause between": shell('head -n 3 "$1" > "$2"; sleep 0.2; tail -n +4 "$1" >> "$2"'),
    "slow writer": shell('( head -n 3 "$1"; sleep 1; tail -n +4 "$1" ) > "$2"'),
    "hard link": shell('ln "$1" "$2"'),
    "dd": shell('dd if="$1" of="$2" bs=64 status=none'),
    "install": shell('install -m 600 "$1" "$2"'),
    "sed -i": shell('cp "$1" "$2"; sed -i s/nothing/nothing/ "$2"'),
    "temp and rename": python(
        "t = path + '.tmp'\nf = open(t, 'w')\nf.write(text)\nf.flush()\nos.fsync(f.fileno())\nf.close()\n"
        "os.replace(t, path)"
    ),
    "truncate and write, as editors do": python(
        "f = open(path, 'w')\nf.write('# Issue\\n\\nold')\nf.close()\ntime.sleep(0.1)\n"
        "f = open(path, 'w')\ntime.sleep(0.5)\nf.write(text)\nos.fsync(f.fileno())\nf.close()"
    ),
    "write, flush, write": python(
        "f = open(path, 'w')\nf.write(text[:half])\nf.flush()\ntime.sleep(0.7)\nf.write(text[half:])\nf.close()"
    ),
    "renamed while still open": python(
        "t = path + '.part'\nf = open(t, 'w')\nf.write(text[:half])\nf.flush()\nos.rename(t, path)\ntime.sleep(0.7)\n"
        "f.write(text[half:])\nf.close()"
    ),
    "mmap with its descriptor closed first": python(
        "data = text.encode()\nfd = os.open(path, os.O_RDWR | os.O_CREAT)\nos.ftruncate(fd, len(data))\n"
        "m = mmap.mmap(fd, len(data))\nos.close(fd)\ntime.sleep(0.5)\nm[:] = data\nm.close()"
    ),
    "O_TMPFILE and linkat": python(
        "fd = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_WRONLY)\nos.write(fd, text.encode())\n"
        "os.link(f'/proc/self/fd/{fd}', path, src_dir_fd=0, follow_symlinks=True)\nos.close(fd)"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Server]]:
    """A house that one daemon serves for all writers, and the server that bills."""
    tmp = tmp_path_factory.mktemp("served")
    house, server = House(tmp), Server(tmp)
    house.use(server)
    house.up()
    yield house, server
    house.close()
    server.close()


@pytest.mark.parametrize("writer", WRITERS)
def test_one_bill_of_the_whole(served: tuple[House, Server], writer: str) -> None:
    """One RESULT, one bill, and the bytes that were asked about are the bytes that the writer left."""
    house, server = served
    before = len(server.bills())
    key = re.sub(r"[^a-z]+", "-", f"w {writer}".lower()).strip("-")
    path = house.request(key)
    WRITERS[writer](house, path)
    result = house.result(key)
    assert result["status"] == "answered", result["error"]
    assert path.read_text() == TEXT
    assert result["request"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result["request"]["revision"] == 1
    house.drop(f"after-{key}")
    house.result(f"after-{key}")
    assert len(server.bills()) == before + 2


@pytest.mark.parametrize("editor", ["vim", "vim, file there before"])
def test_vim(house: House, server: Server, need: Callable[[str], str], editor: str) -> None:
    """The real vim, on a new file and on one that exists: what was saved last is asked about, once."""
    vim = need("vim")
    house.use(server)
    path = house.request("v")
    if editor != "vim":
        path.write_text("---\ndraft: true\n---\n")
    house.up()
    source = house.outside / "source.md"
    source.write_text(TEXT)
    keys = [":%d", f":0r {source}", ":$d", ":w", ":w", ":q"]
    command = [
        vim,
        "-u",
        "NONE",
        "-N",
        "-n",
        "-es",
        "-c",
        "set backupcopy=auto backup",
        "-c",
        "|".join(k[1:] for k in keys),
    ]
    command.append(str(path))
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=30, env={**os.environ, "TERM": "dumb"})
    result = house.result("v")
    assert result["request"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_saved_again_unchanged(house: House, server: Server) -> None:
    """Saved twice, touched, chmodded, rewritten with the same bytes: nothing happens."""
    house.use(server)
    daemon = house.up()
    path = house.drop("same")
    house.result("same")
    for again in (lambda: path.write_bytes(path.read_bytes()), path.touch, lambda: path.chmod(0o640)):
        again()
        time.sleep(0.5)
    house.drop("later")
    house.result("later")
    daemon.stop()
    path.touch()
    house.up("--once").process.wait(30)
    assert len(server.bills()) == 2
    assert house.result("same")["request"]["revision"] == 1


def test_an_end_mark_saves_the_wait(house: House) -> None:
    """A last line `<!-- END -->`, `...` in YAML, or a `.done` file beside it: taken without the settle time."""
    house.set(settle_ms=60000)
    house.up()
    house.request("md").write_text(TEXT + "\n<!-- END -->\n")
    house.request("yaml", ".yaml").write_text("issue: it fails\n...\n")
    path = house.request("done")
    path.write_text(TEXT)
    Path(f"{path}.done").touch()
    for key in ("md", "yaml", "done"):
        assert house.result(key)["status"] == "answered"


def test_a_writer_that_holds_the_file_open_is_waited_for(house: House, server: Server) -> None:
    """It is not taken while somebody writes, other requests pass, and it is taken after the close."""
    house.use(server)
    daemon = house.up()
    with open(house.request("slow"), "w") as file:
        file.write(TEXT[:HALF])
        file.flush()
        until(lambda: daemon.has("request.held"), what="the daemon says that it waits")
        house.drop("other")
        house.result("other")
        assert not house.has_result("slow")
        file.write(TEXT[HALF:])
    assert house.result("slow")["request"]["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert len(server.bills()) == 2


def test_a_writer_killed_half_way_costs_nothing(house: House, server: Server) -> None:
    """Broken syntax has its quiet time, is rejected unbilled with its line, and a later save is a new revision."""
    house.use(server, quiet_s=1)
    house.up()
    path = house.request("cut", ".yaml")
    path.write_text('issue: "half a str')
    result = house.result("cut")
    assert result["status"] == "rejected"
    assert "line 1" in str(result)
    path.write_text('issue: "a whole string"\n')
    assert house.revision("cut", 2)["status"] == "answered"
    assert len(server.bills()) == 1


def test_a_draft_waits_until_it_is_none(house: House, server: Server) -> None:
    """`draft: true` is left alone until it is removed, also over a restart."""
    house.use(server)
    daemon = house.up()
    path = house.drop("d", "---\ndraft: true\n---\n" + TEXT)
    until(lambda: daemon.has("request.draft"), what="draft seen")
    daemon.stop()
    daemon = house.up()
    until(lambda: daemon.has("request.draft"), what="draft seen again")
    assert not house.has_result("d")
    path.write_text(TEXT)
    assert house.result("d")["status"] == "answered"
    assert len(server.bills()) == 1
