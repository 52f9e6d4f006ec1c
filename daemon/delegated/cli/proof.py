"""Hold the receipt in a RESULT against the records that the journal holds of what was sent."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from delegated.disk import Directory
from delegated.prompt import Prompt, sendable
from delegated.prompt import from_json as read_prompt
from delegated.receipt import Egress, differences, sendings
from delegated.record import unpack
from delegated.result import KEPT, Result, from_json, to_json

from . import place as places
from .place import Place

_LIMIT: Final = 256 << 20
_CALL: Final = re.compile(r"[0-9]{2}-[a-z0-9-]{1,40}")
Header = dict[str, Any]


def read_result(text: str) -> Result | None:
    """Read a RESULT.json; None when it is none of ours."""
    try:
        return from_json(text)
    except (ValueError, RecursionError):
        return None


# What the journal holds. It is read without its lock: records of a settled revision only ever go.


class Records:
    """The records of the newest revision of a request that was settled, and of its calls."""

    def __init__(self, place: Place, key: str) -> None:
        self.revision = 0
        self.result = ""
        self.claim: tuple[Header, bytes] | None = None
        self.done: tuple[Header, bytes] | None = None
        self.running = False
        self.calls: dict[str, Call] = {}
        at = places.job_place(place, key)
        if at is None:
            return
        with Directory(at) as job:
            self._job = job
            numbers = [int(name[1:]) for name in job.names() if re.fullmatch(r"r[1-9][0-9]{0,5}", name)]
            for revision in sorted(numbers, reverse=True):
                done = self._read(f"r{revision}/done")
                if done is not None and done[0].get("status") != "superseded":
                    self.revision, self.done = revision, done
                    break
                self.running = self.running or done is None
            if self.done is None:
                return
            self.result = self.done[1].decode("utf-8", "surrogatepass")
            self.claim = self._read(f"r{self.revision}/claim")
            for name in sorted(job.names(f"r{self.revision}/calls")):
                if _CALL.fullmatch(name):
                    self.calls[name] = self._call(f"r{self.revision}/calls/{name}")

    def _read(self, path: str) -> tuple[Header, bytes] | None:
        try:
            return unpack(self._job.read(path, _LIMIT))
        except OSError:
            return None

    def _call(self, path: str) -> Call:
        names = self._job.names(path)
        found: dict[str, dict[int, Header | None]] = {"sent": {}, "unsent": {}, "accepted": {}}
        for name in names:
            kind, _, number = name.partition(".")
            if kind in found and number.isdecimal():
                record = self._read(f"{path}/{name}")
                found[kind][int(number)] = record[0] if record else None
        # A try that is known to have stayed here left nothing; one whose record is damaged may have.
        left = {n: sent for n, sent in found["sent"].items() if (found["unsent"].get(n) or {}).get("left", True)}
        damaged = [name for name in names if self._read(f"{path}/{name}") is None]
        return Call(left, found["accepted"], self._read(f"{path}/prompt"), self._read(f"{path}/reply"), damaged)


@dataclass(frozen=True, slots=True)
class Call:
    """One call's records: what may have left by attempt, what was accepted, the words, the reply, what is damaged."""

    sent: dict[int, Header | None]
    accepted: dict[int, Header | None]
    prompt: tuple[Header, bytes] | None
    reply: tuple[Header, bytes] | None
    damaged: list[str]

    @property
    def dropped(self) -> bool:
        """Say whether only the hash of the words is kept."""
        return self.prompt is not None and bool(self.prompt[0].get("dropped"))

    def read_prompt(self) -> Prompt | None:
        """Return the words on record; None when there are none, or none that this version can read."""
        if self.prompt is None or self.dropped:
            return None
        try:
            return read_prompt(self.prompt[1].decode())
        except ValueError:
            return None


Outcome = Literal["ok", "FAIL", "gone"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared: `gone` when what it would be compared with is not kept any more."""

    call: str
    what: str
    outcome: Outcome
    found: str


def _check(call: str, what: str, wrong: list[str], fine: str) -> Check:
    return Check(call, what, "FAIL", "; ".join(wrong)) if wrong else Check(call, what, "ok", fine)


def prove(records: Records, text: str | None) -> Iterator[Check]:
    """Compare a settled revision's records with RESULT.json, `text`; None: it is not in the folder, take the journal's.

    Each record is held against the others, and the receipt against the words: whoever changes one must change all.
    """
    done = records.done
    assert done is not None
    dropped = bool(done[0].get("dropped"))
    yield _result_check(records, text, dropped=dropped)
    result = read_result(text if text is not None else records.result)
    if result is None:
        if text is not None or not dropped:
            yield Check("", "receipt", "FAIL", "there is no receipt that can be read")
        return
    yield _request_check(records, result)
    receipts: dict[str, list[Egress]] = {}
    for each in result.egress:
        receipts.setdefault(each.call, []).append(each)
    if records.calls or not dropped:
        yield _calls_check(records, receipts)
    else:
        yield Check("", "calls", "gone", "the records of the calls were purged")
    for name in sorted({*receipts} & {*records.calls}):
        yield from _call_checks(name, records.calls[name], receipts[name])
    yield from _answer_check(records, result)


def _result_check(records: Records, text: str | None, *, dropped: bool) -> Check:
    if text is None:
        return Check("", "result", "gone", "RESULT.json is not in the folder; the journal's is looked at")
    assert records.done is not None
    if dropped:
        known = records.done[0].get("body_sha256")
        same = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() == known
    else:
        same = text == records.result
    if same:
        return Check("", "result", "ok", "RESULT.json is the one that was published")
    return _check(
        "",
        "result",
        [] if _only_noted(records.result, text) else ["RESULT.json in the folder is not the one that was published"],
        "RESULT.json is the one that was published, with the note that an edit was not asked about",
    )


def _only_noted(published: str, text: str) -> bool:
    result = read_result(published)
    return result is not None and to_json(replace(result, warnings=(*result.warnings, KEPT))) == text


def _request_check(records: Records, result: Result) -> Check:
    about, wrong = result.request, []
    assert records.done is not None
    if about.revision != records.revision:
        wrong.append(f"the RESULT is of revision {about.revision}, the records of revision {records.revision}")
    elif records.claim is None:
        wrong.append("the record of the claim is missing or damaged")
    else:
        header, body = records.claim
        if not header.get("dropped") and hashlib.sha256(body).hexdigest() != header.get("sha256"):
            wrong.append("the request on record has not the SHA-256 that stands beside it")
        if {header.get("sha256"), records.done[0].get("request")} != {about.sha256}:
            wrong.append(f"the RESULT is about a request with the SHA-256 {about.sha256}, the records are not")
    return _check("", "request", wrong, f"revision {about.revision}, SHA-256 {about.sha256[:16]}...")


def _calls_check(records: Records, receipts: dict[str, list[Egress]]) -> Check:
    wrong = []
    for name, call in records.calls.items():
        if call.sent and name not in receipts:
            wrong.append(f"{name} was sent and is not on the receipt")
        if call.damaged:
            wrong.append(f"{name}: damaged records: {', '.join(sorted(call.damaged))}")
    wrong += [f"{name} is on the receipt, and there is no record of it" for name in receipts.keys() - records.calls]
    left = sum(bool(call.sent) for call in records.calls.values())
    fine = f"{left} left and {'is' if left == 1 else 'are'} on the receipt" if left else "none left"
    return _check("", "calls", wrong, f"{fine}, and no other is")


def _call_checks(name: str, call: Call, receipts: list[Egress]) -> Iterator[Check]:
    # Whereto, how often, and which words: by the records before each send
    places_of = {(r.model, r.endpoint, r.wire, r.prompt_sha256): (r.sends, r.price_bound_usd) for r in receipts}
    sent = sendings({number: header or {} for number, header in call.sent.items()})
    known = {(s.model, s.endpoint, s.wire, s.prompt_sha256): (s.times, s.price_bound_usd) for s in sent}
    if not sent:
        wrong = [f"the receipt says that it went to {r.endpoint}" for r in receipts if r.endpoint or r.sends]
        yield _check(name, "sent", wrong, "nothing left for this call")
    elif any(header and "prompt_sha256" not in header for header in call.sent.values()):
        yield Check(name, "sent", "gone", "an older version wrote the records before the send: they name no words")
    else:
        wrong = [f"the records say {_said(k, v)}" for k, v in known.items() if places_of.get(k) != v]
        wrong += [f"the receipt says {_said(k, v)}" for k, v in places_of.items() if known.get(k) != v]
        last = receipts[-1]
        yield _check(name, "sent", wrong, f"{last.sends} time{'' if last.sends == 1 else 's'} to {last.endpoint}")
    # The words themselves
    prompt = call.read_prompt()
    hashes = {r.prompt_sha256 for r in receipts if not r.note}
    if prompt is None:
        header = call.prompt[0] if call.prompt else {}
        if not call.dropped:
            if hashes:
                yield Check(name, "words", "FAIL", "the record of the words is missing or damaged")
            return
        wrong = [f"the words had the SHA-256 {header.get('sha256')}"] if hashes - {header.get("sha256")} else []
        yield _check(name, "words", wrong, "their SHA-256 is the receipt's")
        yield Check(name, "files", "gone", "the words are not kept any more")
        return
    assert call.prompt is not None
    whole = next((r for r in receipts if not r.note), None)
    if whole is None:
        return
    found = differences(whole, prompt)
    if call.prompt[0].get("sha256") != whole.prompt_sha256:
        found["words"].append("the record of the words was made of words with another SHA-256")
    fine = {
        "words": f"{whole.bytes:,} bytes, SHA-256 {whole.prompt_sha256[:16]}...",
        "files": f"{len(whole.files)} range{'' if len(whole.files) == 1 else 's'} of lines, and no other",
        "changes": ", ".join(f"{each.kind} of {each.bytes:,} bytes" for each in whole.extras) or "none",
        "secrets": f"{len(whole.redactions)} replaced",
        "left out": f"{len(whole.omitted)} named",
    }
    for what, wrong in found.items():
        yield _check(name, what, wrong, fine[what])


def _said(place: tuple[str, str, str, str], rest: tuple[int, float | None]) -> str:
    model, endpoint, wire, words = place
    times, bound = rest
    return f"{times} x {model} at {endpoint or 'nowhere'} ({wire}), bound {bound}, words {words[:16] or 'unknown'}..."


def _answer_check(records: Records, result: Result) -> Iterator[Check]:
    """Hold the answer in the RESULT against the reply on record: it is an answer to what is on this receipt."""
    replies = [(name, call) for name, call in records.calls.items() if call.reply is not None]
    # Of several models' replies, or several rounds', the RESULT is made of one.
    fitting = [name for name, call in replies if call.reply and _same_words(call.reply[0], result.raw_response)]
    used = (fitting or [name for name, _ in replies] or [""])[-1]
    for name, call in replies:
        header, _ = call.reply or ({}, b"")
        ids = {str(each.get("response_id", "")) for each in call.accepted.values() if each}
        said = str(header.get("response_id", ""))
        wrong = []
        if ids and said not in {*ids, ""}:
            wrong.append(f"the reply on record is that to {said}, accepted was {', '.join(sorted(ids))}")
        # A job that was stopped, or broke, while its last reply was on record has a RESULT without it.
        last = name == used and bool(result.raw_response or result.status == "answered")
        if last and header.get("dropped") and _PLACEHOLDER.search(result.raw_response):
            yield Check(name, "reply", "gone", "the RESULT's has secrets taken out, and what they were is not kept")
            continue
        if last and not _same_words(header, result.raw_response):
            wrong.append("the RESULT's `raw_response` is not the reply on record")
        yield _check(name, "reply", wrong, "the RESULT was made of it" if last else "it is on record")


def _same_words(header: Header, text: str) -> bool:
    if header.get("dropped"):
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() == header.get("text_sha256")
    said = sendable(str(header.get("text", "")))
    return said == text or _fits(said, _PLACEHOLDER.split(text))


# What was found in the answer itself was taken out of the RESULT, and not of the record.
_PLACEHOLDER: Final = re.compile(r"\[REDACTED:[a-z0-9_.-]{1,80}:[0-9a-f]{6}-[0-9]{1,9}\]\n*")


def _fits(text: str, pieces: list[str]) -> bool:
    """Say whether the pieces stand in `text` in their order, the first at its start and the last at its end."""
    if len(pieces) < 2 or not text.startswith(pieces[0]):
        return False
    at = len(pieces[0])
    for piece in pieces[1:-1]:
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return text.endswith(pieces[-1]) and len(text) - len(pieces[-1]) >= at
