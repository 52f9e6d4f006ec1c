"""Retrying and the gate: who asks again, when, in which order, and who never does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asking import CHAT, PROMPT, RESPONSES, call_in, calls_in, chat, responses
from delegated.errors import Refused, Unavailable, Uncertain
from delegated.models import CallLog, Model
from delegated.models.gate import Gate, Gated, Pause
from delegated.models.recorded import Patience
from delegated.models.retrying import Retrying
from delegated.reply import Reply
from delegated.testing import Server

SHORT = {
    "rate_limited": Pause(0.1, 5.0),
    "quota_exhausted": Pause(0.2, 5.0),
    "unreachable": Pause(0.05, 0.2),
}


def limited(**more: Any) -> dict[str, Any]:
    return {"match": RESPONSES, "do": {"error": "rate_limited", **more}, "times": 1}


def times(server: Server, path: str = "/v1/responses") -> list[float]:
    return [entry["at"] for entry in server.state()["log"] if (entry["method"], entry["path"]) == ("POST", path)]


class Clock:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@asynccontextmanager
async def retrying(model: Model, **settings: Any) -> AsyncIterator[tuple[Retrying, Clock]]:
    clock = Clock()
    again = Retrying(model, **{"clock": clock, "sleep": clock.sleep, "chance": lambda: 0.999, **settings})
    try:
        yield again, clock
    finally:
        await again.close()


async def test_a_rate_limit_is_waited_out_and_the_call_answered(tmp_path: Path) -> None:
    """429, then an answer: the same call is sent again, after at least the time that was asked for, and paid once."""
    said: list[tuple[str, str]] = []
    async with Server(rules=[limited(retry_after=0.2)]) as server:
        model = Retrying(Gated(responses(server.base_url), Gate()), base_s=0.01)
        with call_in(tmp_path, said=said) as call:
            assert (await model.ask(PROMPT, call)).outcome == "completed"
            assert call.sends == 2
        await model.close()
        first, second = times(server)
        assert second - first >= 0.2
        assert len(server.bills) == 1
    assert ("backing off", said[1][1]) == said[1]
    assert "HTTP 429" in said[1][1]


async def test_waits_grow_are_jittered_and_capped(tmp_path: Path) -> None:
    """Between half and the whole of base · 2ⁿ, never above the cap; with the attempts used the last error is raised."""
    for chance, expected in ((0.0, [0.5, 1, 2, 4, 4]), (1.0, [1, 2, 4, 8, 8])):
        async with (
            Server() as server,
            retrying(chat(f"http://127.0.0.1:{server.port}/v1"), cap_s=8, chance=lambda c=chance: c) as (model, clock),
        ):
            await server.stop()
            with call_in(tmp_path) as call, pytest.raises(Unavailable) as caught:
                await model.ask(PROMPT, call)
        assert caught.value.kind == "unreachable"
        assert clock.slept == pytest.approx(expected)


async def test_a_rate_limit_counts_towards_the_deadline_only(tmp_path: Path) -> None:
    """However often the provider says "later", the call is asked again, until its time is used up."""
    rules = [{"match": RESPONSES, "times": "always", "do": {"error": "rate_limited", "retry_after": 60}}]
    async with Server(rules=rules) as server:
        async with retrying(responses(server.base_url), attempts=2, deadline_s=600) as (model, clock):
            with call_in(tmp_path) as call, pytest.raises(Unavailable) as caught:
                await model.ask(PROMPT, call)
        assert caught.value.kind == "rate_limited"
        assert len(clock.slept) > 2
        assert all(wait >= 60 for wait in clock.slept)
        assert clock.now < 600


async def test_a_provider_cannot_put_us_to_sleep_for_ever(tmp_path: Path) -> None:
    """A Retry-After of 10^9 seconds is capped."""
    async with Server(rules=[limited(retry_after=1_000_000_000)]) as server:
        async with retrying(responses(server.base_url), after_cap_s=300) as (model, clock):
            with call_in(tmp_path) as call:
                assert (await model.ask(PROMPT, call)).outcome == "completed"
        assert clock.slept == [pytest.approx(300, abs=1)]


@pytest.mark.parametrize(
    ("fault", "error"),
    [({"error": "insufficient_quota"}, Unavailable), ({"error": "bad_key"}, Refused)],
)
async def test_what_only_a_person_can_change_is_not_retried(tmp_path: Path, fault: Any, error: type) -> None:
    """An exhausted quota and a refusal come back at once: one POST."""
    async with Server(rules=[{"match": RESPONSES, "do": fault}]) as server:
        async with retrying(responses(server.base_url)) as (model, clock):
            with call_in(tmp_path) as call, pytest.raises(error):
                await model.ask(PROMPT, call)
        assert clock.slept == []
        assert len(times(server)) == 1


async def test_a_call_in_doubt_is_not_retried(tmp_path: Path) -> None:
    """`Uncertain` passes through: there is nothing that may be repeated."""
    async with Server(rules=[{"match": CHAT, "do": {"status": 500, "bill": True}}]) as server:
        async with retrying(chat(server.base_url)) as (model, clock):
            with call_in(tmp_path) as call, pytest.raises(Uncertain):
                await model.ask(PROMPT, call)
        assert clock.slept == []
        assert len(server.bills) == 1


async def test_a_wait_can_be_cancelled(tmp_path: Path) -> None:
    """A job that is stopped while it backs off or is held back leaves at once, and the next is let through."""
    async with Server(rules=[limited(retry_after=30)]) as server:
        gate = Gate()
        model = Retrying(Gated(responses(server.base_url), gate))
        with calls_in(tmp_path, 2) as (one, two):
            backing_off = asyncio.create_task(model.ask(PROMPT, one))
            while not gate.reason:
                await asyncio.sleep(0.01)
            held_back = asyncio.create_task(model.ask(PROMPT, two))
            await asyncio.sleep(0.05)
            for task in (backing_off, held_back):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        await model.close()
        assert len(times(server)) == 1


async def test_one_refusal_holds_all_back_and_they_go_on_in_order(tmp_path: Path) -> None:
    """While the gate is closed nothing new is sent; then one probe goes, and the rest in order when it is accepted."""
    async with Server(rules=[limited(retry_after=0.3)]) as server:
        gate = Gate(chance=lambda: 0.0)
        model = Retrying(Gated(responses(server.base_url), gate), base_s=0.01)
        asked: list[CallLog] = []
        with calls_in(tmp_path, 6) as calls:
            tasks = [asyncio.create_task(model.ask(PROMPT, calls[0]))]
            while not gate.reason:
                await asyncio.sleep(0.01)
            for call in calls[1:]:
                call.on_phase = lambda name, detail, call=call: asked.append(call) if name == "asking" else None
                tasks.append(asyncio.create_task(model.ask(PROMPT, call)))
                await asyncio.sleep(0)
            assert asked == []
            replies = await asyncio.gather(*tasks)
        await model.close()
        at = times(server)
        assert len(at) == 7
        assert at[1] - at[0] >= 0.3
        assert asked == calls[1:]
        assert {bill.call for bill in server.bills} == {call.call_id for call in calls}
    assert {reply.outcome for reply in replies} == {"completed"}


async def test_what_sends_nothing_new_passes_a_closed_gate(tmp_path: Path) -> None:
    """A recorded reply, an accepted call and a look-up are not held back: they cost nothing."""
    async with Server(rules=[{"match": RESPONSES, "do": {"stall": "silent", "bill": True}}]) as server:
        lost = responses(server.base_url)
        with call_in(tmp_path) as call:
            task = asyncio.create_task(lost.ask(PROMPT, call))
            while not server.bills:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
        await lost.close()
        gate = Gate()
        closing = await gate.enter(call)
        closing.refused(Unavailable("rate_limited", "later", retry_after=300))
        model = Gated(responses(server.base_url, patience=Patience(poll_first_s=0.01, poll_cap_s=0.05)), gate)
        with call_in(tmp_path) as call:
            assert call.in_doubt
            reply = await model.ask(PROMPT, call)
        with call_in(tmp_path) as call:
            assert await model.ask(PROMPT, call) == reply
        await model.close()
        assert len(server.bills) == 1


async def test_an_exhausted_quota_stops_the_lane_and_says_why(tmp_path: Path) -> None:
    """The one that met it fails with the reason; the others are held back, see it, and resume when it is over."""
    said: list[tuple[str, str]] = []
    async with Server(rules=[{"match": RESPONSES, "do": {"error": "insufficient_quota"}}]) as server:
        gate = Gate(pauses=SHORT)
        model = Retrying(Gated(responses(server.base_url), gate))
        with calls_in(tmp_path, 3) as calls:
            with pytest.raises(Unavailable) as caught:
                await model.ask(PROMPT, calls[0])
            assert caught.value.kind == "quota_exhausted"
            calls[1].on_phase = lambda name, detail: said.append((name, detail))
            await asyncio.gather(*(model.ask(PROMPT, call) for call in calls[1:]))
        await model.close()
        at = times(server)
        assert at[1] - at[0] >= 0.2
        assert len(server.bills) == 2
    assert said[0][0] == "held back"
    assert "exceeded your current quota" in said[0][1]
    assert gate.reason != ""  # two acceptances have opened it a little, not wide


async def test_the_pause_doubles_until_one_is_accepted(tmp_path: Path) -> None:
    """Where the provider says nothing, each refusal in a row closes the gate for twice as long, up to a cap."""
    gate = Gate(pauses={"quota_exhausted": Pause(0.02, 0.1)}, chance=lambda: 0.0)
    with call_in(tmp_path) as call:

        async def refused() -> float:
            (await gate.enter(call)).refused(Unavailable("quota_exhausted", "later"))
            return gate.wait_s

        for pause in (0.02, 0.04, 0.08, 0.1, 0.1):
            start = time.monotonic()
            assert await refused() <= pause
            through = await gate.enter(call)
            assert time.monotonic() - start >= pause - 0.001
            through.ended()
        (await gate.enter(call)).accepted()
        assert await refused() <= 0.02


async def test_many_refusals_at_once_close_the_gate_once(tmp_path: Path) -> None:
    """Those sent together and refused together are one refusal: the pause is not doubled for each of them."""
    gate = Gate(pauses={"rate_limited": Pause(0.05, 1000.0)}, chance=lambda: 0.0)
    with calls_in(tmp_path, 20) as calls:
        through = [await gate.enter(call) for call in calls]
        for one in through:
            one.refused(Unavailable("rate_limited", "later"))
        async with asyncio.timeout(10):
            (await gate.enter(calls[0])).ended()


async def test_the_gate_opens_little_by_little(tmp_path: Path) -> None:
    """After a refusal one goes through, then two, then four: no herd; and wide open after enough acceptances."""
    gate = Gate(pauses={"rate_limited": Pause(0.0, 1.0)})
    with calls_in(tmp_path, 90) as calls:
        (await gate.enter(calls[0])).refused(Unavailable("rate_limited", "later"))
        tasks = [asyncio.create_task(gate.enter(call)) for call in calls[1:]]
        widths = []
        while tasks:
            await asyncio.sleep(0.01)
            through = [task for task in tasks if task.done()]
            tasks = [task for task in tasks if not task.done()]
            widths.append(len(through))
            for task in through:
                task.result().accepted()
        assert widths[:4] == [1, 2, 4, 8]
        assert gate.reason == ""


async def test_nobody_slips_through_before_those_who_wait(tmp_path: Path) -> None:
    """A newcomer in the moment in which the gate opens goes behind those who were there before."""
    gate = Gate(pauses={"rate_limited": Pause(0.05, 1.0)}, chance=lambda: 0.0)
    with calls_in(tmp_path, 3) as calls:
        (await gate.enter(calls[0])).refused(Unavailable("rate_limited", "later"))
        waiting = asyncio.create_task(gate.enter(calls[1]))
        await asyncio.sleep(0)
        time.sleep(0.06)  # the loop is busy: the time is up, and nobody has been woken yet
        newcomer = asyncio.create_task(gate.enter(calls[2]))
        async with asyncio.timeout(10):
            first = await waiting
        assert not newcomer.done()
        first.accepted()
        (await newcomer).ended()


async def test_a_probe_that_hangs_does_not_hold_up_all(tmp_path: Path) -> None:
    """Where acceptance shows only with the answer, a send that was not refused for a while counts as accepted."""
    gate = Gate(pauses={"rate_limited": Pause(0.0, 1.0)}, probe_s=0.05)
    with calls_in(tmp_path, 3) as calls:
        (await gate.enter(calls[0])).refused(Unavailable("rate_limited", "later"))
        probe = await gate.enter(calls[1])
        async with asyncio.timeout(10):
            other = await gate.enter(calls[2])
        probe.refused(Unavailable("rate_limited", "it was refused after all"))
        assert gate.reason == "it was refused after all"
        other.ended()


async def test_a_turn_that_comes_to_a_cancelled_call_goes_to_the_next(tmp_path: Path) -> None:
    """Cancelled in the very moment in which it is let through, a call does not block those behind it."""
    gate = Gate(pauses={"rate_limited": Pause(0.0, 1.0)})
    with calls_in(tmp_path, 4) as calls:
        (await gate.enter(calls[0])).refused(Unavailable("rate_limited", "later"))
        probe = await gate.enter(calls[1])
        waiting = [asyncio.create_task(gate.enter(call)) for call in calls[2:]]
        await asyncio.sleep(0)
        probe.ended()  # the turn is the first one's, who has not yet woken up
        waiting[0].cancel()
        async with asyncio.timeout(10):
            (await waiting[1]).ended()
        assert waiting[0].cancelled()


async def test_an_outage_is_met_by_one_probe_at_a_time(tmp_path: Path) -> None:
    """With the network away and many waiting, they do not all knock; when it is back all are served."""
    async with Server() as server:
        await server.stop()
        gate = Gate(pauses=SHORT)
        model = Retrying(Gated(responses(server.base_url), gate), attempts=1000, base_s=0.01, cap_s=0.02)
        knocks: list[int] = []
        with calls_in(tmp_path, 30) as calls:
            for call in calls:
                call.on_phase = lambda name, detail: knocks.append(1) if name == "asking" else None
            tasks = [asyncio.create_task(model.ask(PROMPT, call)) for call in calls]
            while not gate.reason:
                await asyncio.sleep(0.01)
            before = len(knocks)
            start = time.monotonic()
            await asyncio.sleep(0.5)
            probes, elapsed = len(knocks) - before, time.monotonic() - start
            await server.start()
            replies = await asyncio.gather(*tasks)
        await model.close()
        assert probes <= elapsed / 0.05 + 1
        assert len(server.bills) == len({bill.call for bill in server.bills}) == 30
    assert {reply.outcome for reply in replies} == {"completed"}


async def test_wrappers_pass_everything_on(tmp_path: Path) -> None:
    """A wrapped model has its model's name, endpoint and wire, and cancels and closes through."""
    async with Server(rules=[{"match": RESPONSES, "do": {"run": "forever"}}]) as server:
        model = Retrying(Gated(responses(server.base_url), Gate()))
        assert (model.name, model.endpoint, model.wire) == ("gpt-4o", server.base_url, "responses")
        with call_in(tmp_path) as call:
            task: asyncio.Task[Reply] = asyncio.create_task(model.ask(PROMPT, call))
            while not call.response_id:
                await asyncio.sleep(0.01)
            await model.cancel(call)
            assert (await task).outcome == "cancelled"
        await model.close()
