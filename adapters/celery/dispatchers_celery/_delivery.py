"""A message in the hands of a worker: run by the core, settled in the words Celery knows."""

from __future__ import annotations

import pickle
import re
import signal
import time
from time import monotonic
from typing import Any

from celery.exceptions import (
    Ignore,
    Reject,
    SoftTimeLimitExceeded,
    TaskPredicate,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
    WorkerShutdown,
    WorkerTerminate,
)
from celery.exceptions import Retry as CeleryRetry

from dispatchers import (
    Action,
    DeadLetter,
    Outcome,
    catalogue,
    run_envelope,
    run_settings,
)
from dispatchers.delivery import Delivery, DeliveryCount, interrupted, process
from dispatchers.native import former_envelope

from ._dispatcher import CeleryDispatcher
from ._message import Received, again
from ._shutdown import shutdown

__all__ = ["TaskFailedError", "run", "run_here"]

RETRY_DELAY = 1.0
"""Seconds before a delivery goes back that could not be settled: no hot loop."""
MAX_EARLY = 1.0
"""Seconds that work may come too soon, as clocks differ, without being held back again."""
REQUEST_ID = re.compile(r"[\w-]{1,64}")
"""Ids that an envelope takes; Celery's are UUIDs, unless a caller chose one."""
COMMANDS = (TaskPredicate, WorkerLostError, TimeLimitExceeded, Terminated, MemoryError)
"""Exceptions that Celery takes for its own: to put the message back, or to end the worker."""


class TaskFailedError(Exception):
    """The work failed, for a reason other than an exception that Celery can be told."""


class CeleryDelivery(Delivery):
    """A delivery whose steps Celery takes when the task function returns or raises.

    Args:
        received: The message.

        dispatcher: Publishes what follows from its run.
    """

    def __init__(self, received: Received, dispatcher: CeleryDispatcher) -> None:
        self.id = str(received.context.id)
        self.task = received.task
        self.queue = received.queue
        self.attempt = received.counts.attempt
        self.deliveries = received.counts.deliveries
        self.raised: BaseException | None = None
        """The exception by which the task function tells Celery how to settle the message."""
        self._received = received
        self._publisher = dispatcher.publisher
        self._broker = dispatcher.broker
        self._timeout = dispatcher.options.deadline

    def publish(self, counts: DeliveryCount) -> None:
        """Publish the same work once more, and see it confirmed."""
        draft = again(self._broker, self._received, counts)
        answer = self._publisher.publish([draft], monotonic() + self._timeout)[0]
        if isinstance(answer, Exception):
            raise answer

    def complete(self, outcome: Outcome) -> None:
        """Let the task function return."""

    def retry(self, outcome: Outcome) -> None:
        """Publish the next attempt, then have this one acknowledged as Celery's retry."""
        self.publish(self._received.counts.next_attempt(outcome))
        # Celery's own exception: its state, events and signals show a retry then.
        self.raised = CeleryRetry(message=outcome.reason.value, when=outcome.after)

    def give_back(self, after: float) -> None:
        """Publish the same attempt for later, then have this message acknowledged."""
        self.publish(self._received.counts.held_back(after))
        self.raised = Ignore()

    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        """Let the task function raise: Celery's state, and the queue's dead-letter exchange."""
        self.raised = _told(outcome)

    def abandon(self) -> None:
        """Have the message put back as it is."""
        time.sleep(RETRY_DELAY)
        self.raised = Reject(reason="it could not be settled", requeue=True)

    def hold(self, counts: DeliveryCount) -> None:
        """Put a copy in the message's place, and run nothing."""
        try:
            self.publish(counts)
        except Exception:  # noqa: BLE001 - whatever a client raises (C9)
            self.abandon()
        else:
            self.raised = Ignore()


def _told(outcome: Outcome) -> Exception:
    """Return the handler's exception, or another one where Celery would not settle the message."""
    exc = outcome.exception
    if isinstance(exc, Exception) and not isinstance(exc, COMMANDS) and _can_be_pickled(exc):
        return exc
    told = TaskFailedError(outcome.reason.value)
    told.__cause__ = exc
    return told


def _can_be_pickled(exc: Exception) -> bool:
    """Tell whether a pool's child can pass it on: where its parent cannot read it, that ends."""
    try:
        pickle.loads(pickle.dumps(exc))  # noqa: S301 - made here
    except Exception:  # noqa: BLE001 - whatever its own methods raise
        return False
    return True


def run(received: Received, dispatcher: CeleryDispatcher) -> Any:
    """Run a message and see to what follows; raises what Celery is to be told.

    Returns:
        The result of the handler, for a result backend or a chain.
    """
    counts = received.counts
    delivery = CeleryDelivery(received, dispatcher)
    result = None
    if counts.wait > MAX_EARLY:
        delivery.hold(counts)
    elif received.is_uncounted:  # a copy with the number takes its place
        delivery.hold(counts._replace(deliveries=counts.deliveries + 1))
    else:
        delivery.body = _envelope(received)
        outcome = _processed(delivery, dispatcher, counts)
        # Only former messages: their callers may wait for a result, ours have `ignore_result` set.
        result = None if received.is_ours or outcome is None else outcome.result
    if delivery.raised is not None:
        raise delivery.raised
    return result


def _processed(
    delivery: CeleryDelivery, dispatcher: CeleryDispatcher, counts: DeliveryCount
) -> Outcome | None:
    """Run a delivery and settle it; None if the handler meant to end its process, and is repeated.

    Celery's pools would drop such a message, or keep it unsettled and starve: 5.7, `apply_target`.
    """
    in_child = shutdown.is_in_child()
    if in_child:
        signal.signal(signal.SIGUSR1, _on_time_limit)
    try:
        return process(
            delivery,
            run_settings(dispatcher.options, interrupts=in_child),
            letters=dispatcher.letters,
            stopping=shutdown.has_begun,
        )
    except (GeneratorExit, KeyboardInterrupt, SystemExit) as exc:
        if isinstance(exc, WorkerShutdown | WorkerTerminate) or _ends_its_process(exc):
            raise
        delivery.hold(counts._replace(deliveries=counts.deliveries + 1))
        return None


def _on_time_limit(number: int, frame: object) -> None:
    """Interrupt a run as billiard's own handler does, and tell it: Celery's clock began earlier."""
    del number, frame
    interrupted()
    raise SoftTimeLimitExceeded


def _ends_its_process(exc: BaseException) -> bool:
    """Tell whether the pool ends the process that ran it, and has the message delivered again."""
    return shutdown.is_in_child() and not isinstance(exc, GeneratorExit)


def run_here(received: Received, dispatcher: CeleryDispatcher) -> Any:
    """Run it in the call, as `apply` and an eager application ask for: nothing is published.

    Returns:
        The result of the handler.

    Raises:
        Exception: The handler's, after the last attempt.
    """
    body, settings = _envelope(received), run_settings(dispatcher.options)
    outcome = run_envelope(body, settings=settings)
    while outcome.action is Action.RETRY:  # at once, as Celery does with its own
        outcome = run_envelope(body, attempt=outcome.attempt + 1, settings=settings)
    if not outcome.ok:
        raise outcome.exception or TaskFailedError(outcome.reason.value)
    return outcome.result


def _envelope(received: Received) -> bytes:
    """Return the envelope of a message, or make that of a converted task's former message."""
    if received.is_ours:
        return str(received.args[0]).encode() if received.args else b""
    number = str(received.context.id or "")  # a function that is called has none
    try:
        return former_envelope(
            catalogue.get(received.task),
            received.args,
            received.kwargs,
            id=number if REQUEST_ID.fullmatch(number) else "",
        )
    except (LookupError, ValueError) as exc:  # the core dead-letters what is not an envelope
        return f"{type(exc).__name__}: the arguments fit neither JSON nor the task".encode()
