"""Making the tables of an outbox."""

from __future__ import annotations

import sqlite3
import sys
from typing import Any

from ._loading import is_sqlalchemy, sqlalchemy_part
from ._table import schema

__all__ = ["create_tables"]


def create_tables(where: Any) -> None:
    """Make the tables of the outbox where they are missing.

    Args:
        where: An engine of SQLAlchemy, in which it is committed; or a connection of SQLAlchemy,
            `sqlite3` or psycopg, whose transaction it becomes a part of. Of an asynchronous one:
            `await connection.run_sync(create_tables)`; of another driver, run `schema(dialect)`.

    Raises:
        TypeError: It is something else.
    """
    if is_sqlalchemy(where, "Engine"):
        with where.begin() as connection:
            create_tables(connection)
        return
    if is_sqlalchemy(where, "Session"):
        where = where.connection()
    if is_sqlalchemy(where, "Connection"):
        dialect: str = sqlalchemy_part("dialect_of")(where)
        run = where.exec_driver_sql
    elif isinstance(where, sqlite3.Connection):
        dialect, run = "sqlite", where.execute
    elif "psycopg" in sys.modules and isinstance(where, sys.modules["psycopg"].Connection):
        dialect, run = "postgresql", where.execute
    else:
        raise TypeError(
            f"tables cannot be made in {type(where).__name__}: give an engine or a connection of "
            "SQLAlchemy, or a connection of sqlite3 or psycopg"
        )
    for statement in schema(dialect):
        run(statement)
