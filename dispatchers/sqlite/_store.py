"""The durable queue in one file."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial

from ._claim import any_left, any_waiting, claim, promote, purge
from ._connection import Database
from ._counts import count
from ._dead import DeadJobs
from ._file import Synchronous
from ._jobs import Counts, Exchange, Finish, NewJob, Stored
from ._owners import Owners, is_known
from ._puts import Puts
from ._settle import settle

__all__ = ["SQLiteStore"]

# Finished jobs that one exchange forgets at most, beyond twice those that it adds.
_PURGED = 100


class SQLiteStore:
    """A queue that survives its processes, in one file of the standard library's SQLite.

    Serves any number of processes and threads, also across forks. Every call waits for others at
    most its timeout, in seconds, and raises a `StoreError` that says by `maybe_written` whether the
    change may have happened all the same.

    Args:
        path: The file; its directory has to exist. Created on first use, for its owner only.

        synchronous: `"full"` survives a loss of power; `"normal"` only that of any process.

        lease: Seconds without a beat after which an owner's jobs are given to others.

        retention: Seconds for which the ids and keys of finished jobs are remembered.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "full",
        lease: float = 60.0,
        retention: float = 86400.0,
    ) -> None:
        if not lease > 0 or not retention >= 0:
            raise ValueError("lease has to be positive and retention not negative")
        self.database = Database(path, synchronous=synchronous)
        self.dead = DeadJobs(self.database)
        self.owners = Owners(self.database, lease)
        self.lease = lease
        self.retention = retention
        self._puts = Puts(self.database)

    @property
    def path(self) -> str:
        """The file's absolute path."""
        return self.database.path

    def open(self, *, timeout: float) -> None:
        """Open the file now, creating or upgrading it, to learn whether that works."""
        self.database.run(_nothing, deadline=time.monotonic() + timeout)

    def put(self, job: NewJob, *, timeout: float) -> Stored:
        """Store one job; it is on the disk when this returns.

        Returns:
            A duplicate if a job of the same id is there, or one of the same task and key that is
            alive or remembered; then with the id of that one.
        """
        return self._puts.put(job, deadline=time.monotonic() + timeout)

    def put_many(self, jobs: Sequence[NewJob], *, timeout: float) -> list[Stored]:
        """Store several jobs, all or none, in one transaction; the answers are in their order."""
        return self._puts.put_many(jobs, deadline=time.monotonic() + timeout)

    def exchange(
        self,
        finished: Sequence[Finish],
        *,
        owner: str,
        queues: Sequence[str] | None,
        limit: int,
        timeout: float,
    ) -> Exchange:
        """Settle the deliveries of one batch and claim the next, in one transaction.

        Args:
            finished: What became of deliveries of this owner.

            owner: From `owners.register`.

            queues: From which queues to claim; None for all.

            limit: At most how many to claim; 0 for none.

            timeout: Seconds.
        """
        deadline = time.monotonic() + timeout
        if not finished and not self._anything(queues, limit, deadline):
            return Exchange([], [], alive=True, expired=0)
        now = time.time()
        left = max(0.0, deadline - time.monotonic())
        with self.database.transaction(timeout=left) as connection:
            keep = self.retention > 0
            lost = settle(connection, finished, now=now, keep=keep)
            promote(connection, now=now)
            alive = is_known(connection, owner)
            jobs, expired = claim(
                connection,
                owner=owner,
                queues=queues,
                limit=limit if alive else 0,
                now=now,
                fences=self.database.tokens(),
            )
            purge(connection, before=now - self.retention, limit=_PURGED + 2 * len(finished))
        return Exchange(jobs, lost, alive=alive, expired=expired)

    def is_empty(self, queues: Sequence[str] | None, *, timeout: float) -> bool:
        """Whether nothing waits or runs in these queues, None for all; delayed jobs wait too."""
        look = partial(any_left, queues=queues)
        return not self.database.run(look, deadline=time.monotonic() + timeout)

    def purge(self, *, timeout: float, limit: int = 1000) -> int:
        """Forget finished jobs that are past their retention, at most `limit` of each kind.

        Returns:
            How many went.
        """
        before = time.time() - self.retention
        with self.database.transaction(timeout=timeout) as connection:
            return purge(connection, before=before, limit=limit)

    def counts(self, *, timeout: float = 5.0) -> Counts:
        """How many jobs are in each state; takes longer the more there are."""
        return self.database.run(count, deadline=time.monotonic() + timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Close for good; false if another thread was still at it after `timeout` seconds."""
        return self.database.close(timeout)

    def _anything(self, queues: Sequence[str] | None, limit: int, deadline: float) -> bool:
        """Whether a claim is worth a write transaction; an idle worker asks often."""
        if limit <= 0:
            return False
        look = partial(any_waiting, queues=queues, now=time.time())
        return self.database.run(look, deadline=deadline)


def _nothing(_: object) -> None:
    return None
