"""The outbox in a database of Django's: `"store": "django:ALIAS"` among the `OPTIONS`.

Callers write by their own connection, within the transaction that it is in. What hands over has a
connection of its own, which is none of `django.db.connections`: those belong to threads, and may be
inside a transaction of the application.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from typing import Any

from django.db import connections, router, transaction

from dispatchers import ConfigurationError, DispatchResponse, get_dispatcher
from dispatchers.delivery import say
from dispatchers.forwarding import Forwarder, Step
from dispatchers.frameworks import nearest
from dispatchers.outbox import (
    DIALECTS,
    ConnectionStore,
    CursorExecutor,
    Executor,
    OutboxDispatcher,
    Target,
    outboxes,
)

from . import _outbox_results
from ._connections import close_stale, shared
from ._isolation import in_tests
from ._outbox_target import DjangoTarget
from ._outbox_watch import watch
from .signals import dispatched

__all__ = ["DjangoStore", "database_beside", "database_of", "store", "wake_all"]

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
        self._target = DjangoTarget(self.alias, self.dialect)
        super().__init__()

    # What callers do.

    def target(self) -> Target:
        """Return the transaction of the thread's own connection."""
        return self._target

    def committed(self, forwarder: Forwarder) -> None:
        """Have it handed over in the background; in tests, and inside a `TestCase`'s, here."""
        connection = connections[self.alias]
        if in_tests() or connection.in_atomic_block or _is_in_memory(connection):
            self._hand_over(forwarder)
        else:
            forwarder.notice()

    def _hand_over(self, forwarder: Forwarder) -> None:
        """Hand over by the connection of this thread: another one sees no uncommitted rows."""
        before, _thread.handing_over = _thread.handing_over, self
        try:
            with shared():
                while forwarder.step() is Step.MOVED:
                    pass
                forwarder.leave()
        except Exception as exc:  # noqa: BLE001 - the rows are there, and what asked goes on
            say(logging.ERROR, "rows of %r were not handed over: %s", self.alias, exc)
        finally:
            _thread.handing_over = before

    # What hands over.

    @contextmanager
    def transaction(self, *, timeout: float, write: bool = True) -> Generator[Executor]:
        """Begin a transaction on the connection of its own."""
        joined = _thread.handing_over is self
        given = self._joined() if joined else super().transaction(timeout=timeout, write=write)
        with given as executor:
            yield executor

    def settled(self, response: DispatchResponse) -> None:
        """Tell those who wait for the response, and the signal."""
        _outbox_results.told(response)
        dispatched.send_robust(sender=OutboxDispatcher, response=response, using=self.alias)

    def rest(self) -> None:
        """Close the connection when its age says so, as Django does after a request."""
        with self._lock:
            if self._connection is not None:
                self._connection.close_if_unusable_or_obsolete()
            if self._connection is not None and self._connection.connection is None:
                self._connection = None
        close_stale()  # a dispatcher that got the work may have used this thread's

    def watch(self, changed: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """Call `changed` whenever rows may have been committed, until `stopping()`."""
        watch(lambda: self._connect(WAIT), changed, stopping)

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


def _is_in_memory(connection: Any) -> bool:
    """Tell whether another connection would be refused while a transaction is open."""
    return connection.vendor == "sqlite" and bool(connection.is_in_memory_db())


def _routed() -> str:
    from .models import OutboxRow  # importable once the applications are loaded

    return router.db_for_write(OutboxRow)


def database_of(dispatcher: object) -> str | None:
    """Return the database in which a dispatcher keeps work, of an outbox in one of Django's."""
    place = dispatcher.store if isinstance(dispatcher, OutboxDispatcher) else None
    return place.alias if isinstance(place, DjangoStore) else None


def database_beside(response: DispatchResponse) -> str | None:
    """Return the database in whose open transaction the work of a response is a row."""
    if response.backend != OutboxDispatcher.name or response.durable or not response.ok:
        return None
    try:
        return database_of(get_dispatcher(response.dispatcher))
    except ConfigurationError:
        return None


def wake_all() -> None:
    """Have the outboxes of the configuration in Django's databases hand over what waits."""
    for each in outboxes():
        if isinstance(each.store, DjangoStore):
            each.store.committed(each.forwarder)


def store(alias: str = "") -> DjangoStore:
    """Return the store that `django:ALIAS` names, `django:` alone where the routers say.

    Raises:
        ConfigurationError: There is no such database, or it is one without SQL for an outbox.
    """
    return DjangoStore(alias)
