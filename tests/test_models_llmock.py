"""Somebody else's server and somebody else's verdict: LLMock grades how a client behaves when the provider fails."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asking import PROMPT, call_in, chat, responses
from delegated.errors import Refused, Uncertain
from delegated.models.gate import Gate, Gated
from harness import until

pytestmark = pytest.mark.slow
MAKERS = {"chat": chat, "responses": responses}


class LLMock:
    """The foreign server in a process of its own."""

    def __init__(self, command: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.url}/v1"
        arguments = [command, "serve", "--port", str(port), "--log-level", "warning", "--tool-mode", "off"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._alive, what="LLMock listens")

    def _alive(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def fail(self, **behaviour: Any) -> None:
        data = json.dumps({"behaviors": [{"type": "fail", **behaviour}]}).encode()
        request = urllib.request.Request(
            f"{self.url}/_llmock/scenario", data=data, headers={"content-type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).close()

    def get(self, what: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/_llmock/{what}", timeout=10) as answer:
            return json.load(answer)


@pytest.fixture
def llmock(need: Callable[[str], str]) -> Iterator[LLMock]:
    command = need("llmock")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = LLMock(command, port)
    yield server
    server.process.terminate()
    server.process.wait(20)


def errors(llmock: LLMock) -> list[Any]:
    found = llmock.get("verdict")["findings"]
    return [finding for finding in found if finding["severity"] == "error"]


@pytest.mark.parametrize("wire", MAKERS)
async def test_rate_limits_are_waited_out_as_a_stranger_would_have_it(
    llmock: LLMock, tmp_path: Path, wire: str
) -> None:
    """Twice "later", then an answer: Retry-After honoured, no storm, no finding at all."""
    llmock.fail(status=429, retry_after=1, times=2)
    model = Gated(MAKERS[wire](llmock.base_url), Gate())
    with call_in(tmp_path) as call:
        assert (await model.ask(PROMPT, call)).outcome == "completed"
    await model.close()
    assert errors(llmock) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_what_is_final_is_not_retried(llmock: LLMock, tmp_path: Path, status: int) -> None:
    """The stranger counts one attempt."""
    llmock.fail(status=status, times=None)
    model = Gated(chat(llmock.base_url), Gate())
    with call_in(tmp_path) as call, pytest.raises(Refused):
        await model.ask(PROMPT, call)
    await model.close()
    assert errors(llmock) == []


async def test_a_failure_that_may_have_been_billed_is_not_repeated(llmock: LLMock, tmp_path: Path) -> None:
    """A 503 is given up, which LLMock only warns of: it does not know that a second try may cost a second time."""
    llmock.fail(status=503, times=1)
    model = Gated(chat(llmock.base_url), Gate())
    with call_in(tmp_path) as call, pytest.raises(Uncertain):
        await model.ask(PROMPT, call)
    await model.close()
    assert errors(llmock) == []
    assert len(llmock.get("requests")["requests"]) == 1
