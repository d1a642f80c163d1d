"""Applying effects, within the transaction that settles their job."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from dispatchers._journal.protocol import UNREAD_AFTER
from dispatchers._journal.values import Answer, Commit, Committed, Refusal
from dispatchers._models.envelope import read_header
from dispatchers._runtime import clock
from dispatchers._worker.waking import TURN, is_awaited, tell_uncounted
from dispatchers.sqlite._effects import Effects
from dispatchers.sqlite._journal_entries import answer
from dispatchers.sqlite._journal_rows import Moment, find
from dispatchers.sqlite._journal_turns import apply, follow, leave, sent
from dispatchers.sqlite._records import NewJob, Put, Stored

__all__ = ["apply_effects"]

# The job that is repeated, or the one that follows, is the wake-up. One that began the execution
# takes a turn again only if one is wanted.
_WOKEN = "UPDATE executions SET woken_at = ?, wanted = 1 WHERE id = ?"


PutAll = Callable[[sqlite3.Connection, list[NewJob]], Sequence[Stored]]


def apply_effects(connection: sqlite3.Connection, packed: bytes, put: PutAll) -> bool:
    """Record what a run found out, and put the jobs that follow; false if it has to run again.

    Args:
        connection: The transaction's.

        packed: The changes.

        put: Puts jobs within the transaction.
    """
    effects, moment = Effects.unpacked(packed), Moment(clock.time(), UNREAD_AFTER)
    change = effects.change
    if isinstance(change, Answer):
        given = answer(connection, effects.execution, effects.number, change, moment)
        if not given.first:
            tell_uncounted(effects.execution, effects.number)
        _put(connection, effects, put, given.wake and given.wake.execution)
        return True
    return _turned(connection, effects, change, put, moment)


def _turned(
    connection: sqlite3.Connection, effects: Effects, change: Commit, put: PutAll, moment: Moment
) -> bool:
    """Record a turn; one that did not see all is repeated, unless another follows from it."""
    execution = effects.execution
    known = follow(connection, execution, effects.number, effects.owner)
    if isinstance(known, Refusal):
        _put_others(connection, effects, change, put)
        # Another turn was first, or has it now: what this one found out does not count.
        if is_repeated := _is_unread(connection, execution):
            connection.execute(_WOKEN, (moment.now, execution))
        return not is_repeated
    committed = apply(connection, known, change, moment, left=frozenset(effects.sent))
    if not isinstance(committed, Committed):
        _put_others(connection, effects, change, put)
        return True
    # What an earlier turn has left behind and this one has given up.
    new = {command.number for command in change.commands}
    sent(connection, execution, [each for each in effects.sent if each not in new], {})
    woken = execution if committed.kept else committed.wake and committed.wake.execution
    known_keys = _put(connection, effects, put, woken)
    # Their work is others': the next turn hands them over, and answers for them if need be.
    stayed = [each for each in change.commands if each.number in known_keys]
    leave(connection, execution, stayed, moment.now)
    if not (committed.kept or stayed):
        return True
    connection.execute(_WOKEN, (moment.now, execution))
    return any(each.wakes == execution for each in effects.follow) and not stayed


def _is_unread(connection: sqlite3.Connection, execution: str) -> bool:
    known = find(connection, execution)
    return known is not None and known.is_free and known.head > known.seen


def _put_others(
    connection: sqlite3.Connection, effects: Effects, change: Commit, put: PutAll
) -> None:
    """Put the jobs that do not follow from a refused commit: a hook has dispatched them."""
    own = {read_header(each.body)["id"] for each in change.commands if each.body}
    jobs = [job for job, wakes, _ in effects.follow if wakes is None and job.id not in own]
    if jobs := [job for job in jobs if not (_is_timer(job) or is_awaited(job.body))]:
        put(connection, jobs)


def _is_timer(job: NewJob) -> bool:
    return job.task.endswith(TURN) and job.run_at is not None


def _put(
    connection: sqlite3.Connection, effects: Effects, put: PutAll, woken: str | None
) -> set[int | None]:
    """Put the jobs that follow; returns the commands whose key has a job already."""
    follow = [each for each in effects.follow if each.wakes is None or each.wakes == woken]
    stored = put(connection, [each.job for each in follow]) if follow else ()
    pairs = zip(follow, stored, strict=True)
    return {each.number for each, found in pairs if found.put is not Put.INSERTED} - {None}
