"""From the event loop to threads and back; asyncio is imported once there is a call for it."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from ._errors import ErrorCategory, RejectedError
from ._guard import GuardTimeoutError

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["CUT", "BridgeLoop", "on_thread", "shielded", "within"]

T = TypeVar("T")
SLACK = 0.05
"""Seconds beyond the deadline in which a client that keeps it itself says how it ended."""
CUT = 0.1
"""Seconds beyond the deadline after which nobody waits for a client that does not."""
THREADS = 32
"""As many adispatch calls of synchronous clients are under way at once; more wait their turn."""

_tasks: set[asyncio.Future[Any]] = set()


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which goes on to its end if the caller is cancelled."""
    import asyncio

    return await asyncio.shield(_kept(work))


def _kept(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task for `work` that lives until it ends, and whose error somebody has seen."""
    import asyncio

    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Future[Any]) -> None:
    """Look at the error, else asyncio logs that nobody did."""
    _tasks.discard(task)
    if not task.cancelled():
        task.exception()


async def within(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """The result of `work`; beyond `seconds` it is cancelled, and not waited for.

    Raises:
        GuardTimeoutError: It was under way at the end, so that its effect is unknown.
    """
    import asyncio

    task = _kept(work)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if not done:
        task.cancel()
        raise GuardTimeoutError("the call was cut at the deadline", started=True)
    return task.result()


class _Pool:
    """The threads that serve `adispatch`, made on first use and again after a fork."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, work: Callable[[], T]) -> Future[T]:
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(THREADS, "dispatchers-adispatch")
        return self._executor.submit(work)


_pool = _Pool()


async def on_thread(work: Callable[[float], T], *, timeout: float, cut: bool = True) -> T:
    """`work(seconds left)` on a thread of ours, with the caller's context.

    Args:
        work: What blocks.

        timeout: Seconds.

        cut: Give up waiting then; otherwise what has begun is waited for.

    Raises:
        RejectedError: No thread was free in time, so nothing was sent.

        GuardTimeoutError: It had begun and did not return in time.
    """
    import asyncio

    until = monotonic() + timeout
    context = contextvars.copy_context()

    def run() -> T:
        left = until - monotonic()
        if left <= 0 and cut:
            raise _late()
        try:
            return context.run(work, left)
        except StopIteration as exc:
            raise RuntimeError("the call raised StopIteration") from exc  # no future can carry it

    future = _submitted(run)
    waiting = asyncio.wrap_future(future)
    waiting.add_done_callback(_ended)
    done, _ = await asyncio.wait([waiting], timeout=timeout if cut else None)
    if not done and future.cancel():
        raise _late()
    if not done and not (await asyncio.wait([waiting], timeout=SLACK))[0]:
        raise GuardTimeoutError("the call did not return within the deadline", started=True)
    return waiting.result()


def _submitted(work: Callable[[], T]) -> Future[T]:
    try:
        return _pool.submit(work)
    except RuntimeError as exc:
        closed = "no thread can be started: the interpreter is shutting down"
        raise RejectedError(ErrorCategory.CLOSED, closed) from exc


def _late() -> RejectedError:
    return RejectedError(ErrorCategory.TIMEOUT, "no thread was free within the deadline")


class BridgeLoop:
    """One event loop on a thread of its own, for clients that are asyncio only."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `work` on the loop from any thread."""
        import asyncio

        return asyncio.run_coroutine_threadsafe(work, self._running())

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                self._loop = _started()
            return self._loop


def _started() -> asyncio.AbstractEventLoop:
    import asyncio

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="dispatchers-loop", daemon=True)
    try:
        thread.start()
    except BaseException:
        loop.close()
        raise
    return loop


bridge = BridgeLoop()
_inherited: list[object] = []


def _fresh_in_child() -> None:
    """The parent's are kept, unused: their destructors would speak of what is not the child's."""
    _inherited.extend((bridge._loop, _pool._executor, *_tasks))
    _pool.__init__()  # type: ignore[misc]
    bridge.__init__()  # type: ignore[misc]
    _tasks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_in_child)
