"""Comparison of what arrives with what was sent, by value.

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel

from dispatchers._payload.errors import (
    MISSING,
    NAIVE,
    PayloadError,
    altered,
    key_part,
    retyped,
    type_name,
)


def says_equal(original: Any, decoded: Any) -> bool:
    """Trust a type's own `==` only where it returns True itself."""
    try:
        # `is True`, as numpy and pandas answer with arrays.
        return (original == decoded) is True
    except Exception:  # noqa: BLE001 - another owner's comparison, which may raise anything
        return False


def attributes(value: Any) -> list[str]:
    """Return the names of everything a value holds.

    Raises:
        PayloadError: It shows nothing, so that nothing could be compared.

    """
    slots = list(_slots(type(value)))
    if not slots and not hasattr(value, "__dict__"):
        raise PayloadError(
            f"is {type_name(value)}, which cannot be compared with what would arrive: "
            "give it an __eq__ method"
        )
    return [*getattr(value, "__dict__", ()), *slots]


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        # Of each class of its own: a lookup by attribute would find an inherited one twice.
        slots = base.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def compare(original: Any, decoded: Any) -> None:
    """Accept a value whose decoded counterpart is equal and of the same type.

    Args:
        original: The value as the caller gave it.

        decoded: The same value after encoding and decoding.

    Raises:
        PayloadError: They differ; `path` leads to the first difference.

    """
    kind = type(decoded)
    if type(original) is not kind and not _is_carried(original, kind):
        # A whole number where a float is declared, as Python's own typing allows (PEP 484).
        if kind is float and _is_carried(original, int) and original == decoded:
            return
        raise retyped(original, decoded)
    _COMPARISONS.get(kind, _compare_other)(original, decoded)


def _is_carried(original: Any, kind: type) -> bool:
    """Accept a subclass that its base carries whole, and a tuple where a list is read.

    Members of `TextChoices`, text that is marked as safe HTML, a frozen clock's datetimes: they
    are equal to what arrives, which is of the declared type.
    """
    if kind is list and type(original) is tuple:
        return True
    if kind not in _CARRIED or not isinstance(original, kind) or isinstance(original, bool):
        return False
    return not hasattr(original, "_fields") and (
        kind not in _CONTAINERS or not getattr(original, "__dict__", None)
    )


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
    # 0.0 == -0.0, but they are two values.
    if original != decoded or math.copysign(1, original) != math.copysign(1, decoded):
        raise altered(original)


def _compare_complex(original: complex, decoded: complex) -> None:
    _compare_float(original.real, decoded.real)
    _compare_float(original.imag, decoded.imag)


def _compare_decimal(original: Decimal, decoded: Decimal) -> None:
    # `==` ignores trailing zeros, by which 1.0 and 1.00 differ.
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
    """Compare at once what consists of types with a trusted `==`."""
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
    kind = type(decoded[0])
    if type(original[0]) is not kind and not _is_carried(original[0], kind):
        raise PayloadError(
            f"has {type_name(original[0])} for its key, which JSON would turn into "
            f"{type_name(decoded[0])}: pass text, or annotate the type of the keys"
        )
    compare(original[0], decoded[0])
    compare(original[1], decoded[1])


def _compare_set(original: Iterable[Any], decoded: Iterable[Any]) -> None:
    # By value, as a set has no order to pair its members by.
    arrived = {_set_key(item): item for item in decoded}
    for item in original:
        compare(item, arrived.pop(_set_key(item), MISSING))
    if arrived:
        raise altered(original)


def _set_key(item: Any) -> Any:
    if isinstance(item, dt.datetime):
        # Equal instants of two zones are two values here.
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
    # Behaviour, not data: JSON has no form for it.
    if original.default_factory is not decoded.default_factory:
        raise PayloadError("has a default factory, which does not travel: pass a dict")
    _compare_mapping(original, decoded)


def _compare_enum(original: Enum, decoded: Enum) -> None:
    if original is not decoded:
        raise altered(original)


def _compare_unknown(original: Any, decoded: Any) -> None:
    """Compare values of an unknown type by `__eq__` or attributes."""
    # The inherited `__eq__` compares identities, which never survive.
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


_CONTAINERS: frozenset[type] = frozenset({list, tuple, dict, set, frozenset})
"""Their subclasses may hold something beside their items."""


_CARRIED: frozenset[type] = _CONTAINERS | {
    *(str, int, float, bytes, Decimal, uuid.UUID),
    *(dt.datetime, dt.date, dt.time, dt.timedelta),
}
"""Types whose subclasses arrive as an equal value of the declared type."""


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
