"""The broker behind `memory`: what a real one does, in its plainest form.

Work waits in queues, by priority and then in order, until it is due. A worker claims it and holds a
*delivery*. While it holds it, no other gets the work; it ends by finishing it, by handing it
back, or by being given up, after which the work is delivered once more and what the late worker
says of its delivery does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from threading import Condition, RLock

from dispatchers._models.dead_letter import DeadLetter
from dispatchers._models.envelope import decode
from dispatchers._models.outcome import Outcome, Reason
from dispatchers._models.request import DispatchRequest
from dispatchers._models.stats import Stats, tallied
from dispatchers._worker.settlement import Delivery as BaseDelivery
from dispatchers.backends._job import Keys, Work
from dispatchers.backends._priority_queue import Backlog

__all__ = ["Delivery", "MemoryQueue"]


class Delivery(BaseDelivery):
    """Work in the hands of a worker; a later delivery of the same work is another object."""

    def __init__(self, work: Work, broker: MemoryQueue) -> None:
        self.work = work
        self._broker = broker
        self.body, self.id, self.task, self.queue = work.body, work.id, work.task, work.queue
        self.count()

    def count(self) -> None:
        """Show the counts of the work, which change when it goes back."""
        self.attempt, self.deliveries = self.work.attempt, self.work.deliveries

    @property
    def request(self) -> DispatchRequest:
        """Return the request that was dispatched."""
        return decode(self.work.body)

    def complete(self, outcome: Outcome) -> None:
        """Finish it; its key is remembered, unless nothing ran."""
        self._broker.finish(self, remember=outcome.reason is not Reason.EXPIRED)

    def retry(self, outcome: Outcome) -> None:
        """Let it wait for its next attempt."""
        self._broker.back(self, outcome.after, attempt=True)
        self.count()

    def give_back(self, after: float) -> None:
        """Let it wait."""
        self._broker.back(self, after)

    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        """Finish it; its key is free again (C10)."""
        self._broker.finish(self, remember=False)


class MemoryQueue:
    """Several queues in memory, and a clock that can be put forward.

    Args:
        clock: What time it is, aware UTC.

        remember: How many keys of finished work are known as duplicates.
    """

    def __init__(self, clock: Callable[[], datetime], remember: int) -> None:
        # Re-entrant: a finalizer that runs under the lock may dispatch.
        self.changed = Condition(RLock())
        self._clock = clock
        self._ahead = timedelta()
        self._remember = remember
        self._queues: dict[str, Backlog] = {}
        self._claimed: set[Delivery] = set()
        self._live = Keys()
        self._finished = Keys()

    @property
    def now(self) -> datetime:
        """The time by which work is due or late, aware UTC."""
        return self._clock() + self._ahead

    def advance(self, by: timedelta) -> None:
        """Put the clock forward."""
        with self.changed:
            self._ahead += by
            self.changed.notify_all()

    def __len__(self) -> int:
        """Return how much waits, delayed work included."""
        # A copy, as it is also asked without the lock.
        return sum(len(backlog) for backlog in tuple(self._queues.values()))

    def __iter__(self) -> Iterator[Work]:
        """Return what waits, queue by queue in the order it would run."""
        with self.changed:
            # A copy: the caller walks through it without the lock.
            return iter([work for backlog in self._queues.values() for work in backlog])

    @property
    def claimed(self) -> int:
        """Return how much is in the hands of workers."""
        return len(self._claimed)

    def known(self, work: Work) -> str | None:
        """Return the id of work under its key that waits, runs, or is remembered as finished.

        Raises:
            RejectedError: It is known for other arguments.
        """
        return self._live.known(work) or self._finished.known(work)

    def put(self, work: Work, due: datetime | None) -> None:
        """Let new work wait."""
        with self.changed:
            self._live.add(work)
            self._wait(work, due)

    def _wait(self, work: Work, due: datetime | None) -> None:
        backlog = self._queues.setdefault(work.queue, Backlog())
        work.due = (due or self.now).timestamp()
        backlog.add(work, None if due is None else work.due)
        self.changed.notify()

    def claim(self, queues: Collection[str] = ()) -> Delivery | None:
        """Take what is due and first in rank, from the queues named or from all."""
        with self.changed:
            ready = self._ready(queues)
            work = min(ready)[1].pop() if ready else None
            if work is None:
                return None
            delivery = Delivery(work, self)
            self._claimed.add(delivery)
            return delivery

    def _ready(self, queues: Collection[str]) -> list[tuple[tuple[int, int], Backlog]]:
        served = self._served(queues)
        now = self.now.timestamp()
        for backlog in served:
            backlog.promote(now)
        return [(each.head, each) for each in served if each.head is not None]

    def _served(self, queues: Collection[str]) -> list[Backlog]:
        return [each for name, each in self._queues.items() if not queues or name in queues]

    def holds(self, delivery: Delivery) -> bool:
        """Tell whether the delivery still counts."""
        return delivery in self._claimed

    def finish(self, delivery: Delivery, *, remember: bool) -> bool:
        """The work is over; false if the delivery does not count any more."""
        with self.changed:
            # Under the lock: another thread may give it up at this moment.
            if not self._taken_back(delivery):
                return False
            self._live.discard(delivery.work.key)
            if remember:
                self._finished.add(delivery.work)
            # Bounded: a process that runs for weeks must not remember every key.
            self._finished.shorten(self._remember)
            self.changed.notify_all()
            return True

    def back(self, delivery: Delivery, after: float, *, attempt: bool = False) -> bool:
        """The work runs again in `after` seconds; false if the delivery does not count any more."""
        with self.changed:
            if not self._taken_back(delivery):
                return False
            if attempt:
                delivery.work.next_attempt()
            self._wait(delivery.work, self.now + timedelta(seconds=after) if after else None)
            return True

    def abandon(self, delivery: Delivery) -> bool:
        """The worker is dead: deliver again; false if the delivery does not count any more."""
        with self.changed:
            if not self._taken_back(delivery):
                return False
            # Only here: a worker that hands back has not delivered, one that died has (C10).
            delivery.work.deliveries += 1
            delivery.count()
            self._wait(delivery.work, None)
            return True

    def _taken_back(self, delivery: Delivery) -> bool:
        try:
            self._claimed.remove(delivery)
        except KeyError:
            return False
        return True

    def forget(self, task: str | None, key: str | None) -> int:
        """Forget finished keys, of one task or one key or all; returns how many."""
        with self.changed:
            gone = [k for k in self._finished if task in (None, k[0]) and key in (None, k[1])]
            for each in gone:
                self._finished.discard(each)
            return len(gone)

    def counted(self, queues: Collection[str], dead: Mapping[str, int] | None) -> list[Stats]:
        """Return the figures of each queue that has ever had work, and of those named."""
        with self.changed:
            pending = [work for backlog in self._queues.values() for work in backlog.pending()]
            running = [delivery.work.queue for delivery in self._claimed]
            known, moment = {*self._queues, *queues}, self.now.timestamp()
        waiting = ((work.queue, work.due) for work in pending)
        return tallied(waiting, running, now=moment, dead=dead, queues=known)

    def is_empty(self, queues: Collection[str]) -> bool:
        """Tell whether nothing waits or is claimed in these queues, or in any."""
        with self.changed:
            claimed = {delivery.work.queue for delivery in self._claimed}
            waiting = {name for name, backlog in self._queues.items() if backlog}
            busy = claimed | waiting
            return busy.isdisjoint(queues) if queues else not busy

    def next_due(self, queues: Collection[str] = ()) -> float:
        """Return when delayed work is due next, in seconds since the epoch, or infinity."""
        dues = [each.next_due for each in self._served(queues) if each.next_due is not None]
        return min(dues, default=float("inf"))

    def wait(self, queues: Collection[str], timeout: float) -> None:
        """Wait `timeout` seconds at most for work that is due in these queues, or any change."""
        with self.changed:
            if self._ready(queues):
                return
            left = self.next_due(queues) - self.now.timestamp()
            self.changed.wait(min(max(left, 0.0), timeout))
