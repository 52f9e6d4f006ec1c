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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from delegated import config as configs
from delegated import logs, outfit, pricing, service
from delegated.agenda import Settings
from delegated.answer import Desk
from delegated.comments import Comments
from delegated.config import Config
from delegated.errors import OperatorError
from delegated.home import state_directory
from delegated.keys import Keyring
from delegated.models import Model
from delegated.notify import Notifier
from delegated.outfit import Lanes, Models
from delegated.plan import Rules
from delegated.pricing import ModelFacts
from delegated.purse import FILE, Purse
from delegated.registry import Consent, register
from delegated.reply import Reply
from delegated.survey import Survey
from delegated.tokens import counter
from delegated.worker import Worker
from delegated.workspace import Workspace

if TYPE_CHECKING:
    from delegated.sieve import Sieve

T = TypeVar("T")
_LAST_S: Final = 3.0  # for what is still to be told when a run ends by itself
_ABSENT_S: Final = 1.0  # how often a workspace that was not there at the start is looked for
_STALE_S: Final = 20.0  # a loop that has not come round for so long hangs: the watchdog is not fed


class App:
    """All workers of one process."""

    def __init__(self, load: Callable[[str], Config], config: Config, workspaces: Sequence[str]) -> None:
        self._load = load
        self._config = config
        self._workspaces = list(dict.fromkeys(os.path.abspath(path) for path in workspaces))
        self._log = structlog.get_logger("delegated.app")
        # A job waits for one write at a time: all that may run never keep the looks waiting, however slow the disk is.
        threads = (config.concurrency + 2) * max(1, len(workspaces))
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="disk")
        self._words = functools.cache(counter)
        self._workers: dict[str, Worker] = {}
        self._lanes = Lanes()
        self._keyring = Keyring(os.environ, logs.hide)  # one for all workspaces, and a new one at each reload
        self._purse = Purse(os.path.join(state_directory(os.environ), FILE), self._beside)
        self._ends = False
        self._notifier = Notifier()
        self._models: dict[Desk, Models] = {}
        self._spaces: dict[str, Workspace] = {}
        self._surveys: dict[str, Survey] = {}
        self._configs: dict[str, Config] = {}
        self._comments: dict[str, Comments] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._reloads: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._ready: set[str] = set()
        self._beats: dict[str, float] = {}
        self._pinged = 0.0
        self._signals = 0
        self._leaving = asyncio.Event()
        self._warming = False

    async def run(self, *, once: bool = False, only: str | None = None) -> dict[str, str]:
        """Serve all workspaces until stopped (or drained); return how each request ended, by id."""
        self._catch_signals()
        self._ends = once or only is not None
        interval = service.watchdog_interval()
        self._ping_every = interval / 3 if interval else None
        self._set_channels(self._config)
        try:
            absent = [path for path in self._workspaces if not self._take_up(path, once=once, only=only)]
            async with asyncio.TaskGroup() as group:
                for worker in self._workers.values():
                    group.create_task(worker.run())
                if not self._ends:
                    for path in absent:
                        group.create_task(self._wait_for(path))
                    self._tell_ready()
        except BaseExceptionGroup as errors:
            told = _first(errors)
            if told is not None:
                raise told from None
            raise
        finally:
            for task in self._reloads:
                task.cancel()
            service.stopping()
            if self._ends and not self._signals:
                await self._beside(self._notifier.finish, _LAST_S)
            self._notifier.stop()
            for comments in self._comments.values():
                comments.close()
            for models in tuple(self._models.values()):
                await models.close()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._purse.close()
        return {key: status for worker in self._workers.values() for key, status in worker.ended.items()}

    def _take_up(self, path: str, *, once: bool = False, only: str | None = None) -> bool:
        """Make the worker of a workspace; tell it, and return False, where that is no directory that can be opened."""
        config = self._load(path)
        folder = os.path.join(path, config.folder)
        with contextlib.suppress(OSError):
            if os.path.isdir(path):  # later only somebody else makes it: a deleted folder is not brought back
                os.makedirs(folder, mode=0o700, exist_ok=True)
        try:
            self._open(path)
        except OSError as error:
            hint = "" if self._ends else "it is served once it is there, with its drop folder"
            self._log.error("workspace.missing", workspace=path, reason=error.strerror or str(error), hint=hint)
            return False
        self._workers[path] = Worker(
            folder,
            self._desk(path, config),
            _settings(config),
            pool=self._pool,
            on_ready=functools.partial(self._on_ready, path),
            on_beat=functools.partial(self._on_beat, path),
            once=once,
            only=only,
            consent=functools.partial(self._consent, path, folder, once=once, only=only is not None),
            on_settled=functools.partial(self._notifier.tell, path),
        )
        return True

    def _open(self, path: str) -> None:
        """Open the code of a workspace, once. Raises `OSError` when it is no directory that can be opened."""
        if path not in self._spaces:
            self._spaces[path] = Workspace(path)
            logs.learn(path, functools.partial(self._spaces[path].env_values, search=False))
            self._surveys[path] = Survey(self._spaces[path])

    async def _wait_for(self, path: str) -> None:
        """Serve a workspace that was not there at the start, from the moment when its drop folder is."""
        told = ""
        while not self._leaving.is_set():
            self._on_beat(path)
            if await self._beside(os.path.isdir, os.path.join(path, self._config.folder)):
                taken = False
                try:
                    taken = self._take_up(path)
                except OperatorError as error:  # its own settings: they do not end what is served meanwhile
                    if str(error) != told:
                        self._log.error("config.refused", workspace=path, reason=str(error))
                    told = str(error)
                if taken:
                    return await self._workers[path].run()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), _ABSENT_S)
        return None

    def _consent(self, path: str, folder: str, *, once: bool, only: bool) -> Consent:
        """Register a workspace that was not: its user asks for it, by starting us there or in the configuration.

        Raises `OperatorError` when a journal came with the code: what it says was never ours.
        """
        registration = register(state_directory(os.environ), path, folder)
        if registration.trouble:
            self._log.error(
                "workspace.unregistered",
                workspace=path,
                reason=registration.trouble,
                hint="requests that are dropped while no daemon runs will not be run by themselves",
            )
        consent = Consent(registration, folder, once=once, only=only)
        journal = consent.repositories.look().journal
        if journal:
            raise OperatorError(
                f"{journal} is tracked by git: a daemon's records that came with the code are not believed",
                78,
                f"git rm -r --cached {os.path.join(folder, '.delegated')!r}; if they are not yours, delete them too",
            )
        return consent

    def _desk(self, path: str, config: Config) -> Desk:
        def budgeted(model: Model, facts: ModelFacts) -> Model:
            return self._purse.around(model, facts, path, config, self._words)

        def price(name: str, reply: Reply) -> float | None:
            return pricing.cost(models.facts(name), reply.usage)

        self._configs[path] = config
        models = Models(
            config, os.environ, self._words, self._lanes, keyring=self._keyring, ends=self._ends, budgeted=budgeted
        )
        models.own_keys()  # found now, they are in no line of the log; one that is found later is hidden then
        known = models.facts(config.model)
        note = pricing.warning(known, time.strftime("%Y-%m-%d", time.gmtime())) if known else ""
        if note:
            self._log.warning("model.leaving", note=note)

        gatherer = outfit.gatherer(
            config,
            self._spaces[path],
            self._words,
            survey=self._surveys[path],
            known_secrets=models.own_keys,
            sieve=self._sieve(config),
            ends=self._ends,
        )
        desk = Desk(
            gatherer,
            model=models.ready,
            unlock=models.unlock,
            hold=self._lanes.hold,
            knock=self._lanes.knock,
            count_in=lambda journal: self._purse.count_in(journal, path, price),
        )
        self._models[desk] = models
        return desk

    def _set_channels(self, config: Config) -> None:
        found, why = outfit.channels(config, os.environ, self._workspaces, ends=self._ends)
        self._notifier.use(found)
        if why:
            tell = self._log.warning if config.notify.desktop is True else self._log.info
            tell("notify.no_desktop", reason=why)

    def _sieve(self, config: Config) -> Sieve | None:
        found, problems = outfit.sieve(config, self._workspaces)
        for note in problems:
            self._log.warning("config.warning", note=note)
        return found

    async def _beside(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    async def _retire(self, desk: Desk) -> None:
        """Close what a desk that was replaced held open, once the jobs that began with it have ended."""
        await desk.idle()
        models = self._models.pop(desk, None)
        if models is not None:
            await models.close()

    def _on_ready(self, path: str) -> None:
        first = path not in self._ready
        self._ready.add(path)
        if first:
            self._see_to_comments(path, self._configs[path])
            self._tell_ready()

    def _tell_ready(self) -> None:
        """Say that the start is finished once all are served that are there, and again with each that comes."""
        if len(self._ready) < len(self._workers):
            return
        service.ready(self._served())
        # Once nothing waits for us any more: the first request must not pay for these imports. The process waits for
        # the thread when it ends: one that was cut off inside a library in C++ would abort it. A run that found nothing
        # to do just leaves.
        if not self._warming and not (self._ends and all(worker.drained() for worker in self._workers.values())):
            self._warming = True
            threading.Thread(target=self._warm, name="warm").start()

    def _served(self) -> str:
        absent = [path for path in self._workspaces if path not in self._workers]
        return f"serving {len(self._workers)} workspace(s)" + (f"; not there: {', '.join(absent)}" if absent else "")

    def _see_to_comments(self, path: str, config: Config) -> None:
        """Watch the code of a workspace for comments that ask, or no longer."""
        known = self._comments.get(path)
        if config.comments and known is None and not self._ends:
            folder = os.path.join(path, config.folder)
            self._comments[path] = Comments(self._spaces[path], folder, events=config.watch != "poll")
            self._comments[path].start()
        elif known is not None and not config.comments:
            del self._comments[path]
            known.close()

    def _warm(self) -> None:
        with contextlib.suppress(Exception):
            self._words()("warm")
            import markdown_it  # noqa: F401

            from delegated.secrets import redact

            redact([("warm", "password")])

            outfit.preload(self._config)
        self._log.info("app.warmed")

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
        # `nohup` asks us to outlive the terminal; a service has none.
        watched = service.on_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        loop.add_signal_handler(signal.SIGHUP, self._hang_up, watched)

    def _hang_up(self, watched: bool) -> None:
        """Stop when the terminal that we were started on was closed, so that none spends unseen; else reload."""
        if not watched or service.on_terminal():
            self._reload()
        elif not self._signals:  # the shell and the kernel each send one: that is not to be asked twice
            self._stop(signal.SIGHUP)

    def _stop(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            os._exit(128 + number)  # asked twice: the records on disk are all that is needed
        self._log.info("app.stopping", signal=signal.Signals(number).name)
        self._notifier.stop()
        service.stopping()
        self._leaving.set()
        for worker in self._workers.values():
            worker.stop()

    def _reload(self) -> None:
        service.reloading()
        task = asyncio.create_task(self._reloaded(), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reloaded(self) -> None:
        """Read the configuration again, each reload after the other; a bad one is refused whole, the old one stays."""
        async with self._reloading:
            keyring = Keyring(os.environ, logs.hide)
            try:
                fresh = await self._beside(self._read_anew, keyring)
                self._keyring = keyring
                self._use(fresh)
            except (OperatorError, OSError) as error:
                self._log.error("config.refused", reason=str(error))
            service.ready(self._served())

    def _read_anew(self, keyring: Keyring) -> dict[str, Config]:
        """Read all settings, and have the keys at hand that programs print: that may take seconds. Blocking."""
        fresh = {path: self._load(path) for path in self._workers}
        for endpoint in dict.fromkeys(each for config in fresh.values() for each in config.endpoints.values()):
            with contextlib.suppress(OperatorError):  # whoever needs it says what is wrong
                keyring.find(endpoint)
        return fresh

    def _use(self, fresh: dict[str, Config]) -> None:
        former = tuple(self._models)
        desks = {path: self._desk(path, config) for path, config in fresh.items()}
        self._lanes.knock()
        for path, config in fresh.items():
            self._workers[path].reconfigure(desks[path], _settings(config))
            self._see_to_comments(path, config)
        for desk in former:
            task = asyncio.create_task(self._retire(desk))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        config = next(iter(fresh.values()), self._config)
        self._set_channels(config)
        for note in configs.warnings(config, os.environ):
            self._log.warning("config.warning", note=note)
        self._log.info("config.reloaded")


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
        max_requests_per_minute=config.max_requests_per_minute,
        max_waiting=config.max_waiting,
        retention_days=config.retention_days,
    )


def _first(errors: BaseExceptionGroup[BaseException]) -> OperatorError | None:
    """Return the first error that a person can do something about: what the system refused is one, a bug is not."""
    for error in errors.exceptions:
        if isinstance(error, OperatorError):
            return error
        if isinstance(error, OSError):
            return OperatorError(f"cannot go on: {error}", 74, "see the log; start again when the disk is well")
        if isinstance(error, BaseExceptionGroup) and (found := _first(error)) is not None:
            return found
    return None
