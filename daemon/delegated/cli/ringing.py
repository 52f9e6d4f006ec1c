"""A bell for whoever looked away from a terminal while it waited: the RESULT is there."""

from __future__ import annotations

import os
import sys
from typing import Final

from . import place as places
from . import terminal
from .place import Place

_AWAY_S: Final = 10.0
_MOST: Final = 120


def ring(place: Place, key: str, waited: float) -> None:
    """Ring on the terminal where stderr goes, after `waited` seconds; it is a notification where the terminal has them.

    `notify.terminal` decides. It is read only once there is something to ring for: to read it takes a moment.
    """
    if not terminal.is_terminal(sys.stderr):
        return
    from delegated import config
    from delegated.errors import OperatorError

    try:
        wanted = config.load(workspace=place.workspace).notify.terminal
    except OperatorError:
        return  # whoever serves the folder says what is wrong with it
    if wanted is False or (wanted == "auto" and (waited < _AWAY_S or os.environ.get("CI"))):
        return
    result = places.read_result(place, key) or {}
    status = result.get("status")
    words = " ".join(terminal.clean(f"delegated: {key}: {status}").split())[:_MOST]
    # OSC 9 shows the words (iTerm2, kitty, WezTerm, Ghostty, Windows Terminal), BEL rings in all the others.
    sys.stderr.write(f"\x1b]9;{words}\x1b\\\a" if os.environ.get("TERM") != "linux" else "\a")
    sys.stderr.flush()
