"""Whether the worker is stopping, as its pool's processes can see it as well."""

from __future__ import annotations

import mmap

from celery.worker import state

__all__ = ["shutdown"]


class _Shutdown:
    """A byte that a worker shares with the processes it forks: Celery tells them nothing."""

    def __init__(self) -> None:
        self._shared: mmap.mmap | None = None

    def prepare(self, **_: object) -> None:
        """In a worker, before it forks its pool."""
        self._shared = mmap.mmap(-1, 1)

    def begin(self, **_: object) -> None:
        """The worker was told to stop."""
        if self._shared is not None:
            self._shared[0] = 1

    def has_begun(self) -> bool:
        """For `current_run().should_stop`."""
        if state.should_stop is not None or state.should_terminate is not None:
            return True
        return self._shared is not None and self._shared[0] == 1


shutdown = _Shutdown()
