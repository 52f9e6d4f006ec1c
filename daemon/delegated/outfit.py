"""Settings become the objects that answer: each model that can be asked, its gate, what a request may use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from delegated import config as configs
from delegated import keys, pricing
from delegated.config import Config, Endpoint, Retry
from delegated.errors import OperatorError, Refused, Unavailable
from delegated.gather import Gatherer, Limits, Tokens
from delegated.keys import Keyring
from delegated.models import Model, Wire
from delegated.models.gate import Gate, Gated, pauses
from delegated.models.offline import Offline
from delegated.models.recorded import Patience, Recorded
from delegated.models.refusing import Refusing, Retired
from delegated.notify import Channel
from delegated.pricing import ModelFacts
from delegated.prompt import Prompt
from delegated.record import Refusal
from delegated.survey import Survey
from delegated.tokens import Counter, at_most
from delegated.workspace import Workspace

if TYPE_CHECKING:
    from delegated.sieve import Sieve

_ATTEMPTS: Final = 6  # in a run that is to end
_DEADLINE_S: Final = 600.0  # likewise


class Lanes:
    """One gate for each endpoint and key, whichever workspace asks, and through every reload."""

    def __init__(self) -> None:
        self._gates: dict[tuple[str, str], Gate] = {}
        self._held: dict[str, Refusal] = {}

    def gate(self, base_url: str, key: str, retry: Retry) -> Gate:
        """Return the gate of an endpoint; another key is another account, and starts anew."""
        lane = (base_url.rstrip("/"), key)
        found = self._gates.get(lane)
        if found is None:
            found = self._gates[lane] = Gate()
        found.pauses = pauses(**{name: value for name, value in asdict(retry).items() if name != "attempts"})
        held = self._held.pop(lane[0], None)
        if held is not None:
            error = Unavailable(held.kind, held.reason, retry_after=held.retry_after)
            found.hold(error, held.row, held.ago_s)
        return found

    def hold(self, refusal: Refusal) -> None:
        """Let the gate of this endpoint begin closed, for what is left of the pause that an earlier life was told."""
        latest = self._held.get(refusal.endpoint)
        if refusal.kind == "rate_limited" and (latest is None or latest.ago_s > refusal.ago_s):
            self._held[refusal.endpoint] = refusal

    def knock(self) -> None:
        """Try at once wherever something may have been put right."""
        for gate in self._gates.values():
            gate.knock()


class Models:
    """Every model that the configuration can name, each made once; calls wait as long as it takes, unless it `ends`."""

    def __init__(
        self,
        config: Config,
        env: Mapping[str, str],
        words: Callable[[], Counter],
        lanes: Lanes | None = None,
        *,
        keyring: Keyring | None = None,
        ends: bool = False,
        budgeted: Callable[[Model, ModelFacts], Model] = lambda model, facts: model,
    ) -> None:
        self._budgeted = budgeted
        self._config = config
        self._keyring = keyring or Keyring(env)
        self._words = words
        self._lanes = lanes or Lanes()
        self._ends = ends
        self._made: dict[str, tuple[Model, ModelFacts]] = {}

    def find(self, name: str) -> tuple[Model, ModelFacts]:
        """Return a model and what is known of it.

        Raises `Refused`: unknown_model, retired_model, missing_key, bad_key.
        """
        model, facts = self._reached(name)
        today = time.strftime("%Y-%m-%d", time.gmtime())
        if facts.shutdown and today >= facts.shutdown:
            successor = f"; its successor is {facts.successor}" if facts.successor else ""
            raise Refused("retired_model", f"{name} left the provider's API on {facts.shutdown}{successor}")
        return model, facts

    def _reached(self, name: str) -> tuple[Model, ModelFacts]:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def ready(self, name: str) -> tuple[Model, ModelFacts]:
        """Return a model as `find` does, one that cannot be asked now as one that is asked nothing new.

        Its replies may be recorded, and calls of it may have left, which are still looked up and fetched.
        """
        try:
            return self.find(name)
        except Refused as error:
            facts = self.facts(name)
            if error.kind == "unknown_model" or facts is None:
                raise
            if error.kind == "retired_model":
                return Retired(self._reached(name)[0], error), facts
            endpoint = configs.endpoint_of(self._config, name)
            refusing = Refusing(
                name,
                endpoint.base_url.rstrip("/"),
                configs.wire(endpoint),
                error,
                unlock=lambda: self.unlock(name),
                again=lambda: self.ready(name)[0],
                patience=self._patience(endpoint),
            )
            return refusing, facts

    def own_keys(self) -> tuple[str, ...]:
        """Return our own keys, to be hidden wherever they turn up."""
        found = []
        for endpoint in self._config.endpoints.values():
            with contextlib.suppress(OperatorError):
                key = self._keyring.find(endpoint)
                if key is not None:
                    found.append(key.value)
        return tuple(found)

    async def close(self) -> None:
        """Release all connections."""
        for model, _ in self._made.values():
            await model.close()

    def unlock(self, name: str) -> None:
        """Have the key of a model at hand: `find` then asks no program for it, which may take seconds. Blocks."""
        if self.facts(name) is not None:
            with contextlib.suppress(OperatorError):  # `find` says what is wrong
                self._keyring.find(configs.endpoint_of(self._config, name))

    def _make(self, name: str) -> tuple[Model, ModelFacts]:
        facts = self.facts(name)
        if facts is None:
            known = sorted({*(fact.name for fact in pricing.TABLE), *self._config.models})
            near = get_close_matches(name, known, 1, 0.6)
            meant = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            raise Refused("unknown_model", f"there is no model called {name!a}{meant}")
        if facts.provider == "offline":
            return Offline(), facts
        if facts.provider == "scripted":
            from delegated.models.scripted import Scripted

            return Scripted(name.partition(":")[2]), facts
        endpoint = configs.endpoint_of(self._config, name)
        if configs.wire(endpoint) == "messages":
            from delegated.models.anthropic import check_installed

            check_installed(name)
        try:
            key = self._keyring.find(endpoint)
        except OperatorError as error:  # one endpoint's key is no reason to stop asking the others
            advice = f"; {error.hint}" if error.hint else ""
            raise Refused("bad_key", f"{error}{advice}") from error
        if key is None and keys.named(endpoint):
            raise Refused("missing_key", f"{endpoint.key_env or 'an API key'} environment variable required")
        model = self._paid(name, facts, endpoint, key.value if key is not None else "none")
        return self._budgeted(model, facts), facts

    def facts(self, name: str) -> ModelFacts | None:
        """Return what is known of a model under its name, the configuration's word before the table's."""
        extra = self._config.models.get(name)
        given = {k: v for k, v in asdict(extra).items() if v is not None and k != "endpoint"} if extra else {}
        return pricing.facts(name, {name: given} if extra else {})

    def _paid(self, name: str, facts: ModelFacts, endpoint: Endpoint, key: str) -> Model:
        config = self._config
        output = min(config.max_output_tokens, facts.output_tokens)
        wire = self._wire(name, facts, endpoint, key, output)

        def price(prompt: Prompt) -> float | None:
            text = prompt.system + prompt.user + repr(prompt.schema)
            return pricing.bound(facts, at_most(text, len, exact=False), output)

        recorded = Recorded(
            wire,
            patience=self._patience(endpoint),
            price_bound=price,
            count=self._words(),
        )
        gate = self._lanes.gate(endpoint.base_url, key, config.retry)
        attempts = config.retry.attempts or (_ATTEMPTS if self._ends else None)
        return Gated(recorded, gate, attempts=attempts, patient=not self._ends)

    def _patience(self, endpoint: Endpoint) -> Patience:
        return Patience(
            deadline_s=self._config.deadline_s or endpoint.timeout_s,
            doubt_s=self._config.doubt_wait_s,
            endless=self._config.deadline_s is None and not self._ends,
        )

    def _wire(self, name: str, facts: ModelFacts, endpoint: Endpoint, key: str, output: int) -> Wire:
        from delegated.models.anthropic import AnthropicClient, MessagesWire
        from delegated.models.chat import ChatWire
        from delegated.models.client import Client
        from delegated.models.openai import ResponsesWire

        settings: dict[str, Any] = {
            "base_url": endpoint.base_url,
            "api_key": key,
            "timeout_s": endpoint.timeout_s,
            "connect_s": endpoint.connect_s,
            "connections": self._config.concurrency,
        }
        spoken = configs.wire(endpoint)
        if spoken == "messages":
            return MessagesWire(AnthropicClient(**settings), name, max_output_tokens=output)
        wire_class = ResponsesWire if spoken == "responses" else ChatWire
        return wire_class(Client(**settings), name, facts=facts, max_output_tokens=output, store=endpoint.store)


def preload(config: Config) -> None:
    """Import what the first calls of the configured models would import, each SDK once. For a thread."""
    from delegated.models import anthropic, client

    paid = [name for name in configs.named(config) if name != "offline" and not name.startswith("scripted:")]
    wires = {configs.wire(configs.endpoint_of(config, name)) for name in paid}
    if wires - {"messages"}:
        client.preload()
    if "messages" in wires:
        anthropic.preload()


def channels(
    config: Config, env: Mapping[str, str], workspaces: Sequence[str], *, ends: bool
) -> tuple[tuple[Channel, ...], str]:
    """Make the ways to tell that a RESULT stands, and say why there is no notification on the desktop ("": there is).

    In a run that `ends`, whoever started it looks on: only a desktop that is asked for outright is notified.
    """
    from delegated.notify import desktop

    found: list[Channel] = []
    why = ""
    if config.notify.desktop is True or (config.notify.desktop == "auto" and not ends):
        shown, why = desktop.find(env, workspaces, asked=config.notify.desktop is True)
        found += [shown] if shown is not None else []
    if config.notify.webhook_url:
        from delegated.notify.webhook import Webhook

        with contextlib.suppress(OperatorError):  # `config.warnings` says what is wrong with it
            secret = configs.webhook_secret(config.notify, env, env.get("CREDENTIALS_DIRECTORY"))
            found += [Webhook(config.notify.webhook_url, secret)] if secret is not None else []
    return tuple(found), why


def sieve(config: Config, workspaces: Sequence[str]) -> tuple[Sieve | None, tuple[str, ...]]:
    """Make the rules for secrets ready where the user has files of them (else None); and tell what is wrong in them."""
    if not config.secret_rules:
        return None, ()
    from delegated.sieve import Sieve

    found, problems = configs.secret_rules(config, workspaces)
    return Sieve(found), tuple(problems)


def gatherer(
    config: Config,
    workspace: Workspace,
    words: Callable[[], Counter],
    *,
    survey: Survey | None = None,
    known_secrets: Callable[[], Iterable[str]] = tuple,
    sieve: Sieve | None = None,
    ends: bool = False,
) -> Gatherer:
    """Make what turns requests into prompts, within the limits of the configuration."""

    def tokens() -> Tokens:
        counting = words()
        return Tokens(counting, exact=counting.exact)

    limits = Limits(
        model=config.model,
        max_input_tokens=config.max_input_tokens,
        max_output_tokens=config.max_output_tokens,
        max_cost_usd=config.max_cost_usd,
        deadline_s=config.deadline_s or (_DEADLINE_S if ends else None),
        answer_s=max(endpoint.timeout_s for endpoint in config.endpoints.values()),
        max_file_bytes=config.max_file_bytes,
        find_files=config.find_files,
        git_context=config.git_context,
        repeat_window_s=config.repeat_window_s,
        max_repeats=config.max_repeats,
        max_rounds=config.max_rounds,
        retry_below=config.retry_below,
        ladder=config.ladder,
        compare_models=config.compare_models,
    )
    return Gatherer(workspace, tokens=tokens, limits=limits, survey=survey, known_secrets=known_secrets, sieve=sieve)
