"""Check the configuration and start nothing; every problem is shown at once, with its place."""

from __future__ import annotations

import argparse
import os

from . import exits, terminal
from .arguments import place_flags, place_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `check`."""
    parser.add_argument("--config", metavar="PATH", help="read this file in place of the user's")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Load it."""
    from delegated import config
    from delegated.errors import KINDS, OperatorError, Refused
    from delegated.outfit import Models
    from delegated.tokens import counter

    workspace = place_of(args).workspace
    found = config.load(workspace=workspace, user_file=args.config)  # raises ConfigError with all problems
    for path in config.files(workspace=workspace, user_file=args.config):
        terminal.out(f"{'read  ' if os.path.exists(path) else 'absent'}  {path}")
    terminal.out(f"model   {found.model}")
    try:
        Models(found, os.environ, counter).find(found.model)
    except Refused as error:
        # A key may be another environment's: doctor looks for it.
        if error.kind in ("unknown_model", "retired_model", "missing_package"):
            raise OperatorError(str(error), exits.CONFIGURATION, KINDS[error.kind].hint) from error
    _, problems = config.secret_rules(found, (workspace,))
    for warning in (*config.warnings(found, os.environ), *problems):
        terminal.warn(warning)
    terminal.say("the configuration can be used")
    return exits.OK
