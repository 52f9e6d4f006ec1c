"""A question that was asked and is being answered: waited for in a thread of its own, looked at from any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from delegated.result import Result

_ROOT_CAUSE_CHARS: Final = 300


class Asked(Protocol):
    """A request that lies in the folder."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def page(self) -> str:
        """The path at which its RESULT.md is put."""

    def result(self, timeout: float | None) -> Result:
        """Wait for the RESULT for at most `timeout` seconds. Raises as `delegated.ask`."""


Begin = Callable[..., Asked]
"""Drops a request: the arguments of `delegated.ask` without `timeout`, and `frames`, the files of tracebacks."""


class Pending:
    """A question that is being answered, by a daemon or by a process that was started for it.

    `id` is the request's, `page` where its RESULT.md will be. It is answered also when this program ends before, by the
    daemon that serves the folder.
    """

    def __init__(self, asked: Asked, timeout: float | None, settled: Callable[[Pending], None]) -> None:
        self.id = asked.id
        self.page = asked.page
        self.error: Exception | None = None
        self._result: Result | None = None
        self._asked = asked
        self._timeout = timeout
        self._settled = settled
        self._over = threading.Event()
        # A daemon thread: a program that ends does not wait for an answer that nobody reads any more.
        threading.Thread(target=self._wait, name=f"delegated {self.id}", daemon=True).start()

    def _wait(self) -> None:
        try:
            self._result = self._asked.result(self._timeout)
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            self.error = error
        self._over.set()
        self._settled(self)

    @property
    def done(self) -> bool:
        """Say whether there is a RESULT, or will be none (`error`)."""
        return self._over.is_set()

    @property
    def result(self) -> Result | None:
        """Return the RESULT, None while there is none."""
        return self._result

    def wait(self, timeout: float | None = None) -> Result:
        """Wait for at most `timeout` seconds. Raises `TimeoutError`, and what `delegated.ask` raises."""
        if not self._over.wait(timeout):
            raise TimeoutError(f"no RESULT for {self.id} within the time given")
        if self._result is None:
            raise self.error or TimeoutError(f"no RESULT for {self.id}")
        return self._result


def in_a_line(result: Result) -> str:
    """Say a RESULT in a line that may be printed: a model's words are not to be trusted."""
    from delegated.markdown import line

    found = result.analysis
    if found is not None:
        return f"{found.verdict} ({found.confidence.level}): {line(found.root_cause, _ROOT_CAUSE_CHARS)}"
    why = result.error.message if result.error is not None else result.duplicate_of
    return f"{result.status}: {line(why, _ROOT_CAUSE_CHARS)}"
