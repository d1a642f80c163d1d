"""D4: whatever the order of the answers, every replay from nothing comes to the same."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from itertools import chain as chain_
from pathlib import Path

import pytest

from dispatchers import task


@task(name="order.next")
def following(n: int) -> int:
    return n + 10


async def chain(n):
    for _ in range(3):
        n = await following.step(n)
    return n


async def flow():
    """Chains beside each other; the winners are looked at in the order of a set."""
    seen = []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(chain(n)) for n in range(4)]
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            seen.append([tasks.index(each) for each in done])
            if len(seen) == 1:
                await asyncio.sleep(5)
            for each in done:
                await following.step(each.result())
    return seen


def in_an_order(story, seed):
    """One execution whose open commands are answered at random."""
    chance = random.Random(seed)
    told = story(flow)
    while told.end is None:
        number = chance.choice([*told.steps, *told.timers])
        told.fire(number) if number in told.timers else told.run_step(number)
    told.compare()
    assert sorted(chain_.from_iterable(told.result)) == [0, 1, 2, 3]
    return told


@pytest.mark.parametrize("seed", range(10))
def test_random_orders(story, seed):
    """With a replay from nothing after each answer, which must ask for the same."""
    in_an_order(story, seed)


@pytest.mark.slow
def test_many_random_orders(story):
    """Three hundred of them."""
    for seed in range(300):
        in_an_order(story, seed).live.close()


def outline(seed=3):
    """All commands of one execution, in text."""
    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import Story

    told = in_an_order(Story, seed)
    return f"{told.asked} {[e.digest.hex() for e in told.recorded.values()]} {told.result}"


def test_two_hash_seeds():
    """Another process, whose texts and addresses hash otherwise, asks for the same."""
    script = f"import runpy; print(runpy.run_path({__file__!r})['outline']())"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "DISPATCHERS_TARGET": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2", "random")
    ]
    outlines = {process.communicate()[0] for process in processes}

    assert len(outlines) == 1
    assert "step order.next" in outlines.pop()
