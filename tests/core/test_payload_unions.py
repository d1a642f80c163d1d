"""C5: a union is refused when one JSON value could be read as two different values of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import pathlib
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    UUID4,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    FutureDate,
    JsonValue,
    PastDate,
    StringConstraints,
    Tag,
    model_validator,
)
from typing_extensions import TypeAliasType, TypedDict

from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.errors import DeclarationError
from dispatchers.testing.conformance._tools import label


class Word(enum.StrEnum):
    YES = "yes"


class Letter(enum.Enum):
    A = "a"


class Again(enum.Enum):
    YES = "yes"


class Level(enum.IntEnum):
    HIGH = 1


class Ninth(enum.IntEnum):
    NINTH = 9


class Card(BaseModel):
    kind: Literal["card"]
    number: int = 0


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"
    amount: int = 0


class Coin(BaseModel):
    kind: Literal["coin"] = "coin"


class Letters(BaseModel):
    kind: Letter


class Plain(BaseModel):
    number: int = 0


class Checked(BaseModel):
    number: int = 0

    @model_validator(mode="after")
    def _check(self) -> Checked:
        return self


class Checking(Card):
    @model_validator(mode="before")
    @classmethod
    def _check(cls, value: Any) -> Any:
        return value


class Nesting(BaseModel):
    inner: list[uuid.UUID | str] = []


@dataclasses.dataclass
class Cheque:
    kind: Literal["cheque"]


@dataclasses.dataclass
class Nested:
    inner: dict[str, bytes | str]


class Row(TypedDict):
    kind: Literal["row"]


class Bare(TypedDict):
    number: int


class Tree(BaseModel):
    children: list[Tree] = []
    value: int | str | None = None


Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | str | int | None")
Dates = TypeAliasType("Dates", "list[Dates] | dt.date")
Words = TypeAliasType("Words", "list[Words] | str")


def codec_of(annotation: Any) -> PayloadCodec:
    def task(x) -> None: ...

    task.__annotations__["x"] = annotation
    return PayloadCodec(task)


UNAMBIGUOUS = [
    int | str,
    bool | int | str | None,
    int | None,
    float | bool,
    uuid.UUID | int,
    uuid.UUID | UUID4,
    PastDate | FutureDate,
    dt.datetime | None,
    dt.datetime | int,
    str | list[str],
    list[int] | None,
    list[int] | list[str],
    list[int] | list[uuid.UUID],
    list[dict[str, int]] | list[str],
    tuple[int, int] | tuple[int, int, int],
    tuple[str, uuid.UUID] | tuple[int, str],
    dict[str, int] | dict[str, uuid.UUID],
    dict[str, int] | list[int],
    dict[str, int | str],
    Annotated[str, Field(max_length=3)] | Annotated[str, Field(min_length=5)],
    Annotated[int, Field(gt=3)] | None,
    Literal["a"] | Annotated[str, Field(max_length=3)],
    Literal[1] | str,
    Literal["now"] | dt.datetime,
    Literal["all"] | list[uuid.UUID],
    Literal["auto"] | dt.timedelta | None,
    Letter | Word,
    Letter | int,
    Letter | Literal["b"],
    Ninth | bool,
    Word | uuid.UUID,
    Card | None,
    Card | str,
    Card | Cash,
    Card | Coin,
    Card | Cheque | Row,
    Card | Letters,
    Annotated[Card | Cash, Field(discriminator="kind")],
    Annotated[
        Annotated[Card, Tag("a")] | Annotated[Plain, Tag("b")],
        Discriminator(lambda v: "a"),
    ],
    list[Card | Cash],
    Any | None,
    Any | int,
    Any | list[Any],
    JsonValue | None,
    Tree,
    Json,
    Dates,
    Words,
]

AMBIGUOUS = [
    (uuid.UUID | str, "UUID", "str"),
    (dt.datetime | str, "datetime", "str"),
    (bytes | str, "bytes", "str"),
    (Decimal | str, "Decimal", "str"),
    (Decimal | int, "Decimal", "int"),
    (Decimal | float, "Decimal", "float"),
    (dt.date | dt.datetime, "date", "datetime"),
    (dt.date | dt.timedelta | None, "date", "timedelta"),
    (int | float, "int", "float"),
    (pathlib.Path | str, "str with a validator", "str"),
    (list[int] | tuple[int, ...], "list[int]", "tuple"),
    (list[int] | set[int], "list[int]", "set[int]"),
    (list[uuid.UUID] | list[str], "list[UUID]", "list[str]"),
    (list[list[uuid.UUID]] | list[list[str]], "list[list[UUID]]", "list[list[str]]"),
    (tuple[int, str] | tuple[int, uuid.UUID], "tuple", "tuple"),
    (tuple[str, ...] | tuple[uuid.UUID, ...], "tuple", "tuple"),
    (dict[str, str] | dict[str, uuid.UUID], "dict", "dict"),
    (dict[str, str] | dict[int, str], "dict", "dict"),
    (Word | str, "Word", "str"),
    (Word | Again, "Word", "Again"),
    (Literal["yes"] | Word, "Literal['yes']", "Word"),
    (Literal["2024-01-01"] | dt.date, "Literal['2024-01-01']", "date"),
    (Level | int, "Level", "int"),
    (Level | bool, "Level", "bool"),
    (Any | uuid.UUID, "Any", "UUID"),
    (JsonValue | float, "Any", "float"),
    (Card | dict[str, int | str], "Card", "dict"),
    (str | Annotated[str, StringConstraints(to_upper=True)], "str", "str"),
    (str | Annotated[str, BeforeValidator(str.upper)], "str", "str with a validator"),
    (Words | dt.date, "str", "date"),
]

ALIKE = [
    (Card | Plain, "Card", "Plain"),
    (Plain | Checked, "Plain", "Checked"),
    (Cash | Coin, "Cash", "Coin"),
    (Card | Checking, "Card", "Checking"),
    (Plain | Bare, "Plain", "Bare"),
]


@pytest.mark.parametrize("annotation", UNAMBIGUOUS, ids=label)
def test_a_union_whose_members_json_tells_apart_is_admitted(annotation: Any) -> None:
    """C5: each JSON value is read by one member, or by several with the same result."""
    codec_of(annotation).check()


@pytest.mark.parametrize(("annotation", "left", "right"), AMBIGUOUS, ids=label)
def test_a_union_whose_members_json_cannot_tell_apart_is_refused(
    annotation: Any, left: str, right: str
) -> None:
    """C5: refused when the task is declared, naming both members."""
    codec = codec_of(annotation)

    with pytest.raises(DeclarationError) as caught:
        codec.check()

    assert str(caught.value).startswith(
        f"parameter 'x' is a union of {left} and {right}, "
        "and one JSON value could be read as either: "
    )


@pytest.mark.parametrize(("annotation", "left", "right"), ALIKE, ids=label)
def test_objects_without_a_field_that_tells_them_apart_are_refused(
    annotation: Any, left: str, right: str
) -> None:
    """C5: the cure is a discriminator."""
    codec = codec_of(annotation)

    with pytest.raises(DeclarationError) as caught:
        codec.check()

    assert f"parameter 'x' is a union of {left} and {right}, and one JSON" in str(caught.value)
    assert "name it with Field(discriminator='kind')" in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "cure"),
    [(int | float, "annotate it as float, which takes"), (bytes | str, "keep one of them")],
)
def test_the_cure_fits_the_members(annotation: Any, cure: str) -> None:
    """C5: what the author of the task is to do stands at the end."""
    with pytest.raises(DeclarationError, match=cure):
        codec_of(annotation).check()


@pytest.mark.parametrize(
    ("annotation", "path"),
    [
        (list[uuid.UUID | str], "x[]"),
        (tuple[int, uuid.UUID | str], "x[]"),
        (dict[str, uuid.UUID | str], "x[]"),
        (dict[int | str, int], "x[key]"),
        (dict[uuid.UUID | str, int], "x[key]"),
        (Nesting, "x.inner[]"),
        (dict[str, list[Nesting]] | None, "x[][].inner[]"),
        (Nested, "x.inner[]"),
        (Annotated[Nesting, BeforeValidator(lambda v: v)], "x.inner[]"),
    ],
    ids=label,
)
def test_an_ambiguous_union_is_found_wherever_it_is(annotation: Any, path: str) -> None:
    """C5: in containers, keys, models and dataclasses alike, with the path to it."""
    codec = codec_of(annotation)

    with pytest.raises(DeclarationError) as caught:
        codec.check()

    assert f"parameter {path!r} is a union" in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Literal["now"] | dt.datetime, "now"),
        (Card | Cash, Cash(amount=3)),
        (Card | Cheque | Row, Cheque("cheque")),
        (list[int] | list[uuid.UUID], [uuid.UUID(int=1)]),
        (tuple[int, int] | tuple[int, int, int], (1, 2, 3)),
        (Letter | Word, Word.YES),
        (int | str, "1"),
        (bool | int, True),
        (bool | int, 1),
        (Json, {"a": [1, "b", None]}),
        (Dates, [dt.date(2024, 1, 1), [dt.date(1960, 1, 1)]]),
        (Tree, Tree(children=[Tree(value="1"), Tree(value=1)])),
    ],
    ids=label,
)
def test_members_of_an_admitted_union_arrive_as_themselves(annotation: Any, value: Any) -> None:
    """C5: what is admitted does travel."""
    codec = codec_of(annotation)

    arrived = codec.decode(codec.encode({"x": value}))["x"]

    assert arrived == value
    assert type(arrived) is type(value)
