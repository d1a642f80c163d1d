"""Settling a delivery after its run, in the order that loses nothing (C9).

What follows from a run is confirmed first: the dead letter is stored, or the next attempt is
published. Only then is the delivery settled; where either fails, it is given back.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable

from dispatchers._dispatch.error_mapping import type_name
from dispatchers._models.dead_letter import DeadLetter, DeadLetterStore
from dispatchers._models.outcome import Action, Outcome
from dispatchers._runtime.heartbeat import Heartbeat
from dispatchers._runtime.log import say, say_once
from dispatchers._runtime.to_thread import off_loop
from dispatchers._worker.run import DEFAULTS, RunSettings
from dispatchers._worker.runner import arun_envelope, run_envelope

__all__ = ["RETRY_DELAY", "Delivery", "aprocess", "process", "settle"]

RETRY_DELAY = 5.0
"""Seconds before work comes back whose settlement failed."""

HOLD_SHARE = 0.9
"""The part of the redelivery window that a worker may hold a message unsettled."""


class Delivery(ABC):
    """One message in the hands of a worker, and the ways to settle it.

    An adapter derives from it, one object per message. A step that cannot be confirmed raises any
    `Exception`, and `abandon` follows. What a transport wants raised (Celery's `Reject`, say) is
    kept by the object and raised by the adapter after `process` has returned.
    """

    body: bytes
    """The envelope."""
    id: str
    """The transport's id, for a message that turns out to be no envelope."""
    task: str = ""
    """The name it came under."""
    queue: str = ""
    """The queue it came from."""
    attempt: int = 1
    """The attempt that a run of it is, from 1."""
    deliveries: int = 1
    """How often this attempt was handed to a worker, this time included."""

    @abstractmethod
    def complete(self, outcome: Outcome) -> None:
        """Settle it: nothing is left to do."""

    @abstractmethod
    def retry(self, outcome: Outcome) -> None:
        """Publish attempt `outcome.attempt + 1`, due in `outcome.after` seconds, then settle this.

        The new message is confirmed before this delivery is settled; its deliveries count from 1.
        """

    @abstractmethod
    def give_back(self, after: float) -> None:
        """Let the same attempt come again in `after` seconds; neither attempt nor delivery counts.

        Args:
            after: Seconds, 0 for at once.
        """

    @abstractmethod
    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        """Settle it as failed. The dead-letter store, if there is one, has the letter.

        Args:
            outcome: The outcome of the run.

            letter: For a transport that keeps dead letters itself.
        """

    def abandon(self) -> None:
        """Give it back without publishing: a step before has failed, or its worker ends."""
        self.give_back(RETRY_DELAY)

    def letter(self, outcome: Outcome) -> DeadLetter:
        """Return the dead letter of a run that ended so."""
        return DeadLetter.of(
            outcome,
            self.body,
            id=outcome.request_id or self.id,
            task=self.task,
            queue=self.queue,
            deliveries=self.deliveries,
        )


def process(
    delivery: Delivery,
    settings: RunSettings = DEFAULTS,
    *,
    letters: DeadLetterStore | None = None,
    heartbeat: Heartbeat | None = None,
    stopping: Callable[[], bool] | None = None,
) -> Outcome:
    """Run a delivery and settle it. Raises no `Exception`.

    Args:
        delivery: The message.

        settings: The settings of runs, as `run_settings(options)` gives them.

        letters: The store of dead letters; None leaves them to `Delivery.dead_letter`.

        heartbeat: Renews the transport's lease while the handler runs.

        stopping: Tells that the worker is shutting down.

    Returns:
        The outcome, which has been followed or, where that failed, given back.
    """
    try:
        outcome = run_envelope(
            delivery.body,
            attempt=delivery.attempt,
            deliveries=delivery.deliveries,
            heartbeat=heartbeat,
            settings=settings,
            stopping=stopping,
        )
    except BaseException:
        _abandon(delivery)  # the worker itself ends, and its death would do the same
        raise
    settle(delivery, outcome, letters)
    return outcome


async def aprocess(
    delivery: Delivery,
    settings: RunSettings = DEFAULTS,
    *,
    letters: DeadLetterStore | None = None,
    heartbeat: Heartbeat | None = None,
    stopping: Callable[[], bool] | None = None,
) -> Outcome:
    """Run a delivery on the event loop and settle it there; a dead letter is stored on a thread."""
    # A second body, as `arun_envelope` is: what they share is one call each, and a synchronous
    # worker would pay for a coroutine, or for a closure, at every delivery.
    try:
        outcome = await arun_envelope(
            delivery.body,
            attempt=delivery.attempt,
            deliveries=delivery.deliveries,
            heartbeat=heartbeat,
            settings=settings,
            stopping=stopping,
        )
    except BaseException:
        _abandon(delivery)
        raise
    # Only then: a store is synchronous and may block, while a delivery is settled on its own loop.
    if letters is not None and outcome.action is Action.DEAD:
        await off_loop(settle, delivery, outcome, letters)
    else:
        settle(delivery, outcome, letters)
    return outcome


def settle(delivery: Delivery, outcome: Outcome, letters: DeadLetterStore | None = None) -> bool:
    """Do what an outcome asks for; for adapters that run the envelope themselves.

    Args:
        delivery: The message.

        outcome: The outcome of its run.

        letters: The store of dead letters; None leaves them to `Delivery.dead_letter`.

    Returns:
        False where a step failed, so that the delivery was abandoned.
    """
    try:
        _follow(delivery, outcome, letters)
    except Exception as exc:  # noqa: BLE001 - anything a store or a client raises (C9)
        # Said once for each store: while it is down, every delivery fails in the same way.
        down = letters if outcome.action is Action.DEAD else delivery
        words, extra = _FAILED[outcome.action], {"request_id": outcome.request_id}
        say_once(down, logging.ERROR, words, type_name(exc), extra=extra)
        _abandon(delivery)
        return False
    return True


_FAILED = {
    Action.DONE: "a finished run could not be settled: %s; the work comes back",
    Action.RETRY: "the next attempt could not be published: %s; the work comes back",
    Action.RETURN: "work could not be given back for later: %s; it comes back now",
    Action.DEAD: "a dead letter could not be stored: %s; the work comes back",
}


def _follow(delivery: Delivery, outcome: Outcome, letters: DeadLetterStore | None) -> None:
    match outcome.action:
        case Action.DONE:
            delivery.complete(outcome)
        case Action.RETRY:
            delivery.retry(outcome)
        case Action.RETURN:
            delivery.give_back(outcome.after)
        case Action.DEAD:
            letter = delivery.letter(outcome)
            if letters is not None:
                # Stored first: a crash in between leaves the message twice, never nowhere (C9).
                letters.add(letter)
            delivery.dead_letter(outcome, letter)


def _abandon(delivery: Delivery) -> None:
    try:
        delivery.abandon()
    except Exception as exc:  # noqa: BLE001 - then the transport notices by itself
        say(logging.ERROR, "a delivery could not be given back: %s", type_name(exc))
