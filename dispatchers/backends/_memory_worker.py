"""The worker of `memory`: threads that claim, run and settle, and the way to stop them."""

from __future__ import annotations

import importlib
import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING

from dispatchers._dispatch.error_mapping import type_name
from dispatchers._dispatch.worker_protocol import WorkerOptions
from dispatchers._runtime.log import say
from dispatchers._worker.signals import StopFlag, stopped_by_signals
from dispatchers.backends._memory_broker import LOOK

if TYPE_CHECKING:
    from typing import Any as MemoryDispatcher

__all__ = ["MemoryWorker"]


class MemoryWorker:
    """Runs the work of one `MemoryDispatcher` in `concurrency` threads."""

    def __init__(self, dispatcher: MemoryDispatcher, options: WorkerOptions) -> None:
        self._dispatcher = dispatcher
        self._options = options
        self._stop = StopFlag()

    def run(self) -> int:
        """Work until stopped, by `stop`, SIGTERM or SIGINT; with `drain`, until nothing waits.

        Returns:
            0; 1 where handlers were still running after the grace.
        """
        for module in self._options.modules:
            importlib.import_module(module)
        threads = [
            threading.Thread(target=self._work, name=f"dispatchers-memory-{n}", daemon=True)
            for n in range(self._options.concurrency)
        ]
        with stopped_by_signals(self.stop, patient=True):
            for thread in threads:
                thread.start()
            self._wait()
        return self._joined(threads)

    def _wait(self) -> None:
        """Until `stop`; with looks, as a signal that another thread gets does not wake this one."""
        while not self._stop.wait(LOOK):
            pass

    def stop(self) -> None:
        """Take no more work, finish what runs, then return from `run`."""
        self._stop.set()

    def _joined(self, threads: list[threading.Thread]) -> int:
        with self._dispatcher._queue.changed:
            self._dispatcher._queue.changed.notify_all()
        until = monotonic() + self._options.grace
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))
        return int(any(thread.is_alive() for thread in threads))

    def _work(self) -> None:
        queue = self._dispatcher._queue
        while not self._stop.is_set():
            if self._step():
                continue
            if self._options.drain and queue.is_empty(self._options.queues):
                self.stop()
            else:
                queue.wait(self._options.queues)

    def _step(self) -> bool:
        delivery = self._dispatcher.claim(self._options.queues)
        if delivery is None:
            return False
        try:
            self._dispatcher.run(delivery, stopping=self._stop.is_set)
        except BaseException as exc:  # noqa: BLE001 - a task that exits must not end the worker
            say(logging.ERROR,
                "run of %s was ended by %s: it is delivered again",
                delivery.work.task, type_name(exc),
                extra={"request_id": delivery.work.id},
            )  # fmt: skip
        return True
