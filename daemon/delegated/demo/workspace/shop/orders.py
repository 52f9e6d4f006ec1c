"""What an order is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any


@dataclass(frozen=True)
class Line:
    """One article of an order; prices are in cents."""

    article: str
    quantity: int
    unit_price: int

    @property
    def net(self) -> int:
        """The price of the whole line."""
        return self.quantity * self.unit_price


@dataclass(frozen=True)
class Order:
    """An order. `canceled` is the day on which the customer called it off."""

    id: str
    customer: str
    placed: date
    lines: tuple[Line, ...]
    canceled: date | None = None

    @property
    def net(self) -> int:
        """The price of all lines."""
        return sum(line.net for line in self.lines)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Order:
        """Read an order as the store keeps it."""
        return cls(
            id=row["id"],
            customer=row["customer"],
            placed=date.fromisoformat(row["placed"]),
            lines=tuple(Line(**line) for line in row["lines"]),
            canceled=date.fromisoformat(row["canceled"]) if row.get("canceled") else None,
        )
