"""The run of a task of `django.tasks` by a worker, and the record of how it ended."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from os import getpid
from socket import gethostname
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import Error
from django.utils import timezone
from django.utils.crypto import get_random_string
from django.utils.module_loading import import_string
from pydantic import JsonValue

from dispatchers import (
    Action,
    Discard,
    DispatchRequest,
    Heartbeat,
    Outcome,
    Reason,
    Run,
    current_run,
    hooks,
)
from dispatchers import task as dispatchers_task
from dispatchers.delivery import HandBack, renewed, say

from . import _task_results
from ._connections import after_rollback
from ._task_api import (
    InvalidTask,
    Task,
    TaskContext,
    normalize_json,
    task_backends,
    task_finished,
    task_started,
)
from ._task_results import FAILED, READY, SUCCESSFUL, WorkLostError, error_of

if TYPE_CHECKING:
    from .models import TaskResult as Row

__all__ = ["NAME", "QUEUE", "carried", "found", "row_of", "run"]

NAME = "django.tasks.run"
"""The task of ours that runs those of Django."""
DOWN_DELAY = 5.0
"""Seconds after which work comes again whose result could not be written."""
QUEUE = "default"
"""The queue that Django's tasks have where none is named."""

_begun: ContextVar[tuple[str, str] | None] = ContextVar("dispatchers_django_task", default=None)
"""The request whose run has begun in this context, and the run as owner of its row."""


@dispatchers_task(name=NAME)
def run(
    backend: str,
    path: str,
    queue: str,
    priority: int,
    args: list[JsonValue],
    kwargs: dict[str, JsonValue],
) -> JsonValue:
    """Run a task of Django's under a lease on its result."""
    del queue, priority  # for the row, should it be missing
    task, own, request = _imported(path), _backend(backend), current_run().request
    owner, lease = get_random_string(32), own.chosen.lease
    result = own.result_of(_begin(request, owner, lease))
    task_started.send_robust(type(own), task_result=result)
    context: tuple[Any, ...] = (TaskContext(task_result=result),) if task.takes_context else ()
    renew = partial(_task_results.renew, request.id, owner, lease)
    # A third of the lease: two renewals may fail before it ends.
    with renewed(Heartbeat(renew, lease / 3)):
        value = task.call(*context, *args, **kwargs)
    # Tuples become lists, as with every backend: the work is done, and is not refused for them.
    brought: JsonValue = carried(normalize_json(value))
    return brought


def _begin(request: DispatchRequest, owner: str, lease: float) -> Row:
    """Take the row of the result.

    Raises:
        HandBack: The database does not answer; that is no attempt of the work.

        Discard: It has succeeded already.
    """
    try:
        _task_results.add(row_of(request))
        row = _task_results.begin(request.id, owner, f"{gethostname()[:200]}:{getpid()}", lease)
    except Error as exc:
        words = f"the result could not be written: {type(exc).__name__}"
        raise HandBack(Reason.STORE_UNAVAILABLE, words, after=DOWN_DELAY) from exc
    if row is None:
        raise Discard("it has succeeded already")
    _begun.set((request.id, owner))
    return row


def _imported(path: str) -> Task[..., Any]:
    """Return a task that this worker has imported: what a message names is never imported.

    Raises:
        HandBack: There is none; a worker of a newer version may have it.
    """
    module, _, name = path.rpartition(".")
    task = getattr(sys.modules.get(module), name, None)
    if not isinstance(task, Task):
        words = f"no module that is imported here has {path!r} of django.tasks"
        raise HandBack(Reason.UNKNOWN_TASK, words)
    return task


@hooks.after_run
def record(run: Run, outcome: Outcome) -> None:
    """Note how a run ended, also one that was refused before it began."""
    if outcome.task != NAME or outcome.request_id is None:
        return
    begun = _begun.get()
    owner = begun[1] if begun and begun[0] == outcome.request_id else None
    status = _status(outcome, begun=owner is not None)
    if status is None:
        return
    later = after_rollback.get()
    if later is None or outcome.reason in (Reason.SUCCEEDED, Reason.DUPLICATE):
        _end(outcome, status, owner)
    else:
        later.append(partial(_end_anew, run, outcome, status, begun=owner is not None))


def _end_anew(run: Run, outcome: Outcome, status: str, *, begun: bool) -> None:
    """Note how a run ended after all that it wrote was rolled back, its row included."""
    try:
        owner = get_random_string(32) if begun else None
        if owner is not None:
            _begin(run.request, owner, lease=1.0)
        _end(outcome, status, owner)
    except Exception as exc:  # noqa: BLE001 - the outcome is the queue's to hear, whatever happens
        say(logging.ERROR, "a result of django.tasks is not written: %s", type(exc).__name__)


def _end(outcome: Outcome, status: str, owner: str | None) -> None:
    assert outcome.request_id is not None, "it is one of ours"
    value = outcome.result if status == SUCCESSFUL else None
    error = None if status == SUCCESSFUL else _error(outcome)
    ended = _task_results.end(outcome.request_id, status, owner=owner, value=value, error=error)
    if ended and status != READY:
        _tell_finished(outcome.request_id, outcome.exception)


def found(path: str) -> Task[..., Any]:
    """Return the task under a dotted path.

    Raises:
        ImportError: There is nothing under it.

        InvalidTask: It is something else.
    """
    task = import_string(path)
    if not isinstance(task, Task):
        raise InvalidTask(f"{path!r} is not a task of django.tasks")
    return task


def carried(value: Any) -> Any:
    """Return a value as JSON brings it.

    Raises:
        TypeError: JSON cannot carry it, or would change it.

        ValueError: It is, or holds, bytes, NaN or an infinite number.
    """
    brought = json.loads(json.dumps(normalize_json(value), allow_nan=False))
    if brought != value:
        raise TypeError("JSON would change it: keys become text, tuples lists, bytes text")
    return brought


def row_of(request: DispatchRequest) -> dict[str, Any]:
    """Return the row of work that no run has begun."""
    given = {**request.payload}
    return {
        "id": request.id,
        "backend": given["backend"],
        "task": given["path"],
        "queue": given["queue"],
        "priority": given["priority"],
        "run_after": _stored(request.eta),
        "args": json.dumps(given["args"]),
        "kwargs": json.dumps(given["kwargs"]),
        "status": READY,
        "enqueued_at": _stored(request.created_at),
    }


def _stored(instant: datetime | None) -> datetime | None:
    if instant is None or settings.USE_TZ:
        return instant
    return timezone.make_naive(instant)


def _backend(alias: str) -> Any:
    from ._task_backend import DispatcherBackend

    own = task_backends[alias]
    if not isinstance(own, DispatcherBackend):
        raise InvalidTask(f"settings.TASKS[{alias!r}] is no DispatcherBackend in this worker")
    return own


def _status(outcome: Outcome, *, begun: bool) -> str | None:
    """Return the status of the result; None where the outcome says nothing of it."""
    if outcome.reason is Reason.SUCCEEDED:
        return SUCCESSFUL
    if outcome.reason is Reason.DUPLICATE:
        return None
    if outcome.reason is Reason.DISCARDED:
        return SUCCESSFUL if begun else None
    if outcome.action is Action.RETURN:
        return READY if begun else None
    return READY if outcome.action is Action.RETRY else FAILED


def _error(outcome: Outcome) -> dict[str, str] | None:
    if outcome.exception is not None:
        return error_of(outcome.exception)
    if outcome.action is Action.RETURN:
        return None
    words = outcome.error.message if outcome.error else ""
    return error_of(WorkLostError(f"it was not run ({outcome.reason.value}) {words}".rstrip()))


def _tell_finished(result_id: str, exc: BaseException | None) -> None:
    row = _task_results.get(result_id)
    own = _backend(row.backend)
    tell = partial(task_finished.send_robust, type(own), task_result=own.result_of(row))
    if exc is None:
        tell()
        return
    try:
        raise exc  # noqa: TRY301
    except BaseException:  # noqa: BLE001 - receivers ask `sys.exc_info`, as Django's own log does
        tell()
