"""Stop and start: what a stop leaves, what the next start takes up, and a machine that sleeps in between."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from pathlib import Path

import pytest

from delegated.record import unpack
from faults.judging import judge
from harness import PREFIX, Daemon, House, Server, request_text, until
from test_restart import killed_before, records

RESPONSES = {"method": "POST", "path": "/v1/responses"}
CHAT = {"method": "POST", "path": "/v1/chat/completions"}
# Longer than any test waits: whoever needed one of these before it went on would never get there.
NEVER = {
    "settle_ms": 60_000,
    "quiet_s": 86_400,
    "rescan_s": 86_400,
    "poll_s": 86_400,
    "retry__base_s": 86_400,
    "retry__cap_s": 86_400,
    "doubt_wait_s": 86_400,
    "deadline_s": 86_400,
}


def release(server: Server) -> None:
    """End every call that runs at the server."""
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/_test/release", method="POST"), timeout=10).close()


def posts(server: Server) -> int:
    """Count the paid requests that the server saw, whatever it made of them."""
    requests = server.state_json()["requests"]
    return sum(count for what, count in requests.items() if what in ("POST /v1/responses", "POST /v1/chat/completions"))


def record(house: House, key: str, name: str) -> Path:
    return house.job(key) / "calls" / "01-first" / name


def stopped(daemon: Daemon, house: House) -> int:
    """Stop a daemon; hold what it leaves to the rule: no process, no STATUS, no temporary file."""
    code = daemon.stop()
    assert not list(house.folder.glob(f"{PREFIX}STATUS_*")), "a STATUS says that somebody works on it"
    assert os.listdir(house.folder / ".delegated" / "tmp") == []
    return code


@pytest.mark.slow
def test_a_background_call_goes_on_at_the_provider(house: House, server: Server) -> None:
    """The grace is over: the daemon leaves with 0, the call is not cancelled, its id is on disk, and it is fetched."""
    house.use(server, grace_s=0.2)
    server.script({"match": RESPONSES, "do": {"run": "forever"}})
    daemon = house.up()
    house.drop("a")
    until(lambda: "accepted.1" in records(house, "a"), what="accepted")
    assert stopped(daemon, house) == 0
    assert not house.has_result("a")
    accepted = unpack(record(house, "a", "accepted.1").read_bytes())
    assert accepted is not None, "the record is whole"
    (bill,) = server.bills()
    assert accepted[0]["response_id"] == bill["id"]
    state = server.state_json()
    assert state["running"] == 1, "it goes on there"
    assert not any("cancel" in what for what in state["requests"]), "and nobody asked to stop it"
    release(server)
    house.up()
    assert house.result("a")["status"] == "answered"
    judge(house, server)
    assert posts(server) == 1


@pytest.mark.slow
def test_a_stop_drains_what_ends_in_time_and_leaves_the_rest(house: House, server: Server) -> None:
    """Of two calls one ends within the grace and is published; the other goes on there; what comes now waits."""
    house.use(server, grace_s=8)
    server.script(
        {"match": RESPONSES | {"contains": "the quick one"}, "do": {"run": 1}},
        {"match": RESPONSES | {"contains": "the long one"}, "do": {"run": "forever"}},
    )
    daemon = house.up()
    house.drop("quick", request_text("the quick one"))
    house.drop("long", request_text("the long one"))
    until(lambda: all("accepted.1" in records(house, key) for key in ("quick", "long")), what="both accepted")
    daemon.process.send_signal(signal.SIGTERM)
    until(lambda: daemon.has("worker.draining"), what="draining")
    house.drop("late")
    assert daemon.process.wait(60) == 0
    assert house.result("quick")["status"] == "answered"
    assert not house.has_result("long")
    assert records(house, "late") == set(), "nothing new is taken once it is told to stop"
    assert len(server.bills()) == 2
    release(server)
    house.up()
    judge(house, server, ("quick", "long", "late"))
    assert posts(server) == 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(house: House, server: Server, number: int) -> None:
    """Asked twice it does not wait for the grace, which here would never end; the records are all that is needed."""
    house.use(server, grace_s=86_400)
    server.script({"match": RESPONSES, "do": {"run": "forever"}})
    daemon = house.up()
    house.drop("a")
    until(lambda: "accepted.1" in records(house, "a"), what="accepted")
    daemon.process.send_signal(number)
    until(lambda: daemon.has("worker.draining"), what="draining")
    daemon.process.send_signal(number)
    assert daemon.process.wait(30) == 128 + number
    release(server)
    judge(house, server)
    assert posts(server) == 1


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["responses", "chat"])
def test_a_stop_between_the_send_and_its_acceptance(house: House, server: Server, wire: str) -> None:
    """Billed, and no id came back in the grace: the next start looks it up and does not send it again."""
    house.use(server, wire, grace_s=0.2, doubt_wait_s=2, deadline_s=20, endpoints__openai__store="true")
    server.script({"match": RESPONSES if wire == "responses" else CHAT, "do": {"latency": "forever"}})
    daemon = house.up()
    house.drop("a")
    until(lambda: server.bills(), what="billed")
    assert stopped(daemon, house) == 0
    assert records(house, "a") == {"claim", "prompt", "sent.1"}
    release(server)
    house.up()
    assert house.result("a")["status"] == "answered"
    judge(house, server)
    assert posts(server) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "victim", ["calls/01-first/sent.1", "calls/01-first/accepted.1", "calls/01-first/reply", "RESULT_a.md"]
)
def test_a_start_waits_for_nothing_before_it_goes_on(house: House, server: Server, victim: str) -> None:
    """Whatever a kill left is taken up at once: every settle time, poll, back-off and look-up deadline is a day."""
    house.use(server, **NEVER)
    killed_before(house, victim, "a")
    daemon = house.up()
    assert house.result("a")["status"] == "answered"
    told = [event["event"] for event in daemon.events()]
    assert "job.resumed" in told
    judge(house, server)
    assert posts(server) == 1


@pytest.mark.slow
def test_a_start_after_a_stop_waits_for_nothing(house: House, server: Server) -> None:
    """The same after an orderly stop with a call in flight."""
    house.use(server, grace_s=0.1, **NEVER)
    server.script({"match": RESPONSES, "do": {"run": "forever"}})
    daemon = house.up()
    house.drop("a")
    until(lambda: "accepted.1" in records(house, "a"), what="accepted")
    assert stopped(daemon, house) == 0
    release(server)
    house.up()
    assert house.result("a")["status"] == "answered"
    judge(house, server)


# -- a lid that is closed --


def asleep(daemon: Daemon) -> bool:
    return Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def close_lid(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGSTOP)
    until(lambda: asleep(daemon), what="it sleeps")


def sleep_past(seconds: float) -> None:
    """Let more time pass than a limit of the daemon's allows."""
    time.sleep(seconds)


@pytest.mark.slow
@pytest.mark.parametrize(("wire", "post"), [("responses", RESPONSES), ("chat", CHAT)], ids=["responses", "chat"])
def test_a_lid_closed_in_mid_call(house: House, server: Server, wire: str, post: dict[str, str]) -> None:
    """Asleep for longer than the call's time-out and deadline, while the provider ends it: one send, one bill."""
    house.use(
        server,
        wire,
        deadline_s=2,
        doubt_wait_s=1,
        endpoints__openai__timeout_s=1.5,
        endpoints__openai__store="true",
    )
    server.script({"match": post, "do": {"run": "forever"}})
    daemon = house.up()
    house.drop("a")
    until(lambda: server.bills(), what="billed")
    close_lid(daemon)
    release(server)
    sleep_past(4)
    daemon.process.send_signal(signal.SIGCONT)
    assert house.result("a")["status"] == "answered"
    judge(house, server)
    assert posts(server) == 1


@pytest.mark.slow
def test_a_lid_opened_where_there_is_no_network_yet(house: House, server: Server, tmp_path: Path) -> None:
    """Awake before the network is: the accepted call is fetched once that is back, however long that took."""
    house.use(server, deadline_s=60)
    server.script({"match": RESPONSES, "do": {"run": "forever"}})
    daemon = house.up()
    house.drop("a")
    until(lambda: "accepted.1" in records(house, "a"), what="accepted")
    close_lid(daemon)
    release(server)
    port = server.port
    server.close()
    daemon.process.send_signal(signal.SIGCONT)
    until(lambda: not asleep(daemon), what="awake")
    sleep_past(2)
    again = Server(tmp_path, port=port)
    try:
        assert house.result("a", patience=60)["status"] == "answered"
        judge(house, again)
        assert len(again.bills()) == 1
        assert daemon.process.poll() is None
    finally:
        again.close()


@pytest.mark.slow
def test_a_lid_closed_while_requests_come(house: House, server: Server) -> None:
    """What is dropped while it sleeps, by another machine or a sync tool, is served once it wakes; each once."""
    house.use(server)
    daemon = house.up()
    close_lid(daemon)
    for number in range(20):
        house.drop(f"n{number}", request_text(f"issue {number}"))
    daemon.process.send_signal(signal.SIGCONT)
    judge(house, server)
    assert posts(server) == 20
