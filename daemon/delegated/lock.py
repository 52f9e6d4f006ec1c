"""One process serves a folder: the lock on a journal, which says who holds it."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Final

from delegated.disk import Directory
from delegated.errors import OperatorError

try:
    import fcntl
except ImportError:  # Windows: the exclusive creation of each record remains as the guard
    fcntl = None  # type: ignore[assignment]

NAME: Final = "lock"
EX_TEMPFAIL: Final = 75
EX_IOERR: Final = 74
_BUSY: Final = (errno.EWOULDBLOCK, errno.EACCES)
_PATIENCE_S: Final = 0.2
_HINT: Final = "one daemon serves a folder: stop that one first, or let it do the work"


class Lock:
    """The lock of an open journal, held until `release`. The directory stays its owner's, who closes it.

    `until` says, for people, what the holder leaves after ("" for one that stays). Raises `OperatorError` with code 75
    when another process holds it, 74 when it cannot be had at all; `OSError` when the disk does not take its file.
    """

    def __init__(self, directory: Directory, *, until: str = "") -> None:
        self._dir = directory
        self._fd = -1
        self._told = f"pid {os.getpid()} on {socket.gethostname()}" + (f", until {until}" if until else "")
        try:
            self._take()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            self._fd = fd = self._dir.open(NAME, os.O_RDWR | os.O_CREAT)
            if fcntl is not None:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno not in _BUSY:
                        raise OperatorError(f"cannot lock {self._dir.path}: {error.strerror}", EX_IOERR) from error
                    if time.monotonic() < deadline:  # a client that only asks who holds it lets go at once
                        self.release()
                        time.sleep(0.02)
                        continue
                    holder = os.read(fd, 200).decode("utf-8", "replace").strip() or "another process"
                    raise OperatorError(f"this folder is held by {holder!a}", EX_TEMPFAIL, _HINT) from error
            if self._has_the_name(fd):
                break
            self.release()  # the lock file was replaced between open and lock: lock the one that has the name now
        self._take_directory()
        self._sign(fd)

    def _take_directory(self) -> None:
        """Lock the directory, too: the file can be deleted by anybody who tidies up, and would then lock nobody out."""
        if fcntl is None or self._dir.fd < 0:
            return
        try:
            fcntl.flock(self._dir.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                message = "this folder is held by another process, whose lock file was taken away"
                raise OperatorError(message, EX_TEMPFAIL, _HINT) from error
            # Some network systems lock no directory: there the file is all there is.

    def _has_the_name(self, fd: int) -> bool:
        info = os.fstat(fd)
        return self._dir.identify(NAME) == (info.st_dev, info.st_ino)

    def _sign(self, fd: int) -> None:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{self._told}\n".encode(), 0)

    def renew(self) -> bool:
        """Put the lock file back if somebody took it away; True when it was gone. Raises `OSError` when it cannot."""
        if self._has_the_name(self._fd):
            return False
        fd = self._dir.open(NAME, os.O_RDWR | os.O_CREAT)
        try:
            if fcntl is not None:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._sign(fd)
        except BaseException:
            os.close(fd)
            raise
        self.release()
        self._fd = fd
        return True
