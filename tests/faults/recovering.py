"""Recover crash states by the real program: one JSON line in for each state, one out with what became of it.

A process of its own: the program that it runs may be another than its parent's, and each state gets what a start is,
`app.serve` on a workspace with a fresh loop and a local server on the memory that it had when the power failed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from delegated import app, config, logs
from delegated.folder import order, sig_of
from delegated.home import state_directory
from delegated.index import Index
from delegated.record import pack, unpack
from delegated.registry import register
from delegated.testing import ServerThread
from faults.judging import billed_twice, left_over, results, torn, unsettled
from harness import BUG

FOLDER = Path(".autonomous_runs/openai_delegations")
_AWAY_S = 3600.0  # the power comes back an hour later: by then a call that a look-up does not show is proven absent


class _Bills:
    """The running server as `judging` asks it."""

    def __init__(self, server: ServerThread) -> None:
        self.url = server.base_url.removesuffix("/v1")

    def bills(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/_test/state", timeout=10) as answer:
            return json.load(answer)["bills"]


def materialise(folder: Path, state: dict[str, Any], endpoint: str) -> None:
    """Make the drop folder as it was found after the cut.

    What the program knows by a file's number or times is translated to those that the files have here: the index's
    rows, and the order that a claim obeys. What was sent, was sent an hour ago, and to the provider that
    is at `endpoint` now.
    """
    for path in sorted(state["directories"]):
        (folder / path).mkdir(mode=0o700)
    orders = {}
    for path, text in state["files"].items():
        data = base64.b64decode(text)
        if path.startswith(".delegated/jobs/"):
            data = _translate(path, data, orders, endpoint)
        (folder / path).write_bytes(data)
        if path in state["orders"]:
            info = (folder / path).stat()
            orders[state["orders"][path]] = f"{info.st_ino}.{info.st_mtime_ns}"
    if (folder / ".delegated" / "tmp").is_dir():
        for path in state["leftovers"]:
            (folder / path).write_bytes(b'{"torn')
    if state["rows"]:
        index = Index(str(folder / ".delegated" / "index.sqlite"))
        for name, key, sha256 in state["rows"]:
            path = folder / name
            if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                index.settle(name, key, sig_of(path.stat()))
        index.close()


def _translate(path: str, data: bytes, orders: dict[str, str], endpoint: str) -> bytes:
    record = unpack(data)
    if record is None:
        return data
    header, body = record
    if path.endswith("/claim") and header.get("order", "") in orders:
        header["order"] = orders[header["order"]]
    elif "/sent." in path:
        header["at"] -= _AWAY_S
        header["up"] -= _AWAY_S
        header["endpoint"] = endpoint
    else:
        return data
    return pack(header, body)


def recover(room: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Make a state, start on it until nothing waits, and start once more; return what was there at each moment."""
    shutil.rmtree(room, ignore_errors=True)
    workspace = room / "workspace"
    folder = workspace / FOLDER
    folder.mkdir(parents=True)
    register(state_directory(os.environ), str(workspace), str(folder))  # synced before anything is done in the folder
    (workspace / "app.py").write_text(BUG)
    ledger = room / "ledger"
    ledger.write_text(state["ledger"])
    with ServerThread(state=ledger, rules=state["rules"]) as server:
        materialise(folder, state, server.base_url)
        found: dict[str, Any] = {"torn": torn(folder), "stood": sorted(results(folder))}
        os.environ["DELEGATED_ENDPOINTS__OPENAI__BASE_URL"] = server.base_url
        bills = _Bills(server)
        found["billed_before"] = len(bills.bills())
        for start in ("first", "second"):
            _start(str(workspace))
            shown = results(folder) if not (broken := torn(folder)) else {}
            found[start] = {
                "torn": broken,
                "bills": len(bills.bills()),
                "twice": billed_twice(folder, bills),
                "unsettled": unsettled(folder),
                "left": left_over(folder),
                "results": {key: [value["status"], value["request"]["revision"]] for key, value in shown.items()},
                "history": sorted(
                    f"{path.parent.name}/{path.name}"
                    for path in (folder / ".delegated" / "history").glob("*/*")
                    if path.stat().st_size
                ),
                "orders": sorted(path.name for path in folder.iterdir() if order(path.name)),
            }
    return found


def _start(workspace: str) -> None:
    def load(path: str | None) -> config.Config:
        return config.load(workspace=path, user_file=None, flags={})

    app.serve(load, [workspace], once=True)


def main(argv: list[str]) -> int:
    """Serve states from stdin until it ends; `argv` is the directory to do it in."""
    logs.configure("error", "json")
    room = Path(argv[0])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed meanwhile is no answer
    for line in sys.stdin:
        try:
            answer = recover(room, json.loads(line))
        except BaseException as error:  # told to the parent, which knows the state
            answer = {"broke": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    shutil.rmtree(room, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
