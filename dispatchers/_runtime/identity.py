"""Keys of caches for values that cannot be hashed, or cost much to hash."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Identity"]

V = TypeVar("V")


class Identity(Generic[V]):
    """A key that is equal only for the very same object, which it keeps alive."""

    __slots__ = ("value",)

    def __init__(self, value: V) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.value is other.value
