"""What may be spent: the budgets of the configuration, and the ledger that every paid model is held to."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from delegated import pricing
from delegated.journal import Journal
from delegated.ledger import WINDOWS, Budget, Charge, Ledger, window_start
from delegated.models import Model
from delegated.models.budgeted import Budgeted
from delegated.pricing import ModelFacts
from delegated.prompt import Prompt
from delegated.reply import Reply
from delegated.settings import Config
from delegated.tokens import Counter, at_most

FILE: Final = "spending.sqlite"


def budgets(config: Config, workspace: str) -> tuple[Budget, ...]:
    """Return every budget that holds for calls of a workspace, the widest last."""
    found = [
        Budget(window, limit, endpoint=endpoint.base_url.rstrip("/"))
        for endpoint in config.endpoints.values()
        for window in WINDOWS
        if (limit := getattr(endpoint, f"{window}_usd")) is not None
    ]
    for window in WINDOWS:
        if (limit := getattr(config, f"workspace_{window}_usd")) is not None:
            found.append(Budget(window, limit, workspace=workspace))
    for window in WINDOWS:
        if (limit := getattr(config, f"{window}_usd")) is not None:
            found.append(Budget(window, limit))
    return tuple(found)


class Purse:
    """The ledger of this process, opened when the first paid call wants it. `run` runs a function beside the loop."""

    def __init__(self, path: str, run: Callable[..., Awaitable[Any]]) -> None:
        self._path = path
        self._run = run
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None

    def ledger(self) -> Ledger:
        """Return the open ledger. Raises `OSError` when it cannot be opened."""
        with self._lock:
            if self._ledger is None:
                self._ledger = Ledger(self._path)
            return self._ledger

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()

    def around(
        self, model: Model, facts: ModelFacts, workspace: str, config: Config, words: Callable[[], Counter]
    ) -> Budgeted:
        """Hold a paid model to the budgets of a workspace."""
        output = min(config.max_output_tokens, facts.output_tokens)

        def bound(prompt: Prompt) -> float | None:
            count = words()
            text = prompt.system + prompt.user + repr(prompt.schema)
            return pricing.bound(facts, at_most(text, count, exact=count.exact and facts.counted_as_ours), output)

        def price(reply: Reply) -> float | None:
            return pricing.cost(facts, reply.usage)

        return Budgeted(
            model,
            self.ledger,
            budgets(config, workspace),
            workspace=workspace,
            bound=bound,
            price=price,
            wait=config.on_budget == "wait",
            run=self._run,
        )

    def count_in(self, journal: Journal, workspace: str, price: Callable[[str, Reply], float | None]) -> None:
        """Enter what a journal's calls of this month cost, unless the ledger knows of them: it may be new.

        `price` is that of a reply of the model of that name, None where it is not known. Blocks; raises `OSError`.
        """
        ledger = self.ledger()
        if ledger.missing_journal(journal.journal_id):
            ledger.enter(journal.journal_id, _calls(journal, workspace, price))


Entry = tuple[Charge, float, float | None]


def _calls(journal: Journal, workspace: str, price: Callable[[str, Reply], float | None]) -> Iterator[Entry]:
    since = window_start("month", time.time())
    for call in journal.calls():
        sent = call.sent
        with contextlib.suppress(KeyError, TypeError, ValueError):  # a damaged record says nothing of a price
            model, at = str(sent["model"]), float(sent["at"])
            if at < since or not call.may_be_billed:
                continue
            charge = Charge(
                call.call_id, workspace, str(sent["endpoint"]), model, float(sent["price_bound_usd"] or 0.0)
            )
            yield charge, at, None if call.reply is None else price(model, call.reply)
