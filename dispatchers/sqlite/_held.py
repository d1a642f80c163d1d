"""Envelopes that wait in a file until a backend takes them: the store of `spill`."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.dead_letter import DeadLetter, DeadLetterStore
from dispatchers._models.envelope import read_header
from dispatchers._models.outcome import Reason, RunFailure
from dispatchers._runtime.leadership import Leadership
from dispatchers._runtime.lease import Watch
from dispatchers.forwarding import BATCH, Fate, HeldRow, Settled, Source

from ._connection import Database
from ._file import check_space
from ._unchanged import Unchanged

__all__ = ["Bounds", "HeldRows", "NewRow"]

TIMEOUT = 5.0
"""Seconds that the forwarder waits for others at the file."""
BYTES = 32 * 1024 * 1024
"""Bytes of envelopes that are taken together; the first is taken whatever its size."""
ROOM = 3 * 4096 * BATCH
"""Bytes that are left on the disk for handing over: each row that is settled writes a page of the
table and of two indexes."""

# The totals are kept by triggers: to count a million rows for each that is added takes too long.
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS held (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        task TEXT NOT NULL,
        lane TEXT NOT NULL,
        deduplicate INTEGER NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        created_at REAL NOT NULL,
        why TEXT,
        body BLOB NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS held_lane ON held (lane, seq)",
    """
    CREATE TABLE IF NOT EXISTS held_totals (
        one INTEGER PRIMARY KEY CHECK (one = 1), items INTEGER NOT NULL, bytes INTEGER NOT NULL
    )
    """,
    "INSERT OR IGNORE INTO held_totals VALUES (1, 0, 0)",
    """
    CREATE TRIGGER IF NOT EXISTS held_added AFTER INSERT ON held BEGIN
        UPDATE held_totals SET items = items + 1, bytes = bytes + length(NEW.body);
    END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS held_removed AFTER DELETE ON held BEGIN
        UPDATE held_totals SET items = items - 1, bytes = bytes - length(OLD.body);
    END
    """,
    """
    CREATE TABLE IF NOT EXISTS held_by (
        one INTEGER PRIMARY KEY CHECK (one = 1), owner TEXT NOT NULL, beat INTEGER NOT NULL,
        lease REAL NOT NULL
    )
    """,
)
_PUT = """
INSERT INTO held (id, task, lane, deduplicate, created_at, body) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING
"""
_TAKE = """
SELECT seq, body, lane, deduplicate, created_at FROM held
WHERE lane NOT IN (SELECT value FROM json_each(?)) AND seq NOT IN (SELECT value FROM json_each(?))
ORDER BY seq LIMIT ?
"""
_LANES = "SELECT DISTINCT lane FROM held WHERE lane IN (SELECT value FROM json_each(?))"
_TAKE_OVER = """
INSERT INTO held_by VALUES (1, :owner, 0, :lease)
ON CONFLICT (one) DO UPDATE SET owner = :owner, beat = 0, lease = :lease
WHERE owner = :before AND beat = :beat
"""


class NewRow(NamedTuple):
    """An envelope to be held."""

    id: str
    task: str
    lane: str
    body: bytes
    deduplicate: bool


class Bounds(NamedTuple):
    """Limits of what a file holds."""

    items: int
    bytes: int
    age: float
    """Seconds after which a row becomes a dead letter."""


class HeldRows(Leadership, Source):
    """The rows of one file, drained by one process at a time.

    Serves any number of processes and threads. Which of them drains it is known by heartbeats.

    Args:
        database: The file.

        bounds: How much it may hold.

        letters: Where rows go that can never be taken.

        lease: Seconds without a heartbeat after which another process drains it.
    """

    def __init__(
        self,
        database: Database,
        bounds: Bounds,
        letters: Callable[[], DeadLetterStore],
        *,
        lease: float = 10.0,
    ) -> None:
        self.database, self.lease = database, lease
        self._bounds, self._letters = bounds, letters
        self._watch = Watch()
        self._empty = Unchanged(database, _holds_nothing)
        self._prepared: object = None

    # What holds work.

    def put(self, rows: Sequence[NewRow], *, timeout: float) -> None:
        """Hold envelopes, all or none, in one transaction; an id that is held is held once.

        Raises:
            RejectedError: The file holds as much as it may (`capacity`).

            StoreError: It could not be written.
        """
        # What is held has to leave even when nothing more fits: that writes to the file as well.
        # To the log first, and then to the file.
        size = 2 * sum(len(row.body) for row in rows)
        check_space(self.database.path, ROOM + size)
        self._prepare(timeout)
        now = time.time()
        values = [(row.id, row.task, row.lane, row.deduplicate, now, row.body) for row in rows]
        with self.database.transaction(timeout=timeout) as connection:
            connection.executemany(_PUT, values)
            # Within the transaction, which the error undoes: two processes at the limit share it.
            self._refuse_more(connection)

    def _refuse_more(self, connection: sqlite3.Connection) -> None:
        items, size = connection.execute("SELECT items, bytes FROM held_totals").fetchone()
        if items > self._bounds.items or size > self._bounds.bytes:
            most = f"{self._bounds.items} items or {self._bounds.bytes} bytes"
            raise RejectedError(
                ErrorCategory.CAPACITY, f"{self.database.path!r} holds {most}, as many as it may"
            )

    def lanes(self, wanted: Collection[str], *, timeout: float) -> set[str]:
        """Return those of some lanes of which rows are held."""
        if self._empty.holds():  # each dispatch asks, and hardly ever is there anything
            return set()
        rows = self._read("SELECT items FROM held_totals", (), timeout)
        if not rows[0][0]:
            self._empty.learn()
            return set()
        return {lane for (lane,) in self._read(_LANES, (json.dumps(list(wanted)),), timeout)}

    def totals(self, *, timeout: float) -> tuple[int, int]:
        """Return how many rows are held, and their bytes."""
        ((items, size),) = self._read("SELECT items, bytes FROM held_totals", (), timeout)
        return items, size

    def by_lane(self, *, timeout: float) -> dict[str, tuple[int, float]]:
        """Return for each lane how many rows are held, and the age of the oldest in seconds."""
        sql = "SELECT lane, count(*), min(created_at) FROM held GROUP BY lane"
        now = time.time()
        found = self._read(sql, (), timeout)
        return {lane: (count, max(0.0, now - since)) for lane, count, since in found}

    # What drains it.

    def _beat_or_take_over(self) -> bool:
        self._prepare(TIMEOUT)
        with self.database.transaction(timeout=TIMEOUT) as connection:
            return self._beat(connection) or self._take_over(connection)

    def _beat(self, connection: sqlite3.Connection) -> bool:
        sql = "UPDATE held_by SET beat = beat + 1 WHERE owner = ?"
        return connection.execute(sql, (self._owner,)).rowcount == 1

    def _take_over(self, connection: sqlite3.Connection) -> bool:
        found = connection.execute("SELECT owner, beat, lease FROM held_by").fetchone()
        owner, beat, lease = found or ("", 0, 0.0)
        if found and self._watch.left(owner, beat, lease) > 0:
            return False
        values = {"owner": self._owner, "lease": self.lease, "before": owner, "beat": beat}
        return connection.execute(_TAKE_OVER, values).rowcount == 1

    def _forget_leader(self) -> None:
        with self.database.transaction(timeout=TIMEOUT) as connection:
            connection.execute("DELETE FROM held_by WHERE owner = ?", (self._owner,))

    def take(
        self, limit: int, *, but_lanes: Collection[str], but_rows: Collection[int]
    ) -> Sequence[HeldRow]:
        """Return the next rows in order; they stay in the file."""
        self._prepare(TIMEOUT)
        values = (json.dumps(list(but_lanes)), json.dumps(list(but_rows)), limit)
        oldest = time.time() - self._bounds.age

        def look(connection: sqlite3.Connection) -> list[HeldRow]:
            found: list[HeldRow] = []
            size = 0
            for seq, body, lane, deduplicate, created_at in connection.execute(_TAKE, values):
                overdue = "held for longer than max_age" if created_at < oldest else None
                found.append(HeldRow(seq, body, lane, bool(deduplicate), overdue))
                size += len(body)
                if size >= BYTES:
                    break
            return found

        return self.database.read(look, deadline=time.monotonic() + TIMEOUT)

    def settle(self, settled: Sequence[Settled]) -> None:
        """Delete what the backend has and what is a dead letter now; note why the rest stays."""
        dead = [each for each in settled if each.fate is Fate.DEAD]
        # Before the row goes: killed in between, it is added again under the same id.
        for each in dead:
            self._letters().add(_letter(each))
        gone = [each for each in settled if each.fate is not Fate.STAYS]
        stay = [(each.why, each.row.seq) for each in settled if each.fate is Fate.STAYS]
        with self.database.transaction(timeout=TIMEOUT) as connection:
            # Another process has taken over: what this one did is done again, under the same ids.
            if not connection.execute(
                "SELECT 1 FROM held_by WHERE owner = ?", (self._owner,)
            ).fetchone():
                self._beaten = 0.0
                return
            rows = [(each.row.seq,) for each in gone]
            connection.executemany("DELETE FROM held WHERE seq = ?", rows)
            connection.executemany("UPDATE held SET tries = tries + 1, why = ? WHERE seq = ?", stay)

    def is_empty(self) -> bool:
        """Tell whether nothing is held."""
        return not self.totals(timeout=TIMEOUT)[0]

    # The file.

    def _prepare(self, timeout: float) -> None:
        """Make the tables on first use, and where the file was removed since."""
        if self._prepared is not None and os.path.exists(self.database.path):  # noqa: PTH110
            return
        with self.database.transaction(timeout=timeout) as connection:
            for statement in _SCHEMA:
                connection.execute(statement)
        self._prepared = True

    def _read(self, sql: str, values: tuple[object, ...], timeout: float) -> list[Any]:
        self._prepare(timeout)
        return self.database.read(
            lambda connection: connection.execute(sql, values).fetchall(),
            deadline=time.monotonic() + timeout,
        )


def _holds_nothing(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT items = 0 FROM held_totals").fetchone()[0])


def _letter(settled: Settled) -> DeadLetter:
    row, header = settled.row, read_header(settled.row.body)
    return DeadLetter(
        id=header["id"] or f"held-{row.seq}",
        task=header["task"] or "",
        queue=row.lane,
        reason=(Reason.PERMANENT if row.overdue is None else Reason.EXPIRED).value,
        error=RunFailure(message=settled.why),
        body=row.body,
    )
