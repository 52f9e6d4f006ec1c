"""What a runner of GitHub Actions is told: annotations, the page of the step's summary, its outputs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

SUMMARY: Final = 1 << 20  # bytes of the summary of one step; a larger one is refused as a whole
ANNOTATIONS: Final = 10  # of each level in one step; the runner drops the others
LEVELS: Final = ("error", "warning", "notice")
_ROOM: Final = 4 << 10  # kept free for what is said in place of the rest
_FENCE: Final = re.compile(r"\s*(?:[-*+]\s+|\d+[.)]\s+)?(`{3,}|~{3,})")


@dataclass(frozen=True, slots=True)
class Annotation:
    """A remark at a place; `path` from the root of the repository, "" for none; lines from 1."""

    level: str
    text: str
    title: str = ""
    path: str = ""
    line: int = 0
    end_line: int = 0


def commands(annotations: Iterable[Annotation]) -> list[str]:
    """Write annotations as the commands that a runner reads from the output of a step, no more than it takes."""
    left = dict.fromkeys(LEVELS, ANNOTATIONS)
    lines = []
    for each in annotations:
        if left[each.level] == 0:
            continue
        left[each.level] -= 1
        place = {"file": each.path, "line": str(each.line), "endLine": str(each.end_line)} if each.path else {}
        given = ",".join(
            f"{name}={_property(value)}" for name, value in {**place, "title": each.title}.items() if value
        )
        lines.append(f"::{each.level}{f' {given}' if given else ''}::{_data(each.text)}")
    return lines


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def outputs(values: Mapping[str, str]) -> str:
    """Write outputs between delimiters that no value can hold: a value with a line break sets no further output."""
    while True:
        mark = f"delegated_{os.urandom(16).hex()}"
        if not any(mark in value for value in values.values()):
            return "".join(f"{name}<<{mark}\n{value}\n{mark}\n" for name, value in values.items())


def page(text: str, room: int, rest: str) -> str:
    """Hold a page to `room` bytes: cut at a line, open blocks closed, and said how much is missing and where it is."""
    whole = text.encode("utf-8", "replace")
    if len(whole) <= room:
        return text
    kept = whole[: max(0, room - _ROOM)]
    kept = kept[: kept.rfind(b"\n") + 1]
    shown = kept.decode("utf-8", "replace")
    opened = ""
    for line in shown.split("\n"):
        if (found := _FENCE.match(line)) and (not opened or found[1].startswith(opened)):
            opened = "" if opened else found[1]
    close = f"{opened}\n\n" if opened else "\n"
    told = f"**This page is cut: {len(whole) - len(kept):,} of {len(whole):,} bytes are not shown.** {rest}\n"
    return (shown + close + told) if room >= _ROOM else told if len(told.encode()) <= room else ""


def append(path: str, text: str) -> None:
    """Add text to one of the runner's files. Raises `OSError`."""
    with open(path, "a", encoding="utf-8", errors="replace", newline="\n") as file:
        file.write(text)


def summarize(path: str, text: str, rest: str) -> None:
    """Add a page to the step's summary within its limit; `rest` says where the whole is. Raises `OSError`."""
    taken = os.path.getsize(path) if os.path.exists(path) else 0
    append(path, page(text, SUMMARY - taken, rest))
