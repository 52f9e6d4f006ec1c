"""The unit files, and the daemon that they start: checked by systemd's own tools and over a real notify socket."""

from __future__ import annotations

import os
import plistlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from delegated.cli import arguments, serve
from harness import House, Server

UNITS = Path(__file__).parent.parent / "systemd"
SYSTEM = UNITS / "delegated@.service"
USER = UNITS / "delegated.service"
USER_TEMPLATE = UNITS / "delegated-user@.service"
ALL = [SYSTEM, USER, USER_TEMPLATE]


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


# -- the files --


@pytest.mark.parametrize("unit", ALL, ids=lambda unit: unit.name)
def test_systemd_finds_no_fault_in_a_unit(unit: Path, tmp_path: Path, need: Callable[[str], str]) -> None:
    """`systemd-analyze verify` says nothing at all, on a machine where the program is installed."""
    tool = need("systemd-analyze")
    program = tmp_path / ("opt/delegated/bin/delegated" if unit == SYSTEM else ".local/bin/delegated")
    for path in (program, tmp_path / "bin/kill"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    if unit == SYSTEM:
        # a root of its own, because the unit names a place where this machine may have nothing
        shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
        installed = tmp_path / "etc/systemd/system"
        command = [tool, "verify", f"--root={tmp_path}", "delegated@srv-project.service"]
    else:
        installed = tmp_path / ".config/systemd/user"
        name = unit.name.replace("@.", "@srv-project.")
        command = [tool, "verify", "--user", str(installed / name)]
    installed.mkdir(parents=True)
    shutil.copy(unit, installed / unit.name)
    if unit == USER_TEMPLATE:
        (installed / "delegated-user@srv-project.service").symlink_to(unit.name)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("unit", "most"), [(SYSTEM, 11), (USER, 18), (USER_TEMPLATE, 17)], ids=lambda value: getattr(value, "name", "")
)
def test_a_unit_stays_as_closed_as_it_was(unit: Path, most: int, need: Callable[[str], str]) -> None:
    """Its exposure after `systemd-analyze security`, in tenths, may fall but not rise."""
    command = [need("systemd-analyze"), "security", "--offline=true", f"--threshold={most}", "--no-pager", str(unit)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout[-200:]


@pytest.mark.parametrize("unit", ALL, ids=lambda unit: unit.name)
def test_a_unit_keeps_to_what_the_daemon_promises(unit: Path) -> None:
    """Readiness, reload, watchdog and exit codes are those of the program."""
    found = settings(unit)
    assert found["Type"] == ["notify"]
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert found["WatchdogSec"] == ["60"]
    assert found["Restart"] == ["on-failure"]
    prevented = found["RestartPreventExitStatus"][0].split()
    assert "78" in prevented
    assert "75" not in prevented, "a folder that is held now may be free later"
    assert int(found["RestartSec"][0]) >= 10, "and is tried again slowly,"
    assert found["StartLimitIntervalSec"] == ["0"], "for as long as it takes"


@pytest.mark.parametrize("unit", ALL, ids=lambda unit: unit.name)
def test_no_unit_shows_a_key(unit: Path) -> None:
    """What stands in Environment= can be read by everybody over D-Bus."""
    found = settings(unit)
    assert not any("KEY" in value for value in found["Environment"])
    names = ["openai_api_key", "anthropic_api_key"]
    assert [value.partition(":")[0] for value in found["LoadCredential"]] == names
    assert found["SetCredential"] == [rf"{name}:\n" for name in names]


@pytest.mark.parametrize("unit", ALL, ids=lambda unit: unit.name)
def test_the_program_takes_the_command_line_of_the_unit(unit: Path) -> None:
    """An option that was renamed would leave every installed service dead."""
    program, *rest = settings(unit)["ExecStart"][0].split()
    assert Path(program).name == "delegated"
    parser = arguments.Parser(prog="delegated")
    serve.configure(parser)
    args = parser.parse_args([each.replace("%f", "/srv/project") for each in rest])
    assert args.workspace == (["/srv/project"] if "%f" in rest else [])
    assert args.require_sandbox == ("%f" in rest), "the unit for all workspaces leaves the home open, to serve them"


# -- the daemon under a service manager --


@pytest.fixture
def manager(house: House) -> Iterator[Callable[[], str]]:
    """A service manager's end of the notify socket: a function that returns the next message."""
    path = house.tmp / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(30)
        house.env |= {"NOTIFY_SOCKET": str(path)}
        yield lambda: listening.recv(4096).decode()


def wait_for(manager: Callable[[], str], wanted: str) -> str:
    """Return the first message that says `wanted`; the socket's time-out ends the wait."""
    while wanted not in (message := manager()).split("\n"):
        pass
    return message


def test_ready_means_that_a_request_is_taken(house: House, manager: Callable[[], str]) -> None:
    """After READY=1 a dropped file is answered, and a stop is announced and clean."""
    daemon = house.start()
    wait_for(manager, "READY=1")
    house.drop("a")
    assert house.result("a")["status"] == "answered"
    daemon.process.send_signal(signal.SIGTERM)
    wait_for(manager, "STOPPING=1")
    assert daemon.process.wait(30) == 0


@pytest.mark.slow
def test_the_watchdog_is_fed_by_a_daemon_that_works(house: House, manager: Callable[[], str]) -> None:
    """Pings come while nothing happens, too."""
    house.env |= {"WATCHDOG_USEC": "2000000"}
    house.start()
    for _ in range(3):
        wait_for(manager, "WATCHDOG=1")


def test_a_reload_takes_a_good_configuration(house: House, manager: Callable[[], str]) -> None:
    """SIGHUP: RELOADING=1, the new settings, READY=1."""
    file = house.tmp / "config.yaml"
    file.write_text("max_request_bytes: 4000000\n")
    daemon = house.start("--config", str(file))
    wait_for(manager, "READY=1")
    file.write_text("max_request_bytes: 10\n")
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(manager, "RELOADING=1")
    wait_for(manager, "READY=1")
    house.drop("a")
    assert house.result("a")["status"] == "rejected"


def test_a_reload_refuses_a_bad_configuration_and_keeps_the_old(house: House, manager: Callable[[], str]) -> None:
    """The daemon says what is wrong, and goes on."""
    file = house.tmp / "config.yaml"
    file.write_text("concurrency: 2\n")
    daemon = house.start("--config", str(file))
    wait_for(manager, "READY=1")
    file.write_text("concurrency: 2\nmax_request_bytes: none\n")
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(manager, "RELOADING=1")
    wait_for(manager, "READY=1")
    assert "config.yaml:2" in str(daemon.events())
    house.drop("a")
    assert house.result("a")["status"] == "answered"


def test_a_bad_configuration_ends_with_78(house: House) -> None:
    """The code that keeps the service manager from starting it again and again."""
    house.env["DELEGATED_CONCURRENCY"] = "many"
    daemon = house.start()
    assert daemon.process.wait(30) == 78
    assert "DELEGATED_CONCURRENCY" in daemon.log.read_text()


@pytest.mark.slow
def test_a_folder_that_is_held_ends_with_75(house: House, manager: Callable[[], str]) -> None:
    """The code after which the service manager tries again, slowly."""
    house.start()
    wait_for(manager, "READY=1")
    assert house.start().process.wait(30) == 75


@pytest.mark.slow
def test_a_key_by_credential_reaches_the_provider_and_no_log(house: House, server: Server) -> None:
    """As LoadCredential= gives it: a file below $CREDENTIALS_DIRECTORY, named by the endpoint."""
    canary = "sk-canary0123456789abcdefghij"
    house.use(server)
    del house.env["OPENAI_API_KEY"]
    credentials = house.tmp / "credentials"
    credentials.mkdir(mode=0o700)
    (credentials / "openai_api_key").write_text(f"{canary}\n")
    house.env |= {"CREDENTIALS_DIRECTORY": str(credentials), "DELEGATED_LOG__LEVEL": "debug"}
    daemon = house.start()
    house.drop("a")
    assert house.result("a")["status"] == "answered"
    daemon.stop()
    written = daemon.log.read_bytes() + b"".join(
        path.read_bytes() for path in house.folder.rglob("*") if path.is_file()
    )
    assert canary.encode() not in written


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_the_blank_credential_of_the_unit_is_no_key(house: House) -> None:
    """SetCredential= stands in for a missing file, and the request then says that the key is missing."""
    credentials = house.tmp / "credentials"
    credentials.mkdir(mode=0o700)
    (credentials / "openai_api_key").write_text("\n")
    house.env |= {"CREDENTIALS_DIRECTORY": str(credentials), "DELEGATED_MODEL": "gpt-4o"}
    house.start()
    house.drop("a")
    result = house.result("a")
    assert (result["status"], result["error"]["kind"]) == ("failed", "missing_key")


def test_the_services_of_other_systems_start_the_same_program() -> None:
    """launchd's and Windows' files are well-formed, start `delegated` without options, and hold no key."""
    config = UNITS.parent / "config"
    agent = plistlib.loads((config / "launchd/io.github.delegated.plist").read_bytes())
    assert [Path(each).name for each in agent["ProgramArguments"]] == ["delegated"]
    assert agent["Umask"] == 0o077
    task = ElementTree.parse(config / "windows/delegated.xml").getroot()
    namespace = {"t": "http://schemas.microsoft.com/windows/2004/02/mit/task"}
    assert task.findtext(".//t:Arguments", namespaces=namespace) == '--exec sh -c "exec ~/.local/bin/delegated"'
    assert task.findtext(".//t:ExecutionTimeLimit", namespaces=namespace) == "PT0S", "the default ends it after 3 days"
