"""The dead jobs of a file as the core knows dead letters."""

from __future__ import annotations

import builtins
import contextlib
import os
import time
from datetime import UTC, datetime

from pydantic import ValidationError

from dispatchers._models.dead_letter import DeadLetter
from dispatchers._models.envelope import EnvelopeError, decode, encode
from dispatchers._models.outcome import RunFailure
from dispatchers.sqlite._connection import Database
from dispatchers.sqlite._counts import count_dead
from dispatchers.sqlite._dead_jobs import DeadJobs
from dispatchers.sqlite._file import Synchronous
from dispatchers.sqlite._records import DeadJob

__all__ = ["QueueDeadLetters", "SQLiteDeadLetters", "error_text"]


class SQLiteDeadLetters:
    """A dead-letter store for any backend, in one SQLite file.

    Args:
        path: The file, which may be a queue's; or a database that is open already.

        synchronous: `"full"` survives a loss of power; `"normal"` only that of any process.

        timeout: Seconds that each call waits for others.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Database,
        *,
        synchronous: Synchronous = "full",
        timeout: float = 5.0,
    ) -> None:
        self._database = Database.at(path, synchronous=synchronous)
        self._jobs = DeadJobs(self._database)
        self._timeout = timeout

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter; it is on the disk when this returns.

        Raises:
            StoreError: It could not be kept.
        """
        self._jobs.bury(_job(letter), timeout=self._timeout)

    def list(
        self, *, limit: int = 100, task: str | None = None, queue: str | None = None
    ) -> builtins.list[DeadLetter]:
        """The newest letters first."""
        found = self._jobs.list(limit=limit, task=task, queue=queue, timeout=self._timeout)
        return [_letter(job) for job in found]

    def get(self, id: str) -> DeadLetter | None:  # noqa: A002 - the protocol's word
        """One letter."""
        job = self._jobs.get(id, timeout=self._timeout)
        return None if job is None else _letter(job)

    def edit(self, id: str, body: bytes) -> bool:  # noqa: A002
        """Replace the envelope of a letter; false if there is none."""
        return self._jobs.edit(id, body, timeout=self._timeout)

    def delete(self, id: str) -> bool:  # noqa: A002
        """Forget a letter; false if there is none."""
        return self._jobs.delete(id, timeout=self._timeout)

    def counts(self) -> dict[str, int]:
        """Count the letters by queue, from an index alone."""
        return self._database.read(count_dead, deadline=time.monotonic() + self._timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Close the file; false if another thread was still at it."""
        return self._database.close(timeout)


class QueueDeadLetters(SQLiteDeadLetters):
    """The dead letters of a queue in its own file, from where they can be queued again."""

    def replay(self, id: str) -> bool:  # noqa: A002
        """Queue a letter again at once under its id, as it says now; false if there is none.

        Raises:
            StoreConflictError: Newer work under its key is alive or remembered.
        """
        job = self._jobs.get(id, timeout=self._timeout)
        if job is None:
            return False
        body, queue, priority = _as_new(job)
        return self._jobs.replay(
            id, body=body, queue=queue, priority=priority, timeout=self._timeout
        )


def error_text(error: RunFailure | None) -> str:
    """A failure as the store's text."""
    return "" if error is None else error.model_dump_json()


def _as_new(job: DeadJob) -> tuple[bytes, str, int]:
    """Envelope, queue and priority of work that is to run now."""
    try:
        request = decode(job.body).as_new()
    except EnvelopeError:
        return job.body, job.queue, job.priority
    return encode(request), request.queue or job.queue, request.priority or 0


def _letter(job: DeadJob) -> DeadLetter:
    error: RunFailure | None = None
    with contextlib.suppress(ValidationError):
        error = RunFailure.model_validate_json(job.error)
    return DeadLetter(
        id=job.id,
        task=job.task,
        queue=job.queue,
        reason=job.reason,
        attempts=job.attempt,
        deliveries=job.deliveries,
        error=error,
        died_at=datetime.fromtimestamp(job.died_at, UTC),
        body=job.body,
    )


def _job(letter: DeadLetter) -> DeadJob:
    died_at = letter.died_at.timestamp()
    return DeadJob(
        id=letter.id,
        task=letter.task,
        queue=letter.queue,
        priority=0,
        key=None,
        attempt=letter.attempts,
        deliveries=letter.deliveries,
        created_at=died_at,
        died_at=died_at,
        reason=letter.reason,
        error_type=(letter.error and letter.error.exception_type) or "",
        error=error_text(letter.error),
        body=letter.body,
    )
