"""One attachment to one folder: what is there, what is dealt with, and what is put there. A job ends where it began."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from delegated import folder as names
from delegated.calibration import calibrate
from delegated.calls import JobRecord
from delegated.errors import OperatorError
from delegated.flood import HOUR_S, MINUTE_S, Asked, Prints
from delegated.folder import Folder, Look
from delegated.index import Index
from delegated.journal import Journal
from delegated.outcomes import Outcomes
from delegated.plan import Entry, Sig, Waiting
from delegated.record import Refusal
from delegated.registry import OLDER, Consent, Registration
from delegated.result import KEPT, Result, from_json, to_json, to_markdown
from delegated.store import NAME as JOURNAL
from delegated.watch import Bell, Watch, open_watch

_RESULT_LIMIT = 64 << 20
_TOLD = 20  # requests that are not run get a line in the log each, so many of one reason
NOTICE = "notice"


class Session:
    """The folder, its journal, its index and the watch on it, opened together and closed together.

    `known` holds the mark of the state in which each request file was dealt with. Opening raises `OSError` when the
    folder is not there and `OperatorError` when it cannot be served.
    """

    def __init__(
        self,
        path: str,
        bell: Bell,
        *,
        watch: str,
        wall: Callable[[], float],
        pool: Executor,
        until: str = "",
        consent: Callable[[], Consent] | None = None,
    ) -> None:
        self.known: dict[str, int] = {}
        self.not_run: dict[str, str] = {}  # by file name: why it waits until somebody asks for it by name
        self._noticed = b""
        self._old_keys: frozenset[str] = frozenset()
        self._wall = wall
        try:
            self.folder = Folder(path, create=False)  # whoever took it away brings it back, not we
        except OSError as error:
            if os.path.islink(path):
                why = "it is a symbolic link, which is not followed: name the folder that it leads to (`folder`)"
                raise OSError(errno.ELOOP, why, path) from error
            raise
        try:
            # Before the lock says who serves the folder: what is dropped on seeing that is no older request.
            self.consent = consent() if consent is not None else Consent(Registration(wall()), path)
            try:
                self.journal = Journal(self.folder.dir, now=wall, executor=pool, until=until)
            except OperatorError as error:
                if self.folder.still_there():
                    raise
                raise OSError(errno.ENOENT, "it is being taken away", path) from error
            try:
                self.index = Index(os.path.join(self.journal.dir.path, "index.sqlite"))
                try:
                    self.outcomes = Outcomes(self.folder, self.index.judged())
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

    def leave(self) -> None:
        """Let go of what goes by the folder's path, which leads elsewhere; the journal and its lock stay ours."""
        self.watch.close()
        self.index.close()

    def rejoin(self, bell: Bell, watch: str) -> None:
        """Take up a folder that was left and is back at its path. Raises `OSError` when it went away again."""
        fresh = open_watch(self.folder.path, bell, mode=watch)
        try:
            self.index = Index(os.path.join(self.journal.dir.path, "index.sqlite"))
        except BaseException:
            fresh.close()
            raise
        self.watch = fresh

    def journal_there(self) -> bool:
        """Say whether the folder's journal is still the one that is open; a folder that may not be read hides it."""
        try:
            info = self.folder.dir.stat(JOURNAL)
        except OSError as error:
            return error.errno == errno.EACCES
        return (info.st_dev, info.st_ino) == self.journal.dir.identity and self.journal.whole()

    def there(self, name: str) -> bool:
        """Say whether a file stands in the folder; what cannot be known is not taken for a deletion."""
        try:
            return self.folder.dir.exists(name)
        except OSError:
            return True

    def watch_again(self, bell: Bell, mode: str) -> None:
        """Attach a new watch in the place of one that died. Raises `OSError` when the folder is not there."""
        former, self.watch = self.watch, open_watch(self.folder.path, bell, mode=mode)
        former.close()

    def recall(self) -> list[str]:
        """Learn from index and journal what is dealt with, and from the history how former answers turned out.

        Returns the unfinished jobs' keys, oldest first. Blocking.
        """
        settled: set[str] = set()
        self.outcomes.recall()
        for name, key, sig in self.index.settled():
            self.known[name] = sig.mark
            settled.add(key)
        self._old_keys = frozenset(self.journal.keys())
        unfinished: list[tuple[float, str]] = []
        for key in sorted(self._old_keys - settled):
            began = 0.0
            try:
                job = self.journal.latest(key)
                done = job is None or job.done is not None
                damaged = self.journal.torn_above(key, job.claim.revision if job else 0) if done else 0
                if damaged:  # taken up again from its REQUEST, if that is still there
                    structlog.get_logger("delegated.session").error("claim.damaged", key=key, revision=damaged)
                began = job.claim.at if job is not None else began
                if job is not None:
                    self._remember(job)
            except OSError:  # one record that cannot be read must not stop the others; its own job says what is wrong
                done = False
            if not done and job is not None and self.consent.foreign(key, job.claim.revision):
                self.not_run[job.claim.name] = OLDER
            elif not done:
                unfinished.append((began, key))
        return [key for _, key in sorted(unfinished)]

    def refusals(self, keys: Collection[str]) -> list[Refusal]:
        """Return what providers told an earlier life about calls that it did not come to make. Blocking."""
        found = []
        for key in keys:
            with suppress(OSError):  # its own job says what is wrong
                job = self.journal.latest(key)
                for name in job.call_names() if job is not None else ():
                    refusal = job.call(int(name[:2]), name[3:]).refusal if job is not None else None
                    if refusal is not None:
                        found.append(refusal)
        return found

    def look(self, only: frozenset[str] | None, waiting: Mapping[str, Waiting]) -> Look:
        """Look at the folder (or only at some names), leaving out the requests that are dealt with. Blocking."""
        there: set[str] = set()

        def dealt_with(entry: Entry, results: Collection[str]) -> bool:
            there.add(entry.name)
            if self.known.get(entry.name) == entry.sig.mark:
                return True
            if self.consent.standing(entry.name, entry.id, entry.sig):
                self.known[entry.name] = entry.sig.mark
                if entry.id not in results:
                    self.leave_alone(entry.name, OLDER)
                return True
            return only is None and self._protected(entry, results)

        look = self.folder.look(only, dealt_with)
        if look.full:
            # A file that comes back is read again, which costs a hash; for ever to remember all costs more.
            for name in [name for name in self.known if name not in there]:
                self.known.pop(name, None)
            self._look_at_not_run(there)
        self._look_at_outcomes(look)
        entries = []
        for entry in look.entries:
            wait = waiting.get(entry.name)
            if wait is not None and wait.entry.sig == entry.sig:
                entry = replace(wait.entry, marked=entry.marked or wait.entry.marked)
            elif entry.kind == "file" and entry.sig.size:
                ended, priority = self.folder.peek(entry)
                entry = replace(entry, marked=entry.marked or ended, priority=priority)
            entries.append(entry)
        return replace(look, entries=tuple(entries))

    def _protected(self, entry: Entry, results: Collection[str]) -> bool:
        """Say whether a RESULT that no journal knows (an older tool's, or the journal is gone) answers this request.

        It does unless the request changed after it. Both times are the kernel's own.
        """
        if entry.name in self.known or entry.id not in results or entry.id in self._old_keys:
            return False
        try:
            answered = self.folder.dir.stat(names.result_name(entry.id, "json"))
        except OSError:
            return False
        if not stat.S_ISREG(answered.st_mode) or entry.sig.ctime_ns > answered.st_ctime_ns:
            return False  # a link that somebody planted is no answer
        self.known[entry.name] = entry.sig.mark
        return True

    # How RESULTs turned out

    def _look_at_outcomes(self, look: Look) -> None:
        """Read the OUTCOME files that are new or changed; the log says what each of them comes to."""
        new, gone = self.outcomes.see(look.outcomes, full=look.full)
        if new or gone:
            with suppress(OSError):
                self.index.judge(new, gone)
        log = structlog.get_logger("delegated.session")
        for each in new[:_TOLD]:
            if each.judged is not None:
                log.info("outcome.noted", request=each.key, outcome=each.judged.word, revision=each.revision)
            else:
                log.warning("outcome.not_counted", request=each.key, why=each.why)
        if len(new) > _TOLD:
            log.info("outcome.noted", further=len(new) - _TOLD, hint="delegate stats shows them")

    def calibrated(self, result: Result) -> Result:
        """Say in a RESULT how often its confidence was right here, as far as is known now: it is not said again."""
        if result.analysis is None:
            return result
        return replace(result, calibration=calibrate(result.analysis.confidence.level, self.outcomes.judged))

    def _put_outcome_away(self, key: str) -> None:
        """Move what was said of the former RESULT to the history: of the one that is about to come nothing is known.

        Where a RESULT stands it came already, and the OUTCOME beside it is about that one. Raises `OSError`.
        """
        name = names.outcome_name(key)
        if not self.there(name) or self.there(names.result_name(key, "json")):
            return
        former = self.outcomes.put_away(key, partial(self.journal.note_former, key))
        if former is not None:
            self.journal.archive(self.folder.dir, key, former, {"outcome.yaml": name})
        elif stat.S_ISREG(self.folder.dir.stat(name).st_mode):  # else it is never read
            kept = self.folder.dir.keep(name)
            self.folder.dir.remove(name)
            self.folder.dir.sync()
            structlog.get_logger("delegated.session").warning("outcome.set_aside", name=name, kept=kept)

    # What was asked before

    def asked_before(self, record: JobRecord, under_way: Collection[str], mine: Prints) -> list[Asked]:
        """Note that a job is about to ask, and return the askings of others that are like it. Blocking.

        `under_way`: the keys of the jobs that run. An index that cannot be written is no reason to ask nothing: it is a
        guard against haste, not a ledger.
        """
        claim = record.claim
        try:
            earlier = self.index.ask(
                claim.id, claim.revision, Asked(claim.id, self._wall(), mine.question, mine.code, mine.whole)
            )
        except OSError as error:
            structlog.get_logger("delegated.session").error("index.failed", reason=str(error))
            return []
        return [stands for asked in earlier if (stands := self._standing(asked, under_way)) is not None]

    def _standing(self, asked: Asked, under_way: Collection[str]) -> Asked | None:
        """Say how an asking stands by now; None when it was none, and is not about to be."""
        if asked.ended == "answered" and not self.there(names.result_name(asked.key, "json")):
            return replace(asked, ended="gone")  # whoever took the RESULT away may want another
        if asked.ended:
            return asked
        job = self.journal.latest(asked.key)
        done = job.done if job is not None else None
        if job is not None and job.may_be_billed():
            return replace(asked, ended=done.status if done is not None else "")
        if job is not None and done is None and asked.key in under_way:
            return replace(asked, ended="unsent")
        with suppress(OSError):  # it waits for its turn, perhaps behind this one: then it is the one that comes after
            self.index.forget(asked)
        return None

    def note_end(self, record: JobRecord, status: str) -> None:
        """Note how an asking ended: what was not asked, and cost nothing, does not count."""
        counts = status in ("answered", "uncertain") or (status != "duplicate" and record.may_be_billed())
        with suppress(OSError):
            self.index.ended(record.claim.id, record.claim.revision, status if counts else None)

    def begun(self) -> list[float]:
        """List how many seconds ago questions of the last minute were asked. Blocking."""
        now = self._wall()
        return [max(0.0, now - at) for at in self.index.begun(now - MINUTE_S)]

    def _remember(self, job: JobRecord) -> None:
        """Note again what a job asked, where the index was lost."""
        claim = job.claim
        if claim.at < self._wall() - HOUR_S or self.index.knows(claim.id, claim.revision) or not job.may_be_billed():
            return
        header = job.call(1, "first").prompt_header
        marks = [header.get(name) for name in ("question", "code", "whole")]
        if all(isinstance(mark, str) for mark in marks):
            done = job.done
            asked = Asked(claim.id, claim.at, *map(str, marks))
            self.index.ask(claim.id, claim.revision, asked, ended=done.status if done else "")

    # What is not run by itself

    def leave_alone(self, name: str, why: str) -> None:
        """Note that a request is not run before somebody asks for it by name; the log says it once."""
        if self.not_run.get(name) == why:
            return
        self.not_run[name] = why
        key = (names.request_id(name) or ("",))[0]
        told = sum(1 for each in self.not_run.values() if each == why)
        if told <= _TOLD:
            structlog.get_logger("delegated.session").warning(
                "request.not_run", request=key, why=why, hint=f"to run it all the same: delegate run {key}"
            )
        if told == _TOLD:
            structlog.get_logger("delegated.session").warning(
                "request.not_run", why=why, hint="further ones are not logged: delegate status shows them"
            )

    def _look_at_not_run(self, there: Collection[str]) -> None:
        """Forget what is gone; look anew at all that git was said to track when its index is another one."""
        for name in [name for name in self.not_run if name not in there]:
            del self.not_run[name]
        if any(why != OLDER for why in self.not_run.values()) and self.consent.repositories.changed():
            for name, why in tuple(self.not_run.items()):
                if why != OLDER:
                    self.known.pop(name, None)

    def post_notice(self, slow: str = "") -> None:
        """Write down, for `delegate status`, what is not run by itself and why others wait (`slow`). Blocking."""
        notice = {"not_run": self.not_run, "slow": slow}
        data = json.dumps(notice, indent=1).encode()
        if data != self._noticed:
            nothing = not self.not_run and not slow
            self._noticed = data
            with suppress(OSError):
                if nothing and not self.journal.dir.exists(NOTICE):
                    return
                self.journal.post_notice(self.journal.dir, NOTICE, data)

    def settle(self, name: str, key: str, sig: Sig) -> None:
        """Note, for later starts too, that a file in this state is dealt with."""
        self.known[name] = sig.mark
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
        files = {"patch": _bytes(result.patch.text) if result.patch else b"", "md": _bytes(to_markdown(result))}
        for suffix, data in files.items():
            name = names.result_name(claim.id, suffix)
            if data and not self.folder.dir.exists(name):
                self.journal.publish(self.folder.dir, {name: data})
        record.finish(result.status, text)
        return True

    def archive(self, record: JobRecord) -> None:
        """Move the former revision's RESULT away: the appearance of a RESULT is this one's commit point. Blocking."""
        claim = record.claim
        about = self.answered(claim.id)
        former = about.get("revision") if about else None
        if former == claim.revision:
            return
        files = {suffix: names.result_name(claim.id, suffix) for suffix in ("json", "md", "patch")}
        number = former if isinstance(former, int) else claim.revision - 1
        if about is None and self.journal.dir.exists(f"history/{claim.id}/{number}.md"):
            return  # a page without its RESULT.json: ours, of a life that was killed between the two
        self.journal.archive(self.folder.dir, claim.id, number, files)

    def publish(self, record: JobRecord, result: Result) -> None:
        """Put the RESULT there, then record the end. Blocking; raises `OSError` when the disk does not take it."""
        text = to_json(result)
        try:
            self._put_outcome_away(record.claim.id)
        except PermissionError as error:  # another user's, in a folder where each removes only his own
            structlog.get_logger("delegated.session").error("outcome.stays", key=record.claim.id, reason=str(error))
        self.put(record.claim.id, result, text)
        record.finish(result.status, text)

    def put(self, key: str, result: Result, text: str, *, former: Result | None = None) -> None:
        """Write the patch, if there is one, RESULT.md, then RESULT.json, whose appearance is the commit point.

        Where a whole RESULT stands already, what somebody changed in it is kept; `former` is how we left it.
        """
        patch = names.result_name(key, "patch")
        files = {patch: _bytes(result.patch.text)} if result.patch is not None else {}
        files |= {
            names.result_name(key, "md"): _bytes(to_markdown(result)),
            names.result_name(key, "json"): _bytes(text),
        }
        stands = self.folder.dir.exists(
            names.result_name(key, "json")
        )  # else the others are ours, of a life killed here
        if patch not in files and not stands and self.folder.dir.exists(patch):
            with suppress(IsADirectoryError, PermissionError):  # then it is none of ours
                self.folder.dir.remove(patch)  # it was made before the code changed
            self.folder.dir.sync()
        if stands:
            left = (_bytes(to_markdown(former)), _bytes(to_json(former))) if former is not None else ()
            for name, data in files.items():
                kept = names.keep_edited(self.folder.dir, name, (data, *left))
                if kept:
                    structlog.get_logger("delegated.session").warning("result.edited", name=name, kept=kept)
        try:
            self.journal.publish(self.folder.dir, files)
        except IsADirectoryError as error:  # it is somebody's, and may be full: no file takes its place by itself
            why = f"move the directory {error.filename2} away: the RESULT comes in its place"
            raise OSError(errno.EISDIR, why) from error

    def note_kept(self, record: JobRecord) -> None:
        """Say in the RESULT that an edit was not asked about (`on_edit: keep`). Blocking."""
        done = record.done
        if done is None:
            return
        with suppress(ValueError):
            former = from_json(done.result)
            result = replace(former, warnings=(*former.warnings, KEPT))
            self.put(record.claim.id, result, to_json(result), former=former)

    def siblings(self, record: JobRecord) -> tuple[str, ...]:
        """Return a warning for each other REQUEST file with the same id."""
        claim = record.claim
        found = names.request_names(claim.id)
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
        """Remove what a settled job leaves behind: its STATUS, and an order to cancel it or to run it."""
        for name in (names.status_name(key), f"{names.PREFIX}CANCEL_{key}", f"{names.PREFIX}RUN_{key}"):
            with suppress(OSError):
                self.folder.dir.remove(name)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
