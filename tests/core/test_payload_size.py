"""C2: what costs more than its size is refused by its size, before anything is written."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
from pydantic import BaseModel, JsonValue

from dispatchers import DispatchRequest, ErrorCategory, catalogue, task
from dispatchers._models.envelope import encode
from dispatchers._payload.unserializable import MAX_DEPTH
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.backends.null import NullDispatcher
from dispatchers.http import EndpointSettings
from dispatchers.http._json_depth import is_deeper

MILLION = 10**1_000_000
"""Takes a quarter of a minute to write, with the interpreter held."""


class Order(BaseModel):
    number: int = 0
    more: Any = None


def folded(levels: int) -> list[Any]:
    """A list of a few bytes in memory, and 2 ** levels in JSON."""
    value: list[Any] = [1]
    for _ in range(levels):
        value = [value, value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


COSTLY = [
    (int, MILLION, "4300 digits"),
    (int, -MILLION, "4300 digits"),
    (float, MILLION, "4300 digits"),
    (list[int], [1, MILLION], "4300 digits"),
    (JsonValue, {"a": [{"b": MILLION}]}, "x.a[0].b"),
    (Any, MILLION, "4300 digits"),
    (dict[int, str], {MILLION: "a"}, "x[key 0]"),
    (Order, Order.model_construct(number=MILLION), "x.number"),
    (Order, Order(more=(1, {2, MILLION})), "4300 digits"),
    (Any, folded(60), "is too large to be sent"),
    (JsonValue, {"a": folded(60)}, "is too large to be sent"),
    (Any, ["x" * 1_000_000] * 1000, "is too large to be sent"),
    (Any, endless(), "nests too deeply"),
    (Any, [["a"] * 200, {"b": ["c" * 2**20] * 400}], "is too large to be sent"),
]


@pytest.mark.parametrize(("annotation", "value", "words"), COSTLY, ids=range(len(COSTLY)))
def test_a_costly_argument_is_refused_at_once(annotation, value, words):
    """C2: digits, nesting and repetition, wherever they stand, cost no more than their size."""

    def work(x) -> None: ...

    work.__annotations__["x"] = annotation
    made = task(name="size.work")(work)
    catalogue.remove(made)
    started = time.thread_time()

    response = made.options(dispatcher=NullDispatcher()).dispatch(x=value)

    assert time.thread_time() - started < 1.0  # writing it takes 15 s and more
    assert response.error.category is ErrorCategory.INVALID
    assert words in response.error.message
    assert len(response.error.message) < 500


@pytest.mark.parametrize(
    "options",
    [
        {"context": {"a": MILLION}},
        {"context": {"a": folded(60)}},
        {"max_attempts": MILLION},
        {"priority": MILLION},
        {"time_limit": MILLION},
        {"deadline": MILLION},
    ],
    ids=range(6),
)
def test_a_costly_option_is_refused_at_once(options):
    """C2: options travel as arguments do."""

    @task(name="size.options")
    def work() -> None: ...

    catalogue.remove(work)
    started = time.thread_time()

    response = work.options(dispatcher=NullDispatcher(), **options).dispatch()

    assert time.thread_time() - started < 1.0
    assert response.error.category is ErrorCategory.INVALID


@pytest.mark.parametrize("value", [MILLION, folded(60)], ids=["digits", "folded"])
def test_a_costly_request_is_not_made(value):
    """C2: requests for a backend's own work hold their arguments as they are."""
    with pytest.raises(ValueError, match=r"4300 digits|too large"):
        DispatchRequest(task="t", payload={"args": [value]})


def test_a_name_that_is_data_is_not_repeated():
    """C4: a message stays short whatever a caller names an argument."""

    @task(name="size.named")
    def work(x: int) -> None: ...

    catalogue.remove(work)

    response = work.options(dispatcher=NullDispatcher()).dispatch(**{"y" * 100_000: 1})

    assert len(response.error.message) < 500


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 10**4000),
        (int, -(2**2000)),
        (list[int], [2**70] * 1000),
        (JsonValue, [folded(8), {"a": None}]),
        (list[str], ["text"] * 10_000),
        (Any, [[dt.MINYEAR]] * 1000),
    ],
    ids=range(6),
)
def test_long_values_below_the_limits_arrive(annotation, value):
    """C5: the limits are those of JSON readers, and of what any backend takes."""
    ran = []

    def work(x) -> None:
        ran.append(x)

    work.__annotations__["x"] = annotation
    made = task(name="size.runs")(work)
    queue = MemoryDispatcher()

    response = made.options(dispatcher=queue).dispatch(x=value)
    queue.step()
    catalogue.remove(made)

    assert response.ok, response.error
    assert ran == [value]


@pytest.mark.parametrize("shape", ["lists", "dicts"])
def test_one_limit_of_depth_holds_on_both_sides(shape):
    """C5: what a dispatch takes, the endpoint reads; what is deeper is refused by the dispatch."""

    @task(name="size.deep")
    def work(x: JsonValue) -> None: ...

    catalogue.remove(work)

    def deep(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value] if shape == "lists" else {"a": value}
        return value

    chosen = work.options(dispatcher=NullDispatcher())
    limit = EndpointSettings.model_fields["max_depth"].default
    taken = [n for n in range(100, 200) if chosen.dispatch(x=deep(n)).ok]

    assert taken == list(range(100, MAX_DEPTH))
    body = encode(work.request(x=deep(taken[-1])))
    assert not is_deeper(body, limit)
    assert work.reader(body)["payload"] == {"x": deep(taken[-1])}
