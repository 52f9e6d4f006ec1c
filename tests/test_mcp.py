"""`delegate mcp`: an agent asks by the protocol, is told what goes on, and can do nothing that costs without asking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

from delegated.cli import exits, full_parser
from delegated.cli.mcp_tools import TABLE, Tools, problems_in
from delegated.cli.mcp_wire import PARSE, UNKNOWN, VERSIONS, negotiate
from delegated.cli.place import Place
from delegated.tokens import counter
from harness import PATIENCE_S, TRACE, House, Server, until
from test_readme import blocks

ROOT = Path(__file__).parent.parent
MAIN = "import sys; from delegated.cli import main; sys.exit(main())"
COMMAND = [sys.executable, "-P", "-c", MAIN, "mcp"]
RESPONSES = {"method": "POST", "path": "/v1/responses"}
QUESTION = {"issue": "it divides by zero", "files": ["app.py"], "logs": TRACE}


class Client:
    """Speaks the protocol by hand; each message that came is in `heard`."""

    def __init__(self, house: House, *arguments: str) -> None:
        self.heard: list[dict[str, Any]] = []
        self.said = house.tmp / "mcp.err"
        self._file = open(self.said, "ab")  # noqa: SIM115 - closed by `close`
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=house.workspace,
            env=house.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._file,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._number = 0

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard.append(json.loads(line))  # nothing but the protocol comes here

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, method: str, params: dict[str, Any] | None = None, *, key: object = None) -> object:
        self._number += 1
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if not method.startswith("notifications/"):
            key = key or self._number
            message["id"] = key
        self.write(json.dumps(message).encode() + b"\n")
        return key

    def answer(self, key: object) -> dict[str, Any]:
        return until(lambda: next((each for each in self.heard if each.get("id") == key), None), what=f"answer {key}")

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.answer(self.send(method, params))

    def tool(self, name: str, **arguments: Any) -> dict[str, Any]:
        return self.ask("tools/call", {"name": f"delegate_{name}", "arguments": arguments})["result"]

    def text(self, name: str, **arguments: Any) -> str:
        return self.tool(name, **arguments)["content"][0]["text"]

    def close(self) -> int:
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.close()
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._file.close()
        return code


@pytest.fixture
def client(house: House):
    client = Client(house)
    yield client
    client.close()


# The protocol


@pytest.mark.parametrize(
    ("wanted", "agreed"),
    [
        *((each, each) for each in VERSIONS),
        ("2025-03-26", "2024-11-05"),
        ("2026-07-28", "2025-11-25"),
        ("2020-01-01", "2024-11-05"),
        ("draft", "2025-11-25"),
        (None, "2025-11-25"),
        (5, "2025-11-25"),
    ],
)
def test_the_revision_is_the_newest_that_both_may_know(wanted: object, agreed: str) -> None:
    """A revision that we speak is agreed to; else the newest of ours that the client cannot be too old for."""
    assert negotiate(wanted) == agreed


def test_the_handshake_and_the_list_of_tools(client: Client) -> None:
    """Nothing but JSON-RPC is on stdout, ids come back as they were, and the end of stdin ends it."""
    told = client.answer(client.send("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}}, key="one"))
    assert told["result"]["protocolVersion"] == "2025-06-18"
    assert told["result"]["capabilities"] == {"tools": {}}
    client.send("notifications/initialized")
    assert client.ask("ping") == {"jsonrpc": "2.0", "id": 3, "result": {}}
    tools = client.ask("tools/list")["result"]["tools"]
    assert [each["name"] for each in tools] == [*TABLE]
    assert len(tools) <= 5
    assert client.close() == exits.OK
    assert client.said.read_bytes() == b""


@pytest.mark.slow
def test_the_descriptions_are_short() -> None:
    """All that an agent carries with it is less than 1,500 tokens of GPT-4o's tokenizer."""
    count = counter()
    assert count.exact, "the tokenizer is one of the development dependencies"
    tools = Tools(Place("/nowhere", "/nowhere"))
    assert count(json.dumps(tools.described())) + count(tools.instructions) < 1500


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{\n", PARSE),
        (b"\xff\xfe\n", PARSE),
        (b"[" * 200_000 + b"\n", PARSE),
        (b'[{"jsonrpc": "2.0", "id": 7, "method": "ping"}]\n', -32600),
        (b'{"id": 7, "method": "ping"}\n', -32600),
        (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}\n', -32600),
        (b'{"jsonrpc": "2.0", "id": true, "method": "ping"}\n', -32600),
        (b'{"jsonrpc": "2.0", "id": 7}\n', -32600),
        (b'{"jsonrpc": "2.0", "id": 7, "method": "server/discover"}\n', UNKNOWN),
        (b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": [1]}\n', -32602),
        (b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "rm"}}\n', -32602),
        (b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": 5}}\n', -32602),
        (b'{"jsonrpc": "2.0", "id": 7, "method": "' + b"x" * (9 << 20) + b'"}\n', -32600),
    ],
    ids=range(13),
)
def test_a_message_that_cannot_be_used_is_answered_and_the_next_one_too(client: Client, line: bytes, code: int) -> None:
    """Whatever comes, there is one error for it, and the connection stands."""
    client.write(
        line + b'\n{"jsonrpc": "2.0", "id": 7, "result": {}}\n{"jsonrpc": "2.0", "method": "notifications/x"}\n'
    )
    assert client.ask("ping")["result"] == {}
    until(lambda: len(client.heard) == 2, what="both answers")
    (first,) = (each for each in client.heard if "error" in each)
    assert first["error"]["code"] == code
    assert client.close() == exits.OK


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("delegate_ask", {}, ["issue is missing"]),
        ("delegate_ask", {"issue": 5, "files": "a", "wait_seconds": 51}, ["a text", "a list of texts", "from 0 to 50"]),
        ("delegate_ask", {"issue": "x", "files": [5], "wait_seconds": True}, ["a list of texts", "whole number"]),
        ("delegate_ask", {"issue": "x", "model": "gpt"}, ["there is no argument 'model'"]),
        ("delegate_list", {"number": 0}, ["from 1 to 100"]),
    ],
)
def test_all_that_is_wrong_with_a_call_is_said_at_once(name: str, arguments: dict[str, Any], said: list[str]) -> None:
    """Each problem is a sentence of its own."""
    problems = problems_in(TABLE[name], arguments)
    assert len(problems) == len(said)
    assert all(words in problem for words, problem in zip(said, problems, strict=True))


def test_what_the_model_can_mend_is_a_tool_error(client: Client, house: House) -> None:
    """A wrong argument, an id that is not there, an empty issue: said to the model, and nothing is dropped."""
    for name, arguments, said in (
        ("ask", {"issue": " "}, "the issue is empty"),
        ("ask", {"issue": "x", "wait_seconds": 99}, "from 0 to 50"),
        ("wait", {"id": "gone"}, "there is no request gone"),
        ("wait", {"id": "../../etc/passwd/"}, "there is no request passwd"),
        ("cancel", {"id": "a b"}, "not a request's id"),
    ):
        told = client.tool(name, **arguments)
        assert told["isError"], told
        assert said in told["content"][0]["text"]
    assert client.text("list") == "no requests"
    assert not list(house.folder.glob("OPENAI_*"))


def test_a_place_that_nobody_set_up_is_left_alone(house: House, tmp_path: Path) -> None:
    """Without a drop folder no tool does anything: the directory that an agent starts in need not be a project."""
    (tmp_path / "elsewhere").mkdir()
    client = Client(house, "--workspace", str(tmp_path / "elsewhere"))
    for name, arguments in (("ask", {"issue": "x"}), ("preview", {"issue": "x"}), ("list", {})):
        told = client.tool(name, **arguments)
        assert told["isError"]
        assert "delegate init" in told["content"][0]["text"]
    client.close()
    assert not list((tmp_path / "elsewhere").iterdir())


# The tools


def test_a_request_that_came_with_the_code_is_not_started(client: Client, house: House) -> None:
    """A request that stood there unregistered is a person's to start; waiting for it does not."""
    import shutil

    shutil.rmtree(Path(house.env["HOME"]) / ".local")
    house.drop("planted")
    house.register()
    told = client.tool("wait", id="planted", wait_seconds=0)
    assert told["isError"]
    assert "delegate run planted" in told["content"][0]["text"]
    assert client.text("cancel", id="planted").startswith("planted is told to stop")
    assert not house.has_result("planted")


@pytest.mark.slow
def test_without_a_daemon_the_work_is_done_here(client: Client, house: House) -> None:
    """Asked without waiting, then waited for; previewed before; the RESULT says how to take it. Two are done."""
    shown = client.text("preview", **QUESTION)
    assert "sends" in shown
    assert "app.py" in shown
    assert not list(house.folder.glob("OPENAI_*")), "a preview leaves nothing"
    keys = [client.tool("ask", **QUESTION | {"issue": f"zero {n}"})["structuredContent"]["id"] for n in range(2)]
    for key in keys:
        told = client.tool("wait", id=key, wait_seconds=50)
        assert not told["isError"], told
        assert told["structuredContent"]["status"] == "answered"
        assert told["content"][0]["text"].startswith("These are claims to check")
        assert "app.py" in told["content"][0]["text"]
    assert all(key in client.text("list") for key in keys)
    assert "settled already" in client.text("cancel", id=keys[0])


@pytest.mark.slow
def test_an_agent_that_leaves_does_not_lose_the_answer(house: House, server: Server) -> None:
    """The process that works goes on to its RESULT when the server has ended."""
    house.use(server)
    server.script({"match": RESPONSES, "do": {"latency": 0.5}})
    client = Client(house)
    key = client.tool("ask", **QUESTION)["structuredContent"]["id"]
    until(lambda: (house.folder / ".delegated" / "lock").exists(), what="somebody works on it")
    assert client.close() == exits.OK
    assert house.result(key)["status"] == "answered"
    assert len(server.bills()) == 1


def test_what_cannot_be_worked_on_here_is_said(client: Client, house: House) -> None:
    """A configuration that cannot be used: nothing is dropped, and the reason is the answer."""
    house.folder.joinpath("..", "..", ".delegated.yaml").write_text("concurrency: none\n")
    told = client.tool("ask", **QUESTION, wait_seconds=5)
    assert told["isError"]
    assert "concurrency" in told["content"][0]["text"]
    assert not list(house.folder.glob("OPENAI_*"))


@pytest.mark.slow
def test_a_call_that_is_cancelled_ends_and_has_no_answer(client: Client, house: House) -> None:
    """Progress is told while it waits; after the cancel nothing comes for it, and the request itself stands."""
    import fcntl

    (house.folder / ".delegated").mkdir(mode=0o700)
    with open(house.folder / ".delegated" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody serves the folder, and takes nothing up
        meta = {"progressToken": "t"}
        arguments = {**QUESTION, "wait_seconds": 50}
        key = client.send("tools/call", {"name": "delegate_ask", "arguments": arguments, "_meta": meta}, key="call")
        progress = lambda: [each for each in client.heard if each.get("method") == "notifications/progress"]  # noqa: E731
        until(progress, what="progress")
        client.send("notifications/cancelled", {"requestId": key})
        (request,) = house.folder.glob("OPENAI_DELEGATION_REQUEST_*.md")
        asked = request.stem.removeprefix("OPENAI_DELEGATION_REQUEST_")
        assert "told to stop" in client.text("cancel", id=asked)
        assert "waiting" in client.text("wait", id=asked, wait_seconds=0)
    assert client.tool("wait", id=asked)["structuredContent"]["status"] == "cancelled"
    assert not [each for each in client.heard if each.get("id") == "call"]
    told = [each["params"] for each in progress()]
    assert {each["progressToken"] for each in told} == {"t"}
    steps = [each["progress"] for each in told]
    assert steps == sorted(set(steps))
    assert client.close() == exits.OK


# The client of the SDK


@pytest.fixture
def sdk() -> Any:
    try:
        import mcp
    except ImportError:
        if os.environ.get("CI"):
            pytest.fail("the MCP SDK is not installed")
        pytest.skip("the MCP SDK is not installed")
    return mcp


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_client_of_the_sdk_drives_it(mode: str, sdk: Any, house: House) -> None:
    """It connects, reads our descriptions, asks with progress, and takes the answer for one of the protocol."""
    from mcp.client.stdio import StdioServerParameters

    house.up()
    server = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=house.env, cwd=str(house.workspace))
    told: list[tuple[float, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, message))

    async with sdk.Client(server, mode=mode, read_timeout_seconds=PATIENCE_S) as client:
        tools = (await client.list_tools()).tools
        assert [each.name for each in tools] == [*TABLE]
        arguments = {**QUESTION, "wait_seconds": 50}
        answer = await client.call_tool("delegate_ask", arguments, progress_callback=progress)
        assert not answer.is_error
        assert answer.structured_content["status"] == "answered"
        assert "app.py" in answer.content[0].text
        assert told
        wrong = await client.call_tool("delegate_wait", {"id": "gone"})
        assert wrong.is_error


# The page


def test_the_entries_of_the_page_start_it() -> None:
    """Each agent's entry is well-formed, and its command is one of ours."""
    found = []
    for _, language, text in blocks(ROOT / "docs" / "mcp.md"):
        if language == "json":
            value = json.loads(text)
            found.append((value.get("mcpServers") or value["servers"])["delegate"])
        elif language == "toml":
            found.append(tomllib.loads(text)["mcp_servers"]["delegate"])
    assert len(found) == 4
    parsers: Any = full_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    for entry in found:
        assert entry["command"] == "delegate"
        parsers[entry["args"][0]].parse_args(entry["args"][1:])
    page = (ROOT / "docs" / "mcp.md").read_text()
    assert all(f"`{name}`" in page for name in TABLE)
