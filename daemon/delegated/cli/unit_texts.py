"""The files that a service manager reads, made of the shipped ones: what to start, and for which workspaces."""

from __future__ import annotations

import html
import ntpath
import os
import plistlib
import re
import subprocess
from collections.abc import Sequence
from typing import Any, Final

NAME: Final = "delegated.service"
LABEL: Final = "io.github.delegated"
TASK: Final = "delegated.xml"
_HERE: Final = os.path.join(os.path.dirname(__file__), "units")
_START: Final = re.compile(r"(?m)^ExecStart=.*$")
_WRITES: Final = re.compile(r"(?m)^ReadWritePaths=%h$")
_ARGUMENTS: Final = re.compile(r"(?<=<Arguments>).*(?=</Arguments>)")
_NO_TASK: Final = frozenset("\"'\\%$`")  # each is read anew by one of those that the line goes through
_IN_WSL: Final = re.compile(r"[\\/]{2}(?:wsl\$|wsl\.localhost)[\\/]([^\\/]+)(.*)", re.IGNORECASE)
LOG_OF_TASK: Final = ".local/state/delegated/service.log"


def shipped(name: str) -> bytes:
    """Return a file as it is shipped: `delegated.service`, `io.github.delegated.plist` or `delegated.xml`."""
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

    Without workspaces it serves those of the configuration. All paths are absolute; one to write to that is not there
    does not keep the service from starting.
    """
    words = [*program]
    for path in workspaces:
        words += ["--workspace", path]
    start = "ExecStart=" + " ".join(quoted(word, command=True) for word in words)
    more = "".join(f"\nReadWritePaths={quoted(f'-{path}', command=False)}" for path in writes)
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


def task(program: str, workspaces: Sequence[str], *, distribution: str, owner: str, key_file: str = "") -> bytes:
    """Return the task that has Windows start `program` in WSL for `workspaces`, in UTF-16 as `schtasks` wants it.

    `program` is as a shell there reads it, the paths are those of the Linux side. `distribution` "" is the default one;
    `owner` is the Windows user at whose logon it starts, "" for everybody, which takes an administrator; `key_file` is
    the file with the key, "" for none. Raises `ValueError` for what cannot stand in a task.
    """
    _in_task(program.replace("'", ""))
    words = [program]
    for path in workspaces:
        words += ["--workspace", f"'{_in_task(path)}'"]
    key = f"DELEGATED_ENDPOINTS__OPENAI__KEY_FILE='{_in_task(key_file)}' " if key_file else ""
    log = f"~/{LOG_OF_TASK}"
    script = f"mkdir -p {os.path.dirname(log)}; {key}exec {' '.join(words)} 2>>{log}"
    which = ["--distribution", _in_task(distribution)] if distribution else []
    arguments = subprocess.list2cmdline([*which, "--exec", "sh", "-c", script])
    text, count = _ARGUMENTS.subn(lambda _: html.escape(arguments, quote=False), shipped(TASK).decode())
    head, _, rest = text.partition("<!--")
    text = head.replace("UTF-8", "UTF-16") + rest.partition("-->\n")[2]
    if owner:
        user = f"<UserId>{html.escape(owner, quote=False)}</UserId>"
        text = text.replace("</Enabled>\n    </LogonTrigger>", f"</Enabled>\n      {user}\n    </LogonTrigger>")
        text = text.replace("      <LogonType>", f"      {user}\n      <LogonType>")
    assert count == 1, "the shipped task has one action"
    return text.replace("\n", "\r\n").encode("utf-16")


def in_wsl(path: str) -> tuple[str, str]:
    """Return (distribution, path) by which WSL knows a path of Windows; the distribution is "" where it is not told.

    Raises `ValueError` for a path that WSL does not see by itself: another machine's, or none with a drive.
    """
    if path.startswith("/") and not path.startswith("//"):
        return "", path
    found = _IN_WSL.fullmatch(path)
    if found is not None:
        return found[1], found[2].replace("\\", "/") or "/"
    drive, rest = ntpath.splitdrive(path)
    if not re.fullmatch(r"[A-Za-z]:", drive) or not rest.startswith(("\\", "/")):
        raise ValueError(f"{path} is on no drive of this machine, so WSL does not see it")
    return "", f"/mnt/{drive[0].lower()}{rest.replace(chr(92), '/')}"


def _in_task(text: str) -> str:
    if not text.isprintable() or _NO_TASK & {*text}:
        raise ValueError(f"{text!a} holds a character that cannot stand in a task")
    return text
