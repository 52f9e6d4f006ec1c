"""Lives of the real daemon and server that begin by fork, from a process that has imported all that they need.

A start costs most of its time for imports; with thousands of lives that is what decides how many there can be. What
runs is the daemon's own entry, with its own threads, loop, signals and exit. The nursery itself has one thread.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from delegated import tokens
from delegated.cli import main_daemon, serve  # noqa: F401
from delegated.models import chat, client, openai  # noqa: F401
from delegated.testing import server as testing_server
from faults import tracer
from harness import until

PATIENCE_S = 60.0


def prepare() -> None:
    """Import and build all that a life would."""
    import markdown_it  # noqa: F401

    from delegated import app  # noqa: F401

    client.preload()
    tokens.counter()("warm")
    gc.collect()
    gc.freeze()  # so that a collection in a child does not copy all of it
    assert threading.active_count() == 1, "a process with threads must not fork"


@contextmanager
def ground() -> Iterator[Path]:
    """Give a directory in memory where there is one: a kill leaves what was written, synced or not."""
    memory = Path("/dev/shm")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the directory would stay
    path = Path(tempfile.mkdtemp(prefix="delegated-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


class Life:
    """One forked life. `pid` leads its process group."""

    def __init__(self, body: Callable[[], int], log: Path, *, env: Mapping[str, str], cwd: Path) -> None:
        self.log = log
        self._status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be(body, log, env, cwd)

    def over(self) -> bool:
        """Say whether it has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is not None

    def wait(self, patience: float = PATIENCE_S) -> int:
        """Return its exit code, negative for the signal that ended it."""
        until(self.over, what=f"the end of {self.pid}", patience=patience, pause=0.002)
        assert self._status is not None
        return os.waitstatus_to_exitcode(self._status)

    def kill(self) -> None:
        """End it with all that it started."""
        if not self.over():
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:  # so young that it has no group of its own yet
                os.kill(self.pid, signal.SIGKILL)
            self.wait()


class Traced:
    """A life under a tracer, which is a process of its own; see `tracer.follow`."""

    def __init__(
        self,
        body: Callable[[], int],
        log: Path,
        *,
        env: Mapping[str, str],
        cwd: Path,
        root: Path,
        victim: str = "",
        after: bool = False,
    ) -> None:
        self._told, tell = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._tracer = os.fork()
        if self._tracer == 0:
            try:
                tracer.die_with_parent()
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.close(self._told)
                pid, go = _held(body, log, env, cwd)
                tracer.seize(pid)
                os.write(tell, f"{pid}\n".encode())
                os.write(go, b"x")
                trail = tracer.follow(pid, str(root), victim, after=after)
                data = json.dumps([trail.points, trail.killed_at, trail.status]).encode()
                while data:
                    data = data[os.write(tell, data) :]
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(tell)
        os.set_blocking(self._told, False)
        self._heard = b""
        until(lambda: self._hear() or b"\n" in self._heard, what="a traced life", pause=0.001)
        self.pid = int(self._heard.partition(b"\n")[0])
        self._ended = False

    def _hear(self) -> bool:
        """Read what the tracer says; True when it is gone."""
        try:
            data = os.read(self._told, 1 << 16)
        except BlockingIOError:
            return False
        self._heard += data
        return not data

    def over(self) -> bool:
        """Say whether it has ended."""
        while not self._ended:
            before = len(self._heard)
            self._ended = self._hear()
            if len(self._heard) == before:
                break
        return self._ended

    def end(self, patience: float = PATIENCE_S) -> tracer.Trail:
        """Wait for its end and return what it came by."""
        until(self.over, what=f"the end of {self.pid}, traced", patience=patience, pause=0.002)
        _, status = os.waitpid(self._tracer, 0)
        os.close(self._told)
        assert status == 0, "the tracer failed"
        return tracer.Trail(*json.loads(self._heard.partition(b"\n")[2]))


def _held(body: Callable[[], int], log: Path, env: Mapping[str, str], cwd: Path) -> tuple[int, int]:
    """Fork a life that waits for a byte before it does anything, and then hands its calls to its tracer."""
    wait, go = os.pipe()

    def held() -> int:
        os.close(go)
        os.read(wait, 1)
        os.close(wait)
        tracer.surrender()
        return body()

    pid = os.fork()
    if pid == 0:
        _be(held, log, env, cwd)
    os.close(wait)
    return pid, go


def _be(body: Callable[[], int], log: Path, env: Mapping[str, str], cwd: Path) -> None:
    """Become a process as if started anew: its own session, environment, streams; never returns."""
    code = 1
    try:
        os.setsid()
        tracer.die_with_parent()
        atexit._clear()  # what the nursery would do at its end
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd)
        code = body()
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter does at its own end
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def daemon(workspace: Path, *arguments: str) -> Callable[[], int]:
    """Return the body of a daemon's life."""
    return lambda: main_daemon(["--workspace", str(workspace), *arguments])


class Provider:
    """The local server as a forked life on a state file; its port stays the same from life to life."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.state = tmp / "bills.jsonl"
        self.port = 0
        self._life: Life | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, rules: list[dict[str, Any]], *arguments: str) -> None:
        """Start on what the state file says was billed."""
        port_file, script = self.tmp / "port", self.tmp / "rules.json"
        port_file.unlink(missing_ok=True)
        script.write_text(json.dumps(rules))
        given = ["--quiet", "--port", str(self.port), "--port-file", str(port_file), "--state", str(self.state)]
        given += ["--script", str(script), *arguments]
        self._life = Life(
            lambda: testing_server.main(given), self.tmp / "server.log", env=dict(os.environ), cwd=self.tmp
        )
        until(port_file.exists, what="the server listens", pause=0.002)
        self.port = int(port_file.read_text())

    def stop(self) -> None:
        """End at once; what was told to anybody is in the state file."""
        if self._life is not None:
            self._life.kill()
            self._life = None

    def bills(self) -> list[dict[str, Any]]:
        """Return the bills so far."""
        return [record["bill"] for record in self.records() if record["record"] == "run"]

    def records(self) -> list[dict[str, Any]]:
        """Return everything that the server remembers, as it wrote it down."""
        return [json.loads(line) for line in self.state.read_bytes().splitlines()] if self.state.exists() else []
