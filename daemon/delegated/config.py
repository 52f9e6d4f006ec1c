"""YAML files, environment and flags become one frozen `Config`, or every problem at once with its place.

Later wins: defaults, `/etc/delegated/config.yaml`, the user's file, `<workspace>/.delegated.yaml`, variables named
`DELEGATED_<KEY>` (a nested key with two underscores, `DELEGATED_LOG__LEVEL`), flags. A workspace may come from a
stranger: its file sets what `settings.FREE` names, tightens what `settings.TIGHTEN` names, and nothing else. `.env`
files are never read.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from delegated import keys, layers, pricing
from delegated.errors import OperatorError
from delegated.layers import Merged
from delegated.settings import BUILT_IN, LOOPBACK, Config, Endpoint, Log, ModelSettings, Notify, Retry, adapter

if TYPE_CHECKING:
    from delegated.rules import Rule

__all__ = [
    "Config",
    "ConfigError",
    "Endpoint",
    "Log",
    "ModelSettings",
    "Notify",
    "Retry",
    "files",
    "folder",
    "load",
    "secret_rules",
    "warnings",
    "webhook_secret",
    "wire",
]

SYSTEM_FILE: Final = "/etc/delegated/config.yaml"
WORKSPACE_FILE: Final = ".delegated.yaml"
EX_CONFIG: Final = 78
_RULES_BYTES: Final = 4 << 20

_FOLDER: Final = re.compile(r"^[^#\n]*folder", re.MULTILINE)


class ConfigError(OperatorError):
    """The configuration cannot be used: each of `problems` is a sentence that begins with its place."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(
            f"the configuration cannot be used:{lines}", EX_CONFIG, "`delegated check` reads it and starts nothing"
        )
        self.problems = problems


def files(
    *,
    workspace: str | None = None,
    user_file: str | None = None,
    env: Mapping[str, str] | None = None,
    system_file: str = SYSTEM_FILE,
) -> tuple[str, ...]:
    """Return the paths of the files that `load` looks at, weakest first; most need not exist."""
    env = os.environ if env is None else env
    base = env.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: a relative one is to be ignored
        base = os.path.join(env.get("HOME") or os.path.expanduser("~"), ".config")
    own = user_file or os.path.join(base, "delegated", "config.yaml")
    return (system_file, own, *([os.path.join(workspace, WORKSPACE_FILE)] if workspace else []))


def load(
    *,
    workspace: str | None = None,
    user_file: str | None = None,
    flags: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    system_file: str = SYSTEM_FILE,
) -> Config:
    """Read all layers and return the settings that hold, for everything or for one `workspace` (a directory).

    `user_file` (`--config`) replaces the user's file and must exist. `flags` is a tree of keys as in a file; None in
    it means: not given. Reads files and nothing else, so it can be called again on a signal.

    Raises:
        ConfigError: with every problem of every layer.
    """
    env = os.environ if env is None else env
    problems: list[str] = []
    merged = Merged({})
    found = False
    chosen: tuple[str, str, str] | None = None  # where a workspace's file names a model, which, and the one before it
    for path in files(workspace=workspace, user_file=user_file, env=env, system_file=system_file):
        stranger = workspace is not None and path == os.path.join(workspace, WORKSPACE_FILE)
        layer = layers.from_file(path, problems, required=path == user_file, stranger=stranger)
        if layer is not None:
            found = True
            if stranger:
                layer = layers.allowed(layer, merged, problems)
                if isinstance(theirs := layer.tree.get("model"), str):
                    chosen = (layer.where(("model",)), theirs, str(merged.tree.get("model", Config().model)))
            problems += layers.complaints(layer)
            merged.add(layer)
    for layer in (layers.from_environment(env, merged, problems), layers.from_flags(flags or {})):
        if layer.tree:
            found = True
            problems += layers.complaints(layer)
            merged.add(layer)
    if problems:
        raise ConfigError(tuple(dict.fromkeys(problems)))
    # where nothing is configured there is nothing to check, and importing pydantic would take most of the time
    config = _finish(merged) if found else Config()
    if chosen is not None:
        where, theirs, ours = chosen
        if config.model == theirs and endpoint_of(config, theirs) != endpoint_of(config, ours):
            raise ConfigError(
                (
                    f"{where}: `model: {theirs}` is asked at another endpoint than `{ours}`; a workspace's file may "
                    "come from somebody else, and decides not to whom the code goes: put it into the user's "
                    "configuration",
                )
            )
    return config


def folder(env: Mapping[str, str] | None = None, *, system_file: str = SYSTEM_FILE) -> str:
    """Return the drop folder's path below each workspace: all that a client needs, and most often without a parser.

    Raises:
        ConfigError: as `load`, but only where the folder is configured.
    """
    env = os.environ if env is None else env
    given = bool(env.get(f"{layers.PREFIX}FOLDER"))
    for path in files(env=env, system_file=system_file):
        try:
            given = given or _FOLDER.search(layers.read(path, stranger=False) or "") is not None
        except OSError:
            given = True  # let `load` say what is wrong with it
    return load(env=env, system_file=system_file).folder if given else Config().folder


def _finish(merged: Merged) -> Config:
    """Turn the merged tree into a Config; only what no single layer can know is left to be found."""
    import pydantic

    given = merged.tree.get("endpoints")
    endpoints = dict(given) if isinstance(given, dict) else {}
    for name, built_in in BUILT_IN.items():
        base = {key: value for key, value in asdict(built_in).items() if value != ""}
        endpoints[name] = {**base, **endpoints.get(name, {})}
    try:
        config: Config = adapter().validate_json(json.dumps({**merged.tree, "endpoints": endpoints}), strict=True)
    except pydantic.ValidationError as error:
        missing = "`{}` is missing: an endpoint needs its URL"
        raise ConfigError(
            tuple(
                f"{merged.origin(each['loc'][:-1])}: {missing.format(layers.dotted(each['loc']))}"
                if each["type"] == "missing"
                else f"{merged.origin(each['loc'])}: {layers.complaint(each)}"
                for each in error.errors(include_url=False)
            )
        ) from None
    lost = [
        f"{merged.origin(('models', name, 'endpoint'))}: `models.{name}.endpoint` is `{model.endpoint}`, which is not "
        f"among the endpoints ({', '.join(sorted(config.endpoints))})"
        for name, model in config.models.items()
        if model.endpoint is not None and model.endpoint not in config.endpoints
    ]
    if lost:
        raise ConfigError(tuple(lost))
    return replace(config, workspaces=tuple(os.path.expanduser(each) for each in config.workspaces))


def secret_rules(config: Config, workspaces: Iterable[str]) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """Return the rules by which secrets are found: the built-in ones and those of the user's files.

    Also a sentence for each part of those files that is not supported; the rest of them holds.

    Raises:
        ConfigError: a file that is absent, that others may write, that lies in a workspace, or that is no TOML: whoever
            asked for more rules must not go on with fewer.
    """
    from delegated import rules as room

    shipped = room.shipped()
    if not config.secret_rules:
        return shipped, ()
    from delegated.sieve import usable

    roots = [os.path.realpath(each) for each in workspaces]
    wrong: list[str] = []
    notes: list[str] = []
    added: dict[str, Rule] = {}
    for name in config.secret_rules:
        path = os.path.expanduser(name)
        real = os.path.realpath(path)
        if any(real == root or real.startswith(root.rstrip(os.sep) + os.sep) for root in roots):
            wrong.append(f"`secret_rules`: {path} lies in a workspace, whose rules are not its own to set; move it out")
            continue
        try:
            text = _rules_text(path)
        except OSError as error:
            wrong.append(f"`secret_rules`: {path}: {error.strerror}")
            continue
        found, problems = room.parse(text, path)
        if problems and not found:
            wrong += [f"`secret_rules`: {problem}" for problem in problems]
            continue
        kept, broken = usable(found)
        notes += [*problems, *broken]
        for rule in kept:
            if rule.id in added:
                notes.append(f"{path}: rule `{rule.id}`: {added[rule.id].source} has one of this name, which holds")
            added.setdefault(rule.id, rule)
    if wrong:
        raise ConfigError(tuple(wrong))
    return (*shipped, *added.values()), tuple(notes)


def _rules_text(path: str) -> str:
    found = layers.open_regular(path)
    if found is None:
        raise OSError(0, "there is no such file")
    file, mode = found
    with file:
        if os.name == "posix" and mode & stat.S_IWOTH:
            raise OSError(0, "everyone may write to it: chmod o-w")
        data = file.read(_RULES_BYTES + 1)
    if len(data) > _RULES_BYTES:
        raise OSError(0, f"it is larger than {_RULES_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OSError(0, f"it should be UTF-8; byte {error.start} is not") from None


# -- endpoints --


def wire(endpoint: Endpoint) -> Literal["responses", "chat", "messages"]:
    """Return the interface to use: compatible servers accept Responses calls and then ignore half of what they say."""
    if endpoint.wire != "auto":
        return endpoint.wire
    from delegated.models.client import is_openai

    if urlsplit(endpoint.base_url).hostname == "api.anthropic.com":
        return "messages"
    return "responses" if is_openai(endpoint.base_url) else "chat"


def endpoint_of(config: Config, model: str) -> Endpoint:
    """Return the endpoint at which a model is asked: its own, else the one of its maker."""
    extra = config.models.get(model)
    if extra is not None and extra.endpoint is not None:
        return config.endpoints[extra.endpoint]
    known = pricing.facts(model)
    return config.endpoints["anthropic" if known is not None and known.provider == "anthropic" else "openai"]


def named(config: Config) -> tuple[str, ...]:
    """Return the names of the models that the configuration itself has asked."""
    steps = [each for each in config.ladder if each not in ("context", "critic")]
    return tuple(dict.fromkeys((config.model, *config.compare_models, *steps)))


def webhook_secret(notify: Notify, env: Mapping[str, str], credentials_dir: str | None = None) -> bytes | None:
    """Return the bytes that webhooks are signed with; None when there are none.

    Raises:
        OperatorError: as `keys.find`, and where what is found is not `whsec_` and 24 to 64 bytes in Base64.
    """
    variable, credential, file = notify.webhook_secret_env, notify.webhook_secret_credential, notify.webhook_secret_file
    found = keys.at(keys.Keyed("webhook_secret_file", variable, credential, file), env, credentials_dir)
    if found is None:
        return None
    text = found.value
    try:
        coded = text.removeprefix("whsec_").rstrip("=")
        secret = base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True)
    except ValueError:
        secret = b""
    if not text.startswith("whsec_") or not 24 <= len(secret) <= 64:
        hint = "echo whsec_$(openssl rand -base64 32) makes one"
        raise OperatorError("the webhook's secret should be `whsec_` and 24 to 64 bytes in Base64", EX_CONFIG, hint)
    return secret


def warnings(config: Config, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return what an operator should know although it is allowed, a sentence each."""
    found = [
        f"`workspaces`: {path} is not there; it is served once it is"
        for path in config.workspaces
        if not os.path.isdir(path)
    ]
    known = {each.base_url.rstrip("/") for each in config.endpoints.values()}
    asked = [endpoint_of(config, name) for name in named(config)]
    for name in BUILT_IN:
        variable = f"{name.upper()}_BASE_URL"
        if config.endpoints[name] in asked and (url := env.get(variable, "").rstrip("/")) and url not in known:
            found.append(
                f"{variable} is set and not honoured: whatever sets a variable could redirect your key; "
                f"set DELEGATED_ENDPOINTS__{name.upper()}__BASE_URL or `endpoints.{name}.base_url` instead"
            )
    for name, endpoint in config.endpoints.items():
        url_parts = urlsplit(endpoint.base_url)
        keyed = endpoint.key_env or endpoint.key_credential or endpoint.key_command or endpoint.key_file
        if url_parts.scheme == "http" and url_parts.hostname not in LOOPBACK and keyed:
            found.append(f"endpoint `{name}` would send its key and your code in the clear: use https")
    if config.notify.webhook_url:
        try:
            if webhook_secret(config.notify, env, env.get("CREDENTIALS_DIRECTORY")) is None:
                variable = config.notify.webhook_secret_env
                found.append(f"`notify.webhook_url` is not called: there is no secret to sign with; set {variable}")
        except OperatorError as error:
            found.append(f"`notify.webhook_url` is not called: {error}" + (f"; {error.hint}" if error.hint else ""))
    return tuple(found)
