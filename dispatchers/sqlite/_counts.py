"""Counting, for monitoring: each number comes from an index of its own, not from the jobs."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, defaultdict
from typing import NamedTuple

from dispatchers.sqlite._records import Counts

__all__ = ["ByQueue", "count", "count_dead", "count_queues"]

_READY = "SELECT queue, count(*) FROM jobs WHERE state = 0 GROUP BY queue"
_RUNNING = """
SELECT queue, count(*) FROM running CROSS JOIN jobs USING (seq) WHERE state = 0 GROUP BY queue
"""
_WAITING = """
SELECT queue, count(*), min(run_at) FROM jobs
WHERE state = 0 AND seq NOT IN (SELECT seq FROM running) GROUP BY queue
"""
_DELAYED = """
SELECT queue, sum(run_at > :now), sum(run_at <= :now), min(run_at) FROM jobs
WHERE state = 1 GROUP BY queue
"""
_DEAD = "SELECT queue, count(*) FROM jobs WHERE state = 4 GROUP BY queue"
_OTHERS = """
SELECT (SELECT count(*) FROM jobs WHERE state = 1),
    (SELECT count(*) FROM jobs WHERE state IN (2, 3) AND state = 2),
    (SELECT count(*) FROM jobs WHERE state IN (2, 3) AND state = 3),
    (SELECT count(*) FROM jobs WHERE state = 4)
"""


def count(connection: sqlite3.Connection) -> Counts:
    """Return how many jobs are in each state, all at one instant."""
    with connection:
        connection.execute("BEGIN")
        return _counted(connection)


class ByQueue(NamedTuple):
    """Numbers by queue at one instant; `oldest` in seconds."""

    waiting: Counter[str]
    running: dict[str, int]
    delayed: dict[str, int]
    dead: dict[str, int]
    oldest: dict[str, float]


def count_queues(connection: sqlite3.Connection) -> ByQueue:
    """Count the jobs of each queue; jobs whose time has come wait, promoted or not."""
    with connection:
        connection.execute("BEGIN")
        now = time.time()
        ready = connection.execute(_WAITING).fetchall()
        held = connection.execute(_DELAYED, {"now": now}).fetchall()
        running = dict(connection.execute(_RUNNING).fetchall())
        dead = dict(connection.execute(_DEAD).fetchall())
    waiting = Counter({name: number for name, number, _ in ready})
    waiting.update({name: due for name, _, due, _ in held if due})
    oldest: defaultdict[str, float] = defaultdict(float)
    for name, due_at in [*((r[0], r[2]) for r in ready), *((h[0], h[3]) for h in held)]:
        oldest[name] = max(oldest[name], now - due_at)
    return ByQueue(waiting, running, {each[0]: each[1] for each in held}, dead, oldest)


def count_dead(connection: sqlite3.Connection) -> dict[str, int]:
    """Count the dead jobs of each queue."""
    return dict(connection.execute(_DEAD).fetchall())


def _counted(connection: sqlite3.Connection) -> Counts:
    running = dict(connection.execute(_RUNNING).fetchall())
    claimable = connection.execute(_READY).fetchall()
    queues = {name: found - running.get(name, 0) for name, found in claimable}
    delayed, done, expired, dead = connection.execute(_OTHERS).fetchone()
    claimed = sum(running.values())
    return Counts(sum(queues.values()), claimed, delayed, done, expired, dead, queues)
