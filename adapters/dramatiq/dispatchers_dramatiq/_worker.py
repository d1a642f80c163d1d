"""`dispatchers worker` for Dramatiq: Dramatiq's own worker, with our tasks registered."""

from __future__ import annotations

import logging
import threading
from typing import Any

from dramatiq import Worker

from dispatchers import WorkerOptions

from ._actors import Registration, register
from ._dispatcher import DramatiqDispatcher

__all__ = ["DramatiqWorker"]

LOOK = 0.5
"""Seconds between two looks at what is left to do."""


class DramatiqWorker:
    """Dramatiq's worker in this process, with a thread for each run.

    Args:
        dispatcher: Whose work it runs.

        options: How.
    """

    def __init__(self, dispatcher: DramatiqDispatcher, options: WorkerOptions) -> None:
        self._dispatcher = dispatcher
        self._options = options
        self._broker: Any = dispatcher.place.broker
        self._stop = threading.Event()  # never waited for under its lock: safe in handlers

    def run(self) -> int:
        """Work until stopped."""
        _quiet_pika()
        register(self._broker, self._dispatcher)
        self._broker.emit_after("process_boot")
        worker = Worker(
            self._broker,
            queues=set(self._queues()),
            worker_threads=self._options.concurrency,
        )
        worker.start()
        try:
            self._wait()
        finally:
            worker.stop(timeout=int(self._options.grace * 1000))
            self._broker.close()
        return 0

    def stop(self) -> None:
        """Finish what runs, then end; what runs longer than the grace goes back."""
        self._stop.set()

    def _wait(self) -> None:
        """Until stopped; with `drain`, until all was empty at two looks, one after the other."""
        empty = 0
        while empty < 2 and not self._stop.wait(LOOK):  # noqa: PLR2004 - one may be between them
            if self._options.drain:
                empty = empty + 1 if self._is_idle() else 0

    def _queues(self) -> list[str]:
        from dispatchers import catalogue

        if self._options.queues:
            return list(self._options.queues)
        tasks = [task.policy.queue for task in catalogue.all() if task.policy.queue]
        return list(dict.fromkeys([*self._dispatcher.place.own, *tasks]))

    def _is_idle(self) -> bool:
        registration = next(m for m in self._broker.middleware if isinstance(m, Registration))
        held = any(line.held for line in registration.lines.values())
        try:
            return not held and not self._dispatcher.waiting(self._queues())
        except Exception:  # noqa: BLE001 - a broker that does not answer may hold something
            return False


def _quiet_pika() -> None:
    """As Dramatiq's own program does: pika tells of each connection's every step at INFO."""
    log = logging.getLogger("pika")
    if log.level == logging.NOTSET:  # who set one wants it
        log.setLevel(logging.WARNING)
