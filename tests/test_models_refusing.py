"""A model that cannot be asked now, and what of it has left already: looked up, fetched, and never sent again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asking import KEY, PROMPT, RESPONSES, call_in
from delegated.config import Config, Endpoint
from delegated.errors import Refused, Uncertain
from delegated.job import CallState
from delegated.outfit import Models
from delegated.settings import ModelSettings
from delegated.testing import Server
from delegated.tokens import counter

GONE = {"gpt-4o": ModelSettings(shutdown="2020-01-01")}


def models_at(server: Server, folder: Path, *, wire: str = "responses", **more: Any) -> Models:
    endpoint = Endpoint(
        base_url=server.base_url, wire=wire, key_env="", key_credential="", key_file=str(folder / "key")
    )
    return Models(Config(endpoints={"openai": endpoint}, doubt_wait_s=0.1, **more), {}, counter)


def give_key(folder: Path) -> None:
    (folder / "key").touch(0o600)
    (folder / "key").write_text(KEY)


async def killed(server: Server, folder: Path, state: CallState, *, wire: str = "responses") -> None:
    """Ask while the key is there, and stop once the call stands so."""
    give_key(folder)
    models = models_at(server, folder, wire=wire)
    with call_in(folder) as call:
        task = asyncio.create_task(models.ready("gpt-4o")[0].ask(PROMPT, call))
        while not ((server.bills and call.state is state) or task.done()):
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert call.state is state
    await models.close()


LEFT = pytest.mark.parametrize(
    ("state", "fault"),
    [(CallState.SENT, {"stall": "silent", "bill": True}), (CallState.ACCEPTED, {"run": "forever"})],
    ids=["sent", "accepted"],
)


@LEFT
async def test_the_call_of_a_retired_model_is_looked_up_and_fetched(
    tmp_path: Path, state: CallState, fault: Any
) -> None:
    """Over its shutdown date, what has left is answered as before; what has not is refused, and nothing is sent."""
    async with Server(rules=[{"match": RESPONSES, "do": fault}]) as server:
        await killed(server, tmp_path, state)
        server.release()
        models = models_at(server, tmp_path, models=GONE)
        model, _ = models.ready("gpt-4o")
        with call_in(tmp_path) as call:
            assert (await model.ask(PROMPT, call)).outcome == "completed"
            assert (await model.ask(PROMPT, call)).outcome == "completed"
        (tmp_path / "next").mkdir()
        with call_in(tmp_path / "next") as call, pytest.raises(Refused, match="left the provider's API"):
            await model.ask(PROMPT, call)
        await models.close()
        assert len(server.bills) == server.state()["requests"]["POST /v1/responses"] == 1


async def test_the_lost_call_of_a_retired_model_is_not_sent_again(tmp_path: Path) -> None:
    """Proven absent, it is refused like one that never left."""
    async with Server(rules=[{"match": RESPONSES, "do": {"stall": "silent", "bill": True, "lag": 60}}]) as server:
        await killed(server, tmp_path, CallState.SENT)
        models = models_at(server, tmp_path, models=GONE, deadline_s=0.2)
        with call_in(tmp_path) as call:
            with pytest.raises(Refused) as caught:
                await models.ready("gpt-4o")[0].ask(PROMPT, call)
            assert (caught.value.kind, call.state, call.attempt) == ("retired_model", CallState.NEW, 2)
        await models.close()
        assert server.state()["requests"]["POST /v1/responses"] == 1


@LEFT
async def test_a_call_that_left_waits_until_there_is_a_key(tmp_path: Path, state: CallState, fault: Any) -> None:
    """Without a key it says so and waits; once the key is there, it goes on, and is paid for once."""
    said: list[tuple[str, str]] = []
    async with Server(rules=[{"match": RESPONSES, "do": fault}]) as server:
        await killed(server, tmp_path, state)
        server.release()
        (tmp_path / "key").unlink()
        models = models_at(server, tmp_path)
        with call_in(tmp_path, said=said) as call:
            task = asyncio.create_task(models.ready("gpt-4o")[0].ask(PROMPT, call))
            while len(said) < 2 and not task.done():
                await asyncio.sleep(0.01)
            phase, why = said[0]
            assert phase == ("looking up" if state is CallState.SENT else "out of reach")
            assert "is absent or empty" in why
            give_key(tmp_path)
            assert (await task).outcome == "completed"
        await models.close()
        assert len(server.bills) == server.state()["requests"]["POST /v1/responses"] == 1


async def test_what_nobody_stored_does_not_wait_for_a_key(tmp_path: Path) -> None:
    """No key would help to look it up: it is uncertain at once. What has not left is refused at once."""
    lost = {"match": {"method": "POST", "path": "/v1/chat/completions"}, "do": {"stall": "silent", "bill": True}}
    async with Server(rules=[lost]) as server:
        await killed(server, tmp_path, CallState.SENT, wire="chat")
        (tmp_path / "key").unlink()
        model, _ = models_at(server, tmp_path, wire="chat").ready("gpt-4o")
        with call_in(tmp_path) as call, pytest.raises(Uncertain):
            await model.ask(PROMPT, call)
        (tmp_path / "next").mkdir()
        with call_in(tmp_path / "next") as call, pytest.raises(Refused) as caught:
            await model.ask(PROMPT, call)
        assert caught.value.kind == "bad_key"
