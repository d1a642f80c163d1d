"""The run of a task of `django.tasks` by a worker, and the record of how it ended."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from django.utils.module_loading import import_string
from pydantic import JsonValue

from dispatchers import (
    Action,
    DispatchRequest,
    Outcome,
    Reason,
    Run,
    current_run,
    hooks,
)
from dispatchers import task as dispatchers_task
from dispatchers.delivery import HandBack, say

from . import _task_results
from ._connections import after_rollback
from ._task_api import (
    InvalidTask,
    InvalidTaskBackend,
    Task,
    TaskContext,
    normalize_json,
    task_backends,
    task_finished,
    task_started,
)
from ._task_results import FAILED, READY, SUCCESSFUL, WorkLostError, error_of
from ._task_work import Work, enqueuing, held, stored

if TYPE_CHECKING:
    from ._task_api import TaskResult
    from ._task_backend import DispatcherBackend

__all__ = ["NAME", "QUEUE", "carried", "found", "run"]

NAME = "django.tasks.run"
"""The task of ours that runs those of Django."""
QUEUE = "default"
"""The queue that Django's tasks have where none is named."""


_begun: ContextVar[Work | None] = ContextVar("dispatchers_django_task", default=None)
"""The work whose run has begun in this context."""


@dispatchers_task(name=NAME)
def run(
    backend: str,
    path: str,
    queue: str,
    priority: int,
    args: list[JsonValue],
    kwargs: dict[str, JsonValue],
) -> JsonValue:
    """Run a task of Django's, under a lease on its result where that is kept."""
    del backend, path, queue, priority  # as the request has them
    # The enqueuer's own, where that waits for the run.
    work = _same(enqueuing.get(), current_run().envelope["id"]) or _work(current_run().request)
    work.begin()
    _begun.set(work)
    result, task = work.result, work.result.task
    task_started.send_robust(type(work.backend), task_result=result)
    context: tuple[Any, ...] = (TaskContext(task_result=result),) if task.takes_context else ()
    with work.renewed():
        value = task.call(*context, *args, **kwargs)
    if value is None:
        return None
    # Tuples become lists, as with every backend: the work is done, and is not refused for them.
    brought: JsonValue = carried(normalize_json(value))
    return brought


def _work(request: DispatchRequest) -> Work:
    """Return work as a request has it."""
    given = request.payload
    own = _backend(str(given["backend"]))
    asked = _imported(str(given["path"])).using(
        priority=cast("int", given["priority"]),
        queue_name=str(given["queue"]),
        run_after=stored(request.eta),
        backend=own.alias,
    )
    return Work(own, own.ready(request, asked, given["args"], given["kwargs"]))


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
    begun = _same(_begun.get(), outcome.request_id)
    status = _status(outcome, begun=begun is not None)
    if status is None:
        return
    work = begun or _same(enqueuing.get(), outcome.request_id) or _unkept(run)
    later = after_rollback.get()
    if work is not None and not work.backend.chosen.results:
        _end(work, outcome, status)
    elif later is not None and outcome.reason not in (Reason.SUCCEEDED, Reason.DUPLICATE):
        later.append(partial(_end_anew, run, outcome, status, begun))
    elif work is not None:
        _end(work, outcome, status)
    else:
        _end_unbegun(outcome, status)


def _same(work: Work | None, request_id: str) -> Work | None:
    return work if work is not None and work.result.id == request_id else None


def _end_anew(run: Run, outcome: Outcome, status: str, begun: Work | None) -> None:
    """Note how a run ended after all that it wrote was rolled back, its row included."""
    try:
        if begun is None:
            _end_unbegun(outcome, status)
        else:
            begun.held = held(begun.backend, run.request, lease=1.0)
            _end(begun, outcome, status)
    except Exception as exc:  # noqa: BLE001 - the outcome is the queue's to hear, whatever happens
        say(logging.ERROR, "a result of django.tasks is not written: %s", type(exc).__name__)


def _end(work: Work, outcome: Outcome, status: str) -> None:
    if work.end(status, *_ends_with(outcome, status)) and status != READY:
        _tell_finished(work.backend, work.result, outcome.exception)


def _end_unbegun(outcome: Outcome, status: str) -> None:
    """Note in its row that work ended without a run in this process."""
    value, error = _ends_with(outcome, status)
    assert outcome.request_id is not None, "it is one of ours"
    row = _task_results.end(outcome.request_id, status, owner=None, value=value, error=error)
    if row is not None and status != READY:
        own = _backend(row.backend)
        _tell_finished(own, own.result_of(row), outcome.exception)


def _unkept(run: Run) -> Work | None:
    """Return work that ended without a run in this process, where no result of it is kept."""
    # Nothing to tell of what is unknown here, or cannot be read.
    with suppress(HandBack, LookupError, ValueError, InvalidTask, InvalidTaskBackend):
        if not _backend(str(run.request.payload["backend"])).chosen.results:
            return _work(run.request)
    return None


def _ends_with(outcome: Outcome, status: str) -> tuple[Any, dict[str, str] | None]:
    """Return the value and the error of a run."""
    return (outcome.result, None) if status == SUCCESSFUL else (None, _error(outcome))


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
    # Most values are plain, and need no look of Django's at each of their parts.
    with suppress(TypeError):
        if (brought := _as_json_brings(value)) == value:
            return brought
    brought = _as_json_brings(normalize_json(value))
    if brought != value:
        raise TypeError("JSON would change it: keys become text, tuples lists, bytes text")
    return brought


def _as_json_brings(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def _backend(alias: str) -> DispatcherBackend:
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


def _tell_finished(
    own: DispatcherBackend, result: TaskResult[..., Any], exc: BaseException | None
) -> None:
    tell = partial(task_finished.send_robust, type(own), task_result=result)
    if exc is None:
        tell()
        return
    try:
        raise exc  # noqa: TRY301
    except BaseException:  # noqa: BLE001 - receivers ask `sys.exc_info`, as Django's own log does
        tell()
