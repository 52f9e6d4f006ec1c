"""Rows 1 to 9 of the fault matrix: the daemon killed, stopped, frozen, starved, and failing inside."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.judging import judge
from harness import House, Server, request_text, until

ROOT = Path(__file__).parents[2]
PAID = {"method": "POST", "path": "/v1/[cr][he][as][tp]*"}  # chat/completions, responses


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["responses", "chat"])
def test_row_3_killed_at_the_instant_of_the_bill(house: House, server: Server, wire: str) -> None:
    """The server bills and kills the daemon in the same breath: one bill, and the answer is recovered."""
    house.use(server, wire, doubt_wait_s=0.5, deadline_s=3, endpoints__openai__store="true")
    daemon = house.up()
    path = "/v1/responses" if wire == "responses" else "/v1/chat/completions"
    server.script({"match": {"method": "POST", "path": path}, "do": {"kill": daemon.process.pid}})
    house.drop("one")
    daemon.process.wait(30)
    assert len(server.bills()) == 1
    judge(house, server, ["one"])
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_row_3_killed_at_the_instant_of_a_bill_that_nobody_can_look_up(house: House, server: Server) -> None:
    """The same where the provider keeps nothing: one bill, and the RESULT says `uncertain`."""
    house.use(server, "chat", doubt_wait_s=0.5, deadline_s=3, endpoints__openai__store="false")
    daemon = house.up()
    server.script({"match": {"method": "POST", "path": "/v1/chat/completions"}, "do": {"kill": daemon.process.pid}})
    house.drop("one")
    daemon.process.wait(30)
    assert judge(house, server, ["one"], could_tell=False)["one"]["status"] == "uncertain"
    assert len(server.bills()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["responses", "chat", "repair", "patch", "chat-unstored", "outcome"])
def test_row_1_killed_at_every_system_call(scene: str, tmp_path: Path) -> None:
    """Wherever a job is killed, the next life ends it, billed once; here a part of the points, chosen by chance."""
    long_form(tmp_path, "sweep", "--wire", scene, "--sample", "40", "--seed", "1")


@pytest.mark.slow
def test_row_2_killed_again_at_every_system_call_of_the_recovery(tmp_path: Path) -> None:
    """The same where the recovery is killed too."""
    long_form(tmp_path, "sweep", "--pairs", "--sample", "20", "--seed", "1")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_row_4_killed_at_random_moments_with_fifty_in_flight(part: int, tmp_path: Path) -> None:
    """Fifty kills a part, five hundred in all, or as many as fit in the time; then everything is settled, once."""
    long_form(tmp_path, "kills", "--cycles", "50", "--seed", str(part * 50), "--minutes", "0.4")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "wire"), [("OSError", "responses"), ("OSError", "chat"), ("RuntimeError", "chat")])
def test_row_9_an_exception_at_every_call(kind: str, wire: str, tmp_path: Path) -> None:
    """Whatever call of the disk's and the provider's rooms raises once: nothing lost, and the daemon goes on."""
    long_form(tmp_path, "raising", "--kind", kind, "--wire", wire, "--sample", "25", "--seed", "1")


STOPS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


@pytest.mark.slow
@STOPS
def test_row_5_a_stop_lets_a_call_end(house: House, server: Server, number: int) -> None:
    """Stopped during a call: its answer is awaited and published, nothing new is taken, and the exit code is 0."""
    house.use(server, "chat", endpoints__openai__store="true", grace_s=30)
    server.script({"match": PAID, "do": {"latency": 1.0}})
    daemon = house.up()
    house.drop("one")
    until(server.bills, what="the call is out")
    daemon.process.send_signal(number)
    until(lambda: daemon.has("app.stopping"), what="it stops")
    house.drop("two")
    assert daemon.process.wait(30) == 0
    assert house.result("one")["status"] == "answered"
    assert [bill["call"].split(".")[1] for bill in server.bills()] == ["one"]
    judge(house, server, ["one", "two"])
    assert len(server.bills()) == 2


@pytest.mark.slow
@STOPS
@pytest.mark.parametrize("wire", ["responses", "chat"])
def test_row_5_a_stop_does_not_wait_for_ever(house: House, server: Server, wire: str, number: int) -> None:
    """A call that outlives the grace is left as it is on record; the next start ends it, and it is billed once."""
    house.use(server, wire, endpoints__openai__store="true", grace_s=0.5, deadline_s=30, doubt_wait_s=0.5)
    forever = {"run": "forever"} if wire == "responses" else {"latency": 5.0}
    server.script({"match": PAID, "do": forever})
    daemon = house.up()
    house.drop("one")
    until(server.bills, what="the call is out")
    assert daemon.stop(number) == 0
    assert not house.has_result("one")
    house.up()
    until(lambda: daemon_has(house, "job.resumed"), what="it is taken up again")
    release(server)
    judge(house, server, ["one"])
    assert len(server.bills()) == 1


@pytest.mark.slow
@STOPS
def test_row_5_a_second_signal_ends_it_at_once(house: House, server: Server, number: int) -> None:
    """Asked twice it exits without waiting for its grace; the next start ends what was under way."""
    house.use(server, grace_s=3600, deadline_s=30, doubt_wait_s=0.5)
    server.script({"match": PAID, "do": {"run": "forever"}})
    daemon = house.up()
    house.drop("one")
    until(lambda: any(house.folder.glob(".delegated/jobs/*/one/r1/calls/*/accepted.1")), what="the call is out")
    daemon.process.send_signal(number)
    until(lambda: daemon.has("app.stopping"), what="it stops")
    assert daemon.stop(number) == 128 + number
    release(server)
    judge(house, server, ["one"])
    assert len(server.bills()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["responses", "chat"])
def test_row_6_frozen_and_thawed(house: House, server: Server, wire: str) -> None:
    """Frozen in the middle of calls for longer than they may be silent: no second send, and what came meanwhile is
    found."""
    house.use(server, wire, endpoints__openai__store="true", endpoints__openai__timeout_s=2, doubt_wait_s=0.5)
    server.script({"match": PAID, "do": {"latency": 1.0}, "times": "always"})
    daemon = house.up()
    keys = [f"before{n}" for n in range(5)]
    for key in keys:
        house.drop(key, request_text(f"it divides by zero, {key}"))
    until(server.bills, what="a call is out")
    daemon.process.send_signal(signal.SIGSTOP)
    for n in range(20):
        keys.append(f"during{n}")
        house.drop(keys[-1], request_text(f"it divides by zero, {keys[-1]}"))
    time.sleep(4)  # the fault itself: a machine asleep
    daemon.process.send_signal(signal.SIGCONT)
    judge(house, server, keys, patience=60)
    assert daemon.process.poll() is None
    assert len(server.bills()) == len(keys)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a running process can be set on Linux only")
@pytest.mark.parametrize("spare_mb", [0, 1, 4, 16])
def test_row_7_out_of_memory(house: House, server: Server, spare_mb: int) -> None:
    """Hardly any memory left: whatever breaks, the request is not lost and not billed twice."""
    house.use(server, doubt_wait_s=0.5, deadline_s=5)
    daemon = house.up()
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    size = int(re.search(r"VmSize:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]
    limit = size + (spare_mb << 20)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_AS, (limit, limit))
    house.drop("one")
    begun = time.monotonic()
    until(
        lambda: daemon.process.poll() is not None or house.has_result("one") or time.monotonic() - begun > 8,
        what="something comes of it",
    )
    daemon.kill()
    result = judge(house, server, ["one"], statuses=("answered", "failed"))["one"]
    if result["status"] == "failed":
        assert result["error"]["kind"] == "internal"
        assert result["error"]["retryable"]


def test_row_7_a_huge_file_is_refused_unread(house: House, server: Server) -> None:
    """A request of a terabyte (it is all holes) is refused at once; nothing of it comes into memory."""
    house.use(server)
    daemon = house.up()
    temp = house.outside / "huge"
    with open(temp, "wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError as error:
            pytest.skip(f"this file system has no files of a terabyte: {error.strerror}")
    os.rename(temp, house.request("huge"))
    assert house.result("huge")["status"] == "rejected"
    peak = Path(f"/proc/{daemon.process.pid}/status")
    if peak.exists():
        assert int(re.search(r"VmHWM:\s+(\d+)", peak.read_text())[1]) < 1 << 20  # type: ignore[index]
    judge(house, server, ["huge"], statuses=("rejected",))
    assert not server.bills()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "when"), [("linkat", 1), ("linkat", 2), ("linkat", 4), ("fsync", 2), ("fsync", 7), ("sendto", 2)]
)
def test_row_1_killed_by_another_hand(
    house: House, server: Server, need: Callable[[str], str], call: str, when: int
) -> None:
    """The same by strace, which knows nothing of our tracer: it counts the calls of each thread for itself."""
    house.use(server, doubt_wait_s=0.5, deadline_s=5)
    strace = (need("strace"), "-f", "-qq", "-o", str(house.tmp / "strace"), "-e", f"trace={call}")
    daemon = house.start(prefix=(*strace, "-e", f"inject={call}:signal=KILL:when={when}"))
    over = lambda: daemon.process.poll() is not None  # noqa: E731
    until(lambda: over() or daemon.has("worker.ready"), what="ready")
    house.drop("one")
    until(lambda: over() or house.has_result("one"), what="killed, or not come by")
    died = over()
    daemon.kill()
    if when == 1:
        assert died
    judge(house, server, ["one"])
    assert len(server.bills()) == 1


def daemon_has(house: House, event: str) -> bool:
    return house._daemons[-1].has(event)


def release(server: Server) -> None:
    """Let every call that runs end."""
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/_test/release", method="POST"), timeout=10).close()


def long_form(tmp_path: Path, *arguments: str) -> None:
    """Run a long form in a process of its own, shortened: it forks, which a process with threads must not."""
    out = tmp_path / "out"
    with open(out, "wb") as file:
        command = [sys.executable, "-m", "tests.faults", *arguments]
        code = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, timeout=110).returncode
    if code == 69:
        pytest.skip(out.read_text().strip())
    print(out.read_text())
    assert code == 0, out.read_text()[-4000:]
