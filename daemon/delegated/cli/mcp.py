"""Serve the Model Context Protocol on stdin and stdout, so that an agent can ask; it ends when stdin does."""

from __future__ import annotations

import argparse
import os
import sys

from . import exits
from .arguments import place_flags, place_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `mcp`."""
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until the agent leaves."""
    from delegated import __version__

    from .mcp_tools import Tools
    from .mcp_wire import Wire

    place = place_of(args)
    # Nothing but the protocol may reach the agent: whatever else is written to stdout goes to stderr from here on.
    sys.stdout.flush()
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        Wire(Tools(place), __version__, out).serve(sys.stdin.buffer)
    finally:
        os.close(out)
    return exits.OK
