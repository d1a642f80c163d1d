"""The tasks that are measured: they do nothing."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from dispatchers import task


@task(name="bench.small")
def small(number: int, text: str) -> None:
    pass


@task(name="bench.rich")
def rich(identity: UUID, moment: datetime, amount: Decimal) -> None:
    pass
