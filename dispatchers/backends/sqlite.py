"""`sqlite`: a durable queue in one file, with nothing installed.

Work is `ACCEPTED` when it is on the disk, and then survives the death of every process involved.
For one machine, with any number of processes and threads; whoever outgrows it changes one line of
configuration to a broker. Its worker runs handlers in child processes that can be killed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from dispatchers._capabilities import Capabilities
from dispatchers._contract import BaseDispatcher, Item, Sent
from dispatchers._dead import DeadLetterStore
from dispatchers._errors import ConfigurationError, ErrorCategory
from dispatchers._options import BackendOptions
from dispatchers._request import DispatchRequest
from dispatchers._response import DispatchStatus
from dispatchers._stores import dead_letters
from dispatchers._worker import Worker, WorkerOptions
from dispatchers.sqlite import (
    NewJob,
    Put,
    QueueDeadLetters,
    SQLiteStore,
    StoreBusyError,
    StoreClosedError,
    Stored,
    StoreError,
    StoreFormatError,
    StoreFullError,
    StoreInputError,
    StoreReadOnlyError,
    StoreUnavailableError,
    Synchronous,
)

__all__ = ["SQLiteDispatcher", "SQLiteOptions"]

DEFAULT_QUEUE = "default"
LARGEST = 256 * 1024 * 1024
"""Bytes of an envelope. SQLite itself ends at 1e9 (https://sqlite.org/limits.html, 3.40)."""

_STATUS = {Put.INSERTED: DispatchStatus.ACCEPTED, Put.DUPLICATE: DispatchStatus.DUPLICATE}

_CATEGORIES: dict[type[StoreError], ErrorCategory] = {
    StoreBusyError: ErrorCategory.TIMEOUT,
    StoreFullError: ErrorCategory.CAPACITY,
    StoreReadOnlyError: ErrorCategory.PERMISSION,
    StoreUnavailableError: ErrorCategory.UNAVAILABLE,
    StoreFormatError: ErrorCategory.CONFIGURATION,
    StoreInputError: ErrorCategory.INVALID,
    StoreClosedError: ErrorCategory.CLOSED,
}


def _text(value: object) -> object:
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def _file(path: str) -> str:
    if path.startswith(":memory:"):
        raise ValueError("has to name a file that other processes can open")
    return path


FilePath = Annotated[str, BeforeValidator(_text), AfterValidator(_file), Field(min_length=1)]


class SQLiteOptions(BackendOptions):
    """Options of `sqlite`."""

    path: FilePath
    """The file, created on first use, readable by its owner only; its directory has to exist."""
    synchronous: Synchronous = "full"
    """`full` survives a loss of power; `normal` is faster and survives the loss of processes."""
    lease: float = Field(default=60.0, ge=1, le=86400)
    """Seconds without a sign of life after which a worker's work is given to others."""
    retention: float = Field(default=86400.0, ge=0)
    """Seconds for which ids and keys of finished work are remembered as duplicates."""


class SQLiteDispatcher(BaseDispatcher):
    """Hands work over to a file."""

    name = "sqlite"
    contract = 1
    capabilities = Capabilities(
        delay=True,
        priority=True,
        kills=True,
        retries=True,
        deduplicate=True,
        queues=True,
        batch=True,
        confirmed=True,
        durable=True,
        worker=True,
        dead_letters=True,
        max_size=LARGEST,
    )
    Options = SQLiteOptions
    options: SQLiteOptions

    def __init__(
        self, options: SQLiteOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self._store = open_store(self.options)

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return _sent(self._store.put(self._job(request, body), timeout=timeout))

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        jobs = [self._job(request, body) for request, body in items]
        return [_sent(stored) for stored in self._store.put_many(jobs, timeout=timeout)]

    def _job(self, request: DispatchRequest, body: bytes) -> NewJob:
        due, expires = request.due, request.expires_at
        return NewJob(
            request.id,
            request.task,
            request.queue or self.options.queue or DEFAULT_QUEUE,
            body,
            request.priority or 0,
            None if due is None else due.timestamp(),
            None if expires is None else expires.timestamp(),
            request.idempotency_key,
        )

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return _CATEGORIES.get(type(exc)) if isinstance(exc, StoreError) else None

    def _maybe_sent(self, exc: Exception) -> bool:
        return not isinstance(exc, StoreError) or exc.maybe_written

    def _check(self) -> None:
        folder = Path(self._store.path).parent
        if not folder.is_dir():
            raise ConfigurationError(f"dispatcher {self.alias!r}: no directory {folder}: make it")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"dispatcher {self.alias!r}: {folder} cannot be written: let this process write it"
            )

    def _probe(self, *, timeout: float) -> None:
        self._store.open(timeout=timeout)

    def _close(self, timeout: float) -> int:
        self._store.close(timeout)
        return 0

    def _worker(self, options: WorkerOptions) -> Worker:
        from dispatchers.sqlite._worker import SQLiteWorker

        return SQLiteWorker(self.options, options)

    def _dead_letters(self) -> DeadLetterStore:
        spec = self.options.dead_letters
        return QueueDeadLetters(self._store.database) if spec is None else dead_letters(spec)


def open_store(options: SQLiteOptions) -> SQLiteStore:
    """The store that the options describe; its file is opened on first use."""
    return SQLiteStore(
        options.path,
        synchronous=options.synchronous,
        lease=options.lease,
        retention=options.retention,
    )


def _sent(stored: Stored) -> Sent:
    return Sent(stored.id, _STATUS[stored.put])
