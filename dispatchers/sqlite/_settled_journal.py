"""The journal as a run sees it whose worker serves the journal's own file.

What a turn or a step records is collected, and applied in the transaction that settles its job. So
a turn needs no lease: its job is one. A turn that goes on after its commit, or whose work leaves
through another dispatcher, is taken and recorded as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

from dispatchers._config.api import resolve
from dispatchers._errors import ConfigurationError, RejectedError
from dispatchers._journal.protocol import Journal
from dispatchers._journal.values import (
    LEAVING,
    Answer,
    Answered,
    Commit,
    Committed,
    Record,
    Refusal,
    Turn,
    WakeUp,
)
from dispatchers._models.claim import Claim
from dispatchers._worker.run import current
from dispatchers.sqlite._collecting import collector_of
from dispatchers.sqlite._effects import Collector
from dispatchers.sqlite._journal import SQLiteJournal

__all__ = ["SettledJournal", "seen_by_runs"]


class JobClaims:
    """Claims of steps: within a run of the worker the job is the claim, whose lease is renewed.

    Args:
        journal: Whose claims are asked for all others.
    """

    def __init__(self, journal: SQLiteJournal) -> None:
        self._journal = journal
        self._owners: set[str] = set()

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        """Take the key."""
        if collector_of(self._journal.path) is None:
            return self._journal.claims.claim(key, owner, ttl)
        self._owners.add(owner)
        return Claim("claimed")

    def renew(self, key: str, owner: str, ttl: float) -> bool:
        """Hold the key; also asked on threads that know of no run."""
        return owner in self._owners or self._journal.claims.renew(key, owner, ttl)

    def complete(self, key: str, owner: str, ttl: float) -> bool:
        """Remember that the work is done."""
        return owner in self._owners or self._journal.claims.complete(key, owner, ttl)

    def release(self, key: str, owner: str) -> bool:
        """Give the key back."""
        if owner not in self._owners:
            return self._journal.claims.release(key, owner)
        self._owners.discard(owner)
        return True


class SettledJournal:
    """A journal whose changes a worker applies; everything else is the journal's own.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: SQLiteJournal) -> None:
        self._journal = journal
        self.claims = JobClaims(journal)
        self._peeked: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def _collector(self) -> Collector | None:
        found = collector_of(self._journal.path)
        return found if isinstance(found, Collector) else None

    def take(
        self, execution: str, owner: str, *, wakeup: str, after: int, timeout: float
    ) -> Turn | Refusal:
        """Read a turn; take it where it has to be recorded by this process.

        A message that has come before is taken: its turns may be what ends its workers, or they
        may only have claimed it, and the journal counts those that have begun.
        """
        deliveries = _deliveries()
        if self._collector() is not None and deliveries == 1:
            turn = self._journal.peek(execution, owner, after=after, timeout=timeout)
            if turn is not None:
                self._peeked[owner] = wakeup
                return turn
        taken = self._journal.take(execution, owner, wakeup=wakeup, after=after, timeout=timeout)
        return taken if isinstance(taken, Refusal) else _with_unrecorded(taken, deliveries)

    def renew(self, turn: Turn, *, timeout: float) -> bool:
        """Hold a turn for longer; one that was only read is held by its job."""
        return turn.owner in self._peeked or self._journal.renew(turn, timeout=timeout)

    def release(self, turn: Turn, *, timeout: float) -> None:
        """Give a turn back; one that was only read comes back with its job."""
        if self._peeked.pop(turn.owner, None) is None:
            self._journal.release(turn, timeout=timeout)
        elif (collector := self._collector()) is not None:
            collector.clear()

    def commit(self, turn: Turn, commit: Commit, *, timeout: float) -> Committed | Refusal:
        """Collect what a turn found out, or record it where it goes on."""
        wakeup = self._peeked.get(turn.owner)
        if wakeup is None:
            return self._journal.commit(turn, commit, timeout=timeout)
        try:
            return self._first_commit(turn, wakeup, commit, timeout)
        finally:
            # Not before: until it is taken its lease is that of its job.
            del self._peeked[turn.owner]

    def _first_commit(
        self, turn: Turn, wakeup: str, commit: Commit, timeout: float
    ) -> Committed | Refusal:
        collector = self._collector()
        wake = self._wake(turn, commit, timeout)
        goes_on = bool(commit.answers) or commit.keep
        if collector is None or goes_on or not self._stays(turn, commit, wake):
            return self._journal.take_and_commit(turn, wakeup, commit, timeout=timeout)
        collector.record(turn.record.id, turn.fence, commit, turn.owner)
        collector.way = _way(turn.record)
        return Committed((), kept=False, wake=wake)

    def _stays(self, turn: Turn, commit: Commit, wake: WakeUp | None) -> bool:
        """Tell whether all that follows from a commit is put into the same file."""
        aliases = {each.route for each in commit.commands if each.kind in LEAVING}
        aliases |= {turn.record.dispatcher, wake.dispatcher if wake else turn.record.dispatcher}
        return all(map(self._is_shared, aliases))

    def _is_shared(self, alias: str) -> bool:
        try:
            return self._journal.shares(resolve(alias))
        except (ConfigurationError, RejectedError):
            return False

    def _wake(self, turn: Turn, commit: Commit, timeout: float) -> WakeUp | None:
        """Return the way to the execution that an end answers, or to one that begins anew."""
        record: Record | None = turn.record
        if commit.restart is None:
            parent = turn.record.parent if commit.status.is_end else None
            record = None if parent is None else self._journal.look(parent, timeout=timeout)
        return None if record is None else _way(record)

    def sent(
        self,
        execution: str,
        numbers: Sequence[int],
        *,
        again: Mapping[int, float] | None = None,
        timeout: float,
    ) -> None:
        """Note commands that were handed over; collected with the commit that they are of."""
        collector = self._collector()
        if collector is None or not collector.is_open:
            self._journal.sent(execution, numbers, again=again, timeout=timeout)
        else:
            collector.note_sent(numbers)

    def is_answered(self, execution: str, number: int, *, source: str = "", timeout: float) -> bool:
        """Tell whether a step need not run; remembers how to wake its execution."""
        collector = self._collector()
        if collector is None:
            return self._journal.is_answered(execution, number, source=source, timeout=timeout)
        if collector.awaits(execution, number):
            return False
        collector.way = self._journal.way(execution, number, source=source, timeout=timeout)
        return collector.way is None

    def answer(self, execution: str, number: int, answer: Answer, *, timeout: float) -> Answered:
        """Collect the answer of a step, or record it where its execution is woken elsewhere."""
        collector = self._collector()
        if collector is not None and collector.awaits(execution, number):
            # Refused while its own turn is collected: one more turn reads all such answers.
            is_first = collector.answer(execution, number, answer)
            return Answered(first=True, wake=collector.way if is_first else None)
        way = None if collector is None else collector.way
        if collector is None or way is None or way.execution != execution:
            return self._journal.answer(execution, number, answer, timeout=timeout)
        # A run has one change, and that of a turn is yet to come.
        if self._peeked or collector.is_open or not self._is_shared(way.dispatcher):
            return self._journal.answer(execution, number, answer, timeout=timeout)
        collector.record(execution, number, answer)
        return Answered(first=True, wake=way)


def _way(record: Record) -> WakeUp:
    return WakeUp(record.id, record.workflow, record.dispatcher, record.queue, record.headers)


def _deliveries() -> int:
    """Return how often the message of this run has come."""
    run = current.get(None)
    return 1 if run is None else run.deliveries


def _with_unrecorded(turn: Turn, deliveries: int) -> Turn:
    """Count the turn of the first delivery, which was only read, as lost with its worker."""
    recorded = turn.lost or 0
    return turn._replace(lost=recorded + (recorded < deliveries - 1))


def seen_by_runs(journal: Journal) -> Journal:
    """Return a journal as runs in a worker's child see it."""
    return cast("Journal", _settled(journal)) if isinstance(journal, SQLiteJournal) else journal


@cache
def _settled(journal: SQLiteJournal) -> SettledJournal:
    """Return the one of a journal: live code is kept by the journal that it was read from."""
    return SettledJournal(journal)
