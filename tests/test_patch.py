"""What an answer proposes is tried before anybody sees it, and comes as a patch that git takes as it stands."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cases
from delegated import syntax
from delegated.analysis import Edit, Fix, read
from delegated.context import Context
from delegated.patch import file_patch, hunks
from delegated.quotes import spans, spliced
from delegated.reach import never, second_look
from delegated.request import Request
from delegated.result import RequestRef, Result, to_markdown
from delegated.secrets import redact
from delegated.trial import tried

NAME = "OPENAI_DELEGATION_RESULT_k.patch"
LINES = "".join(f"line {number}\n" for number in range(1, 40))


def git_apply(root: Path, patch: str, *flags: str) -> subprocess.CompletedProcess[str]:
    (root / "the.patch").write_bytes(patch.encode())
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1", "LANG": "C.UTF-8"}
    command = ["git", "apply", *flags, "the.patch"]
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=30)


def applied(tmp: Path, path: str, before: str, changes: list[tuple[int, int, str]]) -> None:
    """Hold a patch against the real git: it is accepted, and makes exactly the bytes that the changes make."""
    file = tmp / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(before.encode())
    patch = file_patch(path, hunks(before, changes))
    checked = git_apply(tmp, patch, "--check")
    assert checked.returncode == 0, checked.stderr + patch
    done = git_apply(tmp, patch)
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == spliced(before, changes).encode()


# The form


@pytest.mark.parametrize(
    ("before", "edits"),
    [
        (LINES, [("line 5\n", "line five\n"), ("line 30\n", "")]),
        (LINES, [("line 5\n", "line five\n"), ("line 12\n", "a\nb\n")]),
        ("a\nb\nlast", [("last", "end")]),
        ("a\nb\nlast", [("last", "end\n")]),
        ("a\nb\nlast\n", [("last\n", "end")]),
        ("a\nb\nc\n", [("b\n", "b")]),
        ("a\nb\nc\nd\n", [("a\n", "a"), ("b\n", "b"), ("c\n", "c")]),
        ("a = 1\r\nb = 2\r\nc = 3\r\n", [("b = 2", "b = 3\r\nd = 4")]),
        ("a = 1\r\nb = 2\nc = 3\r\n", [("b = 2", "b = 3")]),
        ("x = 1\n", [("x = 1\n", "")]),
        ("x = 1", [("x = 1", "")]),
        ("ä = 'ü\u2028\x0c\x1c\x85 z'\nb\n", [("z", "日本")]),
        ("\ufeffa\nb\n", [("a", "c")]),
        ("a\n\n\nb\n", [("\n\n\n", "\n")]),
        ("-- a\n++ b\n", [("-- a", "-- c")]),
        ("", []),
    ],
)
def test_git_takes_the_patch_and_makes_the_same_bytes(
    tmp_path: Path, before: str, edits: list[tuple[str, str]]
) -> None:
    """No end of the last line, CRLF, lines that lose their end, what Python calls a line end and git does not."""
    changes = spans(before, edits)
    assert not isinstance(changes, str)
    if not changes:
        assert hunks(before, changes) == []
        return
    applied(tmp_path, "src/app.py", before, changes)


@pytest.mark.parametrize(
    "path", ["a b/my file.py", "naïve/日本.py", 'qu"ote.py', "tab\there.py", "back\\slash.py", "zero\u200bwidth.py"]
)
def test_every_name_that_a_file_can_have_is_written_as_git_reads_it(tmp_path: Path, path: str) -> None:
    """Blanks, letters of other scripts, quotes, control characters."""
    applied(tmp_path, path, "a\nb\n", [(0, 1, "c")])


def test_a_patch_applies_in_a_workspace_below_the_repository_s_root(tmp_path: Path) -> None:
    """Paths are from where git is run: the workspace need not be the root of the repository."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    below = tmp_path / "service"
    below.mkdir()
    applied(below, "app.py", "a\nb\n", [(0, 1, "c")])


@settings(max_examples=150)
@given(st.text("ab\n\r", max_size=60), st.data())
def test_any_changes_make_hunks_that_add_up(text: str, data: st.DataObject) -> None:
    """Played back line by line, the hunks make what the changes make."""
    marks = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    ends = zip(marks[::2], marks[1::2], strict=False)
    changes = [(start, end, data.draw(st.text("ab\n", max_size=4))) for start, end in ends]
    lines = text.split("\n")
    old = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    made, at = "", 0
    for hunk in hunks(text, changes):
        made += "".join(old[at : hunk.old])
        assert [row[1:] for row in hunk.rows if row[0] in " -"] == old[hunk.old : hunk.old + hunk.removed]
        kept = [row[1:] for row in hunk.rows if row[0] in " +"]
        assert (len(kept), made.count("\n")) == (hunk.added, hunk.new)
        made += "".join(kept)
        at = hunk.old + hunk.removed
    assert made + "".join(old[at:]) == spliced(text, changes)


# What a fix does to the syntax


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a = 1\n", "a = 2\n", True),
        ("a = 1\n", "a = (\n", False),
        ("a = (\n", "a = (1\n", None),
        ("a = 1\n", "a = '\\d'\n", True),
        ("\ufeffa = 1\n", "\ufeffa = 2\n", True),
        ("a = 1\n", "a = '\0'\n", False),
        ("a = 1\n", "a = " + "(" * 100_000, False),
        ("a = 1\n", "a = " + "-" * 100_000 + "1\n", False),
        ("a = 1\n", "a = 1" + "+1" * 50_000 + "\n", False),
        ("a = 1\n", "#" * 600_000, None),
    ],
)
def test_python_is_parsed_and_nothing_of_it_breaks_the_daemon(before: str, after: str, expected: bool | None) -> None:
    """What did not parse before is not held against an edit; depth and size are told, not suffered."""
    assert syntax.judge("a/b.py", before, after)[0] is expected


@pytest.mark.parametrize(
    ("path", "good", "better", "bad"),
    [
        ("a.js", "let a = 1;\n", "let a = [1];\n", "let a = [1;\n"),
        ("a.jsx", "let a = <b/>;\n", "let a = <c/>;\n", "let a = <c>;\n"),
        ("a.ts", "let a: number = 1;\n", "let a: string = '';\n", "let a: = 1;\n"),
        ("a.tsx", "let a = <b/>;\n", "let a: T = <c/>;\n", "let a = <b>;\n"),
        ("A.java", "class A { int a; }\n", "class A { long a; }\n", "class A { int a; \n"),
        ("a.go", "package a\nfunc b() {}\n", "package a\nfunc b() { c() }\n", "package a\nfunc b( {}\n"),
        ("a.rs", "fn a() {}\n", "fn a() -> u8 { 1 }\n", "fn a( {}\n"),
    ],
)
def test_other_languages_are_held_to_no_more_errors_than_before(path: str, good: str, better: str, bad: str) -> None:
    """A grammar that errs about a file errs before and after; only what is new counts."""
    pytest.importorskip("tree_sitter")
    assert syntax.judge(path, good, better) == (True, "")
    ok, why = syntax.judge(path, good, bad)
    assert ok is False
    assert why.startswith("it does not parse after it, as ")
    assert syntax.judge(path, bad, bad + "// x\n") == (True, "")


def test_nothing_is_said_of_a_language_that_nothing_here_reads() -> None:
    """No grammar, no word: neither that it parses nor that it was not looked at."""
    assert syntax.judge("a.rb", "a", "b(") == (None, "")
    assert syntax.judge("Makefile", "a", "b(") == (None, "")


def test_a_parser_that_fails_is_no_word_on_an_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grammars come from others, and of another age: what one raises must not cost the answer."""
    parsers = types.ModuleType("tree_sitter")
    parsers.Language = lambda pointer: pointer  # type: ignore[attr-defined]
    parsers.Parser = lambda language: [].index(language)  # type: ignore[attr-defined]
    grammar = types.ModuleType("tree_sitter_go")
    grammar.language = lambda: 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tree_sitter", parsers)
    monkeypatch.setitem(sys.modules, "tree_sitter_go", grammar)
    syntax._grammar.cache_clear()
    try:
        assert syntax.judge("a.go", "package a\n", "package b\n") == (
            None,
            "not parsed: Go cannot be read here (ValueError)",
        )
    finally:
        syntax._grammar.cache_clear()


def test_lines_that_are_all_alike_are_compared_at_once() -> None:
    """An answer may change two thousand equal lines: to pair each with each of the others would take minutes."""
    old, new = "a\n" * 2_000, "a\nb\n" * 1_000
    rows = [row for hunk in hunks(old, [(0, len(old), new)]) for row in hunk.rows]
    for signs, text in ((" -", old), (" +", new)):
        assert "".join(row[1:] for row in rows if row[0] in signs) == text


def fix(*edits: Edit, priority: int = 1) -> Fix:
    return Fix(priority, "Do it", edits[0].path if edits else "", edits, "", "", "")


Change = tuple[str, str, str]


def checked(sent: Mapping[str, str], *fixes: list[Change], context: Context | None = None) -> Result:
    """An answer with these fixes, each a list of (path, before, after), checked against what was sent."""
    context = context or Context(tuple(cases.excerpt(path, text) for path, text in sent.items()))
    rows = [
        cases.ANSWER["recommended_fixes"][0]
        | {"priority": number, "edits": [dict(zip(("path", "before", "after"), edit, strict=True)) for edit in edits]}
        for number, edits in enumerate(fixes, 1)
    ]
    found = read(cases.reply(cases.changed(recommended_fixes=rows)), cases.prompt(Request(issue="x"), context))
    return Result("answered", RequestRef("k", "r", "s", 1), "now", analysis=found)


def plain(parts: object) -> list[str]:
    return [text for _, text in parts]  # type: ignore[attr-defined]


def on(files: Mapping[str, bytes | str], made: Result, hide: Callable[[object], list[str]] = plain) -> Result:
    return tried(made, NAME, lambda path: files.get(path, "no such file"), hide)  # type: ignore[arg-type]


APP = "def total(items):\n    return sum(items) / len(items)\n\n\ndef first(items):\n    return items[0]\n"
EMPTY = ("app.py", "    return sum(items) / len(items)", "    return sum(items) / len(items) if items else 0")
NONE = ("app.py", "    return items[0]", "    return items[0] if items else None")
BROKEN = ("app.py", "    return items[0]", "    return items[0")


def test_an_edit_that_breaks_its_file_says_so_and_counts_as_none() -> None:
    """The page says it, the confidence falls with it, and the patch leaves it out."""
    good, bad = (on({"app.py": APP.encode()}, checked({"app.py": APP}, [each])) for each in (NONE, BROKEN))
    assert good.analysis is not None
    assert bad.analysis is not None
    (edit,) = bad.analysis.fixes[0].edits
    assert (edit.applies, edit.parses) == (True, False)
    assert "line 6" in edit.note
    assert good.analysis.confidence.score > bad.analysis.confidence.score
    assert bad.patch is None
    assert "parse" in bad.patch_notes[0]
    page = to_markdown(bad)
    assert "**the file does not parse any more**" in page
    assert "1 of 1 edits apply, 1 of them breaks the syntax" in page


def test_edits_of_one_fix_are_parsed_together() -> None:
    """One alone would break the file; both do not."""
    both = [("app.py", "sum(items)", "(sum(items)"), ("app.py", "len(items)", "len(items))")]
    found = checked({"app.py": APP}, both).analysis
    assert found is not None
    assert [edit.parses for edit in found.fixes[0].edits] == [True, True]


def test_a_file_sent_in_part_is_parsed_whole_when_it_is_still_the_same() -> None:
    """What was sent is a part; the workspace has the rest, if its hash is the receipt's."""
    whole = APP + "def last(items):\n    return items[0]\n"
    part = replace(cases.excerpt("app.py", APP, total=8), sha256=hashlib.sha256(whole.encode()).hexdigest())
    context = Context((part,))
    made = checked({}, [EMPTY], [NONE], context=context)
    assert made.analysis is not None
    assert [each.edits[0].parses for each in made.analysis.fixes] == [None, None]
    found = on({"app.py": whole.encode()}, made)
    assert found.analysis is not None
    once, twice = (each.edits[0] for each in found.analysis.fixes)
    assert (once.applies, once.parses) == (True, True)
    assert "checked against the whole" in once.note
    assert (twice.applies, twice.parses) == (False, None), "its text stands twice, which the part did not show"
    assert found.patch is not None
    assert found.patch.fixes == (1,)
    changed = on({"app.py": whole.encode() + b"#\n"}, made)
    assert changed.analysis is not None
    assert "only a part of this file was sent" in changed.analysis.fixes[0].edits[0].note


# Which fixes are in the patch


def test_fixes_that_go_together_are_one_patch(tmp_path: Path) -> None:
    """The first to be done comes first; what changes the same text as a fix before it is left out, with the reason."""
    clash = ("app.py", "sum(items) / len(items)", "mean(items)")
    made = on({"app.py": APP.encode()}, checked({"app.py": APP}, [EMPTY], [clash], [NONE], []))
    assert made.patch is not None
    assert (made.patch.name, made.patch.fixes, made.patch.files) == (NAME, (1, 3), ("app.py",))
    assert made.patch_notes == ("fix 2 is left out: app.py: it changes the same text as a fix before it",)
    (tmp_path / "app.py").write_text(APP)
    assert git_apply(tmp_path, made.patch.text).returncode == 0
    assert (tmp_path / "app.py").read_text() == APP.replace(*EMPTY[1:]).replace(*NONE[1:])
    assert f"`{NAME}` makes fixes 1 and 3, in `app.py`." in to_markdown(made)


def test_fixes_that_parse_alone_and_not_together_do_not_come_together() -> None:
    """Each was parsed by itself; the patch is parsed as a whole."""
    text = "a = [1]\nb = 2\n"
    one, two = ("app.py", "[1]", "[1, 'x']"), ("app.py", "b = 2", "b = 3")
    assert on({"app.py": text.encode()}, checked({"app.py": text}, [one], [two])).patch is not None
    text = "try:\n    a()\nexcept A:\n    b()\nfinally:\n    c()\n"
    one, two = ("app.py", "except A:\n    b()\n", ""), ("app.py", "finally:\n    c()\n", "")
    made = on({"app.py": text.encode()}, checked({"app.py": text}, [one], [two]))
    assert made.patch is not None
    assert made.patch.fixes == (1,)
    assert made.patch_notes == ("fix 2 is left out: app.py: it would not parse any more together with fix 1",)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (APP.encode() + b"# edited\n", "changed since it was sent"),
        ("no such file", "cannot be read now (no such file)"),
    ],
)
def test_a_file_that_is_another_one_now_is_not_patched(data: bytes | str, why: str) -> None:
    """The page says that it changed, and the patch is made against nothing else than what was sent."""
    made = on({"app.py": data}, checked({"app.py": APP}, [NONE]))
    assert made.analysis is not None
    assert made.analysis.fixes[0].edits[0].changed is True
    assert made.patch is None
    assert why in made.patch_notes[0]
    assert "but **the file changed since it was sent**" in to_markdown(made)


def test_half_a_character_is_in_no_patch() -> None:
    """JSON can write it and UTF-8 cannot: the patch would make another file than the answer says."""
    found = on({"a.txt": b"one\n"}, checked({"a.txt": "one\n"}, [("a.txt", "one", "t\ud800wo")]))
    assert found.patch is None
    assert found.patch_notes == ("fix 1 is left out: a.txt: an edit holds half a character, which no file can",)


def test_a_file_in_another_encoding_is_not_patched() -> None:
    """The JSON holds the patch as text: what is no UTF-8 could not stand in it byte for byte."""
    latin = APP.replace("total", "größe").encode("latin-1")
    excerpt = replace(cases.excerpt("app.py", latin.decode("latin-1")), sha256=hashlib.sha256(latin).hexdigest())
    made = on({"app.py": latin}, checked({}, [NONE], context=Context((excerpt,))))
    assert made.patch is None
    assert made.patch_notes == ("fix 1 is left out: app.py: it is not UTF-8",)


def test_without_an_edit_there_is_no_patch_and_the_reason_is_said() -> None:
    """Words are no patch."""
    made = on({}, checked({"app.py": APP}, []))
    assert (made.patch, made.patch_notes) == (None, ("no fix has an edit",))


# Secrets


SECRET = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"


def hidden(parts: object) -> list[str]:
    return list(redact(parts, seed="k")[0])  # type: ignore[arg-type]


def test_a_patch_holds_no_secret_of_the_lines_around_an_edit() -> None:
    """A line of context is a line of the original: with a secret in it there is no patch, far from it there is."""
    near = APP + f'TOKEN = "{SECRET}"\n'
    far = APP + "#\n" * 10 + f'TOKEN = "{SECRET}"\n'
    for text, fine in ((near, False), (far, True)):
        (clean,) = hidden([("app.py", text)])
        assert SECRET not in clean
        sent = replace(cases.excerpt("app.py", clean), sha256=hashlib.sha256(text.encode()).hexdigest())
        made = on({"app.py": text.encode()}, checked({}, [NONE], context=Context((sent,))), hidden)
        assert (made.patch is not None) is fine
        assert SECRET not in repr(made)
        assert fine or "hold a secret" in made.patch_notes[0]


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_edit_with_a_placeholder_does_not_apply(where: str) -> None:
    """In the file there stands something else, which is not put back by anybody."""
    place = "[REDACTED:github-token:3fa2b1-1]"
    text = f'TOKEN = "{place}"\nx = 1\n'
    edit = ("app.py", f'"{place}"', '"x"') if where == "before" else ("app.py", "x = 1", f'x = "{place}"')
    found = checked({"app.py": text}, [edit]).analysis
    assert found is not None
    assert not found.fixes[0].edits[0].applies
    assert "placeholder" in found.fixes[0].edits[0].note


@pytest.mark.parametrize(
    "said",
    [
        "[redacted:github-token:3fa2b1-1]", "[REDACTED:github-token:3fa2b1-1", "REDACTED:github-token:3fa2b1-1",
        "[REDACTED: github-token: 3fa2b1-1]", "\\u005bREDACTED:github-token:3fa2b1-1\\u005d",
        "[REDACTED:github-token]", "<Redacted:github-token>", "[HIDDEN:github-token:3FA2B1-1]", "{redacted:x}",
        "[REDACTED :github-token:3fa2b1-2]",
    ],
)  # fmt: skip
def test_an_edit_with_what_is_nearly_a_placeholder_does_not_apply(said: str) -> None:
    """A model that repeats one badly means the secret all the same, and it would be lost."""
    text = 'TOKEN = "[REDACTED:github-token:3fa2b1-1]"\nx = 1\n'
    found = checked({"app.py": text}, [("app.py", "x = 1", f'x = "{said}"')]).analysis
    assert found is not None
    assert not found.fixes[0].edits[0].applies
    assert "placeholder" in found.fixes[0].edits[0].note


def test_code_that_redacts_can_be_edited() -> None:
    """What stands in the file already may stand in the edit, and the word alone is no placeholder."""
    text = 'show("[redacted: name]")\nx = 1\n'
    for before, after in (
        ('show("[redacted: name]")', 'print("[redacted: name]")'),
        ("x = 1", 'x = "redacted: 3fa2b1 of them"  # redacted'),
    ):
        found = checked({"app.py": text}, [("app.py", before, after)]).analysis
        assert found is not None
        assert found.fixes[0].edits[0].applies, found.fixes[0].edits[0].note


# What is never edited


@pytest.mark.parametrize(
    "path",
    [
        ".gitignore", ".gitattributes", ".github/workflows/ci.yml", ".gitlab-ci.yml", ".vscode/tasks.json",
        ".cursor/rules", ".claude/settings.json", ".idea/x.xml", ".envrc", "lib/x.pth", "a/sitecustomize.py",
        ".GitHub/Workflows/x.yml", ".autonomous_runs/openai_delegations/x.md", ".delegated.yaml", ".env",
        "secrets/a.py", "CLAUDE.md", "Jenkinsfile", "sub/.husky/pre-commit", "drop/OPENAI_DELEGATION_REQUEST_x.md",
        "a/.git/config", "CLAUDE.local.md", ".gemini/settings.json", "a/.pdbrc", ".cargo/config.toml", ".Rprofile",
        "lefthook-local.yml", ".Dir-Locals.el", ".yarnrc.yml", ".bashrc", ".forgejo/workflows/x.yml", ".hg/hgrc",
        ".agents/skills/delegate/SKILL.md", "lefthook.toml", "lefthook.json", ".lefthook-local.toml", ".rvmrc",
        "AGENT.md", "QWEN.md", ".qwen/settings.json", "WARP.md", ".crush/init", "crush.json", ".crush.json",
        ".factory/droids/a.md", ".augment/rules/a.md", ".augment-guidelines", ".rules", "mcp.json", "a/MCP.json",
        ".lvimrc", "screwdriver.yaml", "bitrise.yml", "codemagic.yml", "codemagic.yaml", ".drone.yaml",
        ".travis.yaml", ".cirrus.star", "netlify.toml", "skills/x/SKILL.md", "copilot-instructions.md",
        "py.instructions.md", ".envrc.local", ".exrc.lua", ".pre-commit.yaml", ".huskyrc.js", ".lintstagedrc.js",
        ".ycm_extra_conf.py", ".luarc.json", ".ghci", ".iex.exs", ".pylintrc", ".Kilocode/rules/a.md", ".vimrc.local",
        ".rtx.toml", ".prek.toml", "sub/Agents.Override.md", ".mcp/servers.json",
    ],
)  # fmt: skip
def test_what_runs_by_itself_is_never_in_a_patch(path: str) -> None:
    """An answer may be talked into it by the code that it read."""
    assert never(path)
    made = on({path: b"a = 1\n"}, checked({path: "a = 1\n"}, [(path, "a = 1", "a = 2")]))
    assert made.patch is None
    assert never(path) in made.patch_notes[0]


@pytest.mark.parametrize(
    "path",
    [
        "./.github/x.yml", "a//.git/hooks/x", ".GIT/config", "GIT~1/config", ".git./config", ".git /config",
        ".git::$INDEX_ALLOCATION/config", "a\\.vscode\\tasks.json", ".v\u017fcode/tasks.json", "Claude.MD",
    ],
)  # fmt: skip
def test_no_way_of_writing_a_path_is_another_file(path: str) -> None:
    """In another letter case or composition, with dots, blanks, backslashes and streams as Windows reads them."""
    assert never(path)


@pytest.mark.parametrize(
    "path",
    [
        "src/profile.py", "docs/agents.md.py", "bash.py", "src/run/main.py", "settings.py", "agents/run.py", "rules.py",
        "lefthook.py", "mcp.py", "agent.py", "src/skills/a.md", "config/rules",
    ],
)  # fmt: skip
def test_what_is_only_named_alike_is_code(path: str) -> None:
    """A list that takes in too much would leave no edit."""
    assert never(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "conftest.py", "a/setup.py", "pyproject.toml", "Makefile", "bin/run.sh", "package.json", "vite.config.ts",
        ".eslintrc.cjs",
    ],
)  # fmt: skip
def test_what_runs_when_the_project_is_built_or_tested_is_marked(path: str) -> None:
    """It may be right, and a person looks at it twice."""
    assert never(path) is None
    assert second_look(path)
    made = on({path: b"a = 1\n"}, checked({path: "a = 1\n"}, [(path, "a = 1", "a = 2")]))
    assert made.patch is not None
    assert "**Look twice** before you apply it:" in to_markdown(made)
    assert "Look twice" not in to_markdown(on({"app.py": APP.encode()}, checked({"app.py": APP}, [NONE])))
