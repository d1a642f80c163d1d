"""One look at a file's log tells that no process has committed since something was known of it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress

from ._connection import Database
from ._errors import StoreError

__all__ = ["Unchanged"]

SETTLED = 100_000_000
"""Nanoseconds after which one more write has another time: kernels step it each 10 ms at most."""
SECOND = 1_000_000_000

LogState = tuple[int, int, int]
"""Number, size and time of the last write of a log; each commit changes one of them."""


class Unchanged:
    """Knows something of a file for as long as no process commits to it.

    A statement costs ten times as much as this look, which many calls make.

    Args:
        database: The file.

        is_true: Executes a statement that tells if it is so.
    """

    def __init__(self, database: Database, is_true: Callable[[sqlite3.Connection], bool]) -> None:
        self._database, self._is_true = database, is_true
        self._log = f"{database.path}-wal"
        self._known: LogState | None = None

    def holds(self) -> bool:
        """Tell whether it is known, and nothing was committed since."""
        return self._known is not None and self._known == self._look()

    def learn(self) -> None:
        """Find out, unless a process commits just now or has done so a moment ago."""
        if self._settled() is None:
            return
        # With the lock of those who write: what a process has written and is about to commit would
        # be committed without a further change of the log.
        with suppress(StoreError), self._database.transaction(timeout=0) as connection:
            self._known = self._settled() if self._is_true(connection) else None

    def _settled(self) -> LogState | None:
        """Return the state of the log, if each further write would change it."""
        state = self._look()
        if state is None or time.time_ns() - state[2] < SETTLED:
            return None
        # A file system that counts in seconds, or in two.
        return state if state[2] % SECOND else None

    def _look(self) -> LogState | None:
        if os.name != "posix":  # elsewhere the time is written when the file is closed
            return None
        try:
            found = os.stat(self._log)  # noqa: PTH116 - a path object costs as much again
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
