"""Workflows of the kill test, imported by its workers."""

from __future__ import annotations

import asyncio
import os

from dispatchers import current_run, task
from dispatchers.workflows import local, workflow


@task(name="killed.add")
def add(left: int, right: int) -> int:
    """Add, and write down for which step."""
    log = os.open(os.environ["KILLED_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, f"{current_run().request.headers['dispatchers-step']}\n".encode())
    os.close(log)
    return left + right


async def two() -> int:
    """Return two."""
    return 2


@workflow(name="killed.part")
async def part(number: int) -> int:
    """Add one twice, one after the other."""
    return await add.step(await add.step(number, right=1), right=1)


@workflow(name="killed.flow")
async def flow(number: int) -> int:
    """Await steps in a row and at once, a timer, a local step and a child."""
    total = await add.step(number, right=1)
    total += sum(await asyncio.gather(*[add.step(n, right=0) for n in range(5)]))
    await asyncio.sleep(0.05)
    total += await local(two)
    total = await add.step(total, right=1)
    return await part.step(total)
