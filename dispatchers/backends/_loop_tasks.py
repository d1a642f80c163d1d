"""The work of one event loop: its tasks and timers, and what was left when the loop ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from contextvars import ContextVar
from time import monotonic

from dispatchers._models.dead_letter import DeadLetterStore
from dispatchers._models.outcome import Action, Outcome
from dispatchers._runtime.log import say
from dispatchers._worker.runner import RunSettings, arun_envelope
from dispatchers.backends._job import Work, crashed, follow_up

__all__ = ["LoopWork", "work_here"]


work_here: ContextVar[Work | None] = ContextVar("dispatchers_asyncio_work", default=None)
"""The work that this code is part of: a wait for all work must not wait for that."""


class LoopWork:
    """The work of one dispatcher on one event loop; all but `expect` happens on the loop.

    Args:
        loop: The event loop.

        label: What to call the dispatcher in the log.

        settings: What the configuration says about runs.

        letters: The store of work that failed permanently.

        release: Called with each piece of work that is over.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        label: str,
        settings: RunSettings,
        letters: DeadLetterStore | None,
        release: Callable[[Work], None],
    ) -> None:
        self.loop = loop
        self.pending: set[Work] = set()
        self.ended = False
        self._label = label
        self._settings = settings
        self._letters = letters
        self._release = release
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[Work, asyncio.TimerHandle] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._draining: set[Work] = set()
        self._sentinel: AsyncGenerator[None] | None = None
        self._closing = False
        self._left = 0

    # Running.

    def expect(self, work: Work) -> None:
        """Count `work` from now on; `start` follows, perhaps from another thread."""
        self.pending.add(work)

    def start(self, work: Work, after: float) -> None:
        """Run `work` in `after` seconds."""
        if self._sentinel is None:
            self._notice_shutdown()
        if after > 0:
            work.due = monotonic() + after
            self._timers[work] = self.loop.call_later(after, self._begin, work)
        else:
            self._begin(work)

    def _begin(self, work: Work) -> None:
        self._timers.pop(work, None)
        # A copy for each attempt: a retry must not see what the first one has set.
        context = None if work.context is None else work.context.copy()
        task = self.loop.create_task(self._run(work), context=context)
        # Kept here, since the loop itself keeps only weak references to its tasks.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, work: Work) -> None:
        work_here.set(work)
        try:
            await self._settle(work, await self._outcome(work))
        except BaseException:  # the loop ends, or a Ctrl-C met the handler
            self._give_up(work)
            raise

    async def _outcome(self, work: Work) -> Outcome:
        try:
            return await arun_envelope(
                work.body,
                attempt=work.attempt,
                deliveries=work.deliveries,
                settings=self._settings,
                stopping=self._is_closing,
            )
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as exc:  # noqa: BLE001 - a task that exits must not end the loop
            return crashed(work, exc)

    async def _settle(self, work: Work, outcome: Outcome) -> None:
        after = await self._follow_up(work, outcome)
        if after is None:
            self._over(work)
        elif self._closing and (after > 0 or outcome.action is Action.RETURN):
            self._give_up(work)
        else:
            work.count(outcome)
            self.start(work, after)

    async def _follow_up(self, work: Work, outcome: Outcome) -> float | None:
        if self._letters is None or outcome.action is not Action.DEAD:
            return follow_up(work, outcome, None)
        # A store is synchronous: on the loop it would hold up everything else.
        return await asyncio.to_thread(follow_up, work, outcome, self._letters)

    def _is_closing(self) -> bool:
        return self._closing

    def _over(self, work: Work) -> None:
        self.pending.discard(work)
        self._release(work)
        self._wake()

    def _give_up(self, work: Work) -> None:
        if work in self.pending:
            self._left += 1
            self._over(work)

    def counted(self) -> tuple[list[Work], list[Work]]:
        """Return what waits for its time, and what runs; called from any thread."""
        delayed = list(self._timers)
        return delayed, list(set(self.pending).difference(delayed))

    # Draining.

    async def drained(self, work: Work | None) -> None:
        """Return when nothing is pending; `work`, which waits for that, waits for no such other."""
        if work is None:
            while self.pending:
                await self._change()
            return
        self._draining.add(work)
        self._wake()
        try:
            while not self.pending <= self._draining:
                await self._change()
        finally:
            self._draining.discard(work)

    async def _change(self) -> None:
        waiter = self.loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            # One that was cancelled is done, and removes itself later.
            if not waiter.done():
                waiter.set_result(None)

    async def finish(self, work: Work | None) -> None:
        """Start nothing that is not due, and wait for what runs."""
        self.close()
        await self.drained(work)

    def close(self) -> None:
        """Start nothing that is not due."""
        self._closing = True
        for work, timer in tuple(self._timers.items()):
            timer.cancel()
            self._give_up(work)
        self._timers.clear()

    def left(self, work: Work | None) -> int:
        """Return how much was left undone, and is told with this: it is counted once."""
        left = self._left + len(self.pending - {work})
        self._left = 0
        self.ended = True
        return left

    # The end of the loop.

    def _notice_shutdown(self) -> None:
        """Have the loop tell when it ends: it closes the async generators that began on it."""
        self._sentinel = self._until_shutdown()
        with suppress(StopIteration):
            # Begun by hand, up to its `yield`: the loop closes only generators that have begun.
            anext(self._sentinel).__await__().send(None)

    async def _until_shutdown(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self.report()

    def report(self) -> None:
        """Say once in the log what the loop left undone when it ended."""
        if self.ended:
            return
        for timer in self._timers.values():
            timer.cancel()
        if left := self.left(None):
            say(logging.ERROR, "%s: its event loop ended with %d undone", self._label, left)
        for work in tuple(self.pending):
            self._over(work)
