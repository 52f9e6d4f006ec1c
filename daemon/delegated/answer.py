"""One request, from its claim to its result: plain code over recorded calls, which a kill at any point only repeats.

`Desk.answer` runs from the top each time. What was recorded is not done again: a call's prompt, once on disk, is the
prompt; a reply, once on disk, is the reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import structlog

from delegated import folder as names
from delegated import follow
from delegated import prompt as prompts
from delegated.analysis import Analysis
from delegated.calls import JobRecord
from delegated.comparison import compare
from delegated.consult import Answered, Begun, Consult, Course, Over, steps_begun
from delegated.decided import Decided, recall
from delegated.errors import Refused, RequestError
from delegated.gather import Gatherer, asked
from delegated.job import CallState
from delegated.journal import Journal
from delegated.models import Model
from delegated.models.refusing import Refusing
from delegated.panel import Several, merge, opinion, worst
from delegated.pricing import ModelFacts, warning
from delegated.record import Refusal
from delegated.request import Request
from delegated.result import BILLED, Failure, RequestRef, Result, Status, failure
from delegated.trial import tried
from delegated.veil import veil

_SMALL: Final = 64 << 10
_STEPS: Final = 9  # of a ladder
_UNKNOWN_TOKENS: Final = 128_000  # that a model takes of which nothing is known any more
_TITLE: Final = 120  # characters

T = TypeVar("T")


class Desk:
    """Answers the requests of one workspace."""

    def __init__(
        self,
        gatherer: Gatherer,
        *,
        model: Callable[[str], tuple[Model, ModelFacts]],
        unlock: Callable[[str], None] = lambda name: None,
        hold: Callable[[Refusal], None] = lambda refusal: None,
        knock: Callable[[], None] = lambda: None,
        count_in: Callable[[Journal], None] = lambda journal: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`model` raises `Refused` (unknown_model, missing_key, …) for a name that cannot be asked.

        `unlock` is called before it with the name, beside the loop: it may run a program that prints the key. `hold` is
        told what an earlier life heard from an endpoint; `knock` has one call tried where all are held back. `count_in`
        sees each journal before its first paid call; it blocks.
        """
        self._gatherer = gatherer
        self._limits = gatherer.limits
        self._model = model
        self._unlock = unlock
        self._hold = hold
        self.knock = knock
        self._wall = wall
        self._consult = Consult(gatherer, count_in=count_in, wall=wall)
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no job is being answered here."""
        await self._idle.wait()

    def recall(self, refusals: Iterable[Refusal]) -> None:
        """Keep to what an earlier life was told: who asked not to be asked for a while is not asked before."""
        for refusal in refusals:
            self._hold(refusal)

    async def stop(self, record: JobRecord, progress: Any) -> bool:
        """Ask the providers to stop this job's calls; True when one is running there, whose end is then fetched."""
        stopped = False
        self._consult.stop_waiting(record)
        for _ in range(100):  # a job that was just resumed takes its calls up in a moment
            taken = {call.name for _, call in self._consult.calls.get(record, [])}
            if taken.issuperset(await record.journal.run(record.under_way)):
                break
            await asyncio.sleep(0.1)
        for model, call in self._consult.calls.get(record, []):
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
        self._consult.calls[record] = []
        self._idle.clear()
        try:
            return await record.journal.run(self._whole, await self._answer(record, progress, course), record)
        except Over as over:
            await record.journal.run(self._receive_rest, record, course)
            over = await self._told(over, record, course)
            result = self._result(course, over.status, error=over.error, problems=over.problems)
            return await record.journal.run(self._veiled, result)
        except BaseException:
            with contextlib.suppress(OSError):
                self._receive_rest(record, course)
            raise
        finally:
            progress.egress = tuple(course.egress)
            del self._consult.calls[record]
            if not self._consult.calls:
                self._idle.set()
            course.timings["total"] = round(time.monotonic() - started, 3)

    async def _answer(self, record: JobRecord, progress: Any, course: Course) -> Result:
        claim = record.claim
        try:
            # A way to another thread and back costs more than to read a small request; a follow-up reads the journal.
            follows = names.followed(claim.name)
            run = _here if len(claim.data) <= _SMALL and follows is None else record.journal.run
            request = await run(follow.read, record)
        except RequestError as error:
            fail = failure("invalid_request", "the request cannot be used", claim.id)
            raise Over("rejected", fail, map(str, error.problems)) from error
        found = await record.journal.run(recall, record) if record.found or record.heir else None
        limits = self._limits
        course.decided = found or Decided(asked(request, limits), limits.retry_below, limits.ladder)
        record.decided = course.decided.header()
        title = request.questions[-1] if follows else request.issue
        course.ref = replace(course.ref, title=_title(title), follows=follows[0] if follows else "")
        course.warnings += request.warnings
        if request.options.id not in ("", claim.id):
            course.warnings.append(f"`id: {request.options.id}` is not heeded: the file's name says {claim.id}")
        models = course.decided.models
        if request.options.compare and len(models) == 1:
            course.warnings.append("there is nothing to compare: name further models, or set `compare_models`")
        course.model = progress.model = ", ".join(models)
        if len(models) > 1:
            return await self._compared(record, request, models, progress, course)
        model = await self._find(models[0], record, request, course)
        answered = await self._consult.finish(await self._consult.begin(record, request, model, progress, course))
        result = self._result(course, "answered", read=answered.read)
        if course.decided.retry_below and not answered.reply.simulated:
            answered = await self._tested(answered)
            reached = await record.journal.run(steps_begun, record)
            if reached or course.decided.retry_below > answered.read.confidence.score:
                result = await self._climbed(answered, course, reached)
        await record.journal.run(self._receive_rest, record, course)
        return replace(result, egress=tuple(course.egress))

    async def _find(self, name: str, record: JobRecord, request: Request, course: Course) -> tuple[Model, ModelFacts]:
        await record.journal.run(self._unlock, name)
        try:
            model, facts = self._model(name)
        except Refused as error:
            left = await record.journal.run(_left, record, name, error) if record.found or record.heir else None
            if left is not None:
                return left
            named = bool(request.options.models) and error.kind == "unknown_model"
            raise Over(
                "rejected" if named else "failed",
                failure(error.kind, error.message, course.ref.id),
                (error.message,) if named else (),
            ) from error
        note = warning(facts, _day(self._wall()))
        if note:
            course.warnings.append(note)
        return model, facts

    async def _compared(
        self, record: JobRecord, request: Request, models: Sequence[str], progress: Any, course: Course
    ) -> Result:
        """Ask several models side by side. One that gives no answer has a reason; the others' answers stand."""
        several = Several(progress, len(models))
        parts = [Course(course.ref, course.spend, course.decided, model=name) for name in models]
        ends: list[Analysis | Over] = []
        try:
            begun = [
                await self._begun(record, request, models, place, part, several) for place, part in enumerate(parts)
            ]
            # A disk that fails the one must not cut off what the others have paid for; a cancellation reaches all.
            done = await asyncio.gather(
                *(self._end(place, one, several) for place, one in enumerate(begun)), return_exceptions=True
            )
            for end in done:
                if isinstance(end, BaseException) and not isinstance(end, Over):
                    raise end
                ends.append(end)
        finally:
            merge(course, parts)
        overs = [end for end in ends if isinstance(end, Over)]
        comparison, read = compare([opinion(part, end) for part, end in zip(parts, ends, strict=True)])
        if read is None or any(over.status == "cancelled" for over in overs):
            raise worst(overs)
        shown = parts[models.index(comparison.shown)]
        course.model, course.raw, course.simulated = shown.model, shown.raw, shown.simulated
        await record.journal.run(self._receive_rest, record, course)
        return replace(self._result(course, "answered", read=read), comparison=comparison)

    async def _begun(
        self, record: JobRecord, request: Request, models: Sequence[str], place: int, part: Course, several: Several
    ) -> Begun | Over:
        progress = several.part(place, part.model)
        try:
            model = await self._find(part.model, record, request, part)
            return await self._consult.begin(record, request, model, progress, part, place=place, among=models)
        except Over as over:
            if over.status == "duplicate" or (over.error is not None and over.error.kind == "loop"):
                raise  # it is one question, whoever is asked
            several.end(place)
            return over

    async def _end(self, place: int, begun: Begun | Over, several: Several) -> Analysis | Over:
        try:
            return begun if isinstance(begun, Over) else (await self._consult.finish(begun)).read
        except Over as over:
            return over
        finally:
            several.end(place)

    async def _tested(self, answered: Answered) -> Answered:
        """Give an answer the confidence that a RESULT would show: what its edits make of the files is a part of it."""
        course = answered.turn.course
        bare = Result("answered", course.ref, "", analysis=answered.read)
        shown = (await answered.turn.record.journal.run(self._veiled, bare)).analysis
        return replace(answered, read=replace(answered.read, confidence=shown.confidence)) if shown else answered

    async def _climbed(self, first: Answered, course: Course, reached: int) -> Result:
        """Take the steps of the ladder until one is sure enough. What each said is laid beside the others.

        The first `reached` were begun in an earlier life: the files may be others now, but these steps were decided on.
        """
        name = course.model
        replies = {name: first.reply}
        opinions = [opinion(replace(course, model=name), first.read)]
        comparison, shown = compare(opinions)
        last = first
        for place, step in enumerate(course.decided.ladder[:_STEPS], 1):
            sure = shown is not None and shown.confidence.score >= course.decided.retry_below
            if (sure or first.turn.progress.reason == "cancelled") and place > reached:
                break
            label = {"context": f"{name}, with more files", "critic": f"{name}, as a critic"}.get(step, step)
            cost, took = course.cost_usd, sum(course.timings.values())
            try:
                answered = await self._step(place, step, last, course)
                if answered is None:
                    course.warnings.append("more files were to be sent, as the confidence was low; none were found")
                    continue
                last = answered = await self._tested(answered)
                replies[label] = answered.reply
                end: Analysis | Over = answered.read
            except Over as over:
                if over.status in ("cancelled", "uncertain"):
                    raise
                end = over
            spent = None if course.cost_usd is None else course.cost_usd - (cost or 0.0)
            seconds = round(sum(course.timings.values()) - took, 3)
            opinions.append(replace(opinion(replace(course, model=label), end), cost_usd=spent, seconds=seconds))
            comparison, shown = compare(opinions)
        reply = replies[comparison.shown]
        course.raw = reply.text
        course.model = comparison.shown if comparison.shown in course.decided.ladder else name
        result = self._result(course, "answered", read=shown)
        return replace(result, comparison=comparison) if len(opinions) > 1 else result

    async def _step(self, place: int, step: str, last: Answered, course: Course) -> Answered | None:
        if step == "context":
            return await self._consult.wider(last, place)
        if step == "critic":
            return await self._consult.critic(last, place)
        turn = last.turn
        model = await self._find(step, turn.record, turn.request, course)
        return await self._consult.finish(
            await self._consult.begin(
                turn.record, turn.request, model, turn.progress, course, place=place, began=turn.began
            )
        )

    def _veiled(self, result: Result) -> Result:
        """Take out the secrets that a model, a provider or the request brought; try the edits. Reads the workspace.

        In this order: an edit out of which something was taken is not tried; a title is cut that holds none.
        """
        gatherer, key = self._gatherer, result.request.id
        clean = veil(result, known=gatherer.secrets(), seed=key, sieve=gatherer.sieve)
        clean = replace(clean, request=replace(clean.request, title=_short(clean.request.title)))
        try:
            return tried(clean, names.result_name(key, "patch"), gatherer.now, lambda parts: gatherer.hide(parts, key))
        except OSError:
            raise
        except Exception:  # noqa: BLE001 - a fault of ours, in what only goes along: the answer is paid for, and stands
            structlog.get_logger("delegated.answer").exception("patch.broke")
            return replace(clean, patch_notes=("the edits could not be tried, by a fault in delegated itself",))

    def _whole(self, result: Result, record: JobRecord) -> Result:
        """Return an answer's result as it is published. Blocking."""
        loose = self._loose(record)
        warned = replace(result, warnings=(*result.warnings, _not_taken_up(loose))) if loose else result
        return self._veiled(warned)

    async def _told(self, over: Over, record: JobRecord, course: Course) -> Over:
        """Return how a job ends without an answer, where a call of it has left and was not even looked up.

        Settings that changed between two lives may end it before it comes to that call. Then nobody knows of it, and
        no other word than `uncertain` is true.
        """
        loose = await record.journal.run(self._loose, record)
        if not loose:
            return over
        if over.status in ("uncertain", "cancelled"):
            course.warnings.append(_not_taken_up(loose))
            return over
        why = over.error.message if over.error else f"a duplicate of {course.duplicate_of}"
        course.duplicate_of = ""
        message = f"{loose} had left already, may be billed, and was not taken up, as the job ends before it: {why}"
        return Over("uncertain", failure("uncertain", message, record.claim.id), over.problems)

    def _loose(self, record: JobRecord) -> str:
        """Name the calls that are under way and that this life did not take up. Blocking."""
        taken = {call.name for _, call in self._consult.calls[record]}
        return ", ".join(name for name in record.under_way() if name not in taken)

    def _receive_rest(self, record: JobRecord, course: Course) -> None:
        """Put on the receipt what an earlier life sent, and this one did not come to: its settings may be others.

        Blocking; raises `OSError`.
        """
        told = {receipt.call for receipt in course.egress}
        for name in record.call_names():
            call = record.call(int(name[:2]), name[3:])
            if call.departures and name not in told:
                prompt = None
                with contextlib.suppress(ValueError):  # of another version of this program
                    prompt = prompts.from_json(call.load_prompt() or "")
                course.egress += self._consult.receipts(call, prompt)

    def _result(
        self,
        course: Course,
        status: Status,
        *,
        read: Analysis | None = None,
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
            duplicate_of=course.duplicate_of,
            problems=problems,
            warnings=tuple(dict.fromkeys(course.warnings)),
            egress=tuple(course.egress),
            usage=course.usage,
            cost_usd=course.cost_usd,
            attempts=course.attempts,
            timings=course.timings,
            raw_response=course.raw,
        )


def _left(record: JobRecord, name: str, why: Refused) -> tuple[Model, ModelFacts] | None:
    """Stand in for a model that is not to be had any more and to which a call has left; None where none has. Blocking.

    What it answered may be on record; else nobody can be asked about it.
    """
    sent = next((c.sent for c in record.calls() if c.may_be_billed and c.sent.get("model") == name), None)
    if sent is None:
        return None
    wire = str(sent.get("wire", ""))
    facts = ModelFacts(name, wire, _UNKNOWN_TOKENS, _UNKNOWN_TOKENS // 8, None, None, None)
    return Refusing(name, str(sent.get("endpoint", "")), wire, why), facts


async def _here(function: Callable[..., T], *args: Any) -> T:
    return function(*args)


def _not_taken_up(loose: str) -> str:
    return f"{BILLED}: {loose}, which was not taken up"


def _title(issue: str) -> str:
    return next((line.strip() for line in issue.splitlines() if line.strip()), "")


def _short(title: str) -> str:
    return title if len(title) <= _TITLE else title[: _TITLE - 1] + "…"


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def timestamp(seconds: float) -> str:
    """Write a moment as RFC 3339 in UTC, to the millisecond."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
