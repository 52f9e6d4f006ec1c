"""`doctor` says whether a request dropped now would be answered, and what to do where it would not."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from delegated.cli import checks as told
from delegated.cli import exits
from harness import PREFIX, House, Server, request_text, until
from test_cli_folder import Played, run

KEY = "sk-test-0123456789abcdefghij"
# What a busy machine may take; the limit of the page is held by the bench.
PATIENT = ("--wait", "30")
Checks = dict[str, dict[str, str]]


def doctor(house: House, *flags: str, prefix: tuple[str, ...] = ()) -> tuple[int, Checks, list[dict[str, str]]]:
    """Run it; return its exit code, the last check of each name, and all of them."""
    if prefix:
        command = [*prefix, sys.executable, "-P", "-m", "delegated", "doctor", "--json", *flags]
        done = subprocess.run(command, cwd=house.workspace, env=house.env, capture_output=True, text=True, timeout=60)
        code, out, err = done.returncode, done.stdout, done.stderr
    else:
        code, out, err = run(house, "doctor", "--json", *flags)
    assert KEY not in out + err, "a key is never shown"
    assert out, err
    found = json.loads(out)
    assert (code == 0) == found["ok"] == all(check["state"] != "FAIL" for check in found["checks"]), err
    assert all(check["hint"] for check in found["checks"] if check["state"] == "FAIL"), "each FAIL says what to do"
    assert not list(house.folder.glob(f"{PREFIX}PING_*")), "what it left is gone"
    return code, {check["name"]: check for check in found["checks"]}, found["checks"]


def alone(house: House, *flags: str, prefix: tuple[str, ...] = ()) -> tuple[int, Checks, list[dict[str, str]]]:
    """Run it where a daemon is not needed, so that the exit code is that of the rest."""
    return doctor(house, "--no-daemon", *flags, prefix=prefix)


@pytest.fixture
def disk(house: House) -> Iterator[Callable[..., None]]:
    """Put a small disk in the place of a directory (takes root); all are taken away at the end."""
    mounted: list[Path] = []

    def mount(path: Path, *command: str) -> None:
        if os.geteuid() != 0:
            pytest.skip("mounting takes root")
        done = subprocess.run(["mount", *command, str(path)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        mounted.append(path)

    yield mount
    for path in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def unprivileged(need: Callable[[str], str]) -> tuple[str, ...]:
    """Run a command so that permissions hold for it, for root too."""
    return (need("setpriv"), "--bounding-set=-all") if os.geteuid() == 0 else ()


def at(need: Callable[[str], str], when: str) -> tuple[str, ...]:
    """Run a command at another time of the wall clock (`@` and a date, or an offset); what waits waits as ever.

    By the library alone: the `faketime` command stumbles over what another one with the same process id left.
    """
    beside = Path(os.path.realpath(need("faketime"))).parents[1] / "lib"
    library = next(beside.glob("**/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not where its command is")
    return ("env", f"LD_PRELOAD={library}", "FAKETIME_DONT_FAKE_MONOTONIC=1", f"FAKETIME={when}")


# -- the daemon --


@pytest.mark.slow
def test_all_is_well(house: House) -> None:
    """A daemon serves the folder and takes up what is left there; the model needs neither key nor network."""
    house.up()
    code, checks, every = doctor(house, *PATIENT)
    assert code == 0
    assert {check["state"] for check in every} == {"ok"}, every
    assert checks["daemon"]["message"].startswith("this folder is served by pid ")
    assert checks["pickup"]["message"].startswith("a file was seen ")
    assert "needs none" in checks["key"]["message"]
    assert "endpoint" not in checks
    assert checks["watch"]["message"] == "inotify"
    code, out, err = run(house, "doctor", *PATIENT)
    assert code == 0
    assert "a request dropped now would be answered" in err
    assert all(line[:4] in ("ok  ", "warn", "FAIL", "    ") for line in out.splitlines())


@pytest.mark.slow
def test_no_daemon(house: House) -> None:
    """Nobody serves the folder: a request dropped now would wait, and how one is started is said."""
    code, checks, _ = doctor(house)
    assert code == exits.UNHEALTHY
    assert checks["daemon"]["state"] == "FAIL"
    assert "start it: delegated" in checks["daemon"]["hint"]
    assert "pickup" not in checks
    code, _, err = run(house, "doctor")
    assert code == exits.UNHEALTHY
    assert "would wait until a daemon is started; all else is well" in err
    assert "next: delegated" in err
    code, checks, _ = alone(house)
    assert code == 0, "`delegate ask` needs none"
    assert checks["daemon"]["state"] == "warn"


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "until_when"), [(("--only", "a"), "a is settled"), (("--once",), "nothing waits")])
def test_one_that_leaves_after_its_work_is_no_daemon(
    house: House, server: Server, flags: tuple[str, ...], until_when: str
) -> None:
    """`delegate ask`'s own process holds the folder and answers nobody else, and `--once` leaves: neither serves."""
    house.use(server)
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"run": 600}})
    house.drop("a")
    house.start(*flags)
    until(lambda: (house.folder / f"{PREFIX}STATUS_a.json").exists(), what="the job runs")
    code, checks, _ = doctor(house, "--offline")
    assert code == exits.UNHEALTHY
    assert checks["daemon"]["state"] == "FAIL"
    assert until_when in checks["daemon"]["message"]
    assert "pickup" not in checks
    ping = house.folder / f"{PREFIX}PING_x"
    ping.touch()
    status = house.folder / f"{PREFIX}STATUS_a.json"
    before = status.stat().st_mtime_ns
    until(lambda: status.stat().st_mtime_ns != before, what="a heartbeat: the loop came round")
    assert ping.exists(), "it answers no PING"


@pytest.mark.slow
def test_a_daemon_that_hangs(house: House) -> None:
    """It holds the lock and sees nothing: FAIL; it goes on: well again."""
    daemon = house.up()
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        code, checks, _ = doctor(house, "--wait", "0.3")
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert code == exits.UNHEALTHY
    assert checks["pickup"]["state"] == "FAIL"
    assert "did not see a file within 0.3 s" in checks["pickup"]["message"]
    code, checks, _ = doctor(house, *PATIENT)
    assert (code, checks["pickup"]["state"]) == (0, "ok")


@pytest.mark.slow
def test_a_daemon_that_is_stopping(house: House, server: Server) -> None:
    """It drains, and takes nothing new: a request dropped now is not its."""
    house.use(server, grace_s=60)
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"run": 600}})
    daemon = house.up()
    house.drop("a")
    until(lambda: server.bills(), what="the call runs")
    daemon.process.send_signal(signal.SIGTERM)
    until(lambda: daemon.has("worker.draining"), what="it drains")
    code, checks, _ = doctor(house, "--wait", "0.3", "--offline")
    assert code == exits.UNHEALTHY
    assert "is stopping" in checks["pickup"]["message"]


@pytest.mark.slow
def test_a_watch_that_gives_no_events(house: House, need: Callable[[str], str]) -> None:
    """A PING that only the rescan finds stays: taken away, it would say that the watch works."""
    mounted = house.folder
    behind = house.tmp / "behind"
    behind.mkdir()
    done = subprocess.run([need("bindfs"), str(behind), str(mounted)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"FUSE is not to be had here: {done.stderr.strip()}")
    try:
        house.set(watch="inotify", rescan_s=0.2)
        daemon = house.up()
        ping = f"{PREFIX}PING_x"
        (behind / ping).touch()
        (house.outside / "a").write_text(request_text())
        os.rename(house.outside / "a", behind / f"{PREFIX}REQUEST_a.md")
        assert house.result("a")["status"] == "answered", "a rescan found the request, and so saw the PING"
        assert (behind / ping).exists()
        os.unlink(mounted / ping)
        (mounted / ping).touch()
        until(lambda: not (behind / ping).exists(), what="one that came with an event is answered")
        daemon.stop()
    finally:
        house.close()
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def test_a_start_clears_what_pings_were_left(house: House) -> None:
    """A client that was killed leaves its PING; the next start takes it away. One that is no file harms nobody."""
    (house.folder / f"{PREFIX}PING_old").touch()
    (house.folder / f"{PREFIX}PING_directory").mkdir()
    house.up()
    until(lambda: not (house.folder / f"{PREFIX}PING_old").exists(), what="the old one is gone")
    house.drop("a")
    assert house.result("a")["status"] == "answered"
    (house.folder / f"{PREFIX}PING_directory").rmdir()


@pytest.mark.slow
def test_a_daemon_that_polls(house: House) -> None:
    """Polling is slower, is said with its reason, and answers a PING all the same."""
    house.set(watch="poll", poll_s=0.2)
    house.up()
    code, checks, _ = doctor(house, *PATIENT)
    assert code == 0
    assert checks["watch"]["state"] == "warn"
    assert checks["watch"]["message"] == "polling, as configured"
    assert checks["pickup"]["state"] == "ok"


# -- the folder --


def test_a_folder_that_cannot_be_there(house: House) -> None:
    """A drop folder below a file: FAIL, with the place."""
    (house.workspace / "file").write_text("")
    code, checks, _ = alone(house, "--folder", str(house.workspace / "file" / "drop"))
    assert code == exits.UNHEALTHY
    assert checks["folder"]["message"] == f"cannot write in {house.workspace / 'file'}: Not a directory"


def test_a_folder_that_cannot_be_written(house: House, unprivileged: tuple[str, ...]) -> None:
    """Permissions that keep this user out: FAIL, with the system's reason."""
    house.folder.chmod(0o500)
    try:
        code, checks, _ = alone(house, prefix=unprivileged)
    finally:
        house.folder.chmod(0o700)
    assert code == exits.UNHEALTHY
    assert checks["folder"]["message"] == f"cannot write in {house.folder}: Permission denied"


@pytest.mark.slow
def test_a_folder_that_cannot_be_read(house: House, unprivileged: tuple[str, ...]) -> None:
    """It can be written and not listed, so it cannot be watched either."""
    house.folder.chmod(0o300)
    try:
        code, checks, _ = alone(house, prefix=unprivileged)
    finally:
        house.folder.chmod(0o700)
    assert code == exits.UNHEALTHY
    assert checks["watch"]["state"] == "FAIL"
    assert "Permission denied" in checks["watch"]["message"]


def test_a_journal_that_cannot_be_written(house: House, unprivileged: tuple[str, ...]) -> None:
    """Made by root once, say: FAIL, with what to do."""
    journal = house.folder / ".delegated"
    journal.mkdir(mode=0o500)
    code, checks, _ = alone(house, prefix=unprivileged)
    assert code == exits.UNHEALTHY
    assert checks["journal"]["message"] == f"cannot make a record in {journal}: Permission denied"


@pytest.mark.slow
def test_a_journal_on_another_file_system(house: House, disk: Callable[..., None]) -> None:
    """RESULTs are renamed out of it, which needs one file system."""
    journal = house.folder / ".delegated"
    journal.mkdir()
    disk(journal, "-t", "tmpfs", "tmpfs")
    code, checks, _ = alone(house)
    assert code == exits.UNHEALTHY
    assert "another file system" in checks["journal"]["message"]
    assert house.start().process.wait(30) == 74, "the daemon says so as well"


def test_a_journal_behind_a_bind_mount(house: House, disk: Callable[..., None]) -> None:
    """The same file system by its number, and yet no rename leads out of it: only trying it tells."""
    journal, elsewhere = house.folder / ".delegated", house.tmp / "elsewhere"
    journal.mkdir()
    elsewhere.mkdir()
    disk(journal, "--bind", str(elsewhere))
    code, checks, _ = alone(house)
    assert code == exits.UNHEALTHY
    assert checks["journal"]["message"].endswith("Invalid cross-device link")
    assert "unmount" in checks["journal"]["hint"]
    assert not list(house.folder.glob(".doctor*"))


def test_a_journal_that_others_may_look_into(house: House) -> None:
    """It holds requests, code and answers; and a folder that all may write is everybody's purse. Said, with chmod."""
    journal = house.folder / ".delegated"
    journal.mkdir(mode=0o755)
    journal.chmod(0o755)
    house.folder.chmod(0o777)
    code, _, every = alone(house)
    found = [(check["state"], shlex.split(check["hint"])) for check in every if check["name"] == "private"]
    assert found == [("warn", ["chmod", "700", str(journal)]), ("warn", ["chmod", "o-w", str(house.folder)])]
    assert code == 0, "a request would be answered"
    house.folder.chmod(0o700)
    journal.chmod(0o700)
    assert alone(house)[1]["private"]["state"] == "ok"


def test_a_full_disk(house: House, disk: Callable[..., None]) -> None:
    """Nothing can be written: FAIL, by trying, and the room that is left is told."""
    disk(house.folder, "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs")
    subprocess.run(["dd", "if=/dev/zero", f"of={house.folder / 'ballast'}"], stderr=subprocess.DEVNULL)
    code, checks, _ = alone(house)
    assert code == exits.UNHEALTHY
    assert checks["folder"]["message"].endswith("No space left on device")
    assert checks["space"]["state"] == "FAIL"
    assert checks["space"]["message"].startswith("0 KiB free")


def test_a_disk_that_is_nearly_full(house: House, disk: Callable[..., None]) -> None:
    """It can be written yet: a warning."""
    disk(house.folder, "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs")
    code, checks, _ = alone(house)
    assert code == 0
    assert checks["space"] == checks["space"] | {"state": "warn", "hint": "free some space soon"}


def test_a_disk_without_room_for_another_file(house: House, disk: Callable[..., None]) -> None:
    """Bytes are free and inodes are not: FAIL all the same."""
    disk(house.folder, "-t", "tmpfs", "-o", "size=8m,nr_inodes=2,mode=700", "tmpfs")
    (house.folder / "last").touch()
    code, checks, _ = alone(house)
    assert code == exits.UNHEALTHY
    assert checks["folder"]["state"] == "FAIL"
    assert checks["space"]["state"] == "FAIL"
    assert "room for 0 files" in checks["space"]["message"]


@pytest.mark.parametrize(("limit", "name"), [("instances", "instance"), ("watches", "watch")])
def test_no_inotify_left(house: House, need: Callable[[str], str], limit: str, name: str) -> None:
    """The system's limit is reached: polling, and which limit it is."""
    enough = f'echo 0 > /proc/sys/user/max_inotify_{limit} && exec "$@"'
    prefix = (need("unshare"), "-Ur", "sh", "-c", enough, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here")
    code, checks, _ = alone(house, prefix=prefix)
    assert code == 0
    assert checks["watch"]["state"] == "warn"
    assert f"no inotify {name} left" in checks["watch"]["message"]


def test_names_that_are_none(house: House) -> None:
    """A file that was meant as a request and is none is named, with how it would be right."""
    (house.folder / f"{PREFIX}REQUEST_my bug.md").write_text(request_text())
    _, checks, _ = alone(house)
    assert checks["names"]["state"] == "warn"
    assert "my bug" in checks["names"]["message"]


def test_doctor_leaves_nothing_behind(house: House) -> None:
    """Its write tests are gone afterwards, and it makes no folder."""
    (house.folder / ".delegated" / "tmp").mkdir(parents=True)
    before = sorted(house.folder.rglob("*"))
    alone(house)
    assert sorted(house.folder.rglob("*")) == before
    for path in reversed(before):
        path.rmdir()
    house.folder.rmdir()
    assert alone(house)[1]["folder"]["state"] == "warn"
    assert not house.folder.exists()


# -- the model --


def test_a_missing_key(house: House) -> None:
    """GPT-4o without a key: FAIL, in the seed's words, with each way to give one."""
    code, checks, _ = alone(house, "--model", "gpt-4o")
    assert code == exits.UNHEALTHY
    assert checks["key"]["state"] == "FAIL"
    assert "OPENAI_API_KEY environment variable required" in checks["key"]["message"]
    assert "systemd credential" in checks["key"]["hint"]
    played = Played(house)
    _, checks, _ = doctor(house, "--model", "gpt-4o", "--wait", "0")
    assert checks["key"]["state"] == "warn", "the running daemon may have a key of its own"
    played.close()


def test_a_key_that_others_may_read(house: House) -> None:
    """A key file of the wrong mode is refused, and so it is no key."""
    file = house.tmp / "key"
    file.write_text(KEY)
    file.chmod(0o644)
    house.set(model="gpt-4o", endpoints__openai__key_file=file)
    code, checks, _ = alone(house, "--offline")
    assert code == exits.UNHEALTHY
    assert "others may read the key" in checks["key"]["message"]


def test_a_key_that_a_program_prints(house: House) -> None:
    """Doctor says which program, and what is wrong with one that prints none; the key is in neither."""
    program = house.tmp / "keyring"
    house.set(model="gpt-4o", endpoints__openai__key_command=program)
    for script, state, words in (
        (f"echo {KEY}", "ok", f"present, from the command {program}"),
        (f"echo {KEY}; exit 1", "FAIL", f"the key command {program} ended with 1"),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        _, checks, out = alone(house, "--offline")
        assert (checks["key"]["state"], checks["key"]["message"][: len(words)]) == (state, words)
        assert KEY not in str(checks) + str(out)


@pytest.mark.slow
def test_a_key_and_an_endpoint_that_answers(house: House, server: Server) -> None:
    """The key's source is named, never the key; the endpoint is asked about the model, free of charge."""
    house.use(server)
    code, checks, _ = alone(house)
    assert code == 0
    assert checks["key"]["message"] == "present, from the variable OPENAI_API_KEY"
    assert checks["endpoint"]["state"] == "ok"
    assert "gpt-4o" in checks["endpoint"]["message"]
    assert server.bills() == []
    assert "endpoint" not in alone(house, "--offline")[1]


def test_an_endpoint_that_does_not_answer(house: House) -> None:
    """Nobody listens: FAIL with the host and what to check."""
    house.set(model="gpt-4o", endpoints__openai__base_url="http://127.0.0.1:9/v1")
    house.env["OPENAI_API_KEY"] = KEY
    code, checks, _ = alone(house)
    assert code == exits.UNHEALTHY
    assert "127.0.0.1:9 cannot be reached" in checks["endpoint"]["message"]


def test_an_endpoint_that_refuses_the_key(house: House, server: Server) -> None:
    """401: FAIL; the answer is told, the key is not."""
    house.use(server)
    server.script({"match": {"method": "GET"}, "do": {"error": "bad_key"}})
    code, checks, _ = alone(house)
    assert code == exits.UNHEALTHY
    assert "answers: " in checks["endpoint"]["message"]


def test_an_unknown_model(house: House) -> None:
    """A model that nobody knows: FAIL, with the near ones."""
    code, checks, _ = alone(house, "--model", "gpt-4oo")
    assert code == exits.UNHEALTHY
    assert "gpt-4o" in checks["model"]["message"]


@pytest.mark.slow
def test_a_model_that_has_gone(house: House, server: Server, need: Callable[[str], str]) -> None:
    """After its shutdown it is refused: FAIL, with its successor. Shortly before, a warning."""
    house.use(server)
    code, checks, _ = alone(house, "--offline", prefix=at(need, "@2027-02-01 12:00:00"))
    assert code == exits.UNHEALTHY
    assert checks["model"]["state"] == "FAIL"
    assert "gpt-6-luna" in checks["model"]["message"]
    code, checks, _ = alone(house, "--offline", prefix=at(need, "@2026-12-24 12:00:00"))
    assert code == 0
    assert checks["model"]["state"] == "warn"
    assert "in 21 days" in checks["model"]["message"]


@pytest.mark.slow
def test_a_shutdown_that_only_the_provider_knows(house: House, server: Server, need: Callable[[str], str]) -> None:
    """The provider's own word on the date goes before the table's."""
    house.use(server)
    moved = {"id": "gpt-4o", "object": "model", "shutdown_date": "2026-12-01"}
    server.script({"match": {"method": "GET", "path": "/v1/models/gpt-4o"}, "do": {"body": moved}})
    _, _, every = alone(house, prefix=at(need, "@2026-11-20 12:00:00"))
    said = [check for check in every if check["name"] == "model"]
    assert said[-1]["state"] == "warn"
    assert "2026-12-01, in 11 days" in said[-1]["message"]


@pytest.mark.slow
def test_a_clock_that_was_never_set(house: House, server: Server, need: Callable[[str], str]) -> None:
    """Before any certificate is valid: FAIL for a model that is reached over TLS, a warning for one that is not."""
    long_ago = at(need, "@2001-09-09 00:00:00")
    code, checks, _ = alone(house, prefix=long_ago)
    assert (code, checks["clock"]["state"]) == (0, "warn")
    house.use(server)
    code, checks, _ = alone(house, "--offline", prefix=long_ago)
    assert (code, checks["clock"]["state"]) == (exits.UNHEALTHY, "FAIL")
    assert checks["clock"]["message"].startswith("2001-09-09 00:00:")


@pytest.mark.slow
def test_a_clock_that_goes_wrong(house: House, server: Server, need: Callable[[str], str]) -> None:
    """The server's own time is the measure; at the same time it is well."""
    house.use(server)
    _, checks, _ = alone(house, prefix=at(need, "+3h"))
    assert checks["clock"]["state"] == "warn"
    assert "3 hours ahead of 127.0.0.1" in checks["clock"]["message"]
    _, checks, _ = alone(house)
    assert checks["clock"]["state"] == "ok"


@pytest.mark.slow
def test_a_budget_that_is_used_up(house: House, server: Server) -> None:
    """What a request would be refused for is said before, with when it may go on."""
    house.use(server, day_usd=1)
    daemon = house.up()
    house.drop("a")
    house.result("a")
    daemon.stop()
    code, checks, _ = alone(house)
    assert (code, checks["spending"]["state"]) == (0, "ok")
    house.set(day_usd=0.000001)
    code, _, every = alone(house)
    (said,) = (check for check in every if check["name"] == "spending")
    assert (code, said["state"]) == (exits.UNHEALTHY, "FAIL")
    assert "the budget of $1e-06 a day is used up" in said["message"]


@pytest.mark.slow
def test_a_ledger_that_cannot_be_kept(house: House, server: Server) -> None:
    """What cannot be accounted for is not spent: FAIL, before a request waits for it in vain."""
    house.use(server)
    (house.tmp / "file").write_text("")
    house.env["XDG_STATE_HOME"] = str(house.tmp / "file")
    code, checks, _ = alone(house)
    assert code == exits.UNHEALTHY
    assert "cannot be kept" in checks["spending"]["message"]
    assert "writable" in checks["spending"]["hint"]


# -- the configuration --


def test_every_problem_of_the_configuration(house: House) -> None:
    """Each problem is a line with its place; what cannot be looked at then is left out."""
    (house.workspace / ".delegated.yaml").write_text("modle: x\nmax_cost_usd: lots\n")
    code, _, checks = alone(house)
    assert code == exits.UNHEALTHY
    found = [check["message"] for check in checks if check["name"] == "configuration"]
    assert len(found) == 2
    assert any(".delegated.yaml:1" in message for message in found)
    code, _, err = run(house, "check")
    assert code == exits.CONFIGURATION
    assert err.count(".delegated.yaml:") == 2


def test_check_says_what_was_read(house: House) -> None:
    """A good configuration: exit code 0, and the files by name."""
    (house.workspace / ".delegated.yaml").write_text("model: offline\n")
    code, out, _ = run(house, "check")
    assert code == 0
    assert f"read    {house.workspace / '.delegated.yaml'}" in out


def test_check_knows_the_models(house: House) -> None:
    """A configured model that nobody knows: said with the near one, and with the exit code of a configuration."""
    (house.workspace / ".delegated.yaml").write_text("model: gpt-4oo\n")
    del house.env["DELEGATED_MODEL"]
    code, _, err = run(house, "check")
    assert code == exits.CONFIGURATION
    assert "there is no model called 'gpt-4oo'; did you mean gpt-4o?" in err
    assert "can be used" not in err


def test_openai_base_url_is_ignored_aloud(house: House) -> None:
    """OPENAI_BASE_URL could redirect a key, so it is not honoured, and that is said."""
    house.env["OPENAI_BASE_URL"] = "http://evil.example/v1"
    _, _, checks = alone(house)
    assert any("OPENAI_BASE_URL is set and not honoured" in check["message"] for check in checks)


@pytest.mark.slow
def test_a_lock_that_git_left_is_told(house: House) -> None:
    """A git that was killed leaves its lock, and while it stands nothing is taken: by nobody, without an end."""
    lock = house.workspace / ".git" / "index.lock"
    lock.parent.mkdir()
    lock.touch()
    house.drop("a")
    code, checks, _ = alone(house, "--wait", "0.1")
    assert code == exits.UNHEALTHY
    assert str(lock) in checks["git"]["message"]
    assert "remove that file" in checks["git"]["hint"]
    house.up()
    assert str(lock) in json.loads(run(house, "status", "--json")[1])["slow"]
    assert str(lock) in run(house, "status", "a")[2]
    lock.unlink()
    assert house.result("a")["status"] == "answered"
    code, checks, _ = doctor(house, *PATIENT)
    assert (code, "git" in checks) == (0, False)


def test_a_folder_that_is_a_link_is_told_and_hides_no_other_check(house: House) -> None:
    """It is not followed; what to do is said, and the rest is looked at all the same."""
    house.folder.rmdir()
    house.folder.symlink_to(house.outside)
    code, checks, _ = alone(house)
    assert code == exits.UNHEALTHY
    assert "is a symbolic link" in checks["folder"]["message"]
    assert {"configuration", "clock"} <= checks.keys()


# -- how it looks --


def test_a_long_line_is_wrapped_below_its_words() -> None:
    """On a terminal nothing is cut and the columns stay; in a pipe a check is one line, for grep."""
    check = told.Check("folder", "FAIL", "cannot write in /a/long/path " + "and so on " * 8, "make it writable")
    wrapped = told.lines(check, 80)
    assert len(wrapped) > 2
    assert all(len(line) < 80 for line in wrapped)
    assert all(line.startswith(" " * 21) for line in wrapped[1:])
    assert all(len(line) < 44 for line in told.lines(told.Check("daemon", "ok", "served by pid 4711 on a host"), 44))
    assert len(told.lines(check, None)) == 2
    assert told.lines(told.Check("folder", "ok", "/" + "x" * 100), 80)[1] == " " * 21 + "/" + "x" * 100


def test_a_terminal_of_80_columns(house: House) -> None:
    """No line is longer than the terminal, and none drives it."""
    (house.folder / f"{PREFIX}REQUEST_my bug.md").write_text(request_text())
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-P", "-m", "delegated", "doctor"]
    env = house.env | {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, cwd=house.workspace, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait(30) == exits.UNHEALTHY
    lines = shown.decode().split("\r\n")
    words = [line for line in lines if " " in line.strip()]
    assert b"\x1b" not in shown
    assert words
    assert all(len(line) <= 80 for line in words), "only one word that is longer than the line may be"


def test_the_table_of_states_is_the_types() -> None:
    """What scripts match on is a closed list."""
    states: Any = told.State
    assert states.__args__ == ("ok", "warn", "FAIL")
