"""The patch beside a RESULT, by the real daemon: there before the page, the same after a kill, back when it is gone."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent_payloads import prompt, transcript
from answers import GUARDED, answer, fix
from delegated.cli import exits
from delegated.cli.digest import digest
from delegated.cli.place import Place
from delegated.cli.report import patch_command
from faults.judging import torn
from harness import BUG, House, Server, until
from test_agent_hooks import hook, told
from test_cli_folder import run
from test_mcp import Client
from test_restart import killed_before, records

RAISING = Path(__file__).parent / "security" / "raising"
POST = {"method": "POST", "path": "/v1/responses"}
AFTER = BUG.replace("len(items)\n", "len(items) if items else 0\n", 1)


@pytest.fixture
def asked(house: House, server: Server) -> House:
    house.use(server, doubt_wait_s=1)
    server.script({"match": POST, "times": "always", "do": {"answer": GUARDED}})
    return house


def git_apply(house: House, patch: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "apply", *flags, str(patch)]
    return subprocess.run(command, cwd=house.workspace, capture_output=True, text=True, timeout=30)


def patch_of(house: House, key: str) -> Path:
    return house.result_path(key, "patch")


def settled(house: House, key: str) -> dict[str, Any]:
    result = house.result(key)
    until(lambda: "done" in records(house, key), what="done")
    return result


def test_the_fixes_come_as_a_patch_that_git_takes(asked: House) -> None:
    """Beside the RESULT, for its owner alone, the same text as in the JSON; a link that was planted is replaced."""
    target = asked.outside / "target"
    target.write_text("mine")
    patch_of(asked, "one").symlink_to(target)
    asked.up()
    asked.drop("one")
    result = settled(asked, "one")
    patch = patch_of(asked, "one")
    assert not patch.is_symlink()
    assert target.read_text() == "mine"
    assert stat.S_IMODE(patch.stat().st_mode) == 0o600
    assert patch.read_text() == result["patch"]["text"]
    assert result["patch"]["name"] == patch.name
    (edit,) = result["recommended_fixes"][0]["edits"]
    assert (edit["applies"], edit["parses"], edit["changed"]) == (True, True, False)
    assert torn(asked.folder) == []
    code, out, err = run(asked, "show", "one")
    assert code == exits.OK
    assert f"`{patch.name}` makes fix 1, in `app.py`." in out
    assert "apply" in err
    assert str(patch) in err
    assert git_apply(asked, patch, "--check").returncode == 0
    assert git_apply(asked, patch).returncode == 0
    assert (asked.workspace / "app.py").read_text() == AFTER
    assert run(asked, "outcome", "one", "wrong")[0] == exits.OK
    assert "apply" not in run(asked, "show", "one")[2], "who tried it is not told to try it"


def test_whoever_is_told_of_the_answer_is_told_how_to_apply_its_patch(asked: House) -> None:
    """A person by `show`, an agent by MCP and by its hook: one line that tries the patch, then applies it."""
    asked.up()
    asked.drop("one")
    settled(asked, "one")
    client = Client(asked)
    try:
        answer = client.text("wait", id="one")
    finally:
        client.close()
    edited = transcript("claude", Path(asked.env["HOME"]), asked.workspace)
    words = told("claude", hook(asked, "claude", prompt("claude", asked.workspace, transcript=str(edited))))
    key = next(path.stem for path in asked.folder.glob("*RESULT*.patch") if path.stem != patch_of(asked, "one").stem)
    other = patch_of(asked, key.rpartition("RESULT_")[2])
    for said, patch, there in (
        (run(asked, "show", "one")[2], patch_of(asked, "one"), ""),
        (answer, patch_of(asked, "one"), ""),
        (words, other, f" -C '{asked.workspace}'"),  # the hook is called from elsewhere
    ):
        line = f"git{there} apply --check '{patch}' && git{there} apply '{patch}'"
        assert said.count(line) == 1, said
    subprocess.run(["sh", "-c", line], cwd=asked.outside, check=True, timeout=30)
    assert (asked.workspace / "app.py").read_text() == AFTER


def test_no_command_for_a_patch_can_drive_a_terminal_or_end_its_line(tmp_path: Path) -> None:
    """Where the workspace's own name holds an escape sequence or a line end, the line is still one and harmless."""
    workspace = tmp_path / "a\x1b[2J\nb"
    workspace.mkdir()
    place = Place(str(workspace), str(workspace))
    result = {"status": "answered", "patch": {"name": "x"}}
    assert patch_command(place, "one", result) == "", "none stands there"
    Path(place.path("OPENAI_DELEGATION_RESULT_one.patch")).write_text("")
    said = patch_command(place, "one", result)
    assert said.startswith("git -C ")
    assert said.isprintable()
    assert patch_command(place, "one", result | {"patch": None}) == ""
    assert said in digest(result, "one", "/r", "", said)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["RESULT_one.patch", "RESULT_one.md", "done"])
def test_a_kill_while_it_is_published_changes_nothing(asked: House, server: Server, victim: str) -> None:
    """The patch is put there first: where a RESULT stands its patch does, and the next start makes the same."""
    killed_before(asked, victim, "one")
    assert patch_of(asked, "one").exists() is (victim != "RESULT_one.patch")
    assert torn(asked.folder) == []
    if victim == "done":
        patch_of(asked, "one").unlink()
    asked.up()
    result = settled(asked, "one")
    assert patch_of(asked, "one").read_text() == result["patch"]["text"]
    assert git_apply(asked, patch_of(asked, "one"), "--check").returncode == 0
    assert torn(asked.folder) == []
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_a_patch_of_a_life_that_was_killed_goes_when_the_code_changed(asked: House) -> None:
    """It was made for other bytes: the RESULT says that there is none, and none stands there."""
    killed_before(asked, "RESULT_one.md", "one")
    assert patch_of(asked, "one").exists()
    (asked.workspace / "app.py").write_text(BUG + "# edited\n")
    asked.up()
    result = settled(asked, "one")
    assert result["patch"] is None
    assert result["patch_notes"] == ["fix 1 is left out: app.py: it changed since it was sent"]
    assert result["recommended_fixes"][0]["edits"][0]["changed"] is True
    assert not patch_of(asked, "one").exists()
    assert torn(asked.folder) == []


@pytest.mark.slow
def test_it_goes_to_the_history_and_comes_back_by_republish(asked: House) -> None:
    """A former revision's patch moves along with its RESULT; a deleted one is in `done`."""
    asked.up()
    asked.drop("one")
    former = settled(asked, "one")["patch"]["text"]
    assert run(asked, "retry", "one")[0] == exits.OK
    asked.revision("one", 2)
    history = asked.folder / ".delegated" / "history" / "one"
    assert sorted(os.listdir(history)) == ["1.json", "1.md", "1.patch"]
    assert (history / "1.patch").read_text() == former
    until(lambda: (asked.job("one", 2) / "done").exists(), what="done")
    kept = {suffix: asked.result_path("one", suffix).read_bytes() for suffix in ("patch", "md", "json")}
    for suffix in kept:
        asked.result_path("one", suffix).unlink()
    code, out, err = run(asked, "republish", "one")
    assert code == exits.OK, err
    assert out.splitlines() == [str(asked.result_path("one", suffix)) for suffix in kept]
    assert {suffix: asked.result_path("one", suffix).read_bytes() for suffix in kept} == kept
    assert str(patch_of(asked, "one")) in run(asked, "status", "one")[1]
    assert run(asked, "purge", "one", "--results", "--yes")[0] == exits.OK
    assert not patch_of(asked, "one").exists()


@pytest.mark.slow
def test_a_secret_beside_the_edit_is_in_no_patch(house: House, server: Server) -> None:
    """A line of context is a line of the original file; the RESULT promises no secret."""
    secret = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
    (house.workspace / "app.py").write_text(f'TOKEN = "{secret}"\n\n{BUG}')
    house.use(server)
    far = fix("other.py", "a = 1", "a = 2", 2)
    (house.workspace / "other.py").write_text("a = 1\n")
    server.script({"match": POST, "do": {"answer": answer(GUARDED["recommended_fixes"][0], far)}})
    house.up()
    house.drop("one", "# Issue\n\nit divides by zero\n\n# Files\n- app.py\n- other.py\n")
    result = settled(house, "one")
    assert result["patch"]["fixes"] == [2]
    assert "hold a secret" in result["patch_notes"][0]
    for path in house.folder.glob("*RESULT_one.*"):
        assert secret not in path.read_text()


@pytest.mark.slow
def test_a_fault_in_the_trial_of_edits_costs_no_answer(asked: House) -> None:
    """The answer is paid for: it is published without a patch, and the log has the fault."""
    asked.env |= {
        "PYTHONPATH": os.pathsep.join([str(RAISING), asked.env["PYTHONPATH"]]),
        "RAISE_AT": "trial.py _made",
        "RAISE_HIT": str(asked.tmp / "hit"),
    }
    daemon = asked.up()
    asked.drop("one")
    result = settled(asked, "one")
    assert result["status"] == "answered"
    assert result["patch"] is None
    assert result["patch_notes"] == ["the edits could not be tried, by a fault in delegated itself"]
    assert daemon.has("patch.broke")
