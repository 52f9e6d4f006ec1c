"""`init --agent` merges into what is there, twice the same as once, and takes out exactly what it put in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from delegated.agents import NAMES, hosts, jsonc, merging, texts
from delegated.cli import exits, main
from harness import House
from test_cli_init import tree

OURS = {".autonomous_runs/agents.json", ".autonomous_runs/delegate_to_openai.py", ".delegated.yaml", ".gitignore"}
MINE = '{"type": "command", "command": "./guard.sh"}'
# (file, bytes): what people have, each in his own way.
CASES: dict[str, tuple[str, bytes]] = {
    "comments before ours": (".codex/hooks.json", b'{"hooks": {"Stop": [1 // a\n , // b\n 2 // c\n]}, "x": 1 // d\n}'),
    "empty object": (".claude/settings.json", b"{}"),
    "empty object, lines": (".claude/settings.json", b"{\n}\n"),
    "empty file": (".claude/settings.json", b""),
    "blank file": (".claude/settings.json", b"\n\n"),
    "other keys, no final newline": (".claude/settings.json", b'{\n  "z": 1,\n  "a": {"b": []}\n}'),
    "CRLF": (".claude/settings.json", b'{\r\n\t"model": "x",\r\n\t"hooks": {}\r\n}\r\n'),
    "one line": (".claude/settings.json", b'{"hooks": {"Stop": [{"hooks": [%b]}]}, "x": [1, 2]}' % MINE.encode()),
    "hooks of others": (
        ".claude/settings.json",
        b'{\n    "hooks": {\n        "UserPromptSubmit": [\n            {"hooks": [%b]}\n        ],\n'
        b'        "PreToolUse": []\n    },\n    "permissions": {"allow": ["Bash(git:*)"]}\n}\n' % MINE.encode(),
    ),
    "comments": (
        ".vscode/tasks.json",
        b'// mine\n{\n  "version": "2.0.0", // "tasks": [\n  /* { */ "tasks": [\n    {\n'
        b'      "label": "build", // first\n      "command": "make \\"all\\" // no comment"\n'
        b"    } // last\n    // end\n  ] // tasks\n}\n// done",
    ),
    "trailing commas": (
        ".vscode/tasks.json",
        b'{\n  "tasks": [\n    {"label": "a",},\n  ],\n  "version": "2.0.0",\n}\n',
    ),
    "only comments inside": (".vscode/tasks.json", b"{\n  // nothing yet\n}\n"),
    "a block comment alone": (".vscode/tasks.json", b'{"tasks": [/* none */]}'),
    "byte order mark": (".vscode/tasks.json", b'\xef\xbb\xbf{\r\n  "tasks": []\r\n}\r\n'),
    "another version": (".cursor/hooks.json", b'{"version": 2, "hooks": {"stop": [{"command": "./mine.sh"}]}}\n'),
    "escapes": (".codex/hooks.json", '{"ho\\u006fks": {"Stop": [], "ü": "\\ud83d"}}'.encode()),
    "AGENTS.md": ("AGENTS.md", b"# Rules\n\n- be kind\n"),
    "AGENTS.md, no final newline": ("AGENTS.md", b"# Rules\n\n- be kind"),
    "AGENTS.md, CRLF": ("AGENTS.md", b"# Rules\r\n\r\n- be kind\r\n"),
    "AGENTS.md, Latin-1": ("AGENTS.md", b"# R\xe9gles\n"),
    "AGENTS.md, empty": ("AGENTS.md", b""),
    "CLAUDE.md": ("CLAUDE.md", b"@AGENTS.md\n\n\n"),
}


def put(house: House, path: str, data: bytes) -> Path:
    file = house.workspace / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def foreign(house: House) -> dict[str, bytes]:
    return {name: data for name, data in tree(house.workspace).items() if name not in OURS and "openai_del" not in name}


@pytest.fixture(autouse=True)
def at_home(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run in this process, as this house's user, in its workspace."""
    for name, value in house.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(house.workspace)


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsysbinary: pytest.CaptureFixture[bytes]) -> Call:
    """Run `delegate init` with flags; return its exit code, output and talk."""

    def calling(*flags: str) -> tuple[int, str, str]:
        try:
            code = main(["init", *flags])
        except SystemExit as left:
            code = int(str(left.code))
        out, err = capsysbinary.readouterr()
        return code, out.decode(), err.decode()

    return calling


@pytest.fixture
def init(call: Call) -> Callable[..., str]:
    """Run `delegate init` where it has to end well; return its output."""

    def calling(*flags: str) -> str:
        code, out, err = call(*flags)
        assert code == 0, err
        return out

    return calling


def merged(path: str, data: bytes | None, note: merging.Note | None = None) -> tuple[bytes, merging.Note | None]:
    return merging.merged(file_of(path), data, note)


def file_of(path: str) -> texts.File:
    return next(file for file in texts.FILES if file.path == path)


@pytest.mark.parametrize("case", CASES)
def test_what_is_put_in_comes_out_again(case: str) -> None:
    """To the byte, with what we remember and, for JSON, nearly always without; a second time changes nothing."""
    path, before = CASES[case]
    file = file_of(path)
    after, note = merging.merged(file, before, None)
    assert note is not None
    assert not note.made
    assert after != before
    assert merging.merged(file, after, note) == (after, None)
    assert merging.merged(file, after, None) == (after, None)
    assert merging.parted(file, after, note) == before
    if file.kind == "json":
        node = jsonc.parse(after.decode())
        assert not jsonc.additions(after.decode(), file.wanted)
        there = jsonc.parse(before.decode()).value if before.strip() else {}
        assert [*node.value][: len(there)] == [*there]
    rest = merging.parted(file, after, None)
    assert rest is not None
    assert b"delegate hook" not in rest
    assert texts.BEGIN.encode() not in rest
    if file.kind == "json" and rest.strip():
        jsonc.parse(rest.decode())


@pytest.mark.parametrize("case", CASES)
def test_foreign_bytes_stay_in_their_order(case: str) -> None:
    """Only pieces are put in between: without them the text is what it was."""
    path, before = CASES[case]
    after, note = merged(path, before)
    assert note is not None
    kept = iter(after.decode("utf-8", "surrogateescape"))
    assert all(char in kept for char in before.decode("utf-8", "surrogateescape"))
    assert b"\r\n" not in before or not re.search(rb"(?<!\r)\n", after)


def test_the_whole_way_there_and_back(house: House, init: Callable[..., str]) -> None:
    """All agents, in a workspace that has some of their files: there, there again, and back as it was."""
    for path, data in CASES.values():
        put(house, path, data)
    before = foreign(house)
    said = init("--agent", "all")
    assert said.count("made") + said.count("changed") >= len(texts.FILES)
    once = tree(house.workspace)
    for host in NAMES:
        (file,) = (file for file in texts.FILES if file.kind == "json" and file.wanted == hosts.entries(host))
        assert f"delegate hook {host} || exit 0" in once[file.path].decode()
    assert "changed" not in init("--agent", "all")
    assert tree(house.workspace) == once
    init("--uninstall", "--agent", "all")
    assert foreign(house) == before
    assert not (house.workspace / ".autonomous_runs" / "agents.json").exists()


def test_nothing_stays_where_nothing_was(house: House, init: Callable[..., str]) -> None:
    """Files and directories that were made for us go; one into which somebody put a file of his own stays."""
    init()
    before = sorted(str(path) for path in house.workspace.rglob("*"))
    init("--agent", "claude", "--agent", "vscode", "--agent", "claude")
    mine = put(house, ".claude/skills/mine.md", b"mine")
    init("--agent", "all", "--uninstall")
    assert sorted(str(path) for path in house.workspace.rglob("*")) == sorted(
        [*before, *map(str, (mine, mine.parent, mine.parent.parent))]
    )


def test_one_agent_goes_and_another_stays(house: House, init: Callable[..., str]) -> None:
    """A file that two agents read goes with the last of them."""
    init("--agent", "codex", "--agent", "cursor")
    init("--uninstall", "--agent", "cursor")
    left = foreign(house)
    assert {".codex/hooks.json", "AGENTS.md", ".agents/skills/delegate/SKILL.md"} <= {*left}
    assert not [name for name in left if name.startswith(".cursor")]
    init("--uninstall", "--agent", "codex")
    assert [*foreign(house)] == ["app.py"]


def test_what_was_edited_since_is_kept(house: House, init: Callable[..., str], call: Call) -> None:
    """Edits around our part stay, our part goes; a file of ours that was edited is left to its editor."""
    put(house, ".claude/settings.json", b'{"a": 1}')
    init("--agent", "claude")
    settings = house.workspace / ".claude" / "settings.json"
    value = json.loads(settings.read_text())
    value["hooks"]["UserPromptSubmit"].insert(0, {"hooks": [json.loads(MINE)]})
    value["hooks"]["Stop"][0]["hooks"].append(json.loads(MINE))
    settings.write_text(json.dumps(value, indent=4))
    page = house.workspace / "CLAUDE.md"
    page.write_text(f"# Mine\n\n{page.read_text()}\nmore\n")
    skill = house.workspace / ".claude" / "skills" / "delegate" / "SKILL.md"
    skill.write_text(skill.read_text() + "mine\n")
    code, _, err = call("--uninstall", "--agent", "claude")
    assert code == 78
    assert "SKILL.md: left as it is: it was changed since it was made" in err
    assert json.loads(settings.read_text()) == {
        "a": 1,
        "hooks": {"UserPromptSubmit": [{"hooks": [json.loads(MINE)]}], "Stop": [{"hooks": [json.loads(MINE)]}]},
    }
    assert page.read_text() == "# Mine\n\n\nmore\n"


def test_an_older_version_of_ours_is_replaced() -> None:
    """Entries, a block and a whole file as an earlier version wrote them become those of this one, once."""
    for file in texts.FILES:
        old = texts.File(file.path, file.agents, file.kind, file.wanted)
        if file.kind == "json":
            wanted = json.loads(json.dumps(file.wanted).replace("|| exit 0", "").replace("DELEGATE", "delegate"))
            if "tasks" in wanted:
                wanted["tasks"][0]["args"] = ["ask"]
        else:
            wanted = file.wanted.replace("three failed", "two failed")
        old = texts.File(file.path, file.agents, file.kind, wanted)
        base = None if file.kind == "whole" else b"{}" if file.kind == "json" else b"# Rules\n"
        before, note = merging.merged(old, base, None)
        after, new = merging.merged(file, before, note)
        assert new is not None
        assert after == merging.merged(file, base, None)[0]
        assert merging.parted(file, after, new) == base
        if file.kind != "whole":
            assert merging.merged(file, before, None)[0].count(b"delegate hook") == after.count(b"delegate hook")


@pytest.mark.parametrize("lost", [texts.END, texts.BEGIN])
@pytest.mark.parametrize("flags", [[], ["--uninstall"]])
def test_a_block_that_lost_a_mark_takes_no_words_of_others(
    lost: str, flags: list[str], house: House, init: Callable[..., str], call: Call
) -> None:
    """As a merge resolved by hand leaves it: the file is left and its line named, until the mark is there again."""
    init("--agent", "claude", "--agent", "codex")
    block = file_of("CLAUDE.md").wanted
    torn = f"# Rules\n\n{block.replace(lost, '')}\n## Deploy rules\n\nNever on Friday.\n\n"
    for path, text, line in (
        ("CLAUDE.md", torn + block, 3 if lost == texts.END else block.count("\n") + 2),
        ("AGENTS.md", torn, 3 if lost == texts.END else block.count("\n") + 2),
    ):
        page = put(house, path, text.encode())
        code, _, err = call("--agent", "all", *flags)
        assert code == 78
        assert f"{path}: left as it is: line {line}: this mark lacks its `" in err
        assert page.read_text() == text
    put(house, "CLAUDE.md", f"{block}\n## Mine\n\n{block}".encode())
    put(house, "AGENTS.md", b"")
    init("--agent", "all", *flags)
    assert (house.workspace / "CLAUDE.md").read_text().count(texts.BEGIN) == (0 if flags else 1)
    assert "\n## Mine\n\n" in (house.workspace / "CLAUDE.md").read_text()


BY_HAND: dict[str, tuple[str, str]] = {
    "a task of the page, shown otherwise": (".vscode/tasks.json", '"always"'),
    "a hook with a limit of its own": (".claude/settings.json", "delegate hook claude --timeout 30"),
    "a hook by its path": (".cursor/hooks.json", "/opt/bin/delegate hook cursor"),
}


def by_hand(case: str) -> tuple[str, bytes]:
    path, own = BY_HAND[case]
    if "tasks" in path:
        page = (Path(__file__).parent.parent / "docs" / "editors.md").read_text("utf-8")
        return path, page.partition("```json\n")[2].partition("\n```")[0].replace('"never"', own).encode()
    event, each = ("stop", {"command": own}) if "cursor" in path else ("Stop", {"hooks": [{"command": own}]})
    return path, json.dumps({"hooks": {event: [each]}}).encode()


@pytest.mark.parametrize("case", BY_HAND)
def test_what_somebody_wrote_by_hand_stays_his(case: str, house: House, init: Callable[..., str], call: Call) -> None:
    """An entry that does what ours would is left as it is; only what is missing is added, and taken out again."""
    path, data = by_hand(case)
    own = BY_HAND[case][1].encode()
    file = put(house, path, data)
    init("--agent", "all")
    once = file.read_bytes()
    assert once.count(own) == 1
    assert once != data
    assert len(re.findall(rb"delegate hook|delegate: watch", once)) == (1 if "tasks" in path else 2)
    init("--agent", "all")
    assert file.read_bytes() == once
    err = call("--agent", "all", "--uninstall")[2]
    assert file.read_bytes() == data
    assert f"{path}: an entry for `delegate` stays" in err
    init("--agent", "all")
    file.write_bytes(file.read_bytes() + b"\n")
    init("--agent", "all", "--uninstall")
    assert own in file.read_bytes()
    assert jsonc.parse(file.read_text()).value.get("hooks") == json.loads(data).get("hooks")


def test_an_entry_of_ours_that_was_adapted_stays_so(house: House, init: Callable[..., str], call: Call) -> None:
    """Another limit, in our entry: init keeps it, a later version replaces only what is as it was written."""
    init("--agent", "claude")
    settings = house.workspace / ".claude" / "settings.json"
    prompt, stop = settings.read_text().split('"Stop"')
    changed = prompt.replace("hook claude", "hook claude --timeout 30").replace("120", "40") + '"Stop"' + stop
    settings.write_text(changed)
    init("--agent", "claude")
    assert settings.read_text() == changed
    code, _, err = call("--agent", "claude", "--uninstall")
    assert code == 0
    assert "settings.json: an entry for `delegate` stays" in err
    hooks = json.loads(settings.read_text())["hooks"]
    assert hooks == {"UserPromptSubmit": json.loads(changed)["hooks"]["UserPromptSubmit"]}


def test_of_an_older_version_only_what_is_as_it_was_written_is_replaced() -> None:
    """With the note of that version, in a file that was edited: its own entry goes, the adapted one stays."""
    file = file_of(".claude/settings.json")
    older = json.loads(json.dumps(file.wanted).replace("|| exit 0", "|| true"))
    before, note = merging.merged(texts.File(file.path, file.agents, file.kind, older), b"{}", None)
    edited = before.replace(b"hook claude", b"hook claude --timeout 30", 1)
    after, new = merging.merged(file, edited, note)
    commands = re.findall(rb"delegate hook [^\"]*", after)
    assert commands == [b"delegate hook claude --timeout 30 || true", b"delegate hook claude || exit 0"]
    rest = merging.parted(file, after + b"\n", new)
    assert rest is not None
    assert re.findall(rb"delegate hook [^\"]*", rest) == commands[:1]


@pytest.mark.parametrize(
    "data",
    [
        b'{\n  "hooks": { // ask Bob before adding hooks here\n  }\n}\n',
        b'{\n  "hooks": {\n    // ask Bob\n  }\n}\n',
        b'{\n  "hooks": /* ask Bob */ {\n    "Stop": [] // none\n  }\n}\n',
        b'{"hooks": {"Stop": [ /* ask Bob */ ]}}',
    ],
)
def test_a_comment_outlives_what_stood_beside_it(data: bytes) -> None:
    """Also in a file that was edited since: no list or object that holds a comment is taken out with our entry."""
    file = file_of(".claude/settings.json")
    after, note = merging.merged(file, data, None)
    rest = merging.parted(file, after + b"\n", note)
    assert rest is not None
    assert b"delegate" not in rest
    assert re.findall(rb"ask Bob[^*\n]*|// none", rest) == re.findall(rb"ask Bob[^*\n]*|// none", data)


def test_the_diff_is_the_change(house: House, init: Callable[..., str], need: Callable[[str], str]) -> None:
    """--dry-run writes nothing; what it prints is taken by `git apply` and gives what init would have written."""
    git = need("git")
    for name in ("comments", "CRLF", "AGENTS.md, no final newline"):
        put(house, *CASES[name])
    init()
    before = tree(house.workspace)
    diff = init("--agent", "all", "--dry-run").encode()
    assert tree(house.workspace) == before
    copy = house.tmp / "copy"
    shutil.copytree(house.workspace, copy)
    command = [git, "apply", "--whitespace=nowarn", "-"]
    env = {"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": str(house.tmp)}
    process = subprocess.run(command, input=diff, cwd=copy, env=env, capture_output=True, timeout=60)
    assert process.returncode == 0, process.stdout + process.stderr
    init("--agent", "all")
    written = {name: data for name, data in foreign(house).items() if not name.endswith("agents.json")}
    assert {name: (copy / name).read_bytes() for name in written} == written
    assert diff.startswith(b"--- ")
    assert b"+++ /dev/null" in init("--agent", "all", "--dry-run", "--uninstall").encode()


@pytest.mark.parametrize(
    ("path", "data", "said"),
    [
        (".claude/settings.json", b'{"hooks": {', "line 1: it ends too early"),
        (".claude/settings.json", b'{\n"hooks": {"Stop": {}}}', "line 2: a list belongs here"),
        (".claude/settings.json", b'{"hooks": []}', "an object belongs here"),
        (".claude/settings.json", b"[]", "an object belongs here"),
        (".claude/settings.json", b"{} {}", "something stands after the end"),
        (".claude/settings.json", b'{"a" 1}', "a key belongs here"),
        (".claude/settings.json", b'{"a": 1 "b": 2}', "a comma or } belongs here"),
        (".claude/settings.json", b'{"a": nul}', "a value belongs here"),
        (".claude/settings.json", b'{"a": "\xff"}', "it is not UTF-8 at byte 7"),
        (".claude/settings.json", b"[" * 5000, "nested too deep"),
        (".claude/skills/delegate/SKILL.md", b"mine\n", "it is not ours"),
    ],
)
def test_what_cannot_be_merged_is_left(path: str, data: bytes, said: str) -> None:
    """A file that is malformed, of another shape or another's is refused with the place."""
    with pytest.raises(merging.Foreign, match=re.escape(said)):
        merged(path, data)


def test_a_refused_file_does_not_stop_the_others(house: House, call: Call) -> None:
    """It is named, the exit code tells, all else is done; a link is left without that."""
    broken = put(house, ".claude/settings.json", b"{")
    (house.workspace / "CLAUDE.md").symlink_to("AGENTS.md")
    (house.workspace / ".codex").symlink_to(house.outside)
    put(house, ".agents/skills/delegate", b"a file in the way")
    code, _, err = call("--agent", "all")
    assert code == 78
    assert "settings.json: left as it is: it cannot be read: line 1: it ends too early" in err
    assert "CLAUDE.md is a symbolic link" in err
    assert "codex/hooks.json: left as it is: .codex is a symbolic link\nput what it leads to in its place" in err
    assert broken.read_bytes() == b"{"
    assert [*house.outside.iterdir()] == []
    assert (house.workspace / ".cursor" / "hooks.json").exists()
    assert (house.workspace / ".delegated.yaml").exists()
    broken.unlink()
    (house.workspace / ".agents" / "skills" / "delegate").unlink()
    assert call("--agent", "all")[0] == 78
    assert call("--agent", "all", "--uninstall")[0] == 0
    (house.workspace / ".codex").unlink()
    assert call("--agent", "all")[0] == 0
    assert (house.workspace / "CLAUDE.md").is_symlink()


@pytest.mark.parametrize("link", [".claude", ".claude/settings.json", "CLAUDE.md"])
def test_hooks_behind_a_link_are_missing_and_rules_are_not(link: str, house: House, call: Call) -> None:
    """A link is never followed. Where it keeps the hooks out, the exit code says so, also before and at the end."""
    at = house.workspace / link
    at.parent.mkdir(exist_ok=True)
    at.symlink_to(house.outside)
    for flags, code in (((), 78), (("--dry-run",), 78), (("--uninstall",), 0)):
        assert call("--agent", "claude", *flags)[0] == (0 if link == "CLAUDE.md" else code)
    assert [*house.outside.iterdir()] == []
    at.unlink()
    assert call("--agent", "claude")[0] == 0
    settings = house.workspace / ".claude" / "settings.json"
    settings.rename(house.outside / "settings.json")
    settings.symlink_to(house.outside / "settings.json")
    code, _, err = call("--agent", "claude", "--uninstall")
    assert (code, "put what it leads to in its place" in err) == (78, True)


def test_a_file_that_nobody_may_write_is_not_replaced(house: House, call: Call) -> None:
    """Its owner has closed it: it is named and left, there and back, and what need not change is no trouble."""
    settings = put(house, ".claude/settings.json", b"{}")
    settings.chmod(0o444)
    for flags in ((), ("--dry-run",)):
        code, _, err = call("--agent", "claude", *flags)
        assert code == 78
        assert "settings.json: left as it is: it is read-only: make it writable" in err
        assert settings.read_bytes() == b"{}"
    settings.chmod(0o644)
    assert call("--agent", "claude")[0] == 0
    once = settings.read_bytes()
    settings.chmod(0o444)
    assert call("--agent", "claude")[0] == 0
    assert call("--agent", "claude", "--uninstall")[0] == 78
    assert settings.read_bytes() == once
    settings.chmod(0o640)
    assert call("--agent", "claude", "--uninstall")[0] == 0
    assert (settings.read_bytes(), settings.stat().st_mode & 0o777) == (b"{}", 0o640)


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--uninstall"]])
def test_where_nothing_can_be_remembered_nothing_is_written(flags: list[str], house: House, call: Call) -> None:
    """Notes are kept in a plain file in a plain directory; a link in its way is told before anything is touched."""
    runs = house.workspace / ".autonomous_runs"
    shutil.rmtree(runs)
    runs.symlink_to(house.outside)
    before = tree(house.workspace), tree(house.outside)
    code, _, err = call("--agent", "all", *flags)
    assert code == 78
    assert ".autonomous_runs is a symbolic link" in err
    assert "a plain directory" in err
    assert (tree(house.workspace), tree(house.outside)) == before


def test_notes_of_a_stranger_do_no_harm(house: House, call: Call) -> None:
    """What lies in the workspace may be anybody's: no path in it is followed, and nonsense is nothing."""
    put(house, "AGENTS.md", b"# Rules\n")
    victim = put(house, "src/empty/x", b"x")
    victim.unlink()
    notes = {
        "schema": "delegated/agents/1",
        "files": {
            "app.py": {"agents": ["claude"], "made": True, "sha256": "", "inserts": []},
            "AGENTS.md": {"agents": ["codex"], "made": True, "sha256": "0", "inserts": [[-5, "# R"], [0, "#"]]},
        },
        "directories": ["src/empty", "../outside", "/tmp", "", ".git"],
    }
    for text in (json.dumps(notes), "[]", "{", '{"schema": "delegated/agents/1", "files": 7}', "[" * 9000):
        put(house, ".autonomous_runs/agents.json", text.encode())
        assert call("--uninstall", "--agent", "all")[0] == 0
        assert (house.workspace / "AGENTS.md").read_bytes() == b"# Rules\n"
        assert (house.workspace / "app.py").exists()
        assert victim.parent.is_dir()
        assert house.outside.is_dir()


def test_init_says_which_agents_it_found(house: House, init: Callable[..., str], call: Call) -> None:
    """Without --agent it only names the command; with it, that agent is named no more."""
    assert call()[2].count("--agent") == 0
    put(house, ".cursor/rules/mine.mdc", b"x")
    put(house, "CLAUDE.md", b"x")
    before = foreign(house)
    err = call()[2]
    assert "in use here: Claude Code, Cursor\n" in err
    assert "next: delegate init --agent claude --agent cursor\n" in err
    assert foreign(house) == before
    init("--agent", "claude")
    assert "next: delegate init --agent cursor\n" in call()[2]
    for flags in (["--dry-run"], ["--uninstall"], ["--agent", "emacs"]):
        code, out, _ = call(*flags)
        assert (code, out) == (2, "")


@pytest.mark.parametrize("made", [True, False], ids=["made", "merged"])
def test_the_ends_of_lines_that_git_gives_are_no_edit(made: bool, house: House, init: Callable[..., str]) -> None:
    """As `core.autocrlf` checks our files out, with CRLF, init keeps them and uninstall takes the same out."""
    if not made:
        put(house, *CASES["AGENTS.md"])
        put(house, *CASES["comments"])
    before = foreign(house)
    init("--agent", "all")
    files = [house.workspace / file.path for file in texts.FILES]
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    once = tree(house.workspace)
    init("--agent", "all")
    assert tree(house.workspace) == once
    init("--agent", "all", "--uninstall")
    ends = {name: data.replace(b"\n", b"\r\n") for name, data in before.items() if name != "app.py"}
    assert foreign(house) == before | ends


def test_a_file_of_an_older_version_keeps_the_ends_of_its_lines() -> None:
    """Replaced as a whole, it has the ends that git gave it; and one that was written so is known without."""
    file = file_of(".cursor/rules/delegate.mdc")
    old = texts.File(file.path, file.agents, file.kind, file.wanted.replace("three failed", "two failed"))
    data, note = merging.merged(old, None, None)
    new, _ = merging.merged(file, data.replace(b"\n", b"\r\n"), note)
    assert new == file.wanted.replace("\n", "\r\n").encode()
    page = file_of("AGENTS.md")
    after, note = merging.merged(page, b"# Rules\r\n", None)
    assert merging.parted(page, after.replace(b"\r\n", b"\n"), note) == b"# Rules\n"


def test_the_texts_are_what_agents_can_read(house: House) -> None:
    """Front matter with its keys, a name equal to the directory, a bounded description, a matcher that matches."""
    for file in texts.FILES:
        if file.kind != "whole":
            continue
        lines = file.wanted.split("\n")
        end = lines.index("---", 1)
        front = dict(line.split(":", 1) for line in lines[1:end])
        assert lines[0] == "---"
        assert 40 < len(front["description"]) <= 1024
        assert ": " not in front["description"].strip(), "it would be another key to YAML"
        if file.path.endswith("SKILL.md"):
            assert front["name"].strip() == Path(file.path).parent.name
        else:
            assert front["alwaysApply"] == " true"


def test_a_reader_that_goes_away_is_no_fault_of_the_file(house: House) -> None:
    """`--dry-run | head`: the exit code is that of every command then, and no file is said to be left."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-P", "-m", "delegated", "init", "--agent", "claude", "--dry-run"]
    done = subprocess.run(
        command, cwd=house.workspace, env=house.env, stdout=writes, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writes)
    assert (done.returncode, b"left as it is" in done.stderr) == (exits.CLOSED, False), done.stderr


def test_the_task_is_that_of_the_page() -> None:
    """What is merged for VS Code is what docs/editors.md shows to who writes it by hand, and its tests try."""
    page = (Path(__file__).parent.parent / "docs" / "editors.md").read_text("utf-8")
    shown = json.loads(page.partition("```json\n")[2].partition("\n```")[0])
    wanted = file_of(".vscode/tasks.json").wanted
    assert shown["tasks"] == [task for task in wanted["tasks"] if task["label"] == texts.WATCH]
    assert shown["version"] == wanted["version"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[1 // a\n, // b\n 0 // c\n, 2]", "[1 // a\n, // b\n  2]"),
        ("[1, // a\n 0]", "[1 // a\n ]"),
        ("[0 /* a */, /* b */ 1]", "[ /* b */ 1]"),
        ('{"a": [0, 0], "b": {"c": [ 0 ]}}', "{}"),
        ('{"a": [\r\n\t0,\r\n\t1,\r\n]}', '{"a": [\r\n\t1,\r\n]}'),
        ('{"a": [], "b": 0}', '{"a": [], "b": 0}'),
    ],
)
def test_taking_out_of_a_text_that_was_edited(text: str, left: str) -> None:
    """An item goes with one comma; no comment swallows what follows it; what it leaves empty goes too."""
    found = jsonc.without(text, lambda value: value == 0)
    assert found.replace(" ", "") == left.replace(" ", "")
    assert not re.search(r"\b0\b", json.dumps(jsonc.parse(found).value).replace('"b": 0', ""))
