"""Settling deliveries: each ends one claim and changes one row, unless the claim is gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from dispatchers.sqlite._records import Finish, Outcome

__all__ = ["settle"]

_END = "DELETE FROM running WHERE seq = ? AND fence = ?"

_DONE = """
UPDATE jobs SET state = 2, body = NULL, finished_at = :now, fence = :fence WHERE seq = :seq
"""
_FORGET = "DELETE FROM jobs WHERE seq = :seq"
_RETRY = """
UPDATE jobs SET state = :run_at > :now, run_at = :run_at, attempt = :attempt, deliveries = 0
WHERE seq = :seq
"""
_RETURN = """
UPDATE jobs SET state = :run_at > :now, run_at = :run_at, deliveries = :deliveries
WHERE seq = :seq
"""
_DEAD = """
UPDATE jobs SET state = 4, finished_at = :now, deliveries = :deliveries, reason = :reason,
    error_type = :error_type, error = :error
WHERE seq = :seq
"""
_WAS_DONE = "SELECT 1 FROM jobs WHERE seq = ? AND fence = ? AND state = 2"

_STATEMENTS = {
    Outcome.RETRY: _RETRY,
    Outcome.RETURNED: _RETURN,
    Outcome.DEAD: _DEAD,
    Outcome.FORGOTTEN: _FORGET,
}


def settle(
    connection: sqlite3.Connection,
    finished: Iterable[Finish],
    *,
    now: float,
    keep: bool,
    apply: Callable[[sqlite3.Connection, Finish], Finish],
) -> list[Finish]:
    """Record what became of deliveries, within a transaction.

    Args:
        connection: The transaction's.

        finished: The settlements.

        now: Seconds since the epoch.

        keep: Whether to remember finished jobs.

        apply: Records the effects of a run; returns its settlement after that.

    Returns:
        Those that were refused, as their claims have ended otherwise.
    """
    statements = _STATEMENTS | {Outcome.DONE: _DONE if keep else _FORGET}
    lost: list[Finish] = []
    for finish in finished:
        claim = (finish.job.seq, finish.job.fence)
        # The claim decides: its row is gone if the lease was lost, or a first try got through.
        if connection.execute(_END, claim).rowcount:
            found = apply(connection, finish) if finish.effects else finish
            connection.execute(statements[found.outcome], _values(found, now))
        elif not _repeated(connection, finish):
            lost.append(finish)
    return lost


def _repeated(connection: sqlite3.Connection, finish: Finish) -> bool:
    """Tell whether this very settlement is recorded already: its commit's answer had been lost."""
    claim = (finish.job.seq, finish.job.fence)
    done = finish.outcome is Outcome.DONE
    return done and connection.execute(_WAS_DONE, claim).fetchone() is not None


def _values(finish: Finish, now: float) -> dict[str, object]:
    job = finish.job
    values: dict[str, object] = {"seq": job.seq, "fence": job.fence, "now": now}
    if finish.outcome is Outcome.DONE:
        return values
    return values | {
        "run_at": _next_run(finish, now),
        "attempt": finish.attempt,
        # What was given back unrun was not delivered (C10).
        "deliveries": job.deliveries - (not finish.counted),
        "reason": finish.reason,
        "error_type": finish.error_type,
        "error": finish.error,
    }


def _next_run(finish: Finish, now: float) -> float:
    """A job that is only given back keeps its place in the queue."""
    if finish.run_at is not None:
        return finish.run_at
    return finish.job.run_at if finish.outcome is Outcome.RETURNED else now
