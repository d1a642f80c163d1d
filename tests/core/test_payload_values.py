"""C5: values that are typed in the task's signature arrive equal and of the same type."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import fractions
import ipaddress
import json
import os
import pathlib
import re
import subprocess
import sys
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    Json,
    JsonValue,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from dispatchers._payload.codec import PayloadCodec
from dispatchers.testing.conformance._tools import label

UTC = dt.UTC
BERLIN = ZoneInfo("Europe/Berlin")
IDENTIFIER = uuid.UUID("12345678-1234-5678-1234-567812345678")


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 0
    HIGH = 1


class Word(enum.StrEnum):
    YES = "yes"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Line(BaseModel):
    at: dt.datetime = dt.datetime(2024, 1, 1, tzinfo=UTC)
    blob: bytes = b""
    notes: list[str] = []


class Lenient(BaseModel):
    model_config = ConfigDict(strict=False, ser_json_bytes="utf8", ser_json_timedelta="float")
    blob: bytes
    length: dt.timedelta


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")
    first_name: str = Field(alias="firstName")
    validation_alias: int = Field(default=1, validation_alias="a", serialization_alias="b")

    @computed_field
    @property
    def initial(self) -> str:
        return self.first_name[:1]


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    known: int


class Checked(BaseModel):
    low: int
    high: int

    @field_validator("low")
    @classmethod
    def _positive(cls, value: int) -> int:
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Checked:
        if self.low > self.high:
            raise ValueError("turned round")
        return self


class Private(BaseModel):
    shown: int
    _hidden: int = PrivateAttr(default=0)


class Excluding(BaseModel):
    shown: int
    kept_back: str = Field(default="", exclude=True)


class Defaulting(BaseModel):
    """Its default looks like a core schema, and is none."""

    value: dict[str, Any] = {"type": "int", "strict": True, "schema": {"type": "float"}}


class Numbers(RootModel[list[int]]):
    pass


class Tree(BaseModel):
    value: int | str
    children: list[Tree] = []


class Keyed(BaseModel):
    """Fields named like the keys of a core schema, which must not be taken for those."""

    type: str
    schema_: int = Field(alias="schema")
    strict: bool
    config: dict[str, Any]
    choices: list[int]


@dataclasses.dataclass
class Point:
    x: int
    blob: bytes = b""
    norm: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        self.norm = abs(self.x)


@dataclasses.dataclass(eq=False, slots=True)
class Slotted:
    x: int


class Pair(NamedTuple):
    day: dt.date
    amount: Decimal


class Row(TypedDict):
    number: int
    code: NotRequired[uuid.UUID]


Days = NewType("Days", int)


def codec_of(annotation: Any) -> PayloadCodec:
    def task(x) -> None: ...

    task.__annotations__["x"] = annotation
    return PayloadCodec(task)


def at(year: int, *rest: int, tz: dt.tzinfo = UTC) -> dt.datetime:
    return dt.datetime(year, *(rest or (1, 1)), tzinfo=tz)


SCALARS = [
    *[(int, value) for value in (0, -1, 2**53 + 1, -(2**63), 2**64, 10**400, -(10**4298))],
    *[(float, value) for value in (0.0, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, -1.5, 1e22)],
    *[(bool, value) for value in (True, False)],
    *[(str, value) for value in ("", "grün", "\0", "\U0001f600", '"\\/', "\u2028")],
    *[(bytes, value) for value in (b"", b"text", bytes(range(256)), b"\xff\xfe")],
    (type(None), None),
    (uuid.UUID, IDENTIFIER),
    *[
        (Decimal, Decimal(value))
        for value in ("1.10", "1.1", "0E+5", "-0", "1E+400", "1E-400", "123456789012345678901.5")
    ],
    *[(dt.date, value) for value in (dt.date.min, dt.date.max, dt.date(1950, 2, 3))],
    *[
        (dt.timedelta, value)
        for value in (
            dt.timedelta(0),
            dt.timedelta(days=-1, microseconds=1),
            dt.timedelta(microseconds=-1),
            dt.timedelta(days=400, microseconds=7),
            dt.timedelta.max,
            dt.timedelta.min,
        )
    ],
    *[(dt.time, value) for value in (dt.time(0), dt.time(1, 2, 3, 4), dt.time.max)],
    (dt.time, dt.time(1, 2, tzinfo=UTC)),
    *[
        (dt.datetime, value)
        for value in (
            at(1960, 1, 1, 1, 1, 1, 5),
            at(1),
            at(9999, 12, 31, 23, 59, 59, 999999),
            dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=3))),
            dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30))),
            at(2024, 7, 1, 12, tz=BERLIN),
        )
    ],
    *[(Colour, member) for member in Colour],
    (Level, Level.HIGH),
    (Word, Word.YES),
    (Rights, Rights.READ),
    (Literal["a", 1] | None, 1),
    (Literal[Word.YES], Word.YES),
    (Days, 5),
    (pathlib.Path, pathlib.Path("/var/log")),
    (pathlib.PurePosixPath, pathlib.PurePosixPath("a/b")),
    *[(type(value), value) for value in map(ipaddress.ip_address, ("192.0.2.1", "2001:db8::1"))],
    (ipaddress.IPv4Network, ipaddress.ip_network("192.0.2.0/24")),
    (fractions.Fraction, fractions.Fraction(-1, 3)),
    (complex, 1 + 2j),
    (ZoneInfo, BERLIN),
    (re.Pattern, re.compile("a+")),
    (HttpUrl, HttpUrl("https://example.com/a?b=c")),
]

COMPOSITES = [
    (Json[list[int]], [1, 2]),
    (list[int], []),
    (list[bytes], [b"\xff", b""]),
    (tuple[int, ...], (1, 2)),
    (tuple[int, str, dt.date], (1, "a", dt.date(1969, 1, 1))),
    (tuple[()], ()),
    (set[uuid.UUID], {IDENTIFIER, uuid.UUID(int=0)}),
    (set[dt.datetime], {at(2024), at(2024, 2, 2, tz=BERLIN)}),
    (frozenset[str], frozenset({"a", "b"})),
    (collections.deque[int], collections.deque([1, 2])),
    (collections.OrderedDict[str, int], collections.OrderedDict(b=1, a=2)),
    (collections.defaultdict[str, int], collections.defaultdict(int, a=1)),
    (collections.Counter[str], collections.Counter("aab")),
    (dict[str, int], {"a": 1, "": 2, "ü": 3}),
    (dict[int, str], {1: "a", -2: "b", 2**70: "c"}),
    (dict[uuid.UUID, Decimal], {IDENTIFIER: Decimal("1.0")}),
    (dict[Word, int], {Word.YES: 1}),
    (dict[Level, int], {Level.LOW: 1}),
    (dict[dt.date, int], {dt.date(1960, 1, 1): 1}),
    (dict[Literal["a", "b"], list[int]], {"a": [1]}),
    (dict[str, dict[int, list[bytes]]], {"a": {1: [b"\x80"]}}),
    (int | str | None, "1"),
    (dt.datetime | None, None),
    (Literal["now"] | dt.datetime, "now"),
    (Literal["now"] | dt.datetime, at(2024)),
    (list[int] | dict[str, int], {"a": 1}),
    (Annotated[int, Field(ge=0)] | None, 3),
    (Annotated[int, ["without a hash"]], 3),
    (Any, {"a": [1, 2.5, None, True, "x", {"b": []}]}),
    (object, ["a", -0.0]),
    (dict, {"a": 1}),
    (list, [1, "a"]),
    (JsonValue, {"a": [None, {"b": 1}]}),
    (Line, Line(at=at(1960, tz=BERLIN), blob=b"\xff", notes=["a"])),
    (list[Line], [Line(), Line(blob=b"\x00\x80")]),
    (Lenient, Lenient(blob=b"\xfe", length=dt.timedelta(days=-1, microseconds=1))),
    (Aliased, Aliased.model_validate({"firstName": "Ada", "a": 2})),
    (Open, Open.model_validate({"known": 1, "more": [1, "a"]})),
    (Checked, Checked(low=1, high=2)),
    (Private, Private(shown=1)),
    (Excluding, Excluding(shown=1)),
    (Numbers, Numbers([1, 2])),
    (Defaulting, Defaulting()),
    (Tree, Tree(value=1, children=[Tree(value="a")])),
    (Keyed, Keyed(type="int", schema=1, strict=True, config={"strict": 1}, choices=[1])),
    (Point, Point(-3, b"\xff")),
    (dict[str, Point], {"a": Point(1)}),
    (Pair, Pair(dt.date(2024, 1, 1), Decimal("2.50"))),
    (Row, {"number": 1}),
    (Row, {"number": 1, "code": IDENTIFIER}),
]


@pytest.mark.parametrize(("annotation", "value"), SCALARS + COMPOSITES, ids=label)
def test_a_value_arrives_equal_and_of_the_same_type(annotation: Any, value: Any) -> None:
    """C5: what a task's annotation admits arrives equal and of the same type."""
    codec = codec_of(annotation)

    arrived = codec.decode(codec.encode({"x": value}))["x"]

    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize(("annotation", "value"), SCALARS, ids=label)
def test_a_value_arrives_the_same_wherever_it_is_nested(annotation: Any, value: Any) -> None:
    """C5: nesting changes nothing, in containers as in a model with other settings of its own."""

    class Holder(BaseModel):
        model_config = ConfigDict(strict=False, ser_json_bytes="utf8")
        held: annotation

    codec = codec_of(dict[str, list[Holder]])

    arrived = codec.decode(codec.encode({"x": {"k": [Holder(held=value)]}}))["x"]["k"][0]

    assert arrived == Holder(held=value)
    assert type(arrived.held) is type(value)


@pytest.mark.parametrize(("annotation", "value"), SCALARS + COMPOSITES, ids=label)
def test_encoding_what_arrived_gives_the_same_bytes(annotation: Any, value: Any) -> None:
    """C5: a payload may be decoded and encoded again on its way, by a retry or an edit."""
    codec = codec_of(annotation)
    payload = codec.encode({"x": value})

    again = codec.encode(codec.decode(payload))

    assert sorted(again) == sorted(payload)  # a set has no order


@pytest.mark.parametrize(("annotation", "value"), SCALARS + COMPOSITES, ids=label)
def test_parsed_json_decodes_like_its_text(annotation: Any, value: Any) -> None:
    """C5: `decode_python` reads what `to_json_values` wrote, as `decode` what `encode` wrote."""
    codec = codec_of(annotation)

    values = codec.to_json_values({"x": value})

    assert json.loads(json.dumps(values)) == values
    assert codec.decode_python(values) == {"x": value}


def test_a_whole_number_may_be_given_for_a_float() -> None:
    """C5: `3` for a float arrives as `3.0`, as type checkers allow."""
    codec = codec_of(float)

    arrived = codec.decode(codec.encode({"x": 3}))["x"]

    assert arrived == 3.0
    assert type(arrived) is float


@pytest.mark.parametrize("annotation", [float, Any, list[float]])
def test_negative_zero_keeps_its_sign(annotation: Any) -> None:
    """C5: -0.0 equals 0.0 and is yet another value."""
    codec = codec_of(annotation)
    value = [-0.0] if annotation == list[float] else -0.0

    arrived = codec.decode(codec.encode({"x": value}))["x"]

    assert repr(arrived) == repr(value)


@pytest.mark.parametrize("fold", [0, 1])
def test_a_time_in_a_fold_arrives_as_the_same_instant(fold: int) -> None:
    """C5: between zones, such times never compare equal in Python, although they are the same."""
    codec = codec_of(frozenset[dt.datetime])
    doubled = dt.datetime(2023, 10, 29, 2, 30, tzinfo=BERLIN, fold=fold)

    (arrived,) = codec.decode(codec.encode({"x": frozenset({doubled})}))["x"]

    assert arrived.timestamp() == doubled.timestamp()
    assert arrived.utcoffset() == doubled.utcoffset()


@pytest.mark.parametrize("size", [4_000, 5_000, 10 * 2**20])
def test_long_text_arrives_whole(size: int) -> None:
    """C5: size is the transports' business, not the codec's."""
    codec = codec_of(str)
    text = "ü" * size

    arrived = codec.decode(codec.encode({"x": text}))["x"]

    assert arrived == text


def test_the_same_value_may_occur_twice() -> None:
    """C5: an object that occurs twice is no cycle."""
    codec = codec_of(list[Line])
    line = Line(blob=b"\xff")

    arrived = codec.decode(codec.encode({"x": [line, line]}))["x"]

    assert arrived == [line, line]


def test_a_type_without_eq_is_compared_by_what_it_holds() -> None:
    """C5: an instance that compares by identity arrives as an equal one."""
    codec = codec_of(Slotted)

    arrived = codec.decode(codec.encode({"x": Slotted(7)}))["x"]

    assert type(arrived) is Slotted
    assert arrived.x == 7


def test_an_empty_secret_is_no_exception() -> None:
    """C5: what is optional and absent does not matter."""
    codec = codec_of(SecretStr | None)

    arrived = codec.decode(codec.encode({"x": None}))

    assert arrived == {"x": None}


def test_defaults_of_models_are_left_as_they_are() -> None:
    """C5: only schemas are rewritten, not what stands in them."""
    codec = codec_of(Defaulting)

    assert codec.decode(b'{"x":{}}') == {"x": Defaulting()}


def test_none_is_an_argument_like_any_other() -> None:
    """C5: an argument that is None is sent, even where the default is another."""

    def task(x: int | None = 5) -> None: ...

    codec = PayloadCodec(task)

    assert codec.encode({"x": None}) == b'{"x":null}'
    assert codec.decode(b'{"x":null}') == {"x": None}


def test_absent_defaults_stay_absent() -> None:
    """C5: the worker's own default applies, also when it is a newer one."""

    def task(x: int, y: str = "a") -> None: ...

    codec = PayloadCodec(task)

    assert codec.decode(codec.encode({"x": 1})) == {"x": 1}


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_a_set_is_written_in_one_order_by_every_process(seed: str) -> None:
    """C10: a key with the same set is a repetition, whichever process dispatches it."""
    code = (
        "from dispatchers._payload.codec import PayloadCodec\n"
        "def f(x: dict[str, frozenset[str]]) -> None: ...\n"
        "print(PayloadCodec(f).encode({'x': {'a': frozenset('zebra')}}).decode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == '{"x":{"a":["a","b","e","r","z"]}}'
