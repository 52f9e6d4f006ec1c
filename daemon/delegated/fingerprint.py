"""One failure under one name, whenever and wherever it happens: what failed, in which own code, with which words.

After Sentry: the own frames by module and function, the type of the error, its message with all that changes from run
to run masked. No line number, so an edit above the fault does not make it another one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from delegated.cuts import head
from delegated.traces import Frame, error, frames

VERSION: Final = 1  # whoever changes what goes into a fingerprint raises it: the old names then mean nothing

_FRAMES: Final = 30
_WORDS: Final = 8
_LINES: Final = 2_000  # of the end of a log that are looked at for words
_MOST_LINE: Final = 2_000
_MOST_TITLE: Final = 200
_MASKS: Final = (
    (r"(?<!\w)(?:'[^'\n]{0,500}'|\"[^\"\n]{0,500}\"|`[^`\n]{0,500}`)(?!\w)", "<value>"),
    (r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?", "<time>"),
    (r"\b\d\d?:\d\d(?::\d\d(?:[.,]\d{1,9})?)?\b|\b\d\d?[./]\d\d?[./]\d{4}\b", "<time>"),
    (r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b", "<hash>"),
    (r"\b0x[0-9a-fA-F]{1,64}\b|\b(?=[a-fA-F]{0,64}\d)[0-9a-fA-F]{7,128}\b", "<hash>"),
    (r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s'\"<>]{1,2000}", "<path>"),
    (r"(?:\b[A-Za-z]:)?(?:[\w.~@+-]{0,100}[\\/]){1,50}[\w.~@+-]{0,100}", "<path>"),
    (r"\d+(?:[.,_]\d+)*", "<number>"),
)
_MASK: Final = tuple((re.compile(pattern), mark) for pattern, mark in _MASKS)
_TELLING: Final = re.compile(
    r"(?i)\b(?:\w*error|\w*exception|fail(?:ed|ure|s)?|fatal|panic(?:ked)?|traceback|cannot|could not|undefined"
    r"|unresolved|not found|denied|refused|timed out|timeout|killed|segfault|segmentation fault)\b|✗|✘|✖"
)
# Said of every failure alike, by the runner or by a tool that calls others.
_EMPTY: Final = re.compile(r"(?i)\bexit(?:ed)? (?:with )?(?:code|status)\b|^make(?:\[\d+\])?: \*\*\*|^npm ERR!")
_RUNNERS: Final = re.compile(r"(?m)^(?:##\[error\]|Error: )Process completed with exit code \d+\.?$")
_PARAMETERS: Final = re.compile(r"\[.*\]$|::h[0-9a-f]{16}$")  # of one test among many; of one build of a Rust program


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A failure's name: `key` is fit to be a request's id, `title` says the failure in a line, `parts` what was hashed.

    `title` is a stranger's text, unmasked.
    """

    key: str
    title: str
    parts: tuple[str, ...]


def fingerprint(log: str, root: str = "") -> Fingerprint | None:
    """Name the failure that a log (without escape sequences) tells of; None when the log says nothing.

    `root` is where the code was checked out: paths below it are the same everywhere.
    """
    log = _RUNNERS.sub("", log)
    failed = error(log)
    words = () if failed is not None else _words(log)
    if failed is None and not words:
        return None
    own = sorted({_place(frame, root) for frame in frames(log) if not frame.library})[:_FRAMES]
    if failed is not None:
        said = [f"error {failed.name}: {masked(failed.message)}"]
        title = f"{failed.name}: {failed.message}" if failed.message else failed.name
    else:
        said = [f"says {masked(line)}" for line in words]
        title = words[-1]
    parts = (f"version {VERSION}", *said, *own)
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()
    title = " ".join(title.split())
    return Fingerprint(
        f"ci{VERSION}-{digest[:20]}", title if len(title) <= _MOST_TITLE else f"{head(title, _MOST_TITLE)}…", parts
    )


def masked(text: str) -> str:
    """Replace what changes from one run to the next: quoted values, times, hashes, paths, numbers."""
    text = text[:_MOST_LINE]
    for pattern, mark in _MASK:
        text = pattern.sub(mark, text)
    return " ".join(text.split())


def tells(line: str) -> bool:
    """Say whether a line of a log speaks of a failure, and says more than that there was one."""
    return _TELLING.search(line[:_MOST_LINE]) is not None and _EMPTY.search(line[:_MOST_LINE]) is None


def _words(log: str) -> tuple[str, ...]:
    """Return the last lines that tell of a failure, else the last ones at all; each once, alike ones are one."""
    lines = [line.strip() for line in log.split("\n") if line.strip()][-_LINES:]
    return _last(filter(tells, reversed(lines))) or _last(iter(reversed(lines)))


def _last(lines: Iterator[str]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for line in lines:
        found.setdefault(masked(line), line)
        if len(found) == _WORDS:
            break
    return tuple(reversed(found.values()))


def _place(frame: Frame, root: str) -> str:
    """Write a frame as module and function. Of a path from another machine only the last three names are sure."""
    path, top = frame.path, root.replace("\\", "/").rstrip("/")
    if top and path.startswith(f"{top}/"):
        path = path[len(top) + 1 :]
    elif path.startswith("/") or path[1:3] == ":/":
        path = "/".join(path.split("/")[-3:])
    folder, slash, name = path.rpartition("/")
    return f"in {folder}{slash}{name.partition('.')[0] or name} {_PARAMETERS.sub('', frame.function)}".rstrip()
