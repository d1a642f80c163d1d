"""Workflows whose worker's process ends at one very call, once; run by `test_turn_kills.py`."""

from __future__ import annotations

import asyncio
import importlib
import os
from pathlib import Path
from typing import Any

from dispatchers import Backoff, task
from dispatchers.workflows import Signal, local, workflow

FOLDER = Path(os.environ.get("KILL_FOLDER", "."))
approval = Signal("approval", int)


def note(text: str) -> None:
    """Write one effect."""
    with (FOLDER / "effects").open("a") as file:
        file.write(f"{text}\n")


def die(name: str) -> None:
    """End this process at once, the first time that it comes by."""
    try:
        os.close(os.open(FOLDER / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os._exit(9)


@task(name="kill.add", max_attempts=3, backoff=Backoff(initial=0))
def add(left: int, right: int) -> int:
    note(f"add {left}")
    if os.environ.get("KILL_AT") == "in the step":
        die("died")
    return left + right


@task(name="kill.far", dispatcher="far")
async def far(text: str) -> tuple[str, int]:
    note(f"far {text}")
    return text, 1


async def rate() -> float:
    note("rate")
    if os.environ.get("KILL_AT") == "in the local step":
        die("died")
    return 1.5


@workflow(name="kill.flow")
async def flow(number: int) -> list[Any]:
    total, there = await asyncio.gather(add.step(number, right=1), far.step("x"))
    factor = await local(rate)
    await asyncio.sleep(0.05)
    total = await add.step(total, right=1)
    return [total, *there, factor, await approval.receive()]


def _arm(place: str, when: str, nth: int) -> None:
    """Have the process end before or after the nth call of a function, in one process only."""
    module_name, _, path = place.partition(":")
    owner: Any = importlib.import_module(module_name)
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    calls = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and when == "before":
            die("died")
        result = original(*args, **kwargs)
        if calls == nth and when == "after":
            die("died")
        return result

    setattr(owner, name, dying)


if ":" in os.environ.get("KILL_AT", ""):
    when, place, nth = os.environ["KILL_AT"].split()
    _arm(place, when, int(nth))
