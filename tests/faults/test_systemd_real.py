"""The shipped system unit under a real systemd: readiness, watchdog, reload, restart, stop, and the sandbox."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.judging import judge
from faults.machine import UNITS, Machine, program
from faults.test_stop_start import RESPONSES, posts, release
from harness import PREFIX, House, Server, until
from test_restart import records

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")]

SHIPPED = Path(__file__).parents[2] / "systemd" / "delegated@.service"
UNIT = "delegated@srv-project.service"
UID = 4321
KEY = "sk-credential-0123456789abcdef"
LOG = "/run/daemon.log"


class Service:
    """The shipped unit, installed in a machine of its own for one workspace."""

    def __init__(self, house: House, server: Server) -> None:
        self.house, self.server = house, server
        tmp = house.tmp
        binds, env, script = program()
        start = tmp / "delegated"
        start.write_text(script)
        start.chmod(0o755)
        credentials = tmp / "credentials"
        credentials.mkdir(mode=0o700)
        (credentials / "openai_api_key").write_text(f"{KEY}\n")
        self.config = tmp / "config.yaml"
        self.configure()
        users = []
        for table, line in (
            ("passwd", f"delegated:x:{UID}:{UID}::/nonexistent:/bin/false"),
            ("group", f"delegated:x:{UID}:"),
        ):
            path = tmp / table
            path.write_text(Path("/etc", table).read_text().rstrip("\n") + f"\n{line}\n")
            users.append((path, f"/etc/{table}"))
        house.workspace.chmod(0o755)
        for path in (house.workspace, *house.workspace.rglob("*")):
            os.chown(path, UID, UID)
        house.folder.chmod(0o700)
        settings = " ".join(f"{name}={value}" for name, value in {**env, "DELEGATED_LOG__FORMAT": "json"}.items())
        drop_in = f"""\
[Service]
Environment={settings}
StandardOutput=append:{LOG}
StandardError=append:{LOG}
RestartSec=1
"""
        self.machine = Machine(
            tmp,
            {SHIPPED.name: SHIPPED.read_text(), f"{SHIPPED.name}.d/10-test.conf": drop_in},
            {
                **binds,
                **dict(users),
                start: "/opt/delegated/bin/delegated",
                credentials: "/etc/delegated/credentials",
                self.config: "/etc/delegated/config.yaml",
                house.workspace: "/srv/project",
            },
        )

    def configure(self, **settings: object) -> None:
        """Write the machine's configuration; in place, as it is bound into the machine."""
        whole = {
            "model": "gpt-4o",
            "endpoints": {"openai": {"base_url": self.server.base_url, "wire": "responses"}},
            **settings,
        }
        self.config.write_text(json.dumps(whole))
        self.config.chmod(0o644)

    def change(self, text: str) -> None:
        """Change the unit by a further drop-in."""
        path = self.machine.path(f"{UNITS}/{SHIPPED.name}.d/20-test.conf")
        path.write_text(f"[Service]\n{text}\n")
        self.machine.systemctl("daemon-reload")

    def start(self) -> None:
        """Start it; returns once it said READY."""
        self.machine.systemctl("start", UNIT)

    def show(self, name: str) -> str:
        return self.machine.show(UNIT, name)

    def log(self) -> str:
        path = self.machine.path(LOG)
        return path.read_text() if path.exists() else ""

    def told(self, event: str) -> int:
        """Count an event in the daemon's log, over all its lives."""
        return self.log().count(f'"event": "{event}"')


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Server]:
    """The local server, which takes no other key than the one in the credential."""
    server = Server(tmp_path, "--key", KEY)
    yield server
    server.close()


@pytest.fixture
def service(house: House, keyed: Server, need: Callable[[str], str]) -> Iterator[Service]:
    for tool in ("systemctl", "unshare", "nsenter"):
        need(tool)
    if os.geteuid() != 0:
        pytest.skip("a machine of its own takes root")
    service = Service(house, keyed)
    yield service
    service.machine.close()


def busy(service: Service, key: str = "a") -> None:
    """Have a call in flight that never ends by itself."""
    service.server.script({"match": RESPONSES, "do": {"run": "forever"}})
    service.house.drop(key)
    until(lambda: "accepted.1" in records(service.house, key), what="accepted")


def settled(service: Service) -> None:
    """Hold the daemon that runs in the machine to the promise; `judge` would start one of its own."""
    house = service.house
    until(lambda: list(house.folder.glob(f"{PREFIX}RESULT_*.json")), what="a RESULT")
    assert service.show("ActiveState") == "active"
    service.machine.systemctl("stop", UNIT)
    for path in (house.folder, *house.folder.rglob("*")):
        os.chown(path, 0, 0)
    house.use(service.server)
    house.env["OPENAI_API_KEY"] = KEY
    judge(house, service.server)


def test_ready_means_that_the_watch_is_attached_and_the_first_look_done(service: Service) -> None:
    """While the folder cannot be opened it is `activating`; then a start returns with a watch that stands."""
    house = service.house
    house.drop("before")
    house.folder.chmod(0o000)
    service.machine.systemctl("start", "--no-block", UNIT)
    until(lambda: service.told("folder.missing"), what="it has tried", patience=60)
    assert (service.show("ActiveState"), service.show("SubState")) == ("activating", "start")
    house.folder.chmod(0o700)
    service.start()
    assert (service.show("ActiveState"), service.show("SubState")) == ("active", "running")
    watching = service.machine.run("sh", "-c", f"cat /proc/{service.machine.pid(UNIT)}/fdinfo/*").stdout
    assert "inotify wd:" in watching
    until(lambda: service.told("worker.ready") == 1, what="told a moment after READY")
    assert service.show("StatusText") == "serving 1 workspace(s)"
    house.drop("after")
    (house.folder / f"{PREFIX}RUN_before").touch()  # older than the first start, the first asking
    assert house.result("before")["status"] == "answered", "with the key that only the credential holds"
    assert house.result("after")["status"] == "answered"
    assert KEY not in service.show("Environment") + service.log()
    settled(service)
    assert posts(service.server) == 2


def test_the_watchdog_ends_a_loop_that_hangs_and_the_job_goes_on(service: Service) -> None:
    """Stopped by SIGSTOP in mid-call: killed by the watchdog, started again, the call fetched; one bill."""
    service.change("WatchdogSec=6\nTimeoutAbortSec=2")
    service.start()
    busy(service)
    first = service.machine.pid(UNIT)
    service.machine.kill(UNIT, 19)
    until(lambda: service.show("NRestarts") == "1", what="the watchdog struck", patience=60, pause=0.2)
    until(lambda: service.show("ActiveState") == "active", what="it runs again", patience=60, pause=0.2)
    assert service.machine.pid(UNIT) != first
    release(service.server)
    assert service.house.result("a")["status"] == "answered"
    assert service.told("job.resumed") == 1
    settled(service)
    assert posts(service.server) == 1


def test_a_daemon_that_was_killed_is_started_again_and_goes_on(service: Service) -> None:
    """SIGKILL in mid-call: restarted on its own, the call fetched, one bill."""
    service.start()
    busy(service)
    service.machine.kill(UNIT, 9)
    until(lambda: service.told("worker.ready") == 2, what="a second life", patience=60)
    release(service.server)
    assert service.house.result("a")["status"] == "answered"
    settled(service)
    assert posts(service.server) == 1


def test_a_reload_swaps_the_configuration(service: Service) -> None:
    """`systemctl reload`: the same process, the new settings; a bad file is refused and the old ones stay."""
    service.start()
    pid = service.machine.pid(UNIT)
    service.configure(max_request_bytes=10)
    service.machine.systemctl("reload", UNIT)
    until(lambda: service.told("config.reloaded"), what="reloaded")
    service.house.drop("large")
    assert service.house.result("large")["status"] == "rejected"
    service.configure(max_request_bytes="none")
    service.machine.systemctl("reload", UNIT)
    until(lambda: service.told("config.refused"), what="refused")
    service.house.drop("larger")
    assert service.house.result("larger")["status"] == "rejected", "the former settings hold"
    service.configure()
    service.machine.systemctl("reload", UNIT)
    until(lambda: service.told("config.reloaded") == 2, what="reloaded again")
    service.house.drop("good")
    assert service.house.result("good")["status"] == "answered"
    assert service.machine.pid(UNIT) == pid
    assert service.show("ActiveState") == "active"


def test_a_full_stop_leaves_nothing_behind(service: Service) -> None:
    """No process, no STATUS, no temporary file; the call goes on at the provider, and the next start fetches it."""
    service.configure(grace_s=0.2)
    service.start()
    busy(service)
    group = service.show("ControlGroup")
    assert service.machine.path(f"/sys/fs/cgroup{group}/cgroup.procs").read_text().strip()
    service.machine.systemctl("stop", UNIT)
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")
    assert service.show("ExecMainStatus") == "0"
    assert not service.machine.path(f"/sys/fs/cgroup{group}").exists(), "not one process is left of it"
    assert not list(service.house.folder.glob(f"{PREFIX}STATUS_*"))
    assert os.listdir(service.house.folder / ".delegated" / "tmp") == []
    assert service.server.state_json()["running"] == 1
    release(service.server)
    service.start()
    assert service.house.result("a")["status"] == "answered"
    settled(service)
    assert posts(service.server) == 1


def test_a_bad_configuration_is_not_tried_again(service: Service) -> None:
    """78: failed after one start, and the log says what is wrong."""
    service.configure(concurrency="many")
    assert service.machine.run("systemctl", "start", UNIT).returncode != 0
    assert service.show("ActiveState") == "failed"
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == ("78", "0")
    assert "concurrency" in service.log()


def test_a_folder_that_is_held_is_tried_again_slowly(service: Service) -> None:
    """75: one start after the other with the unit's pause in between, and it takes over once the folder is free."""
    service.change("RestartSec=2")
    journal = service.house.folder / ".delegated"
    journal.mkdir(mode=0o700)
    os.chown(journal, UID, UID)
    with open(journal / "lock", "w") as lock:
        lock.write("pid 1 on elsewhere\n")
        lock.flush()
        os.chown(journal / "lock", UID, UID)
        fcntl.flock(lock, fcntl.LOCK_EX)
        service.machine.run("systemctl", "start", UNIT)
        until(lambda: service.show("ExecMainStatus") == "75", what="it found the folder held")
        until(lambda: service.log().count("this folder is held by") == 2, what="tried again", patience=60)
        assert int(service.show("NRestarts")) <= 2
    until(lambda: service.show("ActiveState") == "active", what="it took over", patience=60, pause=0.2)
    service.house.drop("a")
    assert service.house.result("a")["status"] == "answered"


@pytest.mark.parametrize(
    ("hole", "said"),
    [
        ("ProtectHome=no", "/home is visible: /home/canary"),
        ("BindReadOnlyPaths=\nBindPaths=/srv/project", "the workspace /srv/project can be written"),
    ],
    ids=["home", "workspace"],
)
def test_a_sandbox_that_is_not_in_force_is_refused(service: Service, hole: str, said: str) -> None:
    """As where the manager cannot build it: 78, tried once, and the sentence says what could be reached."""
    service.machine.path("/home/canary").write_text("nobody should see this")
    service.change(hole)
    assert service.machine.run("systemctl", "start", UNIT).returncode != 0
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == ("78", "0")
    assert "the sandbox that --require-sandbox asks for is not in force" in service.log()
    assert said in service.log()
    assert "Traceback" not in service.log()


def test_what_the_service_cannot_reach(service: Service) -> None:
    """From inside its own mount namespace: no home, no key file, the code read-only, nothing runs from the folder."""
    machine = service.machine
    machine.path("/home/canary").write_text("nobody should see this")
    service.start()
    shutil.copy("/bin/true", service.house.folder / "true")
    pid = machine.pid(UNIT)

    def there(command: str) -> int:
        return machine.run(
            "nsenter", "--target", str(pid), "--mount", f"--setuid={UID}", "sh", "-c", command
        ).returncode

    assert there("test -r /srv/project/app.py") == 0
    assert there("test -e /home/canary") != 0
    assert there("ls /root") != 0
    assert there("cat /etc/delegated/credentials/openai_api_key") != 0
    assert there("touch /srv/project/app.py") != 0
    assert there("touch /srv/project/.autonomous_runs/x") != 0
    assert there("touch /srv/project/.autonomous_runs/openai_delegations/x") == 0
    assert there("/srv/project/.autonomous_runs/openai_delegations/true") != 0
    assert there("touch /etc/x") != 0
