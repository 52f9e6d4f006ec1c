"""Places in code that are asked about: a comment that delegates, and FILE:LINE as an editor knows it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from delegated import folder as drop
from delegated import remark as room
from delegated.errors import OperatorError

from . import asking, exits, terminal
from . import place as places
from .place import Absent, Place, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from delegated.remark import Remark


def ask(args: argparse.Namespace) -> int:
    """Ask once what the comments of a file ask that git does not have; wait for nothing."""
    path, remarks = args.comment, _read(args.comment)
    if not remarks:
        if not room.known(path):
            _say(args, f"{path}: it is not known how comments are written there; nothing is looked for")
        return exits.OK
    place = _place(args, path)
    below = _below(place, path)
    wanted = _new(place, below, _read(path, below))
    if len(wanted) > room.MANY:
        raise Usage(
            f"{len(wanted)} comments in {path} delegate: more than {room.MANY} at once are no person's",
            "ask about one of them: delegate ask --at FILE:LINE",
        )
    dropped: list[asking.Started] = []
    for each in wanted:
        key = room.key(below, each)
        if drop.ever_asked(place.folder, key):
            _say(args, f"{key}: asked already")
            continue
        try:
            dropped.append(asking.submit(place, room.request(below, each), key=key, wait=False))
        except Usage:
            if not drop.ever_asked(place.folder, key):
                raise
            continue  # the editor saved twice: the other one has dropped it
        if not args.json:
            terminal.out(key)
    if args.json:
        terminal.out_json([asking.told(place, each) for each in dropped])
    if dropped and dropped[-1].served_by is None:
        terminal.warn("no daemon serves this folder: what was asked waits until one does")
    return exits.OK


def at(place: Place, given: str) -> tuple[str, str, str | None]:
    """Read FILE:LINE: the path below the root, words for the place, what a comment there asks. Raises `Usage`."""
    below, line, remark = _at(place, given)
    return below, room.place(below, line if remark is None else remark.line), None if remark is None else remark.text


def key(place: Place, given: str) -> str | None:
    """Return the id of the comment that delegates at FILE:LINE; None when there is none, or when it is taken."""
    below, _, remark = _at(place, given)
    found = None if remark is None else room.key(below, remark)
    return None if found is None or drop.ever_asked(place.folder, found) else found


def _at(place: Place, given: str) -> tuple[str, int, Remark | None]:
    path, _, number = given.rpartition(":")
    if not path or not number.isascii() or not number.isdecimal() or not 0 < len(number) < 10 or not int(number):
        raise Usage(f"--at {given}: it names no line", "give the file and the line, as src/app.py:123")
    below, line = _below(place, path), int(number)
    if not os.path.isfile(path):
        raise Usage(f"--at {given}: there is no file {path}", "its path is meant from the current directory")
    found = (each for each in _read(path, below) if each.line <= line <= each.end)
    return below, line, next(found, None)


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        terminal.say(text)


def _place(args: argparse.Namespace, path: str) -> Place:
    """Find the workspace of a file: as named, else around the file, and only one that somebody has set up."""
    if args.workspace is not None or args.folder is not None:
        return places.find(args.workspace, args.folder)
    place = places.around(os.path.dirname(os.path.realpath(path)))
    if place is None:
        raise Absent(f"{path} lies in no workspace that was set up: nothing is asked", "delegate init")
    return place


def _below(place: Place, path: str) -> str:
    """Return a file's path below the workspace. Raises `Usage` for one that is not there, or a file of the folder."""
    full, root = os.path.realpath(path), os.path.realpath(place.workspace)
    folder = os.path.realpath(place.folder)
    try:
        inside = os.path.commonpath([root, full]) == root and os.path.commonpath([folder, full]) != folder
    except ValueError:  # another drive
        inside = False
    if not inside:
        raise Usage(f"{path} is no code of the workspace {place.workspace}", "name the workspace with --workspace")
    return os.path.relpath(full, root).replace(os.sep, "/")


def _read(path: str, below: str = "") -> Sequence[Remark]:
    if not os.path.isfile(path):
        raise Usage(f"{path} is not a file", "name the file that was saved")
    try:
        with open(path, "rb") as file:
            data = file.read(room.MAX_TEXT)
    except OSError as error:
        raise Usage(f"{path} cannot be read: {error.strerror}") from error
    return room.find(below or path, data.decode("utf-8-sig", "replace"))


def _new(place: Place, below: str, remarks: Sequence[Remark]) -> list[Remark]:
    """Leave out the comments that stand in what git has staged: they came with the code, or were committed."""
    from delegated import blobs

    try:
        data = blobs.staged(os.path.join(os.path.realpath(place.workspace), *below.split("/")))
    except blobs.Unknown as error:
        raise OperatorError(
            f"{below}: whether its comments are new cannot be told: {error}",
            exits.UNHEALTHY,
            "ask about one of them: delegate ask --at FILE:LINE",
        ) from error
    return room.new(below, remarks, data)
