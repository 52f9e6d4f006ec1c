"""Check that a request dropped now would be answered, and say what to do where it would not."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

from delegated import folder as names
from delegated.disk import Directory
from delegated.errors import KINDS, Refused, Unavailable

from . import exits, terminal
from . import place as places
from .arguments import place_flags, place_of
from .place import Place

if TYPE_CHECKING:
    from delegated.config import Config, Endpoint

_LITTLE: Final = 200 << 20
_FULL: Final = 1 << 20
_SHOWN: Final = 5
_QUICK_S: Final = 10.0
_PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY")

State = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, in words, and what to do."""

    name: str
    state: State
    message: str
    hint: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `doctor`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--config", metavar="PATH", help="read this file in place of the user's configuration")
    parser.add_argument("--model", metavar="NAME", help="check this model instead of the configured one")
    parser.add_argument("--offline", action="store_true", help="open no connection")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Look at everything; one failing check does not hide the next."""
    place = place_of(args)
    checks: list[Check] = []
    for check in examine(place, config_file=args.config, model=args.model, connect=not args.offline):
        checks.append(check)
        if not args.json:
            terminal.out(f"{check.state:<4}  {check.name:<13}  {check.message}")
            if check.hint:
                terminal.out(f"{'':<21}{'' if check.state == 'ok' else '-> '}{check.hint}")
    well = all(check.state != "FAIL" for check in checks)
    if args.json:
        terminal.out_json({"ok": well, "checks": [asdict(check) for check in checks]})
    else:
        terminal.say(
            "a request dropped now would be answered" if well else "a request dropped now would not be answered"
        )
        if well and places.holder(place) is None:
            terminal.next_step(f"delegated{place.workspace_flag()}")
    return exits.OK if well else exits.UNHEALTHY


def examine(place: Place, *, config_file: str | None, model: str | None, connect: bool) -> Iterator[Check]:
    """Yield the checks as they are made."""
    served = places.holder(place)
    yield (
        Check("daemon", "ok", f"this folder is served by {served}")
        if served
        else Check("daemon", "warn", "none serves this folder", "`delegate ask` does the work itself; or: delegated")
    )
    yield from _folder(place)
    settings: Config | None = None
    for check, found in _configuration(place, config_file, model):
        settings = found or settings
        yield check
    if settings is None:
        return
    if os.path.isdir(place.folder):
        yield _watch(place.folder, settings.watch)
    yield _tokens()
    yield from _models(settings, served, connect)


def _folder(place: Place) -> Iterator[Check]:
    path = place.folder
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    missing = path != place.folder
    name = f".doctor.{os.getpid()}.tmp"
    try:
        if missing:
            if not os.path.isdir(path):
                raise NotADirectoryError(20, "Not a directory")
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        else:
            with Directory(path) as directory:
                directory.write_temp(name, b"a write test\n")
                directory.remove(name)
    except OSError as error:
        yield Check(
            "folder",
            "FAIL",
            f"cannot write in {path}: {error.strerror}",
            "make it writable for this user, or free space",
        )
    else:
        yield (
            Check("folder", "warn", f"{place.folder} is not there yet", f"delegate init{place.flags()}")
            if missing
            else Check("folder", "ok", f"{path} can be written")
        )
    yield from _journal(place)
    yield from _names(place)
    free = shutil.disk_usage(path if os.path.exists(path) else place.workspace).free
    words = f"{free / (1 << 30):.1f} GiB free"
    if free < _FULL:
        yield Check("space", "FAIL", words, "free space: nothing can be recorded, so nothing will be asked")
    else:
        yield Check(
            "space", "ok" if free > _LITTLE else "warn", words, "" if free > _LITTLE else "free some space soon"
        )


def _journal(place: Place) -> Iterator[Check]:
    path = os.path.join(place.folder, places.JOURNAL)
    try:
        info, folder = os.stat(path), os.stat(place.folder)
    except FileNotFoundError:
        return  # the daemon makes it
    except OSError as error:
        yield Check("journal", "FAIL", f"cannot look at {path}: {error.strerror}", "make it accessible for this user")
        return
    if info.st_dev != folder.st_dev:
        yield Check("journal", "FAIL", f"{path} lies on another file system than its folder", "unmount it")
    elif not os.access(path, os.W_OK | os.X_OK):
        yield Check("journal", "FAIL", f"{path} cannot be written", "make it writable for this user")
    else:
        yield Check("journal", "ok", f"{path} can be written, on the folder's own file system")


def _names(place: Place) -> Iterator[Check]:
    """Name the files that were meant as requests and that nobody will ever ask about."""
    try:
        found = sorted(name for name in os.listdir(place.folder) if names.misnamed(name))
    except OSError:
        return  # told by the folder's own check
    for name in found[:_SHOWN]:
        yield Check("names", "warn", f"{name!a} is no request's name; it is not asked", names.NAMING)
    if len(found) > _SHOWN:
        yield Check("names", "warn", f"{len(found) - _SHOWN} more are named so", names.NAMING)


def _configuration(place: Place, config_file: str | None, model: str | None) -> Iterator[tuple[Check, Config | None]]:
    from delegated import config

    try:
        found = config.load(workspace=place.workspace, user_file=config_file, flags={"model": model})
    except config.ConfigError as error:
        for problem in error.problems:
            yield Check("configuration", "FAIL", problem, "correct this line"), None
        return
    paths = [path for path in config.files(workspace=place.workspace, user_file=config_file) if os.path.exists(path)]
    yield Check("configuration", "ok", ", ".join(paths) or "defaults; no file"), found
    for warning in config.warnings(found, os.environ):
        yield Check("configuration", "warn", warning), None


def _watch(path: str, mode: str) -> Check:
    import asyncio

    from delegated.watch import Bell, Polling, open_watch

    async def look() -> tuple[bool, str]:
        watch = open_watch(path, Bell(), mode=mode)
        try:
            return isinstance(watch, Polling), watch.why
        finally:
            watch.close()

    try:
        polling, why = asyncio.run(look())
    except OSError as error:
        return Check("watch", "FAIL", f"cannot watch {path}: {error.strerror}", "`watch: poll` in the configuration")
    return Check("watch", "warn" if polling else "ok", why, "a request is noticed a second later" if polling else "")


def _tokens() -> Check:
    from delegated.tokens import counter

    if counter().exact:
        return Check("tokens", "ok", "counted exactly")
    return Check("tokens", "ok", "estimated, on the safe side", "exact with: pip install 'delegated[tokens]'")


def _models(settings: Config, served: str | None, connect: bool) -> Iterator[Check]:
    """Check the model, its key and its endpoint."""
    from delegated import pricing
    from delegated.app import Models
    from delegated.tokens import counter

    name = settings.model
    models = Models(settings, os.environ, counter)
    try:
        model, facts = models.find(name)
    except Refused as error:
        kind, hint = error.kind, KINDS[error.kind].hint
        if kind == "missing_key" and served is not None:
            yield Check("key", "warn", f"{error}: not in this shell", f"the daemon ({served}) may have its own")
        else:
            yield Check("key" if kind in ("missing_key", "bad_key") else "model", "FAIL", str(error), hint)
        return
    today = time.strftime("%Y-%m-%d", time.gmtime())
    late = pricing.warning(facts, today)
    until = f", in the provider's API until {facts.shutdown}" if facts.shutdown else ""
    yield Check("model", "warn" if late else "ok", late or f"{name} is known{until}")
    if not model.endpoint:
        yield Check("key", "ok", f"{name} needs none, and no network")
        return
    extra = settings.models.get(name)
    endpoint = settings.endpoints[(extra.endpoint if extra else None) or "openai"]
    source, key = _key(endpoint)
    yield Check("key", "ok", f"present, from {source}" if key else "this endpoint needs none")
    if connect:
        yield _reach(endpoint, key, name)


def _key(endpoint: Endpoint) -> tuple[str, str]:
    """Return where the key comes from, in words, and the key, which is never shown."""
    from dataclasses import replace

    from delegated.config import api_key

    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if endpoint.key_env and api_key(replace(endpoint, key_credential="", key_file=""), os.environ):
        source = f"the variable {endpoint.key_env}"
    elif endpoint.key_credential and api_key(replace(endpoint, key_file=""), os.environ, credentials):
        source = f"the systemd credential {endpoint.key_credential}"
    else:
        source = endpoint.key_file
    return source, api_key(endpoint, os.environ, credentials) or ""


def _reach(endpoint: Endpoint, key: str, model: str) -> Check:
    """Ask the provider about the model, which costs nothing and tells whether key, model and network are good."""
    import asyncio
    from urllib.parse import urlsplit

    from delegated.models.client import Client, describe

    async def ask() -> str:
        client = Client(base_url=endpoint.base_url, api_key=key or "none", quick_s=_QUICK_S, connect_s=_QUICK_S)
        try:
            found = await describe(client, model)
        finally:
            await client.close()
        return found.name

    host = urlsplit(endpoint.base_url).netloc
    try:
        found = asyncio.run(ask())
    except Refused as error:
        if error.kind in ("bad_key", "unknown_model"):
            return Check("endpoint", "FAIL", f"{host} answers: {error.message}", KINDS[error.kind].hint)
        return Check("endpoint", "warn", f"{host} answers: {error.message}", "it may still answer a request")
    except Unavailable as error:
        proxy = next((name for name in _PROXIES if os.environ.get(name)), "")
        way = f" through the proxy of {proxy}" if proxy else ""
        if error.kind in ("rate_limited", "provider_failed"):
            return Check("endpoint", "warn", f"{host} answers: {error.message}", KINDS[error.kind].hint)
        return Check("endpoint", "FAIL", f"{host} cannot be reached{way}: {error.message}", KINDS["unreachable"].hint)
    return Check("endpoint", "ok", f"{host} answers, and knows {found}")
