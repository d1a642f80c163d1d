"""The base of every value that crosses a boundary: frozen, strict, quiet about its content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, JsonValue
from pydantic_core import core_schema, from_json, to_json

from ._fidelity import compare
from ._payload_errors import PayloadError, type_name
from ._payload_problems import why_unwritable
from ._payload_unwritable import check_depth, refuse_constants

__all__ = ["JsonObject", "Model", "build"]


class Model(BaseModel):  # noqa: PLW1641 - pydantic gives frozen models a hash
    """Frozen and strict; unknown fields are refused, errors do not quote the input."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        ser_json_timedelta="iso8601",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        defer_build=True,
    )
    all_fields: ClassVar[set[str]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Note the fields once: instances that `build` makes share the set."""
        super().__pydantic_init_subclass__(**kwargs)
        cls.all_fields = set(cls.model_fields)

    def __eq__(self, other: object) -> bool:
        """Equal fields of the same class; what was noted beside them does not count."""
        return type(self) is type(other) and self.__dict__ == other.__dict__


M = TypeVar("M", bound=Model)

# The four places in which pydantic keeps an instance's state, written past `frozen`.
_new = object.__new__
_write_values = vars(BaseModel)["__dict__"].__set__
_write_fields_set = vars(BaseModel)["__pydantic_fields_set__"].__set__
_write_extra = vars(BaseModel)["__pydantic_extra__"].__set__
_write_private = vars(BaseModel)["__pydantic_private__"].__set__


def build(cls: type[M], values: dict[str, Any], private: dict[str, Any] | None = None) -> M:
    """An instance from values that are known to be valid and complete; `values` is kept.

    `model_construct` does the same many times slower: it looks at every field again.
    """
    self = _new(cls)
    _write_values(self, values)
    _write_fields_set(self, cls.all_fields)
    _write_extra(self, None)
    _write_private(self, private)
    return self


class JsonObject(Mapping[str, JsonValue]):
    """An immutable JSON object; it holds the JSON text and parses it when looked into."""

    __slots__ = ("_values", "json")

    _values: dict[str, JsonValue]

    def __init__(self, json: bytes) -> None:
        self.json = json
        """The object as UTF-8 JSON text."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> JsonObject:
        """From values that are JSON already.

        Raises:
            PayloadError: A value is not what JSON would give back; the message has its path.
        """
        if isinstance(values, cls):
            return values
        if not isinstance(values, Mapping):
            raise PayloadError(f"takes a dict, not {type_name(values)}")
        given = dict(values)
        try:
            json = to_json(given)
            compare(given, from_json(json))
            refuse_constants(json)
            check_depth(json)
        except (ValueError, RecursionError) as exc:
            raise _placed(why_unwritable(given, exc)) from None
        return cls(json)

    def _parsed(self) -> dict[str, JsonValue]:
        try:
            return self._values
        except AttributeError:
            self._values = cast("dict[str, JsonValue]", from_json(self.json))
            return self._values

    def __getitem__(self, key: str) -> JsonValue:
        return self._parsed()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def __hash__(self) -> int:
        return hash(frozenset(self._parsed()))

    def __repr__(self) -> str:
        """Hides the content: it is somebody's data."""
        return f"<{len(self.json)} bytes>"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        parsed = core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls.of, parsed),
            python_schema=core_schema.no_info_plain_validator_function(cls.of),
            serialization=core_schema.plain_serializer_function_ser_schema(
                dict, return_schema=core_schema.dict_schema()
            ),
        )


def _placed(error: PayloadError) -> PayloadError:
    """The same for any map, not only one of arguments; the map's own name stands before it."""
    path = error.path.removeprefix(".")
    return PayloadError(f"at {path!r} {error.problem}" if path else error.problem)


EMPTY = JsonObject(b"{}")
