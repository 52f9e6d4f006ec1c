"""Bytes that must survive: written whole, synced, and only then given their name.

Everything durable goes through `Directory`: a record by `create` (link, fails if somebody was first), a RESULT by
`replace` (rename). A failed sync means *unknown*: the bytes are written anew under a new temporary name, never
synced again through the same descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self

_DIR_FD: Final = {os.open, os.link, os.rename, os.unlink, os.mkdir, os.stat} <= os.supports_dir_fd
_NO_LINK: Final = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_OPEN: Final = (
    getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
)


class Directory:
    """An open directory. It stays the same directory when its path is renamed, replaced or mounted over.

    All paths are relative to it. Where the system has no `dir_fd` functions (Windows) the path is used instead.
    """

    def __init__(self, path: str, *, create: bool = False, mode: int = 0o700) -> None:
        if create:
            os.makedirs(path, mode=mode, exist_ok=True)
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | _OPEN | os.O_DIRECTORY) if _DIR_FD else -1
        info = self.stat(".") if self.fd < 0 else os.fstat(self.fd)
        self.identity = (info.st_dev, info.st_ino)

    def close(self) -> None:
        """Release the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at(self, path: str) -> str:
        return path if _DIR_FD else os.path.join(self.path, path)

    @property
    def _fd(self) -> int | None:
        return self.fd if _DIR_FD else None

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
        """Open without following a symlink in the last component and without ever blocking on a FIFO."""
        return os.open(self._at(path), flags | _OPEN | getattr(os, "O_NONBLOCK", 0), mode, dir_fd=self._fd)

    def stat(self, path: str) -> os.stat_result:
        """Stat without following symlinks."""
        return os.stat(self._at(path), dir_fd=self._fd, follow_symlinks=False)

    def exists(self, path: str) -> bool:
        """Say whether the name is taken, by anything."""
        try:
            self.stat(path)
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str, limit: int) -> bytes:
        """Read a regular file of at most `limit` bytes. Raises `OSError`: EFBIG if larger, EINVAL if not regular."""
        fd = self.open(path)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            return read_all(fd, limit, path)
        finally:
            os.close(fd)

    def names(self, path: str = ".") -> list[str]:
        """List the names in a subdirectory; none when there is no such directory."""
        try:
            fd = self.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)) if _DIR_FD else -1
        except FileNotFoundError:
            return []
        try:
            return os.listdir(fd if _DIR_FD else self._at(path))
        finally:
            if fd >= 0:
                os.close(fd)

    @contextmanager
    def scan(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        """Iterate over the directory's entries through a descriptor of its own."""
        if not _DIR_FD:
            with os.scandir(self.path) as entries:
                yield entries
            return
        fd = self.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as entries:
                yield entries
        finally:
            os.close(fd)

    def mkdir(self, path: str) -> bool:
        """Make a directory of mode 0700; False when it is there already."""
        try:
            os.mkdir(self._at(path), 0o700, dir_fd=self._fd)
        except FileExistsError:
            return False
        return True

    def sync(self, path: str = ".") -> None:
        """Make the names in a subdirectory durable."""
        if not _DIR_FD:  # a directory cannot be synced there; the file system's own journal has to do
            return
        if path == ".":
            os.fsync(self.fd)
            return
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, path: str) -> None:
        """Remove a name; nothing happens when it is not there."""
        with suppress(FileNotFoundError):
            os.unlink(self._at(path), dir_fd=self._fd)

    def write_temp(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Write a new file whole: a short write (a full disk gives one first) is continued or raises."""
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                self.remove(path)
            raise
        os.close(fd)

    def create(self, temp: str, path: str, data: bytes) -> None:
        """Make a record: temp, sync, link, sync of the directory. Raises `FileExistsError` if somebody was first."""
        self.write_temp(temp, data)
        try:
            self._link(temp, path)
        finally:
            with suppress(OSError):
                self.remove(temp)
        self.sync(os.path.dirname(path) or ".")

    def _link(self, temp: str, path: str) -> None:
        try:
            os.link(self._at(temp), self._at(path), src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            # No hard links here (FAT, some network systems): an exclusive empty file takes the name first, so that a
            # second writer still fails; a crash in between leaves an empty record, which counts as torn.
            os.close(self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            os.rename(self._at(temp), self._at(path), src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def rename_into(self, path: str, target: Directory, name: str) -> None:
        """Move a file of this directory over a name in another one; a planted symlink is replaced, not followed."""
        if _DIR_FD:
            os.rename(path, name, src_dir_fd=self.fd, dst_dir_fd=target.fd)
        else:
            os.replace(self._at(path), target._at(name))


def read_all(fd: int, limit: int, path: str = "") -> bytes:
    """Read a descriptor to its end; raises `OSError` EFBIG as soon as more than `limit` bytes came."""
    if os.fstat(fd).st_size > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
    chunks: list[bytes] = []
    left = limit + 1
    while left and (chunk := os.read(fd, min(left, 1 << 20))):
        chunks.append(chunk)
        left -= len(chunk)
    if not left:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
    return b"".join(chunks)
