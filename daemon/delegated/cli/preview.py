"""Show what would be sent for a request, and what it could cost; nothing is sent, and no key is needed.

It is made by the code that makes what is sent, so the words are the very words, as long as the files stay as they are.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from delegated import folder as drop
from delegated.errors import OperatorError

from . import ask, exits, terminal
from . import place as places
from .arguments import place_flags, place_of
from .place import Absent, Place, Usage

if TYPE_CHECKING:
    from delegated.config import Config
    from delegated.gather import Gatherer
    from delegated.pricing import ModelFacts
    from delegated.prompt import Prompt
    from delegated.request import Request

_MOST: Final = 20
_LIMIT: Final = 16 << 20
_LEAST: Final = 24  # columns that words need beside a table


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `preview`."""
    parser.add_argument("request", nargs="?", metavar="FILE|ID", help="a request file, or a request in the folder")
    ask.question_flags(parser)
    parser.add_argument("--id", metavar="ID", help="the id that the request will have: placeholders are made of it")
    parser.add_argument("--full", action="store_true", help="print the exact words")
    parser.add_argument("--json", action="store_true", help="print JSON; with --full the words are in it")
    place_flags(parser)


bind = ask.bind


def run(args: argparse.Namespace) -> int:
    """Make the prompt, and show it."""
    from delegated import config as configs
    from delegated import outfit
    from delegated.errors import Refused
    from delegated.gather import asked
    from delegated.request import parse
    from delegated.tokens import counter
    from delegated.workspace import Workspace

    place = place_of(args)
    key, path, data = _request(args, place)
    request = parse(data, os.path.splitext(path)[1])  # raises `RequestError` with all problems
    config = configs.load(workspace=place.workspace)
    models = outfit.Models(config, os.environ, counter)
    rules, problems = outfit.sieve(config, (place.workspace,))
    for problem in problems:
        terminal.warn(problem)
    with Workspace(place.workspace) as space:
        gatherer = outfit.gatherer(config, space, counter, known_secrets=models.own_keys, sieve=rules)
        made: list[tuple[ModelFacts, Prompt]] = []
        for name in asked(request, gatherer.limits):
            facts = models.facts(name)
            if facts is None:
                try:
                    models.find(name)
                except Refused as error:
                    raise OperatorError(str(error), exits.REJECTED) from error
                raise AssertionError("a model without facts is found nowhere")
            made.append((facts, gatherer.gather(request, facts, key)))
    shown = [_facts(config, request, gatherer, facts, prompt) for facts, prompt in made]
    if args.json:
        for one, (_, prompt) in zip(shown, made, strict=True):
            if args.full:
                one |= {"system": prompt.system, "user": prompt.user, "schema": dict(prompt.schema)}
        terminal.out_json({"id": key or None, "calls": shown})
        return exits.OK
    if args.full:
        for _, prompt in made:
            terminal.out_exactly(f"{prompt.system}\n\n{prompt.user}")
        return exits.OK
    for one in shown:
        _show(one)
    said = {each for _, prompt in made for each in prompt.context.warnings}
    for warning in sorted({*request.warnings, *said}):
        terminal.warn(warning)
    terminal.say("nothing was sent")
    return exits.OK


def _request(args: argparse.Namespace, place: Place) -> tuple[str, str, bytes]:
    """Return the id, the file's name and the bytes of the request to look at."""
    given = args.request
    if given is None:
        request = ask.request_of(args, place)
        if not request.issue.strip():
            raise Usage("the issue is empty", 'say in a sentence what is wrong: --issue "500 error on /runs/start"')
        from .asking import written

        return args.id or "", "request.md", written(request)
    if args.issue is not None:
        raise Usage("a request file and --issue together", "give the one or the other")
    if given == "-":
        return args.id or "", "request.md", sys.stdin.buffer.read(_LIMIT)
    path = given
    if not os.path.exists(path) and drop.ID.fullmatch(given):
        names = places.request_names(place, given)
        if not names:
            raise Absent(f"there is no file and no request called {given}", "`delegate list` shows the requests")
        path = place.path(names[0])
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT)
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}", "name a request file, or an id of the folder") from None
    follows = drop.followed(os.path.basename(path))
    if follows is not None:
        raise Usage(
            "a follow-up goes with what was answered, which is not shown beforehand",
            f"`delegate preview {follows[0]}{place.flags()}` shows the request that it follows",
        )
    named = drop.request_id(os.path.basename(path))
    return args.id or (named[0] if named else ""), path, data


def _facts(config: Config, request: Request, gatherer: Gatherer, facts: ModelFacts, prompt: Prompt) -> dict[str, Any]:
    from delegated import plain
    from delegated.config import endpoint_of
    from delegated.prompt import sha256
    from delegated.receipt import of_local, size_of

    sent = of_local("preview", prompt, model=facts.name)
    count = gatherer.tokens().count
    local = facts.provider in ("offline", "scripted")
    limits = [each for each in (request.options.max_cost_usd, config.max_cost_usd) if each is not None]
    return {
        "model": facts.name,
        "endpoint": "" if local else endpoint_of(config, facts.name).base_url.rstrip("/"),
        "bytes": size_of(prompt),
        "tokens": count(prompt.system) + count(prompt.user),
        "tokens_exact": gatherer.counts(facts),
        "max_input_tokens": min(request.options.max_input_tokens or config.max_input_tokens, config.max_input_tokens),
        "price_bound_usd": 0.0 if local else gatherer.price_bound(prompt, facts),
        "max_cost_usd": min(limits, default=None),
        "prompt_sha256": sha256(prompt),
        "files": [
            {**plain.dump(file), "tokens": count(excerpt.text)}
            for file, excerpt in zip(sent.files, prompt.context.excerpts, strict=True)
        ],
        "extras": [
            {**plain.dump(each), "tokens": count(extra.text)}
            for each, extra in zip(sent.extras, prompt.context.extras, strict=True)
        ],
        "omitted": plain.dump(sent.omitted),
        "redactions": plain.dump(sent.redactions),
        "warnings": list(prompt.context.warnings),
    }


def _show(one: dict[str, Any]) -> None:
    from delegated.receipt import usd

    where = f" at {one['endpoint']}" if one["endpoint"] else ", on this machine"
    _tell("asks     ", f"{one['model']}{where}")
    about = "" if one["tokens_exact"] else "about "
    _tell(
        "sends    ",
        f"{one['bytes']:,} bytes, {about}{one['tokens']:,} tokens (of at most {one['max_input_tokens']:,})",
    )
    price = one["price_bound_usd"]
    most = one["max_cost_usd"]
    limit = "no limit" if most is None else f"at most {usd(most)} for all that one request asks"
    _tell("price    ", "not known" if price is None else f"at most {usd(price)} for this call; {limit}")
    if most is not None and (price is None or price > most):
        terminal.warn(f"{one['model']} would not be asked: the limit could not be held")
    if one["files"]:
        terminal.out()
        rows = [("FILE", "LINES", "TOKENS", "WHY")]
        rows += [(file["path"], _lines(file), f"{file['tokens']:,}", file["why"]) for file in one["files"]]
        widths = [max(len(row[n]) for row in rows) for n in range(3)]
        for path, lines, tokens, why in rows:
            _tell(f"{path.ljust(widths[0])}  {lines.ljust(widths[1])}  {tokens.rjust(widths[2])}  ", why)
    _list("beside", [f"{each['kind']}: {each['tokens']:,} tokens, {each['why']}" for each in one["extras"]])
    hidden = one["redactions"]
    _list(
        "hidden", [f"{each['where']} line {each['line']}: {each['kind']}, as {each['placeholder']}" for each in hidden]
    )
    _list("left out", [f"{each['path']}: {each['reason']}" for each in one["omitted"]])


def _lines(file: dict[str, Any]) -> str:
    whole = file["start_line"] <= 1 and file["end_line"] >= file["total_lines"]
    return f"all {file['total_lines']:,}" if whole else f"{file['start_line']}-{file['end_line']}"


def _tell(head: str, words: str, hang: int | None = None) -> None:
    """Write a line; on a terminal it goes on where the words began, or at `hang`; below, where there is no room."""
    columns = terminal.width(sys.stdout)
    if columns is None or not words:
        terminal.out(f"{head}{words}".rstrip())
        return
    indent = len(head) if hang is None else hang
    if columns - indent < _LEAST:
        terminal.wrapped(re.sub(" {2,}", "  ", head), columns, "", "    ")
        head, indent = " " * 4, 4
    terminal.wrapped(words, columns, head, " " * indent)


def _list(title: str, rows: list[str]) -> None:
    if not rows:
        return
    terminal.out()
    terminal.out(f"{title}: {len(rows)}")
    for row in rows[:_MOST]:
        _tell("  ", row, hang=4)
    if len(rows) > _MOST:
        terminal.out(f"  and {len(rows) - _MOST} more: --json lists them")
