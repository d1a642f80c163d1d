"""The steps, and the workflow that joins them. Nothing in it knows which queue carries it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from pydantic import BaseModel

from dispatchers import task
from dispatchers.workflows import Signal, publish, undo, workflow

from . import books


class Approval(BaseModel):
    """Answer of a human about an order."""

    ok: bool
    by: str


class DeclinedError(Exception):
    """The order was not approved, or not in time."""


approval = Signal("approval", Approval)


@task(name="orders.charge", max_attempts=5)
def charge(number: int) -> str:
    """Take the money; a payment provider would get the request's id as its key."""
    books.note(number, "charged")
    return f"payment-{number}"


@task(name="orders.refund", max_attempts=20)
def refund(number: int, payment: str) -> None:
    """Give the money back."""
    books.note(number, f"refunded {payment}")


@task(name="orders.reserve", max_attempts=5)
def reserve(number: int, item: str) -> str:
    """Take an item from the shelf."""
    books.note(number, f"reserved {item}")
    return f"parcel-{item}"


@task(name="orders.release", max_attempts=20)
def release(number: int, item: str) -> None:
    """Put an item back on the shelf."""
    books.note(number, f"released {item}")


@task(name="orders.ship", max_attempts=5)
def ship(number: int, parcels: list[str]) -> str:
    """Send the parcels."""
    books.note(number, f"shipped {len(parcels)}")
    return f"{len(parcels)} parcels of order {number}"


@workflow(name="orders.checkout")
async def checkout(number: int, items: list[str], patience: timedelta = timedelta(days=3)) -> str:
    """Charge and reserve, wait for an approval, then ship, or undo everything."""
    async with undo() as undone:
        payment = await charge.step(number)
        undone.by(refund, number, payment)
        for item in items:
            # Before it is taken: to release what is not reserved does no harm.
            undone.by(release, number, item)
        parcels = await asyncio.gather(*[reserve.step(number, item) for item in items])
        publish(stage="waits for an approval", parcels=len(parcels))
        await approved(patience)
        return await ship.step(number, list(parcels))


async def approved(patience: timedelta) -> None:
    """Wait until the order is approved.

    Raises:
        DeclinedError: It was declined, or the time is over.
    """
    try:
        async with asyncio.timeout(patience.total_seconds()):
            answer = await approval.receive()
    except TimeoutError:
        raise DeclinedError("no answer came in time") from None
    if not answer.ok:
        raise DeclinedError(f"declined by {answer.by}")
