"""Tell the service manager how we are, in systemd's notify protocol; without one, every call does nothing.

The protocol is a datagram of `KEY=value` lines to the socket named in $NOTIFY_SOCKET (sd_notify(3)). Nothing here
ever raises: a daemon must not die of a manager that does not listen.
"""

from __future__ import annotations

import os
import socket
import time


def ready(text: str = "") -> bool:
    """Say that the start, or a reload, is finished. Each call returns whether somebody was told."""
    return _notify("READY=1", *_status(text))


def status(text: str) -> bool:
    """Show one line to whoever runs `systemctl status`."""
    return _notify(*_status(text))


def reloading() -> bool:
    """Say that the configuration is being read again; `ready` ends it."""
    return _notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping(text: str = "") -> bool:
    """Say that the stop has begun; TimeoutStopSec= counts from here."""
    return _notify("STOPPING=1", *_status(text))


def ping() -> bool:
    """Feed the watchdog. To be called by the loop that does the work, so that a loop that hangs is noticed."""
    return _notify("WATCHDOG=1")


def watchdog_interval() -> float | None:
    """Return after how many seconds to `ping` again, half of what the manager allows; None when it does not watch."""
    try:
        if int(os.environ.get("WATCHDOG_PID") or os.getpid()) != os.getpid():
            return None  # the variables were inherited from a service that started us
        allowed = int(os.environ["WATCHDOG_USEC"]) / 1_000_000
    except (KeyError, ValueError):
        return None
    return allowed / 2 if allowed > 0 else None


def on_terminal() -> bool:
    """Say whether a terminal controls us: one that was closed does not any more, and a service has none."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _status(text: str) -> tuple[str, ...]:
    # one line: a second one would be read as a message of its own
    return ("STATUS=" + " ".join(text.split())[:500],) if text else ()


def _notify(*lines: str) -> bool:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or not lines or not hasattr(socket, "AF_UNIX"):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # Linux's abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_manager:
            to_manager.setblocking(False)  # a manager that is stuck must not hold the loop
            to_manager.sendto("\n".join(lines).encode("utf-8", "replace"), address)
    except (OSError, ValueError):
        return False
    return True
