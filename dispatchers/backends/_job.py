"""Work that an in-process backend keeps, and what follows from a run of it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextvars import Context

from dispatchers._dispatch.error_mapping import type_name
from dispatchers._models.dead_letter import DeadLetter, DeadLetterStore
from dispatchers._models.keyed import conflict, digest_of
from dispatchers._models.outcome import Action, Outcome, Reason, RunFailure
from dispatchers._models.request import DispatchRequest
from dispatchers._runtime.log import say
from dispatchers._worker.settlement import Delivery, settle
from dispatchers._worker.steps import left_undone

__all__ = ["Work", "crashed", "follow_up"]


DEFAULT_QUEUE = "default"
"""The queue of work that names none, of a dispatcher that names none."""


Key = tuple[str, str]
"""A task and a key."""


class Work:
    """An envelope that was accepted, and no more of its request than waiting needs.

    Args:
        request: What was dispatched; it is not kept.

        body: Its envelope.

        queue: Where it waits.

        context: What the run sees of the caller's context variables.
    """

    __slots__ = (
        "attempt", "body", "context", "deliveries", "digest", "due", "expires", "id", "key",
        "priority", "queue",
    )  # fmt: skip

    def __init__(
        self, request: DispatchRequest, body: bytes, queue: str, context: Context | None = None
    ) -> None:
        self.id = request.id
        self.key = (request.task, request.idempotency_key or request.id)
        # Computed now, since the request is not kept: it tells a repetition from other arguments.
        self.digest = digest_of(request)
        self.body = body
        self.queue = queue
        self.context = context
        self.priority = request.priority or 0
        self.expires = None if request.expires is None else request.expires_at
        self.attempt = 1
        self.deliveries = 1
        self.due = 0.0
        """When it may run, by the clock of its queue: how long it has waited is counted from it."""

    @property
    def task(self) -> str:
        """The registered name of the task."""
        return self.key[0]

    def count(self, outcome: Outcome) -> None:
        """Count what is to run again: a retry is another attempt, a return is not (C10)."""
        if outcome.action is Action.RETRY:
            self.next_attempt()

    def next_attempt(self) -> None:
        """Count an attempt, whose deliveries begin anew."""
        self.attempt += 1
        self.deliveries = 1

    def __repr__(self) -> str:
        """Names the work, never its content."""
        return f"<work {self.id!r} of task {self.task!r}>"


class Keys:
    """The keys of work that waits or runs, or that is remembered."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, tuple[str, bytes | None]] = OrderedDict()

    def known(self, work: Work) -> str | None:
        """Return the id of the work that has the key of `work`; None where it is free.

        Raises:
            RejectedError: It is known for other arguments.
        """
        known, digest = self._known.get(work.key, (None, None))
        # A digest of None is unknown, and contradicts nothing.
        if None not in (digest, work.digest) and digest != work.digest:
            raise conflict(work.task)
        return known

    def add(self, work: Work) -> None:
        """Know the key from now on."""
        self._known[work.key] = work.id, work.digest

    def discard(self, key: Key) -> None:
        """Forget a key."""
        self._known.pop(key, None)

    def shorten(self, length: int) -> None:
        """Forget the oldest beyond so many."""
        while len(self._known) > length:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    def __iter__(self) -> Iterator[Key]:
        # A copy: keys are forgotten while it is walked through.
        return iter(tuple(self._known))

    def __len__(self) -> int:
        return len(self._known)


class WorkDelivery(Delivery):
    """One delivery of work in this process; `after` says when it runs again, None is never."""

    def __init__(self, work: Work) -> None:
        self.body, self.id, self.task, self.queue = work.body, work.id, work.task, work.queue
        self.attempt, self.deliveries = work.attempt, work.deliveries
        self.after: float | None = None

    def complete(self, outcome: Outcome) -> None:
        """Leave it over."""

    def retry(self, outcome: Outcome) -> None:
        """Run it again."""
        self.after = outcome.after

    def give_back(self, after: float) -> None:
        """Run it again."""
        self.after = after

    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        """Leave it over."""


def follow_up(work: Work, outcome: Outcome, letters: DeadLetterStore | None) -> float | None:
    """Follow an outcome; return the seconds until the next run, None where the work is over."""
    delivery = WorkDelivery(work)
    try:
        settle(delivery, outcome, letters)
    except BaseException as exc:  # noqa: BLE001 - a store that exits must not end the worker
        say(logging.ERROR, "a run could not be settled: %s; the work comes back", type_name(exc))
        delivery.abandon()
    return delivery.after


def crashed(work: Work, exc: BaseException) -> Outcome:
    """Return the outcome of a run that a task's `SystemExit` ended: a permanent failure.

    The same code would end the next run in the same way.
    """
    say(
        logging.ERROR,
        "run of %s was ended by %s: it counts as failed",
        work.task,
        type_name(exc),
        extra={"request_id": work.id},
    )
    outcome = Outcome(
        action=Action.DEAD,
        reason=Reason.PERMANENT,
        attempt=work.attempt,
        max_attempts=work.attempt,
        task=work.task,
        request_id=work.id,
        error=RunFailure(exception_type=type_name(exc)),
    )
    return left_undone(work.body, outcome)
