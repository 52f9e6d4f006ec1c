"""Print a RESULT."""

from __future__ import annotations

import argparse

from . import exits, report, terminal
from . import place as places
from .arguments import place_flags, place_of
from .place import Absent


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `show`."""
    parser.add_argument("id", nargs="?", help="the request's id; default: the newest RESULT")
    parser.add_argument("--json", action="store_true", help="print RESULT.json instead of RESULT.md")
    parser.add_argument("--raw", action="store_true", help="print the model's reply, with secrets replaced")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print what stands."""
    place = place_of(args)
    if args.id is None:
        key = next((row.id for row in places.rows(place) if row.state == "settled"), "")
        if not key:
            raise Absent(f"there is no RESULT in {place.folder}", "`delegate ask --issue ...` asks for one")
    else:
        key = places.check_id(args.id)
        places.require(place, key)
    if args.raw:
        return _raw(place, key)
    if places.signature(place, key) is None:
        if places.deleted(place, key) is not None:
            raise places.gone(place, key)
        running = places.read_status(place, key) is not None
        doing = "runs" if running else "waits"
        raise Absent(f"there is no RESULT for {key} yet: it {doing}", f"delegate wait {key}{place.flags()}")
    code = report.show(place, key, as_json=args.json)
    further = places.about(place, key)
    if further:
        terminal.say(f"asked further: {', '.join(further)}")
    return code


def _raw(place: places.Place, key: str) -> int:
    result = places.read_result(place, key)
    raw = result.get("raw_response") if result else None
    if not isinstance(raw, str) or not raw:
        raise Absent(f"the RESULT of {key} keeps no reply: no model was heard", f"delegate show {key}{place.flags()}")
    terminal.out_exactly(raw, "surrogatepass")
    return exits.OK
