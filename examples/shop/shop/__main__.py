"""`python -m shop order 3` places three orders, `python -m shop report` sums them up."""

from __future__ import annotations

import sys
from decimal import Decimal
from uuid import uuid4

from . import books, tasks


def main() -> int:
    """Place orders, or report."""
    match sys.argv[1:]:
        case ["order", number]:
            return place(int(number))
        case ["report"]:
            print(books.report())
            return 0
        case _:
            print(__doc__)
            return 2


def place(number: int) -> int:
    """Place so many orders; each answer is looked at, and none is an exception."""
    with books.books():
        pass  # the file is there, and an outbox has its tables in it
    batch = tasks.order.batch()
    for each in range(number):
        batch.add(uuid4(), f"customer{each}", Decimal("19.90"))
    responses = batch.dispatch()
    for response in responses:
        print(response.status.value, response.error.message if response.error else "")
    return 0 if responses.ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
