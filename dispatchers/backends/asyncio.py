"""`asyncio`: the task runs on the running event loop, after the call has returned.

Async tasks run on the loop, sync tasks on its threads, so that the loop is never blocked. Work
waits in memory and does not survive the loop: `await dispatcher.adrain()` before it ends; anything
unfinished is logged.

Where no loop runs in the calling thread, `no_loop` says what to do: `inline` runs the task to its
end in the call (`EXECUTED` or `FAILED`; work with a delay is refused there), `loop` hands it to the
loop given in code (`AsyncioDispatcher(loop=...)`), `error` refuses it.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from contextvars import copy_context
from time import monotonic
from typing import Literal

from pydantic import Field

from dispatchers._dispatch.in_process import InProcessDispatcher
from dispatchers._dispatch.protocol import Sent
from dispatchers._errors import ConfigurationError, ErrorCategory, RejectedError
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.options import BackendOptions
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchStatus
from dispatchers._models.stats import Stats, tallied
from dispatchers._runtime.clock import now
from dispatchers._runtime.fork import renew_after_fork
from dispatchers._stores.loading import count_dead
from dispatchers._worker.settings import run_settings
from dispatchers.backends._job import DEFAULT_QUEUE, Keys, Work
from dispatchers.backends._loop_tasks import LoopWork, work_here

from .inline import InlineDispatcher, InlineOptions, Waits

__all__ = ["AsyncioDispatcher", "AsyncioOptions"]

NoLoop = Literal["inline", "loop", "error"]


class AsyncioOptions(BackendOptions):
    """Options of `asyncio`."""

    capacity: int = Field(default=10_000, ge=1)
    """How much work may wait or run; beyond it the answer is `capacity`."""
    no_loop: NoLoop | None = None
    """Where no loop runs in the thread: `inline`, `loop` (the one given in code) or `error`."""
    inline_retries: Waits = "sleep"
    """With `no_loop = "inline"`: `sleep` through back-offs, try again `immediate`, or `never`."""


class AsyncioDispatcher(InProcessDispatcher):
    """Runs tasks on the running event loop: `ACCEPTED`, and lost if the loop ends before.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under.

        loop: Where work goes that is dispatched in threads without a running loop. Not owned,
            never closed.

        settings: The options by keyword.

    Raises:
        ConfigurationError: An option does not fit, or `no_loop` asks for a loop and none is given.
    """

    name = "asyncio"
    contract = 1
    capabilities = Capabilities(
        delay=True, retries=True, deduplicate=True, confirmed=True, dead_letters=True, stats=True
    )
    Options = AsyncioOptions
    options: AsyncioOptions

    def __init__(
        self,
        options: AsyncioOptions | None = None,
        *,
        alias: str | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        **settings: object,
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self._loop = loop
        self._no_loop: NoLoop = self.options.no_loop or ("inline" if loop is None else "loop")
        if self._no_loop == "loop" and loop is None:
            raise ConfigurationError(
                "AsyncioDispatcher: no_loop = 'loop' needs a loop, which only code can give: "
                "AsyncioDispatcher(loop=...); or choose 'inline' or 'error'"
            )
        self._letters = self.letters  # opened now: a store that is misnamed is refused here
        self._settings = run_settings(self.options)
        self._inline = InlineDispatcher(_for_inline(self.options), alias=self.alias)
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._keys = Keys()
        self._loops: dict[asyncio.AbstractEventLoop, LoopWork] = {}
        # Also when the dispatcher is dropped without `close`: what was left is logged.
        weakref.finalize(self, _sweep, self._loops)

    def _after_fork(self) -> None:
        """A child begins with nothing: loops, and the work on them, stay the parent's."""
        # A loop's selector is shared with the parent: used by both, each would take the other's
        # events.
        self._loop = None
        self._begin()

    # Handing over.

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        work = Work(request, body, self.queue_of(request) or "", copy_context())
        loop = _running_loop()
        if loop is None and self._no_loop == "inline":
            return self._in_the_call(request, work, timeout)
        target = loop or self._given_loop()
        if known := self._known(work):
            return Sent(known, DispatchStatus.DUPLICATE)
        try:
            self._hand_over(work, target, _wait(request), here=loop is not None)
        except BaseException:
            self._release(work)
            raise
        return Sent(work.id)

    def _known(self, work: Work) -> str | None:
        """Return the id of work that has the key, which else is this work's from now on."""
        with self._lock:
            if known := self._keys.known(work):
                return known
            if len(self._keys) >= self.options.capacity:
                raise RejectedError(
                    ErrorCategory.CAPACITY,
                    f"{self.alias!r} is full: {self.options.capacity} wait or run",
                )
            self._keys.add(work)
            return None

    def _release(self, work: Work) -> None:
        self._keys.discard(work.key)

    def _hand_over(
        self, work: Work, loop: asyncio.AbstractEventLoop, wait: float, *, here: bool
    ) -> None:
        lane = self._work_of(loop)
        # Counted before the loop has it: a drain in between must wait for it.
        lane.expect(work)
        try:
            if here:
                lane.start(work, wait)
            else:
                # A loop is not thread-safe: the work is started by the loop itself.
                loop.call_soon_threadsafe(lane.start, work, wait)
        except RuntimeError as exc:
            lane.pending.discard(work)
            raise RejectedError(ErrorCategory.CLOSED, "the event loop is closed") from exc

    def _work_of(self, loop: asyncio.AbstractEventLoop) -> LoopWork:
        lane = self._loops.get(loop)
        if lane is None:
            with self._lock:
                _sweep(self._loops)
                # Asked again under the lock: another thread may have made it meanwhile.
                lane = self._loops.get(loop) or self._new_lane(loop)
        if lane.ended:
            raise RejectedError(ErrorCategory.CLOSED, "the event loop is shutting down")
        return lane

    def _new_lane(self, loop: asyncio.AbstractEventLoop) -> LoopWork:
        label = f"{self.alias!r} (asyncio)"
        lane = LoopWork(loop, label, self._settings, self._letters, self._release)
        self._loops[loop] = lane
        return lane

    def _given_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RejectedError(
                ErrorCategory.CONFIGURATION,
                f"no event loop runs in this thread, and {self.alias!r} has none to hand work to: "
                "dispatch from async code, or choose another no_loop than "
                f"{self._no_loop!r}",
            )
        return self._loop

    def _in_the_call(self, request: DispatchRequest, work: Work, timeout: float) -> Sent:
        if _wait(request) > 0:
            raise RejectedError(
                ErrorCategory.UNSUPPORTED,
                "no event loop runs in this thread, so that the task would run in the call, "
                "which cannot be delayed: dispatch from async code, or give a loop",
            )
        if known := self._known(work):
            return Sent(known, DispatchStatus.DUPLICATE)
        try:
            return self._inline._send(request, work.body, timeout=timeout)
        finally:
            self._release(work)

    # Finishing.

    async def adrain(self, timeout: float | None = None) -> int:
        """Wait for all work on the running loop, delayed work and later attempts included.

        A handler that drains does not wait for itself.

        Args:
            timeout: Seconds; None means no limit.

        Returns:
            How much is still undone.
        """
        lane = self._loops.get(asyncio.get_running_loop())
        if lane is None:
            return 0
        work = work_here.get()
        try:
            async with asyncio.timeout(timeout):
                await lane.drained(work)
        except TimeoutError:
            pass
        return len(lane.pending - {work})

    def _close(self, timeout: float) -> int:
        """Wait for loops in other threads; on this thread's own, what runs goes on, and counts."""
        until = monotonic() + timeout
        work = work_here.get()
        lanes = [lane for lane in tuple(self._loops.values()) if not lane.ended]
        waits = [wait for lane in lanes if (wait := _finishing(lane, work)) is not None]
        for wait in waits:
            _waited(wait, until - monotonic())
        return sum(lane.left(work) for lane in lanes)

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        """Count the work on every loop: nothing that is due waits, for a loop starts it at once."""
        del timeout
        lanes = [lane.counted() for lane in tuple(self._loops.values()) if not lane.ended]
        return tallied(
            ((work.queue or DEFAULT_QUEUE, work.due) for delayed, _ in lanes for work in delayed),
            [work.queue or DEFAULT_QUEUE for _, running in lanes for work in running],
            now=monotonic(),
            dead=count_dead(self._letters),
            queues=(DEFAULT_QUEUE,),
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _wait(request: DispatchRequest) -> float:
    """Seconds until it is due."""
    due = request.due
    return 0.0 if due is None else max(0.0, (due - now()).total_seconds())


def _for_inline(options: AsyncioOptions) -> InlineOptions:
    shared = {name: getattr(options, name) for name in BackendOptions.model_fields}
    return InlineOptions(**shared, retries=options.inline_retries)


def _sweep(loops: dict[asyncio.AbstractEventLoop, LoopWork]) -> None:
    """Forget loops that were closed, and say what they left."""
    for loop, lane in tuple(loops.items()):
        if loop.is_closed():
            lane.report()
            loops.pop(loop, None)


def _finishing(lane: LoopWork, work: Work | None) -> Future[None] | None:
    """The end of what runs on a loop of another thread; None where it cannot be waited for."""
    # Waiting for the loop of this very thread would never end.
    if lane.loop is _running_loop() or not lane.loop.is_running():
        lane.close()
        return None
    return asyncio.run_coroutine_threadsafe(lane.finish(work), lane.loop)


def _waited(future: Future[None], timeout: float) -> None:
    try:
        future.result(max(0.0, timeout))
    except (TimeoutError, asyncio.CancelledError):
        future.cancel()
