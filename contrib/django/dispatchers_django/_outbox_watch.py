"""Hearing of rows that other processes have committed, where the database can tell."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import Error

from dispatchers.outbox import CHANNEL

__all__ = ["watch"]

SLICE = 0.25
"""Seconds until it is noticed that no one wants to be told any more."""
LOOK = 0.01
"""Seconds between two looks whether a file of SQLite has changed: a look takes microseconds."""
AGAIN = 1.0
"""Seconds until a connection that was lost is made again."""

Changed = Callable[[], None]
Stopping = Callable[[], bool]


def watch(connect: Callable[[], Any], changed: Changed, stopping: Stopping) -> None:
    """Call `changed` when something may have been committed, until `stopping()`.

    Args:
        connect: Returns a connection of Django's for this alone, which is closed in the end.

        changed: Takes no time.

        stopping: Asked a few times a second.
    """
    while not stopping():
        with suppress(Error, OSError):
            connection = connect()
            try:
                WAYS.get(connection.vendor, _wait)(connection, changed, stopping)
            finally:
                connection.close()
        until = time.monotonic() + AGAIN
        while not stopping() and time.monotonic() < until:
            time.sleep(SLICE)


def _listen(connection: Any, changed: Changed, stopping: Stopping) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"LISTEN {CHANNEL}")
    changed()  # for what was committed before
    notified = _psycopg if callable(connection.connection.notifies) else _psycopg2
    while not stopping():
        with connection.wrap_database_errors:
            if notified(connection.connection):
                changed()


def _psycopg(raw: Any) -> bool:
    return any(True for _ in raw.notifies(timeout=SLICE, stop_after=1))


def _psycopg2(raw: Any) -> bool:
    select.select([raw], [], [], SLICE)
    raw.poll()
    found = bool(raw.notifies)
    raw.notifies.clear()
    return found


def _look(connection: Any, changed: Changed, stopping: Stopping) -> None:
    """Look at the counter that each commit of another connection to the file raises."""
    seen = None
    while not stopping():
        # Not by a cursor of Django's, which would log each look with `DEBUG`.
        with connection.wrap_database_errors:
            ((now,),) = connection.connection.execute("PRAGMA data_version")
        if now != seen:
            seen = now
            changed()
        time.sleep(LOOK)


def _wait(connection: Any, changed: Changed, stopping: Stopping) -> None:
    """MySQL tells nothing: the tables are looked at every half second anyway."""
    del changed
    connection.close()
    while not stopping():
        time.sleep(SLICE)


WAYS = {"postgresql": _listen, "sqlite": _look}
