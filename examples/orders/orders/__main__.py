"""Orders from the command line.

python -m orders place 7 tea mug [--patience SECONDS]
python -m orders approve 7
python -m orders decline 7
python -m orders show 7
"""

from __future__ import annotations

import sys
from datetime import timedelta

from dispatchers import DispatchResponse

from . import books
from .flows import Approval, approval, checkout


def main() -> int:
    """Place an order, answer for it, or show it."""
    match sys.argv[1:]:
        case ["place", number, *items, "--patience", seconds]:
            return place(int(number), items, timedelta(seconds=float(seconds)))
        case ["place", number, *items]:
            return place(int(number), items, timedelta(days=3))
        case ["approve" | "decline" as word, number]:
            answer = Approval(ok=word == "approve", by="ada")
            return told(approval.send(checkout, number, answer))
        case ["show", number]:
            return show(number)
        case _:
            print(__doc__)
            return 2


def place(number: int, items: list[str], patience: timedelta) -> int:
    """Begin an execution; the number is its key, so that a second call begins no other."""
    begin = checkout.options(idempotency_key=str(number))
    return told(begin.dispatch(number, items, patience))


def told(response: DispatchResponse) -> int:
    """Print what became of a dispatch."""
    print(response.status.value, response.error.message if response.error else "")
    return 0 if response.ok else 1


def show(number: str) -> int:
    """Print how far an order is, and what was done for it."""
    execution = checkout.execution(number)
    print(execution.status(), execution.state(), execution.why() or "")
    print(", ".join(books.effects(int(number))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
