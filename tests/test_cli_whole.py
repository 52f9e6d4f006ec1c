"""The whole way with the real daemon: asked, answered, shown, asked again, brought back."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import delegated
from delegated.cli import exits
from delegated.folder import PREFIX
from harness import TRACE, House, Server, until
from test_cli_folder import run, start

NEVER = {"match": {"method": "POST", "path": "/v1/responses"}, "times": "always", "do": {"run": "forever"}}
# A session's leader gets the first terminal that it opens.
ON = "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execvp(sys.argv[2], sys.argv[2:])"
ASK = ("ask", "--issue", "it divides by zero", "--files", "app.py", "--logs", TRACE)


@pytest.mark.slow
def test_without_a_daemon_ask_does_the_work_itself(house: House) -> None:
    """No daemon on the folder: the same RESULT files, under the same lock, and nobody is left running."""
    code, out, err = run(house, *ASK, "--id", "alone")
    assert code == 0, err
    assert "ZeroDivisionError" in out
    assert house.result("alone")["status"] == "answered"
    assert house.result_path("alone", "md").read_text().rstrip("\n").splitlines()[0] in out
    assert run(house, "status")[1].splitlines()[1] == "daemon   none"
    assert json.loads(run(house, "list", "--json")[1])[0]["status"] == "answered"


def test_with_a_daemon_that_daemon_answers(house: House) -> None:
    """A daemon on the folder does the work; the client only waits."""
    daemon = house.up()
    code, out, err = run(house, *ASK, "--json", "--id", "served")
    assert code == 0, err
    assert json.loads(out)["request"]["id"] == "served"
    assert daemon.has("job.settled")
    assert f"pid {daemon.process.pid}" in run(house, "status")[1]


@pytest.mark.slow
def test_a_daemon_that_comes_between_answers(house: House) -> None:
    """When a daemon takes the folder first, the client waits for it instead of failing with 75."""
    house.set(max_cost_usd=1)
    clients = [start(house, *ASK, "--id", f"c{n}", "--model", "offline") for n in range(3)]
    for number, client in enumerate(clients):
        out, err = client.communicate(timeout=60)
        assert client.returncode == 0, err
        assert house.result(f"c{number}")["status"] == "answered"
        assert b"ZeroDivisionError" in out


@pytest.mark.slow
def test_when_the_daemon_dies_the_client_goes_on(house: House, server: Server) -> None:
    """A daemon killed while a client waits: the client finishes the request itself."""
    house.use(server)
    server.script(NEVER)
    daemon = house.up()
    client = start(house, *ASK, "--id", "orphan", "--model", "offline")
    daemon.kill()
    _, err = client.communicate(timeout=60)
    assert client.returncode == 0, err
    assert house.result("orphan")["status"] == "answered"


def test_a_rejected_request(house: House) -> None:
    """A file that is no request: wait prints every problem and leaves with its code."""
    house.drop("bad", "---\nisue: typo\npriority: high\n---\n")
    code, out, _ = run(house, "wait", "bad")
    assert code == exits.REJECTED
    assert "isue" in out
    assert "priority" in out


@pytest.mark.slow
@pytest.mark.parametrize("served", [False, True], ids=("alone", "served"))
def test_a_corrected_request_is_waited_for_anew(served: bool, house: House) -> None:
    """After the REQUEST was edited, wait returns the next RESULT, not the one that stands."""
    house.drop("fix", "---\nisue: typo\n---\n")
    assert run(house, "wait", "fix")[0] == exits.REJECTED
    if served:
        house.up()
    house.drop("fix")
    code, out, err = run(house, "wait", "fix")
    assert code == 0, err
    assert "ZeroDivisionError" in out
    assert run(house, "wait", "fix")[1] == out


@pytest.mark.slow
def test_a_missing_key_ends_in_a_result(house: House) -> None:
    """GPT-4o without a key: exit code 11, the seed's sentence, and what to do."""
    code, out, err = run(house, *ASK, "--id", "nokey", "--model", "gpt-4o")
    assert code == exits.FAILED
    assert "OPENAI_API_KEY environment variable required" in out
    assert "next: delegate retry nokey" in err
    assert "start the daemon again, if one runs, and run the next command" in " ".join(out.split()), "none runs here"


@pytest.mark.slow
def test_a_key_in_a_flag_works_alone(house: House, server: Server) -> None:
    """--api-key is used where this command does the work itself, and is written nowhere."""
    house.use(server)
    key = house.env.pop("OPENAI_API_KEY")
    code, out, err = run(house, *ASK, "--id", "flag", "--api-key", key)
    assert code == 0, out + err
    assert "visible to other users" in err
    assert len(server.bills()) == 1
    kept = b"".join(path.read_bytes() for path in house.workspace.rglob("*") if path.is_file())
    assert key.encode() not in kept


@pytest.mark.slow
def test_retry_is_the_next_revision(house: House) -> None:
    """retry asks again, with a daemon and without; the former RESULT is kept."""
    assert run(house, *ASK, "--id", "again")[0] == 0
    code, _, err = run(house, "retry", "again")
    assert code == 0, err
    assert house.result("again")["request"]["revision"] == 2
    house.up()
    assert run(house, "retry", "again")[0] == 0
    assert house.result("again")["request"]["revision"] == 3
    kept = house.folder / ".delegated" / "history" / "again"
    assert sorted(path.name for path in kept.iterdir()) == ["1.json", "1.md", "2.json", "2.md"]


@pytest.mark.slow
@pytest.mark.parametrize("served", [False, True], ids=("alone", "served"))
def test_republish_brings_the_same_bytes_back(served: bool, house: House) -> None:
    """A deleted RESULT comes back byte for byte, and nothing is asked again."""
    assert run(house, *ASK, "--id", "gone")[0] == 0
    if served:
        house.up()
    before = {suffix: house.result_path("gone", suffix).read_bytes() for suffix in ("md", "json")}
    for suffix in before:
        house.result_path("gone", suffix).unlink()
    code, out, err = run(house, "republish", "gone")
    assert code == 0, err
    assert out.splitlines() == [str(house.result_path("gone", suffix)) for suffix in ("md", "json")]
    assert {suffix: house.result_path("gone", suffix).read_bytes() for suffix in before} == before
    assert not (house.job("gone").parent / "r2").exists()


@pytest.mark.slow
def test_a_deleted_result_is_not_waited_for(house: House) -> None:
    """What is settled and lost its RESULT is called so everywhere, until it is edited or asked again."""
    assert run(house, *ASK, "--id", "gone")[0] == 0
    for suffix in ("md", "json"):
        house.result_path("gone", suffix).unlink()
    for command in ("wait", "show"):
        code, _, err = run(house, command, "gone")
        assert (code, "gone is settled; its RESULT was deleted" in err) == (exits.ABSENT, True), err
        assert "delegate republish gone" in err
    code, out, _ = run(house, "cancel", "gone")
    assert (code, out) == (0, ""), "what is settled cannot be cancelled"
    code, out, err = run(house, "status", "gone")
    assert (code, out.splitlines()[0]) == (0, "gone: settled; its RESULT was deleted")
    assert "next: delegate republish gone" in err
    assert json.loads(run(house, "list", "--json")[1])[0]["state"] == "settled; its RESULT was deleted"
    assert json.loads(run(house, "status", "--json")[1])["deleted"] == ["gone"]
    request = house.request("gone")
    before = request.read_bytes()
    request.write_bytes(before + b"\nIt is worse now.\n")
    assert json.loads(run(house, "status", "gone", "--json")[1])["state"] == "waiting", "an edit is work to come"
    request.write_bytes(before)
    code, out, err = run(house, "retry", "gone")
    assert (code, "ZeroDivisionError" in out) == (0, True), err
    assert house.result("gone")["request"]["revision"] == 2


def test_cancel(house: House, server: Server) -> None:
    """A running job ends in `cancelled`, for the one who cancels and for the one who waits."""
    house.use(server)
    server.script(NEVER)
    house.up()
    client = start(house, *ASK, "--id", "stop")
    until(lambda: (house.folder / f"{PREFIX}STATUS_stop.json").exists(), what="STATUS")
    assert run(house, "cancel", "stop")[0] == 0
    client.communicate(timeout=60)
    assert client.returncode == exits.CANCELLED


@pytest.mark.slow
def test_a_time_out_alone_loses_nothing(house: House, server: Server) -> None:
    """Time over where the client does the work: 124, nobody is left behind, and `wait` goes on with it."""
    house.use(server, grace_s=0)
    server.script(NEVER)
    code, _, err = run(house, *ASK, "--id", "late", "--timeout", "3")
    assert code == exits.TIMED_OUT
    assert "next: delegate wait late" in err
    assert run(house, "status")[1].splitlines()[1] == "daemon   none"


@pytest.mark.slow
def test_ctrl_c_alone_stops_the_work(house: House, server: Server) -> None:
    """Ctrl+C where the client does the work: 130, and nobody is left behind."""
    house.use(server, grace_s=0)
    server.script(NEVER)
    client = start(house, *ASK, "--id", "int")
    until(lambda: (house.folder / f"{PREFIX}STATUS_int.json").exists(), what="STATUS")
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=60)
    assert client.returncode == exits.INTERRUPTED
    assert b"next: delegate wait int" in err
    assert b"stopping\xe2\x80\xa6\nstopped waiting" in err
    assert run(house, "status")[1].splitlines()[1] == "daemon   none"


def test_a_bad_configuration_is_said_by_the_client(house: House) -> None:
    """Where the work cannot be done here, the client says why and leaves with that exit code; nothing is dropped."""
    house.set(modle="x")
    code, _, err = run(house, *ASK, "--id", "conf")
    assert code == exits.CONFIGURATION
    assert "DELEGATED_MODLE" in err
    assert "hint: " in err
    assert "Traceback" not in err
    assert not house.request("conf").exists()
    house.drop("lies")
    code, _, err = run(house, "wait", "lies")
    assert (code, "DELEGATED_MODLE" in err) == (exits.CONFIGURATION, True)
    assert house.request("lies").exists()


@pytest.mark.slow
def test_two_daemons(house: House) -> None:
    """The second daemon on a folder leaves with 75 and says who holds it."""
    first = house.up()
    second = house.start()
    assert second.process.wait(30) == exits.HELD
    assert f"pid {first.process.pid}" in second.log.read_text()


@pytest.mark.parametrize("prefix", [(), ("nohup",)], ids=("plain", "nohup"))
def test_a_window_that_is_closed_stops_what_runs_in_it(prefix: tuple[str, ...], house: House) -> None:
    """No daemon is left behind that nobody sees, unless it was asked to stay; a HUP alone is a reload."""
    window, side = pty.openpty()
    daemon = house.start(prefix=(sys.executable, "-c", ON, os.ttyname(side), *prefix)).ready()
    os.close(side)
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.has("config.reloaded"), what="a reload")
    os.close(window)
    if prefix:
        until(lambda: daemon.log.read_text().count("config.reloaded") == 2, what="another reload")
        assert daemon.process.poll() is None
    else:
        assert daemon.process.wait(30) == exits.OK


@pytest.mark.slow
def test_once_exits_by_the_worst_end(house: House) -> None:
    """`delegated --once` drains the folder; a request without an answer makes the exit code not zero."""
    house.drop("good")
    daemon = house.start("--once")
    assert daemon.process.wait(60) == 0
    house.drop("bad", "---\nisue: typo\n---\n")
    house.drop("fine")
    daemon = house.start("--once")
    assert daemon.process.wait(60) == exits.REJECTED
    assert house.result("fine")["status"] == "answered"


def test_only_leaves_the_others_alone(house: House) -> None:
    """--only answers one request and takes no other."""
    house.drop("mine")
    house.drop("other")
    assert house.start("--only", "mine").process.wait(60) == 0
    assert house.has_result("mine")
    assert not house.has_result("other")


def test_demo(house: House) -> None:
    """The demo ends answered, without key and network, shows its way, and leaves no process behind."""
    house.env["TMPDIR"] = str(house.outside)
    code, out, err = run(house, "demo")
    assert code == 0, err
    assert "no language model was asked" in out.lower()
    for word in ("daemon: started", "request: dropped", "journal", "next: delegate init"):
        assert word in err
    root = next(Path(house.outside).glob("delegated-demo-*"))
    results = (root / "workspace" / ".autonomous_runs" / "openai_delegations").glob(f"{PREFIX}RESULT_*")
    assert sorted(path.suffix for path in results) == [".json", ".md", ".patch"]
    assert ".patch" in err
    pid = int(err.partition("started as process ")[2].split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# The library face


@pytest.fixture
def here(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """This process in the place of the program that asks."""
    for name in list(os.environ):
        if name.startswith(("DELEGATED_", "OPENAI_")):
            monkeypatch.delenv(name)
    for name, value in house.env.items():
        monkeypatch.setenv(name, value)
    return house


def ask(house: House, **more: Any) -> delegated.Result:
    return delegated.ask("it divides by zero", files=["app.py"], logs=TRACE, workspace=str(house.workspace), **more)


@pytest.mark.slow
def test_library_ask(here: House) -> None:
    """`delegated.ask` returns the RESULT as a value, with and without a daemon."""
    alone = ask(here, attempted_fixes=["restarted it"], questions=["where?"], timeout=60)
    assert alone.status == "answered"
    assert alone.analysis is not None
    here.up()
    served = ask(here, timeout=60)
    assert served.analysis is not None
    assert served.analysis.root_cause == alone.analysis.root_cause


@pytest.mark.slow
def test_library_ask_from_anywhere(here: House) -> None:
    """It may be called in a thread and beside a running event loop; the caller's signals and loop are left alone."""
    before = signal.getsignal(signal.SIGINT)
    found: list[delegated.Result] = []
    thread = threading.Thread(target=lambda: found.append(ask(here, timeout=60)))
    thread.start()
    thread.join(60)
    assert [result.status for result in found] == ["answered"]

    async def main() -> delegated.Result:
        return await asyncio.to_thread(ask, here, timeout=60)

    assert asyncio.run(main()).status == "answered"
    assert signal.getsignal(signal.SIGINT) is before


def test_library_ask_fails_by_exceptions_of_its_own(here: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad argument, a bad configuration and a time-out are told apart; however it ends otherwise is a value."""
    with pytest.raises(ValueError, match="issue is empty"):
        delegated.ask(" ", workspace=str(here.workspace))
    with pytest.raises(ValueError, match="files should be a list"):
        delegated.ask("x", files="app.py", workspace=str(here.workspace))
    with pytest.raises(TimeoutError):
        ask(here, timeout=0.001)
    before = sorted(here.folder.iterdir())
    with pytest.raises(ValueError, match="timeout should be more than 0 seconds"):
        ask(here, timeout=0)
    with pytest.raises(TypeError, match="issue should be a text") as wrong:
        delegated.ask(None, workspace=str(here.workspace))  # type: ignore[arg-type]
    assert "--" not in str(wrong.value)
    with pytest.raises(ValueError, match="issue is empty") as wrong_value:
        delegated.ask("", workspace=str(here.workspace))
    assert "--" not in str(wrong_value.value)
    assert sorted(here.folder.iterdir()) == before
    assert ask(here, model="gpt-4o", timeout=60).status == "failed"
    monkeypatch.setenv("DELEGATED_MODLE", "x")
    with pytest.raises(delegated.OperatorError) as caught:
        ask(here, timeout=60)
    assert caught.value.exit_code == exits.CONFIGURATION
