"""The work. Nothing in it knows which queue carries it."""

import os

from django.db.models import F

from dispatchers import Backoff, current_run, task

from .models import Order


@task(name="shop.book", max_attempts=3, backoff=Backoff(initial=0.1))
def book(number: int) -> None:
    """Book an order; the ledger is busy at the first attempt."""
    attempt = current_run().attempt
    if attempt == 1:
        raise ConnectionError("the ledger is busy")
    values = {"booked": F("booked") + 1, "attempt": attempt, "process": os.getpid()}
    Order.objects.filter(pk=number).update(**values)
