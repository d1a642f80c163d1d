"""Values that certainly arrive as they are: judged by their exact type, without decoding them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from types import UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

Atoms = Mapping[type, Callable[[Any], bool] | None]
"""The types that a parameter takes; a function says which of their values are certain, None all.

It may raise `OverflowError` for one that is not.
"""


# Together in one union they stay apart in JSON. (Text that UTF-8 cannot carry fails when written.)
# An integer of more than 1024 bits is no float: writing its digits takes time that grows with the
# square of their number.
_APART: Atoms = {int: isfinite, str: None, bool: None}


_ALONE: Atoms = {
    **_APART,
    UUID: None,
    date: None,
    timedelta: None,
    float: isfinite,
    Decimal: Decimal.is_finite,
    # Other zones may have offsets that JSON cannot carry; they are compared.
    datetime: lambda value: value.tzinfo is UTC,
    time: lambda value: value.tzinfo is None,
}


def atoms_of(annotation: Any) -> Atoms:
    """Return the scalar types of an annotation, or none of them."""
    is_union = get_origin(annotation) in {Union, UnionType}
    # No set: what `Annotated` adds need not have a hash.
    members = get_args(annotation) if is_union else (annotation,)
    # `None` has a spelling of its own in JSON and can be confused with no other type.
    others = [member for member in members if member not in (None, type(None))]
    known = _ALONE if len(others) == 1 else _APART
    if not all(isinstance(member, type) and member in known for member in others):
        return {}
    atoms = {member: known[member] for member in others}
    return atoms if len(others) == len(members) else {**atoms, type(None): None}
