"""One advance of an execution: take it, run its code on, record what it asks for, hand that over.

The journal is the truth: a turn that dies anywhere leaves what was committed, and the next one
goes on from there. The message that asked for the turn may come twice, late, or never.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from dispatchers._dispatch.error_mapping import place_of
from dispatchers._journal.errors import JournalError
from dispatchers._journal.failure import Failure
from dispatchers._journal.limits import MAX_IDLE_TURNS, MAX_LOST_TURNS
from dispatchers._journal.protocol import LEASE, Journal
from dispatchers._journal.rules import leaves_after
from dispatchers._journal.values import (
    LEAVING,
    Answer,
    Command,
    Commit,
    Entry,
    EntryKind,
    Record,
    Refusal,
    Status,
    Turn,
)
from dispatchers._models.envelope import EnvelopeError, decode, encode
from dispatchers._models.failures import is_interruption
from dispatchers._models.fields import new_id
from dispatchers._models.json_object import JsonObject
from dispatchers._models.request import DispatchRequest
from dispatchers._payload.errors import DeclarationError, PayloadError
from dispatchers._runtime import clock
from dispatchers._runtime.cancellation import TimeLimitError
from dispatchers._runtime.heartbeat import Heartbeat, renewed
from dispatchers._runtime.log import say, say_once
from dispatchers._worker.run import current, turn_is_interrupted, turns
from dispatchers._worker.waking import woken
from dispatchers.workflows._cache import Live, live
from dispatchers.workflows._children import cancel_children
from dispatchers.workflows._end import End
from dispatchers.workflows._hand_over import hand_over, hand_over_due, runs_in_call
from dispatchers.workflows._replay import Replay
from dispatchers.workflows._timer import wake_later
from dispatchers.workflows._versions import Versions

__all__ = ["replayed", "take_turn"]

TIMEOUT = 5.0
"""Seconds for one call of the journal."""

GIVEN_UP = Failure("nothing awaits it any more", "cancelled").encode()
"""Answer to a command that the code has cancelled."""

BLOCKS = (
    "what blocks belongs into a step, a long history into `restart(...)`; mend its code, or raise "
    "the worker's limit, then resume the execution"
)


KILLED = (
    "workers in a row ended in a turn of it: its code, or a local step, may be killing them, or "
    "takes longer than its queue waits; mend it, then resume the execution"
)


def take_turn(
    journal: Journal, versions: Versions, execution: str, wakeup: str, deliveries: int = 1
) -> None:
    """Advance an execution as far as it can go.

    Args:
        journal: Where it is recorded.

        versions: The workflow's code, by number.

        execution: The id.

        wakeup: The id of the request that asks for the turn.

        deliveries: How often that request was delivered.

    Raises:
        JournalError: The journal could not be asked. Nothing is lost.

        MissingVersionError: This worker lacks the version that the execution is on.
    """
    kept = live.take(execution, journal)
    after = kept.seen if kept else 0
    try:
        turn = journal.take(execution, new_id(), wakeup=wakeup, after=after, timeout=TIMEOUT)
    except BaseException:
        _keep(execution, kept)
        raise
    if isinstance(turn, Refusal):
        _refused(journal, execution, turn, kept)
        return
    taken = _Taken(journal, versions, turn, kept)
    outer, turns.run = turns.run, current.get(None)
    try:
        with renewed(Heartbeat(lambda: journal.renew(turn, timeout=TIMEOUT), LEASE / 3)):
            taken.advance(deliveries)
    except BaseException as exc:
        taken.fail(exc)
        raise
    finally:
        turns.run = outer
    _failures.pop(execution, None)


_failures: dict[str, int] = {}
"""How many turns of an execution have raised here, one after the other."""


def _keep(execution: str, kept: Live | None) -> None:
    if kept is not None:
        live.put(execution, kept)


def _refused(journal: Journal, execution: str, why: Refusal, kept: Live | None) -> None:
    if why is Refusal.HELD:
        # It is as far as it was, and the journal knows what follows that.
        _keep(execution, kept)
        return
    if kept is not None:
        kept.replay.close()
    record = journal.look(execution, timeout=TIMEOUT)
    if record is None:
        say(logging.WARNING, NOWHERE, execution)
    elif why is Refusal.ENDED:
        hand_over_due(journal, record)


NOWHERE = (
    "a turn of %s has no effect: the journal does not have it; it was deleted, or the setting "
    "`workflows` names another journal where it began"
)


def replayed(record: Record, versions: Versions, entries: Sequence[Entry]) -> Replay:
    """Return the code of an execution at its beginning, with the commands that it is to repeat.

    Args:
        record: The execution.

        versions: The workflow's code, by number; the one that it is on among them.

        entries: All of its entries; what they tell is not fed.

    Raises:
        PayloadError: The arguments do not fit the code.

        EnvelopeError: Its start is damaged.
    """
    version = versions[record.version]
    return Replay(
        version.code(record.input),
        execution=record.id,
        first=record.first,
        started=record.started_at,
        recorded={e.number: e for e in entries if e.number is not None and e.kind.is_command},
        encode=version.results.encode,
        again=versions.restarted,
        generation=record.generation,
    )


def _check_time() -> None:
    """Refuse to go on once the worker has raised in this turn, at its time limit.

    It is an `Exception` under Celery and RQ: the code may have taken it for a failure of its own.

    Raises:
        TimeLimitError: It has.
    """
    if turn_is_interrupted():
        raise TimeLimitError("the turn was interrupted at its time limit")


class MissingVersionError(Exception):
    """This worker lacks the version that an execution is on."""


class _Taken:
    """A turn in the hands of this worker."""

    def __init__(self, journal: Journal, versions: Versions, turn: Turn, kept: Live | None) -> None:
        self._journal = journal
        self._versions = versions
        self._turn = turn
        self._record = turn.record
        self._live = kept
        self._seen = turn.record.seen
        """The place up to which this turn has committed."""

    def advance(self, deliveries: int) -> None:
        """Run the code on until it waits, and let go of the turn."""
        # The journal counts turns, whatever woke them; a turn that it does not know of is its job.
        lost = deliveries - 1 if self._turn.lost is None else self._turn.lost
        if lost >= MAX_LOST_TURNS:
            self._stick(f"{lost} {KILLED}")
            return
        if self._turn.unsent:
            hand_over_due(self._journal, self._record)
        try:
            entries = self._loaded()
        except DeclarationError as exc:
            self._stick(f"its code cannot run: {exc}; mend it, then resume the execution")
            return
        except (PayloadError, EnvelopeError) as exc:
            self._stick(
                f"the arguments that it began with do not fit its code: {exc}; keep the former "
                "code as a version of its own, or mend it, then resume the execution"
            )
            return
        self._feed(entries)
        while self._goes_on():
            pass

    def _loaded(self) -> Sequence[Entry]:
        """Have the code at hand, and return the entries that it was not fed."""
        record, entries = self._record, self._turn.entries
        if self._live is not None and self._live.is_of(self._turn):
            return entries
        if self._live is not None:
            self._close()
            entries = self._journal.entries(record.id, timeout=TIMEOUT)
        self._check_version()
        replay = replayed(record, self._versions, entries)
        self._live = Live(self._journal, replay, record.generation, waked_at=record.wake_at)
        return entries

    def _check_version(self) -> None:
        number = self._record.version
        if number in self._versions:
            return
        known = ", ".join(map(str, sorted(self._versions)))
        raise MissingVersionError(
            f"{self._record.id!r} is on version {number} of its workflow, this worker has {known}: "
            f"keep its code with @{self._record.workflow.rpartition('.')[2]}.version({number})",
        )

    def _feed(self, entries: Sequence[Entry]) -> None:
        assert self._live is not None
        known, replay = self._live, self._live.replay
        for entry in entries:
            if entry.kind.is_command:
                replay.know(entry)
        # At once: to enter the code's loop for each of thousands costs half as much as to run it.
        replay.feed(*[entry for entry in entries if not entry.kind.is_command])
        if replay.end is not None:
            # What the code has not been told is kept, if it begins anew.
            entries = [entry for entry in entries if entry.seq <= replay.told]
        if entries:
            known.seen = entries[-1].seq
            known.size += sum(len(entry.body or b"") for entry in entries)

    def _goes_on(self) -> bool:
        """Record what the code asks for, and hand it over; false once the turn is over."""
        assert self._live is not None
        known, replay = self._live, self._live.replay
        _check_time()
        commands = replay.take_commands()
        if replay.mismatch is not None:
            self._stick(replay.mismatch)
            return False
        dropped, requests = replay.take_dropped(), replay.take_requests()
        leaving = [each for each in self._leaving(commands) if each.number not in dropped]
        answers = self._given_up(dropped)
        # What leaves goes first: a local step may take long.
        if replay.locals and not leaving:
            call = replay.locals[0]
            answers.append((call.number, call.run()))
            _check_time()
        keep = bool(replay.locals and leaving) or runs_in_call(leaving)
        commit = Commit(
            at=clock.time(),
            seen=known.seen,
            commands=commands,
            answers=answers,
            state=replay.take_state(),
            wake_at=replay.wake_at,
            keep=keep,
        )
        ended = self._ended(commit, replay.end)
        return self._committed(ended, leaving, tuple(dropped), requests)

    def _leaving(self, commands: Sequence[Command]) -> list[Command]:
        """Return those of the new commands that are to be handed over."""
        assert self._live is not None
        end = self._live.replay.end
        # What nothing can await any more stays here.
        kinds = LEAVING if end is None else leaves_after(end.status)
        return [command for command in commands if command.kind in kinds]

    def _given_up(self, dropped: Mapping[int, EntryKind]) -> list[tuple[int, Answer]]:
        """Return the answers to what the code awaits no more: steps that wait need not run."""
        if children := [n for n, kind in dropped.items() if kind is EntryKind.CHILD]:
            cancel_children(self._journal, self._record, children)
        return [(number, Answer(EntryKind.FAILED, GIVEN_UP, clock.time())) for number in dropped]

    def _ended(self, commit: Commit, end: End | None) -> Commit:
        if end is None:
            return commit
        assert self._live is not None
        if end.restart is None:
            status, output, why = end.status, end.output, end.why
            return commit._replace(status=status, output=output, why=why, wake_at=None, keep=False)
        # Of the start that is recorded: its options and headers hold for what comes, too.
        again = decode(self._record.input).replace(payload=JsonObject(end.restart))
        unread, version = self._live.replay.unreceived, self._versions.latest
        commit = commit._replace(restart=encode(again), version=version, unread=unread)
        return commit._replace(wake_at=None, keep=False)

    def _committed(
        self,
        commit: Commit,
        leaving: Sequence[Command],
        dropped: Sequence[int],
        requests: Mapping[int, DispatchRequest],
    ) -> bool:
        committed = self._journal.commit(self._turn, commit, timeout=TIMEOUT)
        if isinstance(committed, Refusal):
            self._superseded(committed)
            return False
        self._seen = commit.seen
        if not committed.kept:
            self._park(commit)
        if dropped:
            # What was given up need not leave any more.
            self._journal.sent(self._record.id, dropped, timeout=TIMEOUT)
        if leaving:
            hand_over(self._journal, self._record, leaving, requests)
        woken(committed.wake)
        if committed.kept:
            self._feed(committed.entries)
        return committed.kept

    def _park(self, commit: Commit) -> None:
        """Keep the code for the next turn, unless the execution has ended or begins anew."""
        known, self._live = self._live, None
        if known is None:
            return
        if commit.status is not Status.RUNNING or commit.restart is not None:
            known.replay.close()
            return
        if commit.wake_at is not None and commit.wake_at != known.waked_at:
            known.waked_at = commit.wake_at
            wake_later(self._record, commit.wake_at)
        known.fence, known.owner = self._turn.fence, self._turn.owner
        live.put(self._record.id, known)

    def _superseded(self, why: Refusal) -> None:
        self._close()
        if why is Refusal.LIMIT:
            record = self._journal.look(self._record.id, timeout=TIMEOUT)
            reason = record.why if record else None
            say(logging.ERROR, "execution %s is stuck: %s", self._record.id, reason)
            return
        words = "a turn of %s has no effect: another has begun since"
        say(logging.WARNING, words, self._record.id)

    def _stick(self, why: str) -> None:
        """Let the execution wait for other code (D5): nothing of this turn is recorded."""
        self._close()
        say(logging.ERROR, "execution %s is stuck: %s", self._record.id, why)
        commit = Commit(
            clock.time(), self._seen, status=Status.STUCK, why=why, wake_at=self._record.wake_at
        )
        self._journal.commit(self._turn, commit, timeout=TIMEOUT)

    def _close(self) -> None:
        known, self._live = self._live, None
        if known is not None:
            known.replay.close()

    def fail(self, exc: BaseException) -> None:
        """Give the turn back after an exception; too many of ours in a row, and it is stuck."""
        execution = self._record.id
        is_failure = isinstance(exc, Exception) or is_interruption(exc)
        if isinstance(exc, JournalError | MissingVersionError) or not is_failure:
            self.give_up()
            return
        count = _failures[execution] = _failures.get(execution, 0) + 1
        if count < MAX_IDLE_TURNS:
            self.give_up()
            return
        del _failures[execution]
        if is_interruption(exc) or turn_is_interrupted():
            self._stick(f"{count} turns in a row were interrupted at their time limit: {BLOCKS}")
            return
        self._stick(
            f"{count} turns in a row raised {type(exc).__name__} at {place_of(exc)}: this is a "
            "fault of the library, or of the journal; resume the execution once it is mended"
        )

    def give_up(self) -> None:
        """Give the turn back: another takes it, from what is recorded."""
        self._close()
        try:
            self._journal.release(self._turn, timeout=TIMEOUT)
        except JournalError as exc:
            say_once(take_turn, logging.ERROR, "a turn was not given back: %s", str(exc))
