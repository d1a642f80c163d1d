"""Hand over what is held in a store, in order, and settle it by the answer: rules F7 to F10.

::

    forwarder = Forwarder(source, to)
    forwarder.start()     # a thread of this process, until nothing is held
    forwarder.wake()      # something was put into the store, or the backend is back

A `Source` is the store: one process at a time drains it, which the others know by its heartbeats.
No transaction of it is open while a network is spoken to.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from time import monotonic
from typing import NamedTuple

from dispatchers._dispatch import hook_registry as hooks
from dispatchers._dispatch import reporting
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.error_mapping import FINAL, described, safe_text, type_name
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.envelope import EnvelopeError, decode
from dispatchers._models.redaction import without_secrets
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchStatus
from dispatchers._runtime.fork import renew_after_fork
from dispatchers._runtime.heartbeat import Heartbeat, renewed
from dispatchers._runtime.log import say, say_once

__all__ = [
    "Fate",
    "Forwarder",
    "HeldRow",
    "Settled",
    "Source",
    "Step",
    "fate_of",
    "reason_of",
]

BATCH = 500
"""Rows that are taken and settled together."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds until a backend that takes nothing is tried again: doubled each time, up to a probe every
five seconds."""
LONGEST_BACKOFF = 60.0
"""Seconds that a row waits at most which is refused while others are taken."""
IDLE = 1.0
"""Seconds between two looks at a store that another process drains."""
SLICE = 0.25
"""Seconds until it is noticed that it is to stop."""
LINGER = 0.5
"""Seconds that the thread stays for more once nothing is held."""
NEVER = FINAL
"""What is refused for these is never taken: it becomes a dead letter, and its lane goes on."""
AWAY = frozenset(
    {
        ErrorCategory.UNAVAILABLE,
        ErrorCategory.TIMEOUT,
        ErrorCategory.CIRCUIT_OPEN,
        ErrorCategory.CLOSED,
    }
)
"""What says that the backend takes nothing at all for now."""


class HeldRow(NamedTuple):
    """One envelope in a store."""

    seq: int
    """Its place in the order."""
    body: bytes
    """The envelope."""
    lane: str = ""
    """Order holds within a lane."""
    deduplicate: bool = False
    """The caller demands that the backend recognises duplicates; it is not in the envelope."""
    overdue: str | None = None
    """Why it is to become a dead letter untried, if it is."""


class Fate(StrEnum):
    """Fate of a row."""

    GONE = "gone"
    """The backend has it: the row is deleted."""
    STAYS = "stays"
    """It is tried again later."""
    DEAD = "dead"
    """It can never be taken: a dead letter."""


class Settled(NamedTuple):
    """A row, and what becomes of it."""

    row: HeldRow
    fate: Fate
    request: DispatchRequest | None = None
    """What was dispatched; None where the body was no envelope, or was not tried."""
    why: str = ""
    """The reason, unless it is gone."""
    response: DispatchResponse | None = None
    """What the dispatcher has answered, if it was asked."""


class Step(StrEnum):
    """Result of one step of a forwarder."""

    EMPTY = "empty"
    """Nothing is held."""
    WAITING = "waiting"
    """What is held is not due, or the backend takes nothing."""
    MOVED = "moved"
    """Rows were settled; there may be more."""
    ELSEWHERE = "elsewhere"
    """Another process drains the store."""


class Source(ABC):
    """A store of envelopes that one process at a time drains.

    What is written here may raise anything: the forwarder tries again later.
    """

    lease: float = 10.0
    """Seconds without a heartbeat after which another process may drain it."""

    @abstractmethod
    def lead(self) -> bool:
        """Become, or stay, the one that drains; false where another one does.

        Judged by heartbeats: an observer that saw none for `lease` seconds on its own monotonic
        clock takes over. No wall clock takes part.
        """

    @abstractmethod
    def leave(self) -> None:
        """Let another process drain it."""

    @abstractmethod
    def take(
        self, limit: int, *, but_lanes: Collection[str], but_rows: Collection[int]
    ) -> Sequence[HeldRow]:
        """Return the next rows in order, without those of some lanes and without some rows."""

    @abstractmethod
    def settle(self, settled: Sequence[Settled]) -> None:
        """Delete, keep, or dead-letter rows, in one transaction; nothing if it leads no more."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Tell whether nothing is held."""

    def category(self, exc: Exception) -> ErrorCategory | None:
        """Return the category of what was raised here, whose words are for the log then."""
        del exc
        return None

    def watched(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `wake` whenever something may have been put here by others, while it is entered.

        The default never does: it is looked every half second then.
        """
        del wake
        return nullcontext()


class Forwarder:
    """Takes rows from a source in order, hands them to a dispatcher, and settles by the answer.

    A row goes only once the dispatcher has it; it is repeated under the same id until then, with
    growing pauses, as long as it takes. While the backend is away one row at a time is tried.

    Args:
        source: The store.

        to: The dispatcher. Not owned, never closed.

        in_lanes: No row is handed over before an earlier one of its lane is settled.

        batch: Rows that are taken and settled together.

        never: Categories of what is never taken: it is dead, and not tried again.
    """

    def __init__(
        self,
        source: Source,
        to: BaseDispatcher,
        *,
        in_lanes: bool = True,
        batch: int = BATCH,
        never: Collection[ErrorCategory] = NEVER,
    ) -> None:
        self.source, self.to = source, to
        self._in_lanes, self._batch, self._never = in_lanes, batch, never
        self._begin_anew()
        renew_after_fork(self)

    def _begin_anew(self) -> None:
        self._lock, self._stepping = threading.RLock(), threading.Lock()
        self.moved = 0
        """Rows that the last step settled."""
        self._woken = threading.Event()
        self._put = self._back = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._pause = 0.0
        # Only as long as this process drains: another one tries every row at once.
        self._backoffs: dict[int, _Backoff] = {}

    def _after_fork(self) -> None:
        self._begin_anew()

    @property
    def is_pausing(self) -> bool:
        """True while the backend takes nothing, as far as this process knows."""
        return self._pause > 0

    # The thread.

    def start(self) -> None:
        """Hand over in the background until nothing is held; harmless while that is under way.

        Where no thread can be started the next call tries again, or a relay hands over.
        """
        with self._lock:
            if self._thread is None and not self._stopping:
                thread = threading.Thread(
                    target=self._run, name=f"dispatchers-forward-{self.to.alias}", daemon=True
                )
                # Before it runs, for it ends by taking itself out.
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError as exc:
                    # No more threads, or the interpreter ends: what was committed stays so.
                    self._thread = None
                    words = "no thread for what is held for %r: %s; a relay hands it over"
                    say_once(self, logging.WARNING, words, self.to.alias, exc)

    def wake(self) -> None:
        """Try now: something was put into the store, or the backend is back."""
        self._back = True
        self._woken.set()
        if self._thread is None:
            self.start()

    def notice(self) -> None:
        """Hand over what was put into the store, without trying a backend that is away sooner."""
        # First, for the thread may be about to end: it looks at this last.
        self._put = True
        self._noticed()
        if self._thread is None:
            self.start()

    def _noticed(self) -> None:
        if not self._pause:
            self._woken.set()

    def stop(self, timeout: float) -> None:
        """End the thread within `timeout` seconds; what is held stays held."""
        self._stopping = True
        self._woken.set()
        if (thread := self._thread) is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def run(self, stopping: Callable[[], bool], *, drain: bool = False) -> None:
        """Hand over in this thread until `stopping()` says so; with `drain`, until all is gone."""
        with self.source.watched(self._noticed):
            while not stopping():
                step = self._survived()
                if step is Step.EMPTY and drain:
                    break
                self._wait(step, stopping)
        self._left()

    def _run(self) -> None:
        empty_since: float | None = None
        while not self._stopping:
            self._put = False
            step = self._survived()
            empty_since = (empty_since or monotonic()) if step is Step.EMPTY else None
            if empty_since is not None and monotonic() - empty_since > LINGER and self._ends():
                return
            self._wait(step, self._is_stopping)
        self._left()

    def _is_stopping(self) -> bool:
        return self._stopping

    def _ends(self) -> bool:
        """End the thread, unless it was woken meanwhile."""
        with self._lock:
            if self._woken.is_set() or self._put:
                return False
            self._thread = None
        self._left()
        return True

    def _survived(self) -> Step:
        try:
            return self.step()
        except Exception as exc:  # noqa: BLE001 - anything a store raises
            words = "what is held for %r could not be handed over: %s"
            say_once(self, logging.ERROR, words, self.to.alias, self._words_of(exc))
            self._slow_down()
            return Step.WAITING

    def _words_of(self, exc: Exception) -> str:
        if isinstance(exc, RejectedError):
            return safe_text(exc, ())
        return without_secrets(described(exc, self.source.category(exc))[1], ())

    def _left(self) -> None:
        # Another thread of this process in the midst of a step: what it settles would be void, and
        # handed over again. It leaves the store when it ends.
        if not self._stepping.acquire(blocking=False):
            return
        try:
            self.source.leave()
        except Exception as exc:  # noqa: BLE001 - its lease runs out
            say(logging.WARNING, "a store of held work was left open: %s", type_name(exc))
        finally:
            self._stepping.release()

    def _wait(self, step: Step, stopping: Callable[[], bool]) -> None:
        """Wait until the next step is due, or until something wakes or stops it."""
        if step is Step.MOVED and not self._pause:
            return
        until = monotonic() + self._until_next(step)
        # In slices: a signal handler that stops it may take no lock, and so cannot wake it.
        while (left := until - monotonic()) > 0 and not stopping():
            if self._woken.wait(min(left, SLICE)):
                break
        self._woken.clear()

    def _until_next(self, step: Step) -> float:
        if step is Step.ELSEWHERE:
            return min(IDLE, self.source.lease / 3)
        if step is Step.EMPTY:
            return LINGER
        waits = (each.until for each in self._backoffs.values() if each.waits)
        due = min(waits, default=monotonic() + IDLE)
        return self._pause or min(max(0.0, due - monotonic()), IDLE)

    def leave(self) -> None:
        """Let another process drain the store, unless a thread of this one goes on with it."""
        if self._thread is None:
            self._left()

    # One step.

    def step(self) -> Step:
        """Take the next rows, hand them over and settle them; one row while the backend is away.

        Raises:
            Exception: What the source raised.
        """
        # One thread at a time: that of `start`, of `run`, or of a caller.
        if not self._stepping.acquire(blocking=False):
            return Step.ELSEWHERE
        try:
            return self._stepped()
        finally:
            self._stepping.release()

    def _stepped(self) -> Step:
        self.moved = 0
        if not self.source.lead():
            # Without a look a thread would wait for as long as another process drains, for nothing.
            return Step.EMPTY if self.source.is_empty() else Step.ELSEWHERE
        rows = self._taken()
        if not rows:
            return Step.EMPTY if self.source.is_empty() else Step.WAITING
        # A third of the lease: two renewals may fail before another process takes over.
        beat = Heartbeat(self.source.lead, self.source.lease / 3)
        with renewed(beat):
            settled = self._handed_over(rows, lambda: not beat.lost and not self._stopping)
        self.source.settle(settled)
        self._tell(settled)
        self.moved = sum(each.fate is not Fate.STAYS for each in settled)
        return Step.MOVED if self.moved else Step.WAITING

    def _taken(self) -> Sequence[HeldRow]:
        now, back, self._back = monotonic(), self._back, False
        for each in self._backoffs.values():
            if each.until <= now or (back and each.away):
                each.waits = False
        waiting = {seq: each for seq, each in self._backoffs.items() if each.waits}
        lanes = {each.lane for each in waiting.values()} if self._in_lanes else ()
        limit = 1 if self._pause else self._batch
        return self.source.take(limit, but_lanes=lanes, but_rows=() if lanes else waiting)

    def _handed_over(self, rows: Sequence[HeldRow], goes_on: Callable[[], bool]) -> list[Settled]:
        if not self._in_lanes:
            return self._round(rows) if goes_on() else []
        # All lanes together, up to the first row that stays; the rest has its turn after that.
        settled = self._round(rows, in_order=True) if self._batches_lanes and goes_on() else []
        if settled and _says_away(settled[-1]):
            return settled
        return settled + self._lane_by_lane(_after(rows, settled), goes_on)

    @property
    def _batches_lanes(self) -> bool:
        # What the backend goes on after must be what is settled for good here.
        return self.to.stops_at_failure and FINAL.issubset(self._never)

    def _lane_by_lane(self, rows: Sequence[HeldRow], goes_on: Callable[[], bool]) -> list[Settled]:
        settled: list[Settled] = []
        lanes: dict[str, deque[HeldRow]] = {}
        for row in rows:
            lanes.setdefault(row.lane, deque()).append(row)
        while lanes and goes_on():
            # The first of each lane together: a later one waits until it is settled.
            answered = self._round([lane.popleft() for lane in lanes.values()])
            settled += answered
            for each in answered:
                if each.fate is Fate.STAYS or not lanes[each.row.lane]:
                    del lanes[each.row.lane]
        return settled

    def _round(self, rows: Sequence[HeldRow], *, in_order: bool = False) -> list[Settled]:
        """Hand over rows together; in order, what comes after the first that stays is not tried."""
        read = [(row, _read(row)) for row in rows]
        readable = [(row, found) for row, found in read if isinstance(found, DispatchRequest)]
        settled = [Settled(row, Fate.DEAD, None, why) for row, why in read if isinstance(why, str)]
        if readable:
            requests = [request for _, request in readable]
            responses = self._dispatched(requests, in_order=in_order)
            for (row, request), response in zip(readable, responses, strict=True):
                settled.append(self._judged(row, request, response))
                if in_order and settled[-1].fate is Fate.STAYS:
                    break
            self._learn(settled)
        return settled

    def _dispatched(
        self, requests: Sequence[DispatchRequest], *, in_order: bool
    ) -> Sequence[DispatchResponse]:
        # Log and hooks hear of it once it is settled for good, not of each try.
        with hooks.inner(requests):
            if len(requests) == 1:
                return [self.to.dispatch(requests[0])]
            if in_order:
                return self.to._dispatch_in_order(requests)
            return self.to.dispatch_many(requests)

    def _judged(
        self, row: HeldRow, request: DispatchRequest, response: DispatchResponse
    ) -> Settled:
        fate = fate_of(response, never=self._never)
        if fate is Fate.STAYS:
            backoff = self._backoffs.setdefault(row.seq, _Backoff(row.lane))
            away = _is_away(response)
            backoff.again(self._longest_pause if away else LONGEST_BACKOFF, away=away)
        else:
            self._backoffs.pop(row.seq, None)
        return Settled(row, fate, request, reason_of(response), response)

    def _learn(self, answered: Sequence[Settled]) -> None:
        """Slow down where nothing was taken; go on at once where the backend is back."""
        if any(each.fate is Fate.GONE for each in answered):
            self._pause = 0.0
            for seq in [seq for seq, each in self._backoffs.items() if each.away]:
                if all(seq != each.row.seq for each in answered):
                    del self._backoffs[seq]
        elif any(each.fate is Fate.STAYS for each in answered):
            self._slow_down()

    def _slow_down(self) -> None:
        self._pause = min(max(FIRST_PAUSE, self._pause * 2), self._longest_pause)

    @property
    def _longest_pause(self) -> float:
        breaker = self.to._breaker
        return LONGEST_PAUSE if breaker is None else min(LONGEST_PAUSE, breaker.settings.reset)

    def _tell(self, settled: Sequence[Settled]) -> None:
        """Tell log and hooks the final answers."""
        final = [each for each in settled if each.fate is not Fate.STAYS]
        reporting.told_all([each.response for each in final if each.response is not None])
        for each in settled:
            if each.fate is Fate.DEAD and each.response is None:
                say(logging.ERROR, "held work %s can never be taken: %s", each.row.seq, each.why)


def fate_of(response: DispatchResponse, *, never: Collection[ErrorCategory] = NEVER) -> Fate:
    """Return what becomes of work that is kept in a store, by the answer to handing it over (F7).

    Args:
        response: The answer.

        never: Categories of what is never taken.
    """
    if (error := response.error) is None:
        return Fate.GONE
    certain = response.status is not DispatchStatus.UNKNOWN
    return Fate.DEAD if certain and error.category in never else Fate.STAYS


def reason_of(response: DispatchResponse) -> str:
    """Return why work was not taken, in one line; empty where it was."""
    error = response.error
    return "" if error is None else f"{response.status} ({error.category}): {error.message}"


def _is_away(response: DispatchResponse) -> bool:
    """Tell whether an answer says nothing of the work itself."""
    unknown = response.status is DispatchStatus.UNKNOWN
    return unknown or (response.error is not None and response.error.category in AWAY)


def _says_away(settled: Settled) -> bool:
    """Tell whether a row stays because the backend takes nothing for now."""
    response = settled.response
    return settled.fate is Fate.STAYS and response is not None and _is_away(response)


def _after(rows: Sequence[HeldRow], settled: Sequence[Settled]) -> list[HeldRow]:
    """Return the rows that have no answer yet, but those of lanes that are held back."""
    answered = {each.row.seq for each in settled}
    stuck = {each.row.lane for each in settled if each.fate is Fate.STAYS}
    return [row for row in rows if row.seq not in answered and row.lane not in stuck]


class _Backoff:
    """The wait of a row that is to be tried again."""

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self.tries = 0
        self.until = 0.0
        self.waits = True
        self.away = False
        """True where it says nothing of the row itself."""

    def again(self, longest: float, *, away: bool) -> None:
        """Wait once more, twice as long, but no more than `longest` seconds."""
        self.until = monotonic() + min(FIRST_PAUSE * 2**self.tries, longest)
        self.tries = min(self.tries + 1, 20)
        self.away, self.waits = away, True


def _read(row: HeldRow) -> DispatchRequest | str:
    """Return the request of a row, or why it is to become a dead letter."""
    if row.overdue is not None:
        return row.overdue
    try:
        request = decode(row.body)
    except EnvelopeError as exc:
        return str(exc)
    return request.replace(deduplicate=True) if row.deduplicate else request
