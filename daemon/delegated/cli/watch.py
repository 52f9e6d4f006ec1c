"""Follow the RESULTs of a workspace as they come, for a person or for an editor's list of problems."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from delegated import folder as drop

from . import exits, report, ringing, terminal
from . import place as places
from .arguments import count, place_flags, place_of, some_seconds
from .findings import Finding, confidence_of, findings, headline, one_line, page
from .following import follow, oldest_first, standing
from .place import Place

_COLUMNS: Final = 80
_MOST_PROSE: Final = 1200


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `watch`."""
    add = parser.add_argument
    add(
        "--format",
        choices=tuple(_FORMATS),
        default="pretty",
        help="pretty: for reading; gcc: path:line: warning: text, for editors; json: one object a line",
    )
    add(
        "--once", action="store_true", help="leave after the first RESULT, or after those that --all and --last ask for"
    )
    add("--all", action="store_true", help="begin with the RESULTs that are there")
    add("--last", metavar="N", type=count, help="begin with the newest N of those that are there")
    add("--timeout", metavar="TIME", type=some_seconds, help="how long to follow, in seconds or as 90s, 5m")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print what stands if that is asked for, then what comes."""
    place = place_of(args)
    show = _FORMATS[args.format]
    seen = standing(place)
    old = oldest_first(place, seen) if args.all or args.last else []
    for key in old if args.all else old[-(args.last or 1) :]:
        _print(show, place, key)
    if args.once and (args.all or args.last):
        return exits.OK
    terminal.say(f"following {place.folder}; Ctrl+C ends it")
    if places.holder(place) is None:
        terminal.warn("no daemon serves this folder: only what `delegate ask` and others answer will come")
        terminal.next_step(f"delegated{place.workspace_flag()}")
    began = time.monotonic()
    deadline = None if args.timeout is None else began + args.timeout
    try:
        for key in follow(place, seen, deadline=deadline):
            status = _print(show, place, key)
            ringing.ring(place, key, time.monotonic() - began)
            began = time.monotonic()
            if args.once and status:
                return exits.for_status(status)
    except TimeoutError as error:
        terminal.say(str(error) if args.once else "the time given is over")
        return exits.TIMED_OUT
    raise AssertionError("it is followed for ever")


def _print(show: Callable[[Place, str, dict[str, Any]], None], place: Place, key: str) -> str:
    """Print one RESULT; return its status, "" where it cannot be read."""
    result = places.read_result(place, key)
    if result is None:
        terminal.warn(f"{place.path(drop.result_name(key, 'json'))} cannot be read")
        return ""
    show(place, key, result)
    with terminal.writing():
        sys.stdout.flush()  # whoever reads a pipe waits for this RESULT, not for a full buffer
    return one_line(result.get("status")) or "failed"


def _gcc(place: Place, key: str, result: dict[str, Any]) -> None:
    """Write a line per finding as a compiler does, between a line `begin` and one `end`; paths as seen from here."""
    sure, status = confidence_of(result), one_line(result.get("status"))
    terminal.out(f"delegate: begin {key}")
    # A colon in a path would end it early for whoever reads these lines.
    found = [each for each in findings(place, result) if ":" not in each.path]
    for each in found:
        kind = "warning" if each.kind == "cause" else "note"
        terminal.out(f"{_from_here(place, each.path)}:{each.line}: {kind}: {each.text} [{each.confidence}]")
    where = page(place, key)
    if where and not any(each.kind == "cause" for each in found):
        terminal.out(f"{_from_here(place, where)}:1: warning: {headline(result)} [{sure or status}]")
    terminal.out(f"delegate: end {key}: {', '.join(filter(None, (status, one_line(result.get('verdict')), sure)))}")


def _from_here(place: Place, path: str) -> str:
    full = os.path.join(place.workspace, path)
    here = os.path.realpath(os.getcwd())
    return os.path.relpath(os.path.realpath(full), here)


def _json(place: Place, key: str, result: dict[str, Any]) -> None:
    cost = result.get("cost_usd")
    value = {
        "id": key,
        "status": one_line(result.get("status")),
        "verdict": one_line(result.get("verdict")),
        "confidence": confidence_of(result),
        "title": _title(result),
        "text": headline(result),
        "model": one_line(result.get("model")),
        "cost_usd": cost if isinstance(cost, int | float) else None,
        "findings": [_value(each) for each in findings(place, result)],
        "page": page(place, key),
        "next_command": report.next_command(result, key),
    }
    terminal.out_json(value, indent=None)


def _value(finding: Finding) -> dict[str, Any]:
    return {name: getattr(finding, name) for name in Finding.__slots__}


def _pretty(place: Place, key: str, result: dict[str, Any]) -> None:
    """Write a few lines for a person, wrapped to the terminal's width, else to 80 columns."""
    columns = max(20, min(terminal.width(sys.stdout) or _COLUMNS, 100) - 1)
    cost = result.get("cost_usd")
    head = [key, one_line(result.get("status")), one_line(result.get("verdict")).replace("_", " ")]
    head += [confidence_of(result), f"${cost:.4f}" if isinstance(cost, int | float) else ""]
    _tell(" · ".join(filter(None, head)), columns, "", "  ")
    if _title(result):
        _tell(_title(result), columns, "  ", "  ")
    found = findings(place, result)
    if not any(each.kind == "cause" for each in found):
        _tell(headline(result), columns, "  ", "  ")
    for each in found:
        sure = f" [{each.confidence}]" if each.confidence else ""
        _tell(f"{each.text}{sure}", columns, "  ", "    ")
        terminal.out(f"    {each.path}:{each.line}")  # whole, so that it can be clicked on
    after = report.next_command(result, key) or f"delegate show {key}"
    terminal.out(f"  next: {after}{place.flags()}\n")


def _tell(text: str, columns: int, first: str, rest: str) -> None:
    terminal.wrapped(text[:_MOST_PROSE], columns, first, rest)


def _title(result: dict[str, Any]) -> str:
    about = result.get("request")
    return one_line(about.get("title")) if isinstance(about, dict) else ""


_FORMATS: Final[dict[str, Callable[[Place, str, dict[str, Any]], None]]] = {
    "pretty": _pretty,
    "gcc": _gcc,
    "json": _json,
}
