"""`sqlite`: a durable queue in one file, with nothing installed.

Work is `ACCEPTED` when it is on the disk, and then survives the death of every process involved.
For one machine, with any number of processes and threads; a deployment that outgrows it changes
one line of configuration to a broker. Its worker runs handlers in child processes that can be
killed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dispatchers._dispatch.protocol import Sent
from dispatchers._dispatch.publishing import PublishingDispatcher
from dispatchers._dispatch.shared_sending import SharedSending
from dispatchers._dispatch.worker_protocol import Worker, WorkerOptions
from dispatchers._errors import ConfigurationError, ErrorCategory
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.dead_letter import DeadLetterStore
from dispatchers._models.keyed import conflict, digest_of
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchStatus
from dispatchers._models.stats import Stats, queue_stats
from dispatchers._stores.loading import count_dead, dead_letters
from dispatchers.sqlite import (
    NewJob,
    Put,
    QueueDeadLetters,
    StoreBusyError,
    StoreClosedError,
    Stored,
    StoreError,
    StoreFormatError,
    StoreFullError,
    StoreInputError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from dispatchers.sqlite._collecting import collector_of
from dispatchers.sqlite._errors import closed_to_us
from dispatchers.sqlite._options import SQLiteOptions, open_store

if TYPE_CHECKING:
    from dispatchers.moving import Claims

__all__ = ["SQLiteDispatcher"]

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


class SQLiteDispatcher(PublishingDispatcher[NewJob | Sent]):
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
        stats=True,
        max_size=LARGEST,
    )
    # The file takes all of a batch or none; what is in conflict is never taken.
    stops_at_failure = True
    posix_worker = True
    Options = SQLiteOptions
    options: SQLiteOptions

    def __init__(
        self, options: SQLiteOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self._store = open_store(self.options)
        self.journal = f"sqlite:{self.options.path}"

    def _shared_send(
        self, sharing: SharedSending, request: DispatchRequest, body: bytes, timeout: float
    ) -> Sent:
        # The store has threads share a commit, with those of other dispatchers of the file, too.
        del sharing
        return self._send(request, body, timeout=timeout)

    def _prepare(self, request: DispatchRequest, body: bytes) -> NewJob | Sent:
        job = self._job(request, body)
        # Asked by the caller: another's thread may write what is put now.
        return Sent(job.id, DispatchStatus.DEFERRED) if self._is_held(request, job) else job

    def _publish(
        self, messages: Sequence[NewJob | Sent], timeout: float
    ) -> Sequence[Sent | Exception]:
        jobs = [each for each in messages if isinstance(each, NewJob)]
        put = iter(self._put(jobs, timeout) if jobs else ())
        return [next(put) if isinstance(each, NewJob) else each for each in messages]

    def _put(self, jobs: Sequence[NewJob], timeout: float) -> list[Sent | Exception]:
        if len(jobs) == 1:
            answers = [self._store.put(jobs[0], timeout=timeout)]
        else:
            answers = self._store.put_many(jobs, timeout=timeout)
        return [
            conflict(job.task) if stored.put is Put.CONFLICT else _sent(stored)
            for job, stored in zip(jobs, answers, strict=True)
        ]

    def _is_held(self, request: DispatchRequest, job: NewJob) -> bool:
        """Tell whether a job is put together with what it follows from, which is recorded later."""
        collector = collector_of(self._store.path)
        if collector is None:
            return False
        if not collector.is_open:
            collector.puts = True
            return False
        collector.follow(job, request)
        return True

    def _job(self, request: DispatchRequest, body: bytes) -> NewJob:
        due, expires = request.due, request.expires_at
        return NewJob(
            request.id,
            request.task,
            # A row needs a queue, so that workers which serve named queues find it.
            request.queue or self.options.queue or DEFAULT_QUEUE,
            body,
            request.priority or 0,
            None if due is None else due.timestamp(),
            None if expires is None else expires.timestamp(),
            request.idempotency_key,
            digest=digest_of(request),
        )

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        # An exception that the store does not know may have come after the commit.
        return not isinstance(exc, StoreError) or exc.maybe_written

    def _check(self) -> None:
        if (words := closed_to_us(self._store.path)) is not None:
            raise ConfigurationError(f"dispatcher {self.alias!r}: {self._store.path} {words}")
        folder = Path(self._store.path).parent
        if not folder.is_dir():
            raise ConfigurationError(f"dispatcher {self.alias!r}: no directory {folder}: make it")
        # The folder, not only the file: SQLite makes its journal files beside it.
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"dispatcher {self.alias!r}: {folder} cannot be written: let this process write it"
            )

    def _probe(self, *, timeout: float) -> None:
        self._store.check(timeout=timeout)

    def _close(self, timeout: float) -> int:
        self._store.close(timeout)
        return 0

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        found = self._store.counts_by_queue(timeout=timeout)
        spec = self.options.dead_letters
        return queue_stats(
            waiting=found.waiting,
            running=found.running,
            delayed=found.delayed,
            dead=found.dead if spec is None else count_dead(dead_letters(spec)),
            oldest=found.oldest,
            queues=(self.options.queue or DEFAULT_QUEUE, *self.options.queues),
        )

    def _worker(self, options: WorkerOptions) -> Worker:
        # Late: processes that only dispatch do not load the worker.
        from dispatchers.sqlite._worker.worker import SQLiteWorker

        return SQLiteWorker(self.options, options)

    def _moving(self, queues: Sequence[str] | None) -> Claims:
        # Late: only `dispatchers move` claims work to move it.
        from dispatchers.sqlite._claims import SQLiteClaims

        return SQLiteClaims(self._store, queues, timeout=self.options.deadline)

    def _dead_letters(self) -> DeadLetterStore:
        spec = self.options.dead_letters
        return QueueDeadLetters(self._store.database) if spec is None else dead_letters(spec)


def category_of(exc: Exception) -> ErrorCategory | None:
    """Return the category of an error of the file; None leaves others to the core's table."""
    return _CATEGORIES.get(type(exc)) if isinstance(exc, StoreError) else None


def _sent(stored: Stored) -> Sent:
    return Sent(stored.id, _STATUS[stored.put])
