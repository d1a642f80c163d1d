"""What type checkers make of steps and workflows. Checked by mypy --strict and pyright, never run.

Each `type: ignore` is a mistake that the checkers must see: both complain where one is not needed.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false
# pyright: reportUnusedCoroutine=false

from __future__ import annotations

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import assert_type
from uuid import UUID

from dispatchers import StepError, task
from dispatchers.workflows import (
    Signal,
    first,
    gather,
    local,
    now,
    patched,
    publish,
    race,
    random,
    restart,
    undo,
    uuid4,
)


@task(name="shop.charge")
def charge(order: int, amount: Decimal = Decimal(1)) -> str:
    return f"{order} {amount}"


@task
async def ship(order: int) -> list[int]:
    return [order]


def plain(number: int, *, more: str) -> bytes:
    return f"{number}{more}".encode()


async def fetched(number: int) -> float:
    return number / 2


approval = Signal("approval", bool)


async def flow() -> None:
    # Steps have exactly the task's parameters, and its result
    assert_type(charge.step(1), asyncio.Future[str])
    assert_type(await charge.step(1, amount=Decimal(2)), str)
    assert_type(await ship.step(order=1), list[int])
    assert_type(await charge.options(queue="slow").step(1), str)
    assert_type(await ship.options(queue="slow").step(1), list[int])
    assert_type(await ship(1), list[int])
    charge.step("x")  # type: ignore[arg-type]
    charge.step()  # type: ignore[call-arg]
    charge.options(queue="slow").step(1, amuont=2)  # type: ignore[call-arg]
    ship.step(order="x")  # type: ignore[call-overload]

    # asyncio takes them as they are
    one, two = await asyncio.gather(charge.step(1), ship.step(2))
    assert_type(one, str)
    assert_type(two, list[int])
    async with asyncio.TaskGroup() as group:
        parcels = group.create_task(ship(1))
    assert_type(parcels.result(), list[int])

    # Local steps
    assert_type(await local(plain, 1, more="a"), bytes)
    assert_type(await local(fetched, 1), float)
    local(plain, 1)  # type: ignore[call-overload]
    local(fetched, "x")  # type: ignore[call-overload]

    # The rest of the language
    assert_type(await approval.receive(), bool)
    assert_type(await gather(charge.step(1), charge.step(2)), list[str])
    assert_type(await race(charge.step(1), charge.step(2)), str)
    assert_type(await first(ship(1), ship(2)), list[int])
    assert_type(now(), datetime)
    assert_type(random(), float)
    assert_type(uuid4(), UUID)
    assert_type(patched("a"), bool)
    publish(stage="one", more=1)
    async with undo() as undone:
        undone.by(charge, 1, amount=Decimal(1))
        undone.by(ship.options(queue="slow"), 1)
        undone.by(fetched, 1)
        undone.by(charge, "x")  # type: ignore[call-overload]
        undone.by(plain, 1, more="a")  # type: ignore[arg-type]
    try:
        await charge.step(1)
    except StepError.of(ValueError) as exc:
        assert_type(exc.attempts, int)
    raise restart(order=2)
