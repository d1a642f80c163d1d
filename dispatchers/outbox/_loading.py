"""The database of an outbox by name."""

from __future__ import annotations

import sys
from typing import Any

from dispatchers._errors import ConfigurationError, MissingDependencyError
from dispatchers._models.paths import SQLITE
from dispatchers._runtime.importing import import_object, install
from dispatchers._stores.loading import load_object

from ._store import Store
from ._stores import PostgresStore, SQLiteStore

__all__ = ["is_sqlalchemy", "sqlalchemy_part", "store_from"]

DJANGO = "django:"
LIBRARY = ("sqlalchemy", "sqlalchemy.orm", "sqlalchemy.ext.asyncio")
LIBPQ = ("postgresql://", "postgres://", "postgresql+psycopg://")


def store_from(given: object, alias: str) -> Store:
    """Return the database that the option `store` gives or names.

    Raises:
        ConfigurationError: It names none, or what it needs is not installed.
    """
    found = _named(given, alias) if isinstance(given, str) else given
    if isinstance(found, Store):
        return found
    if is_sqlalchemy(found, "Engine"):
        return _sqlalchemy(found)
    raise ConfigurationError(
        f"dispatcher {alias!r}: store is {type(found).__name__}: give a URL, or an engine of "
        "SQLAlchemy that is not async"
    )


def _named(spec: str, alias: str) -> object:
    if spec.startswith(SQLITE):
        return SQLiteStore(spec.removeprefix(SQLITE))
    if spec.startswith(LIBPQ):
        return PostgresStore(spec.replace("+psycopg", "", 1))
    if spec.startswith(DJANGO):
        return _of_django(spec.removeprefix(DJANGO))
    if "://" in spec:
        return _sqlalchemy(spec)
    return load_object(f"dispatcher {alias!r}: store", spec)


def _of_django(database: str) -> object:
    try:
        opens: Any = import_object("dispatchers_django.outbox:store")
    except ImportError as exc:
        raise MissingDependencyError(
            f"store = 'django:{database}' needs Django: {install('dispatchers[django]')}"
        ) from exc
    return opens(database)


def _sqlalchemy(given: object) -> Store:
    store: Store = sqlalchemy_part("SQLAlchemyStore")(given)
    return store


def sqlalchemy_part(name: str) -> Any:
    """Return what needs SQLAlchemy, which is imported late.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        return import_object(f"dispatchers.outbox._sqlalchemy:{name}")
    except ImportError as exc:
        raise MissingDependencyError(
            f"this outbox needs SQLAlchemy 2: {install('dispatchers[sqlalchemy]')}"
        ) from exc


def is_sqlalchemy(given: object, *names: str) -> bool:
    """Tell whether an object is of one of these classes of SQLAlchemy, which is not imported."""
    if LIBRARY[0] not in sys.modules:
        return False
    modules = [sys.modules.get(name) for name in LIBRARY]
    classes = [getattr(module, name, None) for module in modules for name in names]
    return isinstance(given, tuple(each for each in classes if isinstance(each, type)))
