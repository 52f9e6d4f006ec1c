"""The flags that several commands share, and a parser that says what would be right."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import NoReturn

from . import exits, terminal
from .place import Place, find


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` of one command. Long options are not abbreviated: a later one must not change a script."""

    def __init__(self, *, prog: str, description: str | None = None, **rest: object) -> None:
        super().__init__(prog=prog, description=(description or "").strip() or None, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong on stderr and leave with the exit code of a wrong usage."""
        terminal.error(message, f"`{self.prog} --help` shows the options", program=self.prog)
        raise SystemExit(exits.USAGE)


def place_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the workspace and its folder."""
    parser.add_argument(
        "--workspace",
        metavar="PATH",
        help="root of the code; default: the nearest parent that holds .autonomous_runs, else the current directory",
    )
    parser.add_argument(
        "--folder", metavar="PATH", help="the drop folder, where it is not .autonomous_runs/openai_delegations"
    )


def order_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a command that gives an order and then waits for the RESULT."""
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the RESULT")
    parser.add_argument("--timeout", metavar="TIME", type=some_seconds, help="how long, in seconds or as 90s, 5m")
    parser.add_argument("--json", action="store_true", help="print RESULT.json instead of RESULT.md")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def place_of(args: argparse.Namespace) -> Place:
    """Return the place that the flags name."""
    return find(args.workspace, args.folder)


def seconds(text: str) -> float:
    """Read a number of seconds, also as `90s`, `5m` or `2h`."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    scale = units.get(text[-1:], 0.0)
    try:
        value = float(text[:-1]) * scale if scale else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!a} is no time: give seconds, or 90s, 5m, 2h")
    return value


def some_seconds(text: str) -> float:
    """Read a time to wait for something that is only just asked: more than none."""
    value = seconds(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!a} is no time to wait; --no-wait asks without waiting")
    return value


def count(text: str) -> int:
    """Read how many: 1 or more."""
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!a} is no number of rows: give 1 or more, or --all")
    return int(text)


def bind_values(argv: list[str], options: Collection[str], known: Collection[str]) -> list[str]:
    """Tie to each of `options` the argument that follows it, whatever that looks like, unless it is a `known` option.

    A log that begins with a hyphen is a value; argparse alone would take it for an option.
    """
    bound: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word == "--":
            bound.append(word)
            bound.extend(rest)
        elif word in options:
            value = next(rest, None)
            if value is None:
                bound.append(word)
            elif value.partition("=")[0] in known:
                bound.extend((word, value))
            else:
                bound.append(f"{word}={value}")
        else:
            bound.append(word)
    return bound
