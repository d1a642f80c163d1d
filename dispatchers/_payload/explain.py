"""Messages for arguments that do not fit, without their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from dispatchers._payload.errors import (
    NAIVE,
    NOT_FINITE,
    PayloadError,
    key_part,
    type_name,
    unwritable,
)
from dispatchers._payload.unserializable import foreign, unreadable

_KEY = "[key]"
"""The step by which pydantic's locations lead to a key instead of its value."""


def why_unwritable(arguments: Mapping[str, Any], cause: Exception) -> PayloadError:
    """Find the first value that JSON cannot carry, else say what `cause` says of them."""
    try:
        return _first_unwritable(arguments, cause)
    except Exception:  # noqa: BLE001 - C1: looking at an argument may run its code, which raises
        return unwritable(cause)


def _first_unwritable(arguments: Mapping[str, Any], cause: Exception) -> PayloadError:
    if found := unreadable(arguments):
        return found
    if isinstance(cause, ValidationError):
        return explain(cause, arguments)
    if isinstance(cause, PayloadError):
        return cause
    return foreign(arguments) or unwritable(cause)


def explain(error: ValidationError, values: Any) -> PayloadError:
    """Translate pydantic's error about arguments, whose own text would quote the values.

    Args:
        error: What pydantic raised.

        values: What it validated: the arguments, or their JSON text.

    """
    listed = error.errors(include_url=False, include_input=False)
    if listed[0]["type"] in _NOT_JSON and not listed[0]["loc"]:
        return PayloadError("the payload is not JSON, or was cut short: pass what `encode` wrote")
    if isinstance(values, (bytes, bytearray, str)):
        # Parsed once more: pydantic's locations lead into values, not into text.
        values = from_json(values)
    path, value, alike = _deepest(listed, values)
    subject = "" if path else "the payload "
    return PayloadError(subject + _problem(alike, value), path.removeprefix("."))


_NOT_JSON = frozenset({"json_invalid", "string_unicode"})


LOOKED_AT = 20
"""Errors: more than a union has members. Each costs a walk through the arguments, and a body that
a stranger sends may have as many as it has elements."""


def _deepest(listed: list[ErrorDetails], values: Any) -> tuple[str, Any, list[ErrorDetails]]:
    """Pick the errors of the first argument that lead deepest."""
    # One argument at a time: its errors together make one sentence.
    about = [one for one in listed if one["loc"][:1] == listed[0]["loc"][:1]][:LOOKED_AT]
    located = [(*_locate(one, values), one) for one in about]
    # The deepest: a union reports each member, and the one that got furthest was meant.
    path, value, _ = max(located, key=lambda found: len(found[0]))
    return path, value, [details for where, _, details in located if where == path]


def _locate(details: ErrorDetails, value: Any) -> tuple[str, Any]:
    """Follow pydantic's location, in which the names of union members stand between the steps."""
    path, part, key = "", "", None
    for step in details["loc"]:
        if step == _KEY:
            return path, key
        part, key, value = _step(value, step)
        path += part
    if details["type"] in _ABOUT_NAMES and not part:
        path += _missing_part(details["loc"][-1])
    return path, value


def _missing_part(step: int | str) -> str:
    return f"[{step}]" if isinstance(step, int) else key_part(step, 0)


def _step(value: Any, step: int | str) -> tuple[str, Any, Any]:
    """One step down: the part of the path, the key, the value there; or no part and no step."""
    if isinstance(value, Mapping):
        for position, (key, inner) in enumerate(value.items()):
            if step == key or (type(key) is not str and step in (str(key), _written(key))):
                return key_part(key, position), key, inner
    elif isinstance(step, int):
        items = list(value) if isinstance(value, (list, tuple, set, frozenset)) else []
        if step < len(items):
            return f"[{step}]", step, items[step]
    elif step in _field_names(value):
        return f".{step}", step, getattr(value, step)
    return "", None, value


def _written(key: Any) -> str:
    """Return the key as it stands in JSON."""
    try:
        # By way of JSON, as the location that is compared with it was made from JSON.
        return str(next(iter(from_json(to_json({key: None})))))
    except ValueError:
        return ""


def _field_names(value: Any) -> frozenset[str]:
    if isinstance(value, BaseModel):
        return frozenset(value.__dict__)
    if dataclasses.is_dataclass(value):
        return frozenset(field.name for field in dataclasses.fields(value))
    return frozenset(getattr(value, "_fields", ()))


def _problem(alike: list[ErrorDetails], value: Any) -> str:
    code = alike[0]["type"]
    if known := _ABOUT_NAMES.get(code) or _KNOWN.get(code):
        return known
    subject = f"is {type_name(value)}"
    if _KEY in alike[0]["loc"]:
        subject = f"has {type_name(value)} for its key"
    return f"{subject}, and {' or '.join(dict.fromkeys(map(_expectation, alike)))}"


def _expectation(details: ErrorDetails) -> str:
    """Quote pydantic where its words come from the schema alone."""
    code = details["type"]
    if code in _QUOTABLE:
        text = details["msg"].removeprefix("Input ")
        return text[:1].lower() + text[1:]
    if code.endswith("_parsing"):
        return f"should be a valid {code.removesuffix('_parsing').replace('_', ' ')}"
    return f"does not fit its annotation ({code})"


_ABOUT_NAMES = {
    "missing": "is missing: pass it",
    "extra_forbidden": "is not known here: drop it, or correct its name",
    "unexpected_keyword_argument": "is not known here: drop it, or correct its name",
}


_KNOWN = {"timezone_aware": NAIVE, "finite_number": NOT_FINITE}


# pydantic's codes whose messages are made of the schema alone, never of the value.
_QUOTABLE = frozenset(
    {
        *("int_type", "float_type", "string_type", "bool_type", "bytes_type", "none_required"),
        *("list_type", "tuple_type", "set_type", "frozen_set_type", "dict_type", "model_type"),
        *("dataclass_type", "date_type", "time_type", "datetime_type", "time_delta_type"),
        *("uuid_type", "decimal_type", "model_attributes_type"),
        *("greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of"),
        *("string_too_short", "string_too_long", "string_pattern_mismatch", "too_short"),
        *("too_long", "decimal_max_digits", "decimal_max_places", "decimal_whole_digits"),
        *("literal_error", "enum", "date_past", "date_future", "datetime_past", "datetime_future"),
        *(
            "bytes_too_short",
            "bytes_too_long",
            "int_from_float",
            "is_instance_of",
            "set_item_not_hashable",
        ),
    }
)
