"""Bring the deleted RESULT of a request back from the journal; nothing is asked and nothing is billed."""

from __future__ import annotations

import argparse
import os

from delegated import folder as drop
from delegated.disk import Directory
from delegated.errors import OperatorError

from . import exits, terminal
from . import place as places
from .arguments import place_flags, place_of
from .place import Absent, Place


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `republish`."""
    parser.add_argument("id", help="the request's id")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Write the patch that came with it, RESULT.md, then RESULT.json, each by rename."""
    from delegated.result import from_json, to_markdown

    place, key = place_of(args), places.check_id(args.id)
    text = recorded(place, key)
    if text is None:
        places.require(place, key)
        if places.read_result(place, key) is None and places.deleted(place, key) is None:
            raise Absent(f"{key} is not settled: there is no RESULT yet", f"delegate wait {key}{place.flags()}")
        why = " any more: it was purged" if places.purged(place, key) else ""
        raise Absent(
            f"the journal of {place.folder} holds no RESULT for {key}{why}",
            f"delegate status {key}{place.flags()}, or delegate retry {key}{place.flags()}",
        )
    result = from_json(text)
    files = {"patch": result.patch.text} if result.patch is not None else {}
    files |= {"md": to_markdown(result), "json": text}
    try:
        with place.open() as directory:
            for suffix, content in files.items():  # the JSON last: its appearance says that the RESULT stands
                name = drop.result_name(key, suffix)
                temp = f".{name}.{os.getpid()}.tmp"
                data = content.encode("utf-8", "surrogatepass")
                kept = drop.keep_edited(directory, name, (data,))
                if kept:
                    terminal.say(f"{name} had been edited: that is kept as {kept}")
                directory.write_temp(temp, data)
                directory.rename_into(temp, directory, name)
                directory.sync()
    except IsADirectoryError as error:
        message, hint = f"a directory has the name {place.path(name)}", "move it away, then run this again"
        raise OperatorError(message, exits.CANNOT_WRITE, hint) from error
    except OSError as error:
        raise OperatorError(f"cannot write in {place.folder}: {error.strerror}", exits.CANNOT_WRITE) from error
    for suffix in files:
        terminal.out(place.path(drop.result_name(key, suffix)))
    terminal.next_step(f"delegate show {key}{place.flags()}")
    return exits.OK


def recorded(place: Place, key: str) -> str | None:
    """Return the newest RESULT.json in the journal's `done` records, or None. Takes no lock: records only come."""
    from delegated.record import unpack

    at = places.job_place(place, key)
    if at is None:
        return None
    with Directory(at) as job:
        revisions = sorted(
            (int(name[1:]) for name in job.names() if name[:1] == "r" and name[1:].isdecimal()), reverse=True
        )
        for revision in revisions:
            try:
                record = unpack(job.read(f"r{revision}/done", 256 << 20))
            except OSError:
                continue
            if record is not None and record[1]:
                return record[1].decode("utf-8", "surrogatepass")
    return None
