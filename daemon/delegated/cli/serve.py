"""Serve drop folders: answer every request that is dropped into them, until stopped."""

from __future__ import annotations

import argparse
import os
from typing import Any, Final

from delegated.errors import OperatorError

from . import exits
from .place import Usage, check_id, find


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `delegated`."""
    add = parser.add_argument
    add(
        "--workspace",
        metavar="PATH",
        action="append",
        default=[],
        help="a workspace to serve; may be repeated. Default: the configured ones, else the one around here",
    )
    add("--once", action="store_true", help="answer what is in the folder, then leave; the exit code is the worst end")
    add("--only", metavar="ID", type=check_id, help="answer this request alone, then leave")
    add(
        "--require-sandbox",
        action="store_true",
        help="leave with 78 unless homes are out of sight and of each workspace only the folder can be written",
    )
    add("--config", metavar="PATH", help="read this file in place of the user's configuration")
    add("--model", metavar="NAME", help="the model to ask where a request names none")
    add("--log-level", metavar="LEVEL", choices=("debug", "info", "warning", "error"), help="the least severe to log")


_WORST: Final = ("uncertain", "failed", "rejected", "cancelled")


def run(args: argparse.Namespace) -> int:
    """Serve until stopped; with `--once` or `--only` return how it ended."""
    require_posix()
    from delegated import app, config

    flags: dict[str, Any] = {"model": args.model, "log": {"level": args.log_level}}

    absent: list[str] = []

    def load(workspace: str | None) -> config.Config:
        found = config.load(workspace=workspace, user_file=args.config, flags=flags)
        if args.require_sandbox and workspace in absent:  # it could not be looked at before
            _require_sandbox([(workspace, os.path.join(workspace, found.folder))])
        return found

    workspaces = [os.path.abspath(os.path.expanduser(path)) for path in args.workspace]
    if len(workspaces) == 1 and not os.path.isdir(workspaces[0]) and not os.environ.get("NOTIFY_SOCKET"):
        # By hand a name is mistyped; a service's was right once, and its disk may be mounted later.
        raise Usage(f"the workspace {workspaces[0]} is not a directory", "--workspace takes the root of the code")
    if not workspaces:
        workspaces = [os.path.expanduser(path) for path in load(None).workspaces] or [find().workspace]
    if args.only and len(workspaces) > 1:
        raise Usage("--only needs exactly one workspace", "name it with --workspace")
    if args.require_sandbox:
        _require_sandbox([(path, os.path.join(path, load(path).folder)) for path in workspaces])
    absent += [path for path in workspaces if not os.path.isdir(path)]
    ended = app.serve(load, workspaces, once=args.once, only=args.only)
    if not (args.once or args.only):
        return exits.OK
    well = exits.CANNOT_WRITE if absent else exits.OK
    return next((exits.for_status(status) for status in _WORST if status in ended.values()), well)


def require_posix() -> None:
    """Raise `OperatorError` where the daemon cannot run."""
    from delegated.disk import SERVES

    if not SERVES:
        raise OperatorError(
            "the daemon needs a POSIX system: locks, and files opened below a directory without following links",
            exits.CONFIGURATION,
            "on Windows run it inside WSL 2, beside the code (docs/service.md)",
        )


def _require_sandbox(workspaces: list[tuple[str, str]]) -> None:
    """Raise `OperatorError` with everything that a confined daemon could not reach."""
    from delegated.sandbox import breaches

    found = breaches(workspaces, os.environ)
    if found:
        raise OperatorError(
            "the sandbox that --require-sandbox asks for is not in force:" + "".join(f"\n  {each}" for each in found),
            exits.CONFIGURATION,
            "the service manager did not build what the unit asks for (docs/service.md says where that happens); "
            "without --require-sandbox the daemon serves all the same",
        )


if __name__ == "__main__":
    import sys

    from . import main_daemon

    sys.exit(main_daemon())
