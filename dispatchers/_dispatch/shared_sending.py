"""Concurrent dispatches of one dispatcher, handed over together.

A caller that finds no other sending sends at once, by itself: a dispatch that is alone costs what
it would cost without this. Those that come meanwhile wait in a queue; the caller that is done wakes
the first of them, which sends all that has gathered, in one call. None waits for company.

Callers on event loops do not send: one thread of ours sends for all of them while there is
something, and wakes each loop once for all answers of one call. What makes messages should leave
a loop its time: the longer it takes there, the fewer messages gather for one call.

No lock is held while other code runs, so that a signal handler may dispatch, and a fork leaves
none locked. A call that hangs holds up the others for `LOOK` seconds: then the next one sends.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import get_ident
from time import monotonic, sleep
from typing import Any

from dispatchers._dispatch.error_mapping import AnswerError, out_of_time
from dispatchers._dispatch.protocol import Sent
from dispatchers._errors import RejectedError
from dispatchers._runtime.awaited_call import AwaitedCall
from dispatchers._runtime.fork import renew_after_fork
from dispatchers._runtime.guard import GuardTimeoutError
from dispatchers._runtime.loop_side import LoopSide
from dispatchers._runtime.loop_thread import Ended
from dispatchers._runtime.to_thread import SLACK, begun
from dispatchers._runtime.waiting import Waiting

LOOK = 0.05
"""Seconds after which a caller no longer waits for the call that is under way."""

THREADS = 8
"""Threads of ours that send for event loops; more than one only where one hangs."""

Send = Callable[[Sequence[Any], float], Sequence[Sent | Exception]]
"""Messages and seconds; one answer each."""


class GroupError(Exception):
    """A failed hand-over of several, as one of its callers gets it.

    Several threads cannot raise one exception, as each would write its traceback.

    Args:
        reason: What the client raised.

        counted: This caller tells the breaker of it, for all of them.
    """

    def __init__(self, reason: Exception, *, counted: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.counted = counted


class _Group:
    """Messages of one call, which is one success or failure to a breaker."""

    __slots__ = ("_uncounted",)

    def __init__(self) -> None:
        self._uncounted = [True]

    def count(self) -> bool:
        """Tell whether the caller counts; true once."""
        try:
            return self._uncounted.pop()
        except IndexError:
            return False


class _Place(Waiting):
    """One message in the queue, or under way."""

    __slots__ = ("answer", "call", "context", "group", "message", "priority", "until")

    def __init__(
        self, message: Any, until: float, priority: int, call: AwaitedCall[Sent] | None = None
    ) -> None:
        super().__init__()
        self.message = message
        self.until = until
        self.priority = priority
        self.call = call
        # A client's instrumentation then finds the caller of a dispatch that is alone.
        self.context = None if call is None else contextvars.copy_context()
        self.group: _Group | None = None
        self.answer: Sent | GroupError | None = None

    def result(self) -> Sent:
        """Return the answer, once there is one, or raise it."""
        if isinstance(self.answer, GroupError):
            raise self.answer
        assert self.answer is not None
        return self.answer

    def ended(self) -> Ended[Sent]:
        """Return the answer as a coroutine gets it."""
        if isinstance(self.answer, GroupError):
            return Ended(exception=self.answer)
        return Ended(self.answer)

    def overdue(self) -> GroupError:
        """Return the reason to give up: it is in the queue still, or under way."""
        if self.take():
            return GroupError(out_of_time(), counted=False)
        counted = self.group is not None and self.group.count()
        error = GuardTimeoutError("the call did not return within the deadline", started=True)
        return GroupError(error, counted=counted)


class SharedSending:
    """Hands over for the callers of one dispatcher, on threads and on event loops.

    Args:
        send: Hands over messages within so many seconds, one answer each.

        is_of_all: Whether what `send` raised is true of every message; else each is tried alone.

        size: Messages of one call at most.

        usual: The dispatcher's deadline, in seconds.
    """

    def __init__(
        self, send: Send, is_of_all: Callable[[Exception], bool], *, size: int, usual: float
    ) -> None:
        self._send, self._is_of_all, self._size = send, is_of_all, size
        # A caller with less time left would cut what the others have.
        self._short = usual / 2
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        self._waiting: deque[_Place] = deque()
        self._sending: dict[int, float] = {}
        """Threads of callers that send, and since when."""
        self._helping: dict[object, float] = {}
        """Threads of ours that send, and since when."""
        self._has_priorities = False

    def _after_fork(self) -> None:
        """Begin empty: what waits is the parent's, and so are the threads."""
        self._begin()

    # For threads.

    def send(self, message: Any, until: float, priority: int) -> Sent:
        """Hand over one message by `until`, on the monotonic clock.

        Raises:
            GroupError: It was handed over with others, and failed.

            Exception: It was alone, and failed.
        """
        me = get_ident()
        if me in self._sending:  # a signal handler, or the client's own code, within a call
            return self.alone(message, until)
        if self._sending or self._waiting:
            return self._together(_Place(message, until, priority), me)
        try:
            self._sending[me] = monotonic()
            return self.alone(message, until)
        finally:
            self._done(me)

    def alone(self, message: Any, until: float) -> Sent:
        """Hand over one message in a call of its own."""
        answer = self._send([message], until - monotonic())[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _done(self, me: int) -> None:
        """Stop sending, and wake the next."""
        self._sending.pop(me, None)
        if self._waiting:
            self._wake_next()

    def _wake_next(self) -> None:
        with suppress(IndexError):  # another thread took the last
            place = self._waiting[0]
            if place.call is None:
                place.wake()
            else:
                self._help()

    def _together(self, mine: _Place, me: int) -> Sent:
        self._waiting.append(mine)
        self._has_priorities = self._has_priorities or mine.priority != 0
        try:
            self._await(mine, me)
        finally:
            # Never sent by anyone once its caller is gone, as an exception of a signal's may be.
            mine.take()
            with suppress(ValueError):  # the caller that sent it has removed it
                self._waiting.remove(mine)
            # It may have been woken for others.
            if self._waiting and not self._sending:
                self._wake_next()
        return mine.result()

    def _await(self, mine: _Place, me: int) -> None:
        while mine.answer is None:
            now = monotonic()
            if mine.is_free and now < mine.until and not self._is_busy(now):
                self._lead(mine, me)
            elif (left := mine.until - now + (0.0 if mine.is_free else SLACK)) > 0:
                mine.sleep(min(left, LOOK))
            else:
                raise mine.overdue()

    def _is_busy(self, now: float) -> bool:
        """Tell whether a caller sends, and does not hang."""
        return any(now - since < LOOK for since in tuple(self._sending.values()))

    def _lead(self, mine: _Place, me: int) -> None:
        """Send what has gathered, one's own message among it."""
        try:
            self._sending[me] = monotonic()
            if mine.take():
                left = mine.until - monotonic()
                others = self._gathered(self._size - 1) if left > self._short else []
                self._send_group([mine, *others], mine.until)
        finally:
            self._done(me)

    # For event loops.

    def send_for(self, call: AwaitedCall[Sent], message: Any, until: float, priority: int) -> None:
        """Hand over one message by `until`; `call` is told how it ended.

        Raises:
            RejectedError: No thread can be started any more.
        """
        place = _Place(message, until, priority, call)
        self._waiting.append(place)
        self._has_priorities = self._has_priorities or priority != 0
        call.after(min(LOOK, until - monotonic()), lambda: self._look(call, place))
        try:
            # Last: the thread that wakes waits until this one lets go of the interpreter.
            self._help()
        except RejectedError:
            if place.take():
                with suppress(ValueError):
                    self._waiting.remove(place)
                raise

    def _look(self, call: AwaitedCall[Sent], place: _Place) -> None:
        """See that a message is sent, and give it up beyond its deadline; on its loop."""
        left = place.until - monotonic()
        if place.is_free and left > 0:
            with suppress(RejectedError):  # the deadline will say so
                self._help()
            call.after(min(LOOK, left), lambda: self._look(call, place))
        elif left > -SLACK and not place.is_free:
            # A client with its own timeout says more than "unknown": it gets a moment to do so.
            call.after(left + SLACK, lambda: self._look(call, place))
        else:
            call.end(Ended(exception=place.overdue()))

    def _help(self) -> None:
        """Start a thread that sends, unless one does and does not hang."""
        now, me = monotonic(), object()
        if self._helping and self._is_helped(now):
            return
        self._helping[me] = now
        try:
            begun(lambda: self._send_all(me))
        except BaseException:
            self._helping.pop(me, None)
            raise

    def _is_helped(self, now: float) -> bool:
        helping = tuple(self._helping.values())
        return any(now - since < LOOK for since in helping) or len(helping) >= THREADS

    def _send_all(self, me: object) -> None:
        """Send until nothing waits any more."""
        try:
            while True:
                while self._waiting:
                    self._helping[me] = monotonic()
                    if group := self._gathered(self._size):
                        self._send_group(group, max([place.until for place in group]))
                self._helping.pop(me, None)
                # Put there since it was looked at, by a caller that saw this thread at it.
                if self._helping or not self._waiting:
                    return
        finally:
            self._helping.pop(me, None)

    # For both.

    def _gathered(self, most: int) -> list[_Place]:
        """Take the next of the queue, in the order of arrival; the urgent first."""
        if not self._has_priorities:
            return self._taken(most)
        # Before the queue is looked at: one that comes meanwhile sets it again.
        self._has_priorities = False
        places = self._taken(len(self._waiting))
        places.sort(key=lambda place: -place.priority)
        for place in reversed(places[most:]):
            place.leave()
            self._waiting.appendleft(place)
            self._has_priorities = True
        return places[:most]

    def _taken(self, most: int) -> list[_Place]:
        taken: list[_Place] = []
        while self._waiting and len(taken) < most:
            try:
                place = self._waiting.popleft()
            except IndexError:  # another thread took the last
                break
            if place.take():
                taken.append(place)
        return taken

    def _send_group(self, places: list[_Place], until: float) -> None:
        group, context = _Group(), places[0].context
        if len(places) > 1:  # the urgent first, where the broker serves in the order of arrival
            places.sort(key=lambda place: -place.priority)
        for place in places:
            place.group = group
        answers: Sequence[Sent | Exception] = ()
        try:
            answers = (
                self._answers(places, until)
                if context is None
                else context.run(self._answers, places, until)
            )
        finally:
            _tell(places, group, answers or _cut_short(places))

    def _answers(self, places: list[_Place], until: float) -> Sequence[Sent | Exception]:
        try:
            answers = self._send([place.message for place in places], until - monotonic())
        except Exception as exc:  # noqa: BLE001 - C1: the answer of each
            if len(places) == 1 or self._is_of_all(exc):
                return [exc] * len(places)
            return [self._answer(place, until) for place in places]
        if len(answers) != len(places):
            wrong = AnswerError(f"{len(answers)} answers came to {len(places)} messages")
            return [wrong] * len(places)
        return answers

    def _answer(self, place: _Place, until: float) -> Sent | Exception:
        try:
            return self.alone(place.message, until)
        except Exception as exc:  # noqa: BLE001 - C1: the answer of this one
            return exc

    def drain(self, timeout: float) -> None:
        """Wait at most so many seconds until nothing waits or is under way."""
        until, me = monotonic() + timeout, get_ident()
        while (self._waiting or self._helping or self._sending.keys() - {me}) and (
            monotonic() < until
        ):
            sleep(0.005)


def _cut_short(places: list[_Place]) -> Sequence[Exception]:
    """Return the answers to a call that ended by what is no `Exception`: their work is in doubt."""
    return [AnswerError("the thread that handed it over was interrupted")] * len(places)


def _tell(places: list[_Place], group: _Group, answers: Sequence[Sent | Exception]) -> None:
    """Give each its answer, and wake each loop once."""
    failed: bool | None = None
    loops: dict[LoopSide, list[_Place]] = {}
    for place, answer in zip(places, answers, strict=True):
        if isinstance(answer, Exception):
            if failed is None:  # a backend that took one of them is alive
                failed = all(isinstance(each, Exception) for each in answers)
            place.answer = GroupError(answer, counted=failed and group.count())
        else:
            place.answer = answer
        if place.call is None:
            place.wake()
        else:
            loops.setdefault(place.call.side, []).append(place)
    for side, awaited in loops.items():
        try:
            side.post(_end_all, awaited)
        except RuntimeError:  # it is closed: only heirs are left to be told
            _end_without_loop(awaited)


def _end_all(places: list[_Place]) -> None:
    _say_to_all(places, AwaitedCall.end)


def _end_without_loop(places: list[_Place]) -> None:
    _say_to_all(places, AwaitedCall.end_without_loop)


def _say_to_all(
    places: list[_Place], say: Callable[[AwaitedCall[Sent], Ended[Sent]], object]
) -> None:
    rest = iter(places)
    try:
        for place in rest:
            if place.call is not None:
                say(place.call, place.ended())
    finally:
        # What one caller's hook raises, or a signal's handler, holds up none of the others.
        if left := list(rest):
            _say_to_all(left, say)
