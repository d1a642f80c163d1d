"""The tasks that the conformance suite dispatches: a worker imports `dispatchers.testing.tasks`.

Each writes to the journal that it is given, so that the suite sees from outside what ran.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from dispatchers import Backoff, Discard, Retry, current_run, task

from .journal import Journal

__all__ = [
    "SAMPLE",
    "Colour",
    "Level",
    "Parcel",
    "compare",
    "discard",
    "fail",
    "held",
    "interrupt",
    "leave",
    "linger",
    "note",
    "other",
    "overrun",
    "relieve",
    "renamed",
    "resume",
    "see",
    "sleep",
    "stay",
    "wait",
]

AT_ONCE = Backoff(initial=0)
LONG = 30.0
"""Seconds for which a run waits: another process may have to start meanwhile."""


class Colour(Enum):
    """An enum of texts."""

    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    """An enum of numbers."""

    LOW = 1
    HIGH = 2


class Parcel(BaseModel):
    """A model, with a model in it."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    weight: Decimal
    inside: tuple[Parcel, ...] = ()


@task(name="dispatchers.testing.note")
def note(journal: str, text: str = "") -> None:
    """Say something."""
    Journal(journal).write(text)


@task(name="dispatchers.testing.other")
def other(journal: str, text: str = "") -> None:
    """Say something, under another name."""
    Journal(journal).write(text)


@task(name="dispatchers.testing.held")
def held(journal: str) -> None:
    """Do not end before the journal is released."""
    Journal(journal).wait_for_release()
    Journal(journal).write("held")


@task(name="dispatchers.testing.linger")
def linger(journal: str) -> None:
    """Begin, and do not end before the journal is released."""
    Journal(journal).write("began")
    Journal(journal).wait_for_release(LONG)
    Journal(journal).write("ended")


@task(name="dispatchers.testing.stay")
def stay(journal: str) -> None:
    """Begin, and end when the worker stops."""
    Journal(journal).write("began")
    while not current_run().should_stop:
        time.sleep(0.005)
    Journal(journal).write("ended")


@task(name="dispatchers.testing.leave")
def leave(journal: str) -> None:
    """Exit, as no handler should."""
    Journal(journal).write("leaves")
    raise SystemExit(3)


@task(name="dispatchers.testing.interrupt")
def interrupt(journal: str) -> None:
    """Raise `KeyboardInterrupt`, as no handler should."""
    Journal(journal).write("leaves")
    raise KeyboardInterrupt


@task(name="dispatchers.testing.resume", max_attempts=2)
def resume(journal: str) -> None:
    """Ask for another attempt once the journal is released."""
    Journal(journal).write("began")
    if current_run().attempt == 1:
        Journal(journal).wait_for_release(LONG)
        raise Retry(after=0)


@task(name="dispatchers.testing.relieve")
def relieve(journal: str) -> None:
    """Begin, and end once another run has begun, or the journal is released."""
    Journal(journal).write("began")
    begun = Journal(journal).texts.count("began")
    others = lambda: Journal(journal).texts.count("began") > begun  # noqa: E731
    Journal(journal).wait_for_release(LONG, until=others)
    Journal(journal).write("ended")


COLOR: ContextVar[str] = ContextVar("dispatchers_testing_color", default="none")


@task(name="dispatchers.testing.colors")
def colors(journal: str, color: str) -> None:
    """Write the color that the context has, and leave another one in it."""
    Journal(journal).write(COLOR.get())
    COLOR.set(color)


@task(name="dispatchers.testing.renamed", former_names=("dispatchers.testing.formerly",))
def renamed(journal: str) -> None:
    """Run under the name that it had, too."""
    Journal(journal).write("renamed")


@task(name="dispatchers.testing.fail", max_attempts=3, backoff=AT_ONCE)
def fail(journal: str, times: int) -> None:
    """Fail in the first attempts, and say so each time."""
    # By the run's own count, not the journal's: whether that count survives is part of the case.
    failing = current_run().attempt <= times
    Journal(journal).write("failed" if failing else "succeeded")
    if failing:
        raise OSError("asked to fail")


@task(name="dispatchers.testing.wait", max_attempts=2)
def wait(journal: str, seconds: float) -> None:
    """Ask for another attempt after some seconds."""
    Journal(journal).write("ran")
    if current_run().attempt == 1:
        raise Retry(after=seconds)


@task(name="dispatchers.testing.discard", max_attempts=3, backoff=AT_ONCE)
def discard(journal: str) -> None:
    """Want nothing of it any more."""
    Journal(journal).write("discarded")
    raise Discard("not wanted")


@task(name="dispatchers.testing.sleep")
def sleep(journal: str, seconds: float) -> None:
    """Take its time."""
    time.sleep(seconds)
    Journal(journal).write("slept")


@task(name="dispatchers.testing.overrun")
async def overrun(journal: str, seconds: float) -> None:
    """Take its time, and say so if it is cancelled."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        Journal(journal).write("cancelled")
        # Passed on: only so does the worker learn that the handler gave way.
        raise
    Journal(journal).write("slept")


@task(name="dispatchers.testing.carry", max_attempts=3, backoff=AT_ONCE)
def carry(journal: str, times: int) -> None:
    """Say what the request is like, and fail in the first attempts."""
    run = current_run()
    Journal(journal).write(run.request.model_dump_json(exclude={"deadline", "deduplicate"}))
    if run.attempt <= times:
        raise OSError("asked to fail")


@task(name="dispatchers.testing.see")
def see(journal: str) -> None:
    """Say what the request is like."""
    request = current_run().request
    seen = {
        "headers": dict(request.headers),
        "context": dict(request.context),
        "key": request.idempotency_key,
        "queue": request.queue,
        "created_at": request.created_at.isoformat(),
    }
    Journal(journal).write(json.dumps(seen))


_TOKYO = timezone(timedelta(hours=9))
SAMPLE: Mapping[str, Any] = {
    "identity": UUID("12345678-1234-5678-1234-567812345678"),
    "moment": datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=_TOKYO),
    "before": datetime(1914, 6, 28, 10, 50, tzinfo=UTC),
    "day": date(1969, 12, 31),
    "span": timedelta(days=-1, microseconds=1),
    "money": Decimal("1234567890.10"),
    "blob": bytes(range(256)),
    "colour": Colour.BLUE,
    "level": Level.HIGH,
    "parcel": Parcel(
        id=UUID(int=7), weight=Decimal("0.10"), inside=(Parcel(id=UUID(int=8), weight=Decimal(2)),)
    ),
    "nested": {"a": [{"x": Decimal("1.0")}, {}], "": []},
    "big": 2**53 + 1,
    "huge": -(10**30),
    "number": 0.1,
    "words": 'quotes " and \\, Ωmega, \U0001f600, \x00 and \u2028',
    "nothing": None,
    "empty": "",
    "yes": True,
}
"""Arguments of `compare`: values that a careless transport changes."""


@task(name="dispatchers.testing.compare")
def compare(
    journal: str,
    identity: UUID,
    moment: datetime,
    before: datetime,
    day: date,
    span: timedelta,
    money: Decimal,
    blob: bytes,
    colour: Colour,
    level: Level,
    parcel: Parcel,
    nested: dict[str, list[dict[str, Decimal]]],
    big: int,
    huge: int,
    number: float,
    words: str,
    nothing: int | None,
    empty: str,
    *,
    yes: bool,
) -> None:
    """Say which of the arguments are not those of `SAMPLE`."""
    # First of all, while the arguments are the only names in it.
    given = locals()
    wrong = [name for name, value in SAMPLE.items() if not same(given[name], value)]
    Journal(journal).write(f"different: {', '.join(wrong)}" if wrong else "equal")


def same(left: object, right: object) -> bool:
    """Return true if two values are equal and of the same types at every depth.

    An aware datetime is the same instant, in whatever zone.
    """
    # `1 == True` and `1 == 1.0`: equality alone would miss a changed type.
    if type(left) is not type(right) or left != right:
        return False
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return all(map(same, left, right))
    if isinstance(left, Decimal):
        # Decimals are equal whatever their trailing zeros.
        return str(left) == str(right)
    return True
