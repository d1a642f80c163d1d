"""Hands work over to a backend of `django.tasks`, whose own worker runs it.

`pip install "dispatchers[django-tasks]"`; `adapters/django_tasks/README.md` says the rest.
"""

from ._dispatcher import DjangoTasksDispatcher, DjangoTasksOptions
from ._errors import WorkFailedError

__all__ = ["DjangoTasksDispatcher", "DjangoTasksOptions", "WorkFailedError"]
