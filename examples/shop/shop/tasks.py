"""The work. Nothing in it knows which queue carries it."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from dispatchers import Backoff, current_run, task

from . import books


@task(name="shop.order")
def order(number: UUID, customer: str, amount: Decimal) -> None:
    """Book an order, and have the rest done."""
    books.book(number, customer, amount)
    mail.options(idempotency_key=f"mail-{number}").dispatch(number, f"{customer}@example.com")


@task(name="shop.mail", max_attempts=3, backoff=Backoff(initial=0.1))
def mail(order: UUID, address: str) -> None:
    """Write to the customer; the mail server refuses at first."""
    attempt = current_run().attempt
    if attempt == 1:
        raise ConnectionError("the mail server is busy")
    books.note_mail(order, address, attempt)
