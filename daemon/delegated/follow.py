"""A further question about a RESULT: the request that it was about, what was answered, and the question."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from delegated import folder as names
from delegated.calls import JobRecord
from delegated.cuts import head
from delegated.errors import Problem, RequestError
from delegated.request import Options, Request, parse
from delegated.result import Result, from_json

_MOST: Final = 20  # earlier questions that go along
_QUESTION: Final = 20_000  # characters
_ANSWER: Final = 12_000


def read(record: JobRecord) -> Request:
    """Return what a job asks: its own request, or for a FOLLOWUP the one that it follows with the question added.

    Raises `RequestError` with all problems. Blocking: a FOLLOWUP reads the records of what it follows.
    """
    claim = record.claim
    parts = names.followed(claim.name)
    if parts is None:
        return parse(claim.data, _suffix(claim.name))
    return _request(record, *parts)


def _request(record: JobRecord, key: str, number: int) -> Request:
    question, more = _asked(record)
    first = record.former(key)
    answer = _result(first)
    while answer is None and first is not None and record.may_be_billed():
        # It was asked about an answer that is being asked for anew: what has left was about the one before.
        first = record.former(key, first.claim.revision)
        answer = _result(first)
    if first is None or answer is None:
        raise _problem(f"there is no answer to {key} on record that this could ask about", _HINT)
    above = names.followed(first.claim.name)
    if above is not None:
        raise _problem(f"{key} is a follow-up itself", f"ask further about {above[0]}: FOLLOWUP_{above[0]}_<n>")
    if first.claim.dropped:
        raise _problem(f"the records of {key} are not kept any more", _HINT)
    about = parse(first.claim.data, _suffix(first.claim.name))
    said = [_answer("The first answer", answer)]
    for earlier in range(max(1, number - _MOST), number):
        former = record.former(f"{key}_{earlier}")
        answered = _result(former)
        if former is not None and answered is not None and names.followed(former.claim.name) is not None:
            said += [f"Question {earlier}: {_asked(former)[0]}", _answer(f"The answer to question {earlier}", answered)]
    return replace(
        about,
        context="\n\n".join(filter(None, (about.context, more.context))),
        logs="\n".join(filter(None, (about.logs, more.logs))),
        attempted_fixes=(*about.attempted_fixes, *more.attempted_fixes),
        files=tuple(dict.fromkeys((*about.files, *more.files))),
        contents=(*about.contents, *more.contents),
        questions=(*more.questions, question),
        options=replace(more.options, models=more.options.models or about.options.models),
        warnings=(*about.warnings, *more.warnings),
        earlier="\n\n".join(said),
    )


_HINT: Final = "write a request of its own, with the question and what was answered in it"


def _problem(found: str, expected: str) -> RequestError:
    return RequestError((Problem(None, found, expected),))


def _asked(record: JobRecord) -> tuple[str, Request]:
    """Return the question of a FOLLOWUP, and what it adds. Its whole text is the question where it has no headings."""
    claim = record.claim
    try:
        request = parse(claim.data, _suffix(claim.name))
    except RequestError:
        text = claim.data.decode("utf-8-sig", "replace")
        plain = text.replace("<!-- END -->", "").strip()
        if _suffix(claim.name) != ".md" or not plain or text.startswith("---"):
            raise
        return head(plain, _QUESTION), Request("", options=Options())
    return head(request.issue, _QUESTION), request


def _result(record: JobRecord | None) -> Result | None:
    done = record.done if record is not None else None
    if done is None:
        return None
    try:
        result = from_json(done.result)
    except ValueError:
        return None
    return result if result.analysis is not None else None


def _answer(title: str, result: Result) -> str:
    found = result.analysis
    assert found is not None
    rows = [f"{title} (verdict {found.verdict}, confidence {found.confidence.level}):", found.root_cause]
    rows += [found.technical_explanation]
    rows += [f"Possible cause: {each.cause}" for each in found.hypotheses]
    rows += [f"Recommended: {fix.description}" for fix in found.fixes]
    rows += [f"Answered: {text}" for text in found.answers]
    return head("\n".join(row for row in rows if row.strip()), _ANSWER)


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
