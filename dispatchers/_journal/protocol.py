"""`Journal`: where executions are recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

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


class Journal(Protocol):
    """Executions and their entries. Every call is one transaction: all of it, or nothing.

    Entries of an execution are numbered without a gap in the order in which they are recorded. A
    call that cannot be carried out raises `JournalError`; `maybe_written` tells whether it may have
    been nevertheless. `timeout` is in seconds, instants are in seconds since the epoch.

    A `wake` that a call returns counts as a wake-up under way, until a turn is taken or
    `UNREAD_AFTER` has passed: meanwhile no other call returns one for the same execution. None is
    returned either while a turn is held: its commit returns what arrived. For `due` it is under way
    for as long as `rules.pause_after` says: what waits behind other work is not helped by more of
    the same.
    """

    claims: IdempotencyStore
    """Claims of steps: no second run of a step begins while the first renews its claim."""

    def begin(self, start: Start, *, timeout: float) -> Answered:
        """Record an execution; `first` is False if it was there. Signals that came before stay.

        Its `wake` is given as long as no turn of it was committed. An execution that is there
        keeps its parent. A child whose parent has failed, or was cancelled or terminated, begins
        with a `CANCEL`.
        """
        ...

    def take(
        self, execution: str, owner: str, *, wakeup: str, after: int, timeout: float
    ) -> Turn | Refusal:
        """Take a turn. Timers that are due become `FIRED` first, in the order of their instants.

        Those are due whose instant is not before `Record.wake_at`, as earlier ones are not awaited
        any more, and not after now. Of one instant, the lower number is first.

        Args:
            execution: The id.

            owner: A name for this turn, which no other turn has.

            wakeup: The id of the request that woke it. The same one takes over: it comes again
                because its worker is gone.

            after: The place up to which the entries are known already.

            timeout: Seconds.

        Returns:
            `HELD` where another turn is renewed still: its commit returns what arrived.
            `MISSING` also before the start. A `STUCK` execution gives a turn.
        """
        ...

    def renew(self, turn: Turn, *, timeout: float) -> bool:
        """Hold a turn for longer; False if it is lost. Due every `LEASE / 3` seconds."""
        ...

    def commit(self, turn: Turn, commit: Commit, *, timeout: float) -> Committed | Refusal:
        """Record what a turn found out. Releases it, unless `Committed.kept`.

        Commands are recorded before answers. Of two answers the first stands. Timers that are due
        fire as in `take`, those of this commit included. An end answers the parent's command;
        unless the execution completed, its running children get a `CANCEL`. Of an execution that
        has ended, commands still leave that others wait for: `SEND`, and `CHILD` if it completed.
        """
        ...

    def release(self, turn: Turn, *, timeout: float) -> None:
        """Give a turn back without recording anything; its execution wants another."""
        ...

    def sent(
        self,
        execution: str,
        numbers: Sequence[int],
        *,
        again: Mapping[int, float] | None = None,
        timeout: float,
    ) -> None:
        """Note commands that were handed over, and when to hand commands over `again`.

        Args:
            execution: The id.

            numbers: Of the commands that left. Those without an instant in `again` are not unsent
                any more, the others are so with `Unsent.left`.

            again: By number, the instant of the next try, in seconds since the epoch.

            timeout: Seconds.
        """
        ...

    def answer(self, execution: str, number: int, answer: Answer, *, timeout: float) -> Answered:
        """Record an answer from outside. The first one stands, and its command is not unsent.

        `first` is False where the command is not there (any more), or has been forgotten and
        issued anew since (`rules.is_forgotten`). A repetition is given `wake`
        if no turn has read the answer, even with a wake-up under way: it may be lost. An answer
        that is too large is recorded as a failure `too_large`.
        """
        ...

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
        """Record a `SIGNAL` or `CANCEL`, once for each source, also before the start.

        A source is remembered over restarts, for `REMEMBERED` seconds at least. A repetition is
        given `wake` as in `answer`.

        Raises:
            LimitError: A signal is too large, or the execution has no room for it.
        """
        ...

    def is_answered(self, execution: str, number: int, *, source: str = "", timeout: float) -> bool:
        """Tell whether a step need not run: its command is answered or gone, or all has ended.

        True as well for an execution that is not there: it was forgotten.

        Args:
            execution: The id.

            number: Of the command.

            source: The id of the step's request: true if its command has been forgotten and issued
                anew since (`rules.is_forgotten`).

            timeout: Seconds.
        """
        ...

    def due(self, *, limit: int, timeout: float) -> Sequence[WakeUp]:
        """List executions that want a turn and may not be woken; counts them as being woken.

        Running ones with a timer that is due or with entries that no turn has read; running and
        stuck ones with a turn that is no longer renewed; and those, ended ones too, with commands
        whose next try is due.
        Left out are those with a wake-up under way or a turn that is renewed.
        """
        ...

    def look(self, execution: str, *, timeout: float) -> Record | None:
        """Read an execution."""
        ...

    def entries(self, execution: str, *, after: int = 0, timeout: float) -> Sequence[Entry]:
        """Read the entries after a place."""
        ...

    def unsent(self, execution: str, *, timeout: float) -> Sequence[Unsent]:
        """Read the commands that have not left, in their order; also after the end."""
        ...

    def find(self, query: Query, *, timeout: float) -> Sequence[Record]:
        """List executions."""
        ...

    def terminate(self, execution: str, why: str, *, at: float, timeout: float) -> Answered:
        """End an execution without running its code.

        Its children are cancelled, its parent is answered: `wake` is the parent.
        """
        ...

    def resume(self, execution: str, *, number: int | None, at: float, timeout: float) -> Answered:
        """Let a failed, cancelled, terminated or stuck execution go on.

        Commands that are forgotten are deleted with their answers, and the code issues them anew.
        All `CANCEL` are deleted; signals stay. The entries are numbered anew.

        Args:
            execution: The id.

            number: The command from which on all are forgotten; None forgets, of a failed
                execution, the command that failed last and those issued afterwards; of a cancelled
                one, those issued since its cancellation; else none.

            at: Seconds since the epoch.

            timeout: Seconds.
        """
        ...

    def forget(self, *, before: float, limit: int, timeout: float) -> int:
        """Delete executions that ended before an instant; returns how many.

        Those that wait for their start since then, too. Kept are those with unsent commands.
        """
        ...

    def close(self) -> None:
        """Close what it has open. A later call opens it again or raises `JournalError`."""
        ...


class CountingJournal(Protocol):
    """A journal that can count, too: `dispatchers status` shows what it says."""

    def count(self, *, timeout: float) -> Sequence[Count]:
        """Count the executions that have not ended, by workflow and dispatcher, sorted."""
        ...


LEASE = 15.0
"""Seconds without a renewal after which a turn counts as given up."""

UNREAD_AFTER = 2.0
"""Seconds after which a wake-up that no turn has followed counts as lost."""

LONGEST_WAIT = 60.0
"""Seconds after which `due` lists an execution again, however often it was woken in vain."""

REMEMBERED = 7 * 86400.0
"""Seconds for which a signal's source is remembered, so that it is not recorded twice."""
