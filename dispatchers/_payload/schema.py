"""The pydantic schema of a task's arguments, rewritten so that every value travels exactly.

Nested models bring their own configuration; in a payload one holds throughout: strict types, aware
datetimes, bytes as base64, no NaN, fields under their own names, computed fields left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NotRequired, Required, cast

from pydantic import ConfigDict, SerializerFunctionWrapHandler, TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import CoreConfig, CoreSchema, SchemaSerializer, SchemaValidator, to_json
from typing_extensions import TypedDict

from dispatchers._payload.errors import DeclarationError
from dispatchers._payload.signature import UnresolvedError

_CONFIG = CoreConfig(
    strict=True,
    allow_inf_nan=False,
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_timedelta="iso8601",
    ser_json_inf_nan="null",
)


class Compiled(NamedTuple):
    """Schema, validator and serializer of one task's arguments."""

    schema: CoreSchema
    from_json: Callable[..., dict[str, Any]]
    to_json: Callable[..., bytes]


def compile_schema(
    title: str, annotations: Mapping[str, Any], required: frozenset[str]
) -> Compiled:
    """Build the schema, the validator and the serializer of arguments so annotated.

    Raises:
        DeclarationError: pydantic has no schema for an annotation.

    """
    schema = cast("CoreSchema", rewrite(_generate(title, annotations, required)))
    validator = build_validator(schema)
    serializer = _build(SchemaSerializer, schema)
    return Compiled(schema, validator.validate_json, serializer.to_json)


def build_validator(schema: CoreSchema) -> SchemaValidator:
    """Build a validator over a schema with a codec's in it."""
    return cast("SchemaValidator", _build(SchemaValidator, schema))


def optional(schema: Any) -> Any:
    """Return the schema of arguments that may all be absent."""
    if schema["type"] == "definitions":
        return {**schema, "schema": optional(schema["schema"])}
    fields = {name: {**field, "required": False} for name, field in schema["fields"].items()}
    return {**schema, "fields": fields}


def _build(kind: Callable[..., Any], schema: CoreSchema) -> Any:
    """Without what pydantic keeps ready for each model (settings of its own); from 2.13 on."""
    return kind(schema, _CONFIG, _use_prebuilt=False)


def _generate(title: str, annotations: Mapping[str, Any], required: frozenset[str]) -> CoreSchema:
    try:
        return _schema_of(title, annotations, required)
    except PydanticUndefinedAnnotation as exc:
        raise UnresolvedError(
            f"a parameter's type refers to {exc.name!r}, which is not defined: define it first"
        ) from exc
    except (PydanticUserError, TypeError) as exc:
        if getattr(exc, "code", None) == "class-not-fully-defined":
            raise UnresolvedError(f"a parameter's type is not complete: {exc}") from exc
        raise _without_schema(annotations, exc) from exc


def _schema_of(title: str, annotations: Mapping[str, Any], required: frozenset[str]) -> CoreSchema:
    fields = {
        name: Required[annotation] if name in required else NotRequired[annotation]
        for name, annotation in annotations.items()
    }
    arguments: Any = _typed_dict(title, fields)
    arguments.__pydantic_config__ = ConfigDict(strict=True, extra="forbid")
    return TypeAdapter(arguments).core_schema


NO_JSON = "which JSON cannot carry: pass an identifier and look the object up in the task"

_CURES = {
    "typed-dict-version": "a TypedDict of `typing`, which before Python 3.12 does not tell all of "
    "its keys: import TypedDict from `typing_extensions`"
}
"""What is wrong with a type and what to do, by pydantic's code for it."""


def _without_schema(annotations: Mapping[str, Any], cause: Exception) -> DeclarationError:
    """Name the parameter: pydantic's own message names only the type."""
    # One by one, only after a failure: the usual declaration builds one schema.
    for name, annotation in annotations.items():
        try:
            _schema_of(name, {name: annotation}, frozenset({name}))
        except (PydanticUserError, TypeError) as exc:
            cure = _CURES.get(getattr(exc, "code", None) or "", NO_JSON)
            spelled = _spelled(annotation)
            return DeclarationError(f"parameter {name!r} is annotated with {spelled}, {cure}")
    return DeclarationError(f"the parameters have no JSON form: {type(cause).__name__}")


def _spelled(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


_typed_dict = cast("Callable[[str, dict[str, Any]], Any]", TypedDict)


# Keys of a core schema under which schemas stand; others hold defaults, metadata and functions.
_NESTED = (
    *("schema", "items_schema", "keys_schema", "values_schema", "json_schema", "python_schema"),
    *("lax_schema", "strict_schema", "choices", "steps", "fields", "definitions"),
    *("extras_schema", "extras_keys_schema", "arguments_schema", "var_args_schema"),
    *("var_kwargs_schema", "return_schema"),
)


_CONFIGURED = frozenset({"model", "dataclass", "typed-dict"})


_DROPPED = frozenset({"strict", "allow_inf_nan", "validation_alias", "serialization_alias"})


def _in_order(value: Any, serialize: SerializerFunctionWrapHandler) -> Any:
    """Write a set's items in one order: the set's own is another in each process."""
    items = serialize(value)
    return sorted(items, key=to_json) if isinstance(items, list) else items


_UNORDERED = frozenset({"set", "frozenset"})
_IN_ORDER = {"type": "function-wrap", "function": _in_order, "when_used": "json"}


def rewrite(node: Any) -> Any:
    """Copy a core schema with this module's settings at every level."""
    if isinstance(node, (list, tuple)):
        return type(node)(rewrite(item) for item in node)
    if not isinstance(node, dict):
        return node
    if not isinstance(node.get("type"), str):
        return {key: rewrite(value) for key, value in node.items()}
    return _rewrite_schema(node)


def _rewrite_schema(node: dict[str, Any]) -> dict[str, Any]:
    copy = {
        key: rewrite(value) if key in _NESTED else value
        for key, value in node.items()
        if key not in _DROPPED
    }
    if node["type"] in _CONFIGURED:
        # Ours last: a model's own settings hold in the application, not on the wire.
        copy["config"] = {**node.get("config", {}), **_CONFIG}
    if node.get("init") is False:  # computed when it arrives, and compared
        copy["serialization_exclude"] = True
    if node["type"] in _UNORDERED:
        copy.setdefault("serialization", _IN_ORDER)
    if node["type"] == "datetime":
        copy.setdefault("tz_constraint", "aware")
    return copy
