"""Counting, for monitoring: each number comes from an index of its own, not from the jobs."""

from __future__ import annotations

import sqlite3

from ._jobs import Counts

__all__ = ["count"]

_READY = "SELECT queue, count(*) FROM jobs WHERE state = 0 GROUP BY queue"
_RUNNING = """
SELECT queue, count(*) FROM running CROSS JOIN jobs USING (seq) WHERE state = 0 GROUP BY queue
"""
_OTHERS = """
SELECT (SELECT count(*) FROM jobs WHERE state = 1),
    (SELECT count(*) FROM jobs WHERE state IN (2, 3) AND state = 2),
    (SELECT count(*) FROM jobs WHERE state IN (2, 3) AND state = 3),
    (SELECT count(*) FROM jobs WHERE state = 4)
"""


def count(connection: sqlite3.Connection) -> Counts:
    """How many jobs are in each state, all at one instant."""
    with connection:
        connection.execute("BEGIN")
        return _counted(connection)


def _counted(connection: sqlite3.Connection) -> Counts:
    running = dict(connection.execute(_RUNNING).fetchall())
    claimable = connection.execute(_READY).fetchall()
    queues = {name: found - running.get(name, 0) for name, found in claimable}
    delayed, done, expired, dead = connection.execute(_OTHERS).fetchone()
    claimed = sum(running.values())
    return Counts(sum(queues.values()), claimed, delayed, done, expired, dead, queues)
