"""One attachment to one folder: what is there, what is dealt with, and what is put there. A job ends where it began."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from typing import Any

from delegated import folder as names
from delegated.errors import OperatorError
from delegated.folder import Folder, Look
from delegated.index import Index
from delegated.journal import NAME as JOURNAL
from delegated.journal import JobRecord, Journal
from delegated.plan import Entry, Sig, Waiting
from delegated.result import Result, from_json, to_json, to_markdown
from delegated.watch import Bell, Watch, open_watch

_RESULT_LIMIT = 64 << 20


class Session:
    """The folder, its journal, its index and the watch on it, opened together and closed together.

    `known` holds the state in which each request file was dealt with. Opening raises `OSError` when the folder is not
    there and `OperatorError` when it cannot be served.
    """

    def __init__(self, path: str, bell: Bell, *, watch: str, wall: Callable[[], float], pool: Executor) -> None:
        self.known: dict[str, Sig] = {}
        self._old_keys: frozenset[str] = frozenset()
        self.folder = Folder(path, create=False)  # whoever took it away brings it back, not we
        try:
            try:
                self.journal = Journal(self.folder.dir, now=wall, executor=pool)
            except OperatorError as error:
                if self.folder.still_there():
                    raise
                raise OSError(errno.ENOENT, "it is being taken away", path) from error
            try:
                self.index = Index(os.path.join(self.journal.dir.path, "index.sqlite"))
                try:
                    self.watch: Watch = open_watch(path, bell, mode=watch)
                except BaseException:
                    self.index.close()
                    raise
            except BaseException:
                self.journal.close()
                raise
        except BaseException:
            self.folder.close()
            raise

    def close(self) -> None:
        """Let go of everything."""
        self.watch.close()
        self.index.close()
        self.journal.close()
        self.folder.close()

    def journal_there(self) -> bool:
        """Say whether the folder's journal is still the one that is open."""
        try:
            info = self.folder.dir.stat(JOURNAL)
        except OSError:
            return False
        return (info.st_dev, info.st_ino) == self.journal.dir.identity

    def watch_again(self, bell: Bell, mode: str) -> None:
        """Attach a new watch in the place of one that died. Raises `OSError` when the folder is not there."""
        former, self.watch = self.watch, open_watch(self.folder.path, bell, mode=mode)
        former.close()

    def recall(self) -> list[str]:
        """Learn from index and journal what is dealt with; return the keys of unfinished jobs. Blocking."""
        settled: set[str] = set()
        for name, key, sig in self.index.settled():
            self.known[name] = sig
            settled.add(key)
        self._old_keys = frozenset(self.journal.keys())
        unfinished = []
        for key in sorted(self._old_keys - settled):
            try:
                job = self.journal.latest(key)
                done = job is None or job.done is not None
            except OSError:  # one record that cannot be read must not stop the others; its own job says what is wrong
                done = False
            if not done:
                unfinished.append(key)
        return unfinished

    def look(self, only: frozenset[str] | None, waiting: Mapping[str, Waiting]) -> Look:
        """Look at the folder (or only at some names), leaving out the requests that are dealt with. Blocking."""
        look = self.folder.look(only)
        if look.full:
            # A file that comes back is read again, which costs a hash; for ever to remember all costs more.
            for name in self.known.keys() - {entry.name for entry in look.entries}:
                self.known.pop(name, None)
        entries = []
        for entry in look.entries:
            if self.known.get(entry.name) == entry.sig or (look.full and self._protected(entry, look)):
                continue
            wait = waiting.get(entry.name)
            if wait is not None and wait.entry.sig == entry.sig:
                entry = replace(wait.entry, marked=entry.marked or wait.entry.marked)
            elif entry.kind == "file" and entry.sig.size:
                ended, priority = self.folder.peek(entry)
                entry = replace(entry, marked=entry.marked or ended, priority=priority)
            entries.append(entry)
        return replace(look, entries=tuple(entries))

    def _protected(self, entry: Entry, look: Look) -> bool:
        """Say whether a RESULT that no journal knows (an older tool's, or the journal is gone) answers this request.

        It does unless the request changed after it. Both times are the kernel's own.
        """
        if entry.name in self.known or entry.id not in look.results or entry.id in self._old_keys:
            return False
        try:
            answered = self.folder.dir.stat(names.result_name(entry.id, "json"))
        except OSError:
            return False
        if entry.sig.ctime_ns > answered.st_ctime_ns:
            return False
        self.known[entry.name] = entry.sig
        return True

    def settle(self, name: str, key: str, sig: Sig) -> None:
        """Note, for later starts too, that a file in this state is dealt with."""
        self.known[name] = sig
        with suppress(Exception):  # an index that cannot be written costs a hash at the next start
            self.index.settle(name, key, sig)

    # RESULT and STATUS

    def answered(self, key: str) -> dict[str, Any] | None:
        """Return what the RESULT that stands in the folder says of its request; None without such a RESULT."""
        value = self.folder.read_json(names.result_name(key, "json"))
        if value is None:
            return None
        about = value.get("request")
        return about if isinstance(about, dict) else {}

    def published(self, record: JobRecord) -> bool:
        """Finish a job whose RESULT stands already: a kill came between the RESULT and `done`. Blocking."""
        claim = record.claim
        about = self.answered(claim.id)
        if about is None or (about.get("revision"), about.get("sha256")) != (claim.revision, claim.sha256):
            return False
        try:
            text = self.folder.dir.read(names.result_name(claim.id, "json"), _RESULT_LIMIT).decode("utf-8")
            result = from_json(text)
        except (OSError, ValueError):
            return False
        page = names.result_name(claim.id, "md")
        if not self.folder.dir.exists(page):
            self.journal.publish(self.folder.dir, {page: _bytes(to_markdown(result))})
        record.finish(result.status, text)
        return True

    def archive(self, record: JobRecord) -> None:
        """Move the former revision's RESULT away: the appearance of a RESULT is this one's commit point. Blocking."""
        claim = record.claim
        about = self.answered(claim.id)
        former = about.get("revision") if about else None
        if former == claim.revision:
            return
        files = {suffix: names.result_name(claim.id, suffix) for suffix in ("json", "md")}
        number = former if isinstance(former, int) else claim.revision - 1
        if about is None and self.journal.dir.exists(f"history/{claim.id}/{number}.md"):
            return  # a page without its RESULT.json: ours, of a life that was killed between the two
        self.journal.archive(self.folder.dir, claim.id, number, files)

    def publish(self, record: JobRecord, result: Result) -> None:
        """Put the RESULT there, then record the end. Blocking; raises `OSError` when the disk does not take it."""
        text = to_json(result)
        self.put(record.claim.id, to_markdown(result), text)
        record.finish(result.status, text)

    def put(self, key: str, page: str, text: str) -> None:
        """Write RESULT.md, then RESULT.json, whose appearance is the commit point."""
        files = {names.result_name(key, "md"): _bytes(page), names.result_name(key, "json"): _bytes(text)}
        self.journal.publish(self.folder.dir, files)

    def note_kept(self, record: JobRecord) -> None:
        """Say in the RESULT that an edit was not asked about (`on_edit: keep`). Blocking."""
        done = record.done
        if done is None:
            return
        note = "the REQUEST was edited after it was answered; `on_edit: keep` is set, so it was not asked again"
        with suppress(ValueError):
            result = from_json(done.result)
            result = replace(result, warnings=(*result.warnings, note))
            self.put(record.claim.id, to_markdown(result), to_json(result))

    def siblings(self, record: JobRecord) -> tuple[str, ...]:
        """Return a warning for each other REQUEST file with the same id."""
        claim = record.claim
        found = (f"{names.PREFIX}REQUEST_{claim.id}{suffix}" for suffix in names.SUFFIXES)
        return tuple(
            f"{name} has the same id; {claim.name} was taken and the other is never asked"
            for name in found
            if name != claim.name and self.folder.dir.exists(name)
        )

    def post_status(self, key: str, status: Mapping[str, Any]) -> None:
        """Write the STATUS file; a disk that does not take it is not worth stopping for."""
        with suppress(OSError):
            data = (json.dumps(status, indent=1) + "\n").encode()
            self.journal.post_notice(self.folder.dir, names.status_name(key), data)

    def clear_stale(self, keys: Collection[str]) -> None:
        """Remove the STATUS files that a kill left of jobs which are done. Blocking."""
        for key in keys:
            with suppress(OSError):
                self.folder.dir.remove(names.status_name(key))

    def clear_notices(self, key: str) -> None:
        """Remove what a settled job leaves behind: its STATUS, and an order to cancel it."""
        for name in (names.status_name(key), f"{names.PREFIX}CANCEL_{key}"):
            with suppress(OSError):
                self.folder.dir.remove(name)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
