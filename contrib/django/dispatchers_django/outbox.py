"""The outbox in a database of Django's: `"store": "django:ALIAS"` among the `OPTIONS`.

Callers write by their own connection, within the transaction that it is in. What hands over has a
connection of its own, which is none of `django.db.connections`: those belong to threads, and may be
inside a transaction of the application.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from typing import Any

from django.db import connections, router, transaction

from dispatchers import ConfigurationError
from dispatchers.frameworks import nearest
from dispatchers.outbox import DIALECTS, ConnectionStore, CursorExecutor, Executor

from ._outbox_watch import watch

__all__ = ["DjangoStore", "store"]

BEGIN = {"sqlite": "BEGIN IMMEDIATE"}
"""SQLite: a transaction that reads first cannot wait for others when it comes to write."""
MARKS = {"sqlite": "?"}
"""Of the drivers themselves."""
WAIT = 5.0
"""Seconds for a connection."""


class _Thread(threading.local):
    """The store that this thread hands over from by its own connection."""

    handing_over: object = None


_thread = _Thread()


class DjangoStore(ConnectionStore):
    """A database of Django's.

    Args:
        alias: In `settings.DATABASES`; empty is where the routers write `OutboxRow`.

    Raises:
        ConfigurationError: There is no such database, or it is one without SQL for an outbox.
    """

    def __init__(self, alias: str = "") -> None:
        self.alias = alias or _routed()
        """The database's alias."""
        if self.alias not in connections.settings:
            known = list(connections.settings)
            raise ConfigurationError(
                f"store 'django:{self.alias}': there is no database {self.alias!r} in "
                f"settings.DATABASES{nearest(self.alias, known)}"
            )
        self.dialect = connections[self.alias].vendor
        if self.dialect not in DIALECTS:
            raise ConfigurationError(
                f"store 'django:{self.alias}' is {self.dialect}: an outbox is in one of "
                f"{', '.join(DIALECTS)}"
            )
        super().__init__()

    # What hands over.

    @contextmanager
    def transaction(self, *, timeout: float, write: bool = True) -> Generator[Executor]:
        """Begin a transaction on the connection of its own."""
        joined = _thread.handing_over is self
        given = self._joined() if joined else super().transaction(timeout=timeout, write=write)
        with given as executor:
            yield executor

    @contextmanager
    def _joined(self) -> Generator[Executor]:
        with transaction.atomic(using=self.alias), connections[self.alias].cursor() as cursor:
            yield CursorExecutor(cursor, "%s")

    def _connect(self, timeout: float) -> Any:
        del timeout  # the one of the settings holds
        connection = connections.create_connection(self.alias)
        connection.inc_thread_sharing()  # one thread at a time, but not always the same
        connection.ensure_connection()
        if not connection.get_autocommit():  # `AUTOCOMMIT` off
            connection.set_autocommit(True)
        return connection

    @contextmanager
    def _begun(self, connection: Any, timeout: float, *, write: bool) -> Generator[Executor]:
        del timeout
        # Not a cursor of Django's, which would log envelopes with `DEBUG`.
        with closing(connection.connection.cursor()) as cursor:
            if write:
                cursor.execute(BEGIN.get(self.dialect, "BEGIN"))
            yield CursorExecutor(cursor, MARKS.get(self.dialect, "%s"))
            if write:
                cursor.execute("COMMIT")

    def watch(self, changed: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """Call `changed` whenever rows may have been committed, until `stopping()`."""
        watch(lambda: self._connect(WAIT), changed, stopping)


def _routed() -> str:
    from .models import OutboxRow  # importable once the applications are loaded

    return router.db_for_write(OutboxRow)


def store(alias: str = "") -> DjangoStore:
    """Return the store that `django:ALIAS` names, `django:` alone where the routers say.

    Raises:
        ConfigurationError: There is no such database, or it is one without SQL for an outbox.
    """
    return DjangoStore(alias)
