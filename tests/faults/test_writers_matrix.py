"""Rows 44 to 57 of the fault matrix: however a request is written, changed, deleted or planted, it is asked once."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.judging import judge, unsettled
from faults.writers import (
    SETTLE_S,
    SILENT,
    WRITERS,
    Missing,
    Tally,
    batch,
    breach,
    job,
    main,
    name_of,
    reopened,
    run,
    written,
)
from harness import PREFIX, Daemon, House, Server, request_text, until

CRASH = Path(__file__).parents[1] / "crash"
HOOKS = Path(__file__).parent / "hooks"
PAID = {"method": "POST", "path": "/v1/responses"}
RUNS = itertools.count(1)
TRIES = 5


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Server]]:
    """A house that one daemon serves for many tests, and the server that bills."""
    tmp = tmp_path_factory.mktemp("served")
    house, server = House(tmp), Server(tmp)
    house.use(server, quiet_s=1)
    house.up()
    yield house, server
    house.close()
    server.close()


def one_bill_of_the_whole(house: House, server: Server, name: str, writer: Callable[..., None]) -> None:
    """Write by one way and judge; a writer that itself paused for longer than the settle time is given another try."""
    for _ in range(TRIES):
        one = job(house, f"{name_of(name)}-{next(RUNS)}")
        try:
            result = written(one, writer)
        except Missing as error:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
        house.request(f"after-{one.key}").write_text(request_text())
        house.result(f"after-{one.key}")
        until(lambda: not unsettled(house.folder), what="all settled")
        if max(one.gaps, default=0.0) < SETTLE_S * 0.98:
            assert breach(one, result, server.bills(), server) == ""
            return
    pytest.fail(f"this machine paused the writer for longer than {SETTLE_S} s, {TRIES} times")


@pytest.fixture(scope="module")
def tally(served: tuple[House, Server]) -> dict[str, Tally]:
    """One run of every writer, some at the same time, against one daemon."""
    table = {name: Tally() for name in (*WRITERS, *SILENT)}
    batch(*served, next(RUNS), table)
    return table


ROWS_44_48 = {
    **{f"row-44-{name_of(name)}": name for name in WRITERS},
    **{f"row-48-{name_of(name)}": name for name in SILENT},
}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS_44_48)
def test_rows_44_48_one_bill_of_the_whole(served: tuple[House, Server], tally: dict[str, Tally], row: str) -> None:
    """However it is written: one RESULT, one bill, and what was asked are the bytes that the writer left."""
    name = ROWS_44_48[row]
    if tally[name].missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(tally[name].missing)
    if tally[name].slow:
        one_bill_of_the_whole(*served, row, {**WRITERS, **SILENT}[name])
    assert tally[name].breaches == []


@pytest.mark.slow
def test_rows_44_48_again_and_again() -> None:
    """The long form, shortened: a few more runs of each, and at the end every RESULT and every bill is judged."""
    assert main(["--runs", "3"]) == 0


@pytest.mark.parametrize("gap_ms", [0.1, 5, 20, 120, 280])
def test_row_45_closed_and_opened_again_within_the_settle_time(served: tuple[House, Server], gap_ms: float) -> None:
    """A file that is closed and soon opened again is asked about whole, once."""
    one_bill_of_the_whole(*served, f"gap-{gap_ms:g}", reopened(gap_ms / 1000))


@pytest.mark.slow
@pytest.mark.parametrize("on_edit", ["ask", "keep"])
@pytest.mark.parametrize("settle_ms", [300, 10], ids=["2 s", "200 settle times, as 60 s are of 0.3 s"])
def test_row_46_opened_again_long_after(house: House, server: Server, on_edit: str, settle_ms: int) -> None:
    """What comes after the settle time is an edit: each state is billed once at most; with `keep` there is a note."""
    house.use(server, on_edit=on_edit, settle_ms=settle_ms)
    house.up()
    one = job(house, "late")
    half = len(one.text) // 2
    one.path.write_text(one.text[:half])
    earliest = time.monotonic() + 2
    house.result("late")  # else nothing may have left yet, and the whole is asked at once
    until(lambda: time.monotonic() > earliest, what="two seconds are over")
    with open(one.path, "a") as file:
        file.write(one.text[half:])
    if on_edit == "keep":
        until(lambda: "on_edit: keep" in str(house.result("late")["warnings"]), what="the RESULT says so")
        assert house.result("late")["request"]["revision"] == 1
    else:
        house.revision("late", 2)
    judge(house, server, ["late"])
    assert len(server.bills()) == (1 if on_edit == "keep" else 2)
    asked = [(house.job("late", n) / "claim").read_bytes() for n in range(1, len(server.bills()) + 1)]
    assert one.last_words.encode() not in asked[0], "the first part was asked about, and it was the first part"


@pytest.mark.slow
def test_row_47_a_writer_that_holds_the_file_open(house: House, server: Server) -> None:
    """Not taken while somebody writes, for hundreds of settle times; others pass; asked at the close."""
    house.use(server, settle_ms=20)
    daemon = house.up()
    text = request_text("what was written in two parts")
    with open(house.request("held"), "w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        until(lambda: daemon.has("request.held"), what="the daemon says that it waits")
        ends = time.monotonic() + 12  # 600 settle times
        for n in itertools.count(1):
            house.drop(f"other{n}")
            assert house.result(f"other{n}")["status"] == "answered"
            assert not house.has_result("held")
            if time.monotonic() > ends:
                break
            time.sleep(0.5)
        told = run([sys.executable, "-m", "delegated", "status"], env=house.env, cwd=house.workspace)
        assert re.search(r"^waiting +held", told, re.MULTILINE)
        file.write(text[len(text) // 2 :])
    assert house.result("held")["request"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert sum(event.get("event") == "request.held" for event in daemon.events()) == 1, "said once, not at every look"
    judge(house, server)
    assert len(server.bills()) == n + 1


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".yaml", 'issue: "a whole string"\nfiles: [app.py]\n'),
        (".json", '{"issue": "a whole string", "files": ["app.py"]}'),
        (".md", "---\nmodels: [gpt-4o]\n---\n\n# Issue\n\nit fails\n"),
    ],
)
def test_row_49_a_writer_killed_in_mid_write(served: tuple[House, Server], suffix: str, text: str) -> None:
    """What breaks off is rejected after its quiet time, unbilled, and says where; saved again it is asked."""
    house, server = served
    key = f"cut-{suffix[1:]}"
    path = house.request(key, suffix)
    before = len(server.bills())
    program = (
        "import sys, time\nf = open(sys.argv[1], 'w')\nf.write(sys.argv[2])\nf.flush()\nprint('half', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path), text[:15]], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    result = house.result(key)
    assert (result["status"], result["error"]["kind"]) == ("rejected", "invalid_request")
    assert "line" in str(result["problems"])
    assert len(server.bills()) == before
    path.write_text(text)
    assert house.revision(key, 2)["status"] == "answered"
    assert len(server.bills()) == before + 1


def test_row_50_an_empty_file_and_files_of_nothing(served: tuple[House, Server]) -> None:
    """No bytes: waited for in silence. Spaces, or front matter alone: rejected. None is billed."""
    house, server = served
    before = len(server.bills())
    empty = house.request("empty")
    empty.touch()
    house.request("spaces").write_text(" \n\t\n  \n")
    house.request("front").write_text("---\nmodels: gpt-4o\n---\n")
    for key in ("spaces", "front"):
        assert house.result(key)["status"] == "rejected"
    assert not house.has_result("empty")
    assert len(server.bills()) == before
    empty.write_text(request_text())
    assert house.result("empty")["status"] == "answered"
    assert len(server.bills()) == before + 1


# -- the same bytes again --


def saved_by_vim(path: Path) -> None:
    keys = ["-c", "set backupskip=", "-c", "w", "-c", "w", "-c", "q"]
    run(["vim", "-u", "NONE", "-i", "NONE", "-N", "-n", "-es", *keys, str(path)], stdin=subprocess.DEVNULL)


def in_and_out_of_git(path: Path) -> None:
    """Check out a branch without the file, wait until that was seen, and come back."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    run([*git, "init", "-q", "-b", "with"], cwd=path.parent)
    (path.parent / ".git" / "info" / "exclude").write_text(f"*\n!{path.name}\n")
    run([*git, "add", path.name], cwd=path.parent)
    run([*git, "commit", "-q", "-m", "with"], cwd=path.parent)
    run([*git, "checkout", "-q", "-b", "without"], cwd=path.parent)
    run([*git, "rm", "-q", path.name], cwd=path.parent)
    run([*git, "commit", "-q", "-m", "without"], cwd=path.parent)
    for branch in ("with", "without", "with"):
        run([*git, "checkout", "-q", branch], cwd=path.parent)
        time.sleep(0.5)


AGAIN: dict[str, Callable[[Path], object]] = {
    "saved twice in vim": saved_by_vim,
    "Ctrl+S without a change": lambda path: path.write_bytes(path.read_bytes()),
    "touch": lambda path: path.touch(),
    "chmod": lambda path: path.chmod(0o640),
    "replaced by a copy": lambda path: run(["sh", "-ec", 'cp "$1" "$1.new"; mv "$1.new" "$1"', "sh", str(path)]),
    "git checkout back and forth": in_and_out_of_git,
}


@pytest.mark.slow
@pytest.mark.parametrize("again", AGAIN)
def test_row_51_the_same_bytes_again(house: House, server: Server, need: Callable[[str], str], again: str) -> None:
    """Saved again without a change, touched, replaced by its copy, taken away and brought back: still one bill."""
    need("vim")
    need("git")
    house.use(server)
    daemon = house.up()
    path = house.drop("same")
    house.result("same")
    for _ in range(2):
        if again == "git checkout back and forth" and (path.parent / ".git").exists():
            break
        AGAIN[again](path)
        time.sleep(0.5)
    house.request("later").write_text(request_text("another"))
    house.result("later")
    assert len(server.bills()) == 2
    daemon.stop()
    path.touch()
    judge(house, server, ["same", "later"])
    house.drop("last")
    house.result("last")
    assert len(server.bills()) == 3
    assert house.result("same")["request"]["revision"] == 1


# -- edits and deletions at each record --

CALL = "calls/01-first"
BEFORE_SENT = ["claim", f"{CALL}/prompt", f"{CALL}/sent.1"]
AFTER_SENT = [f"{CALL}/accepted.1", f"{CALL}/reply", "RESULT_one.md", "RESULT_one.json", "done"]
OLD, NEW = request_text("the first words"), request_text("the second words")


class Paused:
    """A daemon that is stopped before a record gets its name: alive, paused in that thread; or dead."""

    def __init__(self, house: House, server: Server, record: str, life: str) -> None:
        self.house = house
        self.alive = life == "alive"
        house.use(server)
        self.at = house.tmp / "at"
        self.at.mkdir()
        if self.alive:
            house.env |= {"PAUSE_BEFORE": record, "PAUSE_AT": str(self.at), "PYTHONPATH": str(HOOKS)}
        else:
            house.env |= {"CRASH_BEFORE": record, "PYTHONPATH": str(CRASH)}
        self.daemon: Daemon = house.up()
        for name in ("PAUSE_BEFORE", "PAUSE_AT", "CRASH_BEFORE", "PYTHONPATH"):
            house.env.pop(name, None)
        house.drop("one", OLD)
        if self.alive:
            until((self.at / "paused").exists, what=f"paused before {record}")
        else:
            assert self.daemon.process.wait(30) == -signal.SIGKILL

    def go_on(self) -> None:
        if self.alive:
            time.sleep(2.5)  # longer than a file settles, and than a name may be away while an editor saves
            (self.at / "go").touch()
        else:
            self.house.up()


def words_billed(server: Server, house: House) -> list[str]:
    """Return what was asked, one text for each revision that was sent."""
    return [
        (claim.read_bytes().decode())
        for claim in sorted(house.folder.glob(".delegated/jobs/*/one/r*/claim"))
        if any(claim.parent.glob("calls/*/reply"))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("life", ["alive", "killed"])
@pytest.mark.parametrize("record", [*BEFORE_SENT, *AFTER_SENT])
def test_row_52_edited_before_each_record(house: House, server: Server, record: str, life: str) -> None:
    """Edited before anything was sent: the new bytes alone are asked. After: the next revision, each billed once."""
    paused = Paused(house, server, record, life)
    house.request("one").write_text(NEW)
    paused.go_on()
    wanted = hashlib.sha256(NEW.encode()).hexdigest()
    house.wait_for("one", lambda value: value["request"]["sha256"] == wanted, what="the new bytes asked")
    judge(house, server, ["one"])
    bills = len(server.bills())
    asked = words_billed(server, house)
    if record in BEFORE_SENT:
        assert (bills, len(asked)) == (1, 1)
        assert "the second words" in asked[0]
    else:
        assert (bills, len(asked)) == (2, 2)
        assert (house.folder / ".delegated" / "history" / "one" / "1.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("life", ["alive", "killed"])
@pytest.mark.parametrize("record", [*BEFORE_SENT, *AFTER_SENT])
def test_row_53_deleted_before_each_record(house: House, server: Server, record: str, life: str) -> None:
    """Deleted before anything was sent: cancelled, nothing is billed. After: finished and published all the same."""
    paused = Paused(house, server, record, life)
    house.request("one").unlink()
    paused.go_on()
    if (record, life) == ("claim", "killed"):  # it was never ours: nobody waits
        house.drop("other")
        house.result("other")
        assert not house.has_result("one")
        assert len(server.bills()) == 1
        return
    status = "cancelled" if record in BEFORE_SENT else "answered"
    judge(house, server, ["one"], statuses=[status])
    assert len(server.bills()) == (0 if record in BEFORE_SENT else 1)


@pytest.mark.slow
def test_rows_52_53_edited_and_deleted_after_done(house: House, server: Server) -> None:
    """After `done` an edit is the next revision, and a deletion changes nothing: the RESULT stands."""
    house.use(server)
    house.up()
    path = house.drop("one", OLD)
    house.result("one")
    path.write_text(NEW)
    assert house.revision("one", 2)["status"] == "answered"
    path.unlink()
    house.drop("other")
    house.result("other")
    assert house.result("one")["request"]["revision"] == 2
    judge(house, server, ["one", "other"])
    assert len(server.bills()) == 3


# -- what is planted --


@pytest.mark.slow
def test_row_56_a_link_swapped_in_between_stat_and_open(house: House, server: Server) -> None:
    """A name that is now a request, now a link to a file of somebody's: never followed, whatever the moment."""
    house.use(server, settle_ms=0)
    house.up()
    secret = house.tmp / "secret.md"
    secret.write_text(request_text("the words of somebody else"))
    stop = threading.Event()
    swaps = itertools.count()

    def swap(key: str) -> None:
        file, link = house.outside / f"{key}.file", house.outside / f"{key}.link"
        while not stop.is_set():
            file.write_text(request_text(f"an honest one, number {next(swaps)}"))
            os.rename(file, house.request(key))
            link.symlink_to(secret)
            os.rename(link, house.request(key))

    threads = [threading.Thread(target=swap, args=(f"race{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for n in range(8):
        house.drop(f"calm{n}")
        house.result(f"calm{n}")
    stop.set()
    for thread in threads:
        thread.join(30)
    assert next(swaps) > 100
    for n in range(2):
        house.request(f"race{n}").unlink()
        house.drop(f"race{n}", request_text("at last"))
    until(lambda: all(house.result(f"race{n}")["status"] == "answered" for n in range(2)), what="both are answered")
    judge(house, server)
    for path in house.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"the words of somebody else" not in path.read_bytes(), path
    said = json.dumps([server.state_json()["bills"]])
    assert "somebody else" not in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["link", "dangling link"])
@pytest.mark.parametrize("suffix", ["md", "json"])
@pytest.mark.parametrize("moment", ["served", "before the start"])
def test_row_57_a_link_planted_under_the_name_of_the_result(
    house: House, server: Server, suffix: str, kind: str, moment: str
) -> None:
    """The link is replaced and its target left alone; and a link is no RESULT, so the request is asked all the same."""
    house.use(server)
    mine = house.tmp / "mine.txt"
    if kind == "link":
        mine.write_text('{"status": "answered", "of": "somebody"}')
    if moment == "served":
        house.up()
        house.result_path("x", suffix).symlink_to(mine)
        house.drop("x")
    else:
        house.drop("x")
        house.result_path("x", suffix).symlink_to(mine)
        house.up()
    until(lambda: not house.result_path("x", suffix).is_symlink(), what="the link is replaced")
    assert house.result("x")["status"] == "answered"
    assert mine.exists() == (kind == "link")
    assert kind != "link" or mine.read_text() == '{"status": "answered", "of": "somebody"}'
    judge(house, server, ["x"])
    assert PREFIX in house.result_path("x").name
    assert len(server.bills()) == 1
