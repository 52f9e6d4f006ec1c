"""A dropped request file becomes a checked second opinion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from delegated.errors import OperatorError
    from delegated.result import Result

__version__ = "0.1.0"
__all__ = ["OperatorError", "Result", "__version__", "ask"]


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


def __getattr__(name: str) -> Any:
    """Import on first use: `import delegated` costs nothing."""
    if name == "Result":
        from delegated.result import Result

        return Result
    if name == "OperatorError":
        from delegated.errors import OperatorError

        return OperatorError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
