"""How a RESULT is shown, and what is said when there is none."""

from __future__ import annotations

import os
import shlex
import sys
import time
from typing import Any

from delegated import folder as drop
from delegated.errors import OperatorError

from . import exits, ringing, terminal
from . import place as places
from .asking import settle
from .outcome import said
from .place import Absent, Place
from .terminal import Progress
from .waiting import Signature


def settle_and_show(
    place: Place,
    key: str,
    *,
    served: bool,
    timeout: float | None,
    as_json: bool,
    quiet: bool,
    before: Signature = None,
) -> int:
    """Wait for a RESULT, or make it here, and print it; return the exit code of how it ended."""
    progress = Progress(quiet=quiet)
    flags = place.flags()
    began = time.monotonic()
    try:
        settle(place, key, served=served, timeout=timeout, progress=progress, before=before)
    except TimeoutError as error:
        terminal.error(str(error), f"the request is not lost: {_goes_on(place)}")
        terminal.next_step(f"delegate wait {key}{flags}", f"delegate cancel {key}{flags}")
        return exits.TIMED_OUT
    except KeyboardInterrupt:
        terminal.say(f"stopped waiting; the request {key} is not lost")
        terminal.next_step(f"delegate wait {key}{flags}", f"delegate cancel {key}{flags}")
        return exits.INTERRUPTED
    except OperatorError:
        terminal.say(f"the request {key} stays in the folder")
        terminal.next_step(f"delegate wait {key}{flags}")
        raise
    code = show(place, key, as_json=as_json)
    ringing.ring(place, key, time.monotonic() - began)
    return code


def _goes_on(place: Place) -> str:
    holder = places.holder(place)
    if holder is not None and not places.leaves(holder):
        return "the daemon that serves the folder goes on with it"
    return "it goes on as soon as a daemon or `wait` works on it"


def show(place: Place, key: str, *, as_json: bool = False, quiet: bool = False) -> int:
    """Print a RESULT that stands; return the exit code of its status. Raises `Absent` when there is none."""
    result = places.read_result(place, key)
    if result is None:
        raise Absent(
            f"there is no RESULT for {key} that can be read",
            f"delegate wait {key}, or delegate republish {key} when it was deleted",
        )
    if as_json:
        terminal.out_json(result)
    else:
        page = places.read_text(place, drop.result_name(key, "md"))
        terminal.out((page if page is not None else _brief(result)).rstrip("\n"))
    status = str(result.get("status", ""))
    if quiet:
        return exits.for_status(status)
    terminal.say(f"{key}: {status}; {place.path(drop.result_name(key, 'md'))}")
    judged = said(place, key, result) if status == "answered" else ("", "")
    patch = "" if judged[0] else patch_command(place, key, result)
    if patch:
        terminal.next_step(patch)
    after = next_command(result, key)
    if status == "answered":
        _judge(place, key, *judged)
    elif after:
        terminal.next_step(f"{after}{place.flags()}")
    elif status == "rejected" and (names := places.request_names(place, key)):
        terminal.next_step(f"correct {place.path(names[0])}, then: delegate wait {key}{place.flags()}")
    return exits.for_status(status)


def _judge(place: Place, key: str, word: str, more: str) -> None:
    """Say how an answer turned out, or how to say so."""
    if word:
        note = " ".join(terminal.clean(more).split())
        terminal.say(f"outcome: {word}" + (f" ({note[:200]})" if note else ""))
        return
    if more:
        terminal.say(f"outcome: {drop.outcome_name(key)} is not counted: {more}")
    # Not as the next step: who runs that unseen would say that it was fixed.
    terminal.say(f"once it was tried: delegate outcome {key} fixed{place.flags()} (or: partly, wrong)")


def next_command(result: dict[str, Any], key: str) -> str:
    """Name the command that comes next after a RESULT, "" when there is none.

    The status alone decides: a command that a file suggests is not shown as ours.
    """
    status = result.get("status")
    error = result.get("error")
    retryable = isinstance(error, dict) and error.get("retryable") is True
    if status in ("uncertain", "cancelled") or (status in ("failed", "rejected") and retryable):
        # What may bill twice is agreed to on a terminal; without one the command needs the agreement in itself.
        agreed = " --yes" if status == "uncertain" and not terminal.is_terminal(sys.stdin) else ""
        return f"delegate retry {key}{agreed}"
    return ""


def patch_command(place: Place, key: str, result: dict[str, Any]) -> str:
    """Return the line, cleaned, that tries the patch beside a RESULT and then applies it, "" when there is none."""
    patch = place.path(drop.result_name(key, "patch"))
    if not result.get("patch") or os.path.islink(patch) or not os.path.isfile(patch):
        return ""
    at = "" if os.getcwd() == place.workspace else f" -C {shlex.quote(place.workspace)}"
    file = shlex.quote(patch)
    return terminal.clean(f"git{at} apply --check {file} && git{at} apply {file}").replace("\n", " ")


def _brief(result: dict[str, Any]) -> str:
    """Say the main thing of a RESULT whose page was deleted."""
    error = result.get("error")
    cause = result.get("root_cause") or (error.get("message") if isinstance(error, dict) else "")
    return f"{result.get('status', '')}: {cause}"
