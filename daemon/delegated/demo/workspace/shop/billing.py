"""What a customer owes for a month."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shop.orders import Order

VAT_PERCENT = 19
FREE_DAYS = 14  # an order that is called off within these costs nothing
CANCELLATION_FEE = 990  # cents, after them


def invoice(customer: str, month: str, orders: Sequence[Order]) -> dict[str, Any]:
    """Add up a month; all amounts are in cents."""
    net = sum(order.net for order in orders)
    credit = sum(credit_for(order) for order in orders if order.canceled)
    vat = round((net - credit) * VAT_PERCENT / 100)
    return {
        "customer": customer,
        "month": month,
        "orders": [order.id for order in orders],
        "net": net,
        "credit": credit,
        "vat": vat,
        "total": net - credit + vat,
    }


def credit_for(order: Order) -> int:
    """Return what goes back to the customer for an order that was called off."""
    days = (order.cancelled - order.placed).days
    fee = 0 if days <= FREE_DAYS else min(CANCELLATION_FEE, order.net)
    return order.net - fee
