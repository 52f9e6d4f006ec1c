"""The pieces of `delegate ci`: the name of a failure, the part of a log that tells, a diff, what CI systems read."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ci_runner import read_outputs
from delegated.cli import changes, failure, scans, terminal, workflow
from delegated.cli.findings import Finding
from delegated.fingerprint import fingerprint, masked
from delegated.folder import ID

TRACE = """\
2025-11-28T13:37:58.1234567Z Traceback (most recent call last):
  File "/home/runner/work/shop/shop/src/shop/billing.py", line 41, in total
    return prices[key]
  File "/usr/lib/python3.11/collections/__init__.py", line 1004, in __getitem__
    raise KeyError(key)
KeyError: 'order 4711 of 2025-11-28 in /tmp/x1/orders.db'
"""


def name(log: str, root: str = "/home/runner/work/shop/shop") -> str:
    found = fingerprint(log, root)
    assert found is not None
    return found.key


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("line 41", "line 57"),
        ("4711", "12"),
        ("/tmp/x1/orders.db", "/tmp/pytest-of-ci/y.db"),
        ("2025-11-28", "2026-01-02"),
        ("/usr/lib/python3.11/", "/opt/hostedtoolcache/Python/3.13.1/x64/lib/python3.13/"),
        ("line 1004, in __getitem__", "line 1010, in __missing__"),
        ("2025-11-28T13:37:58.1234567Z ", ""),
    ],
)
def test_the_same_failure_has_the_same_name(old: str, new: str) -> None:
    """Lines, numbers, paths, dates, quoted values and library code do not make it another failure."""
    assert name(TRACE.replace(old, new)) == name(TRACE)
    assert old in TRACE


@pytest.mark.parametrize(
    ("old", "new"), [("KeyError:", "ValueError:"), ("in total", "in tax"), ("shop/billing.py", "shop/cart.py")]
)
def test_another_failure_has_another_name(old: str, new: str) -> None:
    """The type of the error, the function and the module make it another one."""
    assert old in TRACE
    assert name(TRACE.replace(old, new)) != name(TRACE)


def test_a_name_is_the_same_on_every_machine() -> None:
    """Where the code is checked out does not matter, be it said or not, on Windows too."""
    here = TRACE.replace("/home/runner/work/shop/shop", "/builds/team/shop")
    assert name(here, "/builds/team/shop") == name(TRACE)
    windows = TRACE.replace("/home/runner/work/shop/shop/src/shop/", "D:\\a\\shop\\shop\\src\\shop\\")
    assert name(windows, "D:\\a\\shop\\shop") == name(TRACE)
    assert name(here, "/elsewhere") == name(TRACE, "/nowhere")


def test_a_name_is_a_requests_id_and_says_its_version() -> None:
    """It can be a request's id, and another way of making names makes other names."""
    assert ID.fullmatch(name(TRACE))
    found = fingerprint(TRACE)
    assert found is not None
    assert found.key.startswith("ci1-")
    assert found.parts[0] == "version 1"
    assert found.title == "KeyError: 'order 4711 of 2025-11-28 in /tmp/x1/orders.db'"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("src/a.c:3:5: error: 'x' undeclared", "src/a.c:9:1: error: 'y' undeclared", True),
        ("src/a.c:3:5: error: 'x' undeclared", "src/b.c:3:5: error: 'x' undeclared", False),
        ("npm ERR! code 1\ncould not resolve host db-1", "npm ERR! code 2\ncould not resolve host db-2", True),
        ("could not resolve host", "could not open file", False),
        ("FAILED t.py::test_a[1-2] - assert 1 == 2", "FAILED t.py::test_a[3-4] - assert 3 == 4", True),
        ("FAILED t.py::test_a - assert 1 == 2", "FAILED t.py::test_b - assert 1 == 2", False),
        ("nothing to see", "nothing to hear", False),
        ("could not open file", "could not open file\n##[error]Process completed with exit code 1.", True),
        ("KeyError: 1", "KeyError: 1\nError: Process completed with exit code 2.", True),
    ],
)
def test_a_failure_without_a_trace(first: str, second: str, same: bool) -> None:
    """Of a log without an exception the lines that tell of a failure count, else its last ones."""
    assert (name(first) == name(second)) is same


def test_a_log_that_says_nothing_has_no_name() -> None:
    """White space is no failure."""
    assert fingerprint(" \n\t\n") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("can't open 'a b' and \"c\"", "can't open <value> and <value>"),
        ("at 13:37:58.5 on 2025-11-28T13:37:58Z", "at <time> on <time>"),
        (
            "commit 08072e2e95 of 3c4d5e6f-0000-4000-8000-1234567890ab at 0xdeadbeef",
            "commit <hash> of <hash> at <hash>",
        ),
        ("/var/lib/x.db and C:\\x\\y.txt and https://a.example/b?c=1", "<path> and <path> and <path>"),
        ("took 1.5 s, 1,000 rows, exit 137", "took <number> s, <number> rows, exit <number>"),
        ("decade facade", "decade facade"),
    ],
)
def test_what_is_masked(text: str, told: str) -> None:
    """Quoted values, times, hashes, paths and numbers become a word."""
    assert masked(text) == told


@pytest.mark.parametrize("text", ["/" * 200_000, "'" * 200_000, "a.b/" * 50_000, "0x" + "f" * 200_000, "1,1." * 50_000])
def test_a_name_takes_no_time_that_a_stranger_chooses(text: str) -> None:
    """Each of these is one long line, and read within the test's time limit."""
    assert fingerprint(f"ValueError: {text}\nfailed: {text}") is not None


# Logs


def test_a_short_log_goes_whole() -> None:
    """Nothing is cut from what fits."""
    assert failure.around("a\nb\n\n", 100) == "a\nb"


def test_a_long_log_keeps_its_end_or_its_failure() -> None:
    """The end is kept; where the failure stands before it, that is kept with what is around it. What is cut is said."""
    lines = [f"step {number}" for number in range(10_000)]
    end = failure.around("\n".join(lines), 1_000)
    assert end.startswith("[… 9,")
    assert end.endswith("step 9999")
    lines[5_000] = "ValueError: here"
    both = failure.around("\n".join(lines), 1_000)
    assert "step 4999\nValueError: here\nstep 5001" in both
    assert both.endswith("step 9999")
    assert both.count("lines left out") == 2
    left = sum(int(part.split(" lines")[0].replace(",", "")) for part in both.split("[… ")[1:])
    assert left + both.count("\n") + 1 - 2 == 10_000
    assert len(both) < 1_100


def test_one_endless_line_is_cut() -> None:
    """A log of one line is not more than the room either."""
    assert len(failure.around("x" * 1_000_000, 5_000)) <= 5_000


def test_logs_are_read_as_people_read_them(tmp_path: Path) -> None:
    """Colours, the runner's time stamps and `gh run view`'s columns go; UTF-16 is read; what cannot be read is said."""
    log = tmp_path / "a.log"
    log.write_text("test\tRun pytest\t2025-11-28T13:37:58.1234567Z \x1b[31mKeyError: 1\x1b[0m\n")
    wide = tmp_path / "b.log"
    wide.write_bytes("Fehler: größer\r\n".encode("utf-16"))
    empty = tmp_path / "c.log"
    empty.write_text("\n")
    os.mkfifo(tmp_path / "pipe")
    paths = [str(tmp_path / each) for each in ("a.log", "b.log", "c.log", "none.log", "pipe")]
    found, troubles, unread = failure.logs(paths)
    assert unread == paths[3:]
    assert [text for _, text in found] == ["KeyError: 1\n", "Fehler: größer\n"]
    assert [trouble.rpartition("/")[2] for trouble in troubles] == [
        "c.log is empty",
        "none.log cannot be read: No such file or directory",
        "pipe cannot be read: it is no regular file",
    ]


# Diffs


@pytest.fixture
def checkout(tmp_path: Path, need: Callable[[str], str]) -> Callable[..., str]:
    """A checkout with two commits; call it to run git there."""
    program = need("git")
    root = tmp_path / "checkout"
    root.mkdir()

    def git(*arguments: str) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
        env |= {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in NAMES.items()}
        done = subprocess.run([program, *arguments], cwd=root, env=env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    (root / "app.py").write_text("a = 1\n")
    (root / ".env").write_text("KEY=one\n")
    git("add", "-f", ".")
    git("commit", "-q", "-m", "first")
    (root / "app.py").write_text("a = 2\n")
    (root / "größe.py").write_text("b = 1\n")
    (root / ".env").write_text("KEY=hunter22\n")
    git("add", "-f", ".")
    git("commit", "-q", "-m", "second")
    return git


NAMES = {"NAME": "Ada", "EMAIL": "ada@example.com"}
ENV = {"PATH": os.environ["PATH"]}


def test_a_diff_goes_without_what_is_never_sent(tmp_path: Path, checkout: Callable[..., str]) -> None:
    """What was changed since the base, but nothing of an environment file."""
    about = changes.commit(str(tmp_path / "checkout"), "HEAD^1", ENV)
    assert (about.author, about.trouble) == ("Ada", "")
    diff = changes.fitted(about.diff)
    assert "-a = 1\n+a = 2\n" in diff.text
    assert "+b = 1\n" in diff.text
    assert "hunter22" not in diff.text
    assert diff.left_out == (".env: environment files hold secrets and are never sent",)


def test_nothing_that_a_checkout_names_is_run(tmp_path: Path, checkout: Callable[..., str]) -> None:
    """No fsmonitor, external diff, text conversion, hook, pager or alias of the checkout; and no `git` in it."""
    root = tmp_path / "checkout"
    bait = root / "git"
    bait.write_text(f"#!/bin/sh\ntouch {tmp_path}/caught\ncat\n")
    bait.chmod(0o755)
    for key in (
        "core.fsmonitor",
        "diff.external",
        "diff.bait.textconv",
        "diff.bait.command",
        "core.pager",
        "pager.diff",
    ):
        checkout("config", key, str(bait))
    checkout("config", "alias.diff", f"!{bait}")
    checkout("config", "core.hooksPath", str(root))
    (root / ".gitattributes").write_text("* diff=bait\n")
    (root / "post-index-change").write_bytes(bait.read_bytes())
    env = {"PATH": os.pathsep.join([str(root), ".", "", os.environ["PATH"]])}
    about = changes.commit(str(root), "HEAD^1", env)
    assert "+a = 2" in about.diff
    assert not (tmp_path / "caught").exists()
    os.rename(bait, tmp_path / "bait")
    bait.symlink_to(tmp_path / "bait")  # a link counts by where it is, too
    assert "+a = 2" in changes.commit(str(root), "HEAD^1", env).diff
    assert not (tmp_path / "caught").exists()
    subprocess.run(
        ["git", "diff", "HEAD^1"], cwd=root, env=ENV | {"HOME": str(tmp_path)}, capture_output=True, timeout=30
    )
    assert (tmp_path / "caught").exists(), "the bait is one"


@pytest.mark.parametrize("lure", ["alternates", "objects", "one object", "refs", "one ref"])
def test_no_other_repository_is_borrowed_from(tmp_path: Path, checkout: Callable[..., str], lure: str) -> None:
    """Whatever in the checkout leads there: the story of a private one is in no diff that goes along."""
    root, other = tmp_path / "checkout", tmp_path / "private"
    checkout("clone", "-q", f"file://{root}", str(other))
    for number in range(2):
        (other / "app.py").write_text(f"a = 'private {number}'\n")
        checkout("-C", str(other), "commit", "-q", "-a", "-m", "private")
    theirs, ours = other / ".git", root / ".git"
    (ours / "refs/heads/main").write_text((theirs / "refs/heads/main").read_text())
    if lure != "objects":
        (ours / "objects/info/alternates").write_text(f"{theirs / 'objects'}\n")
    if lure in ("objects", "refs"):
        os.rename(ours / lure, tmp_path / "former")
        (ours / lure).symlink_to(theirs / lure)
    elif lure == "one ref":
        (ours / "refs/heads/main").unlink()
        (ours / "refs/heads/main").symlink_to(theirs / "refs/heads/main")
    elif lure == "one object":
        (ours / "objects/info/alternates").unlink()
        for each in (theirs / "objects").glob("??/*"):
            (ours / "objects" / each.parent.name).mkdir(exist_ok=True)
            if not (ours / "objects" / each.parent.name / each.name).exists():
                (ours / "objects" / each.parent.name / each.name).symlink_to(each)
    assert "private" in checkout("diff", "HEAD^1"), "the lure is one"
    about = changes.commit(str(root), "HEAD^1", ENV)
    assert (about.diff, about.author) == ("", "")
    assert "nothing is read there" in about.trouble


def test_a_pipe_in_the_place_of_head_holds_nobody_up(tmp_path: Path, checkout: Callable[..., str]) -> None:
    """It is opened as a file that may be none."""
    head = tmp_path / "checkout/.git/HEAD"
    head.unlink()
    os.mkfifo(head)
    assert changes.commit(str(tmp_path / "checkout"), "HEAD^1", ENV).trouble


def test_the_checkout_is_left_as_it_is(tmp_path: Path, checkout: Callable[..., str]) -> None:
    """Borrowing its objects writes nothing into it."""
    root = tmp_path / "checkout"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert changes.commit(str(root), "HEAD^1", ENV).diff
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_of_a_merge_the_pushed_commit_counts(tmp_path: Path, checkout: Callable[..., str]) -> None:
    """On a pull request the runner checks out a merge: its second parent was pushed, its first is the base."""
    checkout("checkout", "-q", "-b", "topic", "HEAD^1")
    (tmp_path / "checkout" / "new.py").write_text("c = 1\n")
    checkout("add", "new.py")
    checkout("commit", "-q", "-m", "third", "--author", "dependabot[bot] <d@example.com>")
    checkout("checkout", "-q", "main")
    checkout("merge", "-q", "--no-ff", "-m", "merge", "topic")
    root = str(tmp_path / "checkout")
    about = changes.commit(root, "HEAD^1", ENV | {"GITHUB_EVENT_NAME": "pull_request"})
    assert about.author == "dependabot[bot]"
    assert "+c = 1" in about.diff
    assert "+a = 2" not in about.diff
    assert changes.commit(root, "HEAD^1", ENV).author == "Ada"


def test_a_base_that_is_not_there(tmp_path: Path, checkout: Callable[..., str]) -> None:
    """A shallow clone says what to do; a directory without git says so; an option is no commit."""
    root = tmp_path / "checkout"
    assert "fetch-depth" in changes.commit(str(root), "origin/main", ENV).trouble
    checkout("clone", "-q", "--depth", "1", f"file://{root}", str(tmp_path / "shallow"))
    shallow = changes.commit(str(tmp_path / "shallow"), "HEAD^1", ENV)
    assert (shallow.author, shallow.diff) == ("Ada", "")
    assert "fetch-depth" in shallow.trouble
    assert "is no git repository" in changes.commit(str(tmp_path), "HEAD^1", ENV).trouble
    with pytest.raises(changes.Usage):
        changes.commit(str(root), "--output=/tmp/x", ENV)


def test_a_diff_that_somebody_made() -> None:
    """Quoted names are read; a file that cannot be told from a forbidden one takes the whole diff with it."""
    name = "\\303\\244/.env"
    quoted = f'diff --git "a/{name}" "b/{name}"\n--- "a/{name}"\n+++ "b/{name}"\n@@ -1 +1 @@\n-a\n+b\n'
    assert changes.fitted(quoted) == changes.Diff("", ("ä/.env: environment files hold secrets and are never sent",))
    plain = "--- app.py\n+++ app.py\n@@ -1 +1 @@\n-a\n+b\n"
    assert changes.fitted(plain).text == plain
    hidden = "--- .env\n+++ .env\n@@ -1 +1 @@\n--- x\n+++ y\n@@ -9 +9 @@\n+SECRET=1\n"
    assert changes.fitted(plain + hidden).text == ""
    unnamed = "diff --git a/x b/x\n@@ -1 +1 @@\n-a\n+b\n"
    assert changes.fitted(unnamed) == changes.Diff("", ("a change to a file whose name cannot be read",))


def _side(path: str, line: str, *, head: str = "", time: str = "") -> str:
    return f"{head}--- {path}{time}\n+++ {path}{time}\n@@ -1 +1 @@\n-x\n+{line}\n"


@pytest.mark.parametrize(
    "hidden",
    [
        _side("new/.npmrc", "SECRET", time="\t2026-01-02 00:00:00.000000000 +0000"),
        _side("new/.npmrc", "SECRET", time="\t2026-01-02 00:00:00.00 +0000", head="diff -ru old/.npmrc new/.npmrc\n"),
        _side("b/credentials", "SECRET", time="\tFri Jan 02 00:00:00 1970 +0000", head="diff -r 0123 credentials\n"),
        _side("deploy/server.key", "SECRET", time="\t(revision 7)", head=f"Index: deploy/server.key\n{'=' * 67}\n"),
        _side("server.key", "SECRET", head="=== modified file 'server.key'\n", time="\t2026-01-02 00:00:00 +0000"),
        _side('"new/\\303\\244/.env"', "SECRET", time="\t2026-01-02 00:00:00 +0000"),
        _side(".env", "SECRET", time=" 2026-01-02 00:00:00"),
        _side("old\\deploy\\.env", "SECRET"),
        _side("/srv/shop/.autonomous_runs/openai_delegations/OPENAI_DELEGATION_RESULT_a.md", "SECRET"),
        "--- notes.txt\n+++ .env\n@@ -0,0 +1 @@\n+SECRET\n",
        "--- .env\n+++ /dev/null\n@@ -1 +0,0 @@\n-SECRET\n",
        "--- /dev/null\n+++ /dev/null\n@@ -1 +0,0 @@\n-SECRET\n",
        '--- "app.py\n+++ "app.py\n@@ -1 +0,0 @@\n-SECRET\n',
        "Only in deploy: server.key\n@@ -1 +0,0 @@\n-SECRET\n",
        "Binary files a/server.key and b/server.key differ\n@@ -1 +0,0 @@\n-SECRET\n",
        "Index: app.py\n@@ -1 +0,0 @@\n-x\n-SECRET\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("by_git", [False, True])
def test_no_form_of_a_diff_brings_what_is_never_sent(hidden: str, by_git: bool) -> None:
    """Whatever program wrote it, and whatever stands before it: each change is its own file's, by both its names."""
    before = _side("a/app.py", "kept", head="diff --git a/app.py b/app.py\n" if by_git else "")
    for diff in (hidden, before + hidden, before + hidden + before):
        assert "SECRET" not in changes.fitted(diff).text
        assert changes.fitted(diff.replace("\n", "\r\n")).text.count("SECRET") == 0


def test_a_diff_of_a_merge_is_taken_apart() -> None:
    """`git show` of one has other headers, and a mark for each parent; in a log both kinds stand side by side."""

    def merged(path: str, line: str, kind: str = "cc") -> str:
        head = f"diff --{kind} {path}\nindex 1,2..3\n--- a/{path}\n+++ b/{path}\n"
        return f"{head}@@@ -1,2 -1,3 +1,3 @@@\n  a\n- x\n -y\n+ \n++{line}\n"

    log = "commit 0123456789abcdef\nAuthor: Ada\n\n    -- a subject\n\n"
    for kind in ("cc", "combined"):
        diff = log + merged("src/app.py", "kept", kind) + merged("secrets/.env", "SECRET", kind)
        plain = _side("a/.npmrc", "SECRET", head="diff --git a/.npmrc b/.npmrc\n")
        found = changes.fitted(diff + "\n" + log + plain + log + merged("src/b.py", "kept too", kind))
        assert found.text == merged("src/app.py", "kept", kind) + merged("src/b.py", "kept too", kind)
        assert [each.partition(":")[0] for each in found.left_out] == ["secrets/.env", ".npmrc"]


def test_no_line_of_a_file_is_a_header() -> None:
    """A hunk has as many lines as it says: what looks like a name among them is none, and with others it is no hunk."""
    head = "diff --git a/.env b/.env\n--- a/.env\n+++ b/.env\n"
    forged = "@@ -1 +1 @@\n--- app.py\n+++ app.py\n@@ -9 +9 @@\n-x\n+SECRET\n"
    assert changes.fitted(head + forged).text == ""
    for wrong in ("@@ -1,3 +1 @@\n-x\n", "@@ -1 +1 @@ \n*x\n", "@@@ -1 +1 @@@\n"):
        found = changes.fitted(head.replace(".env", "app.py") + wrong + forged.removeprefix("@@ -1 +1 @@\n"))
        assert found == changes.Diff("", ("app.py: it cannot be told where its changes end",))


def test_what_git_itself_makes_of_merges_is_read(tmp_path: Path, checkout: Callable[..., str]) -> None:
    """Its counts of the lines of a merge are held to: nothing of an ordinary one is taken for broken."""
    file = tmp_path / "checkout" / "app.py"
    for branch, text in (("one", "1\n2 one\n3\n"), ("two", "1\n2 two\n3\n4"), ("main", "2 main\n\n3\n")):
        checkout("checkout", "-q", "-B", branch, "main~1" if branch != "main" else "main")
        file.write_text(text)
        checkout("commit", "-q", "-a", "-m", branch)
    checkout("merge", "-q", "-s", "ours", "-m", "merge", "one", "two")
    file.write_text("2 merged\n\n\\ 3\n5")
    checkout("commit", "-q", "-a", "--amend", "-m", "merge")
    for options in (["--cc"], ["-c", "--combined-all-paths"], ["--cc", "-U0"]):
        found = changes.fitted(checkout("show", *options, "HEAD"))
        assert "+++2 merged\n" in found.text
        assert found.left_out == ()


def test_what_is_no_diff_is_not_sent() -> None:
    """Nothing in it belongs to a file that can be judged; it is said that it was left out."""
    for text in ("1c1\n< x\n---\n> SECRET\n", "*** .env\tx\n--- .env\tx\n***************\n*** 1 ****\n! SECRET\n"):
        found = changes.fitted(text)
        assert found.text == ""
        assert found.left_out[0].startswith("all of it: ")


def test_a_large_diff_keeps_what_the_trace_names() -> None:
    """The changes of files in the trace go first; those without room are named."""

    def change(path: str, lines: int) -> str:
        return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -0,0 +1,{lines} @@\n" + "+x\n" * lines

    diff = changes.fitted(change("uv.lock", 300) + change("src/app.py", 5), {"/builds/src/app.py"}, room=600)
    assert "src/app.py" in diff.text
    assert diff.left_out == ("uv.lock: there is no room for its change of 977 characters",)


# What runners obey


@pytest.mark.parametrize(
    "text",
    [
        "::error::x",
        "a\n  ::set-output name=a::b",
        "\u3000::warning::x",
        "\t::debug::x",
        "a\r::add-mask::x",
        "a\u2028::stop-commands::x",
        "x ##[error]y",
        "###[group]x",
        "##vso[task.setvariable variable=a]b",
        ":::notice::x",
        "\x1b[0m::error::x",
    ],
)
def test_no_text_is_a_command(text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said under a runner holds no command, in whichever line and after whichever blank."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    terminal.out(text)
    terminal.say(text)
    terminal.out_json({"text": text})
    said = capsys.readouterr()
    for line in (said.out + said.err).replace("\r", "\n").split("\n"):
        assert not line.strip().startswith("::")
        assert "##[" not in line
        assert "##vso[" not in line
        assert "\x1b" not in line
    value = said.out[said.out.index("{\n") :]
    assert json.loads(value) == {"text": text}


def test_elsewhere_text_stays() -> None:
    """Without such a runner nobody obeys it, and it is data."""
    assert terminal.tame("a::b # [x] #1 std::vec") == "a::b # [x] #1 std::vec"


def test_annotations_are_escaped() -> None:
    """No value ends its place: percent, line breaks, in properties also colon and comma."""
    mean = workflow.Annotation("warning", "100%\r\n::error::x", "a:b,c\n::", "src/a,b:c%.py", 3, 5)
    (line,) = workflow.commands([mean])
    assert line == (
        "::warning file=src/a%2Cb%3Ac%25.py,line=3,endLine=5,title=a%3Ab%2Cc%0A%3A%3A::100%25%0D%0A::error::x"
    )
    assert workflow.commands([workflow.Annotation("notice", "x")]) == ["::notice::x"]


def test_no_more_annotations_than_are_shown() -> None:
    """Ten of each level."""
    many = [workflow.Annotation(level, str(n)) for n in range(30) for level in workflow.LEVELS]
    lines = workflow.commands(many)
    assert len(lines) == 30
    assert lines[-1] == "::notice::9"


def test_an_output_sets_no_other(tmp_path: Path) -> None:
    """A value with line breaks, an equals sign or a delimiter of its own is one value."""
    values = {"a": "1\nb=2\nEOF\n", "c": "x<<EOF\ny", "d": ""}
    assert read_outputs(workflow.outputs(values)) == values
    assert workflow.outputs(values) != workflow.outputs(values), "a delimiter cannot be guessed"


def test_a_page_is_held_to_the_limit(tmp_path: Path) -> None:
    """A page above 1 MiB, with what stands there already, is cut at a line, its block closed, and that is said."""
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    text = "# Title\n\n````text\n" + "größer ```\n" * 200_000
    workflow.summarize(str(summary), text, "The whole page: x.md")
    data = summary.read_bytes()
    assert len(data) <= workflow.SUMMARY
    assert len(data) > workflow.SUMMARY * 0.99
    shown = data.decode("utf-8")
    assert shown.startswith("before\n# Title\n")
    kept, _, told = shown.rpartition("````\n\n")
    assert kept.endswith("größer ```\n")
    cut = len(text.encode()) - len(kept.removeprefix("before\n").encode())
    assert (
        told == f"**This page is cut: {cut:,} of {len(text.encode()):,} bytes are not shown.** The whole page: x.md\n"
    )
    workflow.summarize(str(summary), text, "The whole page: x.md")
    assert len(summary.read_bytes()) <= workflow.SUMMARY
    assert workflow.page("short", 100, "") == "short"


# Findings

FOUND = (
    Finding("cause", "src/a b%.py", 3, 5, "it divides by zero", "high"),
    Finding("cause", "src/a b%.py", 30, 30, "it also adds", "low"),
    Finding("fix", "größe.py", 7, 7, "fix: look first", ""),
)
# The published schema has no package that could be installed beside ours; with its path in SARIF_SCHEMA it counts too.
SARIF = json.loads((Path(__file__).parent / "sarif_subset.schema.json").read_text("utf-8"))


def check_sarif(log: dict[str, Any]) -> None:
    """Hold a SARIF log to the schema, and to what a schema cannot say."""
    jsonschema.validate(log, SARIF)
    if path := os.environ.get("SARIF_SCHEMA"):
        published = json.loads(Path(path).read_text("utf-8"))
        jsonschema.validators.validator_for(published)(published).validate(log)
    for run in log["runs"]:
        rules = run["tool"]["driver"]["rules"]
        for result in run["results"]:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
            region = result["locations"][0]["physicalLocation"]["region"]
            assert region["endLine"] >= region["startLine"]


@pytest.mark.parametrize("found", [FOUND, ()], ids=("three", "none"))
def test_findings_as_sarif(found: tuple[Finding, ...]) -> None:
    """Each finding is a result at its place; paths are URIs; its fingerprint stays when lines move."""
    log = scans.sarif(found, "ci1-x", answered=True)
    check_sarif(log)
    results = log["runs"][0]["results"]
    paths = [each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in results]
    assert [urllib.parse.unquote(path) for path in paths] == [each.path for each in found]
    marks = [each["partialFingerprints"]["delegatedFailure/v1"] for each in results]
    assert len(set(marks)) == len(found)
    lower = tuple(Finding(f.kind, f.path, f.line + 9, f.end_line + 9, f.text, f.confidence) for f in found)
    moved = scans.sarif(lower, "ci1-x", answered=True)["runs"][0]["results"]
    assert [each["partialFingerprints"]["delegatedFailure/v1"] for each in moved] == marks


def test_no_finding_links_to_where_a_model_would_lead() -> None:
    """SARIF takes `[words](address)` in a message for a link."""
    found = (Finding("fix", "a.py", 1, 1, "fix: see [the advisory](https://example.org) and x[0](y)", "high"),)
    (result,) = scans.sarif(found, "ci1-x", answered=True)["runs"][0]["results"]
    assert result["message"]["text"] == "fix: see [the advisory] (https://example.org) and x[0] (y) [high]"


def test_findings_for_gitlab() -> None:
    """The keys that GitLab requires; severities of its five; fingerprints that differ."""
    report = scans.code_quality(FOUND, "ci1-x")
    for entry, finding in zip(report, FOUND, strict=True):
        assert set(entry) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert entry["location"] == {"path": finding.path, "lines": {"begin": finding.line, "end": finding.end_line}}
        assert all(isinstance(entry[key], str) and entry[key] for key in ("description", "check_name", "fingerprint"))
    assert [entry["severity"] for entry in report] == ["major", "minor", "info"]
    assert len({entry["fingerprint"] for entry in report}) == len(FOUND)
