"""Where the orders are kept: one JSON file."""

from __future__ import annotations

import json
from pathlib import Path

from shop.orders import Order

PATH = Path(__file__).parent.parent / "data" / "orders.json"


def orders_of(customer: str, month: str) -> list[Order]:
    """Return a customer's orders placed in a month (`2025-11`), oldest first."""
    orders = [Order.from_row(row) for row in json.loads(PATH.read_text(encoding="utf-8"))]
    wanted = [order for order in orders if order.customer == customer and f"{order.placed:%Y-%m}" == month]
    return sorted(wanted, key=lambda order: order.placed)
