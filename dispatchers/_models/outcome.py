"""Outcomes of a run, for an adapter to turn into its own terms."""

from __future__ import annotations

import math
from datetime import timedelta
from enum import StrEnum
from typing import Any

from pydantic import PrivateAttr

from dispatchers._errors import PUBLIC, public
from dispatchers._models.base import Model
from dispatchers._models.failures import Kind


class Retry(Exception):  # noqa: N818 - a request, not an error
    """Raised by a handler: try again, as long as attempts are left.

    Args:
        after: Seconds or a timedelta to wait; None leaves it to the back-off.

        reason: For people.

    Raises:
        TypeError: `after` is neither a number nor a timedelta.

        ValueError: `after` is not a finite number.
    """

    __module__ = PUBLIC

    def __init__(self, after: float | timedelta | None = None, reason: str = "") -> None:
        super().__init__(reason or "the task asked for another attempt")
        self.after = None if after is None else _as_seconds(after)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        # By default it would be made from its `args`: the words alone, which are not the first
        # parameter.
        return type(self), (self.after, self.reason)


def _as_seconds(after: object) -> float:
    if isinstance(after, timedelta):
        return after.total_seconds()
    # A bool is an int: `after=True` would be a wait of one second.
    if isinstance(after, bool) or not isinstance(after, int | float):
        raise TypeError(f"Retry(after=...) takes seconds or a timedelta, not {after!r}")
    if not math.isfinite(after):
        raise ValueError(f"Retry(after=...) takes a finite number, not {after!r}")
    return float(after)


class Discard(Exception):  # noqa: N818 - a request, not an error
    """Raised by a handler: the work is not wanted any more; it is done, and not a failure.

    Args:
        reason: For people.
    """

    __module__ = PUBLIC

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the task discarded the work")
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.reason,)


@public
class Action(StrEnum):
    """Action of an adapter on the delivery."""

    DONE = "done"
    """Settle it: there is nothing more to do."""
    RETRY = "retry"
    """Another attempt `after` seconds: publish it first, settle this delivery then."""
    RETURN = "return"
    """Give it back for `after` seconds. Not an attempt."""
    DEAD = "dead"
    """Dead-letter it first, settle this delivery then."""


@public
class Reason(StrEnum):
    """Why."""

    SUCCEEDED = "succeeded"
    """The handler returned."""
    DISCARDED = "discarded"
    """The handler raised `Discard`, or something in `discard_on`."""
    DUPLICATE = "duplicate"
    """The idempotency store knows that it ran."""
    EXPIRED = "expired"
    """It is later than `expires`."""
    FAILED = "failed"
    """The handler failed in a way worth another attempt."""
    PERMANENT = "permanent"
    """The handler failed in a way that another attempt would repeat."""
    EXHAUSTED = "exhausted"
    """The handler failed in its last attempt."""
    IN_FLIGHT = "in_flight"
    """Another worker is running the same key."""
    CONFLICT = "conflict"
    """The idempotency store knows the key from work with other arguments."""
    STORE_UNAVAILABLE = "store_unavailable"
    """The idempotency store did not answer, so it is unknown whether it ran."""
    NO_JOURNAL = "no_journal"
    """A step of an execution, and this worker has no journal to record its result in."""
    STOPPING = "stopping"
    """The worker stops; the handler gave up in time."""
    LEASE_LOST = "lease_lost"
    """Another worker has it by now; this result does not count."""
    UNKNOWN_TASK = "unknown_task"
    """No task of that name is registered here."""
    NEWER_ENVELOPE = "newer_envelope"
    """Written by a newer version of this library."""
    INVALID_ARGUMENTS = "invalid_arguments"
    """The arguments do not fit the task as this worker knows it."""
    NO_ENVELOPE = "no_envelope"
    """The message is not an envelope."""
    TOO_MANY_DELIVERIES = "too_many_deliveries"
    """Delivered again and again without an outcome: it may be killing its workers."""


@public
class RunFailure(Model):
    """Failure of a run."""

    kind: Kind = "exception"
    """Timeouts, connection, DNS, TLS and certificate errors told apart."""
    exception_type: str | None = None
    """The dotted name of the exception's class."""
    message: str = ""
    """The exception's own words: kept beside the payload, never logged."""
    where: str = ""
    """File, line and function of the application's innermost frame, and of the library's below it
    that raised."""
    frames: tuple[str, ...] = ()
    """Every frame, outermost first, with the option `tracebacks`; never a value."""


@public
class Outcome(Model):
    """Outcome of one run."""

    action: Action
    """What to do with the delivery."""
    reason: Reason
    """Why."""
    after: float = 0.0
    """Seconds to wait, with `retry` and `return`."""
    attempt: int = 1
    """The attempt this was."""
    max_attempts: int = 1
    """How many there may be."""
    task: str | None = None
    """The registered name, where it could be told."""
    request_id: str | None = None
    """The request's id, where it could be told."""
    elapsed: float = 0.0
    """Seconds in the handler."""
    error: RunFailure | None = None
    """What went wrong, if anything did."""
    _exception: BaseException | None = PrivateAttr(default=None)
    _result: Any = PrivateAttr(default=None)

    @property
    def ok(self) -> bool:
        """The delivery is settled without an error."""
        return self.action is Action.DONE and self.error is None

    @property
    def exception(self) -> BaseException | None:
        """Exception of the handler, in the process where it ran."""
        return (self.__pydantic_private__ or {}).get("_exception")

    @property
    def result(self) -> Any:
        """Value the handler returned, in its process; it never travels."""
        return (self.__pydantic_private__ or {}).get("_result")
