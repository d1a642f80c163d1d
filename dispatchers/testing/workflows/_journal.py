"""The journal of a test: `MemoryJournal`, whose turns are killed now and then."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from dispatchers._journal.memory import MemoryJournal
from dispatchers._journal.memory_execution import Execution
from dispatchers._journal.values import Commit, Committed, Refusal, Status, Turn
from dispatchers._runtime import clock

__all__ = ["Killed", "TestJournal"]

KILLED = 1 / 6
"""The part of commits at which the turn is killed."""


class Killed(SystemExit):
    """The process of a turn is killed: nothing that follows in it has an effect."""


class TestJournal(MemoryJournal):
    """A journal that ends turns at their commits, before or after these are recorded.

    Args:
        chance: Decides which ones.
    """

    __test__ = False

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance
        self.may_kill = True
        """Whether the turn under way may be killed."""
        self._is_killed = False
        self.changed: set[str] = set()
        """Executions of which a turn was committed since the last look."""

    def commit(self, turn: Turn, commit: Commit, *, timeout: float) -> Committed | Refusal:
        """Record what a turn found out, or not."""
        dies = self.may_kill and self._chance.random() < KILLED
        # A local step that has run would run again: its effects are what a test may count.
        if dies and not commit.answers and self._chance.random() < 1 / 2:
            self._kill()
        committed = super().commit(turn, commit, timeout=timeout)
        self.changed.add(turn.record.id)
        if dies and isinstance(committed, Committed) and committed.wake is None:
            # Sent again at once, and not as late as if it might be on its way still.
            again = dict.fromkeys((each.number for each in commit.commands), clock.time())
            self.sent(turn.record.id, (), again=again, timeout=timeout)
            self._kill()
        return committed

    def _kill(self) -> None:
        self._is_killed = True
        raise Killed

    def release(self, turn: Turn, *, timeout: float) -> None:
        """Give a turn back, unless it was killed."""
        if not self._is_killed:
            super().release(turn, timeout=timeout)

    def revive(self) -> None:
        """Begin a new process."""
        self._is_killed = False

    def wants_turn(self, execution: str) -> bool:
        """Tell whether its code has not run since its start, or since it began anew."""
        return self._executions[execution].wants_turn

    @property
    def next_instant(self) -> float:
        """The next instant at which a sweep may find something, in seconds since the epoch."""
        now = clock.time()
        found = (at for each in self._executions.values() for at in self._instants(each))
        return min((at for at in found if at > now), default=float("inf"))

    def _instants(self, execution: Execution) -> Iterator[float]:
        record = execution.record
        yield from (each.next_try for each in execution.unsent.values())
        if record.status is not Status.RUNNING:
            return
        if record.wake_at is not None:
            yield record.wake_at
        if execution.owner is not None:
            yield execution.renewed_at + self._lease
        if execution.waked_at is not None:
            yield execution.waked_at + self._unread_after

    @property
    def refused(self) -> list[str]:
        """Commands that no dispatcher takes, in words."""
        return [
            f"{unsent.command.name} of {each.record.id} through {unsent.command.route!r}"
            for each in self._executions.values()
            for unsent in each.unsent.values()
        ]
