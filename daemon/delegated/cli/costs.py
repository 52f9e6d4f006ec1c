"""Show what was spent, by day, month, model, workspace or endpoint, and what the budgets leave."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from typing import Any, Final

from . import exits, terminal
from .arguments import place_flags, place_of

_BY: Final = ("day", "month", "model", "workspace", "endpoint")
_DAY_S: Final = 86_400.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `costs`."""
    parser.add_argument("--by", choices=_BY, default="day", help="what a line sums up; default: day")
    parser.add_argument(
        "--days", metavar="N", type=_days, default=30, help="how many days back, today included; default: 30"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    place_flags(parser)


def _days(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if not 1 <= number <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!a} is no number of days")
    return number


def run(args: argparse.Namespace) -> int:
    """Print the account and the budgets."""
    from delegated import config as configs
    from delegated.errors import OperatorError
    from delegated.home import state_directory
    from delegated.ledger import Ledger, window_start
    from delegated.purse import FILE, budgets

    place = place_of(args)
    config = configs.load(workspace=place.workspace)
    path = os.path.join(state_directory(os.environ), FILE)
    since = window_start("day", time.time()) - (args.days - 1) * _DAY_S
    lines: list[Any] = []
    held = [(budget, 0.0) for budget in budgets(config, place.workspace)]
    if os.path.exists(path):
        try:
            ledger = Ledger(path)
        except OSError as error:
            raise OperatorError(str(error), exits.CANNOT_WRITE) from error
        try:
            lines = ledger.account(args.by, since)
            held = [
                (each, ledger.taken(each.window, workspace=each.workspace, endpoint=each.endpoint)) for each, _ in held
            ]
        finally:
            ledger.close()
    if args.json:
        terminal.out_json(
            {
                "since": time.strftime("%Y-%m-%d", time.gmtime(since)),
                "by": args.by,
                "lines": [
                    {
                        "name": line.name,
                        "calls": line.calls,
                        "settled_usd": round(line.settled_usd, 6),
                        "reserved_usd": round(line.reserved_usd, 6),
                    }
                    for line in lines
                ],
                "budgets": [
                    {
                        "window": budget.window,
                        "workspace": budget.workspace,
                        "endpoint": budget.endpoint,
                        "limit_usd": budget.usd,
                        "taken_usd": round(taken, 6),
                    }
                    for budget, taken in held
                ],
            }
        )
        return exits.OK
    _table(args.by, lines)
    for budget, taken in held:
        terminal.out(f"{budget}: ${taken:.4f} taken, ${max(0.0, budget.usd - taken):.4f} left")
    if not lines:
        terminal.say(f"nothing was spent in the last {args.days} days, as far as {path} knows")
    return exits.OK


def _table(by: str, lines: list[Any]) -> None:
    if not lines:
        return
    rows = [(by.upper(), "CALLS", "SPENT", "OUT")]
    rows += [
        (
            line.name,
            str(line.calls),
            f"${line.settled_usd:.4f}",
            f"${line.reserved_usd:.4f}" if line.reserved_usd else "",
        )
        for line in lines
    ]
    total = sum(line.settled_usd for line in lines), sum(line.reserved_usd for line in lines)
    rows.append(
        ("total", str(sum(line.calls for line in lines)), f"${total[0]:.4f}", f"${total[1]:.4f}" if total[1] else "")
    )
    widths = [max(len(row[n]) for row in rows) for n in range(4)]
    room = 0
    if terminal.is_terminal(sys.stdout):
        room = shutil.get_terminal_size().columns - sum(widths) - 2 * len(widths) - 1
    most = max(line.settled_usd + line.reserved_usd for line in lines)
    for number, row in enumerate(rows):
        text = row[0].ljust(widths[0]) + "".join(
            "  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)
        )
        if room >= 8 and most and 0 < number < len(rows) - 1:
            line = lines[number - 1]
            text += "  " + bar((line.settled_usd + line.reserved_usd) / most, min(room, 40))
        terminal.out(text.rstrip())
    if total[1]:
        terminal.say("OUT is set aside for calls that run, or of which it is not known whether they were billed")


def bar(share: float, width: int) -> str:
    """Draw a share from 0 to 1 as a bar of at most `width` cells, in eighths; anything above nothing is seen."""
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
