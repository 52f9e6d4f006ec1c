"""A clock that nobody can set: how long the machine has been up, and since which boot.

What a record says of time must hold after a restart. The wall clock may be set in between, and the monotonic clock
begins anew with each boot; so a record keeps both this clock and the name of the boot that it belongs to.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True)
class Uptime:
    """Seconds since the machine started, sleep included, and the boot's own name ("" where the system has none)."""

    boot: str
    seconds: float


def uptime() -> Uptime:
    """Ask the kernel (Linux: `proc_sys_kernel(5)` boot_id, `clock_gettime(2)` CLOCK_BOOTTIME)."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            boot = file.read(100).strip()
        return Uptime(boot, time.clock_gettime(time.CLOCK_BOOTTIME))
    except (OSError, AttributeError, UnicodeDecodeError):  # not Linux, or /proc is hidden from us
        return Uptime("", 0.0)


def surely_passed(then: Uptime, now: Uptime, wall_seconds: float) -> float:
    """Return the seconds that have passed for sure; rather too few than too many.

    Within one boot this clock knows. After another boot both clocks must say so: the machine has been up for so long
    (the record may come from another machine), and the wall clock, which may have been set, went on by `wall_seconds`.
    Where the boots are not known, nothing is sure.
    """
    if not then.boot or not now.boot:
        return 0.0
    if then.boot == now.boot:
        return max(0.0, now.seconds - then.seconds)
    return max(0.0, min(now.seconds, wall_seconds))
