"""The connection of one process: its lock, and what a fork and the interpreter's exit do to it.

SQLite's locks belong to the process, and a forked child that inherits an open connection believes
it holds its parent's: its own commits are lost (measured). So all are closed before the fork.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from pathlib import Path

from ._line import Waiting
from ._patience import Crowd

__all__ = ["Slot"]

# Seconds that a fork waits for running transactions, and that the interpreter's exit does.
_FORK_PATIENCE = 10.0
_EXIT_PATIENCE = 1.0

# Seconds between two looks whether the file is still the one that was opened.
_LOOK = 0.5


class Slot:
    """Where the connection of this process stands. Outlives its database, to be closed.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.connection: sqlite3.Connection | None = None
        self.look_at = 0.0
        self._file: tuple[int, int] | None = None
        self.closed = False
        self.poisoned = False
        self.start()
        with _guard:
            _slots.add(self)

    def start(self) -> None:
        """Begin anew in this process."""
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.tokens = itertools.count(int.from_bytes(os.urandom(7), "big"))
        self.inside = False
        self.crowd = Crowd(self._path)
        self.line: deque[Waiting] = deque()

    def fill(self, connection: sqlite3.Connection) -> None:
        """Use a connection from now on."""
        self.connection = connection
        self._file = self._identity()
        self.look_at = time.monotonic() + _LOOK

    def look(self) -> None:
        """Part with the connection if its file is not there any more, or another in its place.

        What was written to it would be lost: nobody else can open that file.
        """
        if self._identity() != self._file:
            self.drop()
        self.look_at = time.monotonic() + _LOOK

    def drop(self) -> None:
        """Part with the connection, if there is one; what it had not committed is undone."""
        self.crowd.turn.close()
        connection, self.connection = self.connection, None
        if connection is None:
            return
        with contextlib.suppress(sqlite3.Error):
            connection.rollback()
        connection.close()  # SQLite leaves the log alone if it is another file's by now (3.40)

    def poison(self) -> None:
        """Part for ever with a connection that was in use when this process was forked."""
        if self.connection is not None:
            _abandon(self.connection)
        self.connection = None
        self.poisoned = True

    def _identity(self) -> tuple[int, int] | None:
        """Which file is at the path; None for none."""
        try:
            found = Path(self._path).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def adopt(self) -> None:
        """Recover from a fork that Python did not see, as servers written in C do it."""
        if self.connection is not None and self.connection.in_transaction:
            self.poison()
        self.drop()
        self.start()

    def dispose(self, patience: float = _EXIT_PATIENCE) -> bool:
        """Close the connection, unless another thread keeps using it; says whether it is closed."""
        if self.pid != os.getpid():
            return True
        if not self.lock.acquire(timeout=patience):
            return False
        try:
            self.drop()
        finally:
            self.lock.release()
        return True


_guard = threading.RLock()
_slots: weakref.WeakSet[Slot] = weakref.WeakSet()
_forking: list[tuple[Slot, bool]] = []
_abandoned: list[sqlite3.Connection] = []


def _abandon(connection: sqlite3.Connection) -> None:
    """Never close a connection: not at the interpreter's exit either, which closes what is left."""
    import ctypes

    _abandoned.append(connection)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _before_fork() -> None:
    """Wait for running transactions and close everything, so that the child inherits nothing."""
    deadline = time.monotonic() + _FORK_PATIENCE
    _guard.acquire()
    for slot in _slots:
        held = slot.lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
        _forking.append((slot, held))
        if held:
            slot.drop()


def _after_in_parent() -> None:
    for slot, held in _forking:
        if held:
            slot.lock.release()
    _forking.clear()
    _guard.release()


def _after_in_child() -> None:
    global _guard
    for slot, held in _forking:
        if not held:
            slot.poison()
        slot.start()
    _forking.clear()
    _guard = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_in_parent,
        after_in_child=_after_in_child,
    )
