"""The durable queue in one file."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from functools import partial

from dispatchers._dispatch.error_mapping import type_name
from dispatchers._runtime.log import say
from dispatchers.sqlite._dead_jobs import DeadJobs
from dispatchers.sqlite._group_commit import Puts
from dispatchers.sqlite._leases import Owners, is_known
from dispatchers.sqlite._records import Counts, Exchange, Finish, Job, NewJob, Stored

from ._claim import any_left, any_waiting, claim, promote, purge
from ._connection import Database
from ._counts import ByQueue, count, count_queues
from ._file import Synchronous, check_space
from ._settle import settle

__all__ = ["SQLiteStore"]

# Finished jobs that one exchange forgets at most, beyond twice those that were added since, and the
# seconds between two such exchanges: to find none takes as long as to settle a job.
_PURGED = 100
_PURGE = 0.1


# Seconds after which a job is delivered again whose effects were refused.
_REFUSED = 5.0


# Of what is recorded. All others are of the file, and the whole batch is tried again.
_OF_THE_VALUES = (sqlite3.IntegrityError, sqlite3.DataError)


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
        self._added = 0
        self._purged_at = 0.0

    @property
    def path(self) -> str:
        """The file's absolute path."""
        return self.database.path

    def open(self, *, timeout: float) -> None:
        """Open the file now, creating or upgrading it, to learn whether that works."""
        self.database.run(_nothing, deadline=time.monotonic() + timeout)

    def check(self, *, timeout: float) -> None:
        """Check that the file can be written to, by a transaction that leaves nothing behind.

        Raises:
            StoreError: It cannot be.
        """
        deadline = time.monotonic() + timeout
        self.open(timeout=timeout)
        check_space(self.path)
        # A real write: a read-only file or a full disk is seen only by writing.
        owner = self.owners.register(timeout=max(0.0, deadline - time.monotonic()))
        self.owners.leave(owner, timeout=max(0.0, deadline - time.monotonic()))

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
        # Idle workers only read: a write transaction each would keep producers waiting.
        if not finished and not self._anything(queues, limit, deadline):
            return Exchange([], [], alive=True, expired=0)
        now = time.time()
        left = max(0.0, deadline - time.monotonic())
        with self.database.transaction(timeout=left) as connection:
            keep = self.retention > 0
            # Settled before the claim: a retry that is due at once can be claimed in the same go.
            lost = settle(connection, finished, now=now, keep=keep, apply=self._applied)
            promote(connection, now=now)
            # An owner whose lease was lost settles nothing and may not claim anything either.
            alive = is_known(connection, owner)
            jobs, expired = claim(
                connection,
                owner=owner,
                queues=queues,
                limit=limit if alive else 0,
                now=now,
                fences=self.database.tokens(),
            )
            self._tidy(connection, now, len(finished))
        return Exchange(jobs, lost, alive=alive, expired=expired)

    def _tidy(self, connection: sqlite3.Connection, now: float, added: int) -> None:
        """Forget finished jobs, now and then; also after the clock was set back."""
        self._added += added
        if 0 <= now - self._purged_at < _PURGE:
            return
        # More than is added, so that a backlog of finished jobs shrinks under any load.
        purge(connection, before=now - self.retention, limit=_PURGED + 2 * self._added)
        self._added, self._purged_at = 0, now

    def _applied(self, connection: sqlite3.Connection, finish: Finish) -> Finish:
        """Record the effects of a run, all or nothing; others of the batch are left alone."""
        # Late: processes that only dispatch load nothing of the journal.
        from dispatchers.sqlite._journal_effects import apply_effects

        connection.execute("SAVEPOINT effects")
        try:
            done = apply_effects(connection, finish.effects, self._puts.put_within)
        except Exception as exc:
            if isinstance(exc, sqlite3.Error) and not isinstance(exc, _OF_THE_VALUES):
                raise
            connection.execute("ROLLBACK TO effects")
            return _refused(finish.job, exc)
        finally:
            connection.execute("RELEASE effects")
        return finish if done else Finish.give_back(finish.job, counted=False)

    def is_empty(self, queues: Sequence[str] | None, *, timeout: float) -> bool:
        """Tell whether nothing waits or runs in these queues, None for all, delayed jobs too.

        Turns that are not due yet are no work that is left: their executions are parked.
        """
        look = partial(any_left, queues=queues, now=time.time())
        return not self.database.read(look, deadline=time.monotonic() + timeout)

    def purge(self, *, timeout: float, limit: int = 1000) -> int:
        """Forget finished jobs that are past their retention, at most `limit` of each kind.

        Returns:
            How many went.
        """
        before = time.time() - self.retention
        with self.database.transaction(timeout=timeout) as connection:
            return purge(connection, before=before, limit=limit)

    def counts(self, *, timeout: float = 5.0) -> Counts:
        """Return how many jobs are in each state; takes longer the more there are."""
        return self.database.read(count, deadline=time.monotonic() + timeout)

    def counts_by_queue(self, *, timeout: float = 5.0) -> ByQueue:
        """Count the jobs of each queue, from indexes alone."""
        return self.database.read(count_queues, deadline=time.monotonic() + timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Close permanently; false if another thread still used it after `timeout` seconds."""
        return self.database.close(timeout)

    def _anything(self, queues: Sequence[str] | None, limit: int, deadline: float) -> bool:
        """Tell whether a claim is worth a write transaction; an idle worker asks often."""
        if limit <= 0:
            return False
        look = partial(any_waiting, queues=queues, now=time.time())
        return self.database.read(look, deadline=deadline)


def _refused(job: Job, exc: Exception) -> Finish:
    """Give back a job whose effects cannot be recorded."""
    words = "effects of a run of %s are refused: %s: %s"
    say(logging.ERROR, words, job.task, type_name(exc), exc)
    # A package that was replaced under its worker starts children that it does not understand:
    # until that is started anew the job has no part in it.
    is_counted = isinstance(exc, sqlite3.Error)
    return Finish.give_back(job, run_at=time.time() + _REFUSED, counted=is_counted)


def _nothing(_: object) -> None:
    return None
