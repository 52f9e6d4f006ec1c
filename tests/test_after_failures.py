"""`delegated.after_failures`: the n-th failure in a row is delegated, once, and nothing that fails is hidden by it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import delegated
from delegated.cli.asking import own
from delegated.failures import as_logs, frames_of, shortened
from delegated.pending import in_a_line
from delegated.request import Request, parse
from delegated.result import from_json
from harness import PREFIX, House, until

SOURCE = """\
class Broken(Exception):
    pass


def load(name):
    try:
        return {}[name]
    except KeyError as error:
        raise Broken(f"no phase {name}") from error


async def load_later(name):
    return load(name)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A workspace with a daemon, for all tests here; each asks what it likes as often as it likes."""
    house = House(tmp_path_factory.mktemp("failures"))
    house.set(repeat_window_s=0, max_repeats=1000)
    (house.workspace / "phases.py").write_text(SOURCE)
    house.up()
    yield house
    house.close()


@pytest.fixture
def here(served: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """This process in the place of the program that fails."""
    for name in list(os.environ):
        if name.startswith(("DELEGATED_", "OPENAI_")):
            monkeypatch.delenv(name)
    for name, value in served.env.items():
        monkeypatch.setenv(name, value)
    return served


@pytest.fixture
def phases(here: House) -> dict[str, Any]:
    """The program: its functions raise from a file of the workspace."""
    path = str(here.workspace / "phases.py")
    names: dict[str, Any] = {"__name__": "phases"}
    exec(compile(SOURCE, path, "exec"), names)
    return names


def guard(house: House, n: int = 3, **more: Any) -> delegated.Guard:
    return delegated.after_failures(n, workspace=str(house.workspace), **{"timeout": 60, **more})


def asked(house: House) -> set[Path]:
    return set(house.folder.glob(f"{PREFIX}REQUEST_*.md"))


@contextlib.contextmanager
def asking(house: House, times: int) -> Iterator[list[Request]]:
    """Hold what happens within to so many requests; yields a list that then has them."""
    before, found = asked(house), list[Request]()
    yield found
    new = sorted(asked(house) - before)
    assert len(new) == times, new
    found += [parse(path.read_bytes(), ".md") for path in new]


def outcome(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


# As a decorator


def test_the_third_failure_is_delegated_and_goes_on_with_the_answer(here: House, phases: dict[str, Any]) -> None:
    """The exception is the function's own; a note has the cause in a line and the path, `result_of` the RESULT."""
    load = guard(here)(phases["load"])
    with asking(here, 1) as requests:
        first, second, third, fourth = [outcome(lambda: load("tests")) for _ in range(4)]
    assert [str(each) for each in (first, second, third, fourth)] == ["no phase tests"] * 4
    assert [notes(each) for each in (first, second, fourth)] == [[], [], []]
    result = delegated.result_of(third)
    assert result is not None
    assert result.status == "answered"
    assert result.analysis is not None
    (note,) = notes(third)
    assert note.startswith(f"delegated: {result.analysis.verdict} ({result.analysis.confidence.level}): ")
    assert note.endswith(f"[{here.result_path(result.request.id, 'md')}]")
    assert delegated.result_of(fourth) is None, "never twice for the same run of failures"
    (request,) = requests
    assert request.issue == "3 attempts in a row failed, the last with phases.Broken: no phase tests"
    assert list(request.files) == ["phases.py"]
    assert request.logs.count("Attempts 1, 2, 3 of 3:") == 1
    assert "KeyError: 'tests'" in request.logs, "what it came of"
    assert "direct cause" in request.logs
    assert "guard.py" not in request.logs, "our own frames are none of it"
    assert (load.__name__, load.__module__) == ("load", "phases")


def test_a_success_ends_the_run(here: House, phases: dict[str, Any]) -> None:
    """Two failures, a success and two failures are no three in a row; after it the next run may ask anew."""
    here_guard = guard(here)

    @here_guard
    def step(fails: bool) -> str:
        return str(phases["load"]("x")) if fails else "well"

    with asking(here, 0):
        for fails in (True, True, False, True, True):
            with contextlib.suppress(phases["Broken"]):
                assert step(fails) == "well"
    assert len(here_guard.failures) == 2
    with asking(here, 2):
        for fails in (True, True, False, True, True, True, True):
            with contextlib.suppress(phases["Broken"]):
                step(fails)


def test_a_coroutine_function_is_guarded_without_holding_up_its_loop(here: House, phases: dict[str, Any]) -> None:
    """The loop turns while the answer is awaited."""
    load = guard(here, 1)(phases["load_later"])

    async def main() -> tuple[BaseException, int]:
        turns = 0
        task = asyncio.create_task(load("x"))
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        return task.exception() or AssertionError(), turns

    with asking(here, 1):
        error, turns = asyncio.run(main())
    assert isinstance(error, phases["Broken"])
    assert delegated.result_of(error) is not None
    assert turns > 10


def test_a_group_and_an_error_of_another_file_are_told_whole(here: House, phases: dict[str, Any]) -> None:
    """An ExceptionGroup's members are in the logs, and their files among the files."""
    other = here.workspace / "other.py"
    other.write_text("def fall():\n    raise OSError('the disk')\n")
    names: dict[str, Any] = {}
    exec(compile(other.read_text(), str(other), "exec"), names)

    def both() -> None:
        errors = [outcome(lambda: phases["load"]("x")), outcome(names["fall"])]
        raise ExceptionGroup("two phases", errors)  # type: ignore[type-var]

    with asking(here, 1) as requests, pytest.raises(ExceptionGroup):
        guard(here, 1)(both)()
    assert requests[0].issue == "ExceptionGroup: two phases (2 sub-exceptions)"
    assert set(requests[0].files) == {"phases.py", "other.py"}
    assert "OSError: the disk" in requests[0].logs
    assert "KeyError: 'x'" in requests[0].logs


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, concurrent.futures.CancelledError, GeneratorExit]
)
def test_what_is_no_failure_does_not_count(here: House, error: type[BaseException]) -> None:
    """Who stops a program, or cancels a task, wants no second opinion; it goes on also out of an attempt."""
    one = guard(here, 1)
    with asking(here, 0):
        with pytest.raises(error), one:
            raise error
        with pytest.raises(error), one.attempt("x"):
            raise error
    assert one.failures == ()


def test_a_generator_is_refused(here: House) -> None:
    """It fails while it is read: to guard the call would guard nothing."""

    def rows() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="guard what reads it"):
        guard(here)(rows)


# As a loop


def test_an_executor_goes_on_with_the_answer_in_hand(here: House, phases: dict[str, Any]) -> None:
    """An attempt keeps its exception; what each one tried, and how it failed, is in the request."""
    phase = guard(here, issue="the phase fails", files=["app.py"], questions=["What else?"], context="phase 3")
    tried = iter(["Added Request import", "Restarted the server", "", "Read the RESULT"])
    with asking(here, 1) as requests:
        while not phase.spent:
            with phase.attempt(next(tried)) as attempt:
                phases["load"]("x")
            assert attempt.failed
            assert isinstance(attempt.error, phases["Broken"])
    assert phase.result is not None
    assert phase.result.status == "answered"
    with phase.attempt(next(tried)) as attempt:
        pass
    assert (attempt.failed, phase.spent, phase.failures) == (False, False, ())
    (request,) = requests
    assert (request.issue, request.context, request.questions) == ("the phase fails", "phase 3", ("What else?",))
    assert list(request.files) == ["app.py", "phases.py"]
    assert request.attempted_fixes == (
        "Added Request import: phases.Broken: no phase x",
        "Restarted the server: phases.Broken: no phase x",
    )


def test_a_builder_that_raises_nothing_can_fail_too(here: House) -> None:
    """`attempt.fail` takes what a tool said: a result object, the output of a test run."""
    phase = guard(here, 2)
    with asking(here, 1) as requests:
        for number in (1, 2):
            with phase.attempt(f"try {number}") as attempt:
                attempt.fail("3 tests\nfailed", log=f"FAILED test_{number}")
            assert attempt.failed
            assert attempt.error is None
    assert [each.error for each in phase.failures] == ["3 tests failed"] * 2
    assert requests[0].issue == "2 attempts in a row failed, the last with 3 tests failed"
    assert "FAILED test_1" in requests[0].logs
    assert "FAILED test_2" in requests[0].logs
    assert phase.result is not None


def test_threads_share_a_guard(here: House) -> None:
    """Of many that fail at once exactly one asks."""
    shared, together = guard(here, 3), threading.Barrier(8)

    def fail() -> None:
        together.wait(30)
        with shared.attempt("x"):
            raise ValueError("in a thread")

    with asking(here, 1):
        threads = [threading.Thread(target=fail) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert shared.result is not None
    assert len(shared.failures) == 3


def test_not_waiting_leaves_something_to_ask(here: House, phases: dict[str, Any]) -> None:
    """`wait=False`: the exception goes on at once, with the path in a note; the answer comes to whoever asks for it."""
    got: list[delegated.Result] = []
    behind = guard(here, 1, wait=False, on_result=got.append)
    with asking(here, 1):
        error = outcome(lambda: behind(phases["load"])("x"))
    assert behind.pending is not None
    assert notes(error) == [f"delegated: asked as {behind.pending.id}; the answer will be in {behind.pending.page}"]
    result = behind.pending.wait(60)
    assert behind.pending.done
    assert (result, result) == (behind.result, behind.pending.result)
    until(lambda: got == [result], what="on_result was called")


def test_without_a_daemon_a_process_of_its_own_answers(here: House) -> None:
    """Also what is not waited for; who asks too early hears so."""
    other = here.tmp / "other"
    (other / ".autonomous_runs").mkdir(parents=True)
    alone = delegated.after_failures(1, workspace=str(other), wait=False, timeout=60)
    with alone.attempt():
        raise ValueError
    assert alone.pending is not None
    with pytest.raises(TimeoutError):
        alone.pending.wait(0)
    assert alone.result is None
    assert alone.pending.wait(60).status == "answered"


# What fails in delegating


def test_a_delegation_that_fails_hides_nothing(
    here: House, phases: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception is the program's own, with a note that says why there is no answer; it is not tried again."""
    stuck = guard(here, 1)
    with stuck.attempt("it is answered"):
        phases["load"]("x")
    assert stuck.result is not None
    with stuck.attempt("it works"):
        pass
    monkeypatch.setenv("DELEGATED_FOLDER", "app.py/nowhere")  # a file stands where the folder should be
    load = stuck(phases["load"])
    error = outcome(lambda: load("x"))
    assert isinstance(error, phases["Broken"])
    (note,) = notes(error)
    assert note.startswith("delegated: no second opinion: ")
    assert stuck.problem in note
    assert "cannot write in" in stuck.problem
    assert notes(outcome(lambda: load("x"))) == []
    assert stuck.result is None, "that of the former run is no answer to this one"


def test_time_that_runs_out_is_told_with_where_the_answer_will_be(here: House, phases: dict[str, Any]) -> None:
    """The request is not lost: its RESULT comes later."""
    with asking(here, 1):
        error = outcome(lambda: guard(here, 1, timeout=0.001)(phases["load"])("x"))
    (note,) = notes(error)
    assert "TimeoutError" in note
    assert until(lambda: os.path.exists(note.partition("will be in ")[2]), what="the RESULT that the note names")


def test_on_result_that_fails_hides_nothing(here: House, phases: dict[str, Any]) -> None:
    """It is the caller's own code, and told like everything else."""

    def apply(result: delegated.Result) -> None:
        raise RuntimeError("cannot apply")

    careless = guard(here, 1, on_result=apply)
    error = outcome(lambda: careless(phases["load"])("x"))
    assert isinstance(error, phases["Broken"])
    assert notes(error)[1] == "delegated: on_result failed: RuntimeError: cannot apply"
    assert careless.result is not None


def test_an_exception_that_takes_no_note_is_left_as_it_is(here: House) -> None:
    """A frozen one, say."""

    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    def fail() -> None:
        raise Frozen("as it is")

    still = guard(here, 1)
    assert isinstance(outcome(still(fail)), Frozen)
    assert still.result is not None


@pytest.mark.parametrize(
    ("n", "more", "said"),
    [(0, {}, "1 or more"), (True, {}, "1 or more"), (3, {"files": "a.py"}, "list"), (3, {"timeout": 0}, "timeout")],
)
def test_arguments_without_sense_are_refused_at_once(here: House, n: Any, more: dict[str, Any], said: str) -> None:
    """Not at the n-th failure, when nobody looks."""
    with pytest.raises(ValueError, match=said):
        guard(here, n, **more)


# What a failure is made of


def test_a_long_log_keeps_its_ends_and_an_error_its_files_once() -> None:
    """Cut in the middle, where least is lost; causes that form a ring are followed once."""
    log = shortened("a\n" * 250 + "b\n" * 250, 100)
    assert log == "a\n" * 12 + "a\n[… 901 characters …]\n" + "b\n" * 37
    assert shortened("short", 100) == "short"
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    assert list(frames_of(first)) == []
    run = [delegated.Failed(n, "", "E", log) for n, log in enumerate(["same", "other", "same"], 1)]
    assert as_logs(run) == "Attempts 1, 3 of 3:\nsame\n\nAttempt 2 of 3:\nother\n"


def test_a_note_cannot_drive_a_terminal() -> None:
    """A traceback is printed as it is, and the root cause is a model's words."""
    golden = from_json((Path(__file__).parent / "golden" / "result_root_cause_found.json").read_text())
    assert golden.analysis is not None
    evil = replace(golden.analysis, root_cause="\x1b]0;owned\x07first\n\x1b[31msecond\u202e" + "x" * 900)
    said = in_a_line(replace(golden, analysis=evil))
    assert said.startswith("root_cause_found (high): first second")
    assert said.isprintable()
    assert len(said) < 400
    assert in_a_line(replace(golden, analysis=None, status="duplicate", duplicate_of="other")) == "duplicate: other"


def test_only_the_workspaces_own_files_go_along(tmp_path: Path) -> None:
    """No library, no environment of the workspace, nothing outside, nothing that is no file; also through a link."""
    root, outside = tmp_path / "work", tmp_path / "outside.py"
    for name in ("a.py", ".venv/lib/b.py", "x/site-packages/c.py", "src/d.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    outside.write_text("")
    (root / "link.py").symlink_to(outside)
    (tmp_path / "again").symlink_to(root)
    paths = [*(root / name for name in ("a.py", ".venv/lib/b.py", "x/site-packages/c.py", "link.py", "none.py"))]
    found = own(str(root), [*map(str, paths), str(tmp_path / "again/src/d.py"), str(outside), "<string>", os.__file__])
    assert found == ("a.py", "src/d.py")


# For its users


PROGRAM = """\
import asyncio

import delegated


@delegated.after_failures(3)
def build(phase: int) -> str:
    return str(phase)


@delegated.after_failures(3, wait=False)
async def run(phase: int, *, fast: bool = False) -> list[str]:
    return [build(phase)]


def loop() -> delegated.Result | None:
    guard = delegated.after_failures(3, issue="it fails", files=["app.py"], on_result=print)
    while not guard.spent:
        with guard.attempt("a fix") as attempt:
            build(1)
        if not attempt.failed:
            break
    if guard.pending is not None and guard.pending.done:
        return guard.pending.wait(1.0)
    return guard.result


async def later(guard: delegated.Guard) -> None:
    async with guard.attempt("a fix"):
        await run(1, fast=True)


text: str = build(1)
rows: list[str] = asyncio.run(run(1))
"""


@pytest.mark.slow
def test_a_program_that_uses_it_passes_mypy(tmp_path: Path) -> None:
    """Strict mypy sees the functions through the decorator, and its complaints are real."""
    program = tmp_path / "program.py"
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path / 'cache'}", str(program)]
    program.write_text(PROGRAM)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    program.write_text(PROGRAM.replace("fast=True", "fast=1").replace("build(phase)]", 'build("x")]'))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.count("[arg-type]") == 2, done.stdout


def test_a_decorated_module_imports_little(here: House) -> None:
    """To guard a function costs a program no library: what asks is imported when it is asked."""
    code = textwrap.dedent(
        """
        import sys, delegated
        @delegated.after_failures(3)
        def f(): pass
        f()
        heavy = {"openai", "pydantic", "yaml", "structlog", "watchdog", "re2", "sqlite3", "ssl", "delegated.cli.asking"}
        print(sorted(heavy & sys.modules.keys()))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=here.env)
    assert done.stdout.strip() == "[]", done.stderr
