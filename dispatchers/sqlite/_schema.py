"""The layout of the file, its version, and the steps that bring an older file up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from enum import IntEnum

from ._errors import StoreFormatError
from ._journal_schema import JOURNAL

__all__ = ["APPLICATION_ID", "STEPS", "State", "prepare"]

# Marks the file as ours ("Dsp" and the number of the format's family): see `file(1)`.
APPLICATION_ID = 0x44737001


class State(IntEnum):
    """The state of a job. The SQL spells the numbers, as its partial indexes demand."""

    READY = 0
    DELAYED = 1
    DONE = 2
    EXPIRED = 3
    DEAD = 4


# A claim reads `ready` from its beginning and nothing else: delayed rows are not in it. That each
# partial index begins with `state` lets SQLite 3.40 answer from the index alone. `token` is
# the mark of one put, by which a producer knows its own row from one that was there before; `fence`
# is the claim that finished it.
_JOBS = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    state INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    run_at REAL NOT NULL,
    expires_at REAL,
    key TEXT,
    attempt INTEGER NOT NULL,
    deliveries INTEGER NOT NULL DEFAULT 0,
    fence INTEGER,
    token INTEGER NOT NULL,
    created_at REAL NOT NULL,
    finished_at REAL,
    reason TEXT,
    error_type TEXT,
    error TEXT,
    body BLOB
)
"""

# What is claimed stays as it is in `jobs` until it is settled, so that a claim writes to this small
# table alone, and not to pages all over the file (measured with a million jobs waiting).
_RUNNING = """
CREATE TABLE running (
    seq INTEGER PRIMARY KEY,
    fence INTEGER NOT NULL,
    owner TEXT NOT NULL,
    deliveries INTEGER NOT NULL
)
"""

_OWNERS = """
CREATE TABLE owners (
    owner TEXT PRIMARY KEY,
    beat INTEGER NOT NULL,
    lease REAL NOT NULL,
    seen_at REAL NOT NULL
) WITHOUT ROWID
"""

_CLAIMS = """
CREATE TABLE claims (
    key TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    beat INTEGER NOT NULL,
    ttl REAL NOT NULL,
    done_until REAL
) WITHOUT ROWID
"""

Step = Sequence[str]

STEPS: Sequence[Step] = (
    (
        _JOBS,
        "CREATE INDEX ready ON jobs (state, queue, priority DESC, run_at) WHERE state = 0",
        "CREATE INDEX delayed ON jobs (state, run_at) WHERE state = 1",
        "CREATE INDEX finished ON jobs (state, finished_at) WHERE state IN (2, 3)",
        "CREATE INDEX dead ON jobs (finished_at) WHERE state = 4",
        "CREATE UNIQUE INDEX live_key ON jobs (task, key) WHERE key IS NOT NULL AND state <= 2",
        _RUNNING,
        _OWNERS,
    ),
    (
        _CLAIMS,
        "CREATE INDEX done_claims ON claims (done_until) WHERE done_until IS NOT NULL",
    ),
    # The queue is in each index that is counted by queue: without it every row would be read.
    (
        "DROP INDEX delayed",
        "CREATE INDEX delayed ON jobs (state, run_at, queue) WHERE state = 1",
        "CREATE INDEX dead_queue ON jobs (state, queue) WHERE state = 4",
    ),
    # What a key stands for, so that other arguments under it are told apart.
    ("ALTER TABLE jobs ADD COLUMN digest BLOB",),
    JOURNAL,
)
"""The statements that lead from each version to the next: a file's version counts those it has."""


def prepare(connection: sqlite3.Connection, path: str, steps: Sequence[Step] = STEPS) -> None:
    """Check that the file is ours and bring it up to date, in one transaction.

    Raises:
        StoreFormatError: The file belongs to something else, or to a newer version.

        sqlite3.Error: As SQLite says; the file is as it was.
    """
    newest = len(steps)
    # No generator in between: one that an interrupt leaves behind would end the transaction later.
    with connection:
        connection.execute("BEGIN")  # of one instant: another process may be creating the file
        # Read first: a file that is up to date is opened without a write lock.
        version = _version(connection, path, newest)
    if version == newest:
        return
    # Outside of a transaction, as SQLite demands; the file keeps the mode.
    connection.execute("PRAGMA journal_mode = WAL")
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        # Read again under the write lock: another process may have upgraded it meanwhile.
        _upgrade(connection, _version(connection, path, newest), steps)


def _upgrade(connection: sqlite3.Connection, version: int, steps: Sequence[Step]) -> None:
    for step in steps[version:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    # In the same transaction as the steps, so that no file is ever between two versions.
    connection.execute(f"PRAGMA user_version = {len(steps)}")


def _version(connection: sqlite3.Connection, path: str, newest: int) -> int:
    """The file's version, 0 for an empty one."""
    ours = _pragma(connection, "application_id") == APPLICATION_ID
    version = _pragma(connection, "user_version")
    # Checked before anything is written: a user's own database may have been named by mistake.
    if not ours and (version or _tables(connection)):
        raise StoreFormatError(f"{path!r} is another program's database: choose another path")
    if version > newest:
        raise StoreFormatError(
            f"{path!r} has version {version} of the layout, this program knows up to {newest}: "
            "upgrade dispatchers here too"
        )
    return version


def _tables(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return found


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
