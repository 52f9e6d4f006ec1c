"""Run `delegated` in the background from login on: install it as a service of yours, look at it, take it away again."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from delegated.errors import OperatorError
from delegated.home import state_directory

from . import exits, installed, terminal, unit_texts
from . import place as places
from .arguments import count
from .installed import File, Installed
from .place import Usage
from .serve import require_posix

_WAIT_S: Final = 120.0  # systemd gives the daemon 90 s to stop
_KEY: Final = "openai_api_key"
_SYSTEMD: Final = "/run/systemd/system"  # is there exactly where systemd runs


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `service`."""
    add = parser.add_argument
    add("action", choices=("install", "status", "logs", "uninstall"), help="what to do")
    add(
        "--workspace",
        metavar="PATH",
        action="append",
        default=[],
        help="install: a workspace to serve, beside those of before; may be repeated. Default: the one around here",
    )
    add("--save-key", action="store_true", help="install: keep $OPENAI_API_KEY in a file of mode 0600 for the service")
    add("--dry-run", action="store_true", help="install, uninstall: show what would be done, and do nothing")
    add("-n", "--number", metavar="N", type=count, default=50, help="logs: how many lines; default: 50")
    add("--follow", action="store_true", help="logs: go on with what comes, until Ctrl+C")


@dataclass(frozen=True, slots=True)
class Manager:
    """A service manager: the tool to talk to it, the file it reads, and the commands that it is told."""

    tool: str
    path: str
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]
    after: tuple[tuple[str, ...], ...]
    status: tuple[str, ...]
    hint: str


def manager() -> Manager:
    """Return the service manager of this system. Raises `OperatorError` where none is known."""
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        user = f"gui/{os.getuid()}"
        path = os.path.join(home, "Library", "LaunchAgents", f"{unit_texts.LABEL}.plist")
        out = ("launchctl", "bootout", f"{user}/{unit_texts.LABEL}")
        hint = "launchd starts agents of a user who is logged in on the screen, not over SSH"
        state = ("launchctl", "print", f"{user}/{unit_texts.LABEL}")
        return Manager("launchctl", path, (("launchctl", "bootstrap", user, path),), (out,), (), state, hint)
    distribution = _distribution()
    if sys.platform == "win32" or distribution:
        return _task_scheduler(distribution)
    if sys.platform.startswith("linux"):
        path = os.path.join(_config(), "systemd", "user", unit_texts.NAME)
        user = ("systemctl", "--user")
        start = ((*user, "daemon-reload"), (*user, "enable", unit_texts.NAME), (*user, "restart", unit_texts.NAME))
        hint = (
            "a user's systemd is there after a login of its own (not `su` or `sudo`) or with `loginctl enable-linger`, "
            "inside WSL with systemd=true in /etc/wsl.conf; without it run `delegated` in a terminal"
        )
        what = "--property=ActiveState,SubState,UnitFileState,StatusText,Result,ExecMainStatus"
        return Manager(
            "systemctl",
            path,
            start,
            ((*user, "disable", "--now", unit_texts.NAME),),
            ((*user, "daemon-reload"),),
            (*user, "show", unit_texts.NAME, what),
            hint,
        )
    raise OperatorError(
        f"no service manager is known here ({sys.platform})",
        exits.UNHEALTHY,
        "have yours run `delegated` (docs/service.md)",
    )


def _task_scheduler(distribution: str) -> Manager:
    """Return that of Windows, from the inside of a distribution of WSL or ("") from Windows itself."""
    tool = "schtasks.exe" if distribution else "schtasks"
    path = os.path.join(_config(), "delegated", unit_texts.TASK)
    seen = f"\\\\wsl$\\{distribution}{path}".replace("/", "\\") if distribution else path
    name = ("/TN", "delegated")
    start = ((tool, "/Create", *name, "/XML", seen, "/F"), (tool, "/Run", *name))
    stop = ((tool, "/End", *name), (tool, "/Delete", *name, "/F"))
    hint = "Windows' own programs must be found, inside WSL with its interop on; by hand: docs/service.md"
    return Manager(tool, path, start, stop, (), (tool, "/Query", *name, "/FO", "LIST", "/V"), hint)


def _distribution() -> str:
    """Return the name of the distribution of WSL that this runs in, where it has no systemd; else ""."""
    name = os.environ.get("WSL_DISTRO_NAME", "")
    return name if sys.platform.startswith("linux") and name and not os.path.isdir(_SYSTEMD) else ""


def run(args: argparse.Namespace) -> int:
    """Do it, telling each step."""
    if sys.platform != "win32":
        require_posix()
    to = manager()
    record_path = os.path.join(state_directory(os.environ), "service.json")
    record = installed.read(record_path)
    if args.action == "install":
        return _install(args, to, record_path, record)
    if args.action == "uninstall":
        return _uninstall(to, record_path, record, dry=args.dry_run)
    if record is None:
        terminal.say("no service was installed by this command")
        terminal.next_step("delegate service install")
        return exits.UNHEALTHY
    return _status(to, record) if args.action == "status" else _logs(to, args.number, follow=args.follow)


def _install(args: argparse.Namespace, to: Manager, record_path: str, record: Installed | None) -> int:
    workspaces = _workspaces(args.workspace, record)
    files = _files(to, workspaces, save_key=args.save_key)
    for file in files:
        why = installed.foreign(record, file.path)
        if why:
            key = os.path.basename(file.path) == _KEY
            keep = (
                "leave --save-key out: the service takes the key in it"
                if key
                else "keep it, and do without this command"
            )
            hint = f"{keep} (docs/service.md); or: rm {shlex.quote(file.path)}"
            raise Usage(f"{file.path} {why}", hint)
    for path in workspaces or ("those that the configuration lists",):
        terminal.say(f"serves {path}")
    for path in (*workspaces, *_program()):
        if sys.platform.startswith("linux") and path.startswith(("/tmp/", "/var/tmp/")):  # noqa: S108
            terminal.warn(f"{path}: the service has a /tmp of its own and will not see this")
    if args.dry_run:
        for file in files:
            terminal.out(f"would write {file.path} (mode {file.mode:04o})")
            # Never the key, not even where it is to be kept.
            terminal.out("  [key]" if os.path.basename(file.path) == _KEY else _indented(_text(file.data)))
        for command in to.start:
            terminal.out(f"would run {_shown(command)}")
        return exits.OK
    _need(to)
    try:
        record = installed.write(record_path, record, files, workspaces)
    except OSError as error:
        raise OperatorError(f"cannot write {error.filename}: {error.strerror}", exits.CANNOT_WRITE) from error
    for file in files:
        terminal.out(f"{file.path}: written")
    if sys.platform == "darwin":
        _call(to.stop[0])  # of an earlier one; there need not be any
    for command in to.start:
        terminal.out(_shown(command))
        failed = _call(command)
        if failed:
            hint = f"the files stay. {to.hint}; then: delegate service install, or: delegate service uninstall"
            raise OperatorError(f"{_shown(command)}: {failed}", exits.UNHEALTHY, hint)
    _tell_key(to)
    terminal.next_step("delegate service status", "delegate service logs")
    if to.tool == "systemctl":
        terminal.say("it ends when you log out; to keep it: loginctl enable-linger")
    return exits.OK


def _workspaces(given: Sequence[str], record: Installed | None) -> tuple[str, ...]:
    """Return the workspaces to name to the service, none where those of the configuration are meant."""
    listed = _listed()
    before = []
    for path in record.workspaces if record else ():
        if os.path.isdir(path) or path in listed:
            before.append(path)
        else:
            again = f"delegate service install --workspace {shlex.quote(path)}"
            terminal.warn(f"{path} is not there, and the service forgets it; when it is back: {again}")
    if not given and (before or listed):
        wanted = []
    else:
        wanted = [places.find(path).workspace for path in given or (places.find().workspace,)]
    if set(wanted) <= set(listed) and not before:
        return ()
    every = tuple(dict.fromkeys((*listed, *before, *wanted)))
    for path in filter(os.path.isdir, every):  # one of the configuration that is not there is waited for
        folder = places.find(path).folder
        if not os.path.isdir(folder):
            raise Usage(f"{path} is not set up: there is no {folder}", f"delegate init --workspace {shlex.quote(path)}")
    return every


def _folder(path: str) -> str:
    """Return the drop folder of a workspace, which need not be there."""
    return os.path.join(path, *places.configured_folder().split("/"))


def _listed() -> list[str]:
    """Return the workspaces that the configuration lists. Its room is opened only where there is one."""
    ours = ("/etc/delegated", os.path.join(_config(), "delegated"))
    if not os.environ.get("DELEGATED_WORKSPACES") and not any(map(os.path.isdir, ours)):
        return []
    from delegated import config

    return [os.path.abspath(os.path.expanduser(path)) for path in config.load(workspace=None).workspaces]


def _files(to: Manager, workspaces: tuple[str, ...], *, save_key: bool) -> list[File]:
    """Return the files to write; the one that the service manager reads comes last."""
    home, key_file = os.path.expanduser("~"), os.path.join(_config(), "delegated", _KEY)
    files = []
    if save_key:
        if to.tool == "schtasks":
            raise Usage("--save-key: the key has to be where the daemon runs", "inside WSL: docs/service.md#windows")
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key:
            raise Usage("--save-key: OPENAI_API_KEY is not set", "export OPENAI_API_KEY=sk-...")
        files.append(File(key_file, key.encode() + b"\n", 0o600))
    try:
        known = key_file if save_key or os.path.exists(key_file) else ""
        if to.tool == "launchctl":
            data = unit_texts.launchd(_program(), workspaces, home, known)
        elif to.tool == "schtasks":
            seen = [unit_texts.in_wsl(path) for path in workspaces]
            distributions = {name for name, _ in seen if name}
            if len(distributions) > 1:
                raise ValueError(f"the workspaces lie in several distributions: {', '.join(sorted(distributions))}")
            program = "~/.local/bin/delegated"
            name = "".join(distributions)
            data = unit_texts.task(program, [path for _, path in seen], distribution=name, owner=_owner())
        elif to.tool == "schtasks.exe":
            program = shlex.join(_program())
            data = unit_texts.task(program, workspaces, distribution=_distribution(), owner=_owner(), key_file=known)
        else:
            outside = [_folder(path) for path in workspaces]
            data = unit_texts.systemd(_program(), workspaces, [each for each in outside if not _below(home, each)])
    except ValueError as error:
        raise Usage(str(error), "rename it") from error
    return [*files, File(to.path, data, 0o644)]


def _program() -> list[str]:
    """Return what starts the daemon: the program beside this Python, else that Python itself."""
    beside = os.path.join(os.path.dirname(sys.executable), "delegated")
    if os.access(beside, os.X_OK):
        return [beside]
    return [sys.executable, "-P", "-m", "delegated.cli.serve"]


def _owner() -> str:
    """Return the user of Windows, with the domain; "" when it does not say."""
    program = shutil.which("whoami" if sys.platform == "win32" else "whoami.exe")
    if program is None:
        return ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([program], capture_output=True, text=True, errors="replace", timeout=_WAIT_S)
        name = done.stdout.strip()
        if done.returncode == 0 and name.isprintable() and len(name) < 300:
            return name
    return ""


def _tell_key(to: Manager) -> None:
    """Say where the service finds a key, or how it comes there."""
    if to.tool == "schtasks":
        terminal.say("its key is not taken from Windows: inside WSL, set `key_file` or `key_command` (docs/service.md)")
        return
    found = []
    for name in (_KEY,) if to.tool == "schtasks.exe" else ("env", _KEY):
        path = os.path.join(_config(), "delegated", name)
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(os.stat(path).st_mode)
            found.append(path)
            if mode & 0o077:
                terminal.warn(f"others can read {path} (mode {mode:04o}); chmod 600 {shlex.quote(path)}")
    if found:
        terminal.say(f"its key: {', '.join(found)}")
        return
    terminal.say("a service does not see what your shell exports, and no file with a key is there")
    terminal.next_step("export OPENAI_API_KEY=sk-... and: delegate service install --save-key")


def _uninstall(to: Manager, record_path: str, record: Installed | None, *, dry: bool) -> int:
    if record is None:
        terminal.say("no service was installed by this command: nothing is done")
        return exits.OK
    link = os.path.join(os.path.dirname(to.path), "default.target.wants", unit_texts.NAME)
    if dry:
        for command in to.stop:
            terminal.out(f"would run {_shown(command)}")
        for path in (*record.files, record_path, *record.directories):
            terminal.out(f"would remove {path}")
        return exits.OK
    failed = ""
    for command in to.stop:
        terminal.out(_shown(command))
        failed = _call(command) if shutil.which(to.tool) else f"{to.tool} is not there"
    try:
        if to.tool == "systemctl" and os.path.islink(link):  # where systemctl could not
            os.unlink(link)
            terminal.out(f"{link}: removed")
        with contextlib.suppress(OSError):  # absent, or somebody else's services stand there
            os.rmdir(os.path.dirname(link))
        told = installed.remove(record_path, record)
    except OSError as error:
        raise OperatorError(f"cannot remove {error.filename}: {error.strerror}", exits.CANNOT_WRITE) from error
    for path, what in told:
        terminal.out(f"{path}: {what}")
    if failed:
        raise OperatorError(
            f"{_shown(to.stop[-1])}: {failed}",
            exits.UNHEALTHY,
            "its files are gone, so it does not start again; one that still runs is ended by a logout or `kill`",
        )
    for command in to.after:
        _call(command)
    return exits.OK


def _status(to: Manager, record: Installed) -> int:
    terminal.out(f"file       {to.path}{'' if os.path.exists(to.path) else ' (gone)'}")
    for path in record.workspaces or ("those that the configuration lists",):
        terminal.out(f"workspace  {path}")
    for path in record.workspaces:
        there = os.path.isdir(path)
        served = places.holder(places.find(path)) if there else "it is not there; it is served once it is"
        terminal.out(f"served     {path}: {served or 'by nobody'}")
    _need(to)
    done = subprocess.run(to.status, capture_output=True, text=True, errors="replace", timeout=_WAIT_S)
    if done.returncode != 0:
        raise OperatorError(f"{_shown(to.status)}: {_said(done)}", exits.UNHEALTHY, to.hint)
    terminal.out(done.stdout.rstrip())
    if to.tool.startswith("schtasks"):
        return exits.OK  # it tells the state in the language of Windows; that the task is there is all that is known
    runs = "ActiveState=active" in done.stdout.splitlines() or "state = running" in done.stdout
    if not runs:
        terminal.next_step("delegate service logs", "delegate doctor")
    return exits.OK if runs else exits.UNHEALTHY


def _logs(to: Manager, number: int, *, follow: bool) -> int:
    if to.tool == "schtasks":
        tail = f"tail {'-f ' if follow else ''}-n {number} ~/{unit_texts.LOG_OF_TASK}"
        command = ["wsl", "--exec", "sh", "-c", tail]
    elif to.tool != "systemctl":
        home = os.path.expanduser("~")
        mac = to.tool == "launchctl"
        log = unit_texts.log_of_launchd(home) if mac else os.path.join(home, *unit_texts.LOG_OF_TASK.split("/"))
        command = ["tail", "-n", str(number), log]
        command[1:1] = ["-f"] if follow else []
    else:
        command = ["journalctl", "--user", "-u", unit_texts.NAME, "-n", str(number), "--no-pager", "-o", "cat"]
        command += ["-f"] if follow else []
    if shutil.which(command[0]) is None:
        raise OperatorError(f"{command[0]} is not there", exits.UNHEALTHY, "the log is where your system keeps it")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                terminal.out(line.decode("utf-8", "replace").rstrip("\n"))
                with terminal.writing():
                    sys.stdout.flush()
        finally:
            child.terminate()
    return exits.OK if child.returncode == 0 else exits.UNHEALTHY


def _need(to: Manager) -> None:
    if shutil.which(to.tool) is None:
        raise OperatorError(f"{to.tool} is not there; nothing was changed", exits.UNHEALTHY, to.hint)


def _call(command: Sequence[str]) -> str:
    """Run a command; return what it said when it failed, else ""."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_WAIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return _said(done) if done.returncode != 0 else ""


def _shown(command: Sequence[str]) -> str:
    return subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stderr or done.stdout).split())[:500] or f"exit code {done.returncode}"


def _config() -> str:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return base if os.path.isabs(base) else os.path.expanduser("~/.config")


def _below(root: str, path: str) -> bool:
    return os.path.commonpath([os.path.abspath(root), os.path.abspath(path)]) == os.path.abspath(root)


def _text(data: bytes) -> str:
    return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
