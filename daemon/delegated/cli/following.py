"""Following a folder: each RESULT that appears or is replaced, in the order in which they do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Final

from delegated import folder as drop

from . import place as places
from .place import Place
from .waiting import Signature

_FIRST_S: Final = 0.01
_CAP_S: Final = 0.2
_ANYWAY_S: Final = (
    5.0  # where a directory's time of change is cached, a network's file system say, it is read all the same
)
_TICK_NS: Final = 1_000_000_000  # a change within the clock's grain of a look may leave no trace in that time
_END: Final = ".json"


def standing(place: Place) -> dict[str, int]:
    """Return the RESULTs that stand, by id, each with what changes when it is replaced. Raises as `Place.open`."""
    with place.open():
        pass
    found = {}
    with os.scandir(place.folder) as entries:
        for entry in entries:
            key = entry.name.removeprefix(f"{drop.PREFIX}RESULT_").removesuffix(_END)
            if entry.name == drop.result_name(key, "json") and drop.ID.fullmatch(key):
                found[key] = entry.inode()
    return found


def oldest_first(place: Place, keys: Iterable[str]) -> list[str]:
    """Sort ids by the time at which their RESULT was put there; one that is gone is left out."""
    found: list[tuple[int, str]] = []
    for key in keys:
        at: Signature = places.signature(place, key)
        if at is not None:
            found.append((at[1], key))
    return [key for _, key in sorted(found)]


def follow(place: Place, seen: dict[str, int], *, deadline: float | None) -> Iterator[str]:
    """Yield the id of each RESULT that is not as in `seen`, for as long as it is asked for the next.

    `deadline` is in seconds on the monotonic clock. Raises `TimeoutError` when it passed, `Absent` when the folder is
    gone.
    """
    pause, looked, changed = _FIRST_S, time.monotonic(), 0
    while True:
        now = time.monotonic()
        try:
            at = os.stat(place.folder).st_mtime_ns
        except OSError:
            at = 0  # `standing` says what is wrong with it
        if at != changed or time.time_ns() - at < _TICK_NS or now - looked >= _ANYWAY_S:
            changed, looked = at, now
            stands = standing(place)
            fresh = {key for key, mark in stands.items() if seen.get(key) != mark}
            seen = stands
            if fresh:
                pause = _FIRST_S
                yield from oldest_first(place, fresh)
                continue
        if deadline is not None and now >= deadline:
            raise TimeoutError("no RESULT within the time given")
        time.sleep(pause if deadline is None else min(pause, max(deadline - now, 0.001)))
        pause = min(pause * 1.3, _CAP_S)
