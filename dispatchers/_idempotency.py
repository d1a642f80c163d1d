"""Remembering which work was done, so that a repeated delivery runs once (C10)."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Literal, NamedTuple, Protocol

from ._fork import renew_after_fork

__all__ = ["Claim", "IdempotencyStore", "MemoryIdempotencyStore"]


class Claim(NamedTuple):
    """The answer to a claim."""

    state: Literal["claimed", "done", "busy"]
    """`claimed`: run it. `done`: it ran. `busy`: another owner has it."""
    retry_after: float = 0.0
    """With `busy`, seconds until the other claim can have expired."""


class IdempotencyStore(Protocol):
    """Claims by key. A key is already scoped by task; an owner is one run."""

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        """Take `key` for `ttl` seconds, unless it is done or somebody else's."""
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


class _Entry(NamedTuple):
    owner: str
    done: bool
    until: float


class MemoryIdempotencyStore:
    """Claims in this process: for tests, and for backends that live in one process anyway."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.RLock()
        self._sweep_at = 1024
        renew_after_fork(self)

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        """Take `key` for `ttl` seconds, unless it is done or somebody else's."""
        now = monotonic()
        with self._lock:
            entry = self._live(key, now)
            if entry is not None and entry.done:
                return Claim("done")
            if entry is not None and entry.owner != owner:
                return Claim("busy", entry.until - now)
            self._put(key, _Entry(owner, done=False, until=now + ttl), now)
            return Claim("claimed")

    def renew(self, key: str, owner: str, ttl: float) -> bool:
        """Hold `key` for `ttl` seconds more; false if it is not `owner`'s any more."""
        return self._replace(key, owner, ttl, done=False)

    def complete(self, key: str, owner: str, ttl: float) -> bool:
        """Remember for `ttl` seconds that the work is done; false if it is not `owner`'s."""
        return self._replace(key, owner, ttl, done=True)

    def release(self, key: str, owner: str) -> bool:
        """Give `key` back; false if it is not `owner`'s."""
        with self._lock:
            if not self._owns(key, owner, monotonic()):
                return False
            del self._entries[key]
            return True

    def _replace(self, key: str, owner: str, ttl: float, *, done: bool) -> bool:
        now = monotonic()
        with self._lock:
            if not self._owns(key, owner, now):
                return False
            self._entries[key] = _Entry(owner, done, now + ttl)
            return True

    def _owns(self, key: str, owner: str, now: float) -> bool:
        entry = self._live(key, now)
        return entry is not None and entry.owner == owner and not entry.done

    def _live(self, key: str, now: float) -> _Entry | None:
        entry = self._entries.get(key)
        return entry if entry is not None and entry.until > now else None

    def _put(self, key: str, entry: _Entry, now: float) -> None:
        self._entries[key] = entry
        if len(self._entries) >= self._sweep_at:
            self._entries = {k: e for k, e in self._entries.items() if e.until > now}
            self._sweep_at = max(1024, 2 * len(self._entries))

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
