"""Work that waits in this process gets to finish before the interpreter takes its threads down."""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import Protocol
from weakref import WeakSet

from dispatchers._runtime.fork import renew_after_fork
from dispatchers._runtime.log import say

__all__ = ["Closing", "exit_watch"]


class Closing(Protocol):
    """An object that holds work until it is closed."""

    @property
    def label(self) -> str:
        """Return what to call it in the log."""
        ...

    def close(self, timeout: float) -> int:
        """Finish within `timeout` seconds; how many pieces of work were left undone."""
        ...


class ExitWatch:
    """A thread that waits for the main thread to end, and then closes what still holds work.

    The interpreter joins threads that are no daemons before it calls exit functions, so that an
    exit function would come too late for workers that are to finish what they run.
    """

    def __init__(self) -> None:
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self._open: WeakSet[Closing] = WeakSet()
        self._thread: threading.Thread | None = None

    def watch(self, held: Closing) -> None:
        """Close `held` when the main thread has ended."""
        with self._lock:
            self._open.add(held)
            if self._thread is None:
                thread = threading.Thread(target=self._wait, name="dispatchers-exit", daemon=False)
                thread.start()
                self._thread = thread

    def _wait(self) -> None:
        # Not an exit function: the interpreter joins the workers' threads before it calls those.
        threading.main_thread().join()
        until = monotonic() + _exit_timeout()
        # Again, as work that is finishing may open another dispatcher.
        while opened := self._taken():
            for held in opened:
                if left := held.close(max(0.0, until - monotonic())):
                    say(
                        logging.ERROR, "%s ended with the process, with %d undone", held.label, left
                    )

    def _taken(self) -> tuple[Closing, ...]:
        """Return what is open; without any, this thread ends and later work starts another."""
        with self._lock:
            opened = tuple(self._open)
            self._open.clear()
            if not opened:
                self._thread = None
            return opened


exit_watch = ExitWatch()


def _exit_timeout() -> float:
    """Seconds for everything together, as configured for the process."""
    from dispatchers._config.api import CLOSE_WAIT, state

    read = state.snapshot._read.get("")
    return read.settings.exit_timeout if read else CLOSE_WAIT
