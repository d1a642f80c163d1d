"""`DispatchRequest`: one piece of work to hand over, and `Backoff`, how to space its attempts."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dispatchers._errors import public
from dispatchers._models.base import Model
from dispatchers._models.fields import (
    NO_HEADERS,
    Attempts,
    Headers,
    Instant,
    JsonMap,
    Key,
    Priority,
    QueueName,
    Seconds,
    Span,
    TaskName,
    instant_after,
    new_id,
)
from dispatchers._models.json_object import EMPTY
from dispatchers._runtime.clock import now

VERSION = 1
"""The version of the envelope this library writes, and the highest that it reads."""

NATIVE = "native"
"""Stands in place of a signature's fingerprint: callers cannot set it, and hooks keep it."""


def _chance() -> float:
    """Return 0 to 1 at random; it spreads load and needs no secrecy."""
    # From the system: no state that a fork would copy.
    return int.from_bytes(os.urandom(4), "big") / 2**32


def _within_calendar(name: str, start: datetime, span: object) -> None:
    try:
        # Found here, in the constructor: later it would raise in the middle of a dispatch or a run.
        _ = start + span if isinstance(span, timedelta) else start
    except OverflowError:
        raise ValueError(f"{name} leads beyond the year 9999") from None


@public
class Backoff(Model):
    """Seconds between attempts: `initial * factor ** (attempt - 1)`, at most `maximum`."""

    initial: float = Field(default=1.0, ge=0)
    """Seconds before the second attempt."""
    factor: float = Field(default=2.0, ge=1)
    """What each further wait is multiplied by."""
    maximum: float = Field(default=3600.0, ge=0)
    """The longest wait, in seconds."""
    jitter: float = Field(default=0.0, ge=0, le=1)
    """The part of each wait that is random: 0.2 makes 10 s anything from 8 to 10 s."""

    def after(self, attempt: int) -> float:
        """Seconds to wait once attempt number `attempt` (from 1) has failed."""
        try:
            # A float overflows from about the thousandth doubling on.
            wait = min(self.initial * self.factor ** (attempt - 1), self.maximum)
        except OverflowError:
            wait = self.maximum
        return wait * (1 - self.jitter * _chance()) if self.jitter else wait


@public
class DispatchRequest(Model):
    """One piece of work to hand over; as JSON text it is the envelope that travels.

    Made by `task.request(...)`, or by hand where only the task's name is known::

        DispatchRequest(task="shop.send_welcome", payload={"user_id": 42})
    """

    version: Literal[1] = 1
    """The envelope's version."""
    task: TaskName
    """The registered name of the task."""
    id: str = Field(default_factory=new_id, min_length=1, max_length=64, pattern=r"^[\w-]+$")
    """Identifies this request; it serves as idempotency key where none is given."""
    created_at: Instant = Field(default_factory=now)
    """When the request was made, aware UTC."""
    payload: JsonMap = Field(default=EMPTY)
    """The arguments by name, as JSON values."""
    fingerprint: str | None = Field(default=None, max_length=64)
    """A short hash of the task's signature as the sender knew it."""
    queue: QueueName | None = None
    """The queue asked for; None leaves it to the dispatcher."""
    delay: Span | None = None
    """How long after `created_at` it becomes due; not together with `eta`."""
    eta: Instant | None = None
    """When it becomes due, aware UTC; not together with `delay`."""
    expires: Span | Instant | None = None
    """After this it is not run any more: a span from `created_at`, or an instant."""
    priority: Priority | None = None
    """-100 to 100, higher first."""
    time_limit: Seconds | None = None
    """Seconds (or a timedelta) that one run may take."""
    max_attempts: Attempts | None = None
    """How often it is tried in all; None leaves it to the task."""
    backoff: Backoff | None = None
    """The wait between attempts; None leaves it to the task."""
    idempotency_key: Key | None = None
    """Work under the same key of the same task is the same work."""
    headers: Headers = Field(default=NO_HEADERS)
    """Text to text, W3C trace context among it."""
    context: JsonMap = Field(default=EMPTY)
    """A free JSON map that the handler reads from `current_run().request.context`."""
    deadline: Seconds | None = None
    """Seconds that handing over may take. Concerns the caller only: it does not travel."""
    deduplicate: bool = False
    """Demand that the backend itself recognises duplicates. It does not travel."""

    @model_validator(mode="after")
    def _one_due(self) -> Self:
        if self.delay is not None and self.eta is not None:
            raise ValueError("delay and eta are both given: one of them says when it is due")
        _within_calendar("delay", self.created_at, self.delay)
        _within_calendar("expires", self.created_at, self.expires)
        return self

    @property
    def due(self) -> datetime | None:
        """Due time, aware UTC; None is at once."""
        return self.created_at + self.delay if self.delay else self.eta

    @property
    def expires_at(self) -> datetime | None:
        """After this instant, aware UTC, it is not run any more."""
        return None if self.expires is None else instant_after(self.created_at, self.expires)

    @property
    def is_native(self) -> bool:
        """Tell whether it is for a backend's own work, and has its arguments by position."""
        return self.fingerprint == NATIVE

    @property
    def key(self) -> str:
        """Identity of the work: its idempotency key, else its id."""
        return self.idempotency_key or self.id

    @property
    def key_digest(self) -> str:
        """Identity of the work among all tasks: 64 hexadecimal digits, for ids of a backend.

        SHA-256 of task and key: spread evenly, and of characters that every backend takes.
        """
        # Late: most dispatches need none. The zero byte: `a` + `bc` is not `ab` + `c`.
        from hashlib import sha256

        return sha256(f"{self.task}\0{self.key}".encode()).hexdigest()

    def replace(self, **changes: object) -> Self:
        """Return a validated copy with other values and the same id.

        Raises:
            pydantic.ValidationError: A changed value does not fit.
        """
        # Of the field values themselves: a dump would turn nested models into tables only to read
        # them again.
        return type(self).model_validate({**self.__dict__, **changes})

    def as_new(self) -> Self:
        """Return the same work under the same id, due now and without expiry, to run once more."""
        # Its own due time and expiry have passed: with them it would expire again.
        return self.replace(delay=None, eta=None, expires=None)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the plain values, so that a pickle names public classes only."""
        return type(self).model_validate, (self.model_dump(),)

    def model_copy(self, *, update: Any = None, deep: bool = False) -> Self:
        """Return a validated copy, as `replace` does."""
        # pydantic's own copy checks nothing, so that a wrong value would travel.
        return self.replace(**(update or {}))

    def __repr__(self) -> str:
        """Names the work, never its content."""
        return f"DispatchRequest(task={self.task!r}, id={self.id!r})"

    __str__ = __repr__
