"""Recording entries from outside: starts, answers, signals, cancellations."""

from __future__ import annotations

import sqlite3

from dispatchers._journal.limits import check_signal, fitting, warn
from dispatchers._journal.rules import RESUMABLE
from dispatchers._journal.values import Answer, Answered, EntryKind, Start, Status, WakeUp
from dispatchers.sqlite._journal_rows import Known, Moment, find, has_forgotten

__all__ = ["NOTHING", "answer", "begin", "cancel", "deliver", "insert"]

NOTHING = Answered(first=False)
"""The answer where nothing is recorded and none to be woken."""


_INSERT = """
INSERT INTO journal (execution, seq, kind, number, name, digest, body, source, at)
VALUES (?, ?, ?, ?, ?, NULL, ?, ?, ?)
"""


_ANSWERED = "DELETE FROM awaited WHERE execution = ? AND number = ? AND at IS NULL"


_TOLD = """
UPDATE executions SET head = :head, unanswered = :unanswered, size = :size, woken_at = :woken_at,
    updated_at = :at
WHERE id = :id
"""


_WOKEN = "UPDATE executions SET woken_at = ? WHERE id = ?"


_BEGIN = """
INSERT INTO executions (id, workflow, version, status, dispatcher, queue, headers, parent,
    parent_number, wanted, woken_at, started_at, created_at, updated_at)
VALUES (:execution, :workflow, :version, 1, :dispatcher, :queue, :headers, :parent, :parent_number,
    1, :now, :at, :at, :at)
ON CONFLICT (id) DO UPDATE SET workflow = :workflow, version = :version, status = 1,
    dispatcher = :dispatcher, queue = :queue, headers = :headers, parent = :parent,
    parent_number = :parent_number, wanted = 1, woken_at = :now, started_at = :at,
    created_at = :at, updated_at = :at
"""


_EXPECT = """
INSERT INTO executions (id, workflow, version, status, dispatcher, headers, started_at, created_at,
    updated_at)
VALUES (:id, :workflow, 0, 0, '', x'', :at, :at, :at)
"""


_INPUT = "INSERT INTO payloads (execution, input) VALUES (:execution, :input)"


_SOURCE = "INSERT OR IGNORE INTO sources (execution, source, at) VALUES (?, ?, ?)"


_NOT_UNSENT = "DELETE FROM unsent WHERE execution = ? AND number = ?"


_IS_KNOWN = "SELECT 1 FROM sources WHERE execution = ? AND source = ?"


_IS_UNREAD = """
SELECT 1 FROM journal WHERE execution = ? AND seq > ? AND kind >= 16 AND (number = ? OR source = ?)
LIMIT 1
"""


def insert(
    connection: sqlite3.Connection,
    execution: str,
    seq: int,
    kind: EntryKind,
    at: float,
    *,
    number: int | None = None,
    name: str | None = None,
    body: bytes | None = None,
    source: str | None = None,
) -> None:
    """Insert an entry that is not a command."""
    connection.execute(_INSERT, (execution, seq, kind.value, number, name, body, source, at))


def begin(connection: sqlite3.Connection, start: Start, moment: Moment) -> Answered:
    """Record an execution, unless it is there; signals that came before it stay."""
    known = find(connection, start.execution)
    if known is not None and known.status != Status.EXPECTED:
        return _begun_before(connection, known, moment)
    connection.execute(_BEGIN, {**start._asdict(), "now": moment.now})
    connection.execute(_INPUT, {"execution": start.execution, "input": start.input})
    if start.parent is not None:
        _join_cancelled(connection, start.execution, start.parent, start.at)
    way = (start.execution, start.workflow, start.dispatcher, start.queue, start.headers)
    return Answered(first=True, wake=WakeUp(*way))


def _begun_before(connection: sqlite3.Connection, known: Known, moment: Moment) -> Answered:
    if not (known.wanted and known.is_begun):
        return NOTHING
    connection.execute(_WOKEN, (moment.now, known.id))
    return Answered(first=False, wake=known.wake())


def _join_cancelled(
    connection: sqlite3.Connection, execution: str, parent_id: str, at: float
) -> None:
    """Cancel a child that begins after the end that has cancelled the others."""
    known, parent = find(connection, execution), find(connection, parent_id)
    if known is not None and parent is not None and parent.status in RESUMABLE - {Status.STUCK}:
        cancel(connection, known, parent, at)


def answer(
    connection: sqlite3.Connection, execution: str, number: int, given: Answer, moment: Moment
) -> Answered:
    """Record an answer, unless there is one, or none is awaited any more."""
    known = find(connection, execution)
    if known is None or not known.is_begun:
        return NOTHING
    if has_forgotten(connection, execution, number, known.generation, given.source):
        return NOTHING
    if not connection.execute(_ANSWERED, (execution, number)).rowcount:
        return _repeated(connection, known, moment, number=number)
    # It need not leave once more, though it may have been forgotten, or never have left.
    connection.execute(_NOT_UNSENT, (execution, number))
    given = fitting(known.counts, given)
    body = given.body
    insert(connection, execution, known.head + 1, given.kind, given.at, number=number, body=body)
    return _told(connection, known, moment, given.at, size=len(body), answers=1)


def deliver(
    connection: sqlite3.Connection,
    execution: str,
    workflow: str,
    kind: EntryKind,
    name: str | None,
    body: bytes | None,
    source: str,
    at: float,
    moment: Moment,
) -> Answered:
    """Record a signal or a cancellation, once for each source."""
    known = _found(connection, execution, workflow, at)
    if not known.is_begun and known.status != Status.EXPECTED:
        return NOTHING
    if connection.execute(_IS_KNOWN, (execution, source)).fetchone():
        return _repeated(connection, known, moment, source=source)
    if kind is EntryKind.SIGNAL:
        check_signal(execution, known.counts, body)
    connection.execute(_SOURCE, (execution, source, at))
    seq = known.head + 1
    insert(connection, execution, seq, kind, at, name=name, body=body, source=source)
    return _told(connection, known, moment, at, size=len(body or b""))


def _found(connection: sqlite3.Connection, execution: str, workflow: str, at: float) -> Known:
    """Find an execution, or expect it."""
    known = find(connection, execution)
    if known is None:
        connection.execute(_EXPECT, {"id": execution, "workflow": workflow, "at": at})
        known = find(connection, execution)
    assert known is not None
    return known


def _told(
    connection: sqlite3.Connection,
    known: Known,
    moment: Moment,
    at: float,
    *,
    size: int,
    answers: int = 0,
) -> Answered:
    """Count an entry from outside; gives the wake-up for it, if it needs one."""
    wakes = known.is_free and not known.is_woken(moment)
    _count(connection, known, moment.now if wakes else known.woken_at, at, size, answers)
    return Answered(first=True, wake=known.wake() if wakes else None)


def _count(
    connection: sqlite3.Connection,
    known: Known,
    woken_at: float | None,
    at: float,
    size: int = 0,
    answers: int = 0,
) -> None:
    before = known.counts
    head, unanswered, size = before.entries + 1, before.open - answers, before.size + size
    values = {"id": known.id, "head": head, "unanswered": unanswered, "size": size, "at": at}
    connection.execute(_TOLD, {**values, "woken_at": woken_at})
    warn(known.id, before, before._replace(entries=head, open=unanswered, size=size))


def _repeated(
    connection: sqlite3.Connection,
    known: Known,
    moment: Moment,
    *,
    number: int | None = None,
    source: str | None = None,
) -> Answered:
    """Give a wake-up for an entry that was recorded before and that no turn has read."""
    place = (known.id, known.seen, number, source)
    if not known.is_free or connection.execute(_IS_UNREAD, place).fetchone() is None:
        return NOTHING
    connection.execute(_WOKEN, (moment.now, known.id))
    return Answered(first=False, wake=known.wake())


def cancel(connection: sqlite3.Connection, child: Known, parent: Known, at: float) -> None:
    """Cancel the child of an execution that has ended, once for that end; the sweep wakes it."""
    source = f"{parent.id}/{parent.generation}"
    if connection.execute(_SOURCE, (child.id, source, at)).rowcount:
        insert(connection, child.id, child.head + 1, EntryKind.CANCEL, at, source=source)
        # A turn is wanted; 0 where no wake-up is under way.
        _count(connection, child, child.woken_at or 0.0, at)
