"""Waiting for a RESULT: the file's appearance is the answer, the STATUS file says what goes on meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from . import place as places
from .place import Place
from .terminal import Progress

_FIRST_S: Final = 0.01
_CAP_S: Final = 0.2
_LOOK_S: Final = 0.25
_PROBE_S: Final = 1.0

Signature = tuple[int, int] | None


def wait(
    place: Place,
    key: str,
    *,
    deadline: float | None,
    progress: Progress,
    before: Signature = None,
    abandoned: Callable[[], bool] | None = None,
    probe_s: float = _PROBE_S,
) -> bool:
    """Wait until a RESULT other than `before` stands; True when it does, False when nobody works on it any more.

    `deadline` is in seconds on the monotonic clock; `abandoned` is asked every `probe_s` seconds whether to give up.
    Raises `TimeoutError` when the deadline passed.
    """
    start = time.monotonic()
    pause, look_at, probe_at = _FIRST_S, start, start + probe_s
    try:
        while True:
            if places.signature(place, key) not in (None, before):
                return True
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise TimeoutError(f"no RESULT for {key} within the time given")
            if now >= look_at:
                progress.phase(describe(key, places.read_status(place, key)), now - start)
                look_at = now + _LOOK_S
            if abandoned is not None and now >= probe_at:
                if abandoned():
                    return places.signature(place, key) not in (None, before)
                probe_at = now + probe_s
            left = pause if deadline is None else min(pause, max(deadline - now, 0.001))
            time.sleep(left)
            pause = min(pause * 1.3, _CAP_S)
    finally:
        progress.end()


def describe(key: str, status: dict[str, Any] | None) -> str:
    """Say in one line what a STATUS file says."""
    if status is None:
        return f"{key}: waiting to be taken"
    detail = f": {status['detail']}" if status.get("detail") else ""
    words = [f"{status.get('phase') or status.get('state') or 'running'}{detail}"]
    if status.get("model"):
        words.append(f"({status['model']})")
    attempt = status.get("attempt")
    if isinstance(attempt, int) and attempt > 1:
        words.append(f"attempt {attempt}")
    said = f"{key}: {' '.join(words)}"[:200]
    tokens, cost = status.get("tokens"), status.get("cost_usd")
    if isinstance(tokens, int) and tokens > 0:
        said += f", {tokens:,} tokens"
    if isinstance(cost, int | float) and cost > 0:
        said += f", ${cost:.4f} so far"
    return said
