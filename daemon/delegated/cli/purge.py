"""Remove what the journal holds of settled requests. A request whose file still stands is not asked again for that."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from delegated import folder as drop
from delegated.disk import Directory
from delegated.errors import OperatorError

from . import exits, terminal
from . import place as places
from .arguments import place_flags, place_of
from .place import JOURNAL, Absent, Place, Usage

if TYPE_CHECKING:
    from delegated.retention import Holding

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SAVING_S: Final = 1.1  # an editor that saves takes the name of a REQUEST away for a moment


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `purge`."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="the requests; without, --older-than chooses them")
    parser.add_argument("--older-than", metavar="AGE", type=_age, help="settled longer ago than this: 30d, 12h, 2w")
    parser.add_argument("--results", action="store_true", help="remove the RESULT files too")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print a JSON array")
    place_flags(parser)


def _age(text: str) -> float:
    try:
        value = float(text[:-1]) * _UNITS[text[-1:]]
    except (KeyError, ValueError):
        value = -1.0
    if not 0 <= value < 1e11:
        raise argparse.ArgumentTypeError(f"{text!a} is no age: give 30d, 12h, 2w")
    return value


def run(args: argparse.Namespace) -> int:
    """Show what goes, ask, and remove it."""
    place = place_of(args)
    if not args.ids and args.older_than is None:
        raise Usage("purge needs ids or an age", "delegate purge ID, or delegate purge --older-than 30d")
    before = time.time() - args.older_than if args.older_than is not None else None
    with place.open() as folder, _journal(place) as directory:
        chosen = _chosen(place, folder, directory, [places.check_id(key) for key in args.ids], before)
        goes, kept = [each for each in chosen if not each.why], [each for each in chosen if each.why]
        _show(folder, goes, as_json=args.json, results=args.results)
        for each in kept:
            terminal.say(f"{each.key} stays: {each.why}")
        if args.ids and kept and not goes:
            raise Absent("nothing can be removed yet", f"delegate status {kept[0].key}{place.flags()}")
        if not goes and not args.json:
            terminal.say("there is nothing to remove")
        if args.dry_run:
            return exits.OK
        if goes and not args.yes:
            _agree(len(goes), results=args.results)
        try:
            _remove(place, folder, directory, [each.key for each in goes], results=args.results)
        except OSError as error:
            raise OperatorError(
                f"cannot remove all of it: {error.strerror or error}", exits.CANNOT_WRITE, "run it again"
            ) from error
    if before is not None:
        _forget_spending(before)
    if goes:
        terminal.say(f"removed what was kept of {len(goes)} request{'' if len(goes) == 1 else 's'}")
    return exits.OK


def _journal(place: Place) -> Directory:
    try:
        return Directory(place.path(JOURNAL))
    except FileNotFoundError:
        raise Absent(f"there is no journal in {place.folder}", "`delegate list` shows what is there") from None
    except OSError as error:
        raise OperatorError(f"cannot open {place.path(JOURNAL)}: {error.strerror}", exits.CANNOT_WRITE) from error


def _stands(folder: Directory, key: str) -> bool:
    return any(folder.exists(name) for name in drop.request_names(key))


def _chosen(
    place: Place, folder: Directory, directory: Directory, keys: list[str], before: float | None
) -> list[Holding]:
    from dataclasses import replace

    from delegated.retention import holding

    named = bool(keys)
    if not named:
        keys = sorted({key for shard in directory.names("jobs") for key in directory.names(f"jobs/{shard}")})
        keys += sorted(set(directory.names("history")) - set(keys))
    found = []
    for key in keys:
        if not drop.ID.fullmatch(key):
            continue
        held = holding(directory, key, stands=_stands(folder, key))
        if held is None:
            if named:
                places.require(place, key)
                raise Absent(f"the journal of {place.folder} holds nothing of {key}", "`delegate list` shows the ids")
            continue
        if before is not None and held.at > before:
            if named:
                found.append(replace(held, why=held.why or "it is younger than that"))
        elif not held.why and folder.exists(f"{drop.PREFIX}RETRY_{key}"):
            found.append(replace(held, why="it is to be asked again"))
        elif named or not held.why:
            found.append(held)
    return found


def _show(folder: Directory, goes: list[Holding], *, as_json: bool, results: bool) -> None:
    if as_json:
        terminal.out_json(
            [
                {
                    "id": each.key,
                    "settled": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each.at)),
                    "revisions": each.revisions,
                    "files": each.files,
                    "bytes": each.bytes,
                    "request_stands": _stands(folder, each.key),
                    "results": results,
                }
                for each in goes
            ]
        )
        return
    for each in goes:
        when = time.strftime("%Y-%m-%d", time.gmtime(each.at))
        stays = "; its REQUEST stands, so its hashes stay" if _stands(folder, each.key) else ""
        terminal.out(f"{each.key}  settled {when}, {each.files} files, {each.bytes:,} bytes{stays}")


def _agree(count: int, *, results: bool) -> None:
    """Let a person agree to what cannot be undone; a program has to say so with `--yes`."""
    what = f"the records{' and RESULTs' if results else ''} of {count} request{'' if count == 1 else 's'}"
    if not (terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stderr)):
        raise Usage(f"{what} would be removed for good", "add --yes; --dry-run only shows them")
    sys.stderr.write(f"remove {what} for good? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Usage("nothing was removed", "delegate purge --dry-run shows what would be")


def _remove(place: Place, folder: Directory, directory: Directory, keys: list[str], *, results: bool) -> None:
    from delegated.index import purge as purge_index
    from delegated.retention import purge

    standing = {key for key in keys if _stands(folder, key)}
    if len(standing) < len(keys) and places.holder(place) is not None:
        time.sleep(_SAVING_S)
    gone = []
    for key in keys:
        stays = _stays(folder, key, key in standing)
        if not purge(directory, key, stands=stays):
            gone.append(key)
        if results:  # only now: what protects its REQUEST is there
            for suffix in ("json", "md", "patch"):
                folder.remove(drop.result_name(key, suffix))
    folder.sync()
    _clear_temporary(directory)
    purge_index(place.path(os.path.join(JOURNAL, "index.sqlite")), gone)


def _clear_temporary(directory: Directory) -> None:
    """Remove what a killed daemon left half written; a running one, which has the lock, does so at its next start."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fd = directory.open("lock")
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in directory.names("tmp"):
            directory.remove(f"tmp/{name}")
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


def _stays(folder: Directory, key: str, stood: bool) -> Callable[[], bool]:
    return lambda: stood or _stands(folder, key)


def _forget_spending(before: float) -> None:
    from delegated.home import state_directory
    from delegated.ledger import Ledger
    from delegated.purse import FILE

    path = os.path.join(state_directory(os.environ), FILE)
    if not os.path.exists(path):
        return
    try:
        ledger = Ledger(path)
        try:
            calls = ledger.forget(before)
        finally:
            ledger.close()
    except OSError as error:
        raise OperatorError(str(error), exits.CANNOT_WRITE) from error
    if calls:
        terminal.say(f"the account forgot {calls} call{'' if calls == 1 else 's'} of former months")
