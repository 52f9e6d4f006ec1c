"""A comment that delegates is asked about once, and never where it came with the code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from delegated import blobs, remark
from delegated.cli import exits
from delegated.request import parse
from harness import PREFIX, House, until
from test_watch_command import known, snippet

Git = Callable[..., str]
SAID = "DELEGATE TO GPT-4O: why does this hang?"
WHY = "why does this hang?"


def ask(house: House, *arguments: str, code: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "delegated", "ask", *arguments],
        cwd=house.workspace,
        env=house.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout, done.stderr


def requests(house: House) -> list[Path]:
    return sorted(house.folder.glob(f"{PREFIX}REQUEST_*"))


# -- what a comment is --


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", f"x = f()  # {SAID}\n"),
        ("a.py", f"x = d['a'] + \"b\"  # {SAID}\n"),
        ("a.rs", f"fn a<'a>() {{}} // {SAID}\n"),
        ("a.js", f"/// {SAID}\n"),
        ("a.c", f"f(); /* {SAID} */ g();\n"),
        ("a.ts", f"/**\n * {SAID}\n */\n"),
        ("a.css", f"/* a\n   {SAID}\n*/\n"),
        ("a.sql", f"-- {SAID.lower()}\n"),
        ("a.lua", f"--[[ {SAID} ]]\n"),
        ("a.hs", f"{{- {SAID} -}}\n"),
        ("a.el", f";; {SAID}\n"),
        ("a.tex", f"% **{SAID}**\n"),
        ("a.html", f"<p><!-- {SAID} --></p>\n"),
        ("a.md", f"text\n\n<!-- {SAID} -->\n"),
        ("a.vue", f"<!-- {SAID} -->\n"),
        ("a.ml", f"(* {SAID} *)\n"),
        ("a.ps1", f"<# {SAID} #>\n"),
        ("a.vim", f'" {SAID}\n'),
        ("sub/Dockerfile", f"# {SAID}\r\n"),
        ("a.py", f"\ufeff# {SAID}\n".removeprefix("\ufeff")),
    ],
)
def test_a_comment_with_the_phrase_is_found(name: str, text: str) -> None:
    """In the forms of each language, with nothing of the comment's own marks in what is asked."""
    (found,) = remark.find(name, text)
    assert found.text.lower() == WHY
    assert "gpt" in text.splitlines()[found.line - 1].lower()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", f"{SAID}\n"),
        ("a.py", f'say("# {SAID}")\n'),
        ("a.py", f"say('# {SAID}')\n"),
        ("a.py", f"# > {SAID}\n"),
        ("a.py", "# DELEGATE TO GPT-4O:\n"),
        ("a.py", f"# we say {SAID}\n"),
        ("a.py", f"x = a#b {SAID}\n"),
        ("a.js", f"# {SAID}\n"),
        ("a.js", f"/* a */\n{SAID}\n"),
        ("a.md", f"```html\n<!-- {SAID} -->\n```\n"),
        ("a.md", f"# {SAID}\n"),
        ("a.txt", f"# {SAID}\n"),
        ("noending", f"# {SAID}\n"),
    ],
)
def test_nothing_else_is(name: str, text: str) -> None:
    """Not the phrase in code, in a string, behind `>`, in a fence, within a sentence, or in another language."""
    assert remark.find(name, text) == ()


def test_a_comment_goes_on_below() -> None:
    """Over the lines that continue it, to the next one that delegates; its own text has no marks."""
    text = f"if x:\n    # {SAID}\n    #\n    # It began on Monday.\n    # {SAID} Again?\n    y()\n# no\n"
    first, second = remark.find("a.py", text)
    assert (first.line, first.end, first.text) == (2, 4, f"{WHY}\n\nIt began on Monday.")
    assert (second.line, second.end, second.text) == (5, 5, f"{WHY} Again?")
    (block,) = remark.find("a.c", f"/*\n * {SAID}\n * Since Monday. */\nint x;\n")
    assert (block.line, block.end, block.text) == (2, 3, f"{WHY}\nSince Monday.")


def test_an_id_is_made_of_the_file_and_the_words() -> None:
    """It is the same at another line and with other white space, another in another file, and always an id."""
    from delegated.folder import request_id

    keys = {remark.key("src/a.py", remark.Remark(line, line, "why\n  so")) for line in (1, 9)}
    keys.add(remark.key("src/a.py", remark.Remark(3, 3, "why so")))
    (key,) = keys
    assert remark.key("src/b.py", remark.Remark(1, 1, "why so")) != key
    for path in ("a/ä ö.py", "x" * 300, ".hidden", "\udce9\n.md", "-.sh", "a.json"):
        found = request_id(f"{PREFIX}REQUEST_{remark.key(path, remark.Remark(1, 1, 'x'))}.md")
        assert found is not None


def test_a_file_of_any_shape_takes_no_time() -> None:
    """A megabyte made to be slow is looked through, and no more of them are found than a person writes."""
    for piece in ("# ", "/*", "<!-- ", "// delegate to gpt ", f"# {SAID}\n", "\n", '"', "DELEGATE TO GPT-4O: "):
        for name in ("a.py", "a.js", "a.md", "a.vue"):
            assert len(remark.find(name, piece * ((64 << 10) // len(piece)))) <= 20
    # Each opening of a line costs what is left of it: no person's line has half a million.
    assert remark.find("a.js", "/*" * 500_000 + " DELEGATE TO GPT-4O: x") == ()


# -- what git has --


def keep(house: House, git: Git, kind: str) -> None:
    """Have git keep the content of `app.py` in a certain way."""
    if kind == "loose":
        git("add", "app.py")
    elif kind in ("packed", "deltas", "no delta offsets", "version 4"):
        lines = [f"{each**9 % 99_991}\n" for each in range(2_000)]
        for number in range(8):
            lines[number * 200] = "".join(f"{each**number % 99_991}" for each in range(200)) + "\n"
            (house.workspace / "app.py").write_text("".join(lines))
            git("add", "app.py")
            git("commit", "-qm", "x")
        git("-c", f"repack.useDeltaBaseOffset={'false' if kind == 'no delta offsets' else 'true'}", "repack", "-adq")
        if kind == "version 4":
            git("update-index", "--index-version", "4")


@pytest.mark.parametrize("kind", ["loose", "deltas", "no delta offsets", "version 4"])
def test_what_is_staged_is_read_as_git_reads_it(kind: str, house: House, git: Git) -> None:
    """Loose or packed, whole or as a delta upon deltas: byte for byte, at every commit."""
    keep(house, git, kind)
    path = house.workspace / "app.py"
    if kind == "loose":
        assert blobs.staged(str(path)) == path.read_bytes()
        return
    for commit in git("rev-list", "HEAD").split():
        git("checkout", "-q", commit, "--", "app.py")
        assert blobs.staged(str(path)) == path.read_bytes()
    (pack,) = (house.workspace / ".git" / "objects" / "pack").glob("*.idx")
    assert "chain length = 3" in git("verify-pack", "-v", str(pack)), "there are deltas upon deltas"
    path.write_text("edited")
    assert blobs.staged(str(path)) != path.read_bytes()


def test_a_worktree_a_link_and_a_file_that_git_does_not_have(house: House, git: Git) -> None:
    """A worktree's objects lie elsewhere; what nobody added is None, as it is where there is no repository."""
    git("add", "app.py")
    git("commit", "-qm", "x")
    git("worktree", "add", "-q", str(house.tmp / "other"))
    assert blobs.staged(str(house.tmp / "other" / "app.py")) == (house.workspace / "app.py").read_bytes()
    (house.workspace / "new.py").write_text("x")
    assert blobs.staged(str(house.workspace / "new.py")) is None
    (house.outside / "a.py").write_text("x")
    assert blobs.staged(str(house.outside / "a.py")) is None
    (house.tmp / "link").symlink_to(house.workspace)
    assert blobs.staged(str(house.tmp / "link" / "app.py")) is not None
    assert blobs.busy(str(house.workspace)) == ""
    (house.workspace / ".git" / "index.lock").touch()
    assert blobs.busy(str(house.workspace)).endswith("index.lock")


def test_what_cannot_be_read_is_unknown(house: House, git: Git) -> None:
    """An object that is not here, damaged, too large or in conflict: an answer would be a guess."""
    path = house.workspace / "app.py"
    git("add", "app.py")
    git("commit", "-qm", "x")
    (loose,) = [each for each in (house.workspace / ".git/objects").glob("??/*") if _is_blob(each)]
    good = loose.read_bytes()
    loose.chmod(0o644)
    for bad in (good[:20], b"", zlib.compress(b"blob 5\0abc"), zlib.compress(b"tree 3\0abc"), b"x" * 99):
        loose.write_bytes(bad)
        with pytest.raises(blobs.Unknown):
            blobs.staged(str(path))
    loose.unlink()
    with pytest.raises(blobs.Unknown, match="not in the repository"):
        blobs.staged(str(path))
    loose.write_bytes(good)
    path.write_text("x" * 300_000)
    git("add", "app.py")
    with pytest.raises(blobs.Unknown, match="too large"):
        blobs.staged(str(path))
    path.write_text("ours\n")
    git("commit", "-qam", "y")
    git("checkout", "-qb", "b", "HEAD~1")
    path.write_text("theirs\n")
    git("commit", "-qam", "z")
    with pytest.raises(AssertionError):
        git("merge", "-q", "master" if "master" in git("branch") else "main")
    with pytest.raises(blobs.Unknown, match="conflict"):
        blobs.staged(str(path))


def _is_blob(path: Path) -> bool:
    return zlib.decompress(path.read_bytes()).startswith(b"blob")


def test_a_hostile_pack_is_refused(house: House, git: Git) -> None:
    """Every byte of a pack and of its index may be another one: it is read, or it is unknown, and nothing else."""
    keep(house, git, "deltas")
    git("checkout", "-q", git("rev-list", "HEAD").split()[-1], "--", "app.py")
    path = str(house.workspace / "app.py")
    for file in (house.workspace / ".git/objects/pack").glob("pack-*"):
        good = file.read_bytes()
        file.chmod(0o644)
        for at in range(0, len(good), max(1, len(good) // 150)):
            file.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
            try:
                blobs.staged(path)
            except blobs.Unknown:
                pass
        file.write_bytes(good)


# -- delegate ask --comment --


def test_a_new_comment_is_asked_once(house: House, git: Git) -> None:
    """It becomes a request about its file and place; saved again, moved or committed it asks nothing."""
    path = house.workspace / "src" / "app.py"
    path.parent.mkdir()
    path.write_text(f"# {SAID} Old.\nx = 1\n")
    git("add", "src/app.py")
    git("commit", "-qm", "x")
    assert ask(house, "--comment", "src/app.py") == ("", "")
    path.write_text(f"# {SAID} Old.\nx = 1  # {SAID}\n")
    out, err = ask(house, "--comment", "src/app.py")
    assert "no daemon" in err
    (name,) = requests(house)
    assert name.name == f"{PREFIX}REQUEST_{out.strip()}.md"
    said = parse(name.read_bytes(), ".md")
    assert (said.issue, said.files) == (WHY, ("src/app.py",))
    assert said.context.startswith("src/app.py:2: note: ")
    before = name.stat()
    path.write_text(f"\n\n# {SAID} Old.\nx = 1  # {SAID}\n")
    for _ in range(2):
        out, err = ask(house, "--comment", str(path))
        assert (out, "asked already" in err) == ("", True)
    assert (requests(house), name.stat()) == ([name], before)
    name.unlink()
    git("commit", "-qam", "y")
    assert ask(house, "--comment", "src/app.py") == ("", "")
    assert requests(house) == []


def test_the_answer_comes_as_always_and_the_file_stays(house: House) -> None:
    """With the real daemon; what was answered is not asked again, also where REQUEST and RESULT were deleted."""
    house.up()
    path = house.workspace / "app.py"
    path.write_text(f"{path.read_text()}# DELEGATE TO GPT-4O: total([]) raises ZeroDivisionError\n")
    before = path.read_bytes(), path.stat().st_mtime_ns
    (told,) = json.loads(ask(house, "--comment", "app.py", "--json")[0])
    until(lambda: os.path.exists(told["result"]), what="the RESULT")
    assert json.loads(Path(told["result"]).read_text())["status"] == "answered"
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    for each in house.folder.glob(f"{PREFIX}*"):
        each.unlink(missing_ok=True)  # a STATUS goes by itself
    assert ask(house, "--comment", "app.py", "--quiet") == ("", "")
    assert not requests(house)


def test_what_was_cloned_asks_nothing(house: House, git: Git) -> None:
    """A comment that a repository brings, in any number and also by a later pull, is not what its user says."""
    upstream = house.tmp / "upstream"
    git("clone", "-q", str(house.workspace), str(upstream))
    for number in range(3):
        (upstream / "a.py").write_text(f"# {SAID} {number}\n" * (number + 1))
        git("add", "a.py", cwd=upstream)
        git("commit", "-qm", "x", cwd=upstream)
        git("pull", "-q", str(upstream), "HEAD")
        assert ask(house, "--comment", "a.py") == ("", "")
    assert requests(house) == []


@pytest.mark.parametrize(
    "kept",
    [b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", b"\0GITCRYPT\0\x01\xff\xfe"],
    ids=["a pointer", "a cipher"],
)
def test_what_a_filter_brings_asks_nothing(house: House, git: Git, kept: bytes) -> None:
    """Git LFS puts a file in the place of what git has: the comments in it are the repository's all the same."""
    path = house.workspace / "app.py"
    path.write_bytes(kept)
    git("add", "app.py")
    path.write_text(f"# {SAID}\n")
    _, err = ask(house, "--comment", "app.py", code=exits.UNHEALTHY)
    assert "cannot be told" in err
    assert requests(house) == []


@pytest.mark.parametrize("where", [".gitattributes", "src/.gitattributes"])
def test_what_git_writes_in_another_encoding_asks_nothing(house: House, git: Git, where: str) -> None:
    """What git has is a text of ideographs; written as the repository wants it, its bytes are a comment that asks."""
    upstream = house.tmp / "upstream"
    git("clone", "-q", str(house.workspace), str(upstream))
    (upstream / "src").mkdir()
    (upstream / where).write_text("*.py working-tree-encoding=UTF-16LE\n")
    text = f"# {SAID}\n"
    (upstream / "src/a.py").write_text(text + "\n" * (len(text) % 2))
    git("add", ".", cwd=upstream)
    git("commit", "-qm", "x", cwd=upstream)
    git("pull", "-q", str(upstream), "HEAD")
    assert SAID in (house.workspace / "src/a.py").read_text()
    assert SAID not in git("show", "HEAD:src/a.py")
    _, err = ask(house, "--comment", "src/a.py", code=exits.UNHEALTHY)
    assert "another encoding" in err
    assert requests(house) == []


def test_where_it_cannot_be_told_nothing_is_asked(house: House, git: Git) -> None:
    """A repository without the object (a partial clone): said, with the way to ask all the same."""
    path = house.workspace / "app.py"
    git("add", "app.py")
    path.write_text(f"# {SAID}\n")
    for each in (house.workspace / ".git/objects").glob("??/*"):
        each.unlink()
    _, err = ask(house, "--comment", "app.py", code=exits.UNHEALTHY)
    assert "cannot be told" in err
    assert requests(house) == []
    ask(house, "--at", "app.py:1", "--no-wait")
    assert len(requests(house)) == 1


def test_only_where_somebody_has_set_it_up(house: House) -> None:
    """An editor calls it on every save: in a file elsewhere, or in many comments at once, nothing is asked."""
    (house.outside / "a.py").write_text(f"# {SAID}\n")
    _, err = ask(house, "--comment", str(house.outside / "a.py"), code=exits.ABSENT)
    assert "delegate init" in err
    assert os.listdir(house.outside) == ["a.py"]
    (house.outside / "a.py").write_text("x = 1\n")
    assert ask(house, "--comment", str(house.outside / "a.py")) == ("", "")
    (house.workspace / "link.py").symlink_to(house.outside / "b.py")
    (house.outside / "b.py").write_text(f"# {SAID}\n")
    ask(house, "--comment", "link.py", code=exits.ABSENT)
    ask(house, "--comment", "link.py", "--workspace", ".", code=exits.USAGE)
    ask(house, "--comment", "gone.py", code=exits.USAGE)
    ask(house, "--comment", "app.py", "--issue", "x", code=exits.USAGE)
    assert "nothing is looked for" in ask(house, "--comment", _made(house, "a.txt", f"# {SAID}\n"))[1]
    many = "".join(f"# {SAID} {number}\n" for number in range(remark.MANY + 1))
    assert "no person's" in ask(house, "--comment", _made(house, "many.py", many), code=exits.USAGE)[1]
    assert requests(house) == []


def _made(house: House, name: str, text: str) -> str:
    (house.workspace / name).write_text(text)
    return name


def test_a_place_is_asked_about(house: House) -> None:
    """`--at FILE:LINE`: with the issue given, or with what the comment there asks, whoever wrote it."""
    (house.workspace / "app.py").write_text(f"x = 1\n# {SAID}\n# Since Monday.\n")
    ask(house, "--at", "app.py:1", "--issue", "it hangs", "--context", "more", "--id", "a", "--no-wait")
    said = parse(house.request("a").read_bytes(), ".md")
    assert (said.issue, said.files) == ("it hangs", ("app.py",))
    assert said.context == "app.py:1: note: this is what is asked about\n\nmore"
    out, _ = ask(house, "--at", "app.py:3", "--no-wait")
    said = parse(house.request(out.strip()).read_bytes(), ".md")
    assert (said.issue, said.context) == (f"{WHY}\nSince Monday.", "app.py:2: note: this is what is asked about")
    assert "asked already" in ask(house, "--comment", "app.py")[1]
    for wrong in ("app.py", "app.py:0", "app.py:x", ":3", "gone.py:1", "../outside/a.py:1"):
        ask(house, "--at", wrong, "--issue", "x", "--no-wait", code=exits.USAGE)
    assert "there is no file nope.py" in ask(house, "--at", "nope.py:3", "--no-wait", code=exits.USAGE)[1]
    assert "--issue is missing" in ask(house, "--at", "app.py:1", "--no-wait", code=exits.USAGE)[1]
    assert len(requests(house)) == 2


# -- editors --


def test_the_tasks_of_vs_code_are_commands_that_are_there() -> None:
    """Each is JSON, and its command one of ours."""
    tasks = json.loads(snippet("jsonc"))
    assert len(tasks) == 2
    for task in tasks:
        known([task["command"], *task["args"]])


def test_saving_in_vim_asks(house: House, need: Callable[[str], str]) -> None:
    """The autocmd of the page in the real Vim: `:w` drops the request, once; for other files nothing is started."""
    vim, home = need("vim"), Path(house.env["HOME"])
    (home / ".vim" / "plugin").mkdir(parents=True)
    (home / ".vim" / "plugin" / "delegate.vim").write_text(snippet("vim", 1))
    programs, calls = house.tmp / "bin", house.tmp / "calls"
    programs.mkdir()
    program = programs / "delegate"
    program.write_text(f'#!/bin/sh\n"{sys.executable}" -P -m delegated "$@"\necho "$?" "$@" >> "{calls}"\n')
    program.chmod(0o755)
    script = house.tmp / "script.vim"
    script.write_text(
        "edit other.py\ncall setline(1, 'x = 1')\nwrite\n"
        f"edit app.py\ncall append(2, '# {SAID}')\nwrite\nsleep 100m\nwrite\nqall!\n"
    )
    env = house.env | {"PATH": f"{programs}{os.pathsep}{house.env['PATH']}", "TERM": "dumb", "SHELL": "/bin/sh"}
    arguments = ["-N", "-es", "-u", "NONE", "-i", "NONE", "--cmd", f"set rtp^={home}/.vim"]
    subprocess.run(
        [vim, *arguments, "-c", "runtime plugin/delegate.vim", "-S", str(script)],
        cwd=house.workspace,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    until(lambda: calls.exists() and len(calls.read_text().splitlines()) == 2, what="both calls ended")
    path = (house.workspace / "app.py").resolve()
    assert calls.read_text().splitlines() == [f"0 ask --comment {path} --quiet"] * 2
    (name,) = requests(house)
    assert parse(name.read_bytes(), ".md").issue == WHY
