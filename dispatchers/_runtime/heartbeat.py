"""Renewing leases and claims while a handler runs, on a thread that no handler can block."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from math import inf
from time import monotonic

from dispatchers._runtime.fork import notice_fork, renew_after_fork
from dispatchers._runtime.log import say

__all__ = ["Beater", "Heartbeat", "beater", "renewed"]


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
        """Renew once; an error loses nothing: the lease may last until the next try."""
        self.due = monotonic() + self.interval
        try:
            self.lost = not self.renew()
        except Exception as exc:  # noqa: BLE001 - anything a store raises
            say(logging.WARNING, "a lease could not be renewed: %s", type(exc).__name__)


class Beater:
    """The threads that renew the running heartbeats of this process.

    One waits for the next that is due. Before it renews, another takes its place, so that a store
    that is slow to answer holds up no other lease.
    """

    def __init__(self) -> None:
        self._begin_anew()
        renew_after_fork(self)

    def _begin_anew(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._beats: set[Heartbeat] = set()
        self._beating: set[Heartbeat] = set()
        self._waiting = 0
        self._sleeps_until = inf
        self._refused = ""
        """Why a thread could not be started."""

    def _after_fork(self) -> None:
        # The parent's heartbeats are renewed by the parent; its threads do not exist here.
        self._begin_anew()

    def start(self, beat: Heartbeat) -> Heartbeat:
        """Renew `beat` from now on."""
        notice_fork()
        with self._changed:
            self._beats.add(beat)
            if not self._waiting:
                self._begin_thread()
            # Short runs come and go while the thread sleeps: to wake it for each costs as much.
            elif beat.due < self._sleeps_until:
                self._changed.notify()
        return beat

    def _begin_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="dispatchers-beats", daemon=True)
        self._waiting += 1
        try:
            thread.start()
        except RuntimeError as exc:  # too many threads, or the end of the interpreter
            self._waiting -= 1
            self._refused = f"no thread could be started: {exc}"
            if threading.main_thread().is_alive():
                say(logging.ERROR, "leases are not renewed: %s", self._refused)

    def stop(self, beat: Heartbeat) -> None:
        """Renew `beat` no more."""
        with self._changed:
            self._beats.discard(beat)
        # At the end of the interpreter most are done before a renewal is due: nothing is amiss.
        if self._refused and beat.due < monotonic() and not threading.main_thread().is_alive():
            say(logging.ERROR, "a lease was not renewed: %s", self._refused)

    def _run(self) -> None:
        while (beat := self._next()) is not None:
            beat.beat()
            with self._changed:
                self._beating.discard(beat)
                if beat.lost:
                    self._beats.discard(beat)
                self._waiting += 1
                self._changed.notify()

    def _next(self) -> Heartbeat | None:
        """Wait for a heartbeat that is due; None for a thread beyond the one that waits."""
        with self._changed:
            # One waiting thread is enough; any other ends here.
            while self._waiting == 1:
                ready = min(self._beats - self._beating, key=_due, default=None)
                left = None if ready is None else ready.due - monotonic()
                if ready is not None and left is not None and left <= 0:
                    return self._taken(ready)
                self._sleeps_until = inf if ready is None else ready.due
                self._changed.wait(left)
            self._waiting -= 1
            return None

    def _taken(self, beat: Heartbeat) -> Heartbeat:
        self._beating.add(beat)
        self._waiting -= 1
        # A single heartbeat needs no second thread, which saves one in the usual worker.
        if len(self._beats) > 1:  # another may be due while this one is renewed
            self._begin_thread()
        return beat


def _due(beat: Heartbeat) -> float:
    return beat.due


beater = Beater()


@contextmanager
def renewed(heartbeat: Heartbeat) -> Generator[None]:
    """Renew while the block runs."""
    beater.start(heartbeat)
    try:
        yield
    finally:
        beater.stop(heartbeat)
