"""Values that certainly arrive as they are: judged by their exact type, without decoding them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from types import UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

__all__ = ["Atoms", "atoms_of"]

Atoms = Mapping[type, Callable[[Any], bool] | None]
"""The types that a parameter takes; a function says which of their values are certain, None all."""

# Together in one union they stay apart in JSON. (Text that UTF-8 cannot carry fails when written.)
_APART: Atoms = {int: None, str: None, bool: None}
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
    """The atoms that an annotation consists of; none if it consists of anything else, too."""
    is_union = get_origin(annotation) in {Union, UnionType}
    members = set(get_args(annotation) if is_union else (annotation,))
    others = members - {None, type(None)}
    known = _ALONE if len(others) == 1 else _APART
    if not all(isinstance(member, type) and member in known for member in others):
        return {}
    atoms = {member: known[member] for member in others}
    return atoms if others == members else {**atoms, type(None): None}
