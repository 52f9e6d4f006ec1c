"""What a hook reads from the disk: the end of the host's own transcript, and which named files lie in the workspace."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

_TAIL: Final = 2 << 20
_MOST_PATH: Final = 1_024
_OURS: Final = frozenset((".autonomous_runs", ".git"))
# The directories in which a host keeps its transcripts: by variable, in the home, where programs keep their settings;
# `NAME-server` and `NAME - Insiders` too.
_VARIABLES: Final = {"claude": ("CLAUDE_CONFIG_DIR",), "codex": ("CODEX_HOME",)}
_AT_HOME: Final = {
    "claude": (".claude",),
    "codex": (".codex",),
    "cursor": (".cursor",),
    "vscode": (".vscode", ".copilot"),
}
_AMONG_SETTINGS: Final = {"claude": ("claude",), "codex": (), "cursor": ("Cursor",), "vscode": ("Code", "VSCodium")}


def tail_of(host: str, path: str) -> bytes:
    """Read the last 2 MiB of a transcript; b"" when `path` is not one of this host's, of this user, whole and plain.

    A payload is only as good as its writer: what it names is read only where the host keeps its own records.
    """
    if not path.endswith((".jsonl", ".json")) or not os.path.isabs(path):
        return b""
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    if not any(real.startswith(os.path.join(base, "")) for base in _homes(host, os.environ)):
        return b""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(real, flags)
    except OSError:
        return b""
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or (hasattr(os, "geteuid") and info.st_uid != os.geteuid()):
            return b""
        start = max(0, info.st_size - _TAIL)
        with open(fd, "rb", closefd=False) as file:
            file.seek(start)
            data = file.read(_TAIL)
    except OSError:
        return b""
    finally:
        os.close(fd)
    return data.partition(b"\n")[2] if start else data


def _homes(host: str, env: Mapping[str, str]) -> Iterator[str]:
    for name in _VARIABLES.get(host, ()):
        if os.path.isabs(env.get(name, "")):
            yield os.path.realpath(env[name])
    home = os.path.expanduser("~")
    settings = (
        os.path.join(home, ".config"),
        os.path.join(home, "Library", "Application Support"),
        env.get("XDG_CONFIG_HOME", ""),
        env.get("APPDATA", ""),
    )
    # What bears no dot is a host's only there: `~/Code` is where many people keep their work.
    apart = [top for top in settings if os.path.isabs(top) and os.path.realpath(top) != os.path.realpath(home)]
    for top, wanted in ((home, _AT_HOME[host]), *((top, _AMONG_SETTINGS[host]) for top in apart)):
        try:
            names = os.listdir(top)
        except OSError:
            continue
        for name in names:
            if _is_one(name, wanted) and os.path.isdir(os.path.join(top, name)):
                yield os.path.realpath(os.path.join(top, name))


def _is_one(name: str, wanted: Sequence[str]) -> bool:
    return any(name == each or name.startswith((f"{each}-", f"{each} - ")) for each in wanted)


def files_in(workspace: str, roots: Sequence[str], named: Sequence[str]) -> tuple[str, ...]:
    """Return those of `named` that are regular files below the workspace, relative to it, the last one first.

    A path through a symbolic link is none; whether a file may be sent is the daemon's to say.
    """
    found = (_below(workspace, roots, path) for path in reversed(named))
    return tuple(dict.fromkeys(path for path in found if path))


def _below(workspace: str, roots: Sequence[str], path: str) -> str:
    if not path or len(path) > _MOST_PATH or not path.isprintable():
        return ""
    tops = [os.path.abspath(root) for root in (workspace, *roots)]
    candidates = [path] if os.path.isabs(path) else [os.path.join(top, path) for top in reversed(tops)]
    for candidate in candidates:
        full = os.path.normpath(candidate)
        for top in (tops[0], os.path.realpath(tops[0])):
            if full.startswith(os.path.join(top, "")):
                parts = os.path.relpath(full, top).split(os.sep)
                if parts[0] not in _OURS and _plain(top, parts):
                    return "/".join(parts)
    return ""


def _plain(top: str, parts: Sequence[str]) -> bool:
    at = top
    for number, part in enumerate(parts, 1):
        at = os.path.join(at, part)
        try:
            mode = os.lstat(at).st_mode
        except (OSError, ValueError):
            return False
        if not (stat.S_ISREG(mode) if number == len(parts) else stat.S_ISDIR(mode)):
            return False
    return True
