"""One line of `doctor`: what was looked at, how it is, in words, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

_HANG: Final = 21  # columns before the words
State = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was found. `FAIL`: a request dropped now would not be answered, and `hint` says what to do."""

    name: str
    state: State
    message: str
    hint: str = ""


def lines(check: Check, width: int | None) -> list[str]:
    """Write a check for people; `width` columns of a terminal, or None for one line each."""
    texts = [f"{check.state:<4}  {check.name:<13}  {check.message}"]
    if check.hint:
        texts.append(f"{'':<{_HANG}}{'' if check.state == 'ok' else '-> '}{check.hint}")
    if width is None:
        return texts
    import textwrap

    return [
        line
        for text in texts
        for line in textwrap.wrap(
            text,
            max(width - 1, _HANG + 15),
            subsequent_indent=" " * _HANG,
            drop_whitespace=True,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
