"""C5: a signature whose arguments could not travel is refused, naming parameter and cure."""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import datetime as dt
import enum
import functools
import subprocess
import sys
import typing
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Generic, TypeVar
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, NaiveDatetime, field_validator

from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.errors import DeclarationError

if TYPE_CHECKING:
    from shop import Absent

T = TypeVar("T")


class Model(BaseModel):
    number: int = 0


class Row(typing.TypedDict):
    number: int


class Box(BaseModel, Generic[T]):
    content: T


class Open(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    inner: Plain | None = None


class Plain:
    pass


class Word(enum.Enum):
    YES = "yes"


class Picky(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def _check(cls, value: int) -> int:
        raise ValueError("never")


def codec_of(annotation: Any) -> PayloadCodec:
    def task(x) -> None: ...

    task.__annotations__["x"] = annotation
    return PayloadCodec(task)


def any_number(*numbers: int) -> None: ...
def any_name(**names: int) -> None: ...
def nameless(number: int, /) -> None: ...
def bare(number, other: int) -> None: ...
def method(self, number: int) -> None: ...
def class_method(cls, number: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            any_number,
            "parameter '*numbers: 'int'' takes any number of arguments: declare one parameter",
        ),
        (any_name, "parameter '**names: 'int'' takes arguments of any name: declare one parameter"),
        (nameless, "parameter \"number: 'int'\" has no name for callers: remove the `/`"),
        (
            bare,
            "parameter 'number' has no annotation, so its values could not be checked: write",
        ),
        (method, "parameter 'self' makes this a method: declare a function of the module"),
        (class_method, "parameter 'cls' makes this a method: declare a function of the module"),
    ],
)
def test_a_parameter_that_no_name_fills_is_refused_at_once(
    function: Callable[..., None], message: str
) -> None:
    """C5: what needs no schema is refused by the constructor."""
    with pytest.raises(DeclarationError) as caught:
        PayloadCodec(function)

    assert message.replace('"', "'") in str(caught.value).replace('"', "'")


@pytest.mark.parametrize("function", [max, 5])
def test_what_has_no_signature_is_refused_at_once(function: Any) -> None:
    """C5: a builtin says nothing about its parameters."""
    with pytest.raises(DeclarationError, match="has no signature that can be read: declare a func"):
        PayloadCodec(function)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (
            Plain,
            "parameter 'x' is annotated with Plain, which JSON cannot carry: pass an identifier",
        ),
        (list[Plain], "parameter 'x' is annotated with list["),
        (bytearray, "parameter 'x' is annotated with bytearray, which JSON cannot carry"),
        (BinaryIO, "parameter 'x' is annotated with BinaryIO, which JSON cannot carry"),
        (
            Iterator[int],
            "which JSON cannot carry: pass an identifier and look the object up in the task",
        ),
        (
            Iterable[int],
            "parameter 'x' is generator[int], which can be read only once: annotate it as a list",
        ),
        (
            Generator[int, None, None],
            "parameter 'x' is generator[int], which can be read only once",
        ),
        (
            Callable[[], int],
            "parameter 'x' is a Callable, which JSON cannot carry: pass a name by which the task",
        ),
        (list[collections.abc.Callable], "parameter 'x[]' is a Callable, which JSON cannot carry"),
        (type[int], "parameter 'x' is a class, which JSON cannot carry: pass a name"),
        (
            Open,
            "parameter 'x.inner' is Plain, which JSON cannot carry: pass an identifier",
        ),
        (
            NaiveDatetime,
            "parameter 'x' takes naive datetimes, which denote no instant: annotate it",
        ),
        (
            T,
            "parameter 'x' is annotated with the type variable T, which stands for no one type",
        ),
        (list[T] | None, "parameter 'x' is annotated with the type variable T"),
        (
            typing.ClassVar[int],
            "parameter 'x' is annotated with typing.ClassVar[int], which JSON cannot carry",
        ),
        *[
            (text, f"parameter 'x' of task has an annotation that is no type ({error}): correct it")
            for text, error in (
                ("1 + 'a'", "TypeError"),
                ("list[", "SyntaxError"),
                ("dt.Nothing", "AttributeError"),
            )
        ],
        (
            "Absent",
            "parameter 'x' of task is annotated with 'Absent', which its module does not",
        ),
        ("list[Absent]", "have at run time: define or import it there, outside `if TYPE_CHECKING`"),
        ("Decimal", "annotated with 'Decimal', which its module does not have at run time"),
    ],
    ids=str,
)
def test_a_type_that_cannot_travel_is_refused_by_check(annotation: Any, message: str) -> None:
    """C5: `check` builds what the constructor left for later."""
    codec = codec_of(annotation)

    with pytest.raises(DeclarationError) as caught:
        codec.check()

    assert message in str(caught.value)


@pytest.mark.parametrize("use", ["encode", "decode", "json_schema", "fingerprint", "core_schema"])
def test_what_check_refuses_is_refused_at_first_use_too(use: str) -> None:
    """C5: nobody has to call `check` to be safe."""
    codec = codec_of(Plain)
    uses: dict[str, Callable[[], Any]] = {
        "encode": lambda: codec.encode({"x": Plain()}),
        "decode": lambda: codec.decode(b"{}"),
        "json_schema": codec.json_schema,
        "fingerprint": lambda: codec.fingerprint,
        "core_schema": lambda: codec.core_schema,
    }

    for _ in range(2):
        with pytest.raises(DeclarationError, match="annotated with Plain"):
            uses[use]()


def test_an_ambiguous_union_of_plain_types_is_refused_at_first_use_too() -> None:
    """C5: the short way through `encode` is none around the checks."""
    codec = codec_of(UUID | str)

    with pytest.raises(DeclarationError, match="a union of UUID and str"):
        codec.encode({"x": "a"})


def default_type(x: int = "1") -> None: ...  # type: ignore[assignment]
def default_none(x: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013
def default_bool(x: int = True) -> None: ...
def default_nested(x: Model = {"number": 1}) -> None: ...  # type: ignore[assignment]  # noqa: B006
def default_field(x: int = Field(default=3)) -> None: ...
def default_naive(x: dt.datetime = dt.datetime(2024, 1, 1)) -> None: ...
def default_second(w: int, x: Word = "yes") -> None: ...  # type: ignore[assignment]
def default_range(x: Annotated[int, Field(gt=3)] = 1) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (default_type, "is a str, and should be a valid integer: correct the one or the other"),
        (default_none, "is None, and should be a valid integer: annotate it as `... | None`"),
        (default_bool, "is a bool, and should be a valid integer"),
        (default_nested, "is a dict, which JSON would turn into a Model: correct the one"),
        (default_field, "is a FieldInfo, and should be a valid integer"),
        (default_naive, "is a datetime without a time zone"),
        (default_second, "is a str, and should be an instance of Word"),
        (default_range, "is an int, and should be greater than 3"),
    ],
)
def test_a_default_that_is_no_value_of_its_annotation_is_refused(
    function: Callable[..., None], message: str
) -> None:
    """C5: the default is what the worker would run with."""
    codec = PayloadCodec(function)

    with pytest.raises(DeclarationError) as caught:
        codec.check()

    assert str(caught.value).startswith("the default of parameter 'x' ")
    assert message in str(caught.value)


def test_a_mutable_default_is_neither_sent_nor_touched() -> None:
    """C5: absent defaults stay absent, so what they contain does not matter."""
    default: dict[str, list[int]] = {"a": [1]}

    def task(x: dict[str, list[int]] = default) -> None: ...

    codec = PayloadCodec(task)
    codec.check()
    codec.decode(b"{}")

    assert codec.decode(codec.encode({})) == {}
    assert default == {"a": [1]}


async def asynchronous(x: int) -> None: ...


@functools.wraps(asynchronous)
def wrapping(*args: Any, **kwargs: Any) -> None: ...


class Holder:
    def method(self, x: int) -> None: ...

    @staticmethod
    def static(x: int) -> None: ...

    @classmethod
    def of_class(cls, x: int) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        asynchronous,
        wrapping,
        Holder().method,
        Holder.static,
        Holder.of_class,
        functools.partial(asynchronous),
    ],
)
def test_functions_of_every_kind_are_read_by_their_own_signature(
    function: Callable[..., Any],
) -> None:
    """C5: async functions, decorated ones and bound ones have the parameters they show."""
    codec = PayloadCodec(function)
    codec.check()

    assert codec.parameters == ("x",)
    assert codec.decode(codec.encode({"x": 1})) == {"x": 1}


def test_a_result_that_does_not_resolve_does_not_matter() -> None:
    """C5: only parameters travel."""

    def task(x: int) -> Absent: ...

    PayloadCodec(task).check()


def test_annotations_may_refer_to_what_its_module_defines_later() -> None:
    """C5: annotations are evaluated at first use, not when the task is declared."""

    def task(x: Later) -> None: ...

    codec = PayloadCodec(task)
    codec.check()

    assert codec.decode(codec.encode({"x": Later(number=1)})) == {"x": Later(number=1)}


class Later(BaseModel):
    number: int


def test_a_generic_model_with_its_types_given_travels() -> None:
    """C5: `Box[Model]` is one type."""
    codec = codec_of(Box[Model])
    box = Box[Model](content=Model(number=3))

    arrived = codec.decode(codec.encode({"x": box}))["x"]

    assert arrived == box
    assert type(arrived.content) is Model


def test_a_function_without_parameters_travels_as_an_empty_object() -> None:
    """C5: no arguments are arguments, too."""

    def task() -> None: ...

    codec = PayloadCodec(task)

    assert codec.encode({}) == b"{}"
    assert codec.decode(b"{}") == {}


def test_parameters_may_be_named_like_anything() -> None:
    """C5: names that mean something to pydantic or to a schema are names of parameters here."""

    def task(type: str, schema: int, model_config: int, _x: int, cls_: int) -> None: ...  # noqa: A002

    codec = PayloadCodec(task)
    arguments = {"type": "int", "schema": 1, "model_config": 2, "_x": 3, "cls_": 4}

    assert codec.decode(codec.encode(arguments)) == arguments
    assert codec.core_schema


def test_building_a_codec_builds_no_schema() -> None:
    """C5: declaring a hundred tasks costs an import nothing to speak of."""
    script = (
        "from dispatchers._payload.codec import PayloadCodec\n"
        "import pydantic._internal._generate_schema as g\n"
        "g.GenerateSchema.generate_schema = None\n"
        "def task(x: dict[str, int]): ...\n"
        "codec = PayloadCodec(task)\n"
        "print(codec.parameters, codec.bind((), {'x': {}}))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout == "('x',) {'x': {}}\n"


def test_threads_that_come_first_together_all_succeed() -> None:
    """C8: the schema is built on first use, by whichever thread."""
    codec = codec_of(dict[str, Model])

    async def use() -> list[dict[str, Any]]:
        one = functools.partial(codec.decode, b'{"x":{"a":{"number":1}}}')
        return await asyncio.gather(*(asyncio.to_thread(one) for _ in range(16)))

    assert asyncio.run(use()) == [{"x": {"a": Model(number=1)}}] * 16


def test_a_dataclass_that_computes_a_field_is_compared_with_what_it_computes() -> None:
    """C5: what a worker would compute differently is not the same value."""

    @dataclasses.dataclass
    class Counted:
        number: int
        double: int = dataclasses.field(init=False)

        def __post_init__(self) -> None:
            self.double = 2 * self.number

    codec = codec_of(Counted)
    altered = Counted(1)
    altered.double = 7

    assert codec.decode(codec.encode({"x": Counted(2)})) == {"x": Counted(2)}
    with pytest.raises(
        ValueError, match=r"argument 'x\.double' is an int whose value would arrive"
    ):
        codec.encode({"x": altered})


class Colour(enum.Enum):
    RED = "red"


class Answer(enum.StrEnum):
    YES = "yes"


class Red(BaseModel):
    kind: typing.Literal[Colour.RED]


@pytest.mark.parametrize(
    ("annotation", "path"),
    [
        (typing.Literal[Colour.RED], "x"),
        (typing.Literal[Colour.RED, "blue"] | None, "x"),
        (typing.Literal[b"red"], "x"),
        (list[Red], "x[].kind"),
        (dict[typing.Literal[1], int], "x[key]"),
    ],
)
def test_a_literal_that_cannot_be_read_back_is_refused(annotation: Any, path: str) -> None:
    """C5: no worker could read the JSON of such a value, which no dispatch could send."""
    with pytest.raises(DeclarationError) as caught:
        codec_of(annotation).check()

    assert repr(path) in str(caught.value)
    assert "derive the enum from str or int" in str(caught.value)


@pytest.mark.parametrize("value", [Answer.YES, True, None, 2**60, "text"])
def test_a_literal_is_read_back_as_its_own_type(value: Any) -> None:
    """C5: members of enums that are text or numbers travel as themselves."""
    codec = codec_of(typing.Literal[value])

    assert codec.decode(codec.encode({"x": value}))["x"] is value or value == 2**60


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="it tells all of its keys there")
def test_a_typed_dict_of_typing_is_refused_with_its_cure():
    """C5: the one of typing_extensions has what pydantic needs."""

    def f(row: Row) -> None: ...

    with pytest.raises(DeclarationError, match="import TypedDict from `typing_extensions`"):
        PayloadCodec(f).check()
