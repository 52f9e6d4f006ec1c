#!/usr/bin/env python3
"""Delegate an issue to GPT-4o: hands over to the program `delegate`, or to a daemon that serves this folder.

Written by `delegate init`. Standard library only, so that any Python can run it:

    python .autonomous_runs/delegate_to_openai.py --issue "..." --files "src/a.py,src/b.py" --logs "..."
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

INSTALL = "install delegated from its checkout: pipx install ."
FOLDER = os.path.join(".autonomous_runs", "openai_delegations")
PREFIX = "OPENAI_DELEGATION_"
CODES = {"answered": 0, "rejected": 10, "failed": 11, "uncertain": 12, "cancelled": 13, "duplicate": 14}


def main(argv: list[str]) -> int:
    """Hand over; return the exit code."""
    for stream in (sys.stdout, sys.stderr):  # a console's code page must not stop an answer
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    program = shutil.which("delegate")
    if program:
        return run([program, "ask", *argv])
    if sys.version_info >= (3, 11) and importable():
        # -P: nothing is imported from the current directory.
        return run([sys.executable, "-P", "-m", "delegated", "ask", *argv])
    return by_the_folder(argv)


def run(command: list[str]) -> int:
    """Run the program in our place; Ctrl+C is for it."""
    child = subprocess.Popen(command)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def importable() -> bool:
    """Say whether the package is installed here, not counting what lies beside this script."""
    here = os.path.dirname(os.path.abspath(__file__))
    before = sys.path[:]
    sys.path[:] = [path for path in before if os.path.abspath(path or ".") not in (here, os.getcwd())]
    try:
        from importlib.util import find_spec

        return find_spec("delegated") is not None
    finally:
        sys.path[:] = before


def by_the_folder(argv: list[str]) -> int:
    """Write the request for a running daemon and wait for the RESULT; without one say how to install."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--issue", required=True)
    add("--files", nargs="*", action="append", default=[])
    add("--context", default="")
    add("--logs", default="")
    add("--attempted-fixes", nargs="*", action="append", default=[])
    add("--question", action="append", default=[])
    add("--workspace", default=None)
    add("--api-key", default=None)
    add("--model", default=None)
    add("--timeout", type=float, default=None)
    add("--no-wait", action="store_true")
    add("--json", action="store_true")
    args = parser.parse_args(argv)
    folder = os.path.join(find_workspace(args.workspace), FOLDER)
    if not served(folder):
        say("error: the program `delegate` is not installed here, and no daemon serves " + folder)
        say("hint: " + INSTALL)
        return 69
    if args.api_key:
        say("warning: the daemon uses its own key; the one given here is not used")
    request = {
        "issue": args.issue,
        "files": [part.strip() for group in args.files for text in group for part in text.split(",") if part.strip()],
        "context": args.context,
        "logs": args.logs,
        "attempted_fixes": [text for group in args.attempted_fixes for text in group],
        "questions": args.question,
    }
    if args.model:
        request["models"] = [args.model]
    key = drop(folder, json.dumps({name: value for name, value in request.items() if value}, indent=1))
    if args.no_wait:
        print(key)
        return 0
    say("waiting for " + key)
    return wait(folder, key, args.timeout, args.json)


def find_workspace(given: str | None) -> str:
    """Return the workspace as given, else the nearest parent with .autonomous_runs, else the current directory."""
    if given:
        return os.path.abspath(os.path.expanduser(given))
    at = os.getcwd()
    while not os.path.isdir(os.path.join(at, ".autonomous_runs")):
        if os.path.dirname(at) == at:
            return os.getcwd()
        at = os.path.dirname(at)
    return at


def served(folder: str) -> bool:
    """Say whether a daemon holds the folder's lock."""
    try:
        import fcntl

        with open(os.path.join(folder, ".delegated", "lock"), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


def drop(folder: str, text: str) -> str:
    """Write a request whole: a temporary file, then a name that was free. Returns its id."""
    base = time.strftime("%Y%m%d_%H%M%S")
    temp = os.path.join(folder, f".request.{os.getpid()}.tmp")
    with open(temp, "w", encoding="utf-8", errors="replace") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        for number in range(1, 1000):
            key = base if number == 1 else f"{base}-{number}"
            name = os.path.join(folder, PREFIX + "REQUEST_" + key + ".json")
            if any(os.path.exists(name[:-5] + suffix) for suffix in (".md", ".yaml", ".yml", ".json")):
                continue
            try:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # empty: not a request yet
            except FileExistsError:
                continue
            os.replace(temp, name)
            return key
        raise SystemExit("error: no id is free in " + folder)
    finally:
        if os.path.exists(temp):
            os.unlink(temp)


def wait(folder: str, key: str, timeout: float | None, as_json: bool) -> int:
    """Wait for the RESULT and print it; return the exit code of how it ended."""
    result = os.path.join(folder, PREFIX + "RESULT_" + key)
    end = None if timeout is None else time.monotonic() + timeout
    try:
        while not os.path.exists(result + ".json"):
            if end is not None and time.monotonic() >= end:
                say("error: no RESULT within the time given; it will be " + result + ".md")
                return 124
            time.sleep(0.2)
    except KeyboardInterrupt:
        say("stopped waiting; the RESULT will be " + result + ".md")
        return 130
    with open(result + ".json", encoding="utf-8", errors="replace") as file:
        value = json.load(file)
    if as_json:
        print(json.dumps(value, indent=2).replace("##", "#\\u0023"))  # the same value
    else:
        with open(result + ".md", encoding="utf-8", errors="replace") as file:
            text = file.read()
        print(tame("".join(char for char in text if char in "\t\n" or char.isprintable())))
    return CODES.get(value.get("status"), 11)


def tame(text: str) -> str:
    """Return text in which a CI runner finds no command: GitHub and Azure obey lines of `::word::` and `##[word]`."""
    if not (os.environ.get("GITHUB_ACTIONS") or os.environ.get("TF_BUILD")):
        return text
    return re.sub(r"(?m)^([^\S\n]*):(?=:)|#(?=#\w*\[)", lambda found: (found[1] or "") + found[0].strip() + " ", text)


def say(text: str) -> None:
    """Talk on stderr."""
    sys.stderr.write("delegate_to_openai: " + tame(text) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
