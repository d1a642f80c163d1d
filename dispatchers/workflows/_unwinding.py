"""Ending parked code without any effect, so that the garbage collector finds none to end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from contextvars import Context
from types import CoroutineType, FrameType
from typing import Any

from dispatchers.workflows._futures import DurableTask, Unwound
from dispatchers.workflows._guarded import GuardedCoroutine, unblock
from dispatchers.workflows._loop import DurableLoop

MOST_THROWS = 100
"""Code that goes on waiting after so many exceptions is kept for ever rather than ended."""

_stubborn: list[object] = []


def unwind(loop: DurableLoop, context: Context) -> None:
    """End all that is parked on a loop: whatever it asks for on the way raises `Unwound`.

    Args:
        loop: The loop.

        context: Of the workflow, for generators.
    """
    loop.halt()
    # The youngest first: a task that waits for another finds it ended.
    for task in reversed(loop.tasks):
        if not task.done():
            _unwind_task(loop, task)
    for generator in reversed(loop.generators):
        if generator.ag_frame is not None:
            context.run(loop.run, _end_generator, generator)
    loop.tasks.clear()
    loop.generators.clear()


def _unwind_task(loop: DurableLoop, task: DurableTask[Any]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    inner = task.coroutine
    coro = inner.inner if isinstance(inner, GuardedCoroutine) else inner
    task.context.run(loop.run, _in_task, loop, task, coro)


def _in_task(loop: DurableLoop, task: DurableTask[Any], coro: Any) -> None:
    asyncio._enter_task(loop, task)
    try:
        _end(coro, task)
    finally:
        asyncio._leave_task(loop, task)


def _end_generator(generator: Any) -> None:
    thrown = generator.athrow(Unwound())
    try:
        thrown.send(None)
    except BaseException:  # noqa: BLE001 - its end, whichever it chose
        return
    _end(thrown, generator)


def _end(coro: Any, owner: object) -> None:
    """Raise `Unwound` in a coroutine until it has ended."""
    for _ in range(MOST_THROWS):
        _close_unstarted(coro)
        try:
            waited = coro.throw(Unwound())
        except BaseException:  # noqa: BLE001 - its end, whichever it chose
            return
        unblock(waited)
    _stubborn.extend((coro, owner))


def _close_unstarted(coro: Any) -> None:
    """Close coroutines that its variables hold and that have not begun: they would warn."""
    while coro is not None:
        frame = getattr(coro, "cr_frame", None)
        if frame is not None:
            for value in _held(frame):
                _close(value)
        coro = getattr(coro, "cr_await", None)


def _held(frame: FrameType) -> Iterable[object]:
    for value in list(frame.f_locals.values()):
        yield value
        if type(value) in (list, tuple, set):
            yield from value
        elif type(value) is dict:
            yield from value.values()


def _close(value: object) -> None:
    if type(value) is CoroutineType and inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
        value.close()
