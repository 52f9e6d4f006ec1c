"""Real processes for the tests: a daemon on a workspace, a local server that counts what it bills."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from delegated.home import state_directory
from delegated.registry import register

PATIENCE_S = 30.0
PREFIX = "OPENAI_DELEGATION_"
BUG = "def total(items):\n    return sum(item.price for item in items) / len(items)\n\n\nprint(total([]))\n"
TRACE = """Traceback (most recent call last):
  File "app.py", line 5, in <module>
    print(total([]))
  File "app.py", line 2, in total
    return sum(item.price for item in items) / len(items)
ZeroDivisionError: division by zero
"""
T = TypeVar("T")
_TEXTS = itertools.count(1)


def until(probe: Callable[[], T], *, what: str, patience: float = PATIENCE_S, pause: float = 0.01) -> T:
    """Return the first true value of `probe`; fail after `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {patience:g} s")
        time.sleep(pause)


def request_text(issue: str | None = None, *, logs: str = TRACE, files: str = "app.py") -> str:
    """Write a request; each time another one by default, as the same question is not asked twice."""
    issue = issue or f"it divides by zero, text {next(_TEXTS)}"
    return f"# Issue\n\n{issue}\n\n# Files\n\n- {files}\n\n# Error Logs\n\n```\n{logs}```\n"


class Server:
    """The local server in a process of its own."""

    def __init__(self, tmp: Path, *arguments: str, port: int = 0) -> None:
        self._out = open(tmp / "server.out", "wb")  # noqa: SIM115 - closed by `close`
        self.state = tmp / "bills.jsonl"
        port_file = tmp / "server.port"
        port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "delegated.testing.server", "--quiet", "--port", str(port)]
        command += ["--port-file", str(port_file), "--state", str(self.state), *arguments]
        self.process = subprocess.Popen(command, stdout=self._out, stderr=self._out)
        self.port = int(until(lambda: port_file.exists() and port_file.read_text().strip(), what="server listens"))
        self.url = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.url}/v1"

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)
        self._out.close()

    def state_json(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/_test/state", timeout=10) as answer:
            return json.load(answer)

    def bills(self) -> list[dict[str, Any]]:
        return self.state_json()["bills"]

    def script(self, *rules: dict[str, Any]) -> None:
        data = json.dumps(list(rules)).encode()
        request = urllib.request.Request(
            f"{self.url}/_test/faults", data=data, headers={"content-type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).close()


class Daemon:
    """The real daemon on one workspace."""

    def __init__(self, workspace: Path, log: Path, env: dict[str, str], *arguments: str, prefix: tuple[str, ...] = ()):
        self.log = log
        self._file = open(log, "ab")  # noqa: SIM115 - closed by `stop` and `kill`
        self._from = self._file.tell()
        program = [sys.executable, "-c", "import sys; from delegated.cli import main_daemon; sys.exit(main_daemon())"]
        self.process = subprocess.Popen(
            [*prefix, *program, "--workspace", str(workspace), *arguments],
            stdout=self._file,
            stderr=self._file,
            env=env,
            cwd=workspace,
            start_new_session=True,  # killed with all that it started, and with what traces it
        )

    def events(self) -> list[dict[str, Any]]:
        found = []
        with open(self.log, "rb") as file:
            file.seek(self._from)
            for line in file.read().splitlines():
                try:
                    value = json.loads(line)
                except ValueError:
                    value = {"event": line.decode("utf-8", "replace")}
                if isinstance(value, dict):
                    found.append(value)
        return found

    def has(self, event: str) -> bool:
        return any(each.get("event") == event for each in self.events())

    def ready(self) -> Daemon:
        def probe() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}: {self.log.read_text()}")
            return self.has("worker.ready")

        until(probe, what="daemon ready", pause=0.02)
        return self

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._file.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self._file.close()
        return code


class House:
    """A workspace with its drop folder, and the daemons that serve it one after the other."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.workspace = tmp / "work space"
        self.folder = self.workspace / ".autonomous_runs" / "openai_delegations"
        self.folder.mkdir(parents=True)
        (self.workspace / "app.py").write_text(BUG)
        self.outside = tmp / "outside"
        self.outside.mkdir()
        home = tmp / "home"
        home.mkdir()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONWARNINGS": "error",
            "DELEGATED_MODEL": "offline",
            "DELEGATED_LOG__FORMAT": "json",
            "DELEGATED_GRACE_S": "5",
            "DELEGATED_DAY_USD": "1000000",  # some tests ask thousands of times
            "DELEGATED_MONTH_USD": "1000000",
            "DELEGATED_MAX_REQUESTS_PER_MINUTE": "1000000",
            "DELEGATED_MAX_WAITING": "1000000",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        self._daemons: list[Daemon] = []
        self.register()

    def register(self) -> None:
        """Register the workspace, as `delegate init` does: its user wants what is dropped from now on."""
        register(state_directory(self.env), str(self.workspace), str(self.folder))

    def use(self, server: Server, wire: str = "responses", **settings: Any) -> None:
        self.env |= {
            "DELEGATED_MODEL": "gpt-4o",
            "OPENAI_API_KEY": "sk-test-0123456789abcdefghij",
            "DELEGATED_ENDPOINTS__OPENAI__BASE_URL": server.base_url,
            "DELEGATED_ENDPOINTS__OPENAI__WIRE": wire,
        }
        self.set(**settings)

    def set(self, **settings: Any) -> None:
        self.env |= {f"DELEGATED_{key.upper()}": str(value) for key, value in settings.items()}

    def start(self, *arguments: str, prefix: tuple[str, ...] = ()) -> Daemon:
        daemon = Daemon(self.workspace, self.tmp / "daemon.log", self.env, *arguments, prefix=prefix)
        self._daemons.append(daemon)
        return daemon

    def up(self, *arguments: str) -> Daemon:
        """Start a daemon that has all its imports behind it: on a busy machine they outlast a short deadline."""
        daemon = self.start(*arguments).ready()
        gone = daemon.process.poll  # a run that finds nothing to do leaves without them
        until(lambda: daemon.has("app.warmed") or gone() is not None, what="imports done", pause=0.02)
        return daemon

    def close(self) -> None:
        for daemon in self._daemons:
            daemon.kill()

    def request(self, key: str, suffix: str = ".md") -> Path:
        return self.folder / f"{PREFIX}REQUEST_{key}{suffix}"

    def result_path(self, key: str, suffix: str = "json") -> Path:
        return self.folder / f"{PREFIX}RESULT_{key}.{suffix}"

    def drop(self, key: str, text: str | bytes | None = None, suffix: str = ".md") -> Path:
        """Move a request in, as a well-behaved writer does."""
        data = request_text(f"it divides by zero, case {key}") if text is None else text
        temp = self.outside / f"{key}.tmp"
        temp.write_bytes(data.encode() if isinstance(data, str) else data)
        path = self.request(key, suffix)
        os.rename(temp, path)
        return path

    def has_result(self, key: str) -> bool:
        return self.result_path(key).exists()

    def standing(self, key: str) -> dict[str, Any] | None:
        """Return the RESULT that stands at this moment; none where there is none, or another is about to replace it."""
        try:
            value = json.loads(self.result_path(key).read_text())
        except FileNotFoundError:
            return None
        page = self.result_path(key, "md").exists()
        if not self.has_result(key):
            return None
        assert page, "RESULT.md is published before RESULT.json"
        return value

    def result(self, key: str, *, patience: float = PATIENCE_S) -> dict[str, Any]:
        return until(lambda: self.standing(key), what=f"RESULT {key}", patience=patience)

    def wait_for(self, key: str, wanted: Callable[[dict[str, Any]], bool], *, what: str) -> dict[str, Any]:
        """Wait until a RESULT stands of which `wanted` is true."""

        def probe() -> dict[str, Any] | None:
            value = self.standing(key)
            return value if value and wanted(value) else None

        return until(probe, what=what)

    def revision(self, key: str, number: int) -> dict[str, Any]:
        """Wait until the RESULT that stands is of this revision."""
        return self.wait_for(
            key, lambda value: value["request"]["revision"] == number, what=f"revision {number} of {key}"
        )

    def job(self, key: str, revision: int = 1) -> Path:
        found = list((self.folder / ".delegated" / "jobs").glob(f"*/{key}/r{revision}"))
        assert len(found) == 1, f"no job {key} r{revision}"
        return found[0]


def on_terminal(command: list[str], columns: int, *, cwd: Path, env: dict[str, str]) -> str:
    """Run a command that must succeed on a terminal of that width, and return all that it showed."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(command, cwd=cwd, env=env, stdout=side, stderr=side) as process:
        os.close(side)
        shown = b""
        with suppress(OSError):  # how Linux says that the other side is closed
            while piece := os.read(main, 65536):
                shown += piece
        assert process.wait(30) == 0, shown
    os.close(main)
    return shown.decode().replace("\r\n", "\n")


@contextmanager
def running(thing: T) -> Iterator[T]:
    try:
        yield thing
    finally:
        thing.close()  # type: ignore[attr-defined]
