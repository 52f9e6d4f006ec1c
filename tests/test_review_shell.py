"""What a hostile look at the shell found: each rule here was broken once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from asking import PROMPT, call_in, responses
from delegated.calls import CallRecord
from delegated.cli import exits
from delegated.session import Session
from delegated.testing.server import Server as LocalServer
from delegated.watch import Bell
from harness import PREFIX, House, Server, request_text, until
from serving import delegate

POST = {"method": "POST", "path": "/v1/responses"}

# Calls


async def test_a_job_stopped_between_its_sent_record_and_the_post_leaves_no_doubt(tmp_path: Path) -> None:
    """What was recorded as sent and never posted is recorded as unsent: a restart need not look it up, nor wait."""
    async with LocalServer() as server:
        model = responses(server.base_url)
        with call_in(tmp_path) as call:
            journal, write = call.job.journal, call.job.journal.write
            entered, go_on = threading.Event(), threading.Event()

            def slow(path: str, *rest) -> None:  # the disk takes its time; the record itself is the real one
                if path.endswith("sent.1") and not entered.is_set():
                    entered.set()
                    go_on.wait(10)
                write(path, *rest)

            journal.write = slow  # type: ignore[method-assign]
            asking = asyncio.create_task(model.ask(PROMPT, call))
            await asyncio.to_thread(entered.wait, 10)
            asking.cancel()
            await asyncio.sleep(0)
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert not call.may_be_billed
            assert not CallRecord(call.job, "01-first").may_be_billed
            assert server.bills == []
            assert (await model.ask(PROMPT, call)).outcome == "completed"
            assert len(server.bills) == 1
        await model.close()


@contextmanager
def full_disk(house: House, name: str) -> Iterator[Path]:
    """Let the daemons that start in here have no room for files whose name ends so, until the flag is removed."""
    flag = house.tmp / "full"
    flag.touch()
    house.env |= {"FULL_FOR": name, "FULL_WHILE": str(flag), "PYTHONPATH": str(Path(__file__).with_name("crash"))}
    yield flag
    del house.env["FULL_FOR"], house.env["FULL_WHILE"], house.env["PYTHONPATH"]


def jobs(house: House) -> Path:
    return house.folder / ".delegated" / "jobs"


# A disk that fails


@pytest.mark.slow
@pytest.mark.parametrize("name", ["claim", "prompt", "sent.1", "accepted.1", "reply", "RESULT_one.md", "done"])
def test_a_full_disk_delays_a_request_and_nothing_else(house: House, server: Server, name: str) -> None:
    """Whatever cannot be written, the request waits for space: it is answered then, and billed once."""
    house.use(server, doubt_wait_s=1, deadline_s=60)
    with full_disk(house, name) as flag:
        daemon = house.up()
        house.drop("one")
        late = name in ("accepted.1", "reply", "RESULT_one.md", "done")
        until(lambda: "No space left" in house.tmp.joinpath("daemon.log").read_text(), what="the daemon says so")
        assert len(server.bills()) == (1 if late else 0)
        flag.unlink()
        result = house.result("one")
    assert result["status"] == "answered", result["error"]
    until(lambda: list(jobs(house).glob("*/one/r1/done")), what="done")
    assert len(server.bills()) == 1
    assert daemon.process.poll() is None
    until(lambda: not os.listdir(house.folder / ".delegated" / "tmp"), what="no temporary file is left")


@pytest.mark.slow
def test_a_paid_reply_outlives_a_full_disk_where_it_cannot_be_fetched_again(house: House, server: Server) -> None:
    """A chat server keeps nothing: the reply that is here is held until it can be recorded."""
    house.use(server, "chat", endpoints__openai__store="false")
    with full_disk(house, "reply") as flag:
        house.up()
        house.drop("one")
        until(lambda: "No space left" in house.tmp.joinpath("daemon.log").read_text(), what="the daemon says so")
        flag.unlink()
        assert house.result("one")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_a_status_that_cannot_be_posted_leaves_nothing_behind(house: House, server: Server) -> None:
    """A directory by the STATUS file's name: the job goes on, and no temporary file is left at every heartbeat."""
    house.use(server, heartbeat_s=0.1)
    server.script({"match": POST, "do": {"run": 2}})
    house.up()
    (house.folder / f"{PREFIX}STATUS_one.json").mkdir()
    house.drop("one")
    assert house.result("one")["status"] == "answered"
    until(lambda: not os.listdir(house.folder / ".delegated" / "tmp"), what="no temporary file is left")


# The index


@pytest.mark.slow
def test_an_index_that_somebody_holds_delays_an_edit_and_loses_none(house: House, server: Server) -> None:
    """Another program holds a lock on the index: the edit is asked once it is let go."""
    house.use(server)
    daemon = house.up()
    path = house.drop("one")
    house.result("one")
    until(lambda: list(jobs(house).glob("*/one/r1/done")), what="done")
    holder = sqlite3.connect(house.folder / ".delegated" / "index.sqlite", isolation_level=None)
    holder.execute("begin immediate")
    path.write_text(request_text("another question"))
    until(lambda: daemon.has("job.interrupted") or daemon.has("job.broke"), what="the daemon says so")
    holder.execute("rollback")
    holder.close()
    assert house.revision("one", 2)["status"] == "answered"
    assert len(server.bills()) == 2


@pytest.mark.slow
def test_an_index_with_a_damaged_page_is_made_anew(house: House, server: Server) -> None:
    """Sound at its head and garbage behind: the daemon starts, and nothing is asked again."""
    house.use(server)
    daemon = house.up()
    for n in range(60):
        house.drop(f"rather-a-long-name-for-a-request-{n:04d}", "")
    house.drop("one")
    house.result("one")
    daemon.stop()
    index = house.folder / ".delegated" / "index.sqlite"
    with sqlite3.connect(index) as db:
        db.executemany(
            "insert or replace into settled values (?, ?, 1, 1, 1, 1)",
            [(f"n{n:090d}", f"k{n:090d}") for n in range(500)],
        )
    db.close()
    data = bytearray(index.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    index.write_bytes(data)
    house.up()
    house.drop("two")
    assert house.result("two")["status"] == "answered"
    assert len(server.bills()) == 2


# Names that are not what they seem


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["CANCEL", "RETRY"])
def test_a_directory_named_as_an_order_stops_nobody(house: House, server: Server, kind: str) -> None:
    """It cannot be unlinked, and the daemon lives on."""
    house.use(server, rescan_s=2)  # the making of a directory is no event: a full look sees it
    daemon = house.up()
    house.drop("one")
    house.result("one")
    (house.folder / f"{PREFIX}{kind}_one").mkdir()
    house.drop("two")
    house.result("two")
    until(lambda: daemon.has("order.stays") or daemon.has("order.no_file"), what="the daemon says so")
    house.drop("three")
    assert house.result("three")["status"] == "answered"
    assert daemon.process.poll() is None
    assert len(server.bills()) == 3
    assert house.result("one")["request"]["revision"] == 1
    assert len(list(jobs(house).glob("*/one/*"))) == 1


@pytest.mark.slow
def test_a_result_like_no_other_does_not_break_a_job(house: House, server: Server) -> None:
    """RESULT.json is anybody's: one that claims to be this revision's and is nonsense is replaced."""
    house.use(server)
    path = house.outside / "one"
    path.write_text(request_text())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    about = {"id": "one", "path": "x", "sha256": sha256, "revision": 1}
    house.env |= {"CRASH_BEFORE": "RESULT_one.md", "PYTHONPATH": str(Path(__file__).with_name("crash"))}
    daemon = house.up()
    del house.env["CRASH_BEFORE"], house.env["PYTHONPATH"]
    house.drop("one")
    daemon.process.wait(30)
    nonsense = {"schema": "delegated/result/1", "request": about, "status": 5, "verdict": {}, "egress": {"a": 1}}
    house.result_path("one").write_text(json.dumps(nonsense))
    house.up()
    until(lambda: list(jobs(house).glob("*/one/r1/done")), what="done")
    assert house.result("one")["status"] == "answered"
    assert len(server.bills()) == 1


# Identity


def limited(server: Server, seconds: float) -> None:
    server.script({"match": POST, "do": {"error": "rate_limited", "retry_after": seconds}, "times": 1})


@pytest.mark.slow
def test_an_edit_taken_back_before_anything_was_sent_is_still_answered(house: House, server: Server) -> None:
    """Edited while nothing was out, killed, edited back: the first bytes were never answered, so they are asked."""
    house.use(server)
    limited(server, 30)
    house.env |= {"CRASH_BEFORE": "/e/r2/claim", "PYTHONPATH": str(Path(__file__).with_name("crash"))}
    daemon = house.up()
    del house.env["CRASH_BEFORE"], house.env["PYTHONPATH"]
    path = house.drop("e", request_text("the first words"))
    until(lambda: list(jobs(house).glob("*/e/r1/calls/*/unsent.1")), what="refused once")
    path.write_text(request_text("the second words"))
    assert daemon.process.wait(30) == -signal.SIGKILL
    assert (house.job("e", 1) / "done").exists(), "superseded"
    path.write_text(request_text("the first words"))
    house.up()
    result = house.result("e")
    assert result["status"] == "answered"
    assert result["request"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_on_edit_keep_still_takes_an_edit_before_anything_was_sent(house: House, server: Server) -> None:
    """`keep` is about answers that stand; bytes that replace unsent ones are the request."""
    house.use(server, on_edit="keep")
    limited(server, 2)
    house.up()
    path = house.drop("e", request_text("the first words"))
    until(lambda: list(jobs(house).glob("*/e/r1/calls/*/unsent.1")), what="refused once")
    path.write_text(request_text("the second words"))
    result = house.result("e")
    assert (result["status"], result["request"]["revision"]) == ("answered", 2)
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_a_conflict_copy_is_not_billed_after_a_kill_either(house: House, server: Server) -> None:
    """Killed between its claim and its RESULT, a duplicate is still one after the restart."""
    house.use(server)
    copy = "orig.sync-conflict-20260101-101010-ABCDEFG"
    house.env |= {"CRASH_BEFORE": f"RESULT_{copy}.md", "PYTHONPATH": str(Path(__file__).with_name("crash"))}
    daemon = house.up()
    del house.env["CRASH_BEFORE"], house.env["PYTHONPATH"]
    path = house.drop("orig")
    house.result("orig")
    house.drop(copy, path.read_bytes())
    assert daemon.process.wait(30) == -signal.SIGKILL
    house.up()
    assert house.result(copy)["status"] == "duplicate"
    assert len(server.bills()) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_draft_is_one_wherever_it_says_so(house: House, server: Server, encoding: str) -> None:
    """`draft` at the end of a long JSON request, moved in whole: it is not asked."""
    house.use(server)
    daemon = house.up()
    house.drop("d", json.dumps({"issue": "x" * 9000, "draft": True}).encode(encoding), ".json")
    until(lambda: daemon.has("request.draft") or server.bills(), what="seen")
    assert server.bills() == []


@pytest.mark.slow
def test_the_history_keeps_each_revisions_own_page(house: House, server: Server) -> None:
    """Killed between RESULT.md and RESULT.json of the second revision: the first one's page stays what it was."""
    house.use(server)
    daemon = house.up()
    path = house.drop("one", request_text("the first words"))
    house.result("one")
    first = house.result_path("one", "md").read_bytes()
    daemon.stop()
    house.env |= {"CRASH_BEFORE": "RESULT_one.json", "PYTHONPATH": str(Path(__file__).with_name("crash"))}
    daemon = house.up()
    del house.env["CRASH_BEFORE"], house.env["PYTHONPATH"]
    path.write_text(request_text("the second words"))
    assert daemon.process.wait(30) == -signal.SIGKILL
    house.up()
    house.revision("one", 2)
    assert (house.folder / ".delegated" / "history" / "one" / "1.md").read_bytes() == first


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["json", "md"])
def test_a_directory_in_the_place_of_a_result_is_named(suffix: str, house: House) -> None:
    """Log, STATUS, `status`, `wait` and `doctor` say what stands in the way; once it is gone the RESULT comes."""
    blocked = house.result_path("one", suffix)
    blocked.mkdir()
    (blocked / "mine").touch()
    daemon = house.up()
    house.drop("one")
    until(lambda: daemon.has("result.unpublished"), what="publishing")
    (reason,) = (each["reason"] for each in daemon.events() if each["event"] == "result.unpublished")
    advice = f"move the directory {blocked.name} away: the RESULT comes in its place"
    assert advice in reason
    until(lambda: advice in delegate(house, "status", "one").stdout, what="STATUS")
    shown = delegate(house, "status").stdout
    assert f"running  one: waiting for the disk: {advice}" in shown
    assert "settled  0" in shown
    waited = delegate(house, "wait", "one", "--timeout", "1")
    assert (waited.returncode, waited.stderr.count(advice)) == (exits.TIMED_OUT, 1)
    assert f"{blocked.name} is a directory" in delegate(house, "doctor").stdout
    os.rename(blocked, house.outside / "moved")
    assert house.result("one")["status"] == "answered"
    assert (house.outside / "moved" / "mine").exists()
    until(lambda: not (house.folder / f"{PREFIX}STATUS_one.json").exists(), what="STATUS gone")
    house.result_path("one", suffix).unlink()
    blocked.mkdir()
    again = delegate(house, "republish", "one")
    assert again.returncode == exits.CANNOT_WRITE
    assert f"a directory has the name {blocked}" in again.stderr


# Stops


@pytest.mark.slow
def test_a_cancel_while_the_answer_is_being_published_comes_too_late(house: House, server: Server) -> None:
    """What was paid for and is on its way out is not replaced by `cancelled`."""
    house.use(server)
    with full_disk(house, "RESULT_one.json") as flag:
        daemon = house.up()
        house.drop("one")
        until(lambda: daemon.has("result.unpublished"), what="publishing")
        (house.folder / f"{PREFIX}CANCEL_one").touch()
        time.sleep(0.5)
        flag.unlink()
        assert house.result("one")["status"] == "answered"
    until(lambda: not (house.folder / f"{PREFIX}CANCEL_one").exists(), what="the order is gone")
    assert house.result("one")["status"] == "answered"
    assert len(server.bills()) == 1
    until(lambda: not (house.folder / f"{PREFIX}STATUS_one.json").exists(), what="STATUS gone")


@pytest.mark.slow
def test_a_lost_call_that_was_sent_again_has_its_deadline(house: House, server: Server) -> None:
    """In doubt at the start, proven absent, sent again and never answered: the deadline holds for the new send."""
    house.use(server, doubt_wait_s=0.5, deadline_s=2)
    daemon = house.up()
    server.script({"match": POST, "do": {"kill": daemon.process.pid, "bill": False}, "times": 1})
    house.drop("one")
    daemon.process.wait(30)
    assert server.bills() == []
    server.script({"match": POST, "do": {"run": "forever"}})
    house.up()
    result = house.result("one")
    assert (result["status"], result["error"]["kind"]) == ("failed", "deadline")


@pytest.mark.slow
def test_a_reload_does_not_take_a_running_call_out_of_reach(house: House, server: Server) -> None:
    """SIGHUP while a call runs: CANCEL still stops it at the provider, not only here."""
    house.use(server)
    server.script({"match": POST, "do": {"run": "forever"}})
    daemon = house.up()
    house.drop("c")
    until(lambda: list(jobs(house).glob("*/c/r1/calls/*/accepted.1")), what="accepted")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.has("config.reloaded"), what="reloaded")
    (house.folder / f"{PREFIX}CANCEL_c").touch()
    assert house.result("c")["status"] == "cancelled"
    assert "cancel" in json.dumps(server.state_json()["requests"])


@pytest.mark.slow
def test_a_status_left_by_a_kill_is_taken_away(house: House) -> None:
    """Killed between `done` and the removal of STATUS: the next start removes it."""
    daemon = house.up()
    house.drop("one")
    house.result("one")
    daemon.stop()
    left = house.folder / f"{PREFIX}STATUS_one.json"
    left.write_text("{}")
    house.up()
    until(lambda: not left.exists(), what="STATUS gone")


# The folder


@pytest.mark.slow
def test_a_replaced_folder_does_not_wait_for_the_jobs_of_the_old_one(house: House, server: Server) -> None:
    """With a call in flight and a long grace: the new folder is served at once, and nothing is put into the old one."""
    house.use(server, grace_s=600)
    server.script({"match": POST, "do": {"run": "forever"}, "times": 1})
    house.up()
    house.drop("one")
    until(lambda: list(jobs(house).glob("*/one/r1/calls/*/accepted.1")), what="accepted")
    os.rename(house.folder, house.tmp / "old")
    house.folder.mkdir()
    house.drop("two")
    assert house.result("two")["status"] == "answered"
    assert not list((house.tmp / "old").glob("*RESULT*"))


@pytest.mark.slow
def test_a_deleted_folder_is_waited_for_and_not_brought_back(house: House) -> None:
    """Whoever took it away makes it again, and finds it served."""
    daemon = house.up()
    shutil.rmtree(house.folder)
    until(lambda: daemon.has("folder.missing"), what="missing")
    time.sleep(0.5)
    assert not house.folder.exists()
    house.folder.mkdir()
    house.drop("one")
    assert house.result("one")["status"] == "answered"


def test_a_workspace_that_is_not_there_stops_no_other(house: House) -> None:
    """Named beside others it is told and waited for; with its own settings it is served once it is there."""
    away, later = house.tmp / "away", house.tmp / "later"
    daemon = house.start("--workspace", str(away)).ready()
    house.drop("one")
    assert house.result("one")["status"] == "answered"
    (told,) = [each for each in daemon.events() if each["event"] == "workspace.missing"]
    assert (told["workspace"], told["reason"]) == (str(away), "No such file or directory")
    folder = later / ".autonomous_runs" / "openai_delegations"
    folder.mkdir(parents=True)
    (later / ".delegated.yaml").write_text("modle: x\n")
    os.rename(later, away)
    until(lambda: daemon.has("config.refused"), what="its settings are read, and do not end the daemon")
    (away / ".delegated.yaml").write_text("max_cost_usd: 0.01\n")
    folder = away / ".autonomous_runs" / "openai_delegations"
    until(lambda: (folder / ".delegated" / "lock").exists(), what="served")
    (folder / ".two.tmp").write_text(request_text())
    os.rename(folder / ".two.tmp", folder / f"{PREFIX}REQUEST_two.md")
    until(lambda: (folder / f"{PREFIX}RESULT_two.json").exists(), what="answered there")
    assert daemon.stop(signal.SIGTERM) == 0


def test_workspaces_of_the_configuration_that_are_not_there(house: House) -> None:
    """None refuses all: `check` names each, `--once` serves the rest and ends with 74. Alone by hand it is a slip."""
    away = house.tmp / "away"
    config = house.tmp / "config.yaml"
    config.write_text(f"workspaces:\n  - {house.workspace}\n  - {away}\n")
    done = delegate(house, "check", "--config", str(config))
    assert (done.returncode, f"`workspaces`: {away} is not there" in done.stderr) == (0, True), done.stderr
    done = delegate(house, "doctor", "--offline", "--no-daemon", "--config", str(config))
    assert f"`workspaces`: {away} is not there" in done.stdout
    house.drop("one")
    program = [sys.executable, "-P", "-m", "delegated.cli.serve"]
    known = {"env": house.env, "cwd": house.workspace, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run([*program, "--once", "--config", str(config)], **known)
    assert (done.returncode, house.has_result("one"), str(away) in done.stderr) == (74, True, True), done.stderr
    done = subprocess.run([*program, "--workspace", str(away)], **known)
    assert (done.returncode, "is not a directory" in done.stderr) == (2, True)


def test_a_service_whose_only_workspace_is_not_there_waits_for_it(house: House) -> None:
    """The service manager is told that the start is done and what is not there, and a stop is heard."""
    away = house.tmp / "away"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(house.tmp / "notify"))
        manager.settimeout(30)
        house.env["NOTIFY_SOCKET"] = str(house.tmp / "notify")
        program = [sys.executable, "-P", "-m", "delegated.cli.serve", "--workspace", str(away)]
        with subprocess.Popen(program, env=house.env, cwd=house.workspace, stderr=subprocess.PIPE) as process:
            try:
                assert manager.recv(4096).decode() == f"READY=1\nSTATUS=serving 0 workspace(s); not there: {away}"
                process.terminate()
                assert process.communicate(timeout=30)[1].count(b"workspace.missing") == 1
                assert process.returncode == 0
            finally:
                process.kill()


@pytest.mark.slow
def test_a_deleted_journal_ends_the_daemon_with_a_word(house: House) -> None:
    """`.delegated` removed under a running daemon: it says so and leaves; the next start begins a new one."""
    daemon = house.up()
    house.drop("one")
    house.result("one")
    until(lambda: daemon.has("job.settled"), what="settled")
    shutil.rmtree(house.folder / ".delegated")
    assert daemon.process.wait(30) == 74
    assert ".delegated" in daemon.log.read_text()
    house.up()
    house.drop("two")
    assert house.result("two")["status"] == "answered"


@pytest.mark.slow
def test_a_folder_that_may_not_be_read_for_a_while(house: House, need: Callable[[str], str]) -> None:
    """Its mode taken away and given back: loud while it lasts, and what was dropped meanwhile is answered."""
    bound = (need("setpriv"), "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    house.set(rescan_s=0.2)
    daemon = house.start(prefix=bound).ready()
    house.folder.chmod(0o300)
    for n in range(20):
        house.request(f"n{n}").write_text(request_text())
    until(lambda: daemon.has("folder.unreadable"), what="the daemon says so")
    house.folder.chmod(0o700)
    house.drop("later")
    for key in ("later", *(f"n{n}" for n in range(20))):
        assert house.result(key)["status"] == "answered"
    assert daemon.process.poll() is None


@pytest.mark.slow
def test_without_descriptors_it_waits(house: House, need: Callable[[str], str]) -> None:
    """No descriptor left for a while: the daemon lives, and serves when there are some again."""
    house.set(rescan_s=0.2)
    daemon = house.up()
    house.drop("one")
    house.result("one")
    subprocess.run([need("prlimit"), "--pid", str(daemon.process.pid), "--nofile=6:4096"], check=True)
    house.request("two").write_text(request_text())
    until(lambda: "Too many open files" in daemon.log.read_text(), what="the daemon says so")
    subprocess.run([need("prlimit"), "--pid", str(daemon.process.pid), "--nofile=4096:4096"], check=True)
    for key in ("two",):
        assert house.result(key)["status"] == "answered"
    assert daemon.process.poll() is None


@pytest.mark.slow
def test_stop_sends_nothing_new(house: House, server: Server) -> None:
    """SIGTERM while a call waits for its rate limit: the daemon leaves at once, the next one asks."""
    house.use(server, grace_s=600)
    limited(server, 3)
    daemon = house.up()
    house.drop("one")
    until(lambda: list(jobs(house).glob("*/one/r1/calls/*/unsent.1")), what="refused once")
    assert daemon.stop() == 0
    assert server.bills() == []
    house.up()
    assert house.result("one")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("times", "status", "bills"), [(1, "answered", 1), ("always", "failed", 0)])
def test_a_call_cut_off_by_its_deadline_is_sent_once_more(
    house: House, server: Server, times: int | str, status: str, bills: int
) -> None:
    """Cut off and proven absent it is sent again, in time of its own; cut off again it has an end, and no doubt."""
    house.use(server, "chat", doubt_wait_s=0.5, deadline_s=2, endpoints__openai__store="true")
    post = {"method": "POST", "path": "/v1/chat/completions"}
    server.script({"match": post, "do": {"stall": "silent", "bill": False}, "times": times})
    house.up()
    house.drop("one")
    result = house.result("one")
    assert (result["status"], len(server.bills())) == (status, bills), result["error"]
    if status == "failed":
        assert result["error"]["kind"] == "deadline"
        assert "billed" not in result["error"]["message"]
        assert server.state_json()["requests"]["POST /v1/chat/completions"] == 2


def test_a_key_command_at_a_reload_holds_nobody_up(house: House) -> None:
    """It may ask a person, and take its seconds: meanwhile requests are answered; reloads come one after the other."""
    hold, started, program = (house.outside / name for name in ("hold", "started", "key"))
    program.write_text(
        f"#!/bin/sh\n[ ! -e '{hold}' ] || touch '{started}'\n"
        f"while [ -e '{hold}' ]; do sleep 0.02; done\necho k{'x' * 20}\n"
    )
    program.chmod(0o700)
    house.set(endpoints__openai__key_command=program, endpoints__anthropic__key_command=program)
    daemon = house.up()
    hold.touch()
    daemon.process.send_signal(signal.SIGHUP)
    until(started.exists, what="the command runs")
    daemon.process.send_signal(signal.SIGHUP)
    house.drop("one")
    assert house.result("one")["status"] == "answered"
    until(lambda: daemon.has("job.settled"), what="settled")
    hold.unlink()
    until(lambda: [e["event"] for e in daemon.events()].count("config.reloaded") == 2, what="both reloads")
    told = [e["event"] for e in daemon.events()]
    assert told.index("job.settled") < told.index("config.reloaded")
    assert daemon.stop() == 0


@pytest.mark.slow
def test_reloads_leave_no_connection_behind(house: House, server: Server) -> None:
    """Whatever a former configuration held open is closed once its jobs have ended."""
    house.use(server)
    daemon = house.up()
    descriptors = Path(f"/proc/{daemon.process.pid}/fd")
    counts = []
    for n in range(6):
        house.drop(f"n{n}")
        house.result(f"n{n}")
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda n=n: sum(e["event"] == "config.reloaded" for e in daemon.events()) > n, what="reloaded")
        if not n:
            time.sleep(2.5)  # the first round opens what stays open
        counts.append(len(os.listdir(descriptors)))
    until(lambda: len(os.listdir(descriptors)) <= counts[0], what="closed")


@pytest.mark.slow
def test_a_retry_needs_no_request_file(house: House, server: Server) -> None:
    """A request that was answered and deleted is asked again from the journal, however long its turn takes."""
    house.use(server)
    house.up()
    path = house.drop("r")
    house.result("r")
    path.unlink()
    limited(server, 3)
    (house.folder / f"{PREFIX}RETRY_r").touch()
    assert house.revision("r", 2)["status"] == "answered"


async def test_a_watch_that_died_is_replaced(tmp_path: Path) -> None:
    """The same folder, the same lock, a new watch: what is dropped then rings."""
    bell = Bell()
    with ThreadPoolExecutor(1) as pool:
        session = Session(str(tmp_path), bell, watch="inotify", wall=time.time, pool=pool)
        try:
            assert session.watch.alive()
            session.watch.close()
            assert not session.watch.alive()
            session.watch_again(bell, "inotify")
            assert session.watch.alive()
            (tmp_path / f"{PREFIX}REQUEST_one.md").write_text(request_text())
            touched: frozenset[str] = frozenset()
            while not touched:
                await bell.wait(30)
                touched = bell.answer().touched
            assert touched == {f"{PREFIX}REQUEST_one.md"}
        finally:
            session.close()


async def test_a_session_that_cannot_open_leaves_nothing_open(tmp_path: Path) -> None:
    """No watch, no lock, no index, no folder: every descriptor is given back, and the folder can be opened again."""
    bell = Bell()
    with ThreadPoolExecutor(1) as pool:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="No such file"):
            Session(str(tmp_path / "missing"), bell, watch="auto", wall=time.time, pool=pool)
        (tmp_path / ".delegated").mkdir()
        (tmp_path / ".delegated" / "index.sqlite").mkdir()
        with pytest.raises(OSError):
            Session(str(tmp_path), bell, watch="auto", wall=time.time, pool=pool)
        assert len(os.listdir("/proc/self/fd")) == before
        (tmp_path / ".delegated" / "index.sqlite").rmdir()
        Session(str(tmp_path), bell, watch="auto", wall=time.time, pool=pool).close()
        assert len(os.listdir("/proc/self/fd")) == before
