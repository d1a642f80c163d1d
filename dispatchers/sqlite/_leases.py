"""The owners of running jobs: one per worker, with one lease for all that it holds."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterable, Sequence

from dispatchers._runtime.lease import Watch
from dispatchers.sqlite._connection import Database

__all__ = ["Owners"]

_REGISTER = "INSERT INTO owners (owner, beat, lease, seen_at) VALUES (?, 0, ?, ?)"


_BEAT = "UPDATE owners SET beat = beat + 1, seen_at = ? WHERE owner = ?"


_ALL = "SELECT owner, beat, lease FROM owners"


_HOLDING = "SELECT owner, beat FROM owners WHERE owner IN (SELECT owner FROM running)"


_KNOWN = "SELECT 1 FROM owners WHERE owner = ?"


_REMOVE = "DELETE FROM owners WHERE owner = ? AND beat = ?"


_REMOVE_SELF = "DELETE FROM owners WHERE owner = ?"


_COUNT = """
UPDATE jobs SET deliveries = running.deliveries FROM running
WHERE jobs.seq = running.seq AND running.owner IN (SELECT value FROM json_each(?))
"""


_RELEASE = "DELETE FROM running WHERE owner IN (SELECT value FROM json_each(?))"


# Owners whose jobs one transaction takes back: each reads `running` once, however many there are.
_REAPED = 500


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

    def register(self, *, timeout: float, mark: str = "") -> str:
        """Begin to be an owner; the first beat is due well within the lease.

        Args:
            timeout: Seconds.

            mark: Before its name.
        """
        # The pid is for people; it is reused by the system, so the rest makes the name unique.
        owner = f"{mark}{os.getpid()}-{uuid.uuid4().hex}"
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
            return release(connection, [owner], counted=False)

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

    def holding(self, *, timeout: float) -> dict[str, int]:
        """Return the beats of the owners that hold jobs."""
        deadline = time.monotonic() + timeout
        return dict(self._database.read(_read_holding, deadline=deadline))

    def reap(self, *, timeout: float) -> int:
        """Look at all owners, and take the jobs back from those that are gone.

        Returns:
            How many jobs went back to their queues.
        """
        deadline = time.monotonic() + timeout
        rows = self._database.read(_read_owners, deadline=deadline)
        # By this process's monotonic clock: `seen_at` is another's wall clock, which may be set.
        gone = [
            (owner, beat)
            for owner, beat, lease in rows
            if self._watch.left(owner, beat, lease) <= 0
        ]
        released = 0
        for start in range(0, len(gone), _REAPED):
            left = deadline - time.monotonic()
            if start and left <= 0:  # the next look goes on: a heartbeat must not wait for all
                break
            released += self._take_back(gone[start : start + _REAPED], max(0.0, left))
        return released

    def _take_back(self, owners: Sequence[tuple[str, int]], timeout: float) -> int:
        """Take what they hold; one that has renewed its lease since lives, and keeps it."""
        with self._database.transaction(timeout=timeout) as connection:
            # Only at the beat that was seen: it may have been renewed between read and write.
            gone = [each[0] for each in owners if connection.execute(_REMOVE, each).rowcount]
            released = release(connection, gone, counted=True)
        # After the commit: were it undone, the lease would be watched from the beginning again.
        for owner in gone:
            self._watch.forget(owner)
        return released


def is_known(connection: sqlite3.Connection, owner: str) -> bool:
    """Tell whether the owner is registered still."""
    return connection.execute(_KNOWN, (owner,)).fetchone() is not None


def release(connection: sqlite3.Connection, owners: Sequence[str], *, counted: bool) -> int:
    """Give back all that owners hold, within a transaction; returns how many jobs."""
    names = json.dumps(owners)
    # A job that ends its worker again and again must reach the limit of deliveries (C10).
    if counted:
        connection.execute(_COUNT, (names,))
    return connection.execute(_RELEASE, (names,)).rowcount


def _read_holding(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    return connection.execute(_HOLDING).fetchall()


def _read_owners(connection: sqlite3.Connection) -> list[tuple[str, int, float]]:
    return connection.execute(_ALL).fetchall()
