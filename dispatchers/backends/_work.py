"""One piece of work as an in-process backend keeps it, and what follows from a run of it."""

from __future__ import annotations

import logging
from contextvars import Context

from dispatchers._dead import DeadLetter, DeadLetterStore
from dispatchers._outcome import Action, Outcome, Reason, RunFailure
from dispatchers._request import DispatchRequest
from dispatchers._verdict import type_name

__all__ = ["Work", "crashed", "follow_up"]

log = logging.getLogger("dispatchers")

STORE_PAUSE = 5.0
"""Seconds before work whose dead letter could not be stored comes back."""


class Work:
    """An envelope that was accepted, and no more of its request than waiting needs.

    Args:
        request: What was dispatched; it is not kept.

        body: Its envelope.

        queue: Where it waits.

        context: What the run sees of the caller's context variables.
    """

    __slots__ = (
        "attempt", "body", "context", "deliveries", "expires", "id", "key", "priority", "queue",
    )  # fmt: skip

    def __init__(
        self, request: DispatchRequest, body: bytes, queue: str, context: Context | None = None
    ) -> None:
        self.id = request.id
        self.key = (request.task, request.idempotency_key or request.id)
        self.body = body
        self.queue = queue
        self.context = context
        self.priority = request.priority or 0
        self.expires = None if request.expires is None else request.expires_at
        self.attempt = 1
        self.deliveries = 1

    @property
    def task(self) -> str:
        """The registered name of the task."""
        return self.key[0]

    def count(self, outcome: Outcome) -> None:
        """Count what is to run again: a retry is another attempt, a return is not (C10)."""
        if outcome.action is Action.RETRY:
            self.attempt += 1
            self.deliveries = 1

    def __repr__(self) -> str:
        """Names the work, never its content."""
        return f"<work {self.id!r} of task {self.task!r}>"


def follow_up(work: Work, outcome: Outcome, letters: DeadLetterStore | None) -> float | None:
    """What follows from a run: seconds until the next, or None where the work is over.

    A dead letter is stored before the work is given up; if that fails, the work comes back (C9).
    """
    if outcome.action in (Action.RETRY, Action.RETURN):
        return outcome.after
    if outcome.action is Action.DEAD and letters is not None:
        return _buried(work, outcome, letters)
    return None


def _buried(work: Work, outcome: Outcome, letters: DeadLetterStore) -> float | None:
    try:
        letters.add(
            DeadLetter.of(
                outcome,
                work.body,
                id=work.id,
                task=work.task,
                queue=work.queue,
                deliveries=work.deliveries,
            )
        )
    except Exception as exc:  # noqa: BLE001 - anything a store raises
        log.error(  # noqa: TRY400 - a store's traceback may quote the letter
            "dead letter of %r could not be stored (%s); the work comes back in %.0f s",
            work.task, type_name(exc), STORE_PAUSE,
            extra={"request_id": work.id},
        )  # fmt: skip
        return STORE_PAUSE
    return None


def crashed(work: Work, exc: BaseException) -> Outcome:
    """The outcome of a run that was ended by what is no `Exception`: a task's `SystemExit`, say.

    It counts as failed for good: the same code would end the next run in the same way.
    """
    log.error(
        "run of %s was ended by %s: it counts as failed",
        work.task,
        type_name(exc),
        extra={"request_id": work.id},
    )
    return Outcome(
        action=Action.DEAD,
        reason=Reason.PERMANENT,
        attempt=work.attempt,
        max_attempts=work.attempt,
        task=work.task,
        request_id=work.id,
        error=RunFailure(exception_type=type_name(exc)),
    )
