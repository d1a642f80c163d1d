"""The layout of the journal: a step of the file's, so that queue and journal can be one file."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["JOURNAL"]

# Small rows, as each commit writes one; what may be large is in `payloads`. `woken_at` is when the
# last wake-up was given that no turn has followed, 0 where a turn is wanted and none was given,
# NULL where none is wanted. `wakeup` is that of the turn which `owner` has; where none has, the
# owner of the turn that was recorded last. `beat` counts renewals, judged by the observers' own
# clocks as in `owners`. `wanted` is true until a turn is committed, `lost` counts the turns that
# ended with their workers until then, `unanswered` and `size` what has limits.
_EXECUTIONS = """
CREATE TABLE executions (
    id TEXT PRIMARY KEY,
    workflow TEXT NOT NULL,
    version INTEGER NOT NULL,
    status INTEGER NOT NULL,
    dispatcher TEXT NOT NULL,
    queue TEXT,
    headers BLOB NOT NULL,
    why TEXT,
    parent TEXT,
    parent_number INTEGER,
    first INTEGER NOT NULL DEFAULT 0,
    head INTEGER NOT NULL DEFAULT 0,
    seen INTEGER NOT NULL DEFAULT 0,
    wanted INTEGER NOT NULL DEFAULT 0,
    unanswered INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0,
    woken_at REAL,
    wake_at REAL,
    fence INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    beat INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    wakeup TEXT,
    generation INTEGER NOT NULL DEFAULT 0,
    started_at REAL NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    finished_at REAL
) WITHOUT ROWID
"""

_PAYLOADS = """
CREATE TABLE payloads (
    execution TEXT PRIMARY KEY,
    input BLOB NOT NULL,
    output BLOB,
    state BLOB
)
"""

_JOURNAL = """
CREATE TABLE journal (
    execution TEXT NOT NULL,
    seq INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    number INTEGER,
    name TEXT,
    digest BLOB,
    body BLOB,
    source TEXT,
    at REAL NOT NULL,
    PRIMARY KEY (execution, seq)
) WITHOUT ROWID
"""

# Of its own, as a restart deletes entries and must not let a signal come twice.
_SOURCES = """
CREATE TABLE sources (
    execution TEXT NOT NULL,
    source TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (execution, source)
) WITHOUT ROWID
"""

# Commands that may be answered still: who deletes the row records the answer. `at` is a timer's.
_AWAITED = """
CREATE TABLE awaited (
    execution TEXT NOT NULL,
    number INTEGER NOT NULL,
    at REAL,
    PRIMARY KEY (execution, number)
) WITHOUT ROWID
"""

# Whole commands, as they outlive the entries of a restart.
_UNSENT = """
CREATE TABLE unsent (
    execution TEXT NOT NULL,
    number INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,
    body BLOB,
    route TEXT NOT NULL,
    next_try REAL NOT NULL,
    has_left INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (execution, number)
) WITHOUT ROWID
"""

# Tells the file from another that was put in its place.
_MARKS = "CREATE TABLE marks (mark BLOB NOT NULL)"

# Claims as observers saw them last, and since when: an observer may be a process of one look.
_WATCHED = """
CREATE TABLE watched (
    key TEXT PRIMARY KEY,
    mark TEXT NOT NULL,
    since REAL NOT NULL
) WITHOUT ROWID
"""

JOURNAL: Sequence[str] = (
    _WATCHED,
    _MARKS,
    "INSERT INTO marks (mark) VALUES (randomblob(16))",
    _EXECUTIONS,
    """CREATE INDEX wake ON executions (wake_at)
    WHERE wake_at IS NOT NULL AND woken_at IS NULL AND status = 1""",
    "CREATE INDEX woken ON executions (woken_at) WHERE woken_at IS NOT NULL AND status = 1",
    "CREATE INDEX leased ON executions (owner) WHERE owner IS NOT NULL",
    "CREATE INDEX children ON executions (parent) WHERE parent IS NOT NULL",
    "CREATE INDEX ended ON executions (finished_at) WHERE finished_at IS NOT NULL",
    "CREATE INDEX youngest ON executions (created_at)",
    _PAYLOADS,
    _JOURNAL,
    _SOURCES,
    _AWAITED,
    _UNSENT,
    "CREATE INDEX leaving ON unsent (next_try)",
)
"""The statements that add it to a file."""
