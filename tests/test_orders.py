"""Edits, cancellations, retries and deletions: what one id leads to over its life."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest

from harness import PREFIX, House, Server, request_text, until

NEVER = {"match": {"method": "POST", "path": "/v1/responses"}, "do": {"run": "forever"}}


@pytest.mark.slow
def test_an_edit_after_the_answer_is_asked_as_the_next_revision(house: House, server: Server) -> None:
    """Save-to-delegate: new bytes, new revision; the former RESULT is kept in the history."""
    house.use(server)
    house.up()
    path = house.drop("e")
    first = house.result("e")
    path.write_text(request_text("another question"))
    second = house.revision("e", 2)
    assert first["request"]["revision"] == 1
    assert second["status"] == "answered"
    history = house.folder / ".delegated" / "history" / "e"
    assert sorted(p.name for p in history.iterdir()) == ["1.json", "1.md"]
    assert len(server.bills()) == 2


@pytest.mark.slow
def test_on_edit_keep_does_not_bill_and_says_so(house: House, server: Server) -> None:
    """With `on_edit: keep` an edit after the answer costs nothing, and the RESULT has a word on it."""
    house.use(server, on_edit="keep")
    house.up()
    path = house.drop("e")
    house.result("e")
    path.write_text(request_text("another question"))
    until(lambda: "on_edit: keep" in str(house.result("e")["warnings"]), what="the RESULT says so")
    assert house.result("e")["request"]["revision"] == 1
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_an_edit_before_anything_was_sent_takes_the_new_bytes(house: House, server: Server) -> None:
    """While the call waits for a rate limit nothing is out: the edit is asked, the old bytes never are."""
    house.use(server)
    server.script(
        {"match": {"method": "POST", "path": "/v1/responses"}, "do": {"error": "rate_limited", "retry_after": 2}}
    )
    house.up()
    path = house.drop("e", request_text("the first words"))
    unsent = lambda: list((house.folder / ".delegated" / "jobs").glob("*/e/r1/calls/*/unsent.1"))  # noqa: E731
    until(unsent, what="refused once")
    path.write_text(request_text("the second words"))
    assert house.revision("e", 2)["status"] == "answered"
    bills = server.bills()
    assert len(bills) == 1
    assert (house.job("e", 1) / "done").exists()


@pytest.mark.slow
def test_an_edit_while_the_call_is_in_flight_waits_its_turn(house: House, server: Server) -> None:
    """The first answer is recorded and published, then the edit counts as the next revision."""
    house.use(server)
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"run": 1.5}, "times": 1})
    house.up()
    path = house.drop("e")
    until(lambda: server.bills(), what="billed")
    path.write_text(request_text("the second words"))
    house.revision("e", 2)
    assert len(server.bills()) == 2
    assert (house.folder / ".delegated" / "history" / "e" / "1.json").exists()


@pytest.mark.slow
def test_cancel_stops_a_running_call(house: House, server: Server) -> None:
    """A CANCEL file stops the call at the provider; the RESULT says cancelled, and the order is taken away."""
    house.use(server)
    server.script(NEVER)
    house.up()
    house.drop("c")
    until(lambda: list((house.folder / ".delegated" / "jobs").glob("*/c/r1/calls/*/accepted.1")), what="accepted")
    (house.folder / f"{PREFIX}CANCEL_c").touch()
    result = house.result("c")
    assert (result["status"], result["error"]["kind"]) == ("cancelled", "cancelled")
    until(lambda: not (house.folder / f"{PREFIX}CANCEL_c").exists(), what="the order is gone")
    assert len(server.bills()) == 1


def test_cancel_before_the_daemon_runs(house: House, server: Server) -> None:
    """Dropped and cancelled while nobody served: nothing is sent."""
    house.use(server)
    house.drop("c")
    (house.folder / f"{PREFIX}CANCEL_c").touch()
    house.up()
    assert house.result("c")["status"] == "cancelled"
    assert server.bills() == []


@pytest.mark.slow
def test_cancel_stops_a_call_that_a_former_daemon_left_at_the_provider(house: House, server: Server) -> None:
    """Killed while it runs there, cancelled while nobody serves: the next start stops it and keeps its receipt."""
    house.use(server)
    server.script(NEVER)
    daemon = house.up()
    house.drop("c")
    until(lambda: list((house.folder / ".delegated" / "jobs").glob("*/c/r1/calls/*/accepted.1")), what="accepted")
    daemon.kill()
    (house.folder / f"{PREFIX}CANCEL_c").touch()
    house.up()
    result = house.result("c")
    assert result["status"] == "cancelled"
    assert [sent["path"] for sent in result["egress"][0]["files"]] == ["app.py"]
    assert [bill["state"] for bill in server.bills()] == ["cancelled"]


def test_the_log_says_at_the_start_when_the_model_goes(house: House, server: Server) -> None:
    """A model that leaves the API within 90 days is a warning in the log, before any request."""
    (house.workspace.parent / "config.yaml").write_text("models:\n  gpt-4o:\n    shutdown: 2020-01-01\n")
    house.use(server)
    daemon = house.up("--config", str(house.workspace.parent / "config.yaml"))
    assert [event["note"] for event in daemon.events() if event["event"] == "model.leaving"]


def test_cancel_that_comes_before_its_request(house: House, server: Server) -> None:
    """An order that was there first holds for the request that comes after it; nothing is sent."""
    house.use(server)
    house.up()
    (house.folder / f"{PREFIX}CANCEL_c").touch()
    house.drop("other")
    house.result("other")
    house.drop("c")
    assert house.result("c")["status"] == "cancelled"
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_a_request_deleted_before_it_was_sent_is_cancelled(house: House, server: Server) -> None:
    """Deleted while the call still waits: cancelled. Deleted after: finished and published."""
    house.use(server)
    server.script(
        {
            "match": {"method": "POST", "path": "/v1/responses"},
            "do": {"error": "rate_limited", "retry_after": 30},
            "times": 1,
        }
    )
    house.up()
    path = house.drop("d")
    until(lambda: list((house.folder / ".delegated" / "jobs").glob("*/d/r1/calls/*/unsent.1")), what="refused once")
    path.unlink()
    assert house.result("d")["status"] == "cancelled"
    assert server.bills() == []


@pytest.mark.slow
def test_a_request_deleted_after_it_was_sent_is_published(house: House, server: Server) -> None:
    """What was paid for is published, whether its REQUEST still stands or not."""
    house.use(server)
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"run": 2}})
    house.up()
    path = house.drop("d")
    until(lambda: server.bills(), what="billed")
    path.unlink()
    assert house.result("d")["status"] == "answered"


@pytest.mark.slow
def test_retry_asks_again_once_even_if_killed(house: House, server: Server) -> None:
    """A RETRY file runs a settled request again; the same order is never obeyed twice."""
    house.use(server)
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"error": "bad_key"}, "times": 1})
    daemon = house.up()
    house.drop("r")
    assert house.result("r")["error"]["kind"] == "bad_key"
    order = house.folder / f"{PREFIX}RETRY_r"
    order.touch()
    info = order.stat()
    assert house.revision("r", 2)["status"] == "answered"
    until(lambda: not order.exists(), what="the order is taken away")
    daemon.kill()
    claim = (house.job("r", 2) / "claim").read_bytes()
    assert f"{info.st_ino}.{info.st_mtime_ns}".encode() in claim
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_two_files_with_one_id(house: House, server: Server) -> None:
    """`.md` and `.json` of one id, as the original script wrote them: one is asked, the other is a warning."""
    house.use(server)
    house.drop("t", '{"issue": "x fails"}', ".json")
    time.sleep(0.01)
    house.drop("t")
    house.up()
    result = house.result("t")
    assert "same id" in str(result["warnings"])
    house.drop("later")
    house.result("later")
    assert len(server.bills()) == 2


@pytest.mark.slow
def test_a_conflict_copy_is_not_billed(house: House, server: Server) -> None:
    """A sync tool's copy with the bytes of a known request ends as `duplicate`."""
    house.use(server)
    house.up()
    path = house.drop("orig")
    house.result("orig")
    house.drop("orig.sync-conflict-20260101-101010-ABCDEFG", path.read_bytes())
    result = house.result("orig.sync-conflict-20260101-101010-ABCDEFG")
    assert result["status"] == "duplicate"
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_stop_lets_a_running_call_finish(house: House, server: Server) -> None:
    """SIGTERM: nothing new is taken, the running job ends within the grace, exit 0."""
    house.use(server)
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"run": 1.5}})
    daemon = house.up()
    house.drop("s")
    until(lambda: server.bills(), what="billed")
    assert daemon.stop() == 0
    assert house.result("s")["status"] == "answered"


@pytest.mark.slow
def test_stop_leaves_a_long_call_at_the_provider(house: House, server: Server) -> None:
    """Past the grace the call goes on there; its id is on disk, and the next start fetches it."""
    house.use(server, grace_s=0.5)
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"run": 4}})
    daemon = house.up()
    house.drop("s")
    until(lambda: list((house.folder / ".delegated" / "jobs").glob("*/s/r1/calls/*/accepted.1")), what="accepted")
    assert daemon.stop(signal.SIGINT) == 0
    assert not house.has_result("s")
    house.up()
    assert house.result("s")["status"] == "answered"
    assert len(server.bills()) == 1


def test_a_second_daemon_is_told_who_holds_the_folder(house: House) -> None:
    """Exit 75, and the sentence names the holder."""
    first = house.up()
    second = house.start()
    assert second.process.wait(30) == 75
    assert str(first.process.pid) in house.tmp.joinpath("daemon.log").read_text()


@pytest.mark.slow
def test_a_folder_that_is_replaced_is_served_again(house: House, server: Server) -> None:
    """Deleted and made anew, or renamed away: the next request in the new one is answered."""
    house.use(server)
    daemon = house.up()
    house.drop("one")
    house.result("one")
    until(lambda: daemon.has("job.settled"), what="settled")
    shutil.rmtree(house.folder)
    house.folder.mkdir()
    house.drop("two")
    assert house.result("two")["status"] == "answered"
    os.rename(house.folder, house.tmp / "old")
    house.folder.mkdir()
    house.drop("three")
    assert house.result("three")["status"] == "answered"
    assert len(server.bills()) == 3
    assert daemon.process.poll() is None
    assert not list((house.tmp / "old").glob("*three*"))


@pytest.mark.slow
def test_polling_serves_too(house: House, server: Server) -> None:
    """Without any events requests are found by looking."""
    house.use(server, watch="poll", poll_s=0.2)
    daemon = house.up()
    assert daemon.has("watch.polling")
    house.drop("p")
    assert house.result("p")["status"] == "answered"
    house.request("q").write_text(request_text())
    assert house.result("q")["status"] == "answered"


@pytest.mark.slow
def test_status_tells_what_goes_on_and_goes_away(house: House, server: Server) -> None:
    """While a job runs its STATUS file has phase, model, attempt and a heartbeat that moves; then it is gone."""
    house.use(server, heartbeat_s=0.1)
    server.script(NEVER)
    house.up()
    house.drop("s")
    import json

    path = house.folder / f"{PREFIX}STATUS_s.json"

    def phase() -> dict | None:
        try:
            value = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        return value if value["phase"] == "waiting" else None

    first = until(phase, what="waiting")
    assert (first["schema"], first["model"], first["revision"]) == ("delegated/status/1", "gpt-4o", 1)
    assert first["tokens"] > 100
    until(lambda: (phase() or first)["heartbeat"] != first["heartbeat"], what="heartbeat moves")
    (house.folder / f"{PREFIX}CANCEL_s").touch()
    house.result("s")
    until(lambda: not path.exists(), what="STATUS gone")
