"""The rows of an outbox as the source of a forwarder: one process at a time drains an alias."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dispatchers._errors import ErrorCategory
from dispatchers._models.dead_letter import DeadLetter, DeadLetterStore
from dispatchers._models.envelope import read_header
from dispatchers._models.outcome import Reason, RunFailure
from dispatchers._runtime.leadership import Leadership
from dispatchers._runtime.lease import Watch
from dispatchers.forwarding import Fate, HeldRow, Settled, Source

from ._errors import plainly
from ._insert import NewRow, insertion
from ._store import Executor, Store

__all__ = ["TIMEOUT", "OutboxRows"]

TIMEOUT = 5.0
"""Seconds that the forwarder waits for others at the database."""
BYTES = 32 * 1024 * 1024
"""Bytes of envelopes that are handed over together; the first is taken whatever its size."""
MOST = 30_000
"""Values of one statement. What is left out because of it is tried before it is due, no more."""
STRAY = 600.0
"""Seconds after which a row becomes a dead letter that no outbox hands over: until then the
process that knows its alias may still be on its way, as while a new version is rolled out."""
LOOK = 60.0
"""Seconds between two looks for such rows."""

_NEXT = "SELECT seq FROM dispatchers_outbox WHERE dead = ? AND alias = ? ORDER BY seq LIMIT 1"
# A large body has a query of its own: hundreds of them at once could be more than the memory.
_TAKE = (
    "SELECT seq, CASE WHEN length(body) <= 65536 THEN body END, lane, deduplicate "
    "FROM dispatchers_outbox WHERE dead = ? AND alias = ?"
)
_STRAYS = (
    "SELECT seq, CASE WHEN length(body) <= 65536 THEN body END, lane, deduplicate, alias "
    "FROM dispatchers_outbox WHERE dead = ? AND created_at < ?"
)
_BODY = "SELECT body FROM dispatchers_outbox WHERE seq = ?"
_GO = "DELETE FROM dispatchers_outbox"
_DIES = "UPDATE dispatchers_outbox SET dead = ?, why = ? WHERE seq = ?"
_STAYS = "UPDATE dispatchers_outbox SET tries = tries + 1, why = ? WHERE seq = ?"
_BEAT = "UPDATE dispatchers_outbox_leader SET beat = beat + 1 WHERE alias = ? AND owner = ?"
_TAKE_OVER = (
    "UPDATE dispatchers_outbox_leader SET owner = ?, beat = 0, lease = ? "
    "WHERE alias = ? AND owner = ? AND beat = ?"
)
_FIRST = "INSERT INTO dispatchers_outbox_leader (alias, owner, beat, lease) VALUES (?, ?, 0, ?)"
_LEADER = "SELECT owner, beat, lease FROM dispatchers_outbox_leader WHERE alias = ?"
_BY_LANE = (
    "SELECT lane, count(*), min(created_at) FROM dispatchers_outbox "
    "WHERE dead = ? AND alias = ? GROUP BY lane"
)


class OutboxRows(Leadership, Source):
    """The rows of one alias in an outbox.

    Serves any number of processes and threads. Which of them drains it is known by heartbeats.

    Args:
        store: The database.

        alias: The dispatcher that the rows are for.

        letters: Where rows go that can never be taken; None keeps them here, as dead.

        known: The aliases whose rows others drain; what is for none of them becomes a dead letter.

        lease: Seconds without a heartbeat after which another process drains it.

        notify: PostgreSQL: have each commit tell the one that drains.

        settled: Called with what was settled, once it is committed.
    """

    def __init__(
        self,
        store: Store,
        alias: str,
        *,
        letters: Callable[[], DeadLetterStore | None] = lambda: None,
        known: Callable[[], Collection[str]] = tuple,
        lease: float = 10.0,
        notify: bool = True,
        settled: Callable[[Sequence[Settled]], None] = lambda _: None,
    ) -> None:
        self.store, self.alias, self.lease = store, alias, lease
        self._notify, self._settled = notify, settled
        self._letters, self._known = letters, known
        self._watch = Watch()
        self._looked: float | None = None

    # What holds work.

    def put(self, rows: Sequence[NewRow], *, timeout: float) -> None:
        """Add rows, all or none, in one transaction; an id that waits is left as it is."""
        with self.store.transaction(timeout=timeout) as executor:
            for sql, values in insertion(self.store.dialect, rows, notify=self._notify):
                executor.execute(sql, values)

    def by_lane(self, *, timeout: float) -> dict[str, tuple[int, float]]:
        """Return for each lane how many rows wait, and the age of the oldest in seconds."""
        with self.store.transaction(timeout=timeout, write=False) as executor:
            found = executor.execute(_BY_LANE, [False, self.alias]).rows
        now = time.time()
        return {lane: (count, max(0.0, now - since)) for lane, count, since in found}

    # What drains it.

    @contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[Executor]:
        with plainly(), self.store.transaction(timeout=TIMEOUT, write=write) as executor:
            yield executor

    def category(self, exc: Exception) -> ErrorCategory | None:
        """Return the category of what the database raised."""
        return self.store.category(exc)

    def _beat_or_take_over(self) -> bool:
        with self._transaction(write=False) as executor:
            found = executor.execute(_LEADER, [self.alias]).rows
        # Asked before anything is written: those that wait for their turn hold up no other.
        return not self._led_by_other(found) and self._leads(found)

    def _led_by_other(self, found: Sequence[Sequence[object]]) -> bool:
        if not found or found[0][0] == self._owner:
            return False
        owner, beat, lease = found[0]
        return self._watch.left(str(owner), beat, float(str(lease))) > 0

    def _leads(self, found: Sequence[Sequence[object]]) -> bool:
        with self._transaction() as executor:
            if not found:
                return self._first(executor)
            owner, beat, _ = found[0]
            if owner == self._owner:
                return self._beats(executor)
            values = [self._owner, self.lease, self.alias, owner, beat]
            return executor.execute(_TAKE_OVER, values).changed == 1

    def _first(self, executor: Executor) -> bool:
        again = "ON CONFLICT (alias) DO NOTHING"
        if self.store.dialect == "mysql":
            again = "ON DUPLICATE KEY UPDATE alias = alias"
        executor.execute(f"{_FIRST} {again}", [self.alias, self._owner, self.lease])
        # Not by the count, which MySQL's drivers do not agree on.
        return self._beats(executor)

    def _beats(self, executor: Executor) -> bool:
        return executor.execute(_BEAT, [self.alias, self._owner]).changed == 1

    def leave(self) -> None:
        """Let another process drain it at once."""
        super().leave()
        self.store.rest()

    def _forget_leader(self) -> None:
        with self._transaction() as executor:
            sql = "DELETE FROM dispatchers_outbox_leader WHERE alias = ? AND owner = ?"
            executor.execute(sql, [self.alias, self._owner])

    def take(
        self, limit: int, *, but_lanes: Collection[str], but_rows: Collection[int]
    ) -> Sequence[HeldRow]:
        """Return the next rows in order; they stay in the database."""
        with self._transaction(write=False) as executor:
            if strays := self._strays(executor, limit):
                return strays
            sql, values = _TAKE, [False, self.alias]
            for column, left_out in (("lane", but_lanes), ("seq", but_rows)):
                some = list(left_out)[:MOST]
                if some:
                    sql += f" AND {column} NOT IN ({', '.join('?' * len(some))})"
                    values += some
            found = executor.execute(f"{sql} ORDER BY seq LIMIT ?", [*values, limit]).rows
            return list(_together(executor, found))

    def _strays(self, executor: Executor, limit: int) -> Sequence[HeldRow]:
        """Return rows for aliases that no outbox of this database hands over, now and then."""
        now = time.monotonic()
        if self._looked is not None and now - self._looked < LOOK:
            return ()
        known = [self.alias, *self._known()]
        sql = f"{_STRAYS} AND alias NOT IN ({', '.join('?' * len(known))}) ORDER BY seq LIMIT ?"
        found = executor.execute(sql, [False, time.time() - STRAY, *known, limit]).rows
        if not found:
            self._looked = now
        return list(_together(executor, found))

    def settle(self, settled: Sequence[Settled]) -> None:
        """Delete what the backend has, mark what is dead, and note why the rest stays."""
        dead = [each for each in settled if each.fate is Fate.DEAD]
        gone = [each for each in settled if each.fate is Fate.GONE]
        if (letters := self._letters()) is not None:
            # Before the row goes: killed in between, it is added again under the same id.
            for each in dead:
                letters.add(letter_of(each))
            gone, dead = gone + dead, []
        with self._transaction() as executor:
            # A heartbeat, which holds its row until the commit. Where another process has taken
            # over, what this one did is done again, under the same ids.
            if not self._beats(executor):
                self._beaten = 0.0
                return
            _delete(executor, gone)
            for each in dead:
                values = [True, letter_of(each).to_json(body=False), each.row.seq]
                executor.execute(_DIES, values)
            for each in settled:
                if each.fate is Fate.STAYS:
                    executor.execute(_STAYS, [each.why, each.row.seq])
        self._settled(settled)

    def is_empty(self) -> bool:
        """Tell whether nothing waits."""
        with self._transaction(write=False) as executor:
            return not executor.execute(_NEXT, [False, self.alias]).rows

    @contextmanager
    def watched(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` when rows are committed, where the database tells."""
        over = threading.Event()

        def changed() -> None:
            if self._beaten:  # else another process hands it over
                wake()

        watching = (changed, over.is_set)
        threading.Thread(
            target=self.store.watch, args=watching, name="dispatchers-outbox-watch", daemon=True
        ).start()
        try:
            yield
        finally:
            over.set()


def _together(executor: Executor, found: Sequence[Sequence[Any]]) -> Iterator[HeldRow]:
    size = 0
    for seq, small, lane, deduplicate, *stray in found:
        rows = [[small]] if small is not None else executor.execute(_BODY, [seq]).rows
        if not rows:
            continue  # another process has handed it over since
        body = bytes(rows[0][0])
        yield HeldRow(seq, body, lane, bool(deduplicate), _stray(*stray) if stray else None)
        size += len(body)
        if size >= BYTES:
            return


def _stray(alias: str) -> str:
    return f"no dispatcher of backend 'outbox' hands over to {alias!r} from this database"


def _delete(executor: Executor, gone: Sequence[Settled]) -> None:
    if gone:
        marks = ", ".join("?" * len(gone))
        executor.execute(f"{_GO} WHERE seq IN ({marks})", [each.row.seq for each in gone])


def letter_of(settled: Settled) -> DeadLetter:
    row, header = settled.row, read_header(settled.row.body)
    return DeadLetter(
        id=header["id"] or f"outbox-{row.seq}",
        task=header["task"] or "",
        queue=row.lane,
        reason=Reason.PERMANENT.value,
        error=RunFailure(message=settled.why),
        body=row.body,
    )
