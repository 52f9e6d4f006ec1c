"""A daemon that watches for comments asks what somebody saves, once, and nothing that came in another way."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

import pytest

from delegated import remark
from delegated.config import ConfigError, load
from delegated.request import parse
from harness import PREFIX, Daemon, House, until

Git = Callable[..., str]
SAID = "DELEGATE TO GPT-4O: why does this hang?"


def watching(house: House, **settings: object) -> Daemon:
    house.set(comments="true", **settings)
    daemon = house.up()
    until(lambda: daemon.has("comments.watching"), what="the comments are watched")
    return daemon


def save(house: House, name: str, text: str) -> None:
    """Write a file as most editors do: under another name first."""
    path = house.workspace / name
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f"{path.name}.tmp")
    temp.write_text(text)
    os.replace(temp, path)


def asked(house: House) -> set[str]:
    """Return what the REQUESTs in the folder ask, each with the file that it is about."""
    found = set()
    for path in house.folder.glob(f"{PREFIX}REQUEST_*"):
        request = parse(path.read_bytes(), ".md")
        (file,) = request.files
        found.add(f"{file}: {request.issue}")
    return found


def last(house: House, number: int = 1) -> str:
    """Save a comment and wait until it is asked: what was saved before has been looked at by then."""
    save(house, f"last{number}.py", f"# DELEGATE TO GPT-4O: last {number}\n")
    name = f"last{number}.py: last {number}"
    until(lambda: name in asked(house), what="the last one is asked")
    return name


def test_what_is_saved_is_asked_once(house: House) -> None:
    """In place or by a rename, the RESULT comes as always; what stood there is not asked, nor what is saved again."""
    save(house, "old.py", f"# {SAID}\n")
    daemon = watching(house)
    save(house, "old.py", f"# {SAID}\nx = 1\n")
    (house.workspace / "app.py").write_text(f"x = 1\n# {SAID}\n")
    key = remark.key("app.py", remark.Remark(2, 2, "why does this hang?"))
    until(lambda: house.result_path(key).exists(), what="the RESULT")
    before = house.request(key).stat()
    for text in (f"# {SAID}\n", "x = 1\n", f"y = 1\n\n# {SAID}\n"):
        save(house, "app.py", text)
        until(lambda: daemon.process.poll() is None, what="it runs")
    assert {"app.py: why does this hang?", last(house)} == asked(house)
    assert house.request(key).stat() == before
    assert (house.workspace / "app.py").read_text() == f"y = 1\n\n# {SAID}\n"
    assert len([each for each in daemon.events() if each.get("event") == "comments.asked"]) == 2
    assert daemon.stop() == 0


def test_it_is_off_and_no_workspace_switches_it_on(house: House) -> None:
    """A file that comes with the code cannot ask for it."""
    (house.workspace / ".delegated.yaml").write_text("comments: true\n")
    with pytest.raises(ConfigError, match="not for a workspace to set"):
        load(workspace=str(house.workspace), env=house.env, system_file="/nowhere")
    assert load(env={}, system_file="/nowhere").comments is False


def test_what_git_brings_is_not_asked(house: House, git: Git) -> None:
    """By a pull or a checkout, also into a file that is edited then: only what its user adds is."""
    other = house.tmp / "other"
    git("add", "app.py")
    git("commit", "-qm", "x")
    git("clone", "-q", str(house.workspace), str(other))
    watching(house)
    for number in range(4):
        (other / f"a{number}.py").write_text(f"# {SAID} {number}\n")
    (other / "app.py").write_text(f"# {SAID} Theirs.\n")
    git("add", ".", cwd=other)
    git("commit", "-qm", "y", cwd=other)
    git("pull", "-q", str(other), "HEAD")
    save(house, "app.py", f"# {SAID} Theirs.\n# {SAID} Mine.\n")
    until(lambda: "app.py: why does this hang? Mine." in asked(house), what="the user's own is asked")
    git("checkout", "-q", "HEAD~1", "--", "app.py")
    git("checkout", "-q", "HEAD", "--", "app.py")
    assert {"app.py: why does this hang? Mine.", last(house)} == asked(house)


def test_while_git_works_it_waits(house: House, git: Git) -> None:
    """Git writes the files first and its index last; who looked in between would take them for edited ones."""
    git("add", "app.py")
    git("commit", "-qm", "x")
    daemon = watching(house, log__level="debug")
    lock = house.workspace / ".git" / "index.lock"
    lock.touch()
    save(house, "app.py", f"# {SAID}\n")
    until(lambda: daemon.has("comments.waiting"), what="it waits")
    assert asked(house) == set()
    lock.unlink()
    until(lambda: asked(house) == {"app.py: why does this hang?"}, what="it is asked")


def test_many_at_once_are_no_person(house: House) -> None:
    """Many comments in a minute, or many files within a second: a script, an archive, a patch. The log says so."""
    daemon = watching(house)
    save(house, "many.py", "".join(f"# {SAID} {number}\n" for number in range(remark.MANY + 1)))
    until(lambda: daemon.has("comments.many"), what="it is told")
    source = house.outside / "archive"
    source.mkdir()
    for number in range(100):
        (source / f"{number}.py").write_text(f"# {SAID} {number}\n")
    os.rename(source, house.workspace / "archive")
    last(house)
    assert all(each.startswith("last") for each in asked(house))


@pytest.mark.slow
def test_only_the_code_is_watched(house: House) -> None:
    """New directories too, but nothing that git ignores, no vendored, hidden or linked one, and not the folder."""
    (house.workspace / ".gitignore").write_text("ignored/\n*.gen.py\n")
    (house.outside / "a.py").write_text("x = 1\n")
    (house.workspace / "linked").symlink_to(house.outside)
    watching(house)
    save(house, "new/deep/a.py", f"# {SAID}\n")
    for name in ("ignored/a.py", "node_modules/a.js", ".hidden/a.py", "a.gen.py", "linked/a.py", ".env"):
        save(house, name, f"# {SAID}\n// {SAID}\n")
    (house.folder / "a.py").write_text(f"# {SAID}\n")
    until(lambda: asked(house) == {"new/deep/a.py: why does this hang?"}, what="the new directory is seen")
    os.rename(house.workspace / "new", house.workspace / "moved")
    save(house, "moved/deep/b.py", f"# {SAID} Moved.\n")
    until(lambda: len(asked(house)) == 2, what="the moved directory is seen")
    assert asked(house) == {
        "new/deep/a.py: why does this hang?",
        "moved/deep/b.py: why does this hang? Moved.",
    }


def test_where_there_are_no_events_times_are_compared(house: House) -> None:
    """`watch: poll`, or a file system without events: the same, later."""
    save(house, "old.py", f"# {SAID}\n")
    daemon = watching(house, watch="poll", poll_s="0.1")
    (told,) = (each for each in daemon.events() if each.get("event") == "comments.watching")
    assert told["directories"] == 0
    save(house, "old.py", f"# {SAID}\n# and more\n")
    save(house, "new/app.py", f"# {SAID}\n")
    until(lambda: len(asked(house)) == 2, what="both are asked")
    assert asked(house) == {"old.py: why does this hang?\nand more", "new/app.py: why does this hang?"}


def test_a_reload_switches_it(house: House) -> None:
    """On and off again by the user's configuration and a signal; what is saved while it is off is never asked."""
    config = house.tmp / "config.yaml"
    config.write_text("comments: false\n")
    daemon = house.up("--config", str(config))
    save(house, "app.py", f"# {SAID} Off.\n")
    config.write_text("comments: true\n")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.has("comments.watching"), what="it is watched")
    assert {last(house)} == asked(house)
    config.write_text("comments: false\n")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: len(re.findall("config.reloaded", daemon.log.read_text())) == 2, what="reloaded")
    save(house, "other.py", f"# {SAID} Off again.\n")
    house.drop("a")
    house.result("a")
    assert daemon.stop() == 0
    assert not list(house.folder.glob(f"{PREFIX}REQUEST_comment-other*"))
