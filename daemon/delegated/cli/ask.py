"""Ask about an issue: drop a request, wait, and print the RESULT.

With a daemon on the folder that daemon answers; without one this command does the work itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from delegated.errors import OperatorError

from . import exits, report, terminal
from . import place as places
from .arguments import bind_values, place_flags, place_of, some_seconds
from .place import Usage

if TYPE_CHECKING:
    from delegated.request import Request

_VALUES: Final = ("--issue", "--context", "--logs", "--question", "--model", "--id", "--follow-up", "--api-key")
_KNOWN: Final = frozenset(
    (
        *_VALUES,
        *(
            "--files",
            "--attempted-fixes",
            "--workspace",
            "--folder",
            "--timeout",
            "--no-wait",
            "--wait",
            "--at",
            "--comment",
            "--json",
            "--force",
        ),
        *("--quiet", "-q", "--help", "-h"),
    )
)
_LIMIT: Final = 4 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ask`."""
    question_flags(parser)
    add = parser.add_argument
    add("--id", metavar="ID", help="the request's id; default: the time, as 20251128_133758")
    add(
        "--comment",
        metavar="FILE",
        help="ask what new comments with DELEGATE TO GPT-4O: in this file ask, each once, and do not wait; for editors",
    )
    add("--follow-up", metavar="ID", help="ask further about the RESULT of this id: the issue is the question")
    add("--api-key", metavar="KEY", help="the key; others can read it in the process list: prefer OPENAI_API_KEY")
    add("--force", action="store_true", help="ask although the same was asked a short while ago")
    add("--no-wait", action="store_true", help="do not wait for the RESULT: print the id and leave")
    add("--wait", action="store_true", help="wait for the RESULT (the default)")
    add(
        "--timeout",
        metavar="TIME",
        type=some_seconds,
        help="how long to wait, in seconds or as 90s, 5m; default: no limit",
    )
    add("--json", action="store_true", help="print RESULT.json instead of RESULT.md")
    add("-q", "--quiet", action="store_true", help="show no progress")
    place_flags(parser)


def question_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what is asked."""
    add = parser.add_argument
    text = "as text, @PATH for a file (@@ for a text that begins with @), - for standard input"
    add("--issue", metavar="TEXT", help=f"what is wrong (required, but for a comment that --at names); {text}")
    add("--at", metavar="FILE:LINE", help="the place that it is about; a comment there that delegates is the issue")
    add(
        "--files",
        metavar="PATHS",
        nargs="*",
        action="extend",
        default=[],
        help="files of the workspace, separated by commas or spaces; globs are allowed",
    )
    add("--context", metavar="TEXT", default="", help=f"what else is known; {text}")
    add("--logs", metavar="TEXT", default="", help=f"error logs or a traceback; {text}")
    add(
        "--attempted-fixes",
        metavar="TEXT",
        nargs="*",
        action="extend",
        default=[],
        help="what was tried already, one argument each",
    )
    add("--question", metavar="TEXT", action="append", default=[], help="a question to answer; may be repeated")
    add("--model", metavar="NAME", help="the model to ask instead of the configured one; several with commas")


def bind(argv: list[str]) -> list[str]:
    """Tie each text to its flag, however it begins."""
    return bind_values(argv, _VALUES, _KNOWN)


def run(args: argparse.Namespace) -> int:
    """Drop the request and report how it ends."""
    from .asking import submit, told

    if args.comment is not None:
        from . import remarks

        if args.issue is not None or args.at is not None or args.follow_up is not None or args.id is not None:
            raise Usage(
                "--comment with --issue, --at, --follow-up or --id", "the comments of the file say what is asked"
            )
        return remarks.ask(args)
    place = place_of(args)
    request = request_of(args, place)
    if args.api_key is not None:
        _use_key(args.api_key, places.holder(place), _variable(args.model))
    if args.follow_up is not None and args.id is not None:
        raise Usage("--follow-up and --id together", "a follow-up's id is that of the RESULT with a number")
    key = args.id
    if args.at is not None and args.issue is None and key is None and args.follow_up is None:
        from . import remarks

        key = remarks.key(place, args.at)
    started = submit(place, request, key=key, wait=not args.no_wait, follows=args.follow_up)
    if args.no_wait:
        if args.json:
            terminal.out_json(told(place, started))
        else:
            terminal.out(started.key)
        if started.served_by is None:
            terminal.warn("no daemon serves this folder: the request waits until one does")
            terminal.next_step(f"delegated{place.workspace_flag()}", f"delegate wait {started.key}{place.flags()}")
        else:
            terminal.next_step(f"delegate wait {started.key}{place.flags()}")
        return exits.OK
    return report.settle_and_show(
        place,
        started.key,
        served=started.served_by is not None,
        timeout=args.timeout,
        as_json=args.json,
        quiet=args.quiet,
    )


def request_of(args: argparse.Namespace, place: places.Place) -> Request:
    """Make the request that the flags ask for. Raises `Usage`."""
    from delegated.request import Options, Request

    from .asking import relative

    taken: set[str] = set()
    files, said, where = relative(place, map(_unicode, args.files)), None, ""
    if args.at is not None:
        from . import remarks

        path, where, said = remarks.at(place, args.at)
        files = tuple(dict.fromkeys((path, *files)))
    if args.issue is None and said is None:
        raise Usage("--issue is missing", 'say in a sentence what is wrong: --issue "500 error on /runs/start"')
    context = _text("--context", args.context, taken)
    return Request(
        issue=_text("--issue", args.issue, taken) if said is None or args.issue is not None else said,
        context="\n\n".join(filter(None, (where, context))),
        logs=_text("--logs", args.logs, taken),
        attempted_fixes=tuple(filter(None, (_unicode(fix).strip() for fix in args.attempted_fixes))),
        files=files,
        questions=tuple(filter(None, (_unicode(question).strip() for question in args.question))),
        options=Options(
            models=tuple(filter(None, (args.model or "").replace(" ", "").split(","))),
            force=bool(getattr(args, "force", False)),
        ),
    )


def _text(flag: str, value: str, taken: set[str]) -> str:
    """Read a text given literally, as `@path`, or as `-` for standard input (once)."""
    if value == "-":
        if "-" in taken:
            raise Usage(f"{flag} - : standard input can be read only once", "give the other text as @path")
        taken.add("-")
        data = sys.stdin.buffer.read(_LIMIT + 1)
        name = "standard input"
    elif value.startswith("@@"):
        return _unicode(value[1:])
    elif value.startswith("@"):
        name = value[1:]
        try:
            with open(name, "rb") as file:
                data = file.read(_LIMIT + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise Usage(
                f"{flag} {value}: cannot read {name}: {reason}",
                f"@ names a file; for a text that begins with @: {flag} @{value}",
            ) from None
    else:
        return _unicode(value)
    if len(data) > _LIMIT:
        raise Usage(
            f"{flag}: {name} is larger than {_LIMIT >> 20} MiB",
            f"send what matters: tail -n 500 FILE | delegate ask {flag} - ...",
        )
    return _decode(data)


def _decode(data: bytes) -> str:
    """Decode a log: UTF-8 with or without a mark, or UTF-16 with one (PowerShell's `>` writes it)."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


def _unicode(text: str) -> str:
    """Replace the bytes of an argument that are no UTF-8, which Python hands over as lone surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _variable(model: str | None) -> str:
    """Return the variable that holds the key of a model's maker."""
    from delegated import pricing

    known = pricing.facts(model or "")
    return "ANTHROPIC_API_KEY" if known is not None and known.provider == "anthropic" else "OPENAI_API_KEY"


def _use_key(key: str, served_by: str | None, variable: str) -> None:
    terminal.warn(f"--api-key is visible to other users in the process list: prefer the variable {variable}")
    if served_by is not None:
        terminal.warn(f"the daemon ({served_by}) uses its own key; the one given here is not used")
    elif not key.strip():
        raise OperatorError("--api-key is empty", exits.USAGE, f"export {variable}=sk-...")
    else:
        os.environ[variable] = key.strip()  # read by this process when it does the work itself
