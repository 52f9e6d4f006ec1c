"""YAML files, environment and flags become one frozen `Config`, or every problem at once with its place.

Later wins: defaults, `/etc/delegated/config.yaml`, the user's file, `<workspace>/.delegated.yaml`, variables named
`DELEGATED_<KEY>` (a nested key with two underscores, `DELEGATED_LOG__LEVEL`), flags. A workspace may come from a
stranger: its file sets what `settings.FREE` names, tightens what `settings.TIGHTEN` names, and nothing else. `.env`
files are never read.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, BinaryIO, Final, Literal
from urllib.parse import urlsplit

from delegated import yaml_values
from delegated.errors import OperatorError, RequestError
from delegated.settings import (
    FREE,
    NAMES,
    OPENAI,
    TIGHTEN,
    Config,
    Endpoint,
    Log,
    ModelSettings,
    Retry,
    adapter,
    dotted_keys,
    kind_at,
)
from delegated.yaml_values import Path

__all__ = [
    "Config",
    "ConfigError",
    "Endpoint",
    "Log",
    "ModelSettings",
    "Retry",
    "api_key",
    "files",
    "folder",
    "load",
    "warnings",
    "wire",
]

SYSTEM_FILE: Final = "/etc/delegated/config.yaml"
WORKSPACE_FILE: Final = ".delegated.yaml"
EX_CONFIG: Final = 78
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

_PREFIX: Final = "DELEGATED_"
_FOLDER: Final = re.compile(r"^[^#\n]*folder", re.MULTILINE)


class ConfigError(OperatorError):
    """The configuration cannot be used: each of `problems` is a sentence that begins with its place."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(
            f"the configuration cannot be used:{lines}", EX_CONFIG, "`delegated check` reads it and starts nothing"
        )
        self.problems = problems


# -- one layer: a tree of plain values, and where each of them stands --


@dataclass(frozen=True, slots=True)
class _Layer:
    tree: dict[str, object]
    where: Callable[[Path], str]


@dataclass(slots=True)
class _Merged:
    """The layers so far: one tree, and where each value in it came from."""

    tree: dict[str, object]
    origins: dict[Path, str] = field(default_factory=dict)

    def add(self, layer: _Layer) -> None:
        self._add(self.tree, layer.tree, (), layer.where)

    def _add(self, into: dict[str, object], tree: dict[str, object], at: Path, where: Callable[[Path], str]) -> None:
        for key, value in tree.items():
            path = (*at, key)
            self.origins[path] = where(path)
            below = into.get(key)
            if isinstance(value, dict):
                into[key] = below = below if isinstance(below, dict) else {}
                self._add(below, value, path, where)
            else:
                into[key] = value

    def origin(self, path: Path) -> str:
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, "defaults")


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
    merged = _Merged({})
    found = False
    for path in files(workspace=workspace, user_file=user_file, env=env, system_file=system_file):
        stranger = workspace is not None and path == os.path.join(workspace, WORKSPACE_FILE)
        layer = _file_layer(path, problems, required=path == user_file, stranger=stranger)
        if layer is not None:
            found = True
            if stranger:
                layer = _allowed(layer, merged, problems)
            problems += _complaints(layer)
            merged.add(layer)
    for layer in (_env_layer(env, merged, problems), _flag_layer(flags or {})):
        if layer.tree:
            found = True
            problems += _complaints(layer)
            merged.add(layer)
    if problems:
        raise ConfigError(tuple(dict.fromkeys(problems)))
    # where nothing is configured there is nothing to check, and importing pydantic would take most of the time
    return _finish(merged) if found else Config()


def folder(env: Mapping[str, str] | None = None, *, system_file: str = SYSTEM_FILE) -> str:
    """Return the drop folder's path below each workspace: all that a client needs, and most often without a parser.

    Raises:
        ConfigError: as `load`, but only where the folder is configured.
    """
    env = os.environ if env is None else env
    given = bool(env.get(f"{_PREFIX}FOLDER"))
    for path in files(env=env, system_file=system_file):
        try:
            given = given or _FOLDER.search(_read(path, stranger=False) or "") is not None
        except OSError:
            given = True  # let `load` say what is wrong with it
    return load(env=env, system_file=system_file).folder if given else Config().folder


def _finish(merged: _Merged) -> Config:
    """Turn the merged tree into a Config; only what no single layer can know is left to be found."""
    import pydantic

    given = merged.tree.get("endpoints")
    endpoints = dict(given) if isinstance(given, dict) else {}
    base = {key: value for key, value in asdict(OPENAI).items() if value != ""}
    endpoints["openai"] = {**base, **endpoints.get("openai", {})}
    try:
        config: Config = adapter().validate_json(json.dumps({**merged.tree, "endpoints": endpoints}), strict=True)
    except pydantic.ValidationError as error:
        raise ConfigError(
            tuple(
                f"{merged.origin(each['loc'][:-1])}: `{_dotted(each['loc'])}` is missing: an endpoint needs its URL"
                if each["type"] == "missing"
                else f"{merged.origin(each['loc'])}: {_complaint(each)}"
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


def _file_layer(path: str, problems: list[str], *, required: bool = False, stranger: bool = False) -> _Layer | None:
    try:
        text = _read(path, stranger=stranger)
        if text is None:
            if required:
                problems.append(f"{path}: there is no such file; --config names a file that exists")
            return None
        read = yaml_values.load(text)
    except RequestError as error:
        problems += [
            f"{path}:{each.line}: {each.found}; {each.expected}" if each.line else f"{path}: {each.found}"
            for each in error.problems
        ]
        return None
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
        return None
    if read.value is None:
        return None
    if not isinstance(read.value, dict):
        problems.append(f"{path}:1: the file should hold keys with values, such as `model: gpt-4o`")
        return None
    return _Layer(_without_none(read.value), lambda at: f"{path}:{read.line(at)}")


def _read(path: str, *, stranger: bool) -> str | None:
    """Return the file's text, None when there is none; a stranger's link is not followed."""
    found = _open(path, getattr(os, "O_NOFOLLOW", 0) if stranger else 0)
    if found is None:
        return None
    file, mode = found
    with file:
        if not stranger and os.name == "posix" and mode & stat.S_IWOTH:
            raise OSError(0, "everyone may write to it, so anyone could redirect your key: chmod o-w")
        data = file.read(yaml_values.MAX_BYTES + 1)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OSError(0, f"it should be UTF-8; byte {error.start} is not") from None


def _open(path: str, flags: int = 0) -> tuple[BinaryIO, int] | None:
    """Open a regular file and return it with its mode, None when there is none; never waits on a FIFO."""
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, os.O_RDONLY | flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "it should be a regular file, not a link") from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(0, "it should be a regular file")
    return os.fdopen(descriptor, "rb"), mode


def _without_none(tree: dict[str, Any]) -> dict[str, object]:
    """Drop keys without a value: a section of which every line is commented out changes nothing."""
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if value is not None
    }


def _allowed(layer: _Layer, below: _Merged, problems: list[str]) -> _Layer:
    """Keep of a workspace's layer what it may set; the rest becomes problems."""
    defaults = Config()
    kept: dict[str, object] = {}
    for key, value in layer.tree.items():
        where = layer.where((key,))
        limit = below.tree.get(key, getattr(defaults, key, None))
        if key in NAMES - FREE - TIGHTEN:
            problems.append(
                f"{where}: `{key}` is not for a workspace to set, because its files may come from somebody else; "
                "put it into the user's or the system's configuration"
            )
        elif key == "on_edit" and value == "ask" and limit == "keep":
            problems.append(f"{where}: `on_edit: ask` is less strict than `keep` in {below.origin((key,))}")
        elif key in TIGHTEN and _is_number(value) and _is_number(limit) and value > limit:  # type: ignore[operator]
            problems.append(
                f"{where}: `{key}: {value}` is above {limit} from {below.origin((key,))}; a workspace may only lower it"
            )
        else:
            kept[key] = value
    return _Layer(kept, layer.where)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _env_layer(env: Mapping[str, str], merged: _Merged, problems: list[str]) -> _Layer:
    tree: dict[str, object] = {}
    names: dict[Path, str] = {}
    for name in sorted(env):
        if not name.startswith(_PREFIX) or not env[name]:
            continue
        path = _env_path(name.removeprefix(_PREFIX).lower().split("__"), merged.tree)
        kind = kind_at(path)
        if kind is None or kind == "section":
            problems.append(f"{name}: there is no such setting{_did_you_mean(name, list(_env_names()))}")
            continue
        into = tree
        for part in path[:-1]:
            into = into.setdefault(str(part), {})  # type: ignore[assignment]
        text = env[name]
        into[str(path[-1])] = (
            text
            if kind == "text"
            else [_absolute(each) for each in text.split(os.pathsep) if each]
            if kind == "list"
            else yaml_values.scalar(text)
        )
        for end in range(1, len(path) + 1):
            names.setdefault(path[:end], name)
    return _Layer(tree, lambda at: names.get(at, "environment"))


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _env_names() -> Iterator[str]:
    for key in dotted_keys():
        yield _PREFIX + key.replace("*", "openai").replace(".", "__").upper()


def _env_path(parts: list[str], tree: Mapping[str, object]) -> Path:
    """Return the key that a variable's name means; endpoint `my-box` of a file is spelt MY_BOX."""
    if len(parts) == 3 and isinstance(known := tree.get(parts[0]), dict):
        parts[1] = next((name for name in known if re.sub(r"[^a-z0-9]", "_", name.lower()) == parts[1]), parts[1])
    return tuple(parts)


def _flag_layer(flags: Mapping[str, object]) -> _Layer:
    tree = _without_none(json.loads(json.dumps(flags, default=os.fspath)))
    if isinstance(given := tree.get("workspaces"), list):
        tree["workspaces"] = [_absolute(str(each)) for each in given]
    return _Layer(tree, lambda at: "--" + "-".join(map(str, at)).replace("_", "-"))


def _complaints(layer: _Layer) -> list[str]:
    """Check one layer by itself, so that a fault is reported at its place even where another layer hides it."""
    import pydantic

    try:
        adapter().validate_json(json.dumps(layer.tree), strict=True)
    except pydantic.ValidationError as error:
        found = [
            (layer.where(each["loc"]), _complaint(each))
            for each in error.errors(include_url=False)
            if each["type"] != "missing"  # another layer may give it
        ]
        return [f"{where}: {complaint}" for where, complaint in sorted(found, key=lambda each: _line_in(each[0]))]
    return []


def _line_in(where: str) -> int:
    line = where.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


def _complaint(error: Any) -> str:
    """Say what was found and what would be right. No value of an endpoint is repeated: it might be a key."""
    path: Path = error["loc"]
    if error["type"] == "unexpected_keyword_argument":
        name = str(path[-1])
        if path[0] == "endpoints" and "key" in name:
            return f"`{_dotted(path)}`: keys are not written here; name their place: key_env, key_credential, key_file"
        inside = [key for key in dotted_keys() if key.count(".") == len(path) - 1 and _same_section(key, path)]
        elsewhere = [key for key in dotted_keys() if key.split(".")[-1] == name]
        guess = (
            f"; did you mean `{elsewhere[0]}`?"
            if elsewhere
            else _did_you_mean(
                _dotted(path),
                [_dotted((*path[:-1], key.split(".")[-1])) for key in inside] + (_sections() if len(path) == 1 else []),
            )
        )
        return f"there is no key `{_dotted(path)}`{guess}"
    found = error["input"]
    shown = f": {json.dumps(found)[:60]}" if path[0] != "endpoints" and isinstance(found, str | int | float) else ""
    cause = error.get("ctx", {}).get("error")
    expected = str(cause) if cause else error["msg"].replace("Input should", "should")
    return f"`{_dotted(path)}{shown}` {expected}"


def _same_section(key: str, path: Path) -> bool:
    return all(a in ("*", b) for a, b in zip(key.split(".")[:-1], path[:-1], strict=True))


def _sections() -> list[str]:
    return sorted({key.split(".")[0] for key in dotted_keys() if "." in key})


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _did_you_mean(word: str, among: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, among, 1, 0.7)
    return f"; did you mean `{close[0]}`?" if close else ""


# -- endpoints --


def wire(endpoint: Endpoint) -> Literal["responses", "chat"]:
    """Return the interface to use: compatible servers accept Responses calls and then ignore half of what they say."""
    if endpoint.wire != "auto":
        return endpoint.wire
    return "responses" if urlsplit(endpoint.base_url).hostname == "api.openai.com" else "chat"


def api_key(endpoint: Endpoint, env: Mapping[str, str], credentials_dir: str | None = None) -> str | None:
    """Return the endpoint's key: from its variable, else its credential, else its file; None when there is none.

    Raises:
        OperatorError: a key file that others may read, or that cannot be read, or holds anything but one key.
    """
    if endpoint.key_env and (key := env.get(endpoint.key_env, "").strip()):
        return _one_key(key, f"${endpoint.key_env}")
    if endpoint.key_credential and credentials_dir:
        path = os.path.join(credentials_dir, endpoint.key_credential)
        if found := _key_in(path, private=False):  # systemd guards it, and shows it as 0440 to the service's user
            return _one_key(found, path)
    if endpoint.key_file:
        path = os.path.expanduser(endpoint.key_file)
        if found := _key_in(path, private=True):
            return _one_key(found, path)
        hint = "write the key into it, or drop `key_file`"
        raise OperatorError(f"the key file {path} is absent or empty", EX_CONFIG, hint)
    return None


def _key_in(path: str, *, private: bool) -> str | None:
    try:
        found = _open(path)
        if found is None:
            return None
        file, mode = found
        with file:
            if private and os.name == "posix" and mode & 0o077:
                message = f"others may read the key in {path} (mode {stat.S_IMODE(mode):04o})"
                raise OperatorError(message, EX_CONFIG, f"chmod 600 {path}")
            return file.read(8192).decode("utf-8", "replace").strip()
    except OSError as error:
        raise OperatorError(f"the key in {path} cannot be read: {error.strerror}", EX_CONFIG) from error


def _one_key(key: str, where: str) -> str:
    if re.fullmatch(r"[\x21-\x7e]+", key):
        return key
    raise OperatorError(f"{where} holds more than a key: white space or unprintable characters", EX_CONFIG)


def warnings(config: Config, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return what an operator should know although it is allowed, a sentence each."""
    found: list[str] = []
    known = {each.base_url.rstrip("/") for each in config.endpoints.values()}
    if (url := env.get("OPENAI_BASE_URL", "").rstrip("/")) and url not in known:
        found.append(
            "OPENAI_BASE_URL is set and not honoured: whatever sets a variable could redirect your key; "
            "set DELEGATED_ENDPOINTS__OPENAI__BASE_URL or `endpoints.openai.base_url` instead"
        )
    for name, endpoint in config.endpoints.items():
        url_parts = urlsplit(endpoint.base_url)
        keyed = endpoint.key_env or endpoint.key_credential or endpoint.key_file
        if url_parts.scheme == "http" and url_parts.hostname not in LOOPBACK and keyed:
            found.append(f"endpoint `{name}` would send its key and your code in the clear: use https")
    return tuple(found)
