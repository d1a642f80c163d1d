"""Ends of executions, and their effect on parents and children."""

from __future__ import annotations

import sqlite3

from dispatchers._journal.failure import failure
from dispatchers._journal.rules import answer_of, leaves_after
from dispatchers._journal.values import Answered, EntryKind, Status, WakeUp
from dispatchers.sqlite._journal_entries import NOTHING, answer, cancel
from dispatchers.sqlite._journal_rows import Known, Moment, find, record

__all__ = ["drop_unsent", "end", "terminate"]

_END = """
UPDATE executions SET status = ?, why = ?, wake_at = NULL, owner = NULL, finished_at = ?,
    updated_at = ?
WHERE id = ?
"""


_OUTPUT = "UPDATE payloads SET output = ? WHERE execution = ?"


_CHILDREN = "SELECT id FROM executions WHERE parent = ? AND status IN (1, 6)"


_NONE_AWAITED = "DELETE FROM awaited WHERE execution = ?"


_DROP = "DELETE FROM unsent WHERE execution = ? AND kind = ?"


def end(
    connection: sqlite3.Connection,
    known: Known,
    status: Status,
    output: bytes | None,
    why: str | None,
    at: float,
    moment: Moment,
) -> WakeUp | None:
    """Record an end, answer the parent, cancel the children; returns the wake-up of the parent."""
    connection.execute(_END, (status.value, why, at, at, known.id))
    connection.execute(_OUTPUT, (output, known.id))
    connection.execute(_NONE_AWAITED, (known.id,))
    drop_unsent(connection, known.id, status)
    if status is not Status.COMPLETED:
        for (child,) in connection.execute(_CHILDREN, (known.id,)).fetchall():
            cancel(connection, _known(connection, child), known, at)
    return _answer_parent(connection, known, at, moment)


def drop_unsent(connection: sqlite3.Connection, execution: str, status: Status) -> None:
    """Drop the commands that have not left and that none waits for after an end."""
    stays = leaves_after(status)
    for kind in (EntryKind.STEP, EntryKind.CHILD, EntryKind.SEND):
        if kind not in stays:
            connection.execute(_DROP, (execution, kind.value))


def _known(connection: sqlite3.Connection, execution: str) -> Known:
    known = find(connection, execution)
    assert known is not None
    return known


def _answer_parent(
    connection: sqlite3.Connection, known: Known, at: float, moment: Moment
) -> WakeUp | None:
    if known.parent is None or known.parent_number is None:
        return None
    child = record(connection, known.id)
    assert child is not None
    given = answer_of(child, at)
    return answer(connection, known.parent, known.parent_number, given, moment).wake


def terminate(
    connection: sqlite3.Connection, execution: str, why: str, at: float, moment: Moment
) -> Answered:
    """End an execution without running its code."""
    known = find(connection, execution)
    if known is None or not known.is_begun:
        return NOTHING
    output = failure("terminated", why)
    wake = end(connection, known, Status.TERMINATED, output, why, at, moment)
    return Answered(first=True, wake=wake)
