"""What git has staged of a file: git itself would run what a hostile repository tells it to, so its files are read."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Final

from delegated import git_index
from delegated.git_objects import Late, Repository, Unreadable
from delegated.registry import around, attributes, index_of, said_in
from delegated.tree import decode
from delegated.workspace import Workspace

_SECONDS: Final = 2.0
_ENCODING: Final = b"working-tree-encoding"  # by which bytes that say one thing to us say another in the work tree
_POINTER: Final = b"version https://git-lfs.github.com/spec/"


class Unknown(Exception):
    """It cannot be said what git has of a file, for the reason given."""


def busy(directory: str) -> str:
    """Return the lock of a repository around a directory that git changes just now, "" when it changes none.

    Git writes the files first and the index last: a file that came by git can be told from an edited one once it ends.
    """
    for _, place in around(os.path.realpath(directory)):
        lock = os.path.join(place, "index.lock")
        if os.path.lexists(lock):
            return lock
    return ""


def staged(path: str) -> bytes | None:
    """Return a file's content as git has it staged; None where no repository around it tracks the file.

    `path` is absolute. Raises `Unknown` where git tracks the file, or may, and what it has of it cannot be read: a
    conflict, a split index, a submodule, an object that is too large or not here. Likewise where a filter or another
    encoding makes the file of it: git has a pointer, a cipher or other words then, and what the repository brought
    would look like its user's.
    """
    directory, name = os.path.split(path)
    full = os.path.join(os.path.realpath(directory), name)
    for root, place in around(os.path.dirname(full)):
        index = os.path.join(place, "index")
        try:
            if not os.path.lexists(index) and os.path.isdir(place):
                continue  # nothing was ever added
            below = os.fsencode(os.path.relpath(full, root).replace(os.sep, "/"))
            found = git_index.staged(index_of(place), below)
            if found is None:
                continue
            if not found:
                raise Unknown("it is in conflict")
            if any(_ENCODING in each for each in attributes(root, os.fsdecode(below), place)):
                raise Unknown("git writes files of this repository in another encoding")
            data = _blob(place, found)
            if data.startswith(_POINTER) or decode(data) is None:
                raise Unknown("git has something else in its place: a filter makes the file of it")
            return data
        except (OSError, ValueError, Unreadable) as error:
            raise Unknown(f"{index}: {getattr(error, 'strerror', None) or error}") from error
        except Late as error:
            raise Unknown(f"{index}: it takes longer than {_SECONDS:g} s") from error
    return None


def _blob(place: str, name: str) -> bytes:
    """Read a blob from the repository that has the objects: for a worktree it is another one, which a file names."""
    with suppress(FileNotFoundError):
        place = os.path.join(place, said_in(os.path.join(place, "commondir")))
    root, mark = os.path.split(os.path.realpath(place))
    if mark != ".git":
        raise Unreadable("its repository is no directory `.git`")
    until = time.monotonic() + _SECONDS
    with (
        Workspace(root) as space,
        space.opened() as tree,
        Repository(tree, until=until, clock=time.monotonic) as repository,
    ):
        return repository.blob(name)
