"""Names of `django.tasks`: Django's own from 6.0 on, before those of `django-tasks`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

__all__ = [
    "LIBRARY",
    "BaseTaskBackend",
    "ImmediateBackend",
    "InvalidTask",
    "Task",
    "TaskResultDoesNotExist",
    "task_backends",
]


def _is_built_in() -> bool:
    try:
        return find_spec("django.tasks") is not None
    except ModuleNotFoundError:  # no Django at all
        return False


LIBRARY = "django.tasks" if _is_built_in() else "django_tasks"
"""The module that has the API here."""

if TYPE_CHECKING or LIBRARY == "django.tasks":
    from django.tasks import Task, task_backends
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.backends.immediate import ImmediateBackend
    from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
else:
    from django_tasks import task_backends
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.backends.immediate import ImmediateBackend
    from django_tasks.base import Task
    from django_tasks.exceptions import InvalidTaskError as InvalidTask
    from django_tasks.exceptions import TaskResultDoesNotExist
