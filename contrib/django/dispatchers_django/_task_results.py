"""Results of `django.tasks` in the database.

A run holds its row by a lease, which a heartbeat renews. Nothing has to notice that a worker was
killed: a row whose lease has ended is not read as running, whatever its column says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from traceback import format_exception
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import router
from django.db.models import Q, QuerySet
from django.utils import timezone

from ._connections import restored
from ._task_api import TaskError, TaskResultStatus

if TYPE_CHECKING:
    from .models import TaskResult as Row

__all__ = [
    "FAILED",
    "READY",
    "RUNNING",
    "SUCCESSFUL",
    "Seen",
    "WorkLostError",
    "add",
    "begin",
    "database",
    "end",
    "error_of",
    "find",
    "get",
    "purge",
    "renew",
]

PURGED = 100
"""Rows that one purge takes, so that no enqueuing waits long for it."""
READY, RUNNING = TaskResultStatus.READY.value, TaskResultStatus.RUNNING.value
FAILED, SUCCESSFUL = TaskResultStatus.FAILED.value, TaskResultStatus.SUCCESSFUL.value


class WorkLostError(Exception):
    """No run reported an end: a worker was killed, or the work was dead-lettered without a run."""

    __module__ = "dispatchers_django.tasks"  # the path that results have, public


class Seen(NamedTuple):
    """A row as its readers see it."""

    status: TaskResultStatus
    finished_at: datetime | None
    errors: list[TaskError]

    @classmethod
    def of(cls, row: Row, lost_after: float) -> Seen:
        """Return the state of a row, whose worker may have been killed.

        Until `lost_after` seconds after the lease the backend may deliver the work again.
        """
        errors = [TaskError(**each) for each in json.loads(row.errors)]
        now = timezone.now()
        if row.status != RUNNING or row.lease_until is None or row.lease_until > now:
            return cls(TaskResultStatus(row.status), row.finished_at, errors)
        if row.lease_until + timedelta(seconds=lost_after) > now:
            return cls(TaskResultStatus.READY, None, errors)
        words = f"the worker stopped renewing its lease, and no run followed in {lost_after:g} s"
        lost = TaskError(**error_of(WorkLostError(words)))
        return cls(TaskResultStatus.FAILED, row.lease_until, [*errors, lost])


def error_of(exc: BaseException, *, chain: bool = True) -> dict[str, str]:
    """Return an exception as the fields of a `TaskError`, with what caused it or alone."""
    kind = type(exc)
    return {
        "exception_class_path": f"{kind.__module__}.{kind.__qualname__}",
        "traceback": "".join(format_exception(exc, chain=chain)),
    }


def add(values: Mapping[str, Any]) -> Row:
    """Add a row unless it is there: a worker may be faster than the enqueuer's commit."""
    row = _model()(**values)
    # One statement decides; an error would end the caller's transaction on PostgreSQL.
    _rows().bulk_create([row], ignore_conflicts=True)
    return row


def find(result_id: str, backend: str) -> Row | None:
    """Return the row of a result."""
    return _rows().filter(pk=result_id, backend=backend).first()


def get(result_id: str) -> Row:
    """Return the row of a result that is known to exist."""
    return _rows().get(pk=result_id)


def begin(result_id: str, owner: str, worker: str, lease: float) -> Row | None:
    """Note that a run begins, and return its row; None if the work is done already."""
    while (row := _rows().get(pk=result_id)).status != SUCCESSFUL:
        now = timezone.now()
        values = {
            "status": RUNNING,
            "owner": owner,
            "worker_ids": json.dumps([*json.loads(row.worker_ids), worker]),
            "lease_until": now + timedelta(seconds=lease),
            "started_at": row.started_at or now,
            "last_attempted_at": now,
            "finished_at": None,
        }
        # Only if it is still as it was read: of two deliveries each is counted.
        if _rows().filter(pk=result_id, owner=row.owner).update(**values) == 1:
            return _rows().get(pk=result_id)
    return None


def renew(result_id: str, owner: str, lease: float) -> bool:
    """Renew the lease, on a thread of its own; false if another run has the row."""
    until = timezone.now() + timedelta(seconds=lease)
    with restored(database()):
        held = _rows().filter(pk=result_id, owner=owner, status=RUNNING)
        return held.update(lease_until=until) == 1


def end(
    result_id: str, status: str, *, owner: str | None, value: Any = None, error: object = None
) -> bool:
    """Note how a run ended; false where that does not count.

    A success counts whatever else is known. Anything else counts only from the run that holds the
    row, or, with `owner` None, where no run began: a delivery that was refused, a killed run.
    """
    rows = _rows().filter(pk=result_id).exclude(status=SUCCESSFUL)
    if status != SUCCESSFUL and owner is not None:
        rows = rows.filter(owner=owner)
    row = rows.first()
    if row is None:
        return False
    errors = [*json.loads(row.errors), *([] if error is None else [error])]
    finished = timezone.now() if status in (FAILED, SUCCESSFUL) else None
    values = {"errors": json.dumps(errors), "return_value": json.dumps(value)}
    return rows.update(status=status, finished_at=finished, lease_until=None, **values) == 1


def purge(keep: float) -> None:
    """Delete results that ended more than `keep` seconds ago, a hundred at most."""
    before = timezone.now() - timedelta(seconds=keep)
    old = Q(finished_at__lt=before) | Q(status=RUNNING, lease_until__lt=before)
    # Read first: not every database has DELETE with a limit.
    keys = list(_rows().filter(old).values_list("pk", flat=True)[:PURGED])
    _rows().filter(old, pk__in=keys).delete()


def database() -> str:
    """Return the alias of the database that keeps results."""
    return router.db_for_write(_model())


def _rows() -> QuerySet[Row]:
    # The database that is written to, for reads as well: a replica may be behind.
    return _model()._default_manager.using(database())


def _model() -> type[Row]:
    from .models import TaskResult  # importable once the applications are loaded

    return TaskResult
