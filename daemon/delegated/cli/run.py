"""Run a request that is not run by itself: it is older than the registration of its workspace, or tracked by git."""

from __future__ import annotations

import argparse

from . import exits, report, terminal
from . import place as places
from .arguments import order_flags, place_flags, place_of
from .place import Absent


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `run`."""
    parser.add_argument("id", help="the request's id")
    order_flags(parser)
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Drop the order, and wait."""
    place, key = place_of(args), places.check_id(args.id)
    places.require(place, key)
    before = places.signature(place, key)
    if before is not None and not places.edited(place, key, places.read_result(place, key) or {}):
        terminal.say(f"{key} is settled already; to ask it again: delegate retry {key}{place.flags()}")
        return report.show(place, key, as_json=args.json)
    if before is None and places.deleted(place, key) is not None:
        raise places.gone(place, key)
    why = places.unready(place, key)
    if why:
        raise Absent(why, f"save it whole, then: delegate run {key}{place.flags()}")
    places.register(place)
    served = places.holder(place)
    if served is not None or args.no_wait:  # a daemon of our own is told by its command line
        order = places.give_order(place, "RUN", key)
        if args.no_wait:
            terminal.out(order)
            if served is None:
                terminal.say("no daemon serves this folder: it is run as soon as one does")
            terminal.next_step(f"delegate wait {key}{place.flags()}")
            return exits.OK
    return report.settle_and_show(
        place,
        key,
        served=served is not None,
        timeout=args.timeout,
        as_json=args.json,
        quiet=args.quiet,
        before=before,
    )
