"""A dropped request file becomes a checked second opinion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from delegated.errors import OperatorError
    from delegated.failures import Failed
    from delegated.guard import Attempt, Guard
    from delegated.pending import Pending
    from delegated.result import Result

__version__ = "0.1.0"
__all__ = [
    "Attempt",
    "Failed",
    "Guard",
    "OperatorError",
    "Pending",
    "Result",
    "__version__",
    "after_failures",
    "ask",
    "result_of",
]


def ask(
    issue: str,
    *,
    files: Sequence[str] = (),
    logs: str = "",
    context: str = "",
    attempted_fixes: Sequence[str] = (),
    questions: Sequence[str] = (),
    workspace: str | None = None,
    model: str | None = None,
    timeout: float | None = None,
) -> Result:
    """Ask about an issue and wait for the RESULT; the command `delegate ask` is this function with a face.

    The daemon that serves the workspace's folder answers; where there is none, a process is started for this request.
    Blocks for at most `timeout` seconds. However it ended is a value, `result.status`. Raises `TimeoutError` (the
    request is not lost), `ValueError` when the arguments cannot be a request, `OperatorError` when the folder or the
    configuration cannot be used.
    """
    from importlib import import_module

    # By name: a room that imports this package must not count as one that imports the commands.
    result: Result = import_module("delegated.cli.asking").ask(
        issue,
        files=files,
        logs=logs,
        context=context,
        attempted_fixes=attempted_fixes,
        questions=questions,
        workspace=workspace,
        model=model,
        timeout=timeout,
    )
    return result


def after_failures(
    n: int,
    *,
    issue: str = "",
    files: Sequence[str] = (),
    context: str = "",
    questions: Sequence[str] = (),
    workspace: str | None = None,
    model: str | None = None,
    timeout: float | None = None,
    wait: bool = True,
    on_result: Callable[[Result], object] | None = None,
) -> Guard:
    """Delegate when the n-th attempt in a row fails, with what was tried, the tracebacks and the files they name.

    A decorator for functions and coroutine functions, and a context manager by itself and through `.attempt(...)`; see
    `Guard`. `issue` is the last error where it is not given; `files` come before those of the tracebacks. It waits for
    the RESULT for at most `timeout` seconds, or with `wait=False` not at all: `.pending` is then there to ask.
    `on_result` is called with the RESULT, with `wait=False` from another thread. What fails in delegating is never
    raised: `.problem` and a note on the exception say it. Raises `ValueError` when the arguments make no sense.
    """
    from importlib import import_module

    def begin(words: str, **more: Any) -> Any:
        return import_module("delegated.cli.asking").begin(words, **more)

    made: Guard = import_module("delegated.guard").Guard(
        n,
        begin=begin,
        issue=issue,
        files=files,
        context=context,
        questions=questions,
        workspace=workspace,
        model=model,
        timeout=timeout,
        wait=wait,
        on_result=on_result,
    )
    return made


def result_of(error: BaseException) -> Result | None:
    """Return the RESULT that `after_failures` attached to an exception, None where there is none."""
    found: Result | None = getattr(error, "delegated_result", None)
    return found


_OF: dict[str, str] = {
    "Attempt": "guard",
    "Failed": "failures",
    "Guard": "guard",
    "OperatorError": "errors",
    "Pending": "pending",
    "Result": "result",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `import delegated` costs nothing."""
    if name in _OF:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
