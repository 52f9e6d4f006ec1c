"""The composition root: settings become objects, signals become calls, readiness goes to the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from difflib import get_close_matches
from typing import Final

import structlog

from delegated import config as configs
from delegated import logs, pricing, service
from delegated.answer import Desk, Limits, Tokens
from delegated.config import Config, Endpoint
from delegated.errors import OperatorError, Refused
from delegated.models import Model
from delegated.models.gate import Gate, Gated
from delegated.models.offline import Offline
from delegated.models.recorded import Patience, Recorded
from delegated.models.refusing import Refusing
from delegated.models.retrying import Retrying
from delegated.plan import Rules
from delegated.pricing import ModelFacts
from delegated.prompt import Prompt
from delegated.tokens import Counter, counter
from delegated.worker import Settings, Worker
from delegated.workspace import Workspace

_STALE_S: Final = 20.0  # a loop that has not come round for so long hangs: the watchdog is not fed


class Models:
    """Every model that the configuration can name, each made once."""

    def __init__(self, config: Config, env: Mapping[str, str], words: Callable[[], Counter]) -> None:
        self._config = config
        self._env = env
        self._words = words
        self._made: dict[str, tuple[Model, ModelFacts]] = {}
        self._gates: dict[str, Gate] = {}

    def find(self, name: str) -> tuple[Model, ModelFacts]:
        """Return a model and what is known of it.

        Raises `Refused`: unknown_model, retired_model, missing_key, bad_key.
        """
        if name not in self._made:
            self._made[name] = self._make(name)
        model, facts = self._made[name]
        today = time.strftime("%Y-%m-%d", time.gmtime())
        if facts.shutdown and today >= facts.shutdown:
            successor = f"; its successor is {facts.successor}" if facts.successor else ""
            raise Refused("retired_model", f"{name} left the provider's API on {facts.shutdown}{successor}")
        return model, facts

    def ready(self, name: str) -> tuple[Model, ModelFacts]:
        """Return a model as `find` does, one that cannot be asked now as a `Refusing`: its replies may be recorded."""
        try:
            return self.find(name)
        except Refused as error:
            facts = self.facts(name)
            if error.kind == "unknown_model" or facts is None:
                raise
            extra = self._config.models.get(name)
            endpoint = self._config.endpoints[(extra.endpoint if extra else None) or "openai"]
            return Refusing(name, endpoint.base_url.rstrip("/"), configs.wire(endpoint), error), facts

    def own_keys(self) -> tuple[str, ...]:
        """Return our own keys, to be hidden wherever they turn up."""
        found = []
        for endpoint in self._config.endpoints.values():
            with contextlib.suppress(OperatorError):
                key = self._key(endpoint)
                if key:
                    found.append(key)
        return tuple(found)

    async def close(self) -> None:
        """Release all connections."""
        for model, _ in self._made.values():
            await model.close()

    def _key(self, endpoint: Endpoint) -> str | None:
        return configs.api_key(endpoint, self._env, self._env.get("CREDENTIALS_DIRECTORY"))

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
        extra = self._config.models.get(name)
        endpoint_name = (extra.endpoint if extra else None) or "openai"
        if facts.provider == "anthropic" and not (extra and extra.endpoint):
            raise Refused(
                "unknown_model", f"{name} needs an endpoint: give it one under `models:` in the configuration"
            )
        endpoint = self._config.endpoints[endpoint_name]
        try:
            key = self._key(endpoint)
        except OperatorError as error:  # one endpoint's key is no reason to stop asking the others
            advice = f"; {error.hint}" if error.hint else ""
            raise Refused("bad_key", f"{error}{advice}") from error
        if not key and (endpoint.key_env or endpoint.key_credential or endpoint.key_file):
            raise Refused("missing_key", f"{endpoint.key_env or 'an API key'} environment variable required")
        return self._paid(name, facts, endpoint_name, endpoint, key or "none"), facts

    def facts(self, name: str) -> ModelFacts | None:
        """Return what is known of a model under its name, the configuration's word before the table's."""
        extra = self._config.models.get(name)
        given = {k: v for k, v in asdict(extra).items() if v is not None and k != "endpoint"} if extra else {}
        return pricing.facts(name, {name: given} if extra else {})

    def _paid(self, name: str, facts: ModelFacts, endpoint_name: str, endpoint: Endpoint, key: str) -> Model:
        from delegated.models.chat import ChatWire
        from delegated.models.client import Client
        from delegated.models.openai import ResponsesWire

        config = self._config
        output = min(config.max_output_tokens, facts.output_tokens)
        client = Client(
            base_url=endpoint.base_url,
            api_key=key,
            timeout_s=endpoint.timeout_s,
            connect_s=endpoint.connect_s,
            connections=config.concurrency,
        )
        wire_class = ResponsesWire if configs.wire(endpoint) == "responses" else ChatWire
        wire = wire_class(client, name, facts=facts, max_output_tokens=output, store=endpoint.store)

        def price(prompt: Prompt) -> float | None:
            tokens = len((prompt.system + prompt.user).encode("utf-8", "replace"))
            return pricing.bound(facts, tokens, output)

        recorded = Recorded(
            wire,
            patience=Patience(deadline_s=config.deadline_s, doubt_s=config.doubt_wait_s),
            now=time.time,
            price_bound=price,
            count=self._words(),
        )
        gate = self._gates.setdefault(endpoint_name, Gate())
        retry = config.retry
        return Retrying(Gated(recorded, gate), attempts=retry.attempts, base_s=retry.base_s, cap_s=retry.cap_s)


class App:
    """All workers of one process."""

    def __init__(self, load: Callable[[str], Config], config: Config, workspaces: Sequence[str]) -> None:
        self._load = load
        self._config = config
        self._workspaces = [os.path.abspath(path) for path in workspaces]
        self._log = structlog.get_logger("delegated.app")
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="disk")
        self._words = functools.cache(counter)
        self._workers: dict[str, Worker] = {}
        self._models: dict[Desk, Models] = {}
        self._spaces: dict[str, Workspace] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._ready: set[str] = set()
        self._beats: dict[str, float] = {}
        self._pinged = 0.0
        self._signals = 0

    async def run(self, *, once: bool = False, only: str | None = None) -> dict[str, str]:
        """Serve all workspaces until stopped (or drained); return how each request ended, by id."""
        self._catch_signals()
        interval = service.watchdog_interval()
        self._ping_every = interval / 3 if interval else None
        try:
            for path in self._workspaces:
                config = self._load(path)
                folder = os.path.join(path, config.folder)
                with contextlib.suppress(OSError):
                    if os.path.isdir(path):  # later only somebody else makes it: a deleted folder is not brought back
                        os.makedirs(folder, mode=0o700, exist_ok=True)
                self._workers[path] = Worker(
                    folder,
                    self._desk(path, config),
                    _settings(config),
                    pool=self._pool,
                    on_ready=functools.partial(self._on_ready, path),
                    on_beat=functools.partial(self._on_beat, path),
                    once=once,
                    only=only,
                )
            async with asyncio.TaskGroup() as group:
                for worker in self._workers.values():
                    group.create_task(worker.run())
        except BaseExceptionGroup as errors:
            told = _first(errors)
            if told is not None:
                raise told from None
            raise
        finally:
            service.stopping()
            for models in tuple(self._models.values()):
                await models.close()
            self._pool.shutdown(wait=False, cancel_futures=True)
        return {key: status for worker in self._workers.values() for key, status in worker.outcomes.items()}

    def _desk(self, path: str, config: Config) -> Desk:
        models = Models(config, os.environ, self._words)
        if path not in self._spaces:
            self._spaces[path] = Workspace(path)
        for key in models.own_keys():
            logs.hide(key)
        known = models.facts(config.model)
        note = pricing.warning(known, time.strftime("%Y-%m-%d", time.gmtime())) if known else ""
        if note:
            self._log.warning("model.leaving", note=note)

        def tokens() -> Tokens:
            words = self._words()
            return Tokens(words, exact=words.exact)

        desk = Desk(
            self._spaces[path],
            model=models.ready,
            tokens=tokens,
            limits=Limits(
                model=config.model,
                max_input_tokens=config.max_input_tokens,
                max_output_tokens=config.max_output_tokens,
                max_cost_usd=config.max_cost_usd,
                deadline_s=config.deadline_s,
                max_file_bytes=config.max_file_bytes,
            ),
            known_secrets=models.own_keys,
        )
        self._models[desk] = models
        return desk

    async def _retire(self, desk: Desk) -> None:
        """Close what a desk that was replaced held open, once the jobs that began with it have ended."""
        await desk.idle()
        models = self._models.pop(desk, None)
        if models is not None:
            await models.close()

    def _on_ready(self, path: str) -> None:
        first = path not in self._ready
        self._ready.add(path)
        if first and len(self._ready) == len(self._workers):
            service.ready(f"serving {len(self._workers)} workspace(s)")
            # Once nothing waits for us any more: the first request must not pay for these imports.
            threading.Thread(target=self._warm, name="warm", daemon=True).start()

    def _warm(self) -> None:
        with contextlib.suppress(Exception):
            self._words()("warm")
            import markdown_it  # noqa: F401

            if self._config.model != "offline" and not self._config.model.startswith("scripted:"):
                from delegated.models.client import preload

                preload()

    def _on_beat(self, path: str) -> None:
        """Feed the supervisor's watchdog, from the loops that do the work and only while all of them come round."""
        now = time.monotonic()
        self._beats[path] = now
        if self._ping_every is None or now - self._pinged < self._ping_every:
            return
        if all(now - self._beats.get(worker, now) < _STALE_S for worker in self._workers):
            self._pinged = now
            service.ping()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGIO"):
            signal.signal(signal.SIGIO, signal.SIG_IGN)  # a broken lease sends it, and its default is to kill us
        if sys.platform == "win32":
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _stop(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            os._exit(128 + number)  # asked twice: the records on disk are all that is needed
        self._log.info("app.stopping", signal=signal.Signals(number).name)
        service.stopping()
        for worker in self._workers.values():
            worker.stop()

    def _reload(self) -> None:
        """Read the configuration again; a bad one is refused whole and the old one stays."""
        service.reloading()
        former = tuple(self._models)
        try:
            fresh = {path: self._load(path) for path in self._workers}
            desks = {path: self._desk(path, config) for path, config in fresh.items()}
        except (OperatorError, OSError) as error:
            self._log.error("config.refused", reason=str(error))
        else:
            for path, config in fresh.items():
                self._workers[path].reconfigure(desks[path], _settings(config))
            for desk in former:
                task = asyncio.create_task(self._retire(desk))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
            self._log.info("config.reloaded")
        service.ready(f"serving {len(self._workers)} workspace(s)")


def serve(
    load: Callable[[str], Config],
    workspaces: Sequence[str],
    *,
    once: bool = False,
    only: str | None = None,
) -> dict[str, str]:
    """Run until stopped; with `once` until nothing waits; with `only` until that request is settled.

    `load(workspace)` returns the settings for one workspace and is called again on SIGHUP. Returns the status of each
    request that was settled, by id. Raises `OperatorError`.
    """
    config = load(workspaces[0])
    logs.configure(config.log.level, config.log.format)
    log = structlog.get_logger("delegated.app")
    for note in configs.warnings(config, os.environ):
        log.warning("config.warning", note=note)

    async def main() -> dict[str, str]:
        return await App(load, config, workspaces).run(once=once, only=only)

    return asyncio.run(main())


def _settings(config: Config) -> Settings:
    return Settings(
        rules=Rules(settle_s=config.settle_ms / 1000, quiet_s=config.quiet_s),
        rescan_s=config.rescan_s,
        poll_s=config.poll_s,
        watch=config.watch,
        concurrency=config.concurrency,
        grace_s=config.grace_s,
        heartbeat_s=config.heartbeat_s,
        on_edit=config.on_edit,
        max_request_bytes=config.max_request_bytes,
    )


def _first(errors: BaseExceptionGroup[BaseException]) -> OperatorError | None:
    for error in errors.exceptions:
        if isinstance(error, OperatorError):
            return error
        if isinstance(error, BaseExceptionGroup) and (found := _first(error)) is not None:
            return found
    return None
