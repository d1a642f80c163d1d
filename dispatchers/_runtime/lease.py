"""Judging from outside whether a lease is still being renewed.

A lease is a promise about renewal, not about time. Its holder counts up a number; its observer
remembers the number and when, by its own monotonic clock, it first saw it. If it saw no other for
as long as the lease is, the holder is gone. No wall clock takes part, so none can be set wrong.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

__all__ = ["Watch"]

# Marks above which those are forgotten that were not looked at for some time, in seconds: an
# observer of more marks that forgot the others would begin again with each look, for ever.
_REMEMBERED = 10_000
_KEPT = 600.0


class Watch:
    """The leases of others as one process has seen them. Serves any number of threads.

    Args:
        clock: Seconds on a clock that never steps.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[object, float, float]] = OrderedDict()
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
            known, since, _ = self._seen.get(name, (None, now, now))
            # A mark seen for the first time is fresh here, however old it is: the clocks of two
            # machines are never compared, so that a dead holder costs one lease more at most.
            if known != mark:
                since = now
            self._seen[name] = (mark, since, now + _KEPT + lease)
            self._seen.move_to_end(name)
            self._trim(now)
        return lease - (now - since)  # in this order never more than the lease, as it is rounded

    def _trim(self, now: float) -> None:
        """Forget two at most, so that no look takes long."""
        for name, (_, _, kept_until) in tuple(islice(self._seen.items(), 2)):
            if len(self._seen) > _REMEMBERED and now >= kept_until:
                del self._seen[name]

    def forget(self, name: str) -> None:
        """Stop watching a lease that has ended."""
        with self._lock:
            self._seen.pop(name, None)
