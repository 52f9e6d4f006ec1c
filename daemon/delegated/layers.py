"""One layer of settings, from a file, the environment or flags: its values, their places, and what is wrong in it."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from delegated import yaml_values
from delegated.errors import RequestError
from delegated.settings import FREE, NAMES, TIGHTEN, Config, adapter, dotted_keys, kind_at
from delegated.yaml_values import Path

PREFIX: Final = "DELEGATED_"


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source gives: a tree of values of JSON's types, and `where(path)`, the words for a value's place."""

    tree: dict[str, object]
    where: Callable[[Path], str]


@dataclass(slots=True)
class Merged:
    """The layers so far: one tree, and where each value in it came from."""

    tree: dict[str, object]
    origins: dict[Path, str] = field(default_factory=dict)

    def add(self, layer: Layer) -> None:
        """Lay one more on top."""
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
        """Return the place that gave the value at `path`, or what is nearest around it."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, "defaults")


def from_file(path: str, problems: list[str], *, required: bool = False, stranger: bool = False) -> Layer | None:
    """Read a YAML file; None when there is none, or when nothing of it can be used, which is added to `problems`."""
    try:
        text = read(path, stranger=stranger)
        if text is None:
            if required:
                problems.append(f"{path}: there is no such file; --config names a file that exists")
            return None
        found = yaml_values.load(text)
    except RequestError as error:
        problems += [
            f"{path}:{each.line}: {each.found}; {each.expected}" if each.line else f"{path}: {each.found}"
            for each in error.problems
        ]
        return None
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
        return None
    if found.value is None:
        return None
    if not isinstance(found.value, dict):
        problems.append(f"{path}:1: the file should hold keys with values, such as `model: gpt-4o`")
        return None
    return Layer(_without_none(found.value), lambda at: f"{path}:{found.line(at)}")


def read(path: str, *, stranger: bool) -> str | None:
    """Return the file's text, None when there is none; a stranger's link is not followed."""
    found = open_regular(path, getattr(os, "O_NOFOLLOW", 0) if stranger else 0)
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


def open_regular(path: str, flags: int = 0) -> tuple[BinaryIO, int] | None:
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


def allowed(layer: Layer, below: Merged, problems: list[str]) -> Layer:
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
        elif key in TIGHTEN and value is True and limit is False:
            problems.append(f"{where}: `{key}: true` is less strict than `false` in {below.origin((key,))}")
        elif key in TIGHTEN and _is_number(value) and _is_number(limit) and value > limit:  # type: ignore[operator]
            problems.append(
                f"{where}: `{key}: {value}` is above {limit} from {below.origin((key,))}; a workspace may only lower it"
            )
        else:
            kept[key] = value
    return Layer(kept, layer.where)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def from_environment(env: Mapping[str, str], merged: Merged, problems: list[str]) -> Layer:
    """Read the variables named DELEGATED_...; `merged` has the names that files gave to endpoints and models."""
    tree: dict[str, object] = {}
    names: dict[Path, str] = {}
    for name in sorted(env):
        if not name.startswith(PREFIX) or not env[name]:
            continue
        path = _env_path(name.removeprefix(PREFIX).lower().split("__"), merged.tree)
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
            if kind == "paths"
            else text.replace(",", " ").split()
            if kind == "names"
            else yaml_values.scalar(text)
        )
        for end in range(1, len(path) + 1):
            names.setdefault(path[:end], name)
    return Layer(tree, lambda at: names.get(at, "environment"))


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _env_names() -> Iterator[str]:
    for key in dotted_keys():
        yield PREFIX + key.replace("*", "openai").replace(".", "__").upper()


def _env_path(parts: list[str], tree: Mapping[str, object]) -> Path:
    """Return the key that a variable's name means; endpoint `my-box` of a file is spelt MY_BOX."""
    if len(parts) == 3 and isinstance(known := tree.get(parts[0]), dict):
        parts[1] = next((name for name in known if re.sub(r"[^a-z0-9]", "_", name.lower()) == parts[1]), parts[1])
    return tuple(parts)


def from_flags(flags: Mapping[str, object]) -> Layer:
    """Read a tree as the command line gives it: paths may be relative, None means not given."""
    tree = _without_none(json.loads(json.dumps(flags, default=os.fspath)))
    if isinstance(given := tree.get("workspaces"), list):
        tree["workspaces"] = [_absolute(str(each)) for each in given]
    return Layer(tree, lambda at: "--" + "-".join(map(str, at)).replace("_", "-"))


def complaints(layer: Layer) -> list[str]:
    """Check one layer by itself, so that a fault is reported at its place even where another layer hides it."""
    import pydantic

    try:
        adapter().validate_json(json.dumps(layer.tree), strict=True)
    except pydantic.ValidationError as error:
        found = [
            (layer.where(each["loc"]), complaint(each))
            for each in error.errors(include_url=False)
            if each["type"] != "missing"  # another layer may give it
        ]
        return [f"{where}: {complaint}" for where, complaint in sorted(found, key=lambda each: _line_in(each[0]))]
    return []


def _line_in(where: str) -> int:
    line = where.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


def complaint(error: Any) -> str:
    """Say what was found and what would be right. No value that might be a key is repeated."""
    path: Path = error["loc"]
    if error["type"] == "unexpected_keyword_argument":
        name = str(path[-1])
        if path[0] == "endpoints" and "key" in name:
            return f"`{dotted(path)}`: keys are not written here; name their place: key_env, key_file or the like"
        inside = [key for key in dotted_keys() if key.count(".") == len(path) - 1 and _same_section(key, path)]
        elsewhere = [key for key in dotted_keys() if key.split(".")[-1] == name]
        guess = (
            f"; did you mean `{elsewhere[0]}`?"
            if elsewhere
            else _did_you_mean(
                dotted(path),
                [dotted((*path[:-1], key.split(".")[-1])) for key in inside] + (_sections() if len(path) == 1 else []),
            )
        )
        return f"there is no key `{dotted(path)}`{guess}"
    found = error["input"]
    private = path[0] in ("endpoints", "notify")
    shown = f": {json.dumps(found)[:60]}" if not private and isinstance(found, str | int | float) else ""
    cause = error.get("ctx", {}).get("error")
    expected = str(cause) if cause else error["msg"].replace("Input should", "should")
    return f"`{dotted(path)}{shown}` {expected}"


def _same_section(key: str, path: Path) -> bool:
    return all(a in ("*", b) for a, b in zip(key.split(".")[:-1], path[:-1], strict=True))


def _sections() -> list[str]:
    return sorted({key.split(".")[0] for key in dotted_keys() if "." in key})


def dotted(path: Path) -> str:
    """Return a key as people write it: `retry.attempts`."""
    return ".".join(map(str, path))


def _did_you_mean(word: str, among: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, among, 1, 0.7)
    return f"; did you mean `{close[0]}`?" if close else ""
