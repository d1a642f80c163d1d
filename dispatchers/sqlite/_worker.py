"""The worker of a file: a process that holds the jobs, and children that run them.

The worker owns the connection and the lease, claims, settles and keeps time; it runs no task
itself, so that no handler can hold it up or take it down. Its children run the tasks, and can be
killed. One transaction settles what they have done and claims what they will do next.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Generator
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

from dispatchers._errors import ConfigurationError
from dispatchers._stores import dead_letters
from dispatchers._worker import WorkerOptions

from ._crew import BrokenError, Crew
from ._errors import StoreError
from ._heart import Heart
from ._process import setup_frame
from ._store import SQLiteStore

if TYPE_CHECKING:
    from dispatchers.backends.sqlite import SQLiteOptions

__all__ = ["SQLiteWorker"]

log = logging.getLogger("dispatchers")

# Seconds between two looks at an empty queue, and at the clock.
_POLL = 0.025
_TICK = 0.05

# Seconds after which a finished job is settled although nobody asks for another.
_SETTLE = 0.02

# Seconds that one exchange with the file waits for others, and between two that failed.
_EXCHANGE = 2.0
_AGAIN = 0.2

# Seconds for the first and the last contact with the file, and for idle children to end.
_LAST = 10.0
_FAREWELL = 2.0


class SQLiteWorker:
    """Runs the work of one file in `concurrency` child processes.

    Args:
        options: The dispatcher's.

        work: What is asked of the worker.

    Raises:
        ConfigurationError: The system has no pipes that can be waited for.
    """

    def __init__(self, options: SQLiteOptions, work: WorkerOptions) -> None:
        if sys.platform == "win32":
            raise ConfigurationError("the worker of 'sqlite' needs a POSIX system: run it on one")
        self._options = options
        self._work = work
        self._queues = work.queues or None
        self._store = _store(options)
        self._heart = Heart(_store(options), self._wake)
        self._crew: Crew | None = None
        self._stopping = False
        self._poll_at = 0.0
        self._settle_at = 0.0

    def run(self) -> int:
        """Work until stopped, by `stop`, SIGTERM or SIGINT; with `drain`, until nothing is left.

        Returns:
            0 after a graceful stop; 1 where handlers had to be killed after the grace, or where the
            children could not do their work.
        """
        letters = self._options.dead_letters
        self._crew = crew = Crew(
            setup_frame(self._options, self._work.modules),
            self._work.concurrency,
            None if letters is None else dead_letters(letters),
        )
        try:
            with _signals(self.stop):
                self._heart.start(timeout=_LAST)
                crew.start()
                self._serve(crew)
                return self._finish(crew)
        except (BrokenError, StoreError) as exc:
            log.error("the worker ends: %s", exc)  # noqa: TRY400 - the words say enough
            return 1
        finally:
            self._end(crew)

    def stop(self) -> None:
        """Take no more work, finish what runs, then return from `run`. Safe in signal handlers."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        if self._crew is not None:
            self._crew.wake()

    # At work.

    def _serve(self, crew: Crew) -> None:
        tick_at = 0.0
        while not self._stopping:
            crew.wait(self._pause(crew, tick_at))
            if self._heart.lost:
                self._start_over(crew)
            if (now := monotonic()) >= tick_at:
                crew.tick()
                tick_at = now + _TICK
            if self._due(crew, now):
                self._exchange(crew, crew.wants)

    def _pause(self, crew: Crew, tick_at: float) -> float:
        """Seconds until there is something to do, unless a child says something before."""
        until = tick_at
        if crew.hungry:
            until = min(until, self._poll_at)
        if crew.finished:
            until = min(until, self._settle_at)
        return max(0.0, until - monotonic())

    def _due(self, crew: Crew, now: float) -> bool:
        """Whether it is time to settle and claim: when a child, or half of all hands, are idle."""
        if crew.finished and now >= self._settle_at:
            return True
        if now < self._poll_at:
            return False
        return crew.hungry or 2 * crew.wants >= crew.room > 0

    def _exchange(self, crew: Crew, wanted: int) -> bool:
        """Settle what is finished and claim what is wanted; whether the file answered."""
        finished = crew.finished
        begun = monotonic()
        try:
            exchange = self._store.exchange(
                finished,
                owner=self._heart.owner,
                queues=self._queues,
                limit=wanted,
                timeout=_EXCHANGE,
            )
        except StoreError as exc:
            self._failed(crew, exc)
            return False
        now = monotonic()
        self._settle_at = now + _SETTLE
        if len(exchange.jobs) < wanted:
            self._poll_at = now + _POLL
        crew.finished = []
        crew.take(exchange.jobs, elapsed=now - begun)
        if exchange.expired:
            log.warning("%d jobs were too late to be run", exchange.expired)
        for lost in exchange.lost:
            log.warning("a result of %s does not count: others have it now", lost.job.task)
        if self._work.drain and not (finished or exchange.jobs or crew.busy):
            self._stopping = self._stopping or self._drained()
        return True

    def _failed(self, crew: Crew, exc: StoreError) -> None:
        """Try again later. What a lost answer may have claimed is given back."""
        log.warning("the queue did not answer: %s", exc)
        self._poll_at = self._settle_at = monotonic() + _AGAIN
        if exc.maybe_written:
            with contextlib.suppress(StoreError):
                self._store.owners.release_all_but(self._heart.owner, crew.held, timeout=_EXCHANGE)

    def _drained(self) -> bool:
        with contextlib.suppress(StoreError):
            return self._store.is_empty(self._queues, timeout=_EXCHANGE)
        return False

    def _start_over(self, crew: Crew) -> None:
        """The lease is lost: all that was held is others' now, and results do not count."""
        log.error("this worker lost its lease: what it runs is given to others")
        crew.retire()
        self._heart.stop()
        try:
            self._heart.start(timeout=_EXCHANGE)
        except StoreError as exc:
            self._failed(crew, exc)
        crew.start()

    # At the end.

    def _finish(self, crew: Crew) -> int:
        """Let what runs come to its end, within the grace, and settle it."""
        crew.stop()
        until = monotonic() + self._work.grace
        while crew.busy and monotonic() < until:
            crew.wait(_TICK)
            crew.tick()
            if crew.finished and monotonic() >= self._settle_at:
                self._exchange(crew, 0)
        cut = crew.kill() if crew.busy else []
        for job in cut:
            log.warning("a run of %s was killed after the grace: it is given back", job.task)
        self._settle_all(crew)
        return 1 if cut else 0

    def _settle_all(self, crew: Crew) -> None:
        until = monotonic() + _LAST
        while crew.finished and not self._exchange(crew, 0) and monotonic() < until:
            crew.wait(_AGAIN)

    def _end(self, crew: Crew) -> None:
        """However it ended: no child stays behind, and what is held goes back."""
        if crew.busy:
            crew.kill()
        crew.close(_FAREWELL)
        with contextlib.suppress(StoreError):
            if self._heart.owner:
                self._heart.leave(timeout=_EXCHANGE)
        self._heart.close()
        self._store.close()


def _store(options: SQLiteOptions) -> SQLiteStore:
    from dispatchers.backends.sqlite import open_store

    return open_store(options)


@contextlib.contextmanager
def _signals(stop: Any) -> Generator[None]:
    """Have SIGTERM and SIGINT call `stop`, the second time end at once; on the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def tell(number: int, frame: FrameType | None) -> None:
        nonlocal told
        del number, frame
        if told:
            raise KeyboardInterrupt
        told = True
        stop()

    before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
