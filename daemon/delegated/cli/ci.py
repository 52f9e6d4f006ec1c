"""Ask about the failure of a CI job, once per failure, and show what was found where the CI system shows it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from delegated import folder as drop
from delegated.errors import OperatorError

from . import exits, terminal
from . import place as places
from .arguments import place_flags, place_of, some_seconds
from .ci_report import Ending, report, tell
from .findings import confidence_of, one_line
from .place import Place, Usage

if TYPE_CHECKING:
    from delegated.fingerprint import Fingerprint
    from delegated.request import Request

    from .failure import Ci

_WAIT_S: Final = 600.0
_ATTEMPTS: Final = 3
_UNSURE: Final = frozenset({"inconclusive", "need_more_files"})
_FAIL_ON: Final = ("never", "unanswered", "unsure")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ci`. An empty value is none: a CI system writes its own inputs as they are."""
    add = parser.add_argument
    add(
        "--log",
        metavar="FILES",
        action="append",
        default=[],
        help="the log of the step; - for stdin",
    )
    add("--base", metavar="REF", default="", help="send what was changed since this commit, such as HEAD^1")
    add("--diff", metavar="FILE", default="", help="send this diff instead of asking git for one")
    add("--issue", metavar="TEXT", default="", help="what is wrong; default: what the log says")
    add("--command", metavar="TEXT", default="", help="the command that failed")
    add(
        "--model",
        metavar="NAME",
        default="",
        help="the model to ask instead",
    )
    add("--max-cost-usd", metavar="USD", type=_usd, help="ask nothing that may cost more than this")
    add("--timeout", metavar="TIME", type=_time, default=_WAIT_S, help="how long to wait; default: 10m")
    add("--sarif", metavar="FILE", default="", help="write the findings as SARIF 2.1.0")
    add("--codequality", metavar="FILE", default="", help="write the findings as a GitLab Code Quality report")
    add("--fail-on", choices=_FAIL_ON, default="never", help="when to leave with another code than 0; default: never")
    add(
        "--even-bots",
        nargs="?",
        const="true",
        default="",
        choices=("true", "false", ""),
        help="ask also when a bot made the commit",
    )
    add("--print-id", action="store_true", help="print the id of the failure and leave: nothing is asked")
    place_flags(parser)


def _usd(text: str) -> float | None:
    try:
        value = float(text) if text.strip() else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!a} is no price: give dollars above 0, such as 0.50")
    return value


def _time(text: str) -> float:
    return some_seconds(text) if text.strip() else _WAIT_S


def run(args: argparse.Namespace) -> int:
    """Find out what failed, ask unless it is known, and report. 0 unless `--fail-on` says otherwise."""
    from delegated.fingerprint import fingerprint

    from .changes import top
    from .failure import ci_of, logs

    ci = ci_of(os.environ)
    place = _place(args, ci)
    root = top(place.workspace, ci.root) or ci.root or place.workspace
    paths = [line.strip() for value in args.log for line in value.splitlines() if line.strip()]
    if not paths:
        raise Usage("--log is missing", "keep the log of the step: pytest 2>&1 | tee test.log; then --log test.log")
    found, troubles, unread = logs(paths)
    for trouble in troubles:
        terminal.warn(trouble)
    named = fingerprint("\n".join(text for _, text in found), root)
    if args.print_id:
        if named is not None:
            terminal.out(named.key)
            tell({"id": named.key})
        return exits.OK
    if len(unread) == len(paths) and not ci.ended_well:  # a log that is named wrongly would stay green for ever
        ending = Ending(why=f"no log can be read ({', '.join(unread)})", code=exits.FAILED)
    else:
        ending = _ending(args, place, root, ci, found, named)
    report(place, root, ci, ending, sarif_path=args.sarif, quality_path=args.codequality)
    return code_of(args.fail_on, ending)


def _place(args: argparse.Namespace, ci: Ci) -> Place:
    """Find the workspace: as named, else where the CI system checked the code out, when we are called below it."""
    if args.workspace or args.folder or not ci.root or not os.path.isdir(ci.root):
        args.workspace = args.workspace or None
        return place_of(args)
    here, root = os.path.realpath(os.getcwd()), os.path.realpath(ci.root)
    return places.find(root if os.path.join(here, "").startswith(os.path.join(root, "")) else None)


def _ending(
    args: argparse.Namespace,
    place: Place,
    root: str,
    ci: Ci,
    found: Sequence[tuple[str, str]],
    named: Fingerprint | None,
) -> Ending:
    """Decide what to do about a failure, and do it."""
    from .changes import commit
    from .ci_request import request_of
    from .failure import is_bot

    if ci.ended_well:
        return Ending(why="the job did not fail")
    if named is None:
        return Ending(why="no log says anything")
    key = named.key
    about = commit(root, "" if args.diff else args.base, os.environ)
    authors = (about.author,) if about.author else ci.actors
    if args.even_bots != "true" and (bot := next(filter(is_bot, authors), "")):
        return Ending(key, why=f"{one_line(bot, 60)} made the commit, and what a program commits is not asked about")
    try:
        if places.taken(place, key) and _came_with_the_code(place, key):
            return Ending(key, why=f"a REQUEST or RESULT named {key} came with the code, and is not believed")
        before = places.signature(place, key)
        if before is not None and not _worth_another_try(place, key):
            return _followed(place, key, asked=False)
        if ci.attempt > _ATTEMPTS:
            return Ending(key, why=f"this is attempt {ci.attempt} of the run, and after {_ATTEMPTS} no more is asked")
        if why := _unable(place, args.model):
            return Ending(key, why=why)
        _ask(args, place, key, lambda: request_of(args, ci, found, named, about), before)
        return _followed(place, key, asked=True)
    except TimeoutError as error:
        return Ending(key, why=str(error), code=exits.TIMED_OUT)
    except OperatorError as error:
        return Ending(key, why=f"{error}{f' ({error.hint})' if error.hint else ''}", code=error.exit_code)


def _came_with_the_code(place: Place, key: str) -> bool:
    """Say whether git tracks files of this id, or nobody can tell: a pull request could bring question and answer."""
    from delegated.registry import Repositories, untracked

    tracked = Repositories(place.folder).look()
    names = (*drop.request_names(key), *(drop.result_name(key, suffix) for suffix in ("md", "json")))
    return any(untracked(name, tracked) for name in names)


def _worth_another_try(place: Place, key: str) -> bool:
    """Say whether a RESULT that stands is none and can be asked for again, billing nothing twice."""
    result = places.read_result(place, key) or {}
    error = result.get("error")
    failed = result.get("status") == "failed" and isinstance(error, dict) and error.get("retryable") is True
    return failed and places.job_place(place, key) is not None


def _unable(place: Place, models: str) -> str:
    """Say why nobody can be asked from here, "" when somebody can. A daemon has keys of its own."""
    from delegated import config, keys, pricing

    if places.holder(place) is not None:
        return ""
    settings = config.load(workspace=place.workspace)
    missing = []
    for name in filter(None, (models or settings.model).replace(" ", "").split(",")):
        facts = pricing.facts(name)
        endpoint = config.endpoint_of(settings, name)
        if (facts and facts.provider in ("offline", "scripted")) or not keys.named(endpoint):
            return ""
        if keys.find(endpoint, os.environ):
            return ""
        missing.append(endpoint.key_env or "an API key")
    return f"there is no key here ({', '.join(dict.fromkeys(missing))} is not set), as on the pull request of a fork"


def _ask(
    args: argparse.Namespace, place: Place, key: str, request: Callable[[], Request], before: tuple[int, int] | None
) -> None:
    """Ask, or go on with what was asked under this id by a run that was cut short. Raises as `asking.settle`."""
    from . import asking
    from .terminal import Progress

    if before is not None:
        places.give_order(place, "RETRY", key)
    elif not places.taken(place, key):
        try:
            asking.submit(place, request(), key=key)
        except Usage:
            if not places.taken(place, key):
                raise  # else another job asked the same in this very moment
    served = places.holder(place) is not None
    asking.settle(place, key, served=served, timeout=args.timeout, progress=Progress(), before=before)


def _followed(place: Place, key: str, *, asked: bool) -> Ending:
    """Return the RESULT of a request; of a duplicate that of the one which it is a copy of."""
    result = places.read_result(place, key)
    other = (result or {}).get("duplicate_of")
    if isinstance(other, str) and drop.ID.fullmatch(other) and not _came_with_the_code(place, other):
        told = places.read_result(place, other)
        key, result, asked = (key, result, asked) if told is None else (other, told, False)
    if result is None:
        return Ending(key, why=f"the RESULT of {key} cannot be read", code=exits.FAILED)
    return Ending(key, result, asked)


def code_of(fail_on: str, ending: Ending) -> int:
    """Return the exit code: 0 unless `fail_on` is `unanswered` or `unsure` and it is that."""
    if fail_on == "never":
        return exits.OK
    if ending.result is None:
        return ending.code
    code = exits.for_status(str(ending.result.get("status", "")))
    vague = ending.result.get("verdict") in _UNSURE or confidence_of(ending.result) == "low"
    return exits.UNSURE if code == exits.OK and fail_on == "unsure" and vague else code
