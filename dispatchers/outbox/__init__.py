"""The transactional outbox: work is a row beside the data, and leaves once that is committed.

::

    with Session(engine) as session, session.begin():
        session.add(Order(number=42))
        send_receipt.options(dispatcher=Outbox(session)).dispatch(order=42)

`pip install "dispatchers[sqlalchemy]"` for sessions and engines of SQLAlchemy; `sqlite3` needs
nothing. docs/never-lose.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._dispatcher import OutboxDispatcher, OutboxOptions, outboxes
from ._errors import category_of
from ._insert import NewRow, insertion
from ._outbox import Outbox
from ._results import OnResult
from ._rows import OutboxRows
from ._store import CHANNEL, CursorExecutor, Executor, Result, Store
from ._stores import ConnectionStore, PostgresStore, SQLiteStore
from ._table import DIALECTS, LEADERS, ROWS, TABLES, Column, Index, Kind, Table, schema
from ._tables import create_tables
from ._target import OnEnd, Statements, Target
from ._targets import bounded

if TYPE_CHECKING:
    from ._sqlalchemy import metadata

__all__ = [
    "CHANNEL",
    "DIALECTS",
    "LEADERS",
    "ROWS",
    "TABLES",
    "Column",
    "ConnectionStore",
    "CursorExecutor",
    "Executor",
    "Index",
    "Kind",
    "NewRow",
    "OnEnd",
    "OnResult",
    "Outbox",
    "OutboxDispatcher",
    "OutboxOptions",
    "OutboxRows",
    "PostgresStore",
    "Result",
    "SQLiteStore",
    "Statements",
    "Store",
    "Table",
    "Target",
    "bounded",
    "category_of",
    "create_tables",
    "insertion",
    "metadata",
    "outboxes",
    "schema",
]


def __getattr__(name: str) -> Any:
    if name != "metadata":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ._loading import sqlalchemy_part  # SQLAlchemy is imported by those who ask only

    return sqlalchemy_part("metadata")
