"""What this project is tested with, shipped for everybody's tests: a local server that speaks the models' protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delegated.testing.checks import ModelCard
    from delegated.testing.provider import Bill
    from delegated.testing.rules import BadRule
    from delegated.testing.server import Server, ServerThread

__all__ = ["BadRule", "Bill", "ModelCard", "Server", "ServerThread"]

_HOMES = {
    "BadRule": "rules",
    "Bill": "provider",
    "ModelCard": "checks",
    "Server": "server",
    "ServerThread": "server",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `python -m delegated.testing.server` must find its module not yet imported."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
