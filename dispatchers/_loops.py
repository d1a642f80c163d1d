"""Running a coroutine to its end, under a time limit, from wherever this is called."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

__all__ = ["TimeLimitError", "limited", "loop_is_running", "run_coroutine"]

T = TypeVar("T")


class TimeLimitError(TimeoutError):
    """An async run was cancelled at its time limit."""


async def limited(work: Awaitable[T], seconds: float | None) -> T:
    """The result of `work`.

    Raises:
        TimeLimitError: It was cancelled after `seconds`.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError as exc:
        if limit.expired():
            raise TimeLimitError("the run was cancelled at its time limit") from exc
        raise


def loop_is_running() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_coroutine(work: Coroutine[Any, Any, T]) -> T:
    """Run to its end, on another thread if a loop is running in this one; waits for it."""
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
