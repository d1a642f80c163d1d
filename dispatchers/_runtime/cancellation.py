"""Running a coroutine to its end, under a time limit, from wherever this is called.

asyncio is imported once there is a call for it: a process that dispatches need not load it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from dispatchers._errors import is_a
from dispatchers._runtime.awaited_call import AwaitedCall, keep

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


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which goes on to its end if the caller is cancelled."""
    import asyncio

    task = asyncio.get_running_loop().create_task(work)
    keep(task)
    task.add_done_callback(_looked_at)
    return await asyncio.shield(task)


def _looked_at(task: asyncio.Future[Any]) -> None:
    """Look at the error, else asyncio logs that it was never retrieved."""
    if not task.cancelled():
        task.exception()


async def within(work: Coroutine[Any, Any, T], seconds: float | None) -> T:
    """The result of `work` as a task; beyond `seconds` it is cancelled, and not waited for.

    Raises:
        GuardTimeoutError: It was under way at the end, so that its effect is unknown.
    """
    call: AwaitedCall[T] = AwaitedCall()
    call.run(work, seconds)
    return (await call.outcome()).result()


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
