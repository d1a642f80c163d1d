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

from dispatchers.sqlite._commit_queue import WaitingRows
from dispatchers.sqlite._lock_wait import Contention, LockWait
from dispatchers.sqlite._process_connection import ProcessConnection

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
        self._slot = ProcessConnection(self.path)
        # Not `__del__`: a finalizer also runs at the interpreter's exit, while sqlite3 still works.
        weakref.finalize(self, self._slot.dispose)

    @classmethod
    def at(cls, path: str | os.PathLike[str] | Database, *, synchronous: Synchronous) -> Database:
        """Return the database of a path, or the one that is given as it is."""
        return path if isinstance(path, Database) else cls(path, synchronous=synchronous)

    @property
    def lock(self) -> threading.RLock:
        """The lock around this process's connection. Another one after a fork."""
        return self._slot.lock

    def tokens(self) -> Iterator[int]:
        """Numbers that no process has had: a start at random, counted up, another after a fork."""
        return self._slot.tokens

    @property
    def line(self) -> deque[WaitingRows]:
        """Return the rows that threads wait to have written. Another queue after a fork."""
        return self._slot.line

    @property
    def crowd(self) -> Contention:
        """Return what is known of other processes that want to write."""
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
        if self._slot.pid != os.getpid():  # uWSGI and other C programs fork without Python's hooks
            self._slot.adopt()
        try:
            with self._slot.use:
                return work(self._connection())
        except RAISED_BY_SQLITE as exc:
            # Not translated yet: the caller tries again, and only then is it an error.
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

    def read(self, work: Callable[[sqlite3.Connection], T], *, deadline: float) -> T:
        """As `run`, for what only reads: with a log, no writer is in its way."""
        with self.held(deadline):
            try:
                return self.attempt(work)
            except RAISED_BY_SQLITE:
                return self.persist(work, deadline=deadline)

    def persist(self, work: Callable[[sqlite3.Connection], T], *, deadline: float) -> T:
        """As `run`, for a caller that holds the lock."""
        # The usual case takes no turn: no other waits, and a write succeeds at once.
        if not self._slot.crowd.waits or deadline <= time.monotonic():
            try:
                return self.attempt(work)
            except RAISED_BY_SQLITE:
                pass
        # SQLite's own busy handler knows no order and no deadline of ours, so it is not used.
        with self.waiting(deadline) as lock_wait:
            while lock_wait.wait():
                with contextlib.suppress(*RAISED_BY_SQLITE):
                    return self.attempt(work)
        raise self.busy()

    @contextlib.contextmanager
    def waiting(self, deadline: float) -> Generator[LockWait]:
        """For a caller that holds the lock and waits for other processes."""
        wait = LockWait(self._slot.crowd, deadline)
        try:
            yield wait
        finally:
            wait.over()

    def busy(self, *, maybe_written: bool = False) -> StoreBusyError:
        """The error of a deadline that has passed."""
        return StoreBusyError(
            f"{self.path!r} was held by others until the deadline: give it more time",
            maybe_written=maybe_written,
        )

    def held(self, deadline: float) -> Held:
        """Hold this process's lock within a block.

        Raises:
            StoreBusyError: On entry, if other threads kept it until the deadline.
        """
        return Held(self, deadline)

    @contextlib.contextmanager
    def transaction(self, *, timeout: float) -> Generator[sqlite3.Connection]:
        """One write transaction, committed at the end of the block, undone if the block raises.

        Args:
            timeout: Seconds to wait for others.

        Raises:
            StoreError: `maybe_written` is true only if the commit itself failed half-way.
        """
        deadline = time.monotonic() + timeout
        begun: sqlite3.Connection | None = None
        with self.held(deadline):
            # A fork ends a transaction that came before its first statement.
            while begun is None:
                self.persist(_begin, deadline=deadline)
                with self._slot.use:
                    if (begun := self._slot.begun) is not None:
                        yield from self._committed(begun)

    def _committed(self, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        """Yield the connection of a transaction, and end it."""
        # Told to calls from signal handlers and finalizers of this thread.
        self._slot.inside = True
        committing = False
        try:
            yield connection
            committing = True
            connection.commit()
        except RAISED_BY_SQLITE as exc:
            raise self._failed(connection, exc, committing=committing) from exc
        except BaseException:
            _undo(connection)
            raise
        finally:
            self._slot.inside = False

    def close(self, timeout: float) -> bool:
        """Close permanently.

        Args:
            timeout: Seconds to wait for what other threads are doing.

        Returns:
            Whether it is closed; False if another thread was still at it.
        """
        # Before the wait, so that no other thread opens it again meanwhile.
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

    def _failed(
        self, connection: sqlite3.Connection, exc: Exception, *, committing: bool
    ) -> StoreError:
        """Undo a transaction that has failed; returns our error for SQLite's."""
        # The block itself forked or closed the store, so its transaction is gone, not failed.
        if connection is not self._slot.connection:
            return self._cut_off()
        _undo(connection)
        return self._translated(exc, committing=committing)

    def _cut_off(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"a fork or a close ended a transaction on {self.path!r}")

    def _translated(self, exc: Exception, *, committing: bool) -> StoreError:
        """Our error for SQLite's; a connection that has failed is not used again."""
        error = translated(exc, self.path, committing=committing)
        if not isinstance(error, StoreInputError | StoreBusyError):
            # After an I/O error or a corrupt page, its cache cannot be trusted.
            self._slot.drop()
        return error

    def _connection(self) -> sqlite3.Connection:
        slot = self._slot
        # A second statement would become part of the open transaction, and be undone with it.
        if slot.inside:
            raise StoreBusyError(f"{self.path!r} is in a transaction of this very thread")
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


class Held:
    """Block in which a thread holds the lock of its process's connection.

    No generator: each call to the file passes here, and one would cost as much as a statement.

    Args:
        database: Whose lock it is.

        deadline: The instant of `time.monotonic()` until which it waits for other threads.
    """

    __slots__ = ("_database", "_deadline", "_lock")

    def __init__(self, database: Database, deadline: float) -> None:
        self._database = database
        self._deadline = deadline
        self._lock = database.lock

    def __enter__(self) -> None:
        # The wait for threads of this process counts against the same deadline.
        if not self._lock.acquire(timeout=max(0.0, self._deadline - time.monotonic())):
            raise self._database.busy()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _file_path(path: str | os.PathLike[str]) -> str:
    """The absolute path: the file is opened late, maybe from another working directory."""
    text = os.fsdecode(path)
    if not text or text.startswith(":memory:"):
        raise ValueError("path has to name a file: the queue lives in it")
    return str(Path(text).absolute())


def _undo(connection: sqlite3.Connection) -> None:
    # What SQLite has undone by itself, or closed, needs no more.
    with contextlib.suppress(sqlite3.Error):
        connection.rollback()


def _begin(connection: sqlite3.Connection) -> sqlite3.Connection:
    # The write lock at once: a read transaction that is upgraded later fails without waiting.
    connection.execute("BEGIN IMMEDIATE")
    return connection
