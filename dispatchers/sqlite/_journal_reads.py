"""Reading the journal: executions that want a turn, and those that people ask for."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from dispatchers._journal.protocol import LONGEST_WAIT
from dispatchers._journal.values import Count, Query, Record, WakeUp
from dispatchers.sqlite._journal_rows import RECORD, Moment, has_forgotten, record_of

__all__ = ["DUE", "Due", "count", "due", "find_all", "forget", "is_answered", "mark", "way"]

_WAY = "id, workflow, dispatcher, queue, headers, fence, beat, owner"


_TIMER = f"""
SELECT {_WAY} FROM executions INDEXED BY wake
WHERE wake_at IS NOT NULL AND woken_at IS NULL AND status = 1 AND wake_at <= :now AND owner IS NULL
ORDER BY wake_at LIMIT :limit
"""  # noqa: S608 - put together from constants


# `rules.pause_after`, as a condition. Those of the future as well: the clock was set back since.
_IS_LOST = """
(woken_at > :now OR woken_at <= :long_lost OR woken_at <= :lost AND :now - woken_at
    >= woken_at - max(updated_at, CASE WHEN wake_at <= woken_at THEN wake_at ELSE 0 END))
"""


_UNREAD = f"""
SELECT {_WAY} FROM executions INDEXED BY woken
WHERE woken_at IS NOT NULL AND status = 1 AND owner IS NULL AND {_IS_LOST}
ORDER BY woken_at LIMIT :limit
"""  # noqa: S608 - put together from constants


# Of what is stuck as well: a worker that may have the code for it has died in its turn.
_LEASED = f"""
SELECT {_WAY} FROM executions INDEXED BY leased WHERE owner IS NOT NULL AND status IN (1, 6)
"""  # noqa: S608 - put together from constants


_LEAVING = f"""
SELECT DISTINCT {_WAY} FROM unsent INDEXED BY leaving CROSS JOIN executions ON id = execution
WHERE next_try <= :now AND owner IS NULL AND (woken_at IS NULL OR {_IS_LOST})
ORDER BY next_try LIMIT :limit
"""  # noqa: S608 - put together from constants


DUE = {"orphaned": _LEASED, "timer": _TIMER, "unread": _UNREAD, "unsent": _LEAVING}
"""The statements by which the sweep looks, by the reason that each finds."""


_MARK = """
UPDATE executions SET woken_at = ?, lost = lost + (owner IS NOT NULL), owner = NULL
WHERE id = ? AND fence = ? AND beat = ?
"""


_SEEN = "SELECT since FROM watched WHERE key = ? AND mark = ? AND since <= ?"


_SEE = "INSERT OR REPLACE INTO watched (key, mark, since) VALUES (?, ?, ?)"


# Of turns: keys of claims begin with the name of a workflow or task, which has no slash there.
_LOOK_AWAY = """
DELETE FROM watched WHERE key >= '/' AND key < '0'
    AND NOT EXISTS (SELECT 1 FROM executions WHERE id = substr(key, 2) AND owner IS NOT NULL)
"""


_WAITING = """
SELECT id, workflow, dispatcher, queue, headers, generation
FROM executions JOIN awaited ON execution = id AND number = ?
WHERE id = ? AND status IN (1, 6)
"""


_QUERY = f"""{RECORD}
WHERE (:workflow IS NULL OR workflow = :workflow)
    AND (:status IS NULL OR status IN (SELECT value FROM json_each(:status)))
    AND (:id_part IS NULL OR instr(id, :id_part))
    AND (:before IS NULL OR created_at < :before)
"""  # noqa: S608 - put together from constants


_OF_PARENT = " AND parent = :parent"


_ORDER = " ORDER BY created_at DESC, id DESC LIMIT :limit"


# A scan of small rows: an index would cost each commit of a turn.
_COUNT = """
SELECT workflow, dispatcher,
    sum(status = 1 AND (owner IS NOT NULL OR woken_at IS NOT NULL)),
    sum(status = 1 AND owner IS NULL AND woken_at IS NULL),
    sum(status = 6)
FROM executions WHERE status IN (1, 6) GROUP BY 1, 2 ORDER BY 1, 2
"""


_OLD = """
SELECT id, head FROM executions WHERE finished_at < :before
    AND NOT EXISTS (SELECT 1 FROM unsent WHERE execution = id)
UNION ALL
SELECT id, head FROM executions WHERE status = 0 AND updated_at < :before
LIMIT :limit
"""


_FORGET = (
    "DELETE FROM executions WHERE id = ?",
    "DELETE FROM payloads WHERE execution = ?",
    "DELETE FROM journal WHERE execution = ?",
    "DELETE FROM sources WHERE execution = ?",
)


# Entries that one transaction deletes, as others wait for it.
_ENTRIES = 20_000


Due = tuple[WakeUp, int, int]
"""A wake-up, and the fence and beat at which it was found."""


Seen = tuple[str, str, float]
"""A turn that is watched from now on: its key, what its holder changes, and now."""


def due(
    connection: sqlite3.Connection, lease: float, limit: int, moment: Moment, clock: float
) -> tuple[list[Due], list[Seen]]:
    """List the executions that want a turn, each once, and the turns that nothing has watched.

    The next to look may be another process: `executions sweep`, or a push, is one of a single look.
    """
    found: dict[str, Due] = {}
    unseen: list[Seen] = []
    now = moment.now
    values = {"now": now, "lost": now - moment.unread_after, "long_lost": now - LONGEST_WAIT}
    values["limit"] = limit
    for why, statement in DUE.items():
        for *way, fence, beat, owner in connection.execute(statement, values):
            seen = (f"/{way[0]}", f"{fence} {beat}", clock)
            since = None if owner is None else _since(connection, seen)
            if owner is not None and since is None:
                unseen.append(seen)
            elif since is None or since + lease <= clock:
                found.setdefault(way[0], (WakeUp._make((*way, why)), fence, beat))
    return list(found.values())[:limit], unseen


def _since(connection: sqlite3.Connection, seen: Seen) -> float | None:
    """Return since when a turn has not been renewed; None if nothing has watched it."""
    row = connection.execute(_SEEN, seen).fetchone()
    return None if row is None else float(row[0])


def mark(
    connection: sqlite3.Connection, found: list[Due], unseen: list[Seen], moment: Moment
) -> list[WakeUp]:
    """Note that executions are woken; leaves out those that a turn was renewed or taken of."""
    connection.execute(_LOOK_AWAY)
    connection.executemany(_SEE, unseen)
    return [
        wake
        for wake, fence, beat in found
        if connection.execute(_MARK, (moment.now, wake.execution, fence, beat)).rowcount
    ]


def is_answered(connection: sqlite3.Connection, execution: str, number: int, source: str) -> bool:
    """Tell whether a step need not run."""
    return way(connection, execution, number, source) is None


def way(connection: sqlite3.Connection, execution: str, number: int, source: str) -> WakeUp | None:
    """Return how to wake the execution that waits for a step; None if none does."""
    row = connection.execute(_WAITING, (number, execution)).fetchone()
    if row is None or has_forgotten(connection, execution, number, row[-1], source):
        return None
    return WakeUp(*row[:-1])


def find_all(connection: sqlite3.Connection, query: Query) -> list[Record]:
    """List executions, the youngest first."""
    status = json.dumps([each.value for each in query.status]) if query.status else None
    # A condition of its own, so that the index of children is used.
    statement = _QUERY + (_OF_PARENT if query.parent is not None else "") + _ORDER
    rows = connection.execute(statement, {**query._asdict(), "status": status})
    return [record_of(row) for row in rows]


def count(connection: sqlite3.Connection) -> list[Count]:
    """Count the executions that have not ended."""
    return [Count(*row) for row in connection.execute(_COUNT)]


def forget(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Delete executions that ended before an instant, as many as one transaction should."""
    names = list(_some(connection, before, limit))
    for statement in _FORGET:
        connection.executemany(statement, [(name,) for name in names])
    return len(names)


def _some(connection: sqlite3.Connection, before: float, limit: int) -> Iterator[str]:
    entries = 0
    rows = connection.execute(_OLD, {"before": before, "limit": limit}).fetchall()
    for name, head in rows:
        yield name
        entries += head
        if entries >= _ENTRIES:
            return
