"""One call that a coroutine waits for, within a time limit: on a thread, or as a task.

A caller that is cancelled stops no call. It leaves an heir, who is told how the call ended.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dispatchers._runtime.guard import GuardTimeoutError
from dispatchers._runtime.loop_side import side_of
from dispatchers._runtime.loop_thread import Ended, ended

if TYPE_CHECKING:
    import asyncio

__all__ = ["AwaitedCall", "keep", "running_loop"]

T = TypeVar("T")

Heir = Callable[[Ended[Any]], object]


# The event loop keeps only weak references to its tasks: without this set, a task that no
# caller awaits any more could be collected in the middle of a dispatch.
_tasks: set[asyncio.Future[Any]] = set()


def keep(task: asyncio.Task[Any]) -> None:
    """Keep a task alive until it ends."""
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of this thread.

    Raises:
        RuntimeError: No event loop of asyncio runs here.
    """
    import asyncio

    return asyncio.get_running_loop()


class AwaitedCall(Generic[T]):
    """The end of one call, as a coroutine waits for it. Of the loop that it is made on.

    Raises:
        RuntimeError: No event loop of asyncio runs here.
    """

    __slots__ = ("_ended", "_future", "_heir", "loop", "side")

    def __init__(self) -> None:
        self.loop = running_loop()
        self._future: asyncio.Future[Ended[T]] = self.loop.create_future()
        self.side = side_of(self.loop)
        self._ended: Ended[T] | None = None
        self._heir: Heir | None = None

    async def outcome(self, heir: Heir | None = None) -> Ended[T]:
        """Return how the call ended.

        Args:
            heir: Called with that instead, on the loop and in the caller's context, if the caller
                is cancelled meanwhile.
        """
        try:
            return await self._future
        except BaseException:  # cancelled, or closed with its loop
            if heir is not None:
                self._leave_to(heir)
            raise

    def _leave_to(self, heir: Heir) -> None:
        if self._ended is not None:
            heir(self._ended)
            return
        context = contextvars.copy_context()
        self._heir = lambda end: context.run(heir, end)

    def end(self, end: Ended[T]) -> None:
        """Say how the call ended, on its loop; what is said later does not count."""
        if self._ended is not None:
            return
        self._ended = end
        self.side.drop(self)
        if self._heir is not None:
            self._heir(end)
        elif not self._future.done():  # done, and without an heir: cancelled just now
            self._future.set_result(end)

    def end_from_thread(self, end: Ended[T]) -> None:
        """Say how the call ended, from any thread."""
        try:
            self.side.post(self.end, end)
        except RuntimeError:  # the loop is closed: only an heir is left to be told
            self.end_without_loop(end)

    def end_without_loop(self, end: Ended[T]) -> None:
        """Tell the heir; the loop was closed before the call ended."""
        if self._ended is None:
            self._ended = end
            self.side.drop(self)  # which holds the loop through it
            if self._heir is not None:
                self._heir(end)

    @property
    def is_over(self) -> bool:
        """Tell whether it has ended, or was given up."""
        return self._ended is not None

    def after(self, seconds: float, then: Callable[[], object]) -> None:
        """Call `then` on the loop in so many seconds, in place of what was set before."""
        self.side.limit(self, seconds, then)

    def run(self, work: Coroutine[Any, Any, T], seconds: float | None) -> None:
        """Run `work` as a task; beyond so many seconds it is cancelled, and not waited for."""
        task = self.loop.create_task(ended(work))
        keep(task)
        task.add_done_callback(self._task_ended)
        if seconds is not None:
            self.after(seconds, lambda: self._cut(task))

    def _task_ended(self, task: asyncio.Task[Ended[T]]) -> None:
        if task.cancelled():  # before it began
            import asyncio

            self.end(Ended(exception=asyncio.CancelledError()))
        else:
            self.end(task.result())

    def _cut(self, task: asyncio.Task[Any]) -> None:
        # It is not waited for: a client that swallows its cancellation would outlast the deadline.
        task.cancel()
        late = GuardTimeoutError("the call was cut at the deadline", started=True)
        self.end(Ended(exception=late))
