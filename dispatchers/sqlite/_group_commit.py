"""Putting jobs into the file: one writer per process, who commits what others wait for as well.

A thread that finds the file free writes at once, with no other involved. Threads that come while
it writes leave their rows in a queue, which the next to write takes into one commit.

A commit is one statement. So a signal handler or a finalizer that dispatches finds the connection
between two commits, never inside a transaction, and can write by itself.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from dispatchers.sqlite._commit_queue import WaitingRows
from dispatchers.sqlite._connection import RAISED_BY_SQLITE, Database
from dispatchers.sqlite._errors import StoreError
from dispatchers.sqlite._records import NewJob, Put, Stored
from dispatchers.sqlite._schema import State

__all__ = ["Puts"]

Row = tuple[Any, ...]


_COLUMNS = (
    "id", "task", "queue", "state", "priority", "run_at", "expires_at", "key", "attempt",
    "created_at", "token", "body", "digest",
)  # fmt: skip


_ID, _TASK, _KEY, _TOKEN, _BODY, _DIGEST = (
    _COLUMNS.index(name) for name in ("id", "task", "key", "token", "body", "digest")
)


# Rows that one statement takes: SQLite's own limit of parameters is 32766 unless it was built
# with another (https://sqlite.org/limits.html, 3.32).
_ROWS = 32766 // len(_COLUMNS)


# Bytes of bodies that one commit takes from several threads; a single larger one goes alone.
_BYTES = 8 * 1024 * 1024


# Seconds after which a waiting thread looks by itself whether it can write. The one before it
# wakes it; this is for a thread that was woken while it ran a signal handler.
_LOOK = 0.05


# Seconds beyond the deadline that a thread gives the one that is writing its rows just then.
_GRACE = 0.1


_INSERTED = Put.INSERTED  # looking it up in the enumeration takes longer than the whole answer


_FIND_ID = "SELECT id, token, digest, state FROM jobs WHERE id = ?"


_FIND_KEY = "SELECT id, token, digest FROM jobs WHERE task = ? AND key = ? AND state <= 2"


# A job that expired or died has let go of its id (C10): the same request is new work. Not where
# other work has taken its key meanwhile.
_REVIVE = f"""
UPDATE OR IGNORE jobs SET {", ".join(f"{name} = ?" for name in _COLUMNS)}, deliveries = 0,
    finished_at = NULL, fence = NULL, reason = NULL, error_type = NULL, error = NULL
WHERE id = ? AND state >= {State.EXPIRED}
"""  # noqa: S608 - put together from constants


class Puts:
    """The way into the file for the producers of one process.

    Args:
        database: The file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, job: NewJob, *, deadline: float) -> Stored:
        """Write one job; see `SQLiteStore.put`."""
        row = self._row(job, time.time())
        database = self._database
        lock = database.lock
        # Behind those who wait already, even if the lock is free: else they could starve.
        if database.line or not lock.acquire(blocking=False):
            return self._join([row], deadline)[0]
        try:
            return database.persist(partial(_put_one, row=row), deadline=deadline)
        finally:
            self._release(lock)

    def put_many(self, jobs: Sequence[NewJob], *, deadline: float) -> list[Stored]:
        """Write several jobs in one transaction; see `SQLiteStore.put_many`."""
        now = time.time()
        rows = [self._row(job, now) for job in jobs]
        return self._join(rows, deadline) if rows else []

    def put_within(self, connection: sqlite3.Connection, jobs: Sequence[NewJob]) -> list[Stored]:
        """Write jobs within a transaction of the caller's."""
        now = time.time()
        rows = [self._row(job, now) for job in jobs]
        starts = range(0, len(rows), _ROWS)
        return [each for n in starts for each in _put_rows(connection, rows[n : n + _ROWS])]

    def _row(self, job: NewJob, now: float) -> Row:
        run_at = now if job.run_at is None else job.run_at
        # Drawn before the first try: if the answer is lost, the next try finds its row by it.
        token = next(self._database.tokens())
        return (
            job.id, job.task, job.queue, int(run_at > now), job.priority, run_at, job.expires_at,
            job.key, job.attempt, now, token, job.body, job.digest,
        )  # fmt: skip

    def _release(self, lock: threading.RLock) -> None:
        """Let go, and wake one who waits: the last, as it is the innermost call of its thread."""
        # Released before the wake-up: the thread that wakes needs the lock at once.
        lock.release()
        if self._database.line:
            # Another thread may have emptied the queue since it was looked at.
            with contextlib.suppress(IndexError):
                self._database.line[-1].wake()

    def _join(self, rows: list[Row], deadline: float) -> list[Stored]:
        mine = WaitingRows(rows, sum(len(row[_BODY]) for row in rows))
        self._database.line.append(mine)
        try:
            self._await(mine, deadline)
        finally:
            # The thread that wrote the rows has removed it already.
            with contextlib.suppress(ValueError):
                self._database.line.remove(mine)
        return mine.result()

    def _await(self, mine: WaitingRows, deadline: float) -> None:
        """Write whenever the file is free, else wait to be woken, until there is an answer."""
        lock = self._database.lock
        while mine.answer is None:
            left = deadline - time.monotonic()
            # Never blocking: a thread that waits here may be served by the one that holds the lock.
            if lock.acquire(blocking=False):
                try:
                    self._lead(mine, deadline)
                finally:
                    self._release(lock)
            elif left > 0:
                mine.sleep(min(left, _LOOK))
            else:
                self._give_up(mine)

    def _give_up(self, mine: WaitingRows) -> None:
        """Take it out of the line, unless it is just being written; then wait a little longer."""
        end = time.monotonic() + _GRACE
        while mine.answer is None:
            # Taken means that no leader can write it any more: certainly not stored.
            if mine.take():
                raise self._database.busy()
            if time.monotonic() >= end:
                # A leader is committing these rows and has not said how it went (C3: unknown).
                raise self._database.busy(maybe_written=True)
            mine.sleep(_LOOK / 10)

    def _lead(self, mine: WaitingRows, deadline: float) -> None:
        """Write the line in the order of arrival, until one's own rows are written."""
        database = self._database
        # A signal handler interrupted a transaction of this thread: waiting would never end.
        if database.nested:
            raise database.busy()
        with database.waiting(deadline) as lock_wait:
            ready = not database.crowd.waits
            while mine.answer is None and (ready or lock_wait.wait()):
                ready = self._lead_once()
        if mine.answer is None:
            raise database.busy()

    def _lead_once(self) -> bool:
        """Write the beginning of the line; false if other processes are in the way."""
        batch = self._take()
        try:
            if batch:  # a signal handler of this thread may have written them all just now
                self._commit(batch)
        except RAISED_BY_SQLITE:
            return False
        finally:
            self._put_back(batch)
        return True

    def _take(self) -> list[WaitingRows]:
        """The next of the line, as many as one commit should hold."""
        line = self._database.line
        batch: list[WaitingRows] = []
        rows = size = 0
        while line and rows < _ROWS and size < _BYTES:
            waiting = line.popleft()
            if waiting.take():
                batch.append(waiting)
                rows += len(waiting.rows)
                size += waiting.size
        return batch

    def _put_back(self, batch: list[WaitingRows]) -> None:
        """Let those without an answer wait on; by their tokens they know their rows if written."""
        # In reverse, so that the queue has its old order again.
        for waiting in reversed(batch):
            if waiting.answer is None:
                waiting.leave()
                self._database.line.appendleft(waiting)

    def _commit(self, batch: list[WaitingRows]) -> None:
        """Write all in one commit; if that fails, each by itself, so that none fails another."""
        rows = [row for waiting in batch for row in waiting.rows]
        try:
            answers = iter(self._write(rows))
        except StoreError as exc:
            if len(batch) == 1:
                batch[0].settle(exc)
                return
            for waiting in batch:
                self._commit([waiting])
        else:
            for waiting in batch:
                waiting.settle(list(itertools.islice(answers, len(waiting.rows))))

    def _write(self, rows: list[Row]) -> list[Stored]:
        # One statement is its own transaction, and leaves none open for a signal handler.
        if len(rows) <= _ROWS:
            return self._database.attempt(partial(_put_rows, rows=rows))
        with self._database.transaction(timeout=0.0) as connection:
            chunks = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
            return [stored for chunk in chunks for stored in _put_rows(connection, chunk)]


@lru_cache(maxsize=128)
def _insert(rows: int) -> str:
    """The statement for so many rows; `sqlite3` keeps the compiled ones."""
    row = f"({', '.join('?' * len(_COLUMNS))})"
    values = ", ".join([row] * rows)
    names = ", ".join(_COLUMNS)
    return f"INSERT INTO jobs ({names}) VALUES {values} ON CONFLICT DO NOTHING"  # noqa: S608


_INSERT_ONE = _insert(1)


def _put_one(connection: sqlite3.Connection, row: Row) -> Stored:
    # The row in the way may be purged between the two statements; then the insert succeeds.
    while not connection.execute(_INSERT_ONE, row).rowcount:
        found = _find(connection, row)
        if found is not None:
            return found
    return Stored(_INSERTED, row[_ID])


def _put_rows(connection: sqlite3.Connection, rows: list[Row]) -> list[Stored]:
    parameters = list(itertools.chain.from_iterable(rows))
    # All inserted is the usual case: one statement, no lookups.
    if connection.execute(_insert(len(rows)), parameters).rowcount == len(rows):
        return [Stored(_INSERTED, row[_ID]) for row in rows]
    return [_find(connection, row) or _put_one(connection, row) for row in rows]


def _find(connection: sqlite3.Connection, row: Row) -> Stored | None:
    """Return the row that stands for this one: itself, or the one it is a duplicate of."""
    found = connection.execute(_FIND_ID, (row[_ID],)).fetchone()
    if found is not None and found[3] >= State.EXPIRED:
        if connection.execute(_REVIVE, (*row, row[_ID])).rowcount:
            return Stored(_INSERTED, row[_ID])
        found = None
    if found is None and row[_KEY] is not None:
        found = connection.execute(_FIND_KEY, (row[_TASK], row[_KEY])).fetchone()
    if found is None:
        return None  # the one in the way has been finished and forgotten meanwhile
    return Stored(_answer(row, found[1], found[2]), found[0])


def _answer(row: Row, token: int, digest: bytes | None) -> Put:
    if token == row[_TOKEN]:
        return _INSERTED
    differs = None not in (digest, row[_DIGEST]) and digest != row[_DIGEST]
    return Put.CONFLICT if differs else Put.DUPLICATE
