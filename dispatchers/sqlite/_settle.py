"""Settling deliveries: each is one fenced change of one row, refused if the row has moved on."""
# ruff: noqa: S608 - the statements are put together from constants

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from ._jobs import Finish, Outcome

__all__ = ["settle"]

# Only the owner of the latest delivery settles a job. A place of a forgotten job is taken again by
# another, which the token tells.
_FENCED = "WHERE seq = :seq AND token = :token AND fence = :fence AND owner = :owner AND state = 2"

# The owner stays in the row of a finished job: it tells a repeated settlement from a stranger's.
_DONE = f"UPDATE jobs SET state = 3, body = NULL, finished_at = :now {_FENCED}"
_FORGET = f"DELETE FROM jobs {_FENCED}"
_RETRY = f"""
UPDATE jobs SET state = :run_at > :now, run_at = :run_at, attempt = :attempt, deliveries = 0,
    owner = NULL {_FENCED}
"""
_RETURN = f"""
UPDATE jobs SET state = :run_at > :now, run_at = :run_at, deliveries = deliveries - 1 + :counted,
    owner = NULL {_FENCED}
"""
_DEAD = f"""
UPDATE jobs SET state = 5, finished_at = :now, reason = :reason, error_type = :error_type,
    error = :error, owner = NULL {_FENCED}
"""
_WAS_DONE = """
SELECT 1 FROM jobs
WHERE seq = :seq AND token = :token AND fence = :fence AND owner = :owner AND state = 3
"""

_STATEMENTS = {Outcome.RETRY: _RETRY, Outcome.RETURNED: _RETURN, Outcome.DEAD: _DEAD}


def settle(
    connection: sqlite3.Connection,
    finished: Iterable[Finish],
    *,
    owner: str,
    now: float,
    keep: bool,
) -> list[Finish]:
    """Record what became of deliveries, within a transaction.

    Args:
        connection: The transaction's.

        finished: The settlements.

        owner: Whose deliveries they are.

        now: Seconds since the epoch.

        keep: Whether to remember finished jobs.

    Returns:
        Those that were refused, as the job is not this owner's any more.
    """
    statements = _STATEMENTS | {Outcome.DONE: _DONE if keep else _FORGET}
    return [
        finish
        for finish in finished
        if not _apply(connection, statements[finish.outcome], _values(finish, owner, now))
    ]


def _apply(connection: sqlite3.Connection, statement: str, values: dict[str, object]) -> bool:
    if connection.execute(statement, values).rowcount:
        return True
    return statement is _DONE and connection.execute(_WAS_DONE, values).fetchone() is not None


def _values(finish: Finish, owner: str, now: float) -> dict[str, object]:
    job = finish.job
    values: dict[str, object] = {
        "seq": job.seq,
        "token": job.token,
        "fence": job.fence,
        "owner": owner,
        "now": now,
    }
    if finish.outcome is Outcome.DEAD:
        values.update(reason=finish.reason, error_type=finish.error_type, error=finish.error)
    elif finish.outcome is not Outcome.DONE:
        values.update(run_at=_next_run(finish, now), attempt=finish.attempt, counted=finish.counted)
    return values


def _next_run(finish: Finish, now: float) -> float:
    """A job that is only given back keeps its place in the queue."""
    if finish.run_at is not None:
        return finish.run_at
    return finish.job.run_at if finish.outcome is Outcome.RETURNED else now
