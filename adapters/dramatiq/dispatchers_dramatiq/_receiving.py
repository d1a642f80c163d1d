"""Dramatiq's consumers, with our messages seen to: counted, held back, settled where they are.

Dramatiq settles a message with whatever connection its queue has by then, moves delayed messages
by a publish that nobody confirms, and dead-letters what it has no actor for. `Receiving` stands
between its threads and its consumer, and does these three things for messages of ours.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dramatiq import Consumer

from ._message import BODY, Packet, Received, Sealed, is_ours

if TYPE_CHECKING:
    from ._dispatcher import DramatiqDispatcher

__all__ = ["RUNNER", "Line", "RabbitReceiving", "Receiving", "Source", "StubReceiving"]

log = logging.getLogger("dispatchers")
RUNNER = "dispatchers.run"
"""The actor for work whose own name no actor of ours has; the core says what becomes of it."""
PAUSE = 1.0
"""Seconds until what could not be published is tried again."""
AT_ONCE = 100
"""Delayed messages that are moved together."""
Source = Callable[[], "DramatiqDispatcher"]


class Line:
    """What a consumer was given and has not settled."""

    def __init__(self) -> None:
        self.held: set[object] = set()
        """The broker's names of unsettled messages."""
        self.delayed: list[tuple[float, int, Any]] = []
        """A heap of messages that wait, by the moment at which to look at them."""
        self.kept: list[Any] = []
        """What came when the worker was stopping already; it is not begun."""


class Receiving(Consumer):
    """A consumer of one queue.

    Args:
        inner: Dramatiq's.

        source: Gives the dispatcher through which messages are published.

        actors: The names of our actors.

        hold: Seconds that a message may wait unsettled.

        stopping: Whether the worker is being stopped.

        line: What an earlier consumer left, where that is still ours.
    """

    def __init__(
        self,
        inner: Any,
        source: Source,
        actors: set[str],
        hold: float,
        stopping: Callable[[], bool],
        line: Line | None = None,
    ) -> None:
        self.inner = inner
        self.line = Line() if line is None else line
        self._source = source
        self._actors = actors
        self._hold = hold
        self._stopping = stopping
        self._counter = itertools.count()

    # What Dramatiq's threads call.

    def __next__(self) -> Any:
        self._move()
        message = self._taken()
        if message is None:
            return None
        message.line = self.line
        message.received = None
        self.line.held.add(self._key(message))
        if is_ours(message):
            message = self._admitted(message)
        if message is None or not self._stopping():
            return message
        self.line.kept.append(message)
        return None

    def ack(self, message: Any) -> None:
        """It is done."""
        self._settle(message, self.inner.ack)

    def nack(self, message: Any) -> None:
        """It has failed for good: to the queue of dead letters."""
        self._settle(message, self.inner.nack)

    def requeue(self, messages: Iterable[Any]) -> None:
        """The worker stops: these were not begun."""
        kept, self.line.kept = self.line.kept, []
        for message in (*messages, *kept):
            if getattr(message, "line", None) is self.line:
                self._return(message)

    def close(self) -> None:
        """The connection's end."""
        self.inner.close()

    # What is done for messages of ours.

    def _taken(self) -> Any:
        return next(self.inner)

    def _admitted(self, message: Any) -> Any:
        """A message of ours for the worker; None if it is not for now."""
        received = Received.read(message, self._earlier(message))
        message.received = received
        message.options[BODY] = Sealed(received.body)
        if "eta" in message.options:
            self._put_by(message, min(received.due, time.time() + self._hold))
            return None
        if message.actor_name not in self._actors:
            message._message = message._message.copy(actor_name=RUNNER)
        return message

    def _earlier(self, message: Any) -> int:
        """How often it was delivered before, as far as the broker knows."""
        del message
        return 0

    def _put_by(self, message: Any, moment: float) -> None:
        heapq.heappush(self.line.delayed, (moment, next(self._counter), message))

    def _move(self) -> None:
        """Publish what is due to where it is run; what that fails for is tried again later."""
        due: list[Any] = []
        now = time.time()
        while self.line.delayed and self.line.delayed[0][0] <= now and len(due) < AT_ONCE:
            due.append(heapq.heappop(self.line.delayed)[2])
        if not due:
            return
        answers = self._published([message.received.packet() for message in due])
        for message, answer in zip(due, answers, strict=True):
            if answer is None:
                self.ack(message)
            else:
                self._put_by(message, now + PAUSE)

    def _published(self, packets: Sequence[Packet]) -> Sequence[Exception | None]:
        try:
            answers = self._source().publish(packets)
        except Exception as exc:  # noqa: BLE001 - a worker that is configured wrongly
            answers = [exc] * len(packets)
        if failed := [type(each).__name__ for each in answers if each is not None]:
            log.error("%d messages could not be published: %s", len(failed), failed[0])
        return answers

    def _settle(self, message: Any, settle: Callable[[Any], None]) -> None:
        if getattr(message, "line", None) is not self.line:
            return  # of a connection that is gone: the broker has given it to somebody already
        if getattr(message, "back", False):
            self._give_back(message)
        else:
            settle(message)
        self.line.held.discard(self._key(message))

    # What the brokers differ in.

    def _key(self, message: Any) -> object:
        return id(message)

    def _give_back(self, message: Any) -> None:
        """Unsettled, for another delivery."""
        raise NotImplementedError

    def _return(self, message: Any) -> None:
        """To its queue, as if it had not been delivered."""
        raise NotImplementedError


class RabbitReceiving(Receiving):
    """RabbitMQ flags what it delivers again, and does not count."""

    def _admitted(self, message: Any) -> Any:
        flagged = message.redelivered and "eta" not in message.options
        admitted = super()._admitted(message)
        if not flagged:
            return admitted
        if self._replaced(message):
            return None
        return admitted  # it could not be published: the count goes no further than this run

    def _earlier(self, message: Any) -> int:
        return 1 if message.redelivered and "eta" not in message.options else 0

    def _replaced(self, message: Any) -> bool:
        """A copy that carries the count takes its place."""
        if self._published([message.received.packet()])[0] is not None:
            return False
        self.ack(message)
        return True

    def requeue(self, messages: Iterable[Any]) -> None:
        """Nothing more is wanted: a copy would come back to this connection, and be flagged."""
        with contextlib.suppress(Exception):  # it is gone: all that it had is given to others
            self.inner.channel.cancel()
        super().requeue(messages)

    def _return(self, message: Any) -> None:
        if message.received is not None:  # else the end of the connection gives it back
            self._replaced(message)

    def _give_back(self, message: Any) -> None:
        inner = self.inner
        tag = message._tag
        inner.known_tags.discard(tag)
        try:
            inner.connection.add_callback_threadsafe(
                lambda: inner.channel.basic_nack(tag, requeue=True)
            )
        except Exception as exc:  # noqa: BLE001 - the connection is gone, and it is back already
            log.debug("a delivery went back with its connection: %s", type(exc).__name__)


class StubReceiving(Receiving):
    """Queues in this process."""

    def _give_back(self, message: Any) -> None:
        self._return(message)

    def _return(self, message: Any) -> None:
        received = message.received
        data = message.encode() if received is None else received.packet().data
        self.inner.queue.put(data)
        self.inner.ack(message)

    def close(self) -> None:
        """What waits goes back."""
        while self.line.delayed:
            self._return(heapq.heappop(self.line.delayed)[2])
        super().close()
