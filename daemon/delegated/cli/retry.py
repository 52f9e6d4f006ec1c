"""Ask a request again, as its next revision. The former RESULT is kept in the journal's history."""

from __future__ import annotations

import argparse
import sys

from . import exits, report, terminal
from . import place as places
from .arguments import order_flags, place_flags, place_of
from .place import Absent, Usage


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `retry`."""
    parser.add_argument("id", help="the request's id")
    parser.add_argument("--yes", action="store_true", help="ask again although that may be billed twice")
    order_flags(parser)
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Drop the order, and wait."""
    place, key = place_of(args), places.check_id(args.id)
    places.require(place, key)
    result = places.read_result(place, key)
    ended = result.get("status") if result is not None else places.deleted(place, key)
    if ended is None and result is None:
        raise Absent(f"{key} is not settled: there is nothing to ask again", f"delegate wait {key}{place.flags()}")
    if places.job_place(place, key) is None:
        raise Absent(f"the journal of {place.folder} does not know {key}", "save its REQUEST again to ask anew")
    if not places.request_names(place, key) and places.purged(place, key):
        raise Absent(f"what {key} asked was purged, and its REQUEST is gone", "save its REQUEST again to ask anew")
    if ended == "uncertain" and not args.yes:
        _agree(key)
    before = places.signature(place, key)
    served = places.holder(place)
    order = places.give_order(place, "RETRY", key)
    if args.no_wait:
        terminal.out(order)
        if served is None:
            terminal.say("no daemon serves this folder: it is asked again as soon as one does")
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


def _agree(key: str) -> None:
    """Let a person agree to what may cost twice; a program has to say so with `--yes`."""
    words = f"{key} is uncertain: its call may have been billed already, and asking again may bill twice"
    if not (terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stderr)):
        raise Usage(words, f"delegate retry {key} --yes")
    terminal.say(words)
    sys.stderr.write("ask again? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Usage("not asked again", f"delegate show {key}")
