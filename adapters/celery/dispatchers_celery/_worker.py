"""`dispatchers worker` for Celery: Celery's own worker, with our tasks registered."""

from __future__ import annotations

import os
import socket
import threading
from time import sleep
from typing import Any

from celery.worker import state

from dispatchers import WorkerOptions

from ._dispatcher import CeleryDispatcher
from ._shutdown import shutdown
from ._taking import take_safely
from ._tasks import register

__all__ = ["CeleryWorker"]

LOOK = 0.5
"""Seconds between two looks at what is left to do."""


class CeleryWorker:
    """Celery's worker in this process, its pool in children.

    Args:
        dispatcher: Whose work it runs.

        options: How.
    """

    def __init__(self, dispatcher: CeleryDispatcher, options: WorkerOptions) -> None:
        self._dispatcher = dispatcher
        self._options = options
        self._app = dispatcher.application.app
        self._stopped = False

    def run(self) -> int:
        """Work until stopped."""
        register(self._app, self._dispatcher)
        if self._dispatcher.application.transport == "redis":
            take_safely(self._app)
        worker = self._app.Worker(
            # A second worker of one name would answer for the first, and take its mailbox.
            hostname=f"dispatchers-{os.getpid()}@{socket.gethostname()}",
            concurrency=self._options.concurrency,
            queues=self._queues() or None,
            loglevel="WARNING",
            without_gossip=True,
            without_mingle=True,
            optimization="fair",
            prefetch_multiplier=1,
        )
        if self._options.drain:
            threading.Thread(target=self._drained, daemon=True).start()
        if self._stopped:
            return 0
        worker.start()
        return int(worker.exitcode or 0)

    def stop(self) -> None:
        """Finish what runs, then end; what runs longer than the grace goes back."""
        self._stopped = True
        state.should_stop = 0
        shutdown.begin()
        threading.Thread(target=self._hurry, daemon=True).start()

    def _hurry(self) -> None:
        sleep(self._options.grace)
        state.should_terminate = 0

    def _queues(self) -> list[str]:
        if self._options.queues:
            return list(self._options.queues)
        own = self._dispatcher.options
        return [name for name in dict.fromkeys((own.queue, *own.queues)) if name]

    def _drained(self) -> None:
        """Stop when queues and worker have been empty at two looks, one after the other."""
        empty = 0
        while empty < 2:  # noqa: PLR2004 - a message may be between queue and worker
            sleep(LOOK)
            empty = empty + 1 if not (self._busy() or self._waiting()) else 0
        self.stop()

    def _busy(self) -> bool:
        return bool(state.reserved_requests or state.active_requests)

    def _waiting(self) -> int:
        names = self._queues() or sorted(self._dispatcher.application.known)
        with self._app.connection_for_read() as connection:
            channel: Any = connection.channel()
            return sum(_size(channel, name) for name in names)


def _size(channel: Any, name: str) -> int:
    try:
        return int(channel.queue_declare(queue=name, passive=True).message_count)
    except Exception:  # noqa: BLE001 - a queue that is not there holds nothing
        return 0
