"""The HTTP face: a path in, JSON out."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

from shop.billing import invoice
from shop.store import orders_of

log = logging.getLogger("shop.web")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request (WSGI)."""
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    try:
        status, body = route(method, path)
    except Exception:
        log.exception("%s %s failed", method, path)
        status, body = "500 Internal Server Error", {"error": "internal server error"}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body, indent=2).encode()]


def route(method: str, path: str) -> tuple[str, dict[str, Any]]:
    """Find what answers this path."""
    match path.strip("/").split("/"):
        case ["health"]:
            return "200 OK", {"status": "ok"}
        case ["invoices", customer, month] if method == "GET":
            return "200 OK", invoice(customer, month, orders_of(customer, month))
    return "404 Not Found", {"error": f"nothing at {path}"}
