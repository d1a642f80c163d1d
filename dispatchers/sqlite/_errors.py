"""Errors of the file.

```
StoreError
├── StoreBusyError         others held the file until the deadline
├── StoreFullError         the disk, or the quota, is full
├── StoreReadOnlyError     the file or its directory cannot be written
├── StoreUnavailableError  the file cannot be opened, read or synchronised
├── StoreFormatError       not a database of ours, newer than this version, or damaged
├── StoreInputError        a value that SQLite cannot hold
├── StoreConflictError     another job stands in the way
└── StoreClosedError       the store has been closed
```
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

__all__ = [
    "StoreBusyError",
    "StoreClosedError",
    "StoreConflictError",
    "StoreError",
    "StoreFormatError",
    "StoreFullError",
    "StoreInputError",
    "StoreReadOnlyError",
    "StoreUnavailableError",
    "is_busy",
    "translated",
]


class StoreError(Exception):
    """The store could not do what was asked.

    Args:
        message: What happened, to which file, what to do.

        maybe_written: Whether the change may be in the file all the same. False: certainly not.
    """

    def __init__(self, message: str, *, maybe_written: bool = False) -> None:
        super().__init__(message)
        self.maybe_written = maybe_written


class StoreBusyError(StoreError):
    """Other processes or threads held the file until the deadline."""


class StoreFullError(StoreError):
    """There is no room left for the change."""


class StoreReadOnlyError(StoreError):
    """The file or its directory cannot be written by this process."""


class StoreUnavailableError(StoreError):
    """The file cannot be opened, read or synchronised."""


class StoreFormatError(StoreError):
    """The file is not a store of ours, comes from a newer version, or is damaged."""


class StoreInputError(StoreError):
    """A value that SQLite cannot hold."""


class StoreConflictError(StoreError):
    """Another job stands in the way of the change."""


class StoreClosedError(StoreError):
    """The store has been closed."""


# Another connection is in the way, for now. PROTOCOL is a lost race for the log's locks.
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})

_BY_CODE: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreBusyError, "is held by others: give it more time"),
    sqlite3.SQLITE_LOCKED: (StoreBusyError, "is held by others: give it more time"),
    sqlite3.SQLITE_PROTOCOL: (StoreBusyError, "is held by others: give it more time"),
    sqlite3.SQLITE_FULL: (StoreFullError, "cannot grow: free space on its disk"),
    sqlite3.SQLITE_READONLY: (
        StoreReadOnlyError,
        "cannot be written: let this process write the file and its directory",
    ),
    sqlite3.SQLITE_PERM: (
        StoreReadOnlyError,
        "cannot be written: let this process write the file and its directory",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailableError,
        "cannot be opened: check that its directory exists and can be written",
    ),
    sqlite3.SQLITE_NOTADB: (StoreFormatError, "is not a SQLite database: choose another path"),
    sqlite3.SQLITE_CORRUPT: (StoreFormatError, "is damaged: restore it from a backup"),
    sqlite3.SQLITE_TOOBIG: (StoreInputError, "does not take values of this size"),
    sqlite3.SQLITE_CONSTRAINT: (StoreInputError, "refuses the values"),
    sqlite3.SQLITE_MISMATCH: (StoreInputError, "refuses the type of a value"),
}

_INPUT_ERRORS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)


def code_of(exc: BaseException) -> int:
    """The primary result code of an exception of `sqlite3`, 0 where it has none."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def is_busy(exc: BaseException) -> bool:
    """Tell whether another connection was in the way, so that trying again soon makes sense."""
    return code_of(exc) in _BUSY


def closed_to_us(path: str) -> str | None:
    """Say why this process may not use a file that is there; None if it may, or there is none."""
    try:
        found = Path(path).stat()
    except PermissionError:
        return "cannot be reached: let this process enter its directory"
    except OSError:
        return None
    if os.access(path, os.R_OK | os.W_OK):
        return None
    me = f", this process is of user {os.geteuid()}" if hasattr(os, "geteuid") else ""
    return (
        f"may not be read and written (it is of user {found.st_uid}, "
        f"mode {stat.S_IMODE(found.st_mode):04o}{me}): change its owner or mode"
    )


def translated(exc: Exception, path: str, *, committing: bool) -> StoreError:
    """The store's own error for one that the `sqlite3` module raised.

    Args:
        exc: What `sqlite3` raised.

        path: The file, for the message.

        committing: Whether the statement that failed was the one that commits. Of the failures at
            that point only those of input and output leave open what is in the file: all others
            occur before the commit mark is written (https://sqlite.org/rescode.html, 3.40).
    """
    code = code_of(exc)
    # SQLite gives one code for a missing directory and for missing rights.
    if code == sqlite3.SQLITE_CANTOPEN and (words := closed_to_us(path)) is not None:
        return StoreReadOnlyError(f"{path!r} {words}")
    if code in _BY_CODE:
        kind, problem = _BY_CODE[code]
        return kind(f"{path!r} {problem}")
    if not code and isinstance(exc, (*_INPUT_ERRORS, UnicodeError, OverflowError)):
        return StoreInputError(f"{path!r} cannot hold a value: {type(exc).__name__}")
    name = getattr(exc, "sqlite_errorname", type(exc).__name__)
    return StoreUnavailableError(
        f"{path!r} failed with {name}: check its disk", maybe_written=committing
    )
