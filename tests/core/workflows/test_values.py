"""W: every type that tasks carry, as a step's result, a signal and an execution's result."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel

from dispatchers import catalogue, task
from dispatchers.workflows import Signal, workflow


class Colour(Enum):
    RED = "red"


class Order(BaseModel):
    number: int
    lines: list[tuple[str, Decimal]]


@dataclass
class Place:
    row: int
    names: dict[str, list[int]]


VALUES: list[tuple[Any, Any]] = [
    (int, 2**70),
    (str, "ä\u2028\x00"),
    (bool, True),
    (float, 0.1),
    (type(None), None),
    (bytes, b"text"),
    (Decimal, Decimal("9.990")),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, UTC)),
    (date, date(2026, 1, 2)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (UUID, UUID(int=7)),
    (Colour, Colour.RED),
    (Literal["a", "b"], "b"),
    (int | None, 3),
    (list[tuple[int, str]], [(1, "x")]),
    (set[int], {1, 2}),
    (dict[str, Decimal], {"a": Decimal(1)}),
    (Order, Order(number=1, lines=[("x", Decimal("1.5"))])),
    (Place, Place(1, {"a": [1]})),
]


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=[str(kind) for kind, _ in VALUES])
def test_a_value_arrives_as_it_was(workflow_clock, kind, value):
    """D7, C5: exactly, and of its type."""

    def made():
        return value

    async def flow():
        found, sent = await step.step(), await signal.receive()
        if found != sent or type(found) is not type(sent):
            raise ValueError(f"{sent!r} was sent")
        return found

    made.__annotations__["return"] = flow.__annotations__["return"] = kind
    step, signal = task(name="values.made")(made), Signal("value", kind)
    whole = workflow(name="values.flow")(flow)
    try:
        execution = workflow_clock.start(whole)
        workflow_clock.send(signal, execution, value)
        found = execution.result()
    finally:
        for each in (step, whole, whole.turns):
            catalogue.remove(each)

    assert found == value
    assert type(found) is type(value)
