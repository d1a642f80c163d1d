"""Deadlines of statements in transactions of others, whose settings are not ours to change."""

from __future__ import annotations

import contextlib
import heapq
import sqlite3
import threading
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any

from dispatchers._runtime.fork import renew_after_fork

__all__ = ["busy_for", "cancelled_after"]

IDLE = 5.0
"""Seconds that the thread stays for more."""


class _Clock:
    """Calls functions at their time, unless they were called off, on one thread."""

    def __init__(self) -> None:
        self._begin_anew()
        renew_after_fork(self)

    def _begin_anew(self) -> None:
        self._changed, self.calling = threading.Condition(), threading.Lock()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._off: set[int] = set()
        self._numbers = count()
        self._running = False

    def _after_fork(self) -> None:
        self._begin_anew()

    def add(self, seconds: float, call: Callable[[], object]) -> int:
        """Have a function called after so many seconds; return its number."""
        with self._changed:
            number = next(self._numbers)
            heapq.heappush(self._due, (monotonic() + seconds, number, call))
            if not self._running:
                name = "dispatchers-outbox-deadlines"
                # It waits for the lock; without more threads, the statement is not bounded.
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=self._run, name=name, daemon=True).start()
                    self._running = True
            elif self._due[0][1] == number:
                self._changed.notify()
            return number

    def call_off(self, number: int) -> None:
        """Have a function not be called."""
        with self._changed:
            self._off.add(number)

    def _run(self) -> None:
        while True:
            call = self._next()
            if call is None:
                return
            with self.calling, contextlib.suppress(Exception):  # it ends by itself, or never
                call()

    def _next(self) -> Callable[[], object] | None:
        """Wait for the next that is due; None once there was none for a while."""
        with self._changed:
            while True:
                while self._due and self._due[0][1] in self._off:
                    self._off.discard(heapq.heappop(self._due)[1])
                if not self._due:
                    self._off.clear()
                    if not self._changed.wait(IDLE) and not self._due:
                        self._running = False
                        return None
                    continue
                left = self._due[0][0] - monotonic()
                if left <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(left)


_clock = _Clock()


class cancelled_after:  # noqa: N801 - as `plainly`
    """Have the statement of this block cancelled by another thread once its time is over."""

    def __init__(self, seconds: float, cancel: Callable[[], object]) -> None:
        self._seconds, self._cancel = seconds, cancel

    def __enter__(self) -> None:
        self._number = _clock.add(self._seconds, self._cancel)
        self._until = monotonic() + self._seconds

    def __exit__(self, *_: object) -> None:
        _clock.call_off(self._number)
        if monotonic() >= self._until:
            # Else it would strike the next statement of the connection.
            with _clock.calling:
                pass


class busy_for:  # noqa: N801 - as `plainly`; a class costs less than a generator
    """Let SQLite wait for other writers for so long in this block, and as before afterwards."""

    def __init__(self, connection: Any, seconds: float) -> None:
        self._cursor, self._wanted = connection.cursor(), int(seconds * 1000)

    def __enter__(self) -> None:
        self._cursor.row_factory = None
        (self._before,) = self._cursor.execute("PRAGMA busy_timeout").fetchone()
        self._set(min(self._before, self._wanted))

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._set(self._before)

    def _set(self, milliseconds: int) -> None:
        if self._before > self._wanted:
            self._cursor.execute(f"PRAGMA busy_timeout = {milliseconds}")
