"""Check that a request dropped now would be answered, and say what to do where it would not."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from . import exits, folder_checks, model_checks, terminal
from . import place as places
from .arguments import place_flags, place_of, seconds
from .checks import Check, lines
from .place import Place

if TYPE_CHECKING:
    from delegated.config import Config

PICKUP_S: Final = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `doctor`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--config", metavar="PATH", help="read this file in place of the user's configuration")
    parser.add_argument("--model", metavar="NAME", help="check this model instead of the configured one")
    parser.add_argument("--offline", action="store_true", help="open no connection")
    parser.add_argument("--no-daemon", action="store_true", help="none need run: what `delegate ask` needs is enough")
    parser.add_argument(
        "--wait",
        metavar="TIME",
        type=seconds,
        default=PICKUP_S,
        help=f"how long a running daemon may take to see a file (default: {PICKUP_S:g} s)",
    )
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Look at everything; one failing check does not hide the next."""
    place = place_of(args)
    width = terminal.width(sys.stdout)
    checks: list[Check] = []
    for check in examine(
        place,
        config_file=args.config,
        model=args.model,
        connect=not args.offline,
        daemon=not args.no_daemon,
        patience=args.wait,
    ):
        checks.append(check)
        if not args.json:
            for line in lines(check, width):
                terminal.out(line)
    failed = [check.name for check in checks if check.state == "FAIL"]
    if args.json:
        terminal.out_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        _conclude(place, failed, daemon=not args.no_daemon)
    return exits.UNHEALTHY if failed else exits.OK


def _conclude(place: Place, failed: list[str], *, daemon: bool) -> None:
    if failed == ["daemon"]:
        terminal.say("a request dropped now would wait until a daemon is started; all else is well")
    elif failed:
        terminal.say(f"a request dropped now would not be answered: see {', '.join(dict.fromkeys(failed))}")
    elif daemon:
        terminal.say("a request dropped now would be answered")
    else:
        terminal.say("a request would be answered by `delegate ask`, or by a daemon")
    if failed == ["daemon"] and places.holder(place) is None:
        terminal.next_step(f"delegated{place.workspace_flag()}")


def examine(
    place: Place, *, config_file: str | None, model: str | None, connect: bool, daemon: bool, patience: float
) -> Iterator[Check]:
    """Yield the checks as they are made."""
    served = places.holder(place)
    yield folder_checks.daemon(place, served, wanted=daemon)
    yield from folder_checks.folder(place, served)
    if os.path.isdir(place.folder):
        yield from folder_checks.registration(place)
        held = folder_checks.git(place, patience)
        if held is not None:
            yield held
    settings: Config | None = None
    for check, found in _configuration(place, config_file, model):
        settings = found or settings
        yield check
    if settings is not None and os.path.isdir(place.folder):
        check, polling = folder_checks.watch(place.folder, settings.watch)
        yield check
        patience += settings.poll_s if polling else 0.0
    if served is not None and not places.leaves(served):
        seen = folder_checks.pickup(place, served, patience)
        if seen is not None:
            yield seen
    if settings is not None:
        yield model_checks.tokens()
        yield from model_checks.model(settings, place.workspace, served, connect)


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
