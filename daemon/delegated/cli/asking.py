"""Asking: drop the request, then wait for the daemon or do its work; the commands and `delegated.ask` share this."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from delegated import folder as drop
from delegated.errors import OperatorError

from . import exits
from . import place as places
from .place import Place, Usage
from .terminal import Progress
from .waiting import Signature, wait

if TYPE_CHECKING:
    import subprocess

    from delegated.request import Request
    from delegated.result import Result

    Popen = subprocess.Popen[bytes]


def relative(place: Place, given: Iterable[str]) -> tuple[str, ...]:
    """Split lists and make each path relative to the workspace root, where it is meant from elsewhere."""
    root = place.workspace
    paths = (path for value in given for path in _split(root, value))
    return tuple(dict.fromkeys(_from_root(root, path) for path in paths))


def _split(root: str, value: str) -> list[str]:
    """Split a list at its commas, and at white space where each word is a path: a path itself may hold either."""
    found: list[str] = []
    for part in [value] if _there(root, value) else value.split(","):
        words = part.split()
        apart = len(words) > 1 and not _anywhere(root, part.strip()) and all(_anywhere(root, word) for word in words)
        found += words if apart else [part.strip()]
    return [path for path in found if path]


def _anywhere(root: str, path: str) -> bool:
    """Say whether a path means something, seen from the root or from the current directory."""
    return _there(root, path) or _there(root, os.path.abspath(path))


def _from_root(root: str, path: str) -> str:
    """Turn a path that exists seen from the current directory, or an absolute one, into one below the root."""
    if not os.path.isabs(path) and (_there(root, path) or os.getcwd() == root):
        return path.replace(os.sep, "/")
    full = os.path.abspath(path)
    try:
        inside = os.path.commonpath([root, full]) == root
    except ValueError:  # another drive
        inside = False
    if not inside or not _there(root, full):
        return path.replace(os.sep, "/")  # the daemon says what is wrong with it, and what was meant
    return os.path.relpath(full, root).replace(os.sep, "/")


def _there(root: str, path: str) -> bool:
    full = os.path.join(root, path)
    if "\0" in full:
        return False
    if os.path.lexists(full):
        return True
    if not any(char in path for char in "*?["):
        return False
    import glob

    return next(glob.iglob(full, recursive=True), None) is not None


_LEAVE_S: Final = 30.0
_OWN: Final = 12  # files that a traceback adds to a request
_LIBRARY: Final = re.compile(r"/(?:site-packages|dist-packages|node_modules|\.[^/]+)/")


@dataclass(frozen=True, slots=True)
class Started:
    """A request that lies in the folder: its id, and who serves that folder (None: nobody)."""

    key: str
    served_by: str | None
    name: str


def told(place: Place, started: Started) -> dict[str, str]:
    """Return what a program is told of a request that was dropped: its id and file, and where the RESULT will be."""
    result = place.path(drop.result_name(started.key, "json"))
    return {"id": started.key, "request": place.path(started.name), "result": result}


def written(request: Request) -> bytes:
    """Write a request as the bytes of its file."""
    from delegated.request import render

    return (render(request).rstrip("\n") + "\n\n<!-- END -->\n").encode("utf-8", "replace")


def submit(
    place: Place, request: Request, *, key: str | None = None, wait: bool = True, follows: str | None = None
) -> Started:
    """Drop a request into the folder, whole; with `wait` only where somebody, we if nobody else, can work on it.

    `follows` is the id of a RESULT that it asks further about.

    Raises `Usage` when the id is taken, `OperatorError` 74 when it cannot be written, 78 when it could not be answered.
    """
    if not request.issue.strip():
        raise Usage("the issue is empty", 'say in a sentence what is wrong: --issue "500 error on /runs/start"')
    if key is not None and (not drop.ID.fullmatch(key) or key.endswith(drop.SUFFIXES)):
        raise Usage(
            f"{key!a} cannot be an id",
            "an id is 1 to 100 letters, digits, dots, underscores and hyphens, begins with a letter or digit "
            "and does not end like a file (.md)",
        )
    if follows is not None and places.signature(place, places.check_id(follows)) is None:
        raise places.Absent(f"there is no RESULT of {follows}", "`delegate list` shows the RESULTs there are")
    if wait and places.holder(place) is None:
        from delegated import config

        config.load(workspace=place.workspace)  # raises with all problems: nothing is dropped that would only lie there
    places.register(place)  # before the drop: what is asked here is no older request
    data = written(request)
    try:
        # 0755 for the parents: they belong to the project, the folder itself to this user alone.
        os.makedirs(os.path.dirname(place.folder), exist_ok=True)
        os.makedirs(place.folder, mode=0o700, exist_ok=True)
        while True:
            chosen = key or (places.new_id(place) if follows is None else places.next_about(place, follows))
            kind = "REQUEST" if follows is None else "FOLLOWUP"
            name = f"{drop.PREFIX}{kind}_{chosen}.md"
            try:
                if key is not None and places.taken(place, key):
                    raise FileExistsError
                drop.submit(place.folder, name, data)
            except FileExistsError:
                if key is not None:
                    raise Usage(
                        f"the id {key} is taken", "choose another --id, or leave it out; `delegate list` shows the ids"
                    ) from None
                continue  # somebody else asks in the same second: take the next number
            break
    except OSError as error:
        raise OperatorError(
            f"cannot write in {place.folder}: {error.strerror}",
            exits.CANNOT_WRITE,
            places.remedy(error),
        ) from error
    return Started(chosen, places.holder(place), name)


def settle(
    place: Place,
    key: str,
    *,
    served: bool,
    timeout: float | None,
    progress: Progress,
    before: Signature = None,
) -> None:
    """Return once a RESULT other than `before` stands: from the daemon, or from a process of ours where there is none.

    `timeout` is in seconds. Raises `TimeoutError`; `OperatorError` when the work cannot be done here.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        if served:
            if wait(
                place,
                key,
                deadline=deadline,
                progress=progress,
                before=before,
                abandoned=lambda: places.holder(place) is None,
            ):
                return None
            progress.phase(f"{key}: the daemon has left; going on with it here")
        try:
            return run_here(place, key, deadline=deadline, progress=progress, before=before)
        except OperatorError as error:
            if error.exit_code != exits.HELD:
                raise
            served = True  # a daemon came between our look and its lock: it will answer


def run_here(place: Place, key: str, *, deadline: float | None, progress: Progress, before: Signature = None) -> None:
    """Answer one request by a daemon of its own that leaves after it. Raises `OperatorError`, 75 where one is already.

    A process of its own: its signals, its event loop and its logs must not become those of a program that only asked.
    It goes on when this process is killed, and what it has recorded outlives it.
    """
    import tempfile

    with tempfile.TemporaryFile() as said:
        child = start_daemon(place.workspace, "--only", key, "--log-level", "error", folder=place.folder, stderr=said)
        try:
            stands = wait(
                place,
                key,
                deadline=deadline,
                progress=progress,
                before=before,
                abandoned=lambda: child.poll() is not None,
                probe_s=0.05,
            )
            code = _left(child, _LEAVE_S)
            if code is None:
                stop_daemon(child)  # the RESULT stands: what it still does can be done again
        except (
            BaseException
        ) as error:  # time over, or Ctrl+C: the records on disk are all that is needed to go on later
            if isinstance(error, KeyboardInterrupt):
                progress.phase("stopping…")  # at once: a call that is under way may be given a moment to end
            stop_daemon(child)
            progress.end()
            raise
        if stands or places.signature(place, key) not in (None, before):
            return
        said.seek(0)
        raise _complaint(key, code, said.read(64 << 10).decode("utf-8", "replace"))


def start_daemon(
    workspace: str,
    *flags: str,
    folder: str | None = None,
    stderr: IO[bytes] | int | None = None,
    env: Mapping[str, str] | None = None,
) -> Popen:
    """Start `delegated` on a workspace. `-P`: nothing is imported from the current directory, a stranger's perhaps."""
    import subprocess

    env = {**os.environ, **(env or {})}
    if folder is not None and folder != os.path.join(workspace, *drop.DEFAULT.split("/")):
        env["DELEGATED_FOLDER"] = os.path.relpath(folder, workspace).replace(os.sep, "/")
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "delegated.cli.serve", "--workspace", workspace, *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env=env,
        start_new_session=True,  # Ctrl+C is for us: we tell it to stop
    )


def stop_daemon(child: Popen, grace: float = 2.0) -> None:
    """Ask a daemon that we started to stop, and insist after `grace` seconds."""
    for last in (False, True):
        if child.poll() is None:
            child.kill() if last else child.terminate()
        _left(child, grace)


def _left(child: Popen, seconds: float) -> int | None:
    import subprocess

    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _complaint(key: str, code: int | None, said: str) -> OperatorError:
    """Turn what the process said before it left into our own error."""
    message, _, hint = said.rpartition("\nhint: ")
    found = (message or said).rpartition("delegated: error: ")[2].strip()
    if code in (exits.HELD, exits.CANNOT_WRITE, exits.CONFIGURATION, exits.USAGE):
        return OperatorError(found, code, hint.strip() if message else "")
    return OperatorError(
        f"the work on {key} ended without a RESULT (exit code {code}){': ' if found else ''}{found[-2000:]}",
        exits.FAILED,
        f"`delegate status {key}` shows where it stands; `delegate doctor` checks the rest",
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was dropped by `begin`: its place, its id, and whether a daemon served the folder then."""

    place: Place
    id: str
    served: bool

    @property
    def page(self) -> str:
        """The path at which its RESULT.md is put."""
        return self.place.path(drop.result_name(self.id, "md"))

    def result(self, timeout: float | None) -> Result:
        """Wait for the RESULT for at most `timeout` seconds, doing the work where nobody does. Raises as `settle`."""
        from delegated.result import from_json

        settle(self.place, self.id, served=self.served, timeout=timeout, progress=Progress(quiet=True))
        with self.place.open() as directory:
            text = directory.read(drop.result_name(self.id, "json"), 64 << 20).decode("utf-8", "replace")
        return from_json(text)


def begin(
    issue: str,
    *,
    files: Sequence[str],
    logs: str,
    context: str,
    attempted_fixes: Sequence[str],
    questions: Sequence[str],
    workspace: str | None,
    model: str | None,
    frames: Sequence[str] = (),
) -> Asked:
    """Drop the request that these words are; of `frames`, files that a traceback names, the workspace's own go along.

    Raises `TypeError` and `ValueError` when they are none, `OperatorError` when it cannot be dropped.
    """
    from delegated.request import Options, Request

    if not isinstance(issue, str):
        raise TypeError(f"the issue should be a text that says what is wrong, not {type(issue).__name__}")
    if not issue.strip():
        raise ValueError("the issue is empty; it should say in a sentence what is wrong")
    for name, value in (("files", files), ("attempted_fixes", attempted_fixes), ("questions", questions)):
        if isinstance(value, str):
            raise ValueError(f"{name} should be a list of texts, not one text")
    try:
        place = places.find(workspace)
        request = Request(
            issue=issue,
            context=context,
            logs=logs,
            attempted_fixes=tuple(attempted_fixes),
            files=tuple(dict.fromkeys((*relative(place, files), *own(place.workspace, frames)))),
            questions=tuple(questions),
            options=Options(models=(model,) if model else ()),
        )
        started = submit(place, request)
    except Usage as error:
        raise ValueError(str(error)) from error  # its hint speaks of flags
    return Asked(place, started.key, started.served_by is not None)


def own(root: str, paths: Iterable[str]) -> tuple[str, ...]:
    """Choose the files of a workspace among those that a traceback names: no library's, no virtual environment's."""
    base = os.path.realpath(root)
    libraries = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix)} - {base}
    found: dict[str, None] = {}
    for path in paths:
        real = os.path.realpath(path)
        below = os.path.relpath(real, base).replace(os.sep, "/") if real.startswith(os.path.join(base, "")) else ""
        library = any(real.startswith(os.path.join(each, "")) for each in libraries if each.startswith(base))
        if below and not library and not _LIBRARY.search(f"/{below}") and os.path.isfile(real):
            found[below] = None
    return tuple(found)[:_OWN]


def ask(issue: str, *, timeout: float | None, **words: Any) -> Result:
    """Do what `delegated.ask` promises."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout should be more than 0 seconds, or None for no limit; it is {timeout!r}")
    return begin(issue, **words).result(timeout)
