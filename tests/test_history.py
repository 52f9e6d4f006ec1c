"""What changed goes along: what git says too, read from its files, bounded, confined, and nothing that must stay."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated import changes, git_index, history
from delegated.changes import Changed, History, render
from delegated.context import Extra, Omitted
from delegated.difference import difference
from delegated.git_objects import Late, Repository, Unreadable
from delegated.workspace import Workspace
from repositories import commit, git, repository, write

BODY = "def total(items):\n    number = len(items)\n    price = sum(items)\n    return price / number\n"


@pytest.fixture
def root(tmp_path: Path, need: Callable[[str], str]) -> Path:
    need("git")
    return repository(tmp_path / "code")


@pytest.fixture
def opened(root: Path) -> Iterator[Repository]:
    with Workspace(str(root)) as space, space.opened() as tree:
        yield Repository(tree, until=1, clock=lambda: 0)


def read(root: Path, *framed: tuple[str, int], near: tuple[str, ...] = ()) -> History:
    with Workspace(str(root)) as space:
        return history.read(space, framed, near, clock=lambda: 0)


def shown(found: History, budget: int = 10_000) -> dict[str, str]:
    return {each.kind: each.text for each in render(found, str, budget, len)[0]}


# Uncommitted


def test_what_is_not_committed_is_shown_as_git_shows_it(root: Path) -> None:
    """Edited, staged, new in the index, removed from it; and nothing of what is as it was committed."""
    files = {name: f"{name} = 1\n" * 20 for name in ("edited", "staged", "same", "src__deep", "gone")}
    commit(root, "first", **files)
    write(
        root, edited="edited = 2\n" * 20, src__deep=files["src__deep"] + "more = 1\n", staged="staged = 2\n", new="n\n"
    )
    git(root, "add", "staged.py", "new.py")
    (root / "gone.py").unlink()
    write(root, untracked="nobody asked for it\n")
    found = read(root)
    assert {each.path for each in found.changed} == {"edited.py", "src/deep.py", "staged.py", "new.py", "gone.py"}
    text = shown(found)["changes"]
    assert "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1,1 @@\n+n" in text
    assert "--- a/gone.py\n+++ /dev/null\n(deleted, 20 lines)" in text
    theirs = git(root, "diff", "HEAD", "--no-color", "--", "src/deep.py")
    assert theirs[theirs.index("+++") :].splitlines()[2:] == text[text.index("+++ b/src/deep.py") :].splitlines()[2:6]
    assert found.omitted == ()


def test_a_clean_tree_has_no_changes_whatever_its_times_say(root: Path) -> None:
    """A file that was only touched, or checked out with other line ends, is the same file."""
    commit(root, "first", a=BODY, b=BODY)
    os.utime(root / "a.py", (1, 1))
    (root / "b.py").write_bytes(BODY.replace("\n", "\r\n").encode())
    assert read(root) == History(git(root, "rev-parse", "HEAD").strip())


def test_what_is_never_sent_is_never_compared(root: Path) -> None:
    """Ignored, deny-listed, binary, vendored: tracked or not, there or deleted, it is in no change."""
    for name in (".env", "id_rsa", "secrets/a.py", "ignored/b.py", "vendor/c.py", "logo.bin", "dead.pem", "old/d.py"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"first\n\0" if name == "logo.bin" else b"first\n")
    git(root, "add", "-f", ".")
    git(root, "commit", "-q", "-m", "all of it")
    (root / ".gitignore").write_text("ignored/\nold/\n")
    for name in (".env", "id_rsa", "secrets/a.py", "ignored/b.py", "vendor/c.py"):
        (root / name).write_text("second and longer\n")
    (root / "logo.bin").write_bytes(b"second\n\0\0")
    (root / "dead.pem").unlink()
    shutil.rmtree(root / "old")
    assert read(root).changed == ()


def test_what_is_of_delegations_is_no_change_of_the_code(root: Path) -> None:
    """A tracked RESULT, whichever folder is the drop folder, and all below `.autonomous_runs/`: changed or deleted."""
    request, result = "drops/OPENAI_DELEGATION_REQUEST_a.md", "drops/OPENAI_DELEGATION_RESULT_a.json"
    names = (request, result, ".autonomous_runs/notes.py", "sub/.autonomous_runs/x/y.py", "drops/mine.py")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(BODY)
    commit(root, "first")
    for name in names[1:]:
        (root / name).write_text(f"{BODY}# more\n")
    (root / request).unlink()
    found = read(root, *((name, 1) for name in names))
    assert [each.path for each in found.changed] == ["drops/mine.py"]
    assert {each.path for each in found.touched} == {"drops/mine.py"}


def test_a_link_in_place_of_a_file_is_not_followed(root: Path, tmp_path: Path) -> None:
    """What it leads to is not read, and the file does not count as deleted either."""
    commit(root, "first", a=BODY)
    (tmp_path / "outside.py").write_text("secret\n")
    (root / "a.py").unlink()
    (root / "a.py").symlink_to(tmp_path / "outside.py")
    assert read(root).changed == ()


def test_the_files_that_the_request_is_about_come_first(root: Path) -> None:
    """What does not fit is left out from the end, by name and with the numbers."""
    names = [f"f{number}" for number in range(6)]
    commit(root, "first", **dict.fromkeys(names, BODY))
    write(root, **dict.fromkeys(names, BODY + f"x = '{'y' * 200}'\n"))
    found = read(root, near=("f4.py",))
    assert found.changed[0].path == "f4.py"
    (extra,), (left,) = render(found, str, 700, len)
    assert "f4.py" in extra.text
    assert extra.why.startswith("2 files changed since the last commit, ")
    assert len(extra.text) <= 700
    assert left.path == "uncommitted changes"
    assert "the budget for it is 700 tokens" in left.reason


def test_how_many_are_looked_at_is_bounded(root: Path) -> None:
    """Forty files, with the number of the others told."""
    names = [f"f{number:02}" for number in range(45)]
    commit(root, "first", **dict.fromkeys(names, BODY))
    write(root, **dict.fromkeys(names, BODY + "x = 1\n"))
    found = read(root)
    assert len(found.changed) == 40
    assert found.omitted[0].reason == "those of up to 5 more files were not looked at: too many"


# Commits


def test_the_commits_behind_the_lines_of_a_trace_are_found(root: Path) -> None:
    """Each with subject, day, hash and what it did there; a commit elsewhere in the file is none of them."""
    commit(root, "Sum up", a=BODY)
    second = commit(root, "Use the mean", day=3, a=BODY.replace("price / number", "price / (number)"))
    commit(root, "Say more", day=5, a=f"# {'-' * 60}\n" * 9 + BODY.replace("price / number", "price / (number)"))
    found = read(root, ("a.py", 13))
    assert next((each.commit, each.day, each.subject) for each in found.touched) == (
        second[:10], "2023-11-17", "Use the mean",
    )  # fmt: skip
    assert "Say more" not in {each.subject for each in found.touched}
    text = shown(found)["commits"]
    assert f"{second[:10]} 2023-11-17 Use the mean\na.py, line 13 of the trace\n" in text
    assert "-    return price / number\n+    return price / (number)" in text


def test_a_line_is_followed_through_what_is_not_committed(root: Path) -> None:
    """The trace counts lines as they are now; a line that is new itself has no commit."""
    first = commit(root, "Sum up", a=BODY)
    write(root, a="import math\n\n\n" + BODY + "\n\nprint(total([]))\nprint(total([1]))\nprint(total([2]))\nprint()\n")
    assert [each.commit for each in read(root, ("a.py", 7)).touched] == [first[:10]]
    assert read(root, ("a.py", 12)).touched == ()


@pytest.mark.parametrize("packed", [False, True])
def test_it_names_the_commits_that_git_names(root: Path, packed: bool) -> None:
    """By `git blame`, over a history with merges, loose and packed with long chains of deltas."""
    chance = random.Random(7)
    lines = [f"line {number} {chance.random()}\n" for number in range(120)]

    def edit(number: int) -> None:
        at = chance.randrange(len(lines))
        lines[at : at + chance.randrange(3)] = [f"edit {number} {n}\n" for n in range(chance.randrange(1, 3))]

    commit(root, "first", src__a="".join(lines))
    for number in range(60):
        if number % 20 == 10:
            git(root, "checkout", "-q", "-b", f"side{number}")
            commit(root, f"side {number}", day=number, src__side=f"{number}\n")
            git(root, "checkout", "-q", "main")
        edit(number)
        commit(root, f"edit {number}", day=number, src__a="".join(lines))
        if number % 20 == 10:
            git(
                root,
                "merge",
                "-q",
                "--no-ff",
                "-m",
                f"merge {number}",
                f"side{number}",
                at=1_700_000_000 + number * 86_400,
            )
    if packed:
        git(root, "gc", "-q", "--aggressive", "--prune=now")
        assert not list((root / ".git/objects").glob("[0-9a-f][0-9a-f]"))
    blamed = git(root, "blame", "--porcelain", "src/a.py")
    theirs = {int(found[2]): found[1] for found in re.finditer(r"^([0-9a-f]{40}) \d+ (\d+)", blamed, re.MULTILINE)}
    for line in range(3, len(lines) - 3, 7):
        around = {theirs[near][:10] for near in range(line - 2, line + 3)}
        assert {each.commit for each in read(root, ("src/a.py", line)).touched} == around


def test_every_object_is_read_as_git_reads_it(root: Path) -> None:
    """Commits, trees and files of a packed repository, byte for byte."""
    chance = random.Random(3)
    for number in range(12):
        commit(
            root, f"n{number}", day=number, a="".join(f"{chance.random()}\n" for _ in range(40)) * (number + 1), b=BODY
        )
    git(root, "repack", "-adq", "--depth=50")
    commit(root, "loose", a="loose\n")
    with Workspace(str(root)) as space, space.opened() as tree, Repository(tree, until=1, clock=lambda: 0) as found:
        for row in git(root, "cat-file", "--batch-all-objects", "--batch-check").splitlines():
            name, kind, size = row.split()
            if kind == "blob":
                assert found.blob(name).decode() == git(root, "cat-file", "blob", name)
                assert len(found.blob(name)) == int(size)
            elif kind == "tree":
                rows = git(root, "ls-tree", name).splitlines()
                theirs = {row.split("\t")[1]: row.split()[2] for row in rows}
                assert {part: each for part, (_, each) in found.entries(name).items()} == theirs
            else:
                assert found.commit(name).subject == git(root, "show", "-s", "--format=%s", name).strip()


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_the_index_is_read_as_git_reads_it(root: Path, version: str) -> None:
    """Every version: paths, blobs, and which directories have nothing staged."""
    commit(root, "first", a=BODY, src__b=BODY, src__deep__c=BODY, src__deep__d=BODY, z="1\n")
    write(root, src__b="staged\n")
    git(root, "add", "src/b.py")
    if version == "3":
        git(root, "update-index", "--skip-worktree", "z.py")
    git(root, "update-index", "--index-version", version)
    found = git_index.tracked((root / ".git/index").read_bytes(), 20)
    theirs = {row.split("\t")[1]: row.split()[1] for row in git(root, "ls-files", "-s").splitlines()}
    theirs.pop("z.py" if version == "3" else "", None)
    assert {path: entry.blob for path, entry in found.files.items()} == theirs
    assert found.trees == {"src/deep": git(root, "rev-parse", "HEAD:src/deep").strip()}


def test_sha256_repositories_are_read_too(tmp_path: Path, need: Callable[[str], str]) -> None:
    """Names of 32 bytes, loose and packed."""
    need("git")
    root = repository(tmp_path / "code", "--object-format=sha256")
    first = commit(root, "Sum up", a=BODY)
    git(root, "repack", "-adq")
    write(root, a=BODY + "x = 1\n")
    found = read(root, ("a.py", 4))
    assert [each.path for each in found.changed] == ["a.py"]
    assert [each.commit for each in found.touched] == [first[:10]]


# What cannot be told, and says so


def test_no_repository_is_nothing_to_tell(tmp_path: Path) -> None:
    """Nothing was there, so nothing was left out."""
    assert read(tmp_path) == History()


def test_a_history_that_is_cut_off_is_told(root: Path, tmp_path: Path) -> None:
    """In a shallow clone the last commit there is did not write everything."""
    commit(root, "Sum up", a=BODY)
    commit(root, "Touch another", b=BODY)
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{root}", "shallow")
    found = read(tmp_path / "shallow", ("a.py", 4))
    assert found.touched == ()
    assert found.omitted == (Omitted("last commits", "the history is cut off here (a shallow clone)"),)


def test_nothing_outside_the_workspace_is_read_for_it(root: Path, tmp_path: Path) -> None:
    """A worktree, borrowed objects, linked objects, a linked `.git`: each is left out, and says why."""
    commit(root, "Sum up", a=BODY)
    git(root, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    git(tmp_path, "clone", "-q", "--shared", str(root), "lent")
    repository(tmp_path / "linked")
    for name in ("objects", "HEAD", "refs", "index"):
        at = tmp_path / "linked/.git" / name
        shutil.rmtree(at) if at.is_dir() else at.unlink(missing_ok=True)
        if name == "objects":
            at.symlink_to(root / ".git/objects")
        else:
            (shutil.copytree if (root / ".git" / name).is_dir() else shutil.copy)(root / ".git" / name, at)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole/.git").symlink_to(root / ".git")
    for name in ("tree", "lent", "linked", "whole"):
        write(tmp_path / name, a=BODY + "x = 1\n")
        found = read(tmp_path / name, ("a.py", 4))
        assert (found.changed, found.touched) == ((), ()), name
        assert {each.path for each in found.omitted} == {"uncommitted changes", "last commits"}
    assert "another repository" in read(tmp_path / "lent").omitted[0].reason
    assert "elsewhere" in read(tmp_path / "tree").omitted[0].reason


def test_a_linked_object_is_missing(root: Path, tmp_path: Path) -> None:
    """One object of another repository, by a link among our own, is not read."""
    other = repository(tmp_path / "other")
    commit(other, "private", a="the other's secret\n")
    blob = git(other, "rev-parse", "HEAD:a.py").strip()
    place = root / ".git/objects" / blob[:2]
    place.mkdir(parents=True, exist_ok=True)
    (place / blob[2:]).symlink_to(other / ".git/objects" / blob[:2] / blob[2:])
    assert git(root, "cat-file", "blob", blob) == "the other's secret\n"
    commit(root, "first", b=BODY)
    with (
        Workspace(str(root)) as space,
        space.opened() as tree,
        pytest.raises(Unreadable, match="not in the repository"),
    ):
        Repository(tree, until=1, clock=lambda: 0).blob(blob)


def test_replaced_objects_and_grafts_change_nothing(root: Path) -> None:
    """What a commit is called is what it is."""
    first = commit(root, "Sum up", a=BODY)
    other = git(root, "commit-tree", "-m", "Another story", f"{first}^{{tree}}").strip()
    git(root, "replace", first, other)
    assert git(root, "log", "-1", "--format=%s").strip() == "Another story"
    assert [each.subject for each in read(root, ("a.py", 4)).touched] == ["Sum up"]


def test_the_time_for_it_is_bounded(root: Path) -> None:
    """What was not found in time is told; what was found stays."""
    commit(root, "Sum up", a=BODY)
    write(root, a=BODY + "x = 1\n")
    moments = count(0, 10)
    with Workspace(str(root)) as space:
        found = history.read(space, [("a.py", 4)], (), clock=lambda: next(moments))
    assert found.touched == ()
    assert {each.path for each in found.omitted} == {"uncommitted changes", "last commits"}
    assert all("in the time that there is for it" in each.reason for each in found.omitted)


@given(st.binary(max_size=40), st.integers(0, 10_000), st.sampled_from(["pack", "idx", "index", "loose", "HEAD"]))
def test_damaged_files_are_a_reason(tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, kind: str) -> None:
    """Whatever stands in git's files, the request goes on without them."""
    root = _sample(tmp_path_factory)
    place = {
        "pack": next((root / ".git/objects/pack").glob("*.pack")),
        "idx": next((root / ".git/objects/pack").glob("*.idx")),
        "index": root / ".git/index",
        "HEAD": root / ".git/HEAD",
        "loose": next((root / ".git/objects").glob("[0-9a-f][0-9a-f]/*")),
    }[kind]
    before = place.read_bytes()
    place.chmod(0o600)
    try:
        place.write_bytes(before[: at % len(before)] + junk + before[at % len(before) + len(junk) :])
        found = read(root, ("a.py", 4), ("b.py", 1))
        assert all(each.reason for each in found.omitted)
        render(found, str, 10_000, len)
    finally:
        place.write_bytes(before)


_SAMPLES: dict[str, Path] = {}


def _sample(factory: pytest.TempPathFactory) -> Path:
    if "" not in _SAMPLES:
        if shutil.which("git") is None:
            pytest.skip("needs git")
        root = repository(factory.mktemp("sample") / "code")
        for number in range(4):
            commit(root, f"n{number}", day=number, a=BODY * (number + 1), b=f"{number}\n")
        git(root, "repack", "-adq")
        commit(root, "loose", a=BODY + "y = 1\n")
        write(root, a=BODY + "x = 1\n")
        _SAMPLES[""] = root
    return _SAMPLES[""]


def test_an_object_that_unfolds_to_too_much_is_refused(root: Path) -> None:
    """By the size that it says, and by the size that it has."""
    commit(root, "first", a=BODY)
    for number, head in enumerate((b"blob 300000000\0", b"blob 10\0")):
        place = root / ".git/objects/ab" / f"{number:038x}"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(zlib.compress(head + b"\0" * 3_000_000))
        with Workspace(str(root)) as space, space.opened() as tree, pytest.raises(Unreadable, match="too large"):
            Repository(tree, until=1, clock=lambda: 0).blob(f"ab{number:038x}")


def test_no_read_is_begun_after_the_time(opened: Repository) -> None:
    """Every object is asked for through the same door."""
    opened.until = -1
    with pytest.raises(Late):
        opened.blob("ab" * 20)


def _loose(root: Path, name: str, kind: bytes, content: bytes) -> None:
    """Put an object under a name that is not its hash: nobody but git itself looks."""
    place = root / ".git/objects" / name[:2] / name[2:]
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.write_bytes(zlib.compress(kind + b" %d\0" % len(content) + content))


@pytest.mark.parametrize(
    "kind", ["a tree that holds itself", "trees without number", "a commit that is its own parent"]
)
def test_a_history_without_an_end_has_one(root: Path, kind: str) -> None:
    """Objects may lead back to themselves: no hash is computed, so the time and the depth are what ends it."""
    commit(root, "Sum up", a=BODY)
    head, tree, blob = (git(root, "rev-parse", each).strip() for each in ("HEAD", "HEAD^{tree}", "HEAD:a.py"))
    parent = b"parent %s\n" % head.encode() if "commit" in kind else b""
    file = b"100644 a.py\0" + bytes.fromhex(blob)
    if "itself" in kind:
        tree = "ab" * 20
        _loose(root, tree, b"tree", file + b"40000 d\0" + bytes.fromhex(tree))
    elif "number" in kind:
        names = [f"{number:040x}" for number in range(1, 60)]
        for name, below in pairwise(names):
            _loose(root, name, b"tree", b"".join(b"40000 %c\0" % each + bytes.fromhex(below) for each in b"de"))
        _loose(root, names[-1], b"tree", file)
        tree = names[0]
    person = b"a <a@b> 1700000000 +0000\n"
    written = b"tree %s\n%sauthor %scommitter %s\nGo round\n" % (tree.encode(), parent, person, person)
    _loose(root, head, b"commit", written)
    moments = count(0)
    with Workspace(str(root)) as space:
        found = history.read(space, [("a.py", 4)], (), clock=lambda: next(moments) / 10_000)
    if "itself" not in kind:
        assert "in the time that there is for it" in found.omitted[0].reason
    assert all(each.path.count("/") < 64 for each in found.changed)


def test_a_tree_that_leads_up_is_not_followed(root: Path) -> None:
    """Git itself makes no such tree. A frame may name the same place: by the path of a file given in the request."""
    (root.parent / "outside.py").write_text(BODY)
    commit(root, "Sum up", a=BODY)
    head, blob = (git(root, "rev-parse", each).strip() for each in ("HEAD", "HEAD:a.py"))
    above, tree = "ab" * 20, "cd" * 20
    files = (b"100644 %s\0" % name + bytes.fromhex(blob) for name in (b"gone.py", b"outside.py"))
    _loose(root, above, b"tree", b"".join(files))
    _loose(root, tree, b"tree", b"40000 ..\0" + bytes.fromhex(above) + b"100644 a.py\0" + bytes.fromhex(blob))
    person = b"a <a@b> 1700000000 +0000\n"
    _loose(root, head, b"commit", b"tree %s\nauthor %scommitter %s\nUp\n" % (tree.encode(), person, person))
    found = read(root, ("../outside.py", 4))
    assert (found.changed, found.touched) == ((), ())


@pytest.mark.parametrize("kind", ["entries", "directories"])
def test_paths_in_an_index_do_not_grow_without_an_end(kind: str) -> None:
    """Both are given as what they add to the one before, so that a small file could mean more than memory holds."""
    many = 5_000
    trees = b"a\0-1 1\n" * many
    entries, more = (many, b"") if kind == "entries" else (0, b"TREE" + len(trees).to_bytes(4) + trees)
    data = b"".join(bytes(60) + min(length, 0xFFF).to_bytes(2) + b"\0a\0" for length in range(1, entries + 1))
    with pytest.raises(ValueError, match=r"paths are too long|directories are too deep"):
        git_index.tracked(b"DIRC" + (4).to_bytes(4) + entries.to_bytes(4) + data + more + bytes(20), 20)


@pytest.mark.parametrize("call", ["pread", "fstat"])
def test_a_disk_that_fails_under_git_s_files_is_a_reason(
    root: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk ends a job's try, to be made again when there is room: not for what only goes along."""
    commit(root, "Sum up", a=BODY)
    git(root, "repack", "-adq")
    write(root, a=BODY + "x = 1\n")
    real = getattr(os, call)

    def failing(fd: int, *more: int) -> object:
        if os.readlink(f"/proc/self/fd/{fd}").endswith((".idx", "/index")):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, *more)

    descriptors = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, call, failing)
    found = read(root, ("a.py", 4))
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert any("Input/output error" in each.reason for each in found.omitted)


# Differences


TEXT = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "d"]), max_size=14).map("".join)


@given(TEXT, TEXT)
def test_a_difference_turns_the_one_text_into_the_other(before: str, after: str) -> None:
    """Its hunks, applied to the first text, give the second; and every line that it calls the same is."""
    found = difference(before, after)
    made, moved = list(found.before), 0
    for rows in found.hunks():
        old = [row.text for row in rows if row.sign != "+"]
        new = [row.text for row in rows if row.sign != "-"]
        start = rows[0].before
        assert found.before[start : start + len(old)] == old
        made[start + moved : start + moved + len(old)] = new
        moved += len(new) - len(old)
    assert made == list(found.after)
    for line in range(1, len(found.after) + 1):
        was = found.origin(line)
        assert was is None or found.before[was - 1] == found.after[line - 1]


def test_secrets_are_hidden_before_texts_are_compared() -> None:
    """A line of a key without the lines that tell it for one is never taken for code."""
    key = "-----BEGIN KEY-----\n" + "".join(f"line{number}\n" for number in range(20)) + "-----END KEY-----\n"
    found = History("1" * 40, (Changed("a.py", key, key.replace("line10", "other") + "x = 1\n"),))

    def clean(text: str) -> str:
        return re.sub(
            r"-----BEGIN.*?END KEY-----", lambda match: "[hidden]" + "\n" * match[0].count("\n"), text, flags=re.S
        )

    ((extra,), _) = render(found, clean, 1_000, len)
    assert isinstance(extra, Extra)
    assert "line" not in extra.text
    assert "+x = 1" in extra.text
    assert changes.UNCOMMITTED not in extra.text
