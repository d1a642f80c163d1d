"""Running blocking work on threads, from an event loop."""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._runtime.awaited_call import AwaitedCall
from dispatchers._runtime.guard import GuardTimeoutError
from dispatchers._runtime.loop_thread import Ended
from dispatchers._runtime.waiting import Waiting

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

from dispatchers._runtime.fork import notice_fork, renew_after_fork

__all__ = ["SLACK", "Threads", "begin_on_thread", "begun", "off_loop", "on_thread"]

T = TypeVar("T")


SLACK = 0.05
"""Seconds beyond the deadline in which a client that keeps it itself says how it ended."""


THREADS = 32
"""As many adispatch calls of synchronous clients are under way at once; more wait their turn."""


HANDLERS = min(32, (os.cpu_count() or 1) + 4)
"""As many sync handlers of an event loop run at once, the number of asyncio's own threads."""


REST = 0.05
"""Seconds that a thread waits for more work once it has none."""


class Job:
    """Work for a thread, until one begins it or its caller takes it back: only one can."""

    __slots__ = ("_work",)

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = [work]

    def take(self) -> Callable[[], object] | None:
        """Return the work, the first time."""
        try:
            return self._work.pop()
        except IndexError:
            return None


class Threads:
    """Threads that an event loop waits for, made on first use and again after a fork.

    The other pools have reasons of their own: `Guard` abandons threads that hang, and the `thread`
    backend drains its queue at the end.

    A thread that has done its work rests a moment: to wake it by a bare lock is half the cost of
    the executor's queue and future. No lock is held while other code runs.

    Args:
        most: Threads at once; more work waits its turn.

        name: The threads' prefix.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._parents: list[object] = []
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._executor: ThreadPoolExecutor | None = None
        self._waiting: deque[Job] = deque()
        self._resting: list[Waiting] = []

    def _after_fork(self) -> None:
        # Kept: destroying it would join threads that do not exist in this process.
        self._parents.append(self._executor)
        self._begin()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run it on the next thread that is free."""
        from concurrent.futures import ThreadPoolExecutor

        notice_fork()
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._most, self._name)
        return self._executor.submit(work)

    def begin(self, work: Callable[[], object]) -> Job:
        """Run it on the next thread that is free; what it raises is dropped.

        Raises:
            RuntimeError: No thread can be started any more, so it did not begin.
        """
        notice_fork()
        job = Job(work)
        self._waiting.append(job)
        try:
            resting = self._resting.pop()
        except IndexError:
            self._start(job)
        else:
            resting.wake()
        return job

    def _start(self, job: Job) -> None:
        try:
            self.submit(self._serve)
        except RuntimeError:
            if job.take() is not None:  # else a thread that was at work has begun it
                raise

    def _serve(self) -> None:
        """Work until nothing waits any more, and nothing comes for a moment."""
        me = Waiting()
        while True:
            while (work := self._next()) is not None:
                work()
                del work  # it may hold a request until the next comes
            if not self._rest(me):
                return

    def _next(self) -> Callable[[], object] | None:
        while self._waiting:
            try:
                work = self._waiting.popleft().take()
            except IndexError:  # another thread took the last
                break
            if work is not None:
                return work
        return None

    def _rest(self, me: Waiting) -> bool:
        """Wait for more; tell whether there may be some."""
        self._resting.append(me)
        if not self._waiting:
            me.sleep(REST)
        if me not in self._resting:  # it was taken from there by a caller that wakes it
            return True
        try:
            self._resting.remove(me)
        except ValueError:  # just now
            return True
        return bool(self._waiting)


_pool = Threads(THREADS, "dispatchers-adispatch")
_handlers = Threads(HANDLERS, "dispatchers-handler")


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

    if not cut:
        begun(run)
        return
    # Set before it begins: the thread that wakes waits until this one lets go of the interpreter.
    call.after(timeout, lambda: _overdue(call, job))
    try:
        job = begun(run)
    except BaseException:
        call.side.drop(call)
        raise


def _overdue(call: AwaitedCall[Any], job: Job) -> None:
    # What can be taken back has not begun: then the request was certainly not sent.
    if job.take() is not None:
        call.end(Ended(exception=_late()))
    else:
        # A client with its own timeout says more than "unknown": it gets a moment to do so.
        call.after(SLACK, lambda: call.end(Ended(exception=_no_answer())))


def _no_answer() -> GuardTimeoutError:
    return GuardTimeoutError("the call did not return within the deadline", started=True)


def begun(work: Callable[[], object], threads: Threads = _pool) -> Job:
    """Run it on the next of our threads that is free.

    Raises:
        RejectedError: None can be started any more.
    """
    try:
        return threads.begin(work)
    except RuntimeError as exc:
        closed = "no thread can be started: the interpreter is shutting down"
        raise RejectedError(ErrorCategory.CLOSED, closed) from exc


def _late() -> RejectedError:
    return RejectedError(ErrorCategory.TIMEOUT, "no thread was free within the deadline")


async def off_loop(work: Callable[..., T], *values: Any) -> T:
    """`work(*values)` on a thread, in the caller's context, to its end.

    Where the caller is cancelled, what has begun goes on, and what has not never begins.

    Raises:
        RejectedError: No thread can be started any more, so it did not begin.
    """
    call: AwaitedCall[T] = AwaitedCall()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            end = Ended(context.run(work, *values))
        except BaseException as exc:  # noqa: BLE001 - `result` raises it
            end = Ended(exception=exc)
        call.end_from_thread(end)

    job = begun(run, _handlers)
    try:
        end = await call.outcome()
    except BaseException:
        job.take()
        raise
    return end.result()
