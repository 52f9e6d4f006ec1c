"""Every row of the restart table: a real daemon, killed by SIGKILL, started again, against a server that counts bills."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import House, Server, until

# Each record is made by one link(2); the first is the journal's own name. Killed on entering the k-th, the record it
# would have made is absent and everything before it is there.
ROWS = [
    (2, "request only", set()),
    (3, "claim", {"claim"}),
    (4, "prompt", {"claim", "prompt"}),
    (5, "sent, nothing after", {"claim", "prompt", "sent.1"}),
    (6, "accepted", {"claim", "prompt", "sent.1", "accepted.1"}),
    (7, "reply and RESULT", {"claim", "prompt", "sent.1", "accepted.1", "reply"}),
]


def records(house: House, key: str) -> set[str]:
    jobs = house.folder / ".delegated" / "jobs"
    return {path.name for path in jobs.glob(f"*/{key}/r1/**/*") if path.is_file()}


def killed_at_link(house: House, strace: str, k: int, key: str) -> set[str]:
    """Run the daemon until it dies on its k-th record; return the records that it left."""
    inject = (strace, "-f", "-qq", "-o", os.devnull, "--seccomp-bpf", "-e", "trace=linkat")
    daemon = house.start(prefix=(*inject, "-e", f"inject=linkat:signal=KILL:when={k}"))
    until(lambda: daemon.has("worker.ready") or daemon.process.poll() is not None, what="ready or dead")
    house.drop(key)
    daemon.process.wait(60)
    daemon.kill()
    return records(house, key)


@pytest.mark.parametrize(("k", "row", "left"), ROWS, ids=[row[1].replace(" ", "-") for row in ROWS])
def test_each_row_on_the_responses_wire(
    house: House, server: Server, need: Callable[[str], str], k: int, row: str, left: set[str]
) -> None:
    """Whatever a kill left, the next start answers the request, and it is billed once."""
    house.use(server, doubt_wait_s=1)
    assert killed_at_link(house, need("strace"), k, "one") == left
    assert house.has_result("one") == (k == 7)
    billed_before = len(server.bills())
    assert billed_before == (1 if k >= 5 else 0)
    house.up()
    result = house.result("one")
    assert result["status"] == "answered", result["error"]
    until(lambda: "done" in records(house, "one"), what="done")
    assert len(server.bills()) == 1
    assert os.listdir(house.folder / ".delegated" / "tmp") == []
    assert not (house.folder / "OPENAI_DELEGATION_STATUS_one.json").exists()
    house.close()
    house.up("--once").process.wait(30)
    assert len(server.bills()) == 1, "done: a further start does nothing"


@pytest.mark.parametrize("store", ["true", "false"])
@pytest.mark.parametrize("k", [4, 5])
def test_rows_on_the_chat_wire(house: House, server: Server, need: Callable[[str], str], k: int, store: str) -> None:
    """A chat call has no `accepted`: a lost one is found among the stored completions, or else is uncertain."""
    house.use(server, "chat", doubt_wait_s=1, deadline_s=1, endpoints__openai__store=store)
    killed_at_link(house, need("strace"), k, "one")
    assert len(server.bills()) == (1 if k == 5 else 0)
    house.up()
    result = house.result("one")
    assert len(server.bills()) == 1
    if k == 5 and store == "false":
        assert (result["status"], result["error"]["kind"]) == ("uncertain", "uncertain")
        assert "may bill twice" in result["error"]["hint"]
    else:
        assert result["status"] == "answered", result["error"]


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


def test_a_send_that_was_lost_on_the_way_is_sent_again_once_proven_absent(
    house: House, server: Server, need: Callable[[str], str]
) -> None:
    """Killed after `sent` was recorded and before anything left: the look-up finds nothing, and it is asked then."""
    house.use(server, doubt_wait_s=0.5, deadline_s=60)
    daemon = house.up()
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"reset": "before_body"}, "times": 1})
    house.drop("one")
    until(lambda: "sent.1" in records(house, "one"), what="sent")
    result = house.result("one", patience=90)
    assert result["status"] == "answered", result["error"]
    assert len(server.bills()) == 1
    assert daemon.process.poll() is None


def test_a_result_without_its_page_gets_it_back(house: House, server: Server, need: Callable[[str], str]) -> None:
    """RESULT.json stands and `done` does not: a start adds what is missing, without any network."""
    house.use(server)
    killed_at_link(house, need("strace"), 7, "one")
    house.result_path("one", "md").unlink()
    server.close()
    house.up()
    until(lambda: "done" in records(house, "one"), what="done")
    assert house.result_path("one", "md").read_text().strip()


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
