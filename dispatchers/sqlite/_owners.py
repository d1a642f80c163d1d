"""Who holds running jobs: one owner per worker, who renews one lease for all that it holds."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterable

from dispatchers._watch import Watch

from ._connection import Database

__all__ = ["Owners"]

_REGISTER = "INSERT INTO owners (owner, beat, lease, seen_at) VALUES (?, 0, ?, ?)"
_BEAT = "UPDATE owners SET beat = beat + 1, seen_at = ? WHERE owner = ?"
_ALL = "SELECT owner, beat, lease FROM owners"
_KNOWN = "SELECT 1 FROM owners WHERE owner = ?"
_REMOVE = "DELETE FROM owners WHERE owner = ? AND beat = ?"
_REMOVE_SELF = "DELETE FROM owners WHERE owner = ?"
_COUNT = """
UPDATE jobs SET deliveries = running.deliveries FROM running
WHERE jobs.seq = running.seq AND running.owner = ?
"""
_RELEASE = "DELETE FROM running WHERE owner = ?"
_RELEASE_REST = """
DELETE FROM running WHERE owner = ? AND fence NOT IN (SELECT value FROM json_each(?))
"""


class Owners:
    """The owners of one file.

    Args:
        database: The file.

        lease: Seconds without a beat after which an owner registered here counts as gone.
    """

    def __init__(self, database: Database, lease: float) -> None:
        self._database = database
        self._lease = lease
        self._watch = Watch()

    def register(self, *, timeout: float) -> str:
        """Begin to be an owner; the first beat is due well within the lease."""
        owner = f"{os.getpid()}-{uuid.uuid4().hex}"
        with self._database.transaction(timeout=timeout) as connection:
            connection.execute(_REGISTER, (owner, self._lease, time.time()))
        return owner

    def beat(self, owner: str, *, timeout: float) -> bool:
        """Renew the lease; false if it was lost, and with it all that the owner held."""
        with self._database.transaction(timeout=timeout) as connection:
            return connection.execute(_BEAT, (time.time(), owner)).rowcount == 1

    def leave(self, owner: str, *, timeout: float) -> int:
        """Stop being an owner. What it still holds goes back, not counted as delivered."""
        with self._database.transaction(timeout=timeout) as connection:
            connection.execute(_REMOVE_SELF, (owner,))
            return release(connection, owner, counted=False)

    def release_all_but(self, owner: str, fences: Iterable[int], *, timeout: float) -> int:
        """Give back what the owner holds and does not know of, after an unclear answer.

        Args:
            owner: Who.

            fences: The claims it knows of.

            timeout: Seconds.

        Returns:
            How many jobs went back.
        """
        with self._database.transaction(timeout=timeout) as connection:
            known = json.dumps(list(fences))
            return connection.execute(_RELEASE_REST, (owner, known)).rowcount

    def reap(self, *, timeout: float) -> int:
        """Look at all owners, and take the jobs back from those that are gone.

        Returns:
            How many jobs went back to their queues.
        """
        deadline = time.monotonic() + timeout
        rows = self._database.run(_read_owners, deadline=deadline)
        gone = [
            (owner, beat)
            for owner, beat, lease in rows
            if self._watch.left(owner, beat, lease) <= 0
        ]
        return sum(self._take_back(owner, beat, deadline) for owner, beat in gone)

    def _take_back(self, owner: str, beat: int, deadline: float) -> int:
        """Only if it has not beaten since: then it lives, and keeps what it holds."""
        left = max(0.0, deadline - time.monotonic())
        with self._database.transaction(timeout=left) as connection:
            if not connection.execute(_REMOVE, (owner, beat)).rowcount:
                return 0
            released = release(connection, owner, counted=True)
        self._watch.forget(owner)
        return released


def is_known(connection: sqlite3.Connection, owner: str) -> bool:
    """Whether the owner is registered still."""
    return connection.execute(_KNOWN, (owner,)).fetchone() is not None


def release(connection: sqlite3.Connection, owner: str, *, counted: bool) -> int:
    """Give back all that an owner holds, within a transaction; returns how many jobs."""
    if counted:
        connection.execute(_COUNT, (owner,))
    return connection.execute(_RELEASE, (owner,)).rowcount


def _read_owners(connection: sqlite3.Connection) -> list[tuple[str, int, float]]:
    return connection.execute(_ALL).fetchall()
