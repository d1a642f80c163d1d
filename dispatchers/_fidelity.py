"""Whether what arrives equals what was sent: by value, with the path to the first difference.

An unknown type's `__eq__` is not trusted: it may raise, return an array, or call nothing equal.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import math
import pathlib
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel

from ._payload_errors import (
    MISSING,
    NAIVE,
    PayloadError,
    altered,
    key_part,
    retyped,
    type_name,
)
from ._payload_unknown import attributes, says_equal

__all__ = ["compare", "compare_arguments"]


def compare(original: Any, decoded: Any) -> None:
    """Accept a value whose decoded counterpart is equal and of the same type.

    Args:
        original: The value as the caller gave it.

        decoded: The same value after encoding and decoding.

    Raises:
        PayloadError: They differ; `path` leads to the first difference.

    """
    kind = type(decoded)
    if type(original) is not kind:
        if kind is float and type(original) is int and original == decoded:
            return
        raise retyped(original, decoded)
    _COMPARISONS.get(kind, _compare_other)(original, decoded)


def compare_arguments(original: Mapping[str, Any], decoded: Mapping[str, Any]) -> None:
    """Compare each argument with what arrives under its name.

    Raises:
        PayloadError: One differs.

    """
    for name, value in original.items():
        try:
            compare(value, decoded[name])
        except PayloadError as error:
            raise error.under(name) from None


def _compare_plain(original: Any, decoded: Any) -> None:
    if original != decoded:
        raise altered(original)


def _compare_float(original: float, decoded: float) -> None:
    if original != decoded or math.copysign(1, original) != math.copysign(1, decoded):
        raise altered(original)


def _compare_complex(original: complex, decoded: complex) -> None:
    _compare_float(original.real, decoded.real)
    _compare_float(original.imag, decoded.imag)


def _compare_decimal(original: Decimal, decoded: Decimal) -> None:
    if original.compare_total(decoded):
        raise altered(original)


def _compare_datetime(original: dt.datetime, decoded: dt.datetime) -> None:
    if original.tzinfo is None:
        raise PayloadError(NAIVE)
    if original != decoded:  # also when equal: between zones, times in a fold never compare equal
        _compare_clock(original, decoded)


def _compare_clock(original: Any, decoded: Any) -> None:
    same_zone = (original.tzinfo is None) == (decoded.tzinfo is None)
    if not same_zone or original.utcoffset() != decoded.utcoffset():
        raise PayloadError(
            "has a time zone that JSON cannot carry: pass it in UTC, or a time without a zone"
        )
    _compare_plain(original.replace(tzinfo=None), decoded.replace(tzinfo=None))


def _compare_sequence(original: Any, decoded: Any) -> None:
    if len(original) != len(decoded):
        raise altered(original)
    if _are_equal_and_plain(original, decoded):
        return
    for index, (left, right) in enumerate(zip(original, decoded, strict=True)):
        try:
            compare(left, right)
        except PayloadError as error:
            raise error.under(f"[{index}]") from None


def _are_equal_and_plain(original: Iterable[Any], decoded: Iterable[Any]) -> bool:
    """The short way, for what consists of types whose own `==` can be trusted."""
    left = list(original)
    kinds = list(map(type, left))
    return (
        _PLAIN_TYPES.issuperset(kinds)
        and kinds == list(map(type, decoded))
        and left == list(decoded)
    )


def _compare_mapping(original: Mapping[Any, Any], decoded: Mapping[Any, Any]) -> None:
    """Both keep the order of insertion, so entries pair up without looking keys up."""
    if len(decoded) != len(original):
        raise _lost_entries(original, decoded)
    if _are_equal_and_plain(original, decoded) and _are_equal_and_plain(
        original.values(), decoded.values()
    ):
        return
    for position, (left, right) in enumerate(zip(original.items(), decoded.items(), strict=True)):
        try:
            _compare_entry(left, right)
        except PayloadError as error:
            raise error.under(key_part(left[0], position)) from None


def _lost_entries(original: Mapping[Any, Any], decoded: Mapping[Any, Any]) -> PayloadError:
    for position, key in enumerate(original):
        if type(key) is not str:
            return PayloadError(
                "has keys that are one and the same key in JSON: give each entry a key of its own"
            )
        if key not in decoded:
            problem = "is not known to its annotation: drop it, or correct its name"
            return PayloadError(problem, key_part(key, position))
    return altered(original)


def _compare_entry(original: tuple[Any, Any], decoded: tuple[Any, Any]) -> None:
    if type(original[0]) is not type(decoded[0]):
        raise PayloadError(
            f"has {type_name(original[0])} for its key, which JSON would turn into "
            f"{type_name(decoded[0])}: pass text, or annotate the type of the keys"
        )
    compare(original[0], decoded[0])
    compare(original[1], decoded[1])


def _compare_set(original: Iterable[Any], decoded: Iterable[Any]) -> None:
    arrived = {_set_key(item): item for item in decoded}
    for item in original:
        compare(item, arrived.pop(_set_key(item), MISSING))
    if arrived:
        raise altered(original)


def _set_key(item: Any) -> Any:
    if isinstance(item, dt.datetime):
        return item.replace(tzinfo=None), item.utcoffset()
    return item


def _compare_other(original: Any, decoded: Any) -> None:
    if original is decoded:
        return
    _comparison_by_base(decoded)(original, decoded)


def _comparison_by_base(value: object) -> Callable[[Any, Any], None]:
    for base, comparison in _BASES.items():
        if isinstance(value, base):
            return comparison
    return _compare_dataclass if dataclasses.is_dataclass(value) else _compare_unknown


def _compare_dataclass(original: Any, decoded: Any) -> None:
    _compare_fields(original, decoded, (field.name for field in dataclasses.fields(decoded)))


def _compare_model(original: BaseModel, decoded: BaseModel) -> None:
    _compare_fields(original, decoded, decoded.__dict__)
    compare(original.__pydantic_extra__, decoded.__pydantic_extra__)
    _compare_private(original.__pydantic_private__ or {}, decoded.__pydantic_private__ or {})


def _compare_private(original: Mapping[str, Any], decoded: Mapping[str, Any]) -> None:
    for name in {**original, **decoded}:
        try:
            compare(original.get(name, MISSING), decoded.get(name, MISSING))
        except PayloadError as error:
            raise PayloadError(
                "is a private attribute, which does not travel: make it a field, or leave it unset",
                f".{name}",
            ) from error


def _compare_fields(original: Any, decoded: Any, names: Iterable[str]) -> None:
    for name in names:
        try:
            compare(getattr(original, name, MISSING), getattr(decoded, name, MISSING))
        except PayloadError as error:
            raise error.under(f".{name}") from None


def _compare_named_tuple(original: Any, decoded: Any) -> None:
    if names := getattr(decoded, "_fields", None):
        _compare_fields(original, decoded, names)
    else:
        _compare_sequence(original, decoded)


def _compare_deque(original: deque[Any], decoded: deque[Any]) -> None:
    if original.maxlen != decoded.maxlen:
        raise PayloadError("has a greatest length, which does not travel: pass a deque without")
    _compare_sequence(original, decoded)


def _compare_default_dict(original: defaultdict[Any, Any], decoded: defaultdict[Any, Any]) -> None:
    if original.default_factory is not decoded.default_factory:
        raise PayloadError("has a default factory, which does not travel: pass a dict")
    _compare_mapping(original, decoded)


def _compare_enum(original: Enum, decoded: Enum) -> None:
    if original is not decoded:
        raise altered(original)


def _compare_unknown(original: Any, decoded: Any) -> None:
    """A type of which nothing is known: by its own `__eq__`, else by what it holds."""
    if getattr(type(original), "__eq__", None) is object.__eq__:
        _compare_fields(original, decoded, attributes(original))
    elif not says_equal(original, decoded):
        raise altered(original)


_PLAIN: tuple[type, ...] = (
    *(int, str, bool, type(None), bytes, bytearray, dt.date, dt.timedelta, uuid.UUID),
    *(ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network),
    *(ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network),
    *(pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path())),
)

_PLAIN_TYPES = frozenset(_PLAIN)

_COMPARISONS: dict[type, Callable[[Any, Any], None]] = {
    **dict.fromkeys(_PLAIN, _compare_plain),
    float: _compare_float,
    complex: _compare_complex,
    Decimal: _compare_decimal,
    dt.datetime: _compare_datetime,
    dt.time: _compare_clock,
    list: _compare_sequence,
    tuple: _compare_sequence,
    dict: _compare_mapping,
    set: _compare_set,
    frozenset: _compare_set,
}

_BASES: dict[type, Callable[[Any, Any], None]] = {
    BaseModel: _compare_model,
    Enum: _compare_enum,
    tuple: _compare_named_tuple,
    deque: _compare_deque,
    defaultdict: _compare_default_dict,
    OrderedDict: _compare_mapping,
    dict: _compare_mapping,
    list: _compare_sequence,
    set: _compare_set,
    frozenset: _compare_set,
}
