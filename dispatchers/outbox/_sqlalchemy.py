"""The outbox in SQLAlchemy: its tables, any database as a store, and a session's commits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from dispatchers._errors import ConfigurationError, MissingDependencyError
from dispatchers._runtime.fork import renew_after_fork
from dispatchers._runtime.fork_gate import ForkGate

from ._store import Executor, Result, Store, marked
from ._table import DIALECTS, TABLES, Column, Kind

__all__ = ["SQLAlchemyStore", "commits_itself", "dialect_of", "mark_of", "metadata"]

FORK_WAIT = 2.0
"""Seconds that a fork waits for transactions that run."""
AUTOCOMMIT = "AUTOCOMMIT"
"""The isolation level that has no transactions."""
MARKS = {"qmark": "?", "format": "%s", "pyformat": "%s", "numeric_dollar": "$"}


def dialect_of(engine: Any) -> str:
    """Return the dialect of an engine or connection, as the outbox calls it.

    Raises:
        ConfigurationError: The outbox has no SQL for it.
    """
    name = str(engine.dialect.name)
    name = "mysql" if name == "mariadb" else name
    if name not in DIALECTS or engine.dialect.paramstyle not in MARKS:
        raise ConfigurationError(
            f"an outbox has no SQL for {engine.dialect.name!r} by {engine.dialect.driver!r}: "
            f"use one of {', '.join(DIALECTS)}"
        )
    return name


def commits_itself(engine: Any) -> bool:
    """Tell whether statements of an engine or connection are committed by themselves."""
    given = engine.get_execution_options().get("isolation_level")
    # SQLAlchemy itself looks there for the `isolation_level` of `create_engine`.
    level = given or getattr(engine.dialect, "_on_connect_isolation_level", None)
    return bool(level == AUTOCOMMIT)


def mark_of(engine: Any) -> str:
    """Return what stands for a value in the SQL of an engine's driver."""
    return MARKS[engine.dialect.paramstyle]


class SQLAlchemyStore(Store):
    """A database that SQLAlchemy knows.

    Before a fork the idle connections of a file of SQLite are closed, those of a given engine, too:
    a child that inherits one believes it holds the locks of its parent.

    Args:
        given: Its URL, or an engine, which is not owned.
    """

    def __init__(self, given: Any) -> None:
        self._owned = isinstance(given, str)
        try:
            # One connection, for the threads of this process take turns; asked before it is used,
            # as servers close those that are idle.
            self._engine: Any = (
                sa.create_engine(given, pool_pre_ping=True, pool_size=1) if self._owned else given
            )
        except (ArgumentError, NoSuchModuleError) as exc:
            raise ConfigurationError(f"store is no URL that SQLAlchemy takes: {exc}") from None
        except ImportError as exc:
            raise MissingDependencyError(
                f"the driver that store names is not installed: pip install {exc.name!r}"
            ) from exc
        self.dialect = dialect_of(self._engine)
        self._gate, self._idle = ForkGate(FORK_WAIT), IdleConnections(self._engine)
        if self.dialect == "sqlite":
            self._gate.guard(self._idle)
        renew_after_fork(self)

    def _after_fork(self) -> None:
        with contextlib.suppress(Exception):
            self._engine.dispose(close=False)

    @contextmanager
    def transaction(self, *, timeout: float, write: bool = True) -> Iterator[Executor]:
        """Begin a transaction, which is committed at the end, or rolled back."""
        with self._gate.entered(), self._engine.begin() as connection:
            yield ConnectionExecutor(connection)

    def close(self, timeout: float = 5.0) -> None:
        """Close the connections of an engine of its own."""
        if self._owned:
            self._engine.dispose()


class IdleConnections:
    """The pool of an engine as what a fork takes: it is emptied, once no transaction runs."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Close what is idle, but connections that are a database in memory themselves."""
        del blocking, timeout
        with contextlib.suppress(Exception):  # a fork must not fail for it
            if not isinstance(self._engine.pool, SingletonThreadPool | StaticPool):
                self._engine.dispose()
        return True

    def release(self) -> None:
        """Leave it: connections are made as they are wanted."""


class ConnectionExecutor:
    """Runs statements on a connection of SQLAlchemy.

    Args:
        connection: Not owned, never closed.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, sql: str, values: Sequence[object] = ()) -> Result:
        """Run one statement."""
        statement = marked(sql, mark_of(self._connection))
        result = self._connection.exec_driver_sql(statement, tuple(values))
        rows = [tuple(each) for each in result] if result.returns_rows else []
        return Result(rows, result.rowcount)


_EXACT = {"charset": "utf8mb4", "collation": "utf8mb4_bin"}
_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # else it does not count up there
_TYPES: dict[Kind, Any] = {
    Kind.SERIAL: _INTEGER,
    Kind.LONG_TEXT: sa.Text().with_variant(mysql.LONGTEXT(**_EXACT), "mysql", "mariadb"),
    Kind.BYTES: sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb"),
    Kind.INTEGER: sa.Integer(),
    Kind.BIG: sa.BigInteger(),
    Kind.REAL: sa.Double(),
    Kind.BOOLEAN: sa.Boolean(),
}


def _column(column: Column) -> Any:
    exact = mysql.VARCHAR(column.size or 1, **_EXACT)
    text = sa.String(column.size).with_variant(exact, "mysql", "mariadb")
    kind = text if column.kind is Kind.TEXT else _TYPES[column.kind]
    serial = column.kind is Kind.SERIAL
    return sa.Column(
        column.name,
        kind,
        *([sa.Identity(always=False)] if serial else []),
        primary_key=column.primary,
        autoincrement=serial,
        unique=column.unique or None,
        nullable=column.null,
    )


metadata: Any = sa.MetaData()
"""The tables of the outbox, for Alembic: `target_metadata = [Base.metadata, metadata]`."""

for _table in TABLES:
    sa.Table(
        _table.name,
        metadata,
        *[_column(each) for each in _table.columns],
        *[sa.Index(each.name, *each.columns) for each in _table.indexes],
        sqlite_autoincrement=any(each.kind is Kind.SERIAL for each in _table.columns),
    )
