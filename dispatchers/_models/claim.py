"""Remembering which work was done, so that a repeated delivery runs once (C10)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from dispatchers._errors import public


@public
class Claim(NamedTuple):
    """The answer to a claim."""

    state: Literal["claimed", "done", "busy"]
    """`claimed`: run it. `done`: it ran. `busy`: another owner has it."""
    retry_after: float = 0.0
    """With `busy`, seconds until the other claim can have expired."""


@public
class ClaimInfo(NamedTuple):
    """One claim as a store lists it; a store that can has a method `claims`."""

    key: str
    """The key, scoped by task."""
    state: Literal["done", "running"]
    """`done`: its work ran. `running`: an owner holds it."""
    owner: str | None = None
    """The run that holds it, where the store knows."""
    until: datetime | None = None
    """The end of the claim, aware UTC; None while it depends on renewals."""


class IdempotencyStore(Protocol):
    """Claims by key. A key is already scoped by task; an owner is one run."""

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        """Take `key` for `ttl` seconds, unless it is done or another owner's."""
        ...

    def renew(self, key: str, owner: str, ttl: float) -> bool:
        """Hold `key` for `ttl` seconds more; false if it is not `owner`'s any more."""
        ...

    def complete(self, key: str, owner: str, ttl: float) -> bool:
        """Remember for `ttl` seconds that the work is done; false if it is not `owner`'s."""
        ...

    def release(self, key: str, owner: str) -> bool:
        """Give `key` back, so that the work can run again; false if it is not `owner`'s."""
        ...
