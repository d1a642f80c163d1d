"""The reading half of `MemoryJournal`: what is there, and what wants a turn."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from dispatchers._journal.memory_execution import Execution
from dispatchers._journal.protocol import LEASE, UNREAD_AFTER
from dispatchers._journal.rules import pause_after
from dispatchers._journal.values import Count, Entry, Query, Record, Status, Unsent, WakeUp
from dispatchers._models.claim import IdempotencyStore
from dispatchers._runtime import clock
from dispatchers._runtime.fork import renew_after_fork
from dispatchers._stores.memory import MemoryIdempotencyStore


class MemoryReads:
    """Executions of this process, to be read.

    Args:
        lease: Seconds without a renewal after which a turn counts as given up.

        unread_after: Seconds after which a wake-up that no turn has followed counts as lost.
    """

    claims: IdempotencyStore

    def __init__(self, *, lease: float = LEASE, unread_after: float = UNREAD_AFTER) -> None:
        self.claims = MemoryIdempotencyStore()
        self._lease = lease
        self._unread_after = unread_after
        self._executions: dict[str, Execution] = {}
        self._lock = threading.RLock()
        renew_after_fork(self)

    def is_answered(self, execution: str, number: int, *, source: str = "", timeout: float) -> bool:
        """Tell whether a step need not run."""
        with self._lock:
            asked = self._executions.get(execution)
            if asked is None or not asked.is_begun:
                return True
            is_open = number in asked.commands and number not in asked.answered
            return not is_open or asked.has_forgotten(number, source)

    def due(self, *, limit: int, timeout: float) -> Sequence[WakeUp]:
        """List executions that want a turn and may not be woken; counts them as being woken."""
        now = clock.time()
        with self._lock:
            found = ((each, self._why(each, now)) for each in self._executions.values())
            due = islice(((each, why) for each, why in found if why), limit)
            return [each.wake_up(why) for each, why in due]

    def _why(self, execution: Execution, now: float) -> str | None:
        if self._is_waked(execution, self._pause(execution)) or self._is_held(execution):
            return None
        record = execution.record
        # Of what is stuck as well: a worker that may have the code for it has died in its turn.
        if execution.owner is not None and execution.is_begun:
            return "orphaned"
        if record.status is Status.RUNNING:
            if record.wake_at is not None and record.wake_at <= now:
                return "timer"
            if execution.wants_turn or record.head > record.seen:
                return "unread"
        return "unsent" if any(u.next_try <= now for u in execution.unsent.values()) else None

    def look(self, execution: str, *, timeout: float) -> Record | None:
        """Read an execution."""
        with self._lock:
            found = self._executions.get(execution)
            return None if found is None else found.record

    def entries(self, execution: str, *, after: int = 0, timeout: float) -> Sequence[Entry]:
        """Read the entries after a place."""
        with self._lock:
            found = self._executions.get(execution)
            return () if found is None else tuple(found.entries[after:])

    def unsent(self, execution: str, *, timeout: float) -> Sequence[Unsent]:
        """Read the commands that have not left."""
        with self._lock:
            found = self._executions.get(execution)
            return () if found is None else tuple(found.unsent.values())

    def find(self, query: Query, *, timeout: float) -> Sequence[Record]:
        """List executions, the youngest first."""
        with self._lock:
            records = [each.record for each in self._executions.values()]
        found = [record for record in records if _matches(record, query)]
        found.sort(key=lambda record: record.created_at, reverse=True)
        return found[: query.limit]

    def count(self, *, timeout: float) -> Sequence[Count]:
        """Count the executions that have not ended."""
        with self._lock:
            found = Counter(_counted(each) for each in self._executions.values())
        ways = sorted({way for way, kind in found if kind})
        return [Count(*way, *(found[way, kind] for kind in KINDS)) for way in ways]

    def _is_held(self, execution: Execution) -> bool:
        return (
            execution.owner is not None and clock.monotonic() - execution.renewed_at < self._lease
        )

    def _is_waked(self, execution: Execution, pause: float) -> bool:
        waked_at = execution.waked_at
        return waked_at is not None and clock.monotonic() - waked_at < pause

    def _pause(self, execution: Execution) -> float:
        return pause_after(execution.waited, self._unread_after)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()


KINDS = ("running", "parked", "stuck")


def _counted(execution: Execution) -> tuple[tuple[str, str], str]:
    """Return the workflow, the dispatcher, and as what it counts; nothing for one that ended."""
    record = execution.record
    way = record.workflow, record.dispatcher
    if record.status is Status.STUCK:
        return way, "stuck"
    if record.status is not Status.RUNNING:
        return way, ""
    is_wanted = execution.wants_turn or record.head > record.seen
    return way, "running" if is_wanted or execution.owner is not None else "parked"


def _matches(record: Record, query: Query) -> bool:
    return (
        query.workflow in (None, record.workflow)
        and (not query.status or record.status in query.status)
        and query.parent in (None, record.parent)
        and (query.id_part or "") in record.id
        and (query.before is None or record.created_at < query.before)
    )
