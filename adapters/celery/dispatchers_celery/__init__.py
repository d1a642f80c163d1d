"""Hands work over to Celery, and runs it in Celery's own workers.

`pip install "dispatchers[celery]"`; `adapters/celery/README.md` says the rest. Register the tasks
with the application whose workers shall run them::

    from dispatchers_celery import register

    register(app)
"""

from ._dispatcher import CeleryDispatcher
from ._native import NativeTask, adopt, native
from ._options import CeleryOptions
from ._worker import register

__all__ = [
    "CeleryDispatcher",
    "CeleryOptions",
    "NativeTask",
    "adopt",
    "native",
    "register",
]
