"""C5: whatever value of an annotation is given, it arrives as it was, or is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import math
import uuid
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.errors import PayloadError


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Order(BaseModel):
    model_config = ConfigDict(ser_json_bytes="utf8")
    number: int
    blob: bytes
    at: dt.datetime | None = None


@dataclasses.dataclass
class Point:
    x: float
    label: str


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
INSTANTS = st.datetimes(timezones=st.just(dt.UTC) | OFFSETS)
ZONED = st.datetimes(
    min_value=dt.datetime(1980, 1, 1), max_value=dt.datetime(2035, 1, 1), timezones=st.timezones()
)

ATOMS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (bool, st.booleans()),
    (str, TEXT),
    (float, FLOATS),
    (bytes, st.binary()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (uuid.UUID, st.uuids()),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.datetime, INSTANTS | ZONED),
    (dt.timedelta, st.timedeltas()),
    (Colour, st.sampled_from(Colour)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (Order, st.builds(Order, number=st.integers(), blob=st.binary(), at=st.none() | INSTANTS)),
    (Point, st.builds(Point, x=FLOATS, label=TEXT)),
]
KEYS = [
    *[ATOMS[i] for i in (0, 2, 5, 6, 7)],
    (dt.datetime, INSTANTS),
]


def nested(depth: int) -> st.SearchStrategy[tuple[Any, Any]]:
    """An annotation, and a strategy for its values, drawn together."""
    atoms = st.sampled_from(ATOMS)
    if not depth:
        return atoms
    inner = nested(depth - 1)
    return st.one_of(
        atoms,
        inner.map(lambda c: (list[c[0]], st.lists(c[1], max_size=3))),
        inner.map(lambda c: (tuple[c[0], ...], st.lists(c[1], max_size=3).map(tuple))),
        st.tuples(inner, inner).map(
            lambda c: (tuple[c[0][0], c[1][0]], st.tuples(c[0][1], c[1][1]))
        ),
        st.sampled_from(KEYS).map(lambda c: (frozenset[c[0]], st.frozensets(c[1], max_size=3))),
        st.tuples(st.sampled_from(KEYS), inner).map(
            lambda c: (dict[c[0][0], c[1][0]], st.dictionaries(c[0][1], c[1][1], max_size=3))
        ),
        inner.map(lambda c: (c[0] | None, st.none() | c[1])),
    )


@functools.cache
def codec_of(annotation: Any) -> PayloadCodec:
    def task(x) -> None: ...

    task.__annotations__["x"] = annotation
    return PayloadCodec(task)


def same(left: Any, right: Any) -> bool:
    """An independent judge of equality: by type, and by a text that tells values apart."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, frozenset):
        return len(left) == len(right) and all(any(same(a, b) for b in right) for a in left)
    if isinstance(left, dict):
        return same([*left.items()], [*right.items()])
    if isinstance(left, (BaseModel, Point)):
        return same(vars(left), vars(right))
    return told(left) == told(right)


def told(value: Any) -> str:
    """Of instants and times, the wall's time and the offset: zones may be called differently."""
    return value.isoformat() if isinstance(value, (dt.datetime, dt.time)) else repr(value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_value_of_its_annotation_arrives_as_it_was(data: st.DataObject) -> None:
    """C5: over all types, nested three deep."""
    annotation, values = data.draw(nested(3))
    value = data.draw(values)
    codec = codec_of(annotation)

    arrived = codec.decode(codec.encode({"x": value}))["x"]

    assert same(value, arrived)


@pytest.mark.parametrize(("annotation", "values"), ATOMS, ids=lambda x: getattr(x, "__name__", "-"))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_short_way_agrees_with_the_long_one(
    annotation: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    """C5: what is trusted by its type is encoded as it would be if it were compared."""
    value = data.draw(values)
    codec = codec_of(annotation)

    assert codec.encode({"x": value}) == codec._encode_exactly({"x": value})


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.uuids()
    | st.datetimes()
    | st.decimals(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "annotation", [Any, int, str, dt.datetime, dict[str, Any], list[float], Order]
)
@settings(max_examples=60, deadline=None)
@given(value=anything)
def test_any_value_at_all_arrives_as_it_was_or_is_refused(annotation: Any, value: Any) -> None:
    """C5: nothing is silently altered, whatever the caller passes for whatever annotation."""
    codec = codec_of(annotation)

    try:
        arrived = codec.decode(codec.encode({"x": value}))["x"]
    except PayloadError:
        return

    assert same(listed(value), arrived) or (annotation == list[float] and list(value) == arrived)


def listed(value: Any) -> Any:
    """The value with lists in place of tuples, which are read as such."""
    if isinstance(value, (list, tuple)):
        return list(map(listed, value))
    if isinstance(value, dict):
        return {key: listed(inner) for key, inner in value.items()}
    return value


@settings(max_examples=100, deadline=None)
@given(value=anything)
def test_json_values_pass_any_and_others_do_not(value: Any) -> None:
    """C5: under `Any`, exactly what JSON itself has is admitted."""
    codec = codec_of(Any)

    try:
        codec.encode({"x": value})
        admitted = True
    except PayloadError:
        admitted = False

    assert admitted == is_json(value)


def is_json(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, (list, tuple)):
        return all(map(is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_json(key) for key in value) and all(
            map(is_json, value.values())
        )
    return value is None or isinstance(value, int)


@settings(max_examples=100, deadline=None)
@given(payload=st.binary())
def test_bytes_that_are_no_payload_raise_nothing_else(payload: bytes) -> None:
    """C11: whatever a transport delivers, it decodes or is refused."""
    codec = codec_of(Order)

    with pytest.raises(PayloadError):
        codec.decode(payload)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_payload_cut_or_altered_anywhere_decodes_or_is_refused(data: st.DataObject) -> None:
    """C11: one byte changed is another payload, never another kind of error."""
    codec = codec_of(dict[str, Order])
    payload = codec.encode({"x": {"a": Order(number=1, blob=b"\xff")}})
    position = data.draw(st.integers(0, len(payload) - 1))
    altered = payload[:position] + data.draw(st.binary(max_size=2)) + payload[position + 1 :]

    try:
        arrived = codec.decode(altered)
    except PayloadError:
        return

    assert all(type(order) is Order for order in arrived["x"].values())
