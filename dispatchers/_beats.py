"""Renewing leases and claims while a handler runs, on a thread that no handler can block."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from ._fork import renew_after_fork
from ._log import say

__all__ = ["Beater", "Heartbeat", "beater"]


class Heartbeat:
    """One thing to renew: `renew()` every `interval` seconds until it says no or is stopped.

    Args:
        renew: Renews; false when the lease or claim was lost.

        interval: Seconds between renewals: a third of the lease, say.
    """

    __slots__ = ("due", "interval", "lost", "renew")

    def __init__(self, renew: Callable[[], bool], interval: float) -> None:
        self.renew = renew
        self.interval = interval
        self.due = monotonic() + interval
        self.lost = False

    def beat(self) -> None:
        """Renew once; an error is no loss: the lease may last until the next try."""
        self.due = monotonic() + self.interval
        try:
            self.lost = not self.renew()
        except Exception as exc:  # noqa: BLE001 - anything a store raises
            say(logging.WARNING, "a lease could not be renewed: %s", type(exc).__name__)


class Beater:
    """The thread that renews every running `Heartbeat` of this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._beats: set[Heartbeat] = set()
        self._thread: threading.Thread | None = None
        renew_after_fork(self)

    def start(self, beat: Heartbeat) -> Heartbeat:
        """Renew `beat` from now on."""
        with self._changed:
            self._beats.add(beat)
            if self._thread is None:
                self._begin()
            self._changed.notify()
        return beat

    def _begin(self) -> None:
        thread = threading.Thread(target=self._run, name="dispatchers-beats", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # too many threads, or the end of the interpreter
            say(logging.ERROR, "leases are not renewed: no thread could be started: %s", exc)
        else:
            self._thread = thread

    def stop(self, beat: Heartbeat) -> None:
        """Renew `beat` no more."""
        with self._changed:
            self._beats.discard(beat)

    def _run(self) -> None:
        while True:
            for beat in self._next():
                beat.beat()
                if beat.lost:
                    self.stop(beat)

    def _next(self) -> list[Heartbeat]:
        with self._changed:
            soonest = min((beat.due for beat in self._beats), default=None)
            wait = None if soonest is None else soonest - monotonic()
            if wait is None or wait > 0:
                self._changed.wait(wait)
            now = monotonic()
            return [beat for beat in self._beats if beat.due <= now]

    def _after_fork(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._beats = set()
        self._thread = None


beater = Beater()
