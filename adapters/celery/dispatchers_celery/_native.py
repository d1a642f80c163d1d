"""Celery's own tasks: dispatched to by name as they are, or converted one by one."""

from __future__ import annotations

from typing import Any

from celery import Celery

from dispatchers import Task
from dispatchers.native import NativeCall

from ._worker import add_tasks

__all__ = ["NativeTask", "adopt", "native"]


def native(task: Any, *, dispatcher: str = "default", **options: Any) -> NativeTask:
    """Dispatch to a task that is in Celery already, without rewriting it.

    Its message is the one that `delay` writes; what it does with it, retries included, is Celery's.

    Args:
        task: The Celery task, registered here or not, or its name.

        dispatcher: The alias of a dispatcher of `celery`.

        options: `queue`, `priority`, `delay`, `eta`, `expires`, `time_limit`, `deadline` or
            `headers`, as a request takes them.
    """
    return NativeTask(task if isinstance(task, str) else str(task.name), dispatcher, options)


class NativeTask(NativeCall):
    """Dispatches one of Celery's own tasks; made by `native`."""

    backend = "celery"
    honoured = NativeCall.honoured | {"headers"}


def adopt(task: Task[..., Any], app: Celery) -> Any:
    """The Celery task of a converted task: for `.delay()`, canvas and beat, as before.

    A task that was Celery's and is now ours keeps its name. Its workers take messages of both
    kinds, those of its former life with plain arguments as well, so that producers and workers can
    be changed one at a time, and changed back. A plain message is a run like any other: attempts,
    back-off, `Retry`, `Discard` and hooks apply, and its result is stored as Celery does.

    Args:
        task: The task, declared with `@task(name="the name it had")`.

        app: The application, after `register(app)`.

    Raises:
        LookupError: `register(app)` was not called.
    """
    add_tasks(app)
    found = app.tasks.get(task.name)
    if found is None:
        raise LookupError(f"task {task.name!r} is not in the application: call register(app) first")
    return found
