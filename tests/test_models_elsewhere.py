"""A call that was sent elsewhere than the settings say now: what is not found here is not proven absent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asking import CHAT, KEY, PROMPT, RESPONSES, call_in, chat, client_of, responses
from delegated.errors import Unavailable, Uncertain
from delegated.job import CallState
from delegated.models.recorded import Recorded
from delegated.testing import Server

KEY_2 = "sk-proj-Zyx987Wvu654Tsr321"
SENT = ".delegated/jobs/*/k/r1/calls/01-first/sent.1"


def posts(server: Server) -> int:
    requests = server.state()["requests"]
    return sum(requests.get(f"POST /v1/{path}", 0) for path in ("responses", "chat/completions"))


async def killed(model: Recorded, folder: Path, server: Server) -> None:
    """Ask, and stop in doubt at the instant of the bill."""
    with call_in(folder) as call:
        task = asyncio.create_task(model.ask(PROMPT, call))
        while not (server.bills or task.done()):
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert call.state is CallState.SENT
    await model.close()


async def asked_again(model: Recorded, folder: Path) -> Any:
    try:
        with call_in(folder) as call:
            return await model.ask(PROMPT, call)
    finally:
        await model.close()


def lost(match: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"match": match, "do": {"stall": "silent", "bill": True, **more}}]


@pytest.mark.parametrize("changed", ["store", "endpoint", "key", "wire"])
async def test_what_another_place_does_not_know_is_not_absent(tmp_path: Path, changed: str) -> None:
    """Asked of another store, endpoint, account or interface, a look-up that finds nothing leaves the call in doubt."""
    async with Server(rules=lost(CHAT, lag=60)) as server, Server() as other:
        await killed(chat(server.base_url, store=changed != "store"), tmp_path, server)
        here = other if changed == "endpoint" else server
        if changed == "wire":
            later = responses(here.base_url)
        else:
            later = chat(here.base_url, store=True, client={"api_key": KEY_2} if changed == "key" else {})
        with pytest.raises(Uncertain):
            await asked_again(later, tmp_path)
        assert (posts(server), posts(other)) == (1, 0)
    with call_in(tmp_path) as call:
        assert call.state is CallState.SENT


async def test_the_same_place_may_prove_it_absent(tmp_path: Path) -> None:
    """The same endpoint, store and key after a restart: what is not there was not accepted, and is sent again."""
    async with Server(rules=lost(CHAT, lag=60)) as server:
        await killed(chat(server.base_url, store=True), tmp_path, server)
        assert (await asked_again(chat(server.base_url, store=True), tmp_path)).outcome == "completed"
        assert posts(server) == 2


async def test_an_answer_that_is_found_under_another_key_is_used(tmp_path: Path) -> None:
    """It bears the call's own name: a key that was renewed shows it, and nothing is sent again."""
    async with Server(rules=lost(CHAT)) as server:
        await killed(chat(server.base_url, store=True), tmp_path, server)
        renewed = chat(server.base_url, store=True, client={"api_key": KEY_2})
        assert (await asked_again(renewed, tmp_path)).outcome == "completed"
        assert (len(server.bills), posts(server)) == (1, 1)


async def test_a_conversation_without_an_answer_proves_nothing_under_another_key(tmp_path: Path) -> None:
    """Over `responses` the same holds for the items of the conversation."""
    async with Server(rules=lost(RESPONSES, lag=60)) as server:
        await killed(responses(server.base_url), tmp_path, server)
        with pytest.raises(Uncertain, match="under another key"):
            await asked_again(responses(server.base_url, client={"api_key": KEY_2}), tmp_path)
        assert posts(server) == 1


@pytest.mark.parametrize("record", ["damaged", "of an earlier version"])
async def test_a_send_of_which_nobody_knows_whereto_is_never_proven_absent(tmp_path: Path, record: str) -> None:
    """A `sent` that does not say under which key it left is looked up, and ends as `uncertain` when it is not found."""
    async with Server(rules=lost(CHAT, lag=60)) as server:
        await killed(chat(server.base_url, store=True), tmp_path, server)
        [path] = tmp_path.glob(SENT)
        if record == "damaged":
            path.write_bytes(path.read_bytes()[:-5])
        else:
            with call_in(tmp_path) as call:
                header = {name: value for name, value in call.sent.items() if name not in ("key_mark", "stored", "at")}
                path.unlink()
                call.job.journal.write(f"{call.job.place}/calls/01-first/sent.1", header)
        with pytest.raises(Uncertain, match="not known under which key"):
            await asked_again(chat(server.base_url, store=True), tmp_path)
        assert posts(server) == 1


async def test_the_record_of_a_send_tells_its_key_from_others_and_not_what_it_is(tmp_path: Path) -> None:
    """Sixteen hex digits, others for each call, key, organization and project; the key itself is on no disk."""
    async with Server() as server:
        with call_in(tmp_path) as call:
            model = chat(server.base_url)
            await model.ask(PROMPT, call)
            await model.close()
            mark = call.sent["key_mark"]
            same = client_of(server.base_url).key_mark(call.call_id)
    others = [{"api_key": KEY_2}, {"organization": "org-1"}, {"project": "org-1"}]
    marks = {
        mark,
        client_of("http://x").key_mark("call"),
        *(client_of("http://x", **o).key_mark("call") for o in others),
    }
    assert mark == same
    assert (len(marks), {len(each) for each in marks}) == (5, {16})
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize("changed", ["endpoint", "key", "nothing"])
async def test_a_call_that_waits_takes_no_conversation_elsewhere(tmp_path: Path, changed: str) -> None:
    """Turned away and sent elsewhere, it gets a conversation there; sent to the same place, it goes by the same one."""
    limit = {"match": RESPONSES, "do": {"status": 429, "retry_after": 0.01}}
    async with Server(rules=[limit]) as server, Server() as other:
        with pytest.raises(Unavailable):
            await asked_again(responses(server.base_url), tmp_path)
        here = other if changed == "endpoint" else server
        later = responses(here.base_url, client={"api_key": KEY_2} if changed == "key" else {})
        assert (await asked_again(later, tmp_path)).outcome == "completed"
        made = [each.state()["requests"].get("POST /v1/conversations", 0) for each in (server, other)]
        assert made == {"endpoint": [1, 1], "key": [2, 0], "nothing": [1, 0]}[changed]
