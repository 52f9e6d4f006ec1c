"""Rows 23 and 24 of the fault matrix: records that are damaged, a journal that is deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.disk import Shim, records
from faults.judging import judge, unsettled
from harness import House, Server, request_text, until

POST = {"method": "POST", "path": "/v1/responses"}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shim") / "disk.so"


@pytest.fixture
def shim(house: House, library: Path, need: Callable[[str], str]) -> Shim:
    """Lets single system calls of the daemon hang."""
    return Shim(house, need("cc"), library)


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "flipped": flip,
    "zeroed": lambda data: bytes(len(data)),
}
# Where the daemon is stopped (it hangs giving this name), what is damaged then, whether the call has been billed.
STAGES = [
    ("link", "*/prompt", "claim", False),
    ("link", "*/sent.1", "prompt", False),
    ("link", "*/accepted.1", "sent.1", True),
    ("link", "*/accepted.1", "claim", True),
    ("link", "*/accepted.1", "prompt", True),
    ("link", "*/reply", "accepted.1", True),
    ("rename", "*RESULT_*.md", "reply", True),
    ("rename", "*RESULT_*.json", "claim", True),
    ("link", "*/done", "reply", True),
    ("link", "*/nothing", "done", True),
    ("link", "*/nothing", "claim", True),
]


def damage(path: Path, how: str) -> None:
    path.write_bytes(DAMAGES[how](path.read_bytes()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wire", "call", "name", "victim", "billed"),
    [
        pytest.param(wire, *stage, id=f"row-23-{wire}-{stage[2]}-before-{stage[1].replace('*', '').strip('/')}")
        for stage in STAGES
        for wire in ("responses", "chat")
        if wire == "responses" or "accepted" not in "".join(stage[1:3])  # a chat call has no `accepted`
    ],
)
def test_row_23_a_damaged_record(
    house: House, server: Server, shim: Shim, wire: str, call: str, name: str, victim: str, billed: bool
) -> None:
    """Row 23: damaged in any way, a record is set aside and counts as absent, `sent` counts as sent: no second bill."""
    house.use(server, wire, doubt_wait_s=0.5, deadline_s=20, endpoints__openai__store="true")
    daemon = house.up()
    shim.order((call, name, 1, 1 << 30, "hang", 0))
    for key in DAMAGES:
        house.drop(key, request_text(f"why is it {key}?"))
    until(lambda: all(victim in records(house, key) for key in DAMAGES), what=f"each has its {victim}")
    if billed:
        until(lambda: len(server.bills()) == len(DAMAGES), what="all are billed")
    if name == "*RESULT_*.json":
        until(lambda: all(house.result_path(key, "md").exists() for key in DAMAGES), what="all pages")
    if name == "*/done":
        until(lambda: all(house.has_result(key) for key in DAMAGES), what="all RESULTs")
    if name == "*/nothing":
        until(lambda: not unsettled(house.folder), what="all are settled")
    daemon.kill()
    assert len(server.bills()) == (len(DAMAGES) if billed else 0)
    for key in DAMAGES:
        [path] = house.job(key).rglob(victim)
        damage(path, key)
    shim.heal()
    daemon = house.up()
    # The handle of a call is in its `sent`: without it no look-up is possible on the Responses wire.
    found = judge(house, server, could_tell=victim != "sent.1")
    assert len(server.bills()) == len(DAMAGES)
    if victim == "sent.1":
        assert {result["status"] for result in found.values()} == {"uncertain"}
    if victim in ("prompt", "accepted.1", "reply", "done") and name not in ("*/done", "*/nothing"):
        assert daemon.has("record.damaged")
    if victim == "prompt" and billed:
        assert all("what was sent is damaged" in str(result["warnings"]) for result in found.values())


@pytest.mark.slow
def test_row_23_a_damaged_claim_whose_result_stands_before_done(house: House, server: Server, shim: Shim) -> None:
    """Row 23: the RESULT protects its request, as it would without a journal: it stays, and nothing is asked."""
    house.use(server)
    daemon = house.up()
    shim.order(("link", "*/done", 1, 1 << 30, "hang", 0))
    for key in DAMAGES:
        house.drop(key, request_text(f"why is it {key}?"))
    until(lambda: all(house.has_result(key) for key in DAMAGES), what="all RESULTs")
    daemon.kill()
    for key in DAMAGES:
        damage(house.job(key) / "claim", key)
    before = {key: house.result_path(key).read_bytes() for key in DAMAGES}
    shim.heal()
    house.up()
    house.drop("last")
    house.result("last")
    assert {key: house.result_path(key).read_bytes() for key in DAMAGES} == before
    assert len(server.bills()) == len(DAMAGES) + 1


@pytest.mark.slow
def test_row_23_a_damaged_done_of_a_result_that_was_deleted(house: House, server: Server) -> None:
    """Row 23: the RESULT is made again from the recorded reply, and nothing is asked."""
    house.use(server)
    daemon = house.up()
    for key in DAMAGES:
        house.drop(key, request_text(f"why is it {key}?"))
    judge(house, server)
    daemon.stop()
    for key in DAMAGES:
        damage(house.job(key) / "done", key)
        for suffix in ("md", "json"):
            house.result_path(key, suffix).unlink()
    for path in (house.folder / ".delegated").glob("index.sqlite*"):
        path.unlink()
    daemon = house.up()
    judge(house, server)
    assert daemon.has("record.damaged")
    assert len(server.bills()) == len(DAMAGES)


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES)
def test_row_23_the_journals_name_is_damaged(house: House, server: Server, how: str, shim: Shim) -> None:
    """Row 23: a call that left is looked up under the name under which it left, whatever became of the journal's."""
    house.use(server, "chat", doubt_wait_s=0.5, deadline_s=3, endpoints__openai__store="true")
    daemon = house.up()
    shim.order(("link", "*/reply", 1, 1 << 30, "hang", 0))
    house.drop("one")
    until(server.bills, what="billed")
    until(lambda: "sent.1" in records(house, "one"), what="sent")
    daemon.kill()
    shim.heal()
    damage(house.folder / ".delegated" / "id", how)
    house.up()
    judge(house, server)
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_row_23_a_damaged_claim_of_an_edited_request(house: House, server: Server, shim: Shim) -> None:
    """Row 23: what was asked about other bytes is not taken for the answer to the edited request."""
    house.use(server, doubt_wait_s=0.5)
    daemon = house.up()
    shim.order(("rename", "*RESULT_*.md", 1, 1 << 30, "hang", 0))
    path = house.drop("one", request_text("the first question"))
    until(lambda: "reply" in records(house, "one"), what="replied")
    daemon.kill()
    damage(house.job("one") / "claim", "cut")
    path.write_text(request_text("the second question"))
    shim.heal()
    daemon = house.up()
    assert house.revision("one", 2)["request"]["title"] == "the second question"
    assert daemon.has("claim.damaged")
    assert len(server.bills()) == 2, "two questions"


@pytest.mark.slow
def test_row_23_a_damaged_claim_of_a_retry(house: House, server: Server, shim: Shim) -> None:
    """Row 23: the claim that a RETRY made is damaged after its call was billed: it is brought to its end, once."""
    house.use(server, doubt_wait_s=0.5)
    daemon = house.up()
    house.drop("one")
    judge(house, server)
    shim.order(("rename", "*RESULT_*.md", 1, 1 << 30, "hang", 0))
    (house.folder / "OPENAI_DELEGATION_RETRY_one").touch()
    until(lambda: list((house.folder / ".delegated" / "jobs").glob("*/one/r2/calls/*/reply")), what="replied")
    daemon.kill()
    damage(house.job("one", 2) / "claim", "zeroed")
    shim.heal()
    house.up()
    assert house.revision("one", 2)["status"] == "answered"
    assert len(server.bills()) == 2


@pytest.mark.slow
def test_row_23_a_damaged_claim_without_its_request(house: House, server: Server, shim: Shim) -> None:
    """Row 23: nothing is left to go on from: it is told, and the others are served."""
    house.use(server)
    daemon = house.up()
    shim.order(("link", "*/prompt", 1, 1 << 30, "hang", 0))
    path = house.drop("one")
    until(lambda: "claim" in records(house, "one"), what="claimed")
    daemon.kill()
    damage(house.job("one") / "claim", "cut")
    path.unlink()
    shim.heal()
    daemon = house.up()
    assert daemon.has("claim.damaged")
    house.drop("two")
    assert house.result("two")["status"] == "answered"
    assert len(server.bills()) == 1


# The journal is deleted


def taken_away(house: House) -> None:
    """Delete the journal, as often as the daemon makes something in it meanwhile."""
    journal = house.folder / ".delegated"
    until(lambda: shutil.rmtree(journal, ignore_errors=True) or not os.path.lexists(journal), what="rm -rf")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["", "jobs"])
def test_row_24_deleted_while_nothing_runs(house: House, server: Server, what: str) -> None:
    """Row 24: the daemon ends with a message and code 74; the RESULTs protect their requests from a second bill."""
    house.use(server)
    daemon = house.up()
    house.drop("one")
    judge(house, server)
    shutil.rmtree(house.folder / ".delegated" / what)
    assert daemon.process.wait(30) == 74
    assert "was taken away" in daemon.log.read_text()
    house.up()
    house.drop("two", request_text("another question"))
    house.result("two")
    assert len(server.bills()) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "grace", "status"), [(6, 30, "answered"), (60, 2, "uncertain")])
@pytest.mark.parametrize("wire", ["responses", "chat"])
def test_row_24_deleted_while_a_call_runs(
    house: House, server: Server, wire: str, runs: int, grace: int, status: str
) -> None:
    """Row 24: a paid call gets its RESULT all the same, `uncertain` if it takes too long: it is never paid again."""
    house.use(server, wire, grace_s=grace, concurrency=1)
    path = POST["path"] if wire == "responses" else "/v1/chat/completions"
    do = {"run": runs} if wire == "responses" else {"latency": runs}
    server.script({"match": {**POST, "path": path}, "do": do, "times": 1})
    daemon = house.up()
    house.drop("one")
    until(lambda: ("accepted.1" if wire == "responses" else "sent.1") in records(house, "one"), what="it has left")
    house.drop("two", request_text("another question"))
    until(server.bills, what="billed")
    taken_away(house)
    assert daemon.process.wait(60) == 74
    assert house.result("one", patience=1)["status"] == status
    assert not [name for name in os.listdir(house.folder) if name.startswith(".O")]
    assert len(server.bills()) == 1
    house.up()
    assert house.result("two")["status"] == "answered"
    assert len(server.bills()) == 2


@pytest.mark.slow
def test_row_24_deleted_between_two_runs(house: House, server: Server) -> None:
    """Row 24: what was answered is not asked again."""
    house.use(server)
    daemon = house.up()
    house.drop("one")
    judge(house, server)
    daemon.stop()
    shutil.rmtree(house.folder / ".delegated")
    house.up()
    house.drop("two", request_text("another question"))
    house.result("two")
    assert len(server.bills()) == 2


@pytest.mark.slow
def test_row_24_the_temporary_directory_is_deleted(house: House, server: Server) -> None:
    """Row 24: `tmp` is made again; nothing else is missed."""
    house.use(server)
    house.up()
    for key in ("one", "two"):
        shutil.rmtree(house.folder / ".delegated" / "tmp")
        house.drop(key, request_text(f"question {key}"))
        house.result(key)
    judge(house, server)
    assert len(server.bills()) == 2
