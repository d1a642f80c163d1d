"""C5: on the worker's side, what does not fit the task exactly is refused without showing it."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import core_schema

from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.errors import PayloadError
from dispatchers._payload.schema import build_validator

SECRET = "swordfish"


class Word(enum.Enum):
    YES = "yes"


class Line(BaseModel):
    model_config = ConfigDict(strict=False, extra="forbid")
    number: int
    at: dt.datetime | None = None
    name: str = Field(default="", alias="alias")

    @field_validator("name")
    @classmethod
    def _check(cls, value: str) -> str:
        if value == SECRET:
            raise ValueError(f"never say {value}")
        return value


class Loose(BaseModel):
    number: Annotated[int, Field(strict=False)]


class Tree(BaseModel):
    children: list[Tree] = []


def task(user_id: int, locale: str = "en") -> None: ...


def codec_of(annotation: Any) -> PayloadCodec:
    def task(x) -> None: ...

    task.__annotations__["x"] = annotation
    return PayloadCodec(task)


@pytest.mark.parametrize(
    "payload",
    [b'{"user_id":42}', bytearray(b'{"user_id":42}'), '{"user_id":42}', b' { "user_id" : 42 } '],
)
def test_a_payload_may_be_bytes_or_text(payload: bytes | str) -> None:
    """C5: transports hand over either."""
    assert PayloadCodec(task).decode(payload) == {"user_id": 42}


@pytest.mark.parametrize(
    ("payload", "path", "message"),
    [
        ('{"user_id":true}', "user_id", "is a bool, and should be a valid integer"),
        ('{"user_id":"42"}', "user_id", "is a str, and should be a valid integer"),
        ('{"user_id":42.0}', "user_id", "is a float, and should be a valid integer"),
        ('{"user_id":null}', "user_id", "is None, and should be a valid integer"),
        ('{"user_id":42,"locale":5}', "locale", "is an int, and should be a valid string"),
        ("{}", "user_id", "argument 'user_id' is missing: pass it"),
        (
            '{"user_id":1,"locael":"de"}',
            "locael",
            "is not known here: drop it, or correct its name",
        ),
        ("[]", "", "the payload is a list, and should be an object"),
        ("null", "", "the payload is None, and should be an object"),
        ("", "", "the payload is not JSON, or was cut short"),
        ('{"user_id":42', "", "the payload is not JSON, or was cut short"),
        (b'{"user_id":42,"locale":"\xff"}', "", "the payload is not JSON, or was cut short"),
        ('{"user_id":42,"locale":"\ud800"}', "", "the payload is not JSON, or was cut short"),
        ('{"user_id":42,"locale":"\\ud800"}', "", "the payload is not JSON, or was cut short"),
        ('{"user_id":1' + "0" * 5000 + "}", "", "the payload is not JSON, or was cut short"),
        ("[" * 5000, "", "the payload is not JSON, or was cut short"),
    ],
    ids=lambda x: str(x)[:30].encode(errors="replace").decode(),
)
def test_a_payload_that_does_not_fit_is_refused(
    payload: bytes | str, path: str, message: str
) -> None:
    """C5: strictly, by kind of JSON value; nothing is converted."""
    with pytest.raises(PayloadError) as caught:
        PayloadCodec(task).decode(payload)

    assert caught.value.path == path
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "value", "path", "message"),
    [
        (Line, '{"number":"1"}', "x.number", "is a str, and should be a valid integer"),
        (Loose, '{"number":"1"}', "x.number", "is a str, and should be a valid integer"),
        (Line, '{"number":1,"alias":"a"}', "x.alias", "is not known here"),
        (Line, '{"number":1,"at":"2024-01-01T00:00"}', "x.at", "is a datetime without a time zone"),
        (list[Line], '[{"number":1},{}]', "x[1].number", "is missing"),
        (Line | None, "5", "x", "is an int, and should be an object"),
        (Literal["a"] | list[int], '["b"]', "x[0]", "is a str, and should be a valid integer"),
        (
            dict[int, int],
            '{"a b":1}',
            "x[key 0]",
            "has a str for its key, and should be a valid int",
        ),
        (dict[str, int], '{"a b":1,"ok":"1"}', "x.ok", "is a str, and should be a valid integer"),
        (tuple[int, str], "[1]", "x[1]", "is missing"),
        (
            int | str,
            "1.5",
            "x",
            "is a float, and should be a valid integer or should be a valid str",
        ),
        (set[int], '[1,"a"]', "x[1]", "is a str, and should be a valid integer"),
        (dt.date, '"2024-13-01"', "x", "is a str, and should be a valid date"),
        (dt.datetime, "1700000000", "x", "is an int, and should be a valid datetime"),
        (uuid.UUID, '"swordfish"', "x", "is a str, and should be a valid uuid"),
        (Decimal, '"NaN"', "x", "is NaN or infinite"),
        (Annotated[Decimal, Field(allow_inf_nan=True)], '"NaN"', "x", "is NaN or infinite"),
        (Word, '"no"', "x", "is a str, and should be 'yes'"),
        (bool, "1", "x", "is an int, and should be a valid boolean"),
        (float, "NaN", "x", "is NaN or infinite"),
        (bytes, '"%"', "x", "is a str, and does not fit its annotation (bytes_invalid_encoding)"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_the_path_leads_into_nested_values(
    annotation: Any, value: str, path: str, message: str
) -> None:
    """C5: also within models that are lenient by themselves."""
    with pytest.raises(PayloadError) as caught:
        codec_of(annotation).decode(f'{{"x":{value}}}')

    assert caught.value.path == path
    assert message in str(caught.value)


@pytest.mark.parametrize("value", ["NaN", "[Infinity]", '{"a":-Infinity}'])
def test_constants_that_json_has_not_are_refused_under_any_annotation(value: str) -> None:
    """C5: pydantic's reader takes them, other readers do not."""
    codec = codec_of(Any)

    with pytest.raises(PayloadError, match="the payload is NaN or infinite, for which JSON has no"):
        codec.decode(f'{{"x":{value}}}'.encode())


@pytest.mark.parametrize("text", ["NaN", "to Infinity", "-Infinity"])
def test_their_names_may_stand_in_text(text: str) -> None:
    """C5: text is text."""
    codec = codec_of(Any)

    assert codec.decode(codec.encode({"x": text})) == {"x": text}


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, '"swordfish"'),
        (uuid.UUID, '"swordfish"'),
        (dt.datetime, '"swordfish"'),
        (Literal["a"], '"swordfish"'),
        (dict[int, int], '{"swordfish 1":1}'),
        (list[int], '["swordfish"]'),
        (Line, '{"number":1,"name":"swordfish"}'),
        (Annotated[str, Field(max_length=2)], '"swordfish"'),
    ],
)
def test_messages_never_show_a_value(annotation: Any, value: str) -> None:
    """C4: payloads never appear in messages, not even those of a model's own validators."""
    with pytest.raises(PayloadError) as caught:
        codec_of(annotation).decode(f'{{"x":{value}}}')

    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


def test_parsed_values_are_judged_as_strictly() -> None:
    """C5: `decode_python` differs from `decode` in nothing but its input."""
    codec = codec_of(uuid.UUID | None)

    assert codec.decode_python({"x": str(uuid.UUID(int=1))}) == {"x": uuid.UUID(int=1)}
    with pytest.raises(PayloadError, match="argument 'x' is an int"):
        codec.decode_python({"x": 5})
    with pytest.raises(PayloadError, match="argument 'x' is an object, which JSON cannot carry"):
        codec.decode_python({"x": object()})
    with pytest.raises(PayloadError, match="NaN or infinite"):
        codec_of(Any).decode_python({"x": float("nan")})


def test_the_schema_can_be_embedded_in_another() -> None:
    """C5: one validator over envelope and arguments together judges like the codec's own."""
    codec = codec_of(dict[str, list[Line]] | bytes)
    envelope = core_schema.typed_dict_schema(
        {"payload": core_schema.typed_dict_field(codec.core_schema)}
    )
    read = build_validator(envelope).validate_json

    assert read(b'{"payload":{"x":"_w=="}}') == {"payload": {"x": b"\xff"}}
    assert read(b'{"payload":{"x":{"a":[{"number":1,"name":"n"}]}}}') == {
        "payload": {"x": {"a": [Line(number=1, alias="n")]}}
    }
    with pytest.raises(ValueError, match="int_type"):
        read(b'{"payload":{"x":{"a":[{"number":"1"}]}}}')


def test_a_schema_with_definitions_can_be_embedded() -> None:
    """C5: recursive models bring definitions, which work below another schema, too."""
    envelope = core_schema.typed_dict_schema(
        {"payload": core_schema.typed_dict_field(codec_of(Tree | None).core_schema)}
    )

    read = build_validator(envelope).validate_json

    assert read(b'{"payload":{"x":{"children":[{}]}}}') == {
        "payload": {"x": Tree(children=[Tree()])}
    }


def test_json_schema_tells_what_a_payload_looks_like() -> None:
    """C5: names, types and which arguments are required."""
    schema = PayloadCodec(task).json_schema()

    assert schema["required"] == ["user_id"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["user_id"]["type"] == "integer"
