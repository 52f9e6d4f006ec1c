"""Counts failures in a row and delegates at the n-th, once: what a program that retries holds in its hand."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar, cast

from delegated.failures import Failed, as_logs, counts, failed, one_line, shortened
from delegated.pending import Asked, Begin, Pending, in_a_line

if TYPE_CHECKING:
    from delegated.result import Result

P = ParamSpec("P")
R = TypeVar("R")

_LOG_CHARS: Final = 32 << 10  # of one attempt
_ALL_CHARS: Final = 256 << 10  # of all attempts together


class Attempt:
    """One try, as a context manager: an exception in its block is recorded and ends there.

    Only what counts as a failure does (see `Guard`): anything else goes on as it would without it. After the block
    `failed` says how it went and `error` holds the exception.
    """

    def __init__(self, guard: Guard, tried: str) -> None:
        self.failed = False
        self.error: Exception | None = None
        self._guard = guard
        self._tried = tried
        self._said: tuple[str, str] | None = None

    def fail(self, error: str, log: str = "") -> None:
        """Let the attempt count as failed without an exception: `error` in a sentence, `log` what a tool wrote."""
        self._said = (error, log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        question = self._end(error, tb)
        if question is not None:
            self._guard._ask(question)
        return self.error is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool:
        question = self._end(error, tb)
        if question is not None:
            await self._guard._ask_beside(question)
        return self.error is not None

    def _end(self, error: BaseException | None, tb: TracebackType | None) -> _Question | None:
        if error is not None:
            question = self._guard._note(error, tb, self._tried)
            self.error = error if isinstance(error, Exception) and counts(error) else None
            self.failed = self.error is not None
            return question
        if self._said is not None:
            self.failed = True
            return self._guard._note_words(*self._said, self._tried)
        self._guard._succeeded()
        return None


class Guard:
    """Counts failures in a row, and delegates at the n-th: once for a run of failures, which a success ends.

    As a decorator, and as `with guard:`, it lets each exception go on, the n-th with a note of the answer;
    `with guard.attempt("what was tried"):` keeps it. `KeyboardInterrupt`, `SystemExit`, cancellation and whatever else
    is no `Exception` neither count nor end a run. Threads may share a guard.
    """

    def __init__(
        self,
        n: int,
        *,
        begin: Begin,
        issue: str,
        files: Sequence[str],
        timeout: float | None,
        wait: bool,
        on_result: Callable[[Result], object] | None,
        **more: Any,
    ) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n should be a number of failures, 1 or more; it is {n!r}")
        if isinstance(files, str):
            raise ValueError("files should be a list of texts, not one text")
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout should be more than 0 seconds, or None for no limit; it is {timeout!r}")
        self.n = n
        self._begin = begin
        self._issue = issue
        self._files = tuple(files)
        self._timeout = timeout
        self._waits = wait
        self._on_result = on_result
        self._more = more
        self._most = min(_LOG_CHARS, _ALL_CHARS // n)
        self._lock = threading.Lock()
        self._run: list[Failed] = []
        self._count = 0
        self._result: Result | None = None
        self._pending: Pending | None = None
        self._problem = ""

    @property
    def failures(self) -> tuple[Failed, ...]:
        """Return the failures of this run, at most the first n."""
        with self._lock:
            return tuple(self._run)

    @property
    def spent(self) -> bool:
        """Say whether n attempts in a row have failed."""
        return self._count >= self.n

    @property
    def result(self) -> Result | None:
        """Return the RESULT of the last delegation, None while there is none."""
        return self._result if self._pending is None else self._pending.result

    @property
    def pending(self) -> Pending | None:
        """Return the last delegation itself, where it is not waited for (`wait=False`)."""
        return self._pending

    @property
    def problem(self) -> str:
        """Say why the last delegation brought no RESULT, or `on_result` failed; "" where all is well."""
        if self._pending is not None and self._pending.error is not None:
            return one_line(self._pending.error)
        return self._problem

    def attempt(self, tried: str = "") -> Attempt:
        """Return a context manager for one attempt; `tried` says what it does differently, in a sentence."""
        return Attempt(self, tried)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            self._succeeded()
        elif (question := self._note(error, tb)) is not None:
            self._ask(question)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if error is None:
            self._succeeded()
        elif (question := self._note(error, tb)) is not None:
            await self._ask_beside(question)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard each call of a function, or of a coroutine function."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("a generator fails while it is read, not when it is called: guard what reads it")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with self:
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", awaited)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return called

    # Counting

    def _succeeded(self) -> None:
        with self._lock:
            self._run, self._count = [], 0

    def _note(self, error: BaseException, tb: TracebackType | None, tried: str = "") -> _Question | None:
        if not isinstance(error, Exception) or not counts(error):
            return None
        record = failed(0, tried, error, tb, most=self._most, without=__file__)
        return self._count_in(record, error)

    def _note_words(self, error: str, log: str, tried: str) -> _Question | None:
        return self._count_in(Failed(0, tried, " ".join(error.split()), shortened(log, self._most)), None)

    def _count_in(self, record: Failed, error: Exception | None) -> _Question | None:
        """Count a failure; the n-th of a run, and no other, returns what is to be asked."""
        with self._lock:
            self._count += 1
            if self._count > self.n:
                return None
            self._run.append(replace(record, number=self._count))
            return _Question(error, tuple(self._run)) if self._count == self.n else None

    # Asking

    def _ask(self, question: _Question) -> None:
        asked = self._drop(question)
        if asked is None:
            return
        if not self._waits:
            self._leave(asked, question)
            return
        try:
            result = asked.result(self._timeout)
        except Exception as trouble:  # noqa: BLE001 - what fails here must not hide what failed there
            self._trouble(question, trouble, asked)
        else:
            self._answered(question, result, asked.page)

    async def _ask_beside(self, question: _Question) -> None:
        """Ask without holding up the event loop; who is cancelled meanwhile leaves, and the request is answered."""
        import asyncio

        asked = await asyncio.to_thread(self._drop, question)
        if asked is None:
            return
        if not self._waits:
            self._leave(asked, question)
            return
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def tell(pending: Pending) -> None:
            with suppress(RuntimeError):  # the loop was closed, nobody waits any more
                loop.call_soon_threadsafe(over.set)

        pending = Pending(asked, self._timeout, tell)
        await over.wait()
        if pending.result is not None:
            self._answered(question, pending.result, asked.page)
        elif pending.error is not None:
            self._trouble(question, pending.error, asked)

    def _drop(self, question: _Question) -> Asked | None:
        self._result, self._pending, self._problem = None, None, ""  # those of a former run are no answer to this one
        run = question.run
        again = f"{self.n} attempts in a row failed, the last with " if self.n > 1 else ""
        try:
            return self._begin(
                self._issue or f"{again}{run[-1].error}",
                files=self._files,
                frames=tuple(dict.fromkeys(path for each in reversed(run) for path in each.frames)),
                logs=as_logs(run),
                attempted_fixes=tuple(f"{each.tried}: {each.error}" for each in run if each.tried),
                **self._more,
            )
        except Exception as trouble:  # noqa: BLE001 - as above
            self._trouble(question, trouble, None)
            return None

    def _leave(self, asked: Asked, question: _Question) -> None:
        self._pending = Pending(asked, self._timeout, self._settled)
        _add_note(question.error, f"delegated: asked as {asked.id}; the answer will be in {asked.page}")

    def _settled(self, pending: Pending) -> None:
        if pending.result is not None:
            self._hand_over(pending.result, None)

    def _answered(self, question: _Question, result: Result, page: str) -> None:
        self._result = result
        if question.error is not None:
            _add_note(question.error, f"delegated: {in_a_line(result)} [{page}]")
            with suppress(Exception):  # a frozen one
                question.error.delegated_result = result  # type: ignore[attr-defined]
        self._hand_over(result, question.error)

    def _hand_over(self, result: Result, error: Exception | None) -> None:
        if self._on_result is None:
            return
        try:
            self._on_result(result)
        except Exception as trouble:  # noqa: BLE001 - as above
            self._problem = f"on_result failed: {one_line(trouble)}"
            _add_note(error, f"delegated: {self._problem}")

    def _trouble(self, question: _Question, trouble: Exception, asked: Asked | None) -> None:
        self._problem = one_line(trouble)
        where = f"; the request is not lost, its answer will be in {asked.page}" if asked is not None else ""
        _add_note(question.error, f"delegated: no second opinion: {self._problem}{where}")


@dataclass(frozen=True, slots=True)
class _Question:
    """The exception that the n-th failure raised (None: it raised none), and the run that it ended."""

    error: Exception | None
    run: tuple[Failed, ...]


def _add_note(error: Exception | None, note: str) -> None:
    if error is not None:
        with suppress(Exception):  # a frozen one
            error.add_note(note)
