"""C5: tasks work while a test freezes the clock."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import pytest
from pydantic import Field

from dispatchers import catalogue, task
from dispatchers.backends.memory import MemoryDispatcher

freezegun = pytest.importorskip("freezegun")

ANNOTATIONS = [
    lambda clock: clock,
    lambda clock: clock | None,
    lambda clock: list[clock],
    lambda clock: dict[str, tuple[clock, ...]],
    lambda clock: Annotated[clock | None, Field(description="when")],
]


@pytest.fixture
def frozen():
    with freezegun.freeze_time("2026-01-01"):
        yield


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=range(len(ANNOTATIONS)))
@pytest.mark.parametrize("kind", ["datetime", "date"])
def test_a_task_can_be_declared_while_the_clock_is_frozen(frozen, annotation, kind):
    """C5: freezegun's types in annotations stand for the real ones."""

    def work(at) -> None: ...

    work.__annotations__["at"] = annotation(getattr(dt, kind))

    made = task(name="frozen.declared")(work)
    catalogue.remove(made)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_a_frozen_clocks_times_arrive(is_frozen):
    """C5: as arguments, as eta and as expiry, declared before or while the clock stands."""
    ran: list[Any] = []
    queue = MemoryDispatcher()
    freezer = freezegun.freeze_time("2026-01-01")

    def work(at, day) -> None:
        ran.append((at, day))

    if is_frozen:
        freezer.start()
    work.__annotations__ |= {"at": dt.datetime, "day": dt.date}
    made = task(name="frozen.work")(work)
    if not is_frozen:
        freezer.start()
    try:
        now, later = dt.datetime.now(dt.UTC), dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        chosen = made.options(dispatcher=queue, eta=now, expires=later)
        response = chosen.dispatch(at=now, day=dt.date.today())
        outcome = queue.step()
    finally:
        freezer.stop()
        catalogue.remove(made)

    assert response.ok, response.error
    assert outcome.ok, outcome
    assert ran == [(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.date(2026, 1, 1))]
    assert {type(each) for each in ran[0]} == {dt.datetime, dt.date}
