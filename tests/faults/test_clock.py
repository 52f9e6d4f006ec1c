"""Rows 63 to 65 of the fault matrix: the wall clock is set, files come from other times, the machine starts anew."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from faults.judging import judge
from harness import House, Server, request_text, until

JUMPS = {"a day back": -86_399, "an hour forward": 3600}
CHAT = {"method": "POST", "path": "/v1/chat/completions"}
PAID = {"method": "POST", "path": "/v1/responses"}
BOOT_ID = "/proc/sys/kernel/random/boot_id"
NEW_BOOT = "01234567-89ab-cdef-0123-456789abcdef"


class Clock:
    """The wall clock of a daemon, set by a file; the monotonic clock and that of the boot go on as they are."""

    def __init__(self, house: House, faketime: str) -> None:
        self._file = house.tmp / "wall-clock"
        self.set(0)
        library = subprocess.run(
            [faketime, "-m", "-f", "+0s", "sh", "-c", "echo $LD_PRELOAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert "libfaketimeMT" in library
        house.env |= {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # read anew each second; at every look at the clock is far too slow
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        program = "import time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))"
        told = []
        for offset in (0, 5000):
            self.set(offset)
            out = subprocess.run([sys.executable, "-c", program], env=house.env, capture_output=True, text=True)
            told.append([float(word) for word in out.stdout.split()])
        self.set(0)
        moved = [round((after - before) / 5000) for before, after in zip(*told, strict=True)]
        assert moved == [1, 0, 0], f"the wall clock alone is to be set: {moved}"

    def set(self, offset: int) -> None:
        """Set it so many seconds off, at once and whole."""
        temp = self._file.with_suffix(".new")
        temp.write_text(f"{offset:+d}s\n")
        os.rename(temp, self._file)


@pytest.fixture
def clock(house: House, need: Callable[[str], str]) -> Clock:
    return Clock(house, need("faketime"))


@pytest.mark.slow
@pytest.mark.parametrize("jump", JUMPS)
def test_row_63_the_wall_clock_is_set_while_a_file_settles(
    house: House, server: Server, clock: Clock, jump: str
) -> None:
    """It is taken when its time is over by the clock that counts: neither at once nor an hour later."""
    house.use(server, settle_ms=3000)
    daemon = house.up()
    wrote = time.monotonic()
    house.request("one").write_text(request_text())
    clock.set(JUMPS[jump])
    until(lambda: daemon.has("request.claimed"), what="claimed")
    assert time.monotonic() - wrote >= 2.9
    said = datetime.fromisoformat(judge(house, server, ["one"])["one"]["timestamp"]).timestamp()
    assert abs(said - time.time() - JUMPS[jump]) < 600, "the daemon's clock was set"
    assert len(server.bills()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("asked", ["retry_after", "retry_after_date"])
def test_row_63_the_wall_clock_is_set_while_a_call_waits(
    house: House, server: Server, clock: Clock, jump: str, asked: str
) -> None:
    """Refused, and to be asked again in three seconds: not before, and not much later."""
    house.use(server)
    server.script({"match": PAID, "do": {"error": "rate_limited", asked: 4}})
    house.up()
    house.drop("one")
    until(lambda: list(house.folder.glob(".delegated/jobs/*/one/r1/calls/*/unsent.1")), what="refused")
    refused = time.monotonic()
    clock.set(JUMPS[jump])
    until(lambda: server.bills(), what="billed")
    assert time.monotonic() - refused >= 2.5  # a date has whole seconds
    judge(house, server, ["one"])
    assert len(server.bills()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("wire", ["responses", "chat"])
def test_row_63_the_wall_clock_is_set_during_a_call(
    house: House, server: Server, clock: Clock, jump: str, wire: str
) -> None:
    """A call that runs ends as if nothing had been: no deadline strikes, and nothing is sent again."""
    house.use(server, wire)
    server.script({"match": PAID if wire == "responses" else CHAT, "do": {"run": 3}})
    house.up()
    house.drop("one")
    until(lambda: server.bills(), what="billed")
    clock.set(JUMPS[jump])
    judge(house, server, ["one"])
    assert len(server.bills()) == 1
    house.drop("two")
    assert house.result("two")["status"] == "answered"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["at once", "after the jump"])
def test_row_63_the_wall_clock_is_set_between_two_lives(
    house: House, server: Server, clock: Clock, moment: str
) -> None:
    """A provider does not show a chat call that still runs. Set a day on, it is not believed absent for that."""
    house.use(server, "chat", endpoints__openai__store="true", doubt_wait_s=0.5, deadline_s=12)
    daemon = house.up()
    server.script({"match": CHAT, "do": {"kill": daemon.process.pid, "run": 7}})
    house.drop("one")
    daemon.process.wait(30)
    if moment == "at once":
        clock.set(86_400)
        house.up()
    else:
        house.up()
        clock.set(86_400)
    judge(house, server, ["one"])
    assert len(server.bills()) == 1


@pytest.mark.parametrize("when", ["1970-01-01T00:00:01", "2099-12-31T23:59:59"])
def test_row_64_a_file_of_another_time(house: House, server: Server, when: str) -> None:
    """Moved in or written in place with an mtime of long ago or of days to come: taken like any other, once."""
    house.use(server)
    at = time.mktime(time.strptime(when, "%Y-%m-%dT%H:%M:%S"))
    before = house.drop("before")
    os.utime(before, (at, at))
    house.up()
    moved = house.outside / "moved"
    moved.write_text(request_text())
    os.utime(moved, (at, at))
    os.rename(moved, house.request("moved"))
    placed = house.request("placed")
    placed.write_text(request_text())
    os.utime(placed, (at, at))
    judge(house, server, ["before", "moved", "placed"])
    assert len(server.bills()) == 3


def another_boot(tmp: Path, uptime_s: int) -> tuple[str, ...]:
    """Return what starts a program as after a reboot: another boot id, and the machine up for so many seconds."""
    name = tmp / "boot_id"
    name.write_text(NEW_BOOT + "\n")
    back = uptime_s - int(time.clock_gettime(time.CLOCK_BOOTTIME))
    script = f'mount --bind "$1" {BOOT_ID} && shift && exec "$@"'
    prefix = ("unshare", "--mount", "--time", "--fork", f"--boottime={back}", "sh", "-ec", script, "sh", str(name))
    program = f"import time; print(open('{BOOT_ID}').read().strip(), time.clock_gettime(time.CLOCK_BOOTTIME))"
    told = subprocess.run([*prefix, sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if told.returncode or not told.stdout.startswith(NEW_BOOT):
        pytest.skip(f"no other boot can be shown to a program here: {told.stderr.strip()}")
    assert float(told.stdout.split()[1]) < uptime_s + 30
    return prefix


@pytest.mark.slow
@pytest.mark.parametrize("jump", [0, 86_400])
def test_row_65_the_machine_starts_anew_between_sent_and_the_recovery(
    house: House, server: Server, clock: Clock, jump: int
) -> None:
    """What was sent before a reboot is as old as the new boot at least; a clock that was set meanwhile adds nothing."""
    house.use(server, "chat", endpoints__openai__store="true", doubt_wait_s=0.5, deadline_s=14)
    another_boot(house.tmp, 1)  # skips where there is none to be had
    daemon = house.up()
    server.script({"match": CHAT, "do": {"kill": daemon.process.pid, "run": 9}})
    house.drop("one")
    daemon.process.wait(30)
    clock.set(jump)
    house.start(prefix=another_boot(house.tmp, 1)).ready()  # it began after the send, however slow all this was
    judge(house, server, ["one"])
    assert len(server.bills()) == 1
    accepted = (house.job("one") / "calls/01-first/sent.1").read_bytes()
    assert Path(BOOT_ID).read_bytes().strip() in accepted


@pytest.mark.slow
def test_row_65_what_was_lost_before_a_reboot_is_asked_after_it(house: House, server: Server) -> None:
    """Proven absent once the new boot is older than a call may be, it is sent again: a reboot loses nothing."""
    house.use(server, "chat", endpoints__openai__store="true", doubt_wait_s=0.5, deadline_s=5)
    prefix = another_boot(house.tmp, 1000)  # longer ago by its boot, and yet by the wall clock just now
    daemon = house.up()
    server.script({"match": CHAT, "do": {"reset": "before_body"}})
    house.drop("one")
    until(lambda: list(house.folder.glob(".delegated/jobs/*/one/r1/calls/*/sent.1")), what="sent")
    daemon.kill()
    house.start(prefix=prefix).ready()
    judge(house, server, ["one"])
    assert len(server.bills()) == 1
