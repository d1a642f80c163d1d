"""`thread`: the task runs in this process, on one of a few threads, after the call has returned.

Work waits in a bounded queue in memory, so it does not survive the process. At the end of the
program, work that is due gets `exit_timeout` seconds, and anything unfinished is logged; a
handler that is running then is never cut. A forked child begins with an empty queue and threads of
its own: what waits in the parent is the parent's.

A synchronous task cannot be stopped at its time limit; it sees `current_run().should_stop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import copy_context
from time import monotonic

from pydantic import Field

from dispatchers._dispatch.in_process import InProcessDispatcher
from dispatchers._dispatch.protocol import Sent
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.options import BackendOptions
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchStatus
from dispatchers._models.stats import Stats
from dispatchers._runtime.clock import now
from dispatchers._runtime.fork import renew_after_fork
from dispatchers._stores.loading import count_dead
from dispatchers._worker.settings import run_settings
from dispatchers.backends._job import Work
from dispatchers.backends._thread_pool import Pool

__all__ = ["ThreadDispatcher", "ThreadOptions"]


class ThreadOptions(BackendOptions):
    """Options of `thread`."""

    workers: int = Field(default=4, ge=1, le=1024)
    """How many tasks run at once; threads are started when there is work for them."""
    capacity: int = Field(default=10_000, ge=1)
    """How much work may wait, delayed work included; beyond it the answer is `capacity`."""


class ThreadDispatcher(InProcessDispatcher):
    """Runs tasks on threads of this process: `ACCEPTED`, and lost if the process dies."""

    name = "thread"
    contract = 1
    capabilities = Capabilities(
        delay=True,
        priority=True,
        retries=True,
        deduplicate=True,
        confirmed=True,
        dead_letters=True,
        stats=True,
    )
    Options = ThreadOptions
    options: ThreadOptions

    def __init__(
        self, options: ThreadOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self._letters = self.letters  # opened now: a store that is misnamed is refused here
        self._settings = run_settings(self.options)
        self._pool = self._new_pool()
        renew_after_fork(self)

    def _new_pool(self) -> Pool:
        options = self.options
        return Pool(self.alias, options.workers, options.capacity, self._settings, self._letters)

    def _after_fork(self) -> None:
        # The old pool's threads do not exist here, and its work is the parent's.
        self._pool.abandon()
        self._pool = self._new_pool()

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        del timeout
        work = Work(request, body, self.queue_of(request) or "", copy_context())
        if known := self._pool.put(work, _due(request)):
            return Sent(known, DispatchStatus.DUPLICATE)
        return Sent(work.id)

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        del timeout
        return self._pool.counted(count_dead(self._letters))

    def _close(self, timeout: float) -> int:
        return self._pool.close(timeout)


def _due(request: DispatchRequest) -> float | None:
    """Return when it is due on the monotonic clock, which is never set back; None is at once."""
    if request.delay is None and request.eta is None:
        return None
    due = request.due
    wait = 0.0 if due is None else (due - now()).total_seconds()
    return monotonic() + wait if wait > 0 else None
