"""Configuration: layers, limits of a workspace's file, problems with their places, keys that stay secret."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated import config, keys, settings, yaml_values
from delegated.config import Config, ConfigError, Endpoint
from delegated.errors import OperatorError

ROOT = Path(__file__).parent.parent
CANARY = "sk-proj-canary0123456789abcdef"


class Machine:
    """A file system with nothing configured, to which a test adds files; `load` sees nothing else."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace = root / "work"
        self.workspace.mkdir()
        self.env: dict[str, str] = {"HOME": str(root / "home"), "XDG_CONFIG_HOME": str(root / "xdg")}

    def write(self, where: str, text: str | bytes, mode: int = 0o600) -> Path:
        places = {
            "system": self.root / "etc.yaml",
            "user": self.root / "xdg/delegated/config.yaml",
            "workspace": self.workspace / ".delegated.yaml",
        }
        path = places.get(where, self.root / where)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return path

    def load(self, **options: Any) -> Config:
        options.setdefault("workspace", str(self.workspace))
        return config.load(env=self.env, system_file=str(self.root / "etc.yaml"), **options)

    def problems(self, **options: Any) -> list[str]:
        """Return the problems, with the machine's own paths left out."""
        with pytest.raises(ConfigError) as caught:
            self.load(**options)
        assert caught.value.exit_code == 78
        assert all(problem in str(caught.value) for problem in caught.value.problems)
        return [problem.replace(f"{self.root}/", "") for problem in caught.value.problems]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# -- layers --


def test_nothing_configured_is_the_defaults(machine: Machine) -> None:
    """Every key has a default."""
    assert machine.load() == Config()


def test_later_layers_win(machine: Machine) -> None:
    """defaults < system < user < workspace < environment < flags, each key by itself."""
    expected = ["gpt-4o"]
    assert machine.load().model == expected[-1]
    for layer in ("system", "user", "workspace"):
        machine.write(layer, f"model: of-{layer}\n")
        assert machine.load().model == f"of-{layer}"
    machine.env["DELEGATED_MODEL"] = "of-environment"
    assert machine.load().model == "of-environment"
    assert machine.load(flags={"model": "of-flags"}).model == "of-flags"
    assert machine.load(flags={"model": None}).model == "of-environment"


def test_sections_merge_key_by_key(machine: Machine) -> None:
    """A file that sets one key of a section or endpoint keeps the others as they were."""
    machine.write(
        "system",
        "retry: {attempts: 3}\nendpoints: {openai: {timeout_s: 20}, box: {base_url: 'http://127.0.0.1:1/v1'}}\n",
    )
    machine.write("user", "retry: {cap_s: 5}\nendpoints: {openai: {wire: chat}, box: {store: false}}\n")
    loaded = machine.load()
    assert loaded.retry == settings.Retry(attempts=3, base_s=1, cap_s=5)
    assert loaded.endpoints["openai"] == dataclasses.replace(settings.OPENAI, timeout_s=20, wire="chat")
    assert loaded.endpoints["box"] == Endpoint(base_url="http://127.0.0.1:1/v1", store=False)


def test_a_given_file_replaces_the_users(machine: Machine) -> None:
    """`--config PATH` is read in place of the user's file, and must exist."""
    machine.write("user", "model: of-user\nconcurrency: 2\n")
    other = machine.write("other.yaml", "model: of-other\n")
    loaded = machine.load(user_file=str(other))
    assert (loaded.model, loaded.concurrency) == ("of-other", 8)
    assert machine.problems(user_file=str(machine.root / "none.yaml")) == [
        "none.yaml: there is no such file; --config names a file that exists"
    ]


def test_a_relative_xdg_directory_is_ignored(machine: Machine) -> None:
    """As the XDG specification demands; ~/.config is used."""
    machine.env["XDG_CONFIG_HOME"] = "xdg"
    machine.write("home/.config/delegated/config.yaml", "model: of-home\n")
    assert machine.load().model == "of-home"


def test_variables_reach_nested_keys_and_every_type(machine: Machine) -> None:
    """Two underscores separate levels; numbers, booleans and lists are read by the key's type, text as it stands."""
    machine.write("user", "endpoints: {my-box: {base_url: 'http://127.0.0.1:1/v1'}}\n")
    machine.env |= {
        "DELEGATED_ENDPOINTS__OPENAI__BASE_URL": "http://127.0.0.1:9/v1",
        "DELEGATED_ENDPOINTS__MY_BOX__STORE": "true",
        "DELEGATED_LOG__LEVEL": "debug",
        "DELEGATED_MAX_COST_USD": "0.25",
        "DELEGATED_CONCURRENCY": "3",
        "DELEGATED_MODEL": "4",
        "DELEGATED_WORKSPACES": os.pathsep.join(["/a", "b"]),
        "DELEGATED_GRACE_S": "",
    }
    loaded = machine.load()
    assert loaded.endpoints["openai"].base_url == "http://127.0.0.1:9/v1"
    assert loaded.endpoints["my-box"].store is True
    assert (loaded.log.level, loaded.max_cost_usd, loaded.concurrency, loaded.model) == ("debug", 0.25, 3, "4")
    assert loaded.workspaces == ("/a", os.path.abspath("b"))
    assert loaded.grace_s == 30


def test_every_key_can_be_set_by_a_variable(machine: Machine) -> None:
    """No key is out of the environment's reach: each is known by its name, whatever its value."""
    for key in settings.dotted_keys():
        parts = key.replace("*", "openai").split(".")
        name = "DELEGATED_" + "__".join(parts).upper()
        machine.env = {"HOME": "/nowhere", name: "\N{SNOWMAN}\x01"}
        said = ""
        try:
            machine.load()
        except ConfigError as error:
            said = str(error)
        assert "no such setting" not in said


def test_relative_workspaces_are_taken_from_flags_only_and_a_tilde_is_the_home(machine: Machine) -> None:
    """A file is read by a service whose directory nobody knows."""
    machine.write("user", "workspaces: [~/code, code]\n")
    assert machine.problems() == [
        'xdg/delegated/config.yaml:1: `workspaces.1: "code"` should be an absolute path, or begin with ~/'
    ]
    machine.write("user", "workspaces: [~/code]\n")
    assert machine.load().workspaces == (os.path.expanduser("~/code"),)
    assert machine.load(flags={"workspaces": [Path("x")]}).workspaces == (os.path.abspath("x"),)


def test_no_env_file_is_ever_read(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace's `.env` with another server would be handed the key."""
    (machine.workspace / ".env").write_text("DELEGATED_MODEL=evil\nOPENAI_API_KEY=evil\n")
    monkeypatch.chdir(machine.workspace)
    assert machine.load() == Config()


# -- a workspace's own file --


@pytest.mark.parametrize("key", sorted(settings.NAMES - settings.FREE - settings.TIGHTEN))
def test_a_workspace_cannot_set_what_is_the_operators(machine: Machine, key: str) -> None:
    """Endpoints, keys, paths, prices, logs: refused with the reason, whatever the value."""
    value = {"retry": "{attempts: 1}", "log": "{level: debug}", "notify": "{webhook_url: 'https://x'}"}.get(
        key, "{}" if key in ("models", "endpoints") else "1"
    )
    machine.write("workspace", f"model: x\n{key}: {value}\n")
    assert machine.problems()[0].startswith(f"work/.delegated.yaml:2: `{key}` is not for a workspace to set")


def test_what_decides_where_the_code_goes_is_the_operators(machine: Machine) -> None:
    """This list may only be changed on purpose."""
    refused = settings.NAMES - settings.FREE - settings.TIGHTEN
    assert refused >= {"endpoints", "models", "folder", "workspaces", "log", "retry", "doubt_wait_s"}


@pytest.mark.parametrize("key", sorted(settings.TIGHTEN - {"on_edit", "git_context"}))
def test_a_workspace_may_only_lower_a_limit(machine: Machine, key: str) -> None:
    """Lower than what holds outside is taken; higher is refused and names both values and their places."""
    limit = getattr(Config(), key)
    lower = 0.5 if limit is None else limit / 2 if key == "max_cost_usd" else limit // 2
    machine.write("workspace", f"{key}: {lower}\n")
    assert getattr(machine.load(), key) == lower
    machine.write("user", f"# comment\n{key}: 16\n")
    machine.write("workspace", f"{key}: 17\n")
    assert machine.problems() == [
        f"work/.delegated.yaml:1: `{key}: 17` is above 16 from {machine.root}/xdg/delegated/config.yaml:2; "
        "a workspace may only lower it".replace(f"{machine.root}/", "")
    ]


def test_a_workspace_chooses_among_the_models_of_one_endpoint(machine: Machine) -> None:
    """Another model of the same provider is its choice; another provider would be its choice of who gets the code."""
    machine.write("workspace", "# theirs\nmodel: gpt-4o-mini\n")
    assert machine.load().model == "gpt-4o-mini"
    machine.write("workspace", "# theirs\nmodel: claude-sonnet-5-5\n")
    assert machine.problems() == [
        "work/.delegated.yaml:2: `model: claude-sonnet-5-5` is asked at another endpoint than `gpt-4o`; a workspace's "
        "file may come from somebody else, and decides not to whom the code goes: put it into the user's configuration"
    ]
    machine.write("user", "model: claude-opus-5-5\n")
    assert machine.load().model == "claude-sonnet-5-5"
    assert machine.load(flags={"model": "gpt-4o"}).model == "gpt-4o"


def test_a_workspace_cannot_have_its_history_sent_when_its_user_does_not_want_it(machine: Machine) -> None:
    """From true to false, never back."""
    machine.write("workspace", "git_context: false\n")
    assert machine.load().git_context is False
    machine.write("user", "git_context: false\n")
    machine.write("workspace", "git_context: true\n")
    assert "less strict than `false`" in machine.problems()[0]


def test_a_workspace_cannot_have_edits_billed_that_its_user_keeps(machine: Machine) -> None:
    """From `ask` to `keep`, never back."""
    machine.write("workspace", "on_edit: keep\n")
    assert machine.load().on_edit == "keep"
    machine.write("user", "on_edit: keep\n")
    machine.write("workspace", "on_edit: ask\n")
    assert "less strict than `keep`" in machine.problems()[0]


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_a_workspaces_file_is_a_plain_file(machine: Machine, kind: str) -> None:
    """A link could show another file's lines in a message; a FIFO would wait for ever."""
    path = machine.workspace / ".delegated.yaml"
    if kind == "link":
        machine.write("secret.yaml", CANARY)
        path.symlink_to(machine.root / "secret.yaml")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    (problem,) = machine.problems()
    assert problem.startswith("work/.delegated.yaml: it should be a regular file")
    assert CANARY not in problem


# -- problems --


def test_all_problems_of_all_layers_come_at_once(machine: Machine) -> None:
    """Each with its place, what was found and what would be right; a fault hidden by a later layer too."""
    machine.write("system", "concurrency: 0\n")
    machine.write(
        "user",
        "concurency: 3\nretry:\n  attempts: none\n  bas_s: 2\nlog: {level: loud}\nattempts: 3\nfolder: ../elsewhere\n"
        "endpoints:\n  box: {wire: chat}\n",
    )
    machine.write("workspace", "concurrency: '2'\n")
    machine.env["DELEGATED_MODL"] = "x"
    assert machine.problems(flags={"watch": "sometimes"}) == [
        "etc.yaml:1: `concurrency: 0` should be greater than or equal to 1",
        "xdg/delegated/config.yaml:1: there is no key `concurency`; did you mean `concurrency`?",
        'xdg/delegated/config.yaml:3: `retry.attempts: "none"` should be a valid integer',
        "xdg/delegated/config.yaml:4: there is no key `retry.bas_s`; did you mean `retry.base_s`?",
        "xdg/delegated/config.yaml:5: `log.level: \"loud\"` should be 'debug', 'info', 'warning' or 'error'",
        "xdg/delegated/config.yaml:6: there is no key `attempts`; did you mean `retry.attempts`?",
        'xdg/delegated/config.yaml:7: `folder: "../elsewhere"` should be a path below the workspace, such as '
        ".autonomous_runs/openai_delegations",
        'work/.delegated.yaml:1: `concurrency: "2"` should be a valid integer',
        "DELEGATED_MODL: there is no such setting; did you mean `DELEGATED_MODEL`?",
        "--watch: `watch: \"sometimes\"` should be 'auto', 'inotify' or 'poll'",
    ]


def test_what_only_all_layers_together_show_has_its_place_too(machine: Machine) -> None:
    """An endpoint that no layer gave a URL, and a model at an endpoint that is not there."""
    machine.write("user", "model: x\nendpoints:\n  box: {wire: chat}\n")
    assert machine.problems() == [
        "xdg/delegated/config.yaml:3: `endpoints.box.base_url` is missing: an endpoint needs its URL"
    ]
    machine.write("user", "models:\n  x:\n    endpoint: box\n")
    assert machine.problems() == [
        "xdg/delegated/config.yaml:3: `models.x.endpoint` is `box`, which is not among the endpoints "
        "(anthropic, openai)"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"model: [\n", "user.yaml:2: this is not YAML: "),
        (b"- a\n", "user.yaml:1: the file should hold keys with values"),
        (b"model: \xff\n", "user.yaml: it should be UTF-8; byte 7 is not"),
        (b"model: &a x\nwatch: *a\n", "user.yaml:1: the anchor `&a`"),
        (b"model: a\nmodel: b\n", "user.yaml:2: the key 'model' a second time (first in line 1)"),
        (b"model: !!str a\n", "user.yaml:1: the tag"),
        (b"x: 1\n" * 70_000, "user.yaml:1: 262,145 bytes of YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(machine: Machine, text: bytes, problem: str) -> None:
    """Broken, foreign or hostile YAML is one more problem, not a traceback."""
    path = machine.write("user.yaml", text)
    assert machine.problems(user_file=str(path))[0].startswith(problem)


@pytest.mark.parametrize("text", ["", "# only comments\n", "log:\n", "---\n", "\N{BYTE ORDER MARK}log: {}\n"])
def test_an_empty_file_or_section_changes_nothing(machine: Machine, text: str) -> None:
    """As it stands after all its keys were commented out."""
    machine.write("user", text)
    assert machine.load() == Config()


def test_a_file_that_everyone_may_write_is_refused(machine: Machine) -> None:
    """Anybody on the machine could send the key elsewhere."""
    machine.write("user", "model: x\n", mode=0o666)
    assert "everyone may write to it" in machine.problems()[0]


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_make_it_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever a file holds, there is a Config or a ConfigError."""
    path = tmp_path_factory.mktemp("any") / "config.yaml"
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        config.load(user_file=str(path), env={"HOME": "/nowhere"}, system_file="/nowhere")


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(settings.NAMES)), _plain, max_size=4))
def test_no_tree_makes_it_fail_otherwise(tree: dict[str, object]) -> None:
    """Any value under any key is taken or named."""
    with contextlib.suppress(ConfigError):
        config.load(flags=tree, env={"HOME": "/nowhere"}, system_file="/nowhere")


# -- the documented file and the schema --


def test_the_documented_file_changes_nothing_as_it_is(machine: Machine) -> None:
    """Copying it is safe."""
    machine.write("user", (ROOT / "config/delegated.yaml").read_bytes())
    assert machine.load() == Config()


def test_the_documented_file_shows_every_key_with_its_default(machine: Machine) -> None:
    """With each `#` before a key removed it sets all keys there are, to what holds without it."""
    text = re.sub(r"(?m)^#(?=( {2})*[a-z_]+:( |$))", "", (ROOT / "config/delegated.yaml").read_text())
    machine.write("user", text)
    assert machine.load() == Config()
    shown = {".".join(map(str, path)) for path in yaml_values.load(text).lines}
    for key in settings.dotted_keys():
        assert key.replace("endpoints.*", "endpoints.openai") in shown or key.startswith("models.*"), key
    for each in dataclasses.fields(settings.ModelSettings):
        assert re.search(rf"(?m)^#     {each.name}: ", text), each.name


def test_the_documented_file_marks_what_a_workspace_may_set() -> None:
    """The marks are the rule itself."""
    marks: dict[str, str] = {}
    mark = ""
    for line in (ROOT / "config/delegated.yaml").read_text().splitlines():
        if found := re.search(r"\[(workspace[^\]]*)\]$", line):
            mark = found[1]
        elif key := re.match(r"#([a-z_]+):", line):
            marks[key[1]] = mark
        if not line.startswith("# "):
            mark = ""
    assert {key for key, mark in marks.items() if mark == "workspace"} == settings.FREE
    assert {key for key, mark in marks.items() if mark.startswith("workspace:")} == settings.TIGHTEN


def test_the_published_schema_is_the_code() -> None:
    """Written anew by: python -m delegated.settings > config/schemas/config.schema.json."""
    written = (ROOT / "config/schemas/config.schema.json").read_text()
    run = subprocess.run([sys.executable, "-m", "delegated.settings"], capture_output=True, text=True, check=True)
    assert run.stdout == written
    assert json.loads(written) == settings.json_schema()


def test_the_schema_says_what_the_reader_does(machine: Machine) -> None:
    """A valid file passes both, a wrong one neither; each key is described."""
    schema = settings.json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    for text, good in [
        ("model: x\nretry: {attempts: 2}\nendpoints: {openai: {store: false}}", True),
        ("models: {m: {input_usd: 0, shutdown: 2027-01-14}}", True),
        ("retry: {attempts: 0}", False),
        ("modl: x", False),
        ("watch: never", False),
        ("endpoints: {openai: {store: maybe}}", False),
        ("concurrency: '3'", False),
    ]:
        machine.write("user", text)
        assert validator.is_valid(yaml_values.load(text).value) is good, text
        if good:
            machine.load()
        else:
            assert machine.problems()
    for part in (schema, *schema["definitions"].values()):
        assert all("description" in each or "$ref" in each for each in part["properties"].values())


def rows() -> list[str]:
    """Return the table of settings as the page shows it."""
    schema = settings.json_schema()
    found = []
    for key in settings.dotted_keys():
        first, *rest = key.split(".")
        part = schema["properties"][first]
        default: Any = getattr(Config(), first)
        if rest:
            named = part.get("additionalProperties", part)["$ref"].rpartition("/")[2]
            part = schema["definitions"][named]["properties"][rest[-1]]
            default = getattr(settings.OPENAI if first == "endpoints" else default, rest[-1], None)
        shown = f"`{json.dumps(default)}`" if default not in (None, "") else ""
        mark = "yes" if first in settings.FREE else "stricter" if first in ("on_edit", "git_context") else "lower"
        mark = mark if first in settings.FREE | settings.TIGHTEN else ""
        found.append(f"| `{key.replace('*', 'NAME')}` | {shown} | {mark} | {part['description']} |")
    return found


def test_the_page_shows_every_setting_as_it_is() -> None:
    """Its table is the code's."""
    page = (ROOT / "docs/configuration.md").read_text().splitlines()
    shown = [line for line in page if line.startswith("| `")]
    assert shown == rows()


# -- keys --


def _key(endpoint: Endpoint, env: dict[str, str], credentials: str | None) -> str | None:
    found = keys.find(endpoint, env | ({"CREDENTIALS_DIRECTORY": credentials} if credentials else {}))
    return found.value if found else None


def test_a_key_is_looked_for_in_variable_credential_and_file(tmp_path: Path) -> None:
    """In this order; what is absent or blank is passed over."""
    file = tmp_path / "key"
    file.write_text("of-file\n")
    file.chmod(0o600)
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    endpoint = Endpoint(base_url="https://x/v1", key_env="X_KEY", key_credential="x_key", key_file=str(file))
    assert _key(endpoint, {}, None) == "of-file"
    assert _key(endpoint, {"X_KEY": " "}, str(credentials)) == "of-file"
    (credentials / "x_key").write_text("of-credential\n")
    assert _key(endpoint, {}, str(credentials)) == "of-credential"
    assert _key(endpoint, {"X_KEY": "of-variable"}, str(credentials)) == "of-variable"
    assert _key(Endpoint(base_url="https://x/v1"), {"OPENAI_API_KEY": CANARY}, str(credentials)) is None


def _prints(tmp_path: Path, script: str, *arguments: str, **more: str) -> Endpoint:
    program = tmp_path / "keyring"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Endpoint(base_url="https://x/v1", key_command=(str(program), *arguments), **more)


def test_a_key_may_be_what_a_program_prints(tmp_path: Path) -> None:
    """A keyring's own: run without a shell, outside of every workspace; a variable comes before, a file behind."""
    endpoint = _prints(
        tmp_path, 'pwd >&2; test "$PWD" = / && echo " $1-$X_HOME "', "a;b", key_env="X_KEY", key_file="/no"
    )
    found = keys.find(endpoint, {"X_HOME": "h"})
    assert found is not None
    assert (found.value, found.source) == ("a;b-h", f"the command {tmp_path}/keyring")
    assert "a;b-h" not in repr(found)
    assert _key(endpoint, {"X_KEY": "of-variable"}, None) == "of-variable"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"echo {CANARY}; exit 3", "ended with 3"),
        ("true", "printed nothing"),
        (f"echo {CANARY}; echo {CANARY}", "more than a key"),
        (f"while :; do echo {CANARY}; done", "printed more than a key"),
        (f"echo {CANARY}; sleep 600 & sleep 600", "took longer than"),
        (f"echo {CANARY}; exec 1>&-; sleep 600", "took longer than"),
    ],
)
def test_a_program_that_prints_no_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    """What it printed is told to nobody, what it started is ended, and nothing waits longer than it may."""
    if "longer" in words:
        monkeypatch.setattr(keys, "COMMAND_S", 0.3)
    with pytest.raises(OperatorError, match=words) as caught:
        keys.find(_prints(tmp_path, script), {"PATH": os.environ["PATH"]})
    assert CANARY not in str(caught.value) + caught.value.hint
    with pytest.raises(OperatorError, match="cannot be started"):
        keys.find(Endpoint(base_url="https://x/v1", key_command=(str(tmp_path / "gone"),)), {})


def test_a_key_command_is_the_users_and_absolute(machine: Machine) -> None:
    """A name would be looked for in PATH, where a workspace's own programs may come first; a workspace sets none."""
    machine.write("user", "endpoints:\n  openai:\n    key_command: [secret-tool, lookup]\n")
    assert "the absolute path of a program" in machine.problems()[0]
    machine.write("user", "endpoints:\n  openai:\n    key_command: [/usr/bin/secret-tool, lookup, service, x]\n")
    assert machine.load().endpoints["openai"].key_command == ("/usr/bin/secret-tool", "lookup", "service", "x")
    machine.write("workspace", "endpoints:\n  openai:\n    key_command: [/bin/echo]\n")
    assert "not for a workspace to set" in machine.problems()[0]


def test_a_key_command_is_asked_once(tmp_path: Path) -> None:
    """Each request needs the key; a keyring may ask its user each time. That it failed is kept, too, for a while."""
    from delegated.outfit import Models
    from delegated.tokens import counter

    log = tmp_path / "calls"
    for script, expected in (("echo k", ("k",)), ("exit 1", ())):
        endpoint = _prints(tmp_path, f"echo x >> '{log}'; {script}")
        models = Models(Config(endpoints={"openai": endpoint}), {"PATH": os.environ["PATH"]}, counter)
        log.write_text("")
        for _ in range(3):
            assert models.own_keys() == expected
        assert log.read_text() == "x\n"


@pytest.mark.parametrize("script", ["echo k", "exit 1"])
def test_a_key_command_is_asked_once_for_all_workspaces(tmp_path: Path, script: str) -> None:
    """Also by threads that want it at once. It may take seconds: once unlocked, no loop waits for it."""
    from delegated.errors import Refused
    from delegated.outfit import Models
    from delegated.tokens import counter

    log = tmp_path / "calls"
    endpoint = _prints(tmp_path, f"echo x >> '{log}'; sleep 0.2; {script}")
    config = Config(endpoints={"openai": endpoint})
    keyring = keys.Keyring({"PATH": os.environ["PATH"]})
    several = [Models(config, {}, counter, keyring=keyring) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda models: models.unlock("gpt-4o"), several))
    for models in several:
        with contextlib.nullcontext() if "echo" in script else pytest.raises(Refused):
            assert models.find("gpt-4o")[0].name == "gpt-4o"
    assert log.read_text() == "x\n"


def test_a_key_is_told_before_it_is_given(tmp_path: Path) -> None:
    """The log hides what it was told: also a key that a locked keyring, or a file that was changed, gave late."""
    file = tmp_path / "key"
    file.write_text("of-file\n")
    file.chmod(0o600)
    told: list[str] = []
    keyring = keys.Keyring({"PATH": os.environ["PATH"]}, told.append)
    for endpoint, expected in (
        (Endpoint(base_url="https://x/v1", key_file=str(file)), "of-file"),
        (_prints(tmp_path, "echo k"), "k"),
    ):
        found = keyring.find(endpoint)
        assert found is not None
        assert (found.value, told[-1]) == (expected, expected)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """With the command that mends it, and without the key."""
    file = tmp_path / "key"
    file.write_text(CANARY)
    file.chmod(mode)
    with pytest.raises(OperatorError) as caught:
        keys.find(Endpoint(base_url="https://x/v1", key_file=str(file)), {})
    assert caught.value.exit_code == 78
    assert caught.value.hint == f"chmod 600 {file}"
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("kind", ["absent", "empty", "directory", "two lines", "accent"])
def test_a_key_file_without_one_key_is_refused(tmp_path: Path, kind: str) -> None:
    """A header with a line break in it would be somebody else's header."""
    file = tmp_path / "key"
    if kind == "directory":
        file.mkdir(mode=0o700)
    elif kind != "absent":
        file.write_text({"empty": "", "two lines": f"{CANARY}\nX: y", "accent": f"{CANARY}é"}[kind])
        file.chmod(0o600)
    with pytest.raises(OperatorError) as caught:
        keys.find(Endpoint(base_url="https://x/v1", key_file=str(file)), {})
    assert str(file) in str(caught.value)
    assert CANARY not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    "line",
    [f"api_key: {CANARY}", f"key_env: {CANARY}", f"base_url: https://user:{CANARY}@host/v1", f"key_file: {CANARY}"],
)
def test_a_key_written_into_the_configuration_is_not_repeated(machine: Machine, line: str) -> None:
    """The problem is shown on terminals and in logs."""
    machine.write("user", f"endpoints:\n  openai:\n    {line}\n")
    (problem,) = machine.problems()
    assert problem.startswith("xdg/delegated/config.yaml:3: ")
    assert CANARY not in problem


# -- endpoints --


@pytest.mark.parametrize(
    ("url", "wire", "expected"),
    [
        ("https://api.openai.com/v1", "auto", "responses"),
        ("https://API.OpenAI.com/v1", "auto", "responses"),
        ("https://api.openai.com.evil.example/v1", "auto", "chat"),
        ("http://127.0.0.1:11434/v1", "auto", "chat"),
        ("http://127.0.0.1:11434/v1", "responses", "responses"),
        ("https://api.openai.com/v1", "chat", "chat"),
        ("https://api.anthropic.com", "auto", "messages"),
        ("https://api.anthropic.com/v1", "chat", "chat"),
        ("https://api.anthropic.com.evil.example", "auto", "chat"),
    ],
)
def test_the_wire_follows_the_host_unless_it_is_chosen(url: str, wire: Any, expected: str) -> None:
    """Compatible servers get Chat Completions."""
    assert config.wire(Endpoint(base_url=url, wire=wire)) == expected


def test_a_base_url_from_the_environment_is_reported_and_not_honoured(machine: Machine) -> None:
    """The SDK would send key and code there."""
    machine.env["OPENAI_BASE_URL"] = "https://evil.example/v1"
    loaded = machine.load()
    assert loaded.endpoints["openai"].base_url == "https://api.openai.com/v1"
    (warning,) = config.warnings(loaded, machine.env)
    assert warning.startswith("OPENAI_BASE_URL is set and not honoured")
    machine.env["OPENAI_BASE_URL"] = "https://api.openai.com/v1/"
    machine.env["ANTHROPIC_BASE_URL"] = "https://evil.example"
    assert config.warnings(loaded, machine.env) == (), "nobody is asked there"
    machine.env["DELEGATED_COMPARE_MODELS"] = "claude-sonnet-5-5"
    (warning,) = config.warnings(machine.load(), machine.env)
    assert warning.startswith("ANTHROPIC_BASE_URL is set and not honoured")


def test_a_model_of_the_table_is_asked_at_its_makers_endpoint_unless_another_is_named(machine: Machine) -> None:
    """Nothing has to be configured for the `claude` models; a snapshot goes where its family does."""
    loaded = machine.load()
    for name, host in {
        "gpt-4o": "https://api.openai.com/v1",
        "claude-sonnet-5-5": "https://api.anthropic.com",
        "claude-sonnet-5-5-20260901": "https://api.anthropic.com",
        "no-such-model": "https://api.openai.com/v1",
    }.items():
        assert config.endpoint_of(loaded, name).base_url == host
    claude = config.endpoint_of(loaded, "claude-sonnet-5-5")
    assert (config.wire(claude), claude.key_env) == ("messages", "ANTHROPIC_API_KEY")
    machine.write(
        "user",
        "endpoints: {gateway: {base_url: 'https://gateway.example/v1'}, anthropic: {timeout_s: 20}}\n"
        "models: {claude-opus-5-5: {endpoint: gateway}}\n",
    )
    loaded = machine.load()
    assert config.endpoint_of(loaded, "claude-opus-5-5").base_url == "https://gateway.example/v1"
    assert loaded.endpoints["anthropic"] == dataclasses.replace(settings.ANTHROPIC, timeout_s=20)


@pytest.mark.parametrize(
    ("url", "warned"), [("http://10.0.0.5/v1", True), ("http://[::1]:1/v1", False), ("https://10.0.0.5/v1", False)]
)
def test_a_key_in_the_clear_is_reported(machine: Machine, url: str, warned: bool) -> None:
    """Over http only this machine itself is reached unseen."""
    machine.env["DELEGATED_ENDPOINTS__OPENAI__BASE_URL"] = url
    assert bool(config.warnings(machine.load(), machine.env)) is warned


# -- speed --


def test_without_configuration_nothing_heavy_is_imported(machine: Machine) -> None:
    """Clients read the configuration too, and start in the time of an editor's key stroke."""
    code = (
        "import sys; from delegated import config; config.load(system_file='/nowhere'); "
        "print(*{'pydantic', 'yaml', 'structlog', 'asyncio'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], env=machine.env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


@pytest.mark.parametrize("layer", ["system", "user", "environment", ""])
def test_the_folder_alone_is_found_in_every_layer(machine: Machine, layer: str) -> None:
    """Clients get what `load` says."""
    machine.write("user", (ROOT / "config/delegated.yaml").read_bytes())
    if layer == "environment":
        machine.env["DELEGATED_FOLDER"] = "drop/here"
    elif layer:
        machine.write(layer, "model: x\n'folder': drop/here\n")
    found = config.folder(machine.env, system_file=str(machine.root / "etc.yaml"))
    assert found == machine.load().folder == ("drop/here" if layer else Config().folder)


def test_the_folder_is_found_without_a_parser(machine: Machine) -> None:
    """A configuration about other things costs a client nothing but the reading of its bytes."""
    machine.write("user", (ROOT / "config/delegated.yaml").read_bytes() + b"model: x\n")
    code = (
        "import sys; from delegated import config; config.folder(system_file='/nowhere'); "
        "print(*{'pydantic', 'yaml', 'structlog', 'asyncio'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], env=machine.env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_the_published_files_are_plain_text() -> None:
    """The schema and the documented file may be read by everyone."""
    for name in ("config/delegated.yaml", "config/schemas/config.schema.json"):
        assert stat.S_IMODE((ROOT / name).stat().st_mode) & 0o444 == 0o444
