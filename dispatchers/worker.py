"""Base classes of workers, for authors of adapters whose backend has none of its own.

You write how work is taken and settled; the base class does the rest: threads, back-off while the
backend fails, leases, signals, the grace, draining, dead letters::

    class QueueWorker(BaseWorker[Receipt]):
        lease = 60.0
        def _take(self, wait): ...
        def _renew(self, work): ...
        def _complete(self, work): ...
        def _retry(self, work, after, attempt): ...
        def _give_back(self, work, after, deliveries): ...
        def _dead_letter(self, work, letter): ...
"""

from __future__ import annotations

from dispatchers._worker.async_base import BaseAsyncWorker
from dispatchers._worker.base import BaseWorker, Work

__all__ = ["BaseAsyncWorker", "BaseWorker", "Work"]
