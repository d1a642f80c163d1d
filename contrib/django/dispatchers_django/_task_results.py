"""Results of `django.tasks` in the database.

A run holds its row by a lease, which a heartbeat renews. Nothing has to notice that a worker was
killed: a row whose lease has ended is not read as running, whatever its column says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from traceback import format_exception
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import router
from django.db.models import Q, QuerySet
from django.utils import timezone

from dispatchers.delivery import new_id

from ._connections import restored
from ._statements import insert, update
from ._task_api import TaskError, TaskResultStatus

if TYPE_CHECKING:
    from .models import TaskResult as Row

__all__ = [
    "FAILED",
    "READY",
    "RUNNING",
    "SUCCESSFUL",
    "Held",
    "Seen",
    "WorkLostError",
    "add",
    "begin",
    "database",
    "end",
    "error_of",
    "find",
    "hold",
    "made",
    "new",
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


class Held:
    """The row of a result under the lease of one run."""

    __slots__ = ("begun", "owner", "row")

    def __init__(self, row: Row, owner: str, *, begun: bool = True) -> None:
        self.row = row
        """The row as it was written last."""
        self.owner = owner
        """The run."""
        self.begun = begun
        """The run has begun; before that the row is held for it."""

    def end(self, status: str, *, value: Any = None, error: object = None) -> bool:
        """Note how the run ended; false where that does not count."""
        values = _ending(self.row, status, value, error)
        if not self.begun:
            values |= {"started_at": None, "last_attempted_at": None, "worker_ids": "[]"}
        # One statement while the row is as this run left it.
        if _write(self.row, values, owner=self.owner, status=RUNNING):
            return True
        row = end(self.row.pk, status, owner=self.owner, value=value, error=error)
        self.row = row or self.row
        return row is not None


def new(values: Mapping[str, Any]) -> Row:
    """Return a row that is not written yet."""
    return _model()(**values)


def add(row: Row) -> None:
    """Write the row of work that is enqueued: its id is new."""
    insert(row, using=database())


def hold(row: Row, worker: str, lease: float) -> Held:
    """Write the row of work that runs in the call that enqueues it: held from the beginning."""
    owner = new_id()
    add(_changed(row, _beginning(row, owner, worker, lease)))
    return Held(row, owner, begun=False)


def find(result_id: str, backend: str) -> Row | None:
    """Return the row of a result."""
    return _rows().filter(pk=result_id, backend=backend).first()


def begin(row: Row, worker: str, lease: float) -> Held | None:
    """Note that a run begins, in the row as it was read; None if the work is done already."""
    while row.status != SUCCESSFUL:
        owner = new_id()
        # Only if it is still as it was read: of two deliveries each is counted.
        if _write(row, _beginning(row, owner, worker, lease), owner=row.owner):
            return Held(row, owner)
        row = _rows().get(pk=row.pk)
    return None


def made(result_id: str, values: Callable[[], Mapping[str, Any]]) -> Row:
    """Return the row of a result; a worker that is faster than the enqueuer's commit makes it."""
    row = _rows().filter(pk=result_id).first()
    if row is None:
        # One statement decides; an error would end the run's transaction on PostgreSQL.
        _rows().bulk_create([new(values())], ignore_conflicts=True)
        row = _rows().get(pk=result_id)
    return row


def renew(result_id: str, owner: str, lease: float) -> bool:
    """Renew the lease, on a thread of its own; false if another run has the row."""
    until = timezone.now() + timedelta(seconds=lease)
    with restored(database()):
        held = _rows().filter(pk=result_id, owner=owner, status=RUNNING)
        return held.update(lease_until=until) == 1


def end(
    result_id: str, status: str, *, owner: str | None, value: Any = None, error: object = None
) -> Row | None:
    """Note how a run ended, and return the row; None where that does not count.

    A success counts whatever else is known. Anything else counts only from the run that holds the
    row, or, with `owner` None, where no run began: a delivery that was refused, a killed run.
    """
    rows = _rows().filter(pk=result_id).exclude(status=SUCCESSFUL)
    if status != SUCCESSFUL and owner is not None:
        rows = rows.filter(owner=owner)
    row = rows.first()
    if row is None:
        return None
    values = _ending(row, status, value, error)
    if rows.update(**values) != 1:
        return None
    return _changed(row, values)


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


def _beginning(row: Row, owner: str, worker: str, lease: float) -> dict[str, Any]:
    now = timezone.now()
    return {
        "status": RUNNING,
        "owner": owner,
        "worker_ids": json.dumps([*json.loads(row.worker_ids), worker]),
        "lease_until": now + timedelta(seconds=lease),
        "started_at": row.started_at or now,
        "last_attempted_at": now,
        "finished_at": None,
    }


def _ending(row: Row, status: str, value: Any, error: object) -> dict[str, Any]:
    return {
        "status": status,
        "finished_at": timezone.now() if status in (FAILED, SUCCESSFUL) else None,
        "lease_until": None,
        "errors": json.dumps([*json.loads(row.errors), *([] if error is None else [error])]),
        "return_value": json.dumps(value),
    }


def _write(row: Row, values: Mapping[str, Any], **found: Any) -> bool:
    """Change a row where it is still found so, in the database and here."""
    if not update(row, values, found, using=database()):
        return False
    _changed(row, values)
    return True


def _changed(row: Row, values: Mapping[str, Any]) -> Row:
    for name, value in values.items():
        setattr(row, name, value)
    return row


def _rows() -> QuerySet[Row]:
    # The database that is written to, for reads as well: a replica may be behind.
    return _model()._default_manager.using(database())


def _model() -> type[Row]:
    from .models import TaskResult  # importable once the applications are loaded

    return TaskResult
