"""The worker of `memory`, on `dispatchers.worker`: what it takes, and how it settles that."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from dispatchers._dispatch.worker_protocol import WorkerOptions
from dispatchers._models.dead_letter import DeadLetter
from dispatchers.backends._memory_broker import Delivery
from dispatchers.worker import BaseWorker, Work

if TYPE_CHECKING:
    from typing import Any as MemoryDispatcher

__all__ = ["MemoryWorker"]


class MemoryWorker(BaseWorker[Delivery]):
    """Runs the work of one `MemoryDispatcher` in `concurrency` threads."""

    # Also how long a clock given in code, which moves without a word, goes unnoticed.
    poll = 0.1

    def __init__(self, dispatcher: MemoryDispatcher, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options)
        self._memory = dispatcher
        self._woken = False

    def _take(self, wait: float) -> Work[Delivery] | None:
        until = monotonic() + wait
        while (found := self._claimed()) is None:
            left = until - monotonic()
            if left <= 0 or self._woken:
                return None
            self._memory._queue.wait(self.options.queues, left)
        return Work(found, found.body, found.attempt, found.deliveries, found.id, found.queue)

    def _claimed(self) -> Delivery | None:
        """Claim work that is due; what is too late on the way is settled without a run."""
        while (found := self._memory.claim(self.options.queues)) and self._memory.is_late(found):
            self._memory.run(found)
        return found  # type: ignore[no-any-return]

    def _wake(self) -> None:
        with self._memory._queue.changed:
            self._woken = True
            self._memory._queue.changed.notify_all()

    def _is_drained(self) -> bool:
        # Delayed work is waited for: no other process has this memory, and it would be lost.
        return bool(self._memory._queue.is_empty(self.options.queues))

    def _complete(self, work: Work[Delivery]) -> None:
        self._memory._queue.finish(work.handle, remember=True)

    def _retry(self, work: Work[Delivery], after: float, attempt: int) -> None:
        self._memory._queue.back(work.handle, after, attempt=True)

    def _give_back(self, work: Work[Delivery], after: float, deliveries: int) -> None:
        if deliveries < work.deliveries:
            self._memory._queue.back(work.handle, after)
        else:
            self._memory.abandon(work.handle)

    def _dead_letter(self, work: Work[Delivery], letter: DeadLetter) -> None:
        if self._memory.letters is None:
            self._memory._letters.add(letter)
        self._memory._queue.finish(work.handle, remember=False)
