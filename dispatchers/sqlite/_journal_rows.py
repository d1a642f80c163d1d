"""Rows of the journal, and the values that they stand for."""
# ruff: noqa: S608 - the statements are put together from constants

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from dispatchers._journal.limits import Counts
from dispatchers._journal.rules import is_forgotten
from dispatchers._journal.values import Command, Entry, EntryKind, Record, Status, Unsent, WakeUp

__all__ = [
    "RECORD",
    "Known",
    "Moment",
    "entries_after",
    "find",
    "free_record",
    "has_forgotten",
    "record",
    "record_of",
    "told_after",
    "unsent_of",
]

_KINDS = {kind.value: kind for kind in EntryKind}


_STATUSES = {status.value: status for status in Status}


_FIELDS = """
id, workflow, version, status, dispatcher, queue, headers, coalesce(input, x''), output, state, why,
    parent, parent_number, first, head, seen, wake_at, fence, generation, started_at, created_at,
    updated_at, finished_at
"""


_TABLES = "executions LEFT JOIN payloads ON execution = id"


RECORD = f"SELECT {_FIELDS} FROM {_TABLES}"
"""The statement for executions, to be ended by conditions."""


_STATUS = Record._fields.index("status")


_ONE = f"{RECORD} WHERE id = ?"


_FREE = f"""
SELECT {_FIELDS}, coalesce(wakeup, '') FROM {_TABLES}
WHERE id = ? AND owner IS NULL AND lost = 0
"""


_KNOWN = """
SELECT id, workflow, status, dispatcher, queue, headers, parent, parent_number, first, head, seen,
    wanted, unanswered, size, woken_at, wake_at, fence, generation, owner,
    wakeup, beat, lost
FROM executions WHERE id = ?
"""


_ENTRIES = """
SELECT seq, kind, number, name, digest, body, source, at FROM journal
WHERE execution = ? AND seq > ? ORDER BY seq
"""


_TOLD = """
SELECT seq, kind, number, name, digest, body, source, at FROM journal
WHERE execution = ? AND seq > ? AND kind >= 16 ORDER BY seq
"""


_BODY = "SELECT body FROM journal WHERE execution = ? AND number = ? AND kind < 16"


_UNSENT = """
SELECT next_try, has_left, number, kind, name, digest, body, route FROM unsent
WHERE execution = ? ORDER BY number
"""


class Moment(NamedTuple):
    """The time of a call."""

    now: float
    """Seconds since the epoch."""
    unread_after: float
    """Seconds after which a wake-up that no turn has followed counts as lost."""


class Known(NamedTuple):
    """An execution as far as a change has to know it."""

    id: str
    workflow: str
    status: int
    dispatcher: str
    queue: str | None
    headers: bytes
    parent: str | None
    parent_number: int | None
    first: int
    head: int
    seen: int
    wanted: int
    unanswered: int
    size: int
    woken_at: float | None
    wake_at: float | None
    fence: int
    generation: int
    owner: str | None
    wakeup: str | None
    beat: int
    lost: int

    @property
    def is_begun(self) -> bool:
        """Tell whether it was started and has not ended."""
        return self.status in (Status.RUNNING, Status.STUCK)

    @property
    def is_free(self) -> bool:
        """Tell whether a turn could be taken of it, and none is."""
        return self.owner is None and self.is_begun

    @property
    def counts(self) -> Counts:
        """Return how near it is to its limits."""
        return Counts(self.head, self.unanswered, self.size)

    def wake(self) -> WakeUp:
        """Return the way to it."""
        return WakeUp(self.id, self.workflow, self.dispatcher, self.queue, self.headers)

    def is_woken(self, moment: Moment) -> bool:
        """Tell whether a wake-up is under way."""
        # One of the future is none: the clock was set back.
        return self.woken_at is not None and 0 <= moment.now - self.woken_at < moment.unread_after


def find(connection: sqlite3.Connection, execution: str) -> Known | None:
    """Read what a change has to know of an execution."""
    row = connection.execute(_KNOWN, (execution,)).fetchone()
    return None if row is None else Known._make(row)


def record(connection: sqlite3.Connection, execution: str) -> Record | None:
    """Read an execution."""
    row = connection.execute(_ONE, (execution,)).fetchone()
    return None if row is None else record_of(row)


def free_record(connection: sqlite3.Connection, execution: str) -> tuple[Record | None, str]:
    """Read an execution of which no turn is taken, or was lost, and the owner of its last turn."""
    row = connection.execute(_FREE, (execution,)).fetchone()
    return (None, "") if row is None else (record_of(row[:-1]), row[-1])


def record_of(row: Sequence[Any]) -> Record:
    """Return the execution of a row of `RECORD`."""
    values = list(row)
    values[_STATUS] = _STATUSES[values[_STATUS]]
    return Record._make(values)


def entries_after(connection: sqlite3.Connection, execution: str, after: int) -> list[Entry]:
    """Read the entries after a place."""
    return _entries(connection.execute(_ENTRIES, (execution, after)))


def told_after(connection: sqlite3.Connection, execution: str, after: int) -> list[Entry]:
    """Read the entries after a place that are not commands."""
    return _entries(connection.execute(_TOLD, (execution, after)))


def _entries(rows: Iterable[Sequence[Any]]) -> list[Entry]:
    kinds = _KINDS
    return [Entry(seq, kinds[kind], *rest) for seq, kind, *rest in rows]


def has_forgotten(
    connection: sqlite3.Connection, execution: str, number: int, generation: int, source: str
) -> bool:
    """Tell whether a step or child is of a command that was forgotten, and issued anew since."""

    def body() -> bytes | None:
        row: tuple[bytes | None] | None = connection.execute(_BODY, (execution, number)).fetchone()
        return None if row is None else row[0]

    return is_forgotten(source, execution, number, generation, body)


def unsent_of(connection: sqlite3.Connection, execution: str) -> list[Unsent]:
    """Read the commands of an execution that have not left."""
    rows = connection.execute(_UNSENT, (execution,))
    return [
        Unsent(Command(number, _KINDS[kind], *rest), next_try, left=bool(has_left))
        for next_try, has_left, number, kind, *rest in rows
    ]
