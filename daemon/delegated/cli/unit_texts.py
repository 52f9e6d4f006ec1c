"""The files that a service manager reads, made of the shipped ones: what to start, and for which workspaces."""

from __future__ import annotations

import os
import plistlib
import re
from collections.abc import Sequence
from typing import Any, Final

NAME: Final = "delegated.service"
LABEL: Final = "io.github.delegated"
_HERE: Final = os.path.join(os.path.dirname(__file__), "units")
_START: Final = re.compile(r"(?m)^ExecStart=.*$")
_WRITES: Final = re.compile(r"(?m)^ReadWritePaths=%h$")


def shipped(name: str) -> bytes:
    """Return a file as it is shipped: `delegated.service` or `io.github.delegated.plist`."""
    with open(os.path.join(_HERE, name), "rb") as file:
        return file.read()


def quoted(word: str, *, command: bool) -> str:
    """Write a word so that systemd reads it as it is; in a command it would also put variables in.

    Raises `ValueError` for a control character, which no unit can hold.
    """
    if not word.isprintable():
        raise ValueError(f"{word!a} holds a character that cannot stand in a unit")
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text.replace("$", "$$") if command else text}"'


def systemd(program: Sequence[str], workspaces: Sequence[str], writes: Sequence[str]) -> bytes:
    """Return the user unit that starts `program` for `workspaces`; `writes` are folders outside the home.

    Without workspaces it serves those of the configuration. All paths are absolute.
    """
    words = [*program]
    for path in workspaces:
        words += ["--workspace", path]
    start = "ExecStart=" + " ".join(quoted(word, command=True) for word in words)
    more = "".join(f"\nReadWritePaths={quoted(path, command=False)}" for path in writes)
    text, count = _START.subn(lambda _: start, shipped(NAME).decode())
    text, also = _WRITES.subn(lambda match: match[0] + more, text)
    assert (count, also) == (1, 1), "the shipped unit has one of each line"
    note = "# Written by `delegate service install`; your own changes belong into `systemctl --user edit delegated`.\n"
    return (note + text.partition("\n\n")[2]).encode()


def launchd(program: Sequence[str], workspaces: Sequence[str], home: str, key_file: str) -> bytes:
    """Return the launch agent; `key_file` is the path of the file that holds the key, "" for none."""
    value: dict[str, Any] = plistlib.loads(shipped(f"{LABEL}.plist"))
    value["ProgramArguments"] = [*program, *(word for path in workspaces for word in ("--workspace", path))]
    value["StandardErrorPath"] = log_of_launchd(home)
    if key_file:
        value["EnvironmentVariables"]["DELEGATED_ENDPOINTS__OPENAI__KEY_FILE"] = key_file
    return plistlib.dumps(value)


def log_of_launchd(home: str) -> str:
    """Return where the launch agent's log lies."""
    return os.path.join(home, "Library", "Logs", "delegated.log")
