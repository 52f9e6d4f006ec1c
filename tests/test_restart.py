"""Every row of the restart table: a real daemon, killed by SIGKILL and started again, a server that counts bills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from harness import House, Server, until

# Killed at the instant before a record gets its name, that record is absent and everything before it is there.
ROWS = [
    ("claim", "request only", set()),
    ("calls/01-first/prompt", "claim", {"claim"}),
    ("calls/01-first/sent.1", "prompt", {"claim", "prompt"}),
    ("calls/01-first/accepted.1", "sent, nothing after", {"claim", "prompt", "sent.1"}),
    ("calls/01-first/reply", "accepted", {"claim", "prompt", "sent.1", "accepted.1"}),
    ("RESULT_one.md", "reply", {"claim", "prompt", "sent.1", "accepted.1", "reply"}),
    ("RESULT_one.json", "reply and RESULT.md", {"claim", "prompt", "sent.1", "accepted.1", "reply"}),
    ("done", "RESULT", {"claim", "prompt", "sent.1", "accepted.1", "reply"}),
]
BILLED = ("accepted.1", "reply", ".md", ".json", "done")


def records(house: House, key: str) -> set[str]:
    jobs = house.folder / ".delegated" / "jobs"
    return {path.name for path in jobs.glob(f"*/{key}/r1/**/*") if path.is_file()}


def killed_before(house: House, victim: str, key: str) -> set[str]:
    """Run the daemon until it dies giving a file its name; return the records that it left."""
    house.env |= {"CRASH_BEFORE": victim, "PYTHONPATH": str(Path(__file__).with_name("crash"))}
    daemon = house.up()
    del house.env["CRASH_BEFORE"], house.env["PYTHONPATH"]
    house.drop(key)
    assert daemon.process.wait(30) == -signal.SIGKILL
    return records(house, key)


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "row", "left"), ROWS, ids=[row[1].replace(" ", "-") for row in ROWS])
def test_each_row_on_the_responses_wire(house: House, server: Server, victim: str, row: str, left: set[str]) -> None:
    """Whatever a kill left, the next start answers the request, and it is billed once."""
    house.use(server, doubt_wait_s=1)
    assert killed_before(house, victim, "one") == left
    assert house.has_result("one") == (victim == "done")
    billed_before = len(server.bills())
    assert billed_before == (1 if victim.endswith(BILLED) else 0)
    house.up()
    result = house.result("one")
    assert result["status"] == "answered", result["error"]
    until(lambda: "done" in records(house, "one"), what="done")
    assert len(server.bills()) == 1
    until(lambda: not os.listdir(house.folder / ".delegated" / "tmp"), what="no temporary file is left")
    until(lambda: not (house.folder / "OPENAI_DELEGATION_STATUS_one.json").exists(), what="STATUS gone")
    house.close()
    house.up("--once").process.wait(30)
    assert len(server.bills()) == 1, "done: a further start does nothing"


@pytest.mark.slow
@pytest.mark.parametrize("store", ["true", "false"])
@pytest.mark.parametrize("victim", ["sent.1", "reply"])
def test_rows_on_the_chat_wire(house: House, server: Server, victim: str, store: str) -> None:
    """A chat call has no `accepted`: a lost one is found among the stored completions, or else is uncertain."""
    # a busy machine may take seconds to open its first client
    house.use(server, "chat", doubt_wait_s=0.5, deadline_s=5, endpoints__openai__store=store)
    killed_before(house, f"calls/01-first/{victim}", "one")
    assert len(server.bills()) == (1 if victim == "reply" else 0)
    house.up()
    result = house.result("one")
    assert len(server.bills()) == 1
    if victim == "reply" and store == "false":
        assert (result["status"], result["error"]["kind"]) == ("uncertain", "uncertain")
        assert "may bill twice" in result["error"]["hint"]
    else:
        assert result["status"] == "answered", result["error"]


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["responses", "chat"])
def test_killed_at_the_instant_of_the_bill(house: House, server: Server, wire: str) -> None:
    """The server bills and the daemon is dead before it can read a byte: one bill, and the answer is recovered."""
    house.use(server, wire, doubt_wait_s=1, deadline_s=3, endpoints__openai__store="true")
    daemon = house.up()
    path = "/v1/responses" if wire == "responses" else "/v1/chat/completions"
    server.script({"match": {"method": "POST", "path": path}, "do": {"kill": daemon.process.pid}})
    house.drop("one")
    daemon.process.wait(30)
    assert len(server.bills()) == 1
    assert "reply" not in records(house, "one")
    house.up()
    result = house.result("one")
    assert result["status"] == "answered", result["error"]
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_a_send_that_was_lost_on_the_way_is_sent_again_once_proven_absent(house: House, server: Server) -> None:
    """Killed after `sent` and before anything was taken: the look-up finds nothing, and it is asked then."""
    house.use(server, doubt_wait_s=0.5, deadline_s=2)
    daemon = house.up()
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"reset": "before_body"}, "times": 1})
    house.drop("one")
    until(lambda: "sent.1" in records(house, "one"), what="sent")
    daemon.kill()
    house.up()
    result = house.result("one")
    assert result["status"] == "answered", result["error"]
    assert len(server.bills()) == 1
    assert {"unsent.1", "sent.2"} <= records(house, "one")


@pytest.mark.slow
def test_a_send_that_is_proven_absent_is_made_again_without_a_restart(house: House, server: Server) -> None:
    """The connection broke before anything was taken: looked up past the deadline, proven absent, sent once more."""
    house.use(server, doubt_wait_s=0.5, deadline_s=5)  # a busy machine may take seconds to open its first client
    house.up()
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"reset": "before_body"}, "times": 1})
    house.drop("one")
    result = house.result("one")
    assert result["status"] == "answered", result["error"]
    assert len(server.bills()) == 1
    assert {"unsent.1", "sent.2"} <= records(house, "one")


@pytest.mark.slow
def test_a_start_without_the_key_publishes_what_is_recorded(house: House, server: Server) -> None:
    """A recorded reply needs no key."""
    house.use(server)
    killed_before(house, "RESULT_one.md", "one")
    del house.env["OPENAI_API_KEY"]
    house.up()
    assert house.result("one")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "phase"), [("accepted.1", "looking up"), ("reply", "out of reach")])
def test_a_call_that_left_waits_for_the_key(house: House, server: Server, victim: str, phase: str) -> None:
    """Started without its key, the daemon says in STATUS what it lacks; with it, the answer is fetched, paid once."""
    house.use(server)
    killed_before(house, f"calls/01-first/{victim}", "one")
    key = house.env.pop("OPENAI_API_KEY")
    house.up()

    def told() -> tuple[str, str]:
        path = house.folder / "OPENAI_DELEGATION_STATUS_one.json"
        status = json.loads(path.read_bytes()) if path.exists() else {}
        return status.get("phase", ""), status.get("detail", "")

    until(lambda: told() == (phase, "OPENAI_API_KEY environment variable required"), what="STATUS says it")
    assert not house.has_result("one")
    house.close()
    house.env["OPENAI_API_KEY"] = key
    house.up()
    assert house.result("one")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_a_result_without_its_page_gets_it_back(house: House, server: Server) -> None:
    """RESULT.json stands and `done` does not: a start adds what is missing, without any network."""
    house.use(server)
    killed_before(house, "done", "one")
    house.result_path("one", "md").unlink()
    server.close()
    house.up()
    until(lambda: "done" in records(house, "one"), what="done")
    assert house.result_path("one", "md").read_text().strip()


@pytest.mark.slow
def test_a_result_that_was_deleted_is_not_billed_again(house: House, server: Server) -> None:
    """RESULT deleted: nothing happens, now and at the next start; the answer is kept in `done`."""
    house.use(server)
    daemon = house.up()
    house.drop("one")
    first = house.result("one")
    until(lambda: "done" in records(house, "one"), what="done")
    for suffix in ("md", "json"):
        house.result_path("one", suffix).unlink()
    daemon.stop()
    house.up()
    house.drop("two")
    house.result("two")
    assert not house.has_result("one")
    assert len(server.bills()) == 2
    kept = (house.job("one") / "done").read_bytes()
    assert json.dumps(first["request"]["sha256"]).encode() in kept


@pytest.mark.slow
def test_a_lost_index_costs_time_and_nothing_else(house: House, server: Server) -> None:
    """index.sqlite is rebuilt from the journal: deleted or damaged, nothing is asked again."""
    house.use(server)
    for damage in (Path.unlink, lambda path: path.write_bytes(b"not a database" * 100)):
        daemon = house.up()
        house.drop("one")
        house.result("one")
        daemon.stop()
        for name in ("index.sqlite-wal", "index.sqlite-shm"):
            (house.folder / ".delegated" / name).unlink(missing_ok=True)
        damage(house.folder / ".delegated" / "index.sqlite")
    house.up("--once").process.wait(30)
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_a_deleted_journal_does_not_ask_again(house: House, server: Server) -> None:
    """Without `.delegated` the RESULT that stands protects its request; an edit after it is a new question."""
    house.use(server)
    daemon = house.up()
    path = house.drop("one")
    house.result("one")
    daemon.stop()
    subprocess.run(["rm", "-rf", str(house.folder / ".delegated")], check=True)
    daemon = house.up()
    house.drop("two")
    house.result("two")
    assert len(server.bills()) == 2
    path.write_text(path.read_text() + "\n# Context\n\nmore\n")
    assert house.revision("one", 2)["status"] == "answered"
    assert len(server.bills()) == 3
