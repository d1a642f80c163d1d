"""The first value, in whatever a caller passed, that JSON cannot carry at all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, from_json, to_json

from ._payload_errors import NOT_FINITE, PayloadError, key_part, type_name

__all__ = ["LONGEST_INTEGER", "check_depth", "foreign", "refuse_constants", "unreadable"]

_READER_DEPTH = 200  # levels that pydantic's JSON reader admits
_DEEPEST = 150  # the envelope, and whatever carries it, take some of them
LONGEST_INTEGER = 4300
"""Digits: Python's own limit for reading an integer, and the JSON reader's."""
# One digit less: before pydantic 2.14, the sign counts.
_LONGEST_INTEGER_BITS = int((LONGEST_INTEGER - 1) * math.log2(10))


def unreadable(arguments: Mapping[str, Any]) -> PayloadError | None:
    """The first value that would not be read again, or not as it was, under any annotation."""
    return _search(_unreadable, arguments)


def foreign(arguments: Mapping[str, Any]) -> PayloadError | None:
    """The first value whose type has no JSON form of itself; its annotation may yet know one."""
    return _search(_foreign, arguments)


def check_depth(payload: bytes) -> None:
    """Accept a payload that can still be read within an envelope.

    Raises:
        PayloadError: It nests too deeply.

    """
    if payload.count(b"[") + payload.count(b"{") > _DEEPEST:
        around = _READER_DEPTH - _DEEPEST
        try:
            from_json(b"[" * around + payload + b"]" * around)
        except ValueError:
            raise PayloadError(f"the payload {_NESTED}") from None


def refuse_constants(payload: bytes | bytearray | str) -> None:
    """Accept a JSON text without NaN and Infinity, which pydantic reads although JSON has neither.

    Raises:
        PayloadError: One occurs, outside of strings.

    """
    names: Any = ("NaN", "Infinity") if isinstance(payload, str) else (b"NaN", b"Infinity")
    if names[0] in payload or names[1] in payload:
        try:
            from_json(payload, allow_inf_nan=False)
        except ValueError:
            raise PayloadError(f"the payload {NOT_FINITE}") from None


def _search(problem_of: Callable[[Any], str], arguments: Mapping[str, Any]) -> PayloadError | None:
    for name, value in arguments.items():
        if found := _first(problem_of, value, 0):
            return found.under(str(name))
    return None


def _first(problem_of: Callable[[Any], str], value: Any, depth: int) -> PayloadError | None:
    problem = _NESTED if depth > _DEEPEST else problem_of(value)
    if problem:
        return PayloadError(problem)
    for part, inner in _parts(value):
        if found := _first(problem_of, inner, depth + 1):
            return found.under(part)
    return None


_NESTED = "nests too deeply, or contains itself: pass an identifier, or flatten it"


def _unreadable(value: Any) -> str:
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, float):
        return "" if math.isfinite(value) else NOT_FINITE
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER_BITS:
        return "is an int of 4300 digits or more, which would not be read again: pass text"
    if isinstance(value, (SecretStr, SecretBytes, Secret)):
        return (
            f"is {type_name(value)}, which is masked in JSON: "
            "pass the name under which the task finds the secret"
        )
    return ""


def _text_problem(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return (
            "is text with a lone surrogate, which UTF-8 cannot carry: "
            "encode it with errors='surrogateescape' and pass the bytes, or replace it"
        )
    return ""


def _foreign(value: Any) -> str:
    if next(_parts(value), None) is not None:
        return ""
    try:
        to_json(value, bytes_mode="base64")
    except PydanticSerializationError:
        return (
            f"is {type_name(value)}, which JSON cannot carry: pass an identifier, or plain values"
        )
    return ""


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value contains, each with its part of the path."""
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
