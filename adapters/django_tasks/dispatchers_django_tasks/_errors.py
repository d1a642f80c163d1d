"""The meaning of what backends of `django.tasks` raise while work is handed over.

A published backend may stand on any client. Those of Django's databases and of redis-py are known
here, Python's own to the core; of any other it is not known whether the work was handed over.
"""

from __future__ import annotations

import sqlite3
from traceback import walk_tb

from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured
from django.db import utils as db

from dispatchers import ErrorCategory, redis

from ._api import InvalidTask

__all__ = ["WorkFailedError", "category_of", "is_certainly_unsent"]


class WorkFailedError(Exception):
    """The work failed for the last time; the backend's result is FAILED with it."""


KINDS: tuple[tuple[type[BaseException], ErrorCategory], ...] = (
    (InvalidTask, ErrorCategory.UNSUPPORTED),  # for a reason of the backend's own
    (AppRegistryNotReady, ErrorCategory.CONFIGURATION),
    (ImproperlyConfigured, ErrorCategory.CONFIGURATION),
    # A table that was not migrated, a value that no column takes.
    (db.ProgrammingError, ErrorCategory.CONFIGURATION),
    (db.NotSupportedError, ErrorCategory.CONFIGURATION),
    (db.DataError, ErrorCategory.INVALID),
    (db.IntegrityError, ErrorCategory.CONFLICT),
    (db.DatabaseError, ErrorCategory.UNAVAILABLE),
    (db.InterfaceError, ErrorCategory.UNAVAILABLE),
)
REFUSED = tuple(kind for kind, category in KINDS if category is not ErrorCategory.UNAVAILABLE)
"""The backend answered with a refusal, or was not asked."""
CONNECTING = ("django.db.backends.base.base", "connect")
"""The module and the function in which Django opens a connection."""


def category_of(exc: Exception) -> ErrorCategory | None:
    """Return the category; None leaves it to the core."""
    own = next((category for kind, category in KINDS if isinstance(exc, kind)), None)
    if own is ErrorCategory.UNAVAILABLE and "no such table" in str(exc):
        return ErrorCategory.CONFIGURATION  # SQLite has one class for all of it
    return own or redis.category_of(exc)


def is_certainly_unsent(exc: Exception) -> bool:
    """Return True if the backend cannot have the work although this was raised."""
    if isinstance(exc, REFUSED) or redis.is_certainly_unsent(exc):
        return True
    # A statement of SQLite that fails has done nothing, and it has no connection to lose.
    return isinstance(exc.__cause__, sqlite3.Error) or _is_of_connecting(exc)


def _is_of_connecting(exc: Exception) -> bool:
    frames = (frame for frame, _ in walk_tb(exc.__traceback__))
    return any((f.f_globals.get("__name__"), f.f_code.co_name) == CONNECTING for f in frames)
