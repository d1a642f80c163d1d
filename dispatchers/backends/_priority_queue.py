"""Work that waits: by priority, then in order; and work that is held back until it is due."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count

from dispatchers.backends._job import Work

__all__ = ["Backlog"]

order = count()
"""What was ready first runs first; one count for all, so that queues can be compared."""


class Backlog:
    """The waiting work of one queue. It has no lock of its own.

    Each change is one operation of the interpreter (`heappush`, `heappop`), so that a signal
    handler or a finalizer that dispatches in the midst of another change does no harm.
    """

    __slots__ = ("_delayed", "_ready")

    def __init__(self) -> None:
        self._ready: list[tuple[int, int, Work]] = []
        self._delayed: list[tuple[float, int, Work]] = []

    def __len__(self) -> int:
        return len(self._ready) + len(self._delayed)

    def __iter__(self) -> Iterator[Work]:
        """In the order in which it would run: first what is ready, then by due time."""
        yield from (work for _, _, work in sorted(self._ready))
        yield from (work for _, _, work in sorted(self._delayed))

    def pending(self) -> list[Work]:
        """Return what waits, in no particular order."""
        return [work for _, _, work in [*self._ready, *self._delayed]]

    def add(self, work: Work, due: float | None = None) -> None:
        """Let `work` wait; it is ready at once, or when the clock says `due`."""
        if due is None:
            # A heap gives the smallest first; the counter keeps the order among equals.
            heappush(self._ready, (-work.priority, next(order), work))
        else:
            heappush(self._delayed, (due, next(order), work))

    def promote(self, now: float) -> int:
        """Make ready what is due by `now`; returns how many."""
        before = len(self._delayed)
        while self._delayed and self._delayed[0][0] <= now:
            self.add(heappop(self._delayed)[2])
        return before - len(self._delayed)

    @property
    def head(self) -> tuple[int, int] | None:
        """The rank of what is ready first: the lowest among backlogs goes first."""
        return self._ready[0][:2] if self._ready else None

    @property
    def next_due(self) -> float | None:
        """Return when the next delayed work is due."""
        return self._delayed[0][0] if self._delayed else None

    def pop(self) -> Work | None:
        """Take what is ready first."""
        return heappop(self._ready)[2] if self._ready else None

    def clear(self) -> int:
        """Drop everything; returns how much it was."""
        dropped = len(self)
        self._ready.clear()
        self._delayed.clear()
        return dropped
