"""What the settings of the day decided about a job: noted with each of its sends, so that those of another day hold.

A call's place among the others is in its name on disk. Were models or steps counted anew between two lives, one would
be given another's reply, and a call under way would never be taken up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from delegated.calls import JobRecord


@dataclass(frozen=True, slots=True)
class Decided:
    """The models that are asked, and when and by which steps a better answer is looked for."""

    models: tuple[str, ...] = ()
    retry_below: float = 0.0
    ladder: tuple[str, ...] = ()

    def header(self) -> dict[str, Any]:
        """Return it as a part of a record's header."""
        return asdict(self)


def recall(record: JobRecord) -> Decided | None:
    """Return what was decided when the calls that have left were made; None where none has. Blocking."""
    for call in record.calls():
        if call.may_be_billed and (found := _from_header(call.sent.get("decided"))) is not None:
            return found
    return None


def _from_header(value: object) -> Decided | None:
    if not isinstance(value, Mapping):
        return None
    try:
        decided = Decided(tuple(value["models"]), float(value["retry_below"]), tuple(value["ladder"]))
    except (KeyError, TypeError, ValueError):
        return None
    return decided if all(isinstance(each, str) for each in (*decided.models, *decided.ladder)) else None
