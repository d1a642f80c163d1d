"""A database as the outbox needs it: transactions, and SQL with `?` for values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from dispatchers._errors import ErrorCategory
from dispatchers._models.response import DispatchResponse
from dispatchers.forwarding import Forwarder

from ._errors import category_of
from ._target import Target

__all__ = ["CHANNEL", "CursorExecutor", "Executor", "Result", "Store", "marked"]

CHANNEL = "dispatchers_outbox"
"""PostgreSQL: what a committed row is told on, with its alias."""


class Result(NamedTuple):
    """Result of a statement."""

    rows: Sequence[Sequence[Any]]
    """What it has read."""
    changed: int
    """Rows that it has changed."""


class Executor(Protocol):
    """Runs statements within one transaction."""

    def execute(self, sql: str, values: Sequence[object] = ()) -> Result:
        """Run one statement, in which `?` stands for each value.

        Raises:
            Exception: What the database's driver raises.
        """
        ...


class Store(ABC):
    """A database with the tables of an outbox. Serves any number of threads.

    ::

        with store.transaction(timeout=5.0) as executor:
            executor.execute("DELETE FROM dispatchers_outbox WHERE seq = ?", [seq])
    """

    dialect: str
    """`sqlite`, `postgresql` or `mysql`."""

    @abstractmethod
    def transaction(
        self, *, timeout: float, write: bool = True
    ) -> AbstractContextManager[Executor]:
        """Begin a transaction of its own, which is committed at the end, or rolled back.

        Args:
            timeout: Seconds that it waits for others.

            write: False where it only reads.
        """

    def watch(  # noqa: B027 - a database need not tell
        self, changed: Callable[[], None], stopping: Callable[[], bool]
    ) -> None:
        """Call `changed` whenever rows may have been committed, until `stopping()`.

        Runs in a thread of its own. Returns at once where the database cannot tell: the tables are
        looked at every half second anyway.
        """

    def target(self) -> Target | None:
        """Return what dispatches add rows to: a transaction of the caller's, in its thread.

        None, the default, has each dispatch committed in a transaction of the store's own.
        """
        return None

    def committed(self, forwarder: Forwarder) -> None:
        """Have what was committed handed over; called by the thread that committed it."""
        forwarder.notice()

    def settled(  # noqa: B027 - not all have someone to tell
        self, response: DispatchResponse
    ) -> None:
        """Take note of a final response, in the process and the thread that handed over."""

    def rest(self) -> None:  # noqa: B027 - a connection may stay open
        """Close what is not worth keeping while nothing waits."""

    def category(self, exc: Exception) -> ErrorCategory | None:
        """Return the category of what the driver raised; None leaves it to the core."""
        return category_of(exc)

    def close(self, timeout: float = 5.0) -> None:  # noqa: B027 - nothing may be open
        """Close what is open within `timeout` seconds."""


class CursorExecutor:
    """Runs statements on a cursor of the DB-API.

    Args:
        cursor: Not owned, never closed.

        mark: What stands for a value in the driver's SQL: `?` or `%s`.
    """

    def __init__(self, cursor: Any, mark: str) -> None:
        self._cursor, self._mark = cursor, mark

    def execute(self, sql: str, values: Sequence[object] = ()) -> Result:
        """Run one statement."""
        self._cursor.execute(marked(sql, self._mark), tuple(values))
        rows = self._cursor.fetchall() if self._cursor.description else ()
        return Result(rows, self._cursor.rowcount)


@lru_cache(maxsize=512)
def marked(sql: str, mark: str) -> str:
    """Return SQL with the driver's own marks in place of `?`; ours has no other `?` or `%`.

    Args:
        sql: The statement.

        mark: `?`, `%s`, or `$` for `$1`, `$2` and so on.
    """
    if mark == "?":
        return sql
    first, *rest = sql.split("?")
    marks = (f"${n}" if mark == "$" else mark for n in range(1, len(rest) + 1))
    return first + "".join(given + part for given, part in zip(marks, rest, strict=True))
