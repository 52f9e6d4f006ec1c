"""Register and set up a workspace: the drop folder, a commented configuration, a line in .gitignore, the old script.

What is there already is kept; running it again changes nothing. With --agent also the files of coding agents: their
hooks, rules and skills.
"""

from __future__ import annotations

import argparse
import os
import stat
from typing import Final

from delegated import folder as drop
from delegated.errors import OperatorError

from . import exits, terminal
from . import place as places
from .arguments import place_flags
from .place import MARK, Place, Usage, find

SCRIPT: Final = f"{MARK}/delegate_to_openai.py"
CONFIGURATION: Final = ".delegated.yaml"
_SHOWN: Final = 5
IGNORED: Final = f"{MARK}/openai_delegations/"
_TEMPLATE: Final = """\
# Settings of delegated for this workspace; each line shows the default. Endpoints, keys and paths are not for a
# workspace to set: they belong into ~/.config/delegated/config.yaml.

# The model that is asked where a request names none. `offline` reads tracebacks without any network.
#model: gpt-4o

# What may only be made stricter here.
#max_cost_usd: 1.0        # the most that one request may cost
#max_input_tokens: 100000 # tokens sent per call
#max_output_tokens: 8192  # tokens of one answer
#max_file_bytes: 1048576  # a larger file of the workspace is left out
#find_files: 8            # files found for a request that names fewer; 0: none is looked for
#git_context: true        # whether uncommitted changes and a trace's last commits go along
#concurrency: 8           # jobs at the same time
#on_edit: ask             # a request edited after its answer: `ask` again, or `keep` the answer

# How a request file is noticed.
#settle_ms: 300           # a file written in place is complete after so long without a change
#watch: auto              # auto, inotify or poll
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `init`."""
    from delegated.agents import NAMES

    add = parser.add_argument
    add(
        "--agent",
        metavar="NAME",
        action="append",
        choices=(*NAMES, "all"),
        help=f"set up a coding agent: {', '.join(NAMES)} or all; may be repeated",
    )
    add("--dry-run", action="store_true", help="with --agent: print what would change, as a diff, and change nothing")
    add("--uninstall", action="store_true", help="with --agent: take out again what was put into its files")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Write what is missing."""
    place = find(args.workspace or (None if args.folder else _root()), args.folder)
    if (args.dry_run or args.uninstall) and not args.agent:
        raise Usage("--dry-run and --uninstall are for the files of agents", "name one, as --agent claude, or all")
    from . import agents

    try:
        if args.agent:
            agents.check(place)
        if args.dry_run or args.uninstall:
            return agents.set_up(place, args.agent, uninstall=args.uninstall, dry_run=args.dry_run)
        os.makedirs(os.path.dirname(place.folder), exist_ok=True)
        _tell(place.folder, _make_folder(place.folder))
        for name, text, mode in (
            (CONFIGURATION, _TEMPLATE, 0o644),
            (SCRIPT, script(), 0o755),
        ):
            path = os.path.join(place.workspace, *name.split("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _tell(path, _write_new(path, text, mode, refresh=name == SCRIPT))
        code = _ignore(place)
        _register(place)
        if args.agent:
            code = agents.set_up(place, args.agent, uninstall=False, dry_run=False) or code
    except BrokenPipeError:  # of stdout: nothing is wrong with a file
        raise
    except OSError as error:
        raise OperatorError(
            f"cannot write {error.filename or place.workspace}: {error.strerror}",
            exits.CANNOT_WRITE,
            places.remedy(error),
        ) from error
    more = [] if args.agent else agents.propose(place.workspace, place.flags())
    terminal.next_step(*more, f"delegate doctor{place.flags()}", f"delegated{place.workspace_flag()}")
    return code


def _register(place: Place) -> None:
    """Note that its user wants this workspace served, and say which requests that stood there are not run for it."""
    trouble = places.register(place)
    if trouble:
        terminal.warn(f"the workspace could not be registered: {trouble}")
        terminal.say("requests that are dropped while no daemon runs will not be run by themselves")
        return
    left = places.not_run(place)
    terminal.out(f"{place.workspace}: registered")
    for key, why in sorted(left.items())[:_SHOWN]:
        terminal.say(f"{key}: not run: {why}; to run it: delegate run {key}{place.flags()}")
    if len(left) > _SHOWN:
        terminal.say(f"{len(left) - _SHOWN} more are not run: delegate status{place.flags()}")


def script() -> str:
    """Return the text of the script that `init` writes."""
    with open(os.path.join(os.path.dirname(__file__), "shim.py"), encoding="utf-8") as file:
        return file.read()


def _root() -> str:
    """Return the workspace to set up: one that is there already, else the repository's root, else this directory."""
    at = os.getcwd()
    while True:
        if os.path.isdir(os.path.join(at, MARK)) or os.path.lexists(os.path.join(at, ".git")):
            return at
        if os.path.dirname(at) == at:
            return os.getcwd()
        at = os.path.dirname(at)


def _make_folder(path: str) -> str:
    if os.path.isdir(path):
        return "kept"
    os.makedirs(path, mode=0o700)
    return "made"


def _write_new(path: str, text: str, mode: int, *, refresh: bool) -> str:
    """Write a file that is not there; the script is renewed when an older `init` wrote it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            old = file.read()
    except FileNotFoundError:
        pass
    else:
        if old == text:
            return "kept"
        if not refresh or "Written by `delegate init`." not in old:
            return "kept (it is not ours)" if refresh else "kept"
        os.unlink(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
    with open(fd, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    return "made"


def _ignore(place: Place) -> int:
    """Keep requests and RESULTs, which hold code and logs, out of the repository; return the exit code."""
    path = os.path.join(place.workspace, ".gitignore")
    if place.folder != os.path.join(place.workspace, *drop.DEFAULT.split("/")):
        _tell(path, "kept")
        return exits.OK
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        terminal.warn(f"{path}: left as it is: {'a symbolic link' if os.path.islink(path) else 'not a file'}")
        terminal.say(
            f"put a file in its place, with the line {IGNORED}: git reads no other, and requests would be committed"
        )
        return exits.CONFIGURATION
    _tell(path, _add_line(path))
    return exits.OK


def _add_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            old = file.read()
    except FileNotFoundError:
        old = ""
    lines = {line.strip().strip("/") for line in old.splitlines()}
    if lines & {IGNORED.strip("/"), MARK, f"{MARK}/*", f"{MARK}/**"}:
        return "kept"
    end = "\r\n" if "\r\n" in old else "\n"
    gap = end if old and not old.endswith("\n") else ""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666)
    with open(fd, "a", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(f"{gap}{IGNORED}{end}")
    return "one line added"


def _tell(path: str, what: str) -> None:
    terminal.out(f"{path}: {what}")
