"""The judgement that every fault is held to, whatever else its own test asks for.

No request lost, no call billed twice, each RESULT whole or absent, `uncertain` only where the provider's look-up could
not tell, and no temporary file left after the next start.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from delegated import prompt as prompts
from delegated.folder import PREFIX, request_id
from delegated.record import unpack
from delegated.result import from_json, to_markdown
from harness import PATIENCE_S, House, Server, until


def judge(
    house: House,
    server: Server | None,
    keys: Collection[str] | None = None,
    *,
    statuses: Collection[str] = ("answered",),
    could_tell: bool = True,
    patience: float = PATIENCE_S,
) -> dict[str, dict[str, Any]]:
    """Let the daemon that serves (or a new one) finish, then hold everything that is there to the promise.

    `keys` are the requests that must have a RESULT, by default every REQUEST in the folder; each must end in one of
    `statuses`, or, only where the look-up could not tell (`could_tell=False`), as `uncertain`. Without a server nothing
    is said about bills. Returns each RESULT by its id; raises `AssertionError` with every breach.
    """
    wanted = requests(house.folder) if keys is None else set(keys)
    if not any(daemon.process.poll() is None for daemon in house._daemons):
        house.up()
    until(lambda: not (wanted - set(results(house.folder))), what=f"RESULTs of {_few(wanted)}", patience=patience)
    until(lambda: not unsettled(house.folder), what=f"`done` of {_few(unsettled(house.folder))}", patience=patience)
    until(lambda: not left_over(house.folder), what="no temporary file and no STATUS is left", patience=patience)
    found = results(house.folder)
    allowed = {*statuses, *(() if could_tell else ("uncertain",))}
    ends = {key: found[key]["status"] for key in wanted}
    breaches = [
        f"{key} ended as {status}: {found[key].get('error')}" for key, status in ends.items() if status not in allowed
    ]
    breaches += torn(house.folder)
    if server is not None:
        breaches += billed_twice(house.folder, server)
    assert not breaches, "\n".join(breaches)
    return {key: found[key] for key in wanted}


def requests(folder: Path) -> set[str]:
    """Return the ids of the REQUEST files."""
    return {parts[0] for name in os.listdir(folder) if (parts := request_id(name))}


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Read each RESULT.json that stands, by its id; raises `ValueError` for a torn one."""
    found = {}
    for path in folder.glob(f"{PREFIX}RESULT_*.json"):
        found[path.name[len(PREFIX) + 7 : -5]] = json.loads(path.read_bytes())
    return found


def torn(folder: Path) -> list[str]:
    """Say which RESULT is not whole. True at any moment, also right after a kill: the JSON comes last."""
    breaches = []
    for path in sorted(folder.glob(f"{PREFIX}RESULT_*")):
        data = path.read_bytes()
        if not data.strip():
            breaches.append(f"{path.name} is empty")
        elif path.suffix == ".json":
            try:
                page = to_markdown(from_json(data.decode()))
            except ValueError as error:
                breaches.append(f"{path.name} is torn: {error}")
                continue
            beside = path.with_suffix(".md")
            breaches += _patches(path, json.loads(data).get("patch"))
            if not beside.exists():
                breaches.append(f"{path.name} stands without its page")
            elif beside.read_bytes() != page.encode("utf-8", "replace"):
                breaches.append(f"{beside.name} is not the page of its {path.name}")
    return breaches


def _patches(path: Path, said: dict[str, Any] | None) -> Iterator[str]:
    """Say where the patch beside a RESULT.json is not the one that it holds."""
    beside = path.with_suffix(".patch")
    if said is None and beside.exists():
        yield f"{beside.name} stands, and {path.name} knows of none"
    elif said is not None and not beside.exists():
        yield f"{path.name} stands without its patch"
    elif said is not None and beside.read_bytes() != said["text"].encode():
        yield f"{beside.name} is not the patch of its {path.name}"


def jobs(folder: Path) -> Iterator[Path]:
    """Yield the directory of every revision of every job."""
    yield from (folder / ".delegated" / "jobs").glob("*/*/r*")


def unsettled(folder: Path) -> list[str]:
    """List the jobs that were claimed and have no `done`."""
    return [
        f"{job.parent.name} {job.name}"
        for job in jobs(folder)
        if (job / "claim").exists() and not (job / "done").exists()
    ]


def left_over(folder: Path) -> list[str]:
    """List what a daemon with nothing to do must not leave: temporary files, STATUS files."""
    temps = os.listdir(folder / ".delegated" / "tmp")
    return temps + [path.name for path in folder.glob(f"{PREFIX}STATUS_*")]


def billed_twice(folder: Path, server: Server) -> list[str]:
    """Say what was paid for more often than it was asked.

    Told by two things that do not depend on each other: the call's own id, which most wires carry, and the words that
    were sent, which may be paid for as often as calls with just these words are in the journal as sent.
    """
    bills = server.bills()
    breaches = [
        f"call {call} was billed {count} times"
        for call, count in Counter(bill["call"] for bill in bills if bill["call"]).items()
        if count > 1
    ]
    asked = Counter(words for job in jobs(folder) for words in _sent(job))
    paid = Counter(words for bill in bills if (words := _words(server, bill["n"])) is not None)
    for words, count in paid.items():
        if count > asked[words]:
            breaches.append(f"words sent in {asked[words]} call(s) were billed {count} times: {words[:80]!r}")
    return breaches


def _sent(job: Path) -> Iterator[str]:
    for call in (job / "calls").glob("*"):
        record = unpack((call / "prompt").read_bytes()) if (call / "prompt").exists() else None
        if record is not None and any(call.glob("sent.*")):
            yield prompts.from_json(record[1].decode()).user


def _words(server: Server, n: int) -> str | None:
    """Return the user's part of what a bill was for; None when the server has forgotten it."""
    try:
        with urllib.request.urlopen(f"{server.url}/_test/bills/{n}/body", timeout=10) as answer:
            body = json.load(answer)
    except urllib.error.HTTPError:
        return None
    return str(body["input"] if "input" in body else body["messages"][-1]["content"])


def _few(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
