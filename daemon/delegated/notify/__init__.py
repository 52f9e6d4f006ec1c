"""Tells that a RESULT stands, on the desktop and to a webhook: after it was published, and beside the work.

It is a courtesy: what is to be told waits in memory, bounded, and is dropped at a stop. The RESULT itself is the truth.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from delegated.result import TITLES, Result, ending

_MOST: Final = 100  # that wait for one channel; what comes beyond them is dropped


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told of a RESULT: `head` says how it ended, `title` is the request's, `workspace` a name and no path.

    `key` is this RESULT's own: no other one has it.
    """

    key: str
    id: str
    workspace: str
    timestamp: str
    status: str
    verdict: str
    confidence: str
    cost_usd: float | None
    head: str
    title: str


def notice(workspace: str, result: Result) -> Notice:
    """Make the notice of a RESULT; `workspace` is the path of its workspace."""
    found, request = result.analysis, result.request
    parts = (os.path.realpath(workspace), request.id, str(request.revision), request.sha256, result.timestamp)
    return Notice(
        key="msg_" + hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32],
        id=request.id,
        workspace=os.path.basename(os.path.normpath(workspace)),
        timestamp=result.timestamp,
        status=result.status,
        verdict=found.verdict if found is not None else "",
        confidence=found.confidence.level if found is not None else "",
        cost_usd=result.cost_usd,
        head=TITLES[found.verdict] if found is not None else ending(result),
        title=request.title,
    )


class Channel(Protocol):
    """A way to tell somebody."""

    name: str

    def deliver(self, notices: Sequence[Notice], stopping: threading.Event) -> int:
        """Tell the first of `notices`, or several in one; return how many are dealt with.

        Blocks for a bounded time, less once `stopping` is set. Raises `OSError` with what failed.
        """


class Notifier:
    """Hands each notice to the channels, each of which has a thread of its own."""

    def __init__(self) -> None:
        self._lanes: list[_Lane] = []
        self._former: list[_Lane] = []

    def use(self, channels: Sequence[Channel]) -> None:
        """Tell by these channels from now on; the former ones tell what waits for them."""
        self._former = [lane for lane in (*self._former, *self._lanes) if not lane.idle.is_set()]
        for lane in self._lanes:
            lane.retire()
        self._lanes = [_Lane(channel) for channel in channels]

    def tell(self, workspace: str, result: Result) -> None:
        """Have it told that a RESULT stands. Never blocks, never raises: nothing depends on it."""
        try:
            if self._lanes:
                told = notice(workspace, result)
                for lane in self._lanes:
                    lane.put(told)
        except Exception:  # noqa: BLE001 - a courtesy must not become the fault of a job that went well
            structlog.get_logger("delegated.notify").exception("notify.broke")

    def finish(self, seconds: float) -> None:
        """Give what waits so many seconds, then stop: for a run that ends by itself."""
        until = time.monotonic() + seconds
        for lane in self._lanes:
            lane.idle.wait(max(0.0, until - time.monotonic()))
        self.stop()

    def stop(self) -> None:
        """Drop what waits. Returns at once."""
        for lane in (*self._lanes, *self._former):
            lane.stop()


class _Lane:
    """A channel, what waits for it, and the thread that tells it."""

    def __init__(self, channel: Channel) -> None:
        self.idle = threading.Event()
        self.idle.set()
        self._channel = channel
        self._waiting: deque[Notice] = deque()
        self._more = threading.Condition()
        self._stopping = threading.Event()
        self._retired = False
        self._thread: threading.Thread | None = None
        self._told = ""  # the last failure: it is logged when it changes
        self._log = structlog.get_logger("delegated.notify").bind(channel=channel.name)

    def put(self, told: Notice) -> None:
        with self._more:
            if len(self._waiting) >= _MOST:
                self._fail(f"more than {_MOST} wait; the rest are dropped")
                return
            self.idle.clear()
            self._waiting.append(told)
            self._more.notify()
            if self._thread is None:
                # Not the pool, which is for the disk and waited for at the end: what hangs would hold up both.
                self._thread = threading.Thread(target=self._run, name=f"notify {self._channel.name}", daemon=True)
                self._thread.start()

    def retire(self) -> None:
        with self._more:
            self._retired = True
            self._more.notify()

    def stop(self) -> None:
        self._stopping.set()
        with self._more:
            self._waiting.clear()
            self._more.notify()
        self.idle.set()

    def _run(self) -> None:
        while True:
            with self._more:
                while not self._waiting and not self._stopping.is_set():
                    self.idle.set()
                    if self._retired:
                        return
                    self._more.wait()
                if self._stopping.is_set():
                    return
                notices = tuple(self._waiting)
            done = 1
            try:
                done = self._channel.deliver(notices, self._stopping)
                self._told = ""
            except OSError as error:
                self._fail(error.strerror or str(error), request=notices[0].id)
            except Exception:  # noqa: BLE001 - a fault of ours, told as one; the next notice is told all the same
                self._log.exception("notify.broke")
            with self._more:
                for _ in range(min(done, len(self._waiting))):
                    self._waiting.popleft()

    def _fail(self, why: str, **more: str) -> None:
        if why != self._told and not self._stopping.is_set():
            self._told = why
            self._log.warning("notify.failed", reason=why, **more)
