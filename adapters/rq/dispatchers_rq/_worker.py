"""`dispatchers worker` for RQ: some of RQ's workers, each a process, and one to look after them."""

from __future__ import annotations

import logging
import mmap
import os
import signal
from collections.abc import Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from rq.version import VERSION

from dispatchers import ConfigurationError, WorkerOptions

if TYPE_CHECKING:
    from ._dispatcher import RQDispatcher

__all__ = ["RQWorkers"]

log = logging.getLogger("dispatchers")
LOOK = 0.1
"""Seconds between two looks at the processes."""
PAUSE = 1.0
"""Seconds before a process is started again that has ended by itself: no hot loop."""
LAST = 5.0
"""Seconds that a process gets to give its work back, when its grace is over."""


def refuse_unknown(version: str) -> None:
    """RQ 3 calls its workers otherwise, and would run nothing while deliveries are counted.

    Raises:
        ConfigurationError: It is that, or later.
    """
    if int(version.partition(".")[0]) > NEWEST:
        raise ConfigurationError(
            f"this worker knows RQ 2, and RQ {version} is installed: pip install 'rq>=2.6,<3'"
        )


NEWEST = 2
"""The major version of RQ whose `Worker` this one extends."""


class RQWorkers:
    """Workers of RQ's in processes of their own.

    Args:
        dispatcher: Whose work they run.

        options: How.

    Raises:
        ConfigurationError: This RQ works otherwise than those that the worker was made for.
    """

    def __init__(self, dispatcher: RQDispatcher, options: WorkerOptions) -> None:
        refuse_unknown(VERSION)
        self._dispatcher = dispatcher
        self._options = options
        self._stopping = mmap.mmap(-1, 1)  # shared with the processes, and with theirs
        self._stopped_at: float | None = None
        self._told = False
        self._processes: set[int] = set()

    def run(self) -> int:
        """Work until stopped."""
        queues = self._queues()
        for _ in range(self._options.concurrency):
            self._start(queues)
        while self._processes:
            self._look(queues)
            sleep(LOOK)
        return 0

    def stop(self) -> None:
        """Finish what runs, then end; what runs longer than the grace goes back."""
        self._stopping[0] = 1
        if self._stopped_at is None:
            self._stopped_at = monotonic()

    def stops(self) -> bool:
        """For `current_run().should_stop`, in any of the processes."""
        return self._stopping[0] == 1

    def _queues(self) -> list[str]:
        if self._options.queues:
            return list(self._options.queues)
        return self._dispatcher.queues(timeout=self._dispatcher.options.deadline)

    def _start(self, queues: Sequence[str]) -> None:
        process = os.fork()
        if process == 0:
            self._work(queues)
        self._processes.add(process)

    def _work(self, queues: Sequence[str]) -> None:
        """All that a process does."""
        from ._rq_worker import HorseWorker, SimpleWorker

        status = 1
        try:
            kind = HorseWorker if self._dispatcher.options.horses else SimpleWorker
            worker = kind(self._dispatcher, queues, stopping=self.stops)
            worker.work(burst=self._options.drain, logging_level="WARNING")
            status = 0 if worker.ended_well else 1
        except (RedisError, OSError) as exc:
            log.error("a worker of RQ's got no answer from Redis: %s", type(exc).__name__)  # noqa: TRY400
        except Exception:
            log.exception("a worker of RQ's has failed")
        finally:
            os._exit(status)

    def _look(self, queues: Sequence[str]) -> None:
        for process in sorted(self._processes):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                self._processes.discard(process)
                self._ended(status, queues)
        self._hurry()

    def _ended(self, status: int, queues: Sequence[str]) -> None:
        """Another in its place, unless it has ended because it should."""
        if self._stopped_at is not None or (self._options.drain and status == 0):
            return
        code = os.waitstatus_to_exitcode(status)
        log.warning("a worker process has ended with %d: another is started", code)
        sleep(PAUSE)
        self._start(queues)

    def _hurry(self) -> None:
        """When the grace is over: give the work back; then it comes back with its lease."""
        if self._stopped_at is None:
            return
        over = monotonic() - self._stopped_at - self._options.grace
        if over > LAST:
            self._signal(signal.SIGKILL)
        elif over > 0 and not self._told:
            self._told = True
            self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            os.kill(process, number)
