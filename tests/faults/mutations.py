"""Each safeguard taken out in turn, and the part of the suite that catches it.

A mutation is a replacement of text in a copy of the package, each text found exactly once; its catcher is a test that
passes on the copy as it is and must fail on the mutated one. `power:JOB` stands for the crash states of a job.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "daemon" / "delegated"
_PATIENCE_S: Final = 400


@dataclass(frozen=True, slots=True)
class Mutation:
    """A safeguard, how it is taken out (`file: ((old, new), …)`), and what ought to catch that."""

    name: str
    safeguard: str
    edits: dict[str, tuple[tuple[str, str], ...]]
    catcher: str


_SENT: Final = """            await log.record_sent(
                model=self.name,
                endpoint=self.endpoint,
                wire=self.wire,
                handle=handle,
                prompt_sha256=sha256(prompt),
                price_bound_usd=self._price_bound(prompt),
                key_mark=self._wire.key_mark(log.call_id),
                stored=self._wire.stored,
            )
"""
_POST: Final = "await self._wire.post(prompt, log.call_id, handle)\n"
_RESTART: Final = "tests/test_restart.py::"
_JOURNAL: Final = "tests/test_journal.py::"
_CLIENT: Final = "tests/test_models_client.py::"

MUTATIONS: Final = (
    Mutation(
        "no-directory-sync",
        "names are synced before the next step",
        {
            "disk.py": (
                (
                    "        if not _DIR_FD:  # a directory cannot be synced there;",
                    "        if True:  # a directory cannot;",
                ),
            )
        },
        "power:one",
    ),
    Mutation(
        "no-file-sync",
        "bytes are synced before they get their name",
        {"disk.py": (("            if durable:\n                _sync(fd)\n", ""),)},
        "power:one",
    ),
    Mutation(
        "no-end-mark",
        "a record without a right end mark and checksum counts as torn",
        {
            "record.py": (
                (
                    '    if not mark or tail != hashlib.sha256(payload).hexdigest().encode() + b"\\n":\n'
                    "        return None\n",
                    "    payload = payload if mark else data\n",
                ),
            )
        },
        _JOURNAL + "test_a_record_that_lost_or_changed_a_byte_is_torn",
    ),
    Mutation(
        "rename-for-link",
        "a record is linked to its name, which fails if somebody was first",
        {
            "disk.py": (
                (
                    "os.link(self._at(temp), self._at(path), src_dir_fd=self._fd, dst_dir_fd=self._fd, "
                    "follow_symlinks=False)",
                    "os.rename(self._at(temp), self._at(path), src_dir_fd=self._fd, dst_dir_fd=self._fd)",
                ),
            )
        },
        _JOURNAL + "test_a_revision_is_claimed_once",
    ),
    Mutation(
        "result-before-reply",
        "a reply is recorded before a RESULT is made of it",
        {
            "models/recorded.py": (
                (
                    "        await log.record_reply(reply)\n",
                    "        loop = asyncio.get_running_loop()\n"
                    "        loop.call_later(0.5, lambda: loop.create_task(log.record_reply(reply)))\n",
                ),
            )
        },
        "power:one",
    ),
    Mutation(
        "sdk-retries",
        "the SDK's own retries are off",
        {
            "models/client.py": (
                ("            max_retries=0,  # its retries would send a paid POST up to three times\n", ""),
            )
        },
        _CLIENT + "test_what_may_have_been_accepted_is_in_doubt_and_sent_once",
    ),
    Mutation(
        "resend-on-time-out",
        "a time-out after the request was sent leaves it in doubt",
        {
            "models/meaning.py": (
                ("        httpx2.ConnectTimeout,\n        httpx2.PoolTimeout,\n", "        httpx2.TimeoutException,\n"),
            )
        },
        _CLIENT + "test_what_may_have_been_accepted_is_in_doubt_and_sent_once",
    ),
    Mutation(
        "no-lock",
        "one daemon holds a folder",
        {
            "lock.py": (
                (
                    "                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n                except",
                    "                    pass\n                except",
                ),
                ("        if fcntl is None or self._dir.fd < 0:\n", "        if True:\n"),
            )
        },
        _JOURNAL + "test_one_daemon_a_folder",
    ),
    Mutation(
        "sent-after-post",
        "`sent` is recorded before the POST",
        {
            "models/recorded.py": (
                (_SENT, "            posted = " + _POST + _SENT),
                ("            return " + _POST, "            return posted\n"),
            )
        },
        "power:one",
    ),
    Mutation(
        "torn-sent-is-absent",
        "a torn `sent` counts as sent",
        {
            "calls.py": (
                ('n.startswith("sent.") or self._sound(n)', "self._sound(n)"),
                (r'if not re.fullmatch(r"(unsent|accepted)\.\d+', r'if not re.fullmatch(r"(sent|unsent|accepted)\.\d+'),
            )
        },
        _JOURNAL + "test_a_damaged_record_never_leads_to_a_second_send",
    ),
    Mutation(
        "no-look-up",
        "a send in doubt is looked up, and sent again only when it is proven absent",
        {
            "models/recorded.py": (
                (
                    "            posted = await self._resolve(log, self._patience.doubt_s) if log.in_doubt else None\n",
                    "            posted = None\n"
                    "            if log.in_doubt:\n"
                    '                await log.record_unsent("provider_failed", "not looked up")\n',
                ),
            )
        },
        _RESTART + "test_killed_at_the_instant_of_the_bill",
    ),
    Mutation(
        "changed-while-read",
        "the bytes that are claimed were the file's before and after they were read",
        {
            "folder.py": (
                ("if sig_of(before) != sig_of(after) or len(data) != after.st_size:", "if len(data) > limit:"),
            )
        },
        "tests/test_folder.py::test_a_file_that_changes_while_it_is_read_is_not_taken",
    ),
    Mutation(
        "unsecured-request",
        "a REQUEST and its name are synced before its claim",
        {"intake.py": (("                session.folder.secure(name)\n", "                pass\n"),)},
        "power:one",
    ),
    Mutation(
        "unsecured-history",
        "a former RESULT is safe in the history before it goes from the folder",
        {"store.py": (('        self.dir.sync("history")\n', ""),)},
        "power:edit",
    ),
)


def mutated(mutation: Mutation | None, place: Path) -> Path:
    """Copy the package below a new directory, mutated or as it is; raises `ValueError` for a text not there once."""
    copy = place / "delegated"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, edits in mutation.edits.items() if mutation else ():
        text = (copy / name).read_text()
        for old, new in edits:
            if text.count(old) != 1:
                raise ValueError(f"{mutation.name if mutation else ''}: {text.count(old)} times in {name}: {old!r}")
            text = text.replace(old, new)
        (copy / name).write_text(text)
    return place


def run(catcher: str, place: Path) -> tuple[bool, str]:
    """Run a test on the copy in `place`; return whether it passed, and its last words.

    Raises `RuntimeError` when it did not judge: neither passed nor found anything.
    """
    kind, _, job = catcher.partition(":")
    if kind == "power":
        command = [sys.executable, "-m", "tests.faults", "power", "--job", job, "--model", "ordered", "--first"]
        passed, failed = r" 0 breaches", r" [1-9][0-9]* breaches"
    else:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", catcher]
        passed, failed = r"(?m)^[0-9]+ passed", r"(?m)^[1-9][0-9]* failed"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])}
    where = "import delegated; print(delegated.__file__)"
    used = subprocess.run([sys.executable, "-c", where], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert used.stdout.startswith(str(place)), "the copy is what runs"
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    told = done.stdout + done.stderr
    good = done.returncode == 0 and re.search(passed, told) is not None
    if not good and not (done.returncode == 1 and re.search(failed, told)):
        raise RuntimeError(f"{catcher} did not judge: {told[-2000:]}")
    words = re.findall(r"(?m)^(?:E   +|  [0-9]+ times: )(.+)", told) or [""]
    return good, words[0][:160]


def caught(mutation: Mutation, tmp: Path) -> tuple[bool, str]:
    """Say whether a mutation is caught, and by which words."""
    good, words = run(mutation.catcher, mutated(mutation, tmp / mutation.name))
    return not good, words


def main(argv: list[str]) -> int:
    """Take out each safeguard and print what caught that; 0 when each was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults mutations", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    given = parser.parse_args(argv)
    chosen = [each for each in MUTATIONS if not given.names or each.name in given.names]
    missed = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutations-") as tmp:
        sound = mutated(None, Path(tmp) / "as-it-is")
        for catcher in dict.fromkeys(each.catcher for each in chosen):
            good, words = run(catcher, sound)
            if not good:
                print(f"fails without any mutation: {catcher}: {words}")
                missed += 1
        print("| safeguard taken out | caught by | what it said |\n|---|---|---|")
        for mutation in chosen:
            found, words = caught(mutation, Path(tmp))
            missed += not found
            by = f"`{mutation.catcher}`" if found else "**nobody**"
            print(f"| {mutation.safeguard} ({mutation.name}) | {by} | {words.replace('|', '/')} |", flush=True)
    print(f"{len(chosen)} mutations, {missed} missed, {time.monotonic() - started:.0f} s")
    return 1 if missed else 0
