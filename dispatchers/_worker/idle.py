"""Idle threads of a worker that drains: with all of them idle, nothing is left to do."""

from __future__ import annotations

import threading

__all__ = ["Idle"]


class Idle:
    """The threads that found nothing since the last run ended: with all of them, all is done.

    A look that began before that end may have missed what the run has dispatched.
    """

    def __init__(self, threads: int) -> None:
        self.since = object()
        """The end of the last run."""
        self._threads = threads
        self._found_nothing: set[int] = set()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Note that this thread has work."""
        with self._lock:
            self._found_nothing.discard(threading.get_ident())

    def end(self) -> None:
        """Note that a run has ended: every look before counts no more."""
        with self._lock:
            self.since = object()
            self._found_nothing.clear()

    def all_are(self, since: object) -> bool:
        """Note that this thread found nothing in a look begun at `since`; true for the last."""
        with self._lock:
            if since is self.since:
                self._found_nothing.add(threading.get_ident())
            return len(self._found_nothing) == self._threads
