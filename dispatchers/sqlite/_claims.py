"""Claims on work in the file that is moved to another backend."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from dispatchers.moving import MARK, Claimed, Claims, Signs

from ._claim import claim_delayed
from ._errors import StoreUnavailableError
from ._records import Finish, Job
from ._store import SQLiteStore

__all__ = ["SQLiteClaims"]


class SQLiteClaims(Claims):
    """Claims of one owner, as a worker has them.

    Args:
        store: The queue. Not owned, never closed.

        queues: Those to claim from; None for all.

        timeout: Seconds that each step waits for others at the file.
    """

    def __init__(self, store: SQLiteStore, queues: Sequence[str] | None, *, timeout: float) -> None:
        self.lease = store.lease
        self._store, self._queues, self._timeout = store, queues, timeout
        self._owner = ""
        self._signs = Signs()
        self._lock = threading.Lock()

    @property
    def store(self) -> str:
        """Name the file by its number, which all its paths share."""
        self._store.open(timeout=self._timeout)  # which makes it
        # Not by pathlib, which makes an object for it.
        found = os.stat(self._store.path)  # noqa: PTH116
        return f"sqlite:{found.st_dev}:{found.st_ino}"

    def renew(self) -> bool:
        """Renew the owner's lease, and take back what dead workers and dead moves have left."""
        with self._lock:
            owners, known = self._store.owners, self._owner
            if not known or not owners.beat(known, timeout=self._timeout):
                self._owner = owners.register(timeout=self._timeout, mark=MARK)
            owners.reap(timeout=self._timeout)
            return self._owner == known or not known

    def claim(self, limit: int) -> Sequence[Claimed]:
        """Claim what is due, by priority; then what is scheduled, by time."""
        jobs = self._due(limit) or self._delayed(limit)
        now = time.time()
        return [_claimed(job, now) for job in jobs]

    def _due(self, limit: int) -> list[Job]:
        while True:
            found = self._store.exchange(
                (), owner=self._owner, queues=self._queues, limit=limit, timeout=self._timeout
            )
            if not found.alive:
                raise StoreUnavailableError("the lease of this move was lost: it claims anew")
            # What has expired is put aside by the claim, as for a worker: there may be more.
            if found.jobs or not found.expired:
                return found.jobs

    def _delayed(self, limit: int) -> list[Job]:
        database = self._store.database
        with database.transaction(timeout=self._timeout) as connection:
            return claim_delayed(
                connection,
                owner=self._owner,
                queues=self._queues,
                limit=limit,
                fences=database.tokens(),
            )

    def settle(self, gone: Sequence[Claimed], back: Sequence[Claimed]) -> None:
        """Forget some jobs, and give back others to their places in the queue."""
        finished = [Finish.forget(each.handle) for each in gone]
        finished += [Finish.give_back(each.handle, counted=False) for each in back]
        self._store.exchange(finished, owner=self._owner, queues=(), limit=0, timeout=self._timeout)

    def recover(self, known: Sequence[Claimed]) -> None:
        """Give back what an answer that was lost has claimed."""
        fences = [each.handle.fence for each in known]
        self._store.owners.release_all_but(self._owner, fences, timeout=self._timeout)

    @property
    def expects(self) -> bool:
        """Tell whether the lease of another move is not renewed."""
        found = self._store.owners.holding(timeout=self._timeout)
        found.pop(self._owner, None)
        return self._signs.is_missing(found)

    def close(self) -> None:
        """Stop being an owner."""
        if self._owner:
            self._store.owners.leave(self._owner, timeout=self._timeout)
            self._owner = ""


def _claimed(job: Job, now: float) -> Claimed:
    return Claimed(job, job.body, job.attempt, job.run_at if job.run_at > now else None)
