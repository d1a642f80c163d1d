"""Why a payload does not fit, in words that name the field and the cure and never show a value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from ._payload_errors import PayloadError, key_part, type_name

__all__ = ["explain", "why_unwritable"]
# The JSON reader's own limit is 200 levels; the envelope around the payload takes some of them.
_DEEPEST = 150
# Python's own limit for reading an integer, in digits; one digit is some 3.32 bits.
_LONGEST_INTEGER_BITS = int(4300 * math.log2(10))
_NESTED = "nests too deeply, or contains itself: pass an identifier, or flatten it"


def why_unwritable(arguments: Mapping[str, Any], cause: Exception) -> PayloadError:
    """The first value in the arguments that JSON cannot carry, else what `cause` says of them."""
    for looking_for in (_unreadable, _foreign):
        for name, value in arguments.items():
            if found := _first(looking_for, value, 0):
                return found.under(str(name))
        if isinstance(cause, ValidationError):
            return explain(cause, arguments)
    return PayloadError(f"the arguments cannot be written as JSON ({type(cause).__name__})")


def explain(
    error: ValidationError, values: Any, *, within: tuple[str, ...] = (), of: str = ""
) -> PayloadError:
    """Translate pydantic's error about arguments, whose own text would quote the values.

    Args:
        error: What pydantic raised.

        values: What it validated: parsed values, or JSON text.

        within: The keys under which the arguments stand in them, `("payload",)` in an envelope.

        of: The argument to speak of, where several do not fit; empty for the first.

    """
    details = _chosen(error, (*within, of) if of else within)
    if details["type"] == "json_invalid":
        return PayloadError("the payload is not JSON: it was cut short, or is not ours")
    if isinstance(values, (bytes, str)):
        values = from_json(values)
    for key in within:
        values = values[key]
    path, value = _locate(details["loc"][len(within) :], values, details["type"])
    subject = "" if path else "the payload "
    return PayloadError(subject + _problem(details, value), path.removeprefix("."))


def _chosen(error: ValidationError, location: tuple[str, ...]) -> ErrorDetails:
    """The first error at or below a location, else the first."""
    listed = error.errors(include_url=False, include_input=False)
    below = (one for one in listed if one["loc"][: len(location)] == location)
    return next(below, listed[0])


def _locate(location: tuple[int | str, ...], value: Any, code: str) -> tuple[str, Any]:
    """Follow pydantic's location, in which the names of union members stand between the steps."""
    path = ""
    for position, step in enumerate(location):
        last = position == len(location) - 1
        part, inner = _step(value, step)
        if part:
            path, value = path + part, inner
        elif last and code in _NAMED_LAST:
            path += key_part(str(step), 0)
    return path, value


_NAMED_LAST = frozenset({"missing", "extra_forbidden", "unexpected_keyword_argument"})


def _step(value: Any, step: int | str) -> tuple[str, Any]:
    if isinstance(value, Mapping):
        for position, (key, inner) in enumerate(value.items()):
            if key == step or str(key) == step:
                return key_part(key, position), inner
    elif isinstance(step, int):
        if isinstance(value, (list, tuple)) and step < len(value):
            return f"[{step}]", value[step]
    elif step in getattr(value, "__dict__", ()):
        return f".{step}", value.__dict__[step]
    return "", value


def _problem(details: ErrorDetails, value: Any) -> str:
    code = details["type"]
    if code in _NAMED_LAST:
        return _ABOUT_NAMES[code == "missing"]
    if code in _QUOTABLE:
        return f"is {type_name(value)}, and {_lowered(details['msg'])}"
    return f"is {type_name(value)} that does not fit its annotation ({code})"


_ABOUT_NAMES = {
    True: "is missing: pass it",
    False: "is not known here: drop it, or correct its name",
}


def _lowered(message: str) -> str:
    """`Input should be a valid string` to `should be a valid string`."""
    text = message.removeprefix("Input ")
    return text[:1].lower() + text[1:]


# pydantic's codes whose messages are made of the schema alone, never of the value.
_QUOTABLE = frozenset(
    {
        *("int_type", "float_type", "string_type", "bool_type", "bytes_type", "none_required"),
        *("list_type", "tuple_type", "set_type", "frozen_set_type", "dict_type", "model_type"),
        *("dataclass_type", "date_type", "time_type", "datetime_type", "time_delta_type"),
        *("uuid_type", "decimal_type", "finite_number", "timezone_aware", "model_attributes_type"),
        *("greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of"),
        *("string_too_short", "string_too_long", "string_pattern_mismatch", "too_short"),
        *("too_long", "decimal_max_digits", "decimal_max_places", "decimal_whole_digits"),
        *("literal_error", "enum", "date_past", "date_future", "datetime_past", "datetime_future"),
        *("bytes_too_short", "bytes_too_long", "int_from_float"),
    }
)


def _first(looking_for: Callable[[Any], str], value: Any, depth: int) -> PayloadError | None:
    if depth > _DEEPEST:
        return PayloadError(_NESTED)
    if problem := looking_for(value):
        return PayloadError(problem)
    for part, inner in _parts(value):
        if found := _first(looking_for, inner, depth + 1):
            return found.under(part)
    return None


def _unreadable(value: Any) -> str:
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "is NaN or infinite, which JSON has no number for: pass None, or text"
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER_BITS:
        return "is an int of more than 4300 digits, which would not be read again: pass text"
    return ""


def _foreign(value: Any) -> str:
    """Judged last: a type may be written by its annotation where nothing is known of it here."""
    if next(_parts(value), None) is not None:
        return ""
    try:
        to_json(value, bytes_mode="base64")
    except ValueError:
        return (
            f"is {type_name(value)}, which JSON cannot carry: pass an identifier, or plain values"
        )
    return ""


def _text_problem(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return (
            "is text with a lone surrogate, which UTF-8 cannot carry: "
            "decode it with errors='replace', or pass bytes"
        )
    return ""


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for position, (key, inner) in enumerate(value.items()):
            yield f"[key {position}]", key
            yield key_part(key, position), inner
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{index}]", inner) for index, inner in enumerate(value))
    elif isinstance(value, BaseModel):
        yield from ((f".{name}", inner) for name, inner in value.__dict__.items())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name, None)
