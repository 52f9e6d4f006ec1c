"""What becomes of a file when our part is merged into it, or taken out again. Pure: text in, text out."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from typing import Any, Final

from delegated.agents import jsonc, texts
from delegated.agents.texts import BEGIN, END, File

_MARKS: Final = re.compile(rf"{re.escape(BEGIN)}|{re.escape(END)}(?:\r?\n)?")


class Foreign(Exception):
    """A file that we may not touch as it stands; the words say why."""


class Linked(Foreign):
    """A file that is a symbolic link, as CLAUDE.md often is to AGENTS.md: what it leads to is not ours to guess."""


@dataclass(frozen=True, slots=True)
class Note:
    """What we remember of a file: for which agents, whether we made it, its hash as we left it, the pieces put in.

    `entries` are the elements of lists in a JSON file that we wrote: by them they are known after it was edited.
    """

    agents: tuple[str, ...]
    made: bool
    sha256: str
    inserts: tuple[tuple[int, str], ...] = ()
    entries: tuple[Any, ...] = ()


def merged(file: File, data: bytes | None, note: Note | None) -> tuple[bytes, Note | None]:
    """Return a file's bytes with our part in, and the note for it (without agents); no note where nothing changes.

    `data` is None where there is no file. An entry that stands for one of ours and is not as we wrote it is its
    owner's, and stays. Raises `Foreign`.
    """
    if file.kind == "whole":
        return _whole(file, data, note)
    before = None if data is None else _text(file, data)
    wrote = () if note is None else note.entries
    if before is not None and _holds(file, before, wrote):
        return data or b"", None
    base, made = before or "", data is None
    if data is not None and before is not None:
        restored = _restored(before, data, note)
        base = _taken_out(file, before, wrote) if restored is None else restored
        made = note is not None and note.made and restored is not None
    inserts = _inserts(file, base)
    new = _bytes(jsonc.insert(base, inserts))
    there = _entries(file, base)
    return new, Note((), made, _hash(new), tuple(inserts), tuple(each for each in _wanted(file) if each not in there))


def parted(file: File, data: bytes, note: Note | None) -> bytes | None:
    """Return a file's bytes without our part, None where the file is to go. Raises `Foreign`."""
    if file.kind == "whole":
        plain = _folded(data)
        if (note is not None and note.made and note.sha256 == _hash(plain)) or plain == file.wanted.encode():
            return None
        if "Written by `delegate init`." in data.decode("utf-8", "replace"):
            raise Foreign("it was changed since it was made: delete it by hand")
        return data
    text = _text(file, data)
    restored = _restored(text, data, note)
    rest = restored
    if rest is None:
        rest = _taken_out(file, text, _wanted(file) if note is None else note.entries)
    if note is not None and note.made and (restored is not None or _is_bare(file, rest)):
        return None
    return _bytes(rest)


def _whole(file: File, data: bytes | None, note: Note | None) -> tuple[bytes, Note | None]:
    new = file.wanted.encode()
    plain = None if data is None else _folded(data)
    if data is not None and plain == new:
        return data, None if note is not None else Note((), True, _hash(new))
    if plain is not None and (note is None or note.sha256 != _hash(plain)):
        known = "Written by `delegate init`." in plain.decode("utf-8", "replace")
        raise Foreign("it was changed since it was made" if known else "it is not ours")
    return new if data == plain else new.replace(b"\n", b"\r\n"), Note((), True, _hash(new))


def _folded(data: bytes) -> bytes:
    """Return a file of ours as we wrote it: git may have given its lines the ends of Windows (`core.autocrlf`)."""
    return data.replace(b"\r\n", b"\n")


def remains(file: File, data: bytes | None) -> bool:
    """Say whether a file still has an entry that does what one of ours does."""
    return data is not None and file.kind == "json" and bool(_entries(file, _text(file, data)))


def _holds(file: File, text: str, wrote: tuple[Any, ...]) -> bool:
    """Say whether our part, as it is today, is in and nothing of an older one beside it."""
    if file.kind == "block":
        return [text[start:end].replace("\r\n", "\n") for start, end in _blocks(text)] == [file.wanted]
    old = [each for each in wrote if each not in _wanted(file)]
    return bool(text.strip()) and not _additions(file, text) and not any(each in old for each in _entries(file, text))


def _wanted(file: File) -> tuple[Any, ...]:
    every = [*texts.entries(file.wanted)] if file.kind == "json" else []
    return tuple(each for number, each in enumerate(every) if each not in every[:number])


def _entries(file: File, text: str) -> tuple[Any, ...]:
    """List what stands in a text for entries of ours, whoever wrote it."""
    return tuple(texts.entries(_parsed(text).value)) if file.kind == "json" and text.strip() else ()


def _blocks(text: str) -> list[tuple[int, int]]:
    """Find where our blocks stand. Raises `Foreign` where a mark is lost: what stands there may be anybody's."""
    marks = [*_MARKS.finditer(text)]
    blocks = []
    for begin, end in itertools.zip_longest(marks[::2], marks[1::2]):
        if begin[0] != BEGIN or end is None or end[0] == BEGIN:
            line, other = text.count("\n", 0, begin.start()) + 1, END if begin[0] == BEGIN else BEGIN
            raise Foreign(f"line {line}: this mark lacks its `{other}`: put it in, or delete it")
        blocks.append((begin.start(), end.end()))
    return blocks


def _inserts(file: File, base: str) -> jsonc.Inserts:
    if file.kind == "json":
        # An empty file is an empty object to whoever reads it.
        return _additions(file, base) if base.strip() else [(len(base), _fresh(file))]
    end = "\r\n" if "\r\n" in base else "\n"
    gap = "" if not base else end if base.endswith("\n") else end * 2
    return [(len(base), gap + file.wanted.replace("\n", end))]


def _fresh(file: File) -> str:
    text = "{}\n"
    return jsonc.insert(text, jsonc.additions(text, file.wanted))


def _additions(file: File, text: str) -> jsonc.Inserts:
    try:
        return jsonc.additions(text, file.wanted, texts.stands_for)
    except jsonc.Malformed as error:
        raise Foreign(f"it cannot be read: {error}") from error


def _parsed(text: str) -> jsonc.Node:
    try:
        return jsonc.parse(text)
    except jsonc.Malformed as error:
        raise Foreign(f"it cannot be read: {error}") from error


def _restored(text: str, data: bytes, note: Note | None) -> str | None:
    """Return a text as it was before our part came in, if it is as we left it but for the ends of its lines."""
    if note is None:
        return None
    if note.sha256 == _hash(data):
        return jsonc.extract(text, [*note.inserts])
    for now, then in (("\r\n", "\n"), ("\n", "\r\n")):
        left = text.replace(now, then)
        if left.replace(then, now) == text and note.sha256 == _hash(_bytes(left)):
            before = jsonc.extract(left, [*note.inserts])
            return None if before is None else before.replace(then, now)
    return None


def _taken_out(file: File, text: str, wrote: tuple[Any, ...]) -> str:
    """Take our part out of a text that somebody has edited since: of its entries those that are as we `wrote` them."""
    if file.kind == "block":
        edges = [0, *itertools.chain(*_blocks(text)), len(text)]
        return "".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
    if not text.strip():
        return text
    _parsed(text)
    return jsonc.without(text, lambda value: bool(texts.names(value)) and value in wrote)


def _is_bare(file: File, text: str) -> bool:
    """Say whether nothing but what we would begin a file with is left."""
    if file.kind == "block" or not text.strip():
        return not text.strip()
    value = jsonc.parse(text).value
    plain = {key: value for key, value in file.wanted.items() if not isinstance(value, dict | list)}
    return isinstance(value, dict) and value.items() <= plain.items() and "//" not in text and "/*" not in text


def _text(file: File, data: bytes) -> str:
    try:
        return data.decode("utf-8", "strict" if file.kind == "json" else "surrogateescape")
    except UnicodeDecodeError as error:
        raise Foreign(f"it cannot be read: it is not UTF-8 at byte {error.start}") from error


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
