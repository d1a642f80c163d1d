"""The transactional outbox: work is a row beside the data, and leaves once that is committed."""

from __future__ import annotations

from ._insert import NewRow, insertion
from ._rows import OutboxRows
from ._store import CHANNEL, CursorExecutor, Executor, Result, Store
from ._stores import ConnectionStore, PostgresStore, SQLiteStore
from ._table import DIALECTS, LEADERS, ROWS, TABLES, Column, Index, Kind, Table, schema

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
    "OutboxRows",
    "PostgresStore",
    "Result",
    "SQLiteStore",
    "Store",
    "Table",
    "insertion",
    "schema",
]
