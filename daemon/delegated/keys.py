"""Where an endpoint's key is found: a variable, a credential, what a program prints, a file. Nobody else reads it."""

from __future__ import annotations

import math
import os
import re
import selectors
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from delegated import layers
from delegated.errors import OperatorError
from delegated.settings import Endpoint

COMMAND_S: Final = 5.0
_REST_S: Final = 60.0  # after a command that failed
_LIMIT: Final = 8192
_EX_CONFIG: Final = 78


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and in words where it was found."""

    value: str = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class Keyed:
    """Where a key is looked for, in this order, the command before the file; `setting` names the file's."""

    setting: str
    variable: str
    credential: str
    file: str
    command: tuple[str, ...] = ()


class Keyring:
    """The keys of endpoints, for all that ask in one process. Any thread may ask.

    What a command printed is kept, that it failed for a while: it may take seconds, a keyring may ask a person each
    time, and requests come by the hundred. `learned` is told each key before anybody is given it.
    """

    def __init__(self, env: Mapping[str, str], learned: Callable[[str], None] = lambda value: None) -> None:
        self._env = env
        self._learned = learned
        self._lock = threading.Lock()
        self._printed: dict[Endpoint, tuple[float, Key | OperatorError | None]] = {}

    def find(self, endpoint: Endpoint) -> Key | None:
        """Return the endpoint's key, and raise, as the function does."""
        key = self._printed_by(endpoint) if endpoint.key_command else find(endpoint, self._env)
        if key is not None:
            self._learned(key.value)
        return key

    def _printed_by(self, endpoint: Endpoint) -> Key | None:
        known = self._kept(endpoint)
        if known is None:
            with self._lock:
                known = self._kept(endpoint) or self._asked(endpoint)
        _, found = known
        if isinstance(found, OperatorError):
            raise found
        return found

    def _kept(self, endpoint: Endpoint) -> tuple[float, Key | OperatorError | None] | None:
        known = self._printed.get(endpoint)
        return known if known is not None and time.monotonic() < known[0] else None

    def _asked(self, endpoint: Endpoint) -> tuple[float, Key | OperatorError | None]:
        made: tuple[float, Key | OperatorError | None]
        try:
            made = math.inf, find(endpoint, self._env)
        except OperatorError as error:
            made = time.monotonic() + _REST_S, error
        self._printed[endpoint] = made
        return made


def find(endpoint: Endpoint, env: Mapping[str, str]) -> Key | None:
    """Return the endpoint's key: of its variable, else its credential, else its command, else its file.

    None when it names no place that holds one. Blocks while a command runs, `COMMAND_S` seconds at most.

    Raises:
        OperatorError: a command that fails, a key file that others may read, one that cannot be read, or anything but
            one key in a place.
    """
    places = Keyed("key_file", endpoint.key_env, endpoint.key_credential, endpoint.key_file, endpoint.key_command)
    return at(places, env, env.get("CREDENTIALS_DIRECTORY"))


def at(places: Keyed, env: Mapping[str, str], credentials_dir: str | None) -> Key | None:
    """Return the first key that stands in one of these places; raises as `find`."""
    if places.variable and (found := env.get(places.variable, "").strip()):
        return _one(found, f"the variable {places.variable}", f"${places.variable}")
    if places.credential and credentials_dir:
        path = os.path.join(credentials_dir, places.credential)
        if held := _in_file(path, private=False):  # systemd guards it, and shows it as 0440 to the service's user
            return _one(held, f"the systemd credential {places.credential}", path)
    if places.command:
        program = os.path.expanduser(places.command[0])
        printed = _printed((program, *places.command[1:]), env)
        return _one(printed, f"the command {program}", f"what {program} prints")
    if places.file:
        path = os.path.expanduser(places.file)
        if held := _in_file(path, private=True):
            return _one(held, path, path)
        hint = f"write the key into it, or drop `{places.setting}`"
        raise OperatorError(f"the key file {path} is absent or empty", _EX_CONFIG, hint)
    return None


def named(endpoint: Endpoint) -> bool:
    """Say whether an endpoint names any place for a key; one that names none is asked without."""
    return bool(endpoint.key_env or endpoint.key_credential or endpoint.key_command or endpoint.key_file)


def _in_file(path: str, *, private: bool) -> str | None:
    try:
        found = layers.open_regular(path)
        if found is None:
            return None
        file, mode = found
        with file:
            if private and os.name == "posix" and mode & 0o077:
                message = f"others may read the key in {path} (mode {stat.S_IMODE(mode):04o})"
                raise OperatorError(message, _EX_CONFIG, f"chmod 600 {path}")
            return file.read(_LIMIT).decode("utf-8", "replace").strip()
    except OSError as error:
        raise OperatorError(f"the key in {path} cannot be read: {error.strerror}", _EX_CONFIG) from error


def _printed(command: tuple[str, ...], env: Mapping[str, str]) -> str:
    """Return what a program prints, without the white space around it. What it says on stderr is shown to nobody."""
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=dict(env),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise OperatorError(f"the key command {command[0]} cannot be started: {why}", _EX_CONFIG) from error
    until, code = time.monotonic() + COMMAND_S, None
    with child:
        data = _read(child, until)
        if data is not None:
            with suppress(subprocess.TimeoutExpired):
                code = child.wait(max(0.1, until - time.monotonic()))
        if code is None:
            with suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)  # and whatever it has started
    if data is None or code is None:
        message = f"the key command {command[0]} took longer than {COMMAND_S:g} s, or printed more than a key"
        raise OperatorError(message, _EX_CONFIG, "run it by hand: it may ask something, which nobody sees here")
    text = data.decode("utf-8", "replace").strip()
    if code != 0 or not text:
        message = f"the key command {command[0]} " + (f"ended with {code}" if code else "printed nothing")
        raise OperatorError(message, _EX_CONFIG, "run it by hand to see what it says")
    return text


def _read(child: subprocess.Popen[bytes], until: float) -> bytes | None:
    """Read all that a program prints; None when it is too much or takes too long."""
    assert child.stdout is not None
    data = b""
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while len(data) <= _LIMIT and ready.select(max(0.0, until - time.monotonic())):
            part = os.read(child.stdout.fileno(), _LIMIT)
            if not part:
                return data
            data += part
    return None


def _one(text: str, source: str, where: str) -> Key:
    if re.fullmatch(r"[\x21-\x7e]+", text):
        return Key(text, source)
    raise OperatorError(f"{where} holds more than a key: white space or unprintable characters", _EX_CONFIG)
