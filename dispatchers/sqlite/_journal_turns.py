"""Turns: taking one, and recording its commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence

from dispatchers._journal.limits import AWAITED, Counts, fitted, refused, warn
from dispatchers._journal.protocol import UNREAD_AFTER
from dispatchers._journal.values import (
    LEAVING,
    Command,
    Commit,
    Committed,
    Entry,
    EntryKind,
    Refusal,
    Status,
    Turn,
)
from dispatchers._runtime.lease import Watch
from dispatchers.sqlite._journal_ends import end
from dispatchers.sqlite._journal_entries import insert
from dispatchers.sqlite._journal_restart import restart
from dispatchers.sqlite._journal_rows import (
    Known,
    Moment,
    entries_after,
    find,
    free_record,
    record,
    told_after,
    unsent_of,
)

__all__ = [
    "apply",
    "commit",
    "follow",
    "leave",
    "peek",
    "release",
    "renew",
    "sent",
    "take",
    "take_and_commit",
]

_DUE = """
SELECT number FROM awaited WHERE execution = ? AND at BETWEEN ? AND ? ORDER BY at, number
"""


# Those before the first that the code awaits, too: they are cancelled.
_FIRED = "DELETE FROM awaited WHERE execution = ? AND at <= ?"


_TAKE = """
UPDATE executions SET fence = fence + 1, lost = lost + (owner IS NOT NULL), owner = ?, wakeup = ?,
    beat = 0, woken_at = NULL, head = ?
WHERE id = ?
"""


_RENEW = "UPDATE executions SET beat = beat + 1 WHERE id = ? AND owner = ? AND fence = ?"


_RELEASE = """
UPDATE executions SET owner = NULL, wanted = 1, woken_at = ?
WHERE id = ? AND owner = ? AND fence = ?
"""


_ENTRY = """
INSERT INTO journal (execution, seq, kind, number, name, digest, body, at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


_AWAITED = "INSERT INTO awaited (execution, number, at) VALUES (?, ?, ?)"


_ANSWERED = "DELETE FROM awaited WHERE execution = ? AND number = ?"


_LEAVE = """
INSERT INTO unsent (execution, number, kind, name, digest, body, route, next_try)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


_COMMIT = """
UPDATE executions SET status = :status, why = :why, head = :head, seen = :seen, wanted = 0,
    unanswered = :unanswered, size = :size, woken_at = NULL, wake_at = :wake_at, owner = :owner,
    wakeup = :wakeup, fence = :fence, lost = CASE :status WHEN 6 THEN lost ELSE 0 END,
    updated_at = :at
WHERE id = :id
"""


# As `_COMMIT`, where nothing changes that is in an index: SQLite would write its pages anew.
_GOES_ON = """
UPDATE executions SET head = :head, seen = :seen, wanted = 0, unanswered = :unanswered,
    size = :size, wakeup = :wakeup, fence = :fence, lost = 0, updated_at = :at
WHERE id = :id
"""


_STUCK = """
UPDATE executions SET status = 6, why = ?, fence = ?, owner = NULL, woken_at = NULL, updated_at = ?
WHERE id = ?
"""


_STATE = "UPDATE payloads SET state = ? WHERE execution = ?"


_SENT = "DELETE FROM unsent WHERE execution = ? AND number = ?"


_AGAIN = """
UPDATE unsent SET next_try = ?, has_left = max(has_left, ?) WHERE execution = ? AND number = ?
"""


_ANSWERABLE = AWAITED | {EntryKind.TIMER}


_MISSING = object()


def take(
    connection: sqlite3.Connection,
    execution: str,
    owner: str,
    wakeup: str,
    after: int,
    watch: Watch,
    lease: float,
    moment: Moment,
) -> Turn | Refusal:
    """Take a turn, unless another is renewed still."""
    known = find(connection, execution)
    if known is None or known.status == Status.EXPECTED:
        return Refusal.MISSING
    if not known.is_begun:
        return Refusal.ENDED
    if _is_held(known, wakeup, watch, lease):
        return Refusal.HELD
    fired = _fire(connection, known, known.head, known.wake_at, moment)
    connection.execute(_TAKE, (owner, wakeup, known.head + len(fired), execution))
    turn = read(connection, execution, owner, after)
    return turn._replace(lost=known.lost + (known.owner is not None), follows=known.wakeup or "")


def read(connection: sqlite3.Connection, execution: str, owner: str, after: int) -> Turn:
    """Read a turn."""
    found = record(connection, execution)
    assert found is not None
    entries = entries_after(connection, execution, after)
    unsent = [each.command for each in unsent_of(connection, execution)]
    return Turn(found, owner, found.fence, entries, unsent)


def peek(
    connection: sqlite3.Connection, execution: str, owner: str, after: int, now: float
) -> Turn | None:
    """Read a turn without taking it, as the one that is committed next; None if that is not so."""
    # Another turn may be at it.
    found, last = free_record(connection, execution)
    if found is None or found.status not in (Status.RUNNING, Status.STUCK):
        return None
    # Timers are recorded before they are read.
    if found.wake_at is not None and found.wake_at <= now:
        return None
    entries = entries_after(connection, execution, after)
    unsent = [each.command for each in unsent_of(connection, execution)]
    return Turn(found, owner, found.fence + 1, entries, unsent, follows=last)


def take_and_commit(
    connection: sqlite3.Connection, turn: Turn, wakeup: str, found: Commit, moment: Moment
) -> Committed | Refusal:
    """Take a turn that was only read, and record what it found out."""
    execution, owner = turn.record.id, turn.owner
    known = follow(connection, execution, turn.fence, owner)
    if isinstance(known, Refusal):
        return known
    connection.execute(_TAKE, (owner, wakeup, known.head, execution))
    known = known._replace(owner=owner, wakeup=wakeup, beat=0, woken_at=None)
    return apply(connection, known, found, moment)


def follow(
    connection: sqlite3.Connection, execution: str, fence: int, owner: str
) -> Known | Refusal:
    """Begin a turn that was read before and ends with its commit, which writes it.

    Args:
        connection: The transaction's.

        execution: The id.

        fence: The turn's.

        owner: The turn's.

    Returns:
        The execution; a refusal, if another turn has begun since.
    """
    known = find(connection, execution)
    if known is None:
        return Refusal.MISSING
    if not known.is_begun:
        return Refusal.ENDED
    if known.owner is not None or known.fence != fence - 1:
        return Refusal.SUPERSEDED
    return known._replace(fence=fence, wakeup=owner)


def _is_held(known: Known, wakeup: str, watch: Watch, lease: float) -> bool:
    """Tell whether another turn goes on; the wake-up that it was taken for takes it over."""
    if known.owner is None or known.wakeup == wakeup:
        return False
    return watch.left(known.id, (known.fence, known.beat), lease) > 0


def _fire(
    connection: sqlite3.Connection,
    known: Known,
    head: int,
    wake_at: float | None,
    moment: Moment,
) -> list[Entry]:
    """Record the timers that are due and awaited, in the order of their instants."""
    now = moment.now
    if wake_at is None or wake_at > now:
        return []
    numbers = connection.execute(_DUE, (known.id, wake_at, now)).fetchall()
    connection.execute(_FIRED, (known.id, now))
    fired: list[Entry] = []
    for seq, (number,) in enumerate(numbers, head + 1):
        insert(connection, known.id, seq, EntryKind.FIRED, now, number=number)
        fired.append(Entry(seq, EntryKind.FIRED, number, None, None, None, None, now))
    return fired


def renew(connection: sqlite3.Connection, turn: Turn) -> bool:
    """Hold a turn for longer."""
    row = (turn.record.id, turn.owner, turn.fence)
    return connection.execute(_RENEW, row).rowcount == 1


def release(connection: sqlite3.Connection, turn: Turn, moment: Moment) -> None:
    """Give a turn back, for which its wake-up comes again; else the sweep finds it."""
    connection.execute(_RELEASE, (moment.now, turn.record.id, turn.owner, turn.fence))


def commit(
    connection: sqlite3.Connection, turn: Turn, found: Commit, moment: Moment
) -> Committed | Refusal:
    """Record what a turn found out, unless another has begun since."""
    known = find(connection, turn.record.id)
    if known is None:
        return Refusal.MISSING
    if not known.is_begun:
        return Refusal.ENDED
    if (known.owner, known.fence) != (turn.owner, turn.fence):
        return Refusal.SUPERSEDED
    return apply(connection, known, found, moment)


def apply(
    connection: sqlite3.Connection,
    known: Known,
    found: Commit,
    moment: Moment,
    *,
    left: Collection[int] = (),
) -> Committed | Refusal:
    """Record what a turn found out whose fence was checked.

    Args:
        connection: The transaction's.

        known: The execution.

        found: What the turn found out.

        moment: The time of the call.

        left: Numbers of commands that leave in the same transaction.
    """
    before = known.counts
    if found.answers:
        found = fitted(before, found)
    if (why := refused(before, found)) is not None:
        connection.execute(_STUCK, (why, known.fence, found.at, known.id))
        return Refusal.LIMIT
    found = _with_first_answers(connection, known, found)
    counts = before.after(found)
    own = _own_entries(known, found)
    _record(connection, known, found, own, left)
    warn(known.id, before, counts)
    if found.restart is not None:
        return restart(connection, known, found, moment)
    return _settle(connection, known, found, own, counts, moment)


def _own_entries(known: Known, found: Commit) -> list[Entry]:
    """Return the entries that the answers of local steps become, after the commands."""
    return [
        Entry(seq, given.kind, number, None, None, given.body, None, given.at)
        for seq, (number, given) in enumerate(found.answers, known.head + len(found.commands) + 1)
    ]


def _record(
    connection: sqlite3.Connection,
    known: Known,
    found: Commit,
    own: Sequence[Entry],
    left: Collection[int],
) -> None:
    """Record commands and answers, and keep the commands that are to leave."""
    name, at = known.id, found.at
    rows: list[tuple[object, ...]] = [
        (name, seq, each.kind.value, each.number, each.name, each.digest, each.body, at)
        for seq, each in enumerate(found.commands, known.head + 1)
    ]
    rows += [(name, e.seq, e.kind.value, e.number, None, None, e.body, e.at) for e in own]
    if rows:
        connection.executemany(_ENTRY, rows)
    leaving = [e for e in found.commands if e.kind in LEAVING and e.number not in left]
    leave(connection, name, leaving, at + UNREAD_AFTER)


def leave(
    connection: sqlite3.Connection, execution: str, commands: Sequence[Command], next_try: float
) -> None:
    """Keep commands that are to leave, from an instant on."""
    rows = [
        (execution, each.number, each.kind.value, each.name, each.digest, each.body, each.route,
         next_try)
        for each in commands
    ]  # fmt: skip
    if rows:
        connection.executemany(_LEAVE, rows)


def _with_first_answers(connection: sqlite3.Connection, known: Known, found: Commit) -> Commit:
    """Return a commit with the answers that are the first; commands without one are awaited."""
    new = {each.number: _instant(each) for each in found.commands if each.kind in _ANSWERABLE}
    first = [
        (number, given)
        for number, given in found.answers
        # Never written for the usual local step, which comes with its answer.
        if new.pop(number, _MISSING) is not _MISSING
        or connection.execute(_ANSWERED, (known.id, number)).rowcount
    ]
    if new:
        connection.executemany(_AWAITED, [(known.id, number, at) for number, at in new.items()])
    return found if len(first) == len(found.answers) else found._replace(answers=first)


def _instant(command: Command) -> float | None:
    return float(command.name) if command.kind is EntryKind.TIMER else None


def _settle(
    connection: sqlite3.Connection,
    known: Known,
    found: Commit,
    own: list[Entry],
    counts: Counts,
    moment: Moment,
) -> Committed:
    """Record where the execution stands, and whether the turn goes on."""
    fresh: list[Entry] = []
    if found.status is Status.RUNNING:
        fired = _fire(connection, known, counts.entries, found.wake_at, moment)
        if fired:
            counts = counts._replace(entries=counts.entries + len(fired))
        # Without a look into the file where no other has recorded anything.
        fresh = [*own, *fired]
        if found.seen < known.head:
            fresh = told_after(connection, known.id, found.seen)
    kept = found.status is Status.RUNNING and (found.keep or bool(fresh))
    is_as_before = kept and _is_as_before(known, found)
    values = _values(known, found, counts, kept=kept, read=not fresh)
    connection.execute(_GOES_ON if is_as_before else _COMMIT, values)
    if found.state is not None:
        connection.execute(_STATE, (found.state, known.id))
    wake = None
    if found.status.is_end:
        status, output, why = found.status, found.output, found.why
        wake = end(connection, known, status, output, why, found.at, moment)
    return Committed(fresh, kept, wake)


def _is_as_before(known: Known, found: Commit) -> bool:
    """Tell whether a turn that goes on leaves all that the sweep looks for as it is."""
    before = (known.status, known.woken_at, known.wake_at)
    return before == (Status.RUNNING, None, found.wake_at)


def _values(
    known: Known, found: Commit, counts: Counts, *, kept: bool, read: bool
) -> dict[str, object]:
    # All is read where nothing but commands came after the last entry that the code was told.
    all_read = read and found.status is Status.RUNNING
    return {
        "id": known.id,
        "status": found.status.value,
        "why": found.why,
        "head": counts.entries,
        "seen": counts.entries if all_read else found.seen,
        "unanswered": counts.open,
        "size": counts.size,
        "wake_at": found.wake_at,
        "owner": known.owner if kept else None,
        # Of a turn that is over its owner is known still: live code is of that turn, or of another.
        "wakeup": known.wakeup if kept else known.owner or known.wakeup,
        "fence": known.fence,
        "at": found.at,
    }


def sent(
    connection: sqlite3.Connection,
    execution: str,
    numbers: Sequence[int],
    again: Mapping[int, float],
) -> None:
    """Note which commands have left, and when commands leave again."""
    gone = [(execution, number) for number in numbers if number not in again]
    connection.executemany(_SENT, gone)
    rows = [(at, number in numbers, execution, number) for number, at in again.items()]
    connection.executemany(_AGAIN, rows)
