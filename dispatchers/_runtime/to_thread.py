"""Running blocking work on threads, from an event loop."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._runtime.awaited_call import AwaitedCall
from dispatchers._runtime.guard import GuardTimeoutError
from dispatchers._runtime.loop_thread import Ended

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

from dispatchers._runtime.fork import notice_fork, renew_after_fork

__all__ = ["SLACK", "Threads", "begin_on_thread", "off_loop", "on_thread", "submitted"]

T = TypeVar("T")


SLACK = 0.05
"""Seconds beyond the deadline in which a client that keeps it itself says how it ended."""


THREADS = 32
"""As many adispatch calls of synchronous clients are under way at once; more wait their turn."""


class Threads:
    """Threads that an event loop waits for, made on first use and again after a fork.

    The other pools have reasons of their own: `Guard` abandons threads that hang, and the `thread`
    backend drains its queue at the end. asyncio's own executor is left to handlers.

    Args:
        most: Threads at once; more work waits its turn.

        name: The threads' prefix.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._lock = threading.RLock()
        self._executor: ThreadPoolExecutor | None = None
        self._parents: list[object] = []
        renew_after_fork(self)

    def _after_fork(self) -> None:
        # Kept: destroying it would join threads that do not exist in this process.
        self._parents.append(self._executor)
        self._lock, self._executor = threading.RLock(), None

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run it on the next thread that is free."""
        from concurrent.futures import ThreadPoolExecutor

        notice_fork()
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._most, self._name)
        return self._executor.submit(work)


_pool = Threads(THREADS, "dispatchers-adispatch")


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
    call: AwaitedCall[T] = AwaitedCall()
    begin_on_thread(call, work, timeout=timeout, cut=cut)
    return (await call.outcome()).result()


def begin_on_thread(
    call: AwaitedCall[T], work: Callable[[float], T], *, timeout: float, cut: bool
) -> None:
    """Begin what `on_thread` waits for; `call` is told how it ended."""
    until = monotonic() + timeout
    context = contextvars.copy_context()

    def run() -> None:
        # Measured on the thread: the wait for a free one counts against the deadline.
        left = until - monotonic()
        if left <= 0 and cut:
            call.end_from_thread(Ended(exception=_late()))
            return
        try:
            end = Ended(context.run(work, left))
        except BaseException as exc:  # noqa: BLE001 - `result` raises it
            end = Ended(exception=exc)
        call.end_from_thread(end)

    future = submitted(run)
    if cut:
        call.after(timeout, lambda: _overdue(call, future))


def _overdue(call: AwaitedCall[Any], future: Future[None]) -> None:
    # A future that can be cancelled has not begun: then the request was certainly not sent.
    if future.cancel():
        call.end(Ended(exception=_late()))
    else:
        # A client with its own timeout says more than "unknown": it gets a moment to do so.
        call.after(SLACK, lambda: call.end(Ended(exception=_no_answer())))


def _no_answer() -> GuardTimeoutError:
    return GuardTimeoutError("the call did not return within the deadline", started=True)


def submitted(work: Callable[[], T]) -> Future[T]:
    """Run it on the next of our threads that is free.

    Raises:
        RejectedError: None can be started any more.
    """
    try:
        return _pool.submit(work)
    except RuntimeError as exc:
        closed = "no thread can be started: the interpreter is shutting down"
        raise RejectedError(ErrorCategory.CLOSED, closed) from exc


def _late() -> RejectedError:
    return RejectedError(ErrorCategory.TIMEOUT, "no thread was free within the deadline")


async def off_loop(work: Callable[..., T], *values: Any) -> T:
    """`work(*values)` on a thread, in the caller's context.

    Raises:
        RejectedError: No thread can be started any more, so it did not begin.
    """
    import asyncio

    context = contextvars.copy_context()

    def run() -> T:
        return context.run(work, *values)

    loop: Any = asyncio.get_running_loop()
    before = getattr(loop, "_default_executor", None)
    try:
        begun = loop.run_in_executor(None, run)
    except RuntimeError as exc:
        # `asyncio.run` would start a thread to end the executor that was made in vain, and raise.
        if before is None and hasattr(loop, "_default_executor"):
            loop._default_executor = None
        closed = "no thread can be started: the event loop or the interpreter is shutting down"
        raise RejectedError(ErrorCategory.CLOSED, closed) from exc
    result: T = await begun
    return result
