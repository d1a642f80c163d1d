"""`MemoryJournal`: executions in this process; the reference for other journals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from dispatchers._journal import limits
from dispatchers._journal.failure import failure
from dispatchers._journal.memory_execution import Execution
from dispatchers._journal.memory_reads import MemoryReads
from dispatchers._journal.protocol import REMEMBERED
from dispatchers._journal.rules import (
    RESUMABLE,
    after_restart,
    after_resume,
    answer_of,
    forgotten,
    leaves_after,
)
from dispatchers._journal.values import (
    Answer,
    Answered,
    Commit,
    Committed,
    EntryKind,
    Record,
    Refusal,
    Start,
    Status,
    Turn,
    WakeUp,
)
from dispatchers._runtime import clock

__all__ = ["MemoryJournal"]

NOTHING = Answered(first=False)


class MemoryJournal(MemoryReads):
    """Executions in this process, for any number of threads; gone with the process.

    No call waits, so that no `timeout` matters.

    Args:
        lease: Seconds without a renewal after which a turn counts as given up.

        unread_after: Seconds after which a wake-up that no turn has followed counts as lost.
    """

    def begin(self, start: Start, *, timeout: float) -> Answered:
        """Record an execution; `first` is False if it was there."""
        with self._lock:
            execution = self._found(start.execution, start.workflow, start.at)
            first = execution.record.status is Status.EXPECTED
            if first:
                execution.begin(start)
                self._cancel_orphan(execution)
            wanted = execution.is_begun and execution.wants_turn
            return Answered(first, execution.wake_up() if wanted else None)

    def take(
        self, execution: str, owner: str, *, wakeup: str, after: int, timeout: float
    ) -> Turn | Refusal:
        """Take a turn; timers that are due fire first."""
        with self._lock:
            taken = self._executions.get(execution)
            if taken is None or taken.record.status is Status.EXPECTED:
                return Refusal.MISSING
            if not taken.is_begun:
                return Refusal.ENDED
            if self._is_held(taken) and taken.wakeup != wakeup:
                return Refusal.HELD
            taken.hold(owner, wakeup)
            taken.fire(clock.time())
            unsent = tuple(each.command for each in taken.unsent.values())
            record = taken.record
            entries = tuple(taken.entries[after:])
            return Turn(record, owner, record.fence, entries, unsent, taken.lost)

    def renew(self, turn: Turn, *, timeout: float) -> bool:
        """Hold a turn for longer; False if it is lost."""
        with self._lock:
            held = self._held_by(turn)
            if isinstance(held, Refusal):
                return False
            held.renewed_at = clock.monotonic()
            return True

    def commit(self, turn: Turn, commit: Commit, *, timeout: float) -> Committed | Refusal:
        """Record what a turn found out."""
        with self._lock:
            held = self._held_by(turn)
            if isinstance(held, Refusal):
                return held
            before = held.counts
            commit = limits.fitted(before, commit)
            if why := limits.refused(before, commit):
                held.change(status=Status.STUCK, why=why, updated_at=commit.at)
                held.free()
                return Refusal.LIMIT
            held.apply(commit)
            limits.warn(held.record.id, before, held.counts)
            return self._committed(held, commit)

    def _committed(self, held: Execution, commit: Commit) -> Committed:
        if commit.restart is not None:
            return self._restart(held, commit, commit.restart)
        if commit.status.is_end:
            return Committed((), kept=False, wake=self._end(held, commit))
        if commit.status is Status.STUCK:
            held.free()
            return Committed((), kept=False)
        return self._go_on(held, commit)

    def _go_on(self, held: Execution, commit: Commit) -> Committed:
        held.fire(clock.time())
        entries = [each for each in held.entries[commit.seen :] if not each.kind.is_command]
        if not entries:
            held.change(seen=held.record.head)
        kept = commit.keep or bool(entries)
        if not kept:
            held.free()
        return Committed(entries, kept)

    def _restart(self, held: Execution, commit: Commit, body: bytes) -> Committed:
        first = max(held.commands, default=held.record.first)
        version = commit.version or held.record.version
        held.change(version=version, input=body, first=first)
        held.change(started_at=commit.at, status=Status.RUNNING)
        held.keep_unsent(leaves_after(Status.COMPLETED))
        held.forget_sources(commit.at - REMEMBERED)
        held.begin_anew(after_restart(held.entries, commit), commit.at)
        return Committed((), kept=False, wake=held.wake_up())

    def _end(self, ended: Execution, commit: Commit) -> WakeUp | None:
        ended.end(commit.status, commit.output, commit.at)
        if commit.status is not Status.COMPLETED:
            self._cancel_children(ended.record, commit.at)
        return self._answer_parent(ended.record, commit.at)

    def _cancel_children(self, parent: Record, at: float) -> None:
        for child in self._executions.values():
            if child.record.parent == parent.id and child.is_begun:
                _cancel(child, parent, at)

    def _cancel_orphan(self, child: Execution) -> None:
        parent = self._executions.get(child.record.parent or "")
        if parent and parent.record.status in RESUMABLE - {Status.STUCK}:
            _cancel(child, parent.record, child.record.created_at)

    def _answer_parent(self, child: Record, at: float) -> WakeUp | None:
        if child.parent is None or child.parent_number is None:
            return None
        return self._answer(child.parent, child.parent_number, answer_of(child, at)).wake

    def release(self, turn: Turn, *, timeout: float) -> None:
        """Give a turn back; its execution wants another."""
        with self._lock:
            held = self._held_by(turn)
            if not isinstance(held, Refusal):
                held.wants_turn = True
                held.note_woken()
                held.free()

    def sent(
        self,
        execution: str,
        numbers: Sequence[int],
        *,
        again: Mapping[int, float] | None = None,
        timeout: float,
    ) -> None:
        """Note commands that were handed over, and when to hand commands over `again`."""
        with self._lock:
            if found := self._executions.get(execution):
                found.note_sent(numbers, again or {})

    def answer(self, execution: str, number: int, answer: Answer, *, timeout: float) -> Answered:
        """Record an answer from outside; the first one stands."""
        with self._lock:
            return self._answer(execution, number, answer)

    def _answer(self, execution: str, number: int, answer: Answer) -> Answered:
        asked = self._executions.get(execution)
        if asked is None or not asked.is_begun or asked.has_forgotten(number, answer.source):
            return NOTHING
        before = asked.counts
        first = asked.add_answer(number, limits.fitting(before, answer))
        limits.warn(execution, before, asked.counts)
        return self._told(asked, asked.answered.get(number, 0), first=first)

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
        with self._lock:
            told = self._executions.get(execution) or Execution(execution, workflow, at)
            if told.record.status.is_end:
                return NOTHING
            if kind is EntryKind.SIGNAL and source not in told.sources:
                limits.check_signal(execution, told.counts, body)
            self._executions[execution] = told
            before = told.counts
            first = told.add_told(kind, name, body, source, at)
            limits.warn(execution, before, told.counts)
            return self._told(told, told.sources[source][0], first=first)

    def _told(self, told: Execution, place: int, *, first: bool) -> Answered:
        """Answer for an entry at a place, with a wake-up if it wants one."""
        is_lost = not first and place > told.record.seen
        is_quiet = not told.is_begun or self._is_held(told)
        is_waked = self._is_waked(told, self._unread_after)
        wanted = not is_quiet and (is_lost or (first and not is_waked))
        return Answered(first, told.wake_up() if wanted else None)

    def terminate(self, execution: str, why: str, *, at: float, timeout: float) -> Answered:
        """End an execution without running its code."""
        with self._lock:
            ended = self._executions.get(execution)
            if ended is None or not ended.is_begun:
                return NOTHING
            ended.change(why=why)
            output = failure("terminated", why)
            commit = Commit(at, ended.record.seen, status=Status.TERMINATED, output=output)
            return Answered(first=True, wake=self._end(ended, commit))

    def resume(self, execution: str, *, number: int | None, at: float, timeout: float) -> Answered:
        """Let a failed, cancelled, terminated or stuck execution go on."""
        with self._lock:
            ended = self._executions.get(execution)
            if ended is None or ended.record.status not in RESUMABLE:
                return NOTHING
            gone = forgotten(ended.record.status, ended.entries, number)
            ended.unsent = {n: each for n, each in ended.unsent.items() if n not in gone}
            ended.change(status=Status.RUNNING, output=None, why=None, finished_at=None)
            ended.begin_anew(after_resume(ended.entries, gone), at)
            return Answered(first=True, wake=ended.wake_up())

    def forget(self, *, before: float, limit: int, timeout: float) -> int:
        """Delete executions that ended before an instant; returns how many."""
        with self._lock:
            old = (name for name, each in self._executions.items() if _is_old(each, before))
            gone = list(islice(old, limit))
            for name in gone:
                del self._executions[name]
            return len(gone)

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _found(self, execution: str, workflow: str, at: float) -> Execution:
        known = self._executions.get(execution)
        if known is None:
            known = self._executions[execution] = Execution(execution, workflow, at)
        return known

    def _held_by(self, turn: Turn) -> Execution | Refusal:
        held = self._executions.get(turn.record.id)
        if held is None:
            return Refusal.MISSING
        if not held.is_begun:
            return Refusal.ENDED
        is_same = (held.owner, held.record.fence) == (turn.owner, turn.fence)
        return held if is_same else Refusal.SUPERSEDED


def _cancel(child: Execution, parent: Record, at: float) -> None:
    child.add_told(EntryKind.CANCEL, None, None, f"{parent.id}/{parent.generation}", at)


def _is_old(execution: Execution, before: float) -> bool:
    record = execution.record
    if record.status is Status.EXPECTED:
        return record.updated_at < before
    return record.finished_at is not None and record.finished_at < before and not execution.unsent
