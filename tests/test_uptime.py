"""What has surely passed since a record was written: never more than did, whatever anybody set."""

from __future__ import annotations

import time

import pytest

from delegated.uptime import Uptime, surely_passed, uptime

ROWS = {
    "one boot": (Uptime("a", 100), Uptime("a", 130), 30, 30),
    "one boot, the wall clock set forward": (Uptime("a", 100), Uptime("a", 130), 90_000, 30),
    "one boot, the wall clock set back": (Uptime("a", 100), Uptime("a", 130), -90_000, 30),
    "one boot, a record of the future": (Uptime("a", 100), Uptime("a", 90), 10, 0),
    "another boot": (Uptime("a", 5_000), Uptime("b", 40), 70, 40),
    "another boot, up for longer than before": (Uptime("a", 10), Uptime("b", 5_000), 70, 70),
    "another boot, the wall clock set forward": (Uptime("a", 5_000), Uptime("b", 3), 90_000, 3),
    "another boot, the wall clock set back": (Uptime("a", 5_000), Uptime("b", 40), -90_000, 0),
    "a journal that came from another machine": (Uptime("a", 100), Uptime("b", 2_000_000), 5, 5),
    "a system without boot ids": (Uptime("", 0), Uptime("", 0), 90_000, 0),
    "a record without one": (Uptime("", 0), Uptime("b", 5_000), 90_000, 0),
    "now without one": (Uptime("a", 100), Uptime("", 0), 90_000, 0),
}


@pytest.mark.parametrize("row", ROWS)
def test_rather_too_little_than_too_much(row: str) -> None:
    """Within a boot its own clock decides; across boots both clocks must agree; without a name nothing is sure."""
    then, now, wall, passed = ROWS[row]
    assert surely_passed(then, now, wall) == passed


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no such clock")
def test_the_kernel_is_asked() -> None:
    """On Linux the boot has a name, the same at each asking, and its clock goes on."""
    first, second = uptime(), uptime()
    assert first.boot == second.boot != ""
    assert 0 < first.seconds <= second.seconds
