"""The durable queue in one SQLite file: store, idempotency and dead letters."""

from __future__ import annotations

from dispatchers.sqlite._dead_letters import QueueDeadLetters, SQLiteDeadLetters
from dispatchers.sqlite._records import (
    Counts,
    DeadJob,
    Exchange,
    Finish,
    Job,
    NewJob,
    Outcome,
    Put,
    Stored,
)

from ._connection import Database
from ._errors import (
    StoreBusyError,
    StoreClosedError,
    StoreConflictError,
    StoreError,
    StoreFormatError,
    StoreFullError,
    StoreInputError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from ._file import Synchronous
from ._idempotency import SQLiteIdempotencyStore
from ._journal import SQLiteJournal
from ._store import SQLiteStore

__all__ = [
    "Counts",
    "Database",
    "DeadJob",
    "Exchange",
    "Finish",
    "Job",
    "NewJob",
    "Outcome",
    "Put",
    "QueueDeadLetters",
    "SQLiteDeadLetters",
    "SQLiteIdempotencyStore",
    "SQLiteJournal",
    "SQLiteStore",
    "StoreBusyError",
    "StoreClosedError",
    "StoreConflictError",
    "StoreError",
    "StoreFormatError",
    "StoreFullError",
    "StoreInputError",
    "StoreReadOnlyError",
    "StoreUnavailableError",
    "Stored",
    "Synchronous",
]
