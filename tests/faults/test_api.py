"""Rows 70 to 78 of the fault matrix: whatever network and provider do, nothing is lost and nothing paid twice."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from faults.judging import judge
from harness import House, Server, request_text, running, until

ROOT = Path(__file__).parents[2]
PAID = {"responses": "/v1/responses", "chat": "/v1/chat/completions"}
LOOK_UP = {"responses": "/v1/conversations/*/items", "chat": "/v1/chat/completions"}
WIRES = pytest.mark.parametrize("wire", ["responses", "chat"])
#: Little patience: a lost call is proven absent 5.5 s after it was sent.
BRIEF: dict[str, Any] = {"doubt_wait_s": 0.5, "deadline_s": 5}
#: Short pauses, and a provider that keeps what it answered, also on the chat wire.
SWIFT: dict[str, Any] = {
    "retry__base_s": 0.1,
    "retry__cap_s": 0.5,
    "heartbeat_s": 0.2,
    "endpoints__openai__store": "true",
}


def post(wire: str, **do: Any) -> dict[str, Any]:
    """Make a rule for the first paid request; `contains=`, `times=` and `at=` are the rule's, the rest its fault."""
    match = {"method": "POST", "path": PAID[wire]}
    if "contains" in do:
        match["contains"] = do.pop("contains")
    return {"match": match, "times": do.pop("times", 1), "at": do.pop("at", 1), "do": do}


def status(house: House, key: str) -> dict[str, Any]:
    """Read a STATUS; {} when there is none."""
    try:
        return json.loads((house.folder / f"OPENAI_DELEGATION_STATUS_{key}.json").read_text())
    except FileNotFoundError:
        return {}


def held(house: House, key: str, words: str) -> str:
    """Wait until STATUS says that this job waits, since when, and why."""

    def probe() -> str:
        told = status(house, key)
        waits = told.get("phase") in ("held back", "backing off") and re.match(
            r"since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, ", told.get("detail", "")
        )
        return told["detail"] if waits and words in told["detail"] else ""

    return until(probe, what=f"{key} is held back: {words}")


def paid_posts(server: Server, wire: str) -> list[float]:
    """Return when the server took each paid POST, by its own clock."""
    log = server.state_json()["log"]
    return [one["at"] for one in log if (one["method"], one["path"]) == ("POST", PAID[wire])]


def order(server: Server) -> list[str]:
    """Return the ids of the requests in the order in which they were billed."""
    return [bill["call"].split(".")[1] for bill in server.bills()]


def about_in_order(found: list[str], expected: list[str], slack: int) -> bool:
    """Say whether nobody was served before one who was `slack` or more places ahead: so many run side by side."""
    place = {key: n for n, key in enumerate(expected)}
    return sorted(found) == sorted(expected) and all(abs(place[key] - n) < slack for n, key in enumerate(found))


def command(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `delegate` in the workspace."""
    return subprocess.run(
        [sys.executable, "-m", "delegated", *arguments],
        cwd=house.workspace,
        env=house.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def configure(house: House, base_url: str, key: str = "sk-test-0123456789abcdefghij", **endpoint: str) -> Path:
    """Write the user's configuration, which a reload reads again, and the key's own file."""
    place = house.tmp / "home" / ".config" / "delegated"
    place.mkdir(parents=True, exist_ok=True)
    key_file = place / "key"
    key_file.write_text(key)
    key_file.chmod(0o600)
    settings = {"base_url": base_url, "key_file": str(key_file), "key_env": "", "wire": "responses", **endpoint}
    house.env.pop("OPENAI_API_KEY", None)
    house.env["DELEGATED_MODEL"] = "gpt-4o"
    (place / "config.yaml").write_text(f"endpoints:\n  openai: {json.dumps(settings)}\n")
    return key_file


# -- row 70: nothing can be reached --


@pytest.mark.slow
@WIRES
def test_row_70_refused(house: House, server: Server, wire: str) -> None:
    """A closed port is waited for, STATUS says since when and why; the call leaves once, when somebody listens."""
    house.use(server, wire, **SWIFT)
    server.close()
    house.up()
    house.drop("one")
    held(house, "one", "cannot be reached")
    with_server = Server(house.tmp, port=server.port)
    try:
        judge(house, with_server, ["one"])
        assert len(with_server.bills()) == 1
    finally:
        with_server.close()


@contextmanager
def strange_tls(tmp: Path, need: Callable[[str], str]) -> Iterator[str]:
    """Listen with a certificate that nobody has signed."""
    made = [need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*made, "-keyout", tmp / "key.pem", "-out", tmp / "cert.pem"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp / "cert.pem", tmp / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plug, _ = listener.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(plug, server_side=True).close()
                except OSError:
                    plug.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["no such host", "no TLS there", "a certificate that nobody signed"])
def test_row_70_dns_and_tls(
    house: House, server: Server, fault: str, need: Callable[[str], str], tmp_path: Path
) -> None:
    """A name that leads nowhere and a TLS that cannot be made send nothing; mended and reloaded, the job goes on."""
    house.set(**SWIFT)
    with strange_tls(tmp_path, need) as strange:
        wrong = {
            "no such host": "http://delegated-no-such-host.invalid/v1",
            "no TLS there": server.base_url.replace("http:", "https:"),
            "a certificate that nobody signed": strange,
        }[fault]
        configure(house, wrong)
        daemon = house.up()
        house.drop("one")
        held(house, "one", "cannot be reached")
        configure(house, server.base_url)
        daemon.process.send_signal(signal.SIGHUP)
        judge(house, server, ["one"])
    assert len(server.bills()) == 1


# -- rows 71 to 74: the answer --


@pytest.mark.slow
@WIRES
@pytest.mark.parametrize("at", ["before_body", 40, "after_body", "after_body, billed"])
def test_row_71_reset(house: House, server: Server, wire: str, at: str | int) -> None:
    """Reset before the whole body was there: sent again. After it: looked up, never sent before it is proven absent."""
    house.use(server, wire, **SWIFT, **BRIEF)
    billed = at == "after_body, billed"
    server.script(post(wire, reset="after_body" if billed else at, **({"bill": True} if billed else {})))
    house.up()
    house.drop("one")
    judge(house, server, ["one"])
    assert len(server.bills()) == 1


@pytest.mark.slow
@WIRES
def test_row_72_unreadable_answers(house: House, server: Server, wire: str) -> None:
    """A head without a body, a body cut short, no JSON, a page: billed, so looked up, and never sent again."""
    house.use(server, wire, **SWIFT, **BRIEF, endpoints__openai__timeout_s=2)
    server.script(
        post(wire, contains="Alpha", stall="headers", bill=True),
        post(wire, contains="Bravo", cut=20, bill=True),
        post(wire, contains="Charlie", body="{not json", bill=True),
        post(wire, contains="Delta", body="<html>hello</html>", content_type="text/html", bill=True),
    )
    house.up()
    names = ("Alpha", "Bravo", "Charlie", "Delta")
    for name in names:
        house.drop(name, request_text(f"{name}: it divides by zero"))
    judge(house, server, names)
    assert sorted(order(server)) == sorted(names)
    assert len(paid_posts(server, wire)) == 4


ASKED = {"seconds": {"retry_after": 1.5}, "date": {"retry_after_date": 2.5}, "absent": {}, "10^9": {"retry_after": 1e9}}


@pytest.mark.slow
@WIRES
@pytest.mark.parametrize("asked", list(ASKED))
def test_row_73_rate_limited(house: House, server: Server, wire: str, asked: str) -> None:
    """A 429 pauses the endpoint, not the queue: nothing leaves before the time asked for (capped), then in order."""
    house.use(server, wire, **SWIFT, retry__after_cap_s=3)
    server.script(post(wire, error="rate_limited", **ASKED[asked]))
    house.up()
    house.drop("k00")
    held(house, "k00", "HTTP 429")
    keys = [f"k{n:02d}" for n in range(12)]
    for key in keys[1:]:
        house.drop(key)
    judge(house, server, keys)
    at = paid_posts(server, wire)
    # A date has whole seconds, so it may mean almost one less; without a word our own pause is 3 s, less a quarter.
    assert at[1] - at[0] >= {"seconds": 1.5, "date": 1.5, "absent": 2.2, "10^9": 3.0}[asked]
    assert len(at) == 13
    assert about_in_order(order(server), keys, 8)


@pytest.mark.slow
@WIRES
def test_row_73_a_restart_forgets_no_pause(house: House, server: Server, wire: str) -> None:
    """A daemon that is killed while it is told to wait, and started again, waits for what is left, whoever comes."""
    house.use(server, wire, **SWIFT)
    server.script(post(wire, error="rate_limited", retry_after=8))
    daemon = house.up()
    house.drop("one")
    held(house, "one", "HTTP 429")
    house.drop("two")
    held(house, "two", "HTTP 429")
    daemon.kill()
    house.up()
    house.drop("three")
    for key in ("one", "two", "three"):
        held(house, key, "HTTP 429")
    judge(house, server, ["one", "two", "three"])
    at = paid_posts(server, wire)
    assert at[1] - at[0] >= 8
    assert order(server)[0] == "one"


@pytest.mark.slow
@WIRES
def test_row_74_errors_after_billing(house: House, server: Server, wire: str) -> None:
    """500, 502, 503 and 504 leave it open whether the call was taken: it is looked up, found, and paid once."""
    house.use(server, wire, **SWIFT, **BRIEF)
    names = {"Alpha": 500, "Bravo": 502, "Charlie": 503, "Delta": 504}
    server.script(*(post(wire, contains=name, status=code, bill=True) for name, code in names.items()))
    house.up()
    for name in names:
        house.drop(name, request_text(f"{name}: it divides by zero"))
    judge(house, server, names)
    assert sorted(order(server)) == sorted(names)
    assert len(paid_posts(server, wire)) == 4


# -- row 75: nobody else sends again --


def test_row_75_every_client_is_built_without_retries() -> None:
    """No SDK client in the program may send by itself: each is built with `max_retries=0`, in its provider's room."""
    built = []
    for path in sorted((ROOT / "daemon").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if re.fullmatch(r"(Async)?(Azure)?(OpenAI|Anthropic)", name):
                    retries = [word.value for word in node.keywords if word.arg == "max_retries"]
                    built.append((path.name, [ast.literal_eval(value) for value in retries]))
                assert name not in ("with_options", "copy_client"), f"{path}: could turn retries on again"
    assert built == [("anthropic.py", [0]), ("client.py", [0])]


@pytest.mark.slow
@WIRES
def test_row_75_one_post(house: House, server: Server, wire: str) -> None:
    """An error after which the SDK would send again by itself leads to one POST."""
    house.use(server, wire, **SWIFT, **BRIEF)
    server.script(post(wire, status=500, bill=True, headers={"x-should-retry": "true"}))
    house.up()
    house.drop("one")
    judge(house, server, ["one"])
    assert len(paid_posts(server, wire)) == 1


# -- row 76: the look-up itself --


@pytest.mark.slow
@WIRES
@pytest.mark.parametrize("fault", ["fails", "lags"])
def test_row_76_a_look_up_that_fails_or_lags(house: House, server: Server, wire: str, fault: str) -> None:
    """A look-up that errs, or shows the call only after a while, is repeated: found in the end, paid once."""
    house.use(server, wire, **SWIFT, **BRIEF)
    lost = {"status": 500, "bill": True}
    if fault == "lags":
        server.script(post(wire, **lost, lag=3))
    else:
        look = {"method": "GET", "path": LOOK_UP[wire]}
        server.script(post(wire, **lost), {"match": look, "times": 4, "do": {"status": 503}})
    house.up()
    house.drop("one")
    judge(house, server, ["one"])
    assert len(server.bills()) == len(paid_posts(server, wire)) == 1


@pytest.mark.slow
def test_row_76_a_look_up_that_lies_while_the_call_runs(house: House, server: Server) -> None:
    """Told that it is absent while it runs, we send again, into the same conversation: the provider's lock refuses."""
    house.use(server, **SWIFT, **{**BRIEF, "deadline_s": 5})
    look = {"method": "GET", "path": LOOK_UP["responses"]}
    server.script(
        post("responses", status=500, bill=True, run="forever"),
        {"match": look, "times": "always", "do": {"absent": True}},
    )
    house.up()
    house.drop("one")
    until(lambda: len(paid_posts(server, "responses")) > 1, what="sent again")
    assert len(server.bills()) == 1
    server.script()
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/_test/release", data=b""), timeout=10).close()
    judge(house, server, ["one"])
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_row_76_what_rests_on_the_provider_alone(house: House, server: Server) -> None:
    """Only a provider whose look-up lies and whose lock fails is paid twice: the page names this risk."""
    house.use(server, **SWIFT, **{**BRIEF, "deadline_s": 5})
    look = {"method": "GET", "path": LOOK_UP["responses"]}
    server.script(
        post("responses", status=500, bill=True, run="forever"),
        post("responses", at=2, unlocked=True),
        {"match": look, "times": "always", "do": {"absent": True}},
    )
    house.up()
    house.drop("one")
    assert house.result("one")["status"] == "answered"
    assert order(server) == ["one", "one"]
    page = " ".join((ROOT / "docs" / "models.md").read_text().split())
    assert "a look-up that says that a running call is absent, and a conversation that lets a second one in" in page


# -- row 77: the network is off --


def outage(house: House, server: Server, wire: str, seconds: float, count: int, cap_s: float) -> dict[str, float]:
    """Drop `count` requests while nothing can be reached, for so long; then judge how they were served.

    Returns what was counted: tries while it was off, seconds it was off, seconds until all were served.
    """
    house.use(server, wire, **{**SWIFT, "retry__base_s": min(1.0, cap_s / 5), "retry__cap_s": cap_s})
    server.close()
    house.up()
    house.drop(
        "a-deadline", request_text("it divides by zero").replace("# Issue", "---\ndeadline_s: 6\n---\n# Issue", 1)
    )
    keys = [f"k{n:03d}" for n in range(count)]
    began = time.monotonic()
    for key in keys:
        house.drop(key)
    ended = house.result("a-deadline")
    assert (ended["status"], ended["error"]["kind"]) == ("failed", "unreachable"), "its own deadline ends its waiting"
    for key in keys[:8]:
        assert "cannot be reached" in held(house, key, "")
    told = command(house, "status").stdout
    assert re.search(r"k000: (held back|backing off): since 20\S+Z, .*cannot be reached", told), told
    left = seconds - (time.monotonic() - began)
    if left > 0:
        time.sleep(left)  # the fault itself: so long is the network off
    off = time.monotonic() - began
    tries = len(list(house.folder.glob(".delegated/jobs/*/*/r1/calls/*/unsent.*")))
    assert len(list(house.folder.glob("*_RESULT_*.json"))) == 1, "nobody was failed"
    again = Server(house.tmp, "--latency", "0.1", port=server.port)
    back = time.monotonic()
    try:
        judge(house, again, keys, patience=cap_s * 2 + 60)
        served = time.monotonic() - back
        at = paid_posts(again, wire)
        assert len(at) == count
        assert about_in_order(order(again), keys, 8)
        if wire == "chat":  # acceptance shows with the answer, 0.1 s later: one goes first, and two follow it
            assert at[1] - at[0] >= 0.1
            assert at[3] - at[1] >= 0.1
    finally:
        again.close()
    return {"tries": tries, "off_s": off, "served_s": served}


@pytest.mark.slow
@WIRES
def test_row_77_network_off(house: House, server: Server, wire: str) -> None:
    """All wait and say why; one tries, at most once a pause; back again, all are served, in order, without a herd."""
    seen = outage(house, server, wire, seconds=4, count=100, cap_s=0.5)
    # The eight that were on their way and the deadline's, then one for each pause, which is cut by a quarter at most.
    assert seen["tries"] <= 9 + 8 + seen["off_s"] / (0.75 * 0.5)


@pytest.mark.slow
@WIRES
def test_row_77_off_while_the_call_runs(house: House, server: Server, wire: str) -> None:
    """A call that the provider took is fetched, or looked up, when the network is back: no second send."""
    house.use(server, wire, **SWIFT, **{**BRIEF, "deadline_s": ""})
    house.up()
    server.script(post(wire, run=1, **({"latency": 20} if wire == "chat" else {})))
    house.drop("one")
    until(server.bills, what="a bill")
    until(lambda: status(house, "one").get("phase") in ("waiting", "asking"), what="the call runs")
    server.close()
    until(lambda: status(house, "one").get("phase") in ("out of reach", "looking up"), what="STATUS says so")
    again = Server(house.tmp, port=server.port)
    try:
        judge(house, again, ["one"])
        assert len(again.bills()) == 1
    finally:
        again.close()


@pytest.mark.slow
@WIRES
def test_row_77_suspended_in_mid_call(house: House, server: Server, wire: str) -> None:
    """A lid that is closed in mid-call for longer than any time-out: no storm and no second send when it opens."""
    house.use(server, wire, **SWIFT, **BRIEF, endpoints__openai__timeout_s=2, endpoints__openai__connect_s=1)
    daemon = house.up()
    server.script(post(wire, times="always", run=1))
    keys = [f"k{n}" for n in range(8)]
    for key in keys:
        house.drop(key)
    until(lambda: len(server.bills()) == 8, what="all are under way")
    os.kill(daemon.process.pid, signal.SIGSTOP)
    before = server.state_json()["requests_total"]
    time.sleep(4)  # the fault itself
    os.kill(daemon.process.pid, signal.SIGCONT)
    judge(house, server, keys)
    assert len(paid_posts(server, wire)) == 8
    assert server.state_json()["requests_total"] - before < 200


# -- row 78: key or credit --

EXHAUSTED = {"401": "bad_key", "402": "payment_required", "quota": "insufficient_quota"}


@pytest.mark.slow
@WIRES
@pytest.mark.parametrize("fault", list(EXHAUSTED))
def test_row_78_key_or_credit_exhausted(house: House, server: Server, wire: str, fault: str) -> None:
    """The first to meet it ends and says so; no other is failed: the gate closes, tells why, resumes by itself."""
    house.use(server, wire, **SWIFT, retry__person_s=0.2)
    server.script({"match": {"method": "POST"}, "times": "always", "do": {"error": EXHAUSTED[fault]}})
    house.up()
    house.drop("k00")
    ended = house.result("k00")
    kind = "bad_key" if fault == "401" else "quota_exhausted"
    assert (ended["status"], ended["error"]["kind"]) == ("failed", kind)
    keys = [f"k{n:02d}" for n in range(1, 13)]
    for key in keys:
        house.drop(key)
    for key in keys[:8]:
        held(house, key, "HTTP 4")
    until(lambda: server.state_json()["rules"][0]["seen"] >= 5, what="it is tried again")
    told = command(house, "status").stdout
    assert re.search(r"k01: (held back|backing off): since 20\S+Z, .*HTTP 4", told), told
    assert {path.name for path in house.folder.glob("*_RESULT_*.json")} == {"OPENAI_DELEGATION_RESULT_k00.json"}
    server.script()
    judge(house, server, keys)
    assert about_in_order(order(server), keys, 8)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["nothing", "key"])
def test_row_78_a_reload_tries_at_once(house: House, tmp_path: Path, change: str) -> None:
    """Credit was added, or another key was put in its place: after SIGHUP nobody waits for the pause to end."""
    good = "sk-good-0123456789abcdefghij"
    server = Server(tmp_path, "--key", good)
    try:
        house.set(**SWIFT, retry__person_s=3600)
        configure(house, server.base_url, good if change == "nothing" else "sk-gone-0123456789abcdefghij")
        if change == "nothing":
            server.script({"match": {"method": "POST"}, "times": "always", "do": {"error": "insufficient_quota"}})
        daemon = house.up()
        house.drop("k0")
        assert house.result("k0")["status"] == "failed"
        house.drop("k1")
        house.drop("k2")
        for key in ("k1", "k2"):
            held(house, key, "HTTP 4")
        server.script()
        configure(house, server.base_url, good)
        daemon.process.send_signal(signal.SIGHUP)
        judge(house, server, ["k1", "k2"])
    finally:
        server.close()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults outage")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--wire", choices=sorted(PAID), default="chat")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as tmp, running(House(Path(tmp))) as house:
        server = Server(Path(tmp))
        seen = outage(house, server, args.wire, seconds=args.minutes * 60, count=args.requests, cap_s=60.0)
        print(json.dumps({key: round(value, 1) for key, value in seen.items()}))
    return 0
