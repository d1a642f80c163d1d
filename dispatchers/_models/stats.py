"""Figures of a queue: how much waits, runs and failed, and for how long."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from dispatchers._errors import public
from dispatchers._runtime.clock import now

N = TypeVar("N", int, float)


@public
class Stats(NamedTuple):
    """Figures of one queue at one instant; None where the backend cannot say."""

    queue: str
    """The name of the queue."""
    waiting: int | None
    """Work that is due and has no worker yet."""
    running: int | None
    """Work in the hands of a worker."""
    delayed: int | None
    """Work that waits for its time, later attempts included."""
    dead: int | None
    """Dead letters that came from the queue."""
    oldest: float | None
    """Seconds that the oldest due work has waited, 0.0 where none waits: the figure to alert on."""
    at: datetime
    """When it was counted, aware UTC."""


class PartlyCountedError(Exception):
    """Raised by `_stats` where some of several dispatchers could not be asked.

    Args:
        found: What the others count.

        reason: Why the rest is not known.
    """

    def __init__(self, found: Sequence[Stats], reason: str) -> None:
        super().__init__(reason)
        self.found = found


def queue_stats(
    *,
    waiting: Mapping[str, int] | None = None,
    running: Mapping[str, int] | None = None,
    delayed: Mapping[str, int] | None = None,
    dead: Mapping[str, int] | None = None,
    oldest: Mapping[str, float] | None = None,
    queues: Iterable[str] = (),
) -> list[Stats]:
    """Return one `Stats` per queue, by name, from counts by queue.

    Args:
        waiting: Due work by queue; None where the backend cannot say.

        running: Claimed work by queue.

        delayed: Delayed work by queue.

        dead: Dead letters by queue.

        oldest: Seconds that the oldest due work has waited, by queue.

        queues: Queues that exist though nothing may be in them.
    """
    # One instant for all, so that the figures of several queues can be compared.
    at = now()
    counts = (waiting, running, delayed, dead, oldest)
    # A queue without work counts, too: zero is a figure, and a missing line looks like a failure.
    names = {*queues, *(name for each in counts for name in each or ())}

    def told(figures: Mapping[str, N] | None, name: str, nothing: N) -> N | None:
        return None if figures is None else figures.get(name, nothing)

    return [
        Stats(
            name,
            waiting=told(waiting, name, 0),
            running=told(running, name, 0),
            delayed=told(delayed, name, 0),
            dead=told(dead, name, 0),
            oldest=told(oldest, name, 0.0),
            at=at,
        )
        for name in sorted(names)
    ]


def tallied(
    pending: Iterable[tuple[str, float]],
    running: Iterable[str],
    *,
    now: float,
    dead: Mapping[str, int] | None,
    queues: Iterable[str] = (),
) -> list[Stats]:
    """Return the figures of work that is kept in this process.

    Args:
        pending: Queue and due time of what waits, by the clock that gave `now`.

        running: The queue of each piece of work that runs.

        now: The time by that clock.

        dead: Dead letters by queue; None where none are kept, or they cannot be counted.

        queues: Queues that exist though nothing may be in them.
    """
    waiting: Counter[str] = Counter()
    delayed: Counter[str] = Counter()
    oldest: defaultdict[str, float] = defaultdict(float)
    for queue, due in pending:
        if due > now:
            delayed[queue] += 1
            continue
        waiting[queue] += 1
        oldest[queue] = max(oldest[queue], now - due)
    return queue_stats(
        waiting=waiting,
        running=Counter(running),
        delayed=delayed,
        dead=dead,
        oldest=oldest,
        queues=queues,
    )
