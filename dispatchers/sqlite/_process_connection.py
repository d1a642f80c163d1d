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

from dispatchers.sqlite._commit_queue import WaitingRows
from dispatchers.sqlite._lock_wait import Contention

__all__ = ["ProcessConnection"]

# Seconds that a fork waits for running transactions, at most as long as a dispatch may take; those
# that wait for other processes are not waited for. And seconds that the interpreter's exit waits.
_FORK_WAIT = 2.0


_EXIT_WAIT = 1.0


Identity = tuple[int, int] | None
"""Device and number of a file; None for one that is not there."""

Files = tuple[Identity, Identity, Identity]


def _identity(path: str, *, empty: bool = False) -> Identity:
    """Return which file it is; None for one that is gone, or emptied where `empty` says so.

    Who opens an emptied queue takes it for a new one, and removes its log.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - a path object costs as much again
    except OSError:
        return None
    return None if empty and not found.st_size else (found.st_dev, found.st_ino)


class ProcessConnection:
    """The connection of this process. Outlives its database, to be closed.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._log, self._index = f"{path}-wal", f"{path}-shm"
        self.connection: sqlite3.Connection | None = None
        self._files: Files = (None, None, None)
        self.closed = False
        self.poisoned = False
        self.start()
        # Not while a fork walks through the set.
        with _guard:
            _slots.add(self)

    def start(self) -> None:
        """Begin anew in this process."""
        self.lock = threading.RLock()  # of the thread whose turn it is, its waiting included
        self.use = threading.RLock()  # while the connection does something: a fork waits for it
        self.pid = os.getpid()
        # 56 random bits leave room to count within SQLite's signed 64-bit integers.
        self.tokens = itertools.count(int.from_bytes(os.urandom(7), "big"))
        self.inside = False
        self.crowd = Contention(self._path)
        self.line: deque[WaitingRows] = deque()

    def fill(self, connection: sqlite3.Connection) -> None:
        """Use a connection from now on."""
        self.connection = connection
        self._files = self._identities()

    @property
    def begun(self) -> sqlite3.Connection | None:
        """The connection, if a transaction is open on it. For a caller that has `use`."""
        connection = self.connection
        return connection if connection is not None and connection.in_transaction else None

    def look(self) -> None:
        """Drop the connection if a file of it is not there any more, or another in its place.

        What was written to it would be lost: no other process can open that file. Asked before
        each use, as it takes a few microseconds, and a commit many more.
        """
        if self.connection is None:
            return
        found = self._identities()
        if found == self._files:
            return
        if any(old not in (None, new) for old, new in zip(self._files, found, strict=True)):
            self.drop()
        self._files = found

    def drop(self) -> None:
        """Part with the connection, if there is one; what it had not committed is undone."""
        self.crowd.turn.close()
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connection alone, of which another thread may be waiting for its turn."""
        with self.use:
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

    def _identities(self) -> Files:
        """Return which files are the queue, its log and the log's index."""
        return _identity(self._path, empty=True), _identity(self._log), _identity(self._index)

    def adopt(self) -> None:
        """Recover from a fork that Python did not see, as servers written in C do it."""
        if self.connection is not None and self.connection.in_transaction:
            self.poison()
        self.crowd.turn.close()
        self.start()  # first, as a thread that is not here may have held the locks
        self.disconnect()

    def dispose(self, seconds: float = _EXIT_WAIT) -> bool:
        """Close the connection, unless another thread keeps using it; says whether it is closed."""
        # A forked child owns nothing to close: its parent's connection was closed before the fork.
        if self.pid != os.getpid():
            return True
        if not self.lock.acquire(timeout=seconds):
            return False
        try:
            self.drop()
        finally:
            self.lock.release()
        return True


_guard = threading.RLock()


_slots: weakref.WeakSet[ProcessConnection] = weakref.WeakSet()


_forking: list[tuple[ProcessConnection, bool]] = []


_abandoned: list[sqlite3.Connection] = []


def _abandon(connection: sqlite3.Connection) -> None:
    """Never close a connection: not at the interpreter's exit either, which closes what is left."""
    import ctypes

    _abandoned.append(connection)
    # A reference that is never returned keeps the destructor, which closes the file, from
    # running: closing would release the parent's POSIX locks on it.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _before_fork() -> None:
    """Wait for running transactions and close everything, so that the child inherits nothing."""
    deadline = time.monotonic() + _FORK_WAIT
    # Held across the fork: no connection is created between here and the child's repair.
    _guard.acquire()
    for slot in _slots:
        # A transaction that does not end in time must not hold up the fork: the child's side of
        # that connection is poisoned instead.
        held = slot.use.acquire(timeout=max(0.0, deadline - time.monotonic()))
        _forking.append((slot, held))
        if held:
            slot.disconnect()


def _after_in_parent() -> None:
    for slot, held in _forking:
        if held:
            slot.use.release()
    _forking.clear()
    _guard.release()


def _after_in_child() -> None:
    global _guard
    for slot, held in _forking:
        if not held:
            slot.poison()
        slot.crowd.turn.close()
        slot.start()
    _forking.clear()
    _guard = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_in_parent,
        after_in_child=_after_in_child,
    )
