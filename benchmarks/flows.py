"""The workflows that are measured: their steps do next to nothing."""

from __future__ import annotations

import asyncio

from dispatchers import task
from dispatchers.workflows import Signal, local, workflow

ready = Signal("ready", int)


def add_one(number: int) -> int:
    return number + 1


@task(name="bench.more")
def more(number: int) -> int:
    return number + 1


@task(name="bench.plain")
def plain(number: int) -> None:
    pass


@workflow(name="bench.locally")
async def locally(number: int) -> int:
    found = 0
    for _ in range(number):
        found = await local(add_one, found)
    return found


@workflow(name="bench.one_by_one")
async def one_by_one(number: int) -> int:
    found = 0
    for _ in range(number):
        found = await more.step(found)
    return found


@workflow(name="bench.at_once")
async def at_once(number: int) -> int:
    return sum(await asyncio.gather(*[more.step(each) for each in range(number)]))


@workflow(name="bench.parked")
async def parked(number: int) -> int:
    return number + await ready.receive()
