"""C5: what is equal by value and arrives as the declared type is taken."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections import Counter, OrderedDict, defaultdict
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, JsonValue

from dispatchers import ErrorCategory, catalogue, task
from dispatchers.backends.memory import MemoryDispatcher


class Text(str):
    """As `SafeString` of Django."""

    __slots__ = ()


class Choice(enum.StrEnum):
    """As `TextChoices` of Django."""

    PAID = "paid"


class OldChoice(str, enum.Enum):  # noqa: UP042 - what is meant
    PAID = "paid"


class Number(int, enum.Enum):
    ONE = 1


class Tagged(list):  # type: ignore[type-arg]
    def __init__(self, *items: Any) -> None:
        super().__init__(items)
        self.tag = "lost"


class Instant(dt.datetime):
    """As a frozen clock's."""


class Day(dt.date):
    pass


class Amount(Decimal):
    pass


class Place(NamedTuple):
    x: int


class Order(BaseModel):
    number: int = 0


class Larger(Order):
    more: int = 0


NOON = (2026, 1, 1, 12)
TAKEN = [
    (str, Choice.PAID, "paid"),
    (str, OldChoice.PAID, "paid"),
    (str, Text("<b>"), "<b>"),
    (str | None, Choice.PAID, "paid"),
    (int, Number.ONE, 1),
    (float, type("Real", (float,), {})(0.5), 0.5),
    (bytes, type("Raw", (bytes,), {})(b"a"), b"a"),
    (Decimal, Amount("1.50"), Decimal("1.50")),
    (uuid.UUID, type("Id", (uuid.UUID,), {})(int=5), uuid.UUID(int=5)),
    (dt.datetime, Instant(*NOON, tzinfo=dt.UTC), dt.datetime(*NOON, tzinfo=dt.UTC)),
    (dt.date, Day(2026, 1, 1), dt.date(2026, 1, 1)),
    (list[str], [Choice.PAID, "a"], ["paid", "a"]),
    (list[str], ("a", Text("b")), ["a", "b"]),
    (dict[str, int], {Choice.PAID: Number.ONE}, {"paid": 1}),
    (dict[str, int], OrderedDict(a=1), {"a": 1}),
    (dict[str, int], Counter(a=1), {"a": 1}),
    (dict[str, list[int]], defaultdict(list, a=[1]), {"a": [1]}),
    (Any, (1, (2, Choice.PAID)), [1, [2, "paid"]]),
    (JsonValue, {"a": (1, 2), "b": Choice.PAID}, {"a": [1, 2], "b": "paid"}),
    (dict[str, Any], {"a": [(1,)]}, {"a": [[1]]}),
]
REFUSED = [
    (int, True),
    (str, 1),
    (str, enum.Enum("Plain", {"PAID": "paid"}).PAID),
    (list[int], Tagged(1)),
    (tuple[int, ...], Place(1)),
    (Any, Place(1)),
    (Any, {1, 2}),
    (Order, Larger(more=5)),
    (dt.date, dt.datetime(2026, 1, 1)),
]


def dispatched(annotation: Any, value: Any) -> tuple[Any, list[Any]]:
    ran = []

    def work(x) -> None:
        ran.append(x)

    work.__annotations__["x"] = annotation
    made, queue = task(name="equal.work")(work), MemoryDispatcher()
    response = made.options(dispatcher=queue).dispatch(x=value)
    queue.step()
    catalogue.remove(made)
    return response, ran


@pytest.mark.parametrize(("annotation", "value", "arrives"), TAKEN, ids=range(len(TAKEN)))
def test_an_equal_value_arrives_as_the_declared_type(annotation, value, arrives):
    """C5: members of choices, safe strings, tuples where lists are read, a frozen clock's times."""
    response, ran = dispatched(annotation, value)

    assert response.ok, response.error
    assert ran == [arrives]
    assert repr(ran) == repr([arrives]).replace("datetime.timezone.utc", "TzInfo(0)")


@pytest.mark.parametrize(("annotation", "value"), REFUSED, ids=range(len(REFUSED)))
def test_a_value_that_would_lose_something_is_refused(annotation, value):
    """C5: fields, names and other types than the declared one do not get lost in silence."""
    response, ran = dispatched(annotation, value)

    assert response.error.category is ErrorCategory.INVALID
    assert ran == []
