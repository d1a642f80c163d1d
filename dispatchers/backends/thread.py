"""`thread`: the task runs in this process, on one of a few threads, after the call has returned.

Work waits in a bounded queue in memory, so it does not survive the process. At the end of the
program, work that is due gets `exit_timeout` seconds, and what was left is said in the log; a
handler that is running then is never cut. A forked child begins with an empty queue and threads of
its own: what waits in the parent is the parent's.

A synchronous task cannot be stopped at its time limit; it sees `current_run().should_stop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import copy_context
from time import monotonic

from pydantic import Field

from dispatchers._capabilities import Capabilities
from dispatchers._contract import BaseDispatcher, Item, Sent
from dispatchers._dead import DeadLetterStore
from dispatchers._errors import ErrorCategory
from dispatchers._fork import renew_after_fork
from dispatchers._options import BackendOptions
from dispatchers._request import DispatchRequest, now
from dispatchers._response import DispatchStatus
from dispatchers._stores import dead_letters, run_settings

from ._pool import Pool
from ._work import Work

__all__ = ["ThreadDispatcher", "ThreadOptions"]


class ThreadOptions(BackendOptions):
    """Options of `thread`."""

    workers: int = Field(default=4, ge=1, le=1024)
    """How many tasks run at once; threads are started when there is work for them."""
    capacity: int = Field(default=10_000, ge=1)
    """How much work may wait, delayed work included; beyond it the answer is `capacity`."""


class ThreadDispatcher(BaseDispatcher):
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
    )
    Options = ThreadOptions
    options: ThreadOptions

    def __init__(
        self, options: ThreadOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        spec = self.options.dead_letters
        self._letters = None if spec is None else dead_letters(spec)
        self.capabilities = self.capabilities.model_copy(
            update={"dead_letters": self._letters is not None}
        )
        self._settings = run_settings(self.options)
        self._pool = self._new_pool()
        renew_after_fork(self)

    def _new_pool(self) -> Pool:
        options = self.options
        return Pool(self.alias, options.workers, options.capacity, self._settings, self._letters)

    def _after_fork(self) -> None:
        self._pool.abandon()
        self._pool = self._new_pool()

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        del timeout
        work = Work(request, body, self.queue_of(request) or "", copy_context())
        if self._pool.put(work, _due(request)):
            return Sent(work.id)
        return Sent(work.id, DispatchStatus.DUPLICATE)

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return self._send(request, body, timeout=timeout)

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        return self._send_many(items, timeout=timeout)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        del exc
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        del exc
        return False

    def _close(self, timeout: float) -> int:
        return self._pool.close(timeout)

    def _dead_letters(self) -> DeadLetterStore | None:
        return self._letters


def _due(request: DispatchRequest) -> float | None:
    """When it is due on the monotonic clock, which nobody sets back; None is at once."""
    if request.delay is None and request.eta is None:
        return None
    due = request.due
    wait = 0.0 if due is None else (due - now()).total_seconds()
    return monotonic() + wait if wait > 0 else None
