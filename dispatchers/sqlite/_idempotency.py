"""Claims by key in a file, so that what is delivered twice runs once (C10)."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

from dispatchers._models.claim import Claim, ClaimInfo

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
_SEEN = "SELECT since FROM watched WHERE key = ? AND mark = ? AND since <= ?"
_SEE = "INSERT OR REPLACE INTO watched (key, mark, since) VALUES (?, ?, ?)"
_LOOK_AWAY = "DELETE FROM watched WHERE key = ?"
_RELEASE = "DELETE FROM claims WHERE key = :key AND owner = :owner AND done_until IS NULL"
_PURGE = """
DELETE FROM claims WHERE key IN (
    SELECT key FROM claims WHERE done_until IS NOT NULL AND done_until <= ?
    ORDER BY done_until LIMIT 100)
"""


_LIST = "SELECT key, owner, done_until FROM claims WHERE key > ? ORDER BY key LIMIT 1000"


def _page(connection: sqlite3.Connection, *, after: str) -> list[tuple[str, str, float | None]]:
    return connection.execute(_LIST, (after,)).fetchall()


class SQLiteIdempotencyStore:
    """An idempotency store for the processes of one machine.

    A claim that is not completed lasts while its owner renews it: another process takes it over
    when no process has seen a renewal for the claim's `ttl`. They note in the file what they saw
    and when, by the clock that the machine has had since its start. A completed claim is remembered
    by the wall clock.

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
        self._database = Database.at(path, synchronous=synchronous)
        self._timeout = timeout
        self._clock = time.monotonic

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        """Take the key for `ttl` seconds, unless it is done or another's."""
        now = time.time()
        with self._database.transaction(timeout=self._timeout) as connection:
            # In the same transaction: no separate process has to tidy up.
            connection.execute(_PURGE, (now,))
            found = connection.execute(_FIND, (key,)).fetchone()
            claim = self._answer(connection, key, owner, found, now)
            if claim.state == "claimed":
                connection.execute(_TAKE, {"key": key, "owner": owner, "ttl": ttl})
                connection.execute(_LOOK_AWAY, (key,))
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

    def claims(self) -> Iterator[ClaimInfo]:
        """Return the claims by key, a page at a time; those that have ended are left out."""
        after = ""
        while rows := self._database.read(
            partial(_page, after=after), deadline=time.monotonic() + self._timeout
        ):
            now = time.time()
            for key, owner, done in rows:
                if done is None:
                    yield ClaimInfo(key, "running", owner)
                elif done > now:
                    yield ClaimInfo(key, "done", owner, datetime.fromtimestamp(done, UTC))
            # By key, not by offset: rows that go meanwhile move no others across a page's edge.
            after = rows[-1][0]

    def close(self, timeout: float = 5.0) -> bool:
        """Close the file; false if another thread was still at it."""
        return self._database.close(timeout)

    def _answer(
        self,
        connection: sqlite3.Connection,
        key: str,
        owner: str,
        found: tuple[str, int, float, float | None] | None,
        now: float,
    ) -> Claim:
        if found is None:
            return Claim("claimed")
        holder, beat, ttl, done_until = found
        # Done is remembered by the wall clock: no owner is left that could renew it.
        if done_until is not None:
            return Claim("done") if done_until > now else Claim("claimed")
        left = 0.0 if holder == owner else self._left(connection, key, f"{beat} {holder}", ttl)
        return Claim("busy", left) if left > 0 else Claim("claimed")

    def _left(self, connection: sqlite3.Connection, key: str, mark: str, ttl: float) -> float:
        """Return the seconds that a claim lasts if it is not renewed any more."""
        now = self._clock()
        # One from the future was noted before the machine was started anew.
        seen = connection.execute(_SEEN, (key, mark, now)).fetchone()
        if seen is None:
            connection.execute(_SEE, (key, mark, now))
            return ttl
        return ttl - (now - float(seen[0]))

    def _change(self, sql: str, values: dict[str, object]) -> bool:
        with self._database.transaction(timeout=self._timeout) as connection:
            if sql is not _RENEW:
                connection.execute(_LOOK_AWAY, (values["key"],))
            return connection.execute(sql, values).rowcount == 1
