"""What this program wrote to be a service, on record, so that exactly that is taken away again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from delegated.errors import OperatorError

from . import exits


@dataclass(frozen=True, slots=True)
class File:
    """A file to write: its absolute path, its bytes and its mode."""

    path: str
    data: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class Installed:
    """The record: the workspaces of the service, the SHA-256 of each file by path, the directories that were made."""

    workspaces: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()


def read(path: str) -> Installed | None:
    """Read the record; None when there is none. Raises `OperatorError` when it cannot be understood."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
        return Installed(tuple(value["workspaces"]), dict(value["files"]), tuple(value["directories"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OperatorError(
            f"cannot read {path}: {error}", exits.CANNOT_WRITE, f"look at it, then: rm {path}"
        ) from error


def foreign(record: Installed | None, path: str) -> str:
    """Say why a file that stands there must not be replaced or removed; "" when it is as we wrote it, or is absent."""
    try:
        with open(path, "rb") as file:
            now = hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return ""
    if record is None or path not in record.files:
        return "was not written by this command"
    return "" if record.files[path] == now else "was changed since this command wrote it"


def write(path: str, record: Installed | None, files: Sequence[File], workspaces: Sequence[str]) -> Installed:
    """Write files and then the record at `path`. Raises `OSError`; what is on record by then can be taken away."""
    old = record or Installed()
    made = list(old.directories)
    sums = dict(old.files)
    _make(os.path.dirname(path), made)
    for file in files:
        _make(os.path.dirname(file.path), made)
        sums[file.path] = hashlib.sha256(file.data).hexdigest()
    new = Installed(tuple(workspaces), sums, tuple(dict.fromkeys(made)))
    # The record first: a file that was written and is not on it would be left behind.
    value = {"workspaces": new.workspaces, "files": new.files, "directories": new.directories}
    _replace(File(path, json.dumps(value, indent=2).encode() + b"\n", 0o600))
    for file in files:
        _replace(file)
    return new


def remove(path: str, record: Installed) -> list[tuple[str, str]]:
    """Take away what is on record, and the record; return each path with what became of it. Raises `OSError`."""
    told = []
    for each in record.files:
        why = foreign(record, each)
        if why:
            told.append((each, f"kept: it {why}"))
            continue
        with contextlib.suppress(FileNotFoundError):
            os.unlink(each)
            told.append((each, "removed"))
    os.unlink(path)
    told.append((path, "removed"))
    for each in sorted(record.directories, key=len, reverse=True):
        with contextlib.suppress(OSError):  # somebody else put something there: it is theirs now
            os.rmdir(each)
            told.append((each, "removed"))
    return told


def _make(path: str, made: list[str]) -> None:
    """Make a directory and its parents; add those that were not there to `made`."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        os.mkdir(each, 0o700)
        made.append(each)


def _replace(file: File) -> None:
    temp = f"{file.path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temp)
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), file.mode)
    with open(fd, "wb") as out:
        out.write(file.data)
    os.replace(temp, file.path)
