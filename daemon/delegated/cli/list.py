"""List the requests, the newest first, and how they ended."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from . import exits, terminal
from . import place as places
from .arguments import count, place_flags, place_of
from .outcome import said
from .place import Place, Row


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `list`."""
    parser.add_argument("-n", "--number", metavar="N", type=count, default=20, help="how many at most; default: 20")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--json", action="store_true", help="print a JSON array")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    place = place_of(args)
    rows = places.rows(place)
    shown = rows if args.all else rows[: args.number]
    left = places.not_run(place, [row.id for row in shown if row.state == "waiting"])
    items = [summary(place, row, left.get(row.id, "")) for row in shown]
    if args.json:
        terminal.out_json(items)
        return exits.OK
    if not items:
        terminal.say(f"no requests in {place.folder}")
        terminal.next_step('delegate ask --issue "what is wrong" --files src/main.py')
        return exits.OK
    now = time.time()
    told = any(item["outcome"] for item in items)  # without any, the column would only take room
    table = [("ID", "STATE", "VERDICT", "CONFIDENCE", *(("OUTCOME",) if told else ()), "AGE", "COST", "ISSUE")]
    for item in items:
        cost = item["cost_usd"]
        table.append(
            (
                item["id"],
                item["status"],
                item["verdict"],
                item["confidence"],
                *((item["outcome"],) if told else ()),
                age(now - item["at"]),
                f"${cost:.4f}" if isinstance(cost, int | float) else "",
                item["title"][:60],
            )
        )
    _print(table)
    settled = next((row.id for row in shown if row.state == "settled"), "")
    if left:
        terminal.next_step(f"delegate run {next(row.id for row in shown if row.id in left)}{place.flags()}")
    elif settled:
        terminal.next_step(f"delegate show {settled}{place.flags()}")
    if len(rows) > len(shown):
        terminal.say(f"{len(rows) - len(shown)} more: delegate list --all")
    return exits.OK


def _print(table: Sequence[tuple[str, ...]]) -> None:
    """Print a table; where a line of it is too long for a terminal, its last column gets lines of its own."""
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]) - 1)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in table]
    room = terminal.width(sys.stdout)
    if room is None or room > max(len(line) + 2 + len(row[-1]) for line, row in zip(lines, table, strict=True)):
        for line, row in zip(lines, table, strict=True):
            terminal.out(f"{line}  {row[-1]}".rstrip())
        return
    fits = room > max(map(len, lines))
    for line, row in zip(lines if fits else lines[1:], table if fits else table[1:], strict=True):
        if fits:
            terminal.out(line.rstrip())
        else:
            terminal.wrapped(" · ".join(filter(None, row[:-1])), room - 1, "", "  ")
        if row is not table[0] and row[-1]:
            terminal.wrapped(row[-1], room - 1, "  ", "  ")


def summary(place: Place, row: Row, not_run: str) -> dict[str, Any]:
    """Say in a word or a number each what a list shows of a request; `not_run` is why it is not run by itself."""
    result = places.read_result(place, row.id) if row.state == "settled" else None
    result = result or {}
    about = result.get("request")
    title = about.get("title") if isinstance(about, dict) else ""
    confidence = result.get("confidence")
    if isinstance(confidence, dict):
        confidence = confidence.get("level")
    return {
        "id": row.id,
        "state": row.state,
        "status": _word(result.get("status")) or (f"not run: {not_run}" if not_run else row.state),
        "verdict": _word(result.get("verdict")),
        "confidence": _word(confidence),
        "outcome": said(place, row.id, result)[0] if result else "",
        "at": row.at,
        "cost_usd": result.get("cost_usd"),
        "model": _word(result.get("model")),
        "title": _word(title),
    }


def _word(value: object) -> str:
    """Return a text on one line, "" for anything else."""
    return " ".join(terminal.clean(value).split()) if isinstance(value, str) else ""


def age(seconds: float) -> str:
    """Write how long ago something was, in its largest unit."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
