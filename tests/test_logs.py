"""Log events: their form, their rules for untrusted values, and that no key is ever in them."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from delegated import logs

CANARY = "sk-canary-0123456789/ABCdef+=="


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _own_configuration() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root, level = list(logging.getLogger().handlers), logging.getLogger().level
    hidden = list(logs._hidden)
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    logging.getLogger().handlers = root
    logging.getLogger().setLevel(level)
    logs._hidden[:] = hidden


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_when_nobody_looks() -> None:
    """Time, level and name first, then the values; what is bound to the context comes along."""
    stream = io.StringIO()
    logs.configure(stream=stream, env={})
    with structlog.contextvars.bound_contextvars(job="a.r1", request="a", phase="asking"):
        structlog.get_logger().info("job.settled", after_s=1.5, files=("x", "y"))
    structlog.get_logger().warning("folder.lost")
    first, second = lines(stream)
    assert list(first)[:3] == ["timestamp", "level", "event"]
    assert (
        first.items()
        >= {
            "level": "info",
            "event": "job.settled",
            "job": "a.r1",
            "request": "a",
            "phase": "asking",
            "after_s": 1.5,
        }.items()
    )
    assert first["files"] == ["x", "y"]
    assert second["level"] == "warning"
    assert "job" not in second


def test_a_terminal_gets_lines_for_people_unless_json_is_asked_for() -> None:
    """`auto` looks at the stream; NO_COLOR is honoured."""
    stream = Terminal()
    logs.configure(stream=stream, env={"NO_COLOR": "1"})
    structlog.get_logger().info("job.settled", id="a")
    assert "job.settled" in stream.getvalue()
    assert "id=a" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    stream = Terminal()
    logs.configure(format="json", stream=stream, env={})
    structlog.get_logger().info("job.settled", id="a")
    assert lines(stream)[0]["id"] == "a"


def test_a_changed_level_holds_for_loggers_bound_before() -> None:
    """A reload configures again, while the worker keeps its logger."""
    stream = io.StringIO()
    logs.configure("warning", stream=stream, env={})
    bound = structlog.get_logger("delegated.worker").bind(folder="x")
    bound.info("look.done")
    logs.configure("debug", stream=stream, env={})
    bound.debug("look.done")
    logs.configure("error", stream=stream, env={})
    bound.warning("look.done")
    assert [each["level"] for each in lines(stream)] == ["debug"]


@dataclass
class Holder:
    key: str

    def __str__(self) -> str:
        return "harmless"


class Angry:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_key_is_in_no_event(format: logs.Format) -> None:
    """Not as a value, inside text, a key, an object's repr, an exception, its cause, a local variable or a URL."""
    logs.hide(CANARY)
    stream = io.StringIO()
    logs.configure("debug", format, stream, {})
    log = structlog.get_logger()

    def fail(key: str) -> None:
        held = {"Authorization": f"Bearer {key}"}
        try:
            raise KeyError(held)
        except KeyError as error:
            raise RuntimeError(f"401 for {key}") from error

    log.info(f"event.with {CANARY}")
    log.info("x.y", text=f"({CANARY})", **{CANARY: 1})
    log.info("x.y", deep=[{"a": (CANARY, {CANARY})}], held=Holder(CANARY), raw=CANARY.encode())
    log.info("x.y", url="https://x/?key=sk-canary-0123456789%2FABCdef%2B%3D%3D")
    try:
        fail(CANARY)
    except RuntimeError:
        log.exception("x.failed")
        logging.getLogger("lib").exception("failed with %s", CANARY)
    logging.getLogger("lib").warning("sending %r", {"key": CANARY})
    written = stream.getvalue()
    assert "canary" not in written
    assert "ABCdef" not in written
    assert written.count(logs.MASK) >= 9
    assert "held =" not in written, "local variables are shown"


def test_what_looks_like_a_key_is_masked_although_nobody_said_so() -> None:
    """The net below the exact one: another user's key in a file name or an error text."""
    stream = io.StringIO()
    logs.configure(stream=stream, env={})
    structlog.get_logger().info(
        "x.y", a="sk-proj-0123456789abcdefXYZ", b="authorization: Bearer abcdefgh12345", c="task-force-of-many-words"
    )
    (event,) = lines(stream)
    assert (event["a"], event["b"], event["c"]) == (
        logs.MASK,
        f"authorization: {logs.MASK}",
        "task-force-of-many-words",
    )


_KEY = st.text(alphabet="ab", min_size=6, max_size=8)


@given(st.text(alphabet="ab", max_size=4), _KEY, _KEY)
def test_no_part_of_one_key_is_left_by_another(around: str, one: str, other: str) -> None:
    """Whatever the order in which keys were made known, no known key stands in what is written."""
    logs._hidden.clear()
    logs.hide(one)
    logs.hide(other)
    masked = logs.mask_keys(None, "info", {"event": f"{around}{one}{around}{other}"})["event"]
    assert one not in masked
    assert other not in masked


@pytest.mark.parametrize("format", ["json", "console"])
def test_values_cannot_steer_a_terminal_or_forge_a_line(format: logs.Format) -> None:
    """Escapes, line breaks and direction marks are written out; ordinary letters of any script stay."""
    stream = io.StringIO()
    logs.configure("info", format, stream, {})
    hostile = "a\x1b[2Jb\x9bc\nlevel=error\r\N{RIGHT-TO-LEFT OVERRIDE}x\N{LINE SEPARATOR}\x00\N{ZERO WIDTH SPACE}\ud800"
    structlog.get_logger().info("x.y", **{"name": hostile, "na\x1bme": 1}, other="日本 é")
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert all(each.isprintable() for each in written[:-1])
    assert "日本 é" in written
    assert "\\x1b" in written


def test_a_traceback_keeps_its_lines_for_people() -> None:
    """On a terminal an exception is still read line by line, without its escapes."""
    stream = Terminal()
    logs.configure(stream=stream, env={"NO_COLOR": "1"})
    try:
        raise ValueError("bad \x1b[31m")
    except ValueError:
        structlog.get_logger().exception("x.failed")
    assert "\nValueError: bad \\x1b[31m" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_no_value_makes_logging_fail() -> None:
    """Cycles, broken reprs, not-a-numbers, huge texts and a reader that went away."""
    stream = io.StringIO()
    logs.configure(stream=stream, env={})
    cycle: list[object] = []
    cycle.append(cycle)
    structlog.get_logger().info("x.y", cycle=cycle, angry=Angry(), nan=float("nan"), long="x" * 1_000_000, none=None)
    (event,) = lines(stream)
    assert event["angry"] == "<Angry whose repr failed: RuntimeError>"
    assert len(stream.getvalue()) < 50_000
    stream.close()
    structlog.get_logger().info("x.y")


def test_libraries_log_by_the_same_rules() -> None:
    """Their words are a value of one constant event; the chatty ones only warn; warnings of Python come along."""
    stream = io.StringIO()
    logs.configure("info", stream=stream, env={})
    root = logging.getLogger()
    root.handlers = root.handlers[-1:]  # without the test runner's own, which raises at a wrong format string
    logging.getLogger("somewhere").info("took %d s\n", 3)
    logging.getLogger("somewhere").info("wrong %d", "x")
    logging.getLogger("openai._base_client").info("request options: everything")
    logging.getLogger("httpx2").warning("slow")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    found = lines(stream)
    assert {each["event"] for each in found} == {"library.logged"}
    assert [each["library"] for each in found] == ["somewhere", "somewhere", "httpx2", "py.warnings"]
    assert found[0]["text"] == "took 3 s\n"
    assert found[2]["level"] == "warning"


def test_configuring_twice_does_not_log_twice() -> None:
    """A reload replaces the handler."""
    stream = io.StringIO()
    logs.configure(stream=stream, env={})
    logs.configure(stream=stream, env={})
    logging.getLogger("somewhere").warning("once")
    assert len(lines(stream)) == 1


def test_the_journal_gets_priorities(tmp_path: Path) -> None:
    """Lines begin with <N> where stderr really is the journal's stream, and only there."""
    for ours in (True, False):
        path = tmp_path / "journal"
        with open(path, "w", encoding="utf-8") as stream:
            status = os.fstat(stream.fileno())
            variable = f"{status.st_dev}:{status.st_ino if ours else status.st_ino + 1}"
            logs.configure("debug", stream=stream, env={"JOURNAL_STREAM": variable})
            for level in ("debug", "info", "warning", "error"):
                getattr(structlog.get_logger(), level)("x.y")
        begun = [line[:3] for line in path.read_text().splitlines()]
        assert begun == (["<7>", "<6>", "<4>", "<3>"] if ours else ['{"t'] * 4)


def test_a_console_that_is_not_utf_8_is_no_fault() -> None:
    """Windows' code pages and LANG=C have no words for most names."""
    code = (
        "import structlog; from delegated import logs; logs.configure(env={}); "
        "structlog.get_logger().info('x.y', name='日本 \\ud800')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
        capture_output=True,
        check=True,
    )
    assert b"x.y" in run.stderr
    assert run.stdout == b""
