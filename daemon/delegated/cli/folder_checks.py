"""What `doctor` sees on this machine: who serves the folder, and whether it can be written, watched and trusted."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from delegated import folder as names
from delegated.disk import Directory
from delegated.errors import OperatorError

from . import place as places
from .checks import Check
from .place import Place

_LITTLE: Final = 200 << 20
_FULL: Final = 1 << 20
_FEW_FILES: Final = 1000
_SHOWN: Final = 5
_PAUSE_S: Final = 0.005


def daemon(place: Place, served: str | None, *, wanted: bool) -> Check:
    """Say who holds the folder, and whether that one serves everybody. `wanted`: without a daemon nothing is well."""
    start = f"delegated{place.workspace_flag()}"
    if served is not None and places.leaves(served):
        return Check(
            "daemon",
            "FAIL" if wanted else "warn",
            f"none; the folder is held by {served}, and nobody else is answered",
            f"wait until it has left, then start a daemon: {start}",
        )
    if served is not None:
        return Check("daemon", "ok", f"this folder is served by {served}")
    hint = f"start it: {start} (`delegate ask` does the work itself)"
    return Check("daemon", "FAIL" if wanted else "warn", "none serves this folder", hint)


def pickup(place: Place, served: str, patience: float) -> Check | None:
    """Leave a PING file, which a daemon whose watch works takes away; None where none can be left."""
    name = f"doctor-{os.getpid()}-{os.urandom(4).hex()}"
    started = time.monotonic()
    try:
        path = places.give_order(place, "PING", name)
    except (OperatorError, places.Absent):
        return None  # told by the folder's own check
    try:
        while os.path.lexists(path) and time.monotonic() - started < patience:
            time.sleep(_PAUSE_S)
    finally:
        try:
            os.unlink(path)
            seen = False
        except OSError:
            seen = True
    if seen:
        return Check("pickup", "ok", f"a file was seen {(time.monotonic() - started) * 1000:.0f} ms after it was left")
    return Check(
        "pickup",
        "FAIL",
        f"{served} did not see a file within {patience:g} s: it hangs, is stopping, or no events reach it",
        "see its log and start it again; where no events come, set `watch: poll`",
    )


def folder(place: Place, served: str | None) -> Iterator[Check]:
    """Look at the folder and its journal: written to, linked, renamed, room left, names, permissions."""
    path = place.folder
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    missing = path != place.folder
    if os.path.islink(path) and not missing:
        message = f"{path} is a symbolic link, which is not followed"
        yield Check("folder", "FAIL", message, "name the folder that it leads to (`folder`), or put a directory there")
        return
    try:
        if missing:
            if not os.path.isdir(path):
                raise NotADirectoryError(20, "Not a directory")
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        else:
            with Directory(path) as directory:
                _try(directory, f".doctor.{_unique()}", directory)
    except OSError as error:
        yield Check(
            "folder",
            "FAIL",
            f"cannot write in {path}: {error.strerror}",
            places.remedy(error),
        )
    else:
        yield (
            Check("folder", "warn", f"{place.folder} is not there yet", f"delegate init{place.flags()}")
            if missing
            else Check("folder", "ok", f"{path} can be written")
        )
    if not missing:
        yield from _journal(place, served)
        yield from _private(place)
        yield from _names(place)
    yield from _space(path if os.path.exists(path) else place.workspace)


def registration(place: Place) -> Iterator[Check]:
    """Say whether this user asked for the workspace to be served, and what there is not run by itself."""
    from delegated.home import state_directory
    from delegated.registry import find

    state = state_directory(os.environ)
    known = find(state, place.workspace, place.folder)
    if known is not None:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(known.at))
        yield Check("registration", "ok", f"since {since}; what is dropped from then on is run")
    else:
        at = state
        while not os.path.lexists(at) and os.path.dirname(at) != at:
            at = os.path.dirname(at)
        if os.access(at, os.W_OK | os.X_OK):
            message, hint = "this workspace is not registered by this user", f"delegate init{place.flags()}"
        else:
            message = f"this workspace cannot be registered: {at} is not writable"
            hint = "make it writable: till then requests dropped while no daemon runs are not run by themselves"
        yield Check("registration", "warn", message, hint)
    try:
        left = places.not_run(place)
    except (OperatorError, places.Absent):
        return  # it cannot be read: the checks of the folder and of the watch say so
    for key, why in sorted(left.items())[:_SHOWN]:
        yield Check("registration", "warn", f"{key} is not run: {why}", f"delegate run {key}{place.flags()}")
    if len(left) > _SHOWN:
        yield Check("registration", "warn", f"{len(left) - _SHOWN} more are not run", "`delegate status` names them")


def git(place: Place, patience: float) -> Check | None:
    """Say that git holds a repository around the folder for longer than `patience` seconds; None where it does not."""
    started = time.monotonic()
    while held := places.held(place):
        if time.monotonic() - started >= patience:
            return Check(
                "git", "FAIL", held, "when no git is at work there, remove that file: one that broke off left it"
            )
        time.sleep(10 * _PAUSE_S)
    return None


def _unique() -> str:
    return f"{os.getpid()}-{os.urandom(4).hex()}"


def _try(made_in: Directory, name: str, put_in: Directory) -> None:
    """Make a record as the journal does (write, sync, link) and publish it as a RESULT is (rename), then remove it.

    Raises `OSError` where the daemon would fail.
    """
    shown = f".doctor.{_unique()}.tmp"
    try:
        made_in.create(f"{name}.tmp", name, b"a write test\n")
        made_in.rename_into(name, put_in, shown)
        put_in.sync()
    finally:
        for directory, left in ((made_in, name), (put_in, shown)):
            with suppress(OSError):
                directory.remove(left)


def _journal(place: Place, served: str | None) -> Iterator[Check]:
    path = os.path.join(place.folder, places.JOURNAL)
    try:
        info, there = os.stat(path), os.stat(place.folder)
        if info.st_dev != there.st_dev:
            yield Check("journal", "FAIL", f"{path} lies on another file system than its folder", "unmount it")
            return
        with Directory(path) as journal, Directory(place.folder) as directory:
            journal.mkdir("tmp")
            _try(journal, f"tmp/{_unique()}", directory)
    except FileNotFoundError:
        return  # the daemon makes it
    except OSError as error:
        if isinstance(error, PermissionError) and served is not None and not places.leaves(served):
            yield Check("journal", "ok", f"{path} is another user's, whose daemon serves it")
            return
        hint = "unmount what lies on it" if error.errno == 18 else "make it writable for this user, or free space"
        yield Check("journal", "FAIL", f"cannot make a record in {path}: {error.strerror}", hint)
        return
    yield Check("journal", "ok", f"records can be made in {path} and published from it")


def _private(place: Place) -> Iterator[Check]:
    """Say who else can look into the journal, or drop requests that this user pays for."""
    if os.name != "posix":
        return
    journal = os.path.join(place.folder, places.JOURNAL)
    with suppress(OSError):
        mode = os.lstat(journal).st_mode & 0o777
        if mode & 0o077:
            message = f"others may look into {journal} (mode {mode:04o}): it holds requests, code and answers"
            yield Check("private", "warn", message, f"chmod 700 {shlex.quote(journal)}")
        else:
            yield Check("private", "ok", f"the journal is its owner's alone (mode {mode:04o})")
    with suppress(OSError):
        if os.stat(place.folder).st_mode & 0o002:
            message = f"everybody on this machine may drop requests into {place.folder}, and they are paid for"
            yield Check("private", "warn", message, f"chmod o-w {shlex.quote(place.folder)}")


def _names(place: Place) -> Iterator[Check]:
    """Name the files that were meant as requests and that nobody will ever ask about, and what is in a RESULT's way."""
    try:
        with os.scandir(place.folder) as scan:
            entries = [(each.name, each.is_dir(follow_symlinks=False)) for each in scan]
    except OSError:
        return  # told by the folder's own check
    found = sorted(name for name, _ in entries if names.misnamed(name))
    blocked = sorted(name for name, is_directory in entries if is_directory and names.is_results(name))
    for name in blocked[:_SHOWN]:
        yield Check("names", "warn", f"{name} is a directory: no RESULT can be put there", "move it away")
    for name in found[:_SHOWN]:
        yield Check("names", "warn", f"{name!a} is no request's name; it is not asked", names.NAMING)
    if len(found) > _SHOWN:
        yield Check("names", "warn", f"{len(found) - _SHOWN} more are named so", names.NAMING)


def _space(path: str) -> Iterator[Check]:
    import shutil

    free = shutil.disk_usage(path).free
    files, of = 0, 0
    if hasattr(os, "statvfs"):
        found = os.statvfs(path)
        files, of = found.f_favail, found.f_files  # both 0 where the file system does not count them
    words = f"{free / (1 << 30):.1f} GiB free" if free >= 100 << 20 else f"{free >> 10:,} KiB free"
    if of:
        words += f", room for {files:,} files"
    if free < _FULL or (of and files == 0):
        yield Check("space", "FAIL", words, "free space: nothing can be recorded, so nothing will be asked")
    elif free < _LITTLE or (of and files < _FEW_FILES):
        yield Check("space", "warn", words, "free some space soon")
    else:
        yield Check("space", "ok", words)


def watch(path: str, mode: str) -> tuple[Check, bool]:
    """Say how a daemon of this user notices files here, and why; and whether that is by polling."""
    import asyncio

    from delegated.watch import Bell, Polling, open_watch

    async def look() -> tuple[bool, str]:
        watch = open_watch(path, Bell(), mode=mode)
        try:
            return isinstance(watch, Polling), watch.why
        finally:
            watch.close()

    try:
        polling, why = asyncio.run(look())
    except OSError as error:
        return Check("watch", "FAIL", f"cannot watch {path}: {error.strerror}", "make it readable for this user"), False
    hint = "a request is noticed up to `poll_s` later" if polling else ""
    return Check("watch", "warn" if polling else "ok", why, hint), polling
