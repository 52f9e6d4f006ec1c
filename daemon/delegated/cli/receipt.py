"""Show what left the machine for a request, and check it against the bytes in the journal."""

from __future__ import annotations

import argparse

from delegated import folder as drop

from . import exits, terminal
from . import place as places
from .arguments import place_flags, place_of
from .place import Absent, Place


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `receipt`."""
    parser.add_argument("id", help="the request's id")
    parser.add_argument("--verify", action="store_true", help="check the receipt against the journal's records")
    parser.add_argument("--prompt", action="store_true", help="print the exact words that were sent")
    parser.add_argument("--json", action="store_true", help="print JSON")
    place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print the receipt, the words, or the checks."""
    place, key = place_of(args), places.check_id(args.id)
    places.require(place, key)
    if args.prompt:
        return _prompt(place, key, as_json=args.json)
    if args.verify:
        return _verify(place, key, as_json=args.json)
    from .proof import Records, read_result

    text = places.read_text(place, drop.result_name(key, "json"))
    if text is None:
        records = Records(place, key)
        if not records.result:
            if places.deleted(place, key) is not None:
                raise places.gone(place, key)
            raise Absent(f"there is no RESULT for {key} yet", f"delegate wait {key}{place.flags()}")
        terminal.say("its RESULT is not in the folder: this is the journal's")
        text = records.result
    result = read_result(text)
    if result is None:
        raise Absent(f"the RESULT of {key} is none of delegated", f"delegate republish {key}{place.flags()}")
    if args.json:
        from delegated import plain

        about = result.request
        shown = {"id": about.id, "revision": about.revision, "status": result.status}
        terminal.out_json({**shown, "egress": plain.dump(result.egress)})
        return exits.OK
    from delegated.receipt import to_markdown
    from delegated.result import in_doubt

    terminal.out("\n\n".join(to_markdown(result.egress, in_doubt=in_doubt(result))))
    terminal.next_step(f"delegate receipt {key} --verify{place.flags()}")
    return exits.OK


def _prompt(place: Place, key: str, *, as_json: bool) -> int:
    from delegated import plain
    from delegated.prompt import sha256

    from .proof import Records

    records = Records(place, key)
    prompts = {name: call.read_prompt() for name, call in records.calls.items()} if records.done else {}
    if not any(prompts.values()):
        gone = records.done is not None and (
            bool(records.done[0].get("dropped")) or any(call.dropped for call in records.calls.values())
        )
        why = "they are older than `retention_days`, or were purged" if gone else "nothing was asked, or not yet"
        raise Absent(f"the journal keeps no words for {key}: {why}", f"delegate receipt {key}{place.flags()}")
    if as_json:
        terminal.out_json(
            [
                {"call": n, "sha256": sha256(p), "system": p.system, "user": p.user, "schema": plain.dump(p.schema)}
                for n, p in prompts.items()
                if p is not None
            ]
        )
        return exits.OK
    for name, prompt in prompts.items():
        if prompt is None:
            terminal.say(f"{name}: only its hash is kept")
            continue
        left = "" if records.calls[name].sent else ", none of which left this machine"
        terminal.say(f"{name}{left}: the system's words, an empty line, the user's words; --json has the schema too")
        terminal.out_exactly(f"{prompt.system}\n\n{prompt.user}")
    return exits.OK


def _verify(place: Place, key: str, *, as_json: bool) -> int:
    from .proof import Records, prove

    records = Records(place, key)
    if records.done is None:
        if records.running:
            raise Absent(f"{key} is not settled: there is nothing to check yet", f"delegate wait {key}{place.flags()}")
        raise Absent(f"the journal of {place.folder} has no records of {key}", f"delegate receipt {key}{place.flags()}")
    text = places.read_text(place, drop.result_name(key, "json"))
    checks = list(prove(records, text))
    wrong = [check for check in checks if check.outcome == "FAIL"]
    if as_json:
        terminal.out_json(
            {
                "id": key,
                "revision": records.revision,
                "agrees": not wrong,
                "checks": [
                    {"call": check.call, "what": check.what, "outcome": check.outcome.lower(), "found": check.found}
                    for check in checks
                ],
            }
        )
        return exits.DIFFERS if wrong else exits.OK
    for check in checks:
        terminal.out(f"{check.outcome:<4}  {check.call + ' ' if check.call else ''}{check.what}: {check.found}")
    gone = sum(check.outcome == "gone" for check in checks)
    kept = f"; {gone} could not be made" if gone else ""
    if wrong:
        terminal.say(f"{key}: {len(wrong)} of {len(checks)} checks failed: receipt and records do not agree{kept}")
        return exits.DIFFERS
    terminal.say(f"{key}: receipt and records agree in {len(checks) - gone} checks{kept}")
    return exits.OK
