"""Show the whole way on a small workspace with a real bug, without key or network.

Starts the real daemon, drops a request file as any tool would, shows the progress and prints the RESULT.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from typing import Final

from delegated import folder as drop
from delegated.errors import OperatorError

from . import exits, report, terminal
from . import place as places
from .asking import start_daemon, stop_daemon
from .place import Place, find
from .terminal import Progress
from .waiting import wait

_TIME_S: Final = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `demo`."""
    parser.add_argument("--json", action="store_true", help="print RESULT.json instead of RESULT.md")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Go the whole way once."""
    started = time.monotonic()
    progress = Progress(quiet=args.quiet)
    source = os.path.join(os.path.dirname(os.path.dirname(__file__)), "demo")
    root = tempfile.mkdtemp(prefix="delegated-demo-")
    workspace = os.path.join(root, "workspace")
    shutil.copytree(os.path.join(source, "workspace"), workspace, ignore=shutil.ignore_patterns("__pycache__"))
    place = find(workspace, os.path.join(workspace, *drop.DEFAULT.split("/")))
    os.makedirs(place.folder)
    log = os.path.join(root, "daemon.log")
    with open(log, "wb") as file:
        # Its state goes with it: a workspace that is for a minute is none of this user's.
        state = {"STATE_DIRECTORY": os.path.join(root, "state"), "DELEGATED_NOTIFY__DESKTOP": "false"}
        daemon = start_daemon(place.workspace, "--model", "offline", stderr=file, env=state)
    try:
        progress.phase(f"daemon: started as process {daemon.pid} on {place.folder}")
        deadline = time.monotonic() + _TIME_S
        lock = os.path.join(place.folder, places.JOURNAL, "lock")
        # Its own word in the lock file, not a look at the lock: a look at the wrong moment would keep it out.
        while not _read(lock).startswith(f"pid {daemon.pid} "):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise OperatorError(f"the daemon did not start: {_read(log)}", exits.UNHEALTHY, f"its log is {log}")
            time.sleep(0.01)
        key = places.new_id(place)
        name = f"{drop.PREFIX}REQUEST_{key}.md"
        with open(os.path.join(source, "request.md"), "rb") as file:
            drop.submit(place.folder, name, file.read())
        progress.phase(f"request: dropped {name}")
        try:
            wait(
                place,
                key,
                deadline=deadline,
                progress=progress,
                abandoned=lambda: daemon.poll() is not None,
                probe_s=0.2,
            )
        except TimeoutError as error:
            raise OperatorError(str(error), exits.UNHEALTHY, f"the daemon's log is {log}") from error
    finally:
        stop_daemon(daemon, 10.0)
        progress.end()
    report.show(place, key, as_json=args.json, quiet=True)
    status = (places.read_result(place, key) or {}).get("status")
    _where(place, key, log)
    terminal.say(f"demo: {status} in {time.monotonic() - started:.1f} s; the daemon was stopped")
    terminal.next_step("delegate init", 'delegate ask --issue "what is wrong" --files src/main.py')
    return exits.OK if status == "answered" else exits.UNHEALTHY


def _where(place: Place, key: str, log: str) -> None:
    """Say where all files lie."""
    files = (
        ("request", place.path(f"{drop.PREFIX}REQUEST_{key}.md")),
        ("result", place.path(drop.result_name(key, "md"))),
        ("result", place.path(drop.result_name(key, "json"))),
        ("patch", place.path(drop.result_name(key, "patch"))),
        ("journal", place.path(places.JOURNAL)),
        ("code", place.workspace),
        ("log", log),
    )
    for what, path in files:
        if what == "patch" and not os.path.exists(path):
            continue
        terminal.say(f"{what:<8} {path}")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:].strip()
    except OSError:
        return ""
