"""A workspace is served because its user asked for it; what came with the code is run only when asked for by name."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from delegated import git_index, registry
from delegated.home import state_directory
from delegated.registry import OLDER, TRACKED, Consent, Registration, Repositories
from harness import PREFIX, House, request_text, until

Git = Callable[..., str]


@pytest.fixture
def fresh(house: House) -> House:
    """A workspace that nobody has asked to have served yet."""
    shutil.rmtree(state_directory(house.env))
    return house


def delegate(house: House, *arguments: str, code: int = 0) -> tuple[str, str]:
    program = "import sys; from delegated.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=house.workspace,
        env=house.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout, done.stderr


def known(house: House) -> Registration | None:
    return registry.find(state_directory(house.env), str(house.workspace), str(house.folder))


def not_run(house: House) -> dict[str, str]:
    return json.loads(delegate(house, "status", "--json")[0])["not_run"]


# What stood there


@pytest.mark.slow
def test_what_stood_there_before_is_run_only_by_its_name(fresh: House) -> None:
    """Older than the registration: left alone, which the log says once; `delegate run` runs exactly that one."""
    house = fresh
    house.drop("old")
    house.drop("other")
    assert not_run(house) == {"old": OLDER, "other": OLDER}, "nobody asked for this workspace yet"
    daemon = house.up()
    house.drop("new")
    assert house.result("new")["status"] == "answered"
    house.drop("newer")
    house.result("newer")
    assert not house.has_result("old")
    assert not house.has_result("other")
    told = [each for each in daemon.events() if each["event"] == "request.not_run"]
    assert sorted((each["request"], each["why"]) for each in told) == [("old", OLDER), ("other", OLDER)]
    assert "delegate run old" in next(each["hint"] for each in told if each["request"] == "old")
    assert not_run(house) == {"old": OLDER, "other": OLDER}
    out, err = delegate(house, "status")
    assert f"old: not run: {OLDER}" in out
    assert "next: delegate run o" in err
    assert f"not run: {OLDER}" in delegate(house, "list")[0]
    assert f"old is not run: {OLDER}" in delegate(house, "doctor", "--offline")[0]
    assert "delegate run old" in delegate(house, "wait", "old", code=3)[1], "a wait would be for ever"
    delegate(house, "run", "old")
    assert house.result("old")["status"] == "answered"
    until(lambda: not (house.folder / f"{PREFIX}RUN_old").exists(), what="the order is taken away")
    assert not house.has_result("other")
    assert not_run(house) == {"other": OLDER}


def test_what_is_dropped_while_no_daemon_runs_is_served(house: House) -> None:
    """After the registration everything is served, whenever the daemon comes; a touch or a save makes nothing new."""
    house.drop("old")
    shutil.rmtree(state_directory(house.env))
    delegate(house, "init")
    house.drop("between")
    os.utime(house.request("old"))
    house.up("--once").process.wait(60)
    assert house.result("between")["status"] == "answered"


@pytest.mark.slow
def test_a_touch_is_none_and_an_edit_is_a_new_request(fresh: House) -> None:
    """The same bytes under new times are the older request still; other bytes are a request of today."""
    house = fresh
    old = house.drop("touched")
    edited = house.drop("edited")
    delegate(house, "init")
    os.utime(old)
    old.chmod(0o640)
    edited.write_text(request_text("it divides by nothing"))
    house.up()
    assert house.result("edited")["status"] == "answered"
    until(lambda: not_run(house) == {"touched": OLDER}, what="it is left alone", pause=0.2)
    assert not house.has_result("touched")


@pytest.mark.slow
def test_once_is_an_asking_for_what_stands_there(fresh: House, git: Git) -> None:
    """`delegated --once`, as in CI, runs what nobody committed; what is tracked still only by its name (`--only`)."""
    house = fresh
    house.drop("committed")
    git("add", "-f", ".autonomous_runs")
    house.drop("loose")
    assert house.start("--once").process.wait(60) == 0
    assert house.result("loose")["status"] == "answered"
    assert not house.has_result("committed")
    delegate(house, "run", "committed")
    assert house.result("committed")["status"] == "answered"


def test_the_first_asking_registers(fresh: House) -> None:
    """`delegate ask`, even without waiting, registers before it drops: its own request is not older."""
    house = fresh
    house.drop("old")
    key = delegate(house, "ask", "--no-wait", "--issue", "it divides by zero")[0].strip()
    house.up()
    assert house.result(key)["status"] == "answered"
    assert not house.has_result("old")


def test_init_says_what_it_will_not_run(fresh: House) -> None:
    """`delegate init` names what stands there and the command; registered a second time, nothing changes."""
    house = fresh
    house.drop("old")
    out, err = delegate(house, "init")
    assert f"{house.workspace}: registered" in out
    assert "delegate run old" in err
    first = known(house)
    house.drop("late")
    delegate(house, "init")
    assert known(house) == first


# Which directory it is


def test_a_registration_is_this_users_alone(house: House) -> None:
    """0700 and 0600, outside the workspace."""
    state = Path(state_directory(house.env))
    assert house.workspace not in state.parents
    (file,) = (state / "workspaces").iterdir()
    assert oct(file.stat().st_mode)[-3:] == "600"
    assert oct(file.parent.stat().st_mode)[-3:] == "700"


@pytest.mark.parametrize("how", ["copied", "moved", "cloned anew"])
def test_another_directory_is_not_registered(house: House, how: str) -> None:
    """A copy, a move and a directory made in the place of the registered one: none is it, whatever its files say."""
    state, place = state_directory(house.env), house.workspace
    assert known(house) is not None
    other = house.tmp / "other"
    shutil.copytree(place, other, symlinks=True)
    if how == "moved":
        shutil.rmtree(other)
        os.rename(place, other)
    if how == "cloned anew":
        shutil.rmtree(place)
        shutil.copytree(other, place)
        other = place
    folder = other / house.folder.relative_to(house.workspace)
    assert registry.find(state, str(other), str(folder)) is None


def test_a_registration_is_found_by_every_path_to_it(house: House) -> None:
    """A symbolic link to the workspace leads to the same one."""
    link = house.tmp / "link"
    link.symlink_to(house.workspace)
    folder = link / house.folder.relative_to(house.workspace)
    assert registry.find(state_directory(house.env), str(link), str(folder)) == known(house)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"schema": "delegated/registration/1"}', b"null", b"[" * 9999])
def test_a_damaged_registration_is_none(house: House, data: bytes) -> None:
    """It is made anew, of what stands there: the safe side."""
    (file,) = (Path(state_directory(house.env)) / "workspaces").iterdir()
    file.write_bytes(data)
    assert known(house) is None
    house.drop("a")
    house.register()
    found = known(house)
    assert found is not None
    assert list(found.files) == [house.request("a").name]


@pytest.mark.slow
def test_without_a_place_for_it_each_start_is_the_first(fresh: House) -> None:
    """The state directory cannot be written: the daemon says so, runs what is dropped, and not what lay there."""
    house = fresh
    house.env["XDG_STATE_HOME"] = str(house.outside / "file" / "state")
    (house.outside / "file").touch()
    assert "cannot be registered" in delegate(house, "doctor", "--offline", code=69)[0]
    assert "could not be registered" in delegate(house, "init")[1]
    house.drop("before")
    daemon = house.up()
    assert daemon.has("workspace.unregistered")
    house.drop("after")
    assert house.result("after")["status"] == "answered"
    assert not house.has_result("before")
    assert delegate(house, "run", "before")
    assert house.result("before")["status"] == "answered"


# What git tracks


def layout(house: House, git: Git, kind: str) -> None:
    """Track what stands in the folder, in one of git's ways to keep an index."""
    if kind in ("2", "4"):
        git("add", "-f", ".autonomous_runs")
        git("update-index", "--index-version", kind)
    elif kind == "split":
        git("add", "-f", ".autonomous_runs")
        git("update-index", "--split-index")
    elif kind == "sha256":
        shutil.rmtree(house.workspace / ".git")
        git("init", "-q", "--object-format=sha256")
        git("add", "-f", ".autonomous_runs")
    elif kind == "intent":
        git("add", "-N", "-f", ".autonomous_runs")
    elif kind == "around":
        shutil.rmtree(house.workspace / ".git")
        git("init", "-q", cwd=house.tmp)
        git("add", "-f", "work space", cwd=house.tmp)
    elif kind in ("worktree", "submodule"):
        shutil.rmtree(house.workspace / ".git")
        source = house.outside / "source"
        shutil.copytree(house.workspace, source)
        shutil.rmtree(house.workspace)
        git("init", "-q", cwd=source)
        git("add", "-f", ".", cwd=source)
        git("commit", "-q", "-m", "x", cwd=source)
        if kind == "worktree":
            git("worktree", "add", "-q", "-b", "tree", str(house.workspace), cwd=source)
        else:
            git("init", "-q", cwd=house.tmp)
            git("submodule", "--quiet", "add", str(source), "work space", cwd=house.tmp)


@pytest.mark.parametrize("kind", ["2", "4", "split", "sha256", "intent", "around", "worktree", "submodule"])
def test_every_way_to_be_tracked_is_known(house: House, git: Git, kind: str) -> None:
    """Index versions, split and SHA-256 indexes, `add -N`, a repository around, worktrees, submodules."""
    house.drop("a")
    for number in range(50):  # long common prefixes, which version 4 takes together
        (house.workspace / f"file {number}.py").touch()
    layout(house, git, kind)
    house.drop("b")
    tracked = Repositories(str(house.folder)).look()
    assert tracked.trouble == tracked.busy == ""
    assert tracked.names == {registry.folded(house.request("a").name)}


@pytest.mark.slow
def test_a_committed_request_is_run_only_by_its_name(house: House, git: Git) -> None:
    """Tracked by git: not run, edited or not, until it is taken out of the index or run by its name."""
    git("config", "user.name", "n")
    for key in ("pulled", "named"):
        house.drop(key)
    git("add", "-f", ".autonomous_runs")
    git("commit", "-q", "-m", "x")
    git("rm", "-q", "-r", ".autonomous_runs")
    house.folder.mkdir(parents=True, exist_ok=True)
    house.set(rescan_s=1)
    house.up()
    git("reset", "-q", "--hard", "HEAD")  # as a pull brings them
    house.drop("own")
    assert house.result("own")["status"] == "answered"
    until(lambda: not_run(house) == {"pulled": TRACKED, "named": TRACKED}, what="both are left alone", pause=0.2)
    house.request("pulled").write_text(request_text("edited"))
    time.sleep(1)
    assert not house.has_result("pulled")
    delegate(house, "run", "named")
    assert not house.has_result("pulled")
    git("rm", "-q", "--cached", str(house.request("pulled")))
    assert house.result("pulled")["status"] == "answered"


def test_what_git_is_writing_is_waited_for(house: House, git: Git) -> None:
    """Files come first and the index last: a request is not taken while the index is locked."""
    house.up()
    lock = house.workspace / ".git" / "index.lock"
    lock.touch()
    house.drop("a")
    until(lambda: house._daemons[0].has("request.held"), what="it is held")
    assert not house.has_result("a")
    lock.unlink()
    assert house.result("a")["status"] == "answered"


@pytest.mark.parametrize("kind", ["fifo", "directory", "garbage", "gone"])
def test_an_index_that_cannot_be_read_runs_nothing_by_itself(house: House, git: Git, kind: str) -> None:
    """Nobody can say what is tracked: nothing is taken for untracked, and nobody waits on a FIFO."""
    index = house.workspace / ".git" / "index"
    index.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(index)
    elif kind == "directory":
        index.mkdir()
    elif kind == "garbage":
        index.write_bytes(b"DIRC\x00\x00\x00\x02\x00\x00\x00\x09" + PREFIX.encode() * 9)
    else:
        shutil.rmtree(house.workspace / ".git")
        (house.workspace / ".git").write_text("gitdir: ../nowhere/else\n")
    tracked = Repositories(str(house.folder)).look()
    assert tracked.trouble
    path = house.drop("a")
    consent = Consent(Registration(0.0), str(house.folder))
    why = consent.why_not(path.name, "a", registry.names.sig_of(path.stat()), "", tracked)
    assert why.startswith(registry.UNKNOWN)


@pytest.mark.parametrize("order", ["tracked", "older"])
def test_an_order_that_came_with_the_code_is_not_obeyed(fresh: House, git: Git, order: str) -> None:
    """A repository that ships a request ships the order to run it as well."""
    house = fresh
    house.drop("a")
    (house.folder / f"{PREFIX}RUN_a").touch()
    (house.folder / f"{PREFIX}RETRY_a").touch()
    if order == "tracked":
        git("add", "-f", ".autonomous_runs")
    daemon = house.up()
    until(lambda: len([e for e in daemon.events() if e["event"] == "order.not_obeyed"]) == 2, what="it is said")
    house.drop("b")
    house.result("b")
    assert not house.has_result("a")


@pytest.mark.slow
def test_a_journal_that_came_with_the_code_is_refused(house: House, git: Git) -> None:
    """Records that git tracks are not believed: the daemon does not start, and says why."""
    house.up("--once").process.wait(60)
    git("add", "-f", ".autonomous_runs")
    daemon = house.start()
    assert daemon.process.wait(30) == 78
    assert "is tracked by git" in daemon.log.read_text()


def test_a_journal_is_known_where_the_folder_is_a_repository_itself(house: House, git: Git) -> None:
    """As a submodule is one: its index names the records without a directory before them."""
    records = house.folder / ".delegated"
    records.mkdir()
    (records / "id").write_text("x")
    git("init", "-q", cwd=house.folder)
    git("add", "-f", ".", cwd=house.folder)
    assert Repositories(str(house.folder)).look().journal == str(records.resolve() / "id")


@pytest.mark.slow
def test_an_unfinished_job_of_a_strangers_journal_is_left_alone(house: House) -> None:
    """A claim that lay there at the registration is not gone on with, before somebody asks for it by name."""
    house.set(model="scripted:" + str(house.outside / "none.json"))
    house.drop("a")
    house.drop("b")
    house.set(model="offline")
    house.up("--once").process.wait(60)
    for key in ("a", "b"):
        (house.job(key) / "done").unlink()
        for suffix in ("md", "json"):
            house.result_path(key, suffix).unlink()
    (house.folder / ".delegated" / "index.sqlite").unlink()
    shutil.rmtree(state_directory(house.env))
    house.up()
    until(lambda: not_run(house) == {"a": OLDER, "b": OLDER}, what="both are left alone", pause=0.2)
    delegate(house, "run", "a")
    assert house.result("a")["request"]["revision"] == 1
    assert not house.has_result("b")


# The index itself


def test_no_bytes_are_too_strange(house: House, git: Git) -> None:
    """An index with bytes changed, cut off or added is read or refused (`ValueError`), and quickly."""
    house.drop("a")
    for number in range(20):
        (house.workspace / f"file {number}.py").touch()
    git("add", "-f", ".")
    chance = random.Random(7)
    refused = 0
    for version in ("2", "4"):
        git("update-index", "--index-version", version)
        whole = (house.workspace / ".git" / "index").read_bytes()
        for _ in range(2000):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            del data[chance.choice((len(data), chance.randrange(len(data)))) :]
            try:
                git_index.read(bytes(data), (b"openai_delegation_",))
            except ValueError:
                refused += 1
    assert refused > 1000
