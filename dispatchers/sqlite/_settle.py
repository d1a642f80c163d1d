"""Settling deliveries: each ends one claim and changes one row, unless the claim is gone."""
# ruff: noqa: S608 - the statements are put together from constants

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

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
# The same for jobs that are still claimed, whose number is the answer.
_HELD = """
seq = ? AND EXISTS (SELECT 1 FROM running WHERE running.seq = jobs.seq AND running.fence = ?)
"""
_DONE_HELD = f"""
UPDATE jobs SET state = 2, body = NULL, finished_at = ?, fence = ? WHERE {_HELD}
"""
_FORGET_HELD = f"DELETE FROM jobs WHERE {_HELD}"
_WAS_DONE = "SELECT 1 FROM jobs WHERE seq = ? AND fence = ? AND state = 2"

_STATEMENTS = {
    Outcome.RETRY: _RETRY,
    Outcome.RETURNED: _RETURN,
    Outcome.DEAD: _DEAD,
    Outcome.FORGOTTEN: _FORGET,
}


def settle(
    connection: sqlite3.Connection,
    finished: Sequence[Finish],
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
    done = [finish for finish in finished if _is_plain(finish)]
    lost = _settle_done(connection, done, now=now, keep=keep)
    for finish in finished:
        if _is_plain(finish):
            continue
        # The claim decides: its row is gone if the lease was lost, or a first try got through.
        if connection.execute(_END, _claim(finish)).rowcount:
            found = apply(connection, finish) if finish.effects else finish
            connection.execute(statements[found.outcome], _values(found, now))
        elif not _repeated(connection, finish):
            lost.append(finish)
    return lost


def _is_plain(finish: Finish) -> bool:
    return finish.outcome is Outcome.DONE and not finish.effects


def _settle_done(
    connection: sqlite3.Connection, done: Sequence[Finish], *, now: float, keep: bool
) -> list[Finish]:
    """Record the usual end; together, as a call for each costs as much as what it does."""
    claims = [_claim(finish) for finish in done]
    if keep:
        rows = [(now, fence, seq, fence) for seq, fence in claims]
        held = connection.executemany(_DONE_HELD, rows).rowcount
    else:
        held = connection.executemany(_FORGET_HELD, claims).rowcount
    if held == len(done):
        connection.executemany(_END, claims)
        return []
    # A few are not held any more: those whose claims cannot be ended.
    ended = [connection.execute(_END, claim).rowcount > 0 for claim in claims]
    refused = [finish for finish, found in zip(done, ended, strict=True) if not found]
    return [finish for finish in refused if not _repeated(connection, finish)]


def _repeated(connection: sqlite3.Connection, finish: Finish) -> bool:
    """Tell whether this very settlement is recorded already: its commit's answer had been lost."""
    done = finish.outcome is Outcome.DONE
    return done and connection.execute(_WAS_DONE, _claim(finish)).fetchone() is not None


def _claim(finish: Finish) -> tuple[int, int]:
    return finish.job.seq, finish.job.fence


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
