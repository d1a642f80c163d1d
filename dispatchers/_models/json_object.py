"""An immutable JSON object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import GetCoreSchemaHandler, JsonValue
from pydantic_core import core_schema, from_json, to_json

from dispatchers._payload.equality import compare
from dispatchers._payload.errors import PayloadError, type_name
from dispatchers._payload.explain import why_unwritable
from dispatchers._payload.size import check_size
from dispatchers._payload.unserializable import check_depth, refuse_constants


class JsonObject(Mapping[str, JsonValue]):
    """An immutable JSON object; it holds the JSON text and parses it when looked into."""

    __slots__ = ("_values", "json")

    _values: dict[str, JsonValue]

    def __init__(self, json: bytes) -> None:
        self.json = json
        """The object as UTF-8 JSON text."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> JsonObject:
        """Make one from values that are JSON already.

        Raises:
            PayloadError: A value is not what JSON would give back; the message has its path.
        """
        # Checked when it was made, and immutable since.
        if isinstance(values, cls):
            return values
        if not isinstance(values, Mapping):
            raise PayloadError(f"takes a dict, not {type_name(values)}")
        given = dict(values)
        json = _text(given)
        try:
            # Read back and compared: `to_json` converts sets, dates and keys silently.
            compare(given, from_json(json))
        except (ValueError, RecursionError) as exc:
            raise _placed(why_unwritable(given, exc)) from None
        return cls(json)

    @classmethod
    def _read(cls, values: dict[str, Any]) -> JsonObject:
        """Make one from what JSON text gave, which needs no comparison with what it gives."""
        return cls(_text(values)) if values else EMPTY

    def _parsed(self) -> dict[str, JsonValue]:
        try:
            return self._values
        except AttributeError:
            # Kept: a producer never looks inside, and a consumer looks more than once.
            self._values = cast("dict[str, JsonValue]", from_json(self.json))
            return self._values

    def __getitem__(self, key: str) -> JsonValue:
        return self._parsed()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def __bool__(self) -> bool:
        return self.json != b"{}"

    def __eq__(self, other: object) -> bool:
        # The usual cases, without a look inside: the same text, or nothing.
        if isinstance(other, JsonObject) and (self.json == other.json or not (self and other)):
            return self.json == other.json
        return super().__eq__(other)

    def __hash__(self) -> int:
        # Of the keys alone: values may be lists, which have no hash.
        return hash(frozenset(self._parsed()))

    def __repr__(self) -> str:
        """Hide the content, which is the caller's data."""
        return f"<{len(self.json)} bytes>"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        parsed = core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls._read, parsed),
            # Plain: `of` must see the values as they were given.
            python_schema=core_schema.no_info_plain_validator_function(cls.of),
            serialization=core_schema.plain_serializer_function_ser_schema(
                dict, return_schema=core_schema.dict_schema()
            ),
        )


def _text(values: dict[str, Any]) -> bytes:
    """Return the JSON of values, which has to be within the limits."""
    try:
        check_size(values)
    except PayloadError as exc:
        raise _placed(exc) from None
    try:
        json = to_json(values)
        refuse_constants(json)
        check_depth(json)
    except (ValueError, RecursionError) as exc:
        raise _placed(why_unwritable(values, exc)) from None
    return json


def _placed(error: PayloadError) -> PayloadError:
    """Rephrase an argument's error for a map of another name."""
    path = error.path.removeprefix(".")
    return PayloadError(f"at {path!r} {error.problem}" if path else error.problem)


EMPTY = JsonObject(b"{}")
