"""A notification on the desktop, by the program that each system has for it; what it shows can command nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from delegated.markdown import line

from . import Notice

_PATIENCE_S: Final = 5.0
_TITLE_CHARS: Final = 80
_BODY_CHARS: Final = 240
_ALONE: Final = 3  # more that wait are told in one
_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR")
_SCRIPT: Final = ("on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run")


class Desktop:
    """Shows notices by one program."""

    name = "desktop"

    def __init__(self, program: str, env: Mapping[str, str]) -> None:
        self._program = program
        # Not the whole environment: our keys are in it, and are no business of this program.
        self._env = {name: env[name] for name in (*_KEPT, "DBUS_SESSION_BUS_ADDRESS") if name in env}

    def deliver(self, notices: Sequence[Notice], stopping: threading.Event) -> int:
        """Show the first notice, or all that wait as one when they are many. Raises `OSError`."""
        many = len(notices) > _ALONE
        title, body = _together(notices) if many else _words(notices[0])
        try:
            done = subprocess.run(
                arguments(self._program, title, body),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=self._env,
                cwd="/",
                timeout=_PATIENCE_S,
            )
        except subprocess.TimeoutExpired:
            raise OSError(0, f"{self._program} took more than {_PATIENCE_S:g} s") from None
        if done.returncode:
            said = line(done.stderr.decode("utf-8", "replace"), 200)
            raise OSError(0, f"{self._program} ended with {done.returncode}: {said}")
        return len(notices) if many else 1


def arguments(program: str, title: str, body: str) -> list[str]:
    """Return the command line that shows two texts of any content; both are put on one line, cleaned and cut."""
    title, body = line(title, _TITLE_CHARS), line(body, _BODY_CHARS)
    if os.path.basename(program) == "osascript":
        return [program, *(part for each in _SCRIPT for part in ("-e", each)), "--", title, body]
    # The body is markup to most servers, and notify-send itself takes C's escapes in it for what they mean.
    for character, harmless in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\\", "\\\\")):
        body = body.replace(character, harmless)
    return [program, "--app-name=delegated", "--", title, body]


def find(env: Mapping[str, str], workspaces: Iterable[str], *, asked: bool) -> tuple[Desktop | None, str]:
    """Return the desktop to notify, or None and why there is none; one that is `asked` for also under CI and SSH."""
    if not asked:
        for name in ("CI", "SSH_CONNECTION"):
            if env.get(name):
                return None, f"{name} is set"
    mac = sys.platform == "darwin"
    name = "osascript" if mac else "notify-send"
    program = _program(name, env.get("PATH", ""), workspaces)
    if program is None:
        return None, f"{name} is not installed" + ("" if mac else " (Debian, Ubuntu: libnotify-bin)")
    runtime = env.get("XDG_RUNTIME_DIR", "")
    bus = env.get("DBUS_SESSION_BUS_ADDRESS") or (runtime and os.path.exists(os.path.join(runtime, "bus")))
    if not mac and not bus:
        return None, "there is no session bus: DBUS_SESSION_BUS_ADDRESS is not set"
    return Desktop(program, env), ""


def _program(name: str, path: str, workspaces: Iterable[str]) -> str | None:
    """Find a program on the PATH, but none that a workspace brought along: an activated environment of it, say."""
    roots = [os.path.join(os.path.realpath(each), "") for each in workspaces]
    for directory in path.split(os.pathsep):
        found = os.path.join(directory, name)
        if not os.path.isabs(directory) or not os.access(found, os.X_OK) or not os.path.isfile(found):
            continue
        places = (os.path.realpath(found), os.path.join(os.path.realpath(directory), name))
        if not any(place.startswith(root) for place in places for root in roots):
            return found
    return None


def _words(notice: Notice) -> tuple[str, str]:
    sure = f" ({notice.confidence})" if notice.confidence else ""
    return f"{notice.head}{sure}", f"{notice.workspace}: {notice.title or notice.id}"


def _together(notices: Sequence[Notice]) -> tuple[str, str]:
    names = dict.fromkeys(notice.workspace for notice in notices)
    return f"{len(notices)} RESULTs", ", ".join(names)
