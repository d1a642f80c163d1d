"""`DispatchRequest`: one piece of work to hand over, and `Backoff`, how to space its attempts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    PlainSerializer,
    model_validator,
)

from ._model import EMPTY, JsonObject, Model

__all__ = ["Backoff", "DispatchRequest"]

VERSION = 1
"""The version of the envelope this library writes, and the highest that it reads."""


def new_id() -> str:
    """32 hexadecimal digits: 48 bits of milliseconds since the epoch, then 80 of chance.

    Chance comes from the system: no state that a fork would copy. Ids that begin with the time are
    neighbours in a database's index, where random ones touch a page each.
    """
    milliseconds = time_ns() // 1_000_000
    return (milliseconds.to_bytes(6, "big") + os.urandom(10)).hex()


def now() -> datetime:
    """The current instant, aware UTC."""
    return datetime.now(UTC)


def _chance() -> float:
    """0 to 1; it spreads load, and is no secret."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


def _aware(value: datetime) -> datetime:
    if value.utcoffset() is None:
        raise ValueError("naive datetimes name no instant: pass an aware one, datetime.now(UTC)")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC it would lie outside the years 1 to 9999") from None


def _within_calendar(name: str, start: datetime, span: object) -> None:
    try:
        _ = start + span if isinstance(span, timedelta) else start
    except OverflowError:
        raise ValueError(f"{name} leads beyond the year 9999") from None


def _span(value: timedelta) -> str:
    """ISO 8601 in days and seconds: pydantic's own takes 365 days for a year, others do not."""
    fraction = f".{value.microseconds:06d}" if value.microseconds else ""
    return f"P{value.days}DT{value.seconds}{fraction}S"


def _seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _text_values(value: JsonObject) -> JsonObject:
    if wrong := [key for key in value if not isinstance(value[key], str)]:
        raise ValueError(f"header {wrong[0]!r} is no text: headers map text to text")
    return value


Instant = Annotated[datetime, AfterValidator(_aware)]
Seconds = Annotated[float, Field(gt=0), BeforeValidator(_seconds)]
Span = Annotated[
    timedelta, Field(ge=timedelta(0)), PlainSerializer(_span, return_type=str, when_used="json")
]
JsonMap = Annotated[Mapping[str, JsonValue], JsonObject]
Headers = Annotated[Mapping[str, str], JsonObject, AfterValidator(_text_values)]
NO_HEADERS = cast("Mapping[str, str]", EMPTY)
Priority = Annotated[int, Field(ge=-100, le=100)]
Attempts = Annotated[int, Field(ge=1)]
TaskName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\s\x00-\x1f\"\\]+$")]
Key = Annotated[str, Field(min_length=1, max_length=512)]
QueueName = Annotated[str, Field(min_length=1, max_length=255)]


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
            wait = min(self.initial * self.factor ** (attempt - 1), self.maximum)
        except OverflowError:
            wait = self.maximum
        return wait * (1 - self.jitter * _chance()) if self.jitter else wait


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
        """When it becomes due, aware UTC; None is at once."""
        return self.created_at + self.delay if self.delay else self.eta

    @property
    def expires_at(self) -> datetime | None:
        """After this instant, aware UTC, it is not run any more."""
        if isinstance(self.expires, timedelta):
            return self.created_at + self.expires
        return self.expires

    @property
    def key(self) -> str:
        """What identifies the work: its idempotency key, else its id."""
        return self.idempotency_key or self.id

    def replace(self, **changes: object) -> Self:
        """A copy with other values, validated; the id stays unless it is among them.

        Raises:
            pydantic.ValidationError: A changed value does not fit.
        """
        return type(self).model_validate({**self.__dict__, **changes})

    def model_copy(self, *, update: Any = None, deep: bool = False) -> Self:
        """Like `replace`: an unvalidated copy could say one thing and send another."""
        return self.replace(**(update or {}))

    def __repr__(self) -> str:
        """Names the work, never its content."""
        return f"DispatchRequest(task={self.task!r}, id={self.id!r})"

    __str__ = __repr__
