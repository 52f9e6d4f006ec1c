"""What is asked about a failed job: its log, what was changed, and nothing that only names this one run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from delegated.fingerprint import Fingerprint
from delegated.markdown import fence
from delegated.request import Options, Request
from delegated.traces import frames

from . import terminal
from .changes import Commit, fitted, read
from .failure import Ci, shown
from .findings import one_line

_NAMED: Final = 50  # files that are named as left out of a diff


def request_of(
    args: argparse.Namespace, ci: Ci, found: Sequence[tuple[str, str]], named: Fingerprint, about: Commit
) -> Request:
    """Write down what is asked. Raises `Usage` for a diff that cannot be read."""
    log = shown(found)
    where = f" on {ci.system}" if ci.system else ""
    context = [f"This failed in a CI job{f' named {one_line(ci.job, 100)}' if ci.job else ''}{where}."]
    diff = fitted(read(args.diff) if args.diff else about.diff, {frame.path for frame in frames(log)})
    if about.trouble and args.base and not args.diff:
        terminal.warn(f"no diff goes along: {about.trouble}")
    if diff.text:
        since = f" since {one_line(args.base, 100)}" if args.base and not args.diff else ""
        context.append(f"What was changed{since}:\n\n{fence(diff.text, 'diff')}")
    if diff.left_out:
        context.append("\n".join(["Left out of it:\n", *(f"- {one_line(each)}" for each in diff.left_out[:_NAMED])]))
    return Request(
        issue=args.issue.strip() or f"A CI job fails: {named.title}",
        context="\n\n".join(context),
        logs=log,
        options=Options(
            models=tuple(filter(None, args.model.replace(" ", "").split(","))),
            max_cost_usd=args.max_cost_usd,
            repro=args.command.strip(),
        ),
    )
