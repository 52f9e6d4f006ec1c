"""What a CI job knows of its own failure: which system runs it, and its logs, where they tell most."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from delegated.cuts import after, before, head
from delegated.fingerprint import tells

from . import terminal
from .place import Usage

LOGS: Final = 60_000  # characters of all logs together that are asked about
_READ: Final = 2 << 20  # bytes of the end of one log that are looked at
_AHEAD: Final = 32 << 10  # and so many before them, which say where they may begin
_MOST_LINE: Final = 2_000
# `gh run view --log-failed` writes job, step and time before each line, GitHub's own logs the time.
_PREFIX: Final = re.compile(
    r"^(?:[^\t\n]{1,200}\t[^\t\n]{1,200}\t)?\ufeff?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z ", re.MULTILINE
)
_BOT: Final = re.compile(r"(?i).*\[bot\]$|(?:project|group)_\d+_bot.*|delegated|delegate|renovate(?:-bot)?|dependabot")


@dataclass(frozen=True, slots=True)
class Ci:
    """The system that runs this job: its name, the job's, where the code was checked out, and which try this is."""

    system: str
    job: str
    root: str
    attempt: int
    actors: tuple[str, ...]  # who caused the run, as far as the system says
    ended_well: bool


def ci_of(env: Mapping[str, str]) -> Ci:
    """Read which system runs us from its variables."""
    github = bool(env.get("GITHUB_ACTIONS"))
    gitlab = bool(env.get("GITLAB_CI")) and not github
    system = "GitHub Actions" if github else "GitLab CI" if gitlab else ""
    attempt = env.get("GITHUB_RUN_ATTEMPT", "") if github else ""
    author = env.get("CI_COMMIT_AUTHOR", "").partition(" <")[0] if gitlab else ""
    actor = env.get("GITHUB_ACTOR" if github else "GITLAB_USER_LOGIN", "") if system else ""
    return Ci(
        system=system,
        job=env.get("GITHUB_JOB" if github else "CI_JOB_NAME", "") if system else "",
        root=env.get("GITHUB_WORKSPACE" if github else "CI_PROJECT_DIR", "") if system else "",
        attempt=int(attempt) if re.fullmatch(r"\d{1,6}", attempt) else 1,
        actors=tuple(filter(None, (actor, author))),
        ended_well=gitlab and env.get("CI_JOB_STATUS") in ("success", "canceled"),
    )


def is_bot(name: str) -> bool:
    """Say whether an account is a program's: GitHub's and GitLab's forms, and our own name."""
    return _BOT.fullmatch(name.strip()) is not None


def logs(paths: Sequence[str]) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Read logs (`-` is stdin) as (name, text), from their ends; also say what is wrong, and name those not to be read.

    Raises `Usage`.
    """
    if paths.count("-") > 1:
        raise Usage("--log - : standard input can be read only once", "give the other logs as files")
    found: list[tuple[str, str]] = []
    troubles: list[str] = []
    unread: list[str] = []
    for path in paths:
        try:
            data = sys.stdin.buffer.read() if path == "-" else _end_of(path)
        except (OSError, ValueError) as error:
            troubles.append(f"the log {path} cannot be read: {getattr(error, 'strerror', None) or error}")
            unread.append(path)
            continue
        text = _PREFIX.sub("", terminal.clean(_decoded(data)))
        if text.strip():
            found.append(("standard input" if path == "-" else path, text))
        else:
            troubles.append(f"the log {path} is empty")
    return found, troubles, unread


def _end_of(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ValueError("it is no regular file")
        file.seek(max(0, info.st_size - _READ - _AHEAD))
        return file.read(_READ + _AHEAD)


def _decoded(data: bytes) -> str:
    """Read the end of a log: characters of bytes that are more than `_READ` begin where they may."""
    data = data[-_READ - _AHEAD :]
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = data.decode("utf-16" if wide else "utf-8-sig", "replace")
    return text if len(data) <= _READ else text[after(text, min(_AHEAD, len(data) - _READ)) :]


def shown(found: Sequence[tuple[str, str]], room: int = LOGS) -> str:
    """Write the logs as one text of about `room` characters at most: of each the part around its failure."""
    parts = [around(text, room // len(found)) for _, text in found]
    if len(parts) == 1:
        return parts[0]
    return "\n\n".join(f"== {name} ==\n{part}" for (name, _), part in zip(found, parts, strict=True))


def around(text: str, room: int) -> str:
    """Keep the end of a log, and the last lines that tell of a failure where these stand before it; say what is not."""
    lines = [_line(line) for line in text.strip("\n").split("\n")]
    if sum(len(line) + 1 for line in lines) <= room:
        return "\n".join(lines)
    start = _back(lines, len(lines), room)
    telling = next((at for at in range(len(lines) - 1, -1, -1) if tells(lines[at])), len(lines))
    if telling >= start:
        return _kept(lines, [(start, len(lines))])
    # Long after the failure: what a cleanup or an upload says matters less, but may be why.
    start = _back(lines, len(lines), room // 4)
    first = _back(lines, telling + 1, room // 2)
    last = min(start, telling + 1 + _forth(lines, telling + 1, room // 4))
    return _kept(lines, [(first, last), (start, len(lines))] if start > last else [(first, len(lines))])


def _line(line: str) -> str:
    return line if len(line) <= _MOST_LINE else f"{head(line, _MOST_LINE)}…"


def _kept(lines: Sequence[str], ranges: Sequence[tuple[int, int]]) -> str:
    """Write ranges of lines, which are narrowed so that they hold no part of a secret, and how many are left out."""
    text = "\n".join(lines)
    begins = list(accumulate((len(line) + 1 for line in lines), initial=0))
    pieces: list[str] = []
    done = 0
    for first, last in ranges:
        start, end = max(done, after(text, begins[first])), before(text, begins[last] - 1)
        pieces += [_left(text.count("\n", done, start))] if start > done else []
        if start < end:
            pieces.append(text[start:end])
        done = max(start, end + 1)
    return "\n".join(pieces)


def _back(lines: Sequence[str], end: int, room: int) -> int:
    """Return the first line of those before `end` that fit into `room` characters."""
    while end > 0 and (room := room - len(lines[end - 1]) - 1) >= 0:
        end -= 1
    return end


def _forth(lines: Sequence[str], start: int, room: int) -> int:
    """Return how many lines from `start` on fit into `room` characters."""
    at = start
    while at < len(lines) and (room := room - len(lines[at]) - 1) >= 0:
        at += 1
    return at - start


def _left(count: int) -> str:
    return f"[… {count:,} lines left out …]"
