"""Claiming the next jobs: only the head of an index is read, however many rows wait."""
# ruff: noqa: S608 - the statements are put together from constants

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache

from dispatchers._worker.waking import TURN, is_awaited
from dispatchers.sqlite._records import Job

__all__ = ["any_left", "any_waiting", "claim", "claim_delayed", "promote", "purge"]

# Jobs whose time has come that one transaction takes over into the queue.
_PROMOTED = 500

# Queues that one statement reads the heads of: SQLite joins at most 500 selects, unless it was
# built with another limit (https://sqlite.org/limits.html, 3.40).
_QUEUES_AT_ONCE = 100

# Heads that are read of each queue where there are more queues than that, in all: with ten
# thousand queues a worker takes the first few of each, and comes back for the others.
_HEADS = 20_000

# Bytes of envelopes that one claim takes; the first job is taken whatever its size.
_BYTES = 32 * 1024 * 1024

_PROMOTE = """
UPDATE jobs SET state = 0 WHERE seq IN (
    SELECT seq FROM jobs WHERE state = 1 AND run_at <= :now ORDER BY run_at LIMIT :limit)
"""

_HEAD = """
SELECT seq, priority, run_at FROM jobs
WHERE state = 0 AND queue = {queue} AND seq NOT IN (SELECT seq FROM running)
ORDER BY priority DESC, run_at, seq LIMIT :limit
"""
# In the order of the list: `CROSS JOIN` has SQLite read its left side first.
_JOBS = """
SELECT seq, id, task, queue, priority, run_at, expires_at, key, attempt, deliveries + 1,
    created_at, body
FROM (SELECT value AS head FROM json_each(:heads)) CROSS JOIN jobs ON seq = head
"""
_DELAYED = """
SELECT seq FROM jobs
WHERE state = 1 AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))
    AND seq NOT IN (SELECT seq FROM running)
ORDER BY run_at LIMIT :limit
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
_ANY_READY_AT_ALL = """
SELECT 1 FROM jobs WHERE state = 0 AND seq NOT IN (SELECT seq FROM running) LIMIT 1
"""
_ANY_DUE = "SELECT 1 FROM jobs WHERE state = 1 AND run_at <= ? LIMIT 1"

# Timers of parked executions may be due in a year: their turns count from then on.
_LEFT = f"""
SELECT queue FROM jobs WHERE state = 0
UNION ALL
SELECT queue FROM jobs
WHERE state = 1 AND (run_at <= :now OR substr(task, -{len(TURN)}) <> '{TURN}')
"""
_ANY_LEFT = f"SELECT 1 FROM ({_LEFT}) LIMIT 1"
_ANY_LEFT_OF = f"""
SELECT 1 FROM ({_LEFT}) WHERE queue IN (SELECT value FROM json_each(:queues)) LIMIT 1
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
    # Without duplicates: a queue named twice would yield each of its jobs twice.
    names = _ready_queues(connection) if queues is None else tuple(dict.fromkeys(queues))
    if limit <= 0 or not names:
        return [], 0
    heads = _heads(connection, names, limit)
    found = list(_jobs(connection, heads, fences))
    # Sorted out here and not by the statement: the index over ready jobs has no expiry.
    jobs = [job for job in found if _is_run(job, now)]
    connection.executemany(_CLAIM, [(job.seq, job.fence, owner, job.deliveries) for job in jobs])
    if len(jobs) < len(found):
        expired = set(found).difference(jobs)
        connection.executemany(_EXPIRE, [(now, job.seq) for job in expired])
    return jobs, len(found) - len(jobs)


def claim_delayed(
    connection: sqlite3.Connection,
    *,
    owner: str,
    queues: Sequence[str] | None,
    limit: int,
    fences: Iterator[int],
) -> list[Job]:
    """Take jobs whose time has not come, within a transaction: the soonest first."""
    values = {"queues": None if queues is None else json.dumps(queues), "limit": limit}
    heads = [seq for (seq,) in connection.execute(_DELAYED, values)]
    jobs = list(_jobs(connection, heads, fences))
    connection.executemany(_CLAIM, [(job.seq, job.fence, owner, job.deliveries) for job in jobs])
    return jobs


def _is_run(job: Job, now: float) -> bool:
    """Tell whether a child gets a job; of a step that is late it is to answer the execution."""
    return job.expires_at is None or job.expires_at > now or is_awaited(job.body)


def _heads(connection: sqlite3.Connection, names: Sequence[str], limit: int) -> list[int]:
    """Return the first jobs of all queues together, in the order in which they should start."""
    # Each queue could hold all of the next jobs, so each is read as far as the limit.
    each = limit if len(names) <= _QUEUES_AT_ONCE else max(1, min(limit, _HEADS // len(names)))
    heads: list[tuple[int, int, float]] = []
    for start in range(0, len(names), _QUEUES_AT_ONCE):
        chunk = names[start : start + _QUEUES_AT_ONCE]
        values: dict[str, object] = {f"q{index}": name for index, name in enumerate(chunk)}
        heads += connection.execute(_heads_of(len(chunk)), values | {"limit": each})
    heads.sort(key=lambda head: (-head[1], head[2], head[0]))
    return [seq for seq, _, _ in heads[:limit]]


def _jobs(
    connection: sqlite3.Connection, heads: Sequence[int], fences: Iterator[int]
) -> Iterator[Job]:
    """Read jobs one by one, as their envelopes may be large."""
    size = 0
    with contextlib.closing(connection.execute(_JOBS, {"heads": json.dumps(heads)})) as rows:
        for row in rows:
            job = Job(row[0], next(fences), *row[1:])
            size += len(job.body)
            # Before the check of the size: the first job is taken even if it alone exceeds it.
            yield job
            if size >= _BYTES:
                return


def any_waiting(
    connection: sqlite3.Connection, *, queues: Sequence[str] | None, now: float
) -> bool:
    """Tell whether a claim could find something, without writing; delayed jobs of any queue do."""
    ready = [_ANY_READY_AT_ALL] if queues is None else [_ANY_READY] * len(queues)
    values: list[tuple[object, ...]] = [()] if queues is None else [(name,) for name in queues]
    return any(
        connection.execute(statement, value).fetchone() is not None
        for statement, value in zip([*ready, _ANY_DUE], [*values, (now,)], strict=True)
    )


def any_left(connection: sqlite3.Connection, *, queues: Sequence[str] | None, now: float) -> bool:
    """Tell whether jobs of these queues wait or run, delayed ones but later turns included."""
    statement = _ANY_LEFT if queues is None else _ANY_LEFT_OF
    values = {"queues": json.dumps(queues), "now": now}
    return connection.execute(statement, values).fetchone() is not None


def purge(connection: sqlite3.Connection, *, before: float, limit: int) -> int:
    """Forget jobs that finished before an instant, at most `limit` of each kind."""
    return sum(connection.execute(_PURGE, (state, before, limit)).rowcount for state in (2, 3))


def _ready_queues(connection: sqlite3.Connection) -> tuple[str, ...]:
    return tuple(name for (name,) in connection.execute(_QUEUES))


@lru_cache(maxsize=_QUEUES_AT_ONCE)
def _heads_of(queues: int) -> str:
    """Return the statement that reads the heads of so many queues."""
    heads = [f"SELECT * FROM ({_HEAD.format(queue=f':q{index}')})" for index in range(queues)]
    return " UNION ALL ".join(heads)
