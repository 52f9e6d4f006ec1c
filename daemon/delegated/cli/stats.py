"""Show how often each confidence was right here, by what was said of RESULTs (`delegate outcome`)."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

from delegated import folder as drop
from delegated.calibration import ENOUGH, Judged, Row, brier, by_level, by_model, by_score
from delegated.folder import Folder
from delegated.outcomes import Outcomes, Standing

from . import exits, terminal
from .arguments import place_flags, place_of
from .place import JOURNAL, Place

_FEW: Final = 100  # files that are read sooner than the index is opened
_SHOWN: Final = 10  # files that do not count
_NAME: Final = 28  # columns for a model's name: the whole is then at most 80 wide


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `stats`."""
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print the tables."""
    place = place_of(args)
    results, known = _look(place)
    judged, unusable = known.judged, known.unusable()
    tables = (("CONFIDENCE", by_level(judged)), ("SCORE", by_score(judged)), ("MODEL", by_model(judged)))
    if args.json:
        terminal.out_json(_value(place, results, judged, tables, unusable))
        return exits.OK
    if judged:
        _print(tables, judged)
    _tell(place, results, len(judged), unusable)
    return exits.OK


def _look(place: Place) -> tuple[int, Outcomes]:
    """Count the RESULTs, and read what was said of them; of many, what a daemon remembers is not read again."""
    place.open().close()  # says what is wrong with it
    folder = Folder(place.folder, create=False)
    try:
        look = folder.look(leave=lambda entry, results: True)
        remembered: list[Standing] = []
        if len(look.outcomes) > _FEW:
            from delegated.index import judged

            remembered = judged(os.path.join(place.folder, JOURNAL, "index.sqlite"))
        known = Outcomes(folder, remembered)
        known.see(look.outcomes, full=True)
        return len(look.results), known
    finally:
        folder.close()


def _print(tables: Iterable[tuple[str, Sequence[Row]]], judged: Sequence[Judged]) -> None:
    cells = [
        [(title, "N", "FIXED", "PARTLY", "WRONG", "RIGHT", "95% INTERVAL"), *map(_cells, t)] for title, t in tables
    ]
    widths = [max(len(row[n]) for table in cells for row in table) for n in range(6)]
    for table in cells:
        for row in table:
            numbers = "  ".join(cell.rjust(width) for cell, width in zip(row[1:6], widths[1:], strict=True))
            terminal.out(f"{row[0].ljust(widths[0])}  {numbers}  {row[6]}".rstrip())
        terminal.out()
    distance = brier(judged)
    shown = f"not enough data (n = {len(judged)})" if distance is None else f"{distance:.3f} (n = {len(judged)})"
    terminal.out(f"Brier score: {shown}; 0 is perfect, 0.25 is what saying 0.5 each time gets")


def _cells(row: Row) -> tuple[str, ...]:
    name = terminal.clean(row.name) or "(none)"
    name = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
    numbers = (str(row.n), *(str(each or "") for each in (row.fixed, row.partly, row.wrong)))
    if row.share is None or row.interval is None:
        return (name, *numbers, "", "not enough data" if row.n else "")
    low, high = row.interval
    return (name, *numbers, f"{row.share:.0%}", f"{low:.0%} to {high:.0%}")


def _tell(place: Place, results: int, count: int, unusable: dict[str, str]) -> None:
    """Say what the tables rest on, what does not count, and what to do next."""
    beside = f"RESULTs in {place.folder}: {results}"
    terminal.say(f"outcomes that count: {count} (former revisions included); {beside}")
    for key in sorted(unusable)[:_SHOWN]:
        terminal.say(f"not counted: {drop.outcome_name(key)}: {unusable[key]}")
    if len(unusable) > _SHOWN:
        terminal.say(f"not counted: {len(unusable) - _SHOWN} more (--json lists them)")
    if count < ENOUGH:
        terminal.say(f"to say how one turned out: delegate outcome ID fixed{place.flags()} (or: partly, wrong)")


def _value(
    place: Place,
    results: int,
    judged: Sequence[Judged],
    tables: Iterable[tuple[str, Sequence[Row]]],
    unusable: dict[str, str],
) -> dict[str, Any]:
    distance = brier(judged)
    return {
        "folder": place.folder,
        "results": results,
        "judged": len(judged),
        "brier": None if distance is None else round(distance, 4),
        **{f"by_{title.lower()}": [_row(row) for row in rows] for title, rows in tables},
        "not_counted": [{"id": key, "why": unusable[key]} for key in sorted(unusable)],
    }


def _row(row: Row) -> dict[str, Any]:
    """Write a row; `right` and `interval` are null while there is not enough data."""
    return {
        "name": row.name,
        "n": row.n,
        "fixed": row.fixed,
        "partly": row.partly,
        "wrong": row.wrong,
        "right": None if row.share is None else round(row.share, 4),
        "interval": None if row.interval is None else [round(each, 4) for each in row.interval],
    }
