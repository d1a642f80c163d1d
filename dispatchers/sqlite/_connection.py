"""One connection per process, shared by its threads, closed across a fork, and patient.

Everything that stands on the file (the queue, the idempotency store) goes through a `Database`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

from ._errors import (
    StoreBusyError,
    StoreClosedError,
    StoreError,
    StoreInputError,
    StoreUnavailableError,
    is_busy,
    translated,
)
from ._file import Synchronous, open_file
from ._line import Waiting
from ._patience import Crowd, Patience
from ._slot import Slot

__all__ = ["RAISED_BY_SQLITE", "Database"]

T = TypeVar("T")

# What `execute` raises, the values that it cannot bind included.
RAISED_BY_SQLITE = (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError)


class Database:
    """One file, opened on first use, and again after a fork.

    Serves any number of threads. Safe in signal handlers and finalizers: the lock is the thread's
    own, and a call that finds a transaction of its own thread open below it is refused.

    Args:
        path: The file. Its directory has to exist; the file is created, readable by its owner only.

        synchronous: `"full"` survives a loss of power; `"normal"` survives the loss of any process,
            and may forget the last commits when the power goes.
    """

    def __init__(self, path: str | os.PathLike[str], *, synchronous: Synchronous = "full") -> None:
        if synchronous not in ("full", "normal"):
            raise ValueError(f"synchronous is {synchronous!r}: choose 'full' or 'normal'")
        self.path = _file_path(path)
        self._synchronous: Synchronous = synchronous
        self._slot = Slot(self.path)
        weakref.finalize(self, self._slot.dispose)

    @property
    def lock(self) -> threading.RLock:
        """The lock around this process's connection. Another one after a fork."""
        return self._slot.lock

    def tokens(self) -> Iterator[int]:
        """Numbers that no process has had: a start at random, counted up, another after a fork."""
        return self._slot.tokens

    @property
    def line(self) -> deque[Waiting]:
        """What the threads of this process wait to have written. Another one after a fork."""
        return self._slot.line

    @property
    def crowd(self) -> Crowd:
        """What is known of other processes that want to write."""
        return self._slot.crowd

    @property
    def nested(self) -> bool:
        """For a caller that holds the lock: whether its own thread is inside a transaction."""
        return self._slot.inside

    def attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Let `work` use the connection once. The caller holds the lock.

        Raises:
            StoreError: As it is.

            sqlite3.Error: Only such as `is_busy` says; nothing was changed.
        """
        try:
            return work(self._connection())
        except RAISED_BY_SQLITE as exc:
            if is_busy(exc):
                raise
            raise self._translated(exc, committing=True) from exc

    def run(self, work: Callable[[sqlite3.Connection], T], *, deadline: float) -> T:
        """Let `work` use the connection, again and again while others are in the way.

        Args:
            work: Executes one statement outside of any transaction, or a whole one.

            deadline: The instant of `time.monotonic()` at which to give up. One attempt is always
                made.

        Raises:
            StoreError: See `dispatchers.sqlite._errors`.
        """
        with self.held(deadline):
            return self.persist(work, deadline=deadline)

    def persist(self, work: Callable[[sqlite3.Connection], T], *, deadline: float) -> T:
        """As `run`, for a caller that holds the lock."""
        if not self._slot.crowd.waits or deadline <= time.monotonic():
            try:
                return self.attempt(work)
            except RAISED_BY_SQLITE:
                pass
        with self.waiting(deadline) as patience:
            while patience.wait():
                with contextlib.suppress(*RAISED_BY_SQLITE):
                    return self.attempt(work)
        raise self.busy()

    @contextlib.contextmanager
    def waiting(self, deadline: float) -> Generator[Patience]:
        """For a caller that holds the lock and waits for other processes."""
        patience = Patience(self._slot.crowd, deadline)
        try:
            yield patience
        finally:
            patience.over()

    def busy(self, *, maybe_written: bool = False) -> StoreBusyError:
        """The error of a deadline that has passed."""
        return StoreBusyError(
            f"{self.path!r} was held by others until the deadline: give it more time",
            maybe_written=maybe_written,
        )

    @contextlib.contextmanager
    def held(self, deadline: float) -> Generator[None]:
        """Hold this process's lock.

        Raises:
            StoreBusyError: Other threads kept it until the deadline.
        """
        lock = self._slot.lock
        if not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self.busy()
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def transaction(self, *, timeout: float) -> Generator[sqlite3.Connection]:
        """One write transaction, committed at the end of the block, undone if the block raises.

        Args:
            timeout: Seconds to wait for others.

        Raises:
            StoreError: `maybe_written` is true only if the commit itself failed half-way.
        """
        deadline = time.monotonic() + timeout
        with self.held(deadline):
            connection = self.persist(_begin, deadline=deadline)
            with (
                self._inside(),
                self._failing(connection, committing=True),
                connection,
                self._failing(connection, committing=False),
            ):
                yield connection

    def close(self, timeout: float) -> bool:
        """Close for good.

        Args:
            timeout: Seconds to wait for what other threads are doing.

        Returns:
            Whether it is closed; False if another thread was still at it.
        """
        self._slot.closed = True
        return self._slot.dispose(max(0.0, timeout))

    @contextlib.contextmanager
    def _inside(self) -> Generator[None]:
        """Tell calls from signal handlers and finalizers of this thread that they are in one."""
        self._slot.inside = True
        try:
            yield
        finally:
            self._slot.inside = False

    @contextlib.contextmanager
    def _failing(self, connection: sqlite3.Connection, *, committing: bool) -> Generator[None]:
        try:
            yield
        except RAISED_BY_SQLITE as exc:
            if connection is not self._slot.connection:
                raise self._cut_off() from exc
            raise self._translated(exc, committing=committing) from exc

    def _cut_off(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"a fork or a close ended a transaction on {self.path!r}")

    def _translated(self, exc: Exception, *, committing: bool) -> StoreError:
        """Our error for SQLite's; a connection that has failed is not used again."""
        error = translated(exc, self.path, committing=committing)
        if not isinstance(error, StoreInputError | StoreBusyError):
            self._slot.drop()
        return error

    def _connection(self) -> sqlite3.Connection:
        slot = self._slot
        if slot.pid != os.getpid():
            slot.adopt()
        if slot.inside:
            raise StoreBusyError(f"{self.path!r} is in a transaction of this very thread")
        if time.monotonic() >= slot.look_at:
            slot.look()
        connection = slot.connection
        if connection is None:
            return self._open()
        if connection.in_transaction:  # an interrupt left it behind
            connection.rollback()
        return connection

    def _open(self) -> sqlite3.Connection:
        if self._slot.closed:
            raise StoreClosedError(f"the store of {self.path!r} is closed: build another one")
        if self._slot.poisoned:
            raise StoreUnavailableError(
                f"this process was forked inside a transaction on {self.path!r}: fork elsewhere"
            )
        with self._inside():
            connection = open_file(self.path, self._synchronous)
            self._slot.fill(connection)
        return connection


def _file_path(path: str | os.PathLike[str]) -> str:
    """The absolute path: the file is opened late, maybe from another working directory."""
    text = os.fsdecode(path)
    if not text or text.startswith(":memory:"):
        raise ValueError("path has to name a file: the queue lives in it")
    return str(Path(text).absolute())


def _begin(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("BEGIN IMMEDIATE")
    return connection
