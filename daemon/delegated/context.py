"""Which excerpts fit the budget, and what was left out, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that may go along: its path relative to the workspace (POSIX), its whole text as it may be sent
    (secrets already replaced), the SHA-256 of its original bytes, their number, and why it is a candidate."""

    path: str
    text: str
    sha256: str
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class Omitted:
    """A file or part that stays at home, and the reason a person can act on."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Whole lines of one file as they are sent: `start_line..end_line`, 1-based and inclusive, of `total_lines`.

    `text` is those lines without numbers, newline-terminated as in the file. `sha256` is of the original file.
    """

    path: str
    text: str
    start_line: int
    end_line: int
    total_lines: int
    sha256: str
    why: str


@dataclass(frozen=True, slots=True)
class Context:
    """The code that goes along. `tokens` counts it as rendered in the prompt."""

    excerpts: tuple[Excerpt, ...] = ()
    omitted: tuple[Omitted, ...] = ()
    warnings: tuple[str, ...] = ()
    tokens: int = 0


def choose(
    files: Sequence[SourceFile],
    mentions: Mapping[str, Sequence[int]],
    budget: int,
    count: Callable[[str], int],
    *,
    omitted: Sequence[Omitted] = (),
    warnings: Sequence[str] = (),
) -> Context:
    """Fit `files` (most wanted first) into `budget` tokens as counted by `count`.

    `mentions` maps a path to the lines that logs or the request point at. A file that fits goes whole; else
    excerpts around its mentioned lines; else its name only, in `omitted`. One large file never fails the rest.
    """
    raise NotImplementedError
