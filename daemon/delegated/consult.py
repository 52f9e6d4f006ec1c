"""One model consulted for one request: asked, asked again for the right form, and once it names what else it must see.

Every call is recorded before it leaves, and priced before it is recorded. Run anew after a kill, it takes each recorded
prompt and reply as it is, and comes to the same calls under the same names.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, Final

import structlog

from delegated import analysis
from delegated import prompt as prompts
from delegated.analysis import Analysis
from delegated.calls import CallRecord, JobRecord
from delegated.decided import Decided
from delegated.errors import AnswerError, Refused, Unavailable, Uncertain
from delegated.flood import Again, Loop, Prints, Soon, judge, prints
from delegated.gather import Gatherer
from delegated.job import CallState
from delegated.journal import Journal
from delegated.models import Model
from delegated.paths import shown
from delegated.pricing import ModelFacts, cost
from delegated.prompt import Prompt
from delegated.receipt import Egress, of_local, of_sends, sendings
from delegated.reply import Reply, Usage
from delegated.request import Request
from delegated.result import CANCELLED, Failure, RequestRef, Status, failure

_SHOWN: Final = 10
_PLACES: Final = 9  # calls of one model among several; a call's number has two digits
_WAITING: Final = ("held back", "backing off", "out of reach", "looking up", "waiting for the disk")
_STOP_PATIENCE_S: Final = 30.0
_SOON_FIRST_S: Final = 0.05  # between two looks at a request that is about to ask the same
_SOON_CAP_S: Final = 1.0


@dataclass(slots=True)
class Spend:
    """What one job has spent, and the bounds of its calls under way: models asked side by side have one limit."""

    spent: float = 0.0
    open: dict[str, float] = field(default_factory=dict)

    @property
    def committed(self) -> float:
        """Return what may be spent when all that is under way costs the most that it can."""
        return self.spent + sum(self.open.values())

    def reopen(self, call: CallRecord) -> None:
        """Count a call that left in an earlier life as under way until its reply is read."""
        if call.may_be_billed:
            self.open[call.name] = float(call.sent.get("price_bound_usd") or 0.0)


@dataclass(slots=True)
class Course:
    """What happened so far in one run of one job, or with one of its models; its result is made from this."""

    ref: RequestRef
    spend: Spend = field(default_factory=Spend)
    decided: Decided = field(default_factory=Decided)
    warnings: list[str] = field(default_factory=list)
    egress: list[Egress] = field(default_factory=list)
    usage: Usage | None = None
    cost_usd: float | None = None
    attempts: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    model: str = ""
    raw: str = ""
    simulated: bool = False
    duplicate_of: str = ""


class Over(Exception):
    """The job ends here, without an answer."""

    def __init__(self, status: Status, error: Failure | None, problems: Iterable[str] = ()) -> None:
        super().__init__(error.message if error else status)
        self.status = status
        self.error = error
        self.problems = tuple(problems)


@dataclass(slots=True)
class _Turn:
    """What all calls of one consultation have in common."""

    record: JobRecord
    request: Request
    model: Model
    facts: ModelFacts
    progress: Any
    course: Course
    number: int  # of its last call
    rounds: int
    wanted: tuple[str, ...] = ()  # files that it has named so far
    began: float | None = None  # when it first asked, in seconds of the steady clock

    def sent(self, name: str) -> bool:
        """Say whether its next call left in an earlier life, whose settings may have been others."""
        return self.record.call(self.number + 1, name).may_be_billed

    def call(self, name: str) -> CallRecord:
        """Open the record of its next call."""
        self.number += 1
        call = self.record.call(self.number, name)
        call.on_phase = partial(_told, self.progress, call)
        return call


@dataclass(frozen=True, slots=True)
class Begun:
    """A model that is about to be asked: its first call and what is recorded to be sent with it."""

    turn: _Turn
    call: CallRecord
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply that was read, beside what it answers."""

    turn: _Turn
    prompt: Prompt
    reply: Reply
    read: Analysis


class Consult:
    """Consults the models that one workspace's requests name."""

    def __init__(
        self,
        gatherer: Gatherer,
        *,
        count_in: Callable[[Journal], None] = lambda journal: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`count_in` sees each journal before its first paid call; it blocks."""
        self._gatherer = gatherer
        self._limits = gatherer.limits
        self._count_in = count_in
        self._counted: set[str] = set()
        self._wall = wall
        self.calls: dict[JobRecord, list[tuple[Model, CallRecord]]] = {}
        self._waits: dict[CallRecord, asyncio.Timeout] = {}

    def stop_waiting(self, record: JobRecord) -> None:
        """End what waits to be sent for a job that was cancelled, while other calls of it are out."""
        for _, call in self.calls.get(record, []):
            if not call.may_be_billed and call in self._waits:
                self._waits[call].reschedule(asyncio.get_running_loop().time())

    async def begin(
        self,
        record: JobRecord,
        request: Request,
        model: tuple[Model, ModelFacts],
        progress: Any,
        course: Course,
        *,
        place: int = 0,
        among: Sequence[str] = (),
        began: float | None = None,
    ) -> Begun:
        """Make and record what one model is asked first, and hold it to what the request may cost.

        `place`: which of several models or steps it is, from 0; `among`: the models. Only the first is held against
        what was asked earlier: they are one question. Raises `Over` when it is not to be asked; `OSError` when the
        disk fails.
        """
        rounds = self._limits.max_rounds
        if among or place or course.decided.retry_below:
            rounds = min(rounds, _PLACES // 2)
        turn = _Turn(record, request, *model, progress, course, place * _PLACES, rounds, began=began)
        progress.tell("gathering")
        call = turn.call("first")
        return Begun(turn, call, await self._first_prompt(turn, call, ",".join(among), judged=not place))

    async def finish(self, begun: Begun) -> Answered:
        """Return what the model makes of the request, after as many rounds as it needs and may have.

        Raises `Over` when there is no answer; `OSError` when the disk fails.
        """
        turn, prompt = begun.turn, begun.prompt
        reply, read = await self._read(turn, prompt, await self._ask(turn, begun.call, prompt))
        for number in count(2):
            if read.verdict != "need_more_files" or reply.simulated:
                break
            if number > turn.rounds and not turn.sent("round"):
                break
            further = await self._further(turn, prompt, read, number)
            if further is None:
                break
            prompt, reply, read = further
        return Answered(turn, prompt, reply, read)

    async def wider(self, answered: Answered, place: int) -> Answered | None:
        """Ask the same once more, with further files that it may be about; None when none were found."""
        turn = answered.turn
        key = turn.record.claim.id
        return await self._step(
            answered,
            place,
            "wider",
            lambda: self._gatherer.gather(turn.request, turn.facts, key, wanted=turn.wanted, wider=True),
            new=True,
        )

    async def critic(self, answered: Answered, place: int) -> Answered | None:
        """Have the answer attacked, by the same model: what refutes it, what else fits as well."""
        key = answered.turn.record.claim.id

        def make() -> Prompt:
            (shown,), redactions = self._gatherer.hidden([(prompts.ANSWER, answered.reply.text)], key)
            return prompts.critic(answered.prompt, shown, redactions)

        return await self._step(answered, place, "critic", make, new=False)

    async def _step(
        self, answered: Answered, place: int, name: str, make: Callable[[], Prompt], *, new: bool
    ) -> Answered | None:
        turn = replace(answered.turn, number=place * _PLACES)
        run = turn.record.journal.run
        turn.progress.tell("gathering", name)
        if turn.sent(name):
            call = turn.call(name)
            prompt = await self._recorded_prompt(call, make)
        else:
            made = await run(make)
            if new and not _adds(made, answered.prompt):
                return None
            call = turn.call(name)
            prompt = await self._recorded_prompt(call, lambda: made)
            await run(self._hold_price, turn, call, prompt)
        return Answered(turn, prompt, *await self._read(turn, prompt, await self._ask(turn, call, prompt)))

    async def _read(self, turn: _Turn, prompt: Prompt, reply: Reply) -> tuple[Reply, Analysis]:
        """Read a reply; ask once more for one that has not the right form, which is a call like any other."""
        turn.progress.tell("checking")
        run = turn.record.journal.run
        key = turn.record.claim.id
        try:
            return reply, await run(analysis.read, reply, prompt)
        except AnswerError as error:
            if error.kind not in ("not_json", "wrong_schema") or reply.simulated:
                raise _unusable(error, key) from error
            parts = [(prompts.ANSWER, reply.text), (prompts.PROBLEM, error.message)]
            (shown, problem), redactions = await run(self._gatherer.hidden, parts, key)
            again = prompts.repair(prompt, shown, problem, redactions)
            turn.course.warnings.append(f"the answer was malformed ({error.message}); it was asked for once more")
        call = turn.call("repair")
        again = await self._recorded_prompt(call, lambda: again)
        if not call.may_be_billed:
            self._hold_price(turn, call, again)
        reply = await self._ask(turn, call, again)
        try:
            return reply, await run(analysis.read, reply, prompt)
        except AnswerError as second:
            raise _unusable(second, key) from second

    async def _further(
        self, turn: _Turn, former: Prompt, read: Analysis, number: int
    ) -> tuple[Prompt, Reply, Analysis] | None:
        """Ask once more with the files that the model named; None when that cannot be or brings nothing.

        The answer that there is stands then, with a warning: it says at least what would be needed.
        """
        course, journal, key = turn.course, turn.record.journal, turn.record.claim.id
        turn.progress.tell("gathering", f"round {number}")
        raw = course.raw
        wanted = tuple(dict.fromkeys((*turn.wanted, *read.files_needed)))
        if turn.progress.reason == "cancelled" and not turn.sent("round"):
            course.warnings.append(f"round {number} was not asked: {CANCELLED}")
            return None
        call = turn.call("round")

        def make() -> Prompt:
            return self._gatherer.gather(turn.request, turn.facts, key, wanted=wanted)

        try:
            if not call.may_be_billed and await journal.run(call.load_prompt) is None:
                made = await journal.run(make)
                if not _adds(made, former):
                    course.warnings.append(f"round {number} was not asked: nothing new could be sent of what was named")
                    return None
                self._hold_price(turn, call, made)
                prompt = await self._recorded_prompt(call, lambda: made)
            else:
                prompt = await self._recorded_prompt(call, make)
                if not call.may_be_billed:
                    self._hold_price(turn, call, prompt)
            had = {each.path for each in former.context.excerpts}
            more = dict.fromkeys(each.path for each in prompt.context.excerpts if each.path not in had)
            names = ", ".join(map(shown, more)) or "more of the same files"
            course.warnings.append(f"the model asked for more files: round {number} was asked with {names}")
            turn.wanted = wanted
            return prompt, *await self._read(turn, prompt, await self._ask(turn, call, prompt))
        except Over as over:
            if over.status in ("cancelled", "uncertain"):
                raise
            why = over.error.message if over.error else over.status
            course.warnings.append(f"round {number}, with more files, gave no answer: {why}")
            course.raw = raw
            return None

    # The prompt

    async def _first_prompt(self, turn: _Turn, call: CallRecord, among: str, *, judged: bool) -> Prompt:
        request, facts, course = turn.request, turn.facts, turn.course
        started = time.monotonic()
        journal = turn.record.journal

        def make() -> Prompt:
            return self._gatherer.gather(request, facts, turn.record.claim.id)

        if call.may_be_billed and await journal.run(lambda: call.prompt_lost):
            course.warnings.append(
                "the record of what was sent is damaged: the answer is checked against the code as it is now"
            )
        prompt = await self._recorded_prompt(
            call, make, lambda prompt: asdict(prints(request, prompt.context, among or facts.name))
        )
        course.warnings += [w for w in prompt.context.warnings if w not in course.warnings]
        course.timings["gather"] = round(time.monotonic() - started, 3)
        course.spend.reopen(call)  # before another model is held against what is left
        if not call.may_be_billed:

            def repeated() -> str:
                if not judged or turn.model.wire == "local" or turn.record.may_be_billed():
                    return ""  # also where another model's call has left: what is paid for is no repeat
                return self._hold_repeats(call, prints(request, prompt.context, among or facts.name), request, course)

            def hold() -> str:
                self._hold_price(turn, call, prompt)
                return repeated()

            other, pause, given = await journal.run(hold), _SOON_FIRST_S, self._given(request)
            # Not a `duplicate` yet: the other may still be withdrawn, or fail, and then nobody would have asked.
            while other and time.monotonic() - started < min(given, default=math.inf):
                turn.began = started
                turn.progress.tell("held back", f"the same question is about to be asked as {other}")
                await asyncio.sleep(pause)
                other, pause = await journal.run(repeated), min(pause * 2, _SOON_CAP_S)
        return prompt

    def _given(self, request: Request) -> list[float]:
        return [each for each in (request.options.deadline_s, self._limits.deadline_s) if each is not None]

    def _hold_repeats(self, call: CallRecord, mine: Prints, request: Request, course: Course) -> str:
        """End the job when it asks once more what was asked already, before anything is sent.

        Returns the request that is about to ask the same, "" when none is. What a person does on purpose is no loop:
        an edit, a retry, `force: true`.
        """
        claim = call.job.claim
        earlier = call.job.asked_before(mine)
        if request.options.force or claim.order or claim.revision > 1:
            return ""
        limits = self._limits
        found = judge(mine, earlier, now=self._wall(), window_s=limits.repeat_window_s, max_repeats=limits.max_repeats)
        if isinstance(found, Again):
            course.duplicate_of = found.key
            course.warnings.append(
                f"the same question about the same code was asked as {found.key}, {found.ago_s:.0f} s ago; "
                "`force: true` in the request asks it again"
            )
            raise Over("duplicate", None)
        if isinstance(found, Loop):
            message = (
                f"this was asked {len(found.keys)} times within an hour while the code changed, as "
                f"{', '.join(found.keys[-_SHOWN:])}; the limit is {limits.max_repeats} (`max_repeats`)"
            )
            raise Over("rejected", failure("loop", message, claim.id), (message,))
        return found.key if isinstance(found, Soon) else ""

    async def _recorded_prompt(
        self, call: CallRecord, make: Callable[[], Prompt], note: Callable[[Prompt], dict[str, str]] = lambda prompt: {}
    ) -> Prompt:
        """Return the call's prompt as recorded; make and record it when there is none."""

        def recorded() -> Prompt:
            text = call.load_prompt()
            if text is not None:
                return prompts.from_json(text)
            prompt = make()
            call.save_prompt(prompts.to_json(prompt), {"sha256": prompts.sha256(prompt), **note(prompt)})
            return prompt

        return await call.job.journal.run(recorded)

    def _hold_price(self, turn: _Turn, call: CallRecord, prompt: Prompt) -> None:
        """End the job when the call could cost more than it may, before anything is sent."""
        facts, key = turn.facts, turn.record.claim.id
        tokens = self._gatherer.input_tokens(prompt, facts)
        window = facts.context_tokens - min(self._limits.max_output_tokens, facts.output_tokens)
        if tokens > window and self._gatherer.counts(facts):
            raise Over(
                "rejected",
                failure("budget", f"about {tokens:,} tokens, but {facts.name} takes {window:,} beside its answer", key),
                ("the request itself is longer than the model can read: shorten the issue, context or logs",),
            )
        limits = [v for v in (turn.request.options.max_cost_usd, self._limits.max_cost_usd) if v is not None]
        if not limits or turn.model.wire == "local":
            return
        price = self._gatherer.price_bound(prompt, facts)
        if price is None:
            message = f"the price of {facts.name} is not known, so the limit of ${_usd(min(limits))} cannot be held"
            raise Over("rejected", failure("unknown_price", message, key), (message,))
        spend = turn.course.spend
        whole = price + spend.committed
        if whole > min(limits):
            message = f"it could cost up to ${_usd(whole)}, the limit is ${_usd(min(limits))}"
            raise Over("rejected", failure("budget", message, key), (message,))
        spend.open[call.name] = price

    # The call

    async def _ask(self, turn: _Turn, call: CallRecord, prompt: Prompt) -> Reply:
        model, facts, request, progress, course = turn.model, turn.facts, turn.request, turn.progress, turn.course
        claim = call.job.claim
        if progress.reason == "cancelled" and not call.may_be_billed:
            raise Over("cancelled", failure("cancelled", CANCELLED, claim.id))
        self.calls[call.job].append((model, call))
        progress.tokens += self._gatherer.tokens().count(prompt.system + prompt.user)
        # Counted from now, not from the claim: what was claimed before a night's power cut is still to be answered.
        given = self._given(request)
        started = time.monotonic()
        turn.began = started if turn.began is None else turn.began
        deadline = max(0.0, min(given) - (started - turn.began)) if given else None
        reply: Reply | None = None
        journal, spend = call.job.journal, course.spend
        spend.reopen(call)
        if model.wire != "local" and journal.journal_id not in self._counted:
            try:
                await journal.run(self._count_in, journal)
                self._counted.add(journal.journal_id)
            except OSError as error:
                if not call.may_be_billed:
                    raise
                structlog.get_logger("delegated.budget").warning("ledger.failed", reason=str(error))
        try:
            reply = await self._stoppable(call, prompt, model, deadline)
            if reply is None and call.held is not None and not call.may_be_billed:
                message = f"{call.held.message}; it was waited for {min(given, default=0.0):g} s"
                raise Over("failed", failure(call.held.kind, message, claim.id))
            if reply is None:
                billed = "; the call had left and may be billed" if call.may_be_billed else ""
                message = f"no answer within {min(given, default=self._limits.answer_s):g} s{billed}"
                raise Over("failed", failure("deadline", message, claim.id))
        except (Unavailable, Refused) as error:
            if error.kind == "cancelled":
                raise Over("cancelled", failure(error.kind, error.message, claim.id)) from error
            if error.kind == "over_budget":
                raise Over("rejected", failure(error.kind, error.message, claim.id), (error.message,)) from error
            raise Over("failed", failure(error.kind, error.message, claim.id)) from error
        except Uncertain as error:
            raise Over("uncertain", failure("uncertain", error.message, claim.id)) from error
        finally:
            course.attempts += call.sends
            name = f"ask {call.name[3:]}"
            course.timings[name] = round(course.timings.get(name, 0.0) + time.monotonic() - started, 3)
            if reply is not None or not call.may_be_billed:
                spend.open.pop(call.name, None)
            if call.departures:
                course.egress += self.receipts(call, prompt)
            elif reply is not None:
                course.egress.append(of_local(call.name, prompt, model=facts.name))
        course.simulated = course.simulated or reply.simulated
        course.raw = reply.text
        usage = reply.usage
        if usage is None and not reply.simulated:  # adopted after a crash, or a server that does not say
            count = self._gatherer.tokens().count
            usage = Usage(count(prompt.system + prompt.user), 0, count(reply.text), estimated=True)
        if usage is not None:
            course.usage = add_usage(course.usage, usage)
            spent = cost(facts, usage)
            if spent is not None:
                if call.departures:
                    course.egress[-1] = replace(course.egress[-1], cost_usd=spent)
                spend.spent += spent
                course.cost_usd = (course.cost_usd or 0.0) + spent
                progress.cost_usd = course.cost_usd
        if reply.outcome == "cancelled" and progress.reason == "cancelled":
            message = "it was cancelled by its CANCEL file while the provider worked on it; it may be billed"
            raise Over("cancelled", failure("cancelled", message, claim.id))
        return reply

    async def _stoppable(self, call: CallRecord, prompt: Prompt, model: Model, deadline: float | None) -> Reply | None:
        """Ask as `_reply` does, until the job is cancelled while this call waits: raises `Refused` then."""
        wait = self._waits[call] = asyncio.timeout(None)
        try:
            async with wait:
                return await self._reply(call, prompt, model, deadline)
        except TimeoutError:
            if not wait.expired():
                raise  # a disk's
            if not call.may_be_billed:
                raise Refused("cancelled", CANCELLED) from None
            return await self._reply(call, prompt, model, deadline)  # it left in that very moment
        finally:
            del self._waits[call]

    async def _reply(self, call: CallRecord, prompt: Prompt, model: Model, deadline: float | None) -> Reply | None:
        """Ask within `deadline` seconds; None when it passed. Without one only the call itself is bounded."""
        left = self._limits.answer_s if deadline is None else deadline
        # Cut off and in doubt, it is looked up; proven absent, it is sent once more; after that it is only looked up.
        for seconds in (left, left, 0.0):
            with contextlib.suppress(TimeoutError):
                return await self._within(seconds, call, prompt, model, waiting=deadline is not None)
            # Nothing has left and nobody set a deadline (we were frozen, say): to ask now is no second send.
            unsent = deadline is None and not call.may_be_billed
            if not (call.in_doubt or unsent):
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

    async def _within(self, left: float, call: CallRecord, prompt: Prompt, model: Model, *, waiting: bool) -> Reply:
        """Ask within `left` seconds, `waiting` for the provider included or not.

        A look-up has a patience of its own: after one they count from the next send.
        """
        tell, clock = call.on_phase, asyncio.get_running_loop().time
        async with asyncio.timeout(None if call.in_doubt else left) as limit:

            def phase(name: str, detail: str) -> None:
                if limit.expired():
                    pass  # its time is up: it is only saying so on its way out
                elif limit.when() is None and (name == "asking" or (name == "waiting" and not waiting)):
                    limit.reschedule(clock() + left)
                elif not waiting and name in _WAITING:
                    limit.reschedule(None)
                if tell is not None:
                    tell(name, detail)

            call.on_phase = phase
            try:
                return await model.ask(prompt, call)
            finally:
                call.on_phase = tell

    def receipts(self, call: CallRecord, prompt: Prompt | None) -> tuple[Egress, ...]:
        """Return what a call sent, a receipt for each time."""
        tokens = 0 if prompt is None else self._gatherer.tokens().count(prompt.system + prompt.user)
        return of_sends(call.name, prompt, sendings(call.departures), tokens=tokens)


def steps_begun(record: JobRecord) -> int:
    """Return how many steps of the ladder a job has gone, skipped ones included, as its calls are named. Blocking."""
    begun = (int(name[:2]) for name in record.call_names() if name[3:] in ("first", "wider", "critic"))
    return max((number - 1) // _PLACES for number in (1, *begun))


def _adds(made: Prompt, former: Prompt) -> bool:
    """Say whether a prompt sends lines that the one before did not."""
    known = {(each.path, each.start_line, each.end_line) for each in former.context.excerpts}
    return not known.issuperset((each.path, each.start_line, each.end_line) for each in made.context.excerpts)


def _unusable(error: AnswerError, key: str) -> Over:
    status: Status = "cancelled" if error.kind == "cancelled" else "failed"
    return Over(status, failure(error.kind, error.message, key))


def _told(progress: Any, call: CallRecord, phase: str, detail: str = "") -> None:
    progress.attempt = call.attempt
    progress.tell(phase, detail)


def _usd(amount: float) -> str:
    return f"{amount:.4f}" if amount >= 0.0001 or not amount else f"{amount:.12f}".rstrip("0")


def add_usage(first: Usage | None, second: Usage) -> Usage:
    """Add up what two calls used."""
    if first is None:
        return second
    return Usage(
        first.input_tokens + second.input_tokens,
        first.cached_input_tokens + second.cached_input_tokens,
        first.output_tokens + second.output_tokens,
        first.estimated or second.estimated,
        first.written_input_tokens + second.written_input_tokens,
    )
