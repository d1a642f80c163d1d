"""`memory`: a queue in this process that is worked off by hand, or by a worker in threads.

The reference for authors of adapters, in three files: `_memory_broker.py` is the broker, this is
the adapter, `_memory_worker.py` is the worker. What every adapter does:

- `_send` hands an envelope to the broker, or says that the key is known (`DUPLICATE`);
- a worker claims what is due, and holds a *delivery*;
- `run_envelope` runs it and says what must follow, as an `Outcome`;
- `settle` does what follows: finish it, let it wait for its next attempt, or dead-letter it;
- `abandon` is what the broker does when a worker dies: the work is delivered once more.

In tests, time is yours::

    queue = MemoryDispatcher()
    send_welcome.options(dispatcher=queue, delay=timedelta(hours=1)).dispatch(user_id=42)
    assert queue.step() is None
    queue.advance(timedelta(hours=1))
    assert queue.step().ok
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta

from pydantic import Field

from dispatchers._dispatch.in_process import InProcessDispatcher
from dispatchers._dispatch.protocol import Sent
from dispatchers._dispatch.worker_protocol import Worker, WorkerOptions
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.dead_letter import DeadLetter, DeadLetterStore
from dispatchers._models.envelope import decode
from dispatchers._models.options import BackendOptions
from dispatchers._models.outcome import Action, Outcome, Reason
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchStatus
from dispatchers._models.stats import Stats
from dispatchers._runtime.clock import now
from dispatchers._runtime.fork import renew_after_fork
from dispatchers._stores.loading import count_dead, dead_letters
from dispatchers._stores.memory import MemoryDeadLetters
from dispatchers._worker.runner import run_envelope
from dispatchers._worker.settings import run_settings
from dispatchers._worker.settlement import settle
from dispatchers._worker.steps import left_undone
from dispatchers.backends._job import DEFAULT_QUEUE, Work
from dispatchers.backends._memory_broker import Delivery, MemoryQueue

__all__ = ["Delivery", "MemoryDispatcher", "MemoryOptions"]


class MemoryOptions(BackendOptions):
    """Options of `memory`."""

    capacity: int = Field(default=1_000_000, ge=1)
    """How much work may wait; beyond it the answer is `capacity`."""
    remember: int = Field(default=10_000, ge=0)
    """How many keys of finished work are known as duplicates; the oldest go first."""


class MemoryDispatcher(InProcessDispatcher):
    """Keeps work in memory until it is stepped through or a worker runs it.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under.

        clock: What time it is, aware UTC; what `advance` adds goes on top.

        settings: The options by keyword.
    """

    name = "memory"
    contract = 1
    capabilities = Capabilities(
        delay=True,
        priority=True,
        retries=True,
        deduplicate=True,
        queues=True,
        confirmed=True,
        dead_letters=True,
        stats=True,
    )
    # One after the other, which costs nothing here.
    stops_at_failure = True
    Options = MemoryOptions
    options: MemoryOptions

    def __init__(
        self,
        options: MemoryOptions | None = None,
        *,
        alias: str | None = None,
        clock: Callable[[], datetime] = now,
        **settings: object,
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self._clock = clock
        self._settings = run_settings(self.options)
        spec = self.options.dead_letters
        self._letters = MemoryDeadLetters() if spec is None else dead_letters(spec)
        self._queue = MemoryQueue(clock, self.options.remember)
        renew_after_fork(self)

    def _after_fork(self) -> None:
        """A child begins with an empty queue: the parent's work stays the parent's."""
        self._queue = MemoryQueue(self._clock, self.options.remember)

    # The producer's side.

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        del timeout
        queue = self._queue
        work = Work(request, body, self.queue_of(request) or DEFAULT_QUEUE)
        # One lock around question and answer: two threads may put the same key at once.
        with queue.changed:
            if known := queue.known(work):
                return Sent(known, DispatchStatus.DUPLICATE)
            if len(queue) >= self.options.capacity:
                raise RejectedError(
                    ErrorCategory.CAPACITY,
                    f"queue of {self.alias!r} is full: {self.options.capacity} waiting",
                )
            queue.put(work, request.due)
        return Sent(work.id)

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        del timeout
        configured = (self.options.queue or DEFAULT_QUEUE, *self.options.queues)
        return self._queue.counted(configured, count_dead(self._letters))

    # The worker's side.

    def claim(self, queues: Collection[str] = ()) -> Delivery | None:
        """Take the work that is due and first in rank.

        Args:
            queues: The queues to look at; none named are all.

        Returns:
            The delivery, for `run`, `settle` or `abandon`; None where nothing is due.
        """
        return self._queue.claim(queues)

    def run(self, delivery: Delivery, *, stopping: Callable[[], bool] | None = None) -> Outcome:
        """Run a delivery, and settle it by what became of it.

        What is no `Exception` ends a run as it would end a worker: the delivery is abandoned, and
        it goes on to the caller.
        """
        try:
            outcome = self._outcome(delivery.work, stopping)
        except BaseException:
            # KeyboardInterrupt and the like pass, and the work must not stay claimed.
            self.abandon(delivery)
            raise
        self.settle(delivery, outcome)
        return outcome

    def _outcome(self, work: Work, stopping: Callable[[], bool] | None) -> Outcome:
        if work.expires is not None and work.expires <= self.now:
            return left_undone(work.body, _expired(work))
        return run_envelope(
            work.body,
            attempt=work.attempt,
            deliveries=work.deliveries,
            settings=self._settings,
            stopping=stopping,
        )

    def is_late(self, delivery: Delivery) -> bool:
        """Tell whether a delivery has expired, by its own clock or the one that runs go by."""
        expires = delivery.work.expires
        return expires is not None and expires <= max(self.now, now())

    def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Do what follows from a run.

        Returns:
            False where the delivery is not this worker's any more: its result does not count.
        """
        # Before anything is stored: a late worker must not leave a dead letter of work that runs
        # again.
        if not self._queue.holds(delivery):
            return False
        settle(delivery, outcome, self._letters)
        return True

    def abandon(self, delivery: Delivery) -> bool:
        """Give a delivery up, as the death of its worker does: the work is delivered once more.

        Returns:
            False where the delivery is not this worker's any more.
        """
        return self._queue.abandon(delivery)

    def _worker(self, options: WorkerOptions) -> Worker:
        from ._memory_worker import MemoryWorker

        return MemoryWorker(self, options)

    # Stepping.

    def step(self, queues: Collection[str] = ()) -> Outcome | None:
        """Run the next work that is due; None where nothing is."""
        delivery = self.claim(queues)
        return None if delivery is None else self.run(delivery)

    def run_all(self, limit: int = 10_000, queues: Collection[str] = ()) -> list[Outcome]:
        """Run what is due, and what that dispatches, until nothing is due.

        Args:
            limit: At most so many runs: a task that dispatches itself has no end.

            queues: The queues to look at; none named are all.
        """
        outcomes: list[Outcome] = []
        while len(outcomes) < limit and (outcome := self.step(queues)) is not None:
            outcomes.append(outcome)
        return outcomes

    @property
    def now(self) -> datetime:
        """The time by which work is due or late, aware UTC."""
        return self._queue.now

    def advance(self, by: timedelta) -> None:
        """Let time pass for what waits here."""
        self._queue.advance(by)

    # Looking.

    @property
    def waiting(self) -> tuple[DispatchRequest, ...]:
        """Return what waits, queue by queue in running order; delayed work after the rest."""
        return tuple(decode(work.body) for work in self._queue)

    @property
    def dead(self) -> list[DeadLetter]:
        """Return the work that failed permanently, the newest first."""
        return self._letters.list()

    def forget(self, task: str | None = None, key: str | None = None) -> int:
        """Forget finished keys, so that their work does not count as a duplicate.

        Args:
            task: Only of the task of that registered name.

            key: Only this idempotency key, or request id.

        Returns:
            How many were forgotten.
        """
        return self._queue.forget(task, key)

    def _dead_letters(self) -> DeadLetterStore:
        return self._letters

    def _close(self, timeout: float) -> int:
        del timeout
        return len(self._queue) + self._queue.claimed


def _expired(work: Work) -> Outcome:
    """Late by the queue's own clock, which may be ahead of the one that `run_envelope` reads."""
    return Outcome(
        action=Action.DONE,
        reason=Reason.EXPIRED,
        attempt=work.attempt,
        task=work.task,
        request_id=work.id,
    )
