"""C5: a task's result arrives equal and of the same type, or is refused in words."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, JsonValue

from dispatchers import DeclarationError, PayloadError, declare, task
from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.result import ResultCodec


class Receipt(BaseModel):
    order: int
    parcels: list[str] = []
    inner: Receipt | None = None


@pytest.mark.parametrize(
    ("annotation", "value", "written"),
    [
        (int, 2**60, b"1152921504606846976"),
        (None, None, b"null"),
        (Receipt, Receipt(order=1, inner=Receipt(order=2)), None),
        (tuple[int, str], (1, "a"), b'[1,"a"]'),
        (uuid.UUID, uuid.UUID(int=1), None),
        (Receipt | None, None, b"null"),
        (bytes, b"\x00\xff", b'"AP8="'),
        (Decimal, Decimal("1.00"), b'"1.00"'),
        (list[dt.datetime], [dt.datetime(2026, 1, 2, tzinfo=dt.UTC)], b'["2026-01-02T00:00:00Z"]'),
        (JsonValue, {"a": [1, None, "x"]}, b'{"a":[1,null,"x"]}'),
        (Any, {"a": [1, None, "x"]}, b'{"a":[1,null,"x"]}'),
        (Awaitable[int], 3, b"3"),
    ],
)
def test_a_value_arrives_equal_and_of_the_same_type(annotation, value, written):
    """C5: what is decoded is what was encoded."""
    codec = ResultCodec(annotation)

    body = codec.encode(value)

    assert written in (None, body)
    assert codec.decode(body) == value
    assert type(codec.decode(body)) is type(value)


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (int, "3", "the result is a str"),
        (None, 3, "the result is an int"),
        (float, float("nan"), "NaN"),
        (tuple[int, ...], [1], "would turn into a tuple"),
        (dict[str, int], {1: 2}, "the result[key 0]"),
        (JsonValue, {"a": (uuid.UUID(int=1),)}, "the result.a[0] is a UUID"),
        (JsonValue, object(), "is an object"),
    ],
)
def test_a_value_that_would_change_is_refused(annotation, value, words):
    """C5: what does not fit its annotation is said with its place."""
    with pytest.raises(PayloadError) as found:
        ResultCodec(annotation).encode(value)

    assert words in str(found.value)


@pytest.mark.parametrize("body", [b"", b'1,"x":2', b'"1"', b"1}", b"NaN", b'{"result":1}'])
def test_text_that_is_no_value_is_refused(body):
    """C5: nothing beside the value is taken, and nothing is converted."""
    with pytest.raises(PayloadError):
        ResultCodec(int).decode(body)


@pytest.mark.parametrize(
    "body",
    [
        *(b"1", b"-0", b"1.0", b"1.5", b"-0.0", b"1e400", b"NaN", b"-Infinity", b"9" * 5000),
        *(b"true", b"null", b'"1"', b'"\xc3\xbc"', b'"\xff"', b'"\\ud800"', b" 1 ", b"", b"1,"),
        *(b"[1]", b'{"a":1}', b'"2026-01-02"'),
    ],
)
@pytest.mark.parametrize(
    "annotation",
    [
        *(int, float, str, bool, None, int | str | None, float | None, dt.date, dt.date | None),
        *(Annotated[int, Field(gt=1)], Annotated[str, []]),
    ],
)
def test_a_scalar_is_read_as_an_argument_is(annotation, body):
    """C5: the short way, which most results take, gives what the long one gives."""

    def long_way(result) -> None: ...

    long_way.__annotations__["result"] = annotation
    codec = PayloadCodec(long_way)

    found = _read(lambda: ResultCodec(annotation).decode(body))

    assert found == _read(lambda: codec.decode(b'{"result":%b}' % body)["result"])


def _read(decode: Callable[[], object]) -> object:
    try:
        # As text, since 1 == 1.0 == True, and 0.0 == -0.0.
        return repr(decode())
    except PayloadError:
        return PayloadError


@pytest.mark.parametrize("annotation", [Callable[[], int], Iterator[int], int | float])
def test_a_type_that_cannot_travel_is_refused(annotation):
    """C5: the declaration says that a type has no exact form."""
    with pytest.raises(DeclarationError, match="the 'result'"):
        ResultCodec(annotation)


def test_functions_of_one_annotation_share_a_codec():
    """A function that is made anew for each call costs no codec of its own."""

    def made(annotation) -> Callable[[], object]:
        def function(): ...

        function.__annotations__["return"] = annotation
        return function

    of = ResultCodec.of

    assert of(made(int)) is of(made(int))
    assert of(lambda: 1) is of(lambda: 2)
    assert of(made(int)) is not of(made(bool))
    # Of two members that both fit, the first is taken.
    assert of(made(list[int | str])) is not of(made(list[str | int]))


def test_a_task_has_the_codec_of_its_result():
    """The annotation is read when a result is asked for, not when the task is declared."""

    @task(name="results.async")
    async def plain(order: int) -> list[Receipt]:
        return []

    @task(name="results.unresolved")
    def unresolved(order: int) -> Missing:  # type: ignore[name-defined] # noqa: F821
        ...

    assert plain.results.decode(b'[{"order":1}]') == [Receipt(order=1)]
    assert plain.results is plain.results
    with pytest.raises(DeclarationError, match=r"'results.unresolved' cannot be a step.*Missing"):
        _ = unresolved.results


def test_a_body_without_annotation_has_the_declared_one():
    """A worker writes what the declaring process will read."""

    @declare(name="results.declared")
    def declared(order: int) -> uuid.UUID: ...

    @declared.implement
    def body(order: int):  # type: ignore[no-untyped-def]
        return uuid.UUID(int=order)

    assert declared.results.encode(body(1)) == b'"00000000-0000-0000-0000-000000000001"'
