"""The two user units under a real user manager: started, asked, reloaded, stopped, and what they see of the home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.machine import UNITS, Machine, program
from harness import PREFIX, Server, request_text, until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")]

SHIPPED = Path(__file__).parents[2] / "systemd"
TEMPLATE = "delegated-user@.service"
ALL = "delegated.service"
UID = 5000
KEY = "sk-credential-0123456789abcdef"
BARE = "[Unit]\nDefaultDependencies=no\n"
# What the login of a user starts; a system where a system service was confined before has the last directory.
MANAGER = f"""\
[Service]
Type=notify
User=alice
Delegate=yes
ExecStartPre=+/bin/mkdir -p -m 700 /run/user/{UID} /run/systemd/unit-root
ExecStartPre=+/bin/chown {UID}:{UID} /run/user/{UID}
Environment=XDG_RUNTIME_DIR=/run/user/{UID} HOME=/home/alice SYSTEMD_UNIT_PATH={UNITS}/user
ExecStart=/lib/systemd/systemd --user --log-target=null --unit=up.target
"""


class Alice:
    """A user with a home, a workspace in it and the units installed, in a machine of its own."""

    def __init__(self, tmp: Path, server: Server) -> None:
        binds, env, script = program()
        self.home = home = tmp / "alice"
        self.workspace = home / "project"
        self.folder = self.workspace / ".autonomous_runs" / "openai_delegations"
        state = home / ".local/state/delegated"
        for path in (self.folder, home / ".local/bin", home / ".config/delegated", state):
            path.mkdir(parents=True)
        self.folder.chmod(0o700)
        (self.workspace / "app.py").write_text("print(1 / 0)\n")
        (home / "diary").write_text("nobody should see this")
        (home / ".ssh").mkdir()
        (home / ".ssh" / "id_rsa").write_text("nobody should see this")
        (home / ".config/delegated/openai_api_key").write_text(KEY)
        self.config = home / ".config/delegated/config.yaml"
        self.server = server
        self.configure()
        start = home / ".local/bin/delegated"
        start.write_text(script)
        start.chmod(0o755)
        for path in (home, *home.rglob("*")):
            os.chown(path, UID, UID)
        for table, line in (("passwd", f"alice:x:{UID}:{UID}::/home/alice:/bin/sh"), ("group", f"alice:x:{UID}:")):
            (tmp / table).write_text(Path("/etc", table).read_text().rstrip("\n") + f"\n{line}\n")
            binds[tmp / table] = f"/etc/{table}"
        variables = " ".join(f"{name}={value}" for name, value in {**env, "DELEGATED_LOG__FORMAT": "json"}.items())
        drop_in = f"[Service]\nEnvironment={variables}\nRestartSec=1\n"
        drop_in += "StandardOutput=append:%t/daemon.log\nStandardError=append:%t/daemon.log\n"
        units = {"manager.service": MANAGER}
        for target in ("up", "basic", "shutdown", "default"):
            units[f"user/{target}.target"] = BARE
        for name in (TEMPLATE, ALL):
            units[f"user/{name}"] = (SHIPPED / name).read_text()
            units[f"user/{name}.d/10-test.conf"] = drop_in
        self.machine = Machine(tmp, units, {**binds, home: "/home/alice"})
        self.machine.systemctl("start", "manager.service")

    def configure(self, **settings: object) -> None:
        endpoint = {"base_url": self.server.base_url, "wire": "responses"}
        whole = {"workspaces": ["/home/alice/project"], "endpoints": {"openai": endpoint}, **settings}
        fresh = self.config.with_suffix(".new")
        fresh.write_text(json.dumps(whole))
        os.replace(fresh, self.config)  # as most editors save

    def systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `systemctl --user` as alice does."""
        who = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
        env = ("env", f"XDG_RUNTIME_DIR=/run/user/{UID}", "HOME=/home/alice")
        return self.machine.run(*who, *env, "systemctl", "--user", "--no-pager", *arguments)

    def show(self, unit: str, name: str) -> str:
        return self.systemctl("show", "--value", "--property", name, unit).stdout.strip()

    def log(self) -> str:
        path = self.machine.path(f"/run/user/{UID}/daemon.log")
        return path.read_text() if path.exists() else ""

    def ask(self, key: str) -> dict[str, object]:
        """Drop a request; return its RESULT."""
        temp = self.folder / f".{key}"
        temp.write_text(request_text())
        os.chown(temp, UID, UID)
        os.rename(temp, self.folder / f"{PREFIX}REQUEST_{key}.md")
        result = self.folder / f"{PREFIX}RESULT_{key}.json"
        until(result.exists, what=f"RESULT {key}: {self.log()[-600:]}")
        found: dict[str, object] = json.loads(result.read_text())
        return found


@pytest.fixture
def alice(tmp_path: Path, need: Callable[[str], str]) -> Iterator[Alice]:
    for tool in ("systemctl", "unshare", "nsenter", "setpriv"):
        need(tool)
    if os.geteuid() != 0:
        pytest.skip("a machine of its own takes root")
    server = Server(tmp_path, "--key", KEY)
    try:
        found = Alice(tmp_path, server)
    except BaseException:
        server.close()
        raise
    yield found
    found.machine.close()
    server.close()


@pytest.mark.parametrize("unit", ["delegated-user@home-alice-project.service", ALL])
def test_a_users_unit_serves(alice: Alice, unit: str) -> None:
    """Started, it answers with the credential's key; a reload swaps the configuration; a stop leaves nothing."""
    done = alice.systemctl("start", unit)
    assert done.returncode == 0, done.stderr + alice.log()
    assert (alice.show(unit, "ActiveState"), alice.show(unit, "StatusText")) == ("active", "serving 1 workspace(s)")
    result = alice.ask("a")
    assert result["status"] == "answered", result["error"]
    assert (alice.home / ".local/state/delegated/spending.sqlite").exists(), "one ledger for all of the user's"
    pid = alice.show(unit, "MainPID")
    alice.configure(max_request_bytes=10)
    assert alice.systemctl("reload", unit).returncode == 0
    until(lambda: '"event": "config.reloaded"' in alice.log(), what="reloaded")
    assert alice.ask("b")["status"] == "rejected"
    assert alice.show(unit, "MainPID") == pid
    there = ("nsenter", "--target", pid, "--mount", "--user", "--preserve-credentials", "cat")
    inside = alice.machine.run(*there, "/home/alice/project/app.py")
    assert inside.returncode == 0, inside.stderr
    assert alice.machine.run(*there, "/home/alice/.ssh/id_rsa").returncode != 0
    assert (alice.machine.run(*there, "/home/alice/diary").returncode == 0) == (unit == ALL)
    assert alice.systemctl("stop", unit).returncode == 0
    assert (alice.show(unit, "ActiveState"), alice.show(unit, "Result")) == ("inactive", "success")
    assert not list(alice.folder.glob(f"{PREFIX}STATUS_*"))
    assert len(alice.server.bills()) == 1


def test_a_home_that_is_not_hidden_is_refused(alice: Alice) -> None:
    """As where a user's manager may not build a sandbox: 78, once, and the home's files are named."""
    unit = "delegated-user@home-alice-project.service"
    alice.machine.path(f"{UNITS}/user/{TEMPLATE}.d/20-test.conf").write_text("[Service]\nProtectHome=no\n")
    alice.systemctl("daemon-reload")
    assert alice.systemctl("start", unit).returncode != 0
    assert (alice.show(unit, "ExecMainStatus"), alice.show(unit, "NRestarts")) == ("78", "0")
    assert "/home/alice is visible: " in alice.log()
    assert "/home/alice/diary" in alice.log()
