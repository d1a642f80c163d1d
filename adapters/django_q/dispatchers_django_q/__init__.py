"""Hands work over to django-q2, by `Q_CLUSTER` of Django's settings, and runs it in `qcluster`.

`pip install "dispatchers[django-q]"`; `adapters/django_q/README.md` says the rest.
"""

from typing import Any

from ._dispatcher import DjangoQDispatcher
from ._options import DjangoQOptions

__all__ = ["DjangoQDispatcher", "DjangoQOptions"]


def __getattr__(name: str) -> Any:
    """Import `run`, the function that each package names, where Django is set up."""
    if name == "run":
        from ._entry import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
