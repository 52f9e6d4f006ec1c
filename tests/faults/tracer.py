"""Stop a process, with all its threads, at any system call by which it can leave something behind; Linux only.

A seccomp filter in the process hands these calls to its tracer and lets all others run at full speed. Each is a
*point* with a name that is the same in every life: the call, what it is about, and how many of that name came before
(`linkat 01-first/sent.1#1`). Threads may order their points differently from life to life; the names stay.

Left out are calls without a lasting effect: on standard output and error, pipes, eventfds, inotify, the loop's own
wake-up socket (a socket that was never connected to a network address), and on files outside `root`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import signal
import struct
import sys
from collections import Counter
from dataclasses import dataclass, field

PATH_CALLS = {  # call: which arguments are (directory, path), the last one being what the call is about
    "rename": ((None, 0), (None, 1)),
    "renameat": ((0, 1), (2, 3)),
    "renameat2": ((0, 1), (2, 3)),
    "link": ((None, 0), (None, 1)),
    "linkat": ((0, 1), (2, 3)),
    "unlink": ((None, 0),),
    "unlinkat": ((0, 1),),
    "mkdir": ((None, 0),),
    "mkdirat": ((0, 1),),
    "rmdir": ((None, 0),),
    "open": ((None, 0),),
    "openat": ((0, 1),),
}
FILE_CALLS = ("write", "pwrite64", "writev", "pwritev", "fsync", "fdatasync", "ftruncate", "fallocate")
SOCKET_CALLS = ("connect", "sendto", "sendmsg", "recvfrom", "recvmsg")
NUMBERS = {
    "x86_64": {
        "write": 1, "open": 2, "pwrite64": 18, "writev": 20, "connect": 42, "sendto": 44, "recvfrom": 45,
        "sendmsg": 46, "recvmsg": 47, "fsync": 74, "fdatasync": 75, "ftruncate": 77, "rename": 82, "mkdir": 83,
        "rmdir": 84, "link": 86, "unlink": 87, "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264,
        "linkat": 265, "fallocate": 285, "pwritev": 296, "renameat2": 316,
    },
    "aarch64": {
        "mkdirat": 34, "unlinkat": 35, "linkat": 37, "renameat": 38, "ftruncate": 46, "fallocate": 47, "openat": 56,
        "write": 64, "writev": 66, "pwrite64": 68, "pwritev": 70, "fsync": 82, "fdatasync": 83, "connect": 203,
        "sendto": 206, "recvfrom": 207, "sendmsg": 211, "recvmsg": 212, "renameat2": 276,
    },
}  # fmt: skip

_SEIZE, _CONT, _SYSCALL, _LISTEN, _SYSCALL_INFO = 0x4206, 7, 24, 0x4208, 0x420E
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000  # sysgood, fork, vfork, clone, exec, seccomp, exitkill
_EVENT_SECCOMP, _EVENT_STOP = 7, 128
_WALL = 0x40000000
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def calls() -> dict[str, int]:
    """Return the numbers of the traced calls on this machine, none where they are not known."""
    return NUMBERS.get(platform.machine(), {})


def die_with_parent() -> None:
    """Have this process killed when the one that forked it ends: a sweep that is stopped leaves nothing running."""
    if sys.platform == "linux":
        _libc.prctl(1, signal.SIGKILL, 0, 0, 0)


def surrender() -> None:
    """Hand this process's calls to its tracer from now on; without a tracer they fail."""
    code = [_bpf(0x20, 0)]  # load the number of the call
    for name, number in calls().items():
        code.append(_bpf(0x15, number, 0, 1 if name not in ("open", "openat") else 4))
        if name in ("open", "openat"):  # only one that may make a file
            code += [_bpf(0x20, 16 + 8 * (1 if name == "open" else 2)), _bpf(0x45, os.O_CREAT, 1, 0)]
            code += [_bpf(6, _ALLOW)]
        code.append(_bpf(6, _TRACE))
    code.append(_bpf(6, _ALLOW))
    program = b"".join(code)
    text = ctypes.create_string_buffer(program)
    filter_ = struct.pack("HxxxxxxP", len(code), ctypes.addressof(text))
    for arguments in ((38, 1, 0, 0, 0), (22, 2, filter_)):  # no_new_privs, seccomp
        if _libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


def _bpf(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, k)


@dataclass
class Trail:
    """What one life came by: its points in order, the one at which it was killed ("" if none), its exit status."""

    points: list[str] = field(default_factory=list)
    killed_at: str = ""
    status: int = 0


def seize(pid: int) -> None:
    """Become the tracer of a process; its threads and children to come are traced too."""
    _ptrace(_SEIZE, pid, 0, _OPTIONS)


def follow(pid: int, root: str, victim: str = "", *, after: bool = False) -> Trail:
    """Let a seized process run to its end, or kill its group when it is about to make the call `victim`.

    With `after` it dies when the call has returned. Call this in a process that has no other children.
    """
    trail = Trail()
    names = _Names(pid, root)
    dying = -1
    while True:
        try:
            tid, status = os.waitpid(-1, _WALL)
        except ChildProcessError:
            return trail
        if not os.WIFSTOPPED(status):
            if tid == pid:
                trail.status = status
            continue
        number, event = os.WSTOPSIG(status), status >> 16
        go, pass_on = _CONT, 0
        if event == _EVENT_SECCOMP:
            point = "" if trail.killed_at else names.point(tid)
            if point:
                trail.points.append(point)
            if point and point == victim:
                if after:
                    dying, go = tid, _SYSCALL
                else:
                    trail.killed_at = point
                    os.killpg(pid, signal.SIGKILL)
                    continue
        elif event == _EVENT_STOP:
            go = _LISTEN if number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU) else _CONT
        elif event == 0 and number == signal.SIGTRAP | 0x80:
            if tid == dying:
                trail.killed_at = victim
                os.killpg(pid, signal.SIGKILL)
                continue
        elif event == 0:
            pass_on = number
        try:
            _ptrace(go, tid, 0, pass_on)
        except ProcessLookupError:  # killed meanwhile
            pass


def _ptrace(what: int, pid: int, address: int, data: int) -> None:
    if _libc.ptrace(what, pid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"ptrace {what}")


class _Names:
    """Gives the calls of one life their names."""

    def __init__(self, pid: int, root: str) -> None:
        self._proc = f"/proc/{pid}"
        self._memory = os.open(f"{self._proc}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._root = os.path.realpath(root) + "/"
        self._call = {number: name for name, number in calls().items()}
        self._seen: Counter[str] = Counter()
        self._temps: dict[str, str] = {}  # which record a temporary file will be
        self._network: set[str] = set()
        self._info = ctypes.create_string_buffer(88)

    def point(self, tid: int) -> str:
        """Name the call before which this thread stands; "" when it has no lasting effect."""
        if _libc.ptrace(_SYSCALL_INFO, tid, len(self._info), ctypes.addressof(self._info)) < 0:
            return ""  # killed meanwhile
        number, *arguments = struct.unpack_from("7Q", self._info.raw, 24)
        name = self._call[number]
        try:
            about = self._about(name, arguments)
        except OSError:
            return ""
        if not about:
            return ""
        words = f"{name} {about}"
        self._seen[words] += 1
        return f"{words}#{self._seen[words]}"

    def _about(self, name: str, arguments: list[int]) -> str:
        if name in PATH_CALLS:
            paths = [
                self._path(None if at is None else arguments[at], arguments[path]) for at, path in PATH_CALLS[name]
            ]
            shown = [self._role(path) for path in paths]
            return " -> ".join(shown) if all(shown) else ""
        target = os.readlink(f"{self._proc}/fd/{arguments[0]}")
        if target.startswith("socket:"):
            return self._about_socket(name, target, arguments)
        if arguments[0] <= 2 or not target.startswith("/"):
            return ""
        if name in ("write", "writev", "pwrite64") and "/.delegated/tmp/" in target:
            self._temps.setdefault(target, _kind(self._read(arguments[1], min(arguments[2], 400))))
        return self._role(target)

    def _about_socket(self, name: str, target: str, arguments: list[int]) -> str:
        if name == "connect":
            (family,) = struct.unpack("H", self._read(arguments[1], 2))
            if family in (2, 10):
                self._network.add(target)
        if target not in self._network:
            return ""
        if name == "sendto":
            line = self._read(arguments[1], min(arguments[2], 200)).split(b"\r\n")[0]
            if line.endswith(b"HTTP/1.1"):
                words = line.decode("ascii", "replace").split("?")[0].removesuffix(" HTTP/1.1")
                return re.sub(r"(conv|resp|chatcmpl)_\w+", r"\1_*", words)
            return "body"
        return "network"

    def _path(self, at: int | None, address: int) -> str:
        path = self._read(address, 4096).partition(b"\0")[0].decode("utf-8", "surrogateescape")
        if path.startswith("/"):
            return path
        here = at is None or at & 0xFFFFFFFF == 0xFFFFFF9C  # AT_FDCWD
        return os.path.join(os.readlink(f"{self._proc}/cwd" if here else f"{self._proc}/fd/{at}"), path)

    def _role(self, path: str) -> str:
        if not path.startswith(self._root):
            return ""
        if "/.delegated/tmp/" in path:
            return f"tmp({self._temps.get(path, '')})"
        inside = path[len(self._root) :].rpartition("openai_delegations/")[2]
        inside = re.sub(r"^\.delegated/jobs/\w\w/[^/]+/r(\d+)/(calls/)?", r"r\1/", inside)
        inside = re.sub(r"[0-9a-f]{32}\.json(\.\d+\.[0-9a-f]{8})?$", r"workspace.json", inside)  # each life has its own
        return re.sub(r"^\.delegated/jobs/\w\w(?=/|$)", "jobs/xx", inside) or "."

    def _read(self, address: int, size: int) -> bytes:
        return os.pread(self._memory, size, address)


def _kind(head: bytes) -> str:
    """Say which record or file these first bytes begin."""
    marks = (
        (b'"call_id":', "sent"),
        (b'"outcome":', "reply"),
        (b'"response_id":', "accepted"),
        (b'"kind":', "unsent"),
        (b'"duplicate_of":', "claim"),
        (b"delegated/status/", "STATUS"),
        (b"delegated/result/", "RESULT.json"),
    )
    if head.startswith(b'{"at":'):
        header = head.partition(b"\n")[0]
        found = next((name for mark, name in marks if mark in header), "")
        return found or ("done" if b'"status":' in header else "prompt")
    if re.fullmatch(rb"[0-9a-f]{16}", head):
        return "id"
    if head.startswith(b"--- "):
        return "RESULT.patch"
    return next((name for mark, name in marks[-2:] if mark in head), "RESULT.md")
