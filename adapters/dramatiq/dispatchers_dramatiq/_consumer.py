"""Dramatiq's consumers, with messages for our tasks counted, held back, and settled safely.

Dramatiq settles a message over whatever connection its queue has by then, moves delayed messages
by a publish that is not confirmed, dead-letters what it has no actor for, and ends a thread over a
message whose fields are not its own. `TaskConsumer` stands between its threads and its consumer,
and does these four things.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from dramatiq import Consumer

from dispatchers.delivery import say

from ._broker import expect
from ._context import Context
from ._message import BODY, HIDDEN, Packet, Received, is_ours, is_sound

RUNNER = "dispatchers.run"
"""The actor for work whose own name no actor of ours has; the core says what becomes of it."""
RETRY_DELAY = 1.0
"""Seconds until what could not be published is tried again."""
BATCH_SIZE = 100
"""Delayed messages that are moved together."""


class Unsettled:
    """Messages that a consumer received and has not settled."""

    def __init__(self) -> None:
        self.held: set[object] = set()
        """The broker's names of these messages."""
        self.delayed: list[tuple[float, int, Any]] = []
        """A heap of messages that wait, by the moment at which to look at them."""
        self.kept: list[Any] = []
        """Messages that came when the worker was stopping already."""


class TaskConsumer(Consumer):
    """A consumer of one queue.

    Args:
        inner: Dramatiq's.

        name: The name of the queue.

        context: Shared with the other consumers.

        unsettled: What an earlier consumer left, where that is still ours.
    """

    private_parts: tuple[str, ...] = ()
    """What is used of Dramatiq's consumer."""

    def __init__(
        self, inner: Any, name: str, context: Context, unsettled: Unsettled | None = None
    ) -> None:
        expect(inner, self.private_parts)
        self.inner = inner
        self.name = name
        self.unsettled = Unsettled() if unsettled is None else unsettled
        self.context = context
        self._counter = itertools.count()

    # What Dramatiq's threads call.

    def __next__(self) -> Any:
        self._move_due()
        message = self._taken()
        if message is None:
            return None
        # Marks which connection it came over: settled over another, its tag would mean another one.
        message.unsettled = self.unsettled
        message.received = None
        message.back = False  # asked later: a proxy takes long to say that it has no such attribute
        # Before anything can fail: what is not noted here looks lost, and is delivered again.
        self.unsettled.held.add(self._key(message))
        if not is_sound(message, self.name):
            self._set_aside(message)
            return None
        if self._is_run(message):
            message = self._admitted(message)
        if message is None or not self.context.stopping.is_set():
            return message
        self.unsettled.kept.append(message)
        return None

    def ack(self, message: Any) -> None:
        """Settle it as done."""
        self._settle(message, self.inner.ack)

    def nack(self, message: Any) -> None:
        """Settle it as failed, for the queue of dead letters."""
        self._settle(message, self.inner.nack)

    def requeue(self, messages: Iterable[Any]) -> None:
        """Give back what was not begun: the worker stops."""
        kept, self.unsettled.kept = self.unsettled.kept, []
        for message in (*messages, *kept):
            if getattr(message, "unsettled", None) is self.unsettled:
                self._return(message)

    def close(self) -> None:
        """End the connection; what runs beyond the grace of its worker is given back first."""
        if self.context.is_over:
            running = list(self.context.running.values())
            self.requeue(running)
            for message in running:
                message.unsettled = None  # its run settles nothing any more
        self.inner.close()

    # What is done for messages of our tasks.

    def _taken(self) -> Any:
        return next(self.inner)

    def _is_run(self, message: Any) -> bool:
        """Tell whether it is a run of one of our tasks: ours, or of an actor converted to one."""
        return is_ours(message) or message.actor_name in self.context.actors

    def _set_aside(self, message: Any) -> None:
        """Dead-letter what another program wrote here, so that work goes on."""
        say(logging.ERROR, "queue %r holds a message that is not Dramatiq's: set aside", self.name)
        self.nack(message)

    def _admitted(self, message: Any) -> Any:
        """Return a message for the worker; None if it is not for now."""
        message.received = received = Received.read(message, self._earlier(message))
        if received.body is not None:
            message.options[BODY] = HIDDEN  # what middleware keeps of a message has no payload
        if "eta" in message.options:
            hold = time.time() + self.context.dispatcher().broker.max_hold
            self._put_by(message, min(received.counts.due, hold))
            return None
        if message.actor_name not in self.context.actors:
            message._message = message._message.copy(actor_name=RUNNER)
        return message

    def _earlier(self, message: Any) -> int:
        """Return how often it was delivered before, as far as the broker knows."""
        del message
        return 0

    def _put_by(self, message: Any, moment: float) -> None:
        # The counter decides between equal moments: messages themselves cannot be compared.
        heapq.heappush(self.unsettled.delayed, (moment, next(self._counter), message))

    def _move_due(self) -> None:
        """Publish what is due to where it is run; what that fails for is tried again later."""
        due: list[Any] = []
        now = time.time()
        delayed = self.unsettled.delayed
        while delayed and delayed[0][0] <= now and len(due) < BATCH_SIZE:
            due.append(heapq.heappop(delayed)[2])
        if not due:
            return
        # Confirmed before the delayed one is acknowledged: a crash in between repeats it (C9).
        answers = self.context.publish([self._again(message) for message in due])
        for message, answer in zip(due, answers, strict=True):
            if answer is None:
                self.ack(message)
            else:
                self._put_by(message, now + RETRY_DELAY)

    def _again(self, message: Any) -> Packet:
        received: Received = message.received
        return received.packet(self.context.dispatcher().broker.dramatiq, received.counts)

    def _settle(self, message: Any, settle: Callable[[Any], None]) -> None:
        """Settle it unless its connection is gone: then the broker delivers it again."""
        if getattr(message, "unsettled", None) is not self.unsettled:
            return
        if getattr(message, "back", False):
            self._give_back(message)
        else:
            settle(message)
        self.unsettled.held.discard(self._key(message))

    def _give_back(self, message: Any) -> None:
        """Return to the broker what was begun and is to be delivered again."""
        raise NotImplementedError

    def _return(self, message: Any) -> None:
        """Return to the broker what was not begun; it does not count as a delivery."""
        raise NotImplementedError

    def _key(self, message: Any) -> object:
        return id(message)


class RabbitConsumer(TaskConsumer):
    """A consumer on RabbitMQ, which flags what it delivers again, and does not count."""

    private_parts = ("connection", "channel", "known_tags")

    def _admitted(self, message: Any) -> Any:
        flagged = message.redelivered and "eta" not in message.options
        admitted = super()._admitted(message)
        if flagged and self._replaced(message):
            return None
        return admitted  # if it could not be published, the count goes no further than this run

    def _earlier(self, message: Any) -> int:
        return 1 if message.redelivered and "eta" not in message.options else 0

    def _replaced(self, message: Any) -> bool:
        """Put a copy that carries the count in its place."""
        if self.context.publish([self._again(message)])[0] is not None:
            return False
        self.ack(message)
        return True

    def requeue(self, messages: Iterable[Any]) -> None:
        """Give back what was not begun, after cancelling: a copy would come back, flagged."""
        with contextlib.suppress(Exception):  # it is gone: all that it had is given to others
            self.inner.channel.cancel()
        super().requeue(messages)

    def _return(self, message: Any) -> None:
        if message.received is not None:  # else the end of the connection gives it back
            self._replaced(message)

    def _give_back(self, message: Any) -> None:
        inner, tag = self.inner, message._tag
        # Settled here: Dramatiq settles only the tags that it still knows.
        inner.known_tags.discard(tag)
        try:
            # pika's connections belong to the thread that consumes; a run is on another.
            inner.connection.add_callback_threadsafe(
                lambda: inner.channel.basic_nack(tag, requeue=True)
            )
        except Exception as exc:  # noqa: BLE001 - the connection is gone, and it is back already
            say(logging.DEBUG, "a delivery went back with its connection: %s", type(exc).__name__)


class StubConsumer(TaskConsumer):
    """A consumer of queues in this process."""

    private_parts = ("queue",)

    def _give_back(self, message: Any) -> None:
        self._return(message)

    def _return(self, message: Any) -> None:
        data = message.encode() if message.received is None else self._again(message).data
        self.inner.queue.put(data)
        self.inner.ack(message)

    def close(self) -> None:
        """Give back what waits."""
        while self.unsettled.delayed:
            self._return(heapq.heappop(self.unsettled.delayed)[2])
        super().close()
