"""Values planted in a test, and the search for them in every byte that a program left or showed."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness import PATIENCE_S, House


def forms(value: str) -> set[bytes]:
    """The value as it stands, in a URL, in JSON, in base 64 and in hex."""
    raw = value.encode()
    texts = {value, quote(value, safe=""), json.dumps(value)[1:-1], raw.hex()}
    encoded = {base64.b64encode(b"\0" * skip + raw)[(skip * 4 + 2) // 3 : -4] for skip in range(3)}
    return {text.encode() for text in texts} | {one.rstrip(b"=") for one in encoded}


def holds(data: bytes, value: str) -> bool:
    return any(form in data for form in forms(value))


def places(value: str, *roots: Path) -> set[str]:
    """Name every file below the roots, relative to its root, that holds the value in its bytes or its name."""
    found = set()
    for root in roots:
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            name = path.name if path == root else path.relative_to(root).as_posix()
            if holds(os.fsencode(name), value) or (path.is_file() and holds(path.read_bytes(), value)):
                found.add(name)
    return found


def on_terminal(
    arguments: Sequence[str], env: Mapping[str, str], cwd: Path, *, columns: int = 100
) -> tuple[int, bytes]:
    """Run a command on a terminal of its own; return its exit code and every byte that the terminal got."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        arguments, stdin=theirs, stdout=theirs, stderr=theirs, env={**env, "TERM": "xterm-256color"}, cwd=cwd
    )
    os.close(theirs)
    said = b""
    deadline = time.monotonic() + PATIENCE_S
    try:
        while True:
            ready, _, _ = select.select([ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{arguments}: not within {PATIENCE_S:g} s: {said[-2000:]!r}"
            try:
                piece = os.read(ours, 1 << 16)
            except OSError as error:  # the other side is closed: how Linux says so
                if error.errno != errno.EIO:
                    raise
                break
            if not piece:
                break
            said += piece
        return process.wait(PATIENCE_S), said
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(10)
        os.close(ours)


def delegate_on_terminal(house: House, *arguments: str) -> tuple[int, bytes]:
    return on_terminal([sys.executable, "-P", "-m", "delegated", *arguments], house.env, house.workspace)


def looks(house: House, key: str, only: tuple[str, ...] = ()) -> Iterator[tuple[str, bytes]]:
    """Yield what each command that shows a request (or `only` these) shows of it on a terminal."""
    for arguments in (
        ("show", key),
        ("show", key, "--raw"),
        ("show", key, "--json"),
        ("wait", key),
        ("list",),
        ("list", "--json"),
        ("status",),
        ("status", key),
        ("costs",),
    ):
        if only and arguments[0] not in only:
            continue
        yield " ".join(arguments), delegate_on_terminal(house, *arguments)[1]


def answer_with(value: str) -> dict[str, Any]:
    """An answer that holds a value in each of its fields."""
    return {
        "hypotheses": [
            {
                "cause": f"the token {value}",
                "evidence": [{"path": f"a/{value}.py", "start_line": 1, "end_line": 1, "quote": f"x = '{value}'"}],
                "explanation": f"because of {value}",
                "likelihood": "high",
            }
        ],
        "verdict": "likely",
        "root_cause": f"It is {value}",
        "technical_explanation": f"First {value}",
        "recommended_fixes": [
            {
                "priority": 1,
                "description": f"Replace {value}",
                "file": f"b/{value}.py",
                "edits": [{"path": f"b/{value}.py", "before": f"y = '{value}'", "after": f"z = '{value}'"}],
                "rationale": f"{value}",
                "risk": f"{value}",
                "test": f"curl -H 'PRIVATE-TOKEN: {value}' x",
            }
        ],
        "code_examples": [{"title": value, "language": value, "code": f"t = '{value}'"}],
        "additional_investigation": [f"See {value}"],
        "answers": [f"Yes, {value}"],
        "files_needed": [f"c/{value}.py"],
        "confidence": "high",
    }
