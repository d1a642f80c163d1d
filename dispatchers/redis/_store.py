"""What the stores have in common: a bounded client, made when it is needed, and a prefix."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urldefrag

from redis import Redis

from ._bounds import bounded_client, within

__all__ = ["PREFIX", "Store"]

T = TypeVar("T")
PREFIX = "dispatchers"
"""What the stores' keys begin with."""


class Store:
    """A part of a Redis.

    Args:
        place: The server's address, or a client. `redis://host/0#shop` puts `shop` in place of
            `dispatchers` at the beginning of all keys: for applications that share a database.

        timeout: Seconds that each call may take.
    """

    def __init__(self, place: str | Redis, *, timeout: float = 2.0) -> None:
        prefix = ""
        if isinstance(place, str):
            place, prefix = urldefrag(place)
        self._place = place
        self._prefix = prefix or PREFIX
        self._timeout = timeout

    @cached_property
    def _client(self) -> Any:
        return bounded_client(self._place)

    def _within(self, work: Callable[[], T]) -> T:
        with within(self._timeout):
            return work()
