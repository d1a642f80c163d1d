"""The one Django task of ours, `dispatchers_django_tasks.task.run`.

Backends keep that path, and their workers import it. It is made when it is asked for: a task of
Django's belongs to a backend and a queue from the start, and settings say which there are.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ._api import BaseTaskBackend, Task, task_backends
from ._run import run as _run

__all__ = ["django_task"]

_run.__module__ = __name__  # the path under which a worker finds it


def django_task(
    backend: BaseTaskBackend, queue: str, priority: int = 0, run_after: datetime | None = None
) -> Task[..., Any]:
    """Return the task for one hand-over.

    Raises:
        InvalidTask: The backend does not take it.
    """
    return Task(
        func=_run,
        priority=priority,
        backend=backend.alias,
        queue_name=queue,
        run_after=run_after,
        takes_context=True,
    )


def __getattr__(name: str) -> Any:
    """Return the task for a worker, which gives it the backend and queue that it came by."""
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    backend = task_backends[next(iter(task_backends))]
    return django_task(backend, next(iter(sorted(backend.queues)), "default"))
