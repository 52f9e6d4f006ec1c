"""Whether the confinement that a unit file asks for is in force: told by what can be reached, not by what was set.

A service manager that cannot build a sandbox may start the service without one, and without a word.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress

_SHOWN = 3


def breaches(
    workspaces: Sequence[tuple[str, str]], env: Mapping[str, str], *, mountinfo: str = "/proc/self/mountinfo"
) -> list[str]:
    """Return a sentence for each thing that a confined daemon could not reach, none when it is confined.

    `workspaces` are pairs of a workspace and its drop folder. Nothing of anybody's home may be visible but what was
    mounted there on purpose, and of a workspace only the folder may be written. Nothing is made.
    """
    mounts = _mounts(mountinfo)
    points = {point for point, _ in mounts.values()}
    found = []
    for home in _homes(env):
        seen = list(_visible(home, points))
        if seen:
            more = f" and {len(seen) - _SHOWN} more" if len(seen) > _SHOWN else ""
            found.append(f"{home} is visible: {', '.join(ascii(name)[1:-1] for name in seen[:_SHOWN])}{more}")
        elif os.access(home, os.W_OK) and mounts.get(_mount_of(home), ("", ""))[1] != "tmpfs":
            found.append(f"{home} can be written")  # an empty one in memory (systemd 252 leaves it writable) is hidden
    for workspace, folder in workspaces:
        if os.access(workspace, os.W_OK):
            found.append(f"the workspace {workspace} can be written")
        if os.path.isdir(folder) and os.statvfs(folder).f_flag & os.ST_RDONLY:
            found.append(f"the drop folder {folder} is mounted read-only")
    return found


def _homes(env: Mapping[str, str]) -> list[str]:
    """List the directories that hold somebody's own files: ours, root's, everybody's below /home."""
    homes = {env.get("HOME", ""), os.path.expanduser(f"~{_name()}"), "/root", "/home"}
    with suppress(OSError):  # each is looked into, as each may be a file system of its own
        homes |= {f"/home/{name}" for name in os.listdir("/home")}
    real = sorted({os.path.realpath(home) for home in homes if os.path.isabs(home)})
    return [home for home in real if home != "/" and os.path.isdir(home)]


def _name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""


def _visible(directory: str, points: Collection[str]) -> Iterator[str]:
    """Yield the paths in a directory that are not mount points and do not lead to one."""
    below = [point for point in points if point.startswith(f"{directory}/")]
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return  # not to be seen, which is what is wanted
    for name in names:
        path = f"{directory}/{name}"
        if path in below:
            continue
        if any(point.startswith(f"{path}/") for point in below):
            yield from _visible(path, below)
        elif not os.path.isdir(path) or os.access(path, os.R_OK):  # one that we may not list shows only its name
            yield path


def _mount_of(path: str) -> str:
    """Return the number of the mount that a path leads to; several may lie on each other. "" where none is told."""
    with suppress(OSError):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
                return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
        finally:
            os.close(fd)
    return ""


def _mounts(mountinfo: str) -> dict[str, tuple[str, str]]:
    """Return the mounts by their number: where each lies, and the type of its file system."""
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
            fields = [line.split() for line in lines]
    except OSError:
        return {}
    return {each[0]: (_unescaped(each[4]), each[each.index("-") + 1]) for each in fields if "-" in each}


def _unescaped(point: str) -> str:
    for code, meant in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, meant)
    return point
