"""The edits of an answer, tried on the workspace's files as they are now, and written down as a patch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from delegated.analysis import Edit, Fix, parsed, with_fixes
from delegated.patch import Patch, file_patch, hunks
from delegated.prompt import sendable
from delegated.quotes import PARTLY, spans, spliced
from delegated.reach import never
from delegated.result import Result
from delegated.syntax import UNREAD, judge

_WHOLE: Final = "only a part of this file was sent; the edit was checked against the whole"
_MOST: Final = 1 << 20  # characters of a patch
Changes = list[tuple[int, int, str]]
Reader = Callable[[str], bytes | str]
Hider = Callable[[Sequence[tuple[str, str]]], Sequence[str]]


@dataclass(slots=True)
class _File:
    """A file of the workspace as it was read just now: its bytes, or why it could not be read."""

    data: bytes | str
    sha256: str = ""
    text: str | None = None  # where it is UTF-8, exactly its bytes
    taken: Changes = field(default_factory=list)
    by: list[int] = field(default_factory=list)  # the fixes that are in the patch

    @classmethod
    def of(cls, data: bytes | str) -> _File:
        if isinstance(data, str):
            return cls(data)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        return cls(data, hashlib.sha256(data).hexdigest(), text)


def tried(result: Result, name: str, read: Reader, hide: Hider) -> Result:
    """Return an answered result with what its edits make of the files, and the patch `name` or why there is none.

    `read` returns a file's bytes or why it cannot be read, `hide` the texts of (where, text) with secrets replaced and
    their lines kept.
    """
    found = result.analysis
    if found is None:
        return result
    files: dict[str, _File] = {}
    for path in dict.fromkeys(edit.path for fix in found.fixes for edit in fix.edits if edit.sha256):
        files[path] = _File.of(read(path))
    fixes = tuple(replace(fix, edits=_tried(fix.edits, files)) for fix in found.fixes)
    patch, notes = _made(name, fixes, files, hide)
    return replace(result, analysis=with_fixes(found, fixes), patch=patch, patch_notes=notes)


def _tried(edits: Sequence[Edit], files: dict[str, _File]) -> tuple[Edit, ...]:
    """Hold the edits of one fix against the whole files: what was sent may have been a part, with secrets replaced."""
    made = []
    for edit in edits:
        file = files.get(edit.path)
        changed = None if file is None else file.sha256 != edit.sha256
        edit = replace(edit, changed=changed)
        if file is not None and file.text is not None and not changed and edit.applies:
            there = spans(file.text, [(edit.before, edit.after)])
            if isinstance(there, str):
                edit = replace(edit, applies=False, parses=None, note=there)
            else:
                said = (part for part in edit.note.split("; ") if not part.startswith(UNREAD))  # it is said anew below
                edit = replace(edit, note="; ".join(said).replace(PARTLY, _WHOLE))
        made.append(edit)
    whole = {path: file.text for path, file in files.items() if file.text is not None}
    open_ = {edit.path for edit in made if edit.applies and edit.parses is None and edit.changed is False}
    checked = parsed(
        [edit for edit in made if edit.path in open_], {path: whole[path] for path in open_ & whole.keys()}
    )
    again = iter(checked)
    return tuple(next(again) if edit.path in open_ else edit for edit in made)


# The patch


def _made(
    name: str, fixes: Sequence[Fix], files: dict[str, _File], hide: Hider
) -> tuple[Patch | None, tuple[str, ...]]:
    """Take each fix, the first to be done first, that goes whole and beside those taken before it."""
    numbers, notes = _taken(fixes, files, hide, singly=False)
    if any(len(file.by) > 1 and _breaks(path, file, []) for path, file in files.items()):
        numbers, notes = _taken(fixes, files, hide, singly=True)  # which of them it is shows only one by one
    if not numbers:
        return None, tuple(notes) or ("no fix has an edit",)
    parts = {path: file_patch(path, hunks(file.text or "", file.taken)) for path, file in files.items() if file.taken}
    text = "".join(parts.values())
    if len(text) > _MOST:
        return None, (*notes, f"with the lines around the edits it would be larger than {_MOST:,} characters")
    if list(hide([(name, text)])) != [text]:
        return None, (*notes, "the lines around the edits hold a secret, which no patch may")
    return Patch(name, tuple(numbers), tuple(parts), text), tuple(notes)


def _taken(fixes: Sequence[Fix], files: dict[str, _File], hide: Hider, *, singly: bool) -> tuple[list[int], list[str]]:
    """Take the fixes that go together, each parsed beside those before it when `singly`; say why others do not."""
    numbers, notes = [], []
    for file in files.values():
        file.taken, file.by = [], []
    for number, fix in enumerate(fixes, 1):
        if not fix.edits:
            continue
        changes = _changes(fix.edits, files)
        if isinstance(changes, str):
            notes.append(f"fix {number} is left out: {changes}")
            continue
        why = next(
            filter(None, (_hindrance(path, mine, files[path], hide, singly) for path, mine in changes.items())), ""
        )
        if why:
            notes.append(f"fix {number} is left out: {why}")
            continue
        numbers.append(number)
        for path, mine in changes.items():
            files[path].taken += mine
            files[path].by.append(number)
    return numbers, notes


def _changes(edits: Sequence[Edit], files: dict[str, _File]) -> dict[str, Changes] | str:
    """Return what one fix changes in each file, or why it cannot be in a patch. A fix goes whole or not at all."""
    for edit in edits:
        reason = _left_out(edit, files)
        if reason:
            return f"{edit.path}: {reason}" if edit.path else reason
    changes: dict[str, Changes] = {}
    for path in dict.fromkeys(edit.path for edit in edits):
        there = spans(files[path].text or "", [(edit.before, edit.after) for edit in edits if edit.path == path])
        if isinstance(there, str):
            return f"{path}: {there}"
        for start, end, _ in there:
            for first, last, _ in files[path].taken:
                if start < last and first < end:
                    return f"{path}: it changes the same text as a fix before it"
        changes[path] = there
    return changes


def _left_out(edit: Edit, files: dict[str, _File]) -> str:
    """Say why one edit cannot be in a patch, "" when nothing speaks against it."""
    file = files.get(edit.path)
    if not edit.applies:
        return f"an edit does not apply ({edit.note})" if edit.note else "an edit does not apply"
    if sendable(edit.after) != edit.after:
        return "an edit holds half a character, which no file can"
    if edit.parses is False:
        return "the file would not parse any more"
    reason = never(edit.path)
    if reason:
        return reason
    if file is None:
        return "it is not known which file was sent"
    if isinstance(file.data, str):
        return f"it cannot be read now ({file.data})"
    if edit.changed:
        return "it changed since it was sent"
    return "it is not UTF-8" if file.text is None else ""


def _hindrance(path: str, mine: Changes, file: _File, hide: Hider, singly: bool) -> str:
    """Say what keeps the changes of one file out of the patch: a secret in their lines, the fixes before."""
    old = file.text or ""
    new, found = spliced(old, mine), hunks(old, mine)
    clean_old, clean_new = hide([(path, old), (path, new)])
    before = ((hunk.old, hunk.old + hunk.removed) for hunk in found)
    after = ((hunk.new, hunk.new + hunk.added) for hunk in found)
    if _hides(old, clean_old, before) or _hides(new, clean_new, after):
        return f"{path}: the lines around the edit hold a secret, which no patch may"
    if singly and file.taken and _breaks(path, file, mine):
        return f"{path}: it would not parse any more together with fix {', '.join(map(str, file.by))}"
    return ""


def _breaks(path: str, file: _File, mine: Changes) -> bool:
    """Say whether all that was taken and these changes together break a file."""
    return judge(path, file.text or "", spliced(file.text or "", [*file.taken, *mine]))[0] is False


def _hides(text: str, clean: str, ranges: Iterable[tuple[int, int]]) -> bool:
    """Say whether something was taken out of some lines of a text (first, end); line ends are kept when it is."""
    if text == clean:
        return False
    rows, cleaned = text.split("\n"), clean.split("\n")
    if len(rows) != len(cleaned):
        return True
    return any(rows[first:end] != cleaned[first:end] for first, end in ranges)
