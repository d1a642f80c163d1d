"""What little can be asked of a value whose type is not known here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._payload_errors import PayloadError, type_name

__all__ = ["attributes", "says_equal"]


def says_equal(original: Any, decoded: Any) -> bool:
    """Whether the type's own `==` says True, and nothing else that counts as true."""
    try:
        return (original == decoded) is True
    except Exception:  # noqa: BLE001 - somebody else's comparison, which may raise anything
        return False


def attributes(value: Any) -> list[str]:
    """The names of everything a value holds.

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
        slots = base.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots
