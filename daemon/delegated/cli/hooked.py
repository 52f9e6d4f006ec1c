"""A hook that has something to do: from an agent's prompt to a request, and from its RESULT to the agent."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from delegated import folder as drop
from delegated.agents import TITLES, hosts, said, transcript
from delegated.errors import OperatorError
from delegated.request import Request

from . import asking, owed, report
from . import place as places
from .digest import digest, outline
from .evidence import files_in, tail_of
from .place import Place, Usage

if TYPE_CHECKING:
    from delegated.agents.hosts import Event

_PAUSE_S: Final = 0.05
_TRIES: Final = 3


def answer(event: Event, argv: list[str]) -> None:
    """Do what a hook was called for, and write what the host reads. May raise anything; the caller bears it."""
    until = time.monotonic() + _patience(argv)
    text = _asked(event, until) if event.kind == "prompt" else _stopped(event, until)
    if text is not None:
        sys.stdout.write(hosts.reply(event, text) + "\n")
        sys.stdout.flush()


def _patience(argv: list[str]) -> float:
    from .hook import configure

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    configure(parser)
    args, _ = parser.parse_known_args(argv)
    return hosts.LIMIT_S - hosts.MARGIN_S if args.timeout is None else float(args.timeout)


def _asked(event: Event, until: float) -> str | None:
    """Delegate what a prompt says; return what the agent is told, None when there is nothing to tell."""
    found = said.delegated(event.prompt)
    if found is None:
        return None
    issue, before = found
    if len(event.prompt) > hosts.MOST_PROMPT:
        return _not_delegated(
            event, f"the prompt is longer than {hosts.MOST_PROMPT:,} characters. Name a log's file instead of its text."
        )
    if not issue:
        return _not_delegated(
            event, "nothing stands behind the colon. Say there what is wrong, on the line or below it."
        )
    place = next(filter(None, map(places.around, event.roots)), None)
    if place is None:
        return _not_delegated(
            event, "this directory is not set up for it. `delegate init` sets it up; then say it again."
        )
    names = hosts.keys(event, place.workspace, issue, time.time())
    if any(places.taken(place, name) for name in names):
        return None  # another entry of the same host reports the same prompt
    key = names[0]
    try:
        asking.submit(place, _request(event, place, issue, before), key=key)
    except Usage as error:
        return None if places.taken(place, key) else _not_delegated(event, f"{error}. {error.hint}")
    except OperatorError as error:
        return _not_delegated(event, f"{error}. {error.hint}")
    debt = owed.note(event.session, place, key)
    if not hosts.waits(event.host):
        _work(place, key, until, leave=True)
        return f"Delegated as {key}. The answer comes when the agent stops; by hand: delegate wait {key}{place.flags()}"
    if not _work(place, key, until):
        return _late(place, key)
    owed.settle(debt)
    return _told(place, key, until)


def _stopped(event: Event, until: float) -> str | None:
    """Bring what a session is owed: once, and waited for only where it could not come with the prompt."""
    for debt in owed.of(event.session):
        place, key = debt.place, debt.key
        if debt.text:
            if owed.settle(debt):
                return debt.text
            continue
        wait = not hosts.waits(event.host)
        if not _work(place, key, until if wait else 0.0, start=wait):
            if not wait:
                continue  # it was told how to fetch it, and may be told again when it stops next
            if owed.settle(debt):
                return _late(place, key)
        elif owed.settle(debt):
            return _told(place, key, until)
    return None


def _request(event: Event, place: Place, issue: str, before: str) -> Request:
    told = transcript.gather(transcript.records(tail_of(event.host, event.transcript)))
    context = [f"Asked from a session of {TITLES[event.host]}."]
    if before:
        context.append(f"The prompt said before:\n\n{before}")
    if told.said:
        context.append(f"What the agent said last:\n\n{told.said}")
    return Request(
        issue=issue,
        context="\n\n".join(context),
        logs="\n\n".join(told.errors),
        attempted_fixes=tuple(fix.replace(os.path.join(place.workspace, ""), "") for fix in told.fixes),
        files=files_in(place.workspace, event.roots, [*told.files, *reversed(event.files)]),
    )


def _work(place: Place, key: str, until: float, *, start: bool = True, leave: bool = False) -> bool:
    """Say whether a RESULT stands before `until`; where no daemon serves the folder, start one for this request.

    It goes on when this process ends: what it finds is fetched later. With `leave` it is only started.
    """
    child: subprocess.Popen[bytes] | None = None
    tries = 0
    try:
        while places.signature(place, key) is None:
            gone = child is None or child.poll() is not None
            if start and gone and places.holder(place) is None:
                if tries == _TRIES:
                    return False
                tries += 1
                child = asking.start_daemon(
                    place.workspace,
                    "--only",
                    key,
                    "--log-level",
                    "error",
                    folder=place.folder,
                    stderr=subprocess.DEVNULL,
                )
            if leave or time.monotonic() >= until:
                return False
            time.sleep(_PAUSE_S)
        return True
    finally:
        if child is not None and child.returncode is None:
            child.returncode = 0  # it outlives us on purpose; without this Python would complain of it on stderr


def _told(place: Place, key: str, until: float) -> str:
    """Say what the RESULT of `key` says; of a duplicate, what the one says that it is a copy of."""
    result = places.read_result(place, key) or {}
    other = result.get("duplicate_of")
    if result.get("status") == "duplicate" and isinstance(other, str) and drop.ID.fullmatch(other):
        if not _work(place, other, until):
            return _late(place, other)
        key, result = other, places.read_result(place, other) or {}
    page, patch = place.path(drop.result_name(key, "md")), report.patch_command(place, key, result)
    return said.harmless(digest(result, key, page, place.flags(), patch))


def _late(place: Place, key: str) -> str:
    return outline(
        f"Delegated as {key}; there is no answer yet. `delegate wait {key}{place.flags()}` waits for it and prints it;"
        f" it will stand in {place.path(drop.result_name(key, 'md'))}."
    )


def _not_delegated(event: Event, why: str) -> str:
    """Say why; where a prompt's answer is not read it is owed, and told when the agent stops."""
    text = outline(said.harmless(f"Nothing was delegated: {why}".strip()))
    if not hosts.hears(event):
        owed.note(event.session, Place("", ""), hosts.note_key(event, text), text)
    return text
