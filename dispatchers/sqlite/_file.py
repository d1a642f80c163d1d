"""Creating and opening the file."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Literal

from ._errors import StoreUnavailableError
from ._schema import prepare

__all__ = ["Synchronous", "open_file"]

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
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        _configure(connection, path, synchronous)
    except BaseException:
        connection.close()
        raise
    return connection


def _configure(connection: sqlite3.Connection, path: str, synchronous: Synchronous) -> None:
    prepare(connection, path)
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreUnavailableError(
            f"{path!r} is on a file system without shared memory: choose a local disk"
        )
    connection.execute(f"PRAGMA synchronous = {synchronous}")
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
        return
    os.close(descriptor)
    Path(path).chmod(_MODE)
