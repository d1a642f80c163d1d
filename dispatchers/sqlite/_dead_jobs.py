"""Dead jobs: listed, edited, tried again or deleted."""

from __future__ import annotations

import builtins
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dispatchers.sqlite._connection import Database
from dispatchers.sqlite._errors import StoreConflictError, StoreInputError
from dispatchers.sqlite._records import DeadJob

__all__ = ["DeadJobs"]

Values = Sequence[object] | Mapping[str, object]


_BURIED = (
    "id", "task", "queue", "attempt", "deliveries", "reason", "error_type", "error", "body",
)  # fmt: skip


_SELECT = """
SELECT id, task, queue, priority, key, attempt, deliveries, created_at, finished_at, reason,
    error_type, error, body
FROM jobs WHERE state = 4
"""


_LIST = f"""
{_SELECT} AND (:task IS NULL OR task = :task) AND (:queue IS NULL OR queue = :queue)
ORDER BY finished_at DESC, seq DESC LIMIT :limit
"""


_GET = f"{_SELECT} AND id = ?"


_EDIT = "UPDATE jobs SET body = ? WHERE state = 4 AND id = ?"


_DELETE = "DELETE FROM jobs WHERE state = 4 AND id = ?"


# It is wanted now: what it was to expire at has passed and is not asked again.
_REPLAY = """
UPDATE jobs SET state = 0, run_at = :now, expires_at = NULL, attempt = 1, deliveries = 0,
    finished_at = NULL, reason = NULL, error_type = NULL, error = NULL,
    body = ifnull(:body, body), queue = ifnull(:queue, queue),
    priority = ifnull(:priority, priority)
WHERE state = 4 AND id = :id
"""


# Never in the place of a job that is alive.
_BURY = """
INSERT INTO jobs (id, task, queue, state, priority, run_at, attempt, deliveries, token,
    created_at, finished_at, reason, error_type, error, body)
VALUES (:id, :task, :queue, 4, 0, :now, :attempt, :deliveries, 0, :now, :now, :reason,
    :error_type, :error, :body)
ON CONFLICT (id) DO UPDATE SET state = 4, attempt = excluded.attempt,
    deliveries = excluded.deliveries, finished_at = excluded.finished_at,
    reason = excluded.reason, error_type = excluded.error_type, error = excluded.error,
    body = excluded.body WHERE state >= 2
"""


class DeadJobs:
    """The dead jobs of one file. Times to wait are seconds.

    Args:
        database: The file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self,
        *,
        limit: int = 100,
        task: str | None = None,
        queue: str | None = None,
        timeout: float = 5.0,
    ) -> list[DeadJob]:
        """The latest dead jobs first, of one task or queue if asked for."""
        values = {"limit": limit, "task": task, "queue": queue}
        return [DeadJob(*row) for row in self._read(_LIST, values, timeout)]

    def get(self, job_id: str, *, timeout: float = 5.0) -> DeadJob | None:
        """One of them, None if there is no dead job of this id."""
        for row in self._read(_GET, (job_id,), timeout):
            return DeadJob(*row)
        return None

    def edit(self, job_id: str, body: bytes, *, timeout: float = 5.0) -> bool:
        """Give it another body; false if there is no dead job of this id."""
        return self._write(_EDIT, (body, job_id), timeout)

    def replay(
        self,
        job_id: str,
        *,
        body: bytes | None = None,
        queue: str | None = None,
        priority: int | None = None,
        timeout: float = 5.0,
    ) -> bool:
        """Queue it again at once under its id, as if it had never been tried.

        Args:
            job_id: Which.

            body: Another body; None leaves it.

            queue: Another queue; None leaves it.

            priority: Another priority; None leaves it.

            timeout: Seconds.

        Returns:
            False if there is no dead job of this id.

        Raises:
            StoreConflictError: Another job with its key is alive or remembered.
        """
        values = {"id": job_id, "body": body, "queue": queue, "priority": priority}
        try:
            return self._write(_REPLAY, values | {"now": time.time()}, timeout)
        except StoreInputError as exc:
            raise StoreConflictError(
                f"dead job {job_id!r} has the key of a newer job: delete one of them"
            ) from exc

    def delete(self, job_id: str, *, timeout: float = 5.0) -> bool:
        """Forget it; false if there is no dead job of this id."""
        return self._write(_DELETE, (job_id,), timeout)

    def bury(self, job: DeadJob, *, timeout: float = 5.0) -> None:
        """Add one that died elsewhere, in the place of a dead or finished one of its id.

        Raises:
            StoreConflictError: A job of this id is alive here.
        """
        values = {name: getattr(job, name) for name in _BURIED} | {"now": job.died_at}
        # Nothing changed: the row with this id is waiting or running.
        if not self._write(_BURY, values, timeout):
            raise StoreConflictError(f"job {job.id!r} is alive here: wait until it has ended")

    def _read(self, sql: str, values: Values, timeout: float) -> builtins.list[tuple[Any, ...]]:
        work = partial(_fetch, sql=sql, values=values)
        return self._database.read(work, deadline=time.monotonic() + timeout)

    def _write(self, sql: str, values: Values, timeout: float) -> bool:
        with self._database.transaction(timeout=timeout) as connection:
            return connection.execute(sql, values).rowcount > 0


def _fetch(connection: sqlite3.Connection, sql: str, values: Values) -> list[tuple[Any, ...]]:
    return connection.execute(sql, values).fetchall()
