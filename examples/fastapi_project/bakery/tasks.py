"""The work. Nothing in it knows which queue carries it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from uuid import UUID

from dispatchers import Backoff, current_run, task

from . import books


@task(name="bakery.bake", max_attempts=5, backoff=Backoff(initial=0.1))
def bake(order: UUID, cake: str, price: Decimal, day: date) -> None:
    """Bake a cake; the oven is cold at first. Baking it twice gives one cake."""
    if current_run().attempt == 1:
        raise ConnectionError("the oven is cold")
    books.note_baked(order, f"{cake} for {price} on {day:%A}")


@task(name="bakery.remind")
async def remind(order: UUID) -> None:
    """Remind the customer."""
    books.note_reminded(order)
