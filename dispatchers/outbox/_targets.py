"""Connections and sessions of an application, as what a row is added to.

Nothing here begins, commits or rolls back a transaction: a driver that begins one by itself with
the first statement does so here, too.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._runtime.importing import import_object

from ._deadline import busy_for, cancelled_after
from ._loading import is_sqlalchemy, sqlalchemy_part
from ._store import marked
from ._target import OnEnd, Statements, Target

__all__ = ["bounded", "target_of"]

SAVEPOINT = "dispatchers_outbox"
"""SQLite: the name of a savepoint."""
IDLE = 0
"""`psycopg.pq.TransactionStatus.IDLE`: no transaction is open."""


class _AsyncTarget(Target):
    is_async = True

    def write(self, statements: Statements, timeout: float, *, savepoint: bool) -> None:
        raise RejectedError(
            ErrorCategory.UNSUPPORTED,
            "the outbox has an asynchronous connection, which dispatch() cannot use: "
            "await .adispatch(...) instead",
        )


class SQLiteTarget(Target):
    """A `sqlite3.Connection`."""

    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def commits_itself(self) -> bool:
        """Tell whether it is in autocommit mode, with no transaction begun."""
        by_itself = (
            getattr(self._connection, "autocommit", -1) is True
            or self._connection.isolation_level is None
        )
        return by_itself and not self._connection.in_transaction

    def write(self, statements: Statements, timeout: float, *, savepoint: bool) -> None:
        """Run statements; SQLite undoes one that fails by itself."""
        block = self._savepoint() if savepoint else nullcontext()
        with busy_for(self._connection, timeout), block:
            for sql, values in statements:
                self._connection.execute(sql, values)

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        run = self._connection.execute
        if not self._connection.in_transaction and not self.commits_itself():
            run(f"BEGIN {self._connection.isolation_level}")  # as the INSERT would
        run(f"SAVEPOINT {SAVEPOINT}")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk may have undone everything
                run(f"ROLLBACK TO {SAVEPOINT}")
                run(f"RELEASE {SAVEPOINT}")
            raise
        run(f"RELEASE {SAVEPOINT}")


def _commits_itself(connection: Any) -> bool:
    return bool(connection.autocommit) and int(connection.info.transaction_status) == IDLE


class PsycopgTarget(Target):
    """A `psycopg.Connection`."""

    dialect = "postgresql"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def commits_itself(self) -> bool:
        """Tell whether it is in autocommit mode, with no transaction begun."""
        return _commits_itself(self._connection)

    def write(self, statements: Statements, timeout: float, *, savepoint: bool) -> None:
        """Run statements, which are cancelled when their time is over."""
        # Its own class: a factory of the application may write values in another way.
        cursor = sys.modules["psycopg"].Cursor(self._connection)
        guard = self._connection.transaction() if savepoint else nullcontext()
        with cancelled_after(timeout, canceller(self._connection)), guard, cursor:
            for sql, values in statements:
                cursor.execute(marked(sql, "%s"), values)


class AsyncPsycopgTarget(_AsyncTarget):
    """A `psycopg.AsyncConnection`."""

    dialect = "postgresql"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def commits_itself(self) -> bool:
        """Tell whether it is in autocommit mode, with no transaction begun."""
        return _commits_itself(self._connection)

    async def awrite(self, statements: Statements, timeout: float, *, savepoint: bool) -> None:
        """Run statements; a task that is cancelled cancels them."""
        cursor = sys.modules["psycopg"].AsyncCursor(self._connection)
        guard: Any = self._connection.transaction() if savepoint else nullcontext()
        async with guard, cursor:
            for sql, values in statements:
                await cursor.execute(marked(sql, "%s"), values)


class AsyncpgTarget(_AsyncTarget):
    """An `asyncpg.Connection`."""

    dialect = "postgresql"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def commits_itself(self) -> bool:
        """Tell whether no transaction is open; of one that is closed nothing is committed."""
        return not self._connection.is_closed() and not self._connection.is_in_transaction()

    async def awrite(self, statements: Statements, timeout: float, *, savepoint: bool) -> None:
        """Run statements, which are cancelled when their time is over."""
        guard: Any = self._connection.transaction() if savepoint else nullcontext()
        async with guard:
            for sql, values in statements:
                await self._connection.execute(marked(sql, "$"), *values, timeout=timeout)


class SQLAlchemyTarget(Target):
    """A `Connection` of SQLAlchemy."""

    def __init__(self, connection: Any) -> None:
        self._given = connection
        self.dialect = sqlalchemy_part("dialect_of")(connection)

    def _connection(self) -> Any:
        return self._given

    def commits_itself(self) -> bool:
        """Tell whether its isolation level is `AUTOCOMMIT`."""
        return bool(sqlalchemy_part("commits_itself")(self._given))

    def write(self, statements: Statements, timeout: float, *, savepoint: bool) -> None:
        """Run statements on the connection."""
        savepoint = savepoint and not self.commits_itself()  # there is none without a transaction
        execute(self._connection(), statements, timeout, savepoint=savepoint)


class SessionTarget(SQLAlchemyTarget):
    """A `Session` of SQLAlchemy: nothing is flushed."""

    def __init__(self, session: Any) -> None:
        self._given = session
        self.dialect = sqlalchemy_part("dialect_of")(session.get_bind())

    def _connection(self) -> Any:
        return self._given.connection()

    def commits_itself(self) -> bool:
        """Tell whether the isolation level of its engine is `AUTOCOMMIT`."""
        return bool(sqlalchemy_part("commits_itself")(self._given.get_bind()))

    def follow(self, told: OnEnd) -> bool:
        """Have a function told of the end of the session's transaction."""
        follow: Any = import_object("dispatchers.outbox._session:follow")
        follow(self._given, told)
        return True


class AsyncSQLAlchemyTarget(_AsyncTarget):
    """An `AsyncConnection` or `AsyncSession` of SQLAlchemy.

    Args:
        given: It.

        sync: What stands for it in code that it runs with `run_sync`.
    """

    def __init__(self, given: Any, sync: SQLAlchemyTarget) -> None:
        self._given, self._sync, self.dialect = given, sync, sync.dialect

    def commits_itself(self) -> bool:
        """Tell whether the isolation level is `AUTOCOMMIT`."""
        return self._sync.commits_itself()

    async def awrite(self, statements: Statements, timeout: float, *, savepoint: bool) -> None:
        """Run statements on the connection."""

        def write(_: object) -> None:
            self._sync.write(statements, timeout, savepoint=savepoint)

        await self._given.run_sync(write)

    def follow(self, told: OnEnd) -> bool:
        """Have a function told of the end of the session's transaction."""
        return self._sync.follow(told)


def execute(connection: Any, statements: Statements, timeout: float, *, savepoint: bool) -> None:
    """Run statements on a connection of SQLAlchemy."""
    mark = sqlalchemy_part("mark_of")(connection)
    guard = connection.begin_nested() if savepoint else nullcontext()
    with guard, bounded(connection.connection.driver_connection, timeout):
        for sql, values in statements:
            connection.exec_driver_sql(marked(sql, mark), tuple(values))


def bounded(driver: Any, timeout: float) -> AbstractContextManager[None]:
    """Have the statements of a block on a driver's connection end in time, where it can be had.

    Args:
        driver: The connection as the driver has it: of `sqlite3` or psycopg, else nothing is done.

        timeout: Seconds; of SQLite those that it waits for others.
    """
    if isinstance(driver, sqlite3.Connection):
        return busy_for(driver, timeout)
    if type(driver).__module__.startswith("psycopg") and hasattr(driver, "cancel"):
        return cancelled_after(timeout, canceller(driver))
    return nullcontext()


def canceller(connection: Any) -> Callable[[], object]:
    """Return what cancels the statement that a connection of psycopg runs."""
    safe = getattr(connection, "cancel_safe", None)  # from 3.2 on
    return connection.cancel if safe is None else lambda: safe(timeout=1.0)


def target_of(given: Any) -> Target:
    """Return what rows are added to.

    Raises:
        RejectedError: It is nothing that an outbox knows (`invalid`).
    """
    if isinstance(given, sqlite3.Connection):
        return SQLiteTarget(given)
    for module, name, kind in DRIVERS:
        driver = sys.modules.get(module)
        if driver is not None and isinstance(given, getattr(driver, name)):
            return kind(given)
    if is_sqlalchemy(given, "scoped_session", "async_scoped_session"):
        given = given()
    if is_sqlalchemy(given, "Session"):
        return SessionTarget(given)
    if is_sqlalchemy(given, "Connection"):
        return SQLAlchemyTarget(given)
    if is_sqlalchemy(given, "AsyncSession"):
        return AsyncSQLAlchemyTarget(given, SessionTarget(given.sync_session))
    if is_sqlalchemy(given, "AsyncConnection"):
        return AsyncSQLAlchemyTarget(given, SQLAlchemyTarget(given.sync_connection))
    raise RejectedError(
        ErrorCategory.INVALID,
        f"an outbox is no {type(given).__name__}: give a connection of sqlite3, psycopg or "
        "asyncpg, or a Session or Connection of SQLAlchemy",
    )


DRIVERS: tuple[tuple[str, str, Callable[[Any], Target]], ...] = (
    ("psycopg", "Connection", PsycopgTarget),
    ("psycopg", "AsyncConnection", AsyncPsycopgTarget),
    ("asyncpg", "Connection", AsyncpgTarget),
)
