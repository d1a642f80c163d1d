"""The base of the stores: a bounded client, made on first use, and a prefix."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urldefrag

from redis import Redis

from dispatchers._errors import ConfigurationError

from ._bounds import bounded_client
from ._deadline import within
from ._durability import durability

T = TypeVar("T")
PREFIX = "dispatchers"
"""The beginning of the stores' keys."""


class Store:
    """A store in a Redis.

    Args:
        place: The server's address, or a client. `redis://host/0#shop` puts `shop` in place of
            `dispatchers` at the beginning of all keys: for applications that share a database.

        timeout: Seconds that each call may take.
    """

    def __init__(self, place: str | Redis, *, timeout: float = 2.0) -> None:
        prefix = ""
        if isinstance(place, str):
            place, prefix = urldefrag(place)
            if "@" in prefix:
                raise ConfigurationError(
                    "no address of a Redis: a # in a password is written as %23"
                )
        self._place = place
        self._prefix = prefix or PREFIX
        self._timeout = timeout

    @cached_property
    def _client(self) -> Any:
        return bounded_client(self._place)

    def warnings(self) -> tuple[str, ...]:
        """Ask the server which of its settings lose what is stored; for `doctor --contact`."""
        return self._within(lambda: durability(self._client)).warnings

    def _within(self, work: Callable[[], T]) -> T:
        with within(self._timeout):
            return work()
