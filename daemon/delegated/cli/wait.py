"""Wait for the RESULT of a request, and print it. A request that was edited after its RESULT gets another one."""

from __future__ import annotations

import argparse

from . import place as places
from . import report, terminal
from .arguments import place_flags, place_of, seconds
from .place import Absent


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `wait`."""
    parser.add_argument("id", help="the request's id")
    parser.add_argument("--timeout", metavar="TIME", type=seconds, help="how long, in seconds or as 90s, 5m")
    parser.add_argument("--json", action="store_true", help="print RESULT.json instead of RESULT.md")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Wait, doing the work here where no daemon does it."""
    place, key = place_of(args), places.check_id(args.id)
    places.require(place, key)
    before = places.signature(place, key)
    if before is not None and not places.edited(place, key, places.read_result(place, key) or {}):
        return report.show(place, key, as_json=args.json)
    if before is None and places.deleted(place, key) is not None:
        raise places.gone(place, key)
    why = places.unready(place, key)
    if why:
        raise Absent(why, f"save it whole, then: delegate wait {key}{place.flags()}")
    served = places.holder(place)
    left = places.not_run(place, (key,)).get(key) if served is not None else None
    if left:
        raise Absent(f"{key} is not run: {left}", f"delegate run {key}{place.flags()}")
    if served is None:
        terminal.say("no daemon serves this folder: doing the work here")
    return report.settle_and_show(
        place,
        key,
        served=served is not None,
        timeout=args.timeout,
        as_json=args.json,
        quiet=args.quiet,
        before=before,
    )
