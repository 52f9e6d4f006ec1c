"""systemd's notify protocol, spoken to a real datagram socket."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from delegated import service


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


@pytest.fixture(autouse=True)
def _no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)


def test_each_state_is_one_datagram_of_lines(manager: socket.socket) -> None:
    """The manager hears exactly the keys of sd_notify(3)."""
    assert service.ready("serving 2 workspaces")
    assert manager.recv(4096) == b"READY=1\nSTATUS=serving 2 workspaces"
    assert service.status("3 running")
    assert manager.recv(4096) == b"STATUS=3 running"
    assert service.stopping()
    assert manager.recv(4096) == b"STOPPING=1"
    assert service.ping()
    assert manager.recv(4096) == b"WATCHDOG=1"


def test_a_reload_carries_the_time_of_the_monotonic_clock(manager: socket.socket) -> None:
    """Type=notify-reload ignores a RELOADING=1 without MONOTONIC_USEC."""
    assert service.reloading()
    first, second = manager.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert second.removeprefix("MONOTONIC_USEC=").isdecimal()


def test_a_status_text_cannot_say_anything_else(manager: socket.socket) -> None:
    """A newline in a text would let whoever wrote it speak for the daemon."""
    assert service.status("working\nSTOPPING=1\r\nMAINPID=1 \udcff")
    assert manager.recv(4096) == b"STATUS=working STOPPING=1 MAINPID=1 ?"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_an_abstract_socket_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that begins with @ stands for a leading NUL."""
    name = f"delegated-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert service.ready()
        assert listening.recv(4096) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "/" + "x" * 300, "vsock:2:1234", "@", "/dev/null"])
def test_a_manager_that_is_not_there_is_no_fault(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing raises, and the caller learns that nobody was told."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not service.ready("up")
    assert not service.ping()


def test_a_manager_that_does_not_read_does_not_hold_the_daemon(manager: socket.socket) -> None:
    """Once the socket's queue is full, a notification is dropped instead of blocking the loop."""
    sent = 0
    while service.ping():
        sent += 1
        assert sent < 1_000_000
    assert sent


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [
        ("60000000", None, 30.0),
        ("60000000", "own", 30.0),
        ("60000000", "1", None),
        (None, None, None),
        ("0", None, None),
        ("soon", None, None),
        ("60000000", "x", None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(
    usec: str | None, pid: str | None, interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the allowance, as sd_watchdog_enabled(3) advises; variables meant for another process do not count."""
    if usec is not None:
        monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert service.watchdog_interval() == interval
