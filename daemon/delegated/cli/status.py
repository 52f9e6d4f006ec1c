"""Say who serves the folder, what runs and what waits; with an id, where that request stands."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from delegated import folder as drop

from . import exits, terminal
from . import place as places
from .arguments import place_flags, place_of
from .list import age
from .place import Place
from .waiting import describe


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `status`."""
    parser.add_argument("id", nargs="?", help="a request's id")
    parser.add_argument("--json", action="store_true", help="print JSON")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print the state."""
    place = place_of(args)
    if args.id is not None:
        return _one(place, places.check_id(args.id), args.json)
    served = places.holder(place)
    named = args.folder is not None  # a workspace's own folder may be yet to come, one that is named should be there
    rows = places.rows(place) if named or os.path.isdir(place.folder) else []
    running = [row for row in rows if row.state == "running"]
    waiting = [row for row in rows if row.state == "waiting"]
    left = places.not_run(place, [row.id for row in waiting])
    waiting = [row for row in waiting if row.id not in left]
    deleted = [row.id for row in rows if row.state == places.DELETED]
    slow = (places.held(place) or places.slow(place)) if served is not None and waiting else ""
    if args.json:
        terminal.out_json(
            {
                "folder": place.folder,
                "workspace": place.workspace,
                "daemon": served,
                "running": [places.read_status(place, row.id) or {"id": row.id} for row in running],
                "waiting": [row.id for row in waiting],
                "not_run": left,
                "slow": slow,
                "settled": sum(1 for row in rows if row.state == "settled"),
                "deleted": deleted,
            }
        )
        return exits.OK
    terminal.out(f"folder   {place.folder}")
    terminal.out(f"daemon   {served or 'none'}")
    now = time.time()
    for row in running:
        stale = "" if served else " (left behind: nobody works on it)"
        terminal.out(f"running  {describe(row.id, places.read_status(place, row.id))}{stale}")
    for row in waiting:
        terminal.out(f"waiting  {row.id}, for {age(now - row.at)}")
    if slow:
        terminal.out(f"waiting  {len(waiting)}: {slow}")
    for key, why in left.items():
        terminal.out(f"waiting  {key}: not run: {why}")
    terminal.out(f"settled  {len(rows) - len(running) - len(waiting) - len(left) - len(deleted)}")
    for key in deleted:
        terminal.out(f"deleted  {key}: {places.DELETED}")
    kept = next((key for key in deleted if not places.purged(place, key)), "")
    if kept:
        terminal.next_step(f"delegate republish {kept}{place.flags()}")
    if left:
        terminal.next_step(f"delegate run {next(iter(left))}{place.flags()}")
    if served is None:
        terminal.next_step(f"delegated{place.workspace_flag()}")
    elif running or waiting:
        terminal.next_step(f"delegate wait {(running or waiting)[0].id}{place.flags()}")
    elif not left and not kept:
        terminal.next_step(f'delegate ask --issue "what is wrong"{place.flags()}')
    return exits.OK


def _one(place: Place, key: str, as_json: bool) -> int:
    places.require(place, key)
    result, status = places.read_result(place, key), places.read_status(place, key)
    served = places.holder(place)
    # A STATUS beside a RESULT is the tail of a revision that is just being settled, or one that was left behind.
    state = "settled" if result is not None else "running" if status is not None else "waiting"
    ended = places.deleted(place, key) if state == "waiting" else None
    if ended is not None:
        state = places.DELETED
    left = places.not_run(place, (key,)).get(key, "") if state == "waiting" else ""
    held = places.held(place) if state == "waiting" and served is not None and not left else ""
    names = [*places.request_names(place, key)]
    names += [name for each in ("md", "json", "patch") if _exists(place, name := drop.result_name(key, each))]
    names += [name] if _exists(place, name := drop.outcome_name(key)) else []
    told: dict[str, Any] = {
        "id": key,
        "state": state,
        "status": result.get("status") if result else ended,
        "daemon": served,
        "not_run": left,
        "job": status,
        "files": [place.path(name) for name in names],
    }
    if as_json:
        terminal.out_json(told)
        return exits.OK
    words = state if ended is not None else f"not run: {left}" if left else describe(key, status).partition(": ")[2]
    terminal.out(f"{key}: {result.get('status') if result else words}")
    for path in told["files"]:
        terminal.out(f"  {path}")
    if result is not None:
        terminal.next_step(f"delegate show {key}{place.flags()}")
    elif ended is not None:
        if not places.purged(place, key):
            terminal.next_step(f"delegate republish {key}{place.flags()}")
    elif left:
        terminal.next_step(f"delegate run {key}{place.flags()}")
    else:
        if served is None:
            terminal.say("no daemon serves this folder: `delegate wait` does the work itself")
        elif held:
            terminal.say(held)
        terminal.next_step(f"delegate wait {key}{place.flags()}")
    return exits.OK


def _exists(place: Place, name: str) -> bool:
    return os.path.lexists(place.path(name))
