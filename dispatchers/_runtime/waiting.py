"""A call that waits in a queue of its process, for another thread to do it."""

from __future__ import annotations

import threading

__all__ = ["Waiting"]


class Waiting:
    """One call in a queue, and its thread's wait for the answer.

    Nothing locks: a signal handler may be served by the thread that it interrupts.
    """

    __slots__ = ("_bell", "_free")

    def __init__(self) -> None:
        self._free = [True]  # popped by the thread that takes it: a test and set without a lock
        self._bell = threading.Lock()
        self._bell.acquire()

    @property
    def is_free(self) -> bool:
        """Tell whether no thread has taken it."""
        return bool(self._free)

    def take(self) -> bool:
        """Claim it, to do it or to give it up; false if another thread was first."""
        try:
            return self._free.pop()
        except IndexError:
            return False

    def leave(self) -> None:
        """Undo `take`."""
        self._free.append(True)

    def wake(self) -> None:
        """End the sleep, or the next one."""
        try:  # noqa: SIM105 - `suppress` would cost as much as all the rest of it
            self._bell.release()
        except RuntimeError:  # it has been woken already
            pass

    def sleep(self, seconds: float) -> None:
        """Wait to be woken."""
        self._bell.acquire(timeout=seconds)
