"""What can be set: every key with its default, its bounds and its description, and the JSON Schema made of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PYDANTIC: Final[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}


# -- what a value must be: read by pydantic, which is imported only when there is something to check --


@dataclass(frozen=True, slots=True)
class _Between:
    """A number from `low` to `high`, both allowed. In place of `annotated_types`, whose import takes 60 ms."""

    low: float
    high: float

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        schema = handler(source)
        (schema["schema"] if schema["type"] == "nullable" else schema).update(ge=self.low, le=self.high)
        return schema


@dataclass(frozen=True, slots=True)
class _Must:
    """A further rule: `complaint(value)` says what would be right, None when the value is."""

    complaint: Callable[[Any], str | None]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        def check(value: Any) -> Any:
            if value and (wrong := self.complaint(value)):
                raise ValueError(wrong)
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))


def _not_a_url(text: str) -> str | None:
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        return "should be a URL such as https://api.openai.com/v1"
    if url.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f]", text):
        return "should be a URL such as https://api.openai.com/v1"
    if url.username is not None or url.query or url.fragment:
        return "should hold no user, password or query: keys come from `key_env`, `key_file` or the like"
    return None


def _not_a_hook(text: str) -> str | None:
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        return "should be a URL such as https://example.org/hooks/delegated"
    if not host or not text.isascii() or re.search(r"[\s\x00-\x1f\x7f]", text):
        return "should be a URL such as https://example.org/hooks/delegated"
    if url.scheme != "https" and not (url.scheme == "http" and host in LOOPBACK):
        return "should begin with https://; http:// only for this machine itself (127.0.0.1, localhost)"
    if url.username is not None or url.fragment:
        return "should hold no user, no password and no fragment"
    return None


def _not_a_variable(text: str) -> str | None:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        return None
    return "should be the name of an environment variable, not the key itself"


def _not_a_name(text: str) -> str | None:
    return None if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text) else "should be a plain file name"


def _not_absolute(text: str) -> str | None:
    return None if os.path.isabs(os.path.expanduser(text)) else "should be an absolute path, or begin with ~/"


def _not_a_command(words: Sequence[str]) -> str | None:
    if os.path.isabs(os.path.expanduser(words[0])) and not any("\0" in word for word in words):
        return None
    return "should begin with the absolute path of a program, as [/usr/bin/secret-tool, lookup, service, delegated]"


def _not_below(text: str) -> str | None:
    parts = text.split("/")
    if text.startswith(("/", "~")) or "\\" in text or "\0" in text or any(part in ("", ".", "..") for part in parts):
        return "should be a path below the workspace, such as .autonomous_runs/openai_delegations"
    return None


def _not_a_date(text: str) -> str | None:
    return None if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else "should be a date as YYYY-MM-DD"


_Seconds = Annotated[float, _Between(0.05, 86_400)]
_Tokens = Annotated[int, _Between(1, 100_000_000)]
_Bytes = Annotated[int, _Between(1, 1 << 30)]
_Usd = Annotated[float, _Between(0, 1_000_000)]
_AbsolutePath = Annotated[str, _Must(_not_absolute)]


# -- the settings: the text below a field is its description in the JSON Schema --


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a call that was certainly not accepted is sent again."""

    __pydantic_config__: ClassVar[dict[str, object]] = _PYDANTIC

    attempts: Annotated[int, _Between(1, 100)] | None = None
    """Failures after which a call is given up; without, a service never does, and `--once` and `--only` after 6."""
    base_s: _Seconds = 1.0
    """The first wait; it doubles each time."""
    cap_s: _Seconds = 60.0
    """The longest wait between two tries while an endpoint cannot be reached."""
    after_cap_s: _Seconds = 300.0
    """The longest wait that a provider's rate limit is obeyed for."""
    person_s: _Seconds = 60.0
    """The first wait after a refused key or an exhausted quota; it doubles up to 15 times as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is logged, and how."""

    __pydantic_config__: ClassVar[dict[str, object]] = _PYDANTIC

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is written."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: for people on a terminal, else one JSON object a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Who is told that a RESULT stands, beside the folder."""

    __pydantic_config__: ClassVar[dict[str, object]] = _PYDANTIC

    desktop: Literal["auto", True, False] = "auto"
    """A notification on the desktop. `auto`: where there is one, by a service, and neither under CI nor over SSH."""
    terminal: Literal["auto", True, False] = "auto"
    """A bell where `delegate watch`, `ask` or `wait` runs. `auto`: from 10 s of waiting on, and not under CI."""
    webhook_url: Annotated[str, _Must(_not_a_hook)] = ""
    """Address that is called, signed, for each RESULT; https, or http on this machine itself."""
    webhook_secret_env: Annotated[str, _Must(_not_a_variable)] = "DELEGATE_WEBHOOK_SECRET"  # noqa: S105
    """Environment variable that holds the webhook's secret (`whsec_...`); looked at first."""
    webhook_secret_credential: Annotated[str, _Must(_not_a_name)] = "delegated_webhook_secret"  # noqa: S105
    """File below $CREDENTIALS_DIRECTORY that holds it; looked at second."""
    webhook_secret_file: _AbsolutePath = ""
    """File of mode 0600 that holds it and nothing else; looked at last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server to ask. It says where its key is found; the key itself is never part of the configuration."""

    __pydantic_config__: ClassVar[dict[str, object]] = _PYDANTIC

    base_url: Annotated[str, _Must(_not_a_url)]
    """URL up to and including the version, such as https://api.openai.com/v1."""
    wire: Literal["auto", "responses", "chat", "messages"] = "auto"
    """Interface to use. `auto`: Responses at api.openai.com, Messages at api.anthropic.com, else Chat Completions."""
    key_env: Annotated[str, _Must(_not_a_variable)] = ""
    """Environment variable that holds the key; looked at first."""
    key_credential: Annotated[str, _Must(_not_a_name)] = ""
    """File below $CREDENTIALS_DIRECTORY (systemd's LoadCredential=) that holds the key; looked at second."""
    key_command: Annotated[tuple[str, ...], _Must(_not_a_command)] = ()
    """Program, by its absolute path, and arguments that print the key, in 5 s; looked at third."""
    key_file: _AbsolutePath = ""
    """File of mode 0600 that holds the key and nothing else; looked at last."""
    timeout_s: _Seconds = 600.0
    """How long one answer may take."""
    connect_s: _Seconds = 5.0
    """How long a connection may take to be made."""
    store: Literal["auto", True, False] = "auto"
    """Whether the provider keeps the answer, so that one lost on the way can be found. `auto`: where that works."""
    hour_usd: _Usd | None = None
    """The most that may be spent at this endpoint in one hour."""
    day_usd: _Usd | None = None
    """The most that may be spent at this endpoint in one day."""
    month_usd: _Usd | None = None
    """The most that may be spent at this endpoint in one month."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Facts of a model that is not in the built-in table, or that replace those in it."""

    __pydantic_config__: ClassVar[dict[str, object]] = _PYDANTIC

    endpoint: str | None = None
    """Name of the endpoint that serves it."""
    context_tokens: _Tokens | None = None
    """Size of its context window."""
    output_tokens: _Tokens | None = None
    """The longest answer it can give."""
    input_usd: _Usd | None = None
    """USD per million input tokens. An unknown price makes a limit refuse; 0 means free."""
    cached_usd: _Usd | None = None
    """USD per million input tokens served from the provider's cache."""
    output_usd: _Usd | None = None
    """USD per million output tokens."""
    takes_temperature: bool | None = None
    """False for reasoning models, which refuse `temperature`."""
    shutdown: Annotated[str, _Must(_not_a_date)] | None = None
    """The day on which it leaves the provider's API, as YYYY-MM-DD."""
    successor: str | None = None
    """The model that its provider names in its stead."""


OPENAI: Final = Endpoint(
    base_url="https://api.openai.com/v1", key_env="OPENAI_API_KEY", key_credential="openai_api_key"
)
ANTHROPIC: Final = Endpoint(
    base_url="https://api.anthropic.com",
    wire="messages",
    key_env="ANTHROPIC_API_KEY",
    key_credential="anthropic_api_key",
)
BUILT_IN: Final[Mapping[str, Endpoint]] = {"openai": OPENAI, "anthropic": ANTHROPIC}
"""Endpoints that are there from the start; what is configured under their names goes before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of delegated. Every key is optional; what stands here replaces the default."""

    __pydantic_config__: ClassVar[dict[str, object]] = _PYDANTIC

    model: str = "gpt-4o"
    """The model that is asked when a request names none."""
    compare_models: tuple[str, ...] = ()
    """Whom a request with `compare: true` asks beside the models that it names, or `model`."""
    workspaces: tuple[_AbsolutePath, ...] = ()
    """Directories to serve; `--workspace` replaces this list."""
    folder: Annotated[str, _Must(_not_below)] = ".autonomous_runs/openai_delegations"
    """The drop folder, relative to each workspace."""

    settle_ms: Annotated[float, _Between(0, 60_000)] = 300
    """A file that was written in place counts as complete after this long without a change."""
    quiet_s: _Seconds = 10.0
    """A file whose syntax is broken may still be being written: it is rejected after this long without a change."""
    rescan_s: _Seconds = 30.0
    """Look into the folder this often even when no event came."""
    poll_s: _Seconds = 1.0
    """Look this often where the file system gives no events."""
    watch: Literal["auto", "inotify", "poll"] = "auto"
    """How changes are noticed. `auto`: by events, by polling on network file systems."""
    comments: bool = False
    """Ask what a comment with `DELEGATE TO GPT-4O: …` asks that appears in a file while a daemon watches it."""
    on_edit: Literal["ask", "keep"] = "ask"
    """A request edited after its answer: `ask` again, which is billed, or `keep` the answer."""

    max_requests_per_minute: Annotated[int, _Between(1, 1_000_000)] = 120
    """Requests of one workspace that begin in a minute; the others wait their turn."""
    max_waiting: Annotated[int, _Between(1, 1_000_000)] = 10_000
    """Waiting requests that are kept in mind; the newest beyond it stay untouched until there is room."""
    repeat_window_s: Annotated[float, _Between(0, 86_400)] = 600.0
    """For so long the same question about the same code is not asked again: it ends as `duplicate`."""
    max_repeats: Annotated[int, _Between(1, 1_000_000)] = 5
    """Askings of the same question in an hour while the code changes; the next one is rejected as a `loop`."""
    retry_below: Annotated[float, _Between(0, 1)] = 0.0
    """Below this confidence (0 to 1) the steps of `ladder` are taken, one after the other; 0: none is."""
    ladder: tuple[str, ...] = ("context", "critic")
    """What is tried below `retry_below`: `context` (more files), `critic` (the answer is attacked), a model by name."""
    max_rounds: Annotated[int, _Between(1, 20)] = 2
    """Times that a model is asked at most for one request when it names further files that would decide it."""

    concurrency: Annotated[int, _Between(1, 1000)] = 8
    """Jobs that run at the same time."""
    grace_s: Annotated[float, _Between(0, 86_400)] = 30.0
    """How long running jobs may go on after a stop signal."""
    heartbeat_s: _Seconds = 5.0
    """How often a running job renews its STATUS file."""
    deadline_s: _Seconds | None = None
    """Time for one request, waiting included; without, a service waits on, `--once` and `--only` for 600."""
    doubt_wait_s: Annotated[float, _Between(0, 86_400)] = 60.0
    """Least time before a call that may be running somewhere is taken for lost."""
    retry: Retry = field(default_factory=Retry)
    """When a call that was certainly not accepted is sent again."""

    max_request_bytes: _Bytes = 4 * 1024 * 1024
    """A larger request file is rejected."""
    max_file_bytes: _Bytes = 1024 * 1024
    """A larger file of the workspace is left out."""
    find_files: Annotated[int, _Between(0, 100)] = 8
    """A request that names fewer files gets those that it is probably about, up to so many; 0: none is looked for."""
    git_context: bool = True
    """Whether uncommitted changes, and the last commits on the lines of a trace, go along. Git itself is not run."""
    max_input_tokens: _Tokens = 100_000
    """Tokens sent per call."""
    max_output_tokens: Annotated[int, _Between(16, 10_000_000)] = 8192
    """Tokens of one answer."""
    max_cost_usd: _Usd = 1.0
    """The most that one request may cost. A call that could cost more is not made."""
    hour_usd: _Usd | None = None
    """The most that may be spent in one hour, over all workspaces of this user. No limit when it is not set."""
    day_usd: _Usd = 20.0
    """The most that may be spent in one day, over all workspaces of this user. Days begin at midnight UTC."""
    month_usd: _Usd = 200.0
    """The most that may be spent in one month, over all workspaces of this user."""
    workspace_hour_usd: _Usd | None = None
    """The most that may be spent in one hour for one workspace. No limit when it is not set."""
    workspace_day_usd: _Usd | None = None
    """The most that may be spent in one day for one workspace."""
    workspace_month_usd: _Usd | None = None
    """The most that may be spent in one month for one workspace."""
    on_budget: Literal["reject", "wait"] = "reject"
    """A call that a budget of an hour, day or month forbids: `reject` the request, or `wait` for the next window."""

    retention_days: Annotated[int, _Between(0, 36_500)] = 30
    """Days that the words sent and the raw replies are kept for; then only their hashes. 0: until the job has ended."""

    secret_rules: tuple[_AbsolutePath, ...] = ()
    """Files of more rules for secrets, in gitleaks' format, outside every workspace. They add to the built-in ones."""

    endpoints: Mapping[str, Endpoint] = field(default_factory=lambda: dict(BUILT_IN))
    """Servers to ask, by name; `openai` and `anthropic` are there from the start."""
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    """Further models, or other facts about known ones, by name."""
    notify: Notify = field(default_factory=Notify)
    """Who is told that a RESULT stands, beside the folder."""
    log: Log = field(default_factory=Log)
    """What is logged, and how."""


FREE: Final = frozenset({"model", "settle_ms", "quiet_s", "rescan_s", "poll_s", "watch"})
"""What a workspace's own file may set as it likes."""
TIGHTEN: Final = frozenset(
    {
        "concurrency",
        "max_requests_per_minute",
        "max_waiting",
        "max_repeats",
        "max_rounds",
        "deadline_s",
        "max_request_bytes",
        "max_file_bytes",
        "find_files",
        "git_context",
        "max_input_tokens",
        "max_output_tokens",
        "max_cost_usd",
        "workspace_hour_usd",
        "workspace_day_usd",
        "workspace_month_usd",
        "on_edit",
        "retention_days",
    }
)
"""What it may only make stricter: numbers lower, `on_edit` from `ask` to `keep`, `git_context` to false."""
NAMES: Final = frozenset(each.name for each in fields(Config))
assert FREE | TIGHTEN <= NAMES


# -- what the settings look like from outside --


def kind_at(path: Sequence[str | int]) -> str | None:
    """Return what stands at a key: `section`, `text`, `paths`, `names` or `scalar`; None when there is no such key."""
    at: Any = Config
    for part in path:
        if is_dataclass(at):
            at = get_type_hints(at).get(str(part))
        elif get_origin(at) is Mapping:
            at = get_args(at)[1]
        else:
            return None
    if at is None:
        return None
    if is_dataclass(at) or get_origin(at) is Mapping:
        return "section"
    if get_origin(at) is tuple:
        return "names" if path[-1] in ("compare_models", "ladder", "key_command") else "paths"
    kinds = {type(each) for each in get_args(at)} if get_origin(at) is Literal else set(get_args(at)) or {at}
    return "text" if kinds <= {str, type(None)} else "scalar"


def dotted_keys(of: Any = Config, at: str = "") -> Iterator[str]:
    """Yield every key, nested ones with dots, a name to choose as `*`: `retry.attempts`, `endpoints.*.base_url`."""
    for name, hint in get_type_hints(of).items():
        if name.startswith("__"):
            continue
        if is_dataclass(hint):
            yield from dotted_keys(hint, f"{at}{name}.")
        elif get_origin(hint) is Mapping:
            yield from dotted_keys(get_args(hint)[1], f"{at}{name}.*.")
        else:
            yield at + name


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7, which editors' YAML plug-ins read) of a configuration file."""
    text = json.dumps(adapter().json_schema(ref_template="#/definitions/{model}"))
    schema = json.loads(text)
    definitions = schema.pop("$defs")
    for part in (schema, *definitions.values()):
        for each in part["properties"].values():
            each.pop("title", None)
    # every file may leave out what another layer gives
    for part in definitions.values():
        part.pop("required", None)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of delegated",
        **{key: value for key, value in schema.items() if key != "title"},
        "definitions": definitions,
    }


@cache
def adapter() -> Any:
    """Return pydantic's reader of a whole configuration; made once, as that takes 20 ms."""
    from pydantic import TypeAdapter

    return TypeAdapter(Config)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))  # noqa: T201 - the schema is this command's result
