"""Field types that several models share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import Annotated, cast

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, PlainSerializer

from dispatchers._models.json_object import EMPTY, JsonObject
from dispatchers._runtime.fork import new_generation, renew_after_fork


def new_id() -> str:
    """32 hexadecimal digits: 48 bits of milliseconds since the epoch, then 80 of chance.

    Chance comes from the system. Ids that begin with the time are neighbours in a database's index,
    where random ones touch a page each.
    """
    milliseconds = time_ns() // 1_000_000
    return (milliseconds.to_bytes(6, "big") + _chance.take()).hex()


class _Chance:
    """Random bytes of the system for ids, fetched for many at a time.

    Each fetch lets go of the interpreter. Where a thread waits for it, as one of ours does beside
    200 coroutines, that is a switch to it and back: 15 us of the 37 that one of them took.
    """

    SIZE = 10
    """Bytes of one id."""
    MANY = 256
    """Ids of one fetch."""

    def __init__(self) -> None:
        self._generation = new_generation()
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        """Forget what a parent has: its ids must not be a child's."""
        self._parts: list[bytes] = []
        # Last, and its own: no thread of a child may find it set and the parent's bytes there.
        self._generation[0] = 1

    def take(self) -> bytes:
        """Return bytes that no other caller gets."""
        if not self._generation[0]:  # forked by a program that is not Python
            self._after_fork()
        try:
            return self._parts.pop()
        except IndexError:
            data = os.urandom(self.SIZE * self.MANY)
            parts = [data[at : at + self.SIZE] for at in range(0, len(data), self.SIZE)]
            last = parts.pop()
            self._parts += parts
            return last


_chance = _Chance()


def instant_after(start: datetime, limit: timedelta | datetime) -> datetime:
    """Return the instant that a limit ends at: itself, or so long after `start`.

    Raises:
        OverflowError: It lies beyond the year 9999.
    """
    return start + limit if isinstance(limit, timedelta) else limit


def _aware(value: datetime) -> datetime:
    # By its offset: a `tzinfo` that knows none leaves the datetime naive.
    if value.utcoffset() is None:
        raise ValueError("must be timezone-aware, e.g. datetime.now(UTC)")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC it would lie outside the years 1 to 9999") from None


def _span(value: timedelta) -> str:
    """ISO 8601 in days and seconds: pydantic's own takes 365 days for a year, others do not."""
    fraction = f".{value.microseconds:06d}" if value.microseconds else ""
    return f"P{value.days}DT{value.seconds}{fraction}S"


def _seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


def as_tuple(value: object) -> object:
    """Return a text, or a list of them, as the tuple that a field holds."""
    # Before the rest: a text would fall apart into its characters.
    if isinstance(value, str):
        return (str(value),)
    return tuple(value) if isinstance(value, list | set | frozenset) else value


def _text_values(value: JsonObject) -> JsonObject:
    if wrong := [key for key in value if not isinstance(value[key], str)]:
        raise ValueError(f"header {wrong[0]!r} is not text: headers map text to text")
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


def scaled_priority(priority: int | None, highest: int) -> int:
    """Map a priority to a broker's scale from 0 to `highest`; none given is in the middle."""
    return round(((priority or 0) + 100) / 200 * highest)


Attempts = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""An integer of any length would take time to write that grows with its square."""


TaskName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\s\x00-\x1f\"\\]+$")]


Key = Annotated[str, Field(min_length=1, max_length=512)]


QueueName = Annotated[str, Field(min_length=1, max_length=255)]
