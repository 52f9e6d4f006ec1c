"""A daemon with a house and a server for several tests, each of which must leave it well."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import Daemon, House, Server, request_text

BILLION_LAUGHS = (
    "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefghi"))
    + "issue: *i\n"
)


class Served:
    """A daemon with a house and a server, for several tests."""

    def __init__(self, tmp: Path, *arguments: str) -> None:
        self.house = House(tmp)
        # Tests that share it ask the same in other bytes, or are answered otherwise: each is to be asked about.
        self.house.set(repeat_window_s=0, max_repeats=1_000_000)
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


def page(served: Served, result: dict[str, Any]) -> str:
    return served.house.result_path(result["request"]["id"], "md").read_text()


def shown_in_page(served: Served, result: dict[str, Any], *sentences: str) -> None:
    """What RESULT.json says, RESULT.md says to a person (who sees Markdown, not its escapes)."""
    text = plain(page(served, result))
    for sentence in sentences:
        assert plain(sentence) in text, text


def plain(text: str) -> str:
    return re.sub(r"[\s\\`*_]+", "", text)


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
