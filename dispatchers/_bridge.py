"""From the event loop to threads and back."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

from ._errors import ErrorCategory, RejectedError

__all__ = ["BridgeLoop", "on_thread", "shielded"]

T = TypeVar("T")
THREADS = 32
"""As many adispatch calls of synchronous clients are under way at once; more wait their turn."""

_tasks: set[asyncio.Task[Any]] = set()


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which goes on to its end if the caller is cancelled."""
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return await asyncio.shield(task)


class _Pool:
    """The threads that serve `adispatch`, made on first use and again after a fork."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, work: Callable[[], T]) -> Future[T]:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(THREADS, "dispatchers-adispatch")
        return self._executor.submit(work)


_pool = _Pool()


async def on_thread(work: Callable[[float], T], *, timeout: float) -> T:
    """`work(seconds left)` on a thread of ours, with the caller's context.

    Raises:
        RejectedError: No thread was free in time, so nothing was sent.
    """
    until = monotonic() + timeout
    context = contextvars.copy_context()

    def run() -> T:
        left = until - monotonic()
        if left <= 0:
            raise _late()
        return context.run(work, left)

    future = _pool.submit(run)
    done, _ = await asyncio.wait([asyncio.wrap_future(future)], timeout=timeout)
    if not done and future.cancel():
        raise _late()
    return await asyncio.wrap_future(future)


def _late() -> RejectedError:
    return RejectedError(ErrorCategory.TIMEOUT, "no thread was free within the deadline")


class BridgeLoop:
    """One event loop on a thread of its own, for clients that are asyncio only."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `work` on the loop from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self._running())

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="dispatchers-loop", daemon=True
                ).start()
            return self._loop


bridge = BridgeLoop()


def _fresh_in_child() -> None:
    _pool.__init__()  # type: ignore[misc]
    bridge.__init__()  # type: ignore[misc]
    _tasks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_in_child)
