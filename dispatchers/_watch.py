"""Judging from outside whether a lease is still being renewed.

A lease is a promise about renewal, not about time. Its holder counts up a number; whoever watches
remembers the number and when, by its own monotonic clock, it first saw it. If it saw no other for
as long as the lease is, the holder is gone. No wall clock takes part, so none can be set wrong.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Watch"]

# Marks remembered; the longest unseen go first, and are then watched from the beginning again.
_REMEMBERED = 10_000


class Watch:
    """What one process has seen of the leases of others. Serves any number of threads.

    Args:
        clock: Seconds on a clock that never steps.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[object, float]] = OrderedDict()
        self._lock = threading.RLock()

    def left(self, name: str, mark: object, lease: float) -> float:
        """Look at a lease.

        Args:
            name: Whose or which lease it is.

            mark: What its holder changes on each renewal.

            lease: Seconds without renewal after which it has run out.

        Returns:
            Seconds that it lasts if it is not renewed any more; 0 or less if it has run out.
        """
        now = self._clock()
        with self._lock:
            known, since = self._seen.get(name, (None, now))
            if known != mark:
                since = now
            self._seen[name] = (mark, since)
            self._seen.move_to_end(name)
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        return since + lease - now

    def forget(self, name: str) -> None:
        """Stop watching a lease that has ended."""
        with self._lock:
            self._seen.pop(name, None)
