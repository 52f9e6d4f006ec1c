"""Every error, classed by who must act on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the closed list of failure kinds that a RESULT may carry.

    `retryable` says whether the same request may succeed later without being edited;
    `hint` is what the reader should do; `next_command` is a command template with `{id}`.
    """

    name: str
    retryable: bool
    hint: str
    next_command: str = ""


_KINDS: Final = (
    Kind("invalid_request", False, "correct the problems listed and save the request again"),
    Kind(
        "missing_key",
        True,
        "shell: export OPENAI_API_KEY=sk-... (or the variable named above); service: put the line "
        "OPENAI_API_KEY=sk-... into an environment file of mode 0600, or give a systemd credential named "
        "openai_api_key; then start the daemon again, if one runs, and run the next command",
        "delegate retry {id}",
    ),
    Kind(
        "bad_key",
        True,
        "this key cannot be used: correct it where it is set (OPENAI_API_KEY if nothing else is named above), then "
        "start the daemon again, if one runs, and run the next command",
        "delegate retry {id}",
    ),
    Kind(
        "missing_package",
        True,
        "install it as said above, then start the daemon again, if one runs, and run the next command",
        "delegate retry {id}",
    ),
    Kind("unknown_model", False, "choose a model that docs/models.md lists, or add it under `models:`"),
    Kind("retired_model", False, "this model has left the provider's API: name its successor in `model:`"),
    Kind("bad_request", False, "the provider refused the form of the call; its message is given above"),
    Kind("unreachable", True, "check the network and the endpoint with `delegate doctor`", "delegate retry {id}"),
    Kind("rate_limited", True, "wait until the limit is lifted", "delegate retry {id}"),
    Kind("quota_exhausted", True, "add credit to the provider's account or raise its limit", "delegate retry {id}"),
    Kind("provider_failed", True, "the provider reported a failure of its own", "delegate retry {id}"),
    Kind("refused_by_model", False, "the model declined to answer; rephrase the issue"),
    Kind("content_filter", False, "the provider's filter stopped the answer; rephrase the issue"),
    Kind("truncated", False, "the answer did not fit: ask about fewer files or raise `max_output_tokens`"),
    Kind("empty_reply", True, "the model sent nothing; ask again", "delegate retry {id}"),
    Kind("not_json", True, "the answer was not JSON; the raw reply is kept in this result", "delegate retry {id}"),
    Kind("wrong_schema", True, "the answer lacked required parts; the raw reply is kept here", "delegate retry {id}"),
    Kind(
        "uncertain",
        True,
        "the call may have been accepted and billed, and the provider cannot say; asking again may bill twice",
        "delegate retry {id}",
    ),
    Kind("deadline", True, "the time allowed for this request ran out", "delegate retry {id}"),
    Kind("cancelled", True, "the request was cancelled", "delegate retry {id}"),
    Kind("budget", False, "the price bound is above the limit: raise `max_cost_usd` or ask about less"),
    Kind(
        "over_budget",
        True,
        "wait for the next hour, day or month, or raise the budget in the configuration of the user; `delegate costs` "
        "shows what it went to",
        "delegate retry {id}",
    ),
    Kind(
        "loop",
        False,
        "stop asking the same: read the RESULTs named above and ask what they leave open, or ask a person; "
        "`force: true` in the request asks all the same",
    ),
    Kind("unknown_price", False, "add the model's price to `models:` so that the limit can be held"),
    Kind("damaged_journal", False, "a record of this job is damaged; see the log", "delegate retry {id}"),
    Kind("internal", True, "this is a fault of delegated; the log has the details", "delegate retry {id}"),
)
KINDS: Final[dict[str, Kind]] = {kind.name: kind for kind in _KINDS}
assert len(KINDS) == len(_KINDS), "kinds must be unique"


class DelegatedError(Exception):
    """Base of every error that delegated raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: its 1-based line (None if not tied to one), what stands there, what is right."""

    line: int | None
    found: str
    expected: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.found}; {self.expected}"


class RequestError(DelegatedError):
    """The submitter must act: the request cannot be used. Carries every problem, never only the first.

    `unfinished` is true when the file may simply still be being written (broken syntax), so that
    the folder gives it a quiet period before it is rejected.
    """

    def __init__(self, problems: tuple[Problem, ...], *, unfinished: bool = False) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems
        self.unfinished = unfinished


class _CallError(DelegatedError):
    def __init__(self, kind: str, message: str) -> None:
        assert kind in KINDS, kind
        super().__init__(message)
        self.kind = kind
        self.message = message


class Unavailable(_CallError):
    """The provider accepted nothing, and may accept later: wait and ask again.

    `retry_after` is in seconds, None when the provider did not say. `stayed`: nothing of it left this machine.
    """

    def __init__(self, kind: str, message: str, *, retry_after: float | None = None, stayed: bool = False) -> None:
        super().__init__(kind, message)
        self.retry_after = retry_after
        self.stayed = stayed


class Refused(_CallError):
    """The provider accepted nothing, and asking the same again is pointless."""


class InDoubt(_CallError):
    """The call may have been accepted: look it up, never resend. Does not leave `models`."""

    def __init__(self, message: str) -> None:
        super().__init__("uncertain", message)


class Uncertain(_CallError):
    """A person must act: the call may have been billed and the provider cannot say."""

    def __init__(self, message: str) -> None:
        super().__init__("uncertain", message)


class AnswerError(_CallError):
    """The model answered (and was paid), but not usably: refusal, truncation, no JSON, wrong schema."""


class OperatorError(DelegatedError):
    """The operator must act: the program stops with `exit_code` (a sysexits.h value)."""

    def __init__(self, message: str, exit_code: int, hint: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.hint = hint
