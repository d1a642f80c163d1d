"""Workflows of the kill tests, imported by their workers."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from kill_points import point

from dispatchers import task
from dispatchers.workflows import Signal, local, workflow

OTHER_CODE = bool(os.environ.get("KILL_OTHER_CODE"))


def note(key: str, what: str) -> None:
    """Write down an effect."""
    file = os.open(os.environ["KILL_EFFECTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{key} {what}\n".encode())
    os.close(file)


def wait_for(name: str) -> None:
    """Wait until the test says so, if it has planned that."""
    plans = Path(os.environ["KILL_PLANS"])
    while (plans / name).exists():
        time.sleep(0.02)


@task(name="kills.double")
def double(key: str, number: int) -> int:
    """Double a number, which is an effect."""
    note(key, f"double {number}")
    point(f"double {number}", key)
    wait_for(f"{key}.hold double {number}")
    return 2 * number


@task(name="kills.away", dispatcher="away")
def away(key: str) -> int:
    """Run elsewhere."""
    note(key, "away")
    return 8


def seven(key: str) -> int:
    """Return seven, which is an effect."""
    note(key, "seven")
    point("seven", key)
    wait_for(f"{key}.hold seven")
    return 7


@workflow(name="kills.flow")
async def flow(key: str) -> list[int]:
    """Await a step, a local step, two steps at once, and a timer."""
    first = await double.step(key, 1)
    point("replay", key)
    rate = await local(seven, key)
    both = await asyncio.gather(double.step(key, 2), double.step(key, 3))
    await asyncio.sleep(0.1)
    return [first, rate, *both]


@workflow(name="kills.outward")
async def outward(key: str) -> int:
    """Await a step of another dispatcher."""
    return await away.step(key)


@workflow(name="kills.later")
async def later(key: str) -> int:
    """Await a timer that no slow turn overtakes."""
    await asyncio.sleep(3)
    return await double.step(key, 1)


go = Signal("go", int)


@workflow(name="kills.changed")
async def changed(key: str) -> int:
    """Await a signal, and then other steps in other code."""
    if OTHER_CODE:
        return await double.step(key, 5)
    first = await double.step(key, 1)
    return first + await go.receive()


@workflow(name="kills.undone")
async def undone(key: str) -> int:
    """Fail after a timer, and await a step on the way out."""
    try:
        await double.step(key, 1)
        await asyncio.sleep(0.1)
        raise ValueError("undone")
    finally:
        await double.step(key, 4)
