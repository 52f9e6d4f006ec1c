"""Stop a request: it ends in a RESULT with status `cancelled`."""

from __future__ import annotations

import argparse

from . import exits, terminal
from . import place as places
from .arguments import place_flags, place_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `cancel`."""
    parser.add_argument("id", help="the request's id")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Drop the order."""
    place, key = place_of(args), places.check_id(args.id)
    places.require(place, key)
    result = places.read_result(place, key)
    if result is not None and places.read_status(place, key) is None:
        terminal.say(f"{key} is settled already: {result.get('status')}")
        terminal.next_step(f"delegate show {key}{place.flags()}")
        return exits.OK
    if places.deleted(place, key) is not None:
        terminal.say(f"{key} is {places.DELETED}")
        terminal.next_step(f"delegate republish {key}{place.flags()}")
        return exits.OK
    terminal.out(places.give_order(place, "CANCEL", key))
    if places.holder(place) is None:
        terminal.say("no daemon serves this folder: it is cancelled as soon as one does")
    terminal.next_step(f"delegate wait {key}{place.flags()}")
    return exits.OK
