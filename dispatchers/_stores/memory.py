"""Stores in this process."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import NamedTuple

from dispatchers._models.claim import Claim, ClaimInfo
from dispatchers._models.dead_letter import DeadLetter
from dispatchers._runtime.fork import renew_after_fork

__all__ = ["MemoryDeadLetters", "MemoryIdempotencyStore"]


class MemoryDeadLetters:
    """Dead letters in this process, the oldest dropped beyond a limit."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._letters: OrderedDict[str, DeadLetter] = OrderedDict()
        self._lock = threading.RLock()
        renew_after_fork(self)

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter."""
        with self._lock:
            self._letters[letter.id] = letter
            # A letter that is replaced counts as new: the oldest are dropped first.
            self._letters.move_to_end(letter.id)
            while len(self._letters) > self._limit:
                self._letters.popitem(last=False)

    def list(
        self, *, limit: int = 100, task: str | None = None, queue: str | None = None
    ) -> list[DeadLetter]:
        """The newest letters first."""
        with self._lock:
            # Copied under the lock, filtered outside of it.
            newest = list(reversed(self._letters.values()))
        wanted = (
            letter
            for letter in newest
            if task in (None, letter.task) and queue in (None, letter.queue)
        )
        return [letter for letter, _ in zip(wanted, range(limit), strict=False)]

    def counts(self) -> dict[str, int]:
        """Count the letters by queue."""
        with self._lock:
            return Counter(letter.queue for letter in self._letters.values())

    def get(self, id: str) -> DeadLetter | None:  # noqa: A002
        """One letter."""
        return self._letters.get(id)

    def edit(self, id: str, body: bytes) -> bool:  # noqa: A002
        """Replace the envelope of a letter; false if there is none."""
        with self._lock:
            if (letter := self._letters.get(id)) is None:
                return False
            self._letters[id] = letter.model_copy(update={"body": body})
            return True

    def delete(self, id: str) -> bool:  # noqa: A002
        """Forget a letter; false if there is none."""
        with self._lock:
            return self._letters.pop(id, None) is not None

    def _after_fork(self) -> None:
        self._lock = threading.RLock()


class _Entry(NamedTuple):
    owner: str
    done: bool
    until: float


class MemoryIdempotencyStore:
    """Idempotency claims in this process."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.RLock()
        self._sweep_at = 1024
        renew_after_fork(self)

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        """Take `key` for `ttl` seconds, unless it is done or taken."""
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
        """Renew a claim for `ttl` seconds; false if it was lost."""
        return self._replace(key, owner, ttl, done=False)

    def complete(self, key: str, owner: str, ttl: float) -> bool:
        """Mark a key as done for `ttl` seconds; false if it was lost."""
        return self._replace(key, owner, ttl, done=True)

    def release(self, key: str, owner: str) -> bool:
        """Release a key; false if it was lost."""
        with self._lock:
            if not self._owns(key, owner, monotonic()):
                return False
            del self._entries[key]
            return True

    def claims(self) -> list[ClaimInfo]:
        """Return the claims that hold now."""
        now, wall = monotonic(), datetime.now(UTC)
        with self._lock:
            entries = list(self._entries.items())
        return [
            ClaimInfo(
                key,
                "done" if entry.done else "running",
                entry.owner,
                wall + timedelta(seconds=entry.until - now),
            )
            for key, entry in entries
            if entry.until > now
        ]

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
        # Swept when the number has doubled, so that the cost per claim stays constant.
        if len(self._entries) >= self._sweep_at:
            self._entries = {k: e for k, e in self._entries.items() if e.until > now}
            self._sweep_at = max(1024, 2 * len(self._entries))

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
