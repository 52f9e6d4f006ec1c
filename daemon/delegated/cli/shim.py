#!/usr/bin/env python3
"""Delegate an issue to GPT-4o: hands over to the program `delegate`, or to a daemon that serves this folder.

Written by `delegate init`. Standard library only, so that any Python can run it:

    python .autonomous_runs/delegate_to_openai.py --issue "..." --files "src/a.py,src/b.py" --logs "..."
"""

from __future__ import annotations

import argparse
import glob
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
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
SUFFIXES = (".md", ".yaml", ".yml", ".json")
LIMIT = 4 << 20  # bytes of a text from a file
TEXTS = ("--issue", "--context", "--logs", "--question", "--model", "--id", "--api-key")
PROGRAM_ONLY = ("--at", "--comment", "--follow-up", "--folder")
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--issue", default="")
    add("--files", nargs="*", action="append", default=[])
    add("--context", default="")
    add("--logs", default="")
    add("--attempted-fixes", nargs="*", action="append", default=[])
    add("--question", action="append", default=[])
    add("--workspace", default=None)
    add("--api-key", default=None)
    add("--model", default="")
    add("--id", default=None)
    add("--timeout", type=seconds, default=None)
    add("--force", action="store_true")
    add("--no-wait", action="store_true")
    add("--wait", action="store_true")
    add("--json", action="store_true")
    add("-q", "--quiet", action="store_true")
    args = parser.parse_args(bound(argv))
    texts = {name: plain(text_of(parser, getattr(args, name))) for name in ("issue", "context", "logs")}
    if not texts["issue"].strip():
        parser.error('the issue is empty: say in a sentence what is wrong: --issue "500 error on /runs/start"')
    if args.id is not None and (not ID.match(args.id) or args.id.endswith(SUFFIXES)):
        parser.error(f"{args.id!a} cannot be an id: letters, digits, dots, underscores and hyphens, no file's end")
    root = find_workspace(args.workspace)
    folder = os.path.join(root, FOLDER)
    if not served(folder):
        say("error: the program `delegate` is not installed here, and no daemon serves " + folder)
        say("hint: " + INSTALL)
        return 69
    if args.api_key:
        say("warning: the daemon uses its own key; the one given here is not used")
    paths = [path for group in args.files for text in group for path in split(root, text)]
    request = {
        **texts,
        "files": [plain(from_root(root, path)) for path in paths],
        "attempted_fixes": [plain(text) for group in args.attempted_fixes for text in group],
        "questions": [plain(text) for text in args.question],
        "models": [name.strip() for name in args.model.split(",") if name.strip()],
        "force": args.force,
    }
    key = drop(folder, json.dumps({name: value for name, value in request.items() if value}, indent=1), args.id)
    if args.no_wait:
        result, asked = (os.path.join(folder, PREFIX + kind + key + ".json") for kind in ("RESULT_", "REQUEST_"))
        print(json.dumps({"id": key, "request": asked, "result": result}, indent=2) if args.json else key)
        return 0
    if not args.quiet:
        say("waiting for " + key)
    return wait(folder, key, args.timeout, args.json)


def bound(argv: list[str]) -> list[str]:
    """Tie each text to its flag, as it may begin with a hyphen; leave with 2 at a flag that takes the program."""
    out: list[str] = []
    for word in argv:
        flag = word.partition("=")[0]
        if flag in PROGRAM_ONLY:
            say(f"error: {flag} takes the program `delegate`, which is not installed here")
            say("hint: " + INSTALL)
            raise SystemExit(2)
        if out and out[-1] in TEXTS and not word.startswith("--"):
            out[-1] += "=" + word
        else:
            out.append(word)
    return out


def seconds(text: str) -> float:
    """Read a time to wait: seconds, or `90s`, `5m`, `2h`."""
    scale = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    value = float(text[:-1] if scale else text) * (scale or 1)  # what argparse makes of a ValueError is an error
    if not 0 < value < 1e9:
        raise ValueError(text)
    return value


def text_of(parser: argparse.ArgumentParser, value: str) -> str:
    """Return a text as given: `@path` is a file, `-` standard input, `@@text` a text that begins with `@`."""
    if value != "-" and not value.startswith("@"):
        return value
    if value.startswith("@@"):
        return value[1:]
    try:
        if value == "-":
            data = sys.stdin.buffer.read(LIMIT + 1)
        else:
            with open(value[1:], "rb") as file:
                data = file.read(LIMIT + 1)
    except (OSError, ValueError) as error:
        parser.error(f"cannot read {value[1:]}: {error}; @ names a file: @@ for a text that begins with @")
    if len(data) > LIMIT:
        parser.error(f"{value} is larger than {LIMIT >> 20} MiB: send what matters")
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")


def plain(text: str) -> str:
    """Replace the bytes of an argument that are no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def split(root: str, text: str) -> list[str]:
    """Split a list at its commas, and at white space where each word is a path: a path itself may hold either."""
    found: list[str] = []
    for part in [text] if there(root, text) else text.split(","):
        words = part.split()
        paths = [each for each in words if there(root, each) or there(root, os.path.abspath(each))]
        whole = there(root, part.strip()) or there(root, os.path.abspath(part.strip()))
        found += [part.strip()] if whole or paths != words else words
    return [path for path in found if path]


def from_root(root: str, path: str) -> str:
    """Return a path relative to the workspace, also where it is meant from the current directory."""
    full = os.path.abspath(path)
    if (os.path.isabs(path) or not there(root, path)) and full.startswith(root + os.sep) and there(root, full):
        path = os.path.relpath(full, root)
    return path.replace(os.sep, "/")


def there(root: str, path: str) -> bool:
    """Say whether a path or a pattern means something."""
    full = os.path.join(root, path)
    if "\0" in full or os.path.lexists(full) or not any(char in path for char in "*?["):
        return "\0" not in full and os.path.lexists(full)
    return next(glob.iglob(full, recursive=True), None) is not None


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


def drop(folder: str, text: str, given: str | None) -> str:
    """Write a request whole: a temporary file, then a name that was free. Returns its id."""
    base = given or time.strftime("%Y%m%d_%H%M%S")
    temp = os.path.join(folder, f".request.{os.getpid()}.tmp")
    with open(temp, "w", encoding="utf-8", errors="replace") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        for number in range(1, 2 if given else 1000):
            key = base if number == 1 else f"{base}-{number}"
            name = os.path.join(folder, PREFIX + "REQUEST_" + key + ".json")
            names = [name[:-5] + suffix for suffix in SUFFIXES] + [
                os.path.join(folder, PREFIX + "RESULT_" + key + ".json")
            ]
            if any(os.path.lexists(each) for each in names):
                continue
            try:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # empty: not a request yet
            except FileExistsError:
                continue
            os.replace(temp, name)
            return key
        say(f"error: the id {base} is taken in {folder}")
        raise SystemExit(2)
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
