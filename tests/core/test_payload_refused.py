"""C5: what JSON cannot carry exactly is refused when it is encoded, by field and with the cure."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import re
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    PlainValidator,
    PrivateAttr,
    Secret,
    SecretStr,
    StringConstraints,
    field_validator,
)
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.errors import PayloadError

BERLIN = ZoneInfo("Europe/Berlin")
NAIVE = dt.datetime(2024, 1, 1)
NAN = float("nan")
INFINITY = float("inf")


class Word(enum.StrEnum):
    YES = "yes"


class Level(enum.IntEnum):
    HIGH = 1


class Colour(enum.Enum):
    RED = 1
    MIXED = (1, 2)


class Text(str):
    __slots__ = ()


class Line(BaseModel):
    at: dt.datetime | None = None
    tags: list[Any] = []


class LongLine(Line):
    extra: int = 1


class Order(BaseModel):
    model_config = ConfigDict(extra="allow")
    lines: list[Line] = []


class Private(BaseModel):
    shown: int = 1
    _hidden: int = PrivateAttr(default=0)


class Excluding(BaseModel):
    kept_back: str = Field(default="", exclude=True)


class Shouting(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def _loud(cls, value: str) -> str:
        return value.upper()


class Holder(BaseModel):
    held: Any = None


class Pair(NamedTuple):
    left: int
    right: int


class Row(TypedDict):
    number: int


@dataclasses.dataclass
class Point:
    x: int


@dataclasses.dataclass
class Point3(Point):
    z: int = 0


@dataclasses.dataclass
class Stamped:
    at: dt.datetime


class Record:
    """Like an ORM's: JSON knows nothing of it."""

    number = 7


class Hostile:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("do not compare me")

    __hash__ = None


class _Carried:
    """A type with a schema of its own, which travels as a whole number."""

    def __init__(self, number: int) -> None:
        self.number = number

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.int_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda v: v.number),
        )


class Raising(_Carried):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("do not compare me")

    __hash__ = None


class ArrayLike(_Carried):
    def __eq__(self, other: object) -> Any:
        return [True]

    __hash__ = None


def private() -> Private:
    value = Private()
    value._hidden = 5
    return value


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def cyclic_list() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def cyclic_model() -> Holder:
    value = Holder()
    value.held = {"again": value}
    return value


def codec_of(annotation: Any) -> PayloadCodec:
    def task(x) -> None: ...

    task.__annotations__["x"] = annotation
    return PayloadCodec(task)


# annotation, value, path, words of the message: what it is, and the cure
REFUSED = [
    (int, True, "x", "is a bool, which would arrive as an int, its base: pass int(...) of it"),
    (int, "1", "x", "is a str, and should be a valid integer"),
    (int, 1.0, "x", "is a float, and should be a valid integer"),
    (bool, 1, "x", "is an int, and should be a valid boolean"),
    (str, 5, "x", "is an int, and should be a valid string"),
    (float, True, "x", "is a bool, which JSON would turn into a float: pass a float"),
    (float, 2**53 + 1, "x", "is an int, which JSON would turn into a float"),
    (
        uuid.UUID,
        str(uuid.UUID(int=5)),
        "x",
        "is a str, which JSON would turn into a UUID: pass a UUID",
    ),
    (Decimal, 1, "x", "is an int, which JSON would turn into a Decimal: pass a Decimal"),
    (Decimal, 1.5, "x", "is a float, which JSON would turn into a Decimal"),
    (dt.datetime, dt.date(2024, 1, 1), "x", "is a date, and should be a valid datetime"),
    (dt.date, NAIVE, "x", "is a datetime, and should be a valid date"),
    (dt.timedelta, 5, "x", "is an int, and should be a valid duration"),
    (Literal["a"], "b", "x", "is a str, and should be 'a'"),
    (Annotated[int, Field(gt=2)], 1, "x", "is an int, and should be greater than 2"),
    (Annotated[str, Field(max_length=1)], "ab", "x", "should have at most 1 character"),
    # numbers that JSON has not
    *[
        (
            annotation,
            value,
            path,
            "is NaN or infinite, for which JSON has no number: pass None, or text",
        )
        for annotation, value, path in (
            (float, NAN, "x"),
            (float, -INFINITY, "x"),
            (float | None, NAN, "x"),
            (Any, NAN, "x"),
            (list[float], [1.0, INFINITY], "x[1]"),
            (dict[str, Any], {"a": {"b": NAN}}, "x.a.b"),
            (dict[float, int], {1.5: 1, INFINITY: 2}, "x[key 1]"),
            (Decimal, Decimal("NaN"), "x"),
            (Decimal, Decimal("-Infinity"), "x"),
            (JsonValue, [NAN], "x[0]"),
            (Any, [-INFINITY], "x[0]"),
        )
    ],
    (
        int,
        10**4300,
        "x",
        "is an int of 4300 digits or more, which would not be read again: pass text",
    ),
    (list[Any], [1, -(10**5000)], "x[1]", "is an int of 4300 digits or more"),
    # text that UTF-8 cannot carry
    *[
        (
            annotation,
            value,
            path,
            "is text with a lone surrogate, which UTF-8 cannot carry: encode it",
        )
        for annotation, value, path in (
            (str, "\ud800", "x"),
            (str | None, "a\udfff", "x"),
            (list[str], ["a", "\ud800"], "x[1]"),
            (dict[str, int], {"a": 1, "\ud800": 2}, "x[key 1]"),
            (Line, Line(tags=["\ud800"]), "x.tags[0]"),
            (Any, {"a": "\ud800"}, "x.a"),
        )
    ],
    # instants
    *[
        (
            annotation,
            value,
            path,
            "is a datetime without a time zone, which names no instant: pass an aware",
        )
        for annotation, value, path in (
            (dt.datetime, NAIVE, "x"),
            (dt.datetime | None, NAIVE, "x"),
            (list[dt.datetime], [NAIVE], "x[0]"),
            (Line, Line(at=NAIVE), "x.at"),
            (Stamped, Stamped(NAIVE), "x.at"),
            (dict[dt.datetime, int], {NAIVE: 1}, "x[key 0]"),
        )
    ],
    (
        dt.datetime,
        dt.datetime(1850, 1, 1, tzinfo=BERLIN),
        "x",
        "has a time zone that JSON cannot carry: pass it in UTC",
    ),
    (dt.time, dt.time(1, tzinfo=BERLIN), "x", "has a time zone that JSON cannot carry"),
    # containers
    (
        list[int],
        (i for i in [1]),
        "x",
        "is a generator, which JSON would turn into a list: pass a list",
    ),
    (tuple[int, ...], [1], "x", "is a list, which JSON would turn into a tuple: pass a tuple"),
    (tuple[int, str], (1,), "x[1]", "is missing: pass it"),
    (set[int], [1], "x", "is a list, which JSON would turn into a set: pass a set"),
    (list[int], range(3), "x", "is a range, which JSON cannot carry"),
    (Any, {1, 2}, "x", "is a set, which JSON would turn into a list"),
    (Any, {"a": [1, {"b": {1}}]}, "x.a[1].b", "is a set, which JSON would turn into a list"),
    (Any, b"ab", "x", "is a bytes, which JSON would turn into a str"),
    (
        Any,
        dt.date(2024, 1, 1),
        "x",
        "is a date, which JSON would turn into a str: pass a str, or annotate it as a date",
    ),
    (
        object,
        Line(),
        "x",
        "is a Line, which JSON would turn into a dict: pass a dict, or annotate it as a Line",
    ),
    (JsonValue, {"a": {1}}, "x.a", "is a set, which JSON would turn into a list"),
    (
        collections.deque[int],
        collections.deque([1], maxlen=3),
        "x",
        "has a greatest length, which does not travel",
    ),
    (
        collections.defaultdict[str, int],
        collections.defaultdict(lambda: 3, a=1),
        "x",
        "has a default factory, which does not travel: pass a dict",
    ),
    (Pair, (1, 2), "x", "is a tuple, which JSON would turn into a Pair: pass a Pair"),
    (tuple[int, int], Pair(1, 2), "x", "is a Pair, which would arrive as a tuple, its base"),
    # keys
    (
        Any,
        {1: "a"},
        "x[key 0]",
        "has an int for its key, which JSON would turn into a str: pass text, or annotate",
    ),
    (
        dict[str, int],
        {1: 1},
        "x[key 0]",
        "has an int for its key, which JSON would turn into a str",
    ),
    (dict[int, int], {True: 1}, "x[key 0]", "has a bool for its key"),
    (
        dict[int, str],
        {1: "a", "1": "b"},
        "x",
        "has keys that are one and the same key in JSON: give each",
    ),
    (Any, {"a": {1: "a", "1": "b"}}, "x.a", "has keys that are one and the same key in JSON"),
    (
        dict[tuple[int, int], int],
        {(1, 2): 1},
        "x[key 0]",
        "has a tuple for its key, and should be a valid array",
    ),
    (dict[Colour, int], {Colour.RED: 1}, "x[key 0]", "has a Colour for its key"),
    (Row, {"number": 1, "more": 2}, "x.more", "is not known to its annotation: drop it"),
    # objects
    (
        Line,
        LongLine(),
        "x",
        "is a LongLine, which would arrive as a Line, its base: pass a plain Line, or annotate",
    ),
    (list[Line], [Line(), LongLine()], "x[1]", "is a LongLine, which would arrive as a Line"),
    (
        Order,
        Order(lines=[Line(tags=["a", {1}])]),
        "x.lines[0].tags[1]",
        "is a set, which JSON would turn",
    ),
    (
        Order,
        Order.model_validate({"more": {1}}),
        "x.more",
        "is a set, which JSON would turn into a list",
    ),
    (Line, {"tags": []}, "x", "is a dict, which JSON would turn into a Line: pass a Line"),
    (Line, Line.model_construct(tags=7), "x.tags", "is an int, and should be a valid array"),
    (Point, Point3(1), "x", "is a Point3, which would arrive as a Point, its base"),
    (
        Private,
        private(),
        "x._hidden",
        "is a private attribute, which does not travel: make it a field",
    ),
    (
        Excluding,
        Excluding(kept_back="a"),
        "x.kept_back",
        "is a str whose value would arrive altered",
    ),
    (
        Shouting,
        Shouting.model_construct(text="a"),
        "x.text",
        "is a str whose value would arrive altered",
    ),
    (
        Annotated[str, StringConstraints(strip_whitespace=True)],
        " a",
        "x",
        "whose value would arrive altered",
    ),
    (
        Annotated[int, AfterValidator(lambda v: v + 1)],
        1,
        "x",
        "is an int whose value would arrive altered",
    ),
    (
        re.Pattern,
        re.compile("a", re.IGNORECASE),
        "x",
        "is a Pattern whose value would arrive altered",
    ),
    (
        Annotated[float, AfterValidator(abs)],
        -0.0,
        "x",
        "is a float whose value would arrive altered",
    ),
    (
        Annotated[Decimal, AfterValidator(Decimal.normalize)],
        Decimal("1.10"),
        "x",
        "is a Decimal whose",
    ),
    (
        Annotated[set[int], AfterValidator(lambda v: v | {9})],
        {1},
        "x",
        "is a set whose value would",
    ),
    (
        Annotated[list[Any], AfterValidator(lambda v: [bool(v)])],
        [1],
        "x[0]",
        "is an int, which JSON",
    ),
    (
        Annotated[dt.datetime, PlainValidator(dt.datetime.fromisoformat)],
        NAIVE,
        "x",
        "is a datetime without a time zone",
    ),
    (Colour, Colour.MIXED, "x", "is a Colour, and should be 1 or (1, 2)"),
    (Colour, 1, "x", "is an int, which JSON would turn into a Colour: pass a Colour"),
    (
        SecretStr,
        SecretStr("swordfish"),
        "x",
        "is a SecretStr, which is masked in JSON: pass the name under which",
    ),
    (list[Secret[int]], [Secret[int](3)], "x[0]", "is a Secret, which is masked in JSON"),
    (
        Any,
        Record(),
        "x",
        "is a Record, which JSON cannot carry: pass an identifier, or plain values",
    ),
    (Line, Record(), "x", "is a Record, which JSON would turn into a Line"),
    (list[Any], [1, Record()], "x[1]", "is a Record, which JSON cannot carry"),
    (Line, Line(tags=[Record()]), "x.tags[0]", "is a Record, which JSON cannot carry"),
    (Any, Hostile(), "x", "is a Hostile, which JSON cannot carry"),
    (Any, print, "x", "is a builtin_function_or_method, which JSON cannot carry"),
    (Raising, Raising(1), "x", "is a Raising whose value would arrive altered"),
    (ArrayLike, ArrayLike(1), "x", "is an ArrayLike whose value would arrive altered"),
    # shapes
    (
        Any,
        cyclic_list(),
        "x" + "[0]" * 38 + "[0...",
        "nests too deeply, or contains itself: pass an identifier, or flatten it",
    ),
    (Holder, cyclic_model(), None, "nests too deeply, or contains itself"),
    (Any, nested(10_000), None, "nests too deeply, or contains itself"),
    (list[Any], nested(160), None, "nests too deeply, or contains itself"),
]


@pytest.mark.parametrize(
    ("annotation", "value", "path", "words"),
    REFUSED,
    ids=lambda x: x if isinstance(x, str) else "-",
)
def test_what_would_not_arrive_as_it_is_names_its_field_and_the_cure(
    annotation: Any, value: Any, path: str | None, words: str
) -> None:
    """C5: refused before any contact, with the path, what the value is, and what to do."""
    codec = codec_of(annotation)

    with pytest.raises(PayloadError) as caught:
        codec.encode({"x": value})

    assert words in str(caught.value)
    assert path is None or caught.value.path == path
    assert str(caught.value).startswith(f"argument {caught.value.path!r} ")


SECRET = "swordfish-4711"


class Card(BaseModel):
    kind: Literal["card"]


class Cash(BaseModel):
    kind: Literal["cash"]


class Careless(BaseModel):
    word: str

    @field_validator("word")
    @classmethod
    def _check(cls, value: str) -> str:
        raise ValueError(f"do not say {value}")


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, SECRET),
        (uuid.UUID, SECRET),
        (dt.datetime, SECRET),
        (Decimal, SECRET),
        (Word, SECRET),
        (Literal["a"], SECRET),
        (list[int], [SECRET]),
        (dict[int, int], {SECRET: 1}),
        (dict[str, int], {SECRET: SECRET}),
        (Line, {"at": SECRET}),
        (Row, {SECRET: 1}),
        (Annotated[str, Field(max_length=3)], SECRET),
        (Annotated[str, Field(pattern="^a$")], SECRET),
        (SecretStr, SecretStr(SECRET)),
        (Any, {SECRET}),
        (Any, {SECRET: {1}}),
        (Any, f"{SECRET}\ud800"),
        (Careless, Careless.model_construct(word=SECRET)),
        (Annotated[Card | Cash, Field(discriminator="kind")], {"kind": SECRET}),
    ],
    ids=str,
)
def test_messages_never_show_a_value(annotation: Any, value: Any) -> None:
    """C4: payloads never appear in messages, nor in what a traceback would chain to them."""
    codec = codec_of(annotation)

    with pytest.raises(PayloadError) as caught:
        codec.encode({"x": value})

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_deep_value_near_the_recursion_limit_is_refused_too() -> None:
    """C5: 150 levels are admitted, so that the envelope can still be read around them."""
    codec = codec_of(list[Any])

    assert codec.decode(codec.encode({"x": nested(147)}))["x"] == nested(147)
    with pytest.raises(PayloadError, match="nests too deeply"):
        codec.encode({"x": nested(151)})


def test_brackets_in_text_are_no_nesting() -> None:
    """C5: depth is what the JSON reader counts, not how many brackets there are."""
    codec = codec_of(Any)

    assert codec.decode(codec.encode({"x": ["[{" * 500, [[]]]}))["x"] == ["[{" * 500, [[]]]


def test_the_arguments_stay_as_they_were() -> None:
    """C5: encoding changes nothing in the caller's hands."""
    codec = codec_of(Line)
    line = Line(tags=[1, {"a": [2]}])
    arguments = {"x": line}

    codec.encode(arguments)

    assert arguments == {"x": Line(tags=[1, {"a": [2]}])}
    assert arguments["x"] is line
