"""D21: parked code is unwound without effect, and without a sound."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref

import pytest

from dispatchers import task
from dispatchers.workflows import Signal, local, publish, undo

approval = Signal("approval", bool)


@task(name="wind.charge")
async def charge(n: int) -> int:
    return n


@task(name="wind.refund")
async def refund(n: int) -> int:
    return n


def closed(told):
    """Close what is parked; collect what is left: a warning would be an error."""
    before = dict(told.recorded)
    told.live.close()
    assert told.live.take_commands() == []
    assert told.live.take_state() is None
    assert not told.live.locals
    assert told.recorded == before
    gc.collect()
    gc.collect()


async def sleeps():
    await asyncio.sleep(60)


async def groups():
    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(charge(n))
        await approval.receive()


async def many():
    async with asyncio.timeout(60), asyncio.Lock(), asyncio.Semaphore(2):
        await asyncio.gather(charge(1), asyncio.shield(charge.step(2)), sleeps())


async def waits():
    await asyncio.wait([asyncio.create_task(sleeps()), charge.step(1)])


async def queues():
    queue = asyncio.Queue()
    consumers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await charge.step(1)
    await asyncio.gather(*consumers)


async def undoes():
    async with undo() as undone:
        undone.by(refund, 1)
        await charge.step(2)


async def awaits_later():
    later = [sleeps() for _ in range(3)]
    one, named = sleeps(), {"a": sleeps()}
    call = charge(7)
    await charge.step(1)
    for each in (one, call, *later, *named.values()):
        await each


async def not_begun():
    tasks = []
    await charge.step(1)
    tasks.append(asyncio.create_task(sleeps()))
    await asyncio.gather(*tasks)


async def finally_waits():
    try:
        await charge.step(1)
    finally:
        publish(stage="undoing")
        await refund.step(1)


async def finally_of_all_kinds():
    try:
        await charge.step(1)
    finally:
        for ask in (
            lambda: refund.dispatch(1),
            lambda: local(int, 1),
            lambda: asyncio.create_task(sleeps()),
            lambda: asyncio.get_running_loop().call_later(1, print),
            lambda: publish(a=1),
        ):
            try:
                ask()
            except BaseException:  # noqa: BLE001 - the mistake, or the proof
                continue
            raise AssertionError("it had an effect")
        async with asyncio.timeout(5):
            await approval.receive()


async def catches_all():
    while True:
        try:
            await charge.step(1)
        except BaseException:  # noqa: BLE001 - the mistake, or the proof
            break


async def generators():
    async def pages():
        try:
            while True:
                yield await charge.step(1)
        finally:
            await refund.step(1)

    kept = pages()
    async for _ in kept:
        pass


async def left_generators():
    async def pages():
        try:
            yield 1
        finally:
            refund.dispatch(1)
            raise AssertionError("it had an effect")

    kept = pages()
    await anext(kept)
    await charge.step(1)
    del kept


@pytest.mark.parametrize(
    "code",
    [
        sleeps,
        groups,
        many,
        waits,
        queues,
        undoes,
        awaits_later,
        not_begun,
        finally_waits,
        finally_of_all_kinds,
        catches_all,
        generators,
        left_generators,
    ],
    ids=lambda code: code.__name__,
)
def test_parked_code_is_unwound(story, code):
    """Whatever it waits for, in whatever it is: nothing leaves, nothing warns."""
    closed(story(code))


def test_a_turn_that_was_interrupted(story):
    """A refund in `finally` leaves once only: after the replay, when it is due."""
    told = story(finally_waits)
    told.live.close()

    told.live = told.cold()
    told.done(1, 1)

    assert told.asked == ["step wind.charge", "step wind.refund"]
    assert told.states == [{"stage": "undoing"}]


def test_code_that_does_not_let_go(story):
    """It is kept, so that the garbage collector has nothing to end."""

    async def stubborn():
        future = asyncio.get_running_loop().create_future()
        step = charge.step(1)
        while True:
            try:
                await future
            except BaseException:  # noqa: BLE001 - the mistake, or the proof
                continue
        await step

    told = story(stubborn, seen=False)

    closed(told)


def test_what_was_unwound_is_freed(story):
    """Closing lets all of it go."""

    class Mark:
        pass

    marks = []

    async def flow():
        mark = Mark()
        marks.append(weakref.ref(mark))
        await asyncio.gather(charge(1), sleeps())
        del mark

    told = story(flow)
    told.live.close()
    told.live = None
    gc.collect()

    assert [mark() for mark in marks] == [None] * len(marks)
    told.live = told.cold()


def test_replays_that_are_dropped_are_not_collected(story):
    """Without `close`, they stay: the collector never runs a workflow's code."""
    ended = []

    async def flow():
        try:
            await charge.step(1)
        finally:
            ended.append(threading.get_ident())

    told = story(flow, seen=False)
    told.anew()
    gc.collect()

    assert ended == []


SCRIPT = """
import asyncio, sys
from dispatchers import task
from dispatchers.workflows._replay import Replay

@task(name="exit.charge")
async def charge(n: int) -> int: ...

async def flow():
    async def pages():
        try:
            yield 1
        finally:
            await charge.step(3)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(charge(1))
            async for _ in pages():
                await charge.step(2)
    finally:
        await charge.step(4)

parked = [Replay(flow, execution="e", first=0, started=0.0, recorded={}) for _ in range(5)]
"""


def test_the_end_of_the_interpreter_is_silent():
    """What is parked then is unwound first."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert os.getpid()
