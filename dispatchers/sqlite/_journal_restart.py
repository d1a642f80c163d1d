"""Executions that begin anew or go on: their entries are written again, numbered from 1."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from dispatchers._journal.limits import AWAITED
from dispatchers._journal.protocol import REMEMBERED
from dispatchers._journal.rules import RESUMABLE, after_restart, after_resume, forgotten
from dispatchers._journal.values import Answered, Commit, Committed, Entry, EntryKind, Status
from dispatchers.sqlite._journal_ends import drop_unsent
from dispatchers.sqlite._journal_entries import NOTHING
from dispatchers.sqlite._journal_rows import Known, Moment, entries_after, find

__all__ = ["restart", "resume"]

_ENTRIES = "DELETE FROM journal WHERE execution = ?"


_NONE_AWAITED = "DELETE FROM awaited WHERE execution = ?"


_INPUT = "UPDATE payloads SET input = ?, state = coalesce(?, state) WHERE execution = ?"


_OLD_SOURCES = "DELETE FROM sources WHERE execution = ? AND at < ?"


_INSERT = """
INSERT INTO journal (execution, seq, kind, number, name, digest, body, source, at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


_AWAITED = "INSERT INTO awaited (execution, number, at) VALUES (?, ?, ?)"


_ANEW = """
UPDATE executions SET status = 1, why = NULL, first = :first, head = :head, seen = 0, wanted = 1,
    unanswered = :unanswered, size = :size, woken_at = :now, wake_at = NULL, owner = NULL,
    fence = :fence, lost = 0, generation = generation + 1, version = coalesce(:version, version),
    started_at = coalesce(:started_at, started_at), finished_at = NULL, updated_at = :at
WHERE id = :id
"""


_NO_OUTPUT = "UPDATE payloads SET output = NULL WHERE execution = ?"


_FORGET = "DELETE FROM unsent WHERE execution = ? AND number = ?"


def restart(
    connection: sqlite3.Connection, known: Known, found: Commit, moment: Moment
) -> Committed:
    """Delete the entries of an execution but signals that were not received, and begin anew."""
    entries = entries_after(connection, known.id, 0)
    numbers = (each.number or 0 for each in entries if each.kind.is_command)
    first = max(numbers, default=known.first)
    drop_unsent(connection, known.id, Status.COMPLETED)
    connection.execute(_OLD_SOURCES, (known.id, found.at - REMEMBERED))
    connection.execute(_INPUT, (found.restart, found.state, known.id))
    kept = after_restart(entries, found)
    _begin_anew(connection, known, kept, first, found.at, moment, found)
    return Committed((), kept=False, wake=known.wake())


def resume(
    connection: sqlite3.Connection, execution: str, number: int | None, at: float, moment: Moment
) -> Answered:
    """Forget commands and their answers, and let the execution go on."""
    known = find(connection, execution)
    if known is None or known.status not in RESUMABLE:
        return NOTHING
    entries = entries_after(connection, execution, 0)
    gone = forgotten(Status(known.status), entries, number)
    connection.executemany(_FORGET, [(execution, each) for each in gone])
    connection.execute(_NO_OUTPUT, (execution,))
    # A turn that was only read, before this, is to be refused.
    known = known._replace(fence=known.fence + 1)
    _begin_anew(connection, known, after_resume(entries, gone), known.first, at, moment)
    return Answered(first=True, wake=known.wake())


def _begin_anew(
    connection: sqlite3.Connection,
    known: Known,
    entries: list[Entry],
    first: int,
    at: float,
    moment: Moment,
    restarted: Commit | None = None,
) -> None:
    execution = known.id
    connection.execute(_ENTRIES, (execution,))
    rows = [(execution, each.seq, each.kind.value, *each[2:]) for each in entries]
    connection.executemany(_INSERT, rows)
    awaited = _open(entries)
    connection.execute(_NONE_AWAITED, (execution,))
    connection.executemany(_AWAITED, [(execution, n, at) for n, at in awaited.items()])
    values = {
        "id": execution,
        "first": first,
        "fence": known.fence,
        "head": len(entries),
        "unanswered": sum(each is None for each in awaited.values()),
        "size": sum(len(each.body or b"") for each in entries),
        "now": moment.now,
        "version": restarted and restarted.version,
        "started_at": restarted and restarted.at,
        "at": at,
    }
    connection.execute(_ANEW, values)


def _open(entries: Iterable[Entry]) -> dict[int, float | None]:
    """Return the commands that are not answered, and for timers their instants."""
    found: dict[int, float | None] = {}
    for each in entries:
        if each.number is None:
            continue
        if each.kind is EntryKind.TIMER:
            found[each.number] = float(each.name or 0)
        elif each.kind in AWAITED:
            found[each.number] = None
        elif not each.kind.is_command:
            found.pop(each.number, None)
    return found
