"""Stores that are down."""

from __future__ import annotations

from dispatchers import Claim, DeadLetter

__all__ = ["Down"]


class Down:
    """A store of either kind that cannot be reached."""

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        """Fail."""
        raise OSError("the store is down")

    def renew(self, key: str, owner: str, ttl: float) -> bool:
        """Fail."""
        raise OSError("the store is down")

    def complete(self, key: str, owner: str, ttl: float) -> bool:
        """Fail."""
        raise OSError("the store is down")

    def release(self, key: str, owner: str) -> bool:
        """Fail."""
        raise OSError("the store is down")

    def add(self, letter: DeadLetter) -> None:
        """Fail."""
        raise OSError("the store is down")
