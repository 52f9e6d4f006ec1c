"""What changed, as it is shown to a model: what is not committed yet, and the commits behind the lines that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from delegated.context import Extra, Omitted
from delegated.difference import about, difference, unified

CHANGES: Final = "changes"  # the kinds of extras, which are also the tags of their blocks
COMMITS: Final = "commits"
UNCOMMITTED: Final = "uncommitted changes"  # how a receipt calls what was left out
LAST_COMMITS: Final = "last commits"
PART_OF: Final = {CHANGES: UNCOMMITTED, COMMITS: LAST_COMMITS}
_AROUND: Final = 12  # rows of a commit's hunk that are shown about a line that failed
_MOST_NAMED: Final = 5  # files whose changes were left out that are named


@dataclass(frozen=True, slots=True)
class Changed:
    """A file that is not as it was committed: its whole text then and now; None where there is or was none."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Touched:
    """The lines (from 1, of `after`) that a commit was the last to touch, in a file that it changed.

    `of` are the lines of the trace that they are now.
    """

    commit: str
    day: str
    subject: str
    path: str
    before: str | None
    after: str
    lines: tuple[int, ...]
    of: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class History:
    """What git's files tell of a workspace, the most important first; `omitted` says what they could not tell."""

    head: str = ""
    changed: tuple[Changed, ...] = ()
    touched: tuple[Touched, ...] = ()
    omitted: tuple[Omitted, ...] = ()


def texts(history: History) -> Iterator[tuple[str, str]]:
    """Yield every text of a history with the path that it is of; `render` asks for each as it may be sent."""
    for changed in history.changed:
        yield from ((changed.path, text) for text in (changed.before, changed.after) if text is not None)
    for touched in history.touched:
        yield touched.path, touched.after
        if touched.before is not None:
            yield touched.path, touched.before


def names(history: History) -> Iterator[str]:
    """Yield what else of a history is shown: paths, subjects, reasons."""
    for changed in history.changed:
        yield changed.path
    for touched in history.touched:
        yield from (touched.path, touched.subject)
    for each in history.omitted:
        yield from (each.path, each.reason)


def render(
    history: History, clean: Callable[[str], str], budget: int, count: Callable[[str], int]
) -> tuple[tuple[Extra, ...], tuple[Omitted, ...]]:
    """Write what fits into `budget` tokens by `count`; the rest is left out, with the reason.

    `clean` gives each text and name of the history as it may be sent, with its lines where they were: the difference
    is taken of clean texts, so that no secret is cut before it is looked for. Commits may take half of the budget, and
    what the changes leave of theirs.
    """
    blocks = [_block(each, clean) for each in history.touched]
    reserved = min(sum(count(block) for block in blocks), budget // 2)
    patches = [(clean(each.path), _patch(each, clean)) for each in history.changed]
    omitted = [Omitted(clean(each.path), clean(each.reason)) for each in history.omitted]
    extras: list[Extra] = []
    patches = [(path, patch) for path, patch in patches if patch]
    kept, over = _fitting([patch for _, patch in patches], budget - reserved, count)
    if kept:
        size = _some(len(kept), "file")
        text = "\n".join(patches[at][1] for at in kept)
        extras.append(Extra(CHANGES, text, f"{size} changed since the last commit, {history.head[:10]}"))
        budget -= count(text)
    left = [path for at, (path, _) in enumerate(patches) if at not in kept]
    if left:
        named = ", ".join(left[:_MOST_NAMED]) + (f" and {len(left) - _MOST_NAMED} more" if left[_MOST_NAMED:] else "")
        omitted.append(Omitted(UNCOMMITTED, f"those of {named}: {over}"))
    kept, over = _fitting(blocks, budget, count)
    if kept:
        ours = [history.touched[at] for at in kept]
        number = _some(len({each.commit for each in ours}), "commit")
        text = "\n\n".join(blocks[at] for at in kept)
        extras.append(Extra(COMMITS, text, f"{number} last touched the lines of the trace"))
    if len(kept) < len(blocks):
        hashes = dict.fromkeys(each.commit for at, each in enumerate(history.touched) if at not in kept)
        omitted.append(Omitted(LAST_COMMITS, f"{', '.join(hashes)}: {over}"))
    return tuple(extras), tuple(omitted)


def _fitting(texts: Sequence[str], budget: int, count: Callable[[str], int]) -> tuple[list[int], str]:
    """Choose what fits, in its order; what is too large does not keep out what comes after it."""
    kept: list[int] = []
    left = budget
    for at, text in enumerate(texts):
        cost = count(text) + 2
        if cost <= left:
            kept.append(at)
            left -= cost
    return kept, f"more than fits; the budget for it is {budget:,} tokens"


def _patch(changed: Changed, clean: Callable[[str], str]) -> str:
    path = clean(changed.path)
    before, after = ("" if text is None else clean(text) for text in (changed.before, changed.after))
    if changed.after is None:
        return f"--- a/{path}\n+++ /dev/null\n(deleted, {_some(before.count(chr(10)), 'line')})"
    hunks = [unified(rows) for rows in difference(before, after).hunks()]
    old = "/dev/null" if changed.before is None else f"a/{path}"
    return "\n".join([f"--- {old}", f"+++ b/{path}", *hunks]) if hunks else ""


def _block(touched: Touched, clean: Callable[[str], str]) -> str:
    path = clean(touched.path)
    subject = " ".join(clean(touched.subject).split())
    lines = ", ".join(map(str, touched.of))
    head = f"{touched.commit} {touched.day} {subject}\n{path}, line {lines} of the trace"
    if touched.before is None:
        return f"{head}\n(this commit added the file)"
    found = difference(clean(touched.before), clean(touched.after))
    parts = [part for rows in found.hunks() for part in about(rows, touched.lines, _AROUND)]
    return "\n".join([head, *(unified(part) for part in parts)])


def _some(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
