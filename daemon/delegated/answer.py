"""One request, from its claim to its result: plain code over recorded calls, which a kill at any point only repeats.

`Desk.answer` runs from the top each time. What was recorded is not done again: a call's prompt, once on disk, is the
prompt; a reply, once on disk, is the reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

from delegated import analysis
from delegated import prompt as prompts
from delegated.context import Context, Omitted, SourceFile, choose
from delegated.errors import AnswerError, Refused, RequestError, Unavailable, Uncertain
from delegated.job import CallState
from delegated.journal import CallRecord, JobRecord
from delegated.models import Model
from delegated.pricing import ModelFacts, bound, cost, warning
from delegated.prompt import Prompt
from delegated.reply import Reply, Usage
from delegated.request import Request, parse
from delegated.result import Egress, Failure, RequestRef, Result, SentFile, Status, failure
from delegated.secrets import Redaction, forbidden, redact
from delegated.traces import frames
from delegated.workspace import Workspace

_SMALL: Final = 64 << 10
T = TypeVar("T")
_STOP_PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may use: tokens, USD, seconds, bytes a file."""

    model: str = "gpt-4o"
    max_input_tokens: int = 100_000
    max_output_tokens: int = 8192
    max_cost_usd: float | None = 1.0
    deadline_s: float = 600.0
    max_file_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Tokens:
    """How text is counted; `exact` when the model's own vocabulary is used."""

    count: Callable[[str], int]
    exact: bool


@dataclass(slots=True)
class Course:
    """What happened so far in one run of one job; its result is made from this."""

    ref: RequestRef
    warnings: list[str] = field(default_factory=list)
    egress: list[Egress] = field(default_factory=list)
    usage: Usage | None = None
    cost_usd: float | None = None
    attempts: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    model: str = ""
    raw: str = ""
    simulated: bool = False


class _Over(Exception):
    """The job ends here, without an answer."""

    def __init__(self, status: Status, error: Failure, problems: Iterable[str] = ()) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.problems = tuple(problems)


class Desk:
    """Answers the requests of one workspace."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        model: Callable[[str], tuple[Model, ModelFacts]],
        tokens: Callable[[], Tokens],
        limits: Limits,
        known_secrets: Callable[[], Iterable[str]] = tuple,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`model` raises `Refused` (unknown_model, missing_key, …) for a name that cannot be asked."""
        self._workspace = workspace
        self._model = model
        self._tokens = tokens
        self._limits = limits
        self._known_secrets = known_secrets
        self._wall = wall
        self._calls: dict[str, list[tuple[Model, CallRecord]]] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no job is being answered here."""
        await self._idle.wait()

    async def stop(self, record: JobRecord, progress: Any) -> bool:
        """Ask the providers to stop this job's calls; True when one is running there, whose end is then fetched."""
        stopped = False
        for _ in range(100):  # a job that was just resumed takes its calls up in a moment
            if self._calls.get(record.place) or not await record.journal.run(record.may_be_billed):
                break
            await asyncio.sleep(0.1)
        for model, call in self._calls.get(record.place, []):
            if model.wire == "responses":
                # The POST of a background call returns at once with its id: wait for that rather than leave a doubt.
                for _ in range(100):
                    if call.state is not CallState.SENT:
                        break
                    await asyncio.sleep(0.1)
            if call.state is CallState.ACCEPTED:
                await model.cancel(call)
                stopped = True
        return stopped

    async def answer(self, record: JobRecord, progress: Any) -> Result:
        """Return the result of this claim; raises only on cancellation and on a failing disk (`OSError`)."""
        claim = record.claim
        course = Course(RequestRef(claim.id, claim.name, claim.sha256, claim.revision))
        started = time.monotonic()
        self._calls[record.place] = []
        self._idle.clear()
        try:
            return await self._answer(record, progress, course)
        except _Over as over:
            return self._result(course, over.status, error=over.error, problems=over.problems)
        finally:
            del self._calls[record.place]
            if not self._calls:
                self._idle.set()
            course.timings["total"] = round(time.monotonic() - started, 3)

    async def _answer(self, record: JobRecord, progress: Any, course: Course) -> Result:
        claim = record.claim
        try:
            small = len(claim.data) <= _SMALL  # a way to another thread and back costs more than the work itself
            run = _here if small else record.journal.run
            request = await run(parse, claim.data, _suffix(claim.name))
        except RequestError as error:
            fail = failure("invalid_request", "the request cannot be used", claim.id)
            raise _Over("rejected", fail, map(str, error.problems)) from error
        course.ref = replace(course.ref, title=_title(request.issue))
        course.warnings += request.warnings
        if request.options.id not in ("", claim.id):
            course.warnings.append(f"`id: {request.options.id}` is not heeded: the file's name says {claim.id}")
        name = request.options.models[0] if request.options.models else self._limits.model
        if len(request.options.models) > 1 or request.options.compare:
            course.warnings.append(f"several models cannot be compared yet; only {name} was asked")
        course.model = progress.model = name
        try:
            model, facts = self._model(name)
        except Refused as error:
            named = bool(request.options.models) and error.kind == "unknown_model"
            raise _Over(
                "rejected" if named else "failed",
                failure(error.kind, error.message, claim.id),
                (error.message,) if named else (),
            ) from error
        note = warning(facts, _day(self._wall()))
        if note:
            course.warnings.append(note)

        progress.tell("gathering")
        call = record.call(1, "first")
        call.on_phase = partial(_told, progress, call)
        prompt = await self._prompt(call, request, model, facts, course)
        reply = await self._ask(call, prompt, model, facts, request, progress, course)
        progress.tell("checking")
        try:
            read = await record.journal.run(analysis.read, reply, prompt)
        except AnswerError as error:
            if error.kind not in ("not_json", "wrong_schema") or reply.simulated:
                raise self._unusable(error, claim.id) from error
            # One repair at most, and it is a call like any other: recorded, priced, on the receipt.
            again = prompts.repair(prompt, reply.text, error.message)
            call = record.call(2, "repair")
            call.on_phase = partial(_told, progress, call)
            course.warnings.append(f"the first answer was malformed ({error.message}); it was asked for once more")
            again = await self._recorded_prompt(call, lambda: again)
            if not call.may_be_billed:
                self._hold_price(again, model, facts, request, claim.id, course)
            reply = await self._ask(call, again, model, facts, request, progress, course)
            try:
                read = await record.journal.run(analysis.read, reply, prompt)
            except AnswerError as second:
                raise self._unusable(second, claim.id) from second
        return self._result(course, "answered", read=read)

    # The prompt

    async def _prompt(
        self, call: CallRecord, request: Request, model: Model, facts: ModelFacts, course: Course
    ) -> Prompt:
        started = time.monotonic()
        journal = call.job.journal

        def make() -> Prompt:
            return self._gather(request, facts, call.job.claim.id)

        prompt = await self._recorded_prompt(call, make)
        course.warnings += [w for w in prompt.context.warnings if w not in course.warnings]
        course.timings["gather"] = round(time.monotonic() - started, 3)
        if not call.may_be_billed:
            await journal.run(self._hold_price, prompt, model, facts, request, call.job.claim.id, course)
        return prompt

    async def _recorded_prompt(self, call: CallRecord, make: Callable[[], Prompt]) -> Prompt:
        """Return the call's prompt as recorded; make and record it when there is none."""

        def recorded() -> Prompt:
            text = call.load_prompt()
            if text is not None:
                return prompts.from_json(text)
            prompt = make()
            call.save_prompt(prompts.to_json(prompt), {"sha256": prompts.sha256(prompt)})
            return prompt

        return await call.job.journal.run(recorded)

    def _gather(self, request: Request, facts: ModelFacts, key: str) -> Prompt:
        """Choose the code, hide the secrets, render. Reads the workspace; runs beside the loop."""
        space = self._workspace
        found = space.gather(request.files, max_bytes=self._limits.max_file_bytes)
        omitted: list[Omitted] = list(found.omitted)
        files: dict[str, SourceFile] = {}
        for embedded in request.contents:
            reason = forbidden(embedded.path)
            if reason is not None:
                omitted.append(Omitted(embedded.path, reason))
                continue
            data = embedded.text.encode("utf-8", "replace")
            files[embedded.path] = SourceFile(
                embedded.path, embedded.text, _sha256(data), len(data), "given in the request"
            )
        for file in found.files:
            files.setdefault(file.path, file)
        seen = frames("\n".join((request.issue, request.context, request.logs)))
        mentions: dict[str, list[int]] = {}
        for frame, path in space.resolve_frames(seen, known=files):
            mentions.setdefault(path, []).append(frame.line)
            if path not in files:
                extra = space.gather((path,), max_bytes=self._limits.max_file_bytes)
                omitted += extra.omitted
                for file in extra.files:
                    files[file.path] = replace(file, why=f"named by the trace, line {frame.line}")
        # Parts in one pass, so that the same secret has the same placeholder everywhere.
        names = ["issue", "context", "logs"]
        parts = [("issue", request.issue), ("context", request.context), ("logs", request.logs)]
        parts += [("attempted fixes", text) for text in request.attempted_fixes]
        parts += [("questions", text) for text in request.questions]
        parts += [(file.path, file.text) for file in files.values()]
        texts, redactions = redact(parts, known=(*self._known_secrets(), *space.env_values()), seed=key)
        fixes, questions = len(request.attempted_fixes), len(request.questions)
        start = len(names) + fixes
        clean = replace(
            request,
            issue=texts[0],
            context=texts[1],
            logs=texts[2],
            attempted_fixes=texts[len(names) : start],
            questions=texts[start : start + questions],
            contents=(),
        )
        shown = [
            replace(file, text=text) for file, text in zip(files.values(), texts[start + questions :], strict=True)
        ]
        return self._fit(clean, shown, mentions, omitted, found.warnings, redactions, facts)

    def _fit(
        self,
        request: Request,
        files: list[SourceFile],
        mentions: Mapping[str, list[int]],
        omitted: list[Omitted],
        warnings: tuple[str, ...],
        redactions: tuple[Redaction, ...],
        facts: ModelFacts,
    ) -> Prompt:
        count = self._tokens().count
        ceiling = min(
            request.options.max_input_tokens or self._limits.max_input_tokens,
            self._limits.max_input_tokens,
            int((facts.context_tokens - min(self._limits.max_output_tokens, facts.output_tokens)) * 0.9),
        )
        bare = prompts.render(request, Context(omitted=tuple(omitted)), redactions)
        words = count(bare.system) + count(bare.user)
        notes = list(warnings)
        if words > ceiling // 2 and request.logs:
            room = max(500, ceiling // 2 - (words - count(request.logs)))
            logs, left = _shorten(request.logs, room, count)
            if left:
                request = replace(request, logs=logs)
                notes.append(f"{left:,} lines in the middle of the logs were left out: budget of {ceiling:,} tokens")
                bare = prompts.render(request, Context(omitted=tuple(omitted)), redactions)
                words = count(bare.system) + count(bare.user)
        context = choose(files, mentions, max(0, ceiling - words), count, omitted=omitted, warnings=notes)
        return prompts.render(request, context, redactions)

    def _input_tokens(self, prompt: Prompt) -> int:
        """Bound the tokens of what is sent from above, margin for the wire's own words included."""
        words = self._tokens()
        text = prompt.system + prompt.user + repr(prompt.schema)
        if words.exact:
            return int(words.count(text) * 1.1) + 16
        return len(text.encode("utf-8", "replace"))

    def _hold_price(
        self, prompt: Prompt, model: Model, facts: ModelFacts, request: Request, key: str, course: Course
    ) -> None:
        """End the job when the call could cost more than it may, before anything is sent."""
        tokens = self._input_tokens(prompt)
        window = facts.context_tokens - min(self._limits.max_output_tokens, facts.output_tokens)
        if tokens > window and self._tokens().exact:
            raise _Over(
                "rejected",
                failure("budget", f"about {tokens:,} tokens, but {facts.name} takes {window:,} beside its answer", key),
                ("the request itself is longer than the model can read: shorten the issue, context or logs",),
            )
        limits = [v for v in (request.options.max_cost_usd, self._limits.max_cost_usd) if v is not None]
        if not limits or model.wire == "local":
            return
        price = self.price_bound(prompt, facts)
        if price is None:
            message = f"the price of {facts.name} is not known, so the limit of ${_usd(min(limits))} cannot be held"
            raise _Over("rejected", failure("unknown_price", message, key), (message,))
        price += course.cost_usd or 0.0
        if price > min(limits):
            message = f"it could cost up to ${_usd(price)}, the limit is ${_usd(min(limits))}"
            raise _Over("rejected", failure("budget", message, key), (message,))

    def price_bound(self, prompt: Prompt, facts: ModelFacts) -> float | None:
        """Bound the price of one call from above, in USD; None when the model's price is unknown."""
        return bound(facts, self._input_tokens(prompt), min(self._limits.max_output_tokens, facts.output_tokens))

    # The call

    async def _ask(
        self,
        call: CallRecord,
        prompt: Prompt,
        model: Model,
        facts: ModelFacts,
        request: Request,
        progress: Any,
        course: Course,
    ) -> Reply:
        claim = call.job.claim
        self._calls[call.job.place].append((model, call))
        # Counted from now, not from the claim: what was claimed before a night's power cut is still to be answered.
        deadline = min(request.options.deadline_s or self._limits.deadline_s, self._limits.deadline_s)
        started = time.monotonic()
        reply: Reply | None = None
        try:
            reply = await self._reply(call, prompt, model, deadline)
            if reply is None:
                billed = "; the call had left and may be billed" if call.may_be_billed else ""
                raise _Over("failed", failure("deadline", f"no answer within {deadline:g} s{billed}", claim.id))
        except (Unavailable, Refused) as error:
            raise _Over("failed", failure(error.kind, error.message, claim.id)) from error
        except Uncertain as error:
            raise _Over("uncertain", failure("uncertain", error.message, claim.id)) from error
        finally:
            course.attempts += call.sends
            course.timings[f"ask {call.name[3:]}"] = round(time.monotonic() - started, 3)
            if call.sends or reply is not None:
                course.egress.append(self._receipt(call, prompt, model, facts))
                progress.egress = tuple(course.egress)
        course.simulated = course.simulated or reply.simulated
        course.raw = reply.text
        usage = reply.usage
        if usage is None and not reply.simulated:  # adopted after a crash, or a server that does not say
            count = self._tokens().count
            usage = Usage(count(prompt.system + prompt.user), 0, count(reply.text), estimated=True)
        if usage is not None:
            course.usage = _add(course.usage, usage)
            spent = cost(facts, usage)
            if spent is not None:
                course.cost_usd = (course.cost_usd or 0.0) + spent
                progress.cost_usd = course.cost_usd
        if reply.outcome == "cancelled" and progress.reason == "cancelled":
            message = "it was cancelled by its CANCEL file while the provider worked on it; it may be billed"
            raise _Over("cancelled", failure("cancelled", message, claim.id))
        return reply

    async def _reply(self, call: CallRecord, prompt: Prompt, model: Model, left: float) -> Reply | None:
        """Ask within `left` seconds; None when the deadline passed without an answer."""
        # Cut off and in doubt, it is looked up; proven absent, it is sent once more; after that it is only looked up.
        for seconds in (left, left, 0.0):
            with contextlib.suppress(TimeoutError):
                return await self._within(seconds, call, prompt, model)
            if not call.in_doubt:
                break
        if call.state is not CallState.ACCEPTED:
            return call.reply
        await model.cancel(call)
        try:
            async with asyncio.timeout(_STOP_PATIENCE_S):
                reply = await model.ask(prompt, call)
        except TimeoutError:
            return None
        return None if reply.outcome == "cancelled" else reply

    async def _within(self, left: float, call: CallRecord, prompt: Prompt, model: Model) -> Reply:
        """Ask within `left` seconds. A look-up has a patience of its own: after one they count from the next send."""
        tell, clock = call.on_phase, asyncio.get_running_loop().time
        async with asyncio.timeout(None if call.in_doubt else left) as limit:

            def phase(name: str, detail: str) -> None:
                if name == "asking" and limit.when() is None:
                    limit.reschedule(clock() + left)
                if tell is not None:
                    tell(name, detail)

            call.on_phase = phase
            try:
                return await model.ask(prompt, call)
            finally:
                call.on_phase = tell

    def _receipt(self, call: CallRecord, prompt: Prompt, model: Model, facts: ModelFacts) -> Egress:
        context = prompt.context
        sent = tuple(
            SentFile(e.path, e.start_line, e.end_line, e.total_lines, e.sha256, len(e.text.encode()), e.why)
            for e in context.excerpts
        )
        local = model.wire == "local"
        size = 0 if local else len((prompt.system + prompt.user).encode("utf-8", "replace"))
        return Egress(
            call=call.name,
            model=facts.name,
            endpoint=model.endpoint,
            wire=model.wire,
            files=sent,
            omitted=context.omitted,
            redactions=prompt.redactions,
            bytes=size,
            tokens=0 if local else self._tokens().count(prompt.system + prompt.user),
            prompt_sha256=prompts.sha256(prompt),
            price_bound_usd=0.0 if local else self.price_bound(prompt, facts),
        )

    def _unusable(self, error: AnswerError, key: str) -> _Over:
        status: Status = "cancelled" if error.kind == "cancelled" else "failed"
        return _Over(status, failure(error.kind, error.message, key))

    def _result(
        self,
        course: Course,
        status: Status,
        *,
        read: analysis.Analysis | None = None,
        error: Failure | None = None,
        problems: tuple[str, ...] = (),
    ) -> Result:
        return Result(
            status=status,
            request=course.ref,
            timestamp=timestamp(self._wall()),
            model=course.model,
            simulated=course.simulated,
            analysis=read,
            error=error,
            problems=problems,
            warnings=tuple(dict.fromkeys(course.warnings)),
            egress=tuple(course.egress),
            usage=course.usage,
            cost_usd=course.cost_usd,
            attempts=course.attempts,
            timings=course.timings,
            raw_response=course.raw,
        )


def _told(progress: Any, call: CallRecord, phase: str, detail: str = "") -> None:
    progress.attempt = call.attempt
    progress.tell(phase, detail)


async def _here(function: Callable[..., T], *args: Any) -> T:
    return function(*args)


def _shorten(text: str, tokens: int, count: Callable[[str], int]) -> tuple[str, int]:
    """Keep a log's first fifth and its end, whole lines, within about `tokens`; return it and the lines left out."""
    lines = text.splitlines(keepends=True)
    sizes = [count(line) for line in lines]
    if sum(sizes) <= tokens:
        return text, 0
    head, used = 0, 0
    while head < len(lines) and used + sizes[head] <= tokens // 5:
        used += sizes[head]
        head += 1
    tail = len(lines)
    while tail > head and used + sizes[tail - 1] <= tokens:
        tail -= 1
        used += sizes[tail]
    left = tail - head
    return "".join(lines[:head]) + f"[... {left} lines left out ...]\n" + "".join(lines[tail:]), left


def _usd(amount: float) -> str:
    return f"{amount:.4f}" if amount >= 0.0001 or not amount else f"{amount:.12f}".rstrip("0")


def _title(issue: str) -> str:
    line = next((line.strip() for line in issue.splitlines() if line.strip()), "")
    return line if len(line) <= 120 else line[:119] + "…"


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _add(first: Usage | None, second: Usage) -> Usage:
    if first is None:
        return second
    return Usage(
        first.input_tokens + second.input_tokens,
        first.cached_input_tokens + second.cached_input_tokens,
        first.output_tokens + second.output_tokens,
        first.estimated or second.estimated,
    )


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def timestamp(seconds: float) -> str:
    """Write a moment as RFC 3339 in UTC, to the millisecond."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
