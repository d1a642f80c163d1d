"""The transaction that an application is in: where its work is written beside its data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import Error, connections, transaction

from dispatchers import RejectedError
from dispatchers.outbox import CursorExecutor, OnEnd, Statements, Target, bounded, category_of

__all__ = ["DjangoTarget"]

T = TypeVar("T")


class DjangoTarget(Target):
    """The connection of the thread to a database, in a transaction or in none.

    Args:
        alias: The database's.

        dialect: `sqlite`, `postgresql` or `mysql`.
    """

    def __init__(self, alias: str, dialect: str) -> None:
        self._alias, self.dialect = alias, dialect

    def commits_itself(self) -> bool:
        """Tell whether autocommit is on and no transaction open; the database is not asked."""
        connection: Any = connections[self._alias]
        is_on = connection.autocommit or (
            connection.connection is None and connection.settings_dict["AUTOCOMMIT"]
        )
        return bool(is_on) and not connection.in_atomic_block

    def write(self, statements: Statements, timeout: float, *, savepoint: bool) -> None:
        """Run statements; what fails has the transaction rolled back, as a `save()` has it."""
        listed = list(statements)
        connection: Any = connections[self._alias]
        _connect(connection)
        with (
            transaction.mark_for_rollback_on_error(using=self._alias),
            self._block(savepoint=savepoint or (len(listed) > 1 and self.commits_itself())),
            bounded(connection.connection, timeout),
            connection.cursor() as cursor,
        ):
            executor = CursorExecutor(cursor, "%s")
            for sql, values in listed:
                executor.execute(sql, values)

    def _block(self, *, savepoint: bool) -> AbstractContextManager[object]:
        return transaction.atomic(using=self._alias) if savepoint else nullcontext()

    async def acall(self, function: Callable[[], T]) -> T:
        """Call a function in the thread whose connections the queries of a coroutine use."""
        return await sync_to_async(function, thread_sensitive=True)()

    def follow(self, told: OnEnd) -> bool:
        """Have a function told of the commit; of a rollback Django says nothing."""
        connection: Any = connections[self._alias]
        if connection.in_atomic_block or connection.get_autocommit():
            # Robust, as an error in here must not stop the application's other callbacks.
            connection.on_commit(partial(told, True), robust=True)
        elif not any(each == told for _, each, _ in connection.run_on_commit):
            # `on_commit` refuses it without autocommit. Once, as it may never be called.
            connection.run_on_commit.append((set(), _Committed(told), True))
        return True


class _Committed:
    """Tells of the commit; equal to what it tells."""

    def __init__(self, told: OnEnd) -> None:
        self._told = told
        self.__qualname__ = "committed"  # Django's log asks for it

    def __call__(self) -> None:
        self._told(True)

    def __eq__(self, other: object) -> bool:
        return other == self._told

    def __hash__(self) -> int:
        return hash(self._told)


def _connect(connection: Any) -> None:
    """Connect, if that was not done yet.

    Raises:
        RejectedError: It cannot be: nothing was written.
    """
    try:
        connection.ensure_connection()
    except Error as exc:
        raise RejectedError.because(exc, category_of(exc)) from exc
