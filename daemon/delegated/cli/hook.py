"""Answer a coding agent's hook: a prompt with a line `DELEGATE TO GPT-4O: …` becomes a request, its answer goes back.

For agents, which write a payload on standard input; `delegate init --agent` enters it in their files. Whatever happens,
the exit code is 0: a hook must not break the session that it is called from.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

# Nothing else here: most prompts do not delegate, and each of them pays for what is imported.

if TYPE_CHECKING:
    import argparse

_LIMIT: Final = 16 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `hook`."""
    from delegated.agents import NAMES

    from .arguments import some_seconds

    parser.add_argument("host", choices=NAMES, help="the agent whose hook this is")
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=some_seconds,
        help="how long to wait for the answer, in seconds or as 90s; below the limit of the entry (default: 110)",
    )


def at_once(argv: list[str]) -> int | None:
    """Answer what an agent has written on standard input; None when no agent called."""
    if not argv or "-h" in argv or "--help" in argv or sys.stdin is None or sys.stdin.isatty():
        return None
    try:
        data = sys.stdin.buffer.read(_LIMIT + 1)
        if len(data) <= _LIMIT and _may_concern(data):
            _answer(argv, data)
    except BaseException:  # noqa: BLE001, S110 - a payload of any shape, Ctrl+C, a closed pipe: never at the session's cost
        pass
    return 0


def run(args: argparse.Namespace) -> int:
    """Say to a person what this is for."""
    from .place import Usage

    raise Usage(
        "this is for coding agents, which write a payload on standard input",
        f"`delegate init --agent {args.host}` sets it up; `delegate ask` asks by hand",
    )


def _answer(argv: list[str], data: bytes) -> None:
    """Answer a payload that holds the phrase, or an agent that stops. May raise anything."""
    import json

    from delegated.agents import NAMES, hosts, said

    event = hosts.read(next(word for word in argv if word in NAMES), json.loads(data))
    if event is None or (event.kind == "prompt" and said.delegated(event.prompt) is None):
        return
    from .hooked import answer

    answer(event, argv)


def _may_concern(data: bytes) -> bool:
    """Say, without parsing anything, whether a payload may hold the phrase or may be a stop that is waited for."""
    lower = data.lower()
    if b"delegate" in lower and b"4o" in lower:
        return True
    if b'"stop"' not in lower:
        return False
    from delegated.home import state_directory

    try:
        with os.scandir(os.path.join(state_directory(os.environ), "agents")) as waiting:
            return next(waiting, None) is not None
    except OSError:
        return False
