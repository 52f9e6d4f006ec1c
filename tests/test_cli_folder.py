"""The client commands against a folder in which the test plays the daemon: it writes STATUS and RESULT by rename."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from delegated.cli import exits
from delegated.cli import place as places
from delegated.cli.place import find
from delegated.folder import PREFIX, request_id
from delegated.request import parse
from harness import House, on_terminal, until


class Played:
    """A daemon played by the test: it holds the lock and writes what a daemon would."""

    def __init__(self, house: House) -> None:
        self.house = house
        journal = house.folder / ".delegated"
        journal.mkdir(exist_ok=True)
        self.lock = open(journal / "lock", "w")  # noqa: SIM115 - held until closed
        self.lock.write("pid 4711 on elsewhere\n")
        self.lock.flush()
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def put(self, name: str, data: str) -> None:
        temp = self.house.folder / ".delegated" / "temp"
        temp.write_text(data)
        os.rename(temp, self.house.folder / name)

    def status(self, key: str, **fields: Any) -> None:
        self.put(f"{PREFIX}STATUS_{key}.json", json.dumps({"id": key, "state": "running", **fields}))

    def settle(self, key: str, status: str = "answered", page: str = "# The answer\n", **fields: Any) -> None:
        (self.house.folder / ".delegated" / "jobs" / "00" / key).mkdir(parents=True, exist_ok=True)
        self.put(f"{PREFIX}RESULT_{key}.md", page)
        self.put(f"{PREFIX}RESULT_{key}.json", json.dumps({"status": status, "request": {"id": key}, **fields}))

    def close(self) -> None:
        self.lock.close()


@pytest.fixture
def daemon(house: House) -> Iterator[Played]:
    played = Played(house)
    yield played
    played.close()


def start(house: House, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "delegated", *arguments],
        **{"cwd": house.workspace, "env": house.env, **pipes, **more},
    )


def run(house: House, *arguments: str, text: bytes = b"", **more: Any) -> tuple[int, str, str]:
    process = start(house, *arguments, **{"stdin": subprocess.PIPE, **more})
    out, err = process.communicate(text, 60)
    return process.returncode, out.decode(), err.decode()


def dropped(house: House) -> list[Path]:
    return sorted(path for path in house.folder.iterdir() if request_id(path.name))


SEED = (
    *("--issue", "500 Internal Server Error on /builder_result endpoint - persists despite schema fixes"),
    *("--files", "src/autopack/main.py,src/autopack/schemas.py,src/autopack/builder_schemas.py"),
    *("--context", "Server starts successfully. Health check passes."),
    *("--logs", "WARNING: Failed to post builder result: 500 Server Error: Internal Server Error for url: http://x"),
    "--attempted-fixes",
    "Mapped llm_client.BuilderResult to builder_schemas.BuilderResult with correct schema",
    "Ensured all required fields included (phase_id, run_id, status, notes)",
    "Restarted server multiple times with new code",
)


def test_ask_writes_what_was_said(house: House, daemon: Played) -> None:
    """The seed's own command line becomes one whole request that holds each of its words."""
    code, out, err = run(house, "ask", *SEED, "--no-wait")
    assert code == 0, err
    key = out.strip()
    assert [path.name for path in dropped(house)] == [f"{PREFIX}REQUEST_{key}.md"]
    request = parse(dropped(house)[0].read_bytes(), ".md")
    assert request.issue == SEED[1]
    assert request.files == tuple(SEED[3].split(","))
    assert request.context == SEED[5]
    assert request.logs.strip() == SEED[7]
    assert request.attempted_fixes == SEED[9:]
    assert f"delegate wait {key}" in err
    told = json.loads(run(house, "ask", *SEED, "--no-wait", "--json", "--id", "j")[1])
    assert told == {"id": "j", "request": str(house.request("j")), "result": str(house.result_path("j"))}
    house.request("j").unlink()
    assert oct(dropped(house)[0].stat().st_mode)[-3:] == "600"


@pytest.mark.parametrize(
    ("status", "code"), [*exits.BY_STATUS.items(), ("something newer", exits.FAILED)], ids=lambda value: str(value)
)
def test_ask_waits_prints_and_exits_by_the_outcome(status: str, code: int, house: House, daemon: Played) -> None:
    """RESULT.md on stdout, talk on stderr, and an exit code that tells how it ended."""
    process = start(house, "ask", "--issue", "it fails")
    path = until(lambda: dropped(house), what="request")[0]
    key = request_id(path.name)[0]  # type: ignore[index]
    daemon.status(key, phase="asking", model="gpt-4o")
    assert process.stderr is not None
    said = b""
    while b"asking (gpt-4o)" not in said:
        said += process.stderr.readline()
    daemon.settle(key, status, error={"message": "m", "retryable": True})
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == b"# The answer\n"
    assert f"{key}: {status}".encode() in err


def test_ask_prints_json(house: House, daemon: Played) -> None:
    """--json prints RESULT.json, in ASCII, so that nothing in it can drive a terminal or break a pipe."""
    process = start(house, "ask", "--issue", "it fails", "--json", "--id", "my.id-1")
    until(lambda: house.request("my.id-1").exists(), what="request")
    daemon.settle("my.id-1", root_cause="→ \x9b31m \x1b[2J")
    out, _ = process.communicate(timeout=30)
    assert json.loads(out)["root_cause"] == "→ \x9b31m \x1b[2J"
    assert out.isascii()
    assert b"\x1b" not in out


def test_a_time_out_ends_the_waiting_only(house: House, daemon: Played) -> None:
    """After --timeout the exit code is 124, the request stands, and the way on is said."""
    code, out, err = run(house, "ask", "--issue", "it fails", "--id", "late", "--timeout", "0.2")
    assert code == exits.TIMED_OUT
    assert not out
    assert "hint: the request is not lost: the daemon that serves the folder goes on with it" in err
    assert "next: delegate wait late" in err
    assert house.request("late").exists()


def test_ctrl_c_ends_the_waiting_only(house: House, daemon: Played) -> None:
    """Ctrl+C leaves with 130 and says how to wait again; the request goes on."""
    process = start(house, "ask", "--issue", "it fails", "--id", "long")
    assert process.stderr is not None
    assert b"waiting to be taken" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == exits.INTERRUPTED
    assert b"next: delegate wait long" in err
    assert b"Traceback" not in err
    assert house.request("long").exists()


def test_progress_on_a_terminal_is_one_line(house: House, daemon: Played) -> None:
    """On a terminal the line is updated in place and gone at the end; no phase can bring an escape sequence along."""
    ours, theirs = pty.openpty()
    process = start(house, "ask", "--issue", "it fails", "--id", "tty", stderr=theirs)
    os.close(theirs)
    until(lambda: house.request("tty").exists(), what="request")
    daemon.status("tty", phase="asking", detail="\x1b[2Jboo\nnext", model="gpt-4o")
    seen = b""
    while b"asking" not in seen:
        assert select.select([ours], [], [], 30)[0]
        seen += os.read(ours, 4096)
    daemon.settle("tty")
    process.communicate(timeout=30)
    with pytest.raises(OSError):  # noqa: PT012 - until the other side is closed
        while True:
            seen += os.read(ours, 4096)
    os.close(ours)
    assert b"\x1b[2J" not in seen
    assert b"boo next" in seen
    assert seen.count(b"\r\n") <= 2, "one line for the progress, one for the end"


def test_progress_on_a_narrow_terminal_keeps_the_time(house: House, daemon: Played) -> None:
    """What does not fit is cut in the words: how long it has taken is what moves, and is still to be seen."""
    house.request("narrow").write_text("x")
    daemon.status("narrow", phase="waiting", detail="gpt-4o", model="gpt-4o, gpt-6.1-sol", tokens=4000)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 44, 0, 0))
    process = start(house, "wait", "narrow", "--timeout", "0.5", stderr=theirs)
    os.close(theirs)
    process.communicate(timeout=30)
    seen = b""
    with pytest.raises(OSError):  # noqa: PT012 - until the other side is closed
        while True:
            seen += os.read(ours, 4096)
    os.close(ours)
    first = seen.split(b"\r")[1].removesuffix(b"\x1b[K").decode()
    assert first == "narrow: waiting: gpt-4o (gpt-4o, gpt-…  0 s"
    assert len(first) == 43


def test_ask_takes_texts_as_they_come(house: House, daemon: Played) -> None:
    """Logs from a file, from standard input, with a leading hyphen or @, in UTF-16, with bytes that are no UTF-8."""
    (house.workspace / "utf16.log").write_text("größe", encoding="utf-16")
    (house.workspace / "run.log").write_bytes(b"\xef\xbb\xbfline 1\r\nbad \xff byte\n")
    cases = (
        (("--logs", "@run.log"), "line 1"),
        (("--logs", "@utf16.log"), "größe"),
        (("--logs", "-"), "from stdin"),
        (("--logs", "-h is not an option here"), "-h is not an option here"),
        (("--logs", "--- FAIL: TestX"), "--- FAIL: TestX"),
        (("--logs=@@app.route failed",), "@app.route failed"),
    )
    for number, (flags, logs) in enumerate(cases):
        code, _, err = run(
            house, "ask", "--issue", "it fails", *flags, "--no-wait", "--id", f"n{number}", text=b"from stdin"
        )
        assert code == 0, err
        assert logs in parse(house.request(f"n{number}").read_bytes(), ".md").logs
    code, _, err = run(house, "ask", "--issue", b"bad \xff byte", "--no-wait", "--id", "bytes")  # type: ignore[arg-type]
    assert code == 0, err
    assert "bad" in parse(house.request("bytes").read_bytes(), ".md").issue


def test_files_are_made_relative_to_the_workspace(house: House, daemon: Played) -> None:
    """Paths seen from a subdirectory and absolute ones become relative to the root; unknown ones stay as given."""
    package = house.workspace / "src" / "pkg"
    package.mkdir(parents=True)
    (package / "a.py").write_text("")
    (package / "b,c.py").write_text("")
    given = ("a.py,b.py", "src/pkg/a.py", str(house.workspace / "app.py"), "*.py", "/etc/passwd", "../../app.py")
    code, _, err = run(house, "ask", "--issue", "x", "--files", *given, "--no-wait", "--id", "f", cwd=package)
    assert code == 0, err
    request = parse(house.request("f").read_bytes(), ".md")
    assert request.files == ("src/pkg/a.py", "b.py", "app.py", "*.py", "/etc/passwd")
    code, _, err = run(
        house, "ask", "--issue", "x", "--files", "pkg/*.py", "--no-wait", "--id", "g", cwd=package.parent
    )
    assert parse(house.request("g").read_bytes(), ".md").files == ("src/pkg/*.py",)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("app.py pkg/a.py", ("app.py", "pkg/a.py")),
        ("app.py  pkg/*.py, my notes.py", ("app.py", "pkg/*.py", "my notes.py")),
        ("my notes.py", ("my notes.py",)),
        ("app.py nowhere.py", ("app.py nowhere.py",)),
    ],
)
def test_files_in_one_argument(given: str, meant: tuple[str, ...], house: House, daemon: Played) -> None:
    """A path may hold a space: only where the whole is none and each word is one, the words are meant."""
    (house.workspace / "pkg").mkdir()
    for name in ("pkg/a.py", "my notes.py", "my"):
        (house.workspace / name).write_text("x = 1\n")
    code, _, err = run(house, "ask", "--issue", "x", "--files", given, "--no-wait", "--id", "f")
    assert code == 0, err
    assert parse(house.request("f").read_bytes(), ".md").files == meant


def test_ids_in_one_second_differ(house: House, daemon: Played) -> None:
    """Many clients at once each get an id of their own; a given one that is taken is refused."""
    processes = [start(house, "ask", "--issue", f"number {n}", "--no-wait") for n in range(6)]
    keys = [process.communicate(timeout=60)[0].decode().strip() for process in processes]
    assert len(set(keys)) == len(keys)
    assert len(dropped(house)) == len(keys)
    code, _, err = run(house, "ask", "--issue", "x", "--id", keys[0], "--no-wait")
    assert code == exits.USAGE
    assert "is taken" in err


def test_a_key_in_a_flag_is_warned_about(house: House, daemon: Played) -> None:
    """--api-key warns that others can read it, and that a running daemon uses its own; it is written nowhere."""
    code, out, err = run(house, "ask", "--issue", "x", "--api-key", "sk-proj-secret", "--no-wait")
    assert code == 0
    assert "visible to other users" in err
    assert "uses its own key" in err
    assert "sk-proj-secret" not in out + err
    assert b"sk-proj-secret" not in b"".join(path.read_bytes() for path in house.folder.iterdir() if path.is_file())


def test_list_and_status(house: House, daemon: Played) -> None:
    """list shows the newest first with how it ended; status shows who serves, what runs and what waits."""
    for n, status in enumerate(("answered", "failed")):
        daemon.settle(f"old{n}", status, verdict="likely", confidence="high", cost_usd=0.01234)
        os.utime(house.result_path(f"old{n}"), (1000 + n, 1000 + n))
    house.request("waits").write_text("x")
    house.request("runs").write_text("x")
    daemon.status("runs", phase="asking")
    code, out, _ = run(house, "list")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["ID", "STATE"]
    assert {line.split()[0] for line in lines[1:3]} == {"runs", "waits"}
    assert [line.split()[:4] for line in lines[3:]] == [
        ["old1", "failed", "likely", "high"],
        ["old0", "answered", "likely", "high"],
    ]
    code, out, err = run(house, "list", "-n", "1")
    assert len(out.splitlines()) == 2
    assert "3 more" in err
    assert [item["id"] for item in json.loads(run(house, "list", "--json", "--all")[1])][-1] == "old0"
    told = json.loads(run(house, "status", "--json")[1])
    assert (told["daemon"], told["waiting"], told["settled"]) == ("pid 4711 on elsewhere", ["waits"], 2)
    assert told["running"][0]["phase"] == "asking"
    out = run(house, "status")[1]
    assert "daemon   pid 4711 on elsewhere" in out
    assert json.loads(run(house, "status", "waits", "--json")[1])["state"] == "waiting"
    assert json.loads(run(house, "status", "runs", "--json")[1])["state"] == "running"
    assert "old1: failed" in run(house, "status", "old1")[1]
    house.request("runs").unlink()
    code, out, _ = run(house, "status", "runs")
    assert (code, out.splitlines()[0]) == (0, "runs: asking"), "a REQUEST that was deleted may still be worked on"
    code, _, err = run(house, "status", "--folder", str(house.outside / "nope"))
    assert (code, "there is no drop folder at" in err) == (exits.ABSENT, True)


@pytest.mark.parametrize("columns", [40, 72, 80, 200])
def test_list_fits_a_terminal(columns: int, house: House, daemon: Played) -> None:
    """No line is wider than the terminal, nothing of an issue is cut off for it, and no colour is used."""
    issue = "POST /runs/start answers 500 and the log has no traceback"
    for key in ("20251128_133758", "20251128_133813"):
        daemon.settle(key, verdict="root_cause_found", confidence="medium", cost_usd=0.0123, request={"title": issue})
    env = house.env | {"TERM": "xterm-256color"}
    command = [sys.executable, "-P", "-m", "delegated", "list"]
    shown = on_terminal(command, columns, cwd=house.workspace, env=env)
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) < columns
    words = " ".join(shown.split())
    assert words.count(issue) == 2
    assert words.count("20251128_133758") == 1
    assert "next: delegate show 20251128_1338" in shown
    assert ("CONFIDENCE" in shown) == (columns >= 72)
    assert shown.count("\n") == (4 if columns == 200 else 6 if columns >= 72 else 11), shown


def test_what_a_running_job_has_sent_and_cost_is_told(house: House, daemon: Played) -> None:
    """Waiting for an answer, a person sees the phase, the model, the tokens and the cost so far."""
    house.request("runs").write_text("x")
    daemon.status("runs", phase="waiting", model="gpt-4o", tokens=1365, cost_usd=0.00691)
    line = "waiting (gpt-4o), 1,365 tokens, $0.0069 so far"
    assert f"running  runs: {line}" in run(house, "status")[1]
    code, _, err = run(house, "wait", "runs", "--timeout", "0.5")
    assert (code, f"runs: {line}" in err) == (exits.TIMED_OUT, True)
    daemon.status("runs", phase="gathering", tokens=0, cost_usd=0)
    assert "runs: gathering\n" in run(house, "status")[1]


def test_show(house: House, daemon: Played) -> None:
    """show prints the newest RESULT or the one asked for, takes a file's name for an id, and says what is not there."""
    daemon.settle("one", page="one\x1b]0;title\x07\n", raw_response="\x1b[31mraw")
    daemon.settle("two", "rejected", page="two\n")
    os.utime(house.result_path("one"), (1000, 1000))
    assert run(house, "show")[:2] == (exits.REJECTED, "two\n")
    for name in ("one", f"{PREFIX}RESULT_one.md", str(house.result_path("one")), f"{PREFIX}REQUEST_one.md"):
        code, out, _ = run(house, "show", name)
        assert (code, out) == (0, "one\n"), name
    assert run(house, "show", "one", "--raw")[1] == "\x1b[31mraw", "a pipe gets the very text"
    house.request("three").write_text("x")
    code, _, err = run(house, "show", "three")
    assert (code, "delegate wait three" in err) == (exits.ABSENT, True)
    code, _, err = run(house, "show", "tw")
    assert (code, "did you mean two?" in err) == (exits.ABSENT, True)
    house.result_path("two", "md").unlink()
    assert run(house, "show", "two")[1].startswith("rejected")


def test_the_raw_reply_does_not_drive_a_terminal(house: House, daemon: Played) -> None:
    """On a terminal --raw is cleaned like everything else."""
    daemon.settle("one", raw_response="\x1b[31mraw")
    ours, theirs = pty.openpty()
    process = start(house, "show", "one", "--raw", stdout=theirs)
    os.close(theirs)
    process.communicate(timeout=30)
    assert os.read(ours, 4096) == b"raw\r\n"
    os.close(ours)


def test_wait(house: House, daemon: Played) -> None:
    """wait returns at once for a RESULT that stands, and fails for an id that nobody asked about."""
    daemon.settle("one")
    assert run(house, "wait", "one")[:2] == (0, "# The answer\n")
    code, _, err = run(house, "wait", "nobody")
    assert code == exits.ABSENT
    assert "there is no request nobody" in err
    house.request("slow").write_text("x")
    assert run(house, "wait", "slow", "--timeout", "0.1")[0] == exits.TIMED_OUT


@pytest.mark.parametrize("served", [False, True], ids=("alone", "served"))
def test_wait_says_what_nobody_will_ask_about(served: bool, house: House, request: pytest.FixtureRequest) -> None:
    """An empty REQUEST and a draft are not waited for: why, what to do, and the code of what is absent."""
    if served:
        request.getfixturevalue("daemon")
    for key, text, why in (
        ("empty", "", "is empty"),
        ("later", "---\ndraft: true\n---\n\n# Issue\n\nit fails\n", "is a draft"),
    ):
        house.request(key).write_text(text)
        code, _, err = run(house, "wait", key)
        assert (code, why in err) == (exits.ABSENT, True), err
        assert f"delegate wait {key}" in err
    house.request("words").write_text("# Issue\n\nmy draft is lost\n")
    assert run(house, "wait", "words", "--timeout", "0.01")[0] == exits.TIMED_OUT


def test_cancel_and_retry_drop_orders(house: House, daemon: Played) -> None:
    """cancel and retry each drop one file; an order given twice is one order."""
    house.request("runs").write_text("x")
    for _ in range(2):
        assert run(house, "cancel", "runs")[0] == 0
    assert (house.folder / f"{PREFIX}CANCEL_runs").exists()
    code, _, err = run(house, "retry", "runs")
    assert (code, "is not settled" in err) == (exits.ABSENT, True)
    daemon.settle("one", "failed")
    assert run(house, "cancel", "one")[0] == 0
    assert not (house.folder / f"{PREFIX}CANCEL_one").exists(), "what is settled cannot be cancelled"
    assert run(house, "retry", "one", "--no-wait")[0] == 0
    assert (house.folder / f"{PREFIX}RETRY_one").exists()
    (house.folder / ".delegated" / "jobs" / "00" / "one").rmdir()
    code, _, err = run(house, "retry", "one")
    assert (code, "does not know one" in err) == (exits.ABSENT, True), "nobody would ever obey"


def test_retry_waits_for_the_next_result(house: House, daemon: Played) -> None:
    """The RESULT that stands already is not taken for the answer to a retry."""
    daemon.settle("one", "failed", page="old\n")
    process = start(house, "retry", "one")
    until(lambda: (house.folder / f"{PREFIX}RETRY_one").exists(), what="order")
    daemon.settle("one", page="new\n")
    assert process.communicate(timeout=30)[0] == b"new\n"
    assert process.returncode == 0


def test_retry_of_an_uncertain_request_needs_consent(house: House, daemon: Played) -> None:
    """What may bill twice is done only after a yes: --yes from a program, an answer on a terminal."""
    daemon.settle("one", "uncertain")
    assert "next: delegate retry one --yes" in run(house, "show", "one")[2], "without a terminal nobody can agree"
    code, _, err = run(house, "retry", "one", "--no-wait")
    assert code == exits.USAGE
    assert "may bill twice" in err
    assert "--yes" in err
    assert not (house.folder / f"{PREFIX}RETRY_one").exists()
    for answer, there in ((b"n\n", False), (b"y\n", True)):
        ours, theirs = pty.openpty()
        process = start(house, "retry", "one", "--no-wait", stdin=theirs, stderr=theirs)
        os.close(theirs)
        os.write(ours, answer)
        process.communicate(timeout=30)
        os.close(ours)
        assert (house.folder / f"{PREFIX}RETRY_one").exists() == there


def test_orders_and_requests_need_a_writable_folder(house: House, daemon: Played) -> None:
    """A folder that cannot be written ends in exit code 74 with what to do."""
    (house.workspace / "blocked").write_text("")
    code, _, err = run(house, "ask", "--issue", "x", "--folder", str(house.workspace / "blocked" / "x"))
    assert code == exits.CANNOT_WRITE
    assert "hint: something else stands in its place" in err


def test_a_workspace_is_found_from_below(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest parent with .autonomous_runs is the workspace, else the current directory."""
    below = house.workspace / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find().workspace == str(house.workspace)
    assert find().folder == str(house.folder)
    monkeypatch.chdir(house.outside)
    assert find().workspace == str(house.outside)
    assert find(None, str(house.folder)).workspace == str(house.workspace)
    monkeypatch.setenv("DELEGATED_FOLDER", "drop/here")
    assert find().folder == str(house.outside / "drop" / "here")


def test_the_holder_is_seen_without_taking_the_lock(house: House) -> None:
    """Who serves the folder is read from its lock; a lock file that nobody holds is nobody's."""
    place = find(str(house.workspace))
    assert places.holder(place) is None
    played = Played(house)
    assert places.holder(place) == "pid 4711 on elsewhere"
    played.close()
    assert places.holder(place) is None
