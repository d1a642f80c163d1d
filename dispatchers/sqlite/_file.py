"""Creating and opening the file."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import Literal

from dispatchers._runtime.log import say

from ._errors import StoreFullError, StoreUnavailableError
from ._schema import prepare

__all__ = ["Synchronous", "check_space", "open_file"]

Synchronous = Literal["full", "normal"]

# UPDATE ... RETURNING came with 3.35 (https://sqlite.org/lang_returning.html).
_NEEDED = (3, 35, 0)

# Only the owner may read what the envelopes carry. SQLite gives its -wal and -shm the same mode.
_MODE = 0o600

# Kibibytes of pages held in memory, and bytes of log kept after it was copied into the file.
_CACHE = 8 * 1024
_LOG_LIMIT = 64 * 1024 * 1024


def open_file(path: str, synchronous: Synchronous) -> sqlite3.Connection:
    """Open the file for one process, creating it if need be.

    SQLite's busy handler is off: it starves beside busy workers, so the caller tries again itself.

    Raises:
        StoreFormatError: The file is not ours.

        StoreUnavailableError: SQLite is too old, or the file system cannot share memory.

        sqlite3.Error: As SQLite says; nothing is open then.
    """
    _check_library()
    _create(path)
    # Autocommit, as transactions are begun by hand; used by any thread, under our own lock.
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        _configure(connection, path, synchronous)
    except BaseException:
        connection.close()
        raise
    return connection


def _configure(connection: sqlite3.Connection, path: str, synchronous: Synchronous) -> None:
    prepare(connection, path)
    # Readers and the writer do not block each other. A network file system answers otherwise.
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreUnavailableError(
            f"{path!r} is on a file system without shared memory: choose a local disk"
        )
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    # macOS: a plain fsync leaves the data in the disk's own cache.
    connection.execute(f"PRAGMA fullfsync = {int(synchronous == 'full')}")
    connection.execute(f"PRAGMA cache_size = -{_CACHE}")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT}")


def _check_library() -> None:
    if sqlite3.sqlite_version_info < _NEEDED:
        raise StoreUnavailableError(
            f"SQLite {sqlite3.sqlite_version} is too old: use a Python with SQLite 3.35 or newer"
        )


def _create(path: str) -> None:
    """Make an empty file that only its owner may read, whatever the umask, unless one is there."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _MODE)
    except OSError:  # it is there, or SQLite will say what is wrong
        _say_if_readable(path)
        return
    os.close(descriptor)
    # Again, since the umask of this process may have taken bits away.
    Path(path).chmod(_MODE)


_told: set[str] = set()


def _say_if_readable(path: str) -> None:
    """Say once that others can read the file: its mode is its maker's, and is left as it is."""
    try:
        mode = Path(path).stat().st_mode & 0o777
    except OSError:
        return
    if mode & 0o077 and path not in _told:
        _told.add(path)
        say(
            logging.WARNING,
            "%r can be read or written by other users (mode %o), and holds what tasks are given: "
            "chmod 600",
            path,
            mode,
        )


NEEDED_SPACE = 1024 * 1024
"""Bytes that have to be free: SQLite's log grows by a page for each row that is written."""


def check_space(path: str, needed: int = NEEDED_SPACE) -> None:
    """Check that the file can grow.

    Args:
        path: The file.

        needed: Bytes that have to be free besides those of the log, which is copied into the file.

    Raises:
        StoreFullError: Its file system is full.
    """
    if not hasattr(os, "statvfs"):
        return
    found = os.statvfs(Path(path).parent)
    free = found.f_bavail * found.f_frsize
    log = Path(f"{path}-wal")
    if free < needed + (log.stat().st_size if log.exists() else 0):
        raise StoreFullError(
            f"the disk of {path!r} has {free} bytes left: free some, or choose another path"
        )
