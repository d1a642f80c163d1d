"""Running and settling one message, whose delivery Dramatiq settles when the actor returns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from dramatiq.middleware import SkipMessage, TimeLimit

from dispatchers import Action, DeadLetter, Outcome, run_envelope, run_settings
from dispatchers.delivery import Delivery, DeliveryCount, settle

from ._consumer import RETRY_DELAY
from ._dispatcher import DramatiqDispatcher
from ._errors import TaskFailedError
from ._message import Received


class MessageDelivery(Delivery):
    """A message in a worker's thread.

    Args:
        message: Dramatiq's.

        dispatcher: The one that publishes what follows.

    Raises:
        ConfigurationError: A store of the dispatcher's cannot be opened.
    """

    def __init__(self, message: Any, dispatcher: DramatiqDispatcher) -> None:
        received: Received = message.received
        middleware = dispatcher.broker.dramatiq.middleware
        self.limits = [each for each in middleware if isinstance(each, TimeLimit)]
        """The middleware that interrupts runs."""
        self.settings = run_settings(dispatcher.options, interrupts=bool(self.limits))
        self.letters = dispatcher.letters
        self.body = _body(received)
        self.id, self.task, self.queue = received.id, received.task, received.queue
        self.attempt, self.deliveries = received.counts.attempt, received.counts.deliveries
        self.failure: Exception | None = None
        """Raised into Dramatiq when the delivery is settled, for its own tools."""
        self.is_former = received.body is None
        """It is of the task's former life, and a result may be waited for."""
        self._message, self._received, self._dispatcher = message, received, dispatcher

    def refuse_late(self) -> None:
        """Leave the message to another worker, if the grace of this one is over.

        Raises:
            SkipMessage: It was given back while it ran.
        """
        if self._message.unsettled is None:
            raise skipped(self._message, "it is given back")

    def complete(self, outcome: Outcome) -> None:
        """Leave it to Dramatiq, which acknowledges when its actor returns."""

    def retry(self, outcome: Outcome) -> None:
        """Publish the next attempt; this one is acknowledged afterwards."""
        self._follow(self._received.counts.next_attempt(outcome))

    def give_back(self, after: float) -> None:
        """Publish the same attempt; this one is acknowledged afterwards."""
        self._follow(self._received.counts.held_back(after))

    def _follow(self, counts: DeliveryCount) -> None:
        dispatcher = self._dispatcher
        packet = self._received.packet(dispatcher.broker.dramatiq, counts)
        answer = dispatcher.publisher.publish([packet], dispatcher.options.deadline)[0]
        if answer is not None:
            raise answer
        self._skip("another attempt follows")

    def _skip(self, reason: str) -> None:
        if self.is_former:  # nothing that waits for a result may take this for one
            self.failure = skipped(self._message, reason)

    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        """Have Dramatiq reject it, to its own queue of dead letters as well."""
        del letter
        # Dramatiq's own mark, by which its consumer rejects instead of acknowledging.
        self._message.fail()
        exc = outcome.exception
        self.failure = exc if isinstance(exc, Exception) else TaskFailedError(outcome.reason.value)
        # Dramatiq's middleware handles only `Exception`; what the task raised stays visible.
        if exc is not self.failure:
            self.failure.__cause__ = exc

    def abandon(self) -> None:
        """Have the consumer give it back to the broker."""
        self._message.back = True
        self._skip("it is given back")


def skipped(message: Any, reason: str) -> SkipMessage:
    """Return what makes Dramatiq take no result from a delivery, and start nothing after it."""
    # Its middleware would store None as the result of what is skipped: Dramatiq 2.2.
    message._message = message._message.copy(options={"store_results": False})
    return SkipMessage(reason)


def _body(received: Received) -> bytes:
    try:
        return received.envelope()
    except (ValueError, LookupError):  # arguments that JSON cannot carry, a task that is gone
        return b""  # which the core calls malformed


def perform(delivery: MessageDelivery, stopping: Callable[[], bool]) -> Any:
    """Run a message and settle it; return the result of a former actor's task.

    Raises:
        Exception: The work failed permanently; Dramatiq's middleware and tools see why.
    """
    try:
        outcome = run_envelope(
            delivery.body,
            attempt=delivery.attempt,
            deliveries=delivery.deliveries,
            settings=delivery.settings,
            stopping=stopping,
        )
    except BaseException:  # the thread or the process ends: it is run again
        delivery.abandon()
        raise
    delivery.refuse_late()
    for each in delivery.limits:  # the run is over: its settlement is not interrupted
        each.manager.remove_timeout(threading.get_ident())
    if not settle(delivery, outcome, delivery.letters):
        time.sleep(RETRY_DELAY)  # no hot loop
    if delivery.failure is not None:
        raise delivery.failure
    former = delivery.is_former and outcome.action is Action.DONE
    return getattr(outcome, "result", None) if former else None
