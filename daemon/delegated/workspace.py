"""Reads the code that a request is about, strictly below a root: no symlink, no device, no surprise."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Self

from delegated import paths, traces
from delegated.context import Omitted, SourceFile
from delegated.secrets import env_values, forbidden
from delegated.tree import ENV_FILE, MAX_BYTES, Bounds, Tree, decode

_BOUNDS: Final = Bounds()
_ROOT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ENV_FILES: Final = 200  # that are read


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a request's list of files means: the files in its order, what is not to be had, and what to tell of it."""

    files: tuple[SourceFile, ...]
    omitted: tuple[Omitted, ...]
    warnings: tuple[str, ...]


class Workspace:
    """An open tree of code. Safe to use from several threads.

    Every read walks down from the root's descriptor, one name at a time, and follows nothing. When the root's path has
    come to lead to another directory (deleted and cloned anew), the next operation works on that one. Raises `OSError`
    when the root is no directory that can be opened.
    """

    def __init__(self, root: str, *, bounds: Bounds = _BOUNDS) -> None:
        self.root = os.path.abspath(root)
        self._bounds = bounds
        self._lock = threading.Lock()
        self._env_files: tuple[str, ...] | None = None
        self._fd = os.open(self.root, _ROOT)

    def close(self) -> None:
        """Release the descriptor."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, path: str, *, why: str = "", max_bytes: int = MAX_BYTES) -> SourceFile | Omitted:
        """Read one text file; else say why not, in words that its user can act on."""
        with self.opened() as tree:
            return tree.source(path, why, max_bytes)

    def bytes_of(self, path: str, *, max_bytes: int = MAX_BYTES) -> bytes | str:
        """Read a file that may be sent, as it is; else say why not."""
        parts = paths.split(path)
        if isinstance(parts, str):
            return parts
        with self.opened() as tree:
            return forbidden("/".join(parts)) or tree.read(parts, max_bytes)

    def gather(self, patterns: Sequence[str], *, max_bytes: int = MAX_BYTES) -> Gathered:
        """Read the files that paths and globs mean, each once.

        A glob leaves out what git ignores, vendored and build directories and lock files; a path that is written out
        does not. Neither ever gives what `secrets.forbidden` names.
        """
        files: dict[str, SourceFile] = {}
        omitted: dict[str, Omitted] = {}
        warnings: list[str] = []
        size = 0
        with self.opened() as tree:
            for pattern in patterns:
                matches = tree.matching(pattern)
                if len(matches) > self._bounds.found:
                    warnings.append(
                        f"`{paths.shown(pattern)}` matches {len(matches):,} files; {self._bounds.found} were looked at"
                    )
                for path in matches[: self._bounds.found] if matches else (pattern,):
                    if path in files or path in omitted:
                        continue
                    if size > self._bounds.total:
                        omitted[path] = Omitted(paths.shown(path), f"not read: the files before it hold {size:,} bytes")
                        continue
                    why = f"matches `{paths.shown(pattern)}`" if matches else "named by the request"
                    found = tree.source(path, why, max_bytes)
                    if isinstance(found, SourceFile):
                        files.setdefault(found.path, found)
                        size += found.size
                    else:
                        omitted[path] = found
                        if not matches:
                            warnings.append(f"`{found.path}`: {found.reason}")
            warnings += tree.warnings
        return Gathered(tuple(files.values()), tuple(omitted.values()), tuple(dict.fromkeys(warnings)))

    def resolve_frames(
        self, frames: Iterable[traces.Frame], *, known: Collection[str] = ()
    ) -> tuple[tuple[traces.Frame, str], ...]:
        """Return the frames that lie in the workspace, in their order, each with its path relative to the root.

        A path below the root's own path is cut; any other, as from a container or another machine, is found by its
        end, among the workspace's files and those in `known` (which need not exist).
        """
        located: dict[str, str | None] = {}
        found: list[tuple[traces.Frame, str]] = []
        with self.opened() as tree:
            for frame in frames:
                inside = tree.inside(frame.path)
                if traces.is_library(inside) if inside else frame.library:
                    continue
                if frame.path not in located:
                    located[frame.path] = tree.locate(inside or frame.path, known)
                path = located[frame.path]
                if path is not None:
                    found.append((frame, path))
        return tuple(found)

    def files(self) -> tuple[str, ...]:
        """List the files that a glob may give, sorted."""
        with self.opened() as tree:
            return tree.files

    def env_values(self, *, search: bool = True) -> tuple[str, ...]:
        """Collect the values in env files (`.env*`, `*.env`) that must be hidden wherever they stand, longest first.

        The root's are looked up each time. Those below it are known by the last time that the tree was walked; when it
        never was, they are searched for, unless `search` is false.
        """
        values: dict[str, None] = {}
        with self.opened() as tree:
            paths = sorted(name for name, kind in tree.entries(()) if kind == stat.S_IFREG and ENV_FILE.fullmatch(name))
            below = self._env_files
            if below is None and search:
                _ = tree.files
                below = tree.env_files
            for path in dict.fromkeys((*paths, *sorted(below or ()))[:_ENV_FILES]):
                data = tree.read(path.split("/"), MAX_BYTES)
                if isinstance(data, bytes):
                    read = decode(data)
                    values.update(dict.fromkeys(env_values(read[0] if read else data.decode("utf-8", "replace"))))
        return tuple(sorted(values, key=lambda value: (-len(value), value))[:2_000])

    @contextmanager
    def opened(self) -> Iterator[Tree]:
        """Lend a descriptor of the root for one operation."""
        with self._lock:
            with suppress(OSError):  # gone for now: then nothing is found, which is the truth
                there, ours = os.stat(self.root), os.fstat(self._fd)
                if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
                    fd = os.open(self.root, _ROOT)
                    os.close(self._fd)
                    self._fd, self._env_files = fd, None
            lent = os.dup(self._fd)
        try:
            tree = Tree(lent, self.root, self._bounds)
            yield tree
            if tree.env_files is not None:
                self._env_files = tree.env_files
        finally:
            os.close(lent)
