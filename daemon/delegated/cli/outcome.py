"""Say how a RESULT turned out: its confidence then means something, here."""

from __future__ import annotations

import argparse
import os
from typing import Any

from delegated import folder as drop
from delegated.calibration import WORDS
from delegated.errors import OperatorError, RequestError

from . import exits, terminal
from . import place as places
from .arguments import bind_values, place_flags, place_of
from .place import Absent, Place, Usage

_MOST_NOTE = 4_000  # characters


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `outcome`."""
    parser.add_argument("id", help="the request's id")
    parser.add_argument("outcome", choices=WORDS, help="whether the answer led to a fix")
    parser.add_argument("--note", metavar="TEXT", default="", help="what else to remember of it")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    place_flags(parser)


def bind(argv: list[str]) -> list[str]:
    """Let a note begin with a hyphen."""
    return bind_values(argv, ("--note",), ("--json", "--workspace", "--folder", "--help"))


def run(args: argparse.Namespace) -> int:
    """Write the OUTCOME file, over one that is there: the last word counts."""
    from delegated.outcomes import Outcome, write

    place, key = place_of(args), places.check_id(args.id)
    places.require(place, key)
    revision = _answered(place, key)
    note = terminal.clean(args.note).strip()
    if len(note) > _MOST_NOTE:
        raise Usage(f"the note has {len(note):,} characters", f"at most {_MOST_NOTE:,}")
    name = drop.outcome_name(key)
    temp = f".{name}.{os.getpid()}.tmp"
    try:
        with place.open() as directory:
            directory.write_temp(temp, write(Outcome(args.outcome, note, revision)))
            try:
                directory.rename_into(temp, directory, name)
            except OSError:
                directory.remove(temp)
                raise
            directory.sync()
    except OSError as error:
        raise OperatorError(f"cannot write {place.path(name)}: {error.strerror}", exits.CANNOT_WRITE) from error
    if args.json:
        value = {"id": key, "revision": revision, "outcome": args.outcome, "note": note, "path": place.path(name)}
        terminal.out_json(value)
    else:
        terminal.out(place.path(name))
        terminal.next_step(f"delegate stats{place.flags()}")
    return exits.OK


def _answered(place: Place, key: str) -> int:
    """Return the revision of the RESULT that stands. Raises `Absent` when there is none, or nothing to judge in it."""
    flags = place.flags()
    result = places.read_result(place, key)
    if result is None:
        if places.deleted(place, key) is not None:
            raise places.gone(place, key)
        raise Absent(f"there is no RESULT for {key} yet: nothing can be said of it", f"delegate wait {key}{flags}")
    if result.get("status") != "answered":
        status = terminal.clean(str(result.get("status")))
        raise Absent(f"{key} is {status}: there is no answer that could be right", f"delegate show {key}{flags}")
    about = result.get("request")
    revision = about.get("revision") if isinstance(about, dict) else 0
    return revision if isinstance(revision, int) and 0 <= revision < 1_000_000 else 0


def said(place: Place, key: str, result: dict[str, Any]) -> tuple[str, str]:
    """Return what an OUTCOME file says of the RESULT that stands, and its note; or "" and why it says nothing.

    Both are "" where nobody said anything.
    """
    if not os.path.lexists(place.path(drop.outcome_name(key))):
        return "", ""
    from delegated.folder import Folder
    from delegated.outcomes import Outcome, load, misfit

    try:
        folder = Folder(place.folder, create=False)
        try:
            found = load(folder, key)
        finally:
            folder.close()
    except RequestError as error:
        return "", str(error)
    except OSError as error:
        return "", str(error)
    if not isinstance(found, Outcome):
        return "", found.value if found is not None else ""
    why = misfit(found, result)
    return ("", why) if why else (found.word, found.note)
