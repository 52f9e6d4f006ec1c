"""The gate: who asks again, when, in which order, and who never does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from asking import CHAT, PROMPT, RESPONSES, call_in, calls_in, chat, responses
from delegated.calls import CallRecord
from delegated.disk import Directory
from delegated.errors import Refused, Unavailable, Uncertain
from delegated.journal import Journal
from delegated.models import CallLog
from delegated.models.gate import Gate, Gated, Pause
from delegated.models.recorded import Patience
from delegated.reply import Reply
from delegated.testing import Server

SHORT = {
    "rate_limited": Pause(0.1, 5.0),
    "quota_exhausted": Pause(0.2, 5.0, person=True),
    "bad_key": Pause(0.2, 5.0, person=True),
    "unreachable": Pause(0.05, 0.2),
}


def limited(**more: Any) -> dict[str, Any]:
    return {"match": RESPONSES, "do": {"error": "rate_limited", **more}, "times": 1}


def times(server: Server, path: str = "/v1/responses") -> list[float]:
    return [entry["at"] for entry in server.state()["log"] if (entry["method"], entry["path"]) == ("POST", path)]


async def test_a_rate_limit_is_waited_out_and_the_call_answered(tmp_path: Path) -> None:
    """429, then an answer: the same call is sent again, after at least the time that was asked for, and paid once."""
    said: list[tuple[str, str]] = []
    async with Server(rules=[limited(retry_after=0.2)]) as server:
        model = Gated(responses(server.base_url), Gate())
        with call_in(tmp_path, said=said) as call:
            assert (await model.ask(PROMPT, call)).outcome == "completed"
            assert call.sends == 2
        await model.close()
        first, second = times(server)
        assert second - first >= 0.2
        assert len(server.bills) == 1
    assert ("backing off", said[1][1]) == said[1]
    assert "HTTP 429" in said[1][1]


async def test_waits_grow_are_jittered_and_capped() -> None:
    """Between three quarters and the whole of first · 2ⁿ, never above the cap."""
    for chance, part in ((0.0, 1.0), (0.999, 0.75)):
        waits = []
        for row in range(1, 9):
            gate = Gate(chance=lambda c=chance: c)
            gate.hold(Unavailable("unreachable", "off"), row, 0.0)
            waits.append(gate.wait_s)
        assert waits == pytest.approx([part * wait for wait in (1, 2, 4, 8, 16, 32, 60, 60)], abs=0.2)


async def test_a_service_waits_as_long_as_it_takes(tmp_path: Path) -> None:
    """Nothing can be reached: the call comes back again and again, says why, and is answered when there is somebody."""
    said: list[tuple[str, str]] = []
    async with Server() as server:
        await server.stop()
        model = Gated(chat(f"http://127.0.0.1:{server.port}/v1"), Gate(pauses=SHORT))
        with call_in(tmp_path, said=said) as call:
            task = asyncio.create_task(model.ask(PROMPT, call))
            async with asyncio.timeout(20):
                while call.sends < 9:
                    await asyncio.sleep(0.01)
            assert isinstance(call.held, Unavailable)
            assert call.held.kind == "unreachable"
            await server.start()
            assert (await task).outcome == "completed"
            assert call.held is None
        await model.close()
        assert len(server.bills) == 1
    waits = [detail for name, detail in said if name == "backing off"]
    assert all(re.match(r"since 20\d\d-\d\d-\d\dT[\d:]+Z, .*cannot be reached", detail) for detail in waits)
    assert len({detail.partition(",")[0] for detail in waits}) == 1, "since when it is off, not since the last try"


async def test_where_it_is_to_end_attempts_are_counted(tmp_path: Path) -> None:
    """With attempts given the last error is raised; a rate limit is none of them."""
    async with Server(rules=[limited(retry_after=0.01)]) as server:
        model = Gated(chat(server.base_url), Gate(pauses=SHORT), attempts=2)
        server.script([{"match": CHAT, "times": 3, "do": {"error": "rate_limited", "retry_after": 0.01}}])
        with calls_in(tmp_path, 2) as (one, two):
            assert (await model.ask(PROMPT, one)).outcome == "completed"
            assert one.sends == 4
            await server.stop()
            with pytest.raises(Unavailable) as caught:
                await model.ask(PROMPT, two)
            assert caught.value.kind == "unreachable"
            assert two.sends == 2
        await model.close()


async def test_what_the_provider_stumbles_over_each_time_is_given_up(tmp_path: Path) -> None:
    """A call that leaves and is lost again and again, proven absent each time, is not sent for ever."""
    rules = [{"match": RESPONSES, "times": "always", "do": {"status": 500}}]
    brief = Patience(poll_first_s=0.01, poll_cap_s=0.02, deadline_s=0.05, doubt_s=0.05)
    async with Server(rules=rules) as server:
        model = Gated(responses(server.base_url, patience=brief), Gate(pauses={"provider_failed": Pause(0.01, 0.02)}))
        with call_in(tmp_path) as call, pytest.raises(Unavailable) as caught:
            await model.ask(PROMPT, call)
        await model.close()
        assert caught.value.kind == "provider_failed"
        assert len(times(server)) == 6
        assert server.bills == []


async def test_a_provider_cannot_put_us_to_sleep_for_ever_nor_keep_us_spinning() -> None:
    """A Retry-After of 10^9 seconds is capped, one of 0 grows; what was asked for is never cut short."""
    error = lambda seconds: Unavailable("rate_limited", "later", retry_after=seconds)  # noqa: E731
    for asked, row, low, high in ((1e9, 1, 300, 331), (20, 1, 20, 22.1), (0, 1, 0.04, 0.06), (0, 20, 290, 301)):
        gate = Gate()
        gate.hold(error(asked), row, 0.0)
        assert low - 0.02 <= gate.wait_s <= high


async def test_a_pause_outlives_us() -> None:
    """What an earlier life was told holds for what is left of it, and no longer."""
    gate = Gate()
    gate.hold(Unavailable("rate_limited", "later", retry_after=100), 1, 40)
    assert 59 <= gate.wait_s <= 71
    gate = Gate()
    gate.hold(Unavailable("rate_limited", "later", retry_after=100), 1, 111)
    assert gate.wait_s == 0
    assert gate.reason == ""


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"error": "insufficient_quota"}, Unavailable),
        ({"error": "payment_required"}, Unavailable),
        ({"error": "bad_key"}, Refused),
    ],
)
async def test_what_only_a_person_can_change_is_told_once_and_the_others_wait(
    tmp_path: Path, fault: Any, error: type
) -> None:
    """The first that meets an exhausted quota or a refused key is told at once; the next one waits."""
    rules = [{"match": RESPONSES, "do": fault, "times": 3}]
    async with Server(rules=rules) as server:
        model = Gated(responses(server.base_url), Gate(pauses=SHORT))
        with calls_in(tmp_path, 2) as (one, two):
            with pytest.raises(error):
                await model.ask(PROMPT, one)
            assert one.sends == 1
            assert (await model.ask(PROMPT, two)).outcome == "completed"
            assert two.sends == 3
        await model.close()
        assert len(server.bills) == 1


async def test_where_it_is_to_end_everybody_is_told(tmp_path: Path) -> None:
    """A run that is to end fails each call at once."""
    rules = [{"match": RESPONSES, "do": {"error": "insufficient_quota"}, "times": "always"}]
    async with Server(rules=rules) as server:
        model = Gated(responses(server.base_url), Gate(pauses=SHORT), patient=False)
        with calls_in(tmp_path, 2) as calls:
            for call in calls:
                with pytest.raises(Unavailable):
                    await model.ask(PROMPT, call)
        await model.close()
        assert len(times(server)) == 2


async def test_a_refusal_that_is_about_one_request_holds_nobody_back(tmp_path: Path) -> None:
    """400, 403 (one model may be closed to us) and 404 come back at once, and the gate stays open."""
    for fault in ({"error": "unprocessable"}, {"status": 403}, {"error": "model_not_found"}):
        async with Server(rules=[{"match": RESPONSES, "do": fault}]) as server:
            gate = Gate()
            model = Gated(responses(server.base_url), gate)
            folder = tmp_path / str(server.port)
            folder.mkdir()
            with call_in(folder) as call, pytest.raises(Refused):
                await model.ask(PROMPT, call)
            assert gate.reason == ""
            await model.close()


async def test_a_knock_lets_one_try_at_once_but_no_rate_limit_is_broken(tmp_path: Path) -> None:
    """Something was put right (a reload): one call tries; the pause that a provider asked for still stands."""
    with calls_in(tmp_path, 3) as calls:
        gate = Gate()
        (await gate.enter(calls[0])).refused(Unavailable("quota_exhausted", "no money"))
        waiting = [asyncio.create_task(gate.enter(call)) for call in calls[1:]]
        await asyncio.sleep(0.01)
        gate.knock()
        async with asyncio.timeout(10):
            probe = await waiting[0]
        assert not waiting[1].done()
        probe.refused(Unavailable("rate_limited", "later", retry_after=60))
        gate.knock()
        await asyncio.sleep(0.01)
        assert not waiting[1].done()
        assert gate.wait_s > 50
        waiting[1].cancel()


async def test_the_oldest_job_goes_first(tmp_path: Path) -> None:
    """Whoever came late to the gate, the order is that in which the jobs began."""
    gate = Gate(pauses={"rate_limited": Pause(0.05, 1.0)}, chance=lambda: 0.0)
    with Directory(str(tmp_path)) as directory:
        journal = Journal(directory, now=time.time)
        jobs = [journal.claim(f"k{n}", 1, f"OPENAI_DELEGATION_REQUEST_k{n}.md", b"# Issue\n\nWhy?\n") for n in range(4)]
        for turn, job in zip((9, 3, 1, 2), jobs, strict=True):
            job.turn = turn
        calls = [job.call(1, "first") for job in jobs]
        (await gate.enter(calls[0])).refused(Unavailable("rate_limited", "later"))
        order: list[int] = []

        async def go(call: CallRecord) -> None:
            through = await gate.enter(call)
            order.append(call.turn)
            through.accepted()

        async with asyncio.timeout(10):
            await asyncio.gather(*(go(call) for call in calls))
        journal.close()
    assert order == [1, 2, 3, 9]


async def test_a_call_in_doubt_is_not_asked_again(tmp_path: Path) -> None:
    """`Uncertain` passes through: there is nothing that may be repeated."""
    async with Server(rules=[{"match": CHAT, "do": {"status": 500, "bill": True}}]) as server:
        model = Gated(chat(server.base_url), Gate())
        with call_in(tmp_path) as call, pytest.raises(Uncertain):
            await model.ask(PROMPT, call)
        await model.close()
        assert len(server.bills) == 1


async def test_a_wait_can_be_cancelled(tmp_path: Path) -> None:
    """A job that is stopped while it backs off or is held back leaves at once, and the next is let through."""
    async with Server(rules=[limited(retry_after=30)]) as server:
        gate = Gate()
        model = Gated(responses(server.base_url), gate)
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
        model = Gated(responses(server.base_url), gate)
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
        gate = Gate(pauses=SHORT, chance=lambda: 0.0)
        model = Gated(responses(server.base_url), gate)
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
        model = Gated(responses(server.base_url), gate)
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
        model = Gated(responses(server.base_url), Gate())
        assert (model.name, model.endpoint, model.wire) == ("gpt-4o", server.base_url, "responses")
        with call_in(tmp_path) as call:
            task: asyncio.Task[Reply] = asyncio.create_task(model.ask(PROMPT, call))
            while not call.response_id:
                await asyncio.sleep(0.01)
            await model.cancel(call)
            assert (await task).outcome == "cancelled"
        await model.close()


@pytest.mark.parametrize("make", [responses, chat])
async def test_a_call_that_is_stopped_while_it_connects_leaves_no_doubt(tmp_path: Path, make: Any) -> None:
    """Stopped before a byte of the request left, it is `unsent`: nobody need look it up."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    with full, contextlib.ExitStack() as stack:
        for _ in range(4):  # until its queue is full: who comes now is not answered at all
            plug = stack.enter_context(socket.socket())
            plug.setblocking(False)
            plug.connect_ex(full.getsockname())
        model = make(f"http://127.0.0.1:{full.getsockname()[1]}/v1")
        with call_in(tmp_path) as call:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await model.ask(PROMPT, call)
            assert not call.may_be_billed
            assert call.sends == (1 if make is chat else 0)
        await model.close()


@pytest.mark.parametrize(
    ("make", "answers"),
    [
        (chat, [(400, {"error": {"message": "response_format is not known"}})]),
        (responses, [(200, {"id": "conv_1"}), (400, {"error": {"message": "background is not supported"}})]),
    ],
)
async def test_what_left_in_a_form_that_was_rejected_is_on_the_receipt(tmp_path: Path, make: Any, answers: Any) -> None:
    """Stopped while its second form was still connecting, a call is `unsent`; its words have left all the same."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as stack:
        server.settimeout(20)

        def serve() -> None:
            for status, body in answers:
                connection, _ = server.accept()
                with connection, connection.makefile("rb") as sent:
                    head = list(iter(sent.readline, b"\r\n"))
                    [length] = [int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length")]
                    sent.read(length)
                    for _ in range(4 * (status == 400)):  # who comes now is not answered at all
                        plug = stack.enter_context(socket.socket())
                        plug.setblocking(False)
                        plug.connect_ex(server.getsockname())
                    text = json.dumps(body).encode()
                    lines = f"HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {len(text)}\r\n\r\n"
                    connection.sendall(lines.encode() + text)

        model = make(f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        first = dict(vars(model._wire))
        with call_in(tmp_path) as call:
            task: asyncio.Task[Reply] = asyncio.create_task(model.ask(PROMPT, call))
            await asyncio.to_thread(serve)
            while dict(vars(model._wire)) == first and not task.done():
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not call.may_be_billed
            assert (call.sends, list(call.departures)) == (1, [1])
        await model.close()
