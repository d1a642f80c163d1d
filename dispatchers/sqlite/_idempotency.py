"""Claims by key in a file, so that what is delivered twice runs once (C10)."""

from __future__ import annotations

import os
import time

from dispatchers._idempotency import Claim
from dispatchers._watch import Watch

from ._connection import Database
from ._file import Synchronous

__all__ = ["SQLiteIdempotencyStore"]

_FIND = "SELECT owner, beat, ttl, done_until FROM claims WHERE key = ?"
_TAKE = """
INSERT INTO claims (key, owner, beat, ttl) VALUES (:key, :owner, 0, :ttl)
ON CONFLICT (key) DO UPDATE
SET owner = excluded.owner, beat = beat + 1, ttl = excluded.ttl, done_until = NULL
"""
_RENEW = """
UPDATE claims SET beat = beat + 1, ttl = :ttl
WHERE key = :key AND owner = :owner AND done_until IS NULL
"""
_COMPLETE = """
UPDATE claims SET beat = beat + 1, done_until = :until
WHERE key = :key AND owner = :owner AND done_until IS NULL
"""
_RELEASE = "DELETE FROM claims WHERE key = :key AND owner = :owner AND done_until IS NULL"
_PURGE = """
DELETE FROM claims WHERE key IN (
    SELECT key FROM claims WHERE done_until IS NOT NULL AND done_until <= ?
    ORDER BY done_until LIMIT 100)
"""


class SQLiteIdempotencyStore:
    """An idempotency store for the processes of one machine.

    A claim that is not completed lasts while its owner renews it: another process takes it over
    when it has itself seen no renewal for the claim's `ttl` on its own monotonic clock. A completed
    one is remembered by the wall clock.

    Args:
        path: The file, which may be a queue's; or a database that is open already.

        synchronous: `"full"` survives a loss of power; `"normal"` only that of any process.

        timeout: Seconds that each call waits for others.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Database,
        *,
        synchronous: Synchronous = "full",
        timeout: float = 5.0,
    ) -> None:
        if not isinstance(path, Database):
            path = Database(path, synchronous=synchronous)
        self._database = path
        self._timeout = timeout
        self._watch = Watch()

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        """Take the key for `ttl` seconds, unless it is done or another's."""
        now = time.time()
        with self._database.transaction(timeout=self._timeout) as connection:
            connection.execute(_PURGE, (now,))
            found = connection.execute(_FIND, (key,)).fetchone()
            claim = self._judge(key, owner, found, now)
            if claim.state == "claimed":
                connection.execute(_TAKE, {"key": key, "owner": owner, "ttl": ttl})
        return claim

    def renew(self, key: str, owner: str, ttl: float) -> bool:
        """Hold the key for `ttl` seconds more; false if it is not the owner's any more."""
        return self._change(_RENEW, {"key": key, "owner": owner, "ttl": ttl})

    def complete(self, key: str, owner: str, ttl: float) -> bool:
        """Remember for `ttl` seconds that the work is done; false if it is not the owner's."""
        return self._change(_COMPLETE, {"key": key, "owner": owner, "until": time.time() + ttl})

    def release(self, key: str, owner: str) -> bool:
        """Give the key back, so that the work can run again; false if it is not the owner's."""
        return self._change(_RELEASE, {"key": key, "owner": owner})

    def close(self, timeout: float = 5.0) -> bool:
        """Close the file; false if another thread was still at it."""
        return self._database.close(timeout)

    def _judge(
        self, key: str, owner: str, found: tuple[str, int, float, float | None] | None, now: float
    ) -> Claim:
        if found is None:
            return Claim("claimed")
        holder, beat, ttl, done_until = found
        if done_until is not None:
            return Claim("done") if done_until > now else Claim("claimed")
        left = 0.0 if holder == owner else self._watch.left(key, (holder, beat), ttl)
        return Claim("busy", left) if left > 0 else Claim("claimed")

    def _change(self, sql: str, values: dict[str, object]) -> bool:
        with self._database.transaction(timeout=self._timeout) as connection:
            return connection.execute(sql, values).rowcount == 1
