"""`dispatchers worker` for Dramatiq: Dramatiq's own worker, with our tasks registered."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

from dramatiq import Worker
from dramatiq.worker import QUEUE_PREFETCH

from dispatchers import WorkerOptions, catalogue
from dispatchers.delivery import StopFlag

from ._dispatcher import DramatiqDispatcher
from ._registration import Registration, register

POLL_INTERVAL = 0.5
"""Seconds between two looks at what is left to do."""
LAST_GRACE = 2000
"""Milliseconds that the threads of consumers, which look up once a second, get to end."""
IDLE_LOOKS = 2
"""Looks that must find nothing: a message may be between two queues at one of them."""


class DramatiqWorker:
    """Dramatiq's worker in this process, with a thread for each run.

    Args:
        dispatcher: The dispatcher that it works for.

        options: How to run.
    """

    def __init__(self, dispatcher: DramatiqDispatcher, options: WorkerOptions) -> None:
        self._dispatcher = dispatcher
        self._options = options
        self._broker: Any = dispatcher.broker.dramatiq
        self._stop = StopFlag()

    def run(self) -> int:
        """Work until stopped."""
        _quiet_pika()
        register(self._broker, self._dispatcher)
        # Dramatiq's own program does this: middleware such as Prometheus' begins with it.
        self._broker.emit_after("process_boot")
        worker = Worker(
            self._broker, queues=set(self._queues()), worker_threads=self._options.concurrency
        )
        # Two for each thread are usual: one would wait here while another worker is free.
        worker.queue_prefetch = QUEUE_PREFETCH or self._options.concurrency
        worker.start()
        try:
            self._wait()
        finally:
            gave_up = self._end(worker)
        return int(gave_up)

    def _end(self, worker: Any) -> bool:
        """Let runs end within the grace, and give back those that do not; tell if some do not."""
        context = self._registration().context
        context.stopping.set()
        for thread in worker.workers:
            thread.stop()
        until = monotonic() + self._options.grace
        for thread in worker.workers:
            thread.join(max(0.0, until - monotonic()))
        context.is_over = True
        # Before the broker is closed: what is settled meanwhile needs the connection.
        worker.stop(timeout=LAST_GRACE)
        self._broker.close()
        return bool(context.running)

    def stop(self) -> None:
        """Finish what runs, then end; what runs longer than the grace goes back."""
        self._stop.set()

    def _wait(self) -> None:
        """Wait until stopped, or with `drain` until nothing is left."""
        empty = 0
        while empty < IDLE_LOOKS and not self._stop.wait(POLL_INTERVAL):
            if self._options.drain:
                empty = empty + 1 if self._is_idle() else 0

    def _queues(self) -> list[str]:
        if self._options.queues:
            return list(self._options.queues)
        tasks = [task.policy.queue for task in catalogue.all() if task.policy.queue]
        return list(dict.fromkeys([*self._dispatcher.broker.own, *tasks]))

    def _registration(self) -> Registration:
        return next(m for m in self._broker.middleware if isinstance(m, Registration))

    def _is_idle(self) -> bool:
        held = any(unsettled.held for unsettled in self._registration().unsettled.values())
        try:
            return not held and not self._waiting()
        except Exception:  # noqa: BLE001 - a broker that does not answer may hold something
            return False

    def _waiting(self) -> int:
        dispatcher = self._dispatcher
        return dispatcher.publisher.waiting(self._queues(), dispatcher.options.deadline)


def _quiet_pika() -> None:
    """Do as Dramatiq's own program does: pika tells of each connection's every step at INFO."""
    log = logging.getLogger("pika")
    if log.level == logging.NOTSET:  # a level that is set is wanted
        log.setLevel(logging.WARNING)
