"""A directory of code during one operation: confined reads, and a list of its files.

Every read walks down from the root's descriptor, one name at a time, and follows nothing. What cannot be read is a
value with a reason, for a person to act on.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from delegated import globs, paths
from delegated.context import Omitted, SourceFile
from delegated.secrets import forbidden

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 64  # directories within each other
_NO_LIMIT: Final = 1 << 62
_MAX_IGNORE: Final = 256 << 10

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}

VENDORED: Final = frozenset(
    {
        *(".git", ".hg", ".svn", ".jj", "node_modules", "bower_components", "vendor", "Pods", "DerivedData"),
        *(
            ".venv",
            "venv",
            "site-packages",
            "__pycache__",
            ".tox",
            ".nox",
            ".eggs",
            "dist",
            "build",
            "target",
            "htmlcov",
        ),
        *(
            ".mypy_cache",
            ".pytest_cache",
            ".ruff_cache",
            ".hypothesis",
            ".cache",
            ".gradle",
            ".next",
            ".nuxt",
            ".terraform",
        ),
    }
)
GENERATED: Final = re.compile(
    r"package-lock\.json|npm-shrinkwrap\.json|pnpm-lock\.yaml|bun\.lockb?|go\.sum|.+\.lock|.+\.min\.(?:js|css)|.+\.(?:js|css)\.map"
)
ENV_FILE: Final = re.compile(r"\.env(?!\.example\Z).*|.+\.env", re.IGNORECASE | re.DOTALL)
_SCARCE: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
Stamp = tuple[int, int, int]
_MISSING: Final = "File not found: paths are relative to the workspace root"
_IS_DIRECTORY: Final = "a directory, not a file"
_BELOW_LINK: Final = "below a symbolic link; links are not followed"
_OUTSIDE: Final = "not a path below the workspace root"
_ELSEWHERE: Final = "on another file system than the workspace root"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far one operation goes: entries of the tree and of one directory, files of one glob, bytes altogether."""

    entries: int = 50_000
    in_directory: int = 10_000
    found: int = 500
    total: int = 8 << 20  # no model reads a tenth of it


class Tree:
    """The tree during one operation. Its list of files is made when it is first needed."""

    def __init__(self, fd: int, root: str, bounds: Bounds) -> None:
        self._fd = fd
        self._bounds = bounds
        self._device = os.fstat(fd).st_dev
        self._roots = tuple(dict.fromkeys(path.rstrip("/") + "/" for path in (root, os.path.realpath(root))))
        self.warnings: list[str] = []
        self.env_files: tuple[str, ...] | None = None  # known once all was walked through
        self.directories: list[tuple[str, ...]] = []  # that were walked through, once something was
        self._unsound: list[tuple[tuple[str, ...], bool]] = []  # not given for their names; directories?

    def source(self, path: str, why: str, limit: int) -> SourceFile | Omitted:
        """Read a path as a person wrote it."""
        parts = paths.split(path)
        if isinstance(parts, str):
            return Omitted(paths.shown(path), parts + (self._hint(path) if "workspace root" in parts else ""))
        if reason := forbidden("/".join(parts)):
            return Omitted(paths.shown(path), reason)
        data = self.read(parts, limit)
        if isinstance(data, str):
            if data == _IS_DIRECTORY:
                data += f"; write `{paths.shown('/'.join(parts))}/**/*` or a narrower pattern"
            elif data == _MISSING and globs.is_glob(path):
                data = "no file matches; what git ignores, vendored and build directories and lock files are left out"
            elif data == _MISSING:
                data += self._hint(path)
            return Omitted(paths.shown(path), data)
        decoded = decode(data)
        if decoded is None:
            return Omitted(paths.shown(path), f"a binary file ({len(data):,} bytes)")
        text, encoding = decoded
        note = "" if encoding.startswith("utf-8") else f"read as {encoding}"
        full = "; ".join(part for part in (why, note) if part)
        return SourceFile("/".join(parts), text, hashlib.sha256(data).hexdigest(), len(data), full)

    def matching(self, pattern: str) -> list[str]:
        """Return the files that a glob means; none for a plain path, or for a file whose name looks like a glob.

        Last come names that nobody can write in a request, also those of directories that it reaches below: `source`
        says of each why it is not read.
        """
        parts = paths.split(pattern)
        if isinstance(parts, str) or not globs.is_glob(pattern) or not self._look(parts):
            return []
        glob = globs.glob("/".join(parts))
        found = [file for file in self.files if glob.match(file.split("/"))]
        meant = ("/".join(path) for path, below in self._unsound if (glob.below if below else glob.match)(path))
        return [*found, *sorted(meant)]

    def inside(self, path: str) -> str:
        """Cut the root off an absolute path below it, as text; "" for any other. What is left is checked on reading."""
        return next((path[len(root) :] for root in self._roots if path.startswith(root)), "")

    def locate(self, path: str, known: Collection[str]) -> str | None:
        """Find the file that a trace means."""
        parts = paths.split(path)
        name = "/".join(parts) if isinstance(parts, tuple) else ""
        if name and (name in known or (not forbidden(name) and not self._look(parts))):
            return name
        return paths.locate(path, (*known, *self.files))

    @cached_property
    def files(self) -> tuple[str, ...]:
        """List the files that a glob may give, sorted."""
        return tuple(sorted(path for path, _ in self._walk()))

    def stamps(self) -> Iterator[tuple[str, Stamp]]:
        """Yield what a glob may give with what tells that it changed: modification time (ns), size, inode."""
        for path, entry in self._walk():
            with suppress(OSError):  # gone meanwhile
                yield path, _stamp(entry.stat(follow_symlinks=False))

    def stamp(self, path: str) -> Stamp | None:
        """Return of one path what `stamps` would, without walking; None where a glob does not give it."""
        parts = tuple(path.split("/"))
        levels: _Levels = ()
        for depth in range(len(parts)):
            if rules := self._ignore_rules(parts[:depth]):
                levels = (*levels, (depth, rules))
            if not _listed(levels, parts[: depth + 1], directory=depth + 1 < len(parts)):
                return None
            if not paths.is_sound(parts[depth]):
                return None
        directory = self._directory(parts[:-1])
        if isinstance(directory, str):
            return None
        try:
            info = os.stat(parts[-1], dir_fd=directory, follow_symlinks=False)
        except OSError:
            return None
        finally:
            os.close(directory)
        return _stamp(info) if stat.S_ISREG(info.st_mode) else None

    def entries(self, parts: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Yield the names in a directory, each with its type (`stat.S_IFMT`); none when it cannot be opened."""
        for entry, kind in self._entries(parts):
            yield entry.name, kind

    def _entries(self, parts: Sequence[str]) -> Iterator[tuple[os.DirEntry[str], int]]:
        """Yield a directory's entries; each can be looked at further only until the next one is asked for."""
        fd = self._directory(parts)
        if isinstance(fd, str):
            return
        try:
            with os.scandir(fd) as scan:
                for entry in scan:
                    with suppress(OSError):  # gone meanwhile
                        yield entry, _type(entry)
        finally:
            os.close(fd)

    def read(self, parts: Sequence[str], limit: int) -> bytes | str:
        """Read a regular file's bytes, or say why not. What was opened and judged is what is read."""
        fd = self.open_file(parts, limit)
        if isinstance(fd, str):
            return fd
        try:
            chunks: list[bytes] = []
            left = limit + 1
            while left and (chunk := os.read(fd, min(left, 1 << 18))):
                chunks.append(chunk)
                left -= len(chunk)
        except OSError as error:
            return why_not(error)
        finally:
            os.close(fd)
        return b"".join(chunks) if left else f"larger than {limit:,} bytes, and growing"

    def is_missing(self, path: str) -> bool:
        """Say whether there is nothing of this name."""
        return self._look(path.split("/")) == _MISSING

    def lists(self, path: str) -> bool:
        """Say whether a glob would give a file of this path if it were there."""
        parts = path.split("/")
        levels: _Levels = ()
        if len(parts) > MAX_DEPTH:
            return False
        for depth, name in enumerate(parts):
            if rules := self._ignore_rules(parts[:depth]):
                levels = (*levels, (depth, rules))
            here, is_directory = tuple(parts[: depth + 1]), depth < len(parts) - 1
            if (name in VENDORED) if is_directory else (GENERATED.fullmatch(name) or ENV_FILE.fullmatch(name)):
                return False
            if not paths.is_sound(name) or forbidden("/".join(here)):
                return False
            if globs.ignored(levels, here, directory=is_directory):
                return False
        return True

    def _hint(self, path: str) -> str:
        """Say which file was probably meant."""
        inside = paths.split(self.inside(path))
        if isinstance(inside, tuple) and not forbidden("/".join(inside)) and not self._look(inside):
            return paths.did_you_mean(["/".join(inside)])
        return paths.did_you_mean(paths.near(path, self.files))

    def _look(self, parts: Sequence[str]) -> str:
        """Say why a file cannot be opened; "" when it can."""
        fd = self.open_file(parts, _NO_LIMIT)
        if isinstance(fd, str):
            return fd
        os.close(fd)
        return ""

    def open_file(self, parts: Sequence[str], limit: int) -> int | str:
        """Open a regular file of at most `limit` bytes, which the caller closes; or say why not."""
        directory = self._directory(parts[:-1])
        if isinstance(directory, str):
            return directory
        if not _is_name(parts[-1]):
            os.close(directory)
            return _OUTSIDE
        try:
            # Look before opening: to open a device can already do something. Then look at what was opened.
            if reason := self._unfit(os.stat(parts[-1], dir_fd=directory, follow_symlinks=False), limit):
                return reason
            fd = os.open(parts[-1], _FILE, dir_fd=directory)
        except OSError as error:
            return why_not(error)
        finally:
            os.close(directory)
        try:
            reason = self._unfit(os.fstat(fd), limit)
        except OSError:
            os.close(fd)
            raise
        if reason:
            os.close(fd)
            return reason
        return fd

    def _unfit(self, info: os.stat_result, limit: int) -> str:
        if stat.S_ISDIR(info.st_mode):
            return _IS_DIRECTORY
        if not stat.S_ISREG(info.st_mode):
            return f"{_KINDS.get(stat.S_IFMT(info.st_mode), 'a device')}, not a regular file"
        # No look at its device: on an overlay a file has that of its layer. The directories above it were looked at.
        if info.st_size > limit:
            return f"too large: {info.st_size:,} bytes, and at most {limit:,} are read"
        return ""

    def _directory(self, parts: Sequence[str]) -> int | str:
        """Open a directory by walking down from the root; the caller closes it. Whoever asks, no name leads up."""
        if not all(map(_is_name, parts)):
            return _OUTSIDE
        try:
            fd = os.open(".", _DIRECTORY, dir_fd=self._fd)
        except OSError as error:
            return why_not(error)
        for part in parts:
            above = fd
            try:
                fd = os.open(part, _DIRECTORY, dir_fd=above)
            except OSError as error:
                return _BELOW_LINK if _is_link(part, above) else why_not(error)
            finally:
                os.close(above)
            if os.fstat(fd).st_dev != self._device:
                os.close(fd)
                return _ELSEWHERE
        return fd

    def _walk(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield what a glob may give, level by level, so that one huge directory does not hide the others."""
        seen = 0
        env_files: list[str] = []
        self.directories, self._unsound = [], []
        waiting: deque[tuple[tuple[str, ...], _Levels]] = deque([((), ())])
        while waiting:
            parts, levels = waiting.popleft()
            self.directories.append(parts)
            if rules := self._ignore_rules(parts):
                levels = (*levels, (len(parts), rules))
            for number, (entry, kind) in enumerate(self._entries(parts)):
                name = entry.name
                seen += 1
                if seen > self._bounds.entries:
                    self.warnings.append(f"the workspace has more than {seen - 1:,} entries; globs know the first ones")
                    self.env_files = tuple(env_files)
                    return
                if number == self._bounds.in_directory:
                    self.warnings.append(
                        f"`{'/'.join(parts)}` has more than {number:,} entries; globs know the first ones"
                    )
                    break
                path = (*parts, name)
                is_directory = kind == stat.S_IFDIR
                if not is_directory and kind != stat.S_IFREG:
                    continue
                if not is_directory and ENV_FILE.fullmatch(name) and not GENERATED.fullmatch(name):
                    env_files.append("/".join(path))
                if not _listed(levels, path, directory=is_directory):
                    continue
                if not paths.is_sound(name):
                    self._unsound.append((path, is_directory))
                elif is_directory:
                    waiting.append((path, levels))
                else:
                    yield "/".join(path), entry
        self.env_files = tuple(env_files)

    def _ignore_rules(self, parts: Sequence[str]) -> Sequence[globs.Rule]:
        """Read a directory's `.gitignore`, at the root `.git/info/exclude` before it; empty when there is none."""
        files = [(*parts, ".gitignore")] if parts else [(".git", "info", "exclude"), (".gitignore",)]
        texts = [self.read(file, _MAX_IGNORE) for file in files]
        return [
            rule for text in texts if isinstance(text, bytes) for rule in globs.rules(text.decode("utf-8", "replace"))
        ]


_Levels = tuple[tuple[int, Sequence[globs.Rule]], ...]


def _listed(levels: _Levels, path: tuple[str, ...], *, directory: bool) -> bool:
    """Say whether a glob may give a file, or what lies below a directory, as far as its name can be in a path."""
    name = path[-1]
    if (name in VENDORED or len(path) >= MAX_DEPTH) if directory else GENERATED.fullmatch(name):
        return False
    if forbidden("/".join(path)):
        return False
    return not globs.ignored(levels, path, directory=directory)


def _stamp(info: os.stat_result) -> Stamp:
    return info.st_mtime_ns, info.st_size, info.st_ino


def _type(entry: os.DirEntry[str]) -> int:
    """Return the type of a directory's entry, without asking the disk again where the system told it with the name."""
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFCHR


def why_not(error: OSError) -> str:
    """Say in words why a file cannot be read; raise on what says nothing about the file.

    A process without descriptors would else ask, and pay, without the code, and not know the secrets of `.env`.
    """
    if error.errno in _SCARCE:
        raise error
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return _MISSING
    if error.errno == errno.ELOOP:
        return "a symbolic link, not a regular file"
    return f"cannot be read: {error.strerror}"


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and "/" not in part


def _is_link(name: str, directory: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except OSError:
        return False


_BOMS: Final = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x9f]")


def decode(data: bytes) -> tuple[str, str] | None:
    """Decode a text file: UTF-8, UTF-16 with its mark, or Latin-1 that is mostly ASCII; None for anything else."""
    encodings = [name for mark, name in _BOMS if data.startswith(mark)] or ["utf-8", "latin-1"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        doubtful = encoding == "latin-1" and (
            _CONTROLS.search(text) or sum(byte > 127 for byte in data) * 4 > len(data)
        )
        if "\0" not in text and not doubtful:
            return text, encoding
    return None
