"""How RESULTs turned out, as people say it in OUTCOME files: read, and held against the RESULT that each is about.

An OUTCOME is about the RESULT beside it. While the request is asked again there is none, and it is about the former
one; it goes to the history before the next one comes. The client commands use this room too, so it imports nothing
heavy: YAML only where there is a file to read.
"""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, get_args

from delegated import folder as names
from delegated.calibration import LEVELS, WORDS, Judged, Word
from delegated.errors import Problem, RequestError
from delegated.folder import Folder, Held
from delegated.markdown import line
from delegated.record import place_of

LIMIT: Final = 64 << 10
_RESULT_LIMIT: Final = 64 << 20
_JOURNAL: Final = ".delegated"
_KEYS: Final = ("outcome", "note", "revision")
_EXPECTED: Final = f"write `outcome: ` and {', '.join(WORDS[:-1])} or {WORDS[-1]}"
_ITS_OWN: Final = (errno.EFBIG, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR, errno.EACCES)  # a file's faults
assert get_args(Word) == WORDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an OUTCOME file says. `revision` is the one that it is about, 0 for that of the RESULT beside it."""

    word: Word
    note: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """One OUTCOME file, as long as it and its RESULT are in this `state`: `judged`, or `why` it does not count."""

    key: str
    state: str
    judged: Judged | None = None
    revision: int = 0
    why: str = ""


def read(data: bytes) -> Outcome | None:
    """Read an OUTCOME file; None for an empty one. Raises `RequestError` with every problem."""
    from delegated.request import decode
    from delegated.request.tree import read_yaml

    text = decode(data)
    if not text.strip():
        return None
    root = read_yaml(text)
    if root.kind != "map":
        raise RequestError((Problem(root.line, f"a {root.kind} and no keys", _EXPECTED),))
    found = {key.text: value for key, value in root.entries if key.text in _KEYS}
    nested = [key for key, value in found.items() if value.kind in ("list", "map")]
    problems = [
        Problem(found[key].line, f"a {found[key].kind} under `{key}`", "write a single value") for key in nested
    ]
    said = {key: value.text.strip() for key, value in found.items() if key not in nested}
    word = next((word for word in WORDS if word == said.get("outcome", "").lower()), None)
    if word is None and "outcome" not in nested:
        given = f"`outcome: {line(said['outcome'], 40)}`" if "outcome" in said else "no outcome"
        problems.append(Problem(found["outcome"].line if "outcome" in said else 1, given, _EXPECTED))
    number = said.get("revision", "") or "0"
    if not (number.isascii() and number.isdecimal() and len(number) <= 6):
        wrong = f"`revision: {line(number, 40)}`"
        problems.append(Problem(found["revision"].line, wrong, "write the number of a revision, or leave it out"))
    if problems or word is None:
        raise RequestError(tuple(problems))
    return Outcome(word, said.get("note", ""), int(number))


def write(outcome: Outcome) -> bytes:
    """Write an OUTCOME file; its note is one line of YAML that nothing in it can end."""
    rows = [f"outcome: {outcome.word}"]
    if outcome.revision:
        rows.append(f"revision: {outcome.revision}")
    if outcome.note:
        rows.append(f"note: {json.dumps(outcome.note, ensure_ascii=False)}")
    return "".join(f"{row}\n" for row in rows).encode("utf-8", "replace")


def load(folder: Folder, key: str) -> Outcome | Held | None:
    """Read the OUTCOME file of an id; None when there is none, or it is empty: somebody is about to write it.

    Raises `RequestError` when it cannot be used: no regular file, too large, not what it should be; `OSError` when the
    disk is to blame.
    """
    name = names.outcome_name(key)
    try:
        kind = names.kind_of(folder.dir.stat(name))
        if kind != "file":
            raise RequestError((Problem(None, f"a {kind}, not a regular file", "it is not followed, and not read"),))
        got = folder.read(name, LIMIT)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in _ITS_OWN:
            raise
        why = error.strerror or str(error)
        raise RequestError((Problem(None, f"it cannot be read ({why})", f"at most {LIMIT:,} bytes"),)) from error
    if isinstance(got, Held):
        return None if got is Held.GONE else got
    return read(got.data)


def misfit(outcome: Outcome, result: dict[str, Any]) -> str:
    """Say why an outcome is not about this RESULT, "" when it is."""
    about = result.get("request")
    revision = about.get("revision") if isinstance(about, dict) else None
    if outcome.revision and revision != outcome.revision:
        return f"it is about revision {outcome.revision}, and the RESULT is that of revision {line(str(revision), 20)}"
    status = result.get("status")
    return "" if status == "answered" else f"the RESULT has no answer to judge: {line(str(status), 20)}"


class Outcomes:
    """What is known of all OUTCOME files of one folder: read again when they or their RESULTs changed.

    `judged` are those that count, the former ones of the history among them. Any thread may call any method.
    """

    def __init__(self, folder: Folder, known: Iterable[Standing] = ()) -> None:
        """`known` is what was remembered of an earlier look; it costs nothing where it is wrong."""
        self._folder = folder
        self._standing = {each.key: each for each in known}
        self._former: dict[tuple[str, int], Judged] = {}
        self._recalled = False
        self._lock = threading.Lock()
        self._count()

    def recall(self) -> None:
        """Read the history, once: the larger it is, the longer that takes. Blocking; `see` does it where nobody did."""
        with self._lock:
            if not self._recalled:
                self._former = dict(_former(self._folder)) | self._former
                self._recalled = True
                self._count()

    def _count(self) -> None:
        counted = dict(self._former)  # a kill may leave an OUTCOME that is in the history already: it counts once
        for each in self._standing.values():
            if each.judged is not None:
                counted[each.key, each.revision] = each.judged
        self.judged: tuple[Judged, ...] = tuple(counted.values())

    def see(self, keys: Collection[str], *, full: bool) -> tuple[list[Standing], list[str]]:
        """Look at OUTCOME files, at all of them when `full`; return what is new of them, and the ids that are gone.

        Blocking. Raises nothing that one file is to blame for.
        """
        new: list[Standing] = []
        self.recall()
        with self._lock:
            gone = [key for key in self._standing if key not in keys] if full else []
            purged = self._forget_purged() if full else False
            for key in keys:
                state, known = self._state(key), self._standing.get(key)
                if known is not None and known.state == state:
                    continue
                try:
                    seen = self._judge(key, state) if state else None
                except OSError:  # the next look tries again
                    continue
                if isinstance(seen, Standing):
                    self._standing[key] = seen
                    new.append(seen)
                elif seen is None and known is not None:
                    gone.append(key)
            for key in gone:
                del self._standing[key]
            if new or gone or purged:
                self._count()
        return new, gone

    def _forget_purged(self) -> bool:
        """Forget what was said of former RESULTs whose history was purged; say whether there was any."""
        try:
            kept = set(self._folder.dir.names(f"{_JOURNAL}/history"))
        except OSError:  # it cannot be known now
            return False
        purged = [former for former in self._former if former[0] not in kept]
        for former in purged:
            del self._former[former]
        return bool(purged)

    def unusable(self) -> dict[str, str]:
        """Return why OUTCOME files do not count, by id."""
        return {each.key: each.why for each in self._standing.values() if each.why}

    def _judge(self, key: str, state: str = "") -> Standing | Held | None:
        """Read an OUTCOME file and the RESULT that it is about; None when it says nothing, or is not there."""
        try:
            outcome = load(self._folder, key)
        except RequestError as error:
            return Standing(key, state, why=str(error))
        if not isinstance(outcome, Outcome):
            return outcome
        result = self._about(key)
        if result is None:
            return Standing(key, state, why="there is no RESULT to be read that it could be about")
        why = misfit(outcome, result)
        if not why and not self._folder.dir.exists(f"{_JOURNAL}/{place_of(key)}"):
            # Whoever made the code could ship both files with it, and so a confidence that nobody earned.
            why = "the journal of this folder does not know the request"
        judged = _judged(outcome.word, result.get("confidence"), result.get("model"))
        if why or judged is None:
            return Standing(key, state, why=why or "the RESULT has no confidence to judge")
        about = result.get("request")
        revision = about.get("revision") if isinstance(about, dict) else 0
        return Standing(key, state, judged, revision if isinstance(revision, int) else 0)

    def put_away(self, key: str, write: Callable[[str, bytes], None]) -> int | None:
        """Keep in the history, by `write(name, bytes)`, how the former RESULT turned out; return its revision.

        None when the OUTCOME file does not count. The caller moves it away then. Blocking; raises `OSError`.
        """
        seen = self._judge(key)
        if not isinstance(seen, Standing) or seen.judged is None:
            return None
        one = seen.judged
        value = {"outcome": one.word, "level": one.level, "score": one.score, "model": one.model}
        write(f"{seen.revision}{names.FORMER}", json.dumps(value, indent=1).encode() + b"\n")
        with self._lock:
            self._former[key, seen.revision] = one
            self._standing.pop(key, None)
            self._count()
        return seen.revision

    def _state(self, key: str) -> str:
        """Tell one state of an OUTCOME file and its RESULT from another; "" when there is no such file."""
        try:
            file = names.sig_of(self._folder.dir.stat(names.outcome_name(key)))
        except OSError:
            return ""
        try:
            result = names.sig_of(self._folder.dir.stat(names.result_name(key, "json")))
        except OSError:
            result = None
        state = " ".join(f"{sig.ino}.{sig.size}.{sig.mtime_ns}.{sig.ctime_ns}" for sig in (file, result) if sig)
        with suppress(OSError):  # what cannot be looked at is not taken for purged
            if not self._folder.dir.exists(f"{_JOURNAL}/{place_of(key)}"):
                state += " unknown"
        return state

    def _about(self, key: str) -> dict[str, Any] | None:
        """Read the RESULT beside an OUTCOME file; while there is none, the newest former one."""
        result = self._folder.read_json(names.result_name(key, "json"), _RESULT_LIMIT)
        if result is not None or self._folder.dir.exists(names.result_name(key, "json")):
            return result
        at = f"{_JOURNAL}/history/{key}"
        numbers = [int(name[:-5]) for name in _listed(self._folder, at) if _numbered(name, ".json")]
        return self._folder.read_json(f"{at}/{max(numbers)}.json", _RESULT_LIMIT) if numbers else None


def _numbered(name: str, suffix: str) -> bool:
    """Say whether a name in the history is a revision's number and this suffix."""
    number = name.removesuffix(suffix)
    return number != name and number.isascii() and number.isdecimal() and len(number) <= 6


def _former(folder: Folder) -> Iterator[tuple[tuple[str, int], Judged]]:
    """Yield how former RESULTs turned out, by id and revision."""
    at = f"{_JOURNAL}/history"
    for key in _listed(folder, at):
        for name in (name for name in _listed(folder, f"{at}/{key}") if _numbered(name, names.FORMER)):
            value = folder.read_json(f"{at}/{key}/{name}", LIMIT) or {}
            judged = _judged(value.get("outcome"), value, value.get("model"))
            if judged is not None:
                yield (key, int(name.removesuffix(names.FORMER))), judged


def _listed(folder: Folder, path: str) -> list[str]:
    try:
        return folder.dir.names(path)
    except OSError:  # no directory, or none that can be read
        return []


def _judged(word: object, confidence: object, model: object) -> Judged | None:
    """Put together what counts, from files that anybody may have written; None when something is amiss."""
    known = next((each for each in WORDS if each == word), None)
    level, score = (confidence.get("level"), confidence.get("score")) if isinstance(confidence, dict) else ("", None)
    if known is None or level not in LEVELS or not isinstance(score, int | float) or not 0 <= score <= 1:
        return None
    return Judged(known, str(level), float(score), line(model, 100) if isinstance(model, str) else "")
