"""Limits checked before arguments are encoded: what costs more than its size is refused by size.

An integer of a million digits takes minutes to write, with the interpreter held; a list that holds
the same list twice, that one another twice, and so on, is short in memory and endless in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from dispatchers._payload.errors import PayloadError, unwritable
from dispatchers._payload.unserializable import MAX_DEPTH, NESTED, children_of, parts_of

MAX_BYTES = 256 * 1024 * 1024
"""Bytes of JSON, as far as they can be told from the values: more than any backend takes."""

MAX_INTEGER_BITS = int(4299 * math.log2(10))
"""Python and JSON readers end at 4300 digits; before pydantic 2.14 the sign counts as one."""

LONG_INTEGER = "is an int of 4300 digits or more, which would not be read again: pass text"
TOO_LARGE = "is too large to be sent: pass a reference to the data instead of the data"

_UNIT = frozenset({bool, float, type(None)})
_SIZED = frozenset({str, bytes, bytearray})


def check_size(values: Mapping[str, Any]) -> None:
    """Accept values whose JSON can be written in time that grows with their size.

    Raises:
        PayloadError: An integer is too long, the whole too large, or nested too deeply.
    """
    try:
        _Scale().weigh(values, 0)
    except (PayloadError, MemoryError):
        raise
    except Exception as exc:  # noqa: BLE001 - C1: looking at a value may run its code
        raise unwritable(exc) from None


class _Scale:
    """Adds up the JSON of values; one that is used twice is looked at once."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def weigh(self, value: Any, depth: int) -> int:
        """Return about the bytes of a value's JSON."""
        kind = type(value)
        if kind in _UNIT:
            return 1
        if kind in _SIZED:
            return len(value)
        if isinstance(value, int):
            return _integer(value)
        # By identity: a list that holds one list many times is weighed once, however deep.
        known = self._known.get(id(value))
        return self._container(value, depth) if known is None else known

    def _container(self, value: Any, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise PayloadError(NESTED)
        if type(value) is list or type(value) is tuple:
            weight = _flat(value)
            if weight is not None:
                return weight
        total, place = 1, -1
        try:
            for place, inner in enumerate(children_of(value)):  # noqa: B007 - for the message
                total += self.weigh(inner, depth + 1)
        except PayloadError as error:
            part = next(islice(parts_of(value), place, None))[0]
            # The path is looked up only now: writing it for every value would be slow.
            raise error.under(part if depth else part.removeprefix(".")) from None
        if total > MAX_BYTES:
            raise PayloadError(TOO_LARGE)
        self._known[id(value)] = total
        return total


def _flat(values: Sequence[Any]) -> int | None:
    """Return the weight of a list of scalars of one kind, or None; at the speed of C."""
    kinds = set(map(type, values))
    if kinds <= _UNIT:
        return len(values)
    if len(kinds) == 1 and kinds <= _SIZED:
        total = sum(map(len, values))
        return total if total <= MAX_BYTES else None
    if kinds == {int} and max(map(int.bit_length, values)) <= MAX_INTEGER_BITS:
        return 20 * len(values)
    return None


def _integer(value: int) -> int:
    if value.bit_length() > MAX_INTEGER_BITS:
        raise PayloadError(LONG_INTEGER)
    return 20
