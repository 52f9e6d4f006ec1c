"""What `doctor` learns of the model: its name, its key, its endpoint, when it goes; and of the clock beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from delegated.errors import KINDS, Refused, Unavailable

from . import place as places
from .checks import Check

if TYPE_CHECKING:
    from delegated.config import Config, Endpoint
    from delegated.models.client import Description
    from delegated.outfit import Models

_QUICK_S: Final = 10.0
_PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY")
_UNSET: Final = 1_735_689_600  # 2025-01-01: a machine without a clock of its own starts decades before that
_OFF_S: Final = 120.0


def tokens() -> Check:
    """Say how the size of a prompt is known."""
    from delegated.tokens import counter

    if counter().exact:
        return Check("tokens", "ok", "counted exactly")
    return Check("tokens", "ok", "estimated, on the safe side", "exact with: pip install 'delegated[tokens]'")


def model(settings: Config, workspace: str, served: str | None, connect: bool) -> Iterator[Check]:
    """Check the model, its key, its endpoint and the clock."""
    from delegated import keys, pricing
    from delegated.config import endpoint_of, named
    from delegated.outfit import Models
    from delegated.tokens import counter

    name = settings.model
    models = Models(settings, os.environ, counter)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    try:
        found, facts = models.find(name)
    except Refused as error:
        kind, hint = error.kind, KINDS[error.kind].hint
        if kind == "missing_key" and served is not None and not places.leaves(served):
            yield Check("key", "warn", f"{error}: not in this shell", f"the daemon ({served}) may have its own")
        else:
            yield Check("key" if kind in ("missing_key", "bad_key") else "model", "FAIL", str(error), hint)
        yield clock(None, "", paid=True)
        return
    late = pricing.warning(facts, today)
    until = f", in the provider's API until {facts.shutdown}" if facts.shutdown else ""
    yield Check("model", "warn" if late else "ok", late or f"{name} is known{until}")
    if not found.endpoint:
        yield Check("key", "ok", f"{name} needs none, and no network")
        yield clock(None, "", paid=False)
        return
    endpoint = endpoint_of(settings, name)
    yield from spending(settings, workspace, served)
    key = keys.find(endpoint, os.environ)
    yield Check("key", "ok", f"present, from {key.source}" if key else "this endpoint needs none")
    if not connect:
        yield clock(None, "", paid=True)
        return
    reached, host, told = _reach(endpoint, key.value if key else "", name)
    yield reached
    if told is not None and told.shutdown and told.shutdown != facts.shutdown:
        late = pricing.warning(replace(facts, shutdown=told.shutdown), today)
        yield Check("model", "warn" if late else "ok", late or f"{host} says: in its API until {told.shutdown}")
    for other in named(settings)[1:]:
        yield from beside(settings, models, other)
    yield clock(told.at if told else None, host, paid=True)


def beside(settings: Config, models: Models, name: str) -> Iterator[Check]:
    """Check a model that is asked as well; where that fails the others are asked all the same."""
    from delegated import keys
    from delegated.config import endpoint_of

    try:
        found, _ = models.find(name)
    except Refused as error:
        yield Check("model", "warn", f"{name}: {error}", KINDS[error.kind].hint)
        return
    if found.endpoint:
        endpoint = endpoint_of(settings, name)
        key = keys.find(endpoint, os.environ)
        yield _reach(endpoint, key.value if key else "", name)[0]
    else:
        yield Check("model", "ok", f"{name} is known")


def spending(settings: Config, workspace: str, served: str | None) -> Iterator[Check]:
    """Say whether the ledger can be kept, without which no paid call is made, and which budgets are used up."""
    from datetime import UTC, datetime

    from delegated.home import state_directory
    from delegated.ledger import Ledger, next_window
    from delegated.purse import FILE, budgets

    path = os.path.join(state_directory(os.environ), FILE)
    known = os.path.exists(path)
    held = budgets(settings, workspace)
    taken: list[float] = []
    try:
        if known:
            ledger = Ledger(path)
            try:
                taken = [ledger.taken(each.window, workspace=each.workspace, endpoint=each.endpoint) for each in held]
            finally:
                ledger.close()
        else:
            at = os.path.dirname(path)
            while not os.path.lexists(at) and os.path.dirname(at) != at:
                at = os.path.dirname(at)
            if not os.path.isdir(at) or not os.access(at, os.W_OK | os.X_OK):
                raise PermissionError(13, "it cannot be made", path)
    except OSError as error:
        ours = served is None or places.leaves(served)
        message = f"the ledger {path} cannot be kept: {error.strerror or error}"
        hint = "make its directory writable for this user" if ours else f"the daemon ({served}) may have its own"
        yield Check("spending", "FAIL" if ours else "warn", message, hint)
        return
    now = time.time()
    over = []
    for budget, used in zip(held, taken, strict=False):
        if used >= budget.usd:
            again = datetime.fromtimestamp(next_window(budget.window, now), UTC).strftime("%Y-%m-%d %H:%M UTC")
            over.append(f"{budget} is used up: ${used:.4f}; the next {budget.window} begins at {again}")
    if over:
        hint = "raise it in the configuration, or wait; `delegate costs` shows the account"
        yield Check("spending", "FAIL", "; ".join(over), hint)
        return
    count = f"{len(held)} budget{'' if len(held) == 1 else 's'}"
    yield Check("spending", "ok", f"{path}, {count}" if known else "nothing was spent yet")


def _reach(endpoint: Endpoint, key: str, name: str) -> tuple[Check, str, Description | None]:
    """Ask the provider about the model, which costs nothing and tells whether key, model and network are good."""
    import asyncio
    from urllib.parse import urlsplit

    from delegated.config import wire
    from delegated.models import anthropic, client

    async def ask() -> Description:
        settings: dict[str, Any] = {"base_url": endpoint.base_url, "api_key": key or "none"}
        settings |= {"quick_s": _QUICK_S, "connect_s": _QUICK_S}
        if wire(endpoint) == "messages":
            line = anthropic.AnthropicClient(**settings)
            try:
                return await anthropic.describe(line, name)
            finally:
                await line.close()
        other = client.Client(**settings)
        try:
            return await client.describe(other, name)
        finally:
            await other.close()

    host = urlsplit(endpoint.base_url).netloc
    try:
        found = asyncio.run(ask())
    except Refused as error:
        if error.kind in ("bad_key", "unknown_model"):
            check = Check("endpoint", "FAIL", f"{host} answers: {error.message}", KINDS[error.kind].hint)
        else:
            check = Check("endpoint", "warn", f"{host} answers: {error.message}", "it may still answer a request")
        return check, host, None
    except Unavailable as error:
        proxy = next((each for each in _PROXIES if os.environ.get(each)), "")
        way = f" through the proxy of {proxy}" if proxy else ""
        if error.kind in ("rate_limited", "provider_failed"):
            check = Check("endpoint", "warn", f"{host} answers: {error.message}", KINDS[error.kind].hint)
        else:
            hint = "check the network, a proxy or firewall on the way, and the endpoint's `base_url`"
            check = Check("endpoint", "FAIL", f"{host} cannot be reached{way}: {error.message}", hint)
        return check, host, None
    return Check("endpoint", "ok", f"{host} answers, and knows {found.name}"), host, found


def clock(server: float | None, host: str, *, paid: bool) -> Check:
    """Compare the clock with the server's (seconds since the epoch, None when it was not asked) and with reason."""
    now = time.time()
    here = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    hint = "set it (timedatectl set-ntp true)"
    if now < _UNSET:
        why = "it was never set: no certificate is valid yet" if paid else "it was never set"
        return Check("clock", "FAIL" if paid else "warn", f"{here}: {why}", hint)
    if server is None:
        return Check("clock", "ok", f"{here}; compared with no server's")
    off = now - server
    if abs(off) > _OFF_S:
        words = f"{here}: {_duration(abs(off))} {'ahead of' if off > 0 else 'behind'} {host}"
        return Check("clock", "warn", words, f"{hint}: times in RESULTs and the day on which a model goes depend on it")
    return Check("clock", "ok", f"{here}, as at {host}")


def _duration(seconds: float) -> str:
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
