"""Errors of databases as categories, by their codes and never by their words."""

from __future__ import annotations

import sqlite3
from types import TracebackType

from dispatchers._errors import ErrorCategory

__all__ = ["DOUBT", "category_of", "plainly"]

NO_TABLES = "make the tables by dispatchers.outbox.create_tables, or by manage.py migrate"

OF_SQLSTATE = {
    "08": ErrorCategory.UNAVAILABLE,
    "22": ErrorCategory.INVALID,
    "23": ErrorCategory.CONFLICT,
    "25": ErrorCategory.UNSUPPORTED,  # a transaction that has failed already, or only reads
    "28": ErrorCategory.AUTHENTICATION,
    "3D": ErrorCategory.NOT_FOUND,
    "40": ErrorCategory.UNAVAILABLE,
    "42501": ErrorCategory.PERMISSION,
    "42": ErrorCategory.NOT_FOUND,
    "53": ErrorCategory.CAPACITY,
    "53300": ErrorCategory.UNAVAILABLE,  # too many connections
    "55": ErrorCategory.UNAVAILABLE,
    "57014": ErrorCategory.TIMEOUT,
    "57": ErrorCategory.UNAVAILABLE,
}
"""Of PostgreSQL: by the code, else by its class.
https://www.postgresql.org/docs/current/errcodes-appendix.html"""
OF_MYSQL = {
    1040: ErrorCategory.UNAVAILABLE,
    1044: ErrorCategory.PERMISSION,
    1045: ErrorCategory.AUTHENTICATION,
    1049: ErrorCategory.NOT_FOUND,
    1054: ErrorCategory.NOT_FOUND,
    1114: ErrorCategory.CAPACITY,
    1142: ErrorCategory.PERMISSION,
    1146: ErrorCategory.NOT_FOUND,
    1153: ErrorCategory.TOO_LARGE,
    1205: ErrorCategory.TIMEOUT,
    1213: ErrorCategory.UNAVAILABLE,
    1290: ErrorCategory.PERMISSION,
    1792: ErrorCategory.UNSUPPORTED,  # a transaction that only reads
    2002: ErrorCategory.UNAVAILABLE,
    2003: ErrorCategory.UNAVAILABLE,
    2006: ErrorCategory.UNAVAILABLE,
    2013: ErrorCategory.UNAVAILABLE,
}
"""Of MySQL and MariaDB. https://mariadb.com/kb/en/mariadb-error-code-reference/"""
OF_SQLITE = {
    sqlite3.SQLITE_BUSY: ErrorCategory.TIMEOUT,
    sqlite3.SQLITE_LOCKED: ErrorCategory.TIMEOUT,
    sqlite3.SQLITE_READONLY: ErrorCategory.PERMISSION,
    sqlite3.SQLITE_PERM: ErrorCategory.PERMISSION,
    sqlite3.SQLITE_AUTH: ErrorCategory.PERMISSION,
    sqlite3.SQLITE_FULL: ErrorCategory.CAPACITY,
    sqlite3.SQLITE_IOERR: ErrorCategory.UNAVAILABLE,
    sqlite3.SQLITE_CANTOPEN: ErrorCategory.UNAVAILABLE,
    sqlite3.SQLITE_TOOBIG: ErrorCategory.TOO_LARGE,
    sqlite3.SQLITE_ERROR: ErrorCategory.NOT_FOUND,  # no such table
}

DOUBT = (None, ErrorCategory.UNAVAILABLE, ErrorCategory.INTERNAL)
"""Categories of errors that may come after a commit: the connection was lost."""
LOST = ("OperationalError", "InterfaceError")
"""Exceptions of any driver for a connection that is gone."""
MISUSED = ("ProgrammingError", "InvalidRequestError")
"""Exceptions without a code for what cannot be used: closed, of another thread, without engine."""


class plainly:  # noqa: N801 - it is used as a function; a generator would cost every row more
    """Raise what the driver raised: what SQLAlchemy makes of it has the SQL and the values in it.

    For want of the tables it says how they are made.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        if not isinstance(exc, Exception):
            return
        own = getattr(exc, "orig", None)
        found = own if isinstance(own, Exception) else exc
        if any(map(_lacks_table, _drivers(found))):
            found.add_note(NO_TABLES)
        if found is not exc:
            raise found from None


def category_of(exc: BaseException) -> ErrorCategory | None:
    """Return the category of what a driver raised, or SQLAlchemy for it; None knows none."""
    for each in _drivers(exc):
        if (found := _own(each)) is not None:
            return found
    return None


def _drivers(exc: BaseException) -> list[BaseException]:
    # SQLAlchemy's error has the driver's as `orig`, Django's as its cause.
    found = (getattr(exc, "orig", None), exc.__cause__, exc)
    return [each for each in found if isinstance(each, BaseException)]


def _lacks_table(exc: BaseException) -> bool:
    if isinstance(exc, sqlite3.Error):  # which has no code of its own for it
        return str(exc).startswith("no such table")
    state = getattr(exc, "sqlstate", None) or getattr(exc, "pgcode", None)
    return state == "42P01" or exc.args[:1] == (1146,)


def _own(exc: BaseException) -> ErrorCategory | None:
    code = getattr(exc, "sqlite_errorcode", None)
    if isinstance(exc, sqlite3.Error) and isinstance(code, int):
        return OF_SQLITE.get(code & 0xFF)
    state = getattr(exc, "sqlstate", None) or getattr(exc, "pgcode", None)
    if isinstance(state, str):
        return OF_SQLSTATE.get(state) or OF_SQLSTATE.get(state[:2])
    number = exc.args[0] if exc.args else None
    if isinstance(number, int) and number in OF_MYSQL:
        return OF_MYSQL[number]
    # PEP 249 parts the programmer's fault from what is not. What was lost or closed has no code.
    names = {each.__name__ for each in type(exc).__mro__}
    if not names.isdisjoint(MISUSED):
        return ErrorCategory.INVALID
    return None if names.isdisjoint(LOST) else ErrorCategory.UNAVAILABLE
