"""Which folder is meant, who serves it, and what stands in it: everything a client learns by looking."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from delegated import folder as drop
from delegated.disk import Directory
from delegated.errors import OperatorError

from . import exits

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MARK: Final = ".autonomous_runs"
JOURNAL: Final = ".delegated"
DELETED: Final = "settled; its RESULT was deleted"


class Absent(Exception):
    """There is no such request, or no RESULT yet; `hint` says how to go on."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Usage(Exception):
    """The command line cannot be used as it stands."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Place:
    """A workspace and its drop folder, both absolute. Neither need exist."""

    workspace: str
    folder: str

    def flags(self) -> str:
        """Return the flags that lead a later command, run from here, to this folder ("" when none are needed)."""
        import shlex

        with suppress(FileNotFoundError):  # the current directory was deleted
            if find() == self:
                return ""
        if self.folder == os.path.join(self.workspace, *drop.DEFAULT.split("/")):
            return f" --workspace {shlex.quote(self.workspace)}"
        return f" --workspace {shlex.quote(self.workspace)} --folder {shlex.quote(self.folder)}"

    def workspace_flag(self) -> str:
        """Return the flag that names this workspace to `delegated` ("" when it is the current directory)."""
        import shlex

        with suppress(FileNotFoundError):
            if self.workspace == os.getcwd():
                return ""
        return f" --workspace {shlex.quote(self.workspace)}"

    def path(self, name: str) -> str:
        """Return the path of a file in the folder."""
        return os.path.join(self.folder, name)

    def open(self) -> Directory:
        """Open the folder. Raises `Absent` when there is none, `OperatorError` when it cannot be read."""
        try:
            return Directory(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            raise Absent(
                f"there is no drop folder at {self.folder}",
                "`delegate init` makes one; or name the workspace with --workspace",
            ) from None
        except OSError as error:
            raise OperatorError(f"cannot open {self.folder}: {error.strerror}", exits.CANNOT_WRITE) from error


def find(workspace: str | None = None, folder: str | None = None) -> Place:
    """Find the place: as named, else the nearest parent that holds `.autonomous_runs`, else the current directory."""
    if workspace is not None:
        root = os.path.abspath(os.path.expanduser(workspace))
        if not os.path.isdir(root):
            raise Usage(f"the workspace {root} is not a directory", "--workspace takes the root of the code")
    elif folder is not None and os.path.abspath(folder).endswith(os.path.join("", *drop.DEFAULT.split("/"))):
        root = os.path.dirname(os.path.dirname(os.path.abspath(os.path.expanduser(folder))))
    else:
        here = at = os.getcwd()
        while not os.path.isdir(os.path.join(at, MARK)) and os.path.dirname(at) != at:
            at = os.path.dirname(at)
        root = at if os.path.isdir(os.path.join(at, MARK)) else here
    if folder is not None:
        return Place(root, os.path.abspath(os.path.expanduser(folder)))
    return Place(root, os.path.join(root, *configured_folder().split("/")))


def around(directory: str) -> Place | None:
    """Find the workspace around a directory: only one that somebody has set up; None when there is none."""
    at = os.path.abspath(directory)
    while not os.path.isdir(os.path.join(at, MARK)):
        if os.path.dirname(at) == at:
            return None
        at = os.path.dirname(at)
    return find(at)


def configured_folder() -> str:
    """Return the folder's path below a workspace. The configuration's room is opened only where there is one."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    base = base if os.path.isabs(base) else os.path.expanduser("~/.config")
    ours = ("/etc/delegated", os.path.join(base, "delegated"))
    if not os.environ.get("DELEGATED_FOLDER") and not any(map(os.path.isdir, ours)):
        return drop.DEFAULT
    from delegated import config

    return config.folder()


def check_id(key: str) -> str:
    """Return a request's id, also from a file's name or path in the folder. Raises `Usage` when it is none."""
    name = os.path.basename(key.rstrip("/"))
    if name.startswith(drop.PREFIX):
        name = name[len(drop.PREFIX) :].partition("_")[2]
        for suffix in drop.SUFFIXES:
            name = name.removesuffix(suffix)
    if not drop.ID.fullmatch(name):
        raise Usage(f"{key!a} is not a request's id", "`delegate list` shows the ids")
    return name


def holder(place: Place) -> str | None:
    """Say who serves the folder, as the lock's holder wrote it; None when nobody does.

    Asks by a shared lock that is given back at once: two clients that ask at the same moment do not see each other.
    """
    path = os.path.join(place.folder, JOURNAL, "lock")
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        if fcntl is None:
            return None  # no lock to ask: the records' exclusive creation is the guard there
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(fd, 200).decode("utf-8", "replace").strip() or "another process"
        except OSError:
            return None
        return None
    finally:
        os.close(fd)


def remedy(error: OSError) -> str:
    """Say what to do where something cannot be written."""
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        return "something else stands in its place: move that away"
    return "free space there, or make it writable for this user"


def leaves(served: str) -> bool:
    """Say whether a holder goes once its work is done (`delegate ask`'s own, `delegated --once`): it serves nobody."""
    return ", until " in served


@dataclass(frozen=True, slots=True)
class Row:
    """One request in the folder: `state` is `settled`, `running`, `waiting` or `DELETED`; `at` since the epoch."""

    id: str
    state: str
    at: float
    request: str = ""


def rows(place: Place) -> list[Row]:
    """List what stands in the folder, the newest first; a request is settled once its RESULT.json stands."""
    results: dict[str, float] = {}
    running: dict[str, float] = {}
    requests: dict[str, tuple[float, str]] = {}
    with place.open() as directory, directory.scan() as scan:
        for entry in scan:
            for key, at, kind in _told(entry):
                if kind == "RESULT":
                    results[key] = at
                elif kind == "STATUS":
                    running[key] = at
                else:
                    requests[key] = (at, entry.name)
    found = []
    for key in {*results, *running, *requests}:
        name = requests.get(key, (0.0, ""))[1]
        if key in results:
            found.append(Row(key, "settled", results[key], name))
        elif key in running:
            found.append(Row(key, "running", running[key], name))
        else:
            state = "waiting" if deleted(place, key) is None else DELETED
            found.append(Row(key, state, requests[key][0], name))
    return sorted(found, key=lambda row: (-row.at, row.id))


def _told(entry: os.DirEntry[str]) -> Iterator[tuple[str, float, str]]:
    name = entry.name
    if not name.startswith(drop.PREFIX):
        return
    asked = drop.request_id(name)
    if asked is not None:
        kind, key = "REQUEST", asked[0]
    else:
        kind, _, rest = name[len(drop.PREFIX) :].partition("_")
        key = rest.removesuffix(".json")
        if kind not in ("RESULT", "STATUS") or key == rest or not drop.ID.fullmatch(key):
            return
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError:
        return
    if kind != "RESULT" or stat.S_ISREG(info.st_mode):  # what has a RESULT's name and is no file stands in its way
        yield key, info.st_mtime, kind


def about(place: Place, key: str) -> list[str]:
    """Return the ids of the questions that were asked further about a RESULT, in their order."""
    found = []
    with place.open() as directory:
        for name in directory.names("."):
            follows = drop.followed(name)
            if follows is not None and follows[0] == key:
                found.append(follows[1])
    return [f"{key}_{number}" for number in sorted(set(found))]


def next_about(place: Place, key: str) -> str:
    """Return the id of the next further question about a RESULT."""
    number = len(about(place, key)) + 1
    while taken(place, f"{key}_{number}"):
        number += 1
    return f"{key}_{number}"


def request_names(place: Place, key: str) -> list[str]:
    """Name the REQUEST files of an id that stand in the folder."""
    with place.open() as directory:
        return [name for name in drop.request_names(key) if directory.exists(name)]


def signature(place: Place, key: str) -> tuple[int, int] | None:
    """Tell one RESULT of an id from the next; None while there is none. What is no file is none."""
    try:
        info = os.lstat(place.path(drop.result_name(key, "json")))
    except OSError:
        return None
    return (info.st_ino, info.st_mtime_ns) if stat.S_ISREG(info.st_mode) else None


def edited(place: Place, key: str, result: dict[str, Any]) -> bool:
    """Say whether the request was saved with other bytes after this RESULT was written: another one will come."""
    import hashlib

    about = result.get("request")
    name, sha256 = (about.get("path"), about.get("sha256")) if isinstance(about, dict) else (None, None)
    if name not in request_names(place, key) or not isinstance(sha256, str):
        return False
    try:
        with Directory(place.folder) as directory:
            saved = directory.stat(name).st_mtime_ns > directory.stat(drop.result_name(key, "json")).st_mtime_ns
            return saved and hashlib.sha256(directory.read(name, 64 << 20)).hexdigest() != sha256
    except OSError:
        return False


def register(place: Place) -> str:
    """Register the workspace, whose user asks for it by this very command. Return why that could not be kept."""
    from delegated.home import state_directory
    from delegated.registry import register as enter

    try:
        return enter(state_directory(os.environ), place.workspace, place.folder).trouble
    except OSError as error:
        return f"{place.folder}: {error.strerror}"


def not_run(place: Place, keys: Collection[str] | None = None) -> dict[str, str]:
    """Say which requests are not run by themselves, and why, by id; of all that wait, or of `keys`.

    A daemon that serves the folder has written down what it left alone; without one we see for ourselves.
    """
    import hashlib

    found: dict[str, str] = {}
    if keys is not None and not keys:
        return found
    if holder(place) is not None:
        told = _notice(place).get("not_run")
        for name, why in told.items() if isinstance(told, dict) else ():
            asked = drop.request_id(name)
            if asked is not None and isinstance(why, str):
                found[asked[0]] = why
        return {key: why for key, why in found.items() if keys is None or key in keys}
    from delegated import registry
    from delegated.home import state_directory

    known = registry.find(state_directory(os.environ), place.workspace, place.folder)
    why_not = registry.not_run(known, place.folder)
    with place.open() as directory:
        for key in [row.id for row in rows(place) if row.state == "waiting"] if keys is None else keys:
            for name in request_names(place, key):
                try:
                    sig = drop.sig_of(directory.stat(name))
                except FileNotFoundError:
                    continue  # taken away meanwhile
                try:
                    sha256 = hashlib.sha256(directory.read(name, 4 << 20)).hexdigest()
                except OSError:
                    sha256 = ""
                why = why_not(name, sig, sha256)
                if why:
                    found[key] = why
    return found


def slow(place: Place) -> str:
    """Say why requests wait their turn, as the daemon that serves the folder wrote it; "" when they do not."""
    why = _notice(place).get("slow")
    return why if isinstance(why, str) else ""


def held(place: Place) -> str:
    """Say why no request is taken here for now whoever serves the folder; "" when one would be."""
    from delegated.registry import Repositories

    lock = Repositories(place.folder).look().busy
    return f"git is changing this repository, and nothing is taken meanwhile: {lock}" if lock else ""


def _notice(place: Place) -> dict[str, Any]:
    return read_json(place, f"{JOURNAL}/notice") or {}


def read_json(place: Place, name: str) -> dict[str, Any] | None:
    """Read a JSON object in the folder; None when it is absent or not one."""
    import json

    try:
        with Directory(place.folder) as directory:
            value = json.loads(directory.read(name, 64 << 20))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_result(place: Place, key: str) -> dict[str, Any] | None:
    """Read RESULT.json; None while there is none (or somebody else wrote one that is no JSON)."""
    return read_json(place, drop.result_name(key, "json"))


def read_status(place: Place, key: str) -> dict[str, Any] | None:
    """Read the STATUS file of a running job."""
    return read_json(place, drop.status_name(key))


def read_text(place: Place, name: str) -> str | None:
    """Read a text file in the folder; None when it is absent."""
    try:
        with Directory(place.folder) as directory:
            return directory.read(name, 64 << 20).decode("utf-8", "replace")
    except OSError:
        return None


def require(place: Place, key: str) -> None:
    """Raise `Absent` when neither a request nor a RESULT nor a record of this id stands in the folder."""
    if request_names(place, key) or signature(place, key) or read_status(place, key) is not None:
        return
    if deleted(place, key) is not None:
        return
    import difflib

    near = difflib.get_close_matches(key, [row.id for row in rows(place)], 1, 0.6)
    did = f"did you mean {near[0]}? " if near else ""
    raise Absent(f"there is no request {key} in {place.folder}", f"{did}`delegate list` shows what is there")


def give_order(place: Place, kind: str, key: str) -> str:
    """Drop an order (`CANCEL`, `RETRY`, `PING`); an order that is there already stands. Returns its path."""
    name = f"{drop.PREFIX}{kind}_{key}"
    try:
        with place.open() as directory:
            try:
                os.close(directory.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            directory.sync()
    except OSError as error:
        raise OperatorError(f"cannot write in {place.folder}: {error.strerror}", exits.CANNOT_WRITE) from error
    return place.path(name)


def job_place(place: Place, key: str) -> str | None:
    """Return the path of a request's records in the journal; None when it holds none. Takes no lock: they only grow."""
    jobs = os.path.join(place.folder, JOURNAL, "jobs")
    try:
        shards = os.listdir(jobs)
    except OSError:
        return None
    paths = (os.path.join(jobs, shard, key) for shard in shards)
    return next((path for path in paths if os.path.isdir(path)), None)


def deleted(place: Place, key: str) -> str | None:
    """Return how a request ended whose RESULT was deleted since; None when it still waits, runs or has its RESULT.

    A REQUEST saved with other bytes, or a RETRY that lies there, is work to come: that one waits.
    """
    import hashlib

    at = os.path.join(JOURNAL, "jobs", hashlib.sha256(key.encode()).hexdigest()[:2], key)
    try:
        names = os.listdir(place.path(at))
    except OSError:
        return None
    revisions = [int(name[1:]) for name in names if name[:1] == "r" and name[1:].isdecimal()]
    newest = os.path.join(at, f"r{max(revisions, default=0)}")
    done = _header(place, os.path.join(newest, "done"))
    claim = _header(place, os.path.join(newest, "claim"))
    if done is None or claim is None or os.path.lexists(place.path(f"{drop.PREFIX}RETRY_{key}")):
        return None
    try:
        with Directory(place.folder) as directory:
            for name in request_names(place, key):
                if hashlib.sha256(directory.read(name, 64 << 20)).hexdigest() != claim.get("sha256"):
                    return None
    except OSError:
        return None
    # The RESULT is looked for last: it is put there before `done`, so what is missing now was there and is gone.
    if signature(place, key) is not None or read_status(place, key) is not None:
        return None
    return str(done.get("status", ""))


def purged(place: Place, key: str) -> bool:
    """Say whether of the newest revision of a request only hashes are kept."""
    at = job_place(place, key)
    if at is None:
        return False
    newest = max((int(name[1:]) for name in os.listdir(at) if name[:1] == "r" and name[1:].isdecimal()), default=0)
    return bool((_header(place, os.path.join(at, f"r{newest}", "claim")) or {}).get("dropped"))


def _header(place: Place, name: str) -> dict[str, Any] | None:
    """Read the first line of a record in the journal; None when there is none."""
    import json

    try:
        with open(place.path(name), "rb") as file:
            value = json.loads(file.readline(1 << 20))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def unready(place: Place, key: str) -> str:
    """Say why nobody will ask about a request as it stands: its file is empty, or a draft. "" when somebody will."""
    why = ""
    for name in request_names(place, key):
        try:
            with Directory(place.folder) as directory:
                data = directory.read(name, 64 << 20)
        except OSError:
            return ""  # the daemon says what is wrong with it
        if not data:
            why = f"{place.path(name)} is empty: it is not asked about before something is written in it"
        elif b"draft" in data.replace(b"\0", b"").lower() and _draft(data, os.path.splitext(name)[1]):
            why = f"{place.path(name)} is a draft: it is not asked about while `draft: true` stands in it"
        else:
            return ""
    return why


def _draft(data: bytes, suffix: str) -> bool:
    from delegated.errors import RequestError
    from delegated.request import parse

    try:
        return parse(data, suffix).options.draft
    except RequestError:
        return False


def gone(place: Place, key: str) -> Absent:
    """Say that the RESULT of a settled request was deleted, and how it comes back."""
    if purged(place, key):
        return Absent(f"{key} is {DELETED}, and the journal's copy was purged", f"delegate retry {key}{place.flags()}")
    return Absent(f"{key} is {DELETED}", f"delegate republish {key}{place.flags()}")


def new_id(place: Place, now: float | None = None) -> str:
    """Make an id in the form of a local timestamp, with a number behind it when it is taken."""
    base = time.strftime("%Y%m%d_%H%M%S", time.localtime(now))
    key, number = base, 1
    while taken(place, key):
        number += 1
        key = f"{base}-{number}"
    return key


def taken(place: Place, key: str) -> bool:
    """Say whether a request or a RESULT in the folder bears this id."""
    try:
        return bool(request_names(place, key)) or os.path.lexists(place.path(drop.result_name(key, "json")))
    except Absent:
        return False
