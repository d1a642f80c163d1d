"""Running a coroutine to its end, under a time limit, from wherever this is called.

asyncio is imported once there is a call for it: a process that dispatches need not load it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from dispatchers._errors import is_a
from dispatchers._runtime.guard import GuardTimeoutError

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "CUT",
    "TimeLimitError",
    "is_cancellation",
    "is_cancelled",
    "limited",
    "shielded",
    "within",
]

CUT = 0.1
"""Seconds beyond the deadline after which a client that does not keep it is left alone."""


# The event loop keeps only weak references to its tasks: without this set, a task that no
# caller awaits any more could be collected in the middle of a dispatch.
_tasks: set[asyncio.Future[Any]] = set()


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which goes on to its end if the caller is cancelled."""
    import asyncio

    return await asyncio.shield(_kept(work))


def _kept(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task for `work` that lives until it ends, and whose error has been seen."""
    import asyncio

    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Future[Any]) -> None:
    """Look at the error, else asyncio logs that it was never retrieved."""
    _tasks.discard(task)
    if not task.cancelled():
        task.exception()


async def within(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """The result of `work`; beyond `seconds` it is cancelled, and not waited for.

    Raises:
        GuardTimeoutError: It was under way at the end, so that its effect is unknown.
    """
    import asyncio

    # `asyncio.wait_for` would wait until the cancelled task has ended, so that a client that
    # swallows its cancellation could outlast the deadline.
    task = _kept(work)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if not done:
        task.cancel()
        raise GuardTimeoutError("the call was cut at the deadline", started=True)
    return task.result()


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
            result = await work
    except TimeoutError as exc:
        # A `TimeoutError` of the task's own code is an ordinary failure, not this limit.
        if limit.expired():
            raise TimeLimitError("the run was cancelled at its time limit") from exc
        raise
    if limit.expired():  # the work has swallowed its cancellation
        raise TimeLimitError("the run was cancelled at its time limit, and went on")
    return result


def is_cancellation(exc: BaseException) -> bool:
    """Tell whether `exc` says that something async was cancelled."""
    import asyncio

    return is_a(exc, asyncio.CancelledError)


def is_cancelled(exc: BaseException) -> bool:
    """Tell whether `exc` ends the task that runs here because it was cancelled itself.

    Its cleanup may have raised `exc` meanwhile.
    """
    import asyncio

    # The count alone does not tell: a task group that fails leaves it raised before Python 3.13.
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return False
    cause: BaseException | None = exc
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen and not is_cancellation(cause):
        seen.add(id(cause))
        cause = cause.__context__
    return cause is not None and is_cancellation(cause)
