"""What left the machine in one call: made of exactly what was sent, shown to people, held against the words later."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from delegated.context import Excerpt, Omitted, lines_of
from delegated.markdown import cell, inline, span
from delegated.prompt import ANSWER, PROBLEM, Prompt, excerpts_sent, extras_sent, sendable, sha256
from delegated.secrets import Redaction

_MOST_ROWS: Final = 20
_NAME: Final = "a name"  # where a redaction stands in a path, a pattern or a label
_ANSWERS: Final = (ANSWER, PROBLEM)
_PARTS: Final = (
    *("issue", "context", "logs", "attempted fixes", "questions", "repro", "test", "earlier answers"),
    *("uncommitted changes", "last commits"),
    *_ANSWERS,
)
_TITLES: Final = {"changes": "Uncommitted changes", "commits": "Last commits"}


@dataclass(frozen=True, slots=True)
class SentFile:
    """One range of a file that left the machine: 1-based inclusive lines, hash of the original file, bytes as sent."""

    path: str
    start_line: int
    end_line: int
    total_lines: int
    sha256: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class SentExtra:
    """What left beside files: its kind, lines and bytes of its text as sent, the SHA-256 of that, and what it is."""

    kind: str
    lines: int
    bytes: int
    sha256: str
    why: str


@dataclass(frozen=True, slots=True)
class Egress:
    """The receipt of one call: what left the machine, whereto, and its price bound in USD (None: unknown).

    `bytes` and `tokens` count the words that were sent, once; `sends` is how often they were sent, those tries
    included that the provider turned away; 0 when nothing left. `cost_usd` is the price by the usage that the
    provider counted, None where it is not known. `note` says what is not known of it any more.
    """

    call: str
    model: str
    endpoint: str
    wire: str
    files: tuple[SentFile, ...]
    omitted: tuple[Omitted, ...]
    redactions: tuple[Redaction, ...]
    bytes: int
    tokens: int
    prompt_sha256: str
    price_bound_usd: float | None
    cost_usd: float | None = None
    sends: int = 1
    note: str = ""
    extras: tuple[SentExtra, ...] = ()


@dataclass(frozen=True, slots=True)
class Sending:
    """One text that went to one place, `times` times: what the records before those sends say of it."""

    model: str
    endpoint: str
    wire: str
    prompt_sha256: str
    price_bound_usd: float | None
    times: int


# Made


def sendings(records: Mapping[int, Mapping[str, Any]]) -> tuple[Sending, ...]:
    """Sum up the records before a call's sends, by attempt; the last place comes last. A damaged record is empty."""
    found: dict[tuple[str, str, str, str], Sending] = {}
    for number in sorted(records):
        record = records[number]
        model, endpoint, wire, words = (str(record.get(n, "")) for n in ("model", "endpoint", "wire", "prompt_sha256"))
        bound = record.get("price_bound_usd")
        former = found.pop((model, endpoint, wire, words), None)
        bounds = [one for one in (bound, former and former.price_bound_usd) if isinstance(one, int | float)]
        times = former.times + 1 if former else 1
        found[model, endpoint, wire, words] = Sending(
            model, endpoint, wire, words, max(bounds, default=None), times
        )  # fmt: skip
    return tuple(found.values())


def of_local(call: str, prompt: Prompt, *, model: str) -> Egress:
    """Make the receipt of a call that was answered on this machine."""
    contents, extras = _contents(prompt), _extras(prompt)
    return Egress(call, model, "", "local", *contents, 0, 0, sha256(prompt), 0.0, sends=0, extras=extras)


def of_sends(call: str, prompt: Prompt | None, sent: Sequence[Sending], *, tokens: int) -> tuple[Egress, ...]:
    """Make the receipts of a call that left, one for each place that something was sent to; `prompt` None: lost."""
    return tuple(_of_send(call, prompt, each, tokens) for each in sent)


def _of_send(call: str, prompt: Prompt | None, sent: Sending, tokens: int) -> Egress:
    place = (call, sent.model, sent.endpoint, sent.wire)
    words = "" if prompt is None else sha256(prompt)
    if prompt is None or sent.prompt_sha256 not in ("", words):
        note = "the record of the words is damaged: what was sent is known by its hash alone"
        return Egress(*place, (), (), (), 0, 0, sent.prompt_sha256, sent.price_bound_usd, None, sent.times, note)
    note = "" if sent.prompt_sha256 else "the record of this send is damaged: this is what was about to be sent"
    size = size_of(prompt)
    price = sent.price_bound_usd
    extras = _extras(prompt)
    return Egress(*place, *_contents(prompt), size, tokens, words, price, None, sent.times, note, extras)


def size_of(prompt: Prompt) -> int:
    """Count the bytes of the words that are sent."""
    return len((prompt.system + prompt.user).encode("utf-8", "replace"))


def _contents(prompt: Prompt) -> tuple[tuple[SentFile, ...], tuple[Omitted, ...], tuple[Redaction, ...]]:
    files = tuple(
        SentFile(e.path, e.start_line, e.end_line, e.total_lines, e.sha256, _bytes(e.text), e.why)
        for e in prompt.context.excerpts
    )
    return files, prompt.context.omitted, tuple(_replaced(prompt))


def _extras(prompt: Prompt) -> tuple[SentExtra, ...]:
    return tuple(_extra(each.kind, sendable(each.text), each.why) for each in prompt.context.extras)


def _extra(kind: str, text: str, why: str) -> SentExtra:
    data = text.encode()
    return SentExtra(kind, text.count("\n") + 1, len(data), hashlib.sha256(data).hexdigest(), why)


def _bytes(text: str) -> int:
    return len(sendable(text).encode())


def _replaced(prompt: Prompt) -> Iterator[Redaction]:
    """Yield the redactions whose placeholder was sent: what was replaced in lines that stayed here left in no form."""
    lines = {
        (excerpt.path, number): line
        for excerpt in (prompt.context.excerpts if prompt.redactions else ())
        for number, line in enumerate(lines_of(excerpt.text), excerpt.start_line)
    }
    told: set[str] = set()
    for each in prompt.redactions:
        if each.placeholder in (prompt.user if each.where in _PARTS else lines.get((each.where, each.line), "")):
            told.add(each.placeholder)
            yield each
    for each in prompt.redactions:  # one that stands in names of files alone is told once
        if each.where == _NAME and each.placeholder not in told and each.placeholder in prompt.user:
            told.add(each.placeholder)
            yield each


# Held against what was sent


def differences(receipt: Egress, prompt: Prompt) -> dict[str, list[str]]:
    """Compare a receipt with the prompt on record: by what was compared, the sentences that say what differs.

    The words decide, not what stands in the record beside them: files and placeholders are looked up in the words.
    """
    found: dict[str, list[str]] = {"words": [], "files": [], "changes": [], "secrets": [], "left out": []}
    if receipt.prompt_sha256 != sha256(prompt):
        found["words"].append(f"the words on record have the SHA-256 {sha256(prompt)}, not {receipt.prompt_sha256}")
    if receipt.endpoint and receipt.bytes != size_of(prompt):
        found["words"].append(f"the words on record are {size_of(prompt):,} bytes, not {receipt.bytes:,}")
    found["files"] += _files_differ(receipt, prompt)
    found["changes"] += _extras_differ(receipt, prompt)
    found["secrets"] += _secrets_differ(receipt, prompt)
    if receipt.omitted != prompt.context.omitted:
        found["left out"].append("the list of what was left out is another one on record")
    return found


def _files_differ(receipt: Egress, prompt: Prompt) -> Iterator[str]:
    shown = list(excerpts_sent(prompt.user))
    recorded = {_place(e): e for e in prompt.context.excerpts}
    # A path is written with escapes in the words: a file is told by the head that it would have.
    wanted = {_head(file): file for file in receipt.files}
    for head, text in shown:
        file = wanted.pop(head, None)
        if file is None:
            yield f"{head} was sent and is not on the receipt"
            continue
        text = text if _bytes(text) == file.bytes else text.removesuffix("\n")  # a last line may have no end
        if _bytes(text) != file.bytes:
            yield f"{head} was sent with {_bytes(text):,} bytes, not {file.bytes:,}"
        excerpt = recorded.get(_place(file))
        if excerpt is None or sendable(excerpt.text) != text:
            yield f"{head} was sent with other lines than are on record"
        elif excerpt.sha256 != file.sha256:
            yield f"{head} is of a file with the SHA-256 {excerpt.sha256}, not {file.sha256}"
    for head in wanted:
        yield f"{head} is on the receipt and was not sent"


def _extras_differ(receipt: Egress, prompt: Prompt) -> Iterator[str]:
    shown = Counter(_extra(kind, text, "") for kind, text in extras_sent(prompt.user))
    told = Counter(replace(each, why="") for each in receipt.extras)
    for each in shown - told:
        yield f"a block <{each.kind}> of {each.bytes:,} bytes was sent and is not on the receipt"
    for each in told - shown:
        yield f"{each.kind} of {each.bytes:,} bytes are on the receipt and were not sent"


def _place(part: SentFile | Excerpt) -> tuple[str, int, int, int]:
    return part.path, part.start_line, part.end_line, part.total_lines


def _head(file: SentFile) -> str:
    return Excerpt(file.path, "", file.start_line, file.end_line, file.total_lines, "", file.why).head


def _secrets_differ(receipt: Egress, prompt: Prompt) -> Iterator[str]:
    expected, told = Counter(_replaced(prompt)), Counter(receipt.redactions)
    for each in told - expected:
        yield f"{each.placeholder} in {each.where} line {each.line} is on the receipt and was not sent"
    for each in expected - told:
        yield f"{each.placeholder} in {each.where} line {each.line} was sent and is not on the receipt"
    # A placeholder's nonce stands in nothing that was read: whatever bears it in a file was put there by us.
    known = {each.placeholder for each in receipt.redactions}
    # That of an answer stands in nothing of that answer; in a file it may stand.
    ours = [each.placeholder for each in receipt.redactions if each.where not in _ANSWERS]
    for nonce in {each.rpartition(":")[2].partition("-")[0] for each in ours}:
        for head, text in (*excerpts_sent(prompt.user), *extras_sent(prompt.user)):
            for word in re.findall(rf"\[REDACTED:[^\]\n]*:{re.escape(nonce)}-[0-9]+\]", text):
                if word not in known:
                    yield f"{word} was sent in {head} and is not on the receipt"


# Shown


def to_markdown(receipts: Sequence[Egress], *, key: str = "", in_doubt: bool = False) -> list[str]:
    """Write the section for people, as blocks. `in_doubt`: without a receipt something may have left all the same."""
    if not receipts:
        return ["## What Was Sent", "There is no receipt." if in_doubt else "Nothing left this machine."]
    blocks = ["## What Was Sent"]
    calls = len(receipts)
    if calls > 1:
        size = sum(each.bytes * each.sends for each in receipts)
        blocks.append(f"**{calls} calls, {size:,} bytes in all.**")
    before: Egress | None = None
    for number, each in enumerate(receipts, 1):
        blocks.append((f"Call {number}, {span(each.call)}. " if calls > 1 else "") + _in_short(each))
        if each.note:
            blocks.append(f"**Not all is known:** {inline(each.note)}.")
        if before is not None and _contents_of(each) == _contents_of(before):
            blocks.append("The same files as in the call above." if each.files else "")
        elif each.files or not each.note:
            blocks += [_table(each.files), _beside(each), _secrets(each), _left_out(each)]
        before = each
    if key:
        blocks.append(f"The exact words: {span(f'delegate receipt {key} --prompt')}.")
    return [block for block in blocks if block]


def _contents_of(each: Egress) -> tuple[Any, ...]:
    return each.files, each.omitted, each.redactions, each.extras


def _in_short(each: Egress) -> str:
    files = len({file.path for file in each.files})
    lines = sum(file.end_line - file.start_line + 1 for file in each.files)
    what = f"{files} file{'' if files == 1 else 's'}"
    if not each.endpoint and not each.sends:
        return f"**Nothing left this machine.** {span(each.model)} read {what} here."
    code = f" and {lines:,} line{'' if lines == 1 else 's'} of {what}" if files else " and no file"
    text = f"**To {span(each.model)} at {span(each.endpoint)}**: the request's words{code}" + (
        f" ({each.bytes:,} bytes, {each.tokens:,} tokens)" if each.bytes else ""
    )
    if each.sends > 1:
        text += f", sent {each.sends} times"
    bound = "not known" if each.price_bound_usd is None else f"at most {usd(each.price_bound_usd)}"
    return f"{text}. Price: {bound if each.cost_usd is None else f'{usd(each.cost_usd)} ({bound})'}."


def _table(files: Sequence[SentFile]) -> str:
    if not files:
        return ""
    by_path: dict[str, list[SentFile]] = {}
    for file in files:
        by_path.setdefault(file.path, []).append(file)
    rows = ["| File | Lines | Bytes | Why |", "|---|---|---|---|"]
    for path, parts in list(by_path.items())[:_MOST_ROWS]:
        lines = ", ".join(f"{part.start_line}-{part.end_line}" for part in parts)
        total = parts[0].total_lines
        whole = sum(part.end_line - part.start_line + 1 for part in parts) >= total
        size = sum(part.bytes for part in parts)
        why = "; ".join(dict.fromkeys(inline(part.why) for part in parts))
        shown = f"all {total:,}" if whole else f"{lines} of {total:,}"
        rows.append(f"| {cell(span(path))} | {shown} | {size:,} | {cell(why)} |")
    return "\n".join([*rows, *([""] if len(by_path) > _MOST_ROWS else []), *_more(len(by_path))])


def _beside(each: Egress) -> str:
    rows = [
        f"- {_TITLES.get(one.kind, inline(one.kind))}: {one.lines:,} lines, {one.bytes:,} bytes, "
        f"SHA-256 {span(one.sha256[:16])}…: {inline(one.why)}"
        for one in each.extras
    ]
    return "\n".join(["Beside the files:", "", *rows]) if rows else ""


def _secrets(each: Egress) -> str:
    if not each.redactions:
        return "Secrets replaced: none found." if each.sends else ""
    rows = [
        f"- {inline(one.kind)}: {span(one.where)} line {one.line}, replaced by {span(one.placeholder)}"
        for one in each.redactions[:_MOST_ROWS]
    ]
    return "\n".join([f"Secrets replaced: {len(each.redactions)}", "", *rows, *_more(len(each.redactions))])


def _left_out(each: Egress) -> str:
    if not each.omitted:
        return ""
    rows = [f"- {span(one.path)}: {inline(one.reason)}" for one in each.omitted[:_MOST_ROWS]]
    return "\n".join([f"Left out: {len(each.omitted)}", "", *rows, *_more(len(each.omitted))])


def _more(count: int) -> list[str]:
    return [f"- and {count - _MOST_ROWS} more, listed in the JSON"] if count > _MOST_ROWS else []


def usd(amount: float) -> str:
    """Write a price."""
    return "nothing" if amount == 0 else f"${amount:.2f}" if amount >= 1 else f"${amount:.4f}"
