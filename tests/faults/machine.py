"""A machine of its own for a test: this one's files below an overlay in memory, and systemd as its first process.

New mount, pid, uts, ipc and cgroup namespaces; nothing on disk changes, and all ends with one process. Only the units
that the test gives are known to it, so none of this machine's services starts. The network is shared, as the local
server is to be reached. It takes root.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from harness import until

UNITS = "/etc/units-under-test"
_TARGETS = (
    "basic",
    "sysinit",
    "sockets",
    "timers",
    "paths",
    "slices",
    "shutdown",
    "network-online",
    "multi-user",
    "up",
)
_SYSTEMD = "/lib/systemd/systemd"

_BOOT = r"""
set -e
memory=$1
mount -t tmpfs -o mode=755 tmpfs "$memory"
mkdir "$memory/upper" "$memory/work" "$memory/root"
mount -t overlay -o "lowerdir=/,upperdir=$memory/upper,workdir=$memory/work" overlay "$memory/root"
cd "$memory/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys  # it is this kernel's, and a first process would set some of it
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
ln -s null dev/console
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
while IFS="$TAB" read -r from to; do  # what lies on another file system or is seen at another path
    if [ -d "$from" ]; then mkdir -p ".$to"; else mkdir -p "$(dirname ".$to")"; touch ".$to"; fi
    mount --bind "$from" ".$to"
done
mkdir -p old
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=$UNITS \
    SYSTEMD_GENERATOR_PATH=/nonexistent "$SYSTEMD" --system --unit=up.target --log-target=null --show-status=no
"""


class Machine:
    """systemd as the first process of a machine that ends with it. `binds` are `{path here: path there}`."""

    def __init__(self, tmp: Path, units: Mapping[str, str], binds: Mapping[Path, str]) -> None:
        self._cgroup: Path | None = None
        memory, self._units = tmp / "memory", tmp / "units"
        memory.mkdir()
        self._units.mkdir()
        for target in _TARGETS:
            (self._units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        for name, text in units.items():
            path = self._units / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self._cgroup = _own_cgroup()
        command = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]
        enter = f'echo $$ > "{self._cgroup}/cgroup.procs"; exec "$@"'
        with open(tmp / "boot.log", "wb") as said:
            self._process = subprocess.Popen(
                ["sh", "-c", enter, "sh", *command, "sh", "-c", _BOOT, "boot", str(memory)],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env={"PATH": os.environ["PATH"], "UNITS": UNITS, "SYSTEMD": _SYSTEMD, "TAB": "\t"},
                start_new_session=True,
            )
        assert self._process.stdin is not None
        lines = [f"{here}\t{there}\n" for here, there in {self._units: UNITS, **binds}.items()]
        self._process.stdin.write("".join(lines).encode())
        self._process.stdin.close()

        def booted() -> bool:
            if self._process.poll() is not None:
                pytest.skip(f"no machine can be made here: {(tmp / 'boot.log').read_text()[-300:]}")
            return self._first() is not None and self.run("systemctl", "is-active", "up.target").returncode == 0

        try:
            until(booted, what="systemd has booted", pause=0.1)
        except BaseException:
            self.close()
            raise

    def _first(self) -> int | None:
        """Return the id that the first process has here; None while that is not systemd yet."""
        for entry in os.listdir("/proc"):
            if not entry.isdecimal():
                continue
            with suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                name, _, rest = stat.partition(" (")[2].rpartition(") ")
                if int(rest.split()[1]) == self._process.pid and name == "systemd":
                    return int(entry)
        return None

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, as its root."""
        enter = ["nsenter", "--target", str(self._first()), "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=120)

    def systemctl(self, *arguments: str) -> str:
        """Run systemctl and return what it says; raises `AssertionError` when it fails."""
        done = self.run("systemctl", "--no-pager", *arguments)
        assert done.returncode == 0, f"systemctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit, "" for one that it has not."""
        return self.systemctl("show", "--value", "--property", name, unit).strip()

    def path(self, inside: str) -> Path:
        """Return where a file of the machine is found from here."""
        return Path(f"/proc/{self._first()}/root{inside}")

    def pid(self, unit: str) -> int:
        """Return the main process of a unit, as it is numbered there; 0 when none runs."""
        return int(self.show(unit, "MainPID") or 0)

    def kill(self, unit: str, number: int) -> None:
        """Send a signal to the main process of a unit."""
        self.systemctl("kill", "--kill-whom=main", f"--signal={signal.Signals(number).name}", unit)

    def close(self) -> None:
        """End every process of the machine; nothing is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        if self._cgroup is not None:
            cgroup = self._cgroup

            def gone() -> bool:
                with suppress(OSError):
                    for path in sorted(cgroup.rglob("*/"), reverse=True):
                        path.rmdir()
                    cgroup.rmdir()
                return not cgroup.exists()

            until(gone, what="the machine's processes are gone", pause=0.05)


def _own_cgroup() -> Path:
    """Make a control group for the machine; skips where that is not allowed."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mounts = [fields[4] for fields in lines if fields[fields.index("-") + 1] == "cgroup2"]
    own = [line.partition("::")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if "::" in line]
    if not mounts or not own:
        pytest.skip("there is no cgroup2 here")
    path = Path(mounts[0]) / own[0].lstrip("/") / f"machine-{uuid.uuid4().hex[:8]}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    return path


def program() -> tuple[dict[Path, str], dict[str, str], str]:
    """Say how this very interpreter, its packages and our code get to where the machine's services can see them.

    Returns the binds, the environment, and the text of a script that is `delegated`.
    """
    base = Path(sys.base_prefix)
    python = Path(os.path.realpath(sys.executable)).relative_to(os.path.realpath(base))
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    import delegated

    source = Path(delegated.__file__).parents[1]
    binds = {base: "/opt/python", site: "/opt/site", source: "/opt/source"}
    env = {"PYTHONPATH": "/opt/source:/opt/site", "LD_LIBRARY_PATH": "/opt/python/lib"}
    start = f"exec /opt/python/{python} -c 'import sys; from delegated.cli import main_daemon; sys.exit(main_daemon())'"
    return binds, env, f'#!/bin/sh\n{start} "$@"\n'
