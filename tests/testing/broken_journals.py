"""A journal that is broken in one way for every case of the suite.

`BROKEN` says which case must catch which. Each class is `MemoryJournal`, or `SharedJournal` where
several processes are needed, but for the mistake that its name tells.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from dispatchers._journal.memory import NOTHING, MemoryJournal
from dispatchers._journal.memory_execution import Execution
from dispatchers._journal.rules import answer_of, due_timers, request_id
from dispatchers.journals import (
    Answered,
    Commit,
    Committed,
    Entry,
    EntryKind,
    LimitError,
    Refusal,
    Status,
    Turn,
)

from .shared_journal import SharedJournal

__all__ = ["BROKEN", "SHARED"]

MUCH = 10**9


class Of(MemoryJournal):
    """A memory journal of other executions."""

    kind: type[Execution] = Execution

    def _found(self, execution: str, workflow: str, at: float) -> Execution:
        if execution not in self._executions:
            self._executions[execution] = self.kind(execution, workflow, at)
        return self._executions[execution]


# Starts.


class BeginsAgain(MemoryJournal):
    def begin(self, start: Any, **options: Any) -> Any:
        return super().begin(start, **options)._replace(first=True)


class ForgetsHeaders(MemoryJournal):
    def begin(self, start: Any, **options: Any) -> Any:
        return super().begin(start._replace(headers=b""), **options)


class LooksThenBegins(MemoryJournal):
    def begin(self, start: Any, **options: Any) -> Any:
        known = self.look(start.execution, timeout=1)
        time.sleep(0.05)
        return super().begin(start, **options)._replace(first=known is None)


class RefusesEarlySignals(MemoryJournal):
    def deliver(self, execution: str, *args: Any, **options: Any) -> Any:
        known = self.look(execution, timeout=1)
        return super().deliver(execution, *args, **options) if known else NOTHING


class WakesOnce(MemoryJournal):
    def begin(self, start: Any, **options: Any) -> Any:
        found = super().begin(start, **options)
        return found if found.first else NOTHING


class BeginsOrphans(MemoryJournal):
    def _cancel_orphan(self, child: Any) -> None: ...


class EndsTheMissing(MemoryJournal):
    def take(self, execution: str, *args: Any, **options: Any) -> Any:
        found = super().take(execution, *args, **options)
        return Refusal.ENDED if self.look(execution, timeout=1) is None else found


# Turns.


class GivesAllEntries(MemoryJournal):
    def take(self, *args: Any, after: int, **options: Any) -> Any:
        return super().take(*args, after=0, **options)


class HoldsNothing(MemoryJournal):
    def _is_held(self, execution: Any) -> bool:
        return False


class RenewsInWords(MemoryJournal):
    def renew(self, turn: Turn, **options: Any) -> bool:
        return not isinstance(self._held_by(turn), Refusal)


class HoldsForEver(MemoryJournal):
    def _is_held(self, execution: Any) -> bool:
        return execution.owner is not None


class WithoutFence(MemoryJournal):
    def _held_by(self, turn: Turn) -> Any:
        found = super()._held_by(turn)
        return self._executions[turn.record.id] if found is Refusal.SUPERSEDED else found


class DoesNotKnowItsMessage(MemoryJournal):
    def take(self, *args: Any, wakeup: str, **options: Any) -> Any:
        return super().take(*args, wakeup=uuid.uuid4().hex, **options)


class ReleasesNothing(MemoryJournal):
    def release(self, turn: Turn, **options: Any) -> None: ...


class WantsNothingAfterRelease(MemoryJournal):
    def release(self, turn: Turn, **options: Any) -> None:
        super().release(turn, **options)
        found = self._executions[turn.record.id]
        found.wants_turn = False
        found.change(seen=found.record.head)


class HoldsTheEnded(MemoryJournal):
    def take(self, *args: Any, **options: Any) -> Any:
        found = super().take(*args, **options)
        return Refusal.HELD if found is Refusal.ENDED else found


class StuckForEver(MemoryJournal):
    def take(self, execution: str, *args: Any, **options: Any) -> Any:
        record = self.look(execution, timeout=1)
        if record and record.status is Status.STUCK:
            return Refusal.ENDED
        return super().take(execution, *args, **options)


def counting_lost(count: Callable[[Any, int], int]) -> type[MemoryJournal]:
    """Return a journal that counts other turns as lost: told its execution, and the right count."""

    class Counts(MemoryJournal):
        def take(self, execution: str, *args: Any, **options: Any) -> Any:
            found = super().take(execution, *args, **options)
            held = self._executions.get(execution)
            return (
                found._replace(lost=count(held, found.lost)) if isinstance(found, Turn) else found
            )

    return Counts


class CountsReleasedTurns(MemoryJournal):
    def release(self, turn: Turn, **options: Any) -> None:
        super().release(turn, **options)
        self._executions[turn.record.id].lost += 1


class ForgetsWhatTheSweepFound(MemoryJournal):
    def due(self, **options: Any) -> Any:
        found = super().due(**options)
        for each in found:
            self._executions[each.execution].free()
        return found


class ForgivesTheStuck(MemoryJournal):
    def commit(self, turn: Turn, commit: Commit, **options: Any) -> Any:
        found = super().commit(turn, commit, **options)
        self._executions[turn.record.id].lost = 0
        return found


class CountsOverCommits(MemoryJournal):
    def commit(self, turn: Turn, commit: Commit, **options: Any) -> Any:
        lost = self._executions[turn.record.id].lost
        found = super().commit(turn, commit, **options)
        self._executions[turn.record.id].lost = lost
        return found


class CountsOverResume(MemoryJournal):
    def resume(self, execution: str, **options: Any) -> Any:
        lost = self._executions[execution].lost
        found = super().resume(execution, **options)
        self._executions[execution].lost = lost
        return found


# Commits.


def committing(change: Callable[[Commit], Commit]) -> type[MemoryJournal]:
    """Return a journal that records another commit than it was given."""

    class Changes(MemoryJournal):
        def commit(self, turn: Turn, commit: Commit, **options: Any) -> Any:
            return super().commit(turn, change(commit), **options)

    return Changes


class ReturnsNothing(MemoryJournal):
    def commit(self, *args: Any, **options: Any) -> Any:
        found = super().commit(*args, **options)
        return found._replace(entries=()) if isinstance(found, Committed) else found


class ReturnsThemReversed(MemoryJournal):
    def commit(self, *args: Any, **options: Any) -> Any:
        found = super().commit(*args, **options)
        return found._replace(entries=found.entries[::-1])


class RecordsWhatItRefused(MemoryJournal):
    def commit(self, turn: Turn, commit: Commit, **options: Any) -> Any:
        found = super().commit(turn, commit, **options)
        if isinstance(found, Refusal) and turn.record.id in self._executions:
            for command in commit.commands:
                self._executions[turn.record.id].add_command(command, commit.at)
        return found


class ReadsItsOwnCommands(MemoryJournal):
    def commit(self, turn: Turn, commit: Commit, **options: Any) -> Any:
        found = super().commit(turn, commit, **options)
        self._executions[turn.record.id].change(seen=commit.seen)
        return found


# Answers.


class AlwaysFirst(MemoryJournal):
    def answer(self, *args: Any, **options: Any) -> Any:
        return super().answer(*args, **options)._replace(first=True)


class LeavesTheAnswered(MemoryJournal):
    def answer(self, execution: str, *args: Any, **options: Any) -> Any:
        held = self._executions.get(execution)
        unsent = {} if held is None else dict(held.unsent)
        found = super().answer(execution, *args, **options)
        if held is not None:
            held.unsent = unsent
        return found


class LooksThenAnswers(MemoryJournal):
    def answer(self, execution: str, number: int, *args: Any, **options: Any) -> Any:
        known = self.is_answered(execution, number, timeout=1)
        time.sleep(0.05)
        return super().answer(execution, number, *args, **options)._replace(first=not known)


class WakesEachTime(MemoryJournal):
    def _is_waked(self, execution: Any, pause: float) -> bool:
        return False


class WakesForFirstAnswers(MemoryJournal):
    def _told(self, told: Any, place: int, *, first: bool) -> Answered:
        return super()._told(told, place, first=first) if first else NOTHING


class WakesTheHeld(MemoryJournal):
    def _told(self, told: Any, place: int, *, first: bool) -> Answered:
        told.owner, owner = None, told.owner
        found = super()._told(told, place, first=first)
        told.owner = owner
        return found


class AsksForStepsOfTheEnded(MemoryJournal):
    def is_answered(self, execution: str, number: int, **options: Any) -> bool:
        found = self._executions.get(execution)
        return found is None or number in found.answered or number not in found.commands


class LosesSome(MemoryJournal):
    def deliver(self, *args: Any, source: str, **options: Any) -> Any:
        if source.endswith("-7"):
            return Answered(first=True)
        return super().deliver(*args, source=source, **options)


# Signals.


class RecordsTwice(MemoryJournal):
    def deliver(self, *args: Any, source: str, **options: Any) -> Any:
        if source in self._executions[args[0]].sources:
            source += uuid.uuid4().hex
        return super().deliver(*args, source=source, **options)


class SignalsTheEnded(MemoryJournal):
    def deliver(self, *args: Any, **options: Any) -> Any:
        return super().deliver(*args, **options)._replace(first=True)


class CancelsOnlyWhatBegan(MemoryJournal):
    def deliver(self, execution: str, workflow: str, kind: Any, *args: Any, **options: Any) -> Any:
        if kind is EntryKind.CANCEL and execution not in self._executions:
            return NOTHING
        return super().deliver(execution, workflow, kind, *args, **options)


# Timers.


def firing(choose: Callable[[Any, float], list[int]]) -> type[MemoryJournal]:
    """Return a journal that fires other timers."""

    class Fires(Execution):
        def fire(self, now: float) -> None:
            for number in choose(self, now):
                self.append(Entry(0, EntryKind.FIRED, number, None, None, None, None, now))

    class Journal(Of):
        kind = Fires

    return Journal


def due_of(execution: Any, now: float) -> list[int]:
    return due_timers(execution.timers, execution.record.wake_at, now)


class FiresInTakesOnly(MemoryJournal):
    def _go_on(self, held: Any, commit: Commit) -> Committed:
        held.fire = lambda now: None
        found = super()._go_on(held, commit)
        del held.fire
        return found


# The sweep.


def blind(reason: str) -> type[MemoryJournal]:
    """Return a journal whose sweep does not see one kind."""

    class Blind(MemoryJournal):
        def _why(self, execution: Any, now: float) -> str | None:
            found = super()._why(execution, now)
            return None if found == reason else found

    return Blind


class SweepsTheStuck(MemoryJournal):
    def _why(self, execution: Any, now: float) -> str | None:
        found = super()._why(execution, now)
        return "unread" if execution.record.status is Status.STUCK else found


class LeavesTheStuckToTheDead(MemoryJournal):
    def _why(self, execution: Any, now: float) -> str | None:
        found = super()._why(execution, now)
        return None if execution.record.status is Status.STUCK else found


class SweepsTheHeld(MemoryJournal):
    def _why(self, execution: Any, now: float) -> str | None:
        return "orphaned" if execution.owner else super()._why(execution, now)


class SweepsTwice(MemoryJournal):
    def due(self, **options: Any) -> Any:
        found = super().due(**options)
        for each in found:
            self._executions[each.execution].waked_at = None
        return found


class SweepsWithoutLimit(MemoryJournal):
    def due(self, *, limit: int, timeout: float) -> Any:
        return super().due(limit=MUCH, timeout=timeout)


class WakesAsOften(MemoryJournal):
    def _pause(self, execution: Any) -> float:
        return self._unread_after


class ForgetsThatTheyLeft(MemoryJournal):
    def sent(self, execution: str, numbers: Any, *, again: Any = None, **options: Any) -> None:
        left = [number for number in numbers if number not in (again or {})]
        super().sent(execution, left, again=again, **options)


class DropsWhatLeft(MemoryJournal):
    def sent(self, execution: str, numbers: Any, *, again: Any = None, **options: Any) -> None:
        kept = {number: at for number, at in (again or {}).items() if number not in numbers}
        super().sent(execution, numbers, again=kept, **options)


class TakesWithoutUnsent(MemoryJournal):
    def take(self, *args: Any, **options: Any) -> Any:
        found = super().take(*args, **options)
        return found._replace(unsent=()) if isinstance(found, Turn) else found


class NeverAgain(MemoryJournal):
    def sent(self, *args: Any, again: Any = None, **options: Any) -> None:
        super().sent(*args, **options)


class DropsAllAtTheEnd(MemoryJournal):
    def _end(self, ended: Any, commit: Commit) -> Any:
        found = super()._end(ended, commit)
        ended.unsent = {}
        return found


class SendsStepsOfTheEnded(MemoryJournal):
    def _end(self, ended: Any, commit: Commit) -> Any:
        unsent = ended.unsent
        found = super()._end(ended, commit)
        ended.unsent = unsent
        return found


# Ends.


class LeavesParentsAlone(MemoryJournal):
    def _answer_parent(self, child: Any, at: float) -> None: ...


class AnswersParentsAgain(MemoryJournal):
    def _answer_parent(self, child: Any, at: float) -> Any:
        if child.parent is None:
            return None
        answer = answer_of(child, at)
        entry = Entry(0, answer.kind, child.parent_number, None, None, answer.body, None, at)
        self._executions[child.parent].append(entry)
        return self._executions[child.parent].wake_up()


class LeavesChildrenAlone(MemoryJournal):
    def _cancel_children(self, parent: Any, at: float) -> None: ...


class CancelsChildrenOfTheCompleted(MemoryJournal):
    def _end(self, ended: Any, commit: Commit) -> Any:
        found = super()._end(ended, commit)
        self._cancel_children(ended.record, commit.at)
        return found


class TerminatesTwice(MemoryJournal):
    def terminate(self, *args: Any, **options: Any) -> Any:
        return super().terminate(*args, **options)._replace(first=True)


class OldestFirst(MemoryJournal):
    def find(self, query: Any, **options: Any) -> Any:
        return super().find(query, **options)[::-1]


class ForgetsWithoutLimit(MemoryJournal):
    def forget(self, *, limit: int, **options: Any) -> int:
        return super().forget(limit=MUCH, **options)


class ForgetsTheUnsent(MemoryJournal):
    def forget(self, **options: Any) -> int:
        for each in self._executions.values():
            each.unsent = {}
        return super().forget(**options)


# Resume and restart.


def resuming(change: Callable[[Any], int | None]) -> type[MemoryJournal]:
    """Return a journal that resumes from another command."""

    class Resumes(MemoryJournal):
        def resume(self, execution: str, *, number: int | None, **options: Any) -> Any:
            return super().resume(execution, number=change(number), **options)

    return Resumes


class KeepsWhatWasUnderWay(MemoryJournal):
    def resume(self, execution: str, **options: Any) -> Any:
        if found := self._executions.get(execution):
            found.change(status=Status.STUCK)
        return super().resume(execution, **options)


class AnswersForTheForgotten(MemoryJournal):
    def answer(self, execution: str, number: int, answer: Any, **options: Any) -> Any:
        return super().answer(execution, number, answer._replace(source=""), **options)


class RunsTheForgotten(MemoryJournal):
    def is_answered(self, *args: Any, source: str = "", **options: Any) -> bool:
        return super().is_answered(*args, **options)


class ForgetsByTheNewestId(MemoryJournal):
    def answer(self, execution: str, number: int, answer: Any, **options: Any) -> Any:
        generation = self._executions[execution].record.generation
        if answer.source and answer.source != request_id(execution, number, generation):
            return NOTHING
        return super().answer(execution, number, answer, **options)


class CountsAnew(MemoryJournal):
    def _restart(self, held: Any, *args: Any) -> Any:
        found = super()._restart(held, *args)
        held.change(first=0)
        return found


class KeepsTheVersion(MemoryJournal):
    def _restart(self, held: Any, commit: Commit, *args: Any) -> Any:
        return super()._restart(held, commit._replace(version=None), *args)


class LosesUnread(MemoryJournal):
    def _restart(self, held: Any, commit: Commit, *args: Any) -> Any:
        return super()._restart(held, commit._replace(unread=()), *args)


class ForgetsSources(MemoryJournal):
    def _restart(self, held: Any, *args: Any) -> Any:
        found = super()._restart(held, *args)
        held.sources = {}
        return found


# Limits.


def counting(**counts: int) -> type[MemoryJournal]:
    """Return a journal that counts something wrong."""

    class Counts(MemoryJournal):
        def _miscount(self, execution: str) -> None:
            if found := self._executions.get(execution):
                found.counts = found.counts._replace(**counts)

        def commit(self, turn: Turn, commit: Commit, **options: Any) -> Any:
            self._miscount(turn.record.id)
            return super().commit(turn, commit, **options)

        def answer(self, execution: str, *args: Any, **options: Any) -> Any:
            self._miscount(execution)
            return super().answer(execution, *args, **options)

    return Counts


class RecordsTheLargest(MemoryJournal):
    def answer(self, execution: str, number: int, answer: Any, **options: Any) -> Any:
        return Answered(self._executions[execution].add_answer(number, answer))


class RefusesInSilence(MemoryJournal):
    def deliver(self, *args: Any, **options: Any) -> Any:
        with suppress(LimitError):
            return super().deliver(*args, **options)
        return NOTHING


class GoesOnBeyond(MemoryJournal):
    def commit(self, turn: Turn, commit: Commit, **options: Any) -> Any:
        found = super().commit(turn, commit, **options)
        if found is Refusal.LIMIT:
            self._executions[turn.record.id].change(status=Status.RUNNING)
        return found


# Forks, clocks, closing, claims.


class KeepsItsLock(MemoryJournal):
    def deliver(self, *args: Any, **options: Any) -> Any:
        with self._lock:
            time.sleep(0.005)
            return super().deliver(*args, **options)

    def _after_fork(self) -> None: ...


class Walled(MemoryJournal):
    """Knows by how much the clock was set."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.offset = time.time() - time.monotonic()

    @property
    def step(self) -> float:
        return time.time() - time.monotonic() - self.offset


class LeasesByTheClock(Walled):
    def _is_held(self, execution: Any) -> bool:
        age = time.monotonic() + self.step - execution.renewed_at
        return execution.owner is not None and age < self._lease


class FiresByTheOtherClock(Walled):
    def _why(self, execution: Any, now: float) -> str | None:
        return super()._why(execution, now - self.step)


class ClosesOthers(MemoryJournal):
    def close(self) -> None:
        self._executions = {}


class Claimless(MemoryJournal):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        store: Any = self.claims
        store._live = lambda key, now: None


# Several processes.


class Unlocked(SharedJournal):
    @contextmanager
    def locked(self) -> Generator[None]:
        yield
        time.sleep(0.001)

    def read(self) -> Any:
        found = super().read()
        time.sleep(0.01)
        return found


class Torn(SharedJournal):
    """Writes a commit in two parts."""

    def written(self, journal: Any, call: str) -> None:
        if call == "commit":
            before = self.read()
            for name, each in journal._executions.items():
                if each.entries and name in before._executions:
                    before._executions[name].append(each.entries[0])
            self.write(before)
            time.sleep(0.5)
        self.write(journal)


SHARED: dict[str, type[SharedJournal]] = {
    "test_processes_begin_once": Unlocked,
    "test_processes_answer_once": Unlocked,
    "test_processes_leave_no_gap": Unlocked,
    "test_processes_take_one_turn": Unlocked,
    "test_a_process_killed_in_a_call": Torn,
}

BROKEN: dict[str, list[type[MemoryJournal]]] = {
    "test_a_start_is_recorded_once": [BeginsAgain],
    "test_all_of_a_start_is_read_back": [ForgetsHeaders],
    "test_one_of_eight_threads_starts_it": [LooksThenBegins],
    "test_signals_may_come_before_the_start": [RefusesEarlySignals],
    "test_a_start_wakes_until_a_turn_was_committed": [WakesOnce],
    "test_a_child_of_what_was_cancelled_begins_cancelled": [BeginsOrphans],
    "test_an_execution_that_is_not_there": [EndsTheMissing],
    "test_a_turn_has_what_its_worker_needs": [GivesAllEntries, TakesWithoutUnsent],
    "test_one_worker_at_a_time": [HoldsNothing],
    "test_a_turn_that_is_renewed_stays_held": [RenewsInWords],
    "test_a_turn_that_is_not_renewed_is_given_up": [HoldsForEver, WithoutFence],
    "test_the_same_message_takes_over_at_once": [DoesNotKnowItsMessage],
    "test_a_released_turn_is_free_and_wanted": [ReleasesNothing, WantsNothingAfterRelease],
    "test_an_execution_that_ended_gives_no_turn": [HoldsTheEnded],
    "test_turns_that_end_with_their_workers_are_counted": [
        counting_lost(lambda _, lost: 0),
        counting_lost(lambda held, _: held.record.fence - 1),
        CountsReleasedTurns,
        ForgetsWhatTheSweepFound,
        ForgivesTheStuck,
        CountsOverCommits,
        CountsOverResume,
    ],
    "test_a_stuck_execution_gives_a_turn": [StuckForEver],
    "test_all_of_a_commit_is_read_back": [
        committing(lambda c: c._replace(state=None)),
        committing(lambda c: c._replace(commands=c.commands[::-1])),
    ],
    "test_what_is_not_said_stays": [
        committing(lambda c: c._replace(state=c.state or b"")),
        committing(lambda c: c._replace(wake_at=1e12)),
    ],
    "test_a_commit_returns_what_arrived": [ReturnsNothing, ReturnsThemReversed],
    "test_a_turn_can_be_kept": [committing(lambda c: c._replace(keep=False))],
    "test_a_commit_is_all_or_nothing": [RecordsWhatItRefused, WithoutFence],
    "test_own_commands_are_not_unread": [ReadsItsOwnCommands],
    "test_the_first_answer_stands": [AlwaysFirst],
    "test_what_is_answered_leaves_no_more": [LeavesTheAnswered],
    "test_a_turns_own_answer_is_no_exception": [committing(lambda c: c._replace(answers=()))],
    "test_one_of_eight_threads_answers": [LooksThenAnswers],
    "test_answers_to_nothing_are_discarded": [AlwaysFirst],
    "test_answers_wake_once": [WakesEachTime, WakesForFirstAnswers, WakesTheHeld],
    "test_a_step_asks_whether_it_need_run": [AsksForStepsOfTheEnded],
    "test_eight_writers_leave_no_gap": [LosesSome],
    "test_a_signal_is_recorded_once": [RecordsTwice],
    "test_signals_are_read_in_the_order_of_recording": [ReturnsThemReversed],
    "test_what_ended_takes_no_signal": [SignalsTheEnded],
    "test_a_cancellation_may_come_first": [CancelsOnlyWhatBegan],
    "test_timers_fire_in_the_order_of_their_instants": [firing(lambda x, t: sorted(due_of(x, t)))],
    "test_a_timer_never_fires_early": [firing(lambda x, t: due_of(x, t + MUCH))],
    "test_a_commit_fires_what_is_due": [FiresInTakesOnly],
    "test_a_timer_that_is_not_awaited_does_not_fire": [
        firing(lambda x, t: due_timers(x.timers, 0, t)),
    ],
    "test_each_kind_of_due_is_found": [
        *(blind(reason) for reason in ("timer", "unread", "orphaned", "unsent")),
        LeavesTheStuckToTheDead,
    ],
    "test_nothing_else_is_due": [SweepsTheStuck, SweepsTheHeld],
    "test_what_is_due_counts_as_woken": [SweepsTwice, SweepsWithoutLimit],
    "test_what_was_woken_in_vain_waits_longer": [WakesAsOften],
    "test_unsent_commands_stay_until_they_left": [TakesWithoutUnsent],
    "test_a_next_try_is_kept": [NeverAgain, ForgetsThatTheyLeft, DropsWhatLeft],
    "test_what_others_wait_for_leaves_after_the_end": [DropsAllAtTheEnd, SendsStepsOfTheEnded],
    "test_an_end_answers_the_parent": [LeavesParentsAlone],
    "test_a_parent_is_answered_once": [AnswersParentsAgain],
    "test_children_are_cancelled_with_their_parent": [
        LeavesChildrenAlone,
        CancelsChildrenOfTheCompleted,
    ],
    "test_terminate_ends_without_code": [TerminatesTwice, LeavesChildrenAlone],
    "test_executions_are_found": [OldestFirst],
    "test_ended_executions_are_forgotten": [ForgetsWithoutLimit, ForgetsTheUnsent],
    "test_a_failed_execution_forgets_its_last_failure": [resuming(lambda _: MUCH)],
    "test_what_was_under_way_at_the_end_is_issued_anew": [KeepsWhatWasUnderWay],
    "test_a_cancelled_execution_forgets_its_cancellation": [resuming(lambda _: MUCH)],
    "test_resume_from_a_command": [resuming(lambda _: None)],
    "test_a_stuck_execution_keeps_all": [resuming(lambda _: 1)],
    "test_a_step_that_was_forgotten_answers_nothing": [AnswersForTheForgotten, RunsTheForgotten],
    "test_what_resume_keeps_still_answers": [ForgetsByTheNewestId],
    "test_a_restart_begins_with_an_empty_journal": [CountsAnew, LosesUnread, KeepsTheVersion],
    "test_a_restart_remembers_sources": [ForgetsSources],
    "test_the_largest_entry_fits": [RecordsTheLargest],
    "test_a_signal_that_is_too_large_is_refused": [RefusesInSilence],
    "test_a_command_beyond_makes_it_stuck": [GoesOnBeyond],
    "test_open_commands_are_counted": [counting(open=0)],
    "test_a_full_journal_says_so": [counting(entries=0)],
    "test_bytes_are_counted": [counting(size=0)],
    "test_a_forked_child_can_use_it": [KeepsItsLock],
    "test_a_clock_that_is_set_costs_no_turn": [LeasesByTheClock],
    "test_timers_follow_the_clock": [FiresByTheOtherClock],
    "test_a_closed_journal": [ClosesOthers],
    "test_claims_of_steps": [Claimless],
}
