"""Running a coroutine to its end, under a time limit, from wherever this is called.

asyncio is imported once there is a call for it: a process that dispatches need not load it.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ._errors import ErrorCategory, RejectedError

__all__ = [
    "TimeLimitError",
    "is_cancellation",
    "is_cancelled",
    "limited",
    "loop_is_running",
    "off_loop",
    "run_coroutine",
]

T = TypeVar("T")


class TimeLimitError(TimeoutError):
    """An async run was cancelled at its time limit."""


async def limited(work: Awaitable[T], seconds: float | None) -> T:
    """The result of `work`.

    Raises:
        TimeLimitError: It was cancelled after `seconds`.
    """
    import asyncio

    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError as exc:
        if limit.expired():
            raise TimeLimitError("the run was cancelled at its time limit") from exc
        raise


async def off_loop(work: Callable[..., T], *values: Any) -> T:
    """`work(*values)` on a thread, in the caller's context.

    Raises:
        RejectedError: No thread can be started any more, so it did not begin.
    """
    import asyncio

    context = contextvars.copy_context()

    def run() -> T:
        return context.run(work, *values)

    try:
        begun = asyncio.get_running_loop().run_in_executor(None, run)
    except RuntimeError as exc:
        closed = "no thread can be started: the event loop or the interpreter is shutting down"
        raise RejectedError(ErrorCategory.CLOSED, closed) from exc
    return await begun


def is_cancellation(exc: BaseException) -> bool:
    """Whether `exc` says that something async was cancelled."""
    import asyncio

    return isinstance(exc, asyncio.CancelledError)


def is_cancelled() -> bool:
    """Whether somebody cancelled the task that runs here, rather than that task something else."""
    import asyncio

    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def loop_is_running() -> bool:
    """Whether an event loop runs in this thread."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_coroutine(work: Coroutine[Any, Any, T]) -> T:
    """Run to its end, on another thread if a loop is running in this one; waits for it."""
    import asyncio

    if not loop_is_running():
        return asyncio.run(work)
    context = contextvars.copy_context()
    box: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            box.append(context.run(asyncio.run, work))
        except BaseException as exc:  # noqa: BLE001 - raised again by the caller
            errors.append(exc)

    thread = threading.Thread(target=run, name="dispatchers-coroutine")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return box[0]
