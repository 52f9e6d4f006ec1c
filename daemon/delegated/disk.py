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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_DIR_FD: Final = {os.open, os.link, os.rename, os.unlink, os.mkdir, os.stat} <= os.supports_dir_fd
SERVES: Final = _DIR_FD and fcntl is not None and hasattr(os, "O_NOFOLLOW") and hasattr(os, "O_DIRECTORY")
"""Whether a daemon can keep its promises on this system. The client commands need none of it."""
_NO_LINK: Final = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_SYNC: Final = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
_FULL_SYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)
_OPEN: Final = (
    getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
)


def make_private(path: str) -> None:
    """Make a directory for its owner alone, and its parents alike: `os.makedirs` leaves these to the umask."""
    if not os.path.isdir(path):
        if above := os.path.dirname(path):
            make_private(above)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)


def put(path: str, data: bytes, mode: int | None = None) -> None:
    """Give a path a file of these bytes, whole or not at all: somebody may read it at this moment. Raises `OSError`.

    What has the name is replaced, also a link; `mode` is what the umask leaves when it is not given.
    """
    temp = f"{path}.{os.getpid()}.tmp"
    # With its mode from the first moment: what others may not read, they may not read under the other name either.
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o666 if mode is None else mode)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        if mode is not None:
            os.chmod(temp, mode)
        os.replace(temp, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temp)
        raise


class Directory:
    """An open directory. It stays the same directory when its path is renamed, replaced or mounted over.

    All paths are relative to it. Where the system has no `dir_fd` functions (Windows) the path is used instead.
    """

    def __init__(self, path: str, *, create: bool = False) -> None:
        if create:
            make_private(path)
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

    def identify(self, path: str) -> tuple[int, int] | None:
        """Return the device and inode that have this name now, None when it cannot be seen."""
        try:
            info = self.stat(path)
        except OSError:
            return None
        return info.st_dev, info.st_ino

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
            if not _DIR_FD:
                return os.listdir(self._at(path))
            fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return []
        try:
            return os.listdir(fd)
        finally:
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
            _sync_names(self.fd)
            return
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _sync_names(fd)
        finally:
            os.close(fd)

    def sync_file(self, path: str) -> None:
        """Make a file's bytes durable, whoever wrote them. Raises `OSError`."""
        fd = self.open(path)
        try:
            _sync(fd)
        finally:
            os.close(fd)

    def remove(self, path: str) -> None:
        """Remove a name; nothing happens when it is not there."""
        with suppress(FileNotFoundError):
            os.unlink(self._at(path), dir_fd=self._fd)

    def rmdir(self, path: str) -> None:
        """Remove a directory; nothing happens when it is not there, or not empty."""
        try:
            os.rmdir(self._at(path), dir_fd=self._fd)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise

    def write_temp(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Write a new file whole: a short write (a full disk gives one first) is continued or raises."""
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                _sync(fd)
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                self.remove(path)
            raise
        os.close(fd)

    def create(self, temp: str, path: str, data: bytes) -> None:
        """Make a record: temp, sync, link, sync of the directory. Raises `FileExistsError` if somebody was first.

        A name whose directory could not be synced is taken away again: a second sync of the same directory may report
        success for what the first one lost, so the record is made anew, by whoever asks for it again.
        """
        self.write_temp(temp, data)
        try:
            self._link(temp, path)
        finally:
            with suppress(OSError):
                self.remove(temp)
        try:
            self.sync(os.path.dirname(path) or ".")
        except OSError:
            with suppress(OSError):
                self.remove(path)
            raise

    @property
    def mount(self) -> str:
        """Name the mount that this directory was reached through, "" where the system does not say.

        Names cannot be moved or linked from one mount to another, also where both show the same file system.
        """
        with suppress(OSError), open(f"/proc/self/fdinfo/{self.fd}", encoding="ascii") as lines:
            return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
        return ""

    def _link(self, temp: str, path: str) -> None:
        try:
            os.link(self._at(temp), self._at(path), src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            # No hard links here (FAT, some network systems): an exclusive empty file takes the name first, so that a
            # second writer still fails; a crash in between leaves an empty record, which counts as torn.
            os.close(self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            try:
                os.rename(self._at(temp), self._at(path), src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except OSError:
                with suppress(OSError):  # else the name is taken by nothing, and the record can never be made
                    self.remove(path)
                raise

    def keep(self, path: str) -> str:
        """Give a file a second name that is free, `<path>.edited-<n>`, and return it: its first one may then go."""
        for number in range(1, 10_000):
            aside = f"{path}.edited-{number}"
            with suppress(FileExistsError):
                self._link(path, aside)
                return aside
        raise FileExistsError(errno.EEXIST, "there are too many edited files already", path)

    def link_into(self, path: str, target: Directory, temp: str, name: str) -> None:
        """Give a file of this directory a second name in another one, over what has that name; `temp` is in `target`.

        Where a file cannot have two names it gets the new one in place of the old. Raises `FileNotFoundError`.
        """
        try:
            if not _DIR_FD:
                raise OSError(errno.ENOSYS, "no links by descriptor", path)
            os.link(path, temp, src_dir_fd=self.fd, dst_dir_fd=target.fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            self.rename_into(path, target, name)
        else:
            target.rename_into(temp, target, name)
            target.remove(temp)  # it stays when the name leads to this very file already

    def rename_into(self, path: str, target: Directory, name: str) -> None:
        """Move a file of this directory over a name in another one; a planted symlink is replaced, not followed."""
        if _DIR_FD:
            os.rename(path, name, src_dir_fd=self.fd, dst_dir_fd=target.fd)
        else:
            os.replace(self._at(path), target._at(name))


def _sync(fd: int) -> None:
    """Make a file's bytes survive a power cut. On macOS fsync(2) stops at the drive's own cache."""
    if _FULL_SYNC is not None:
        try:
            fcntl.fcntl(fd, _FULL_SYNC)
        except OSError as error:
            if error.errno not in (*_NO_SYNC, errno.ENOTTY):  # a network system, or one in user space
                raise
        else:
            return
    os.fsync(fd)


def _sync_names(fd: int) -> None:
    """Make a directory's names survive a power cut, where the file system lets a directory be synced at all."""
    try:
        _sync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


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
