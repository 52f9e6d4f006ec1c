"""Merge what coding agents read into a workspace's files, show it beforehand, take it out again."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from delegated.agents import NAMES, TITLES, merging, texts
from delegated.agents.merging import Foreign, Linked, Note
from delegated.agents.texts import File
from delegated.disk import put
from delegated.errors import OperatorError

from . import exits, terminal
from .place import MARK, Place

_NOTES: Final = f"{MARK}/agents.json"
_SCHEMA: Final = "delegated/agents/1"
_LIMIT: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of a file: its bytes before and after (None: no file), and what is remembered of it then."""

    path: str
    before: bytes | None
    after: bytes | None
    note: Note | None


def set_up(place: Place, agents: Iterable[str], *, uninstall: bool, dry_run: bool) -> int:
    """Bring the files of `agents` up to date, or take our part out of them; return the exit code."""
    chosen = tuple(name for name in NAMES if name in {*agents} or "all" in {*agents})
    notes, directories = _read_notes(place.workspace)
    code = exits.OK
    for file in texts.FILES:
        concerned = tuple(name for name in file.agents if name in chosen)
        if not concerned:
            continue
        full = os.path.join(place.workspace, *file.path.split("/"))
        try:
            change = _change(place.workspace, file, concerned, notes.get(file.path), uninstall=uninstall)
            if change.before not in (None, change.after):
                _check_writable(full)
            if dry_run:
                terminal.out_exactly(_diff(change))
                continue
            directories += _write(place.workspace, change)
        except BrokenPipeError:  # of stdout: nothing is wrong with the file
            raise
        except (Foreign, OSError) as error:
            why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            terminal.warn(f"{full}: left as it is: {why}")
            # Rules behind a link are read at its other end; without its hooks an agent delegates nothing.
            harmless = isinstance(error, Linked) and (file.kind != "json" or (uninstall and file.path not in notes))
            if isinstance(error, Linked) and not harmless:
                terminal.say("put what it leads to in its place, and run this again")
            code = code if harmless else exits.CONFIGURATION
            continue
        if change.note is None:
            notes.pop(file.path, None)
        else:
            notes[file.path] = change.note
        if change.before != change.after or not uninstall:
            terminal.out(f"{full}: {_words(change)}")
        if uninstall and merging.remains(file, change.after):
            terminal.say(f"{full}: an entry for `delegate` stays, as it is not one that was put in: yours to delete")
    if not dry_run:
        _write_notes(place.workspace, notes, directories)
        if not uninstall and shutil.which("delegate") is None:
            terminal.warn("`delegate` is not on the PATH, where the hooks look for it: pipx install . in its checkout")
    return code


def check(place: Place) -> None:
    """Raise `OperatorError` where what is done to files could not be remembered."""
    try:
        _read(place.workspace, _NOTES)
    except Foreign as error:
        raise OperatorError(
            f"{os.path.join(place.workspace, *_NOTES.split('/'))} cannot be kept: {error}",
            exits.CONFIGURATION,
            "it has to be a plain file in a plain directory; nothing was changed",
        ) from error


def in_use(workspace: str) -> tuple[str, ...]:
    """Name the agents that a workspace shows signs of and that are not set up there."""
    notes, _ = _read_notes(workspace)
    known = {agent for note in notes.values() for agent in note.agents}
    return tuple(
        name
        for name in NAMES
        if name not in known and any(os.path.lexists(os.path.join(workspace, sign)) for sign in texts.SIGNS[name])
    )


def propose(workspace: str, flags: str) -> list[str]:
    """Say which agents are in use, and return the command that sets them up; nothing where there is none."""
    found = in_use(workspace)
    if not found:
        return []
    terminal.say(f"in use here: {', '.join(TITLES[name] for name in found)}")
    return [f"delegate init {' '.join(f'--agent {name}' for name in found)}{flags}"]


def _change(workspace: str, file: File, agents: tuple[str, ...], note: Note | None, *, uninstall: bool) -> Change:
    before = _read(workspace, file.path)
    known = note.agents if note is not None else ()
    if not uninstall:
        every = tuple(name for name in NAMES if name in {*known, *agents})
        after, new = merging.merged(file, before, note)
        kept = new or note
        return Change(file.path, before, after, None if kept is None else replace(kept, agents=every))
    others = tuple(name for name in known if name not in agents)
    if others and note is not None:
        return Change(file.path, before, before, replace(note, agents=others))
    return Change(file.path, before, None if before is None else merging.parted(file, before, note), None)


def _read(workspace: str, path: str) -> bytes | None:
    """Read a file, None where there is none. Raises `Foreign` where anything but plain directories leads to it."""
    at = workspace
    parts = path.split("/")
    for number, part in enumerate(parts, 1):
        at = os.path.join(at, part)
        try:
            mode = os.lstat(at).st_mode
        except FileNotFoundError:
            return None
        if not (stat.S_ISREG(mode) if number == len(parts) else stat.S_ISDIR(mode)):
            if stat.S_ISLNK(mode):
                raise Linked(f"{part} is a symbolic link")
            raise Foreign(f"{part} is in the way")
    with open(at, "rb") as file:
        data = file.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise Foreign(f"it is larger than {_LIMIT >> 20} MiB")
    return data


def _check_writable(path: str) -> None:
    """Raise `Foreign` for a file that nobody may write, although its directory would let us replace it."""
    if not stat.S_IMODE(os.stat(path).st_mode) & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        raise Foreign("it is read-only: make it writable (chmod u+w), and run this again")


def _write(workspace: str, change: Change) -> list[str]:
    """Bring a change to the disk; return the directories that were made for it."""
    full = os.path.join(workspace, *change.path.split("/"))
    made: list[str] = []
    if change.after == change.before:
        return made
    if change.after is None:
        os.unlink(full)
        return made
    parent = os.path.dirname(change.path)
    while parent and not os.path.isdir(os.path.join(workspace, parent)):
        made.append(parent)
        parent = os.path.dirname(parent)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    mode = stat.S_IMODE(os.stat(full).st_mode) if change.before is not None else None
    put(full, change.after, mode)
    return made


def _words(change: Change) -> str:
    if change.before == change.after:
        return "kept"
    if change.before is None:
        return "made"
    return "removed" if change.after is None else "changed"


def _diff(change: Change) -> str:
    """Write a change as a unified diff that `patch -p1` takes."""
    old, new = (_rows(data) for data in (change.before, change.after))
    names = (
        "/dev/null" if change.before is None else f"a/{change.path}",
        "/dev/null" if change.after is None else f"b/{change.path}",
    )
    rows = difflib.unified_diff(old, new, *names)
    return "".join(row if row.endswith("\n") else f"{row}\n\\ No newline at end of file\n" for row in rows)


def _rows(data: bytes | None) -> list[str]:
    *rows, last = (data or b"").decode("utf-8", "replace").split("\n")
    return [*(f"{row}\n" for row in rows), *([last] if last else [])]


def _read_notes(workspace: str) -> tuple[dict[str, Note], list[str]]:
    """Read what we remember. It comes with the code as everything there: nothing in it names a path to us."""
    try:
        value = json.loads(_read(workspace, _NOTES) or b"{}")
        files = value["files"] if value.get("schema") == _SCHEMA else {}
        notes = {file.path: _note(files[file.path]) for file in texts.FILES if file.path in files}
        parents = {os.path.dirname(file.path) for file in texts.FILES} - {""}
        parents |= {os.path.dirname(parent) for parent in parents} | {".agents", ".claude"}
        return notes, [path for path in value.get("directories", []) if path in parents - {""}]
    except (Foreign, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, []


def _note(value: Any) -> Note:
    agents = tuple(name for name in NAMES if name in value["agents"])
    inserts = tuple((int(at), str(piece)) for at, piece in value["inserts"])
    return Note(agents, value["made"] is True, str(value["sha256"]), inserts, tuple(value.get("entries", ())))


def _write_notes(workspace: str, notes: dict[str, Note], directories: list[str]) -> None:
    """Remember what was done; with nothing left to remember, take the directories that we made away too."""
    left = []
    for path in sorted({*directories}, key=len, reverse=True):
        try:
            os.rmdir(os.path.join(workspace, path))
        except OSError:
            left.append(path)
    full = os.path.join(workspace, *_NOTES.split("/"))
    if not notes:
        with suppress(FileNotFoundError):
            os.unlink(full)
        return
    files = {
        path: {"agents": note.agents, "made": note.made, "sha256": note.sha256, "inserts": note.inserts}
        | ({"entries": note.entries} if note.entries else {})
        for path, note in sorted(notes.items())
    }
    data = json.dumps({"schema": _SCHEMA, "files": files, "directories": sorted(left)}, indent=1) + "\n"
    if _read(workspace, _NOTES) != data.encode():
        os.makedirs(os.path.dirname(full), exist_ok=True)
        put(full, data.encode())
