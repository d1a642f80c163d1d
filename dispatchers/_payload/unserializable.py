"""The first value, in whatever a caller passed, that JSON cannot carry at all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, from_json, to_json

from dispatchers._payload.errors import NOT_FINITE, PayloadError, key_part, type_name

_READER_DEPTH = 200  # levels that pydantic's JSON reader admits


MAX_DEPTH = 150
"""Levels of arguments: the envelope, and what carries it, take some of the reader's."""


LONGEST_INTEGER = 4300
"""Digits: Python's own limit for reading an integer, and the JSON reader's."""


def unreadable(arguments: Mapping[str, Any]) -> PayloadError | None:
    """Find the first value that no annotation could carry."""
    return _search(_unreadable, arguments)


def foreign(arguments: Mapping[str, Any]) -> PayloadError | None:
    """Find the first value whose type has no JSON form itself."""
    return _search(_foreign, arguments)


def check_depth(payload: bytes) -> None:
    """Accept a payload that can still be read within an envelope.

    Raises:
        PayloadError: It nests too deeply.

    """
    # Counting is cheap, and only what has that many brackets can nest that deeply.
    if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH:
        around = _READER_DEPTH - MAX_DEPTH
        try:
            from_json(b"[" * around + payload + b"]" * around)
        except ValueError:
            raise PayloadError(f"the payload {NESTED}") from None


def refuse_constants(payload: bytes | bytearray | str) -> None:
    """Accept a JSON text without NaN and Infinity, which pydantic reads although JSON has neither.

    Raises:
        PayloadError: One occurs, outside of strings.

    """
    names: Any = ("NaN", "Infinity") if isinstance(payload, str) else (b"NaN", b"Infinity")
    # The search is quick; a second parse is paid only where one of the words occurs at all.
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
    problem = NESTED if depth > MAX_DEPTH else problem_of(value)
    if problem:
        return PayloadError(problem)
    for part, inner in parts_of(value):
        if found := _first(problem_of, inner, depth + 1):
            return found.under(part)
    return None


NESTED = "nests too deeply, or contains itself: pass an identifier, or flatten it"


def _unreadable(value: Any) -> str:
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, float):
        return "" if math.isfinite(value) else NOT_FINITE
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
    if next(parts_of(value), None) is not None:
        return ""
    try:
        to_json(value, bytes_mode="base64")
    except PydanticSerializationError:
        return (
            f"is {type_name(value)}, which JSON cannot carry: pass an identifier, or plain values"
        )
    return ""


def parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value contains, each with its part of the path."""
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


def children_of(value: Any) -> Iterable[Any]:
    """Return what `parts_of` yields, without the parts of the path, which take time to write."""
    if isinstance(value, Mapping):
        return chain.from_iterable(value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    return [inner for _, inner in parts_of(value)]
