"""The end of a worker, as the processes of its pool can see it as well."""

from __future__ import annotations

import mmap
import os

from celery.worker import state

__all__ = ["shutdown"]

WARM, COLD = 1, 2


class _Shutdown:
    """A byte that a worker shares with the processes it forks: Celery tells them nothing."""

    def __init__(self) -> None:
        self._shared: mmap.mmap | None = None
        self._pid: int | None = None

    def prepare(self, **_: object) -> None:
        """Share a byte, in a worker that has not forked its pool yet."""
        # Anonymous memory is inherited by a fork, takes no name and ends with the processes.
        self._shared = mmap.mmap(-1, 1)
        self._pid = os.getpid()

    def begin(self, how: str = "", **_: object) -> None:
        """Tell the pool that the worker was told to stop, or `Cold`: that its processes end now."""
        if self._shared is not None:
            self._shared[0] = COLD if how == "Cold" else max(self._shared[0], WARM)

    def is_cold(self) -> bool:
        """Tell whether the processes of the pool end now."""
        return self._shared is not None and self._shared[0] == COLD

    def has_begun(self) -> bool:
        """Tell a run that it should stop soon."""
        # Asked first: it is all there is where the pool has no processes of its own.
        if state.should_stop is not None or state.should_terminate is not None:
            return True
        return self._shared is not None and self._shared[0] != 0

    def is_in_child(self) -> bool:
        """Tell a process of a forked pool, whose runs Celery interrupts at their time limit."""
        return self._pid is not None and self._pid != os.getpid()


shutdown = _Shutdown()
