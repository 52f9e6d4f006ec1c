"""`delegated --require-sandbox`: confined it serves, and otherwise it leaves with 78 and says what it could reach."""

from __future__ import annotations

import os
from pathlib import Path

from delegated.sandbox import breaches
from harness import Daemon, House


def ended(daemon: Daemon) -> tuple[int, str]:
    code = daemon.process.wait(30)
    return code, daemon.log.read_text()


def test_an_open_home_is_told(house: House) -> None:
    """Not confined at all: 78, and the sentence names what could be seen and written."""
    (Path(house.env["HOME"]) / "canary").write_text("nobody should see this")
    code, said = ended(house.start("--require-sandbox"))
    assert code == 78
    assert "the sandbox that --require-sandbox asks for is not in force" in said
    assert f"{house.env['HOME']} is visible: " in said
    assert f"{house.env['HOME']}/canary" in said
    assert f"the workspace {house.workspace} can be written" in said
    assert "hint: " in said
    assert "Traceback" not in said


def test_what_is_mounted_on_purpose_is_no_breach(tmp_path: Path) -> None:
    """In a hidden home the program and the workspace are seen; what lies beside them must not be."""
    home = tmp_path / "home"
    (home / "work" / "project").mkdir(parents=True)
    (home / ".local" / "bin").mkdir(parents=True)
    mounts = tmp_path / "mountinfo"
    points = [home, home / "work" / "project", home / ".local" / "bin"]
    # the home goes by the number of the mount that it really lies on; one beneath it of the same name is not asked
    fd = os.open(home, os.O_PATH)
    number = Path(f"/proc/self/fdinfo/{fd}").read_text().partition("mnt_id:")[2].split()[0]
    os.close(fd)
    mounts.write_text(
        f"1000000 2 0:3 / {home} rw - ext4 /dev/sda1 rw\n"
        + "".join(
            f"{number if point == home else 1000001 + n} 2 0:3 / {point} rw - tmpfs tmpfs rw\n"
            for n, point in enumerate(points)
        )
    )

    def about_home() -> list[str]:
        return [each for each in breaches([], {"HOME": str(home)}, mountinfo=str(mounts)) if str(home) in each]

    assert about_home() == []
    mounts.write_text(mounts.read_text().replace("tmpfs", "ext4"))
    assert about_home() == ([f"{home} can be written"] if os.access(home, os.W_OK) else []), "not hidden, only empty"
    (home / "work" / "diary").write_text("")
    assert about_home() == [f"{home} is visible: {home}/work/diary"]
    for number in range(9):
        (home / f"n{number}").write_text("")
    assert about_home()[0].endswith("and 7 more")
    mounts.unlink()
    assert "visible" in about_home()[0], "without the table of mounts nothing counts as bound"


def test_a_name_in_a_home_cannot_drive_a_terminal(tmp_path: Path) -> None:
    """What is found is shown as ASCII."""
    (tmp_path / "a\x1b[2Jb\nc").write_text("")
    (said,) = (each for each in breaches([], {"HOME": str(tmp_path)}) if str(tmp_path) in each)
    assert said.isascii()
    assert said.isprintable()


def test_a_writable_workspace_alone_is_a_breach(tmp_path: Path) -> None:
    """The folder must be writable, and nothing above it."""
    folder = tmp_path / "runs" / "drop"
    folder.mkdir(parents=True)
    found = breaches([(str(tmp_path), str(folder))], {})
    assert f"the workspace {tmp_path} can be written" in found
    assert not any("read-only" in each for each in found)
