"""`SQLiteJournal`: executions in a file, which may be the queue's."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from dispatchers._journal.errors import JournalError
from dispatchers._journal.protocol import LEASE, UNREAD_AFTER
from dispatchers._journal.values import (
    Answer,
    Answered,
    Commit,
    Committed,
    Count,
    Entry,
    EntryKind,
    Query,
    Record,
    Refusal,
    Start,
    Turn,
    Unsent,
    WakeUp,
)
from dispatchers._models.claim import IdempotencyStore
from dispatchers._runtime import clock
from dispatchers._runtime.lease import Watch
from dispatchers.sqlite import _journal_ends as ends
from dispatchers.sqlite import _journal_entries as told
from dispatchers.sqlite import _journal_reads as reads
from dispatchers.sqlite import _journal_restart as anew
from dispatchers.sqlite import _journal_rows as rows
from dispatchers.sqlite import _journal_turns as turns

from ._connection import Database
from ._errors import StoreError
from ._file import Synchronous
from ._idempotency import SQLiteIdempotencyStore

__all__ = ["SQLiteJournal"]

T = TypeVar("T")

_MARK = "SELECT mark FROM marks"


Work = Callable[[sqlite3.Connection, rows.Moment], T]


class SQLiteJournal:
    """Executions of the processes of one machine, in a file that may be a queue's.

    Serves any number of processes and threads, also across forks. See
    `dispatchers.journals.Journal` for what each call does.

    Args:
        path: The file; its directory has to exist. Created on first use, for its owner only.

        synchronous: `"full"` survives a loss of power; `"normal"` only that of any process.

        lease: Seconds without a renewal after which a turn counts as given up.

        unread_after: Seconds after which a wake-up that no turn has followed counts as lost.
    """

    claims: IdempotencyStore

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "full",
        lease: float = LEASE,
        unread_after: float = UNREAD_AFTER,
    ) -> None:
        self.database = Database(path, synchronous=synchronous)
        self.claims = SQLiteIdempotencyStore(self.database)
        self._lease = lease
        self._unread_after = unread_after
        self._watch = Watch()
        self._clock = time.monotonic
        self._mark: tuple[bytes] | None = None
        self._checked: sqlite3.Connection | None = None

    @property
    def path(self) -> str:
        """The file's absolute path."""
        return self.database.path

    def begin(self, start: Start, *, timeout: float) -> Answered:
        """Record an execution; `first` is False if it was there."""
        return self._write(lambda c, moment: told.begin(c, start, moment), timeout)

    def take(
        self, execution: str, owner: str, *, wakeup: str, after: int, timeout: float
    ) -> Turn | Refusal:
        """Take a turn; timers that are due fire first."""
        return self._write(
            lambda c, moment: turns.take(
                c, execution, owner, wakeup, after, self._watch, self._lease, moment
            ),
            timeout,
        )

    def peek(self, execution: str, owner: str, *, after: int, timeout: float) -> Turn | None:
        """Read a turn that is recorded in one go; None if it has to be taken, or is refused."""
        return self._read(lambda c: turns.peek(c, execution, owner, after, clock.time()), timeout)

    def take_and_commit(
        self, turn: Turn, wakeup: str, commit: Commit, *, timeout: float
    ) -> Committed | Refusal:
        """Take a turn that was only read, and record what it found out."""
        return self._write(
            lambda c, moment: turns.take_and_commit(c, turn, wakeup, commit, moment), timeout
        )

    def renew(self, turn: Turn, *, timeout: float) -> bool:
        """Hold a turn for longer; False if it is lost."""
        return self._write(lambda c, _: turns.renew(c, turn), timeout)

    def commit(self, turn: Turn, commit: Commit, *, timeout: float) -> Committed | Refusal:
        """Record what a turn found out."""
        return self._write(lambda c, moment: turns.commit(c, turn, commit, moment), timeout)

    def release(self, turn: Turn, *, timeout: float) -> None:
        """Give a turn back; its execution wants another."""
        self._write(lambda c, moment: turns.release(c, turn, moment), timeout)

    def sent(
        self,
        execution: str,
        numbers: Sequence[int],
        *,
        again: Mapping[int, float] | None = None,
        timeout: float,
    ) -> None:
        """Note commands that were handed over, and when to try others `again`."""
        self._write(lambda c, _: turns.sent(c, execution, numbers, again or {}), timeout)

    def answer(self, execution: str, number: int, answer: Answer, *, timeout: float) -> Answered:
        """Record an answer from outside; the first one stands."""
        return self._write(
            lambda c, moment: told.answer(c, execution, number, answer, moment), timeout
        )

    def deliver(
        self,
        execution: str,
        workflow: str,
        kind: EntryKind,
        name: str | None,
        body: bytes | None,
        *,
        source: str,
        at: float,
        timeout: float,
    ) -> Answered:
        """Record a `SIGNAL` or `CANCEL`, once for each source, also before the start."""
        return self._write(
            lambda c, moment: told.deliver(
                c, execution, workflow, kind, name, body, source, at, moment
            ),
            timeout,
        )

    def is_answered(self, execution: str, number: int, *, source: str = "", timeout: float) -> bool:
        """Tell whether a step need not run."""
        return self._read(lambda c: reads.is_answered(c, execution, number, source), timeout)

    def way(
        self, execution: str, number: int, *, source: str = "", timeout: float
    ) -> WakeUp | None:
        """Return how to wake the execution that waits for a step; None if none does."""
        return self._read(lambda c: reads.way(c, execution, number, source), timeout)

    def shares(self, dispatcher: object) -> bool:
        """Tell whether a dispatcher puts its work into this very file."""
        return getattr(dispatcher, "journal", None) == f"sqlite:{self.path}"

    def due(self, *, limit: int, timeout: float) -> Sequence[WakeUp]:
        """List executions that want a turn and may not be woken; counts them as being woken."""
        deadline = time.monotonic() + timeout
        moment = self._moment()
        now = self._clock()
        found, unseen = self._read(lambda c: reads.due(c, self._lease, limit, moment, now), timeout)
        # Most sweeps find nothing, and only read.
        if not (found or unseen):
            return ()
        left = max(0.0, deadline - time.monotonic())
        return self._write(lambda c, moment: reads.mark(c, found, unseen, moment), left)

    def look(self, execution: str, *, timeout: float) -> Record | None:
        """Read an execution."""
        return self._read(lambda c: rows.record(c, execution), timeout)

    def entries(self, execution: str, *, after: int = 0, timeout: float) -> Sequence[Entry]:
        """Read the entries after a place."""
        return self._read(lambda c: rows.entries_after(c, execution, after), timeout)

    def unsent(self, execution: str, *, timeout: float) -> Sequence[Unsent]:
        """Read the commands that have not left."""
        return self._read(lambda c: rows.unsent_of(c, execution), timeout)

    def find(self, query: Query, *, timeout: float) -> Sequence[Record]:
        """List executions, the youngest first."""
        return self._read(lambda c: reads.find_all(c, query), timeout)

    def count(self, *, timeout: float) -> Sequence[Count]:
        """Count the executions that have not ended."""
        return self._read(reads.count, timeout)

    def terminate(self, execution: str, why: str, *, at: float, timeout: float) -> Answered:
        """End an execution without running its code."""
        return self._write(lambda c, moment: ends.terminate(c, execution, why, at, moment), timeout)

    def resume(self, execution: str, *, number: int | None, at: float, timeout: float) -> Answered:
        """Let a failed, cancelled, terminated or stuck execution go on."""
        return self._write(lambda c, moment: anew.resume(c, execution, number, at, moment), timeout)

    def forget(self, *, before: float, limit: int, timeout: float) -> int:
        """Delete executions that ended before an instant; returns how many."""
        deadline = time.monotonic() + timeout
        gone = 0
        while gone < limit:
            left = max(0.0, deadline - time.monotonic())
            some = self._write(partial(_forget, before=before, limit=limit - gone), left)
            gone += some
            if not some or deadline <= time.monotonic():
                break
        return gone

    def close(self) -> None:
        """Close permanently."""
        self.database.close(5.0)

    def _moment(self) -> rows.Moment:
        return rows.Moment(clock.time(), self._unread_after)

    def _write(self, work: Work[T], timeout: float) -> T:
        try:
            with self.database.transaction(timeout=timeout) as connection:
                self._check_file(connection)
                return work(connection, self._moment())
        except StoreError as exc:
            raise _error(exc) from exc

    def _read(self, work: Callable[[sqlite3.Connection], T], timeout: float) -> T:
        def checked(connection: sqlite3.Connection) -> T:
            self._check_file(connection)
            return work(connection)

        try:
            return self.database.read(checked, deadline=time.monotonic() + timeout)
        except StoreError as exc:
            raise _error(exc) from exc

    def _check_file(self, connection: sqlite3.Connection) -> None:
        """See that the file is the one of before: in a new one all executions would be gone."""
        if connection is self._checked:
            return
        mark = connection.execute(_MARK).fetchone()
        self._mark = self._mark or mark
        if mark == self._mark:
            self._checked = connection
        else:
            raise JournalError(
                f"journal: {self.path!r} was deleted or replaced while it was in use: put it back, "
                "or start this process again to begin a new one"
            )


def _error(exc: StoreError) -> JournalError:
    return JournalError(f"journal: {exc}", maybe_written=exc.maybe_written)


def _forget(connection: sqlite3.Connection, _: rows.Moment, *, before: float, limit: int) -> int:
    return reads.forget(connection, before, limit)
