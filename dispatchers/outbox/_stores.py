"""Databases with a connection of their own: SQLite, and PostgreSQL by psycopg."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dispatchers._errors import ErrorCategory, MissingDependencyError, RejectedError
from dispatchers._runtime.fork import renew_after_fork

from ._errors import category_of
from ._store import CHANNEL, CursorExecutor, Executor, Store

__all__ = ["ConnectionStore", "PostgresStore", "SQLiteStore"]

LOOK = 0.01
"""Seconds between two looks whether a file of SQLite has changed: a look takes microseconds."""
SLICE = 0.25
"""Seconds until it is noticed that nobody wants to know any more."""
FORK_WAIT = 2.0
"""Seconds that a fork waits for transactions that run."""
AGAIN = 1.0
"""Seconds until a connection that was lost is made again."""

_parents: list[object] = []
"""Connections of a parent process, which must not be closed in its children."""


class ConnectionStore(Store):
    """A store with one connection per process, used by one thread at a time."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._lock = threading.Lock()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        _parents.append(self._connection)
        self._connection, self._lock = None, threading.Lock()

    @abstractmethod
    def _connect(self, timeout: float) -> Any:
        """Return a new connection."""

    @abstractmethod
    def _begun(self, connection: Any, timeout: float, *, write: bool) -> Any:
        """Return a context manager: a transaction, as an executor."""

    @contextmanager
    def transaction(self, *, timeout: float, write: bool = True) -> Iterator[Executor]:
        """Begin a transaction, which is committed at the end, or rolled back."""
        until = time.monotonic() + timeout
        if not self._lock.acquire(timeout=timeout):
            words = "other threads of this process were at the database all the time"
            raise RejectedError(ErrorCategory.TIMEOUT, words)
        try:
            if self._connection is None:
                self._connection = self._connected(max(until - time.monotonic(), 0.05))
            left = max(until - time.monotonic(), 0.05)
            with self._begun(self._connection, left, write=write) as executor:
                yield executor
        except BaseException:
            self._discard()  # it may be broken, and another one is made soon
            raise
        finally:
            self._lock.release()

    def _connected(self, timeout: float) -> Any:
        try:
            return self._connect(timeout)
        except Exception as exc:
            # Certainly nothing was written.
            raise RejectedError.because(exc, category_of(exc)) from exc

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def close(self, timeout: float = 5.0) -> None:
        """Close the connection, unless another thread is still at it."""
        if self._lock.acquire(timeout=timeout):
            try:
                self._discard()
            finally:
                self._lock.release()


class SQLiteStore(ConnectionStore):
    """A file of SQLite, which is the application's: nothing about it is changed.

    Args:
        path: The file. It is not created.
    """

    dialect = "sqlite"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._watching: sqlite3.Connection | None = None
        self._look = threading.Lock()
        super().__init__()
        _files.add(self)

    def _after_fork(self) -> None:
        super()._after_fork()
        _parents.append(self._watching)
        self._watching, self._look = None, threading.Lock()

    def part(self, seconds: float) -> list[threading.Lock]:
        """Close what is open before a fork, and hold the locks; what is in use too long stays."""
        until = time.monotonic() + seconds
        held = [
            lock
            for lock in (self._lock, self._look)
            if lock.acquire(timeout=max(0.0, until - time.monotonic()))
        ]
        if self._lock in held:
            self._discard()
        if self._look in held and self._watching is not None:
            self._watching.close()
            self._watching = None
        return held

    def _connect(self, timeout: float) -> sqlite3.Connection:
        if not os.path.exists(self.path):  # noqa: PTH110 - else SQLite makes an empty one
            raise FileNotFoundError(f"there is no file {self.path!r}")
        return sqlite3.connect(
            self.path, timeout=timeout, isolation_level=None, check_same_thread=False
        )

    @contextmanager
    def _begun(
        self, connection: sqlite3.Connection, timeout: float, *, write: bool
    ) -> Iterator[Executor]:
        connection.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")
        # At once for writing: a transaction that reads first cannot wait for another writer.
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        yield CursorExecutor(connection.cursor(), "?")
        connection.execute("COMMIT")

    def watch(self, changed: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """Look at the counter that each commit of another connection raises."""
        seen: object = self
        while not stopping():
            now = self._counter()
            if now != seen:
                seen = now
                changed()
            time.sleep(AGAIN if now is None else LOOK)
        with self._look:
            if self._watching is not None:
                self._watching.close()
                self._watching = None

    def _counter(self) -> object:
        with self._look:
            try:
                if self._watching is None:
                    self._watching = self._connect(SLICE)
                (found,) = self._watching.execute("PRAGMA data_version").fetchone()
            except (OSError, sqlite3.Error):
                self._watching = None
                return None
        return id(self._watching), found


_files: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()
_parted: list[threading.Lock] = []


def _before_fork() -> None:
    """Close every file: a child that inherits one believes it holds the locks of its parent."""
    until = time.monotonic() + FORK_WAIT
    for store in tuple(_files):
        _parted.extend(store.part(until - time.monotonic()))


def _after_in_parent() -> None:
    while _parted:
        _parted.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_parted.clear
    )


class PostgresStore(ConnectionStore):
    """A database of PostgreSQL, by psycopg.

    Args:
        url: `postgresql://...`, as libpq takes it.

    Raises:
        MissingDependencyError: psycopg is not installed.
    """

    dialect = "postgresql"

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as exc:
            raise MissingDependencyError(
                "an outbox in PostgreSQL needs psycopg: pip install 'psycopg[binary]'"
            ) from exc
        self._psycopg: Any = psycopg
        self._url = url
        self._limit = 0
        super().__init__()

    def _connect(self, timeout: float) -> Any:
        self._limit = 0
        # Else a server that is cut off would be waited for until TCP gives up, minutes later.
        return self._psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=max(2, round(timeout)),  # libpq takes no less
            tcp_user_timeout=10_000,
            keepalives_idle=10,
        )

    @contextmanager
    def _begun(self, connection: Any, timeout: float, *, write: bool) -> Iterator[Executor]:
        limit = max(1, int(timeout * 1000))
        # Its own connection, whose limit is set when it differs much from the last one.
        if not self._limit / 2 <= limit <= self._limit * 2:
            connection.execute(f"SET statement_timeout = {limit}")
            self._limit = limit
        cursor = CursorExecutor(connection.cursor(), "%s")
        if not write:
            yield cursor
            return
        with connection.transaction():
            yield cursor

    def watch(self, changed: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """Listen for what is notified at the commit of each transaction that added rows."""
        while not stopping():
            with contextlib.suppress(self._psycopg.Error):
                with self._connect(AGAIN) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    changed()  # for what was committed before
                    while not stopping():
                        for _ in connection.notifies(timeout=SLICE, stop_after=1):
                            changed()
                return
            time.sleep(AGAIN)
