"""What sessions of agents are still owed: one small file for each answer, and whoever removes it delivers it."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from delegated import folder as drop
from delegated.agents.hosts import session_key
from delegated.disk import make_private
from delegated.home import state_directory

from .place import Place

_KEEP_S: Final = 7 * 86_400.0
_MOST: Final = 3
_SWEPT: Final = 200


@dataclass(frozen=True, slots=True)
class Debt:
    """An answer that a session waits for. `path` is the file that stands for it, "" where none could be written.

    With `text` that is all there is to say, and nothing has to be waited for.
    """

    place: Place
    key: str
    path: str
    text: str = ""


def note(session: str, place: Place, key: str, text: str = "") -> Debt:
    """Write down that a session waits for the RESULT of `key`, or for `text`."""
    top = os.path.join(state_directory(os.environ), "agents")
    _sweep(top, time.time() - _KEEP_S)
    path = os.path.join(top, session_key(session), key)
    try:
        make_private(os.path.dirname(path))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump({"workspace": place.workspace, "folder": place.folder, "text": text}, file)
    except OSError:
        return Debt(place, key, "", text)  # it comes with the prompt or not at all
    return Debt(place, key, path, text)


def of(session: str) -> list[Debt]:
    """List what a session waits for, the oldest first."""
    top = os.path.join(state_directory(os.environ), "agents", session_key(session))
    found: list[tuple[float, Debt]] = []
    with suppress(OSError), os.scandir(top) as entries:
        for entry in entries:
            if not drop.ID.fullmatch(entry.name):
                continue
            try:
                with open(entry.path, encoding="utf-8") as file:
                    value = json.loads(file.read(64 << 10))
                place, text = Place(str(value["workspace"]), str(value["folder"])), str(value.get("text", ""))
                at = entry.stat(follow_symlinks=False).st_mtime
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
            if text or os.path.isdir(place.folder):
                found.append((at, Debt(place, entry.name, entry.path, text)))
    return [debt for _, debt in sorted(found, key=lambda pair: pair[0])][:_MOST]


def settle(debt: Debt) -> bool:
    """Take a debt as paid; False when somebody else has done so."""
    if not debt.path:
        return True
    try:
        os.unlink(debt.path)
    except OSError:
        return False
    with suppress(OSError):
        os.rmdir(os.path.dirname(debt.path))
    return True


def _sweep(top: str, before: float) -> None:
    """Forget what sessions that are long over were owed."""
    with suppress(OSError), os.scandir(top) as sessions:
        for session, _ in zip(sessions, range(_SWEPT), strict=False):
            with suppress(OSError):
                if session.stat(follow_symlinks=False).st_mtime < before:
                    for name in os.listdir(session.path):
                        os.unlink(os.path.join(session.path, name))
                    os.rmdir(session.path)
