from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated.calls import CallRecord, JobRecord
from delegated.disk import Directory
from delegated.errors import OperatorError
from delegated.job import CallState
from delegated.journal import Journal
from delegated.record import pack, unpack
from delegated.reply import Reply, Usage
from delegated.retention import purge

REPLY = Reply("completed", '{"a": "ü\ud800"}', "gpt-4o", "raw\x00body \ud800", Usage(10, 2, 3, True), "resp_1", False)


@pytest.fixture
def folder(tmp_path: Path):
    with Directory(str(tmp_path)) as directory:
        yield directory


@pytest.fixture
def journal(folder: Directory):
    journal = Journal(folder, now=time.time)
    yield journal
    journal.close()


@given(st.binary(max_size=300))
def test_a_record_that_lost_or_changed_a_byte_is_torn(body: bytes) -> None:
    """Cut anywhere or altered anywhere, a record reads as absent; whole, it gives back header and body."""
    data = pack({"id": "x"}, body)
    assert unpack(data) == ({"id": "x"}, body)
    for cut in range(len(data)):
        assert unpack(data[:cut]) is None
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert unpack(changed) is None


def test_a_claim_keeps_the_exact_bytes(journal: Journal) -> None:
    """What was read is what is kept, whatever it holds, and the newest revision is found."""
    data = b"\x00\xff END \nEND abc\n"
    journal.claim("k.1", 1, "OPENAI_DELEGATION_REQUEST_k.1.md", data)
    journal.claim("k.1", 2, "OPENAI_DELEGATION_REQUEST_k.1.md", b"two", order="o")
    latest = journal.latest("k.1")
    assert latest is not None
    assert (latest.claim.revision, latest.claim.data, latest.claim.order) == (2, b"two", "o")
    first = journal.job("k.1", 1)
    assert first is not None
    assert first.claim.data == data
    assert list(journal.keys()) == ["k.1"]
    assert journal.latest("other") is None


def test_a_revision_is_claimed_once(journal: Journal) -> None:
    """The second claim of a revision fails, and changes nothing: the guard behind the lock."""
    journal.claim("k", 1, "n.md", b"one")
    with pytest.raises(FileExistsError):
        journal.claim("k", 1, "n.md", b"two")
    job = journal.job("k", 1)
    assert job is not None
    assert job.claim.data == b"one"


def test_a_torn_claim_counts_as_none(journal: Journal, tmp_path: Path) -> None:
    """A claim without its end mark is set aside, and the request is claimed anew."""
    journal.claim("k", 1, "n.md", b"one")
    path = next((tmp_path / ".delegated" / "jobs").glob("*/k/r1/claim"))
    path.write_bytes(path.read_bytes()[:-5])
    assert journal.latest("k") is None
    journal.claim("k", 1, "n.md", b"again")
    latest = journal.latest("k")
    assert latest is not None
    assert latest.claim.data == b"again"


async def _sent(call: CallRecord) -> None:
    await call.record_sent(
        model="m", endpoint="e", wire="responses", handle="conv_1", prompt_sha256="0" * 64, price_bound_usd=0.5
    )


async def test_a_call_is_read_back_as_it_was_left(journal: Journal) -> None:
    """After each record a new reader sees the same state, attempt, handle, id and reply."""
    job = journal.claim("k", 1, "n.md", b"x")

    def reopened() -> CallRecord:
        return CallRecord(job, "01-first")

    call = job.call(1, "first")
    call.save_prompt("the prompt", {"sha256": "s"})
    assert reopened().load_prompt() == "the prompt"
    assert (reopened().state, job.may_be_billed()) == (CallState.NEW, False)
    await _sent(call)
    assert (reopened().in_doubt, reopened().handle, job.may_be_billed()) == (True, "conv_1", True)
    assert reopened().in_doubt_for == pytest.approx(0, abs=60)
    with pytest.raises(ValueError, match="cannot be given"):
        await _sent(call)
    await call.record_unsent("rate_limited", "429")
    assert (reopened().state, reopened().attempt, reopened().handle) == (CallState.NEW, 2, "conv_1")
    assert not job.may_be_billed()
    await _sent(call)
    await call.record_accepted("resp_1")
    assert (reopened().state, reopened().response_id, reopened().attempt) == (CallState.ACCEPTED, "resp_1", 2)
    await call.record_reply(REPLY)
    assert (reopened().state, reopened().reply) == (CallState.REPLIED, REPLY)
    assert reopened().call_id == call.call_id
    assert reopened().sends == 2


def _id(journal: Journal) -> str:
    job = journal.latest("k")
    assert job is not None
    return job.call(1, "first").call_id


def test_no_other_call_has_the_name_of_a_former_one(journal: Journal) -> None:
    """Purged, and asked again under the same id: to the ledger and the provider it is another call."""
    job = journal.claim("k", 1, "n.md", b"one")
    former = job.call(1, "first").call_id
    assert former == _id(journal)
    assert former.endswith(".k.r1.01-first")
    job.finish("answered")
    purge(journal.dir, "k", stands=lambda: False)
    journal.claim("k", 1, "n.md", b"one")
    assert _id(journal) != former


def test_a_claim_of_an_older_version_keeps_the_names_of_its_calls(journal: Journal) -> None:
    """A call that it made and that is in doubt is looked up under the name that it was given."""
    job = journal.claim("k", 1, "n.md", b"one")
    path = f"{job.place}/claim"
    header, body = journal.read(path) or ({}, b"")
    del header["nonce"]
    journal.dir.remove(path)
    journal.write(path, header, body)
    assert _id(journal) == f"{journal.journal_id}.k.r1.01-first"


async def test_a_call_keeps_its_name_when_claim_and_send_are_damaged(journal: Journal, tmp_path: Path) -> None:
    """The claim is made again from the REQUEST; the provider is asked about the call that may have left."""
    call = journal.claim("k", 1, "n.md", b"one").call(1, "first")
    call.save_prompt("the prompt", {})
    await _sent(call)
    for name in ("claim", "sent.1"):
        path = next((tmp_path / ".delegated" / "jobs").rglob(name))
        path.write_bytes(path.read_bytes()[:-5])
    journal.claim("k", 1, "n.md", b"one")
    assert _id(journal) == call.call_id


@pytest.mark.parametrize("damage", [lambda d: d[:-9], lambda d: d[:40] + b"?" + d[41:], lambda d: b"\0" * len(d)])
async def test_a_damaged_record_never_leads_to_a_second_send(journal: Journal, tmp_path: Path, damage) -> None:
    """`sent` counts even when torn; a torn `unsent`, `accepted` or `reply` leaves the call in doubt or accepted."""
    expected = {
        "sent.1": (["sent.1"], CallState.SENT),
        "unsent.1": (["sent.1", "unsent.1"], CallState.SENT),
        "accepted.1": (["sent.1", "accepted.1"], CallState.SENT),
        "reply": (["sent.1", "accepted.1", "reply"], CallState.ACCEPTED),
    }
    for key, (record, (made, state)) in enumerate(expected.items()):
        job = journal.claim(f"k{key}", 1, "n.md", b"x")
        call = job.call(1, "first")
        for name in made:
            if name == "sent.1":
                await _sent(call)
            elif name == "unsent.1":
                await call.record_unsent("k", "r")
            elif name == "accepted.1":
                await call.record_accepted("resp")
            else:
                await call.record_reply(REPLY)
        path = tmp_path / ".delegated" / job.place / "calls" / "01-first" / record
        path.write_bytes(damage(path.read_bytes()))
        again = CallRecord(job, "01-first")
        assert again.state is state, record
        assert again.may_be_billed


async def test_a_stop_in_the_middle_of_a_record_leaves_memory_and_disk_alike(journal: Journal) -> None:
    """A job that is cancelled while `sent` is being written ends after the write, knowing that it was written."""
    job = journal.claim("k", 1, "n.md", b"x")
    call = job.call(1, "first")
    entered, go_on = threading.Event(), threading.Event()
    write = journal.write

    def slow(*args) -> None:  # the disk takes its time; the record itself is the real one
        entered.set()
        go_on.wait(10)
        write(*args)

    journal.write = slow  # type: ignore[method-assign]
    task = asyncio.create_task(_sent(call))
    await asyncio.get_running_loop().run_in_executor(None, entered.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.in_doubt
    assert CallRecord(job, "01-first").in_doubt


def test_done_is_written_once_and_keeps_the_result(journal: Journal) -> None:
    """The end of a job holds the RESULT that was published, and a second end changes nothing."""
    job = journal.claim("k", 1, "n.md", b"x")
    assert job.done is None
    job.finish("answered", '{"a": 1}')
    job.finish("failed", "{}")
    done = JobRecord(journal, job.claim).done
    assert done is not None
    assert (done.status, done.result) == ("answered", '{"a": 1}')


def test_one_daemon_a_folder(journal: Journal, folder: Directory) -> None:
    """A second opener is told who holds the folder and ends with 75, in this process and in another."""
    with pytest.raises(OperatorError, match=f"pid {os.getpid()} on ") as caught:
        Journal(folder, now=time.time)
    assert caught.value.exit_code == 75
    program = (
        "import sys, time\nfrom delegated.disk import Directory\nfrom delegated.journal import Journal\n"
        "try:\n    Journal(Directory(sys.argv[1]), now=time.time)\n"
        "except Exception as error:\n    sys.exit(error.exit_code)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, folder.path]).returncode == 75
    journal.close()
    assert subprocess.run([sys.executable, "-c", program, folder.path]).returncode == 0


def test_the_lock_does_not_outlive_its_holder_in_a_child(folder: Directory) -> None:
    """A child that was started while the folder was held does not go on holding it."""
    journal = Journal(folder, now=time.time)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        journal.close()
        Journal(folder, now=time.time).close()
    finally:
        child.kill()
        child.wait()


def test_a_start_clears_what_a_kill_left_in_tmp(folder: Directory, tmp_path: Path) -> None:
    """Temporary files of a killed daemon are gone after the next start."""
    Journal(folder, now=time.time).close()
    left = tmp_path / ".delegated" / "tmp" / "123-1"
    left.write_bytes(b"half")
    Journal(folder, now=time.time).close()
    assert not left.exists()


def test_results_come_in_order_and_replace_a_planted_link(journal: Journal, folder: Directory, tmp_path: Path) -> None:
    """RESULT files are renamed into place in order, 0600; a symlink by that name is replaced, not followed."""
    target = tmp_path / "precious"
    target.write_text("mine")
    os.symlink(target, tmp_path / "R.json")
    journal.publish(folder, {"R.md": b"page", "R.json": b"{}"})
    assert target.read_text() == "mine"
    assert (tmp_path / "R.json").read_bytes() == b"{}"
    assert not (tmp_path / "R.json").is_symlink()
    assert (tmp_path / "R.json").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / ".delegated" / "tmp") == []


def test_a_full_disk_is_an_error_and_leaves_no_half_record(tmp_path: Path) -> None:
    """A short write is continued or raises; nothing by the record's name is ever there half."""
    program = """
import resource, signal, sys, time
from delegated.disk import Directory
from delegated.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Directory(sys.argv[1]), now=time.time)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    journal.claim("k", 1, "n.md", b"x" * 5000)
except OSError as error:
    print(error.errno, journal.latest("k"), journal.dir.names("tmp"))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == "27 None []\n", done.stderr


def test_no_hard_links_no_loss(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no hard links the name is still taken once and the record is whole."""

    def link(*args, **kwargs) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    journal.claim("k", 1, "n.md", b"one")
    with pytest.raises(FileExistsError):
        journal.claim("k", 1, "n.md", b"two")
    latest = journal.latest("k")
    assert latest is not None
    assert latest.claim.data == b"one"
