"""A backend of `django.tasks` that hands its work to a dispatcher.

::

    TASKS = {
        "default": {
            "BACKEND": "dispatchers_django.tasks.DispatcherBackend",
            "OPTIONS": {"dispatcher": "default"},
        },
    }

Django imports this module in every project, as it does each application's `tasks`. What needs
`django.tasks` is therefore loaded with the first name that is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._task_backend import DispatcherBackend
    from ._task_results import WorkLostError

__all__ = ["DispatcherBackend", "WorkLostError"]


def __getattr__(name: str) -> Any:
    """Load a name of `__all__`.

    Raises:
        MissingDependencyError: Neither Django nor the backport has `django.tasks`.

        AttributeError: There is no such name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _task_backend

    return getattr(_task_backend, name)
