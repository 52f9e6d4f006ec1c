"""`delegate service`: says what it does, does it, shows no key, and leaves nothing behind."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from delegated import disk
from delegated.cli import exits, main, unit_texts
from harness import House

ROOT = Path(__file__).parent.parent
KEY = "sk-proj-0123456789abcdefghijklmnop"
MAIN = "import sys; from delegated.cli import main; sys.exit(main())"
ON_A_MAC = "import sys, zoneinfo, delegated.cli; sys.platform = 'darwin'; sys.exit(delegated.cli.main())"
ON_WINDOWS = ON_A_MAC.replace("darwin", "win32")
TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >> {log}
case "$*" in
*enable*) mkdir -p "$HOME/.config/systemd/user/default.target.wants"
    ln -sf ../delegated.service "$HOME/.config/systemd/user/default.target.wants/delegated.service" ;;
*show*) printf 'ActiveState=active\\nStatusText=\\033[31mserving\\n' ;;
*-n*) printf 'a line\\033]0;title\\007\\n' ;;
esac
"""
FAILS = "#!/bin/sh\necho 'Failed to connect to bus: No medium found' >&2\nexit 1\n"


class Desk:
    """A house whose HOME is empty, and the tools of a service manager that note what they are told."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.home = Path(house.env["HOME"])
        shutil.rmtree(self.home)
        self.home.mkdir()
        self.bin = house.tmp / "bin"
        self.bin.mkdir()
        self.log = house.tmp / "told"
        for name in ("systemctl", "journalctl", "launchctl", "tail"):
            self.tool(name, TOOL.format(log=shlex.quote(str(self.log))))
        self.unit = self.home / ".config" / "systemd" / "user" / "delegated.service"

    def tool(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(self, *arguments: str, code: str = MAIN, path: str | None = None, **env: str):
        known = {"PATH": path or f"{self.bin}{os.pathsep}{self.house.env['PATH']}"}
        return subprocess.run(
            [sys.executable, "-P", "-c", code, "service", *arguments],
            env=self.house.env | known | env,
            cwd=self.house.workspace,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def told(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def tree(self) -> list[str]:
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*"))

    def workspace(self, name: str) -> Path:
        path = self.house.tmp / name
        (path / ".autonomous_runs" / "openai_delegations").mkdir(parents=True)
        return path


@pytest.fixture
def desk(house: House) -> Desk:
    return Desk(house)


def test_the_shipped_files_are_those_of_the_project() -> None:
    """What is installed with the program is what stands in the checkout."""
    assert unit_texts.shipped("delegated.service") == (ROOT / "systemd" / "delegated.service").read_bytes()
    plist = "io.github.delegated.plist"
    assert unit_texts.shipped(plist) == (ROOT / "config" / "launchd" / plist).read_bytes()
    assert unit_texts.shipped("delegated.xml") == (ROOT / "config" / "windows" / "delegated.xml").read_bytes()


def test_it_is_installed_and_leaves_nothing(desk: Desk, need: Callable[[str], str]) -> None:
    """systemd finds no fault in the unit, whatever a workspace is called; after uninstall HOME is as it was."""
    odd = desk.workspace('we ird %h $HOME "q" \\x')
    done = desk.run("install", "--workspace", str(desk.house.workspace), "--workspace", str(odd))
    assert done.returncode == exits.OK, done.stderr
    assert desk.told() == [
        "systemctl --user daemon-reload",
        "systemctl --user enable delegated.service",
        "systemctl --user restart delegated.service",
    ]
    for line in desk.told():
        assert line in done.stdout
    assert f"{desk.unit}: written" in done.stdout
    env = {"PATH": os.environ["PATH"], "HOME": str(desk.home), "XDG_RUNTIME_DIR": str(desk.house.tmp)}
    command = [need("systemd-analyze"), "verify", "--user", str(desk.unit)]
    checked = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    text = desk.unit.read_text()
    (start,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    plain = start.removeprefix("ExecStart=").replace("%%", "%").replace("$$", "$")
    words = shlex.split(plain)
    assert words[-4:] == ["--workspace", str(desk.house.workspace), "--workspace", str(odd)]
    assert os.access(words[0], os.X_OK)
    assert "\nWantedBy=default.target\n" in text
    assert text.count("\nReadWritePaths=") == 3, "the home, and the folders of two workspaces outside of it"
    assert oct(desk.unit.stat().st_mode & 0o777) == "0o644"
    done = desk.run("uninstall")
    assert done.returncode == exits.OK, done.stderr
    assert "systemctl --user disable --now delegated.service" in desk.told()
    assert desk.tree() == []


def test_workspaces_are_added_and_must_be_set_up(desk: Desk) -> None:
    """A second install serves both; one without a drop folder is refused before anything is done."""
    other = desk.workspace("other")
    assert desk.run("install").returncode == exits.OK
    assert desk.run("install", "--workspace", str(other)).returncode == exits.OK
    text = desk.unit.read_text()
    assert f'--workspace" "{desk.house.workspace}" "--workspace" "{other}"' in text
    bare = desk.house.tmp / "bare"
    bare.mkdir()
    done = desk.run("install", "--workspace", str(bare))
    assert done.returncode == exits.USAGE
    assert "delegate init --workspace" in done.stderr
    assert desk.unit.read_text() == text


def test_a_workspace_that_is_gone_does_not_stand_in_the_way_of_another(desk: Desk) -> None:
    """The next install forgets it with a warning; one of the configuration stays, and may be away at a start."""
    gone, other = desk.workspace("gone"), desk.workspace("other")
    assert desk.run("install", "--workspace", str(gone)).returncode == exits.OK
    shutil.rmtree(gone)
    assert f"{gone}: it is not there" in desk.run("status").stdout
    done = desk.run("install", "--workspace", str(other))
    assert done.returncode == exits.OK, done.stderr
    assert f"warning: {gone} is not there, and the service forgets it" in done.stderr
    text = desk.unit.read_text()
    assert str(gone) not in text
    assert f'\nReadWritePaths="-{other}/.autonomous_runs/openai_delegations"\n' in text
    shutil.rmtree(other)
    config = desk.home / ".config" / "delegated" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"workspaces:\n  - {other}\n")
    done = desk.run("install", "--workspace", str(desk.house.workspace))
    assert done.returncode == exits.OK, done.stderr
    assert f'"--workspace" "{other}" "--workspace" "{desk.house.workspace}"' in desk.unit.read_text()


@pytest.mark.slow
def test_those_of_the_configuration_are_not_named_again(desk: Desk) -> None:
    """Where the configuration lists workspaces the unit names none, until another one is asked for."""
    config = desk.home / ".config" / "delegated" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"workspaces:\n  - {desk.house.workspace}\n")
    assert desk.run("install").returncode == exits.OK
    assert "--workspace" not in desk.unit.read_text()
    other = desk.workspace("other")
    assert desk.run("install", "--workspace", str(other)).returncode == exits.OK
    assert f'"--workspace" "{desk.house.workspace}" "--workspace" "{other}"' in desk.unit.read_text()
    assert desk.run("uninstall").returncode == exits.OK
    assert desk.tree() == [".config", ".config/delegated", ".config/delegated/config.yaml"]


@pytest.mark.slow
def test_the_key_is_kept_in_a_file_of_its_own_and_never_shown(desk: Desk) -> None:
    """Mode 0600, where the unit looks for a credential; in no unit, no output, no record; gone after uninstall."""
    assert desk.run("install", "--save-key").returncode == exits.USAGE
    dry = desk.run("install", "--save-key", "--dry-run", OPENAI_API_KEY=KEY)
    assert dry.returncode == exits.OK
    assert desk.tree() == []
    done = desk.run("install", "--save-key", OPENAI_API_KEY=KEY)
    assert done.returncode == exits.OK, done.stderr
    kept = desk.home / ".config" / "delegated" / "openai_api_key"
    assert kept.read_text() == f"{KEY}\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "LoadCredential=openai_api_key:%E/delegated/openai_api_key" in desk.unit.read_text()
    for each in (dry, done):
        assert KEY not in each.stdout + each.stderr
    others = [path for path in desk.home.rglob("*") if path.is_file() and path != kept]
    assert others
    assert not [path for path in others if KEY in path.read_text()]
    assert desk.run("uninstall").returncode == exits.OK
    assert desk.tree() == []


def test_a_key_of_ones_own_is_kept(desk: Desk) -> None:
    """A key's file that this command did not write is not replaced; leaving out `--save-key` is all that it takes."""
    own = desk.home / ".config" / "delegated" / "openai_api_key"
    own.parent.mkdir(parents=True)
    own.write_text("sk-own")
    done = desk.run("install", "--save-key", OPENAI_API_KEY=KEY)
    assert (done.returncode, own.read_text()) == (exits.USAGE, "sk-own")
    assert "hint: leave --save-key out: the service takes the key in it" in done.stderr
    done = desk.run("install")
    assert (done.returncode, f"its key: {own}" in done.stderr) == (exits.OK, True)


def test_a_dry_run_shows_all_and_does_nothing(desk: Desk) -> None:
    """Files with their text, commands, and what would be removed; it needs no service manager."""
    done = desk.run("install", "--dry-run", path="/nowhere")
    assert done.returncode == exits.OK, done.stderr
    assert f"would write {desk.unit} (mode 0644)" in done.stdout
    assert "  [Service]" in done.stdout
    assert "would run systemctl --user enable delegated.service" in done.stdout
    assert desk.tree() == []
    assert desk.run("install").returncode == exits.OK
    before, told = desk.tree(), desk.told()
    done = desk.run("uninstall", "--dry-run")
    assert f"would remove {desk.unit}" in done.stdout
    assert (desk.tree(), desk.told()) == (before, told)


def test_without_systemctl_nothing_is_written(desk: Desk) -> None:
    """It says what is missing and what to do instead."""
    done = desk.run("install", path="/nowhere")
    assert done.returncode == exits.UNHEALTHY
    assert "systemctl is not there; nothing was changed" in done.stderr
    assert "run `delegated` in a terminal" in done.stderr
    assert desk.tree() == []


@pytest.mark.slow
def test_where_systemctl_fails_its_words_are_given_and_all_can_be_taken_away(desk: Desk) -> None:
    """Without a user's systemd: the reason, what to do, exit code 69; uninstall removes the files all the same."""
    desk.tool("systemctl", FAILS)
    done = desk.run("install")
    assert done.returncode == exits.UNHEALTHY
    assert "daemon-reload: Failed to connect to bus" in done.stderr
    assert "loginctl enable-linger" in done.stderr
    assert desk.unit.exists()
    status = desk.run("status")
    assert (status.returncode, "by nobody" in status.stdout) == (exits.UNHEALTHY, True)
    wants = desk.unit.parent / "default.target.wants"
    wants.mkdir()
    (wants / "delegated.service").symlink_to("../delegated.service")
    done = desk.run("uninstall")
    assert done.returncode == exits.UNHEALTHY
    assert "its files are gone" in done.stderr
    assert desk.tree() == []


@pytest.mark.slow
def test_what_others_wrote_is_kept(desk: Desk) -> None:
    """A unit of that name by hand is not replaced; one that was changed since is neither replaced nor removed."""
    desk.unit.parent.mkdir(parents=True)
    shutil.copy(ROOT / "systemd" / "delegated.service", desk.unit)
    done = desk.run("install")
    assert done.returncode == exits.USAGE
    assert "was not written by this command" in done.stderr
    assert desk.told() == []
    assert "nothing is done" in desk.run("uninstall").stderr
    desk.unit.unlink()
    assert desk.run("install").returncode == exits.OK
    desk.unit.write_text(f"{desk.unit.read_text()}# mine\n")
    assert "was changed since" in desk.run("install").stderr
    done = desk.run("uninstall")
    assert "kept: it was changed since" in done.stdout
    assert desk.unit.read_text().endswith("# mine\n")


@pytest.mark.slow
def test_status_and_logs_show_what_the_manager_says_and_no_more(desk: Desk) -> None:
    """Before an install no service runs, which is 69; after it nothing in it drives a terminal."""
    for action in ("status", "logs"):
        assert desk.run(action).returncode == exits.UNHEALTHY
    assert desk.run("install").returncode == exits.OK
    status, logs = desk.run("status"), desk.run("logs", "--number", "7")
    assert (status.returncode, logs.returncode) == (exits.OK, exits.OK)
    assert f"workspace  {desk.house.workspace}\n" in status.stdout
    assert "ActiveState=active\nStatusText=serving\n" in status.stdout
    assert logs.stdout == "a line\n"
    assert desk.told()[-1] == "journalctl --user -u delegated.service -n 7 --no-pager -o cat"


def test_a_launch_agent_is_written_for_a_mac(desk: Desk) -> None:
    """The same on launchd: an agent that starts at login, the key by its file, and nothing left afterwards."""
    done = desk.run("install", "--save-key", code=ON_A_MAC, OPENAI_API_KEY=KEY)
    assert done.returncode == exits.OK, done.stderr
    path = desk.home / "Library" / "LaunchAgents" / "io.github.delegated.plist"
    value = plistlib.loads(path.read_bytes())
    assert value["ProgramArguments"][-2:] == ["--workspace", str(desk.house.workspace)]
    assert value["RunAtLoad"] is True
    assert value["StandardErrorPath"] == str(desk.home / "Library" / "Logs" / "delegated.log")
    key_file = value["EnvironmentVariables"]["DELEGATED_ENDPOINTS__OPENAI__KEY_FILE"]
    assert Path(key_file).read_text() == f"{KEY}\n"
    assert KEY not in path.read_text()
    user = f"gui/{os.getuid()}"
    out, start = f"launchctl bootout {user}/io.github.delegated", f"launchctl bootstrap {user} {path}"
    assert desk.told() == [out, start]
    assert desk.run("logs", code=ON_A_MAC).stdout == "a line\n"
    assert desk.run("uninstall", code=ON_A_MAC).returncode == exits.OK
    assert desk.told()[-1] == out
    assert desk.tree() == []


ORDER = {
    "Task": ["RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"],
    "LogonTrigger": ["Enabled", "UserId"],
    "Principal": ["UserId", "LogonType", "RunLevel"],
    "Exec": ["Command", "Arguments"],
}


def task(path: Path) -> dict[str, str]:
    """Read a task as Windows does, hold it against the documented order of elements, and return its texts by name."""
    data = path.read_bytes()
    assert data.startswith(b"\xff\xfe"), "schtasks takes UTF-16 with its mark"
    root = ElementTree.fromstring(data)
    found: dict[str, str] = {}
    for element in root.iter():
        space, _, name = element.tag.rpartition("}")
        assert space == "{http://schemas.microsoft.com/windows/2004/02/mit/task"
        found[name] = element.text or ""
        if name in ORDER:
            assert [child.tag.rpartition("}")[2] for child in element] == ORDER[name]
    assert root.get("version") == "1.2"
    return found


def played(desk: Desk, *names: str) -> None:
    """Play the tools of Windows."""
    for name in names:
        says = "desk\\me\r" if name.startswith("whoami") else "a line"
        log = shlex.quote(str(desk.log))
        text = f"#!/bin/sh\nprintf '%s %s\\n' {name} \"$*\" >> {log}\nprintf '%s\\n' {shlex.quote(says)}\n"
        desk.tool(name, text)
        desk.tool(f"{name}.EXE", text)  # the name that is looked for on Windows
    desk.house.env["PATHEXT"] = ".EXE"


def test_inside_wsl_without_systemd_windows_starts_it(desk: Desk) -> None:
    """A task at the logon of this user, for this distribution, program and workspaces; what it runs is run here."""
    played(desk, "schtasks.exe", "whoami.exe")
    env = {"WSL_DISTRO_NAME": "Debian 12", "OPENAI_API_KEY": KEY}
    code = f"import delegated.cli.service as s; s._SYSTEMD = '/nowhere'; {MAIN}"
    dry = desk.run("install", "--save-key", "--dry-run", code=code, **env)
    assert (dry.returncode, desk.tree()) == (exits.OK, []), dry.stderr
    assert "<LogonTrigger>" in dry.stdout
    assert KEY not in dry.stdout
    done = desk.run("install", "--save-key", code=code, **env)
    assert done.returncode == exits.OK, done.stderr
    path = desk.home / ".config" / "delegated" / "delegated.xml"
    seen = "\\\\wsl$\\Debian 12" + str(path).replace("/", "\\")
    assert desk.told()[-2:] == [
        f"schtasks.exe /Create /TN delegated /XML {seen} /F",
        "schtasks.exe /Run /TN delegated",
    ]
    found = task(path)
    assert (found["UserId"], found["Command"]) == ("desk\\me", "C:\\Windows\\System32\\wsl.exe")
    which, name, exec_, shell, flag, script = shlex.split(found["Arguments"])
    assert (which, name, exec_, shell, flag) == ("--distribution", "Debian 12", "--exec", "sh", "-c")
    # What Windows would have WSL run, run: with a program in its place that tells what it was given.
    program = desk.home / "program"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >&2\ncat "$DELEGATED_ENDPOINTS__OPENAI__KEY_FILE" >&2\n')
    program.chmod(0o755)
    line = script.partition(" exec ")[2].partition(" --workspace ")[0]
    subprocess.run(
        ["sh", "-c", script.replace(f"exec {line} ", f"exec {program} ")], env=desk.house.env, check=True, timeout=30
    )
    log = desk.home / ".local" / "state" / "delegated" / "service.log"
    assert log.read_text() == f"--workspace\n{desk.house.workspace}\n{KEY}\n"
    log.unlink()
    assert desk.run("status", code=code, **env).returncode == exits.OK
    assert desk.run("uninstall", code=code, **env).returncode == exits.OK
    assert desk.told()[-2:] == ["schtasks.exe /End /TN delegated", "schtasks.exe /Delete /TN delegated /F"]
    assert not path.exists()


def test_with_systemd_inside_wsl_it_is_a_unit(desk: Desk) -> None:
    """Where systemd runs, nothing is different in WSL."""
    code = f"import delegated.cli.service as s; s._SYSTEMD = '/'; {MAIN}"
    assert desk.run("install", code=code, WSL_DISTRO_NAME="Debian").returncode == exits.OK
    assert desk.unit.exists()


def test_on_windows_itself_the_task_starts_it_in_wsl(desk: Desk) -> None:
    """The same from the other side; the key cannot be kept there, and the log is read through WSL."""
    played(desk, "schtasks", "whoami", "wsl")
    desk.house.env |= {"LACKS": "fcntl,dir_fd", "PYTHONPATH": str(ROOT / "tests" / "crash")}
    refused = desk.run("install", "--save-key", code=ON_WINDOWS, OPENAI_API_KEY=KEY)
    assert refused.returncode == exits.USAGE
    assert "inside WSL" in refused.stderr
    done = desk.run("install", code=ON_WINDOWS)
    assert done.returncode == exits.OK, done.stderr
    path = desk.home / ".config" / "delegated" / "delegated.xml"
    assert desk.told()[-2:] == [f"schtasks /Create /TN delegated /XML {path} /F", "schtasks /Run /TN delegated"]
    found = task(path)
    script = shlex.split(found["Arguments"])[-1]
    assert script == (
        "mkdir -p ~/.local/state/delegated; exec ~/.local/bin/delegated"
        f" --workspace '{desk.house.workspace}' 2>>~/.local/state/delegated/service.log"
    )
    assert desk.run("logs", "-n", "5", code=ON_WINDOWS).stdout == "a line\n"
    assert desk.told()[-1] == "wsl --exec sh -c tail -n 5 ~/.local/state/delegated/service.log"
    assert desk.run("uninstall", code=ON_WINDOWS).returncode == exits.OK
    assert desk.tree() == []


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("C:\\code\\my app", ("", "/mnt/c/code/my app")),
        ("d:/code", ("", "/mnt/d/code")),
        ("\\\\wsl$\\Ubuntu\\home\\me\\x", ("Ubuntu", "/home/me/x")),
        ("\\\\wsl.localhost\\Debian\\srv", ("Debian", "/srv")),
        ("//WSL$/Debian", ("Debian", "/")),
        ("/home/me", ("", "/home/me")),
        ("\\\\server\\share\\x", None),
        ("C:code", None),
        ("code", None),
    ],
)
def test_a_path_of_windows_as_wsl_sees_it(path: str, seen: tuple[str, str] | None) -> None:
    """Drives below /mnt, the files of a distribution at their place; another machine's share is not seen there."""
    if seen is not None:
        assert unit_texts.in_wsl(path) == seen
        return
    with pytest.raises(ValueError, match="no drive"):
        unit_texts.in_wsl(path)


def test_a_task_holds_no_name_that_is_read_anew() -> None:
    """Windows, WSL and a shell each read the line: what one of them would replace is refused, the rest escaped."""
    for bad in ("/a'b", '/a"b', "/a%TEMP%b", "/a$(Arg0)", "/a\\b", "/a`b", "/a\nb"):
        with pytest.raises(ValueError, match="cannot stand in a task"):
            unit_texts.task("delegated", [bad], distribution="", owner="")
    data = unit_texts.task("delegated", ["/a & <b>"], distribution="", owner="")
    assert "--workspace '/a & <b>'" in ElementTree.fromstring(data).findtext(".//{*}Arguments", "")


def test_where_the_daemon_does_not_run_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On any other system without what it needs it answers as the daemon does: inside WSL 2."""
    monkeypatch.setattr(disk, "SERVES", False)
    assert main(["service", "install"]) == exits.CONFIGURATION
    assert "WSL 2" in capsys.readouterr().err


def test_a_name_that_no_unit_can_hold_is_refused(desk: Desk) -> None:
    """A line break in a path would be a line of the unit."""
    bad = desk.workspace("a\nExecStartPre=touch x")
    done = desk.run("install", "--workspace", str(bad))
    assert done.returncode == exits.USAGE
    assert "cannot stand in a unit" in done.stderr
    assert desk.tree() == []
