"""Claiming the next jobs: only the head of an index is read, however many rows wait."""
# ruff: noqa: S608 - the statements are put together from constants

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache

from ._jobs import Job

__all__ = ["any_left", "any_waiting", "claim", "promote", "purge"]

# Jobs whose time has come that one transaction takes over into the queue.
_PROMOTED = 500

_PROMOTE = """
UPDATE jobs SET state = 0 WHERE seq IN (
    SELECT seq FROM jobs WHERE state = 1 AND run_at <= :now ORDER BY run_at LIMIT :limit)
"""

_HEAD = """
SELECT seq, priority, run_at FROM jobs
WHERE state = 0 AND queue = {queue} AND seq NOT IN (SELECT seq FROM running)
ORDER BY priority DESC, run_at, seq LIMIT :limit
"""
_CANDIDATES = """
SELECT seq, id, task, queue, priority, run_at, expires_at, key, attempt, deliveries + 1,
    created_at, body
FROM jobs WHERE seq IN ({heads})
"""
_CLAIM = "INSERT INTO running (seq, fence, owner, deliveries) VALUES (?, ?, ?, ?)"
_EXPIRE = "UPDATE jobs SET state = 3, body = NULL, finished_at = ? WHERE seq = ?"

_QUEUES = """
WITH RECURSIVE names(name) AS (
    SELECT min(queue) FROM jobs WHERE state = 0
    UNION ALL
    SELECT (SELECT min(queue) FROM jobs WHERE state = 0 AND queue > name) FROM names
    WHERE name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL
"""

_ANY_READY = """
SELECT 1 FROM jobs WHERE state = 0 AND queue = ? AND seq NOT IN (SELECT seq FROM running) LIMIT 1
"""
_ANY_DUE = "SELECT 1 FROM jobs WHERE state = 1 AND run_at <= ? LIMIT 1"

_ANY_LEFT = """
SELECT 1 FROM (SELECT 1 FROM jobs WHERE state = 0 UNION ALL SELECT 1 FROM jobs WHERE state = 1)
LIMIT 1
"""
_ANY_LEFT_OF = """
SELECT 1 FROM (
    SELECT queue FROM jobs WHERE state = 0 UNION ALL SELECT queue FROM jobs WHERE state = 1
) WHERE queue IN (SELECT value FROM json_each(:queues)) LIMIT 1
"""

_PURGE = """
DELETE FROM jobs WHERE seq IN (
    SELECT seq FROM jobs WHERE state IN (2, 3) AND state = ? AND finished_at <= ?
    ORDER BY finished_at LIMIT ?)
"""


def promote(connection: sqlite3.Connection, *, now: float) -> int:
    """Queue the delayed jobs whose time has come, the most overdue first; returns how many."""
    return connection.execute(_PROMOTE, {"now": now, "limit": _PROMOTED}).rowcount


def claim(
    connection: sqlite3.Connection,
    *,
    owner: str,
    queues: Sequence[str] | None,
    limit: int,
    now: float,
    fences: Iterator[int],
) -> tuple[list[Job], int]:
    """Take the next jobs, within a transaction: highest priority first, then in order of time.

    Args:
        connection: The transaction's.

        owner: Who takes them.

        queues: From which queues; None for all.

        limit: At most how many.

        now: Seconds since the epoch.

        fences: Numbers that no claim has had.

    Returns:
        The jobs, and how many others had expired and were put aside.
    """
    names = _ready_queues(connection) if queues is None else tuple(dict.fromkeys(queues))
    if limit <= 0 or not names:
        return [], 0
    values: dict[str, object] = {f"q{index}": name for index, name in enumerate(names)}
    rows = connection.execute(_candidates(len(names)), values | {"limit": limit})
    found = [Job(row[0], fence, *row[1:]) for row, fence in zip(rows, fences, strict=False)]
    jobs = [job for job in found if job.expires_at is None or job.expires_at > now]
    connection.executemany(_CLAIM, [(job.seq, job.fence, owner, job.deliveries) for job in jobs])
    if len(jobs) < len(found):
        expired = set(found).difference(jobs)
        connection.executemany(_EXPIRE, [(now, job.seq) for job in expired])
    jobs.sort(key=lambda job: (-job.priority, job.run_at, job.seq))
    return jobs, len(found) - len(jobs)


def any_waiting(
    connection: sqlite3.Connection, *, queues: Sequence[str] | None, now: float
) -> bool:
    """Whether a claim could find something, without writing: delayed jobs of any queue count."""
    names = _ready_queues(connection) if queues is None else queues
    probes: list[tuple[str, object]] = [(_ANY_READY, name) for name in names]
    return any(
        connection.execute(statement, (value,)).fetchone() is not None
        for statement, value in [*probes, (_ANY_DUE, now)]
    )


def any_left(connection: sqlite3.Connection, *, queues: Sequence[str] | None) -> bool:
    """Whether jobs of these queues wait, delayed ones included, or run."""
    if queues is None:
        found = connection.execute(_ANY_LEFT).fetchone()
    else:
        found = connection.execute(_ANY_LEFT_OF, {"queues": json.dumps(list(queues))}).fetchone()
    return found is not None


def purge(connection: sqlite3.Connection, *, before: float, limit: int) -> int:
    """Forget jobs that finished before an instant, at most `limit` of each kind."""
    return sum(connection.execute(_PURGE, (state, before, limit)).rowcount for state in (2, 3))


def _ready_queues(connection: sqlite3.Connection) -> tuple[str, ...]:
    return tuple(name for (name,) in connection.execute(_QUEUES))


@lru_cache(maxsize=64)
def _candidates(queues: int) -> str:
    """One look at the head of each queue, and the best of all of them."""
    heads = [f"SELECT * FROM ({_HEAD.format(queue=f':q{index}')})" for index in range(queues)]
    union = " UNION ALL ".join(heads)
    best = f"SELECT seq FROM ({union}) ORDER BY priority DESC, run_at, seq LIMIT :limit"
    only = f"SELECT seq FROM ({_HEAD.format(queue=':q0')})"
    return _CANDIDATES.format(heads=best if queues > 1 else only)
