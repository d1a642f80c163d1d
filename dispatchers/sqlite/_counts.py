"""Counting, for monitoring: each number comes from an index of its own, not from the jobs."""

from __future__ import annotations

import sqlite3

from ._jobs import Counts

__all__ = ["count"]

_READY = "SELECT queue, count(*) FROM jobs WHERE state = 0 GROUP BY queue"
_OTHERS = """
SELECT (SELECT count(*) FROM jobs WHERE state = 1), (SELECT count(*) FROM jobs WHERE state = 2),
    (SELECT count(*) FROM jobs WHERE state IN (3, 4) AND state = 3),
    (SELECT count(*) FROM jobs WHERE state IN (3, 4) AND state = 4),
    (SELECT count(*) FROM jobs WHERE state = 5)
"""


def count(connection: sqlite3.Connection) -> Counts:
    """How many jobs are in each state."""
    queues = dict(connection.execute(_READY).fetchall())
    delayed, running, done, expired, dead = connection.execute(_OTHERS).fetchone()
    return Counts(sum(queues.values()), delayed, running, done, expired, dead, queues)
