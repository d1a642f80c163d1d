"""The broker behind `memory`: what a real one does, in its plainest form.

Work waits in queues, by priority and then in order, until it is due. A worker claims it and holds a
*delivery*. While it holds it, nobody else gets the work; it ends by finishing it, by handing it
back, or by being given up, after which the work is delivered once more and what the late worker
says of its delivery does not count.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from threading import Condition, RLock

from dispatchers._envelope import decode
from dispatchers._outcome import Outcome
from dispatchers._request import DispatchRequest

from ._backlog import Backlog
from ._work import Work

__all__ = ["Delivery", "MemoryQueue"]

LOOK = 1.0
"""Seconds between two looks of an idle worker: a clock given in code moves without a word."""

Key = tuple[str, str]


class Delivery:
    """Work in the hands of a worker; a later delivery of the same work is another object."""

    __slots__ = ("work",)

    def __init__(self, work: Work) -> None:
        self.work = work

    @property
    def body(self) -> bytes:
        """The envelope."""
        return self.work.body

    @property
    def request(self) -> DispatchRequest:
        """What was dispatched."""
        return decode(self.work.body)

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.work.attempt

    @property
    def deliveries(self) -> int:
        """How often this attempt was handed to a worker, this time included."""
        return self.work.deliveries


class MemoryQueue:
    """Several queues in memory, and a clock that can be put forward.

    Args:
        clock: What time it is, aware UTC.

        remember: How many keys of finished work are known as duplicates.
    """

    def __init__(self, clock: Callable[[], datetime], remember: int) -> None:
        self.changed = Condition(RLock())
        self._clock = clock
        self._ahead = timedelta()
        self._remember = remember
        self._queues: dict[str, Backlog] = {}
        self._claimed: set[Delivery] = set()
        self._live: set[Key] = set()
        self._finished: OrderedDict[Key, None] = OrderedDict()

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
        """How much waits, delayed work included."""
        return sum(len(backlog) for backlog in tuple(self._queues.values()))

    def __iter__(self) -> Iterator[Work]:
        """What waits, queue by queue in the order it would run."""
        with self.changed:
            return iter([work for backlog in self._queues.values() for work in backlog])

    @property
    def claimed(self) -> int:
        """How much is in the hands of workers."""
        return len(self._claimed)

    def knows(self, key: Key) -> bool:
        """Whether work under this key waits, runs, or is remembered as finished."""
        return key in self._live or key in self._finished

    def put(self, work: Work, due: datetime | None) -> None:
        """Let new work wait."""
        with self.changed:
            self._live.add(work.key)
            self._wait(work, due)

    def _wait(self, work: Work, due: datetime | None) -> None:
        backlog = self._queues.setdefault(work.queue, Backlog())
        backlog.add(work, None if due is None else due.timestamp())
        self.changed.notify()

    def claim(self, queues: Collection[str] = ()) -> Delivery | None:
        """Take what is due and first in rank, from the queues named or from all."""
        with self.changed:
            ready = self._ready(queues)
            work = min(ready)[1].pop() if ready else None
            if work is None:
                return None
            delivery = Delivery(work)
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
        """Whether the delivery still counts."""
        return delivery in self._claimed

    def finish(self, delivery: Delivery, *, remember: bool) -> bool:
        """The work is over; false if the delivery does not count any more."""
        with self.changed:
            if not self._taken_back(delivery):
                return False
            self._live.discard(delivery.work.key)
            if remember:
                self._finished[delivery.work.key] = None
            while len(self._finished) > self._remember:
                self._finished.popitem(last=False)
            self.changed.notify_all()
            return True

    def back(self, delivery: Delivery, outcome: Outcome, after: float) -> bool:
        """The work runs again in `after` seconds; false if the delivery does not count any more."""
        with self.changed:
            if not self._taken_back(delivery):
                return False
            delivery.work.count(outcome)
            self._wait(delivery.work, self.now + timedelta(seconds=after) if after else None)
            return True

    def abandon(self, delivery: Delivery) -> bool:
        """The worker is dead: deliver again; false if the delivery does not count any more."""
        with self.changed:
            if not self._taken_back(delivery):
                return False
            delivery.work.deliveries += 1
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
                del self._finished[each]
            return len(gone)

    def is_empty(self, queues: Collection[str]) -> bool:
        """Whether nothing waits or is claimed in these queues, or in any."""
        with self.changed:
            claimed = {delivery.work.queue for delivery in self._claimed}
            waiting = {name for name, backlog in self._queues.items() if backlog}
            busy = claimed | waiting
            return busy.isdisjoint(queues) if queues else not busy

    def wait(self, queues: Collection[str]) -> None:
        """Wait until something in these queues may be due, or anything has changed."""
        with self.changed:
            if self._ready(queues):
                return
            dues = [each.next_due for each in self._served(queues) if each.next_due is not None]
            left = min(dues, default=float("inf")) - self.now.timestamp()
            self.changed.wait(min(max(left, 0.0), LOOK))
