"""Event loops on threads: one for asynchronous clients, and one for each thread with runs."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future, ThreadPoolExecutor

from dispatchers._runtime.fork import notice_fork, renew_after_fork

__all__ = ["BridgeLoop", "Ended", "ended", "loop_is_running", "run_coroutine"]

T = TypeVar("T")


class Ended(NamedTuple, Generic[T]):
    """End of a coroutine, as a future carries it.

    Futures look at an exception before they are done: one whose own code raises then would leave
    them waiting for ever, one that is false would be none, `KeyboardInterrupt` would end the loop.
    """

    value: T | None = None
    exception: BaseException | None = None

    def result(self) -> T:
        """Return what the coroutine returned, or raise what it raised."""
        if self.exception is not None:
            raise self.exception
        return cast("T", self.value)


async def ended(work: Coroutine[Any, Any, T]) -> Ended[T]:
    """Await to its end, whatever that is."""
    try:
        return Ended(await work)
    except BaseException as exc:  # noqa: BLE001 - `result` raises it
        return Ended(exception=exc)


class BridgeLoop:
    """One event loop on a thread of its own, for clients that are asyncio only."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._parents: list[object] = []
        renew_after_fork(self)

    def _after_fork(self) -> None:
        """The parent's loop is kept, unused."""
        self._parents.append(self._loop)
        self._lock, self._loop = threading.RLock(), None

    @property
    def is_started(self) -> bool:
        """Tell whether this process has run anything on the loop."""
        notice_fork()
        return self._loop is not None

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `work` on the loop from any thread; where that fails it is closed."""
        try:
            import asyncio

            notice_fork()
            # Thread-safe hand-over: `create_task` may be called on the loop's own thread only.
            return asyncio.run_coroutine_threadsafe(work, self._running())
        except BaseException:
            work.close()  # it would warn that it was never awaited
            raise

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
    # A loop holds file descriptors, and without its thread it would never be closed.
    except BaseException:
        loop.close()
        raise
    return loop


bridge = BridgeLoop()


def loop_is_running() -> bool:
    """Tell whether an event loop runs in this thread."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _KeptLoop:
    """The event loop on which one thread runs its async tasks, one after the other.

    It stays open between runs: a client that is bound to its loop serves the next run too.
    """

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.new_event_loop()

    def run(self, work: Coroutine[Any, Any, T]) -> Ended[T]:
        """Run to its end, in the caller's context."""
        # A task of its own, so that it can be cancelled if a signal's exception leaves the loop.
        task = self._loop.create_task(ended(work), context=contextvars.copy_context())
        try:
            return self._loop.run_until_complete(task)
        finally:
            self._end(task)  # which a signal's exception may have left in the midst
            work.close()  # or before it began

    def _end(self, *tasks: asyncio.Task[Any]) -> None:
        # All are cancelled before one is awaited: they may wait for each other.
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        for task in left:
            with contextlib.suppress(BaseException):
                self._loop.run_until_complete(task)

    def close(self) -> None:
        """Cancel what still runs on it, and close it."""
        import asyncio

        if not self._loop.is_closed():
            with contextlib.suppress(Exception):
                self._end(*asyncio.all_tasks(self._loop))
                ending = self._loop.shutdown_asyncgens()
                try:
                    self._loop.run_until_complete(ending)
                finally:
                    ending.close()  # not begun where another loop is running in this thread
            self._loop.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the end of its thread
            self.close()


class _Threads(threading.local):
    """The loop of each thread, and the helper of one in which another loop is running."""

    pid = 0
    loop: _KeptLoop | None = None
    helper: ThreadPoolExecutor | None = None


_threads = _Threads()


_parents: list[object] = []
"""Loops of a parent process, never closed here: their selectors are the parent's as well."""


def run_coroutine(work: Coroutine[Any, Any, T]) -> T:
    """Run to its end on the loop of this thread; where one is running here, on a helper's."""
    return _run(work).result()


def _run(work: Coroutine[Any, Any, T]) -> Ended[T]:
    if loop_is_running():
        # asyncio refuses a second loop on a thread that runs one, hence another thread.
        context = contextvars.copy_context()
        helped: Callable[[], Ended[T]] = functools.partial(_run, work)
        return _helper().submit(lambda: context.run(helped)).result()
    mine = _of_this_process()
    if mine.loop is None:
        mine.loop = _KeptLoop()
        # Thread-local objects of the main thread are not destroyed before the interpreter ends.
        if threading.current_thread() is threading.main_thread():
            atexit.register(mine.loop.close)
    return mine.loop.run(work)


def _helper() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    mine = _of_this_process()
    if mine.helper is None:
        mine.helper = ThreadPoolExecutor(1, "dispatchers-coroutine")
    return mine.helper


def _of_this_process() -> _Threads:
    if _threads.pid != os.getpid():
        _parents.extend((_threads.loop, _threads.helper))
        _threads.pid, _threads.loop, _threads.helper = os.getpid(), None, None
    return _threads
