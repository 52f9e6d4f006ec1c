"""Set up a workspace: the drop folder, a commented configuration, a line in .gitignore, the script with the old name.

What is there already is kept; running it again changes nothing.
"""

from __future__ import annotations

import argparse
import os
from typing import Final

from delegated import folder as drop
from delegated.errors import OperatorError

from . import exits, terminal
from .arguments import place_flags
from .place import MARK, Place, find

SCRIPT: Final = f"{MARK}/delegate_to_openai.py"
CONFIGURATION: Final = ".delegated.yaml"
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
#deadline_s: 600          # time allowed for one request, in seconds
#concurrency: 8           # jobs at the same time
#on_edit: ask             # a request edited after its answer: `ask` again, or `keep` the answer

# How a request file is noticed.
#settle_ms: 300           # a file written in place is complete after so long without a change
#watch: auto              # auto, inotify or poll
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `init`."""
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Write what is missing."""
    place = find(args.workspace or (None if args.folder else _root()), args.folder)
    try:
        os.makedirs(os.path.dirname(place.folder), exist_ok=True)
        _tell(place.folder, _make_folder(place.folder))
        for name, text, mode in (
            (CONFIGURATION, _TEMPLATE, 0o644),
            (SCRIPT, script(), 0o755),
        ):
            path = os.path.join(place.workspace, *name.split("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _tell(path, _write_new(path, text, mode, refresh=name == SCRIPT))
        _tell(os.path.join(place.workspace, ".gitignore"), _ignore(place))
    except OSError as error:
        raise OperatorError(
            f"cannot write {error.filename or place.workspace}: {error.strerror}",
            exits.CANNOT_WRITE,
            "make the workspace writable for this user",
        ) from error
    terminal.next_step(f"delegate doctor{place.flags()}", f"delegated{place.workspace_flag()}")
    return exits.OK


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


def _ignore(place: Place) -> str:
    """Keep requests and RESULTs, which hold code and logs, out of the repository."""
    if place.folder != os.path.join(place.workspace, *drop.DEFAULT.split("/")):
        return "kept"
    path = os.path.join(place.workspace, ".gitignore")
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
    with open(path, "a", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(f"{gap}{IGNORED}{end}")
    return "one line added"


def _tell(path: str, what: str) -> None:
    terminal.out(f"{path}: {what}")
