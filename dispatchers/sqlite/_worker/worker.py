"""The worker of a file: a process that holds the jobs, and children that run them.

The worker owns the connection and the lease, claims, settles and keeps time; it runs no task
itself, so that no handler can hold it up or take it down. Its children run the tasks, and can be
killed. One transaction settles what they have done and claims what they will do next.
"""

from __future__ import annotations

import contextlib
import logging
from time import monotonic
from typing import TYPE_CHECKING

from dispatchers._dispatch.error_mapping import place_of, type_name
from dispatchers._dispatch.worker_protocol import WorkerOptions
from dispatchers._errors import ConfigurationError
from dispatchers._runtime.log import say, say_once
from dispatchers._runtime.platform import lacks_posix
from dispatchers._stores.loading import dead_letters
from dispatchers._worker.signals import stopped_by_signals
from dispatchers.sqlite._errors import StoreError
from dispatchers.sqlite._store import SQLiteStore
from dispatchers.sqlite._worker.child_handle import setup_frame
from dispatchers.sqlite._worker.lease_keeper import LeaseKeeper
from dispatchers.sqlite._worker.process_pool import BrokenError, ProcessPool

if TYPE_CHECKING:
    from dispatchers.sqlite._options import SQLiteOptions

__all__ = ["SQLiteWorker"]


# Seconds between two looks at an empty queue, and at the clock.
_POLL = 0.025


_TICK = 0.05


# Seconds after which a finished job is settled although no other is asked for.
_SETTLE = 0.02


# Seconds that one exchange with the file waits for others, and between two that failed.
_EXCHANGE = 2.0


_AGAIN = 0.2


# Seconds for the first and the last contact with the file, and for idle children to end.
_LAST = 10.0


_FAREWELL = 2.0


STUCK_AFTER = 60.0
"""Seconds without a turn of its loop, which waits for a few at most, after which it is stuck."""


class SQLiteWorker:
    """Runs the work of one file in `concurrency` child processes.

    Args:
        options: The dispatcher's.

        work: What is asked of the worker.

    Raises:
        ConfigurationError: The system has no pipes that can be waited for.
    """

    def __init__(self, options: SQLiteOptions, work: WorkerOptions) -> None:
        if (lack := lacks_posix()) is not None:
            raise ConfigurationError(f"the worker of 'sqlite' needs a POSIX system: {lack}")
        self._options = options
        self._work = work
        self._queues = work.queues or None
        self._store = _store(options)
        # A store of its own: an exchange that waits for the file must not delay a renewal.
        self._lease = LeaseKeeper(_store(options), self._wake)
        self._pool: ProcessPool | None = None
        self._stopping = False
        self._turned_at = monotonic()
        self._tick_at = 0.0
        self._poll_at = 0.0
        self._settle_at = 0.0
        self._again_at = 0.0

    def run(self) -> int:
        """Work until stopped, by `stop`, SIGTERM or SIGINT; with `drain`, until nothing is due.

        Returns:
            0 after a graceful stop; 1 where handlers had to be killed after the grace, or where the
            children could not do their work.
        """
        letters = self._options.dead_letters
        self._pool = pool = ProcessPool(
            setup_frame(self._options, self._work.modules),
            self._work.concurrency,
            None if letters is None else dead_letters(letters),
        )
        try:
            with stopped_by_signals(self.stop):
                # Before the children: without a lease nothing could be claimed for them.
                self._lease.start(timeout=_LAST)
                pool.start()
                self._serve(pool)
                return self._finish(pool)
        except (BrokenError, StoreError) as exc:
            say(logging.ERROR, "the worker ends: %s", exc)
            return 1
        finally:
            self._end(pool)

    def stop(self) -> None:
        """Take no more work, finish what runs, then return from `run`. Safe in signal handlers."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        if self._pool is not None:
            self._pool.wake()

    # At work.

    def healthy(self) -> bool:
        """Tell whether the lease is held and the loop goes on; safe from any thread."""
        return not self._lease.lost and monotonic() - self._turned_at < STUCK_AFTER

    def _serve(self, pool: ProcessPool) -> None:
        while not self._stopping:
            self._turned_at = monotonic()
            try:
                self._step(pool)
            except (BrokenError, StoreError):
                raise
            except Exception as exc:  # noqa: BLE001 - a defect ends no worker: others wait for it
                words = "the worker goes on after %s at %s"
                say_once(self, logging.ERROR, words, type_name(exc), place_of(exc))
                # A pause, so that a defect that recurs does not fill the log or a processor.
                pool.wait(_AGAIN)

    def _step(self, pool: ProcessPool) -> None:
        pool.wait(self._pause(pool))
        if self._lease.lost:
            self._start_over(pool)
        if (now := monotonic()) >= self._tick_at:
            pool.tick()
            self._tick_at = now + _TICK
        if self._due(pool, now):
            self._exchange(pool, pool.wants)

    def _pause(self, pool: ProcessPool) -> float:
        """Seconds until there is something to do, unless a child says something before."""
        until = self._tick_at
        if pool.brings:
            until = min(until, self._again_at)
        if pool.hungry:
            until = min(until, self._poll_at)
        if pool.finished:
            until = min(until, self._settle_at)
        return max(0.0, until - monotonic())

    def _due(self, pool: ProcessPool, now: float) -> bool:
        """Tell whether to settle and claim: when a child is idle, or half of all of them."""
        # A file that refuses at once would be asked without a pause.
        if now < self._again_at:
            return False
        if pool.brings or (pool.finished and now >= self._settle_at):
            return True
        # The last claim found less than it wanted: asking at once would find nothing, either.
        if now < self._poll_at:
            return False
        return pool.hungry or 2 * pool.wants >= pool.room > 0

    def _exchange(self, pool: ProcessPool, wanted: int) -> bool:
        """Settle what is finished and claim what is wanted; whether the file answered."""
        finished = pool.finished
        begun = monotonic()
        try:
            exchange = self._store.exchange(
                finished,
                owner=self._lease.owner,
                queues=self._queues,
                limit=wanted,
                timeout=_EXCHANGE,
            )
        except StoreError as exc:
            self._failed(pool, exc)
            return False
        now = monotonic()
        self._settle_at = now + _SETTLE
        if len(exchange.jobs) < wanted:
            self._poll_at = now + _POLL
        # Only after the commit: after an error they are settled in the next exchange.
        pool.finished = []
        pool.take(exchange.jobs, elapsed=now - begun)
        if exchange.expired:
            say(logging.WARNING, "%d jobs were too late to be run", exchange.expired)
        for lost in exchange.lost:
            say(logging.WARNING, "a result of %s does not count: others have it now", lost.job.task)
        if self._work.drain and not (finished or exchange.jobs or pool.busy):
            self._stopping = self._stopping or self._drained()
        return True

    def _failed(self, pool: ProcessPool, exc: StoreError) -> None:
        """Try again later. What a lost answer may have claimed is given back."""
        say_once(self, logging.WARNING, "the queue cannot be used: %s", exc)
        self._poll_at = self._settle_at = self._again_at = monotonic() + _AGAIN
        if exc.maybe_written:
            with contextlib.suppress(StoreError):
                self._store.owners.release_all_but(self._lease.owner, pool.held, timeout=_EXCHANGE)

    def _drained(self) -> bool:
        with contextlib.suppress(StoreError):
            return self._store.is_empty(self._queues, timeout=_EXCHANGE)
        return False

    def _start_over(self, pool: ProcessPool) -> None:
        """The lease is lost: all that was held is others' now, and results do not count."""
        say(logging.ERROR, "this worker lost its lease: what it runs is given to others")
        # Before a new lease is taken: nothing of the old one may be settled under the new name.
        pool.retire()
        self._lease.stop()
        try:
            self._lease.start(timeout=_EXCHANGE)
        except StoreError as exc:
            self._failed(pool, exc)
        pool.start()

    # At the end.

    def _finish(self, pool: ProcessPool) -> int:
        """Let what runs come to its end, within the grace, and settle it."""
        pool.stop()
        until = monotonic() + self._work.grace
        # The lease is still renewed here, so that no other worker runs these jobs meanwhile.
        while pool.busy and monotonic() < until:
            pool.wait(_TICK)
            pool.tick()
            if pool.finished and monotonic() >= self._settle_at:
                self._exchange(pool, 0)
        cut = pool.kill() if pool.busy else []
        for job in cut:
            say(
                logging.WARNING,
                "a run of %s was killed after the grace: it is given back",
                job.task,
            )
        self._settle_all(pool)
        return 1 if cut else 0

    def _settle_all(self, pool: ProcessPool) -> None:
        until = monotonic() + _LAST
        while pool.finished and not self._exchange(pool, 0) and monotonic() < until:
            pool.wait(_AGAIN)

    def _end(self, pool: ProcessPool) -> None:
        """However it ended: no child stays behind, and what is held goes back."""
        if pool.busy:
            pool.kill()
        pool.close(_FAREWELL)
        with contextlib.suppress(StoreError):
            if self._lease.owner:
                self._lease.leave(timeout=_EXCHANGE)
        self._lease.close()
        self._store.close()


def _store(options: SQLiteOptions) -> SQLiteStore:
    from dispatchers.sqlite._options import open_store

    return open_store(options)
