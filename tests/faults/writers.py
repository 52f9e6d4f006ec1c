"""The ways in which programs write a file, with the real programs; and many runs of each against one daemon.

`python -m tests.faults writers --runs 100` writes a hundred requests by each way, many at once, and holds each to one
bill of the bytes that its writer left.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.judging import judge, unsettled
from harness import House, Server, request_text, until

SETTLE_S = 0.3
DRAFT = "---\ndraft: true\n---\n\nnot yet\n"
Find = Callable[[str], str]


class Missing(Exception):
    """What a writer needs is not on this machine."""


def find(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        raise Missing(f"{tool} is not installed")
    return path


@dataclass
class Job:
    """One request to be written: where, what, and room beside the folder to prepare it in."""

    house: House
    key: str
    path: Path
    text: str
    source: Path
    room: Path
    gaps: list[float] = field(default_factory=list)  # how long the writer itself had it closed between two opens, s

    @property
    def last_words(self) -> str:
        return f"the last words of {self.key}"


Writer = Callable[[Job], None]


def job(house: House, key: str) -> Job:
    room = house.outside / key
    room.mkdir()
    text = request_text(f"the issue of {key}" + " and words" * 50) + f"\n# Context\n\nthe last words of {key}\n"
    source = room / "source.md"
    source.write_text(text)
    return Job(house, key, house.request(key), text, source, room)


def sh(script: str, *tools: str, existing: bool = False) -> Writer:
    """A shell script: $1 the text, $2 the request, $3 a directory of its own."""

    def write(job: Job) -> None:
        for tool in tools:
            find(tool)
        if existing:
            job.path.write_text(DRAFT)
        run(["sh", "-ec", script, "sh", str(job.source), str(job.path), str(job.room)])

    return write


def run(command: list[str], **more: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def python(program: str, *, existing: bool = False) -> Writer:
    """A Python program with `path`, `text` and `half`; each line that it prints is a gap of its own, in seconds."""

    def write(job: Job) -> None:
        if existing:
            job.path.write_text(DRAFT)
        prelude = "import os, sys, time, mmap\npath, text = sys.argv[1:]\nhalf = len(text) // 2\n"
        out = run([sys.executable, "-I", "-S", "-c", prelude + program, str(job.path), job.text])
        job.gaps += [float(line) for line in out.split()]

    return write


def node(program: str, *, existing: bool = False) -> Writer:
    def write(job: Job) -> None:
        if existing:
            job.path.write_text(DRAFT)
        prelude = "const fs = require('fs'), [path, source] = process.argv.slice(1);\n"
        prelude += "const text = fs.readFileSync(source, 'utf8');\n"
        run([find("node"), "-e", prelude + program, str(job.path), str(job.source)])

    return write


def two_processes(job: Job) -> None:
    """Two programs, one after the other; the machine decides how long it takes to start the second."""
    half = len(job.text) // 2
    program = (
        "import sys, time\nopened = time.monotonic()\nf = open(sys.argv[1], sys.argv[2])\nf.write(sys.argv[3])\n"
        "f.close()\nprint(opened, time.monotonic())"
    )
    times: list[float] = []
    for mode, part in (("w", job.text[:half]), ("a", job.text[half:])):
        times += [float(t) for t in run([sys.executable, "-I", "-S", "-c", program, str(job.path), mode, part]).split()]
    job.gaps.append(times[2] - times[1])


def reopened(gap_s: float) -> Writer:
    """Close and open again after a pause that is measured."""
    return python(
        "f = open(path, 'w')\nf.write(text[:half])\nf.close()\nstart = time.monotonic()\n"
        f"time.sleep({gap_s})\nf = open(path, 'a')\nf.write(text[half:])\nf.close()\nprint(time.monotonic() - start)"
    )


def across_file_systems(job: Job) -> None:
    """`mv` from another file system: a copy, and the source unlinked."""
    for place in ("/dev/shm", "/run", "/var/tmp"):
        if os.access(place, os.W_OK) and os.stat(place).st_dev != os.stat(job.path.parent).st_dev:
            fd, name = tempfile.mkstemp(dir=place)
            os.write(fd, job.text.encode())
            os.close(fd)
            run(["mv", name, str(job.path)])
            return
    raise Missing("no second file system to move from")


def exchange(job: Job) -> None:
    """`renameat2(RENAME_EXCHANGE)` with a draft that has the name."""
    job.path.write_text(DRAFT)
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise Missing("this libc has no renameat2")
    if libc.renameat2(-100, os.fsencode(job.source), -100, os.fsencode(job.path), 2):
        raise Missing(f"renameat2: {os.strerror(ctypes.get_errno())}")


def git(job: Job) -> None:
    """`git checkout` of a branch that has the request, in a work tree that is the folder."""
    base = ["git", f"--git-dir={job.room / 'repository'}", f"--work-tree={job.path.parent}"]
    base += ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.fsmonitor=false"]
    find("git")
    where = {"cwd": job.path.parent}
    run(["git", "init", "-q", "--bare", "-b", "main", str(job.room / "repository")])
    blob = run([*base, "hash-object", "-w", str(job.source)], **where).strip()
    tree = run([*base, "mktree"], input=f"100644 blob {blob}\t{job.path.name}\n", **where).strip()
    empty = run([*base, "mktree"], input="", **where).strip()
    commits = [run([*base, "commit-tree", "-m", "c", t], **where).strip() for t in (empty, tree)]
    run([*base, "update-ref", "refs/heads/main", commits[0]], **where)
    run([*base, "update-ref", "refs/heads/asked", commits[1]], **where)
    run([*base, "checkout", "-q", "asked"], **where)


# -- editors, at a terminal --


def at_a_terminal(command: list[str], shown: str, keys: list[str], env: dict[str, str]) -> None:
    """Run an editor on a pty: wait until it shows something, type, and wait for its end."""
    find("setsid")
    master, slave = pty.openpty()
    screen = bytearray()

    def drain() -> None:
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                return
            if not data:
                return
            screen.extend(data)

    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command],  # emacs wants a terminal that controls it
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "LINES": "40", "COLUMNS": "200", "LC_ALL": "C.UTF-8", **env},
        start_new_session=False,
    )
    os.close(slave)
    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        until(lambda: shown.encode() in screen or process.poll() is not None, what=f"{command[0]} shows {shown}")
        for key in keys:
            os.write(master, key.encode())
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{command[0]} hangs: {bytes(screen[-2000:])!r}") from error
        assert code == 0, f"{command[0]} ended with {code}: {bytes(screen[-2000:])!r}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)
        reader.join(10)


def vim(settings: str = "", *, existing: bool = False) -> Writer:
    """vim with its swap file; `backupskip` is emptied, or nothing is backed up below /tmp."""

    def write(job: Job) -> None:
        if existing:
            job.path.write_text(DRAFT)
        options = ["-c", f"set backupskip= shortmess+=A {settings}"]
        command = [find("vim"), "-u", "NONE", "-i", "NONE", "-N", *options, str(job.path)]
        insert = f":%d\r:silent 0r {job.source}\r:$d\r:w\r:q\r"
        at_a_terminal(command, "\x1b[", [insert], {"HOME": str(job.room)})

    return write


def nano(*options: str, existing: bool = False) -> Writer:
    def write(job: Job) -> None:
        if existing:
            job.path.write_text(DRAFT)
        erase = "\x1b\\\x1bT" if existing else ""  # to the first line; cut to the end
        keys = [f"{erase}\x12{job.source}\r", "\x0f\r", "\x18"]
        command = [find("nano"), "--ignorercfiles", *options, str(job.path)]
        at_a_terminal(command, "GNU nano", keys, {"HOME": str(job.room)})

    return write


def emacs(*, existing: bool = False) -> Writer:
    def write(job: Job) -> None:
        if existing:
            job.path.write_text(DRAFT)
        keys = ["\x18h\x17" if existing else "", f"\x18i{job.source}\r", "\x18\x13", "\x18\x03"]
        command = [find("emacs"), "-nw", "-Q", str(job.path)]
        at_a_terminal(command, job.path.name, keys, {"HOME": str(job.room)})

    return write


def emacs_precious(job: Job) -> None:
    """emacs with `file-precious-flag`: a temporary file, and a rename."""
    job.path.write_text(DRAFT)
    program = (
        f'(progn (setq file-precious-flag t) (find-file "{job.path}") (erase-buffer)'
        f' (insert-file-contents "{job.source}") (save-buffer))'
    )
    run([find("emacs"), "-Q", "--batch", "--eval", program], env={**os.environ, "HOME": str(job.room)})


def ed(job: Job) -> None:
    run([find("ed"), "-s", str(job.path)], input=f"0r {job.source}\nw\nq\n")


WRITERS: dict[str, Writer] = {
    "mv": sh('mv "$1" "$2"'),
    "mv across file systems": across_file_systems,
    "cp": sh('cp "$1" "$2"'),
    "cp over existing": sh('cp "$1" "$2"', existing=True),
    "cp -p": sh('touch -d 1999-01-01 "$1"; cp -p "$1" "$2"'),
    "cat >": sh('cat "$1" > "$2"'),
    "tee": sh('tee "$2" < "$1" > /dev/null'),
    "touch, then fill": sh('touch "$2"; sleep 0.6; cat "$1" > "$2"'),
    "two builtin appends": sh('text=$(cat "$1"); echo "$text" > "$2"; echo "more" >> "$2"'),
    "slow writer": sh('( head -n 3 "$1"; sleep 1; tail -n +4 "$1" ) > "$2"'),
    "dd": sh('dd if="$1" of="$2" bs=64 status=none'),
    "dd over existing": sh('dd if="$1" of="$2" bs=1M status=none', existing=True),
    "install": sh('install -m 600 "$1" "$2"'),
    "sed -i": sh('cp "$1" "$2"; sed -i s/nothing/nothing/ "$2"'),
    "curl -o": sh('curl -s -o "$2" "file://$(echo "$1" | sed "s/ /%20/g")"', "curl"),
    "tar x": sh('cd "$3"; n=$(basename "$2"); mv "$1" "$n"; tar -cf a.tar "$n"; tar -C "$(dirname "$2")" -xf a.tar'),
    "rsync": sh('rsync "$1" "$2"', "rsync"),
    "rsync --inplace over existing": sh('rsync --inplace "$1" "$2"', "rsync", existing=True),
    "rsync --temp-dir": sh('rsync --temp-dir="$3" "$1" "$2"', "rsync"),
    "git checkout": git,
    "ed": ed,
    "vim": vim(),
    "vim over existing": vim(existing=True),
    "vim, backupcopy=yes": vim("backupcopy=yes backup", existing=True),
    "nano": nano(),
    "nano -B over existing": nano("-B", existing=True),
    "emacs": emacs(),
    "emacs over existing": emacs(existing=True),
    "emacs, precious": emacs_precious,
    "VS Code": node("const f = fs.openSync(path, 'w'); fs.writeSync(f, text); fs.fdatasyncSync(f); fs.closeSync(f);"),
    "VS Code over existing": node(
        "const f = fs.openSync(path, 'w'); setTimeout(() => { fs.writeSync(f, text); fs.fdatasyncSync(f);"
        " fs.closeSync(f); }, 400);",
        existing=True,
    ),
    "VS Code on Windows, over existing": node(
        "fs.truncateSync(path, 0); const f = fs.openSync(path, 'r+'); fs.writeSync(f, text); fs.fdatasyncSync(f);"
        " fs.closeSync(f);",
        existing=True,
    ),
    "node writeFile": node("fs.writeFile(path, text, e => { if (e) throw e; });"),
    "node append twice": node(
        "const h = text.length / 2; fs.appendFileSync(path, text.slice(0, h)); fs.appendFileSync(path, text.slice(h));"
    ),
    "node createWriteStream": node(
        "const s = fs.createWriteStream(path);"
        " for (let i = 0; i < text.length; i += 99) s.write(text.slice(i, i + 99)); s.end();"
    ),
    "temp and rename": python(
        "t = path + '.tmp'\nf = open(t, 'w')\nf.write(text)\nf.flush()\nos.fsync(f.fileno())\nf.close()\n"
        "os.replace(t, path)"
    ),
    "truncate and write, as editors do": python(
        "f = open(path, 'w')\ntime.sleep(0.5)\nf.write(text)\nos.fsync(f.fileno())\nf.close()",
        existing=True,
    ),
    "write, flush, write": python(
        "f = open(path, 'w')\nf.write(text[:half])\nf.flush()\ntime.sleep(0.7)\nf.write(text[half:])\nf.close()"
    ),
    "two opens": reopened(0.0),
    "two opens, a pause between": reopened(0.1),
    "two processes": two_processes,
}  # fmt: skip
# Those of row 48: no close is ever seen under the file's own name, or it comes while the file goes on to change.
SILENT: dict[str, Writer] = {
    "mmap with its descriptor closed first": python(
        "data = text.encode()\nfd = os.open(path, os.O_RDWR | os.O_CREAT)\nos.ftruncate(fd, len(data))\n"
        "m = mmap.mmap(fd, len(data))\nos.close(fd)\ntime.sleep(0.5)\nm[:] = data\nm.close()"
    ),
    "O_TMPFILE and linkat": python(
        "fd = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_WRONLY)\nos.write(fd, text.encode())\n"
        "os.link(f'/proc/self/fd/{fd}', path, src_dir_fd=0, follow_symlinks=True)\nos.close(fd)"
    ),
    "O_TMPFILE, linked before it is filled": python(
        "fd = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_WRONLY)\nos.write(fd, text[:half].encode())\n"
        "os.link(f'/proc/self/fd/{fd}', path, src_dir_fd=0, follow_symlinks=True)\ntime.sleep(0.7)\n"
        "os.write(fd, text[half:].encode())\nos.close(fd)"
    ),
    "hard link": sh('ln "$1" "$2"'),
    "hard link, maildir style": sh('cp "$1" "$3/t"; ln "$3/t" "$2"; rm "$3/t"'),
    "renamed while still open": python(
        "t = path + '.part'\nf = open(t, 'w')\nf.write(text[:half])\nf.flush()\nos.rename(t, path)\ntime.sleep(0.7)\n"
        "f.write(text[half:])\nf.close()"
    ),
    "RENAME_EXCHANGE": exchange,
}


# -- the judgement --


def written(job: Job, writer: Writer, patience: float = 60.0) -> dict[str, Any]:
    """Let one writer write; return the RESULT that came."""
    writer(job)
    return job.house.result(job.key, patience=patience)


def breach(job: Job, result: dict[str, Any], bills: list[dict[str, Any]], server: Server) -> str:
    """Say what is wrong: not one bill, or not of the bytes that the writer left. "" when all is well."""
    data = job.path.read_bytes()
    if job.last_words.encode() not in data:
        return f"the writer left something else: {data[-80:]!r}"
    if result["status"] != "answered":
        return f"ended as {result['status']}: {result['error']}"
    if result["request"]["sha256"] != hashlib.sha256(data).hexdigest() or result["request"]["revision"] != 1:
        return f"revision {result['request']['revision']} of other bytes was asked"
    mine = [bill for bill in bills if f".{job.key}.r" in bill["call"]]
    if len(mine) != 1:
        return f"{len(mine)} bills"
    with urllib.request.urlopen(f"{server.url}/_test/bills/{mine[0]['n']}/body", timeout=10) as answer:
        body = json.load(answer)
    return "" if job.last_words in body["input"] else "what was billed is not the whole"


def name_of(writer: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", writer.lower()).strip("-")


@dataclass
class Tally:
    """What came of the runs of one writer."""

    runs: int = 0
    slow: int = 0  # left out: the writer itself was away for about the settle time, so that two questions are right
    breaches: list[str] = field(default_factory=list)
    missing: str = ""


def batch(house: House, server: Server, number: int, table: dict[str, Tally], at_once: int = 4) -> None:
    """Run each writer of the table once, some at the same time, and judge when all is quiet."""
    writers = {**WRITERS, **SILENT}
    jobs = {name: job(house, f"w{number}-{name_of(name)}") for name, tally in table.items() if not tally.missing}
    with ThreadPoolExecutor(at_once) as pool:
        futures = {name: pool.submit(written, one, writers[name]) for name, one in jobs.items()}
    results: dict[str, dict[str, Any]] = {}
    for name, future in futures.items():
        try:
            results[name] = future.result()
        except Missing as error:
            table[name].missing = str(error)
        except Exception as error:
            table[name].runs += 1
            table[name].breaches.append(f"run {number}: {error}")
    after = f"after{number}"
    house.request(after).write_text(request_text())  # in place: whatever rang before it has been looked at
    house.result(after)
    until(lambda: not unsettled(house.folder), what="all settled")
    bills = server.bills()
    for name, result in results.items():
        tally, one = table[name], jobs[name]
        if max(one.gaps, default=0.0) > SETTLE_S * 0.98:
            tally.slow += 1
            continue
        tally.runs += 1
        wrong = breach(one, result, bills, server)
        if wrong:
            tally.breaches.append(f"run {number}: {wrong}")
        shutil.rmtree(one.room, ignore_errors=True)


def main(argv: list[str]) -> int:
    """Run every writer many times against one daemon; print a table of what came."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults writers", description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--settle-ms", type=int, default=int(SETTLE_S * 1000), help="the daemon's; 0 shows breaches")
    parser.add_argument("--only", default="", help="only writers whose name holds this")
    options = parser.parse_args(argv)
    table = {name: Tally() for name in (*WRITERS, *SILENT) if options.only in name}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="writers-") as place:
        house, server = House(Path(place)), Server(Path(place))
        house.use(server, settle_ms=options.settle_ms)
        try:
            house.up()
            for number in range(1, options.runs + 1):
                batch(house, server, number, table, options.at_once)
                print(f"run {number}: {sum(len(t.breaches) for t in table.values())} breaches", file=sys.stderr)
            judge(house, server, patience=120)
        finally:
            house.close()
            server.close()
    for name, tally in table.items():
        notes = [f"not here: {tally.missing}"] if tally.missing else tally.breaches[:3]
        left_out = f", {tally.slow} left out" if tally.slow else ""
        print(f"{name:<40} {tally.runs:>4} runs{left_out}, {len(tally.breaches)} breaches {'; '.join(notes)}")
    total, broken = sum(t.runs for t in table.values()), sum(len(t.breaches) for t in table.values())
    here = sum(not t.missing for t in table.values())
    print(
        f"{here} writers, {total} requests, {broken} breaches; {sum(t.slow for t in table.values())} left out, "
        f"whose writer itself paused for {SETTLE_S} s; {time.monotonic() - began:.0f} s"
    )
    return 1 if broken or not total else 0
