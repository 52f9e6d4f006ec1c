"""The workspace that the demo ships: its bug is real, its request tells the truth, and its fix is proven."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import delegated
from asking_offline import Program, ask, edits, quotes, whole
from delegated import prompt as prompts
from delegated.context import Context
from delegated.request import Request, parse

DEMO = Path(delegated.__file__).parent / "demo"
COMMAND = ("-m", "shop", "GET", "/invoices/grace/2025-11")
SERVED = ("-m", "shop", "GET", "/invoices/ada/2025-11")


@pytest.fixture
def shop(tmp_path: Path) -> Program:
    """A copy of the shipped workspace."""
    program = Program(tmp_path, {})
    shutil.copytree(DEMO / "workspace", program.root, ignore=shutil.ignore_patterns("__pycache__"))
    return program


@pytest.fixture
def request_read() -> Request:
    return parse((DEMO / "request.md").read_bytes(), ".md")


def plain(trace: str) -> list[str]:
    """Return the lines of a trace without what differs by machine and Python: root, underlines, hints."""
    lines = re.sub(r'File "[^"]*/(shop/[^"]+)"', r'File "\1"', trace).strip().splitlines()
    return [re.sub(r"\. Did you mean: .*", "", line) for line in lines if line.strip(" ~^")]


def test_the_request_holds_the_trace_that_the_program_gives(shop: Program, request_read: Request) -> None:
    """What stands under Error Logs is what the command prints; only its customer fails."""
    failed = shop.run(*COMMAND)
    assert (failed.returncode, failed.stdout.splitlines()[0]) == (1, "500 Internal Server Error")
    assert plain(request_read.logs) == plain(failed.stderr)
    assert shop.run(*SERVED).returncode == 0


def test_the_request_is_read_as_meant(shop: Program, request_read: Request) -> None:
    """Every part is found, and every file that it names is there."""
    assert request_read.issue.startswith("`GET /invoices/grace/2025-11` answers 500")
    assert (len(request_read.attempted_fixes), len(request_read.questions), request_read.warnings) == (3, 1, ())
    assert request_read.files == ("shop/web.py", "shop/billing.py", "shop/orders.py")
    assert all((shop.root / path).is_file() for path in request_read.files)


def test_the_offline_model_proves_the_fix(shop: Program, request_read: Request) -> None:
    """Given the files that the request names, it quotes both ends of the fault; its edit makes grace's invoice."""
    excerpts = tuple(whole(path, (shop.root / path).read_text()) for path in request_read.files)
    told = ask(prompts.render(request_read, Context(excerpts)))
    assert (told["verdict"], told["confidence"]) == ("likely", "medium")
    assert ("shop/billing.py", 33, "    days = (order.cancelled - order.placed).days") in quotes(told)
    assert ("shop/orders.py", 32, "    canceled: date | None = None") in quotes(told)
    assert edits(told) == [
        {
            "path": "shop/billing.py",
            "before": "    days = (order.cancelled - order.placed).days",
            "after": "    days = (order.canceled - order.placed).days",
        }
    ]
    shop.apply(told)
    fixed = shop.run(*COMMAND)
    assert (fixed.returncode, fixed.stderr) == (0, "")
    invoice = json.loads(fixed.stdout.partition("\n")[2])
    assert (invoice["net"], invoice["credit"], invoice["total"]) == (11300, 3810, 8913)
